"""PLAD: the invariants that follow from its equations, and its behaviour on easy data."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from deepod import PLAD
from deepod._inputs.scaling import Scaler
from deepod.bench.detectors import find
from deepod.networks import MLP, LeNet, Prototypes, Recurrent
from deepod.types import Batch
from tests.cases import samples

ROOT = Path(__file__).parents[2]
PAPER = {
    "network": "mlp",
    "symmetry": "none",
    "reach": (1, 1),
    "alpha": "raw",
    "lam": 3.0,
    "n_members": 1,
    "lr": 1e-3,
    "scaler": "minmax",
    "random_state": 0,
}
X = samples(n=64)


def paper(**params) -> PLAD:
    return PLAD(**(PAPER | params))


def fitted_batch(detector: PLAD, n: int = 8):
    """A fitted detector's module, a batch and its noise."""
    detector.fit(X)
    module = detector.module_
    generator = torch.Generator().manual_seed(1)
    x = torch.from_numpy(X[:n])
    return module, Batch(x, None, detector._noise(n, x.shape[1:], generator))


def softplus(v):
    return np.logaddexp(0, v)


# --- P1, P3: the loss ---------------------------------------------------------------------------


@pytest.mark.parametrize("perturbator", ["vae", "mlp"])
@pytest.mark.parametrize("penalty", ["mean", "sum"])
@pytest.mark.parametrize("alpha", ["raw", "identity"])
@pytest.mark.parametrize("symmetry", ["none", "mirror", "random_signs"])
def test_loss__by_hand_in_numpy(perturbator, penalty, alpha, symmetry):
    detector = PLAD(
        perturbator=perturbator,
        penalty=penalty,
        alpha=alpha,
        symmetry=symmetry,
        network=MLP(hidden=(4,)),
        n_members=2,
        lam=2.0,
        kl_weight=0.5,
        epochs=1,
        random_state=0,
    )
    module, batch = fitted_batch(detector)
    terms = {k: v.item() for k, v in detector._loss(module, batch).items()}

    eps, factors = (t.numpy() for t in batch.noise)
    x = batch.x.numpy()
    with torch.no_grad():
        code = module["encoder"](batch.x).numpy()  # (2, 8, 10) or (2, 8, 5)
        kl = np.zeros((2, 8))
        if perturbator == "vae":
            mean, log_variance = code[..., :5], code[..., 5:]
            kl = 0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance).sum(-1)
            code = mean + np.exp(log_variance / 2) * eps
        heads = module["decoder"](torch.from_numpy(code)).numpy()  # (2, 8, 2, 5)
    a, b = heads[:, :, 0], heads[:, :, 1]
    a = a + 1 if alpha == "identity" else a
    assert (factors < 0).any() == (symmetry == "random_signs")
    move = factors * (x * a + b - x)
    sides = [x + move, x - move] if symmetry == "mirror" else [x + move]

    def f(rows):
        with torch.no_grad():
            return module["classifier"](torch.from_numpy(rows)).numpy()[..., 0]

    size = (a - 1) ** 2 + b**2
    expected = {
        "normal": softplus(f(x)).mean(),
        "perturbed": np.mean([softplus(-f(side)).mean() for side in sides]),
        "penalty": 2.0 * (size.mean() if penalty == "mean" else size.sum(-1).mean()),
        "kl": 0.5 * kl.mean(),
    }
    assert terms == pytest.approx(expected, rel=1e-5)


def test_penalty__zero_only_without_perturbation():
    detector = paper(epochs=0, alpha="identity", perturbator="mlp")
    module, batch = fitted_batch(detector)
    for parameter in module["decoder"].parameters():
        torch.nn.init.zeros_(parameter)
    x_tilde, penalty, _ = detector._perturb(module, batch.x, batch.noise[0])
    assert torch.equal(x_tilde[0], batch.x)
    assert not penalty.any()
    torch.nn.init.constant_(list(module["decoder"].parameters())[-1], 0.1)
    assert (detector._perturb(module, batch.x, batch.noise[0])[1] > 0).all()


def test_perturbator__helps_the_classifier():
    """P3: cooperative, not adversarial. The perturbed term reaches g, and descent lowers it."""
    detector = paper(epochs=0, lam=0.0, kl_weight=0.0)
    module, batch = fitted_batch(detector)
    before = detector._loss(module, batch)["perturbed"]
    g = [*module["encoder"].parameters(), *module["decoder"].parameters()]
    gradients = torch.autograd.grad(before, g)
    assert any(gradient.abs().sum() > 0 for gradient in gradients)
    with torch.no_grad():
        for parameter, gradient in zip(g, gradients, strict=True):
            parameter -= 1e-2 * gradient
    assert detector._loss(module, batch)["perturbed"] < before


# --- P2: the weight of the penalty --------------------------------------------------------------


def displacement(**params):
    """Mean size of the learned perturbation of scaled rows, and the last losses."""
    detector = paper(epochs=300, lr=1e-2, alpha="identity", scaler=None, **params).fit(X)
    moved = detector.perturb(X, random_state=0)
    return np.abs(moved - X).mean(), detector.history_[-1]


@pytest.mark.parametrize("perturbator", ["vae", "mlp"])
def test_lam__large__nothing_moves_and_nothing_is_learned(perturbator):
    moved, losses = displacement(lam=1e5, perturbator=perturbator)
    assert moved < 1e-2
    assert losses["normal"] + losses["perturbed"] == pytest.approx(2 * np.log(2), abs=0.05)


def test_lam__smaller__moves_more():
    moves = [displacement(lam=lam)[0] for lam in (0.1, 3, 100)]
    assert moves[0] > moves[1] > moves[2]


# --- P4, P5: the score --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("setting", [{}, PAPER])
def test_score__perturbed_rows_are_more_abnormal(seed, setting):
    data = np.random.default_rng(seed).normal(size=(200, 4))
    settings = setting | {"epochs": 60, "lr": 5e-3, "random_state": seed, "cross_fitting": False}
    detector = PLAD(**settings).fit(data)
    perturbed = detector.perturb(data, random_state=0)
    assert detector.decision_function(perturbed).mean() > detector.decision_scores_.mean()


def test_score__ignores_the_perturbator():
    detector = paper(epochs=2).fit(X)
    scores = detector.decision_scores_.copy()
    for part in ("encoder", "decoder"):
        for parameter in detector.module_[part].parameters():
            torch.nn.init.normal_(parameter)
    np.testing.assert_array_equal(detector.decision_function(X), scores)


def test_score__one_member__is_the_logit():
    detector = paper(epochs=2).fit(X)
    with torch.no_grad():
        scaled = (X - detector.shift_) / detector.scale_
        logits = detector.module_["classifier"](torch.from_numpy(scaled).float())
    np.testing.assert_allclose(detector.decision_scores_, logits[0, :, 0], rtol=1e-4, atol=1e-5)


def test_score__members__is_the_logit_of_the_mean_probability():
    detector = paper(epochs=2, n_members=5).fit(X)
    with torch.no_grad():
        scaled = (X - detector.shift_) / detector.scale_
        logits = detector.module_["classifier"](torch.from_numpy(scaled).float())[..., 0]
    mean = torch.sigmoid(logits.double()).mean(0).numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-detector.decision_scores_)), mean, rtol=1e-5)


def test_score__sure_members__does_not_saturate():
    detector = PLAD(n_members=3, epochs=5, random_state=0).fit(X)
    far = np.outer([1e2, 1e3, 1e4, 1e5], np.ones(5))
    scores = detector.decision_function(far)
    assert (np.diff(scores) > 0).all()


# --- P6: equation 5 without noise is equation 3 -------------------------------------------------


def test_vae__without_noise_and_kl__is_the_deterministic_net():
    vae = paper(epochs=0, perturbator="vae", kl_weight=0.0)
    mlp = paper(epochs=0, perturbator="mlp", kl_weight=0.0)
    vae_module, batch = fitted_batch(vae)
    mlp_module, _ = fitted_batch(mlp)
    state = vae_module.state_dict()
    for name, value in mlp_module.state_dict().items():
        state[name] = state[name][..., : value.shape[-1]]  # the mean half of the code
    mlp_module.load_state_dict(state)
    eps, *rest = batch.noise
    still = Batch(batch.x, None, (torch.zeros_like(eps), *rest))
    for name, value in vae._loss(vae_module, still).items():
        torch.testing.assert_close(value, mlp._loss(mlp_module, still)[name])


def test_kl__zero_for_a_standard_normal_code():
    detector = paper(epochs=0)
    module, batch = fitted_batch(detector)
    for parameter in list(module["encoder"].parameters())[-2:]:
        torch.nn.init.zeros_(parameter)
    assert not detector._perturb(module, batch.x, batch.noise[0])[2].any()


@pytest.mark.parametrize("shaped", [True, False])
def test_perturb__input_shape__shaped_like_its_input(shaped):
    images = np.random.default_rng(0).normal(size=(12, 1, 8, 8))
    given = images if shaped else images.reshape(12, 64)
    detector = paper(epochs=1, input_shape=(1, 8, 8)).fit(images)
    assert detector.perturb(given).shape == given.shape


def test_perturb__deterministic_and_in_the_units_of_the_data():
    data = 100 + 5 * X.astype(np.float64)
    detector = paper(epochs=0, perturbator="mlp", alpha="identity").fit(data)
    for parameter in detector.module_["decoder"].parameters():
        torch.nn.init.zeros_(parameter)
    np.testing.assert_allclose(detector.perturb(data), data, rtol=1e-6)
    noisy = paper(epochs=2).fit(data)
    first = noisy.perturb(data, random_state=0)
    np.testing.assert_array_equal(first, noisy.perturb(data, random_state=0))
    assert not np.array_equal(first, noisy.perturb(data, random_state=1))


# --- P8: labels only when asked for -------------------------------------------------------------


def test_supervision__drop_anomalies__trains_on_the_normal_rows_alone():
    y = np.repeat([0, 1], [48, 16])
    data = X.copy()
    data[y == 1] += 50
    detector = paper(epochs=3, supervision="drop_anomalies").fit(data, y)
    normal_only = paper(epochs=3).fit(data[y == 0])
    scores = detector.decision_function(data)
    np.testing.assert_array_equal(scores, normal_only.decision_function(data))
    assert detector.decision_scores_.shape == (64,)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "needs labels"),
        (np.ones(64), "every row"),
        (np.zeros(63), "63 labels"),
        (np.full(64, 2), "0 .normal. and 1"),
        (["a"] * 64, "0 .normal. and 1"),
    ],
)
def test_supervision__unusable_y__refused(y, message):
    with pytest.raises(ValueError, match=message):
        paper(supervision="drop_anomalies").fit(X, y)


# --- P9: the extensions -------------------------------------------------------------------------


def test_mirror__loss_is_the_same_for_the_move_backwards():
    detector = paper(epochs=0, symmetry="mirror", alpha="identity")
    module, batch = fitted_batch(detector)
    forward = detector._loss(module, batch)
    last = module["decoder"][-2]
    with torch.no_grad():  # alpha - 1 and beta change sign, so x~ becomes 2x - x~
        last.weight.neg_()
        last.bias.neg_()
    for name, value in detector._loss(module, batch).items():
        torch.testing.assert_close(value, forward[name])


def test_noise__signs_and_factors_as_documented():
    detector = PLAD(n_members=3, reach=(0.5, 4.0))
    eps, signed = detector._noise(2000, (5,), torch.Generator().manual_seed(0))
    assert eps.shape == (3, 2000, 5)
    assert signed.shape == (3, 2000, 5)
    assert abs(signed.sign().mean().item()) < 0.03
    factors = signed.abs()
    assert torch.equal(factors.amax(-1), factors.amin(-1))  # one factor per row
    assert 0.5 <= factors.min().item() < 0.51
    assert 3.9 < factors.max().item() <= 4.0
    assert factors.log().mean().item() == pytest.approx(np.log(2) / 2, abs=0.03)


@pytest.mark.parametrize("reach", [(0, 1), (2, 1), (1,), (1, 2, 3), (1, np.inf), (np.nan, 1)])
def test_reach__bad_range__named(reach):
    with pytest.raises(ValueError, match="reach"):
        PLAD(reach=reach).fit(X)


def test_members__trained_together__each_like_alone():
    """Member 0 of three gets the gradients it would get alone, up to the mean over members."""
    detector = paper(epochs=0, n_members=3)
    module, batch = fitted_batch(detector)
    loss = sum(detector._loss(module, batch).values())
    together = torch.autograd.grad(loss, list(module.parameters()))
    alone_detector = paper(epochs=0, n_members=1)
    alone_module, _ = fitted_batch(alone_detector)
    alone_module.load_state_dict({k: v[:1] for k, v in module.state_dict().items()})
    first = Batch(batch.x, None, tuple(t[:1] for t in batch.noise))
    loss = sum(alone_detector._loss(alone_module, first).values())
    for ours, alone in zip(
        together, torch.autograd.grad(loss, list(alone_module.parameters())), strict=True
    ):
        torch.testing.assert_close(3 * ours[:1], alone, rtol=1e-4, atol=1e-6)


# --- P10: inputs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "network"),
    [
        ((1, 28, 28), LeNet(channels=(2,), hidden=(4,))),
        ((3, 8, 8), "auto"),
        ((3, 8, 8), "mlp"),
        ((3, 4, 4), "prototypes"),
        ((12, 3), Recurrent(hidden=(4,), cell="lstm")),
        ((12, 3), "auto"),
        ((4,), "prototypes"),
    ],
)
@pytest.mark.parametrize("perturbator", ["vae", "mlp"])
def test_inputs__images_windows_tables__one_score_each(shape, network, perturbator):
    data = np.random.default_rng(0).normal(size=(12, *shape))
    detector = PLAD(
        network=network, perturbator=perturbator, n_members=2, epochs=2, random_state=0
    ).fit(data)
    assert detector.decision_scores_.shape == (12,)
    assert np.isfinite(detector.decision_scores_).all()
    assert detector.perturb(data).shape == data.shape


@pytest.mark.parametrize("network", ["auto", "prototypes"])
def test_prototypes__one_per_eight_training_rows__start_at_them(network):
    detector = PLAD(epochs=0, network=network, n_members=3, random_state=0).fit(X)
    classifier = detector.module_["classifier"]
    scaled = Scaler(detector.shift_, detector.scale_).transform(X)
    rows = {row.tobytes() for row in scaled}
    used = set()
    assert classifier.centers.shape == (3, 8, 5)
    for centers in classifier.centers.detach().numpy():
        assert {row.tobytes() for row in centers} <= rows
        used |= {row.tobytes() for row in centers}
    assert len(used) > 8  # members start at rows of their own


@pytest.mark.parametrize("n", [2, 9, 100])
def test_prototypes__few_rows__finite(n):
    detector = PLAD(epochs=2, random_state=0).fit(samples(n=n))
    assert np.isfinite(detector.decision_function(X)).all()


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_threshold__new_normal_rows__not_flagged_wholesale(seed):
    """A classifier that learned the rows by heart would flag nearly all new ones."""
    generator = np.random.default_rng(seed)
    detector = PLAD(random_state=seed, contamination=0.1).fit(generator.normal(size=(500, 10)))
    assert 0.05 < detector.predict(generator.normal(size=(2000, 10))).mean() < 0.2


# --- the paper's setting ------------------------------------------------------------------------


def test_paper_setting__docstring_says_what_the_benchmark_runs():
    line = re.search(r"``(PLAD\(network=.*?\))``", PLAD.__doc__, re.DOTALL).group(1)
    documented = eval(line, {"PLAD": PLAD, "MLP": MLP})
    run = find(str(ROOT / "benchmarks" / "papers" / "plad.toml") + ":thyroid").build(seed=0)[0]
    run.set_params(random_state=None)
    expected = documented.get_params()
    assert type(expected.pop("network")) is type(run.network)
    assert expected.items() <= run.get_params().items()


# --- quality ------------------------------------------------------------------------------------


def ring(n, seed):
    """Normal rows on a circle; an anomaly may lie in its middle or outside."""
    generator = np.random.default_rng(seed)
    angle = generator.uniform(0, 2 * np.pi, n)
    radius = generator.normal(1, 0.05, n)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_default__ring__inside_and_outside_are_found(seed):
    generator = np.random.default_rng(100 + seed)
    middle = generator.normal(0, 0.2, (50, 2))
    outside = generator.normal(0, 1, (50, 2))
    outside *= (2 + generator.uniform(size=(50, 1))) / np.linalg.norm(outside, axis=1)[:, None]
    detector = PLAD(random_state=seed).fit(ring(500, seed))
    for anomalies in (middle, outside):
        scores = detector.decision_function(np.concatenate([ring(200, 50 + seed), anomalies]))
        assert roc_auc_score(np.repeat([0, 1], [200, 50]), scores) > 0.95


def test_default__same_seed_copy__bit_equal():
    detector = PLAD(epochs=3, random_state=1)
    scores = copy.deepcopy(detector).fit(X).decision_scores_
    np.testing.assert_array_equal(detector.fit(X).decision_scores_, scores)


# --- wide tables ----------------------------------------------------------------------------------


def parameters_at(columns, **params):
    module = PLAD(**params)._build_module((columns,))
    return sum(p.numel() for p in module.parameters())


def test_default__more_columns__learns_no_more_parameters():
    assert parameters_at(129) == parameters_at(1555) <= parameters_at(128)
    assert parameters_at(1555) < 400_000
    tensors = PLAD()._build_module((1555,)).state_dict().values()
    assert sum(t.numel() for t in tensors) < 400_000 + 3 * 128 * 1555  # and the directions


@pytest.mark.parametrize("columns", [3, 100, 128])
def test_default__up_to_128_columns__sees_all_of_them(columns):
    rows = np.random.default_rng(0).normal(size=(40, columns))
    default = PLAD(epochs=1, random_state=0).fit(rows)
    stated = PLAD(epochs=1, random_state=0, network=Prototypes(), n_members=5).fit(rows)
    assert np.array_equal(default.decision_scores_, stated.decision_scores_)


def test_default__wide_table__perturbs_along_directions_and_sees_every_column():
    rows = np.random.default_rng(0).normal(size=(60, 150))
    detector = PLAD(epochs=2, random_state=0).fit(rows)
    directions = detector.module_["classifier"].directions
    assert directions.shape == (3, 150, 128)
    moved = (detector.perturb(rows, random_state=0) - rows) / detector.scale_
    moved = torch.from_numpy(moved).float()
    assert moved.abs().max() > 1e-3
    torch.testing.assert_close(moved @ directions[0] @ directions[0].mT, moved, atol=1e-4, rtol=0)
    odd = np.repeat(np.median(rows, 0)[None], 150, 0) + 50 * np.eye(150)
    assert (detector.decision_function(odd) > detector.decision_scores_.max()).all()
