"""Detectors of time series are scikit-learn estimators, but for what holds for rows alone."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import estimator_checks_generator

import deepod
from deepod._registry import SERIES
from tests.cases import FAST_SERIES, waves

DOCS = Path(__file__).parent.parent / "docs" / "series.md"
LABELS = "labels are 0 and 1, as PyOD's are, and not +1 and -1"
EXPECTED_FAILURES = {
    "check_fit1d": "an array of shape (T,) is a series of one channel",
    "check_fit2d_predict1d": "an array of shape (T,) is a series of one channel",
    "check_fit2d_1sample": "one row of ten columns is refused with the advice to transpose it",
    "check_methods_sample_order_invariance": "the order of the rows is the time",
    "check_methods_subset_invariance": "a point has no score without the points before it",
    "check_outliers_fit_predict": LABELS,
    "check_outliers_train": LABELS,
}
# Of one channel, and the checks have several: none can be run.
NOT_CHECKED = {"ReRe"}


def small(name):
    """A detector with its own ways to find what it is not told, and little training."""
    cls = getattr(deepod.series, name)
    known = {"window": 6, "epochs": 1, "random_state": 0, **FAST_SERIES[name]}
    if name == "SeriesConsensus":
        known["detectors"] = [clone(member).set_params(window=6) for member in known["detectors"]]
    accepted = inspect.signature(cls).parameters
    return cls(**{key: value for key, value in known.items() if key in accepted})


def checks():
    for name in sorted(set(SERIES) - NOT_CHECKED):
        for case in estimator_checks_generator(
            small(name), expected_failed_checks=EXPECTED_FAILURES, mark="xfail"
        ):
            estimator, check = getattr(case, "values", case)
            identity = f"{name}-{getattr(check, 'func', check).__name__}"
            yield pytest.param(estimator, check, marks=getattr(case, "marks", ()), id=identity)


@pytest.mark.parametrize(("estimator", "check"), [*checks()])
def test_scikit_learn_check_passes(estimator, check):
    check(estimator)


@pytest.mark.parametrize("check", sorted(EXPECTED_FAILURES))
def test_scikit_learn_check_that_does_not_apply__fails(check):
    """Or it should be taken off the list."""
    cases = estimator_checks_generator(small("RidgeAR"))
    estimator, run = next(c for c in cases if getattr(c[1], "func", c[1]).__name__ == check)
    with pytest.raises((AssertionError, ValueError)):
        run(estimator)


def test_docs__list_what_does_not_apply():
    found = dict(re.findall(r"^\| `(check_\w+)` \| (.*?) \|$", DOCS.read_text(), re.MULTILINE))
    assert found == EXPECTED_FAILURES


@pytest.mark.parametrize("name", sorted(SERIES))
def test_not_fitted__every_method_says_so(name):
    cls = getattr(deepod.series, name)
    x = waves(50, 1)
    detector = cls(deepod.Neighbors()) if name == "Windows" else cls()
    calls = [
        *("decision_function", "predict", "predict_proba", "p_values", "calibrate", "explain"),
        *("predict_confidence", "predict_with_rejection", "events"),
    ]
    for call in calls:
        with pytest.raises(NotFittedError):
            getattr(detector, call)(x)
    for call in ("stream", "set_event_rate"):
        with pytest.raises(NotFittedError):
            getattr(detector, call)(*[1.0] * (call != "stream"))
    with pytest.raises(NotFittedError):
        next(detector.score_batches([x]))
    for attribute in ("threshold_", "labels_", "decision_scores_"):
        with pytest.raises((NotFittedError, AttributeError)):
            getattr(detector, attribute)
    assert np.isfinite(x).all()
