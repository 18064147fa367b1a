"""Many detectors at once: seeds, ensembles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sklearn.base import clone

from deepod._base import BaseDetector
from deepod._together import fit_all


def fit_many(detector: BaseDetector, X: Any, y: Any = None, *, seeds: Iterable[int]) -> list[Any]:
    """Fit one detector with many seeds."""
    detectors = [clone(detector).set_params(random_state=seed) for seed in seeds]
    errors = fit_all(detectors, [X] * len(detectors), [y] * len(detectors))
    for error in errors:
        if error is not None:
            raise error
    return detectors
