"""DROCC: losses by hand, and the invariants of its search."""

import copy
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from deepod import DROCC, fit_many
from deepod.bench.detectors import find
from deepod.networks import MLP, LeNet, Recurrent
from deepod.networks.layers import input_gradients
from deepod.types import Batch
from tests.cases import samples

ROOT = Path(__file__).parents[2]
X = samples(n=64)
LINEAR = MLP(hidden=())
SMOOTH = MLP(hidden=(8,), activation="tanh")
NORMED = MLP(hidden=(8,), batch_norm=True)


def small(cls, **params):
    settings = {"network": SMOOTH, "random_state": 0, "cross_fitting": False}
    return cls(**(settings | params))


def scaled(detector, rows=X):
    return torch.from_numpy((rows - detector.shift_) / detector.scale_).float()


def noise_of(detector, n=64, shape=(5,)):
    return detector._noise(n, shape, torch.Generator().manual_seed(1))


def values(terms):
    return {name: term.item() for name, term in terms.items()}


# --- gradients of inputs ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "kind"),
    [(SMOOTH, "table"), (Recurrent(hidden=(3,)), "windows"), (LeNet(channels=(2,)), "images")],
)
def test_input_gradients__by_differences(network, kind):
    x = torch.from_numpy(samples(kind, n=6)).double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = network.encoder(x.shape[1:], 1).double()
    with torch.no_grad():  # as for rows that are only watched
        found = input_gradients(module, x)
        way = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        ahead, behind = module(x + 1e-6 * way), module(x - 1e-6 * way)
    slopes = (found * way).flatten(1).sum(1)
    torch.testing.assert_close(slopes, ((ahead - behind) / 2e-6).squeeze(1), rtol=1e-5, atol=1e-8)


def test_input_gradients__batch_norm__of_evaluation_and_left_as_it_was():
    module = NORMED.encoder((5,), 1).train()
    module(torch.from_numpy(X))
    before = copy.deepcopy(module.state_dict())
    x = torch.from_numpy(X)
    found = input_gradients(module, x)
    alone = torch.cat([input_gradients(module, row[None]) for row in x])
    torch.testing.assert_close(found, alone)
    assert all(part.training for part in module.modules())
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


# --- DROCC --------------------------------------------------------------------------------------


def search_by_hand(detector, x, h, weight):
    """The ascent on a linear f, whose gradient is its weight, in float64."""
    d = x.shape[1]
    radius = detector.radius or np.sqrt(d) / 2
    step = detector.step_size or radius / detector.ascent_steps

    def projected(h):
        norm = np.linalg.norm(h, axis=1, keepdims=True)
        alpha = np.where(norm < radius, radius, np.minimum(norm, detector.gamma * radius))
        return alpha * h / norm

    for _ in range(detector.ascent_steps):
        h = projected(h - step * weight / np.linalg.norm(weight))
    return projected(h)


@pytest.mark.parametrize(
    "params",
    [{}, {"radius": 0.7, "gamma": 1.5, "step_size": 0.4}, {"ascent_steps": 3, "noise_std": 0.1}],
)
def test_drocc__loss_and_score__by_hand_in_numpy(params):
    detector = small(DROCC, network=LINEAR, epochs=3, adversarial_weight=0.6, **params).fit(X)
    x, noise, module = scaled(detector), noise_of(detector), detector.module_
    layer = module["classifier"][-1]
    weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    h = search_by_hand(detector, x.numpy(), noise.double().numpy(), weight)
    f, adversarial = (rows @ weight[0] + bias for rows in (x.numpy(), x.numpy() + h))
    expected = {
        "normal": np.log1p(np.exp(f)).mean(),
        "adversarial": 0.6 * np.log1p(np.exp(-adversarial)).mean(),
    }
    terms = detector._loss(module, Batch(x, None, noise))
    assert values(terms) == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(detector.decision_scores_, f, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["table", "windows", "images"])
def test_drocc__points__on_the_shell_and_more_normal_than_random_ones(kind):
    rows = samples(kind, n=30)
    detector = small(DROCC, network="auto", epochs=3, radius=2.0, gamma=1.5).fit(rows)
    x, noise = scaled(detector, rows), noise_of(detector, 30, rows.shape[1:])
    score = {}
    with torch.no_grad():
        for steps in (0, 5):
            h = detector.set_params(ascent_steps=steps)._search(detector.module_, x, noise)
            norms = h.flatten(1).norm(dim=1)
            assert ((norms > 2 - 1e-4) & (norms < 3 + 1e-4)).all()
            score[steps] = detector._score(detector.module_, x + h)
    assert (score[5] < score[0]).float().mean() > 0.9


def test_drocc__search__without_gradients_or_random_numbers_of_its_own():
    detector = small(DROCC, epochs=1).fit(X)
    x, noise, module = scaled(detector), noise_of(detector), detector.module_
    h = detector._search(module, x, noise)
    assert not h.requires_grad
    torch.testing.assert_close(h, detector._search(module, x, noise), rtol=0, atol=0)
    loss = detector._loss(module, Batch(x, None, noise))["adversarial"]
    found = torch.autograd.grad(loss, list(module.parameters()))
    fixed = nn.functional.softplus(-detector._score(module, x + h)).mean()
    for ours, other in zip(
        found, torch.autograd.grad(fixed, list(module.parameters())), strict=True
    ):
        torch.testing.assert_close(ours, other)


def test_drocc__no_noise_and_no_slope__stays_at_the_row():
    detector = small(DROCC, epochs=0, noise_std=0.0).fit(X)
    for p in detector.module_.parameters():
        nn.init.zeros_(p)
    assert (detector._search(detector.module_, scaled(detector), noise_of(detector)) == 0).all()


def test_drocc__warm_up__normal_rows_alone_first():
    history = small(DROCC, epochs=3, warmup_epochs=2).fit(X).history_
    assert [entry["phase"] for entry in history] == ["warmup"] * 2 + ["fit"] * 3
    assert "adversarial" not in history[1]
    assert history[-1]["adversarial"] > 0


@pytest.mark.parametrize("cls", [DROCC])
def test_gradients_in_the_loss__batch_norm_watched_rows_and_members(cls):
    """All ways in which a loss is called: recorded, side by side, without gradients."""
    params = {"network": NORMED, "epochs": 3, "validation_fraction": 0.2}
    alone = small(cls, **params).fit(X)
    assert np.isfinite([list(entry.values())[1:] for entry in alone.history_]).all()
    traced = small(cls, engine="trace", **params).fit(X)
    np.testing.assert_allclose(
        traced.decision_scores_, alone.decision_scores_, rtol=1e-3, atol=1e-4
    )
    _, member = fit_many(small(cls, **params), X, seeds=[1, 0])
    np.testing.assert_allclose(
        member.decision_scores_, alone.decision_scores_, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("cls", [DROCC])
@pytest.mark.parametrize("contaminated", [False, True])
def test_easy_problem__solved(cls, contaminated):
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(400, 6)) @ generator.normal(size=(6, 6))
    train = np.concatenate([rows[:200], 8 * rows[200:208]]) if contaminated else rows[:200]
    detector = cls(random_state=0, cross_fitting=False).fit(train)
    scores = detector.decision_function(np.concatenate([rows[250:350], 8 * rows[350:]]))
    assert roc_auc_score(np.repeat([0, 1], [100, 50]), scores) > 0.9


@pytest.mark.parametrize("name", ["drocc"])
def test_paper_settings__every_section__fits(name):
    path = ROOT / "benchmarks" / "papers" / f"{name}.toml"
    for section in tomllib.loads(path.read_text()):
        detector, _ = find(f"{path}:{section}").build(0)
        image = isinstance(detector.network, LeNet)
        shape = (3, 32, 32) if "cifar" in section else (1, 28, 28)
        rows = np.random.default_rng(0).normal(size=(4, *shape)) if image else X[:9]
        epochs = {key: 1 for key in ("epochs", "warmup_epochs") if key in detector.get_params()}
        detector.set_params(**epochs, cross_fitting=False).fit(rows)
