"""Compare detectors on datasets: ``deepod bench`` and ``deepod report``."""

from deepod.bench.reporting import report
from deepod.bench.rows import read
from deepod.bench.runner import Dataset, find_data, run

__all__ = ["Dataset", "find_data", "read", "report", "run"]
