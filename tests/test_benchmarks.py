"""The benchmark: splits, metrics, resuming, failures as rows, tables."""

import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from pyod.models.base import BaseDetector
from sklearn.utils import Bunch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the benchmarks are in the source tree only

pytest.importorskip("pandas")
from benchmarks import (  # noqa: E402
    datasets,
    detectors,
    explain,
    protocols,
    rows,
    run,
    thresholds,
)
from deepod.networks import MLP  # noqa: E402


class Norm(BaseDetector):
    """Distance to the mean; remembers nothing but that."""

    def __init__(self, power=1.0, verbose=1, random_state=None):
        super().__init__()
        self.power = power
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X, y=None):
        assert y is None
        assert self.verbose == 0
        self.mean = X.mean(0)
        self.threshold_ = np.quantile(self.decision_function(X), 0.9)
        return self

    def decision_function(self, X):
        return np.linalg.norm(X - self.mean, axis=1) ** self.power


class Broken(Norm):
    def fit(self, X, y=None):
        raise RuntimeError("out of order")


class NotFinite(Norm):
    def decision_function(self, X):
        return np.where(np.arange(len(X)) == 2, np.nan, 1.0)


class Interrupted(Norm):
    def fit(self, X, y=None):
        raise KeyboardInterrupt


NORM, BROKEN = f"{__name__}:Norm", f"{__name__}:Broken"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Two tables and an image dataset."""
    rng = np.random.default_rng(0)
    (tmp_path / "data" / "tabular").mkdir(parents=True)
    (tmp_path / "data" / "images").mkdir()
    for name, n in (("1_small", 60), ("2_wide", 80)):
        y = (np.arange(n) % 10 == 0).astype(np.int8)
        X = rng.normal(size=(n, 4)).astype(np.float32) + 3 * y[:, None]
        np.savez(tmp_path / "data" / "tabular" / f"{name}.npz", X=X, y=y)
    images = {f"x_{part}": rng.integers(0, 255, (30, 8, 8), np.uint8) for part in ("train", "test")}
    labels = {f"y_{part}": np.arange(30) % 3 for part in ("train", "test")}
    np.savez(tmp_path / "data" / "images" / "digits.npz", **images, **labels)
    monkeypatch.setenv("DEEPOD_DATA", str(tmp_path / "data"))
    return tmp_path


def call(out, *more, protocol="one-class", names="small,2_wide", detector=NORM, seeds=2):
    args = f"--protocol {protocol} --datasets {names} --detectors {detector} --seeds {seeds}"
    run.main([*args.split(), "--out", str(out), *map(str, more)])
    return rows.read(out)


# --- splits ---------------------------------------------------------------------------------------


def table(n=200):
    """Rows that carry their own number, anomalies first."""
    return np.arange(n, dtype=float)[:, None], (np.arange(n) < 30).astype(int)


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
@pytest.mark.parametrize("caps", [(None, None), (40, 50)])
def test_split(protocol, caps):
    X, y = table()
    first, again, other = (protocols.split_table(protocol, X, y, s, *caps) for s in (3, 3, 4))
    for part, repeated in zip(first, again, strict=True):
        np.testing.assert_array_equal(part, repeated)
    assert not np.array_equal(first.X_train, other.X_train)

    train, test = (set(part.ravel().astype(int)) for part in (first.X_train, first.X_test))
    assert not train & test
    assert (len(train), len(test)) == (len(first.X_train), len(first.X_test))  # no row twice
    np.testing.assert_array_equal(first.y_train, y[first.X_train.ravel().astype(int)])
    np.testing.assert_array_equal(first.y_test, y[first.X_test.ravel().astype(int)])


@pytest.mark.parametrize("protocol", ["one-class", "dagmm"])
def test_one_class_trains_on_half_of_the_normals(protocol):
    split = protocols.split_table(protocol, *table(), seed=0)
    assert split.y_train.tolist() == [0] * 85
    assert (split.y_test == 0).sum() == 85
    assert split.y_test.sum() == 30


def test_unsupervised_keeps_the_share_of_anomalies():
    split = protocols.split_table("unsupervised", *table(), seed=0)
    assert (len(split.y_train), split.y_train.sum()) == (140, 21)
    assert (len(split.y_test), split.y_test.sum()) == (60, 9)


def test_caps():
    X, y = table()
    split = protocols.split_table("one-class", X, y, 0, max_train=10, max_test=23)
    assert len(split.X_train) == 10
    assert (len(split.y_test), split.y_test.sum()) == (23, 6)  # 30 of 115
    rare = protocols.split_table("one-class", X, (X.ravel() == 7).astype(int), 0, None, 5)
    assert rare.y_test.sum() == 1
    full = protocols.split_table("one-class", X, y, 0, max_train=10)
    np.testing.assert_array_equal(split.X_train, full.X_train)


def test_test_rows_are_shuffled():
    y = protocols.split_table("one-class", *table(), seed=0).y_test
    assert 0 < y[:30].sum() < 30


def test_split_needs_both_classes():
    X, y = table()
    with pytest.raises(ValueError, match="both normal rows"):
        protocols.split_table("one-class", X, np.zeros_like(y), 0)


def test_images():
    images = Bunch(
        train=np.arange(6), train_target=np.array([0, 1, 2, 0, 1, 2]),
        test=np.arange(4), test_target=np.array([0, 1, 2, 1]),
    )  # fmt: skip
    split = protocols.split_images(images, 1, seed=0)
    assert sorted(split.X_train) == [1, 4]
    assert dict(zip(split.X_test, split.y_test, strict=True)) == {0: 1, 1: 0, 2: 1, 3: 0}


@pytest.mark.parametrize(
    ("y", "scores", "expected"),
    [
        ([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8], 1.0),
        ([0, 1, 0, 1], [0.9, 0.8, 0.2, 0.1], 0.5),
        ([1, 0, 0, 1], [5, 5, 5, 5], 0.5),  # flags the first two
        ([0, 0, 1, 1, 1], [3, 2, 1, 1, 1], 1 / 3),  # one of three ties
    ],
)
def test_f1_at_true_count(y, scores, expected):
    assert protocols.f1_at_true_count(np.array(y), np.array(scores)) == pytest.approx(expected)


# --- detectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module", "cls"),
    [
        ("PLAD", "deepod.models.plad", "PLAD"),
        ("pyod:IForest", "pyod.models.iforest", "IForest"),
        ("pyod:AutoEncoder", "pyod.models.auto_encoder", "AutoEncoder"),
        ("pyod:SO_GAAL", "pyod.models.so_gaal", "SO_GAAL"),
        ("somewhere.else:Thing", "somewhere.else", "Thing"),
    ],
)
def test_find(name, module, cls):
    assert detectors.find(name) == (module, cls, {})


@pytest.mark.parametrize("name", ["PLADD", "pyod:IForrest"])
def test_find_nothing(name):
    with pytest.raises(ValueError, match=name.rpartition(":")[2]):
        detectors.find(name)


def test_only_pyod_convention():
    with pytest.raises(TypeError, match="BaseDetector"):
        detectors.find("sklearn.ensemble:IsolationForest").load()


def test_toml(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(
        '[one]\ndetector = "PLAD"\n[one.params]\nepochs = 3\nperturbator_hidden = [8, 4]\n'
        'network = {name = "MLP", hidden = [64, 32]}\n[two]\nepochs = 3\n'
    )
    found = detectors.find(f"{path}:one")
    detector, facts = found.build(seed=5)
    assert detector.epochs == 3
    assert detector.random_state == 5
    assert detector.perturbator_hidden == (8, 4)
    assert isinstance(detector.network, MLP)
    assert detector.network.hidden == (64, 32)
    assert facts["scaling"] == "own"
    assert json.loads(json.dumps(facts))["params"]["perturbator_hidden"] == [8, 4]
    for section in ("two", "three"):
        with pytest.raises(ValueError, match=section):
            detectors.find(f"{path}:{section}")


@pytest.mark.parametrize("section", ["thyroid", "arrhythmia"])
def test_papers(section):
    assert detectors.find(f"{ROOT}/benchmarks/papers/plad.toml:{section}").params


def test_settings__every_section_of_every_file__found():
    files = [
        *(ROOT / "benchmarks").glob("*.toml"),
        *(ROOT / "benchmarks" / "papers").glob("*.toml"),
    ]
    assert len(files) >= 12
    for path in files:
        for section in tomllib.loads(path.read_text()):
            detectors.find(f"{path}:{section}").build(0)


def test_toml__none(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('[a]\ndetector = "IAELSTMKL"\nparams = { gate = { none = true } }\n')
    assert detectors.find(f"{path}:a").build(0)[0].gate is None


# --- runs -----------------------------------------------------------------------------------------


def test_rows(home):
    out = home / "new folder" / "r.jsonl"
    found = call(out, "--max-test", 20, detector=f"{NORM},pyod:ECOD")
    assert len(found) == 8
    assert [row["dataset"] for row in found[:4]] == ["1_small", "1_small", "2_wide", "2_wide"]
    row = found[0]
    assert row["auc_roc"] > 0.9
    assert 0 <= row["f1"] <= 1
    assert row["auc_pr"] > row["anomaly_share"]
    assert (row["n_train"], row["n_test"], row["n_features"]) == (27, 20, 4)
    assert (row["max_train"], row["max_test"]) == (None, 20)
    assert row["scaling"] == "standard"
    assert (row["random_state"], found[1]["random_state"]) == (0, None)  # ECOD has none
    assert min(row["fit_seconds"], row["score_seconds"]) >= 0
    assert set(row["versions"]) >= {"python", "numpy", "scikit-learn", "torch", "pyod", "deepod"}
    assert {"commit", "device", "threads"} <= set(row)


def test_own_detector_and_images(home):
    (home / "quick.toml").write_text('[a]\ndetector = "PLAD"\nparams = {epochs = 1}\n')
    quick = f"{home / 'quick.toml'}:a"
    found = call(home / "a", detector=quick, names="small", seeds=1)
    assert "error" not in found[0]
    assert (found[0]["scaling"], found[0]["params"]) == ("own", {"epochs": 1})
    found = call(home / "b", protocol="images", names="digits", detector=f"{quick},{NORM}", seeds=1)
    assert not [row["error"] for row in found if "error" in row]
    assert [row["dataset"] for row in found[::2]] == ["digits:0", "digits:1", "digits:2"]
    assert (found[0]["n_train"], found[0]["n_features"]) == (10, 64)
    assert found[0]["anomaly_share"] == pytest.approx(2 / 3)


def test_supervised__labels_reach_the_detector_there_alone(home):
    forest = "benchmarks.reference:RandomForest"
    found = call(home / "a", protocol="supervised", detector=forest, names="small", seeds=1)
    assert found[0]["auc_roc"] > 0.9
    found = call(home / "b", protocol="unsupervised", detector=forest, names="small", seeds=1)
    assert "needs labels" in found[0]["error"]


def test_failures_are_rows(home):
    bad = f"{__name__}:NotFinite,{__name__}:Missing,pyod:KNN"
    found = call(home / "r", detector=f"{BROKEN},{bad}", names="small", seeds=1)
    assert [row.get("error", "none").partition(":")[0] for row in found] == [
        "RuntimeError", "ValueError", "AttributeError", "none",
    ]  # fmt: skip
    assert found[0]["error"] == "RuntimeError: out of order"
    assert "1 that are NaN" in found[1]["error"]
    assert "auc_roc" not in found[1]


def test_errors_are_retried_only_on_request(home, monkeypatch):
    out = home / "r"
    call(out, detector=BROKEN, names="small")
    monkeypatch.setattr(Broken, "fit", Norm.fit)
    assert all("error" in row for row in call(out, detector=BROKEN, names="small"))
    found = call(out, "--retry-errors", detector=BROKEN, names="small")
    assert not any("error" in row for row in found)
    assert len(found) == 2


def untimed(path):
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in found]


@pytest.mark.parametrize("cut", [1, 40, "line"])
def test_resume_after_a_kill(home, cut):
    whole, killed = home / "whole", home / "killed"
    call(whole, detector=f"{NORM},{BROKEN}")
    content = whole.read_bytes()
    lines = content.splitlines(keepends=True)
    killed.write_bytes(b"".join(lines[:3]) if cut == "line" else content[:-cut])
    kept = killed.read_bytes().rpartition(b"\n")[0]
    call(killed, detector=f"{NORM},{BROKEN}")
    assert killed.read_bytes().startswith(kept + b"\n")
    assert untimed(killed) == untimed(whole)
    content = killed.read_bytes()
    call(killed, detector=f"{NORM},{BROKEN}")
    assert killed.read_bytes() == content


def test_resume_after_an_interrupt(home):
    out = home / "r"
    with pytest.raises(KeyboardInterrupt):
        call(out, detector=f"{NORM},{__name__}:Interrupted")
    assert len(rows.read(out)) == 1


@pytest.mark.slow  # each worker imports torch
def test_jobs(home):
    for jobs in (1, 2):
        call(home / f"r{jobs}", "--jobs", jobs, detector="pyod:ECOD,pyod:KNN", names="small")
    one, two = (
        sorted(untimed(home / f"r{jobs}"), key=lambda row: (row["detector"], row["seed"]))
        for jobs in (1, 2)
    )
    assert one == two
    assert not any("error" in row for row in one)


def test_first_use_is_not_timed(home, monkeypatch):
    rows_fitted = []
    monkeypatch.setattr(run, "_warm", set())
    monkeypatch.setattr(Norm, "fit", lambda self, X: rows_fitted.append(len(X)))
    call(home / "r", names="2_wide", seeds=2)
    assert rows_fitted == [36, 36, 36]


def test_other_caps_are_other_cells(home):
    out = home / "r"
    call(out)
    assert len(call(out, "--max-train", 20)) == 8


def test_malformed_line(home):
    out = home / "r"
    call(out)
    lines = out.read_text().splitlines(keepends=True)
    for bad in ("{not json}\n", '{"protocol": "one-class"}\n', "3\n", "\n"):
        out.write_text("".join([*lines[:1], bad, *lines[2:]]))
        with pytest.raises(ValueError, match="line 2"):
            call(out)


def test_another_file_is_not_cut(home):
    out = home / "notes.txt"
    out.write_text("no newline at the end")
    with pytest.raises(ValueError, match="right file"):
        call(out)
    assert out.read_text() == "no newline at the end"


def test_missing_data(home, monkeypatch):
    with pytest.raises(FileNotFoundError, match="smalll"):
        call(home / "r", names="smalll")
    monkeypatch.setenv("DEEPOD_DATA", str(home / "nowhere"))
    with pytest.raises(FileNotFoundError, match="DEEPOD_DATA"):
        call(home / "r")
    assert not (home / "r").exists()


def test_groups_are_disjoint():
    assert not set(datasets.DEVELOPMENT) & set(datasets.CONFIRMATION)


def test_false_alarms__share_of_normal_test_rows_above_the_threshold(home):
    call(home / "r")
    row = json.loads((home / "r").read_text().splitlines()[0])
    split = run.load(rows.Cell.of(row))
    scaler = run.StandardScaler().fit(split.X_train)
    norm = Norm(verbose=0).fit(scaler.transform(split.X_train))
    scores = norm.decision_function(scaler.transform(split.X_test))
    assert row["false_alarms"] == np.mean(scores[split.y_test == 0] > norm.threshold_)


# --- thresholds -----------------------------------------------------------------------------------


def test_thresholds__row_by_hand__table_and_going_on(home, capsys, monkeypatch):
    (home / "fast.toml").write_text('[ours]\ndetector = "AutoEncoder"\nparams = {epochs = 2}')
    for number in (3, 4):  # enough rows to calibrate
        y = (np.arange(140) % 10 == 0).astype(np.int8)
        X = np.random.default_rng(number).normal(size=(140, 4)) + 3 * y[:, None]
        np.savez(home / "data" / "tabular" / f"{number}_more{number}.npz", X=X, y=y)
    out, name = home / "results" / "t.jsonl", f"{home}/fast.toml:ours"
    command = f"--datasets more3,more4 --detectors {name} --seeds 1 --max-test 30 --out {out}"
    thresholds.main(command.split())
    shown = capsys.readouterr().out
    assert "## one-class: 2 datasets, 1 seeds, percent" in shown
    assert "| contamination='auto' |" in shown
    assert "| worst dataset |" in shown
    found = rows.read(out)
    assert len(found) == 4

    row = next(row for row in found if row["protocol"] == "one-class")
    split = run.load(rows.Cell.of(row))
    detector = detectors.find(name).build(0)[0].fit(split.X_train)
    labels, y = detector.predict(split.X_test), split.y_test
    f1, recall, alarms, flagged = row["rules"]["contamination=0.1"]
    hits = (labels & y).sum()
    assert f1 == pytest.approx(2 * hits / (labels.sum() + y.sum()), abs=1e-4)
    assert recall == pytest.approx(hits / y.sum(), abs=1e-4)
    assert alarms == pytest.approx(labels[y == 0].mean(), abs=1e-4)
    assert flagged == pytest.approx(detector.labels_.mean(), abs=1e-4)
    detector.set_params(calibration_fraction=0.2, false_alarm_rate=0.1)
    by_p = detector.fit(split.X_train).p_values(split.X_test) <= 0.1
    assert row["rules"][thresholds.CALIBRATED][2] == pytest.approx(by_p[y == 0].mean(), abs=1e-4)

    monkeypatch.setattr(thresholds, "run_cell", None)  # nothing left to run
    thresholds.main(command.split())
    assert capsys.readouterr().out == shown


def test_threshold_rules__by_hand():
    scores = np.array([2.0, 1, 4, 3, 9])
    assert thresholds.mad(scores) == pytest.approx(3 + 3.5 * 1 / 0.6745)
    assert thresholds.semi_interquartile(scores) == 4 + 3 * 1
    assert thresholds.log_tukey(np.exp(scores)) == pytest.approx(np.exp(4 + 1.5 * 2))
    assert np.isnan(thresholds.log_tukey(scores - 1))
    assert thresholds.three_sigma(scores) == pytest.approx(3.8 + 3 * np.std(scores))
    # Distances to the median, 3, from above and from below.
    kernel = [(u + w) / (u - w) if u > w else 0 for u in (0, 1, 6) for w in (0, -1, -2)]
    assert thresholds.medcouple(scores) == pytest.approx(np.median(kernel))
    assert thresholds.medcouple(np.arange(10_001.0)) == pytest.approx(0, abs=1e-9)
    assert thresholds.medcouple(-scores) == -thresholds.medcouple(scores)
    skew = thresholds.medcouple(scores)
    assert thresholds.adjusted_boxplot(scores) == pytest.approx(4 + 1.5 * np.exp(3 * skew) * 2)


# --- contributions and ONNX files -----------------------------------------------------------------


def test_explain__shifted__one_value_of_each_row():
    X = np.zeros((50, 4))
    moved, places = explain.shifted(X, np.array([1.0, 0.0, 2.0, 3.0]), seed=0)
    assert (X == 0).all()
    assert np.count_nonzero(moved) == 50
    assert set(places) == {0, 2, 3}  # the second does not vary
    sizes = explain.SHIFT * np.array([1.0, 0.0, 2.0, 3.0])[places]
    np.testing.assert_array_equal(np.abs(moved[np.arange(50), places]), sizes)


def test_explain__rows_and_tables(home, capsys):
    out = home / "explain.jsonl"
    args = f"--datasets small --detectors AutoEncoder,DeepSVDD --seeds 1 --out {out}".split()
    explain.main(args)
    first = out.read_text()
    explain.main(args)
    assert out.read_text() == first  # nothing is measured twice
    for row in map(json.loads, first.splitlines()):
        gaps = row["gaps"]
        assert set(gaps) == set(map(str, explain.NODES))
        assert 0 <= gaps["256"]["median"] <= gaps["256"]["max"] < 0.2
        assert all(0 <= share <= 1 for share in row["blamed"].values())
        assert row["chance"] == 0.25
    assert "| DeepSVDD |" in capsys.readouterr().out


def test_onnx__rows_and_table(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    from benchmarks import onnx

    out = tmp_path / "onnx.jsonl"
    args = f"--kinds table --detectors DeepSVDD --largest 300 --out {out}".split()
    onnx.main(args)
    (row,) = map(json.loads, out.read_text().splitlines())
    assert row["deviation"] < 1e-5
    assert row["rows"] == 300
    assert min(row["export"], *row["one"].values(), *row["all"].values()) > 0
    assert "| DeepSVDD | table |" in capsys.readouterr().out
