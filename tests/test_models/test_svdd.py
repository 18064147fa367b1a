"""The Deep SVDD family: its losses by hand, the invariants of its papers, its ablations."""

import pickle
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from deepod import IAEAD, IAELSTMKL, DeepSVDD
from deepod.bench.detectors import find
from deepod.callbacks import EarlyStopping
from deepod.networks import MLP, LeNet
from deepod.networks.layers import Gate
from deepod.types import Batch
from tests.cases import samples

ROOT = Path(__file__).parents[2]
X = samples(n=64)
FAMILY = [DeepSVDD, IAEAD, IAELSTMKL]
WITH_DECODER = [IAEAD, IAELSTMKL]
every_class = pytest.mark.parametrize("cls", FAMILY)
with_decoder = pytest.mark.parametrize("cls", WITH_DECODER)


def small(cls=IAELSTMKL, **params):
    settings = {"network": MLP(hidden=(8,)), "latent_dim": 3, "random_state": 0}
    return cls(**(settings | {"cross_fitting": False} | params))


def codes(detector, rows=X):
    """Codes of rows in evaluation mode, as float64."""
    scaled = torch.from_numpy((rows - detector.shift_) / detector.scale_).float()
    with torch.no_grad():
        return scaled, detector.module_.eval().encoder(scaled).double().numpy()


def noise_of(detector, n):
    return detector._noise(n, (5,), torch.Generator().manual_seed(1))


def by_hand(detector, z, x, noise, module):
    """Every loss term from its formula, in NumPy."""
    c, r2 = detector.center_.astype(float), float(detector.radius_) ** 2
    d = ((z - c) ** 2).sum(1)
    terms = {"svdd": d.mean()}
    if detector.objective == "soft":
        terms["svdd"] = r2 + np.maximum(0, d - r2).mean() / detector.nu
    if isinstance(detector, DeepSVDD):
        return terms
    if getattr(detector, "use_decoder", True):
        with torch.no_grad():
            x_hat = module.decoder(torch.from_numpy(z).float()).numpy()
        terms["reconstruction"] = detector.reconstruction_weight * ((x_hat - x.numpy()) ** 2).mean()
    if isinstance(detector, IAEAD):
        return terms
    kl = {None: 0.0, "gaussian": 0.5 * (z**2).sum(1).mean()}
    mean, variance = z.mean(0), z.var(0) + 1e-6
    kl["moments"] = 0.5 * (mean**2 + variance - np.log(variance) - 1).sum()
    if noise is not None:
        t = np.exp(noise.numpy().astype(float))
        t /= t.sum(1, keepdims=True)
        kl["shift"] = (t * (np.log(t) - z)).sum(1).mean()
    terms["svdd"] *= detector.svdd_weight
    if detector.kl is not None:
        terms["kl"] = detector.kl_weight * kl[detector.kl]
    return terms


SETTINGS = [
    (DeepSVDD, {}),
    (DeepSVDD, {"objective": "soft", "nu": 0.3}),
    (IAEAD, {"reconstruction_weight": 0.7}),
    (IAEAD, {"objective": "soft"}),
    *[(IAELSTMKL, {"kl": kl, "kl_weight": 0.3}) for kl in (None, "shift", "moments", "gaussian")],
    (IAELSTMKL, {"gate": None, "svdd_weight": 0.5, "objective": "soft"}),
    (IAELSTMKL, {"use_decoder": False, "score_by": "distance"}),
]


@pytest.mark.parametrize(("cls", "params"), SETTINGS)
def test_loss__by_hand_in_numpy(cls, params):
    detector = small(cls, epochs=3, warmup_epochs=1, **params).fit(X)
    x, z = codes(detector)
    noise = noise_of(detector, 64)
    module = detector.module_.eval()
    with torch.no_grad():
        terms = detector._loss(module, Batch(x, None, noise))
    expected = by_hand(detector, z, x, noise, module)
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=1e-4)


# --- centre, radius, biases ---------------------------------------------------------------------


@every_class
def test_center__mean_code_at_its_start__pushed_off_zero(cls):
    eps = 0.05
    detector = small(cls, epochs=0, center_eps=eps).fit(X)
    _, z = codes(detector)
    mean = z.mean(0)
    assert (np.abs(detector.center_) >= eps * (1 - 1e-6)).all()
    far = np.abs(mean) >= eps
    np.testing.assert_allclose(detector.center_[far], mean[far], rtol=1e-4)
    np.testing.assert_allclose(
        detector.center_[~far], np.where(mean[~far] < 0, -eps, eps), rtol=1e-5
    )
    if cls is not IAELSTMKL:  # whose gate keeps codes small
        assert far.any()
    assert not far.all()


def test_center__exactly_zero__goes_to_plus_eps():
    moved = small(DeepSVDD)._center(torch.tensor([[0.0, -0.01, 0.5]]))["center"]
    np.testing.assert_allclose(moved, [0.1, -0.1, 0.5], rtol=1e-6)


@every_class
def test_center__not_trained(cls):
    detector = small(cls, epochs=3, pretrain_epochs=3).fit(X)
    untrained = small(cls, epochs=0, pretrain_epochs=3).fit(X)
    np.testing.assert_array_equal(detector.center_, untrained.center_)
    assert "center" not in dict(detector.module_.named_parameters())


@every_class
@pytest.mark.parametrize("nu", [0.05, 0.1, 0.5, 1.0])
def test_radius__soft__leaves_nu_of_the_rows_outside(cls, nu):
    rows = samples(n=500)
    detector = small(cls, objective="soft", nu=nu, epochs=12, warmup_epochs=2).fit(rows)
    _, z = codes(detector, rows)
    outside = (((z - detector.center_) ** 2).sum(1) > detector.radius_**2 * (1 + 1e-5)).mean()
    assert nu - 0.01 <= outside <= nu + 0.001


def test_radius__warm_up__zero_in_training_and_set_in_the_end():
    seen = []

    def watch(event):
        if event.phase == "fit":
            seen.append(float(event.module.radius))

    params = {"objective": "soft", "callbacks": [watch]}
    small(DeepSVDD, epochs=6, warmup_epochs=3, **params).fit(X)
    assert [r > 0 for r in seen] == [False, False, False, True, True, True]
    seen.clear()
    detector = small(DeepSVDD, epochs=4, warmup_epochs=10, **params).fit(X)
    assert not any(seen)
    assert detector.radius_ > 0


@every_class
def test_radius__early_stopping__of_the_weights_that_were_put_back(cls):
    stopping = EarlyStopping(patience=2)
    params = {"validation_fraction": 0.2, "callbacks": [stopping], "epochs": 60, "lr": 0.05}
    detector = small(cls, objective="soft", **params).fit(X)
    _, z = codes(detector)
    distances = np.sort(np.sqrt(((z - detector.center_) ** 2).sum(1)))
    assert distances[56] <= detector.radius_ * 1.001
    assert detector.radius_ <= distances[58] * 1.001  # 64 rows, a tenth of them outside


@every_class
def test_radius__hard__is_zero(cls):
    assert small(cls, epochs=2).fit(X).radius_ == 0


@every_class
@pytest.mark.parametrize("kind", ["table", "windows", "images"])
@pytest.mark.parametrize("network", [MLP(hidden=(8,), bias=True), "auto"])
def test_encoder__has_no_bias_but_the_gates(cls, network, kind):
    detector = small(cls, network=network, epochs=0).fit(samples(kind))
    biased = [name for name, _ in detector.module_.encoder.named_parameters() if "bias" in name]
    assert len(biased) == (cls is IAELSTMKL)
    if isinstance(network, MLP):
        assert network.bias  # the user's description is not touched


def test_pretraining__auto__as_many_epochs_first():
    phases = [entry["phase"] for entry in small(IAEAD, epochs=3).fit(X).history_]
    assert phases == ["pretrain"] * 3 + ["fit"] * 3
    phases = [e["phase"] for e in small(DeepSVDD, epochs=3, pretrain_epochs=2).fit(X).history_]
    assert phases == ["pretrain"] * 2 + ["fit"] * 3
    without = small(DeepSVDD, epochs=3, pretrain_epochs=0).fit(X)
    assert {entry["phase"] for entry in without.history_} == {"fit"}
    assert without.module_.decoder is None


@every_class
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"nu": 0}, "nu"),
        ({"nu": 1.1}, "nu"),
        ({"objective": "medium"}, "objective"),
        ({"warmup_epochs": -1}, "warmup_epochs"),
        ({"pretrain_epochs": "many"}, "pretrain_epochs"),
        ({"center_eps": -1}, "center_eps"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"milestones": (0,)}, "milestones"),
        ({"milestones": ("a",)}, "milestones"),
    ],
)
def test_fit__bad_parameter__named(cls, params, message):
    with pytest.raises(ValueError, match=message):
        small(cls, **params).fit(X)


def test_center_and_radius__unfitted__not_there():
    assert not hasattr(DeepSVDD(), "center_")
    assert not hasattr(DeepSVDD(), "radius_")


# --- scores -------------------------------------------------------------------------------------


@every_class
def test_score__distance__by_hand(cls):
    params = {} if cls is DeepSVDD else {"score_by": "distance"}
    detector = small(cls, epochs=3, **params).fit(X)
    _, z = codes(detector)
    np.testing.assert_allclose(
        detector.decision_scores_, ((z - detector.center_) ** 2).sum(1), rtol=1e-4
    )


@with_decoder
def test_score__reconstruction_and_combined__by_hand(cls):
    parts = {}
    for score in ("distance", "reconstruction", "combined"):
        parts[score] = small(cls, epochs=3, score_by=score).fit(X).decision_scores_
    expected = sum(
        (parts[p] - parts[p].mean()) / parts[p].std() for p in ("distance", "reconstruction")
    )
    np.testing.assert_allclose(parts["combined"], expected, rtol=1e-3, atol=1e-3)
    assert parts["combined"].mean() == pytest.approx(0, abs=1e-4)


@with_decoder
def test_score__distance__ignores_the_decoder(cls):
    detector = small(cls, epochs=2, score_by="distance").fit(X)
    scores = detector.decision_scores_.copy()
    for parameter in detector.module_.decoder.parameters():
        nn.init.normal_(parameter)
    np.testing.assert_array_equal(detector.decision_function(X), scores)


def test_score__rows_of_a_batch__do_not_talk():
    """The published code runs its LSTM from row to row: a score there depends on the order."""
    detector = small(epochs=3, score_by="distance").fit(X)
    scores = detector.decision_scores_
    order = np.argsort(scores)
    np.testing.assert_allclose(detector.decision_function(X[order]), scores[order], rtol=1e-5)
    alone = np.concatenate([detector.decision_function(row[None]) for row in X[:8]])
    np.testing.assert_allclose(alone, scores[:8], rtol=1e-5)


# --- KL terms -----------------------------------------------------------------------------------


def test_kl__shift__is_torchs_kl_div_and_linear():
    z = torch.randn(6, 4, requires_grad=True)
    noise = torch.randn(6, 4)
    value = IAELSTMKL(kl="shift")._kl(z, noise)
    target = noise.softmax(1)
    assert value.item() == pytest.approx(
        nn.functional.kl_div(z, target, reduction="batchmean").item(), rel=1e-5
    )
    (gradient,) = torch.autograd.grad(value, z)
    torch.testing.assert_close(gradient, -target / 6)


def test_kl__shift__moves_the_optimum_by_its_weight_over_twice_the_length():
    """Hard SVDD + shift on free codes: z = c + kl_weight / (2 latent_dim) on average."""
    z, weight = torch.zeros(400, 4, dtype=torch.double, requires_grad=True), 10.0
    optimizer = torch.optim.SGD([z], lr=20.0)
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(4, dtype=torch.double)
    for step in range(300):
        noise = torch.randn(400, 4, generator=generator, dtype=torch.double)
        loss = z.square().sum(1).mean() + weight * IAELSTMKL()._kl(z, noise)
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        if step >= 100:
            total += z.detach().mean(0) / 200
    np.testing.assert_allclose(total, weight / 8, rtol=0.02)


def test_kl__moments__zero_at_the_standard_normal_and_never_below():
    z = torch.randn(50, 3, dtype=torch.double)
    standard = (z - z.mean(0)) / z.std(0, correction=0)
    detector = IAELSTMKL(kl="moments")
    assert detector._kl(standard, None).item() == pytest.approx(0, abs=1e-5)
    for scale in (0.01, 0.5, 3.0):
        assert detector._kl(scale * z + 1, None) > 0


def test_kl__none_or_no_weight__trains_the_same():
    scores = [
        small(epochs=3, **params).fit(X).decision_scores_
        for params in ({"kl": None}, {"kl": "gaussian", "kl_weight": 0.0})
    ]
    np.testing.assert_array_equal(*scores)


# --- ablations (Tables V to VII) ----------------------------------------------------------------


def test_ablation__iae__is_iaead():
    """Without gate and KL term, IAE-LSTM-KL is IAEAD."""
    detector = small(gate=None, kl=None, epochs=3).fit(X)
    np.testing.assert_array_equal(
        detector.decision_scores_, small(IAEAD, epochs=3).fit(X).decision_scores_
    )


@pytest.mark.parametrize("objective", ["hard", "soft"])
def test_ablation__nothing_left__is_deep_svdd(objective):
    params = {"objective": objective, "epochs": 3, "pretrain_epochs": 2}
    detector = small(gate=None, kl=None, use_decoder=False, score_by="distance", **params).fit(X)
    expected = small(DeepSVDD, **params).fit(X)
    np.testing.assert_array_equal(detector.decision_scores_, expected.decision_scores_)


def test_ablation__cae__has_no_sphere():
    detector = small(
        gate=None, kl=None, svdd_weight=0, score_by="reconstruction", epochs=3, pretrain_epochs=0
    ).fit(X)
    assert set(detector.history_[-1]) == {"phase", "epoch", "seconds", "reconstruction"}


TERMS = {
    "DSVDD-KL": ({"gate": None, "use_decoder": False, "score_by": "distance"}, {"svdd", "kl"}, 0),
    "DLSVDD": ({"kl": None, "use_decoder": False, "score_by": "distance"}, {"svdd"}, 3),
    "DLSVDD-KL": ({"use_decoder": False, "score_by": "distance"}, {"svdd", "kl"}, 3),
    "IAE-KL": ({"gate": None}, {"svdd", "reconstruction", "kl"}, 0),
    "IAE-LSTM": ({"kl": None}, {"svdd", "reconstruction"}, 3),
    "IAE-LSTM-KL": ({}, {"svdd", "reconstruction", "kl"}, 3),
    "w/o input gate": ({"gates": ("output",)}, {"svdd", "reconstruction", "kl"}, 2),
    "w/o output gate": ({"gates": ("input",)}, {"svdd", "reconstruction", "kl"}, 2),
    "w/o both gates": ({"gates": ()}, {"svdd", "reconstruction", "kl"}, 1),
}


@pytest.mark.parametrize("name", TERMS)
def test_ablation__terms_and_gate_weights(name):
    params, terms, blocks = TERMS[name]
    detector = small(epochs=1, **params).fit(X)
    assert set(detector.history_[-1]) == {"phase", "epoch", "seconds"} | terms
    gates = [m for m in detector.module_.modules() if isinstance(m, Gate)]
    assert sum(p.numel() for gate in gates for p in gate.parameters()) == blocks * (8 * 8 + 8)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"gates": ("forget",)}, "gates"),
        ({"use_decoder": False}, "use_decoder"),
        ({"gate": None, "kl": None, "use_decoder": False, "score_by": "distance",
          "svdd_weight": 0}, "svdd_weight"),
        ({"kl": None, "svdd_weight": 0, "reconstruction_weight": 0}, "svdd_weight"),
        ({"kl_weight": 0, "svdd_weight": 0, "use_decoder": False, "score_by": "distance"},
         "svdd_weight"),
    ],
)  # fmt: skip
def test_ablation__nothing_to_learn_or_unknown__refused(params, message):
    with pytest.raises(ValueError, match=message):
        small(**params).fit(X)


# --- behaviour ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", FAMILY)
@pytest.mark.parametrize("objective", ["hard", "soft"])
@pytest.mark.parametrize("contaminated", [False, True])
def test_easy_problem__solved(cls, objective, contaminated):
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(400, 6)) @ generator.normal(size=(6, 6))
    train = np.concatenate([rows[:200], 8 * rows[200:208]]) if contaminated else rows[:200]
    detector = cls(objective=objective, random_state=0).fit(train)
    scores = detector.decision_function(np.concatenate([rows[250:350], 8 * rows[350:]]))
    assert roc_auc_score(np.repeat([0, 1], [100, 50]), scores) > 0.9


@with_decoder
def test_score_map__images__mean_is_the_reconstruction_score(cls):
    images = samples("images", n=12)
    network = LeNet(channels=(2, 4), hidden=())
    detector = cls(network=network, epochs=1, score_by="reconstruction", random_state=0).fit(images)
    maps = detector.score_map(images)
    assert maps.shape == (12, 8, 8)
    np.testing.assert_allclose(maps.mean((1, 2)), detector.decision_scores_, rtol=1e-5)


def test_score_map__without_decoder__refused():
    detector = small(use_decoder=False, score_by="distance", epochs=1, network="auto")
    with pytest.raises(ValueError, match="use_decoder"):
        detector.fit(samples("images")).score_map(samples("images"))


def test_early_stopping__monitor__ignores_phases_without_the_term():
    stopping = EarlyStopping(patience=1, monitor="svdd")
    detector = small(IAEAD, epochs=30, lr=0.1, callbacks=[stopping]).fit(X)
    phases = [entry["phase"] for entry in detector.history_]
    assert phases.count("pretrain") == 30
    assert 0 < phases.count("fit") <= 30
    with pytest.raises(ValueError, match="monitor='nonsense'"):
        small(IAEAD, epochs=2, callbacks=[EarlyStopping(monitor="nonsense")]).fit(X)


def test_pickled__keeps_center_and_radius():
    detector = small(objective="soft", epochs=4, warmup_epochs=0).fit(X)
    twin = pickle.loads(pickle.dumps(detector))
    assert twin.radius_ == detector.radius_ > 0
    np.testing.assert_array_equal(twin.center_, detector.center_)


@pytest.mark.parametrize("name", ["deep_svdd", "iaead", "iae_lstm_kl"])
def test_paper_settings__every_section__fits(name):
    path = ROOT / "benchmarks" / "papers" / f"{name}.toml"
    for number, section in enumerate(tomllib.loads(path.read_text())):
        detector, _ = find(f"{path}:{section}").build(0)
        image = isinstance(detector.network, LeNet)
        rows = np.random.default_rng(0).normal(size=(4, 1, 28, 28)) if image else X[:9]
        epochs = int(number == 0)  # the others are built and score
        detector.set_params(epochs=epochs, pretrain_epochs=epochs).fit(rows)
