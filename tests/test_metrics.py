"""Metrics of a series: against the figures of others, against loops, and laws that must hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from deepod import metrics


def labels(n, *runs):
    y = np.zeros(n, dtype=int)
    for start, stop in runs:
        y[start:stop] = 1
    return y


def scores_of(y, seed, lift, decimals=None):
    scores = np.random.default_rng(seed).random(len(y)) + lift * y
    return scores if decimals is None else scores.round(decimals)


searched = settings(max_examples=25, deadline=None, derandomize=True, database=None)


# --- volume under the surface -------------------------------------------------------------------

A = labels(2000, (300, 320), (900, 905), (1500, 1600))
BORDERS = labels(600, (0, 4), (200, 230), (590, 600))
CLOSE = labels(1000, *((i, i + 1) for i in (100, 102, 105, 150, 170, 199, 300)), (320, 360))
SHORT = labels(60, (20, 23), (50, 51))
MANY = (np.random.default_rng(1).random(1500) < 0.1).astype(int)
PLACES, WIDTHS = np.array([315, 980, 1550, 1900]), np.array([8, 5, 60, 20])
PULSES = np.exp(-(((np.arange(2000)[:, None] - PLACES) / WIDTHS) ** 2)).sum(axis=1)

# Printed by the code of TSB-AD 1.5 itself (of its wheel on PyPI; evaluation/basic_metrics.py):
# generate_curve(y, scores, length, "opt", 250) returns them last, VUS-ROC before VUS-PR.
REFERENCE = {
    # name: (y, scores, length), (VUS-PR, VUS-ROC)
    "random": ((A, scores_of(A, 0, lift=0), 100), (0.134124411155864, 0.711564515410751)),
    "lifted": ((A, scores_of(A, 1, lift=0.5), 100), (0.674965041403034, 0.919560866680954)),
    "late": (
        (A, np.roll(scores_of(A, 2, lift=0.9), 10), 100),
        (0.841420815960679, 0.971655870521903),
    ),
    "pulses": ((A, PULSES, 80), (0.535079662109024, 0.803283222517831)),
    "borders": (
        (BORDERS, scores_of(BORDERS, 3, lift=0.3), 41),
        (0.434042361234451, 0.811208934214635),
    ),
    "close events": (
        (CLOSE, scores_of(CLOSE, 4, lift=0.6), 60),
        (0.78793788939648, 0.969999334376789),
    ),
    "ties": (
        (A, scores_of(A, 5, lift=0.3, decimals=1), 100),
        (0.449735409906909, 0.852486341579988),
    ),
    "constant": ((A, np.ones(2000), 100), (0.126189587890113, 0.517805299108296)),
    "the labels": ((CLOSE, CLOSE, 100), (1, 1)),
    "shorter than the buffer": (
        (SHORT, scores_of(SHORT, 6, lift=0.2), 100),
        (0.759817744859803, 0.944656813011595),
    ),
    "no buffer": ((A, scores_of(A, 7, lift=0.4), 0), (0.521148529436408, 0.822545066666667)),
    "buffer of one": ((A, scores_of(A, 7, lift=0.4), 1), (0.521148529436408, 0.822545066666667)),
    "odd buffer": (
        (CLOSE, scores_of(CLOSE, 8, lift=0.2), 7),
        (0.169149671077776, 0.67479899084435),
    ),
    "many events": (
        (MANY, scores_of(MANY, 9, lift=0.2), 50),
        (0.814462621287905, 0.952315849079486),
    ),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_vus__figures_of_tsb_ad(name):
    (y, scores, length), expected = REFERENCE[name]
    assert metrics.vus(y, scores, length=length) == pytest.approx(expected, abs=1e-12)
    assert metrics.vus_pr(y, scores, length=length) == metrics.vus(y, scores, length=length).pr
    assert metrics.vus_roc(y, scores, length=length) == metrics.vus(y, scores, length=length).roc


def vus_in_loops(y, scores, length):
    """Return the definition in :func:`deepod.metrics.vus`, formula by formula."""
    n, runs = len(y), metrics.events(y)
    thresholds = np.sort(scores)[::-1][np.linspace(0, n - 1, 250).astype(int)]
    areas = []
    for window in range(length + 1):
        reach = window // 2
        weight, extended = np.zeros(n), np.zeros(n, dtype=bool)
        group = np.full(n, -1)
        for start, stop in runs:
            for t in range(max(start - reach, 0), min(stop + reach, n)):
                distance = max(start - t, t - (stop - 1), 0)
                weight[t] += np.sqrt(1 - distance / window) if distance else 1
                extended[t] = True
        weight = np.minimum(weight, 1)
        number = -1
        for i, (start, stop) in enumerate(runs):
            if i == 0 or start - reach > runs[i - 1, 1] - 1 + reach:
                number += 1
            group[max(start - reach, 0) : stop + reach] = number
        curve, precisions = [(0.0, 0.0)], []
        for threshold in thresholds:
            alarm = scores >= threshold
            tp = weight[alarm].sum()
            positives = y.sum() + weight[alarm & (y == 0)].sum() / 2
            existence = len(set(group[alarm & extended])) / (number + 1)
            fpr = (alarm.sum() - tp) / (n - positives)
            curve.append((fpr, min(1, tp / positives) * existence))
            precisions.append(tp / alarm.sum())
        fpr, tpr = np.array([*curve, (1.0, 1.0)]).T
        pr = np.sum(np.diff(tpr[:-1]) * precisions)
        areas.append((pr, np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2)))
    return np.mean(areas, axis=0)


def both_classes(y):
    return 0 < y.sum() < len(y)


@st.composite
def series(draw, most=60):
    n = draw(st.integers(2, most))
    y = draw(arrays(int, n, elements=st.integers(0, 1)).filter(both_classes))
    return y, draw(arrays(float, n, elements=st.integers(-9, 9)))


@searched
@given(series(), st.integers(0, 13))
def test_vus__any_series__as_in_loops(case, length):
    y, scores = case
    expected = vus_in_loops(y, scores, length)
    assert metrics.vus(y, scores, length=length) == pytest.approx(expected, abs=1e-12)


@searched
@given(series(), st.integers(0, 100))
def test_vus__only_the_order_of_scores_matters(case, length):
    y, scores = case
    expected = metrics.vus(y, scores, length=length)
    for same_order in (3 * scores - 7, np.exp(scores), np.unique(scores, return_inverse=True)[1]):
        assert metrics.vus(y, same_order, length=length) == expected


@searched
@given(series(), st.integers(0, 100))
def test_vus__between_0_and_1__and_1_for_the_labels(case, length):
    y, scores = case
    volumes = metrics.vus(y, scores, length=length)
    assert 0 <= volumes.pr <= 1 + 1e-12
    assert 0 <= volumes.roc <= 1 + 1e-12
    assert metrics.vus_pr(y, y, length=length) == pytest.approx(1)


@searched
@given(series(), st.integers(0, 40))
def test_vus__time_reversed__the_same(case, length):
    y, scores = case
    expected = metrics.vus(y, scores, length=length)
    assert metrics.vus(y[::-1], scores[::-1], length=length) == pytest.approx(expected)


def test_vus__nearly_perfect_scores__near_1():
    assert metrics.vus(A, scores_of(A, 0, lift=1)) == pytest.approx((1, 1), abs=0.005)


def test_vus__random_scores__pr_between_the_shares_of_events_and_extended_events():
    drawn = [metrics.vus(A, scores_of(A, seed, lift=0)) for seed in range(20)]
    extended = np.convolve(A, np.ones(101), "same") > 0
    mean = np.mean(drawn, axis=0)
    assert A.mean() < mean[0] < extended.mean()
    assert mean[1] > 0.55  # not 0.5: one hit is enough for an event to exist


def test_vus__no_buffer_and_single_event_hit_at_once__average_precision():
    y = labels(200, (90, 91))  # at most 250 points: every rank is a threshold
    for seed in range(5):
        scores = scores_of(y, seed, lift=0.3)
        expected = average_precision_score(y, scores)
        assert metrics.vus_pr(y, scores, length=0) == pytest.approx(expected)


def test_vus__alarm_beside_the_event__counts_with_a_buffer_only():
    y, late = labels(1000, (400, 450)), labels(1000, (450, 460))
    assert metrics.vus_pr(y, late, length=0) < 0.1
    assert metrics.vus_pr(y, late, length=20) < metrics.vus_pr(y, late, length=100)


@pytest.mark.parametrize("length", [-1, 2.5, True, None, "period"])
def test_vus__bad_length__refused(length):
    with pytest.raises(ValueError, match="length must be a whole number"):
        metrics.vus(A, A, length=length)


# --- period -------------------------------------------------------------------------------------

TIME = np.arange(3000)
WAVE = np.sin(2 * np.pi * TIME / 40)
DRAWN = np.random.default_rng(0).random(3000)

# The third column was printed by TSB-AD 1.5's find_length (utils/slidingWindows.py).
PERIODS = {
    "sine": (WAVE, 40),
    "noisy": (WAVE + 3 * DRAWN, 41),
    "two sines": (WAVE + np.sin(TIME / 3), 38),
    "sawtooth": (TIME % 17, 17),
    "walk": ((DRAWN - 0.5).cumsum(), 125),
    "noise": (DRAWN, 111),
    "longer than 303": (np.sin(2 * np.pi * TIME / 330), 125),
    "constant": (np.full(50, 0.1), 125),
    "trend": (TIME, 125),
    "three points": (np.array([0.0, 1.0, 0.0]), 125),
    "of 5": (TIME % 5, 125),
    "of 250": (TIME % 250, 250),
}


@pytest.mark.parametrize("name", PERIODS)
def test_period__as_tsb_ad_finds_it(name):
    x, expected = PERIODS[name]
    assert metrics.period(x, most=1000) == expected
    assert metrics.period(x) == min(expected, 100)


def test_period__later_points_than_20000__not_looked_at():
    x = np.sin(np.arange(30_000) * 2 * np.pi / 50)
    x[20_000:] = np.sin(np.arange(10_000) * 2 * np.pi / 20) * 100
    assert metrics.period(x) == 50


@pytest.mark.parametrize(
    ("x", "most", "message"),
    [
        (WAVE.reshape(-1, 2), 100, r"shape \(T,\), got shape \(1500, 2\)"),
        ([1.0, np.nan], 100, "1 of 2 points are NaN"),
        ([], 100, r"got shape \(0,\)"),
        (WAVE, 0, "most must be a whole number of points, 1 or more"),
        (WAVE, 1.5, "most must be a whole number"),
    ],
)
def test_period__bad_input__refused(x, most, message):
    with pytest.raises(ValueError, match=message):
        metrics.period(x, most)


# --- events -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([0, 0], []),
        ([1, 1], [(0, 2)]),
        ([1, 0, 1, 1, 0], [(0, 1), (2, 4)]),
        ([False, True], [(1, 2)]),
        (np.array([0, 1, 0], dtype=np.uint8), [(1, 2)]),
        ([0.0, 1.0], [(1, 2)]),
    ],
)
def test_events__runs_of_ones(y, expected):
    found = metrics.events(y)
    assert found.shape == (len(expected), 2)
    assert list(map(tuple, found)) == expected


@searched
@given(arrays(int, st.integers(1, 60), elements=st.integers(0, 1)))
def test_events__put_back__the_labels(y):
    assert np.array_equal(labels(len(y), *metrics.events(y)), y)


# --- ranges -------------------------------------------------------------------------------------

DELTA = {
    "flat": lambda i, n: 1,
    "front": lambda i, n: n - i + 1,
    "middle": lambda i, n: i if i <= n / 2 else n - i + 1,
    "back": lambda i, n: i,
}


def range_recall_in_loops(y, alarms, alpha, bias, cardinality):
    """Return equations 2 to 6 of the paper with the functions of its figure 2."""
    rewards = []
    for start, stop in metrics.events(y):
        n = stop - start
        pieces = [set(range(start, stop)) & set(range(*run)) for run in metrics.events(alarms)]
        pieces = [piece for piece in pieces if piece]
        gained = sum(DELTA[bias](t - start + 1, n) for piece in pieces for t in piece)
        share = gained / sum(DELTA[bias](i, n) for i in range(1, n + 1))
        gamma = 1 / len(pieces) if len(pieces) > 1 and cardinality == "reciprocal" else 1
        rewards.append(alpha * (len(pieces) > 0) + (1 - alpha) * gamma * share)
    return np.mean(rewards) if rewards else 0.0


@searched
@given(
    series(),
    st.sampled_from([0, 0.2, 1]),
    st.sampled_from(list(DELTA)),
    st.sampled_from(["reciprocal", "one"]),
)
def test_ranges__any_labels__as_in_loops(case, alpha, bias, cardinality):
    y, scores = case
    alarms = (scores > 0).astype(int)
    how = {"bias": bias, "cardinality": cardinality}
    recall = range_recall_in_loops(y, alarms, alpha, bias, cardinality)
    precision = range_recall_in_loops(alarms, y, 0, bias, cardinality)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert metrics.range_recall(y, alarms, alpha=alpha, **how) == pytest.approx(recall)
    assert metrics.range_precision(y, alarms, **how) == pytest.approx(precision)
    assert metrics.range_f1(y, alarms, alpha=alpha, **how) == pytest.approx(f1)


def test_ranges__figures_of_tsb_ad():
    # range_recall_new(y, alarms, 0.2) and range_recall_new(alarms, y, 0) of TSB-AD 1.5
    alarms = (scores_of(A, 5, lift=0.4) > 0.8).astype(int)
    assert metrics.range_recall(A, alarms, alpha=0.2) == pytest.approx(0.329616161616162)
    assert metrics.range_precision(A, alarms) == pytest.approx(0.0923809523809524)


@pytest.mark.parametrize("seed", range(8))
def test_ranges__single_points__the_usual_metrics(seed):
    y, alarms = np.zeros((2, 60), dtype=int)
    y[::2], alarms[::2] = np.random.default_rng(seed).random((2, 30)) < 0.3  # no two side by side
    usual = [metric(y, alarms) for metric in (precision_score, recall_score, f1_score)]
    for bias in DELTA:
        got = [
            metrics.range_precision(y, alarms, bias=bias),
            metrics.range_recall(y, alarms, bias=bias),
            metrics.range_f1(y, alarms, bias=bias),
        ]
        assert got == pytest.approx(usual)


def test_range_recall__early_alarm__front_bias_above_back_bias():
    y, alarms = labels(10, (2, 6)), labels(10, (2, 3))
    rewards = [metrics.range_recall(y, alarms, bias=bias) for bias in DELTA]
    assert rewards == pytest.approx([1 / 4, 4 / 10, 1 / 6, 1 / 10])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"alpha": 1.5}, "alpha must be a number from 0 to 1, got 1.5"),
        ({"alpha": "flat"}, "alpha must be a number"),
        ({"bias": "early"}, "bias must be one of flat, front, middle, back, got 'early'"),
        ({"cardinality": 2}, "cardinality must be one of reciprocal, one, got 2"),
    ],
)
def test_ranges__bad_parameter__refused(how, message):
    with pytest.raises(ValueError, match=message):
        metrics.range_f1(A, A, **how)


# --- delay and point adjustment -----------------------------------------------------------------


def test_detection_delay__missed_events_apart():
    y = labels(20, (2, 6), (8, 12), (14, 20))
    alarms = labels(20, (0, 1), (5, 7), (12, 14), (15, 16), (18, 19))
    assert metrics.detection_delay(y, alarms) == (2, 2, 3)  # (3 + 1) / 2
    mean, detected, n_events = metrics.detection_delay(y, 1 - y)
    assert np.isnan(mean)
    assert (detected, n_events) == (0, 3)


def test_detection_delay__alarm_goes_on_from_before__none():
    assert metrics.detection_delay(labels(9, (3, 9)), labels(9, (1, 5))) == (0, 1, 1)


@searched
@given(series())
def test_point_adjusted_f1__best_of_all_thresholds(case):
    y, scores = case
    best = 0.0
    for threshold in scores:
        alarms = (scores >= threshold).astype(int)
        for start, stop in metrics.events(y):
            alarms[start:stop] = alarms[start:stop].max()
        best = max(best, 2 * (y @ alarms) / (y.sum() + alarms.sum()))
    assert metrics.point_adjusted_f1(y, scores).f1 == pytest.approx(best)


def test_point_adjusted_f1__long_event__random_scores_seem_good():
    y = labels(2000, (500, 900))
    f1, random = metrics.point_adjusted_f1(y, scores_of(y, 3, lift=0))
    assert min(f1, random) > 0.9
    assert metrics.point_adjusted_f1(y, y) == (1, random)  # of the labels alone


# --- arguments ----------------------------------------------------------------------------------

OF_SCORES = [metrics.vus, metrics.vus_pr, metrics.vus_roc, metrics.point_adjusted_f1]
OF_ALARMS = [
    metrics.range_precision,
    metrics.range_recall,
    metrics.range_f1,
    metrics.detection_delay,
]


@pytest.mark.parametrize("metric", OF_SCORES + OF_ALARMS)
@pytest.mark.parametrize(
    ("y", "other", "message"),
    [
        ([0, 1, 0], [0, 1], "y_true has 3 points and .* has 2"),
        ([0, 0], [0, 1], r"y_true has no anomaly \(1\)"),
        ([0, 2], [0, 1], r"y_true must hold 0 .* only, got \[0, 2\]"),
        ([0, np.nan], [0, 1], "y_true must hold 0"),
        (["a", "b"], [0, 1], "y_true must hold 0"),
        ([], [], r"y_true must be one series of shape \(T,\)"),
        ([[0, 1], [1, 0, 0]], [0, 1], "y_true holds 2 series; call the metric for each"),
        ([0, 1], [np.zeros(2), np.zeros(2)], "holds 2 series"),
        (np.eye(2), [0, 1], r"y_true must be one series of shape \(T,\), got shape \(2, 2\)"),
        (1, [0, 1], r"got shape \(\)"),
    ],
)
def test_metrics__bad_input__refused(metric, y, other, message):
    with pytest.raises(ValueError, match=message):
        metric(y, other)


@pytest.mark.parametrize("metric", OF_SCORES)
def test_metrics__scores_not_finite_or_one_class__refused(metric):
    with pytest.raises(ValueError, match="scores: 2 of 3 points are NaN or infinite"):
        metric([0, 1, 0], [0.5, np.nan, np.inf])
    with pytest.raises(ValueError, match="y_true has no normal point"):
        metric([1, 1], [0.5, 1])


@pytest.mark.parametrize("metric", OF_ALARMS)
def test_metrics__scores_for_alarms__refused(metric):
    with pytest.raises(ValueError, match="y_pred must hold 0"):
        metric([0, 1], [0.2, 0.7])


@pytest.mark.parametrize("metric", OF_SCORES + OF_ALARMS)
def test_metrics__forms_of_input__same_result_and_nothing_written(metric):
    y = labels(30, (4, 9), (20, 22))
    other = labels(30, (3, 6), (20, 23))
    y.setflags(write=False)
    other.setflags(write=False)
    expected = metric(y, other)
    assert metric(y.tolist(), tuple(other.tolist())) == expected
    assert metric(y.astype(bool), other.astype(bool)) == expected
    assert metric(y.astype(np.float32), other.astype(np.uint8)) == expected
    pandas = pytest.importorskip("pandas")
    assert metric(pandas.Series(y, index=range(30, 0, -1)), pandas.Series(other)) == expected
