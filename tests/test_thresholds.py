"""From scores to a threshold: by a share, without one, by calibration, by hand."""

import copy
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import betabinom, binom
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

import deepod
from deepod import SeedEnsemble, SklearnOutlierAdapter, data, fit_many
from deepod._scoring.threshold import (
    check_enough,
    of_contamination,
    of_false_alarms,
    of_labels,
    p_values,
)

from .cases import NAMES, REPRESENTATIVES, fast, samples
from .test_pyod import Thresholder
from .test_sklearn import EXPECTED_FAILURES

representatives = pytest.mark.parametrize("name", REPRESENTATIVES)
GOOD, NEW = samples(), samples(n=200, seed=1)


FITTED = fast("AutoEncoder", calibration_fraction=0.25).fit(GOOD)


def arrays_of(elements, low=2, high=60):
    return arrays(float, st.integers(low, high), elements=elements)


few_values = st.integers(-3, 3).map(float)  # many ties
some_scores = arrays_of(st.floats(-1e9, 1e9)) | arrays_of(few_values)
rates = st.floats(1e-4, 0.999)


def calibrated(name, **params):
    return fast(name, **({"calibration_fraction": 0.25} | params))


# --- contamination 0 and "auto", on scores ------------------------------------------------------


def size_of(scores):
    """What rounding of scores is relative to, at their highest."""
    return max(abs(scores.max()), np.ptp(scores))


@given(some_scores)
@example(np.zeros(3))
@example(np.full(2, 1e-320))
@example(np.full(3, -1e300))
@example(np.array([-5.0, 1e300]))
def test_contamination_zero__scores_that_move_by_rounding__below_but_not_far_below(scores):
    threshold, size = of_contamination(scores, 0), size_of(scores)
    assert (scores < threshold).all()
    assert (scores + 1e-6 * size <= threshold).all()
    # Among the smallest numbers there are, the next one is further away.
    assert threshold <= max(scores.max() + 3e-6 * size, np.nextafter(scores.max(), np.inf))


@pytest.mark.parametrize("contamination", [0, "auto"])
@given(st.floats(-1e3, 1e3), st.integers(-300, 290))
def test_contamination_zero_and_auto__scores_of_any_unit__flag_what_is_a_thousandth_higher(
    contamination, score, power
):
    scores = np.full(20, score) * 10.0**power
    threshold = of_contamination(scores, contamination)
    assert scores[0] < threshold <= scores[0] + max(1e-3 * abs(scores[0]), 5e-324)


def test_contamination_auto__third_quartile_and_three_halves_of_the_range():
    scores = np.array([0.0, 1, 2, 3, 4, 9, 10, 20, 30])  # quartiles 2 and 10
    assert of_contamination(scores, "auto") == 22


@given(
    arrays_of(st.integers(-1000, 1000).map(float)) | arrays_of(few_values),
    st.integers(-6, 6),
    st.integers(-1000, 1000),
)
def test_contamination_auto__scores_shifted_and_scaled__same_labels(scores, power, shift):
    moved = scores * 2.0**power + shift
    threshold = of_contamination(scores, "auto")
    clear = ~np.isclose(
        scores, threshold, rtol=1e-4
    )  # of a score at the threshold rounding decides
    np.testing.assert_array_equal(
        (scores > threshold)[clear], (moved > of_contamination(moved, "auto"))[clear]
    )


@given(st.floats(-1e100, 1e100), st.integers(2, 50))
def test_contamination_auto__scores_all_alike__none_flagged_even_if_they_move(score, n):
    threshold = of_contamination(np.full(n, score), "auto")
    assert score < threshold
    assert score + 1e-6 * abs(score) <= threshold


def test_contamination_auto__most_scores_alike__higher_ones_flagged():
    for unit in (1, 1e-9):
        scores = np.array([3.0] * 80 + [4.0, 5.0, 2.0, 1e12]) * unit
        flagged = scores[scores > of_contamination(scores, "auto")]
        np.testing.assert_allclose(flagged, np.array([4, 5, 1e12]) * unit)


def test_contamination_auto__logits_alike_at_zero__room_by_the_range_below():
    scores = np.array([0.0] * 80 + [-1.0])
    assert of_contamination(scores, "auto") == pytest.approx(2e-6)


def test_labels_of_a_thresholder__threshold_in_units_of_its_own__one_in_ours():
    scores = np.array([10.0, 30, 20, 50, 40])
    labels = np.array([0, 0, 0, 1, 1])
    assert of_labels(scores, labels, 35.0) == 35
    for proposed in (0.6, None):  # PyThresh rescales the scores to [0, 1]
        assert of_labels(scores, labels, proposed) == 30
    assert (scores > of_labels(scores, np.ones(5, int), None)).all()
    assert not (scores > of_labels(scores, np.zeros(5, int), 1.2)).any()


# --- conformal p-values, on scores --------------------------------------------------------------


@given(some_scores, some_scores)
def test_p_values__are_the_share_of_calibration_scores_as_high_counting_itself(scores, others):
    expected = [(1 + (others >= s).sum()) / (len(others) + 1) for s in scores]
    np.testing.assert_array_equal(p_values(scores, np.sort(others)), expected)


@given(some_scores, rates)
def test_p_values__each_of_some_rows_in_turn_is_the_new_one__at_most_the_share(scores, rate):
    """P(p <= a) <= a, exactly: exchangeable means that each is as likely to be the new one."""
    n = len(scores)
    p = [p_values(scores[i : i + 1], np.sort(np.delete(scores, i)))[0] for i in range(n)]
    assert sum(value <= rate for value in p) <= rate * n * (1 + 1e-12)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
def test_p_values__many_draws__promise_kept_and_not_by_a_wide_margin(rate):
    draws = 20_000
    scores = np.random.default_rng(0).gamma(2, size=(draws, 40))
    p = [p_values(row[:1], np.sort(row[1:]))[0] for row in scores]
    # Without ties P(p <= a) = a where a (n + 1) is a whole number.
    low, high = binom.interval(1 - 1e-6, draws, rate)
    assert low <= sum(value <= rate for value in p) <= high


@given(some_scores, some_scores, rates)
def test_false_alarm_threshold__scores_above_it__p_values_up_to_the_rate(scores, others, rate):
    others = np.sort(others)
    if 1 / (len(others) + 1) > rate:
        with pytest.raises(ValueError, match="calibration rows"):
            of_false_alarms(others, rate)
        return
    scores = np.concatenate([scores, others])
    flagged = scores > of_false_alarms(others, rate)
    np.testing.assert_array_equal(flagged, p_values(scores, others) <= rate)


@given(st.floats(1e-6, 0.999))
@example(0.05)
@example(1 / 49)
@example(np.nextafter(1 / 49, 0))
def test_rows_needed__as_the_error_says__enough_and_one_fewer_is_not(rate):
    with pytest.raises(ValueError, match="at least") as error:
        check_enough(0, rate)
    needed = int(str(error.value).split("at least ")[1].split()[0])
    check_enough(needed, rate)
    assert 1 / (needed + 1) <= rate < 1 / needed
    with pytest.raises(ValueError, match=f"got {needed - 1}"):
        check_enough(needed - 1, rate)


# --- contamination 0 and "auto", every detector -------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_contamination_zero__training_rows_scored_again__all_normal(name):
    detector = fast(name, contamination=0).fit(GOOD)
    assert detector.labels_.sum() == 0
    assert detector.predict(GOOD[::-1]).sum() == 0
    one_by_one = [detector.predict(row[None], return_confidence=True) for row in GOOD]
    assert not any(label[0] for label, _ in one_by_one)
    assert all(0 <= confidence[0] <= 1 for _, confidence in one_by_one)
    above = detector.threshold_ - detector.decision_scores_.max()
    assert 0 < above < 1e-5 * size_of(detector.decision_scores_)
    with pytest.raises(ValueError, match="contamination"):
        detector.compute_rejection_stats()


@representatives
@pytest.mark.parametrize("contamination", [0, "auto"])
def test_contamination_zero_and_auto__tiny_scores__same_labels(name, contamination):
    plain = fast(name, contamination=contamination).fit(GOOD)
    unit = 2.0**-40  # exact

    def score(self, module, x):
        return type(plain)._score(self, module, x) * unit

    tiny = type("Tiny", (type(plain),), {"_score": score})(**plain.get_params(deep=False))
    tiny.fit(GOOD)
    assert tiny.threshold_ == pytest.approx(unit * plain.threshold_, rel=1e-12, abs=0)
    rows = np.concatenate([GOOD, NEW, 100 * NEW])
    np.testing.assert_array_equal(tiny.predict(rows), plain.predict(rows))
    if name == "AutoEncoder":
        assert tiny.predict(100 * NEW).all()


@representatives
def test_contamination_auto__before_or_after_fit__fence_of_the_training_scores(name):
    X = np.concatenate([GOOD, 30 + 10 * samples(n=4, seed=2)])
    detector = fast(name, contamination="auto").fit(X)
    low, high = np.quantile(detector.decision_scores_, [0.25, 0.75])
    assert detector.threshold_ == pytest.approx(high + 1.5 * (high - low))
    np.testing.assert_array_equal(detector.labels_, detector.decision_scores_ > detector.threshold_)
    np.testing.assert_array_equal(detector.predict(X), detector.labels_)
    labels, confidence = detector.predict(X, return_confidence=True)
    assert ((confidence >= 0) & (confidence <= 1)).all()
    later = fast(name).fit(X)
    later.contamination = "auto"
    assert later.threshold_ == detector.threshold_
    if labels.any():
        assert np.isfinite(detector.compute_rejection_stats()).all()


def test_confidence__row_far_above_all_others__sure_of_its_label():
    detector = fast("AutoEncoder", contamination=0).fit(GOOD)
    labels, confidence = detector.predict(np.full((1, 5), 1e4), return_confidence=True)
    assert labels[0] == 1
    assert confidence[0] > 0.3  # that none of 40 other rows scores as high


# --- calibration rows ---------------------------------------------------------------------------


def prepared_by(detector, X, y=None):
    """The rows that a detector's method gets to see in ``fit``: to train on, to watch."""
    seen = []
    prepare = type(detector)._prepare

    def record(self, X, y, rng):
        seen.append(X.copy())
        return prepare(self, X, y, rng)

    twin = type("Twin", (type(detector),), {"_prepare": record})
    twin(**detector.get_params(deep=False)).fit(X, y)
    return seen


def position(rows):
    """Where rows are in GOOD."""
    return [int(np.flatnonzero((row == GOOD).all(1))[0]) for row in rows]


@representatives
def test_calibration_fraction__rows_held_out__of_training_and_watching(name):
    detector = calibrated(name, validation_fraction=0.2, scaler=None)
    trained, watched = map(position, prepared_by(detector, GOOD))
    assert (len(trained), len(watched)) == (24, 6)
    assert not set(trained) & set(watched)
    held_out = np.setdiff1d(np.arange(40), trained + watched)
    detector.fit(GOOD)
    scores = detector.decision_scores_
    assert scores.shape == (40,)
    np.testing.assert_array_equal(detector.calibration_scores_, np.sort(scores[held_out]))


@representatives
def test_calibration_fraction__other_values_in_these_rows__change_nothing_but_their_scores(name):
    settings = {"validation_fraction": 0.2, "random_state": 3, "missing": "impute"}
    (trained, watched) = map(position, prepared_by(calibrated(name, scaler=None, **settings), GOOD))
    others = GOOD.copy()
    held_out = np.setdiff1d(np.arange(40), trained + watched)
    others[held_out] = 50 + 9 * samples(n=10, seed=9)
    one, other = (calibrated(name, **settings).fit(X) for X in (GOOD, others))
    for key, value in one.module_.state_dict().items():
        assert torch.equal(value, other.module_.state_dict()[key]), key
    for attribute in ("scale_", "shift_", "fill_", "baseline_"):
        np.testing.assert_array_equal(getattr(one, attribute), getattr(other, attribute))
    for entry, same in zip(one.history_, other.history_, strict=True):
        assert {**entry, "seconds": 0} == {**same, "seconds": 0}
    assert not np.array_equal(one.calibration_scores_, other.calibration_scores_)


@representatives
def test_calibration_fraction__seed__draws_the_rows(name):
    first, again, other = (calibrated(name, random_state=s).fit(GOOD) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.calibration_scores_, again.calibration_scores_)
    rows = [position(prepared_by(calibrated(name, scaler=None, random_state=s), GOOD)[0])
            for s in (0, 1)]  # fmt: skip
    assert rows[0] != rows[1]
    assert not np.array_equal(first.calibration_scores_, other.calibration_scores_)
    # Without the parameter, nothing is drawn: no other seed changes.
    assert not hasattr(fast(name).fit(GOOD), "calibration_scores_")


@pytest.mark.parametrize(
    ("name", "supervision"),
    [("PLAD", "drop_anomalies"), ("AnoRand", "few_labels"), ("AnoRand", "supervised")],
)
def test_calibration_fraction__labelled_rows__normal_ones_only(name, supervision):
    y = (np.arange(40) % 4 == 0).astype(int)
    detector = calibrated(name, supervision=supervision, calibration_fraction=0.5).fit(GOOD, y)
    assert len(detector.calibration_scores_) == 15
    assert np.isin(detector.calibration_scores_, detector.decision_scores_[y == 0]).all()
    assert not np.isin(detector.calibration_scores_, detector.decision_scores_[y == 1]).any()
    with pytest.raises(ValueError, match="some rows must be normal"):
        calibrated(name, supervision=supervision).fit(GOOD, np.ones(40))
    one_normal = (np.arange(40) > 0).astype(int)
    with pytest.raises(ValueError, match="calibration_fraction"):
        calibrated(name, supervision=supervision).fit(GOOD, one_normal)


@representatives
def test_calibration_fraction__tiny_sets__one_row_or_a_clear_error(name):
    assert len(calibrated(name, calibration_fraction=0.01).fit(GOOD[:4]).calibration_scores_) == 1
    with pytest.raises(ValueError, match=r"calibration_fraction=0.5 leaves 1 of 3 rows"):
        calibrated(name, calibration_fraction=0.5).fit(GOOD[:3])
    with pytest.raises(ValueError, match=r"validation_fraction=0.5 leaves 1 of 2 rows"):
        calibrated(name, calibration_fraction=0.5, validation_fraction=0.5).fit(GOOD[:4])


def test_calibration_fraction__side_by_side__as_alone():
    detector = calibrated("AutoEncoder", network=deepod.networks.MLP(hidden=(6,)), epochs=3)
    for seed, member in zip((4, 5), fit_many(detector, GOOD, seeds=[4, 5]), strict=True):
        alone = clone(detector).set_params(random_state=seed).fit(GOOD)
        np.testing.assert_allclose(member.calibration_scores_, alone.calibration_scores_, rtol=1e-4)


def test_calibration_fraction__rows_read_from_disk__refused_with_the_way_out():
    detector = calibrated("AutoEncoder", memory_limit=1 << 12)
    X = samples(n=400)
    with pytest.raises(ValueError, match=r"calibration_fraction.*calibrate\(X\)"):
        detector.fit(data.array(X))
    detector.set_params(calibration_fraction=0, false_alarm_rate=0.05).fit(data.array(X))
    detector.calibrate(data.array(NEW))
    np.testing.assert_array_equal(
        detector.calibration_scores_, np.sort(detector.decision_function(NEW))
    )
    assert detector.labels_.shape == (400,)


# --- false alarms -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, "calibration_fraction") for name in NAMES]
    + [(name, "calibrate") for name in REPRESENTATIVES],
)
def test_false_alarm_rate__new_normal_rows__flagged_as_often_as_asked(name, how):
    """Without ties the number of flagged rows is beta-binomial, whatever the scores are."""
    generator = np.random.default_rng(7)
    mix = generator.normal(size=(5, 5))
    X, more, new = (generator.normal(size=(n, 5)) @ mix for n in (1000, 400, 4000))
    settings = {"epochs": 2, "false_alarm_rate": 0.1}
    if how == "calibrate":
        detector = fast(name, **settings).fit(X).calibrate(more)
    else:
        detector = fast(name, **settings, calibration_fraction=0.4).fit(X)
    n, flagged = 400, detector.predict(new).sum()
    assert len(detector.calibration_scores_) == n
    most = int(0.1 * (n + 1))
    low, high = betabinom.interval(1 - 1e-6, 4000, most, n + 1 - most)
    assert low <= flagged <= high


@representatives
def test_false_alarm_rate__labels__where_p_values_are_at_most_the_rate(name):
    detector = calibrated(name, false_alarm_rate=0.2).fit(GOOD)
    rows = np.concatenate([GOOD, NEW])
    for rate in (0.2, 0.1, 0.35, 0.999):
        detector.false_alarm_rate = rate
        p = detector.p_values(rows)
        assert p.shape == (240,)
        assert p.dtype == np.float64
        assert ((p >= 1 / 11) & (p <= 1)).all()
        np.testing.assert_array_equal(detector.predict(rows), p <= rate)
        np.testing.assert_array_equal(detector.labels_, p[:40] <= rate)
        np.testing.assert_array_equal(
            detector.predict(rows), detector.decision_function(rows) > detector.threshold_
        )
    detector.false_alarm_rate = None
    assert detector.labels_.sum() == 4  # contamination=0.1 again


@representatives
def test_false_alarm_rate__confidence_and_rejection__follow_its_labels(name):
    detector = calibrated(name, false_alarm_rate=0.2).fit(GOOD)
    labels, confidence = detector.predict(NEW, return_confidence=True)
    assert ((confidence >= 0) & (confidence <= 1)).all()
    rejected = detector.predict_with_rejection(NEW, T=2)
    np.testing.assert_array_equal(labels[rejected != -2], rejected[rejected != -2])
    assert np.isfinite(detector.compute_rejection_stats()).all()


@representatives
def test_false_alarm_rate__too_few_rows__error_before_training_says_how_many(name):
    epochs = []
    detector = calibrated(name, false_alarm_rate=0.05, callbacks=[epochs.append])
    with pytest.raises(ValueError, match=r"false_alarm_rate=0.05 needs at least 19 .* got 10"):
        detector.fit(GOOD)
    assert not epochs
    assert not detector.__sklearn_is_fitted__()
    detector.false_alarm_rate = 0.1
    detector.fit(GOOD)
    threshold, scores = detector.threshold_, detector.calibration_scores_
    detector.false_alarm_rate = 0.01
    with pytest.raises(ValueError, match="at least 99"):
        detector.predict(NEW)
    with pytest.raises(ValueError, match="at least 99"):
        detector.calibrate(NEW[:98])
    assert detector.calibration_scores_ is scores
    detector.false_alarm_rate = 0.1
    assert detector.threshold_ == threshold
    detector.false_alarm_rate = 0.01
    assert detector.calibrate(NEW[:99]).predict(NEW[:99]).sum() == 0  # p = 2 / 100 at least


@representatives
def test_no_calibration_scores__error_names_both_ways(name):
    detector = fast(name, false_alarm_rate=0.1).fit(GOOD)
    assert detector.decision_scores_.shape == (40,)
    assert not hasattr(detector, "threshold_")
    for call in (
        detector.predict,
        detector.p_values,
        lambda X: detector.predict_proba(X, method="conformal"),
    ):
        with pytest.raises(NotFittedError, match=r"calibration_fraction.*calibrate\(X\)"):
            call(NEW)
    detector.false_alarm_rate = None
    assert detector.predict(GOOD).sum() == 4


def assert_refused_before_training(estimator, ways):
    with pytest.raises(ValueError, match=f"false_alarm_rate=0.1.*{ways}"):
        estimator.fit_predict(GOOD)
    assert not estimator.__sklearn_is_fitted__()


@representatives
def test_fit_predict__false_alarm_rate_without_calibration_rows__error_before_training(name):
    epochs = []
    detector = fast(name, false_alarm_rate=0.1, callbacks=[epochs.append])
    assert_refused_before_training(detector, r"calibration_fraction=0.2.*calibrate\(X\)")
    assert not epochs
    with pytest.raises(ValueError, match="'false_alarm_rate' parameter"):
        fast(name, false_alarm_rate=1.5).fit_predict(GOOD)
    y = np.arange(40) % 2
    assert 0 <= detector.fit_predict_score(GOOD, y) <= 1  # takes no labels
    labels = calibrated(name, false_alarm_rate=0.1).fit_predict(GOOD)
    assert set(labels) <= {0, 1}


@representatives
def test_calibrate__other_rows__take_the_place_of_those_held_out(name):
    detector = calibrated(name, false_alarm_rate=0.1).fit(GOOD)
    before, labels = detector.threshold_, detector.predict(NEW)
    assert detector.calibrate(NEW + 5) is detector
    scores = detector.decision_function(NEW + 5)
    np.testing.assert_array_equal(detector.calibration_scores_, np.sort(scores))
    assert detector.threshold_ != before
    assert not np.array_equal(detector.predict(NEW), labels)
    np.testing.assert_array_equal(detector.predict(NEW), detector.p_values(NEW) <= 0.1)
    for wrong in (NEW[:0], NEW[:, :2], np.full((30, 5), np.nan)):
        with pytest.raises(ValueError, match=r"sample|features|NaN"):
            detector.calibrate(wrong)
    np.testing.assert_array_equal(detector.calibration_scores_, np.sort(scores))


@representatives
def test_predict_proba__conformal__one_minus_the_p_value(name):
    detector = calibrated(name).fit(GOOD)
    proba, confidence = detector.predict_proba(NEW, method="conformal", return_confidence=True)
    np.testing.assert_allclose(proba[:, 0], detector.p_values(NEW), rtol=1e-12)
    np.testing.assert_allclose(proba.sum(1), 1)
    np.testing.assert_array_equal(confidence, detector.predict_confidence(NEW))


# --- a number -----------------------------------------------------------------------------------


@representatives
def test_set_threshold__labels_and_confidence__follow(name):
    detector = fast(name).fit(GOOD)
    middle = float(np.median(detector.decision_scores_))
    assert detector.set_threshold(np.float32(middle)) is detector
    assert detector.threshold_ == np.float32(middle)
    detector.set_threshold(middle)
    assert detector.labels_.sum() == 20
    labels, confidence = detector.predict(NEW, return_confidence=True)
    np.testing.assert_array_equal(labels, detector.decision_function(NEW) > middle)
    half = fast(name, contamination=0.5).fit(GOOD)  # the same share of training rows
    np.testing.assert_array_equal(confidence, half.predict_confidence(NEW))
    assert np.isfinite(detector.compute_rejection_stats()).all()
    for far, flagged in ((1e12, 0), (-1e12, 40)):
        detector.set_threshold(far)
        assert detector.labels_.sum() == flagged
        assert np.isfinite(detector.predict_confidence(NEW)).all()
        assert detector.predict(NEW).mean() == flagged / 40


CHANGES = {
    "None": lambda d: d.set_threshold(None),
    "contamination": lambda d: d.set_params(contamination=0.25),
    "false_alarm_rate": lambda d: d.set_params(false_alarm_rate=0.2),
    "refit": lambda d: d.fit(GOOD),
    "clone": lambda d: clone(d).fit(GOOD),
}


@representatives
@pytest.mark.parametrize("change", CHANGES)
def test_set_threshold__other_rule_or_fit__takes_its_place(name, change):
    detector = calibrated(name).fit(GOOD).set_threshold(-1e12)
    assert detector.labels_.all()
    changed = CHANGES[change](detector)
    expected = calibrated(name, **detector.get_params(deep=False)).fit(GOOD)
    assert changed.threshold_ == expected.threshold_
    np.testing.assert_array_equal(changed.predict(NEW), expected.predict(NEW))
    changed.set_params(contamination=0.1, false_alarm_rate=None)
    back = change in ("contamination", "false_alarm_rate")
    assert changed.labels_.sum() == (40 if back else 4)


RULES = [{"contamination": c, "false_alarm_rate": r} for c in (0.1, 0.2) for r in (None, 0.2)]
steps = st.lists(
    st.sampled_from(RULES)
    | st.sampled_from([-1.0, 1.0, None])
    | st.sampled_from([GOOD, NEW]),  # to calibrate by
    max_size=6,
)


@settings(max_examples=40)
@given(steps)
def test_threshold__attributes_read_in_between__change_nothing(changes):
    quiet, read = copy.deepcopy(FITTED), copy.deepcopy(FITTED)
    for change in changes:
        for detector in (quiet, read):
            if isinstance(change, dict):
                detector.set_params(**change)
            elif isinstance(change, np.ndarray):
                detector.calibrate(change)
            else:
                detector.set_threshold(change)
        assert np.isfinite(read.threshold_)
        assert read.labels_.shape == (40,)
    assert quiet.threshold_ == read.threshold_
    np.testing.assert_array_equal(quiet.labels_, read.labels_)
    assert quiet.given_threshold_ == read.given_threshold_


def test_set_threshold__rule_changed_and_changed_back__holds_again():
    for read in (False, True):
        detector = calibrated("AutoEncoder").fit(GOOD).set_threshold(-1e12)
        detector.set_params(contamination=0.2)
        if read:
            assert detector.labels_.sum() == 8
        assert detector.given_threshold_ == -1e12
        detector.set_params(contamination=0.1)
        assert detector.threshold_ == -1e12
        assert detector.given_under_ == (0.1, None)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
@pytest.mark.parametrize("contamination", [0.1, Thresholder()])
def test_set_threshold__copied_under_another_rule__holds_when_its_own_is_back(
    copied, contamination
):
    detector = calibrated("AutoEncoder", contamination=contamination).fit(GOOD)
    detector.set_threshold(-1e12).set_params(false_alarm_rate=0.2)
    again = copied(detector)
    assert again.threshold_ == detector.threshold_ != -1e12
    assert again.set_params(false_alarm_rate=None).threshold_ == -1e12


@representatives
def test_set_threshold__refit_that_fails__kept(name):
    detector = fast(name).fit(GOOD).set_threshold(-1e12)
    with pytest.raises(ValueError, match="NaN"):
        detector.fit(np.full((40, 5), np.nan))
    assert detector.threshold_ == -1e12


@representatives
def test_set_threshold__pickle_and_deepcopy__keep_it_and_the_calibration(name):
    detector = calibrated(name).fit(GOOD).set_threshold(0.5)
    for loaded in (pickle.loads(pickle.dumps(detector)), copy.deepcopy(detector)):
        assert loaded.threshold_ == 0.5
        np.testing.assert_array_equal(loaded.p_values(NEW), detector.p_values(NEW))
        loaded.contamination = 0.25
        assert loaded.labels_.sum() == 10
    assert detector.threshold_ == 0.5


def test_set_threshold__calibrate_after_it__kept():
    detector = calibrated("AutoEncoder", false_alarm_rate=0.1).fit(GOOD).set_threshold(0.5)
    assert detector.calibrate(NEW).threshold_ == 0.5
    assert detector.set_threshold(None).threshold_ == of_false_alarms(
        detector.calibration_scores_, 0.1
    )


def test_set_threshold__without_calibration_scores__takes_the_place_of_the_rate():
    detector = fast("AutoEncoder", false_alarm_rate=0.1).fit(GOOD)
    assert detector.set_threshold(-1.0).predict(NEW).all()
    with pytest.raises(NotFittedError, match="calibrate"):
        detector.set_threshold(None).predict(NEW)


@pytest.mark.parametrize(
    "wrong", [float("nan"), float("inf"), "0.5", [0.5], 1j, 10**400, Fraction(-(10**400))]
)
def test_set_threshold__no_finite_number__refused(wrong):
    detector = fast("AutoEncoder").fit(GOOD)
    before = detector.threshold_
    with pytest.raises(ValueError, match="threshold"):
        detector.set_threshold(wrong)
    assert detector.threshold_ == before


def test_thresholder__other_rule_in_its_place__none_until_it_is_back():
    detector = calibrated("AutoEncoder", contamination=Thresholder()).fit(GOOD)
    own, labels = detector.threshold_, detector.predict(NEW)
    for rule in (
        lambda: detector.set_threshold(0.1),
        lambda: detector.set_params(false_alarm_rate=0.2),
    ):
        rule()
        assert detector.threshold_ != own
        np.testing.assert_array_equal(
            detector.predict(NEW), detector.decision_function(NEW) > detector.threshold_
        )
        with pytest.raises(AttributeError, match="thresholder_"):
            _ = detector.thresholder_
    detector.set_params(false_alarm_rate=None)
    assert detector.threshold_ == 0.1
    detector.set_threshold(None)
    assert detector.threshold_ == own
    np.testing.assert_array_equal(detector.predict(NEW), labels)


class Rescaled(Thresholder):
    """States its threshold for scores between 0 and 1, as PyThresh's do."""

    def fit(self, scores):
        self.low, self.size = scores.min(), np.ptp(scores)
        self.thresh_ = 0.6
        self.labels_ = self.predict(scores)

    def predict(self, scores):
        return ((np.asarray(scores) - self.low) / self.size >= self.thresh_).astype(int)


@representatives
def test_thresholder__threshold_of_rescaled_scores__ours_is_in_their_units(name):
    detector = fast(name, contamination=Rescaled()).fit(GOOD)
    scores = detector.decision_scores_
    assert 0 < detector.labels_.sum() < 40
    np.testing.assert_array_equal(scores > detector.threshold_, detector.labels_)
    adapter = SklearnOutlierAdapter(fast(name, contamination=Rescaled())).fit(GOOD)
    np.testing.assert_array_equal(adapter.decision_function(GOOD) < 0, detector.labels_)


# --- ensemble, adapter, scikit-learn ------------------------------------------------------------


def test_seed_ensemble__same_rules_for_the_joint_score():
    ensemble = SeedEnsemble(fast("AutoEncoder"), n_members=2, random_state=0).fit(GOOD)
    assert ensemble.labels_.sum() == 4
    ensemble.contamination = 0
    assert ensemble.predict(GOOD[::-1]).sum() == 0
    ensemble.contamination = "auto"
    assert ensemble.threshold_ == of_contamination(ensemble.decision_scores_, "auto")
    assert ensemble.set_threshold(-1e6).labels_.all()
    ensemble.set_params(false_alarm_rate=0.1)
    with pytest.raises(NotFittedError, match=r"no calibration scores: call calibrate\(X\)"):
        ensemble.predict(NEW)
    ensemble.calibrate(NEW)
    np.testing.assert_array_equal(ensemble.predict(GOOD), ensemble.p_values(GOOD) <= 0.1)
    assert ensemble.predict(NEW).mean() <= 0.1
    for name in ("contamination", "false_alarm_rate"):
        with pytest.raises(ValueError, match=name):
            SeedEnsemble(fast("AutoEncoder"), **{name: 1.5}).fit(GOOD)


def test_seed_ensemble__members_hold_rows_out__does_not_serve_the_ensemble():
    epochs = []
    member = calibrated("AutoEncoder", callbacks=[epochs.append])
    ensemble = SeedEnsemble(member, n_members=2, false_alarm_rate=0.1, random_state=0)
    assert_refused_before_training(ensemble, r"fit\(X\), then calibrate\(X\)")
    assert not epochs
    labels = ensemble.fit(GOOD).calibrate(NEW).predict(GOOD)
    np.testing.assert_array_equal(labels, ensemble.p_values(GOOD) <= 0.1)


def test_adapter__follows_the_threshold():
    adapter = SklearnOutlierAdapter(calibrated("PLAD", false_alarm_rate=0.2)).fit(GOOD)
    np.testing.assert_array_equal(
        adapter.predict(NEW) == -1, adapter.detector_.p_values(NEW) <= 0.2
    )
    assert ((adapter.decision_function(NEW) < 0) == (adapter.predict(NEW) == -1)).all()
    adapter.detector_.set_threshold(-1e12)
    assert (adapter.predict(NEW) == -1).all()


@parametrize_with_checks(
    [fast("AutoEncoder", contamination="auto", calibration_fraction=0.2, false_alarm_rate=0.5)],
    expected_failed_checks=lambda detector: EXPECTED_FAILURES,
)
def test_scikit_learn_check_passes__rows_held_out(estimator, check):
    check(estimator)
