"""Detectors are scikit-learn estimators."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from pyod.models.iforest import IForest
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import (
    check_estimator,
    estimator_checks_generator,
    parametrize_with_checks,
)

from deepod import PLAD, BaseDetector, LocalReconstruction, SklearnOutlierAdapter

from .cases import NAMES, REPRESENTATIVES, fast, samples

PYOD_LABELS = "PyOD's labels are 0 and 1, scikit-learn's are +1 and -1"
EXPECTED_FAILURES = {
    "check_outliers_train": PYOD_LABELS,
    "check_outliers_fit_predict": PYOD_LABELS,
}


# Of what is given to fit and scoring before a method sees it.
OF_THE_BASE = {
    "check_complex_data",
    "check_dtype_object",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_estimator_sparse_tag",
    "check_estimators_dtypes",
    "check_estimators_empty_data_messages",
    "check_estimators_nan_inf",
    "check_f_contiguous_array_estimator",
    "check_fit1d",
    "check_n_features_in_after_fitting",
    "check_outliers_train",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_readonly_memmap_input",
    "check_supervised_y_2d",
    "check_classifier_data_not_an_array",
}


def name_of(check):
    return getattr(check, "func", check).__name__


def checks():
    """All for representatives, for the others those that a method can fail."""
    for name in NAMES:
        for case in estimator_checks_generator(
            fast(name), expected_failed_checks=EXPECTED_FAILURES, mark="xfail"
        ):
            estimator, check = getattr(case, "values", case)
            if name in REPRESENTATIVES or name_of(check) not in OF_THE_BASE:
                marks = getattr(case, "marks", ())
                yield pytest.param(estimator, check, marks=marks, id=f"{name}-{name_of(check)}")


@pytest.mark.parametrize(("estimator", "check"), [*checks()])
def test_scikit_learn_check_passes(estimator, check):
    check(estimator)


@parametrize_with_checks([SklearnOutlierAdapter(fast("AutoEncoder"))])
def test_scikit_learn_check_of_adapter_passes(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_check_estimator__default_settings__three_failures_for_one_reason(name):
    detector = type(fast(name))()
    results = check_estimator(detector, expected_failed_checks=EXPECTED_FAILURES, on_fail=None)
    failed = [r["check_name"] for r in results if r["status"] == "failed"]
    expected = [r["check_name"] for r in results if r["status"] == "xfail"]
    assert not failed
    assert len(expected) == 3


@pytest.fixture
def labelled():
    X = samples(n=60)
    X[:12] += 6
    return X, np.repeat([1, 0], [12, 48])


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_pipeline__scaler_in_front__scores_like_by_hand(name):
    X = samples()
    pipeline = Pipeline([("scale", StandardScaler()), ("det", fast(name))]).fit(X)
    by_hand = fast(name).fit(StandardScaler().fit_transform(X))
    np.testing.assert_array_equal(
        pipeline.decision_function(X),
        by_hand.decision_function(StandardScaler().fit_transform(X)),
    )
    assert set(pipeline.predict(X)) == {0, 1}


@pytest.mark.parametrize("name", REPRESENTATIVES)
@pytest.mark.filterwarnings("error")
def test_grid_search__nested_network__no_leak_no_warning(name, labelled):
    X, y = labelled
    grid = {"lr": [1e-3, 1e-2], "network__hidden": [(8,), (8, 4)]}
    search = GridSearchCV(
        fast(name), grid, scoring="roc_auc", cv=StratifiedKFold(3, shuffle=True, random_state=0)
    ).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.network.hidden == search.best_params_["network__hidden"]
    # y served for scoring only: the refitted detector is the one that never saw it.
    unlabelled = clone(search.best_estimator_).fit(X)
    np.testing.assert_array_equal(
        search.best_estimator_.decision_scores_, unlabelled.decision_scores_
    )


def test_grid_search__as_in_the_readme__runs(labelled):
    search = GridSearchCV(
        PLAD(epochs=2, random_state=0),
        {"lam": [1, 3], "network__hidden": [(32,), (64, 32)]},
        scoring="roc_auc",
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
        n_jobs=2,
    ).fit(*labelled)
    assert len(search.cv_results_["params"]) == 4


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_cross_val_score__roc_auc__finite(name, labelled):
    X, y = labelled
    cv = StratifiedKFold(3, shuffle=True, random_state=0)
    assert np.isfinite(cross_val_score(fast(name), X, y, cv=cv, scoring="roc_auc")).all()


@pytest.mark.parametrize("name", NAMES)
def test_fit__any_y__same_scores(name):
    X = samples()
    scores = fast(name).fit(X).decision_scores_
    for y in (np.zeros(40), np.ones(40), ["a"] * 40, np.arange(40)):
        np.testing.assert_array_equal(fast(name).fit(X, y).decision_scores_, scores)


@pytest.mark.parametrize("name", NAMES)
def test_clone__fitted__unfitted_with_same_parameters(name):
    detector = fast(name, lr=0.01).set_params(network__hidden=(7,)).fit(samples())
    copy = clone(detector)
    assert not copy.__sklearn_is_fitted__()
    assert copy.lr == 0.01
    assert copy.network.hidden == (7,)
    assert copy.network is not detector.network


@pytest.mark.parametrize("name", REPRESENTATIVES)
@pytest.mark.parametrize("how", ["pickle", "joblib"])
def test_persistence__round_trip__same_scores(name, how, tmp_path):
    X = samples()
    detector = fast(name).fit(X)
    if how == "pickle":
        loaded = pickle.loads(pickle.dumps(detector))
    else:
        joblib.dump(detector, tmp_path / "detector.joblib")
        loaded = joblib.load(tmp_path / "detector.joblib")
    np.testing.assert_array_equal(loaded.decision_function(X), detector.decision_function(X))
    np.testing.assert_array_equal(loaded.predict(X), detector.predict(X))
    assert loaded.history_ == detector.history_


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_data_frame__names__kept_and_checked(name):
    frame = pd.DataFrame(samples(), columns=list("abcde"))
    detector = fast(name).fit(frame)
    assert detector.feature_names_in_.tolist() == list("abcde")
    with pytest.raises(ValueError, match="feature names"):
        detector.decision_function(frame[list("edcba")])
    with pytest.raises(ValueError, match="feature names"):
        detector.decision_function(frame.rename(columns={"a": "z"}))


def test_next_to_pyod__one_list__same_interface():
    X = samples()
    for detector in [*(fast(name) for name in NAMES), IForest(random_state=0)]:
        detector.fit(X)
        assert detector.decision_function(X).shape == (40,)
        # Scored as new ones, training rows reconstruct themselves: none of them is flagged.
        new = np.vstack([X, 9 * X]) if isinstance(detector, LocalReconstruction) else X
        assert set(detector.predict(new)) == {0, 1}
        assert set(detector.labels_) == {0, 1}
        assert detector.labels_.sum() == 4


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_tags__outlier_detector(name):
    assert is_outlier_detector(fast(name))
    assert isinstance(fast(name), BaseDetector)


def test_set_params__network_given_by_name__describes_it():
    assert PLAD().set_params(network__hidden=(3,)).network.hidden == (3,)
    assert PLAD().set_params(network__channels=(4, 8)).network.channels == (4, 8)
    assert PLAD(network="recurrent").set_params(network__cell="lstm").network.cell == "lstm"
    with pytest.raises(ValueError, match=r"MLP has .*'hidden'"):
        PLAD().set_params(network__nonsense=1)
    with pytest.raises(ValueError, match="nonsense"):
        PLAD().set_params(nonsense=1)


def test_adapter__sign_and_labels__are_scikit_learns():
    X = samples()
    detector = fast("PLAD").fit(X)
    adapter = SklearnOutlierAdapter(fast("PLAD")).fit(X)
    np.testing.assert_array_equal(adapter.score_samples(X), -detector.decision_function(X))
    np.testing.assert_array_equal(adapter.predict(X), 1 - 2 * detector.predict(X))
    assert ((adapter.decision_function(X) < 0) == (adapter.predict(X) == -1)).all()


def test_adapter__false_alarm_rate__calibrate_after_fit_and_no_fit_predict_before():
    X, others = samples(), samples(n=200, seed=1)
    epochs = []
    detector = fast("PLAD", false_alarm_rate=0.1, callbacks=[epochs.append])
    adapter = SklearnOutlierAdapter(detector)
    with pytest.raises(NotFittedError):
        adapter.calibrate(others)
    with pytest.raises(ValueError, match=r"false_alarm_rate=0.1.*calibrate\(X\)"):
        adapter.fit_predict(X)
    assert not epochs
    assert not hasattr(adapter, "detector_")
    with pytest.raises(NotFittedError, match="calibrate"):
        adapter.fit(X).predict(X)
    assert adapter.calibrate(others) is adapter
    flagged = adapter.detector_.p_values(X) <= 0.1
    np.testing.assert_array_equal(adapter.predict(X) == -1, flagged)
    held_out = SklearnOutlierAdapter(
        fast("PLAD", false_alarm_rate=0.1, calibration_fraction=0.25, random_state=0)
    )
    np.testing.assert_array_equal(held_out.fit_predict(X), held_out.predict(X))
