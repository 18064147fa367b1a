"""Methods that estimate how many normal rows are near: by distance, density or energy."""
