"""Values that are missing: refused by name, or imputed."""

import copy
import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from deepod import (
    AutoEncoder,
    SeedEnsemble,
    SklearnOutlierAdapter,
    StackedSearchCV,
    data,
    fit_many,
)
from deepod._inputs import scaling
from deepod._training import fitting
from deepod._training.together import fit_all

from .cases import IN_TURNS, NAMES, REPRESENTATIVES, fast, samples
from .test_engines import SMOOTH
from .test_sklearn import EXPECTED_FAILURES

every_detector = pytest.mark.parametrize("name", NAMES)
representatives = pytest.mark.parametrize("name", REPRESENTATIVES)
CHANNELS = {"table": (5,), "windows": (3,), "images": (1, 1, 1)}
CHANNEL_AXIS = {"table": 1, "windows": 2, "images": 1}


def with_gaps(kind="table", n=40, seed=0, share=0.1):
    """Samples of which some values are missing; all are in the first row."""
    X = samples(kind, n, seed)
    gaps = np.random.default_rng(seed + 100).random(X.shape) < share
    gaps[0] = False
    return np.where(gaps, np.float32(np.nan), X)


def median_of(X):
    """Of each column, without the gaps."""
    return np.nanmedian(X.astype(np.float64), 0)


GAPS = with_gaps()


def frame_of(X, dtype=None):
    frame = pd.DataFrame(X, columns=list("abcde")[: X.shape[1]])
    return frame if dtype is None else frame.astype(dtype)


def one_gap(row=3, column=1, value=np.nan):
    X = samples().copy()
    X[row, column] = value
    return X


def nullable(X):
    """Integers and floats of pandas, with its NA."""
    frame = pd.DataFrame({name: pd.array(X[:, i], "Float64") for i, name in enumerate("abcde")})
    frame["b"] = frame["b"].round().astype("Int64")
    return frame


def of_objects(X):
    values = X.astype(object)
    values[np.isnan(X)] = pd.NA
    return values


# --- refused ------------------------------------------------------------------------------------

REFUSED = {
    "array": (one_gap(), r"column 1 \(counted from 0\)"),
    "half precision": (one_gap().astype(np.float16), "column 1 "),
    "list": (one_gap().tolist(), "column 1 "),
    "None in a list": ([[1.0, None], [2.0, 3.0]], "column 1 "),
    "frame": (frame_of(one_gap()), "column 'b'"),
    "pandas' NA": (nullable(one_gap()), "column 'b'"),
    "NA among objects": (frame_of(of_objects(one_gap())), "column 'b'"),
    "array of objects": (of_objects(one_gap()), "column 1 "),
    "masked": (np.ma.masked_invalid(one_gap()), "column 1 "),
    "masked integers": (np.ma.masked_equal(np.arange(10).reshape(5, 2), 3), "column 1 "),
    "Fortran order": (np.asfortranarray(one_gap()), "column 1 "),
    "two": (frame_of(np.where(np.arange(5) % 3 == 1, np.nan, samples())), "columns 'b', 'e'"),
    "many": (np.full((5, 12), np.nan), r"columns 0, 1, 2, 3, 4 and 7 more \(counted from 0\)"),
    "source": (data.array(one_gap()), r"column 1 \(counted from 0\), among rows 0 to 39"),
    "windows": (samples("windows") * one_gap()[:, :3][:, None], ": 6 values in 1 of 40 rows"),
    "images": (samples("images") * one_gap()[:, 1, None, None, None], ": 64 values in 1 of 40"),
}
REMEDY = r"; fit with missing='impute', or put an imputer before the detector in a Pipeline\."


def said(error):
    """The message, which is one sentence."""
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert ". " not in text
    return text


@pytest.mark.parametrize("case", REFUSED)
def test_refuse__nan__error_names_columns_and_remedy(case):
    X, where = REFUSED[case]
    with pytest.raises(ValueError, match=f"Input X contains NaN.*{where}.*{REMEDY}") as at_fit:
        AutoEncoder(epochs=0).fit(X)
    said(at_fit)
    shape = np.shape(X)[1:] if not isinstance(X, data.Source) else X.shape[1:]
    known = np.random.default_rng(0).normal(size=(9, *shape))
    if isinstance(X, pd.DataFrame):
        known = pd.DataFrame(known, columns=X.columns)
    detector = AutoEncoder(epochs=0, random_state=0).fit(known)
    with pytest.raises(ValueError, match=f"Input X contains NaN.*{where}.*{REMEDY}") as at_scoring:
        detector.decision_function(X)
    assert said(at_scoring) == said(at_fit)


def test_refuse__memory_maps_and_parquet__as_arrays(tmp_path):
    X = one_gap(row=30)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for memory_limit in (1 << 20, 1):
        with pytest.raises(ValueError, match=rf"column 1 .*{REMEDY}"):
            AutoEncoder(epochs=0, memory_limit=memory_limit).fit(mapped)
    table = pa.table({"a": X[:, 0], "b": pa.array([None, *X[1:, 1]])})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=rf"column 'b', among rows 0 to 39{REMEDY}"):
        AutoEncoder(epochs=0).fit(data.parquet(tmp_path / "x.parquet"))


@pytest.mark.parametrize("missing", ["refuse", "impute"])
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity__always_refused_by_column(missing, value):
    X = one_gap(value=value)
    clean = AutoEncoder(epochs=0, missing=missing).fit(frame_of(samples()))
    wording = (
        r"Input X contains infinity or a value too large for float32 in column "
        r"'b'.*; replace it, for example by NaN with missing='impute'\."
    )
    for call in (AutoEncoder(epochs=0, missing=missing).fit, clean.decision_function):
        with pytest.raises(ValueError, match=wording) as error:
            call(frame_of(X))
        said(error)
        if missing == "impute":  # the infinity is what is wrong, not the NaN
            X[5, 4] = np.nan
    with pytest.raises(ValueError, match=r"infinity.*column 1 "):
        AutoEncoder(epochs=0, missing="impute").fit(data.array(X))


def test_missing__unknown_value__refused():
    with pytest.raises(ValueError, match="missing"):
        AutoEncoder(missing="drop").fit(samples())


# --- imputed ------------------------------------------------------------------------------------


@every_detector
def test_impute__every_detector__as_with_an_imputer_in_front(name):
    imputer = SimpleImputer(strategy="median", keep_empty_features=True)
    pipeline = Pipeline([("impute", imputer), ("det", fast(name))]).fit(GAPS)
    detector = fast(name, missing="impute").fit(GAPS)
    np.testing.assert_array_equal(detector.fill_.astype(np.float32), imputer.statistics_)
    np.testing.assert_array_equal(detector.decision_scores_, pipeline["det"].decision_scores_)
    new = with_gaps(seed=1)
    np.testing.assert_array_equal(detector.decision_function(new), pipeline.decision_function(new))
    np.testing.assert_array_equal(detector.predict(new), pipeline.predict(new))


@pytest.mark.parametrize(("name", "kind"), IN_TURNS)
def test_impute__every_kind_of_rows__by_channel_and_a_copy(name, kind):
    X = with_gaps(kind)
    before = X.copy()
    detector = fast(name, missing="impute").fit(X)
    axes = tuple(axis for axis in range(X.ndim) if axis != CHANNEL_AXIS[kind])
    assert detector.fill_.shape == CHANNELS[kind]
    median = np.nanmedian(X.astype(np.float64), axes)
    np.testing.assert_array_equal(detector.fill_.ravel(), median.ravel())
    by_hand = np.where(np.isnan(X), detector.fill_.astype(np.float32), X)
    clean = fast(name).fit(by_hand)
    np.testing.assert_array_equal(detector.decision_scores_, clean.decision_scores_)
    np.testing.assert_array_equal(detector.decision_function(X), clean.decision_function(by_hand))
    np.testing.assert_array_equal(X, before)
    flat = fast(name, missing="impute", input_shape=X.shape[1:]).fit(X.reshape(len(X), -1))
    np.testing.assert_array_equal(flat.fill_, detector.fill_)
    np.testing.assert_array_equal(flat.decision_scores_, detector.decision_scores_)


@representatives
def test_impute__nothing_missing__scores_of_refuse(name):
    imputing, refusing = (fast(name, missing=m).fit(samples()) for m in ("impute", "refuse"))
    np.testing.assert_array_equal(imputing.decision_scores_, refusing.decision_scores_)
    assert refusing.fill_ is None
    # Gaps in new rows alone.
    np.testing.assert_array_equal(imputing.fill_, median_of(samples()))
    assert np.isfinite(imputing.decision_function(GAPS)).all()


@every_detector
def test_impute__row_among_rows_with_gaps__its_own_score(name):
    detector = fast(name, missing="impute").fit(GAPS)
    whole = samples(n=33, seed=2)
    mixed = np.concatenate([whole, with_gaps(seed=3), np.full((7, 5), np.float32(np.nan))])
    expected = detector.decision_function(whole)
    np.testing.assert_allclose(
        detector.decision_function(mixed)[:33], expected, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("scaler", ["standard", "minmax", "symmetric", None])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_impute__empty_column__filled_with_zero(scaler, dtype):
    X = with_gaps().astype(dtype)
    X[:, 2] = np.nan
    detector = fast("AutoEncoder", missing="impute", scaler=scaler).fit(X)
    assert detector.fill_[2] == 0
    zero = np.where(np.arange(5) == 2, dtype(0), X)
    np.testing.assert_array_equal(detector.decision_function(zero), detector.decision_scores_)


def test_impute__sensor_silent_for_a_window__as_at_its_median():
    X = samples("windows") + np.array([100, 0, -5], np.float32)
    detector = fast("AutoEncoder", missing="impute").fit(X)
    silent, usual = X[:5].copy(), X[:5].copy()
    silent[:, :, 0], usual[:, :, 0] = np.nan, np.median(X[:, :, 0])
    np.testing.assert_array_equal(
        detector.decision_function(silent), detector.decision_function(usual)
    )


def test_impute__rows_held_out__teach_nothing():
    X = with_gaps(n=60)
    X[:, 0] = np.arange(60)  # a number for each row
    trained_on = []

    class Noting(AutoEncoder):
        def _prepare(self, X, y, rng):
            trained_on.append(X[:, 0].astype(int))
            return X, None

    detector = Noting(
        epochs=1, scaler=None, missing="impute", validation_fraction=0.4, random_state=0
    ).fit(X)
    training, held_out = trained_on
    assert len(held_out) == 24
    np.testing.assert_array_equal(detector.fill_, median_of(X[training]))
    assert not np.array_equal(detector.fill_, median_of(X))


@pytest.mark.parametrize("streamed", [False, True])
def test_impute__known_anomalies__teach_nothing(streamed):
    X = with_gaps(n=60)
    X[40:] += 1000
    y = np.repeat([0, 1], [40, 20])
    detector = fast("PLAD", supervision="drop_anomalies", missing="impute")
    detector.fit(data.array(X) if streamed else X, y)
    np.testing.assert_array_equal(detector.fill_, median_of(X[:40]))


def test_impute__changed_after_fit__scoring_stays_as_fitted():
    refusing = fast("AutoEncoder").fit(samples()).set_params(missing="impute")
    with pytest.raises(ValueError, match="fit with missing='impute'"):
        refusing.decision_function(GAPS)
    imputing = fast("AutoEncoder", missing="impute").fit(GAPS).set_params(missing="refuse")
    np.testing.assert_array_equal(imputing.decision_function(GAPS), imputing.decision_scores_)
    with pytest.raises(ValueError, match="NaN"):
        imputing.fit(GAPS)
    np.testing.assert_array_equal(imputing.decision_function(GAPS), imputing.decision_scores_)
    assert imputing.fit(samples()).fill_ is None


def test_impute__copies__keep_the_fill():
    detector = fast("AutoEncoder", missing="impute").fit(GAPS)
    for twin in (pickle.loads(pickle.dumps(detector)), copy.deepcopy(detector)):
        np.testing.assert_array_equal(twin.fill_, detector.fill_)
        np.testing.assert_array_equal(twin.decision_function(GAPS), detector.decision_scores_)


def test_impute__scikit_learn_told_that_all_is_finite__still_fills():
    with sklearn.config_context(assume_finite=True):
        detector = fast("AutoEncoder", missing="impute").fit(GAPS)
    expected = fast("AutoEncoder", missing="impute").fit(GAPS).decision_scores_
    np.testing.assert_array_equal(detector.decision_scores_, expected)


class NothingKnown(AutoEncoder):
    """Gives rows with large values no number."""

    def _score(self, module, x):
        return torch.where(x[:, 0] > 100, torch.nan, super()._score(module, x))


def test_label__score_is_nan__refused_and_not_normal():
    detector = NothingKnown(epochs=1, cross_fitting=False, random_state=0).fit(samples())
    rows = samples()
    assert set(detector.predict(rows).tolist()) == {0, 1}
    rows[:3, 0] = 1e6
    assert np.isnan(detector.decision_function(rows)).sum() == 3
    for name in ("predict", "predict_confidence", "predict_with_rejection"):
        with pytest.raises(FloatingPointError, match="3 of 40 scores are NaN"):
            getattr(detector, name)(rows)


@pytest.mark.parametrize("case", ["pandas' NA", "NA among objects", "array of objects", "masked"])
def test_impute__other_kinds_of_gaps__as_nan(case):
    X, _ = REFUSED[case]
    detector = fast("AutoEncoder", missing="impute").fit(X)
    plain = one_gap()
    if case == "pandas' NA":
        plain[:, 1] = plain[:, 1].round()
    if case != "masked":
        plain = plain.astype(np.float64)
    expected = fast("AutoEncoder", missing="impute").fit(plain)
    np.testing.assert_array_equal(detector.decision_scores_, expected.decision_scores_)
    np.testing.assert_array_equal(detector.decision_function(X), detector.decision_scores_)


def test_score_map_and_perturb__gaps__filled():
    images = with_gaps("images")
    detector = fast("AutoEncoder", missing="impute").fit(images)
    assert np.isfinite(detector.score_map(images)).all()
    assert np.isfinite(fast("PLAD", missing="impute").fit(GAPS).perturb(GAPS, 0)).all()


# --- tags ---------------------------------------------------------------------------------------


@parametrize_with_checks(
    [fast("AutoEncoder", missing="impute"), SeedEnsemble(fast("PLAD", missing="impute"), 2)],
    expected_failed_checks=lambda detector: EXPECTED_FAILURES,
)
def test_impute__scikit_learn_check_passes(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [fast(name, missing="impute") for name in NAMES],
    expected_failed_checks=lambda detector: EXPECTED_FAILURES,
)
def test_impute__every_detector__scikit_learn_check_passes(estimator, check):
    check(estimator)


@representatives
def test_tags__allow_nan__follows_the_parameter(name):
    detector = fast(name)
    for missing, allowed in (("refuse", False), ("impute", True)):
        detector.set_params(missing=missing)
        for estimator in (detector, SeedEnsemble(detector), SklearnOutlierAdapter(detector)):
            assert get_tags(estimator).input_tags.allow_nan is allowed


# --- many at once -------------------------------------------------------------------------------


def test_fit_many__rows_with_gaps__each_as_alone_and_medians_once(monkeypatch):
    counted, medians = [], scaling.medians
    monkeypatch.setattr(fitting, "medians", lambda *a: counted.append(a) or medians(*a))
    X = with_gaps()
    before = X.copy()
    detector = fast("AutoEncoder", missing="impute", network=SMOOTH)
    many = fit_many(detector, X, seeds=[3, 4, 5])
    assert len(counted) == 1
    np.testing.assert_array_equal(X, before)
    for member in many:
        alone = copy.deepcopy(detector).set_params(random_state=member.random_state).fit(X)
        np.testing.assert_array_equal(member.fill_, alone.fill_)
        np.testing.assert_allclose(member.decision_scores_, alone.decision_scores_, rtol=1e-4)
        np.testing.assert_array_equal(member.decision_function(X), member.decision_scores_)


def test_fit_many__held_out_rows_of_their_own__medians_of_their_own():
    X = with_gaps()
    detector = fast("AutoEncoder", missing="impute", validation_fraction=0.4, network=SMOOTH)
    many = fit_many(detector, X, seeds=[3, 4])
    assert not np.array_equal(many[0].fill_, many[1].fill_)
    for member in many:
        alone = copy.deepcopy(detector).set_params(random_state=member.random_state).fit(X)
        np.testing.assert_array_equal(member.fill_, alone.fill_)
        np.testing.assert_allclose(member.decision_scores_, alone.decision_scores_, rtol=1e-4)


def test_stacked_search__missing_among_the_candidates__each_as_alone():
    def first(detector, X, y=None):
        return detector.decision_function(X[:1])[0]

    def search(X, **options):
        return StackedSearchCV(
            fast("AutoEncoder"),
            {"missing": ["refuse", "impute"], "scaler": ["standard", None]},
            scoring=first,
            cv=KFold(3, shuffle=True, random_state=0),
            **options,
        ).fit(X)

    whole = search(samples()).cv_results_
    by_missing = dict(zip(map(str, whole["params"]), whole["mean_test_score"], strict=True))
    for scaler in ("standard", None):
        scores = [by_missing[str({"missing": m, "scaler": scaler})] for m in ("refuse", "impute")]
        assert scores[0] == pytest.approx(scores[1], rel=1e-5)
    best = search(samples()).best_estimator_
    assert (best.fill_ is None) == (best.missing == "refuse")
    with (
        pytest.warns(FitFailedWarning, match="column"),
        pytest.warns(UserWarning, match="non-finite"),
    ):
        gaps = search(GAPS, error_score=np.nan)
    failed = np.isnan(gaps.cv_results_["mean_test_score"])
    refused = [params["missing"] == "refuse" for params in gaps.cv_results_["params"]]
    np.testing.assert_array_equal(failed, refused)
    assert np.isfinite(gaps.best_estimator_.decision_function(GAPS)).all()


def test_fit_all__shared_rows__fill_of_their_own_setting():
    ours = [fast("AutoEncoder", missing=missing) for missing in ("refuse", "impute", "refuse")]
    assert fit_all(ours, [samples()] * 3, [None] * 3) == [None] * 3
    assert [d.fill_ is None for d in ours] == [True, False, True]


# --- rows on disk -------------------------------------------------------------------------------


def large(n=3000):
    X = np.repeat(with_gaps(n=n // 10), 10, axis=0) + np.array([0, 5, -5, 50, 0], np.float32)
    X[:, 4] = np.nan
    return X


@representatives
def test_stream__gaps__filled_while_they_are_read(name, tmp_path):
    X = large()
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    detector = fast(name, missing="impute", memory_limit=1 << 15, epochs=1)
    scores = detector.fit(mapped).decision_scores_
    assert detector.fill_.shape == (5,)
    # Medians of a sample of some 200 rows.
    np.testing.assert_allclose(detector.fill_, [*median_of(X[:, :4]), 0], atol=0.3)
    np.testing.assert_array_equal(detector.decision_function(X), scores)
    by_hand = np.where(np.isnan(X), detector.fill_.astype(np.float32), X)
    np.testing.assert_array_equal(detector.decision_function(data.array(by_hand)), scores)
    np.testing.assert_array_equal(clone(detector).fit(mapped).decision_scores_, scores)


@pytest.mark.parametrize("kind", ["table", "windows", "images"])
def test_stream__sample_of_all_rows__fill_and_scaling_of_the_array(kind):
    X = with_gaps(kind, n=200)
    ours = fast("AutoEncoder", missing="impute", epochs=0)
    in_memory = copy.deepcopy(ours).fit(X)
    ours.fit(data.array(X))
    np.testing.assert_array_equal(ours.fill_, in_memory.fill_)
    np.testing.assert_array_equal(ours.shift_, in_memory.shift_)
    np.testing.assert_array_equal(ours.scale_, in_memory.scale_)
    np.testing.assert_array_equal(ours.decision_scores_, in_memory.decision_scores_)


def test_stream__parquet_with_nulls__filled(tmp_path):
    X = large()
    columns = {name: pa.array(X[:, i], from_pandas=True) for i, name in enumerate("abcd")}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=500)
    source = data.parquet(tmp_path / "x.parquet")
    detector = fast("AutoEncoder", missing="impute", memory_limit=1 << 15).fit(source)
    np.testing.assert_allclose(detector.fill_, median_of(X[:, :4]), atol=0.3)
    np.testing.assert_array_equal(
        detector.decision_function(frame_of(X[:, :4])), detector.decision_scores_
    )


def test_stream__rows_held_out_and_gaps__watched():
    detector = fast(
        "AutoEncoder", missing="impute", memory_limit=1 << 15, validation_fraction=0.1
    ).fit(data.array(large()))
    assert np.isfinite([entry["validation_reconstruction"] for entry in detector.history_]).all()
