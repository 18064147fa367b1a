"""TQM: the map by hand, its triangle, its quantiles, and what it finds."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from sklearn.metrics import roc_auc_score

from deepod import TQM
from deepod.models.density.tqm import _TriangularMap
from deepod.networks import MLP
from deepod.types import Batch
from tests.cases import samples

X = samples(n=64)


def small(**params):
    settings = {"network": MLP(hidden=(8,)), "latent_dim": 3, "map_hidden": 8, "random_state": 0}
    return TQM(**(settings | {"cross_fitting": False} | params))


def scaled(detector, rows=X):
    return torch.from_numpy((rows - detector.shift_) / detector.scale_).float()


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def by_hand(layer, z):
    """u and the density of each coordinate, (n, d), in NumPy."""
    first, _, last = layer.conditioner
    values = z
    for part in (first, last):
        weight = (part.weight * part.mask).detach().double().numpy()
        values = values @ weight.T + part.bias.detach().double().numpy()
        if part is first:
            values = np.tanh(values)
    weights, means, scales = np.moveaxis(values.reshape(*z.shape, 3, layer.components), -2, 0)
    weights = np.exp(weights) / np.exp(weights).sum(-1, keepdims=True)
    scales = np.log1p(np.exp(scales)) + 0.05
    u = sigmoid((z[..., None] - means) / scales)
    return (weights * u).sum(-1), (weights * u * (1 - u) / scales).sum(-1)


def code(detector, rows=X):
    with torch.no_grad():
        return detector.module_.eval()["encoder"](scaled(detector, rows))


def test_map__by_hand_in_numpy():
    detector = small(epochs=3).fit(X)
    z, layer = code(detector), detector.module_["map"]
    u, density = by_hand(layer, z.double().numpy())
    with torch.no_grad():
        below, above, log_density = (t.numpy() for t in layer(z))
    np.testing.assert_allclose(np.exp(below), u, rtol=1e-4)
    np.testing.assert_allclose(np.exp(above), 1 - u, rtol=1e-4)
    np.testing.assert_allclose(np.exp(log_density), density, rtol=1e-4)


def test_loss_and_scores__by_hand_in_numpy():
    detector = small(density_weight=0.3, epochs=3).fit(X)
    x, module, z = scaled(detector), detector.module_, code(detector)
    u, density = by_hand(module["map"], z.double().numpy())
    with torch.no_grad():
        errors = ((module["decoder"](z) - x) ** 2).mean(1).double().numpy()
    terms = detector._loss(module, Batch(x))
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(
        {"reconstruction": errors.mean(), "density": -0.3 * np.log(density).mean()}, rel=1e-4
    )
    likelihood = -np.log(density).sum(1)
    parts = [(p - p.mean()) / p.std() for p in (likelihood, errors)]
    expected = {
        "density": likelihood,
        "reconstruction": errors,
        "quantile": -np.log(np.minimum(u, 1 - u).min(1)),
        "combined": parts[0] + parts[1],
    }
    for score_by, values in expected.items():
        detector.set_params(score_by=score_by)
        found = detector.decision_function(X)
        np.testing.assert_allclose(found, values, rtol=1e-3, atol=1e-3, err_msg=score_by)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_map__jacobian__triangular_with_the_density_on_its_diagonal(width):
    layer = _TriangularMap(width, 16, 3)
    z = torch.randn(width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    u = layer(z[None])[0][0].exp()
    rows = [torch.autograd.grad(value, z, retain_graph=True)[0] for value in u]
    jacobian = torch.stack(rows)
    assert (jacobian.triu(1) == 0).all()
    if width > 1:
        assert (jacobian.tril(-1)[-1, :-1] != 0).all()  # the last sees all before it
    torch.testing.assert_close(jacobian.diagonal(), layer(z[None])[2][0].exp())


def test_map__far_codes__finite_and_without_ties():
    layer = _TriangularMap(2, 8, 3)
    z = torch.tensor([[-1e6, 1e6], [-1e3, 1e3], [0.0, 0.0], [1e3, -1e3], [1e6, -1e6]])
    below, above, density = layer(z)
    for part in (below, above, density):
        assert part.isfinite().all()
    out = -torch.minimum(below, above).amin(1)
    assert out[0] > out[1] > out[2] < out[3] < out[4]


def test_quantiles__of_new_rows__uniform():
    """What the map is for: u is uniform, so that the cube's false alarms are known beforehand."""
    rng = np.random.default_rng(0)
    X = rng.gamma(2.0, size=(2000, 2)) @ rng.normal(size=(2, 4))
    detector = small(epochs=60, lr=1e-2, milestones=(30, 45), latent_dim=2)
    detector.fit(X[:1000])
    with torch.no_grad():
        u = detector.module_["map"](code(detector, X[1000:]))[0].exp().numpy()
    for j in range(2):
        assert kstest(u[:, j], "uniform").statistic < 0.08
    rate = (np.abs(u - 0.5).max(1) > 0.8**0.5 / 2).mean()
    assert rate == pytest.approx(0.2, abs=0.06)


def test_score_map__images__where_the_error_is():
    images = samples("images", n=12)
    detector = TQM(latent_dim=3, epochs=1, random_state=0, score_by="reconstruction").fit(images)
    maps = detector.score_map(images)
    assert maps.shape == (12, 8, 8)
    np.testing.assert_allclose(maps.mean((1, 2)), detector.decision_function(images), rtol=1e-5)


def test_latent_dim__none__half_of_the_values():
    assert small(latent_dim=None, epochs=0).fit(X).module_["encoder"][-1].num_features == 2


def test_easy_problem__rows_in_the_hole_of_a_ring__found():
    """Rows that are no farther out than others, in any coordinate."""
    rng = np.random.default_rng(0)
    angles, lift = rng.uniform(0, 2 * np.pi, 600), rng.normal(size=(2, 6))
    ring = 3 * np.stack([np.cos(angles), np.sin(angles)], 1) + 0.2 * rng.normal(size=(600, 2))
    hole = 0.5 * rng.normal(size=(50, 2))
    settings = {"epochs": 150, "lr": 3e-3, "milestones": (100,), "cross_fitting": False}
    detector = TQM(latent_dim=2, random_state=0, **settings)
    detector.fit(ring[:500] @ lift)
    scores = detector.decision_function(np.concatenate([ring[500:], hole]) @ lift)
    assert roc_auc_score(np.repeat([0, 1], [100, 50]), scores) > 0.9
