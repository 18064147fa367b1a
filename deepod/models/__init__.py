"""The methods, one file each: ``from deepod.models import PLAD`` is ``from deepod import PLAD``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepod._registry import DETECTORS, detector_class

if TYPE_CHECKING:
    from deepod.models.adversarial.adgan import ADGAN
    from deepod.models.adversarial.anogan import AnoGAN
    from deepod.models.adversarial.ocgan import OCGAN
    from deepod.models.density.dagmm import DAGMM
    from deepod.models.density.dsebm import DSEBM
    from deepod.models.density.gaussian_ad import GaussianAD
    from deepod.models.density.isolation_forest import IsolationForest
    from deepod.models.density.local_reconstruction import LocalReconstruction
    from deepod.models.density.neighbors import Neighbors
    from deepod.models.density.pixel_cnn import PixelCNN
    from deepod.models.density.tqm import TQM
    from deepod.models.one_class.deep_svdd import DeepSVDD
    from deepod.models.one_class.drocc import DROCC
    from deepod.models.one_class.hrn import HRN
    from deepod.models.one_class.iae_lstm_kl import IAELSTMKL
    from deepod.models.one_class.iaead import IAEAD
    from deepod.models.one_class.igd import IGD
    from deepod.models.perturbation.anorand import AnoRand
    from deepod.models.perturbation.plad import PLAD
    from deepod.models.reconstruction.autoencoder import AutoEncoder
    from deepod.models.reconstruction.dae import DAE
    from deepod.models.reconstruction.dcn import DCN
    from deepod.models.reconstruction.e2e_ae import E2EAE
    from deepod.models.reconstruction.lsa import LSA
    from deepod.models.reconstruction.memae import MemAE
    from deepod.models.reconstruction.ns_ae import NSAE
    from deepod.models.reconstruction.vae import VAE
    from deepod.models.self_supervised.geom import GEOM
    from deepod.models.self_supervised.goad import GOAD
    from deepod.models.self_supervised.icl import ICL
    from deepod.models.self_supervised.neutral import NeuTraL
    from deepod.models.self_supervised.scadn import SCADN

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
    "VAE",
    "AnoGAN",
    "AnoRand",
    "AutoEncoder",
    "DeepSVDD",
    "GaussianAD",
    "IsolationForest",
    "LocalReconstruction",
    "MemAE",
    "Neighbors",
    "NeuTraL",
    "PixelCNN",
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
