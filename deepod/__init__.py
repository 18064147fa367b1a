"""Deep anomaly detection that behaves like scikit-learn.

>>> from deepod import PLAD, list_detectors
>>> [d["name"] for d in list_detectors()]
['PLAD']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepod._base import BaseDetector
    from deepod.adapter import SklearnOutlierAdapter
    from deepod.models.plad import PLAD

__version__ = "1.0.0.dev0"

# The registry: one line per method. Imported on first use, so that ``import deepod`` is instant.
DETECTORS = {
    "PLAD": "deepod.models.plad",
}
_LAZY = DETECTORS | {
    "BaseDetector": "deepod._base",
    "SklearnOutlierAdapter": "deepod.adapter",
}

__all__ = ["PLAD", "BaseDetector", "SklearnOutlierAdapter", "__version__", "list_detectors"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def list_detectors() -> list[dict[str, Any]]:
    """Describe every detector.

    Returns
    -------
    list of dict
        With keys ``name``, ``family``, ``inputs`` (tuple of "table", "windows", "images"),
        ``paper`` and ``detector`` (the class).
    """
    detectors = [getattr(import_module(module), name) for name, module in DETECTORS.items()]
    return [
        {
            "name": detector.__name__,
            "family": detector.family,
            "inputs": detector.inputs,
            "paper": detector.paper,
            "detector": detector,
        }
        for detector in detectors
    ]
