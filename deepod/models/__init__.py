"""The methods, one file each: ``from deepod.models import PLAD`` is ``from deepod import PLAD``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepod._registry import DETECTORS, detector_class

if TYPE_CHECKING:
    from deepod.models.density.neighbors import Neighbors
    from deepod.models.one_class.deep_svdd import DeepSVDD
    from deepod.models.one_class.iae_lstm_kl import IAELSTMKL
    from deepod.models.one_class.iaead import IAEAD
    from deepod.models.perturbation.anorand import AnoRand
    from deepod.models.perturbation.plad import PLAD
    from deepod.models.reconstruction.autoencoder import AutoEncoder
    from deepod.models.reconstruction.dae import DAE
    from deepod.models.reconstruction.ns_ae import NSAE
    from deepod.models.self_supervised.geom import GEOM
    from deepod.models.self_supervised.goad import GOAD
    from deepod.models.self_supervised.icl import ICL
    from deepod.models.self_supervised.neutral import NeuTraL

__all__ = [
    "DAE",
    "GEOM",
    "GOAD",
    "IAEAD",
    "IAELSTMKL",
    "ICL",
    "NSAE",
    "PLAD",
    "AnoRand",
    "AutoEncoder",
    "DeepSVDD",
    "Neighbors",
    "NeuTraL",
]

if not TYPE_CHECKING:  # type checkers are to see that a misspelt name is none

    def __getattr__(name: str) -> Any:
        if name not in DETECTORS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = detector_class(name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
