"""Scoring on Dask, Ray Data and Spark, with the engines themselves; searches on joblib's backends.

The engines' tests are skipped where the engine is not installed. Those of Ray and Spark are slow:
their workers start one by one and import torch.
"""

import os
import pickle
import sys
import threading
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from joblib import parallel_config
from pyod.models.knn import KNN
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import deepod
from deepod import distributed
from deepod.distributed import Scorer, score_dask, score_ray, score_spark

from .cases import IN_TURNS, fast, samples

pd = pytest.importorskip("pandas")

ROOT = Path(__file__).resolve().parents[1]
ENGINES = {
    score_dask: ("dask", "dask"),
    score_ray: ("ray.data", "ray"),
    score_spark: ("pyspark.sql.functions", "spark"),
}
# Parts of uneven size, one of them empty.
PARTS = (13, 0, 50, 1, 36)
# The same rows in batches of other sizes: float32 sums in another order (see test_contract.py).
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


class Witness:
    """Writes down its process at each unpickling and each batch; scores with the first column."""

    def __init__(self, log):
        self.log = log
        log.touch()

    def note(self, *words):
        # One short write at the end of the file: whole, whoever else writes.
        with self.log.open("a") as log:
            log.write(" ".join(map(str, [*words, os.getpid()])) + "\n")

    def __setstate__(self, state):
        import torch

        self.__dict__ = state
        self.note("loaded", torch.get_num_threads())

    def decision_function(self, X):
        self.note("scored", 0)
        return np.asarray(X)[:, 0]

    def assert_loaded_once_per_process(self, *, batches, processes):
        lines = [line.split() for line in self.log.read_text().splitlines()]
        loaded = [line[2] for line in lines if line[0] == "loaded"]
        scored = [line[2] for line in lines if line[0] == "scored"]
        assert len(scored) >= batches
        assert len(loaded) == len(set(loaded)) <= processes
        assert str(os.getpid()) not in loaded
        assert set(scored) <= set(loaded)
        # One thread in each, which the engine sees to: nobody told these workers anything.
        assert {line[1] for line in lines if line[0] == "loaded"} == {"1"}


@pytest.fixture
def witness(tmp_path):
    """One, of a class that is sent by value, as those of ``__main__`` are."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield Witness(tmp_path / "log")
    cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="module")
def free():
    """An environment that says nothing of threads, unlike that of the other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.setenv("PYTHONPATH", str(ROOT))
        yield patch


@pytest.fixture(scope="module")
def frame():
    return pd.DataFrame(samples(n=sum(PARTS)), columns=["a", "b", "c", "d.e", "f"])


@pytest.fixture(scope="module")
def named(frame):
    return fast("DAE").fit(frame)


def divided(X):
    """The rows of X in parts."""
    starts = np.cumsum([0, *PARTS])
    return [X[start : start + size] for start, size in zip(starts, PARTS, strict=False)]


def shuffled(frame):
    """Columns in another order, and one that is no feature."""
    return frame[["f", "d.e", "b", "a", "c"]].assign(id=np.arange(len(frame)))


# --- the scorer -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), IN_TURNS)
def test_scorer__every_detector__scores_of_the_whole(name, kind):
    X = samples(kind, n=sum(PARTS))
    detector = fast(name).fit(X)
    scorer = pickle.loads(pickle.dumps(Scorer(detector)))
    scores = [scorer(part) for part in divided(X)]
    assert [part.shape for part in scores] == [(n,) for n in PARTS]
    assert {part.dtype for part in scores} == {np.dtype(np.float64)}
    np.testing.assert_allclose(np.concatenate(scores), detector.decision_function(X), **TOLERANCE)


@pytest.mark.parametrize("make", [KNN, lambda: make_pipeline(StandardScaler(), fast("DAE"))])
def test_scorer__pyod_and_pipeline(make):
    X = samples()
    detector = make()
    with pytest.raises(NotFittedError, match=r"detector is a .* call its fit first"):
        Scorer(detector)
    detector.fit(X)
    np.testing.assert_allclose(Scorer(detector)(X), detector.decision_function(X), **TOLERANCE)


@pytest.mark.parametrize("score", ENGINES)
def test_every_engine__not_fitted_or_no_detector__refused(score):
    pytest.importorskip(ENGINES[score][0])
    with pytest.raises(NotFittedError, match="detector is a PLAD that is not fitted"):
        score(deepod.PLAD(), None)
    with pytest.raises(TypeError, match="detector must have a decision_function, which int"):
        score(3, None)


@pytest.mark.parametrize("score", ENGINES)
def test_every_engine__not_installed__names_the_extra(score, monkeypatch):
    module, extra = ENGINES[score]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'pip install "deepod\[{extra}\]"'):
        score(deepod.PLAD(), None)


def test_scorer__later_changes_of_the_detector__not_seen():
    X = samples()
    detector = fast("DAE").fit(X)
    before = detector.decision_function(X)
    scorer = Scorer(detector)
    detector.fit(10 * X)
    np.testing.assert_array_equal(scorer(X), before)


def test_scorer__columns__in_the_order_of_fit(frame, named):
    scorer = Scorer(named)
    np.testing.assert_array_equal(scorer(shuffled(frame)), named.decision_function(frame))
    with pytest.raises(ValueError, match=r"columns \['a', 'b'\] are missing"):
        scorer(frame[["c", "d.e", "f"]])
    assert scorer(frame[:0]).shape == (0,)


def test_scorer__columns_of_an_unnamed_fit(frame):
    detector = fast("DAE").fit(frame.to_numpy())
    expected = detector.decision_function(frame.to_numpy())
    wide = shuffled(frame)
    np.testing.assert_array_equal(Scorer(detector, list(frame))(wide), expected)
    with pytest.raises(
        ValueError, match="fitted on 5 features; pass the names of these as columns"
    ):
        Scorer(detector)(wide)
    whole_rows = pd.DataFrame({"x": list(frame.to_numpy()), "id": 0})
    np.testing.assert_array_equal(Scorer(detector, "x")(whole_rows), expected)


def test_scorer__other_columns_than_those_of_fit__refused(named):
    with pytest.raises(ValueError, match=r"columns=\['a', 'b'\] differ from those"):
        Scorer(named, ["a", "b"])


def test_scorer__many_threads__one_load(monkeypatch, tmp_path):
    witness = Witness(tmp_path / "log")
    scorers = [pickle.loads(pickle.dumps(Scorer(witness))) for _ in range(8)]
    threads = [threading.Thread(target=scorer, args=(np.zeros((1, 1)),)) for scorer in scorers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert witness.log.read_text().count("loaded") == 1
    assert witness.log.read_text().count("scored") == 8


def test_scorer__many_detectors__the_last_are_kept(monkeypatch):
    monkeypatch.setattr(distributed, "_loaded", {})
    X = samples()
    scorers = [Scorer(fast("DAE", random_state=seed, epochs=0).fit(X)) for seed in range(6)]
    for scorer in scorers:
        scorer(X)
    assert list(distributed._loaded) == [scorer.digest for scorer in scorers[2:]]


# --- Dask -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dask_client(free):
    dask_distributed = pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    # For nothing but to end what hangs: a loaded machine may take minutes to start a worker.
    timeouts = {
        "distributed.comm.timeouts.connect": "600s",
        "distributed.comm.timeouts.tcp": "600s",
    }
    with dask.config.set(timeouts):
        cluster = dask_distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, dashboard_address=None, memory_limit=None
        )
        with cluster, dask_distributed.Client(cluster, timeout=600) as client:
            yield client


@pytest.mark.parametrize("kind", ["table", "windows", "images"])
def test_dask_array__scores_of_the_whole__in_its_chunks(kind):
    array = pytest.importorskip("dask.array")
    X = samples(kind, n=sum(PARTS))
    detector = fast("DAE").fit(X)
    last = X.shape[-1]
    for chunks in (X.shape[1:], (*X.shape[1:-1], (2, last - 2))):  # whole samples, and halves
        scores = score_dask(detector, array.from_array(X, chunks=(PARTS, *chunks)))
        assert (scores.chunks, scores.dtype) == ((PARTS,), np.float64)
        np.testing.assert_allclose(
            scores.compute(scheduler="threads"), detector.decision_function(X), **TOLERANCE
        )


def test_dask_frame__scores_of_the_whole__with_its_index(frame, named):
    dask_frame = pytest.importorskip("dask.dataframe")
    parts = [dask_frame.from_pandas(part, npartitions=1) for part in divided(shuffled(frame))]
    scores = score_dask(named, dask_frame.concat(parts)).compute(scheduler="threads")
    assert (scores.name, scores.dtype) == ("score", np.float64)
    assert scores.index.equals(frame.index)
    np.testing.assert_allclose(scores, named.decision_function(frame), **TOLERANCE)
    empty = dask_frame.from_pandas(frame, npartitions=3).query("a > 1e9")
    assert score_dask(named, empty).compute(scheduler="threads").shape == (0,)


def test_dask__what_cannot_be_scored__refused_at_once(frame, named):
    dask_frame = pytest.importorskip("dask.dataframe")
    with pytest.raises(ValueError, match=r"columns \['d.e'\] are missing"):
        score_dask(named, dask_frame.from_pandas(frame.drop(columns="d.e"), npartitions=2))
    with pytest.raises(TypeError, match="X must be a Dask array or DataFrame, got DataFrame"):
        score_dask(named, frame)
    X = dask_frame.from_pandas(frame, npartitions=2).to_dask_array()
    with pytest.raises(ValueError, match="can be chosen from a DataFrame only"):
        score_dask(named, X, columns=list(frame))


def test_dask_cluster__detector_loaded_once_per_worker(dask_client, witness):
    array = pytest.importorskip("dask.array")
    X = np.arange(40.0).reshape(20, 2)
    for rows in (X, -X):
        scores = score_dask(witness, array.from_array(rows, chunks=(2, 1)))
        np.testing.assert_array_equal(scores.compute(scheduler=dask_client), rows[:, 0])
    witness.assert_loaded_once_per_process(batches=20, processes=2)


def test_dask_cluster__rows_of_unknown_number(dask_client, frame, named):
    dask_frame = pytest.importorskip("dask.dataframe")
    X = dask_frame.from_pandas(frame, npartitions=3).to_dask_array()  # chunks of nan rows
    unnamed = fast("DAE").fit(frame.to_numpy())
    scores = score_dask(unnamed, X).compute(scheduler=dask_client)
    np.testing.assert_allclose(scores, unnamed.decision_function(frame.to_numpy()), **TOLERANCE)


# --- Ray ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray(free):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    ray.init(
        num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000
    )
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_ray__frame__scores_of_the_whole(ray, frame, named):
    dataset = ray.data.from_pandas(divided(shuffled(frame)))
    scored = score_ray(named, dataset, score="s").to_pandas().sort_values("id")
    assert list(scored) == [*shuffled(frame), "s"]
    np.testing.assert_allclose(scored["s"], named.decision_function(frame), **TOLERANCE)
    np.testing.assert_array_equal(scored["a"], frame["a"])
    with pytest.raises(ValueError, match=r"columns \['d.e'\] are missing"):
        score_ray(named, ray.data.from_pandas(frame.drop(columns="d.e")))


@pytest.mark.slow
def test_ray__images__in_one_column_of_tensors(ray):
    X = samples("images", n=30)
    detector = fast("DAE").fit(X)
    dataset = ray.data.from_items([{"image": x, "id": i} for i, x in enumerate(X)])
    scored = score_ray(detector, dataset, "image", batch_size=7).to_pandas().sort_values("id")
    np.testing.assert_allclose(scored["score"], detector.decision_function(X), **TOLERANCE)


@pytest.mark.slow
def test_ray__detector_loaded_once_per_actor(ray, witness):
    dataset = ray.data.from_numpy(np.arange(40.0).reshape(20, 2)).repartition(4)
    compute = ray.data.ActorPoolStrategy(size=2)  # two of four CPUs: the others read
    scored = score_ray(witness, dataset, batch_size=2, compute=compute).to_pandas()
    assert sorted(scored["score"]) == list(np.arange(0, 40.0, 2))
    witness.assert_loaded_once_per_process(batches=10, processes=2)


# --- Spark ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spark(free):
    sql = pytest.importorskip("pyspark.sql")
    free.setenv("PYSPARK_PYTHON", sys.executable)
    free.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    session = (
        sql.SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    yield session
    gateway = session.sparkContext._gateway
    session.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()  # which ends the Java process
    gateway.proc.wait(timeout=600)


def parts_of(spark, frame):
    """Partitions of uneven size; the last two of three are empty."""
    rows = spark.createDataFrame(frame)
    empty = rows.filter("id < 0").repartition(2)
    return rows.filter("id < 63").coalesce(1).union(rows.filter("id >= 63")).union(empty)


@pytest.mark.slow
def test_spark__frame__scores_of_the_whole(spark, frame, named):
    rows = parts_of(spark, shuffled(frame))
    scored = score_spark(named, rows, score="s").toPandas().sort_values("id")
    assert list(scored) == [*shuffled(frame), "s"]
    np.testing.assert_allclose(scored["s"], named.decision_function(frame), **TOLERANCE)
    assert score_spark(named, rows.filter("id < 0")).toPandas().empty
    with pytest.raises(ValueError, match=r"columns \['a'\] are missing"):
        score_spark(named, rows.drop("a"))


@pytest.mark.slow
def test_spark__one_column_of_arrays(spark):
    X = samples("images", n=30)
    detector = fast("DAE", input_shape=X.shape[1:]).fit(X)
    flat = pd.DataFrame({"id": np.arange(30), "image": list(X.reshape(30, -1))})
    scored = score_spark(detector, spark.createDataFrame(flat), "image").toPandas()
    scores = scored.sort_values("id")["score"]
    np.testing.assert_allclose(scores, detector.decision_function(X), **TOLERANCE)


@pytest.mark.slow
def test_spark__detector_loaded_once_per_worker(spark, witness):
    rows = spark.createDataFrame(pd.DataFrame({"a": np.arange(40.0), "b": 0.0})).repartition(5)
    for _ in range(2):
        scored = score_spark(witness, rows).toPandas()
        assert sorted(scored["score"]) == list(np.arange(40.0))
    witness.assert_loaded_once_per_process(batches=10, processes=2)


# --- searches and benchmarks on joblib's backends -------------------------------------------------


def search(jobs):
    y = np.arange(40) % 5 == 0
    search = GridSearchCV(
        fast("DAE"),
        {"lr": [1e-3, 1e-2]},
        scoring="roc_auc",
        cv=StratifiedKFold(2, shuffle=True, random_state=0),
        n_jobs=jobs,
    )
    return search.fit(samples() + 2 * y[:, None], y.astype(int)).cv_results_["mean_test_score"]


@pytest.mark.slow  # each worker imports torch; test_sklearn.py has a search on loky, too
def test_search__loky():
    loky = pytest.importorskip("joblib.externals.loky")
    with parallel_config(backend="loky"):
        np.testing.assert_allclose(search(2), search(1))
    loky.get_reusable_executor().shutdown(wait=True)


def test_search__dask(dask_client):
    before = progress(dask_client)
    with parallel_config(backend="dask"):
        np.testing.assert_allclose(search(2), search(1))
    assert progress(dask_client) > before


def test_benchmark__dask(dask_client, tmp_path, monkeypatch):
    from deepod import bench
    from deepod.bench import rows

    y = (np.arange(60) % 10 == 0).astype(np.int8)
    (tmp_path / "tabular").mkdir()
    np.savez(tmp_path / "tabular" / "1_small.npz", X=samples(n=60), y=y)
    monkeypatch.setenv("DEEPOD_DATA", str(tmp_path))
    dask_client.run(lambda: os.environ.update(DEEPOD_DATA=str(tmp_path)))
    data = bench.find_data(names=["small"])
    before = progress(dask_client)
    found = []
    for jobs, backend in ((2, "dask"), (1, "sequential")):
        out = tmp_path / backend
        with parallel_config(backend=backend):
            bench.run(data, ["pyod:KNN"], out, seeds=3, jobs=jobs, progress=False)
        found.append(
            {row["seed"]: row.get("auc_roc", row.get("error")) for row in rows.read_and_repair(out)}
        )
    assert found[0] == found[1]
    assert {type(value) for value in found[0].values()} == {float}
    assert progress(dask_client) > before


def progress(client):
    """How often a task of a Dask cluster has changed its state: more, once it has done more."""
    return client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)
