"""The benchmark: protocols, the guard against leaks, resuming, limits, failures as rows."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyod.models.base import BaseDetector
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Bunch

from deepod import AutoEncoder, bench, datasets
from deepod._registry import SERIES
from deepod.bench import baselines, detectors, limits, protocols, rows, runner
from deepod.bench.options import add_options, wanted
from deepod.cli import main
from deepod.networks import MLP

ROOT = Path(__file__).resolve().parents[1]


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


class Spy(Norm):
    """Keeps what it is shown."""

    seen: list = []  # noqa: RUF012

    def fit(self, X, y=None):
        Spy.seen.append((X.copy(), y))
        return super().fit(X)


class FromGlobals(Norm):
    """As the deep detectors of PyOD: random numbers of the process."""

    def decision_function(self, X):
        return np.linalg.norm(X, axis=1) + np.random.rand() + torch.rand(1).item()  # noqa: NPY002


class Slow(Norm):
    def decision_function(self, X):
        time.sleep(600)  # until it is killed


class Large(Norm):
    def fit(self, X, y=None):
        self.block = np.ones(1 << 27)  # 1 GiB
        time.sleep(600)  # until it is killed


class Crash(Norm):
    def fit(self, X, y=None):
        if len(X) < 64:  # of the warm-up there is no such thing
            os._exit(7)
        return super().fit(X)


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


def call(out, *more, protocol="one-class", names="small,2_wide", detector=NORM, seeds=2, code=0):
    args = f"bench --protocol {protocol} --datasets {names} --detectors {detector} --quiet"
    assert main([*args.split(), "--seeds", str(seeds), "--out", str(out), *map(str, more)]) == code
    return rows.read(out)


# --- protocols ------------------------------------------------------------------------------------

AMOUNTS = {
    "few-labels": 10, "contaminated": 10, "duplicated": 3, "irrelevant": 50, "label-errors": 20,
}  # fmt: skip
NAMES = [f"{k}-{AMOUNTS[k]}" if k in AMOUNTS else k for k in protocols.PROTOCOLS]
CLEAN = [name for name in NAMES if not protocols.find(name)[0].shared_rows]


def table(n=200):
    """Rows that carry their own number, anomalies first."""
    return np.arange(n, dtype=float)[:, None], (np.arange(n) < 30).astype(int)


def numbers(X):
    return X[:, 0].astype(int)


@pytest.mark.parametrize("protocol", NAMES)
@pytest.mark.parametrize("caps", [(None, None), (40, 50)])
def test_split__repeatable_and_labels_stay_with_their_rows(protocol, caps):
    X, y = table()
    first, again, other = (protocols.split_table(protocol, X, y, s, *caps) for s in (3, 3, 4))
    for part, repeated in zip(first, again, strict=True):
        np.testing.assert_array_equal(part, repeated)
    if protocol != "transductive":
        assert not np.array_equal(first.X_train, other.X_train)
    np.testing.assert_array_equal(first.y_train, y[numbers(first.X_train)])
    np.testing.assert_array_equal(first.y_test, y[numbers(first.X_test)])
    if caps[0]:
        assert (len(first.X_train), len(first.X_test)) == caps


@pytest.mark.parametrize("protocol", CLEAN)
@settings(max_examples=25)
@given(
    n=st.integers(20, 300),
    share=st.floats(0.1, 0.5),
    seed=st.integers(0, 2**31 - 1),
    caps=st.tuples(st.none() | st.integers(5, 100), st.none() | st.integers(5, 100)),
)
def test_split__any_table__no_row_on_both_sides(protocol, n, share, seed, caps):
    y = (np.random.default_rng(seed).permutation(n) < share * n).astype(int)
    split = protocols.split_table(protocol, np.arange(n, dtype=float)[:, None], y, seed, *caps)
    assert not set(numbers(split.X_train)) & set(numbers(split.X_test))
    assert protocols.copies(split) == 0


def test_split__row_on_both_sides__refused(monkeypatch):
    leaky = protocols.PROTOCOLS["transductive"]._replace(shared_rows=False)
    monkeypatch.setitem(protocols.PROTOCOLS, "one-class", leaky)
    with pytest.raises(RuntimeError, match="leak"):
        protocols.split_table("one-class", *table(), seed=0)


@pytest.mark.parametrize("protocol", ["one-class", "dagmm"])
def test_one_class__half_of_the_normal_rows_train(protocol):
    split = protocols.split_table(protocol, *table(), seed=0)
    assert split.y_train.tolist() == [0] * 85
    assert (split.y_test == 0).sum() == 85
    assert split.y_test.sum() == 30
    assert split.given is None


def test_unsupervised__share_of_anomalies_kept():
    split = protocols.split_table("unsupervised", *table(), seed=0)
    assert (len(split.y_train), split.y_train.sum()) == (140, 21)
    assert (len(split.y_test), split.y_test.sum()) == (60, 9)
    assert split.given is None


@pytest.mark.parametrize(("amount", "labelled"), [(1, 1), (5, 1), (10, 2), (100, 21)])
def test_few_labels__so_many_anomalies_are_known(amount, labelled):
    split = protocols.split_table(f"few-labels-{amount}", *table(), seed=0)
    assert split.y_train.sum() == 21
    assert split.given.sum() == labelled
    assert (split.y_train[split.given == 1] == 1).all()


def test_few_labels__capped__one_is_left():
    X, y = table(1000)
    for seed in range(20):
        split = protocols.split_table("few-labels-1", X, y, seed, max_train=20)
        assert split.given.sum() == 1
        assert split.y_train[split.given == 1] == 1


@pytest.mark.parametrize(("amount", "count"), [(0, 0), (5, 4), (10, 9), (50, 15)])
def test_contaminated__share_in_training_and_the_same_test_rows(amount, count):
    split = protocols.split_table(f"contaminated-{amount}", *table(), seed=0)
    assert (split.y_train == 0).sum() == 85
    assert split.y_train.sum() == count  # of 50 %: all 15 of the half that there is
    clean = protocols.split_table("contaminated-0", *table(), seed=0)
    assert set(numbers(split.X_test)) == set(numbers(clean.X_test))
    assert split.given is None


def test_duplicated__anomalies_three_times_on_their_side():
    split = protocols.split_table("duplicated-3", *table(), seed=0)
    plain = protocols.split_table("unsupervised", *table(), seed=0)
    for X, y, before in (
        (split.X_train, split.y_train, plain.X_train),
        (split.X_test, split.y_test, plain.X_test),
    ):
        found, counts = np.unique(numbers(X), return_counts=True)
        assert set(found) == set(numbers(before))
        np.testing.assert_array_equal(counts, np.where(found < 30, 3, 1))
        assert y.sum() == counts[found < 30].sum()


def test_irrelevant__columns_of_noise_between_the_extremes_of_training():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 4)).astype(np.float32), table()[1]
    split = protocols.split_table("irrelevant-50", X, y, seed=0)
    plain = protocols.split_table("unsupervised", X, y, seed=0)
    assert split.X_train.shape == (140, 8)
    np.testing.assert_array_equal(split.X_train[:, :4], plain.X_train)
    for noise in (split.X_train[:, 4:], split.X_test[:, 4:]):
        assert plain.X_train.min() <= noise.min() < noise.max() <= plain.X_train.max()
        assert len(np.unique(noise)) == noise.size


def test_label_errors__share_of_each_class_in_training_alone():
    split = protocols.split_table("label-errors-20", *table(), seed=0)
    wrong = split.given != split.y_train
    assert wrong[split.y_train == 1].sum() == round(0.2 * 21)
    assert wrong[split.y_train == 0].sum() == round(0.2 * 119)
    np.testing.assert_array_equal(split.y_test, table()[1][numbers(split.X_test)])


def test_published_semi__first_half_of_the_normal_rows_in_file_order():
    X, y = table(1200)
    split = protocols.split_table("published-semi", X, y, seed=1)
    np.testing.assert_array_equal(split.X_train[:, 0], np.arange(30, 615))
    assert set(numbers(split.X_test)) == set(range(30)) | set(range(615, 1200))


@pytest.mark.parametrize("protocol", ["published-semi", "published-unsupervised"])
def test_published__small_tables__a_thousand_rows_with_replacement(protocol):
    X, y = table()
    split = protocols.split_table(protocol, X, y, seed=1)
    np.random.seed(1)  # noqa: NPY002
    drawn = np.random.choice(200, 1000, replace=True)  # noqa: NPY002
    if protocol == "published-semi":
        everything = np.concatenate([split.X_train, split.X_test])
        assert sorted(numbers(everything)) == sorted(drawn)
        assert protocols.copies(split) > 0.5  # what the report warns of
    else:
        assert sorted(numbers(split.X_test)) == sorted(drawn)
        assert len(split.X_train) == 1000
        assert set(numbers(split.X_train)) < set(drawn)


def test_published__large_tables__fifty_thousand_rows_without_replacement():
    X, y = table(60_000)
    split = protocols.split_table("published-unsupervised", X, y, seed=0)
    assert len(set(numbers(split.X_test))) == len(split.X_test) == 50_000


def test_transductive__scored_rows_are_those_that_trained():
    split = protocols.split_table("transductive", *table(), seed=0)
    assert sorted(numbers(split.X_train)) == sorted(numbers(split.X_test)) == list(range(200))


@pytest.mark.parametrize(
    "name",
    ["few", "few-labels", "few-labels-200", "few-labels-x", "one-class-5", "contaminated-nan"],
)
def test_find__no_protocol__all_are_named(name):
    with pytest.raises(ValueError, match=r"few-labels-N \(N from 0 to 100\)"):
        protocols.find(name)


def test_caps__share_of_anomalies_kept_and_training_rows_do_not_depend_on_it():
    X, y = table()
    split = protocols.split_table("one-class", X, y, 0, max_train=10, max_test=23)
    assert len(split.X_train) == 10
    assert (len(split.y_test), split.y_test.sum()) == (23, 6)  # 30 of 115
    rare = protocols.split_table("one-class", X, (X.ravel() == 7).astype(int), 0, None, 5)
    assert rare.y_test.sum() == 1
    full = protocols.split_table("one-class", X, y, 0, max_train=10)
    np.testing.assert_array_equal(split.X_train, full.X_train)


def test_split__test_rows_are_shuffled():
    y = protocols.split_table("one-class", *table(), seed=0).y_test
    assert 0 < y[:30].sum() < 30


def test_split__one_class_only__refused():
    X, y = table()
    with pytest.raises(ValueError, match="both normal rows"):
        protocols.split_table("one-class", X, np.zeros_like(y), 0)


def test_copies__rows_that_equal_one_of_training():
    X = np.array([[0.0, 1.0], [2.0, 3.0]])
    test = np.array([[-0.0, 1.0], [2.0, 3.5], [1.0, 0.0], [2.0, 3.0]])
    assert protocols.copies(protocols.Split(X, None, test, np.zeros(4))) == 0.5


def test_images__one_class_trains():
    images = Bunch(
        data=np.arange(6), target=np.array([0, 1, 2, 0, 1, 2]),
        test=np.arange(4), test_target=np.array([0, 1, 2, 1]),
    )  # fmt: skip
    split = protocols.split_images(images, 1, seed=0)
    assert sorted(split.X_train) == [1, 4]
    assert dict(zip(split.X_test, split.y_test, strict=True)) == {0: 1, 1: 0, 2: 1, 3: 0}


def test_images__several_classes__train_together():
    images = Bunch(
        data=np.arange(6), target=np.array([0, 1, 2, 0, 1, 2]),
        test=np.arange(4), test_target=np.array([0, 1, 2, 1]),
    )  # fmt: skip
    split = protocols.split_images(images, [1, 2], seed=0)
    assert sorted(split.X_train) == [1, 2, 4, 5]
    assert dict(zip(split.X_test, split.y_test, strict=True)) == {0: 1, 1: 0, 2: 0, 3: 0}


def test_blended_images__means_of_two_test_images_are_the_anomalies():
    rng = np.random.default_rng(0)
    test = rng.integers(0, 256, (50, 1, 4, 4), np.uint8)
    images = Bunch(data=test[:20] // 2, target=np.arange(20) % 2, test=test)
    split = protocols.blend_images(images, seed=0, max_train=15)
    assert (len(split.X_train), len(split.X_test), split.y_test.mean()) == (15, 100, 0.5)
    as_sets = {x.tobytes() for x in test}
    means = {
        ((test[i].astype(float) + test[j]) / 2).round().astype(np.uint8).tobytes()
        for i in range(50)
        for j in range(i)
    }
    for x, y in zip(split.X_test, split.y_test, strict=True):
        assert x.tobytes() in (means if y else as_sets)
    other = protocols.blend_images(images, seed=1)
    assert len(other.X_train) == 20
    assert {x.tobytes() for x in other.X_test} != {x.tobytes() for x in split.X_test}


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


# --- what a detector is shown ---------------------------------------------------------------------


@pytest.mark.parametrize("protocol", NAMES)
def test_guard__scaled_by_training_rows_and_labels_only_where_the_protocol_has_them(
    protocol, home, monkeypatch
):
    monkeypatch.setattr(Spy, "seen", [])
    monkeypatch.setattr(runner, "_warm", {(__name__, "Spy")})
    (row,) = call(home / "r", protocol=protocol, names="small", detector=f"{__name__}:Spy", seeds=1)
    ((X, y),) = Spy.seen
    split = runner.load(rows.cell_of(row), bench.find_data(names=["small"])[0])
    np.testing.assert_allclose(X, StandardScaler().fit_transform(split.X_train))
    assert (y is None) == (split.given is None)
    if y is not None:
        np.testing.assert_array_equal(y, split.given)
    assert row["clean"] == (protocol in CLEAN)
    assert row["copies"] == protocols.copies(split)
    assert row["train_anomaly_share"] == split.y_train.mean()


def test_global_random_numbers__seeded_for_those_without_others_and_put_back(home):
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    threads = torch.get_num_threads()
    name = f"{__name__}:FromGlobals"
    first, second = (call(home / f"r{i}", names="small", detector=name) for i in (1, 2))
    assert [row["auc_pr"] for row in first] == [row["auc_pr"] for row in second]
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])
    assert torch.get_num_threads() == threads


def test_labels__ignored_by_a_detector_that_was_not_asked__said_in_the_row(home):
    (home / "a.toml").write_text(
        '[plain]\ndetector = "PLAD"\nparams = {epochs = 1}\n'
        '[asked]\ndetector = "PLAD"\nparams = {epochs = 1, supervision = "drop_anomalies"}\n'
    )
    names = f"{home / 'a.toml'}:plain,{home / 'a.toml'}:asked"
    found = call(home / "r", protocol="supervised", names="small", detector=names, seeds=1)
    assert [row["uses_labels"] for row in found] == [False, True]


# --- detectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module", "cls"),
    [
        ("PLAD", "deepod.models.perturbation.plad", "PLAD"),
        ("Consensus", "deepod.ensemble", "Consensus"),
        ("pyod:IForest", "pyod.models.iforest", "IForest"),
        ("pyod:AutoEncoder", "pyod.models.auto_encoder", "AutoEncoder"),
        ("pyod:SO_GAAL", "pyod.models.so_gaal", "SO_GAAL"),
        ("somewhere.else:Thing", "somewhere.else", "Thing"),
    ],
)
def test_find(name, module, cls):
    assert detectors.find(name) == (module, cls, {})


@pytest.mark.parametrize("name", ["PLADD", "pyod:IForrest"])
def test_find__nothing__said(name):
    with pytest.raises(ValueError, match=name.rpartition(":")[2]):
        detectors.find(name)


def test_find__another_convention__refused():
    with pytest.raises(TypeError, match="BaseDetector"):
        detectors.find("sklearn.ensemble:IsolationForest").load()


def test_toml__parameters_networks_and_none(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(
        '[one]\ndetector = "PLAD"\n[one.params]\nepochs = 3\nperturbator_hidden = [8, 4]\n'
        'network = {name = "MLP", hidden = [64, 32]}\n[two]\nepochs = 3\n'
        '[none]\ndetector = "IAELSTMKL"\nparams = { gate = { none = true } }\n'
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
    assert detectors.find(f"{path}:none").build(0)[0].gate is None
    for section in ("two", "three"):
        with pytest.raises(ValueError, match=section):
            detectors.find(f"{path}:{section}")


def test_settings__every_section_of_every_file__found():
    files = [
        *(ROOT / "benchmarks").glob("*.toml"),
        *(ROOT / "benchmarks" / "papers").glob("*.toml"),
    ]
    assert len(files) >= 12
    for path in files:
        for section in tomllib.loads(path.read_text()):
            detectors.find(f"{path}:{section}").build(0)[0]._validate_params()


# --- runs -----------------------------------------------------------------------------------------


def test_rows(home):
    out = home / "new folder" / "r.jsonl"
    found = call(out, "--max-test", 20, detector=f"{NORM},pyod:ECOD")
    assert len(found) == 8
    assert [row["dataset"] for row in found[::2]] == ["1_small", "1_small", "2_wide", "2_wide"]
    row = found[0]
    assert row["auc_roc"] > 0.9
    assert 0 <= row["f1"] <= 1
    assert row["auc_pr"] > row["anomaly_share"]
    assert (row["n_train"], row["n_test"], row["n_features"]) == (27, 20, 4)
    assert (row["max_train"], row["max_test"]) == (None, 20)
    assert (row["scaling"], row["stacked"]) == ("standard", 1)
    assert (row["random_state"], found[2]["random_state"]) == (0, None)  # ECOD has none
    assert min(row["fit_seconds"], row["score_seconds"]) >= 0
    assert set(row["versions"]) >= {"python", "numpy", "scikit-learn", "torch", "pyod", "deepod"}
    assert {"commit", "device", "threads"} <= set(row)


def test_false_alarms__share_of_normal_test_rows_above_the_threshold(home):
    row = call(home / "r")[0]
    split = runner.load(rows.cell_of(row), bench.find_data(names=["small"])[0])
    scaler = StandardScaler().fit(split.X_train)
    norm = Norm(verbose=0).fit(scaler.transform(split.X_train))
    scores = norm.decision_function(scaler.transform(split.X_test))
    assert row["false_alarms"] == np.mean(scores[split.y_test == 0] > norm.threshold_)


def test_consensus__of_a_file__own_scaling_and_one_seed_after_the_other(home):
    members = '[{name = "Neighbors"}, {name = "AutoEncoder", epochs = 2}]'
    text = f'[a]\ndetector = "Consensus"\nparams = {{detectors = {members}}}\n'
    (home / "quick.toml").write_text(text)
    found = call(home / "a", detector=f"{home / 'quick.toml'}:a", names="small", seeds=2)
    assert [row["stacked"] for row in found] == [1, 1]
    assert [row["scaling"] for row in found] == ["own", "own"]
    assert [row["random_state"] for row in found] == [0, 1]
    assert found[0]["auc_roc"] > 0.5


def test_own_detector__seeds_side_by_side__as_one_by_one(home):
    (home / "quick.toml").write_text('[a]\ndetector = "AutoEncoder"\nparams = {epochs = 2}\n')
    quick = f"{home / 'quick.toml'}:a"
    options = {"detector": quick, "names": "small", "seeds": 3}
    together = call(home / "a", "--keep-scores", **options)
    alone = call(home / "b", "--keep-scores", "--no-stack", **options)
    assert [row["stacked"] for row in together] == [3, 3, 3]
    assert [row["stacked"] for row in alone] == [1, 1, 1]
    assert (alone[0]["scaling"], alone[0]["params"]) == ("own", {"epochs": 2})
    assert [row["seed"] for row in together] == [row["seed"] for row in alone] == [0, 1, 2]
    scores = [
        [np.load(runner.scores_file(home / name, rows.cell_of(row)))["scores"] for row in alone]
        for name in ("a.scores", "b.scores")
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4)
    assert not np.allclose(scores[0][0], scores[0][1], rtol=1e-2)


def test_images__every_class_in_turn(home):
    (home / "quick.toml").write_text('[a]\ndetector = "PLAD"\nparams = {epochs = 1}\n')
    quick = f"{home / 'quick.toml'}:a"
    found = call(home / "b", protocol="images", names="digits", detector=f"{quick},{NORM}", seeds=1)
    assert not [row["error"] for row in found if "error" in row]
    assert [row["dataset"] for row in found[::2]] == ["digits:0", "digits:1", "digits:2"]
    assert (found[0]["n_train"], found[0]["n_features"]) == (10, 64)
    assert found[0]["anomaly_share"] == pytest.approx(2 / 3)
    assert len(call(home / "c", protocol="images", names="digits:1", seeds=1)) == 1
    (row,) = call(home / "d", protocol="images", names="digits:2+0", seeds=1)
    assert (row["dataset"], row["n_train"]) == ("digits:0+2", 20)
    assert row["anomaly_share"] == pytest.approx(1 / 3)
    (row,) = call(home / "e", protocol="blended-images", names="digits", seeds=1)
    assert (row["n_train"], row["n_test"], row["anomaly_share"]) == (30, 60, 0.5)


@pytest.mark.parametrize("normal", ["0+1+2", "7", "0+7", "x", "0+", "-1"])
def test_images__normal_classes_that_are_none__refused(home, normal):
    with pytest.raises(ValueError, match=r"must be one or more of 0, 1, 2"):
        bench.find_data(names=[f"digits:{normal}"], protocol="images")


def test_run__arrays_from_python__and_a_note(tmp_path):
    X, y = datasets.load_bundled("wine", return_X_y=True)
    data = {"wine": (X, y), "same": datasets.load_bundled("wine")}
    settings = {"seeds": 1, "progress": False, "note": {"machine": "mine"}}
    found = bench.run(data, ["pyod:KNN"], tmp_path / "r", **settings)
    assert [row["dataset"] for row in found] == ["wine", "same"]
    assert found[0]["auc_roc"] == found[1]["auc_roc"]
    assert found[0]["machine"] == "mine"
    with pytest.raises(ValueError, match=r"data\['wine'\]"):
        bench.run({"wine": (X, y + 1)}, ["pyod:KNN"], tmp_path / "r")


def test_run__csv_with_a_column_of_labels(tmp_path):
    path = tmp_path / "cards.csv"
    X, y = datasets.load_bundled("wine", return_X_y=True)
    lines = [",".join(map(str, row)) + (",fraud" if label else ",ok") for row, label in zip(X, y)]  # noqa: B905
    header = ",".join([*(f"c{i}" for i in range(X.shape[1])), "kind"])
    path.write_text("\n".join([header, *lines]) + "\n")
    args = f"bench --data {path} --label kind --anomaly fraud --detectors pyod:KNN --quiet"
    assert main([*args.split(), "--seeds", "1", "--out", str(tmp_path / "r")]) == 0
    (row,) = rows.read(tmp_path / "r")
    expected = bench.run({"cards": (X, y)}, ["pyod:KNN"], tmp_path / "s", seeds=1, progress=False)
    assert row["auc_roc"] == expected[0]["auc_roc"]
    assert row["dataset"] == "cards"


def test_failures_are_rows(home):
    bad = f"{__name__}:NotFinite,{__name__}:Missing,pyod:KNN"
    found = call(home / "r", detector=f"{BROKEN},{bad}", names="small", seeds=1)
    assert [row.get("error", "none").partition(":")[0] for row in found] == [
        "RuntimeError", "ValueError", "AttributeError", "none",
    ]  # fmt: skip
    assert found[0]["error"] == "RuntimeError: out of order"
    assert "1 that are NaN" in found[1]["error"]
    assert "auc_roc" not in found[1]


def test_failures__one_seed_of_a_stack__the_others_stay(home, monkeypatch):
    (home / "quick.toml").write_text('[a]\ndetector = "AutoEncoder"\nparams = {epochs = 1}\n')
    score = AutoEncoder.decision_function

    def fails(self, X, batch_size=None):
        if self.random_state == 1:
            raise RuntimeError("only this one")
        return score(self, X, batch_size)

    monkeypatch.setattr(AutoEncoder, "decision_function", fails)
    found = call(home / "r", detector=f"{home / 'quick.toml'}:a", names="small", seeds=3)
    assert [row.get("error") for row in found] == [None, "RuntimeError: only this one", None]


def test_failures__scaling_of_a_stack__rows_and_the_run_goes_on(home):
    (home / "quick.toml").write_text('[a]\ndetector = "AutoEncoder"\nparams = {epochs = 1}\n')
    path = home / "data" / "tabular" / "1_small.npz"
    with np.load(path) as archive:
        X, y = archive["X"].copy(), archive["y"]
    X[1] = np.inf  # a normal row of the first half
    np.savez(path, X=X, y=y)
    found = call(home / "r", protocol="published-semi", detector=f"{home / 'quick.toml'}:a")
    errors = [row.get("error", "none") for row in found]
    assert all("infinity" in error for error in errors[:2])
    assert errors[2:] == ["none", "none"]


def test_errors__summary_shows_the_first_and_how_to_run_them_again(home, capsys):
    call(home / "r", detector=f"{NORM},{BROKEN}", names="small")
    said = capsys.readouterr().out
    assert "2 with an error" in said
    assert "RuntimeError: out of order" in said
    assert "--retry-errors" in said


def test_class_in_the_current_folder__found(tmp_path, home, monkeypatch):
    path = sys.path.copy()
    (tmp_path / "of_the_user.py").write_text(f"from {__name__} import Norm as Mine\n")
    monkeypatch.chdir(tmp_path)
    (row,) = call(home / "r", names="small", detector="of_the_user:Mine", seeds=1)
    assert "error" not in row
    assert sys.path == path


def test_current_folder__on_the_path_already__stays_where_it_is(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(str(home))
    path = sys.path.copy()
    call(home / "r", names="small", seeds=1)
    assert sys.path == path


def test_errors__retried_only_on_request(home, monkeypatch):
    out = home / "r"
    call(out, detector=BROKEN, names="small")
    monkeypatch.setattr(Broken, "fit", Norm.fit)
    assert all("error" in row for row in call(out, detector=BROKEN, names="small"))
    found = call(out, "--retry-errors", detector=BROKEN, names="small")
    assert not any("error" in row for row in found)
    assert len(found) == 2


def test_scores__kept_on_request__give_the_same_figures(home):
    from sklearn.metrics import roc_auc_score

    (row,) = call(home / "r", "--keep-scores", names="small", seeds=1)
    with np.load(runner.scores_file(home / "r.scores", rows.cell_of(row))) as kept:
        assert roc_auc_score(kept["y"], kept["scores"]) == row["auc_roc"]
    call(home / "s", names="small", seeds=1)
    assert not (home / "s.scores").exists()
    (again,) = call(home / "s", "--keep-scores", names="small", seeds=1)
    assert runner.scores_file(home / "s.scores", rows.cell_of(again)).exists()


def test_scores__disk_full__run_stops_and_goes_on(home, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    args = f"bench --datasets small --detectors {NORM} --seeds 1 --quiet --keep-scores"
    with monkeypatch.context() as patch:
        patch.setattr(runner, "write", full)
        assert main([*args.split(), "--out", str(home / "r")]) == 1
    assert "No space left" in capsys.readouterr().err
    (row,) = call(home / "r", "--keep-scores", names="small", seeds=1)
    assert "error" not in row


def test_parameters__not_finite__refused_before_the_work(home, capsys):
    (home / "a.toml").write_text('[a]\ndetector = "AnoRand"\nparams = { noise_std = inf }\n')
    args = f"bench --datasets small --detectors {home / 'a.toml'}:a --out {home / 'r'}"
    assert main(args.split()) == 1
    assert "parameters must not be infinite or NaN" in capsys.readouterr().err


def test_run__file_has_changed__read_again(home):
    path = home / "data" / "tabular" / "1_small.npz"
    (before,) = call(home / "a", names="small", seeds=1)
    with np.load(path) as archive:
        X, y = archive["X"], archive["y"]
    np.savez(path, X=X[:50], y=y[:50])
    os.utime(path, ns=(0, 0))
    (after,) = call(home / "b", names="small", seeds=1)
    assert (before["n_train"], after["n_train"]) == (27, 22)


def test_resume__dataset_has_other_contents__refused(home, capsys):
    path, out = home / "data" / "tabular" / "1_small.npz", home / "r"
    call(out, names="small", seeds=1)
    content = out.read_bytes()
    with np.load(path) as archive:
        X, y = archive["X"], archive["y"]
    np.savez(path, X=X, y=y)  # written again
    call(out, names="small", seeds=1)
    np.savez(path, X=X, y=np.roll(y, 1))
    args = f"bench --datasets small --detectors {NORM} --seeds 2 --quiet --out {out}"
    assert main(args.split()) == 1
    assert "'1_small' with other values or labels" in capsys.readouterr().err
    assert out.read_bytes() == content
    assert len(call(out, names="2_wide", seeds=1)) == 2  # the others go on


def test_resume__dataset_cannot_be_read_now__rows_that_are_there_stay(home):
    path, out = home / "data" / "tabular" / "1_small.npz", home / "r"
    call(out, names="small", seeds=1)
    path.write_bytes(b"damaged")
    before, after = call(out, names="small", seeds=2, code=1)
    assert "auc_roc" in before
    assert "error" in after


def test_resume__arrays_have_changed__refused(tmp_path):
    X, y = datasets.load_bundled("wine", return_X_y=True)
    settings = {"seeds": 1, "progress": False}
    bench.run({"wine": (X, y)}, ["pyod:KNN"], tmp_path / "r", **settings)
    for other in ((X + 1, y), (X, 1 - y), (X[:, :5], y), (X.astype(object) + 1, y)):
        with pytest.raises(ValueError, match="'wine' with other values or labels"):
            bench.run({"wine": other}, ["pyod:ECOD"], tmp_path / "r", **settings)


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "option", "error"),
    [
        ("Slow", ("--time-limit", 20), "LimitError: took more than 20 seconds."),
        ("Large", ("--memory-limit", 1), "LimitError: took more than 1 GiB of memory."),
        ("Crash", ("--time-limit", 600), "LimitError: its process died (exit code 7)."),
    ],
)
def test_limits__exceeded__a_row_and_the_run_goes_on(name, option, error, home):
    pytest.importorskip("pebble")
    found = call(home / "r", *option, names="small", detector=f"{__name__}:{name},{NORM}", seeds=1)
    assert found[0]["error"] == error
    assert found[1]["auc_roc"] > 0.9


def test_limits__not_exceeded__same_rows(home):
    pytest.importorskip("pebble")
    call(home / "a", "--time-limit", 600, "--memory-limit", 8)
    call(home / "b")
    assert untimed(home / "a") == untimed(home / "b")


def test_limits__error_of_the_function__raised():
    pytest.importorskip("pebble")
    with pytest.raises(ZeroDivisionError):
        limits.call(divmod, 1, 0, seconds=600, gib=None)


def test_limits__timeout_error_of_the_function__is_not_waited_for():
    pytest.importorskip("pebble")
    with pytest.raises(TimeoutError, match="its own"):
        limits.call(exec, "raise TimeoutError('its own')", seconds=600, gib=None)


@pytest.mark.parametrize("option", ["time_limit", "memory_limit"])
def test_limits__not_above_zero__refused(option, home):
    with pytest.raises(ValueError, match=option):
        bench.run(bench.find_data(), [NORM], home / "r", progress=False, **{option: 0})


# --- a run that was stopped -----------------------------------------------------------------------


MARKED = """
import os
import time
from pathlib import Path

from pyod.models.base import BaseDetector


class Marked(BaseDetector):
    def __init__(self):
        super().__init__()

    def fit(self, X, y=None):
        Path(f"pid-{os.getpid()}").touch()
        time.sleep(600)

    def decision_function(self, X):
        return X[:, 0]
"""


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


def test_resume__part_of_a_stack_is_there__rows_as_if_it_never_was(home):
    (home / "quick.toml").write_text('[a]\ndetector = "AutoEncoder"\nparams = {epochs = 3}\n')
    whole, killed = home / "whole", home / "killed"
    call(whole, detector=f"{home / 'quick.toml'}:a", names="small", seeds=4)
    lines = whole.read_bytes().splitlines(keepends=True)
    killed.write_bytes(b"".join(lines[:2]))
    call(killed, detector=f"{home / 'quick.toml'}:a", names="small", seeds=4)
    assert untimed(killed) == untimed(whole)


def test_resume_after_an_interrupt(home, capsys):
    out = home / "r"
    args = f"bench --datasets small --detectors {NORM},{__name__}:Interrupted --quiet --seeds 2"
    assert main([*args.split(), "--out", str(out)]) == 130
    assert capsys.readouterr().err == (
        f"deepod bench: stopped; the results so far are in {out}, and the same command continues.\n"
    )
    assert len(rows.read(out)) == 2


def test_interrupt__of_the_other_command__explained(home, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    from benchmarks import adbench

    monkeypatch.setattr(runner, "run", interrupted)
    with pytest.raises(SystemExit, match="130"):
        adbench.main(["--datasets", "small", "--out", str(home / "r")])
    assert "the same command continues" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_command__in_another_thread__runs(home):
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(call, home / "r", names="small", seeds=1).result()) == 1


@pytest.mark.slow  # each worker imports torch
@pytest.mark.parametrize("limit", [(), ("--time-limit", "600")])
def test_terminated__no_worker_is_left(home, limit):
    """SIGTERM to the process alone, as a scheduler sends it, when both workers are at work."""
    psutil = pytest.importorskip("psutil")
    pytest.importorskip("pebble")
    args = "-m deepod bench --detectors marked:Marked --seeds 1 --jobs 2 --quiet"
    (home / "marked.py").write_text(MARKED)
    command = [sys.executable, *args.split(), *limit, "--out", "r"]
    process = subprocess.Popen(command, cwd=home)
    try:
        until = time.monotonic() + 600
        while len(marks := list(home.glob("pid-*"))) < 2:
            assert time.monotonic() < until, "the workers do not start"
            time.sleep(0.1)
        process.terminate()
        assert process.wait(timeout=600) == 128 + signal.SIGTERM
    finally:
        process.kill()
    workers = [int(mark.name.removeprefix("pid-")) for mark in marks]
    _, alive = psutil.wait_procs([psutil.Process(p) for p in workers if psutil.pid_exists(p)], 600)
    for worker in alive:
        worker.kill()
    assert not alive


def test_resume__section_has_other_parameters__refused(home):
    settings = home / "a.toml"
    text = (
        '[a]\ndetector = "pyod:KNN"\nparams = {metric_params = {none = true}, n_neighbors = %d}\n'
    )
    settings.write_text(text % 3)
    name = f"{settings}:a"
    before = call(home / "r", names="small", detector=name, seeds=1)
    assert len(call(home / "r", names="small", detector=name, seeds=2)) == 2
    settings.write_text(text % 4)
    content = (home / "r").read_bytes()
    with pytest.raises(ValueError, match="another file"):
        bench.run(bench.find_data(names=["small"]), [name], home / "r", progress=False)
    assert (home / "r").read_bytes() == content
    assert before[0]["params"]["n_neighbors"] == 3


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


@pytest.mark.slow  # each worker imports torch
def test_jobs__with_limits__command_ends(home):
    pytest.importorskip("pebble")
    args = "-m deepod bench --detectors pyod:ECOD --seeds 1 --jobs 2 --time-limit 600 --quiet"
    command = [sys.executable, *args.split(), "--out", str(home / "r")]
    subprocess.run(command, check=True, timeout=600)
    assert len(rows.read(home / "r")) == 2


def test_first_use_is_not_timed(home, monkeypatch):
    rows_fitted = []
    monkeypatch.setattr(runner, "_warm", set())
    monkeypatch.setattr(Norm, "fit", lambda self, X: rows_fitted.append(len(X)))
    call(home / "r", names="2_wide", seeds=2)
    assert rows_fitted == [36, 36, 36]


def test_other_caps_are_other_cells(home):
    out = home / "r"
    call(out)
    assert len(call(out, "--max-train", 20)) == 8


def test_malformed_line(home, capsys):
    out = home / "r"
    call(out)
    lines = out.read_text().splitlines(keepends=True)
    for bad in ("{not json}\n", '{"protocol": "one-class"}\n', "3\n", "\n"):
        out.write_text("".join([*lines[:1], bad, *lines[2:]]))
        with pytest.raises(ValueError, match="line 2"):
            bench.run(bench.find_data(), [NORM], out, progress=False)
        assert main(["bench", "--detectors", NORM, "--out", str(out)]) == 1
        assert "line 2" in capsys.readouterr().err


def test_another_file_is_not_cut(home):
    out = home / "notes.txt"
    out.write_text("no newline at the end")
    with pytest.raises(ValueError, match="right file"):
        bench.run(bench.find_data(), [NORM], out, progress=False)
    assert out.read_text() == "no newline at the end"


@pytest.mark.parametrize("place", ["", "/dev/full"])
def test_out__no_file__refused(home, place):
    if place and not Path(place).exists():
        pytest.skip("no such device")
    with pytest.raises(ValueError, match="not a file to which rows can be appended"):
        bench.run(bench.find_data(), [NORM], place or home, progress=False)


def test_table_without_columns__row_with_an_error(home):
    (home / "labels.csv").write_text("label\n" + "0\n" * 20 + "1\n" * 5)
    found = bench.find_data([home / "labels.csv"])
    (row,) = bench.run(found, [NORM], home / "r.jsonl", seeds=1, progress=False)
    assert "expected at least one" in row["error"]


def test_last_row_without_newline__kept(home):
    out = home / "r.jsonl"
    bench.run(bench.find_data(), [NORM], out, seeds=1, progress=False)
    before = out.read_bytes()
    out.write_bytes(before.removesuffix(b"\n"))  # as an editor may leave it
    bench.run(bench.find_data(), [NORM], out, seeds=1, progress=False)
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--datasets", "smalll"], "smalll"),
        (["--data", "nowhere"], "DEEPOD_DATA"),
        (["--protocol", "two-class"], "few-labels-N"),
        (["--detectors", "PLADD"], "PLADD"),
        (["--detectors", ","], "detectors"),
        (["--detectors", f"{__file__}.toml:a"], ".toml"),
        (["--data", __file__], ".parquet"),
    ],
)
def test_command__what_is_not_there__one_line_and_no_file(options, words, home, capsys):
    args = ["bench", "--detectors", NORM, "--out", str(home / "r"), "--quiet", *options]
    assert main(args) == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("deepod bench: ")
    assert said.count("\n") == 1
    assert not (home / "r").exists()


def test_find_data__folder__in_the_order_of_the_numbers(home):
    for name in ("10_ten", "b", "a"):
        np.savez(home / "data" / "tabular" / f"{name}.npz", X=np.zeros((2, 1)), y=[0, 1])
    found = bench.find_data([home / "data" / "tabular"])
    assert [dataset.name for dataset in found] == ["1_small", "2_wide", "10_ten", "a", "b"]


def test_find_data__hidden_files_and_folders__left_out(home):
    folder = home / "data" / "tabular"
    (folder / "._1_small.npz").write_bytes(b"of a file manager")
    (folder / "folder.npz").mkdir()
    assert [d.name for d in runner.find_data([folder])] == ["1_small", "2_wide"]


def test_find_data__two_files_of_one_name__both_named(home):
    folder = home / "data" / "tabular"
    (folder / "1_small.csv").write_text("a,label\n1,0\n")
    with pytest.raises(ValueError, match=r"1_small\.csv.*1_small\.npz"):
        bench.find_data([folder])
    assert len(bench.find_data([folder], ["wide", "2_wide"])) == 1


def test_find__malformed_toml__file_named(tmp_path):
    (tmp_path / "bad.toml").write_text("a = [")
    with pytest.raises(ValueError, match=r"bad\.toml"):
        detectors.find(f"{tmp_path / 'bad.toml'}:a")


def test_groups__disjoint_and_all_there():
    from benchmarks import adbench

    assert not set(adbench.DEVELOPMENT) & set(adbench.CONFIRMATION)
    known = set(datasets.ADBENCH_TABLES) | {"3_backdoor", "arrhythmia"}
    assert set(adbench.GROUPS["all"]) == known


# --- time series ----------------------------------------------------------------------------------


def sine(n, d=2):
    """Channels whose rows carry their own number: no two are equal."""
    t = np.arange(n, dtype=np.float32)[:, None]
    return (np.sin(t / 4 + np.arange(d)) + t / 1e4).astype(np.float32)


@pytest.fixture
def series(home):
    """Three series of two data sets, in one of which the test part has nothing abnormal."""
    y = np.zeros(300, np.int8)
    y[100:120] = y[250:260] = 1
    for name, scale, labels in (("B/one", 1, y), ("B/two", 1, y), ("A/none", 2, np.zeros_like(y))):
        path = home / "data" / "timeseries" / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = scale * sine(700)
        whole[400:][labels == 1] += 5
        np.savez(path, train=whole[:400], test=whole[400:], test_labels=labels)
    return home


OF_SERIES = [name for name in SERIES if name not in ("RidgeAR", "Windows")]
PLAIN = "baseline:random,baseline:moving-average"


def call_series(out, *more, names="B", **options):
    more = ("--without", "baselines", *more)
    return call(out, *more, protocol="series", names=names, **{"seeds": 1, **options})


def test_series__found_by_folder_and_file(series):
    def names(paths, *wanted):
        found = bench.find_data(paths, wanted, protocol="series")
        assert all(dataset.series for dataset in found)
        return [dataset.name for dataset in found]

    folder = series / "data" / "timeseries"
    everything = ["A/none", "B/one", "B/two"]
    assert names([]) == names([folder]) == everything
    assert names([folder / "B"]) == ["B/one", "B/two"]
    assert names([folder / "B" / "two.npz"]) == ["B/two"]
    assert names([], "B/two", "A") == ["B/two", "A/none"]
    assert names([], "B", "B/one") == ["B/one", "B/two"]
    with pytest.raises(FileNotFoundError, match=r"no series 'C'; the names are A/none, B/one"):
        names([], "C")
    (series / "other" / "B").mkdir(parents=True)
    shutil.copy(folder / "B" / "one.npz", series / "other" / "B")
    with pytest.raises(ValueError, match="would have the same name"):
        names([folder, series / "other"])


@pytest.mark.parametrize("caps", [(None, None), (50, 120), (1000, 1000)])
def test_series__last_training_and_first_test_points_in_their_order(caps, series):
    (dataset,) = bench.find_data(names=["B/one"], protocol="series")
    whole = dataset.load()
    splits = [runner.load(rows.Cell("series", "B/one", "x", s, *caps), dataset) for s in (0, 1)]
    for split in splits:
        np.testing.assert_array_equal(split.X_train, whole.data[-min(caps[0] or 400, 400) :])
        np.testing.assert_array_equal(split.X_test, whole.test[: caps[1]])
        np.testing.assert_array_equal(split.y_test, whole.test_target[: caps[1]])
        assert split.given is None


def test_series__guard__statistics_of_the_training_part_alone_and_no_labels(series, monkeypatch):
    monkeypatch.setattr(Spy, "seen", [])
    monkeypatch.setattr(runner, "_warm", {(__name__, "Spy")})
    options = {"names": "B/one", "detector": f"{__name__}:Spy"}
    before = call_series(series / "r", "--max-train", 300, **options)
    ((X, y),) = Spy.seen
    train = np.load(series / "data" / "timeseries" / "B" / "one.npz")["train"]
    np.testing.assert_allclose(X, StandardScaler().fit_transform(train[-300:]))
    assert y is None
    assert (before[0]["n_train"], before[0]["scaling"]) == (300, "standard")


def test_series__rows(series):
    from sklearn.metrics import average_precision_score, roc_auc_score

    from deepod import metrics

    found = call_series(series / "r", "--keep-scores", detector=f"{NORM},{PLAIN}")
    assert [row["dataset"] for row in found] == ["B/one"] * 3 + ["B/two"] * 3
    for row in found:
        path = runner.scores_file(series / "r.scores", rows.cell_of(row))
        y, scores = (np.load(path)[name] for name in ("y", "scores"))
        test = np.load(series / "data" / "timeseries" / f"{row['dataset']}.npz")["test"]
        length = metrics.period(test[:, 0], most=100)
        assert row["vus_length"] == length
        assert row["vus_pr"] == metrics.vus_pr(y, scores, length=length)
        assert row["vus_roc"] == metrics.vus_roc(y, scores, length=length)
        assert row["auc_pr"] == average_precision_score(y, scores)
        assert row["auc_roc"] == roc_auc_score(y, scores)
        assert min(row["fit_seconds"], row["score_seconds"]) >= 0
        assert row["copies"] is None
        assert row["train_anomaly_share"] is None
        assert "f1" not in row
    norm, random, _ = found[:3]
    assert norm["vus_pr"] > 2 * random["vus_pr"]


def test_series__alarms_are_those_of_the_detectors_own_threshold(series):
    from deepod import metrics

    (row,) = call_series(series / "r", names="B/one")
    arrays = np.load(series / "data" / "timeseries" / "B" / "one.npz")
    scaler = StandardScaler().fit(arrays["train"])
    norm = Norm(verbose=0).fit(scaler.transform(arrays["train"]))
    alarms = norm.decision_function(scaler.transform(arrays["test"])) > norm.threshold_
    normal = arrays["test_labels"] == 0
    assert row["range_f1"] == metrics.range_f1(arrays["test_labels"], alarms)
    assert row["flagged"] == alarms.mean()
    assert row["false_alarms"] == alarms[normal].mean()


def test_series__what_has_no_anomaly_or_is_none__rows_with_an_error(series):
    np.savez(series / "data" / "timeseries" / "B" / "table.npz", X=np.zeros((3, 1)), y=[0, 0, 1])
    found = call_series(series / "r", names="A,B/table,B/one", code=1)
    assert "both normal rows (0) and anomalies (1)" in found[0]["error"]
    assert (
        "the file lacks the array test and the array test_labels and the array train"
        in found[1]["error"]
    )
    assert "error" not in found[2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--protocol series --detectors PLAD", 'detector = "Windows"'),
        ("--protocol one-class --detectors LSTMAD", "LSTMAD takes time series only"),
        ("--protocol one-class --detectors baseline:kmeans", "baseline:kmeans takes time series"),
        (
            "--protocol series --detectors baseline:nothing",
            "the baselines are random, moving-average",
        ),
        (
            "--protocol series --detectors pyod:KNN --without pyod:LOF",
            "--without pyod:LOF: there is no such detector",
        ),
        ("--protocol series --datasets C --detectors pyod:KNN", "no series 'C'"),
        ("--protocol one-class", "--detectors: name at least one"),
    ],
)
def test_series__what_does_not_fit__one_line_and_no_file(options, words, series, capsys):
    assert main(["bench", *options.split(), "--out", str(series / "r"), "--quiet"]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (series / "r").exists()


@pytest.mark.parametrize("protocol", ["one-class", "series"])
def test_series__other_data_than_the_protocol_has__row_with_an_error(protocol, series):
    kind, name = ("series", "B/one") if protocol == "one-class" else ("one-class", "small")
    found = bench.find_data(names=[name], protocol=kind)
    out = series / "r"
    (row,) = bench.run(found, [NORM], out, protocol=protocol, seeds=1, progress=False)
    assert "time series" in row["error"]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("", [*OF_SERIES, *(f"baseline:{name}" for name in detectors.BASELINES)]),
        ("--without baselines", OF_SERIES),
        ("--detectors x:Y --without baseline:lstmad-pyod,baseline:ridge", [
            "x:Y", "baseline:random", "baseline:moving-average", "baseline:pca", "baseline:kmeans",
            "baseline:neighbors", "baseline:iforest",
        ]),
        ("--detectors baseline:random --without baselines", ["baseline:random"]),
    ],
)  # fmt: skip
def test_series__baselines_run_beside_the_detectors(options, names):
    parser = argparse.ArgumentParser()
    add_options(parser)
    args = parser.parse_args(["--protocol", "series", "--out", "r", *options.split()])
    assert wanted(args) == names


@pytest.mark.parametrize("name", sorted(set(detectors.BASELINES) - {"lstmad-pyod"}))
def test_series__every_baseline__runs(name, series):
    pytest.importorskip("deepod.series")
    (row,) = call_series(series / "r", names="B/one", detector=f"baseline:{name}")
    assert "error" not in row
    assert row["scaling"] == ("own" if detectors.BASELINES[name].of_series else "standard")
    assert 0 < row["vus_pr"] <= 1


def test_series__lstm_of_pyod__is_where_it_is_looked_for():
    assert detectors.find("baseline:lstmad-pyod").build(0, epochs=1)[0].epochs == 1


def test_toml__detectors_of_others_as_parameters(tmp_path):
    (tmp_path / "a.toml").write_text(
        '[a]\ndetector = "Consensus"\n[a.params]\n'
        'detectors = [{name = "pyod:KNN", p = 3}, {name = "baseline:moving-average", window = 7}]\n'
    )
    knn, average = detectors.find(f"{tmp_path / 'a.toml'}:a").build(0)[0].detectors
    assert (type(knn).__name__, knn.p) == ("KNN", 3)
    assert (type(average), average.window) == (baselines.MovingAverage, 7)


def test_moving_average__by_hand():
    x = np.random.default_rng(0).normal(size=(30, 2))
    found = baselines.MovingAverage(window=4).fit(x).decision_function(x)
    before = np.vstack([x[:1], x[:1], x[:1], x])  # the first point stands for those before it
    by_hand = [np.abs(x[t] - before[t : t + 4].mean(0)).mean() for t in range(30)]
    np.testing.assert_allclose(found, by_hand)


@pytest.mark.parametrize("window", [3, 4, 50])
def test_moving_average__ends_at_the_point(window):
    x = np.random.default_rng(0).normal(size=(100, 1))
    changed = x.copy()
    changed[60:] += 9
    before, after = (
        baselines.MovingAverage(window=window).decision_function(v) for v in (x, changed)
    )
    np.testing.assert_array_equal(before[:60], after[:60])


def test_random__a_seed_says_which():
    x = np.zeros((50, 1))
    first, again, other = (
        baselines.Random(random_state=s).fit(x).decision_function(x) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_principal_components__far_along_and_off_the_main_direction():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 1)) * [[3, 3, 3]] + rng.normal(size=(500, 3)) / 10
    scores = (
        baselines.PrincipalComponents().fit(x).decision_function([[0, 0, 0], [3, 3, 3], [1, -1, 0]])
    )
    assert scores[0] < scores[1] < scores[2]


def test_nearest_centre__by_hand():
    x = np.array([[0.0], [1.0], [10.0], [11.0]])
    found = baselines.NearestCentre(n_clusters=2, random_state=0).fit(x)
    np.testing.assert_allclose(found.decision_function([[0.5], [3.0], [12.0]]), [0, 2.5, 1.5])
    assert len(baselines.NearestCentre(random_state=0).fit(x).centres_.cluster_centers_) == 4


def test_series__report__a_section_for_each_group_of_series(series, capsys):
    out = series / "r.jsonl"
    found = bench.find_data(names=["B"], protocol="series")
    found += [found[0]._replace(name="first/B/one"), found[1]._replace(name="first/A/two")]
    bench.run(found, [NORM, *PLAIN.split(",")], out, protocol="series", seeds=2, progress=False)
    assert main(["report", str(out), "--differences-of", NORM, "--out", str(series / "page")]) == 0
    shown = capsys.readouterr().out
    assert re.findall("^## .*$", shown, re.MULTILINE) == [
        "## series: vus_pr",
        "## series, first: vus_pr",
    ]
    assert "| detector | B | mean |" in shown
    assert "| detector | B | A | mean |" in shown
    assert len(re.findall(r"baseline:random \| VUS-PR \| .* \| 2 \|$", shown, re.MULTILINE)) == 2
    page = (series / "page" / "index.html").read_text()
    for words in ("Data sets", "VUS-ROC, %", "range F1, %", "is scored point by point"):
        assert words in page
    assert "equal a training row:" not in page


# --- groups of datasets of benchmarks/ ------------------------------------------------------------


@pytest.fixture
def groups(home):
    """Small files in the places of OddBench's and of the embeddings."""
    rng = np.random.default_rng(1)
    wide = ("ResNet18_CIFAR10_0", "ResNet18_SVHN_0", "BERT_20news_3", "ResNet18_MVTec-AD_wood")
    files = {
        "oddbench/development": ("Ads", "1_small"),
        "oddbench/confirmation": ("Bikes",),
        "embeddings": (*wide, "RoBERTa_20news_3"),
        "tabular": ("arrhythmia",),
    }
    y = (np.arange(60) % 10 == 0).astype(np.int8)
    for folder, names in files.items():
        (home / "data" / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            X = rng.normal(size=(60, 3)).astype(np.float32) + y[:, None]
            np.savez(home / "data" / folder / f"{name}.npz", X=X, y=y)
    return home


def test_groups__names_say_the_group(groups):
    from benchmarks import adbench

    def names(text):
        return [dataset.name for dataset in adbench.find(text)]

    odd = ["oddbench-development/1_small", "oddbench-development/Ads"]
    assert names("oddbench-development") == odd
    assert names("oddbench-confirmation") == ["oddbench-confirmation/Bikes"]
    assert names("wide-development") == [
        f"wide-development/{name}" for name in adbench.WIDE_DEVELOPMENT
    ]
    confirmation = ["ResNet18_MVTec-AD_wood", "RoBERTa_20news_3"]
    assert names("wide-confirmation") == [f"wide-confirmation/{name}" for name in confirmation]
    assert names("small,oddbench-development,1_small") == ["1_small", *odd]
    found = adbench.find("small,oddbench-development/1_small")
    assert found[0].checksum() != found[1].checksum()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("oddbench-confirmation", "There is no .*confirmation, where oddbench-confirmation is"),
        ("oddbench-development", "development holds no file of the expected kind, .npz"),
        ("wide-development", "0 files for dataset 'BERT_20news_3'"),
        ("wide-confirmation", "no dataset of wide-confirmation in embeddings of"),
        ("wide-development/RoBERTa_20news_3", "no dataset of wide-development/RoBERTa_20news_3"),
    ],
)
def test_groups__data_absent__said(names, message, groups, capsys):
    from benchmarks import adbench

    shutil.rmtree(groups / "data" / "oddbench" / "confirmation")
    for file in (groups / "data" / "oddbench" / "development").iterdir():
        file.unlink()
    for name in ("RoBERTa_20news_3", "ResNet18_MVTec-AD_wood"):
        (groups / "data" / "embeddings" / f"{name}.npz").unlink()
    if "/" not in names:
        (groups / "data" / "embeddings" / "BERT_20news_3.npz").unlink()
    with pytest.raises(SystemExit):
        adbench.main(["--datasets", names, "--out", str(groups / "r")])
    assert re.search(message, capsys.readouterr().err)
    assert not (groups / "r").exists()


def test_groups__protocol_of_images__refused(groups):
    from benchmarks import adbench

    with pytest.raises(ValueError, match="wide-development is a group of tables"):
        adbench.find("wide-development", "images")


def test_groups__of_series__two_halves_without_a_series_in_common():
    from benchmarks import adbench

    first, second = (adbench.SERIES[name] for name in ("series-first", "series-second"))
    assert (len(first), len(second)) == (26, 23)
    assert len({*first, *second}) == 49


def test_groups__of_series__names_say_the_group(series, monkeypatch):
    from benchmarks import adbench

    monkeypatch.setattr(adbench, "SERIES", {"series-first": ("B/two", "A/none")})

    def names(text):
        return [dataset.name for dataset in adbench.find(text, "series")]

    group = ["series-first/B/two", "series-first/A/none"]
    assert names("series-first") == group
    assert names("series-first/A/none,B") == [group[1], "B/one", "B/two"]
    with pytest.raises(FileNotFoundError, match="no series-first/B/one; series-first is B/two"):
        names("series-first/B/one")
    with pytest.raises(ValueError, match="series-first is a group of time series"):
        adbench.find("series-first", "one-class")
    with pytest.raises(ValueError, match="the protocol series has none"):
        names("wide-development")


def test_groups__run_and_reported_one_by_one(groups, capsys):
    from benchmarks import adbench, report

    out = str(groups / "r")
    names = "small,2_wide,oddbench-development"
    args = f"--datasets {names} --detectors {NORM},pyod:KNN --seeds 1 --quiet --max-train 20"
    adbench.main([*args.split(), "--out", out])
    assert "8 rows of 4 datasets, 0 with an error" in capsys.readouterr().out
    report.main([out, "--differences-of", NORM])
    shown = capsys.readouterr().out
    assert re.findall("^## .*$", shown, re.MULTILINE) == [
        "## one-class: auc_roc, at most 20 training rows",
        "## one-class, oddbench-development: auc_roc, at most 20 training rows",
    ]
    assert len(re.findall(r"pyod:KNN \| AUC-PR \| .* \| 2 \|$", shown, re.MULTILINE)) == 2
    report.main([out, "--datasets", "oddbench-development,1_small", "--per-dataset"])
    shown = capsys.readouterr().out
    assert "| oddbench-development/1_small |" in shown
    assert "2_wide" not in shown
    with pytest.raises(SystemExit):
        report.main([out, "--datasets", "1_small,oddbench-confirmation"])
    assert "the results have no 'oddbench-confirmation'" in capsys.readouterr().err
