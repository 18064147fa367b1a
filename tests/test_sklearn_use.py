"""What scikit-learn's tools do with detectors, beyond its own checks of estimators."""

import numpy as np
import pytest
import sklearn
from sklearn.model_selection import cross_val_predict

import deepod
from tests.cases import fast, fast_series, samples, waves

X = samples(n=60)
Y = np.arange(60) % 6 == 0
DETECTORS = {
    "detector": lambda: fast("AutoEncoder"),
    "Consensus": lambda: deepod.Consensus([fast("Neighbors")], random_state=0),
    "SeedEnsemble": lambda: deepod.SeedEnsemble(fast("AutoEncoder"), 2, random_state=0),
    "adapter": lambda: deepod.SklearnOutlierAdapter(fast("AutoEncoder")),
}
every_kind = pytest.mark.parametrize("kind", DETECTORS)


@every_kind
@pytest.mark.parametrize("method", ["decision_function", "predict_proba", "predict"])
def test_cross_val_predict__with_labels__as_without(kind, method):
    detector = DETECTORS[kind]()
    if not hasattr(detector, method):
        pytest.skip("an outlier detector of scikit-learn gives no probabilities")
    folds = [(np.arange(30), np.arange(30, 60)), (np.arange(30, 60), np.arange(30))]
    found = cross_val_predict(detector, X, Y.astype(int), cv=folds, method=method)
    expected = cross_val_predict(detector, X, cv=folds, method=method)
    np.testing.assert_array_equal(found, expected)


@every_kind
def test_classes__only_once_fitted(kind):
    assert not hasattr(DETECTORS[kind](), "classes_")
    detector = DETECTORS[kind]().fit(X)
    assert set(detector.predict(X)) <= set(detector.classes_)


@pytest.mark.parametrize("kind", ["detector", "Consensus", "SeedEnsemble"])
def test_adapter__threshold_set_after_fit__holds(kind):
    adapter = deepod.SklearnOutlierAdapter(DETECTORS[kind]()).fit(X)
    twin = adapter.detector_
    for share in (0.3, 0.05):
        adapter.set_params(detector__contamination=share)
        anew = deepod.SklearnOutlierAdapter(DETECTORS[kind]().set_params(contamination=share))
        np.testing.assert_array_equal(adapter.predict(X), anew.fit(X).predict(X))
        assert adapter.detector_ is twin
        np.testing.assert_array_equal(adapter.decision_function(X) < 0, adapter.predict(X) == -1)
    adapter.set_params(detector__false_alarm_rate=0.2)
    assert adapter.detector_.false_alarm_rate == 0.2
    # What is learned by another fit alone leaves the fitted one as it was.
    adapter.set_params(detector=fast("PLAD", contamination=0.4), detector__contamination=0.2)
    assert twin.contamination == 0.05


@every_kind
def test_assume_finite__nan__refused_all_the_same(kind):
    gap = X.copy()
    gap[3, 1] = np.nan
    detector = DETECTORS[kind]().fit(X)
    with sklearn.config_context(assume_finite=True):
        for ask in (detector.predict, detector.decision_function, DETECTORS[kind]().fit):
            with pytest.raises(ValueError, match=r"contains NaN in column 1"):
                ask(gap)


def test_assume_finite__nan_on_disk__refused_all_the_same(tmp_path):
    gap = X.copy()
    gap[3, 1] = np.nan
    np.save(tmp_path / "gap.npy", gap)
    detector = fast("AutoEncoder").fit(X)
    mapped = np.load(tmp_path / "gap.npy", mmap_mode="r")
    source = deepod.sources.array(mapped)
    with sklearn.config_context(assume_finite=True), pytest.raises(ValueError, match="NaN"):
        detector.predict(source)


@pytest.mark.parametrize("name", ["RidgeAR", "WindowNeighbors", "Windows", "SeriesConsensus"])
def test_assume_finite__nan_in_series__refused_all_the_same(name):
    gap = waves()
    gap[40, 1] = np.nan
    detector = fast_series(name, **({} if name == "Windows" else {"smoothing": "causal"}))
    detector.fit(waves())
    asked = [detector.predict, detector.decision_function, fast_series(name).fit]
    if name != "Windows":
        asked += [detector.stream().push_many, lambda x: detector.stream().push(x[40])]
    with sklearn.config_context(assume_finite=True):
        for ask in asked:
            with pytest.raises(ValueError, match="NaN"):
                ask(gap)


def test_seed_ensemble__saved_and_explained(tmp_path):
    ensemble = DETECTORS["SeedEnsemble"]().fit(X)
    ensemble.save(tmp_path / "it.deepod")
    again = deepod.load(tmp_path / "it.deepod")
    assert type(again) is deepod.SeedEnsemble
    np.testing.assert_array_equal(again.decision_function(X), ensemble.decision_scores_)
    reasons = again.explain(X)
    assert reasons.shape == X.shape
    np.testing.assert_array_equal(reasons, ensemble.explain(X))
