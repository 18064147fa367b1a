"""Thresholds and p-values, as functions of scores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from deepod.params import HasMethods, fraction, one_of, share, zero

# Values that detectors and ensembles accept.
CONTAMINATION: list[Any] = [share(), zero(), one_of("auto"), HasMethods(["fit", "predict"])]
FALSE_ALARM_RATE: list[Any] = [fraction(), None]

# The batch in which a row is scored may change its score by 1e-6, relative to itself or, near zero,
# to the range of scores; quantiles from a sketch are rounded to float32. Twice as much is safe.
_MARGIN = 2e-6


def of_contamination(scores: np.ndarray, contamination: Any) -> float:
    """Return the threshold for ``contamination``, a share or "auto", from training scores."""
    if contamination == "auto":  # Tukey's upper fence
        low, high = np.quantile(scores, [0.25, 0.75])
        if high > low:
            return float(high + 1.5 * (high - low))
        return _just_above(high, scores.min())  # a few far above are no measure of rounding
    if contamination == 0:
        return _just_above(scores.max(), scores.min())
    return float(np.quantile(scores, 1 - contamination))


def of_labels(scores: np.ndarray, labels: np.ndarray, proposed: float | None) -> float:
    """Return the threshold that reproduces the labels of a thresholder.

    It is the threshold that it ``proposed`` if that gives the same labels, and otherwise the
    highest score that is labelled 0: PyThresh uses its own units, and some thresholders have none.
    """
    if proposed is not None and np.array_equal(scores > proposed, labels == 1):
        return float(proposed)
    normal = scores[labels == 0]
    return float(normal.max() if len(normal) else np.nextafter(scores.min(), -np.inf))


def of_false_alarms(calibration: np.ndarray, rate: float) -> float:
    """Return the score above which :func:`p_values` are at most ``rate``."""
    n = len(calibration)
    check_enough(n, rate)
    # With the same arithmetic as p_values, so that both agree to the last bit.
    most = np.count_nonzero(np.arange(1, n + 1) / (n + 1) <= rate)
    return float(calibration[n - most])


def of_events(scores: np.ndarray, most: float) -> float:
    """Return the lowest threshold for which it and all higher ones flag at most ``most`` stretches.

    Parameters
    ----------
    scores : ndarray of shape (T,)
        Scores of the points of a series in the order of time.
    most : float
        Largest number of stretches; less than one allows none.
    """
    before = np.concatenate([[-np.inf], scores[:-1]])
    begins = scores > before
    # A stretch begins at a point if the threshold is between its score and the one before.
    levels = np.unique(scores)
    opened = np.searchsorted(levels, scores[begins])  # thresholds below this level
    closed = np.searchsorted(levels, before[begins])
    change = np.bincount(closed, minlength=len(levels) + 1).astype(np.int64)
    change -= np.bincount(opened, minlength=len(levels) + 1)
    counts = np.cumsum(change)[: len(levels)]  # stretches above each level
    too_many = np.flatnonzero(counts > most)
    return float(levels[too_many[-1] + 1 if len(too_many) else 0])


def enough(n: int, rate: float) -> bool:
    """Return whether n calibration scores allow a p-value as low as ``rate``."""
    return 1 / (n + 1) <= rate


def check_enough(n: int, rate: float) -> None:
    """Raise ValueError if n calibration scores are too few for a p-value as low as ``rate``."""
    if not enough(n, rate):
        about = math.ceil(1 / rate)  # rounding may have made it one more or less
        needed = next((k for k in range(about - 2, about) if enough(k, rate)), about)
        raise ValueError(
            f"false_alarm_rate={rate} needs at least {needed} calibration rows, got {n}; use more "
            "rows for calibration, or a larger false_alarm_rate."
        )


def p_values(scores: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """Return conformal p-values of scores, given calibration scores in ascending order."""
    n = len(calibration)
    as_high = n - np.searchsorted(calibration, scores, side="left")
    return (1 + as_high) / (n + 1)


def _just_above(score: float, lowest: float) -> float:
    margin = _MARGIN * max(abs(score), score - lowest)
    return float(max(score + margin, np.nextafter(score, np.inf)))
