r"""Metrics of anomaly scores and alarms on time series whose anomalies are events.

An event is a run of successive points labelled 1. Every function takes one series, labels first, as
scikit-learn's metrics do. For several series, call it for each and take the mean. For metrics of
single points, use scikit-learn: ``sklearn.metrics.average_precision_score`` (AUC-PR) and
``roc_auc_score`` (AUC-ROC).

================================================  ============================================
:func:`vus`, :func:`vus_pr`, :func:`vus_roc`      scores; points near an event count partly
:func:`range_precision`, :func:`range_recall`,    alarms; every event has the same weight
:func:`range_f1`
:func:`detection_delay`                           alarms; how late they come
:func:`point_adjusted_f1`                         scores; for comparison with older papers
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
    """The volumes under the two surfaces that :func:`vus` computes."""

    pr: float
    """VUS-PR, the volume under the surface of precision over recall."""
    roc: float
    """VUS-ROC, the volume under the surface of true over false positive rate."""


class DetectionDelay(NamedTuple):
    """The delay of alarms that :func:`detection_delay` computes."""

    mean: float
    """Mean number of points from the start of a detected event to its first alarm."""
    detected: int
    """Number of events with an alarm."""
    events: int
    """Number of all events."""


class PointAdjustedF1(NamedTuple):
    """The point-adjusted F1 of scores and that of random scores, for comparison."""

    f1: float
    """F1 of the given scores."""
    random: float
    """Mean F1 of scores drawn at random."""


# --- events -------------------------------------------------------------------------------------


def events(labels: Any) -> np.ndarray:
    """Return the start and the stop of every event, that is, of every run of ones.

    Parameters
    ----------
    labels : array-like of shape (T,)
        Labels of the points of one series: 0 = normal, 1 = anomaly.

    Returns
    -------
    events : ndarray of shape (n_events, 2), int
        One row (start, stop) for each event in the order of time; all of ``labels[start:stop]`` are
        ones.

    Raises
    ------
    ValueError
        If ``labels`` is not a single series of zeros and ones.

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
    """Return one value per event, such as the maximum of its values."""
    # Every other slice lies between events; the value appended lets the last event stop at T.
    return reduce.reduceat(np.append(values, values[-1]), runs.ravel())[::2]


# --- volume under the surface -------------------------------------------------------------------


def vus(y_true: Any, scores: Any, *, length: int = 100) -> VUS:
    """Return VUS-PR and VUS-ROC, the volumes under the PR and ROC surfaces over buffer lengths.

    For every buffer length w from 0 to W (``length``), labels are extended to the points around
    events. A point in an event has the label l(t) = 1. A point outside has ::

        l(t) = min(1, sum over its near events of sqrt(1 - d / w)),

    where d is its distance from an event in points, and an event is near if d is at most w / 2
    (rounded down). Points without near events have the label 0. Let a(t) be 1 if the score reaches
    the threshold and 0 otherwise, P the number of points in events, and T the number of all points.
    Then ::

        TP        = sum over all t of l(t) a(t)
        P_w       = P + 1/2 (sum over t outside of events of l(t) a(t))
        E         = extended events with an alarm / extended events
        TPR       = min(1, TP / P_w) E
        FPR       = (sum of a(t) - TP) / (T - P_w)
        precision = TP / sum of a(t).

    Extended events are events made longer by w / 2 points (rounded down) on both sides; those that
    touch are merged. There are 250 thresholds: the scores at evenly spaced ranks. The area under
    precision over TPR is a sum of rectangles. That under TPR over FPR is a sum of trapezoids with
    the corners (0, 0) and (1, 1). Each volume is the mean of the areas over the W + 1 buffers.

    This is the metric of [1]_ as the benchmark TSB-AD [2]_ defines it (version "opt"); tests
    compare it with TSB-AD's own code. Other packages define a metric of this name differently, and
    their figures cannot be compared with these.

    Parameters
    ----------
    y_true : array-like of shape (T,)
        Labels: 0 = normal, 1 = anomaly. Both must occur.
    scores : array-like of shape (T,)
        Anomaly scores, higher = more anomalous. Only their order matters.
    length : int, default=100
        Largest buffer W: the number of points by which an event is extended, both sides together.
        TSB-AD uses the period of the series, see :func:`period`.

    Returns
    -------
    volumes : VUS
        ``pr`` and ``roc``, both 1 if the scores equal the labels. Random scores have a ``pr``
        between the share of points in events and the share in extended events. Their ``roc`` is
        far above 0.5, because a chance hit near an event counts as its detection. With 20 events of
        20 points among 20,000 points, random scores have 0.06 and 0.77; with 100 single points 0.22
        and 0.94. Compare ``roc`` only with that of random scores on the same labels.

    Raises
    ------
    ValueError
        If an argument is not a single series, if their lengths differ, if labels are not 0 or 1 or
        only one class occurs, or if scores are not finite.

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
    """Return VUS-PR, the volume under the surface of precision over recall and buffer length.

    See :func:`vus` for the definition; it returns both volumes in the same time.

    Parameters
    ----------
    y_true : array-like of shape (T,)
        Labels: 0 = normal, 1 = anomaly. Both must occur.
    scores : array-like of shape (T,)
        Anomaly scores, higher = more anomalous.
    length : int, default=100
        Largest buffer in points.

    Returns
    -------
    volume : float
        VUS-PR from 0 to 1; higher is better.

    Examples
    --------
    >>> from deepod.metrics import vus_pr
    >>> vus_pr([0, 0, 1, 1, 0, 0], [1, 2, 5, 6, 3, 1], length=0)
    1.0
    """
    return vus(y_true, scores, length=length).pr


def vus_roc(y_true: Any, scores: Any, *, length: int = 100) -> float:
    """Return VUS-ROC, the volume under the surface of the ROC curve and buffer length.

    See :func:`vus` for the definition; it returns both volumes in the same time.

    Parameters
    ----------
    y_true : array-like of shape (T,)
        Labels: 0 = normal, 1 = anomaly. Both must occur.
    scores : array-like of shape (T,)
        Anomaly scores, higher = more anomalous.
    length : int, default=100
        Largest buffer in points.

    Returns
    -------
    volume : float
        VUS-ROC from 0 to 1; higher is better. Random scores have far more than 0.5, see
        :func:`vus`.

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
    """Return the sum of the labels of points near events, for every buffer and threshold.

    A weight is at least sqrt(1/2). So a point near two events has the label 1, and the label of any
    other point depends on its distance only. Points are therefore counted by distance and
    threshold, and the counts are weighted for every buffer.
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
    """Return the distances of points outside from the nearest and the second nearest event."""
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
    """Return the period of a series, found by its autocorrelation.

    The period is the lag with the highest peak of the autocorrelation of the first 20,000 points,
    among lags from 4 to 399. As in TSB-AD's ``find_length``, it is 125 if there is no peak or the
    highest peak is at a lag below 6 or above 303. TSB-AD uses the period of the first channel as
    the ``length`` of :func:`vus`.

    Parameters
    ----------
    x : array-like of shape (T,)
        One channel of a series.
    most : int, default=100
        Upper limit on the result: a longer period is returned as ``most``.

    Returns
    -------
    period : int
        The period in points.

    Raises
    ------
    ValueError
        If ``x`` is not a single series of finite numbers, or ``most`` is not a positive integer.

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
    if np.ptp(x) == 0:  # the autocorrelation of a constant consists of rounding errors
        return min(_NO_PERIOD, int(most))
    x = x - x.mean()
    spectrum = np.fft.rfft(x, 1 << (2 * len(x)).bit_length())  # padded against wrapping around
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
    """Return the range-based recall: the mean over events of how much of each is found.

    For n events R and runs of successive alarms A, it is ::

        1/n (sum over the events R of
                 alpha [R has an alarm]
                 + (1 - alpha) gamma(R) (sum over the runs A of
                       weight of the points of R that are in A / weight of the points of R)),

    where gamma(R) is 1 if at most one run of alarms overlaps R, and else follows ``cardinality``.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (T,)
        Labels and alarms: 0 = normal, 1 = anomaly.
    alpha : float, default=0
        Weight, from 0 to 1, of the existence of an alarm in an event. The size of the overlap has
        the weight 1 - alpha.
    bias : {"flat", "front", "middle", "back"}, default="flat"
        Which points of an event have the largest weight: all the same, the first, the middle or
        the last ones. "front" rewards early alarms.
    cardinality : {"reciprocal", "one"}, default="reciprocal"
        Value of gamma for an event that x > 1 runs of alarms overlap: 1 / x or 1.

    Returns
    -------
    recall : float
        Recall from 0 to 1; higher is better. It is the usual recall if all events are single
        points. When you report it, state the parameters.

    Raises
    ------
    ValueError
        If labels and alarms are not single series of zeros and ones of the same length, there is no
        event, or a parameter has another value than those above.

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
    """Return the range-based precision: the mean over runs of alarms of how much of each is right.

    It equals :func:`range_recall` with ``alpha=0`` and with events and runs of alarms exchanged.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (T,)
        Labels and alarms: 0 = normal, 1 = anomaly.
    bias : {"flat", "front", "middle", "back"}, default="flat"
        Which points of a run of alarms have the largest weight.
    cardinality : {"reciprocal", "one"}, default="reciprocal"
        Factor for a run of alarms that overlaps x > 1 events: 1 / x or 1.

    Returns
    -------
    precision : float
        Precision from 0 to 1; 0 if there are no alarms. When you report it, state the parameters.

    Raises
    ------
    ValueError
        In the same cases as :func:`range_recall`.

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
        Labels and alarms: 0 = normal, 1 = anomaly.
    alpha : float, default=0
        Weight, in the recall, of the existence of an alarm in an event.
    bias : {"flat", "front", "middle", "back"}, default="flat"
        Which points of events (recall) and runs of alarms (precision) have the largest weight.
    cardinality : {"reciprocal", "one"}, default="reciprocal"
        Factor for an overlap in x > 1 pieces: 1 / x or 1.

    Returns
    -------
    f1 : float
        F1 from 0 to 1; 0 if no alarm hits an event. It is the usual F1 if all events and runs of
        alarms are single points. When you report it, state the parameters.

    Raises
    ------
    ValueError
        In the same cases as :func:`range_recall`.

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
    """Return for every run of ``flags`` whether ``others`` overlap it, and its overlap reward."""
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
    """Return the mean number of points from the start of an event to its first alarm.

    Missed events have no delay and are counted separately: compare delays only between detectors
    that find the same number of events. If an alarm is already on when the event starts, the delay
    is 0.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (T,)
        Labels and alarms: 0 = normal, 1 = anomaly.

    Returns
    -------
    delay : DetectionDelay
        ``mean``, the delay in points, averaged over detected events (NaN if there are none);
        ``detected``, the number of detected events; and ``events``, the number of all events.

    Raises
    ------
    ValueError
        If labels and alarms are not single series of zeros and ones of the same length, or there is
        no event.

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
    """Return the best point-adjusted F1 of scores, and that of random scores for comparison.

    Point adjustment counts all points of an event as found if one of them is. Let TP be the number
    of points in events whose highest score reaches the threshold, FP the number of points outside
    of events whose score reaches it, and P the number of points in events. Then ::

        F1 = the largest, over thresholds, of 2 TP / (TP + FP + P).

    The threshold is chosen with the labels, so no detector reaches this F1 in practice. Moreover,
    random scores reach high values if events are long [1]_. The metric is included because papers
    report it. Never report it without ``random``, and prefer :func:`vus_pr`.

    Parameters
    ----------
    y_true : array-like of shape (T,)
        Labels: 0 = normal, 1 = anomaly. Both must occur.
    scores : array-like of shape (T,)
        Anomaly scores, higher = more anomalous.

    Returns
    -------
    f1 : PointAdjustedF1
        ``f1``, that of the scores, and ``random``, the mean over ten arrays of uniform random
        scores, which are the same in every call.

    Raises
    ------
    ValueError
        In the same cases as :func:`vus`.

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
        raise ValueError(
            "y_true has no normal point (0), without which the metric is not defined; leave such a "
            "series out."
        )
    return truth, scores


def _truth_and_alarms(y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    truth, alarms = _binary(y_true, "y_true"), _binary(y_pred, "y_pred")
    _compare(truth, alarms, "y_pred")
    return truth, alarms


def _compare(truth: np.ndarray, other: np.ndarray, name: str) -> None:
    if len(truth) != len(other):
        raise ValueError(
            f"y_true has {len(truth)} points and {name} has {len(other)}; both need one value for "
            "each point of the same series."
        )
    if not truth.any():
        raise ValueError(
            "y_true has no anomaly (1), without which the metric is not defined; leave such a "
            "series out."
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
            f"{name}: {bad} of {len(values)} points are NaN or infinite; replace these values, or "
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
            f"{name} must be one series of shape (T,), got shape {values.shape}; pass several "
            "series or channels one at a time."
        )
    return values
