"""Benchmarks: datasets, protocols and detectors are separate files; results are JSON lines."""
