"""Compare detectors on datasets with known anomalies: ``deepod bench`` and ``deepod report``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepod.bench.rows import read
    from deepod.bench.runner import Dataset, find_data, run

__all__ = ["Dataset", "find_data", "read", "run"]

_MODULES = {"Dataset": "runner", "find_data": "runner", "read": "rows", "run": "runner"}


def __getattr__(name: str) -> Any:  # the command line's help need not wait for torch
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
