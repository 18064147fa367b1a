"""DROCC, HRN and IGD: losses by hand, and invariants of their equations."""

import copy
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from deepod import DROCC, HRN, IGD, fit_many
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


# --- HRN ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("instance_norm", ["l2", "lifted"])
def test_hrn__loss_and_score__by_hand_in_numpy(instance_norm):
    network = MLP(hidden=(7,), bias=False)
    params = {"network": network, "lam": 0.4, "power": 3.0, "epochs": 20, "lr": 0.03}
    detector = small(HRN, instance_norm=instance_norm, **params).fit(X)
    x, module = scaled(detector), detector.module_
    rows = x.double().numpy()
    if instance_norm == "lifted":
        rows = np.concatenate([rows, np.ones((64, 1))], 1)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    if instance_norm == "l2":
        rows = rows - rows.mean(1, keepdims=True)
    first, last = (p.detach().double().numpy() for p in module.parameters())
    hidden = rows @ first.T
    slopes = np.where(hidden > 0, 1, 0.01)
    f = (slopes * hidden) @ last[0]
    gradients = (slopes * last) @ first
    expected = {
        "normal": np.log1p(np.exp(-f)).mean(),
        "gradients": 0.4 * (np.linalg.norm(gradients, axis=1) ** 3).mean(),
    }
    assert values(detector._loss(module, Batch(x))) == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(detector.decision_scores_, -f, rtol=1e-4, atol=1e-5)


def test_hrn__gradients__are_trained():
    """The punished gradient has a gradient of its own, in the weights."""
    detector = small(HRN, epochs=0, lam=1.0, power=2.0).fit(X)
    term = detector._loss(detector.module_, Batch(scaled(detector)))["gradients"]
    weights = list(detector.module_.parameters())
    found = torch.autograd.grad(term, weights, allow_unused=True)
    step = 1e-3
    with torch.no_grad():
        for p, gradient in zip(weights, found, strict=True):
            if gradient is not None:
                p -= step * gradient
    after = detector._loss(detector.module_, Batch(scaled(detector)))["gradients"]
    gain = step * sum(g.square().sum() for g in found if g is not None)
    assert (term - after).item() == pytest.approx(gain.item(), rel=0.05)


def test_hrn__weight_of_the_gradients__keeps_f_flat():
    slopes = []
    for lam in (1e-6, 10.0):
        detector = small(HRN, network="auto", epochs=100, lr=0.01, lam=lam).fit(X)
        x = detector._normalized(scaled(detector))
        slopes.append(input_gradients(detector.module_["classifier"], x).norm(dim=1).mean())
    assert slopes[1] < 0.5 * slopes[0]


def test_hrn__size_of_a_row__lost_by_l2_and_kept_by_lifting():
    rows = samples(n=40) + 3
    for instance_norm, lost in [("l2", True), ("lifted", False)]:
        detector = small(HRN, instance_norm=instance_norm, scaler=None, epochs=5).fit(rows)
        near, far = detector.decision_function(rows), detector.decision_function(4 * rows)
        assert np.allclose(near, far, rtol=1e-4, atol=1e-6) == lost


def test_hrn__lifted_images__refused():
    with pytest.raises(ValueError, match="instance_norm"):
        small(HRN, instance_norm="lifted", network="auto").fit(samples("images"))


# --- IGD ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("score_by", ["combined", "gaussian", "reconstruction"])
def test_igd__losses_and_score__by_hand_in_numpy(score_by):
    params = {"latent_dim": 3, "gaussian_weight": 0.7, "interpolation_weight": 0.4, "epochs": 3}
    detector = small(IGD, score_by=score_by, **params).fit(X)
    x, noise, module = scaled(detector), noise_of(detector), detector.module_
    assert ((noise >= 0) & (noise < 0.5)).all()
    with torch.no_grad():
        z = module.encoder(x)
        found = module.decoder(z)
        opinion = module.critic(module.decoder(noise * z + (1 - noise) * z[range(63, -1, -1)]))
        known = module.critic(found + 0.2 * (x - found))
    z, errors = z.double().numpy(), ((found - x) ** 2).mean(1).numpy()
    center, width = module.center.double().numpy(), module.width.item()
    gaussian = 1 - np.exp(-((z - center) ** 2).sum(1) / width)
    expected = {
        "reconstruction": errors.mean(),
        "gaussian": 0.7 * gaussian.mean(),
        "interpolation": 0.4 * (opinion**2).mean().item(),
    }
    assert values(detector._loss(module, Batch(x, None, noise))) == pytest.approx(
        expected, rel=1e-4
    )
    critic = ((opinion - noise) ** 2).mean() + (known**2).mean()
    terms = detector._critic_loss(module, Batch(x, None, noise))
    assert values(terms) == pytest.approx({"critic": critic.item()}, rel=1e-4)
    parts = {"gaussian": gaussian, "reconstruction": errors, "combined": (errors + gaussian) / 2}
    np.testing.assert_allclose(detector.decision_scores_, parts[score_by], rtol=1e-3, atol=1e-5)


def test_igd__gaussian__mean_code_off_zero_and_mean_distance_at_least_one():
    detector = small(IGD, epochs=2, latent_dim=3, center_eps=0.3).fit(X)
    with torch.no_grad():
        z = detector.module_.encoder(scaled(detector)).double().numpy()
    mean = z.mean(0)
    center = np.where(np.abs(mean) >= 0.3, mean, np.where(mean < 0, -0.3, 0.3))
    np.testing.assert_allclose(detector.module_.center, center, rtol=1e-4)
    reduce = detector._gaussian().reduce
    assert reduce(torch.from_numpy(z))["width"] >= 1
    wide = reduce(torch.from_numpy(10 * z + 5))
    distances = ((10 * z + 5 - wide["center"].numpy()) ** 2).sum(1)
    assert wide["width"].item() == pytest.approx(distances.mean())


def test_igd__in_turns__each_trains_its_own_part():
    detector = small(IGD, epochs=1).fit(X)
    batch = Batch(scaled(detector), None, noise_of(detector))
    module = detector.module_
    (detector._critic_loss(module, batch)["critic"]).backward()
    reached = {
        name.partition(".")[0] for name, p in module.named_parameters() if p.grad is not None
    }
    assert reached == {"critic"}
    assert detector.history_[0].keys() >= {"reconstruction", "gaussian", "interpolation", "critic"}
    start = dict(small(IGD, epochs=0).fit(X).module_.named_parameters())
    for name, parameter in module.named_parameters():
        assert not torch.equal(parameter, start[name]), name


def test_igd__without_mixtures__no_critic():
    history = small(IGD, epochs=2, interpolation_weight=0.0).fit(X).history_
    assert history[0].keys() == {"phase", "epoch", "seconds", "reconstruction", "gaussian"}


# --- all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [DROCC, HRN, IGD])
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


@pytest.mark.parametrize("cls", [DROCC, HRN, IGD])
@pytest.mark.parametrize("contaminated", [False, True])
def test_easy_problem__solved(cls, contaminated):
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(400, 6)) @ generator.normal(size=(6, 6))
    train = np.concatenate([rows[:200], 8 * rows[200:208]]) if contaminated else rows[:200]
    detector = cls(random_state=0, cross_fitting=False).fit(train)
    scores = detector.decision_function(np.concatenate([rows[250:350], 8 * rows[350:]]))
    assert roc_auc_score(np.repeat([0, 1], [100, 50]), scores) > 0.9


@pytest.mark.parametrize("name", ["drocc", "hrn", "igd"])
def test_paper_settings__every_section__fits(name):
    path = ROOT / "benchmarks" / "papers" / f"{name}.toml"
    for section in tomllib.loads(path.read_text()):
        detector, _ = find(f"{path}:{section}").build(0)
        image = isinstance(detector.network, LeNet)
        shape = (3, 32, 32) if "cifar" in section else (1, 28, 28)
        rows = np.random.default_rng(0).normal(size=(4, *shape)) if image else X[:9]
        epochs = {key: 1 for key in ("epochs", "warmup_epochs") if key in detector.get_params()}
        detector.set_params(**epochs, cross_fitting=False).fit(rows)
