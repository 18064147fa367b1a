"""Settings of papers and the figures they print, one file each; ``python -m benchmarks.papers``."""
