"""Detectors that train in milliseconds, and samples for them."""

from __future__ import annotations

from typing import Any

import numpy as np

import deepod

FEW = {"epochs": 2, "n_members": 2}  # of what a detector has
SHAPES = {"table": (5,), "windows": (6, 3), "images": (1, 8, 8)}
NAMES_AND_KINDS = [(d["name"], kind) for d in deepod.list_detectors() for kind in d["inputs"]]


def fast(name: str, **params: Any) -> deepod.BaseDetector:
    """Build a detector that fits quickly."""
    kind = getattr(deepod, name)
    known = kind().get_params(deep=False)
    few = {key: value for key, value in FEW.items() if key in known}
    return kind(**({"random_state": 0} | few | params))


def samples(kind: str = "table", seed: int = 0) -> np.ndarray:
    """Draw normal samples of the given kind."""
    return np.random.default_rng(seed).normal(size=(40, *SHAPES[kind])).astype(np.float32)
