"""One model trained by two processes, each with half of the rows."""

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import deepod
from deepod.distributed import across_processes
from deepod.networks import MLP

from .cases import NAMES, REPRESENTATIVES, fast

ROOT = Path(__file__).parent.parent
SMOOTH = MLP(hidden=(6,), activation="tanh")
WORKER = """
import pickle, sys
from tests import test_processes
from deepod.distributed import across_processes
with across_processes() as ranks:
    found = test_processes.work(ranks)
with open(f"{sys.argv[1]}/{ranks.rank}.pickle", "wb") as file:
    pickle.dump(found, file)
"""
generator = np.random.default_rng(0)
X = generator.normal(size=(60, 5)) @ generator.normal(size=(5, 5)) + 3
GAPS = np.where(generator.random(X.shape) < 0.1, np.nan, X)
NEW = np.concatenate([X[:20], 6 * generator.normal(size=(20, 5))])
HALVES = [X[:25], X[25:]]  # not even
CLIPPED = {"optimizer": "sgd", "max_grad_norm": 0.05}


def whole_batches(name, **more):
    """Settings with which batches are the same in one process and in two: all rows."""
    settings = {"network": SMOOTH, "epochs": 8, "batch_size": 64, "lr": 0.02} | more
    # Random numbers of their own would differ from those of one process.
    special = {
        "PLAD": {"perturbator": "mlp", "reach": (1.0, 1.0), "symmetry": "none", "n_members": 2},
        "DAE": {"noise_std": 0.0},
        "DROCC": {"noise_std": 0.0},
        "DSEBM": {"noise_std": 0.0},
        "AnoRand": {"noise_ratio": 0.0, "synthetic_ratio": 0.0},
        # Its centres are those of the rows of one process; training amplifies rounding much.
        "GOAD": {"triplet_weight": 0.0, "epochs": 4},
        "IGD": {"interpolation_weight": 0.0},  # of rows of one process
        "NSAE": {"normalize": None},
        # The mixture in its loss is that of the rows of one process.
        "DAGMM": {"energy_weight": 0.0, "covariance_weight": 0.0},
        # Their decoders begin with BatchNorm, which sees the rows of one process.
        # The row that defines the radius lies on the kink of the soft loss: the radius comes last.
        "DeepSVDD": {"objective": "soft", "warmup_epochs": 9, "pretrain_epochs": 0},
        "IAEAD": {"reconstruction_weight": 0.0, "score_by": "distance", "pretrain_epochs": 0},
        "IAELSTMKL": {
            "kl": "gaussian",
            "use_decoder": False,
            "score_by": "distance",
            "pretrain_epochs": 0,
        },
    }
    detector = fast(name, **(settings | special.get(name, {})))
    return QuietVAE(**detector.get_params(deep=False)) if name == "VAE" else detector


class QuietVAE(deepod.VAE):
    """Without noise on its codes."""

    def _noise(self, n, shape, generator):
        return torch.zeros(n, self.latent_dim)


class BreaksInOne(deepod.AutoEncoder):
    """Its loss is NaN in step 7, in the second process alone."""

    def _build_module(self, shape):
        module = super()._build_module(shape)
        module.register_buffer("steps", torch.tensor(0))
        return module

    def _loss(self, module, batch):
        module.steps += 1
        bad = (module.steps == 8) & (torch.distributed.get_rank() == 1)
        return super()._loss(module, batch) | {"broken": torch.where(bad, torch.nan, 0.0)}


def work(ranks):
    """What both processes do; numbers and detectors to look at."""
    mine = HALVES[ranks.rank]
    found = {"size": ranks.size}
    for name in NAMES:
        found[name] = whole_batches(name).fit(mine)
    for name in REPRESENTATIVES:
        found[name, "default"] = fast(name, epochs=20, batch_size=16).fit(mine)
    stopper = deepod.callbacks.EarlyStopping(patience=1)
    found["stopped"] = fast(
        "AutoEncoder", epochs=30, lr=0.1, validation_fraction=0.3, callbacks=[stopper]
    ).fit(mine)
    found["traced"] = fast("AutoEncoder", network=SMOOTH, epochs=3, engine="trace").fit(mine)
    found["clipped"] = whole_batches("AutoEncoder", **CLIPPED).fit(mine)
    found["many"] = deepod.fit_many(fast("AutoEncoder", epochs=2), mine, seeds=[1, 2])
    gaps = GAPS[:25] if ranks.rank == 0 else GAPS[25:]
    found["imputed"] = fast("AutoEncoder", missing="impute").fit(gaps)
    held_out = {"calibration_fraction": 0.3, "false_alarm_rate": 0.1}
    found["calibrated"] = fast("AutoEncoder", **held_out).fit(mine)
    found["unseeded"] = fast("AutoEncoder", random_state=None).fit(mine)
    try:
        BreaksInOne(epochs=10, batch_size=16).fit(mine)
    except FloatingPointError as error:
        found["nan in one"] = str(error)
    for problem, bad, settings in [
        ("one is bad", np.full((5, 5), np.nan) if ranks.rank else mine, {}),
        ("not alike", mine[:, : 5 - ranks.rank], {}),
        ("settings", mine, {"epochs": 1 + ranks.rank}),
        ("gaps", mine, {"missing": ["refuse", "impute"][ranks.rank]}),
        ("too few", mine, {"calibration_fraction": 0.3, "false_alarm_rate": 0.01}),
        ("too few on one", mine[: 4 - ranks.rank], {"calibration_fraction": 0.5}),
    ]:
        try:
            fast("AutoEncoder", **settings).fit(bad)
        except (ValueError, RuntimeError) as error:
            found[problem] = f"{type(error).__name__}: {error}"
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    common |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in started:
            _, text = process.communicate(timeout=600)
            assert process.returncode == 0, text[-3000:]
    finally:
        for process in started:
            process.kill()
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(2)]


def state(detector):
    return {name: t.numpy() for name, t in detector.module_.state_dict().items()}


# Games are played with random numbers, of which each process has its own; TQM sees its codes
# through BatchNorm. That both processes end alike holds for them, too.
OTHERWISE_IN_ONE = {"ADGAN", "AnoGAN", "OCGAN", "TQM"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OTHERWISE_IN_ONE])
def test_whole_batches__equal_one_process_with_all_rows(both, name):
    ours, alone = both[0][name], whole_batches(name).fit(X)
    np.testing.assert_allclose(ours.shift_, alone.shift_, rtol=1e-12)
    np.testing.assert_allclose(ours.scale_, alone.scale_, rtol=1e-12)
    assert len(ours.decision_scores_) == len(X)
    scale = np.abs(alone.decision_scores_).max()
    np.testing.assert_allclose(ours.decision_scores_, alone.decision_scores_, atol=1e-4 * scale)
    assert ours.threshold_ == pytest.approx(alone.threshold_, abs=1e-4 * scale)
    np.testing.assert_allclose(
        ours.decision_function(NEW), alone.decision_function(NEW), atol=1e-3 * scale, rtol=1e-3
    )
    for last, other in zip(ours.history_[-1:], alone.history_[-1:], strict=True):
        assert {k: v for k, v in last.items() if k not in ("phase", "seconds")} == pytest.approx(
            {k: v for k, v in other.items() if k not in ("phase", "seconds")}, rel=1e-3, abs=1e-5
        )


@pytest.mark.parametrize(
    "key", [*NAMES, *((name, "default") for name in REPRESENTATIVES), "unseeded"]
)
def test_all_processes_end_with_the_same_detector(both, key):
    first, second = (found[key] for found in both)
    for name, value in state(first).items():
        np.testing.assert_array_equal(value, state(second)[name], err_msg=name)
    np.testing.assert_array_equal(first.decision_scores_, second.decision_scores_)
    assert first.threshold_ == second.threshold_


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_default_settings__find_far_rows(both, name):
    scores = both[0][name, "default"].decision_function(NEW)
    assert roc_auc_score(np.repeat([0, 1], 20), scores) > 0.7


def test_impute__medians_of_all_processes(both):
    alone = fast("AutoEncoder", missing="impute", epochs=0).fit(GAPS)
    for found in both:
        np.testing.assert_array_equal(found["imputed"].fill_, alone.fill_)
        np.testing.assert_allclose(found["imputed"].shift_, alone.shift_, rtol=1e-12)
        np.testing.assert_array_equal(
            found["imputed"].decision_scores_, found["imputed"].decision_function(GAPS)
        )


def test_early_stopping__all_stop_in_the_same_epoch(both):
    first, second = (found["stopped"] for found in both)
    assert len(first.history_) == len(second.history_) < 30
    for name, value in state(first).items():
        np.testing.assert_array_equal(value, state(second)[name], err_msg=name)


def test_trace_and_many(both):
    assert both[0]["size"] == 2
    assert both[0]["traced"].engine_ == "trace"
    np.testing.assert_array_equal(
        both[0]["traced"].decision_scores_, both[1]["traced"].decision_scores_
    )
    for first, second in zip(both[0]["many"], both[1]["many"], strict=True):
        np.testing.assert_array_equal(first.decision_scores_, second.decision_scores_)


def test_calibration_fraction__rows_of_all_processes(both):
    first, second = both[0]["calibrated"], both[1]["calibrated"]
    assert len(first.calibration_scores_) == round(0.3 * 25) + round(0.3 * 35)
    np.testing.assert_array_equal(first.calibration_scores_, second.calibration_scores_)
    for rows, detector in zip(HALVES, (first, second), strict=True):  # each from its own rows
        assert np.isin(detector.decision_function(rows), first.calibration_scores_).sum() in (8, 10)
    assert first.threshold_ == second.threshold_


def test_errors__on_all_processes(both):
    assert both[0]["one is bad"].startswith(
        "RuntimeError: fit was stopped on this rank, because it failed on other ranks: {1: "
    )
    assert "NaN" in both[0]["one is bad"]
    assert "NaN" in both[1]["one is bad"]
    for problem in ("not alike", "settings", "gaps"):
        for found in both:
            assert "The processes do not fit the same model" in found[problem]
    for found in both:
        assert "needs at least 99 calibration rows, got 18" in found["too few"]
    assert both[0]["too few on one"].startswith(
        "RuntimeError: fit was stopped on this rank, because it failed on other ranks: {1: "
    )
    assert "calibration_fraction=0.5 leaves 1 of 3 rows" in both[1]["too few on one"]


def test_loss__nan_in_one_process__all_stop_with_its_error(both):
    for found in both:
        assert "'broken' became nan in step 3 of epoch 1 of phase 'fit'" in found["nan in one"]


def test_max_grad_norm__bounds_the_gradient_of_all_rows(both):
    clipped, free = (
        whole_batches("AutoEncoder", **s).fit(X) for s in (CLIPPED, {"optimizer": "sgd"})
    )
    np.testing.assert_allclose(
        both[0]["clipped"].decision_scores_, clipped.decision_scores_, rtol=1e-4
    )
    assert not np.allclose(clipped.decision_scores_, free.decision_scores_, rtol=1e-2)


def test_not_started_by_torchrun__an_ordinary_fit(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with across_processes() as ranks:
        assert (ranks.rank, ranks.size) == (0, 1)
        ours = fast("AutoEncoder").fit(X)
    np.testing.assert_array_equal(
        ours.decision_scores_, fast("AutoEncoder").fit(X).decision_scores_
    )


def test_one_process__as_without(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    alone = fast("AutoEncoder", network=SMOOTH).fit(X)
    with across_processes() as ranks:
        assert (ranks.rank, ranks.size) == (0, 1)
        ours = fast("AutoEncoder", network=SMOOTH).fit(X)
    np.testing.assert_allclose(ours.decision_scores_, alone.decision_scores_, rtol=1e-4)
    again = fast("AutoEncoder", network=SMOOTH).fit(X)  # outside there are no ranks any more
    np.testing.assert_array_equal(again.decision_scores_, alone.decision_scores_)
