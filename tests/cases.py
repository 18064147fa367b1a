"""One line per detector: settings with which it trains in milliseconds."""

import numpy as np

import deepod

FAST = {
    "AnoRand": {"epochs": 2},
    "AutoEncoder": {"epochs": 2},
    "DAE": {"epochs": 2},
    "DeepSVDD": {"epochs": 2},
    "IAEAD": {"epochs": 2},
    "IAELSTMKL": {"epochs": 2},
    "NSAE": {"epochs": 2},
    "PLAD": {"epochs": 2, "n_members": 2},
}

SHAPES = {"table": (5,), "windows": (6, 3), "images": (1, 8, 8)}


def fast(name: str, **params) -> deepod.BaseDetector:
    """A detector that fits quickly."""
    return getattr(deepod, name)(**({"random_state": 0} | FAST[name] | params))


def samples(kind: str = "table", n: int = 40, seed: int = 0) -> np.ndarray:
    """Normal samples of the given kind."""
    return np.random.default_rng(seed).normal(size=(n, *SHAPES[kind])).astype(np.float32)


NAMES = sorted(deepod.DETECTORS)
NAMES_AND_KINDS = [(d["name"], kind) for d in deepod.list_detectors() for kind in d["inputs"]]
