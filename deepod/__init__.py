"""Deep anomaly detection that behaves like scikit-learn.

>>> from deepod import PLAD, list_detectors
>>> [d["name"] for d in list_detectors() if d["family"] == "neighbors"]
['LocalReconstruction', 'Neighbors']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deepod._registry import DETECTORS, TRUSTED_TYPES, __version__, list_detectors

if TYPE_CHECKING:
    from deepod import bench as bench
    from deepod import callbacks as callbacks
    from deepod import continual as continual
    from deepod import data as data
    from deepod import datasets as datasets
    from deepod import distributed as distributed
    from deepod import graphs as graphs
    from deepod import metrics as metrics
    from deepod import models as models
    from deepod import networks as networks
    from deepod import onnx as onnx
    from deepod import plotting as plotting
    from deepod import review as review
    from deepod import series as series
    from deepod import sources as sources
    from deepod._base import BaseDetector
    from deepod._storage.models import load
    from deepod._storage.tensors import InvalidFileError
    from deepod.adapter import SklearnOutlierAdapter
    from deepod.ensemble import Consensus, SeedEnsemble, fit_many
    from deepod.models import (
        ADGAN,
        DAE,
        DAGMM,
        DCN,
        DROCC,
        DSEBM,
        E2EAE,
        GEOM,
        GOAD,
        HRN,
        IAEAD,
        IAELSTMKL,
        ICL,
        IGD,
        LSA,
        NSAE,
        OCGAN,
        PLAD,
        SCADN,
        TQM,
        VAE,
        AnoGAN,
        AnoRand,
        AutoEncoder,
        DeepSVDD,
        GaussianAD,
        IsolationForest,
        LocalReconstruction,
        MemAE,
        Neighbors,
        NeuTraL,
        PixelCNN,
    )
    from deepod.search import StackedSearchCV

# Imported on first use, so that ``import deepod`` is instant.
_CLASSES_AND_FUNCTIONS = DETECTORS | {
    "BaseDetector": "deepod._base",
    "Consensus": "deepod.ensemble",
    "InvalidFileError": "deepod._storage.tensors",
    "SeedEnsemble": "deepod.ensemble",
    "SklearnOutlierAdapter": "deepod.adapter",
    "StackedSearchCV": "deepod.search",
    "fit_many": "deepod.ensemble",
    "load": "deepod._storage.models",
}
_MODULES = {
    *("bench", "callbacks", "continual", "data", "datasets", "distributed", "graphs", "metrics"),
    *("models", "networks", "onnx", "plotting", "review", "series", "sources"),
}

__all__ = [
    "ADGAN",
    "DAE",
    "DAGMM",
    "DCN",
    "DROCC",
    "DSEBM",
    "E2EAE",
    "GEOM",
    "GOAD",
    "HRN",
    "IAEAD",
    "IAELSTMKL",
    "ICL",
    "IGD",
    "LSA",
    "NSAE",
    "OCGAN",
    "PLAD",
    "SCADN",
    "TQM",
    "TRUSTED_TYPES",
    "VAE",
    "AnoGAN",
    "AnoRand",
    "AutoEncoder",
    "BaseDetector",
    "Consensus",
    "DeepSVDD",
    "GaussianAD",
    "InvalidFileError",
    "IsolationForest",
    "LocalReconstruction",
    "MemAE",
    "Neighbors",
    "NeuTraL",
    "PixelCNN",
    "SeedEnsemble",
    "SklearnOutlierAdapter",
    "StackedSearchCV",
    "__version__",
    "fit_many",
    "list_detectors",
    "load",
]

if not TYPE_CHECKING:  # type checkers are to see that a misspelt name is none

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"deepod.{name}")
        if name not in _CLASSES_AND_FUNCTIONS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_CLASSES_AND_FUNCTIONS[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
