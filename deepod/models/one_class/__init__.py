"""Methods that draw a boundary around the normal rows."""
