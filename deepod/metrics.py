r"""Metrics of anomaly scores and alarms on a time series, which know that anomalies are events.

An event is a run of points labelled 1. Every function takes one series, labels first, as
scikit-learn's metrics do; of several series, take the mean that the study means. The areas under
the curves of single points are scikit-learn's: ``sklearn.metrics.average_precision_score``
(AUC-PR) and ``roc_auc_score`` (AUC-ROC).

================================================  ============================================
:func:`vus`, :func:`vus_pr`, :func:`vus_roc`      scores; points near an event count in part
:func:`range_precision`, :func:`range_recall`,    alarms; every event counts the same
:func:`range_f1`
:func:`detection_delay`                           alarms; how late they are
:func:`point_adjusted_f1`                         scores; as older papers report it
================================================  ============================================
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "VUS",
    "DetectionDelay",
    "PointAdjustedF1",
    "detection_delay",
    "events",
    "period",
    "point_adjusted_f1",
    "range_f1",
    "range_precision",
    "range_recall",
    "vus",
    "vus_pr",
    "vus_roc",
]

_N_THRESHOLDS = 250  # TSB-AD's
_N_RANDOM = 10  # random detectors beside a point-adjusted F1
_NO_PERIOD = 125  # TSB-AD's, where the autocorrelation has no peak


class VUS(NamedTuple):
    """Volumes under two surfaces, as :func:`vus` returns them."""

    pr: float
    """Of precision over recall, VUS-PR."""
    roc: float
    """Of the true over the false positive rate, VUS-ROC."""


class DetectionDelay(NamedTuple):
    """How late alarms are, as :func:`detection_delay` returns it."""

    mean: float
    """Points from the start of an event to the first alarm in it, over detected events."""
    detected: int
    """Events with an alarm in them."""
    events: int
    """Events in all."""


class PointAdjustedF1(NamedTuple):
    """A point-adjusted F1 and what it is worth, as :func:`point_adjusted_f1` returns it."""

    f1: float
    """Of the scores."""
    random: float
    """Of scores drawn at random."""


# --- events -------------------------------------------------------------------------------------


def events(labels: Any) -> np.ndarray:
    """Return where the runs of ones start and stop.

    Parameters
    ----------
    labels : array-like of shape (T,)
        0 = normal, 1 = anomaly.

    Returns
    -------
    events : ndarray of shape (n_events, 2)
        ``labels[start:stop]`` are ones, in the order of time.

    Raises
    ------
    ValueError
        If ``labels`` is not one series of zeros and ones.

    Examples
    --------
    >>> from deepod.metrics import events
    >>> events([0, 1, 1, 0, 1])
    array([[1, 3],
           [4, 5]])
    """
    return _runs(_binary(labels, "labels"))


def _runs(flags: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.diff(flags, prepend=False, append=False)).reshape(-1, 2)


def _over_events(reduce: np.ufunc, values: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """Return one value per event: the maximum of its values, say."""
    # Every other slice lies between events; the value appended lets the last event stop at T.
    return reduce.reduceat(np.append(values, values[-1]), runs.ravel())[::2]


# --- volume under the surface -------------------------------------------------------------------


def vus(y_true: Any, scores: Any, *, length: int = 100) -> VUS:
    """Return VUS-PR and VUS-ROC, the volumes under the surfaces of buffer, threshold and rates.

    For every buffer w from 0 to W (``length``), the labels are extended around events. A point of
    an event has the label l(t) = 1; a point outside, at most w / 2 points (rounded down) from the
    nearest end of an event, and d points from each event that is so near, has ::

        l(t) = min(1, sum over these events of sqrt(1 - d / w)),

    and any other has 0. Let a(t) be 1 where the score reaches the threshold and else 0, P the
    number of points in events, and T that of all points. Then ::

        TP        = sum over all t of l(t) a(t)
        P_w       = P + 1/2 (sum over t outside of events of l(t) a(t))
        E         = extended events with an alarm / extended events
        TPR       = min(1, TP / P_w) E
        FPR       = (sum of a(t) - TP) / (T - P_w)
        precision = TP / sum of a(t).

    Extended events are events made longer by w / 2 points, rounded down, on both sides; where they
    touch, they are one. There are 250 thresholds: the scores at evenly spaced ranks. The area under
    precision over TPR is the sum of steps, that under TPR over FPR the sum of trapezoids with the
    corners (0, 0) and (1, 1). A volume is the mean of the areas over the W + 1 buffers.

    It is the metric of [1]_, in the definition of the benchmark TSB-AD [2]_ (version "opt"); tests
    compare with its own code. Other packages define a metric of that name otherwise; their figures
    do not compare with these.

    Parameters
    ----------
    y_true : array-like of shape (T,)
        0 = normal, 1 = anomaly; both have to occur.
    scores : array-like of shape (T,)
        Higher = more anomalous. Only their order matters.
    length : int, default=100
        The largest buffer W in points, at both sides of an event together. TSB-AD takes the period
        of the series, see :func:`period`.

    Returns
    -------
    volumes : VUS
        ``pr`` and ``roc``, 1 for scores that are the labels. Scores drawn at random have a ``pr``
        from the share of points in events to that in extended events, but no ``roc`` of 0.5: a
        chance hit near an event counts as having found it. With 20 events of 20 points among
        20,000 they have 0.06 and 0.77, with 100 single points 0.22 and 0.94. Compare ``roc`` only
        with that of random scores on the same labels.

    Raises
    ------
    ValueError
        If the arguments are not one series each, of the same length, zeros and ones, finite
        scores; or if a class is missing.

    References
    ----------
    .. [1] J. Paparrizos, P. Boniol, T. Palpanas, R. S. Tsay, A. Elmore, M. J. Franklin, "Volume
       under the surface: a new accuracy evaluation measure for time-series anomaly detection",
       VLDB 2022.
    .. [2] Q. Liu, J. Paparrizos, "The elephant in the room: towards a reliable time-series anomaly
       detection benchmark", NeurIPS 2024, https://github.com/TheDatumOrg/TSB-AD, release 1.5.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.metrics import vus
    >>> y = np.zeros(1000, dtype=int)
    >>> y[400:450] = 1
    >>> late = np.roll(y, 10)  # ten points too late
    >>> volumes = vus(y, late, length=50)
    >>> round(volumes.pr, 3), round(volumes.roc, 3)
    (0.836, 0.938)
    """
    truth, scores = _truth_and_scores(y_true, scores)
    if not isinstance(length, Integral) or isinstance(length, bool) or length < 0:
        raise ValueError(f"length must be a whole number of points, 0 or more, got {length!r}.")
    length = int(length)
    runs = _runs(truth)
    passed, alarms = _passed(scores)
    inside = np.bincount(passed[truth], minlength=_N_THRESHOLDS).cumsum()
    near = _near(truth, runs, passed, length)
    existence = _existence(runs, passed, length // 2)[np.arange(length + 1) // 2]

    tp = inside + near
    positives = np.count_nonzero(truth) + near / 2
    tpr = np.minimum(tp / positives, 1) * existence
    fpr = (alarms - tp) / (len(truth) - positives)
    precision = tp / alarms
    pr = (np.diff(tpr, prepend=0) * precision).sum(axis=1)
    tpr, fpr = _with_corners(tpr), _with_corners(fpr)
    roc = (np.diff(fpr) * (tpr[:, 1:] + tpr[:, :-1]) / 2).sum(axis=1)
    return VUS(float(pr.mean()), float(roc.mean()))


def vus_pr(y_true: Any, scores: Any, *, length: int = 100) -> float:
    """Return VUS-PR, the volume under the surface of buffer, recall and precision.

    :func:`vus` has the definition and the parameters, and returns VUS-ROC in the same time.

    Parameters
    ----------
    y_true : array-like of shape (T,)
        0 = normal, 1 = anomaly.
    scores : array-like of shape (T,)
        Higher = more anomalous.
    length : int, default=100
        The largest buffer in points.

    Returns
    -------
    volume : float

    Examples
    --------
    >>> from deepod.metrics import vus_pr
    >>> vus_pr([0, 0, 1, 1, 0, 0], [1, 2, 5, 6, 3, 1], length=0)
    1.0
    """
    return vus(y_true, scores, length=length).pr


def vus_roc(y_true: Any, scores: Any, *, length: int = 100) -> float:
    """Return VUS-ROC, the volume under the surface of buffer, false and true positive rate.

    :func:`vus` has the definition and the parameters, and returns VUS-PR in the same time.

    Parameters
    ----------
    y_true : array-like of shape (T,)
        0 = normal, 1 = anomaly.
    scores : array-like of shape (T,)
        Higher = more anomalous.
    length : int, default=100
        The largest buffer in points.

    Returns
    -------
    volume : float

    Examples
    --------
    >>> from deepod.metrics import vus_roc
    >>> vus_roc([0, 0, 1, 1, 0, 0], [1, 2, 5, 6, 3, 1], length=0)
    1.0
    """
    return vus(y_true, scores, length=length).roc


def _passed(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first threshold that every score reaches, and the alarms of every threshold."""
    ascending = np.sort(scores)
    n = len(scores)
    descending = n - 1 - np.linspace(0, n - 1, _N_THRESHOLDS).astype(int)
    thresholds = ascending[descending]
    passed = _N_THRESHOLDS - np.searchsorted(thresholds[::-1], scores, side="right")
    return passed, n - np.searchsorted(ascending, thresholds)


def _near(truth: np.ndarray, runs: np.ndarray, passed: np.ndarray, length: int) -> np.ndarray:
    """Sum up the labels of points near events, for every buffer and threshold.

    A weight is at least the root of a half. So a point near two events has the label 1, and else
    only its distance matters: points are counted by distance and threshold, and the counts are
    weighted for every buffer.
    """
    reach = length // 2
    first, second = _distances(truth, runs, reach)
    reached = first <= reach
    first, second, passed = first[reached], second[reached], passed[~truth][reached]
    cells = first * _N_THRESHOLDS + passed
    alone = np.bincount(cells, minlength=(reach + 1) * _N_THRESHOLDS)
    crowded = np.zeros(_N_THRESHOLDS)
    order = np.argsort(second, kind="stable")
    parts = np.split(order, np.searchsorted(second[order], np.arange(1, reach + 2)))
    near = np.zeros((length + 1, _N_THRESHOLDS))
    for window in range(length + 1):
        distance = window // 2
        if window == 2 * distance:  # the first window that reaches as far
            now = parts[distance]
            np.subtract.at(alone, cells[now], 1)
            crowded += np.bincount(passed[now], minlength=_N_THRESHOLDS)
        weights = np.sqrt(1 - np.arange(1, distance + 1) / max(window, 1))
        rows = alone.reshape(-1, _N_THRESHOLDS)[1 : distance + 1]
        near[window] = crowded + weights @ rows
    return near.cumsum(axis=1)


def _distances(truth: np.ndarray, runs: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how far points outside are from the nearest and from the second nearest event."""
    far = reach + 1
    starts = np.append(runs[:, 0], [len(truth) + far] * 2)
    lasts = np.append([-far] * 2, runs[:, 1] - 1)
    points = np.flatnonzero(~truth)
    before = np.searchsorted(runs[:, 0], points)  # events that lie before
    left, right = points - lasts[before + 1], starts[before] - points
    further = np.minimum(points - lasts[before], starts[before + 1] - points)
    return np.minimum(left, right), np.minimum(np.maximum(left, right), further)


def _existence(runs: np.ndarray, passed: np.ndarray, reach: int) -> np.ndarray:
    """Return the share of extended events with an alarm, for every distance and threshold."""
    starts, lasts = runs[:, 0], runs[:, 1] - 1
    best = _over_events(np.minimum, passed, runs)
    share = np.empty((reach + 1, _N_THRESHOLDS))
    for distance in range(reach + 1):
        left, right = starts - distance, lasts + distance
        best = np.minimum(best, passed[np.maximum(left, 0)])
        best = np.minimum(best, passed[np.minimum(right, len(passed) - 1)])
        apart = np.flatnonzero(right[:-1] < left[1:]) + 1
        joined = np.minimum.reduceat(best, np.append(0, apart))
        share[distance] = np.bincount(joined, minlength=_N_THRESHOLDS).cumsum() / len(joined)
    return share


def _with_corners(rates: np.ndarray) -> np.ndarray:
    return np.pad(rates, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1)))


def period(x: Any, most: int = 100) -> int:
    """Return the period of a series by its autocorrelation, at most ``most``.

    That is the lag of the highest peak of the autocorrelation among lags 4 to 399, of the first
    20,000 points, as TSB-AD's ``find_length`` has it: 125 where there is no peak, or where the
    highest is at a lag below 6 or above 303. TSB-AD takes it, of the first channel, as the
    ``length`` of :func:`vus`.

    Parameters
    ----------
    x : array-like of shape (T,)
        One channel.
    most : int, default=100
        The largest value that is returned.

    Returns
    -------
    period : int
        In points.

    Raises
    ------
    ValueError
        If ``x`` is not one series of finite numbers, or ``most`` is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.metrics import period
    >>> period(np.sin(2 * np.pi * np.arange(1000) / 25))
    25
    """
    if not isinstance(most, Integral) or isinstance(most, bool) or most < 1:
        raise ValueError(f"most must be a whole number of points, 1 or more, got {most!r}.")
    x = _finite(x, "x")[:20_000]
    if np.ptp(x) == 0:  # the autocorrelation of a constant would be one of rounding errors
        return min(_NO_PERIOD, int(most))
    x = x - x.mean()
    spectrum = np.fft.rfft(x, 1 << (2 * len(x)).bit_length())  # so long that no end wraps around
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[3 : min(401, len(x))]
    middle = correlation[1:-1]
    peaks = np.flatnonzero((middle > correlation[:-2]) & (middle > correlation[2:])) + 1
    lag = int(peaks[np.argmax(correlation[peaks])]) + 3 if len(peaks) else 0
    return min(lag if 6 <= lag <= 303 else _NO_PERIOD, int(most))


# --- alarms -------------------------------------------------------------------------------------


# Weight of the i-th of n points of an event, counted from 1.
_BIASES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "flat": lambda i, n: np.ones(len(i)),
    "front": lambda i, n: n - i + 1,
    "middle": lambda i, n: np.minimum(i, n - i + 1),
    "back": lambda i, n: i,
}
_CARDINALITIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "reciprocal": lambda parts: 1 / np.maximum(parts, 1),
    "one": lambda parts: np.ones(len(parts)),
}


def range_recall(
    y_true: Any,
    y_pred: Any,
    *,
    alpha: float = 0,
    bias: str = "flat",
    cardinality: str = "reciprocal",
) -> float:
    """Return the recall of events: how much of each is found, mean over events.

    For the n events R and the runs of alarms A, it is ::

        1/n (sum over the events R of
                 alpha [R has an alarm]
                 + (1 - alpha) gamma(R) (sum over the runs A of
                       weight of the points of R that are in A / weight of the points of R)),

    where gamma is 1 for an event that at most one run of alarms overlaps.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (T,)
        0 = normal, 1 = anomaly.
    alpha : float, default=0
        What it is worth, from 0 to 1, that an event is noticed at all.
    bias : {"flat", "front", "middle", "back"}, default="flat"
        Which points of an event weigh most (their weight): none, the first, the middle, the last.
        "front" rewards early alarms.
    cardinality : {"reciprocal", "one"}, default="reciprocal"
        gamma of an event that x > 1 runs of alarms overlap: 1 / x or 1.

    Returns
    -------
    recall : float
        From 0 to 1. With single points as events it is the usual recall. State the parameters
        with it.

    Raises
    ------
    ValueError
        If the labels are not one series each, of the same length, of zeros and ones; if there is
        no event; or if a parameter is not one of the above.

    References
    ----------
    .. [1] N. Tatbul, T. J. Lee, S. Zdonik, M. Alam, J. Gottschlich, "Precision and recall for time
       series", NeurIPS 2018, equations 2 to 6 and figure 2.

    Examples
    --------
    >>> from deepod.metrics import range_recall
    >>> range_recall([0, 1, 1, 1, 1, 0], [0, 1, 0, 1, 0, 0])  # half of it, in two pieces
    0.25
    >>> range_recall([0, 1, 1, 1, 1, 0], [0, 1, 0, 1, 0, 0], cardinality="one")
    0.5
    """
    truth, alarms = _truth_and_alarms(y_true, y_pred)
    if not isinstance(alpha, Real) or not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be a number from 0 to 1, got {alpha!r}.")
    noticed, overlap = _overlap(truth, alarms, bias, cardinality)
    return float(np.mean(alpha * noticed + (1 - alpha) * overlap))


def range_precision(
    y_true: Any, y_pred: Any, *, bias: str = "flat", cardinality: str = "reciprocal"
) -> float:
    """Return the precision of runs of alarms: how much of each is right, mean over runs.

    It is :func:`range_recall` with events and runs of alarms in each other's place. To be noticed
    at all is worth nothing here: there is no ``alpha``.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (T,)
        0 = normal, 1 = anomaly.
    bias : {"flat", "front", "middle", "back"}, default="flat"
        Which points of a run of alarms weigh most.
    cardinality : {"reciprocal", "one"}, default="reciprocal"
        By what a run of alarms that overlaps x > 1 events is multiplied: 1 / x or 1.

    Returns
    -------
    precision : float
        From 0 to 1; 0 without alarms. State the parameters with it.

    Raises
    ------
    ValueError
        As of :func:`range_recall`.

    References
    ----------
    .. [1] N. Tatbul, T. J. Lee, S. Zdonik, M. Alam, J. Gottschlich, "Precision and recall for time
       series", NeurIPS 2018, equations 7 and 8.

    Examples
    --------
    >>> from deepod.metrics import range_precision
    >>> range_precision([0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 1])  # half of one run of two
    0.25
    """
    truth, alarms = _truth_and_alarms(y_true, y_pred)
    _, overlap = _overlap(alarms, truth, bias, cardinality)
    return float(np.mean(overlap)) if len(overlap) else 0.0


def range_f1(
    y_true: Any,
    y_pred: Any,
    *,
    alpha: float = 0,
    bias: str = "flat",
    cardinality: str = "reciprocal",
) -> float:
    """Return the harmonic mean of :func:`range_precision` and :func:`range_recall`.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (T,)
        0 = normal, 1 = anomaly.
    alpha : float, default=0
        Of the recall: what it is worth that an event is noticed at all.
    bias : {"flat", "front", "middle", "back"}, default="flat"
        Which points weigh most, of events in the recall and of runs of alarms in the precision.
    cardinality : {"reciprocal", "one"}, default="reciprocal"
        What an overlap in x pieces is multiplied by: 1 / x or 1.

    Returns
    -------
    f1 : float
        From 0 to 1; 0 without a hit. With single points as events and alarms it is the usual F1.
        State the parameters with it.

    Raises
    ------
    ValueError
        As of :func:`range_recall`.

    References
    ----------
    .. [1] N. Tatbul, T. J. Lee, S. Zdonik, M. Alam, J. Gottschlich, "Precision and recall for time
       series", NeurIPS 2018.

    Examples
    --------
    >>> from deepod.metrics import range_f1
    >>> range_f1([0, 1, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0])  # precision 1, recall 0.5
    0.6666666666666666
    """
    recall = range_recall(y_true, y_pred, alpha=alpha, bias=bias, cardinality=cardinality)
    precision = range_precision(y_true, y_pred, bias=bias, cardinality=cardinality)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _overlap(
    flags: np.ndarray, others: np.ndarray, bias: str, cardinality: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return of every run of ``flags`` whether ``others`` overlap it, and the reward for it."""
    for name, value, known in (
        ("bias", bias, _BIASES),
        ("cardinality", cardinality, _CARDINALITIES),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
    runs = _runs(flags)
    lengths = runs[:, 1] - runs[:, 0]
    points, run = np.flatnonzero(flags), np.repeat(np.arange(len(runs)), lengths)
    place = points - runs[run, 0] + 1
    weight = _BIASES[bias](place, lengths[run])
    hit = others[points]
    begins = hit & ((place == 1) | ~others[points - 1])
    parts = np.bincount(run, begins, minlength=len(runs))
    found = np.bincount(run, weight * hit) / np.bincount(run, weight)
    return parts > 0, _CARDINALITIES[cardinality](parts) * found


def detection_delay(y_true: Any, y_pred: Any) -> DetectionDelay:
    """Return how many points pass from the start of an event to the first alarm within it.

    Missed events have no delay, so they are counted apart: compare delays of detectors that find
    as many events. An alarm that began before the event and goes on has a delay of 0.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (T,)
        0 = normal, 1 = anomaly.

    Returns
    -------
    delay : DetectionDelay
        ``mean`` over the ``detected`` of all ``events``; NaN if none is detected.

    Raises
    ------
    ValueError
        If the labels are not one series each, of the same length, of zeros and ones; or if there
        is no event.

    Examples
    --------
    >>> from deepod.metrics import detection_delay
    >>> detection_delay([0, 1, 1, 1, 0, 1, 1], [1, 0, 0, 1, 0, 0, 0])
    DetectionDelay(mean=2.0, detected=1, events=2)
    """
    truth, alarms = _truth_and_alarms(y_true, y_pred)
    runs = _runs(truth)
    first = _over_events(np.minimum, np.where(alarms, np.arange(len(alarms)), len(alarms)), runs)
    delays = (first - runs[:, 0])[first < runs[:, 1]]
    mean = float(delays.mean()) if len(delays) else float("nan")
    return DetectionDelay(mean, len(delays), len(runs))


def point_adjusted_f1(y_true: Any, scores: Any) -> PointAdjustedF1:
    """Return the best F1 after point adjustment, and that of scores drawn at random beside it.

    Point adjustment takes all points of an event as found once one of them is. At a threshold, an
    event is found if its highest score reaches it; TP is the number of points of all events that
    are found, FP that of flagged points outside of events, P that of points in events, and ::

        F1 = the largest, over thresholds, of 2 TP / (TP + FP + P).

    The threshold is the best for these labels, so no detector reaches that F1 in use; and scores
    drawn at random reach high values where events are long [1]_. It is here because papers report
    it: never report it without ``random``, and trust :func:`vus_pr` more.

    Parameters
    ----------
    y_true : array-like of shape (T,)
        0 = normal, 1 = anomaly; both have to occur.
    scores : array-like of shape (T,)
        Higher = more anomalous.

    Returns
    -------
    f1 : PointAdjustedF1
        ``f1`` of the scores; ``random``, the mean of ten arrays of uniform scores, the same in
        every call.

    Raises
    ------
    ValueError
        As of :func:`vus`.

    References
    ----------
    .. [1] S. Kim, K. Choi, H.-S. Choi, B. Lee, S. Yoon, "Towards a rigorous evaluation of
       time-series anomaly detection", AAAI 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.metrics import point_adjusted_f1
    >>> y = np.zeros(2000, dtype=int)
    >>> y[500:600] = 1
    >>> f1, random = point_adjusted_f1(y, np.sin(np.arange(2000) ** 2))  # knows nothing
    >>> round(f1, 2), round(random, 2)
    (0.93, 0.93)
    """
    truth, scores = _truth_and_scores(y_true, scores)
    rng = np.random.default_rng(0)
    random = [_best_adjusted(truth, rng.random(len(truth))) for _ in range(_N_RANDOM)]
    return PointAdjustedF1(_best_adjusted(truth, scores), float(np.mean(random)))


def _best_adjusted(truth: np.ndarray, scores: np.ndarray) -> float:
    # Between the highest scores of two events, a lower threshold only adds false alarms.
    runs = _runs(truth)
    thresholds = _over_events(np.maximum, scores, runs)
    order = np.argsort(-thresholds, kind="stable")
    tp = (runs[:, 1] - runs[:, 0])[order].cumsum()
    normal = np.sort(scores[~truth])
    fp = len(normal) - np.searchsorted(normal, thresholds[order])
    return float(np.max(2 * tp / (tp + fp + tp[-1])))


# --- arguments ----------------------------------------------------------------------------------


def _truth_and_scores(y_true: Any, scores: Any) -> tuple[np.ndarray, np.ndarray]:
    truth, scores = _binary(y_true, "y_true"), _finite(scores, "scores")
    _compare(truth, scores, "scores")
    if truth.all():
        raise ValueError("y_true has no normal point (0): the metric is not defined.")
    return truth, scores


def _truth_and_alarms(y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    truth, alarms = _binary(y_true, "y_true"), _binary(y_pred, "y_pred")
    _compare(truth, alarms, "y_pred")
    return truth, alarms


def _compare(truth: np.ndarray, other: np.ndarray, name: str) -> None:
    if len(truth) != len(other):
        raise ValueError(f"y_true has {len(truth)} points and {name} has {len(other)}.")
    if not truth.any():
        raise ValueError(
            "y_true has no anomaly (1): the metric is not defined; leave such a series out."
        )


def _binary(labels: Any, name: str) -> np.ndarray:
    labels = _one_series(labels, name)
    if not np.isin(labels, (0, 1)).all():
        found = np.unique(labels)[:5].tolist()
        raise ValueError(f"{name} must hold 0 (normal) and 1 (anomaly) only, got {found}.")
    return labels.astype(bool)


def _finite(values: Any, name: str) -> np.ndarray:
    values = _one_series(values, name).astype(float)
    bad = np.count_nonzero(~np.isfinite(values))
    if bad:
        raise ValueError(
            f"{name} has {bad} of {len(values)} points that are NaN or infinite; replace them, or "
            "leave these points out."
        )
    return values


def _one_series(values: Any, name: str) -> np.ndarray:
    if isinstance(values, list | tuple) and len(values) and np.ndim(values[0]):
        raise ValueError(
            f"{name} holds {len(values)} series; call the metric for each of them, and take the "
            "mean."
        )
    values = np.asarray(values)
    if values.ndim != 1 or not len(values):
        raise ValueError(
            f"{name} must be one series of shape (T,), got shape {values.shape}; of several series "
            "or channels, pass one at a time."
        )
    return values
