"""LSTMAE and LSTMVAE: losses by hand, alignment, the papers' settings, files."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.base import clone
from sklearn.svm import SVR

import deepod
from deepod.series import LSTMAE
from deepod.series.lstm_ae import Reconstructor
from deepod.series.lstm_vae import ExpectedScore, Variational
from deepod.types import Batch
from tests.cases import fast_series, fitted_series, waves

both = pytest.mark.parametrize("name", ["LSTMAE", "LSTMVAE"])
WEI = {
    "reverse": False,
    "carry_state": False,
    "error": "mae",
    "dropout": 0.2,
    "error_scale": None,
    "smoothing": None,
    "validation_fraction": 0,
    "contamination": 0,
}
ENCDEC = {"teacher_forcing": True, "error_scale": "covariance", "smoothing": None}
PARK = {
    "latent_dim": 3,
    "prior": "progress",
    "state_threshold": True,
    "error_scale": None,
    "smoothing": None,
}
PAPERS = [("LSTMAE", WEI), ("LSTMAE", ENCDEC), ("LSTMVAE", PARK)]
EPISODES = waves(480).reshape(12, 40, 2)


def batch_of(detector, n=4, length=10):
    x = torch.from_numpy(waves(n * length, seed=5).reshape(n, length, 2)).float()
    noise = detector._noise(n, (length, 2), torch.Generator().manual_seed(0))
    return Batch(x, None, noise)


# --- both -----------------------------------------------------------------------------------------


@both
def test_training__lowers_the_loss(name):
    terms = {"reconstruction", "likelihood", "divergence"}
    history = fitted_series(name).history_
    first, last = (sum(v for k, v in h.items() if k in terms) for h in (history[0], history[-1]))
    assert last < first - 0.03


@both
def test_same_seed__same_scores(name):
    x = waves(150, seed=1)
    first, second = (fast_series(name, epochs=2).fit(x) for _ in range(2))
    np.testing.assert_array_equal(first.decision_scores_, second.decision_scores_)
    np.testing.assert_array_equal(first.decision_function(x), first.decision_function(x))


@pytest.mark.parametrize(("name", "params"), PAPERS)
def test_paper__setting_reached_saved_and_copied(name, params, tmp_path):
    X = EPISODES if name == "LSTMVAE" else waves()
    detector = fast_series(name, **{"epochs": 2} | params).fit(X)
    scores = detector.decision_function(X)
    assert np.isfinite(scores).all()
    detector.save(tmp_path / "model")
    for other in (
        deepod.load(tmp_path / "model"),
        pickle.loads(pickle.dumps(detector)),
        copy.deepcopy(detector),
        clone(detector).fit(X),
    ):
        np.testing.assert_array_equal(other.decision_function(X), scores)
        assert other.threshold_ == detector.threshold_


@both
@pytest.mark.gpu
def test_cuda__scores_as_on_the_cpu(name):
    detector = fast_series(name, device="cuda").fit(waves())
    new = waves(200, seed=1)
    scores = detector.decision_function(new)
    detector.module_.cpu()
    detector.device_ = torch.device("cpu")
    np.testing.assert_allclose(detector.decision_function(new), scores, rtol=1e-2, atol=1e-3)


# --- LSTMAE ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("teacher_forcing", "reverse", "latent_dim"),
    [(False, False, None), (False, True, 4), (True, False, 4), (True, True, None)],
)
def test_lstmae__reconstructs_in_the_order_of_time(teacher_forcing, reverse, latent_dim):
    """A step in the middle of a ramp would be at the wrong place, or upside down, if it did not."""
    torch.manual_seed(0)
    module = Reconstructor(1, 16, latent_dim, True, teacher_forcing, reverse, "validation")
    x = torch.linspace(-1, 1, 8)[None, :, None] * torch.tensor([1.0, 0.5, 0.8])[:, None, None]
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-2)
    for _ in range(100):
        optimizer.zero_grad()
        (module(x, teach=True) - x).square().mean().backward()
        optimizer.step()
    assert (module(x) - x).abs().max() < 0.3


def test_lstmae__teacher_forcing__sees_what_comes_before_and_no_more():
    for reverse in (False, True):
        module = Reconstructor(1, 4, None, True, True, reverse, None)
        start = torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)
        x = torch.zeros(1, 6, 1)
        changed = x.clone()
        changed[0, 3] = 1.0  # in the decoder's order
        off = module._fed_back(start, 6, changed) - module._fed_back(start, 6, x)
        assert off.abs().sum(-1).gt(0)[0].tolist() == [False] * 4 + [True] * 2


def test_lstmae__own_output__is_what_the_decoder_goes_on_from():
    torch.manual_seed(0)
    module = Reconstructor(2, 4, None, True, True, False, None)
    x = torch.randn(3, 6, 2)
    own = module(x)
    _, start = module.encoder(x)
    states = module._fed_back(start, 6, own)  # as if what it gave had been the truth
    torch.testing.assert_close(module.head(states), own)


@pytest.mark.parametrize("error", ["mae", "mse"])
def test_lstmae__loss_and_score__by_hand(error):
    detector = fast_series("LSTMAE", error=error, error_scale=None, smoothing=None, epochs=1)
    detector.fit(waves())
    batch = batch_of(detector)
    with torch.no_grad():
        off = (batch.x - detector.module_(batch.x)).double().numpy()
        loss = detector._loss(detector.module_, batch)["reconstruction"].item()
        terms = detector._terms(detector.module_, batch.x).numpy()
    sizes = np.abs(off) if error == "mae" else off**2
    assert loss == pytest.approx(sizes.mean(), rel=1e-5)
    np.testing.assert_allclose(terms, sizes, rtol=1e-3, atol=1e-6)
    if error == "mae":
        one = waves(10, seed=7)  # a single window: its errors are the points'
        x = torch.from_numpy((one - detector.shift_) / detector.scale_).float()[None]
        with torch.no_grad():
            by_hand = (x - detector.module_(x)).abs().mean(-1)[0].numpy()
        np.testing.assert_allclose(detector.decision_function(one), by_hand, rtol=1e-3)


def test_lstmae__dropout__by_its_noise():
    detector = fast_series("LSTMAE", dropout=0.5, epochs=1).fit(waves())
    batch = batch_of(detector, n=200)
    code, states = batch.noise
    assert code.shape == (200, 8)
    assert states.shape == (200, 10, 8)
    losses = [detector._loss(detector.module_, batch)["reconstruction"].item() for _ in range(2)]
    assert losses[0] == losses[1]
    without = detector._loss(detector.module_, batch._replace(noise=None))["reconstruction"]
    assert losses[0] != without.item()


def test_lstmae__wei__threshold_is_the_largest_training_score():
    detector = fast_series("LSTMAE", **WEI | {"epochs": 1}).fit(waves())
    # Rounding aside, which is let by.
    assert detector.threshold_ == pytest.approx(detector.decision_scores_.max(), rel=1e-4)
    assert not detector.labels_.any()


def test_lstmae__covariance__absolute_errors_about_their_mean():
    detector = fast_series("LSTMAE", **ENCDEC, epochs=1).fit(waves())
    errors = detector.module_.errors
    assert (errors.mean > 0).all()
    assert errors.weight.shape == (2, 2)
    # The mean squared distance of what was learned from is 1, but for the shrinkage.
    assert 0.5 < np.square(detector._training_scores).mean() < 2


def test_lstmae__each_point_in_four_windows():
    detector = LSTMAE(window=50)
    detector.window_ = 50
    starts = np.arange(0, 951, detector._stride())
    counts = np.zeros(1000)
    for start in starts:
        counts[start : start + 50] += 1
    assert counts[50:950].min() >= 4


def test_lstmae__teacher_forcing_without_state__refused():
    with pytest.raises(ValueError, match="carry_state=True"):
        fast_series("LSTMAE", teacher_forcing=True, carry_state=False).fit(waves())


# --- LSTMVAE --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kl_weight", [0.0, 0.5])
def test_lstmvae__loss__by_hand(kl_weight):
    detector = fast_series("LSTMVAE", kl_weight=kl_weight, epochs=1).fit(waves())
    batch = batch_of(detector)
    seen, drawn = batch.noise
    assert seen.shape == batch.x.shape
    assert drawn.shape == (4, 10, 2)
    with torch.no_grad():
        mean, log_variance = detector.module_.encode(batch.x + 0.1 * seen)
        location, sigma = detector.module_.decode(mean + (log_variance / 2).exp() * drawn)
        loss = detector._loss(detector.module_, batch)
    likelihood = -norm(location, sigma).logpdf(batch.x).mean()
    variance = log_variance.exp().numpy()
    divergence = 0.5 * (mean.numpy() ** 2 + variance - 1 - np.log(variance)).sum(-1).mean() / 2
    assert loss["likelihood"].item() == pytest.approx(likelihood, rel=1e-4)
    assert loss["divergence"].item() == pytest.approx(kl_weight * divergence, rel=1e-4)


def test_lstmvae__score__negative_log_likelihood_at_the_mean_of_the_codes():
    detector = fast_series("LSTMVAE", error_scale=None, smoothing=None).fit(waves())
    x = waves(50, seed=1)
    scaled = torch.from_numpy((x - detector.shift_) / detector.scale_).float()[None]
    with torch.no_grad():
        location, sigma = detector.module_.decode(detector.module_.encode(scaled)[0])
    by_hand = -norm(location[0], sigma[0]).logpdf(scaled[0])
    np.testing.assert_allclose(detector.decision_function(x)[10:], by_hand.sum(1)[10:], rtol=1e-3)
    np.testing.assert_allclose(detector.explain(x)[10:], by_hand[10:], rtol=1e-3, atol=1e-4)


def test_lstmvae__sigma__not_below_its_least():
    module = Variational(2, 4, 2, 0.3, False, False, None)
    torch.nn.init.constant_(module.head.bias, -100.0)
    _, sigma = module.decode(torch.randn(1, 5, 2))
    assert sigma.min() >= 0.3
    module.errors.varies[1] = 0.0
    location, sigma = module.decode(torch.randn(1, 5, 2))
    assert (location[..., 1] == 0).all()
    assert (sigma[..., 1] == 1).all()


def test_lstmvae__progress__prior_moves_along_a_line():
    module = Variational(2, 4, 2, 0.1, True, False, None)
    with torch.no_grad():
        module.ends.copy_(torch.tensor([[0.0, 1.0], [4.0, -1.0]]))
    expected = [[0.0, 1.0], [2.0, 0.0], [4.0, -1.0]]
    assert module.prior(3).tolist() == expected
    detector = fast_series("LSTMVAE", prior="progress", epochs=3).fit(EPISODES)
    assert detector.module_.ends.abs().min() > 0
    # Whole episodes are held out: 20 % of twelve.
    assert len(detector._training_scores) == 2 * 40
    for X in (waves(), [waves(), waves()]):
        with pytest.raises(ValueError, match="episodes"):
            fast_series("LSTMVAE", prior="progress").fit(X)


def test_lstmvae__expected_score__as_scikit_learns():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(300, 3))
    scores = 50 * codes[:, 0] ** 2 - 200 + rng.normal(size=300)
    expected = ExpectedScore(3)
    expected.learn(codes, scores)
    size, mean = scores.std(), scores.mean()
    reference = SVR().fit(codes, (scores - mean) / size).predict(codes) * size + mean
    found = expected(torch.from_numpy(codes).float()).numpy()
    np.testing.assert_allclose(found, reference, rtol=1e-3, atol=0.05)
    assert np.corrcoef(found, scores)[0, 1] > 0.9


def test_lstmvae__state_threshold__subtracts_what_is_expected():
    plain = fitted_series("LSTMVAE", smoothing=None)
    adapted = fast_series("LSTMVAE", smoothing=None, state_threshold=True).fit(waves())
    x = waves(120, seed=1)
    scaled = torch.from_numpy((x - plain.shift_) / plain.scale_).float()[None]
    with torch.no_grad():
        codes, _ = adapted.module_.encode(scaled)
        expected = adapted.module_.expected(codes)[0].numpy()
    difference = plain.decision_function(x) - adapted.decision_function(x)
    np.testing.assert_allclose(difference[10:50], expected[10:50], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(adapted.explain(x).sum(1), adapted.decision_function(x), atol=1e-5)


def test_lstmvae__channel_that_stands_still__no_part_of_the_loss_and_evidence_if_it_moves():
    x = np.column_stack([waves(300, 1), np.full(300, 7.0)])
    detector = fast_series("LSTMVAE", smoothing=None).fit(x)
    assert detector.module_.errors.varies.tolist() == [1, 0]
    new = np.column_stack([waves(100, 1, seed=3), np.full(100, 7.0)])
    still = detector.explain(new)[:, 1]
    assert (still == still[0]).all()
    new[50, 1] += detector.scale_[1] * 3
    assert detector.explain(new)[50, 1] - still[0] == pytest.approx(4.5, rel=1e-3)


def test_lstmvae__validation__corrects_standard_deviations():
    """Squared errors are those of standard deviations that held for points held out."""
    detector = fast_series("LSTMVAE", smoothing=None).fit(waves())
    x = torch.from_numpy(waves(50, seed=2)).float()[None]
    with torch.no_grad():
        errors, sigma, _ = detector._standardised(detector.module_, x)
        terms, _ = detector._likelihood(detector.module_, x)
    weight = detector.module_.errors.weight
    by_hand = errors.square() * weight / 2 + sigma.log() + math.log(2 * math.pi) / 2
    torch.testing.assert_close(terms, by_hand)
