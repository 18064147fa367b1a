"""Deep anomaly detection that behaves like scikit-learn.

>>> from deepod import PLAD, list_detectors
>>> [d["name"] for d in list_detectors()]
['AnoRand', 'AutoEncoder', 'DAE', 'DeepSVDD', 'IAEAD', 'IAELSTMKL', 'NSAE', 'PLAD']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepod._base import BaseDetector
    from deepod._files import InvalidFileError
    from deepod._persistence import load
    from deepod.adapter import SklearnOutlierAdapter
    from deepod.ensemble import SeedEnsemble, fit_many
    from deepod.models.anorand import AnoRand
    from deepod.models.autoencoder import AutoEncoder
    from deepod.models.dae import DAE
    from deepod.models.deep_svdd import DeepSVDD
    from deepod.models.iae_lstm_kl import IAELSTMKL
    from deepod.models.iaead import IAEAD
    from deepod.models.ns_ae import NSAE
    from deepod.models.plad import PLAD
    from deepod.search import StackedSearchCV

__version__ = "1.0.0.dev0"

# The registry: one line per method. Imported on first use, so that ``import deepod`` is instant.
DETECTORS = {
    "AnoRand": "deepod.models.anorand",
    "AutoEncoder": "deepod.models.autoencoder",
    "DAE": "deepod.models.dae",
    "DeepSVDD": "deepod.models.deep_svdd",
    "IAEAD": "deepod.models.iaead",
    "IAELSTMKL": "deepod.models.iae_lstm_kl",
    "NSAE": "deepod.models.ns_ae",
    "PLAD": "deepod.models.plad",
}
_LAZY = DETECTORS | {
    "BaseDetector": "deepod._base",
    "SklearnOutlierAdapter": "deepod.adapter",
    "SeedEnsemble": "deepod.ensemble",
    "StackedSearchCV": "deepod.search",
    "fit_many": "deepod.ensemble",
    "InvalidFileError": "deepod._files",
    "load": "deepod._persistence",
}

__all__ = [
    "DAE",
    "IAEAD",
    "IAELSTMKL",
    "NSAE",
    "PLAD",
    "AnoRand",
    "AutoEncoder",
    "BaseDetector",
    "DeepSVDD",
    "InvalidFileError",
    "SeedEnsemble",
    "SklearnOutlierAdapter",
    "StackedSearchCV",
    "__version__",
    "fit_many",
    "list_detectors",
    "load",
]


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
