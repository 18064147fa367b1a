"""AutoEncoder, DAE, VAE and NS-AE: losses by hand, invariants, error maps."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from deepod import DAE, NSAE, VAE, AutoEncoder, DeepSVDD
from deepod.bench.detectors import find
from deepod.callbacks import EarlyStopping
from deepod.models.reconstruction import vae
from deepod.networks import MLP, LeNet
from deepod.types import Batch
from tests.cases import samples

ROOT = Path(__file__).parents[2]
X = samples(n=64)
FAMILY = [AutoEncoder, DAE, VAE, NSAE]
every_class = pytest.mark.parametrize("cls", FAMILY)


def small(cls, **params):
    settings = {"network": MLP(hidden=(8,)), "latent_dim": 3, "random_state": 0}
    return cls(**(settings | {"cross_fitting": False} | params))


def scaled(detector, rows=X):
    return torch.from_numpy((rows - detector.shift_) / detector.scale_).float()


def reconstruction(detector, x):
    with torch.no_grad():
        return detector._reconstruct(detector.module_.eval(), x).numpy()


# --- AutoEncoder and DAE ------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["norm", "mse"])
def test_autoencoder__loss_and_score__by_hand(error):
    detector = small(AutoEncoder, epochs=3, error=error).fit(X)
    x = scaled(detector)
    errors = ((reconstruction(detector, x) - x.numpy()) ** 2).mean(1)
    np.testing.assert_allclose(detector.decision_scores_, errors, rtol=1e-5)
    errors = np.sqrt(5 * errors) if error == "norm" else errors
    terms = detector._loss(detector.module_, Batch(x))
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(
        {"reconstruction": errors.mean()}, rel=1e-5
    )


@pytest.mark.parametrize("corruption", ["gaussian", "masking"])
def test_dae__loss__error_on_the_clean_row(corruption):
    params = {"corruption": corruption, "noise_std": 0.7, "masked_share": 0.4, "error": "mse"}
    detector = small(DAE, epochs=3, **params).fit(X)
    x = scaled(detector)
    noise = detector._noise(64, (5,), torch.Generator().manual_seed(0))
    corrupted = x + 0.7 * noise if corruption == "gaussian" else x * (noise >= 0.4)
    if corruption == "masking":
        assert (corrupted == 0).float().mean().item() == pytest.approx(0.4, abs=0.1)
    errors = ((reconstruction(detector, corrupted) - x.numpy()) ** 2).mean()
    terms = detector._loss(detector.module_, Batch(x, None, noise))
    assert terms["reconstruction"].item() == pytest.approx(errors, rel=1e-5)
    # The score is of the row itself: no noise.
    clean = ((reconstruction(detector, x) - x.numpy()) ** 2).mean(1)
    np.testing.assert_allclose(detector.decision_scores_, clean, rtol=1e-5)


def test_dae__without_noise__is_the_autoencoder():
    scores = small(DAE, noise_std=0.0, epochs=3).fit(X).decision_scores_
    np.testing.assert_array_equal(scores, small(AutoEncoder, epochs=3).fit(X).decision_scores_)


@every_class
def test_latent_dim__default__length_of_the_code(cls):
    lengths = []
    for kind in ("table", "windows", "images"):
        module = cls(epochs=0).fit(samples(kind)).module_
        encoder = (
            module.encoder if hasattr(module, "encoder") else module["net"].autoencoder.encoder
        )
        lengths.append(encoder[-1].out_features)
    # A VAE's encoder gives means and variances.
    assert lengths == {NSAE: [8, 8, 32], VAE: [64, 64, 64]}.get(cls, [32, 32, 32])


# --- VAE ----------------------------------------------------------------------------------------


def test_vae__loss_and_scores__by_hand():
    detector = small(VAE, epochs=3, kl_weight=0.3).fit(X)
    x, module = scaled(detector), detector.module_.eval()
    noise = detector._noise(64, (5,), torch.Generator().manual_seed(0))
    assert noise.shape == (64, 3)
    with torch.no_grad():
        mean, log_variance = module.encoder(x).numpy()[:, :3], module.encoder(x).numpy()[:, 3:]
        drawn = torch.from_numpy(mean + np.exp(log_variance / 2) * noise.numpy())
        found = module.decoder(drawn).numpy()
    kl = 0.3 * ((mean**2 + np.exp(log_variance) - 1 - log_variance) / 2).sum(1)
    expected = {
        "reconstruction": ((found - x.numpy()) ** 2).sum(1).mean() / 2,
        "kl": kl.mean(),
    }
    terms = detector._loss(module, Batch(x, None, noise))
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=1e-5)
    errors = (reconstruction(detector, x) - x.numpy()) ** 2
    np.testing.assert_allclose(detector.decision_scores_, errors.mean(1), rtol=1e-5)
    elbo = detector.set_params(score_by="elbo").decision_function(X)
    np.testing.assert_allclose(elbo, errors.sum(1) / 2 + kl, rtol=1e-5)


def test_vae__divergence__that_of_torch():
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(2, 7, 4, generator=generator)
    code = torch.distributions.Normal(mean, (log_variance / 2).exp())
    known = torch.distributions.kl_divergence(code, torch.distributions.Normal(0, 1)).sum(1)
    torch.testing.assert_close(vae._divergence(mean, log_variance), known)
    assert vae._divergence(torch.zeros(1, 4), torch.zeros(1, 4)) == 0


def test_vae__large_weight__rows_reconstructed_by_their_mean():
    """No code pays, and the score is the mean square of the scaled row."""
    params = {"batch_size": 64, "lr": 0.02, "epochs": 300}
    detector = small(VAE, kl_weight=100.0, **params).fit(X)
    squares = (scaled(detector).numpy() ** 2).mean(1)
    np.testing.assert_allclose(detector.decision_scores_, squares, rtol=0.1)
    detector = small(VAE, kl_weight=1e-4, **params).fit(X)
    assert detector.decision_scores_.mean() < 0.6 * squares.mean()


def test_vae__far_rows__finite():
    detector = small(VAE, epochs=3, score_by="elbo").fit(X)
    assert np.isfinite(detector.decision_function(1e30 * X.astype(float))).all()


# --- NS-AE --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["mse", "norm"])
@pytest.mark.parametrize("normalize", [None, "detach", "attached"])
@pytest.mark.parametrize("l0", ["count", "hard_concrete"])
def test_nsae__loss_by_hand_in_numpy(error, normalize, l0):
    detector = small(
        NSAE, epochs=2, error=error, normalize=normalize, l0=l0, l0_weight=1e-3, novelty_weight=0.3
    ).fit(X)
    x, module = scaled(detector), detector.module_
    noise = detector._noise(64, (5,), torch.Generator().manual_seed(0))
    gates = () if noise is None else (noise,)
    with torch.no_grad():
        x_hat, novelty = (t.double().numpy() for t in module["net"](x, *gates))
    d = x_hat - x.numpy()
    rec = (d**2).mean(1) if error == "mse" else np.sqrt((d**2).sum(1))
    s = 0.7 * rec + 0.3 * novelty
    assert ((novelty > 0) & (novelty < 1)).all()
    expected = {"reconstruction": 0.7 * rec.mean(), "novelty": 0.3 * novelty.mean()}
    if normalize:
        normalized = (s - s.min()) / (s.max() - s.min())
        expected["normalization"] = (normalized - s).mean()
    if l0 == "count":
        count = sum((p.detach().abs() > 1e-10).sum().item() for p in module["net"].parameters())
        expected["l0"] = -1e-3 * count
    else:
        expected["l0"] = -1e-3 * module["net"].expected_l0().item()
    module.train()
    terms = detector._loss(module, Batch(x, None, noise))
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=1e-4)


def test_nsae__count__leaves_the_weights_alone():
    scores = [small(NSAE, epochs=3, l0_weight=w).fit(X).decision_scores_ for w in (0, 1e-5, 1.0)]
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])


def test_nsae__hard_concrete__a_large_weight_opens_all_gates():
    """Subtracted, the term rewards weights that are not zero: against the trivial solution."""

    def gates(weight):
        params = {"l0": "hard_concrete", "l0_weight": weight, "lr": 0.05, "epochs": 200}
        return small(NSAE, **params).fit(X).module_["net"].gates()

    assert gates(0.0).mean() < gates(0.1).mean()
    assert (gates(0.1) == 1).all()


def test_nsae__held_out_rows__not_normalised():
    entry = small(NSAE, epochs=1, validation_fraction=0.25).fit(X).history_[0]
    assert {k for k in entry if k.startswith("validation_")} == {
        "validation_reconstruction", "validation_novelty", "validation_l0"
    }  # fmt: skip


@pytest.mark.parametrize("normalize", ["detach", "attached"])
def test_nsae__early_stopping__follows_the_error(normalize):
    params = {"epochs": 100, "validation_fraction": 0.2, "callbacks": [EarlyStopping(10)]}
    detector = small(NSAE, normalize=normalize, **params).fit(X)
    assert len(detector.history_) > 20


@pytest.mark.parametrize("normalize", ["detach", "attached", None])
def test_nsae__all_rows_equal__scores_finite_and_equal(normalize):
    detector = small(NSAE, normalize=normalize, optimizer="sgd", epochs=5).fit(np.ones((50, 3)))
    assert np.isfinite(detector.decision_scores_).all()
    assert np.ptp(detector.decision_scores_) < 1e-6
    assert np.abs(detector.decision_scores_).max() < 10


def test_nsae__autoencoder_only__is_the_autoencoder():
    """Table 4, first row."""
    detector = small(NSAE, normalize=None, novelty_weight=0, epochs=3).fit(X)
    x = scaled(detector)
    errors = ((reconstruction(detector, x) - x.numpy()) ** 2).mean(1)
    np.testing.assert_allclose(detector.decision_scores_, errors, rtol=1e-5)


@pytest.mark.parametrize("normalize", ["detach", "attached"])
def test_nsae__score__ranks_like_s_and_lies_mostly_in_0_1(normalize):
    detector = small(NSAE, normalize=normalize, epochs=20).fit(X)
    with torch.no_grad():
        error, novelty = detector._parts(detector.module_.eval(), scaled(detector))
    s = (error + novelty).numpy()
    assert (np.argsort(s) == np.argsort(detector.decision_scores_)).mean() > 0.95
    layer = detector.module_["extremes"]
    low, high = layer.low.item(), layer.high.item()
    np.testing.assert_allclose(
        detector.decision_scores_, (s - low) / (high - low), rtol=1e-3, atol=1e-4
    )
    assert high > low
    far = detector.decision_function(10 * X)
    assert far.max() > 1  # not clipped


def test_nsae__normalized_loss__the_error_still_falls():
    def error(epochs):
        detector = small(NSAE, epochs=epochs).fit(X)
        x = scaled(detector)
        return ((reconstruction(detector, x) - x.numpy()) ** 2).mean()

    assert error(100) < 0.8 * error(0)


def test_nsae__attached__needs_three_rows_per_batch():
    with pytest.raises(ValueError, match="batch_size"):
        small(NSAE, normalize="attached", batch_size=2).fit(X)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_nsae__novelty_layers(layers):
    module = small(NSAE, novelty_layers=layers, epochs=0).fit(X).module_
    linear = [m for m in module["net"].novelty.modules() if isinstance(m, torch.nn.Linear)]
    assert [m.out_features for m in linear] == [3] * (layers - 1) + [1]


# --- all ----------------------------------------------------------------------------------------


@every_class
@pytest.mark.parametrize("contaminated", [False, True])
def test_easy_problem__rows_off_a_plane__found(cls, contaminated):
    generator = np.random.default_rng(2)
    plane = generator.normal(size=(2, 8))
    normal = generator.normal(size=(400, 2)) @ plane + 0.05 * generator.normal(size=(400, 8))
    odd = 2 * generator.normal(size=(60, 8))
    train = np.concatenate([normal[:300], odd[:10]]) if contaminated else normal[:300]
    detector = cls(random_state=0).fit(train)
    scores = detector.decision_function(np.concatenate([normal[300:], odd[10:]]))
    assert roc_auc_score(np.repeat([0, 1], [100, 50]), scores) > 0.95


@every_class
def test_score_map__images__where_the_error_is(cls):
    images = samples("images", n=12)
    network = LeNet(channels=(2, 4), hidden=())
    detector = cls(network=network, epochs=1, random_state=0).fit(images)
    maps = detector.score_map(images, batch_size=5)
    assert maps.shape == (12, 8, 8)
    assert maps.dtype == np.float64
    x = (images - detector.shift_) / detector.scale_
    errors = (reconstruction(detector, torch.from_numpy(x).float()) - x) ** 2
    np.testing.assert_allclose(maps, errors.mean(1), rtol=1e-4, atol=1e-6)
    if cls is AutoEncoder:
        np.testing.assert_allclose(maps.mean((1, 2)), detector.decision_scores_, rtol=1e-5)
    flat = cls(network=network, epochs=1, random_state=0, input_shape=(1, 8, 8))
    np.testing.assert_array_equal(
        flat.fit(images.reshape(12, -1)).score_map(images), detector.score_map(images)
    )


@every_class
def test_score_map__tables_or_unfitted__refused(cls):
    with pytest.raises(ValueError, match="images"):
        small(cls, epochs=1).fit(X).score_map(X)
    with pytest.raises(ValueError, match="not fitted"):
        small(cls).score_map(X)
    assert not hasattr(DeepSVDD(), "score_map")


@pytest.mark.parametrize("name", ["autoencoder", "dae", "ns_ae", "vae"])
def test_paper_settings__every_section__fits(name):
    path = ROOT / "benchmarks" / "papers" / f"{name}.toml"
    for section in tomllib.loads(path.read_text()):
        detector, _ = find(f"{path}:{section}").build(0)
        channels = 3 if "cifar" in section else 1
        image = isinstance(detector.network, LeNet)
        rows = np.random.default_rng(0).normal(size=(8, channels, 32, 32)) if image else X
        detector.set_params(epochs=1).fit(rows)
