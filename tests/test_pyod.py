"""Detectors keep PyOD's promises."""

import numpy as np
import pytest
from pyod.models.base import BaseDetector as PyODBaseDetector
from pyod.models.iforest import IForest
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

import deepod

from .cases import NAMES, REPRESENTATIVES, SERIES_NAMES, fast, fast_series, samples, waves


class Thresholder:
    """A thresholder as PyThresh makes them: a hyper-parameter that is fitted."""

    thresh_ = None

    def fit(self, scores):
        self.thresh_ = float(np.mean(scores) + np.std(scores))
        self.labels_ = self.predict(scores)
        return self

    def predict(self, scores):
        return (np.asarray(scores) > self.thresh_).astype(int)


@pytest.fixture(params=REPRESENTATIVES)
def name(request):
    return request.param


@pytest.fixture
def fitted(name):
    return fast(name).fit(samples())


@pytest.mark.parametrize("name", NAMES)
def test_training_scores__are_the_scores_of_the_training_rows(fitted):
    assert isinstance(fitted, PyODBaseDetector)
    if fitted.learns_by_heart:  # others score a training row by the other rows
        np.testing.assert_array_equal(fitted.decision_scores_, fitted.decision_function(samples()))
    assert fitted.decision_scores_.dtype == np.float64
    assert fitted.decision_scores_.shape == (40,)


def test_predict__is_the_threshold_applied(fitted):
    new = samples(seed=1)
    expected = fitted.decision_function(new) > fitted.threshold_
    np.testing.assert_array_equal(fitted.predict(new), expected)
    np.testing.assert_array_equal(fitted.predict(samples()), fitted.labels_)
    assert fitted.labels_.dtype == np.int64


@pytest.mark.parametrize("contamination", [0.05, 0.25, 0.5])
def test_contamination__changed_after_fit__takes_effect(name, contamination):
    detector = fast(name).fit(samples())
    assert detector.labels_.sum() == 4
    detector.contamination = contamination
    refitted = fast(name, contamination=contamination).fit(samples())
    assert detector.threshold_ == refitted.threshold_
    np.testing.assert_array_equal(detector.labels_, refitted.labels_)
    np.testing.assert_array_equal(detector.predict(samples()), refitted.predict(samples()))
    assert detector.labels_.sum() == 40 * contamination


def test_contamination__bad_value_after_fit__refused(fitted):
    fitted.contamination = 0.7
    with pytest.raises(ValueError, match="contamination"):
        fitted.predict(samples())
    fitted.contamination = 0.1
    assert fitted.predict(samples()).sum() == 4


@pytest.mark.parametrize("method", ["linear", "unify"])
def test_predict_proba__rows_sum_to_one_and_follow_the_score(fitted, method):
    new = samples(seed=1)
    proba = fitted.predict_proba(new, method=method)
    assert proba.shape == (40, 2)
    np.testing.assert_allclose(proba.sum(1), 1)
    order = np.argsort(fitted.decision_function(new))
    assert (np.diff(proba[order, 1]) >= 0).all()
    assert ((proba >= 0) & (proba <= 1)).all()


def test_predict_proba__agrees_with_pyods_formula(fitted):
    new = samples(seed=1)
    for method in ("linear", "unify"):
        np.testing.assert_allclose(
            fitted.predict_proba(new, method=method),
            PyODBaseDetector.predict_proba(fitted, new, method=method),
            rtol=1e-12,
            atol=1e-15,
        )


def test_predict_proba__list_input_and_wrong_method(fitted):
    assert fitted.predict_proba(samples().tolist()).shape == (40, 2)
    with pytest.raises(ValueError, match="method"):
        fitted.predict_proba(samples(), method="nonsense")


def test_confidence__agrees_with_its_definition_row_by_row(fitted):
    new = samples(seed=1)
    n, share = 40, fitted.contamination
    expected = []
    for score, label in zip(fitted.decision_function(new), fitted.predict(new), strict=True):
        p = (1 + (fitted.decision_scores_ <= score).sum()) / (2 + n)
        sure = 1 - binom.cdf(n - int(n * share), n, p)
        expected.append(sure if label else 1 - sure)
    np.testing.assert_allclose(fitted.predict_confidence(new), expected)
    labels, confidence = fitted.predict(new, return_confidence=True)
    np.testing.assert_array_equal(labels, fitted.predict(new))
    np.testing.assert_allclose(confidence, expected)
    assert fitted.predict_proba(new, return_confidence=True)[1].shape == (40,)


def test_rejection__marks_the_least_confident_rows(fitted):
    new = samples(n=200, seed=1)
    labels = fitted.predict_with_rejection(new, T=2)
    rejected = labels == -2
    assert 0 < rejected.sum() < 200
    np.testing.assert_array_equal(labels[~rejected], fitted.predict(new)[~rejected])
    confidence = np.abs(fitted.predict_confidence(new) - 0.5)
    assert confidence[rejected].max() <= confidence[~rejected].min()
    _, stats = fitted.predict_with_rejection(new, return_stats=True)
    assert len(stats) == 3
    assert np.isfinite(stats).all()


def test_thresholder__fitted_as_a_copy(name):
    thresholder = Thresholder()
    detector = fast(name, contamination=thresholder).fit(samples())
    assert thresholder.thresh_ is None
    scores = detector.decision_scores_
    assert detector.threshold_ == pytest.approx(scores.mean() + scores.std())
    np.testing.assert_array_equal(detector.labels_, scores > detector.threshold_)
    np.testing.assert_array_equal(detector.predict(samples()), detector.labels_)
    assert detector.thresholder_ is not thresholder
    assert np.isfinite(detector.predict_confidence(samples())).all()
    assert len(detector.predict_with_rejection(samples(), return_stats=True)[1]) == 3


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_thresholder__any_share__rejection_statistics_or_a_clear_error(name, share):
    class Fixed(Thresholder):
        def fit(self, scores):
            self.thresh_ = np.quantile(scores, 1 - share)
            self.labels_ = self.predict(scores)

    detector = fast(name, contamination=Fixed()).fit(samples())
    assert detector.labels_.mean() == pytest.approx(share, abs=0.05)
    if share:
        stats = detector.predict_with_rejection(samples(), return_stats=True)[1]
        assert np.isfinite(stats).all()
    else:
        with pytest.raises(ValueError, match="contamination"):
            detector.compute_rejection_stats()


def test_threshold__of_zero__is_one(name):
    class Zero(Thresholder):
        def fit(self, scores):
            self.thresh_ = 0.0
            self.labels_ = self.predict(scores)

    assert fast(name, contamination=Zero()).fit(samples()).threshold_ == 0.0


def test_fit_predict__training_labels_without_warning(name, recwarn):
    labels = fast(name).fit_predict(samples())
    np.testing.assert_array_equal(labels, fast(name).fit(samples()).labels_)
    assert not recwarn.list


def test_fit_predict_score__compares_with_labels_and_prints_nothing(name, capsys):
    y = np.repeat([0, 1], [30, 10])
    assert 0 <= fast(name).fit_predict_score(samples(), y) <= 1
    assert 0 <= fast(name).fit_predict_score(samples(), y, scoring="prc_n_score") <= 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("scoring", ["nonsense", None, ["roc_auc_score"]])
def test_fit_predict_score__unknown_scoring__the_exception_of_pyod(scoring):
    y = np.repeat([0, 1], [30, 10])
    errors = []
    for detector in (IForest(), fast("PLAD"), deepod.Consensus([IForest()])):
        with pytest.raises(Exception, match=r"(?i)scoring") as caught:
            detector.fit_predict_score(samples(), y, scoring=scoring)
        errors.append(caught.type)
    assert set(errors) == {NotImplementedError}


def test_fit_predict_score__supervision__labels_are_trained_on():
    X, y = samples(), np.repeat([0, 1], [30, 10])
    alone = fast("AnoRand", supervision="few_labels")
    expected = roc_auc_score(y, alone.fit(X, y).decision_scores_)
    assert alone.fit_predict_score(X, y) == expected
    joint = deepod.Consensus([fast("AnoRand", supervision="few_labels")])
    assert 0 <= joint.fit_predict_score(X, y) <= 1


@pytest.mark.parametrize("series", SERIES_NAMES)
def test_fit_predict_score__series_of_any_form__compares_points(series):
    X = waves(200)
    y = (np.arange(200) % 50 < 5).astype(int)
    expected = fast_series(series).fit_predict_score(X, y)
    assert fast_series(series).fit_predict_score([X], [y]) == expected
    assert 0 <= expected <= 1


def test_predict_rank__normalized(fitted):
    assert fitted._predict_rank(samples(), normalized=True).max() == 1
