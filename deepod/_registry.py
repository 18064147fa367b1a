"""The version, and the tables of the detectors with one line for each."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "1.0.0"

# The registry: one line per method. Imported on first use, so that ``import deepod`` is instant.
DETECTORS = {
    "ADGAN": "deepod.models.adversarial.adgan",
    "AnoGAN": "deepod.models.adversarial.anogan",
    "AnoRand": "deepod.models.perturbation.anorand",
    "AutoEncoder": "deepod.models.reconstruction.autoencoder",
    "DAE": "deepod.models.reconstruction.dae",
    "DAGMM": "deepod.models.density.dagmm",
    "DCN": "deepod.models.reconstruction.dcn",
    "DROCC": "deepod.models.one_class.drocc",
    "DSEBM": "deepod.models.density.dsebm",
    "DeepSVDD": "deepod.models.one_class.deep_svdd",
    "E2EAE": "deepod.models.reconstruction.e2e_ae",
    "GEOM": "deepod.models.self_supervised.geom",
    "GOAD": "deepod.models.self_supervised.goad",
    "GaussianAD": "deepod.models.density.gaussian_ad",
    "HRN": "deepod.models.one_class.hrn",
    "IAEAD": "deepod.models.one_class.iaead",
    "IAELSTMKL": "deepod.models.one_class.iae_lstm_kl",
    "ICL": "deepod.models.self_supervised.icl",
    "IGD": "deepod.models.one_class.igd",
    "IsolationForest": "deepod.models.density.isolation_forest",
    "LSA": "deepod.models.reconstruction.lsa",
    "LocalReconstruction": "deepod.models.density.local_reconstruction",
    "MemAE": "deepod.models.reconstruction.memae",
    "NSAE": "deepod.models.reconstruction.ns_ae",
    "Neighbors": "deepod.models.density.neighbors",
    "NeuTraL": "deepod.models.self_supervised.neutral",
    "OCGAN": "deepod.models.adversarial.ocgan",
    "PLAD": "deepod.models.perturbation.plad",
    "PixelCNN": "deepod.models.density.pixel_cnn",
    "SCADN": "deepod.models.self_supervised.scadn",
    "TQM": "deepod.models.density.tqm",
    "VAE": "deepod.models.reconstruction.vae",
}
# Detectors of time series.
SERIES = {
    "CLSTM": "deepod.series.c_lstm",
    "CNNVAELSTM": "deepod.series.cnn_vae_lstm",
    "LSTMAD": "deepod.series.lstm_ad",
    "LSTMAE": "deepod.series.lstm_ae",
    "LSTMVAE": "deepod.series.lstm_vae",
    "ReRe": "deepod.series.rere",
    "RidgeAR": "deepod.series.ridge_ar",
    "Seq2SeqAttention": "deepod.series.seq2seq_attention",
    "SeriesConsensus": "deepod.series.consensus",
    "WindowNeighbors": "deepod.series.window_neighbors",
    "Windows": "deepod.series.windows",
}
# Detectors of dynamic graphs.
GRAPHS = {
    "AddAGAE": "deepod.graphs.addagae",
    "AddGraph": "deepod.graphs.addgraph",
}
# Classes that join detectors.
ENSEMBLES = {
    "Consensus": "deepod.ensemble",
    "SeriesConsensus": "deepod.series.consensus",
    "SeedEnsemble": "deepod.ensemble",
}
# Other classes that a fitted pipeline may hold: as parameters or as fitted attributes.
_PARTS = {
    "EarlyStopping": "deepod.callbacks",
    "LeNet": "deepod.networks.lenet",
    "MLP": "deepod.networks.mlp",
    "Progress": "deepod.callbacks",
    "Prototypes": "deepod.networks.prototypes",
    "Recurrent": "deepod.networks.recurrent",
    "Scaler": "deepod._inputs.scaling",
    "SklearnOutlierAdapter": "deepod.adapter",
    "StackedSearchCV": "deepod.search",
    "Start": "deepod._training.starts",
    "Tail": "deepod._scoring.tails",
    "_Thresholded": "deepod._scoring.vocabulary",
}
# For skops.io.load(..., trusted=TRUSTED_TYPES): every class of deepod that a file may need, by its
# name in skops. Creating an object of one of them runs no code from the file.
TRUSTED_TYPES = sorted(
    f"{module}.{name}" for name, module in (DETECTORS | SERIES | ENSEMBLES | _PARTS).items()
)


def list_detectors(series: bool = False, graphs: bool = False) -> list[dict[str, Any]]:
    """Return a description of every detector of rows, time series or dynamic graphs.

    Parameters
    ----------
    series : bool, default=False
        Whether to list the detectors of :mod:`deepod.series` instead of those of rows.
    graphs : bool, default=False
        Whether to list the detectors of :mod:`deepod.graphs` instead of those of rows.

    Returns
    -------
    list of dict
        One dict per detector, with the keys ``name``, ``family``, ``inputs`` (what it takes: a
        tuple of "table", "windows", "images", "series", "edges" or "snapshots"), ``paper`` and
        ``detector`` (the class).

    Examples
    --------
    >>> from deepod import list_detectors
    >>> [d["name"] for d in list_detectors() if d["family"] == "one-class"][:2]
    ['DROCC', 'DeepSVDD']
    """
    names = GRAPHS if graphs else SERIES if series else DETECTORS
    detectors = [detector_class(name) for name in names]
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


def detector_class(name: str) -> Any:
    """Return a class of the tables above by its name."""
    return getattr(import_module((DETECTORS | SERIES | GRAPHS | ENSEMBLES)[name]), name)
