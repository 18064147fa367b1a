"""What detectors are put through: damaged files, killed processes, a thousand fits."""
