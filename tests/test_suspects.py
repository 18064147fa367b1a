"""Rows that may be anomalies are scored, and not learned from."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from deepod import AnoRand, AutoEncoder, Neighbors, fit_many
from deepod._training import together
from deepod._training.suspects import Suspects
from deepod.networks import MLP

from .cases import fast, samples
from .test_engines import SMOOTH, relative

GOOD = samples(n=90)
FAR = np.arange(10) * 10  # numbers of rows that are moved away
X = np.insert(GOOD, np.arange(10) * 9, 40 * samples(n=10, seed=1), axis=0)
NEW = samples(n=50, seed=2)


def small(**params):
    settings = {"network": SMOOTH, "epochs": 3, "batch_size": 32, "random_state": 0}
    return AutoEncoder(**(settings | {"cross_fitting": False} | params))


@pytest.fixture
def kept(monkeypatch):
    """Numbers of the rows that a detector learned from, of each that was fitted with suspects."""
    found = []
    others = Suspects.others

    def noted(self, x):
        found.append(others(self, x))
        return found[-1]

    monkeypatch.setattr(Suspects, "others", noted)
    return found


# --- who they are ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [100, 2400])
def test_suspects__share_of_rows__those_farthest_from_the_others(n):
    """Of more rows than are kept for comparison, too."""
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32))
    x[: n // 10] *= 30
    suspects = Suspects(0.1, x, torch.device("cpu"), seed=0)
    others = suspects.others(x)
    assert len(others) == pytest.approx(0.9 * n, abs=1)
    found = 1 - np.intersect1d(others, np.arange(n // 10)).size / (n // 10)
    assert found > 0.7
    assert len(suspects.references.rows) == min(n, 2000)


def test_suspects__global_random_numbers__neither_read_nor_moved():
    before = torch.get_rng_state()
    small(suspects=0.1).fit(X)
    assert torch.equal(torch.get_rng_state(), before)


# --- what is learned ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["AutoEncoder", "DeepSVDD", "PLAD"])
def test_fit__anomalies_far_away__equals_a_fit_without_the_suspects(name, kept):
    detector = fast(name, suspects=0.1).fit(X)
    assert len(kept[0]) == 90
    assert np.intersect1d(kept[0], FAR).size <= 2
    without = fast(name).fit(X[kept[0]])
    np.testing.assert_array_equal(detector.shift_, without.shift_)
    np.testing.assert_array_equal(detector.baseline_, without.baseline_)
    np.testing.assert_array_equal(detector.decision_function(NEW), without.decision_function(NEW))
    np.testing.assert_array_equal(detector.decision_scores_, without.decision_function(X))


def test_fit__suspects__all_rows_have_scores_and_labels():
    detector = small(suspects=0.1, contamination=0.1).fit(X)
    assert detector.decision_scores_.shape == detector.labels_.shape == (100,)
    assert np.flatnonzero(detector.labels_).tolist() == FAR.tolist()


def test_fit__no_suspects__as_ever():
    np.testing.assert_array_equal(
        small(suspects=0.0).fit(X).decision_scores_, small().fit(X).decision_scores_
    )
    assert small().suspects == 0


def test_fit__suspects__anomalies_among_training_rows_are_found_better():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(250, 4))
    rows[:50] *= 4
    y = np.arange(250) < 50
    aucs = []
    for share in (0.0, 0.3):
        settings = {"network": MLP(hidden=(16,)), "latent_dim": 2, "epochs": 40, "lr": 1e-2}
        detector = small(suspects=share, **settings).fit(rows)
        aucs.append(roc_auc_score(y, detector.decision_scores_))
    assert aucs[1] > aucs[0] + 0.02


# --- with the rest --------------------------------------------------------------------------------


def test_fit__labelled_anomalies__stay_and_are_not_counted(kept):
    rng = np.random.default_rng(0)
    rows, y = np.concatenate([X, 60 + rng.normal(size=(5, 5))]), np.zeros(105, int)
    y[100:] = 1
    settings = {"supervision": "few_labels", "random_state": 0, "epochs": 3, "cross_fitting": False}
    detector = AnoRand(suspects=0.1, **settings).fit(rows, y)
    assert len(kept[0]) == 90  # of the 100 without a label
    learned = np.append(kept[0], np.arange(100, 105))
    without = AnoRand(**settings).fit(rows[learned], y[learned])
    np.testing.assert_array_equal(detector.shift_, without.shift_)
    terms = [
        [{k: v for k, v in entry.items() if k != "seconds"} for entry in d.history_]
        for d in (detector, without)
    ]
    assert terms[0] == terms[1]


@pytest.mark.parametrize("kind", ["windows", "images"])
def test_fit__every_kind_of_rows__far_ones_left_out(kind, kept):
    rows = samples(kind)
    rows[:4] *= 50
    settings = {"epochs": 1, "random_state": 0, "cross_fitting": False}
    detector = AutoEncoder(suspects=0.1, **settings).fit(rows)
    assert kept[0].tolist() == list(range(4, 40))
    without = AutoEncoder(**settings).fit(rows[4:])
    np.testing.assert_array_equal(detector.decision_function(rows), without.decision_function(rows))


def test_fit__missing_values__imputed_by_what_is_learned_from(kept):
    gaps = X.copy()
    gaps[::6, 2] = np.nan
    detector = small(suspects=0.1, missing="impute").fit(gaps)
    without = small(missing="impute").fit(gaps[kept[0]])
    np.testing.assert_array_equal(detector.fill_, without.fill_)
    np.testing.assert_array_equal(detector.decision_function(NEW), without.decision_function(NEW))


def test_fit__cross_fitting__suspects_are_in_no_half():
    detector = small(suspects=0.1, cross_fitting=True, contamination=0.1).fit(X)
    without = small(suspects=0.1).fit(X)
    assert detector.unseen_
    np.testing.assert_array_equal(detector.decision_function(NEW), without.decision_function(NEW))
    assert np.flatnonzero(detector.labels_).tolist() == FAR.tolist()


def test_fit__rows_held_out__are_no_suspects_and_held_out_as_before():
    params = {"calibration_fraction": 0.2, "validation_fraction": 0.2}
    detector = small(suspects=0.1, **params).fit(X)
    assert len(detector.calibration_scores_) == 20
    assert "validation_reconstruction" in detector.history_[0]


def test_fit_many__suspects__side_by_side_as_alone(stacks):
    many = fit_many(small(suspects=0.1), X, seeds=[3, 4])
    assert stacks == [2]
    for seed, member in zip([3, 4], many, strict=True):
        assert relative(member, small(suspects=0.1, random_state=seed).fit(X)) < 1e-4


def test_fit_all__shares_that_differ__each_as_alone():
    shares = (0.0, 0.1, 0.3)
    members = [small(suspects=share) for share in shares]
    assert together.fit_all(members, [X] * 3, [None] * 3) == [None] * 3
    for share, member in zip(shares, members, strict=True):
        assert relative(member, small(suspects=share).fit(X)) < 1e-4


def test_fit__rows_on_disk__far_ones_are_not_learned_from(tmp_path, kept):
    pytest.importorskip("datasketches")
    rows = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (800, 5))
    rows[:] = samples(n=800)
    rows[::10] *= 40
    detector = small(suspects=0.12, epochs=2, memory_limit=8000).fit(rows)
    assert sum(map(len, kept)) < 0.95 * 3 * 800  # of a sample, and of two passes
    scores = detector.decision_function(rows)
    assert roc_auc_score(np.arange(800) % 10 == 0, scores) > 0.95
    assert len(detector.decision_scores_) == 800


def test_checkpoint__another_share__refused_by_name(tmp_path):
    class StoppedError(Exception):
        pass

    def stop(event):
        if event.epoch == 1:
            raise StoppedError

    path = tmp_path / "fit.ckpt"
    with pytest.raises(StoppedError):
        small(suspects=0.1, checkpoint=path, callbacks=[stop]).fit(X)
    with pytest.raises(ValueError, match="suspects"):
        small(suspects=0.2, checkpoint=path).fit(X)
    found = small(suspects=0.1, checkpoint=path).fit(X)
    np.testing.assert_array_equal(
        found.decision_scores_, small(suspects=0.1).fit(X).decision_scores_
    )


def test_fit__few_rows__some_stay():
    for n in (2, 3, 5):
        assert np.isfinite(small(suspects=0.5).fit(GOOD[:n]).decision_scores_).all()


def test_fit__rows_all_alike__nobody_is_left_out():
    ones = np.ones((30, 3))
    np.testing.assert_array_equal(
        small(suspects=0.3).fit(ones).decision_scores_, small().fit(ones).decision_scores_
    )


def test_neighbors__suspects__are_not_kept_for_comparison(kept):
    detector = Neighbors(suspects=0.1).fit(X)
    assert len(detector.module_.rows) == 90
    without = Neighbors().fit(X[kept[0]])
    np.testing.assert_array_equal(detector.decision_function(NEW), without.decision_function(NEW))


@pytest.mark.parametrize("share", [-0.1, 0.6, None, "a"])
def test_fit__bad_share__refused(share):
    with pytest.raises(ValueError, match="suspects"):
        small(suspects=share).fit(X)
