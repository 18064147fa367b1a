"""One line per detector: settings with which it trains in milliseconds; and who stands for all."""

import functools

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
    "Neighbors": {},
    "PLAD": {"epochs": 2, "n_members": 2},
}

SHAPES = {"table": (5,), "windows": (6, 3), "images": (1, 8, 8)}


def fast(name: str, **params) -> deepod.BaseDetector:
    """A detector that fits quickly: without cross-fitting, which has tests of its own."""
    settings = {"random_state": 0, "cross_fitting": False} | FAST[name] | params
    return getattr(deepod, name)(**settings)


def samples(kind: str = "table", n: int = 40, seed: int = 0) -> np.ndarray:
    """Normal samples of the given kind."""
    return np.random.default_rng(seed).normal(size=(n, *SHAPES[kind])).astype(np.float32)


@functools.cache
def fitted(name: str, kind: str = "table") -> deepod.BaseDetector:
    """A detector that tests share, who only ask it."""
    return fast(name).fit(samples(kind))


NAMES = sorted(deepod.DETECTORS)
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
