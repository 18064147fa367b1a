"""Fitting and scoring what does not fit into ``memory_limit``."""

import pickle
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

import deepod
from deepod import AnoRand, AutoEncoder, SeedEnsemble, data, fit_many
from deepod._inputs import rows as _rows
from deepod._scoring import sketch
from deepod.callbacks import EarlyStopping
from deepod.distributed import Scorer

from .cases import IN_TURNS, NAMES, REPRESENTATIVES, SHAPES, fast, samples

every_detector = pytest.mark.parametrize("name", NAMES)
LIMIT = 1 << 15  # bytes: less than the 40 KB of TRAIN

rng = np.random.default_rng(0)
MIX = rng.normal(size=(5, 5))
TRAIN = (rng.normal(size=(2000, 5)) @ MIX).astype(np.float32)
TEST = np.concatenate([rng.normal(size=(300, 5)) @ MIX, rng.normal(4, 2, size=(30, 5))])
IS_ANOMALY = np.repeat([0, 1], [300, 30])


def mapped(folder, X, name="X"):
    np.save(folder / f"{name}.npy", X)
    return np.load(folder / f"{name}.npy", mmap_mode="r")


def small(name="AutoEncoder", **params):
    """A detector to which TRAIN is too large."""
    return fast(name, **({"memory_limit": LIMIT, "batch_size": 32, "epochs": 3} | params))


# --- every detector -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_fit__map_above_the_limit__about_as_good_as_in_memory(name, tmp_path):
    streamed = small(name, epochs=5).fit(mapped(tmp_path, TRAIN))
    whole = small(name, epochs=5).fit(TRAIN)
    assert len(streamed.decision_scores_) == len(TRAIN)
    scores = [d.decision_function(TEST) for d in (streamed, whole)]
    assert np.isfinite(scores).all()
    aucs = [roc_auc_score(IS_ANOMALY, s) for s in scores]
    assert aucs[0] > aucs[1] - 0.05
    assert not np.array_equal(*scores)  # it did stream
    assert abs(streamed.labels_.mean() - 0.1) < 1e-3


@every_detector
def test_fit__map_above_the_limit__same_seed_same_scores(name, tmp_path):
    X, few = mapped(tmp_path, TRAIN[:500]), {"memory_limit": LIMIT // 4, "epochs": 2}
    one, other = small(name, **few).fit(X), small(name, **few).fit(X)
    np.testing.assert_array_equal(one.decision_scores_, other.decision_scores_)
    if one.learns_by_heart:  # others score a training row by the other rows
        np.testing.assert_array_equal(one.decision_scores_, one.decision_function(TRAIN[:500]))
    assert not np.array_equal(
        small(name, **few, random_state=1).fit(X).decision_scores_, one.decision_scores_
    )
    assert not np.array_equal(  # it did stream
        small(name, epochs=2).fit(TRAIN[:500]).decision_scores_, one.decision_scores_
    )


@pytest.mark.parametrize(("name", "kind"), IN_TURNS)
def test_score__map_and_source__exactly_as_the_array(name, kind, tmp_path):
    detector = fast(name, memory_limit=1000).fit(samples(kind))
    X = samples(kind, n=300, seed=1)
    scores = detector.decision_function(X)
    np.testing.assert_array_equal(detector.decision_function(mapped(tmp_path, X)), scores)
    np.testing.assert_array_equal(detector.decision_function(data.array(X)), scores)
    np.testing.assert_array_equal(detector.predict(data.array(X)), detector.predict(X))


@pytest.mark.parametrize(("name", "kind"), IN_TURNS)
def test_fit__source__every_kind_of_rows(name, kind):
    detector = fast(name, memory_limit=1 << 14).fit(data.array(samples(kind, n=64)))
    assert detector.input_shape_ == SHAPES[kind]
    assert np.isfinite(detector.decision_scores_).all()


# --- what is given ------------------------------------------------------------------------------


def test_fit__map_below_the_limit__as_the_array(tmp_path):
    mapped_scores = small(memory_limit=1 << 20).fit(mapped(tmp_path, TRAIN)).decision_scores_
    np.testing.assert_array_equal(mapped_scores, small().fit(TRAIN).decision_scores_)


def test_fit__sorted_map__about_as_good(tmp_path):
    X = TRAIN[TRAIN[:, 0].argsort()]
    scores = small(epochs=5).fit(mapped(tmp_path, X)).decision_function(TEST)
    expected = small(epochs=5).fit(X).decision_function(TEST)
    assert roc_auc_score(IS_ANOMALY, scores) > roc_auc_score(IS_ANOMALY, expected) - 0.05


def test_parquet__fit_and_score__names_are_kept_and_checked(tmp_path):
    table = pa.table({f"c{i}": TRAIN[:, i] for i in range(5)})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=300)
    source = data.parquet(tmp_path / "x.parquet")
    detector = small().fit(source)
    np.testing.assert_array_equal(detector.feature_names_in_, [f"c{i}" for i in range(5)])
    np.testing.assert_array_equal(detector.decision_function(source), detector.decision_scores_)
    expected = detector.decision_function(table.to_pandas())
    np.testing.assert_array_equal(detector.decision_scores_, expected)
    swapped = data.parquet(tmp_path / "x.parquet", [f"c{i}" for i in (1, 0, 2, 3, 4)])
    with pytest.raises(ValueError, match="feature names"):
        detector.decision_function(swapped)


def test_input_shape__flat_source__like_shaped_rows():
    X, shape = samples("images", n=64), SHAPES["images"]
    flat = data.array(X.reshape(64, -1))
    scores = small(input_shape=shape).fit(flat).decision_scores_
    for given in (data.array(X), data.array(X.reshape(64, -1))):
        np.testing.assert_array_equal(small(input_shape=shape).fit(given).decision_scores_, scores)
    np.testing.assert_array_equal(small().fit(data.array(X)).decision_scores_, scores)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.where(np.arange(2000)[:, None] == 1500, np.nan, TRAIN), "Input X contains NaN"),
        (np.where(np.arange(2000)[:, None] == 1500, np.inf, TRAIN), "contains infinity"),
        (TRAIN[:1], "minimum of 2"),
        (TRAIN[:, :0], "0 feature"),
        (TRAIN + 1j, "[Cc]omplex"),
        (TRAIN[:, 0], "Reshape your data"),
    ],
)
def test_fit__bad_source__refused_and_says_why(X, message):
    detector = small()
    with pytest.raises(ValueError, match=message):
        detector.fit(data.array(X))
    assert not detector.__sklearn_is_fitted__()


def test_score__bad_source__refused_and_says_why():
    detector = small().fit(TRAIN)
    with pytest.raises(ValueError, match="features"):
        detector.decision_function(data.array(TRAIN[:, 1:]))
    X = TRAIN.copy()
    X[-1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        detector.decision_function(data.array(X))


@pytest.mark.parametrize("limit", [0, -1, 1.5, "1GiB", None])
def test_memory_limit__not_a_positive_integer__refused(limit):
    with pytest.raises(ValueError, match="memory_limit"):
        small(memory_limit=limit).fit(TRAIN)


# --- options ------------------------------------------------------------------------------------


def test_validation_fraction__rows_are_held_out_and_watched():
    detector = small(validation_fraction=0.2, callbacks=[EarlyStopping(patience=2)])
    detector.fit(data.array(TRAIN))
    assert "validation_reconstruction" in detector.history_[-1]
    with pytest.raises(ValueError, match="validation_fraction"):
        small(validation_fraction=0.5).fit(data.array(TRAIN[:3]))


@pytest.mark.parametrize(
    ("name", "supervision"),
    [("PLAD", "drop_anomalies"), ("AnoRand", "few_labels"), ("AnoRand", "supervised")],
)
def test_supervision__labels_reach_training(name, supervision):
    X = np.concatenate([TRAIN[:1000], rng.normal(4, 2, size=(100, 5)).astype(np.float32)])
    y = np.repeat([0, 1], [1000, 100])
    params = {"supervision": supervision, "epochs": 5, "memory_limit": LIMIT}
    detector = small(name, **params).fit(data.array(X), y)
    assert roc_auc_score(IS_ANOMALY, detector.decision_function(TEST)) > 0.9
    blind = small(name, **(params | {"supervision": None})).fit(data.array(X), y)
    assert not np.array_equal(blind.decision_scores_, detector.decision_scores_)
    with pytest.raises(ValueError, match="y has 5 labels"):
        small(name, **params).fit(data.array(X), y[:5])
    with pytest.raises(ValueError, match="every row"):
        small(name, **params).fit(data.array(X), np.ones(1100, int))


def test_engine__streamed__as_eager():
    scores = [
        small(engine=engine).fit(data.array(TRAIN)).decision_scores_
        for engine in ("eager", "trace")
    ]
    np.testing.assert_allclose(*scores, rtol=1e-3)


# --- scores too many to keep --------------------------------------------------------------------


def test_scores__too_many__threshold_from_a_sketch_and_clear_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(sketch, "_STAND_INS", 1001)
    X = mapped(tmp_path, np.repeat(TRAIN, 5, axis=0))
    detector = small().fit(X)
    scores = detector.decision_function(X)
    for contamination in (0.1, 0.02):
        detector.contamination = contamination
        assert abs((scores > detector.threshold_).mean() - contamination) < 2e-3
        assert abs(detector.predict(X).mean() - contamination) < 2e-3
    detector.contamination = "auto"
    low, high = np.quantile(scores, [0.25, 0.75])
    assert detector.threshold_ == pytest.approx(high + 1.5 * (high - low), rel=1e-2)
    detector.contamination = 0
    assert detector.predict(X).sum() == 0
    detector.contamination = contamination
    for name, method in (("decision_scores_", "decision_function"), ("labels_", "predict")):
        with pytest.raises(AttributeError, match=rf"{name}.*memory_limit.*{method}\(X\)"):
            getattr(detector, name)
    probability = detector.predict_proba(TEST)[:, 1]
    assert roc_auc_score(IS_ANOMALY, probability) > 0.5
    np.testing.assert_array_equal(Scorer(detector)(TEST), detector.decision_function(TEST))
    copied = pickle.loads(pickle.dumps(detector))
    assert (copied.threshold_, copied.contamination) == (detector.threshold_, contamination)
    labels, confidence = detector.predict(TEST, return_confidence=True)
    assert ((confidence >= 0) & (confidence <= 1)).all()
    rejected, stats = detector.predict_with_rejection(TEST, return_stats=True)
    assert len(rejected) == len(labels)
    assert np.isfinite(stats).all()


def test_scores__too_many_and_no_sketch_library__said_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(sketch, "_STAND_INS", 1001)
    monkeypatch.setitem(sys.modules, "datasketches", None)
    told = []
    with pytest.raises(ImportError, match=r"deepod\[data\]"):
        small(callbacks=[told.append]).fit(mapped(tmp_path, np.repeat(TRAIN, 5, axis=0)))
    assert not told


def test_seed_ensemble__of_a_map__as_its_members(tmp_path):
    X = mapped(tmp_path, TRAIN)
    ensemble = SeedEnsemble(small(), n_members=2, random_state=0).fit(X)
    np.testing.assert_array_equal(ensemble.decision_function(X), ensemble.decision_scores_)
    member = ensemble.members_[0]
    alone = small(random_state=member.random_state).fit(X)
    np.testing.assert_array_equal(alone.decision_scores_, member.decision_scores_)


def test_fit_many__array_in_several_processes__not_taken_for_a_map():
    X = rng.normal(size=(2000, 100))  # joblib sends 1 MB and more as a memory map
    detector = small(epochs=1, engine="eager")
    jobs = [fit_many(detector, X, seeds=[0, 1], n_jobs=n)[1].decision_scores_ for n in (1, 2)]
    np.testing.assert_allclose(*jobs, rtol=1e-3)


# --- memory, progress, batches ------------------------------------------------------------------


def test_fit__large_map__memory_within_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(_rows, "_BLOCK_VALUES", 1 << 17)
    X = mapped(tmp_path, np.tile(TRAIN, (50, 4)))  # 8 MB
    limit = 1 << 20
    detector = AutoEncoder(memory_limit=limit, batch_size=4096, epochs=1, random_state=0)
    detector.fit(mapped(tmp_path, np.tile(TRAIN, (1, 4)), "first"))  # what is imported
    tracemalloc.start()
    try:
        detector.fit(X)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Beside the limit, a block of rows in float64 that is being scaled.
    assert peak < limit + 4 * 8 * (1 << 17)


def test_verbose__scoring_a_source__shows_progress(capsys):
    detector = small().fit(TRAIN)
    detector.decision_function(data.array(TRAIN))
    assert "score" not in capsys.readouterr().err
    detector.verbose = 1
    detector.decision_function(data.array(TRAIN))
    assert "score" in capsys.readouterr().err


def test_score_batches__one_array_per_batch():
    detector = AnoRand(epochs=1, random_state=0).fit(TRAIN)
    batches = (part for part in np.array_split(TRAIN, 7))
    scores = list(detector.score_batches(batches))
    assert [len(s) for s in scores] == [len(part) for part in np.array_split(TRAIN, 7)]
    assert {s.dtype for s in scores} == {np.dtype(np.float64)}
    np.testing.assert_allclose(np.concatenate(scores), detector.decision_function(TRAIN), rtol=1e-5)


def test_array_computed_from_a_memory_map__is_in_memory(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(500, 3)))
    computed = np.load(tmp_path / "x.npy", mmap_mode="r").astype(np.float32)
    settings = {"epochs": 1, "random_state": 0, "memory_limit": 1 << 10}
    ours = deepod.AutoEncoder(**settings).fit(computed)
    alone = deepod.AutoEncoder(**settings).fit(np.array(computed))
    np.testing.assert_array_equal(ours.decision_scores_, alone.decision_scores_)
