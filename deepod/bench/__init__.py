"""Benchmarks: comparison of detectors on datasets with known anomalies.

They are also the commands ``deepod bench`` and ``deepod report``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepod.bench.reporting import report
    from deepod.bench.rows import read
    from deepod.bench.runner import Dataset, find_data, run

# Imported on first use: the command line shows its help without torch.
_LAZY = {
    "Dataset": "runner",
    "find_data": "runner",
    "read": "rows",
    "report": "reporting",
    "run": "runner",
}

__all__ = ["Dataset", "find_data", "read", "report", "run"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"deepod.bench.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
