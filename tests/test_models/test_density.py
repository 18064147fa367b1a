"""Methods that estimate densities: losses and scores by hand, invariants."""

import itertools
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp, softmax
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

from deepod import DAGMM, DSEBM, GaussianAD, PixelCNN, fit_many
from deepod.bench.detectors import find
from deepod.callbacks import EarlyStopping
from deepod.models.density import dagmm, pixel_cnn
from deepod.networks import MLP, LeNet
from deepod.types import Batch
from tests.cases import fast, samples

ROOT = Path(__file__).parents[2]
X = samples(n=64)


def small(cls, **params):
    return cls(
        **({"network": MLP(hidden=(8,)), "random_state": 0, "cross_fitting": False} | params)
    )


def scaled(detector, rows=X):
    return torch.from_numpy((rows - detector.shift_) / detector.scale_).float()


# --- DAGMM --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(), (3,), (6, 3)])
def test_dagmm__hidden_layers_of_the_estimation__as_many_and_as_wide(hidden):
    detector = fast("DAGMM", estimation_hidden=hidden).fit(X)
    widths = [part.out_features for part in detector.module_.hidden if hasattr(part, "weight")]
    assert tuple(widths) == hidden
    assert detector.module_.head.in_features == (detector.latent_dim + 2, *hidden)[-1]
    assert np.isfinite(detector.decision_scores_).all()


def represented(detector, x):
    """Reconstruction, and z as the paper writes it; of rows that are not near 0."""
    module = detector.module_
    with torch.no_grad():
        code = module.autoencoder.encoder(x)
        found = module.autoencoder.decoder(code).double().numpy()
    x, norm = x.double().numpy(), np.linalg.norm
    relative = norm(x - found, axis=1) / norm(x, axis=1)
    cosine = (x * found).sum(1) / norm(x, axis=1) / norm(found, axis=1)
    return found, np.column_stack([code.double().numpy(), relative, cosine])


def shares(detector, z, keep=1.0):
    module = detector.module_
    (_, hidden, _), head = module.hidden, module.head
    w, b, v, c = (
        t.detach().double().numpy() for t in (hidden.weight, hidden.bias, head.weight, head.bias)
    )
    return softmax((np.tanh(z @ w.T + b) * keep) @ v.T + c, axis=1)


def mixture(z, gamma):
    """Weights, means and covariances, component by component."""
    found = []
    for g in gamma.T:
        mean = (g[:, None] * z).sum(0) / g.sum()
        away = z - mean
        covariance = sum(gi * np.outer(a, a) for gi, a in zip(g, away, strict=True)) / g.sum()
        found.append((g.mean(), mean, covariance + 1e-6 * np.eye(z.shape[1])))
    return found


def energy(z, components):
    terms = [np.log(phi) + multivariate_normal(m, s).logpdf(z) for phi, m, s in components]
    return -logsumexp(terms, axis=0)


def test_dagmm__loss__by_hand():
    weights = {"energy_weight": 0.3, "covariance_weight": 0.02, "dropout": 0.4}
    detector = small(DAGMM, epochs=5, n_components=3, latent_dim=1, **weights).fit(X)
    x = scaled(detector)
    assert np.sqrt((x.numpy() ** 2).mean(1)).min() > 0.1
    noise = detector._noise(64, (5,), torch.Generator().manual_seed(0))
    keep = (noise.numpy() >= 0.4) / 0.6
    assert keep.mean() == pytest.approx(1, abs=0.1)
    found, z = represented(detector, x)
    components = mixture(z, shares(detector, z, keep))
    expected = {
        "reconstruction": ((found - x.numpy()) ** 2).sum(1).mean(),
        "energy": 0.3 * energy(z, components).mean(),
        "covariance": 0.02 * sum((1 / np.diag(s)).sum() for _, _, s in components),
    }
    terms = detector._loss(detector.module_.train(), Batch(x, None, noise))
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=1e-4)


def test_dagmm__score__energy_under_the_mixture_of_all_training_rows():
    detector = small(DAGMM, epochs=5, batch_size=16).fit(X)
    _, z = represented(detector, scaled(detector))
    components = mixture(z, shares(detector, z))
    np.testing.assert_allclose(detector.decision_scores_, energy(z, components), rtol=1e-3)
    weights = np.exp(
        detector.module_.log_weight.numpy()
        - [multivariate_normal(m, s).logpdf(m) for _, m, s in components]
    )
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-3)
    np.testing.assert_allclose(detector.module_.mean.numpy(), [m for _, m, _ in components], 1e-3)


def test_dagmm__early_stopping__mixture_of_the_weights_that_were_best():
    detector = small(DAGMM, epochs=40, lr=0.1, callbacks=[EarlyStopping(patience=2)]).fit(X)
    assert len(detector.history_) < 40
    _, z = represented(detector, scaled(detector))
    expected = energy(z, mixture(z, shares(detector, z)))
    np.testing.assert_allclose(detector.decision_scores_, expected, rtol=1e-3, atol=1e-3)


def test_dagmm__suspects__not_in_the_mixture():
    rows = np.concatenate([X, 50 * samples(n=3, seed=1)])
    detector = small(DAGMM, epochs=3, suspects=3 / 67, n_components=1).fit(rows)
    z = dagmm._represent(detector.module_, scaled(detector, rows))[1].detach().numpy()
    np.testing.assert_allclose(detector.module_.mean.numpy()[0], z[:64].mean(0), rtol=1e-3)
    assert not np.allclose(z[:64].mean(0), z.mean(0), rtol=1e-2)


def test_dagmm__energy__changes_by_the_volume_under_a_linear_map():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    gamma = torch.rand(200, 2, generator=generator, dtype=torch.float64)
    gamma /= gamma.sum(1, keepdim=True)
    linear = torch.randn(3, 3, generator=generator, dtype=torch.float64)

    def of(z):
        return dagmm._energy(z, *dagmm._density(*dagmm._mixture(z, gamma)))

    volume = torch.linalg.det(linear).abs().log()
    torch.testing.assert_close(of(z @ linear.T), of(z) + volume, rtol=1e-3, atol=1e-3)
    far = dagmm._energy(z * 1e6, *dagmm._density(*dagmm._mixture(z, gamma)))
    assert far.isfinite().all()  # no exponential of it is


@pytest.mark.parametrize("rank", [1, 2])
def test_dagmm__singular_covariance__density_and_gradients_finite(rank):
    """Codes on a line or a plane, of which there are fewer than Gaussians, too."""
    z = torch.randn(3, rank, dtype=torch.float64) @ torch.randn(rank, 4, dtype=torch.float64)
    z.requires_grad_()
    gamma = torch.softmax(torch.randn(3, 6, dtype=torch.float64), 1)
    loss = dagmm._energy(z, *dagmm._density(*dagmm._mixture(z, gamma))).sum()
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_dagmm__row_of_zeros__error_and_cosine_bounded():
    rows = np.abs(X)
    rows[5] = rows.min(0)  # 0 where [0, 1] is the scale
    detector = small(DAGMM, epochs=5).fit(rows)
    x = scaled(detector, rows)
    assert (x[5] == 0).all()
    z = dagmm._represent(detector.module_, x)[1]
    assert z[5, 2].abs() < 20
    assert z[5, 3] == 0
    assert (z[:, 3].abs() <= 1).all()


def test_dagmm__two_clusters__rows_between_found():
    generator = np.random.default_rng(3)
    centers = np.repeat([[0.0] * 6, [6.0] * 6], [200, 200], axis=0)
    normal = centers + generator.normal(size=(400, 6))
    between = 3 + 0.5 * generator.normal(size=(50, 6))
    detector = DAGMM(random_state=0, cross_fitting=False).fit(normal[::2])
    scores = detector.decision_function(np.concatenate([normal[1::2], between]))
    assert roc_auc_score(np.repeat([0, 1], [200, 50]), scores) > 0.95


# --- DSEBM --------------------------------------------------------------------------------------

SOFT = MLP(hidden=(8,), activation="softplus")


def weights(detector):
    trunk = detector.module_.trunk
    layers = [layer for layer in trunk if isinstance(layer, torch.nn.Linear)]
    return [(x.weight.detach().double().numpy(), x.bias.detach().double().numpy()) for x in layers]


def rebuilt(detector, x):
    """b + sum_j dh_j/dx, by the chain rule: a decoder with the weights of the encoder."""
    (w, c), (v, d) = weights(detector)
    first = x @ w.T + c
    second = np.log1p(np.exp(first)) @ v.T + d
    return detector.module_.bias.detach().numpy() + (expit(second) @ v * expit(first)) @ w


def test_dsebm__loss_and_scores__by_hand():
    detector = small(DSEBM, network=SOFT, epochs=30, noise_std=0.4, latent_dim=3).fit(X)
    x = scaled(detector).double().numpy()
    noise = detector._noise(64, (5,), torch.Generator().manual_seed(0))
    noisy = x + 0.4 * noise.numpy()
    terms = detector._loss(detector.module_, Batch(scaled(detector), None, noise))
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(
        {"reconstruction": ((rebuilt(detector, noisy) - x) ** 2).mean()}, rel=1e-4
    )
    (w, c), (v, d) = weights(detector)
    units = np.logaddexp(0, np.logaddexp(0, x @ w.T + c) @ v.T + d)
    b = detector.module_.bias.detach().numpy()
    energy = ((x - b) ** 2).sum(1) / 2 - units.sum(1)
    np.testing.assert_allclose(detector.decision_scores_, energy, rtol=1e-4, atol=1e-5)
    slope = ((rebuilt(detector, x) - x) ** 2).sum(1)
    detector.set_params(score_by="reconstruction")
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            np.testing.assert_allclose(detector.decision_function(X), slope, rtol=1e-4)


@pytest.mark.parametrize("kind", ["table", "windows", "images"])
def test_dsebm__reconstruction__one_step_down_the_slope_of_the_energy(kind):
    rows = samples(kind)
    detector = DSEBM(epochs=1, random_state=0, cross_fitting=False).fit(rows)
    module = detector.module_.double()
    x = torch.from_numpy(rows[:4]).double().requires_grad_()
    (slope,) = torch.autograd.grad(module(x).sum(), x)
    torch.testing.assert_close(module.reconstruct(x), x - slope)
    step = 1e-5 * torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    rise = module(x + step) - module(x - step)
    torch.testing.assert_close(rise, 2 * (slope * step).flatten(1).sum(1), rtol=1e-4, atol=1e-9)


def test_dsebm__noise_of_one__energy_of_a_gaussian_is_its_log_density():
    """The best reconstruction of a noisy row is its expected clean row: by Tweedie's formula."""
    rows = np.random.default_rng(0).normal(size=(4000, 1))
    params = {"lr": 3e-3, "epochs": 40, "milestones": (20, 30), "cross_fitting": False}
    detector = DSEBM(**params, random_state=0).fit(rows)
    x = np.linspace(-2, 2, 9)[:, None]
    found = detector.decision_function(x)
    expected = x[:, 0] ** 2 / 4  # the noisy rows have variance 2
    np.testing.assert_allclose(found - found[4], expected, atol=0.1)


def test_dsebm__table__needs_no_compiler_of_torch(monkeypatch):
    """Which torch imports for its own gradient of a function."""
    monkeypatch.delattr(torch.func, "grad")
    detector = small(DSEBM, network="auto", epochs=1, score_by="reconstruction").fit(X)
    assert np.isfinite(detector.decision_scores_).all()
    with pytest.raises(AttributeError, match="grad"):
        small(DSEBM, network=MLP(activation="tanh"), epochs=1).fit(X)


def test_dsebm__batch_norm__left_out():
    network = MLP(hidden=(4,), batch_norm=True)
    module = DSEBM(network=network, epochs=1).fit(X).module_
    assert not any(isinstance(m, torch.nn.BatchNorm1d) for m in module.modules())
    assert network.batch_norm


@pytest.mark.parametrize("score_by", ["energy", "reconstruction"])
def test_dsebm__rows_off_a_plane__found(score_by):
    generator = np.random.default_rng(2)
    plane = generator.normal(size=(2, 8))
    normal = generator.normal(size=(400, 2)) @ plane + 0.05 * generator.normal(size=(400, 8))
    odd = 1.5 * generator.normal(size=(50, 8))
    detector = DSEBM(score_by=score_by, random_state=0, cross_fitting=False).fit(normal[:300])
    scores = detector.decision_function(np.concatenate([normal[300:], odd]))
    assert roc_auc_score(np.repeat([0, 1], [100, 50]), scores) > 0.95


# --- GaussianAD ---------------------------------------------------------------------------------


def correlated(n, seed=0):
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(6, 6))
    return generator.normal(size=(n, 6)) @ mixing + 3


def test_gaussian_ad__score__mahalanobis_distance_by_hand():
    rows, new = correlated(60), correlated(20, seed=1)
    detector = GaussianAD().fit(rows)
    x, z = ((r - detector.shift_) / detector.scale_ for r in (rows, new))
    inverse = np.linalg.inv(ledoit_wolf(x)[0])
    away = z - x.mean(0)
    expected = np.einsum("bi,ij,bj->b", away, inverse, away)
    np.testing.assert_allclose(detector.decision_function(new), expected, rtol=1e-4)


def test_gaussian_ad__components__parts_of_the_whole():
    """Numbers of components are those of scikit-learn's PCA; distances add up."""
    rows, new = correlated(300), correlated(50, seed=1)
    scores = {}
    for pca in ("first", "last", None):
        detector = GaussianAD(pca=pca, pca_variance=0.9).fit(rows)
        scores[pca] = detector.decision_function(new)
        x = (rows - detector.shift_) / detector.scale_
        shares = np.sort(np.linalg.eigvalsh(ledoit_wolf(x)[0]))[::-1]
        first = 1 + np.searchsorted(shares.cumsum() / shares.sum(), 0.9)
        rank = np.linalg.matrix_rank(detector.module_.whitening.numpy(), tol=1e-3)
        assert rank == {"first": first, "last": 6 - first, None: 6}[pca]
    np.testing.assert_allclose(scores["first"] + scores["last"], scores[None], rtol=1e-4)


@pytest.mark.parametrize("share", [1e-6, 1 - 1e-9])
def test_gaussian_ad__extreme_share__one_component_at_least(share):
    for pca in ("first", "last"):
        detector = GaussianAD(pca=pca, pca_variance=share).fit(correlated(50))
        assert np.linalg.matrix_rank(detector.module_.whitening.numpy(), tol=1e-3) >= 1


@pytest.mark.parametrize("n", [8, 40])
def test_gaussian_ad__training_rows__scored_as_if_left_out(n):
    rows = correlated(n)
    detector = GaussianAD().fit(rows)
    x = (rows - detector.shift_) / detector.scale_
    shrinkage = ledoit_wolf(x)[1]
    floor = shrinkage * np.trace(np.cov(x.T, bias=True)) / 6 * np.eye(6)
    for i in range(n):
        others = np.delete(x, i, axis=0)
        left = (1 - shrinkage) * np.cov(others.T, bias=True) + n / (n - 1) * floor
        away = x[i] - others.mean(0)
        expected = away @ np.linalg.solve(left, away)
        assert detector.decision_scores_[i] == pytest.approx(expected, rel=1e-3)
    assert detector.unseen_
    assert (detector.decision_scores_ > detector.decision_function(rows)).all()


def test_gaussian_ad__few_rows__new_ones_flagged_as_often_as_asked():
    flagged = [
        GaussianAD(contamination=0.1).fit(correlated(40, seed)).predict(correlated(300, seed + 99))
        for seed in range(20)
    ]
    assert np.mean(flagged) == pytest.approx(0.1, abs=0.03)


def test_gaussian_ad__calibration_rows__scored_as_new_ones():
    detector = GaussianAD(calibration_fraction=0.3, random_state=0).fit(correlated(60))
    scores = detector.decision_function(correlated(60))
    np.testing.assert_array_equal(scores, detector.decision_scores_)
    assert np.isin(detector.calibration_scores_, scores).all()


def test_gaussian_ad__all_rows_equal__anything_else_is_far():
    detector = GaussianAD().fit(np.ones((30, 3)))
    assert (detector.decision_scores_ == 0).all()
    assert detector.decision_function([[1, 1, 1.1]]) > 1e6


# --- PixelCNN -----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_pixel_cnn__logits__depend_on_values_before_alone(channels):
    torch.manual_seed(0)
    net = pixel_cnn._Net(channels, 24, 2, 4).double()
    level = torch.rand(1, channels, 5, 5, dtype=torch.float64, requires_grad=True)
    logits = net(level)
    place = torch.arange(25).view(5, 5) * channels + torch.arange(channels)[:, None, None]
    for p in range(0, 25 * channels, 2):
        here = place == p
        total = logits[0].square().sum(1)[here].sum()
        (gradient,) = torch.autograd.grad(total, level, retain_graph=True)
        assert (gradient[0][place >= p] == 0).all()
        # What is before in the same row, and the rows above: but for the edge, and the blind spot.
        if p % (5 * channels):
            assert gradient[0][place == p - 1].abs() > 0


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 1, 2), (3, 1, 1)])
def test_pixel_cnn__probabilities_of_all_images__add_up_to_one(shape):
    torch.manual_seed(0)
    net = pixel_cnn._Net(shape[0], 6, 1, 3).double()
    every = torch.tensor(list(itertools.product(range(3), repeat=int(np.prod(shape)))))
    images = (every.double().view(-1, *shape) + 0.5) / 3
    assert net.nll(images).flatten(1).sum(1).neg().exp().sum().item() == pytest.approx(1)


def test_pixel_cnn__levels__equal_parts_of_the_range_of_each_channel():
    net = pixel_cnn._Net(3, 6, 1, 4)
    rows = torch.rand(20, 3, 4, 4) * torch.tensor([1.0, 10.0, 0.0]).view(3, 1, 1) - 0.5
    net.start_from_rows(rows)
    levels = net.quantize(rows)
    counts = torch.stack([torch.bincount(c.flatten().int(), minlength=4) for c in levels.unbind(1)])
    assert (counts[:2] > 40).all()  # of 320
    assert counts[2].tolist() == [320, 0, 0, 0]  # which does not vary
    far = net.quantize(torch.tensor([-1e9, 1e9]).view(2, 1, 1, 1).expand(2, 3, 1, 1))
    assert far.unique().tolist() == [0, 3]


def test_pixel_cnn__score_and_maps__by_hand():
    rows = samples("images", n=12)
    detector = fast("PixelCNN").fit(rows)
    x, module = scaled(detector, rows), detector.module_
    low, high = x.numpy().min(), x.numpy().max()
    level = np.minimum(np.floor((x.numpy() - low) / (high - low) * 4), 3).astype(int)
    with torch.no_grad():
        p = softmax(module(torch.from_numpy(level).float()).double().numpy(), axis=2)
    nll = -np.log(np.take_along_axis(p, level[:, :, None], 2))[:, :, 0]
    np.testing.assert_allclose(detector.decision_scores_, nll.mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(detector.explain(rows), nll / 64, rtol=1e-4)
    np.testing.assert_allclose(detector.score_map(rows, batch_size=5), nll.mean(1), rtol=1e-4)
    assert detector._loss(module, Batch(x))["nll"].item() == pytest.approx(nll.mean(), rel=1e-5)
    with pytest.raises(RuntimeError, match="score of PixelCNN has no gradients"):
        detector.as_module()(torch.from_numpy(rows).requires_grad_())


def test_pixel_cnn__three_channels__side_by_side_as_alone_and_traced_as_eager():
    rows = np.random.default_rng(0).normal(size=(40, 3, 6, 6))
    alone = fast("PixelCNN", random_state=4).fit(rows)
    many = fit_many(fast("PixelCNN"), rows, seeds=[3, 4])[1]
    traced = fast("PixelCNN", random_state=4, engine="trace").fit(rows)
    for other in (many, traced):
        np.testing.assert_allclose(other.decision_scores_, alone.decision_scores_, rtol=1e-4)


def test_pixel_cnn__global_generator__neither_read_nor_moved():
    before = torch.get_rng_state()
    scores = fast("PixelCNN").fit(samples("images")).decision_scores_
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    np.testing.assert_array_equal(fast("PixelCNN").fit(samples("images")).decision_scores_, scores)


def test_pixel_cnn__order_of_pixels__found():
    """Images of the same values in another order."""
    generator = np.random.default_rng(0)
    stripes = np.tile([0.0, 1.0], (150, 1, 8, 4)) + 0.2 * generator.normal(size=(150, 1, 8, 8))
    odd = generator.permuted(stripes[:50].reshape(50, -1), axis=1).reshape(50, 1, 8, 8)
    detector = PixelCNN(epochs=20, lr=1e-2, width=8, random_state=0, cross_fitting=False)
    scores = detector.fit(stripes[50:]).decision_function(np.concatenate([stripes[:50], odd]))
    assert roc_auc_score(np.repeat([0, 1], [50, 50]), scores) > 0.99


# --- all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dagmm", "dsebm", "gaussian_ad", "pixel_cnn"])
def test_paper_settings__every_section__fits(name):
    path = ROOT / "benchmarks" / "papers" / f"{name}.toml"
    for section in tomllib.loads(path.read_text()):
        detector, _ = find(f"{path}:{section}").build(0)
        image = isinstance(detector.network, LeNet) or detector.inputs == ("images",)
        rows = np.random.default_rng(0).normal(size=(8, 1, 28, 28)) if image else X
        detector.set_params(epochs=1, cross_fitting=False).fit(rows)
