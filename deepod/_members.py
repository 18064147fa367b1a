"""Checks, seeds and scores of members of ensembles: detectors of deepod, PyOD or scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import clone, is_outlier_detector
from sklearn.pipeline import Pipeline

from deepod._base import BaseDetector
from deepod._scoring.apply import finite
from deepod._scoring.tails import BY_HEART, Tail, as_unseen
from deepod._scoring.vocabulary import PyODBaseDetector
from deepod.sources import Source


def check_member(member: Any) -> None:
    """Raise TypeError if a member is not a detector that can score new rows."""
    last = last_step(member)
    # A class, or anything else without parameters, is none of scikit-learn's either.
    fits = hasattr(last, "score_samples") and hasattr(last, "get_params")
    if not (isinstance(last, PyODBaseDetector) or (fits and is_outlier_detector(last))):
        raise TypeError(
            "detectors must be detectors of deepod, PyOD or scikit-learn that can score new rows "
            f"(LocalOutlierFactor can with novelty=True), got {member!r}."
        )
    check_of_rows(last)


def check_of_rows(detector: Any) -> None:
    """Raise TypeError for a detector of series, for which rows are points in time."""
    if "series" in getattr(detector, "inputs", ()):
        raise TypeError(
            f"{type(detector).__name__} is a detector of time series, not of rows or windows; use "
            "deepod.series.SeriesConsensus to join such detectors."
        )


def seed_member(member: Any, seed: int) -> None:
    """Set every ``random_state`` of a detector, or inside it, that is None."""
    seedless = {
        name: seed
        for name, value in member.get_params().items()
        if value is None and name.rpartition("__")[2] == "random_state"
    }
    member.set_params(**seedless)


def last_step(member: Any) -> Any:
    return member.steps[-1][1] if isinstance(member, Pipeline) else member


def scores_of(member: Any, X: Any, batch_size: int | None = None) -> np.ndarray:
    """Return the scores of rows by any detector, higher = more anomalous.

    Raises
    ------
    FloatingPointError
        If a detector of PyOD or scikit-learn returns NaN.
    """
    if isinstance(member, BaseDetector):
        return member.decision_function(X, batch_size)
    if isinstance(last_step(member), PyODBaseDetector):
        scores = np.asarray(member.decision_function(X), dtype=float)
    else:
        scores = -np.asarray(member.score_samples(X), dtype=float)
    if np.isnan(scores).any():
        raise FloatingPointError(
            f"{type(last_step(member)).__name__} returns NaN as the score of some rows; leave it "
            "out of detectors, or check these rows."
        )
    return finite(scores)


def training_scores(member: Any, X: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return three kinds of scores of the training rows of a member.

    The first kind is for learning a tail from, and may be those of a sample of rows on disk. The
    second are scores as if the rows had not been trained on. The third are the ordinary scores. A
    member of PyOD or scikit-learn is fitted here.
    """
    if isinstance(member, BaseDetector):
        known = member._training_scores
        own = known if len(known) == member._n_training else member.decision_function(X)
        return known, getattr(member, "_unseen_scores", own), own
    if isinstance(X, Source):
        raise TypeError(
            f"{type(member).__name__} cannot read rows from disk; pass X as an array in memory, "
            "or leave it out of detectors."
        )
    order = np.random.default_rng(len(X)).permutation(len(X))
    halves = np.sort(order[: len(X) // 2]), np.sort(order[len(X) // 2 :])
    found = []
    for part, others in (halves, halves[::-1]):
        half = clone(member).fit(_rows(X, part))
        tail = Tail(BY_HEART).learn(torch.from_numpy(scores_of(half, _rows(X, part))))
        found.append((others, tail.of_array(scores_of(half, _rows(X, others)))))
    own = scores_of(member.fit(X), X)
    unseen = as_unseen(own, found)
    return unseen, unseen, own


def _rows(X: Any, numbers: np.ndarray) -> Any:
    """Take some rows of an array, or of a frame for detectors that read names."""
    return X.iloc[numbers] if hasattr(X, "iloc") else np.asarray(X)[numbers]
