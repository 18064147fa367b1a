"""AutoEncoder, DAE, VAE, NS-AE, MemAE and LSA: losses by hand, invariants, error maps."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from deepod import DAE, LSA, NSAE, VAE, AutoEncoder, DeepSVDD, MemAE
from deepod.bench.detectors import find
from deepod.callbacks import EarlyStopping
from deepod.models.reconstruction import vae
from deepod.networks import MLP, LeNet
from deepod.types import Batch
from tests.cases import samples

ROOT = Path(__file__).parents[2]
X = samples(n=64)
FAMILY = [AutoEncoder, DAE, LSA, MemAE, NSAE, VAE]
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
    short = [8, 8, 32]
    assert lengths == {LSA: short, NSAE: short, VAE: [64] * 3}.get(cls, [32] * 3)


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


# --- MemAE --------------------------------------------------------------------------------------


def address_by_hand(detector, z, shrink):
    """Weights of the slots, in float64."""
    slots = detector.module_.slots.detach().double().numpy()
    if detector.similarity == "cosine":
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
        slots = slots / np.linalg.norm(slots, axis=1, keepdims=True)
    w = np.exp(z @ slots.T)
    w /= w.sum(1, keepdims=True)
    w = np.where(w > shrink, w, 0)
    total = w.sum(1, keepdims=True)
    return np.divide(w, total, out=np.zeros_like(w), where=total > 0)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("shrink", [None, 0.02, 0.051])
def test_memae__loss_and_score__by_hand_in_numpy(similarity, shrink):
    params = {"n_slots": 20, "entropy_weight": 0.3, "error": "mse", "epochs": 3}
    detector = small(MemAE, similarity=similarity, shrink=shrink, **params).fit(X)
    x, module = scaled(detector), detector.module_
    with torch.no_grad():
        z = module.encoder(x).double().numpy()
        w = address_by_hand(detector, z, shrink or 1 / 20)
        read = torch.from_numpy(w @ module.slots.double().numpy()).float()
        errors = ((module.decoder(read) - x) ** 2).mean(1).numpy()
        terms = detector._loss(module, Batch(x))
    assert (w == 0).any() or shrink == 0.02
    entropy = -(w * np.log(w + 1e-12)).sum(1).mean()
    expected = {"reconstruction": errors.mean(), "entropy": 0.3 * entropy}
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(detector.decision_scores_, errors, rtol=1e-4)


def test_memae__weights__on_the_simplex_or_all_shrunk_away():
    module = small(MemAE, n_slots=20, epochs=1).fit(X).module_
    w = module.address(torch.from_numpy(X))
    assert (w >= 0).all()
    torch.testing.assert_close(w.sum(1), torch.ones(64))
    assert w.count_nonzero(1).float().mean() < 20
    # More than any weight can be: what is decoded is nothing, and nothing is NaN.
    detector = small(MemAE, n_slots=20, shrink=5.0, epochs=2).fit(X)
    assert (detector.module_.address(torch.from_numpy(X)) == 0).all()
    outputs = reconstruction(detector, scaled(detector))
    np.testing.assert_array_equal(outputs, np.broadcast_to(outputs[0], outputs.shape))
    assert np.isfinite(detector.decision_scores_).all()


def test_memae__one_slot__everything_is_decoded_alike():
    detector = small(MemAE, n_slots=1, shrink=0.5, epochs=20).fit(X)
    outputs = reconstruction(detector, scaled(detector))
    np.testing.assert_allclose(outputs, np.broadcast_to(outputs[0], outputs.shape), atol=1e-6)


def test_memae__far_rows__decoded_within_the_hull_of_the_slots():
    """An autoencoder follows a row along the plane it has learned; a memory does not."""
    generator = np.random.default_rng(0)
    plane = generator.normal(size=(2, 8))
    rows = generator.normal(size=(300, 2)) @ plane
    far = 6 * rows[:50]
    shares = {}
    for cls in (AutoEncoder, MemAE):
        detector = cls(random_state=0, cross_fitting=False).fit(rows)
        found = reconstruction(detector, scaled(detector, far))
        shares[cls] = np.linalg.norm(found) / np.linalg.norm(scaled(detector, far))
    assert shares[MemAE] < 0.6 * shares[AutoEncoder]


def test_memae__gradients__reach_slots_and_encoder_through_the_threshold():
    module = small(MemAE, n_slots=20, epochs=0).fit(X).module_
    x = torch.from_numpy(X)
    terms = small(MemAE)._loss(module, Batch(x))
    terms["reconstruction"].backward()
    assert module.slots.grad.abs().sum() > 0
    assert all(p.grad.abs().sum() > 0 for p in module.encoder.parameters())


# --- LSA ----------------------------------------------------------------------------------------


def distributions_by_hand(module, z):
    """Log-probabilities of the bins, (n, d, bins), by loops over the values of the code."""
    layers = [part for part in module.estimator if hasattr(part, "mask")]
    n, d = z.shape
    h = z[:, :, None]  # (n, d, channels)
    for number, layer in enumerate(layers):
        weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
        weight = weight.reshape(d, -1, d, h.shape[2])
        out = np.tile(bias.reshape(1, d, -1), (n, 1, 1))
        for i in range(d):
            for j in range(i if number == 0 else i + 1):
                out[:, i] += h[:, j] @ weight[i, :, j].T
        h = np.where(out > 0, out, 0.01 * out) if number + 1 < len(layers) else out
    return h - np.log(np.exp(h).sum(2, keepdims=True))


def surprise_by_hand(module, z):
    log_p, bins = distributions_by_hand(module, z), module.n_bins
    centers = (np.arange(bins) + 0.5) / bins
    total = np.zeros(len(z))
    for row in range(len(z)):
        for i in range(z.shape[1]):
            total[row] -= np.interp(z[row, i], centers, log_p[row, i])
    return total


@pytest.mark.parametrize("score_by", ["combined", "likelihood", "reconstruction"])
def test_lsa__loss_and_score__by_hand_in_numpy(score_by):
    params = {"estimation_hidden": (3, 2), "n_bins": 7, "autoregression_weight": 0.3, "epochs": 5}
    detector = small(LSA, score_by=score_by, **params).fit(X)
    x, module = scaled(detector), detector.module_
    with torch.no_grad():
        z = 1 / (1 + np.exp(-module.encoder(x).double().numpy()))
        errors = ((module.decoder(torch.from_numpy(z).float()) - x) ** 2).numpy()
    surprise = surprise_by_hand(module, z)
    expected = {
        "reconstruction": errors.sum(1).mean(),
        "autoregression": 0.3 * surprise.mean(),
    }
    terms = detector._loss(module, Batch(x))
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=1e-4)
    parts = {"likelihood": surprise, "reconstruction": errors.mean(1)}
    parts["combined"] = sum((p - p.min()) / np.ptp(p) for p in parts.values())
    np.testing.assert_allclose(detector.decision_scores_, parts[score_by], rtol=1e-3, atol=1e-4)


def test_lsa__estimator__sees_earlier_values_alone():
    module = small(LSA, latent_dim=4, n_bins=3, estimation_hidden=(5, 5), epochs=0).fit(X).module_
    z = torch.rand(4, generator=torch.Generator().manual_seed(0))

    def out(z):
        return module.estimator(z[None]).view(4, 3)

    jacobian = torch.autograd.functional.jacobian(out, z).abs().sum(1)  # (of value, in value)
    assert (jacobian.triu() == 0).all()
    assert (jacobian[torch.ones(4, 4).tril(-1).bool()] > 0).all()


def test_lsa__probabilities__sum_up_to_one_over_all_codes():
    """Of all sequences of bins, when the values before are at the centres of theirs."""
    module = small(LSA, latent_dim=2, n_bins=4, estimation_hidden=(3,), epochs=3).fit(X).module_
    centers = (torch.arange(4) + 0.5) / 4
    z = torch.cartesian_prod(centers, centers)
    assert (-module.surprise(z, z)).exp().sum().item() == pytest.approx(1, rel=1e-5)


def test_lsa__gradient_of_the_likelihood__not_by_where_the_code_lies():
    """By the values before alone: a code of one value gets none."""
    for length, reached in [(1, False), (3, True)]:
        detector = small(LSA, latent_dim=length, n_bins=5, estimation_hidden=(4,), epochs=1).fit(X)
        terms = detector._loss(detector.module_, Batch(scaled(detector)))
        weights = detector.module_.encoder[-1].weight
        (found,) = torch.autograd.grad(terms["autoregression"], weights)
        assert (found.abs().sum() > 0) == reached


def test_lsa__score__continuous_and_finite_where_the_code_saturates():
    detector = small(LSA, epochs=5, score_by="likelihood").fit(X)
    line = X[:1] + np.linspace(0, 1e-3, 200)[:, None]
    assert np.abs(np.diff(detector.decision_function(line))).max() < 0.05
    assert np.isfinite(detector.decision_function(1e6 * X)).all()


# --- all ----------------------------------------------------------------------------------------


@every_class
@pytest.mark.parametrize("contaminated", [False, True])
def test_easy_problem__rows_off_a_plane__found(cls, contaminated):
    generator = np.random.default_rng(2)
    plane = generator.normal(size=(2, 8))
    normal = generator.normal(size=(400, 2)) @ plane + 0.05 * generator.normal(size=(400, 8))
    odd = 2 * generator.normal(size=(60, 8))
    train = np.concatenate([normal[:300], odd[:10]]) if contaminated else normal[:300]
    detector = cls(random_state=0, cross_fitting=False).fit(train)
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


@pytest.mark.parametrize("name", ["autoencoder", "dae", "lsa", "memae", "ns_ae", "vae"])
def test_paper_settings__every_section__fits(name):
    path = ROOT / "benchmarks" / "papers" / f"{name}.toml"
    for section in tomllib.loads(path.read_text()):
        detector, _ = find(f"{path}:{section}").build(0)
        channels = 3 if "cifar" in section else 1
        image = isinstance(detector.network, LeNet)
        rows = np.random.default_rng(0).normal(size=(8, channels, 32, 32)) if image else X
        if "estimation_hidden" in detector.get_params():
            detector.set_params(estimation_hidden=[2, 2])  # as printed, of 13 million weights
        detector.set_params(epochs=1).fit(rows)
