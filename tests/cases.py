"""One line per detector: settings with which it trains in milliseconds; and who stands for all."""

import copy
import functools

import numpy as np
from sklearn.base import clone

import deepod
from deepod.networks import MLP

FAST = {
    "ADGAN": {"epochs": 1, "n_starts": 2, "search_steps": 1},
    "AnoGAN": {"epochs": 1, "n_starts": 4, "search_steps": 1},
    "AnoRand": {"epochs": 2},
    "AutoEncoder": {"epochs": 2},
    "DAE": {"epochs": 2},
    "DAGMM": {"epochs": 2},
    "DCN": {"epochs": 2, "n_clusters": 3},
    "DROCC": {"epochs": 2, "ascent_steps": 2},
    "DSEBM": {"epochs": 2},
    "DeepSVDD": {"epochs": 2},
    "E2EAE": {"epochs": 2},
    "GEOM": {"epochs": 2, "n_transforms": 4},
    "GOAD": {"epochs": 2, "n_transforms": 6},
    "GaussianAD": {},
    "HRN": {"epochs": 2},
    "IAEAD": {"epochs": 2},
    "IAELSTMKL": {"epochs": 2},
    "ICL": {
        "epochs": 2,
        "n_members": 1,
        "latent_dim": 4,
        "network": MLP(hidden=(8,), batch_norm=True),
    },
    "IGD": {"epochs": 2},
    "IsolationForest": {"n_trees": 10},
    "LSA": {"epochs": 2, "n_bins": 5, "estimation_hidden": (3,), "latent_dim": 3},
    "LocalReconstruction": {},
    # No weight is at the threshold, where rounding would decide on a jump.
    "MemAE": {"epochs": 2, "n_slots": 10, "shrink": 0.02},
    "NSAE": {"epochs": 2},
    "Neighbors": {},
    "NeuTraL": {"epochs": 2, "n_transforms": 4},
    "OCGAN": {"epochs": 1, "mining_steps": 1},
    "PLAD": {"epochs": 2, "n_members": 2},
    "PixelCNN": {"epochs": 2, "width": 4, "n_blocks": 1, "n_levels": 4},
    "SCADN": {"epochs": 2, "widths": (2,), "latent_dim": 4},
    "TQM": {"epochs": 2, "map_hidden": 8, "n_components": 2},
    "VAE": {"epochs": 2},
}

# Of detectors whose explanations with default settings take seconds.
CHEAPER = {
    "ADGAN": {"n_starts": 3},
    "AnoGAN": {"search_steps": 10},
    "ICL": {"network": MLP(hidden=(32,)), "latent_dim": 16, "max_windows": 8},
}

SHAPES = {"table": (5,), "windows": (6, 3), "images": (1, 8, 8)}


def fast(name: str, **params) -> deepod.BaseDetector:
    """A detector that fits quickly: without cross-fitting, which has tests of its own."""
    own = copy.deepcopy(FAST[name])  # networks hold parameters that tests set
    settings = {"random_state": 0, "cross_fitting": False} | own | params
    return getattr(deepod, name)(**settings)


def as_usual(name: str, **params) -> deepod.BaseDetector:
    """A detector with its default settings, without cross-fitting, which changes no new score."""
    return getattr(deepod, name)(**{"random_state": 0, "cross_fitting": False} | params)


def samples(kind: str = "table", n: int = 40, seed: int = 0) -> np.ndarray:
    """Normal samples of the given kind."""
    return np.random.default_rng(seed).normal(size=(n, *SHAPES[kind])).astype(np.float32)


@functools.cache
def fitted(name: str, kind: str = "table") -> deepod.BaseDetector:
    """A detector that tests share, who only ask it."""
    return fast(name).fit(samples(kind))


EVERY_NAME = sorted(deepod.DETECTORS)
# Of those that take tables, which most tests are on; NAMES_AND_KINDS and IN_TURNS have the others.
NAMES = [name for name in EVERY_NAME if "table" in getattr(deepod, name).inputs]
TRAINED = [name for name in NAMES if getattr(deepod, name).auto_epochs]  # in epochs
NAMES_AND_KINDS = [(d["name"], kind) for d in deepod.list_detectors() for kind in d["inputs"]]

# What the base does is checked with these, of which each brings what the others do not; all are
# asked where methods can differ: in their modules, losses, scores, noise and preparation of rows.
REPRESENTATIVES = [
    "AnoRand",  # rows of its own beside the given ones, labels, buffers set after training
    "IAELSTMKL",  # two phases, the second begun by a refresh; noise in the loss
    "PLAD",  # members, prototypes as the default network, a score that is no reconstruction error
]
# Representatives on every kind of samples, each of the others on one.
IN_TURNS = [
    (d["name"], kind)
    for number, d in enumerate(deepod.list_detectors())
    for place, kind in enumerate(d["inputs"])
    if d["name"] in REPRESENTATIVES or place == number % len(d["inputs"])
]

# Detectors of time series.
FAST_SERIES = {
    "CLSTM": {"epochs": 5, "filters": 8, "hidden": 8, "dense": 4, "lr": 2e-2},
    "CNNVAELSTM": {
        "epochs": 3,
        "n_windows": 2,
        "latent_dim": 4,
        "filters": (8,),
        "hidden": (8,),
        "lr": 2e-2,
    },
    "LSTMAD": {"epochs": 1, "hidden": (8,)},
    "LSTMAE": {"epochs": 4, "hidden": 8, "lr": 2e-2},
    "LSTMVAE": {"epochs": 6, "hidden": 8, "latent_dim": 2, "lr": 2e-2},
    "RidgeAR": {},
    "Seq2SeqAttention": {"epochs": 3, "hidden": 8, "lr": 2e-2},
    "SeriesConsensus": {
        "detectors": [
            deepod.series.WindowNeighbors(window=10, smoothing_length=5),
            deepod.series.RidgeAR(window=10, smoothing_length=5),
        ]
    },
    "WindowNeighbors": {"stride": 2},
    "Windows": {"detector": deepod.Neighbors(n_neighbors=3, max_rows=100)},
}
SERIES_NAMES = sorted(FAST_SERIES)


def fast_series(name: str, **params):
    """A detector of series that fits quickly, with windows of 10 points."""
    detector = getattr(deepod.series, name)
    known = {"random_state": 0, "window": 10, "smoothing_length": 5} | FAST_SERIES[name] | params
    if name != "SeriesConsensus":
        return detector(**known)
    # What is said of windows and smoothing is said of its members.
    own = {k: v for k, v in known.items() if k in detector().get_params() and k != "smoothing"}
    others = {key: value for key, value in known.items() if key not in own}
    members = [clone(member).set_params(**others) for member in own["detectors"]]
    return detector(**own | {"detectors": members})


def waves(n: int = 300, channels: int | None = 2, seed: int = 0) -> np.ndarray:
    """Waves of 25 points with noise: a normal series."""
    rng = np.random.default_rng(seed)
    phases = np.arange(channels or 1)
    x = np.sin(np.arange(n)[:, None] * 2 * np.pi / 25 + phases) + 0.1 * rng.normal(
        size=(n, len(phases))
    )
    return x if channels else x[:, 0]


@functools.cache
def fitted_series(name: str, **params):
    """A detector of series that tests share, who only ask it."""
    return fast_series(name, **params).fit(waves())
