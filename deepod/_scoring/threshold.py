"""Where the line between normal and anomalous scores is: functions of scores, no more."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from deepod.params import HasMethods, fraction, one_of, share, zero

# What detectors and ensembles accept.
CONTAMINATION: list[Any] = [share(), zero(), one_of("auto"), HasMethods(["fit", "predict"])]
FALSE_ALARM_RATE: list[Any] = [fraction(), None]

# Scores may move by 1e-6 with the rows that are scored beside them, relative to themselves or, near
# zero, to the range of scores; those that stand in for many are rounded to float32. Twice as much
# is above all of that.
_MARGIN = 2e-6


def of_contamination(scores: np.ndarray, contamination: Any) -> float:
    """Threshold that ``contamination``, a share or "auto", makes of training scores."""
    if contamination == "auto":  # Tukey's upper fence
        low, high = np.quantile(scores, [0.25, 0.75])
        if high > low:
            return float(high + 1.5 * (high - low))
        return _just_above(high, scores.min())  # a few far above are no measure of rounding
    if contamination == 0:
        return _just_above(scores.max(), scores.min())
    return float(np.quantile(scores, 1 - contamination))


def of_labels(scores: np.ndarray, labels: np.ndarray, proposed: float | None) -> float:
    """Threshold that goes with the labels of a thresholder.

    The one that it ``proposed``, if that gives the same labels: PyThresh states it in units of its
    own, and some thresholders have none. Else the highest score that is labelled 0.
    """
    if proposed is not None and np.array_equal(scores > proposed, labels == 1):
        return float(proposed)
    normal = scores[labels == 0]
    return float(normal.max() if len(normal) else np.nextafter(scores.min(), -np.inf))


def of_false_alarms(calibration: np.ndarray, rate: float) -> float:
    """Score above which :func:`p_values` are at most ``rate``."""
    n = len(calibration)
    check_enough(n, rate)
    # In the arithmetic of p_values, so that both agree to the last bit.
    most = np.count_nonzero(np.arange(1, n + 1) / (n + 1) <= rate)
    return float(calibration[n - most])


def of_events(scores: np.ndarray, most: float) -> float:
    """Lowest threshold from which on a series has at most ``most`` stretches above it.

    Parameters
    ----------
    scores : ndarray of shape (T,)
        In the order of time.
    most : float
        Less than one allows none.
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
    """Tell whether n calibration scores allow a p-value as low as ``rate``."""
    return 1 / (n + 1) <= rate


def check_enough(n: int, rate: float) -> None:
    """Refuse fewer calibration scores than it takes for a p-value as low as ``rate``."""
    if not enough(n, rate):
        about = math.ceil(1 / rate)  # rounding may have made it one more or less
        needed = next((k for k in range(about - 2, about) if enough(k, rate)), about)
        raise ValueError(
            f"false_alarm_rate={rate} needs at least {needed} calibration rows, got {n}: hold out "
            "more rows, or allow more false alarms."
        )


def p_values(scores: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """Conformal p-values of scores, given those of calibration rows in ascending order."""
    n = len(calibration)
    as_high = n - np.searchsorted(calibration, scores, side="left")
    return (1 + as_high) / (n + 1)


def _just_above(score: float, lowest: float) -> float:
    margin = _MARGIN * max(abs(score), score - lowest)
    return float(max(score + margin, np.nextafter(score, np.inf)))
