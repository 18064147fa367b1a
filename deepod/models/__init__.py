"""The methods, one file each; import them from ``deepod``."""
