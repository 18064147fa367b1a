"""Methods that learn to tell rows from rows that were made of them."""
