"""AnoRand: the invariants of its equations, its pseudo-labels, its kinds of supervision."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from deepod import AnoRand, fit_many
from deepod._inputs.division import divide
from deepod._inputs.seeds import draw_seeds
from deepod.bench.detectors import find
from deepod.bench.protocols import split_table
from deepod.datasets import load_bundled
from deepod.networks import MLP
from deepod.types import Batch
from tests.cases import samples

ROOT = Path(__file__).parents[2]
X = samples(n=64)
LABELS = np.repeat([0, 1], [48, 16])
FUSIONS = ["paper", "swapped", "mean", "reconstruction", "detection"]


def small(**params):
    settings = {"network": MLP(hidden=(8, 4)), "epochs": 3, "random_state": 0}
    return AnoRand(**(settings | {"cross_fitting": False} | params))


def fitted(**params):
    detector = small(**params).fit(X)
    scaled = (X - detector.shift_) / detector.scale_
    return detector, torch.from_numpy(scaled).float()


def prepared(detector, n=100, d=3, y=None, seed=0):
    rows = np.random.default_rng(seed).uniform(size=(n, d)).astype(np.float32)
    out, labels = detector._prepare(rows, y, np.random.default_rng(seed + 1))
    return rows, out, labels


# --- A1, A2: the loss ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["norm", "mse"])
@pytest.mark.parametrize("z0", ["hidden", "output"])
@pytest.mark.parametrize("w", [0.0, 0.2, 1.0])
def test_loss__by_hand_in_numpy(error, z0, w):
    detector, x = fitted(error=error, z0=z0, detection_weight=w)
    y = torch.from_numpy(LABELS).float()
    with torch.no_grad():
        x_hat, logit = (t.double().numpy() for t in detector._forward(detector.module_, x))
        terms = detector._loss(detector.module_, Batch(x, y))
    d, p = x_hat - x.numpy(), 1 / (1 + np.exp(-logit))
    r = np.linalg.norm(d, axis=1) if error == "norm" else (d**2).mean(1)
    ce = -(LABELS * np.log(p) + (1 - LABELS) * np.log(1 - p))
    expected = {
        "detection": w * ce.mean(),
        "reconstruction": (1 - w) * ((1 - LABELS) * r).mean(),
    }
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_loss__reconstruction_of_abnormal_rows__does_not_count():
    detector, x = fitted()
    detector.module_.zero_grad()
    only_abnormal = detector._loss(detector.module_, Batch(x, torch.ones(64)))
    assert only_abnormal["reconstruction"].item() == 0
    only_abnormal["reconstruction"].backward()
    for parameter in detector.module_["decoder"].parameters():
        assert parameter.grad is None or not parameter.grad.any()


def test_loss__signs():
    detector, x = fitted(detection_weight=0.5)
    module, y = detector.module_, torch.from_numpy(LABELS).float()
    before = {k: v.item() for k, v in detector._loss(module, Batch(x, y)).items()}
    with torch.no_grad():
        module["head"].bias += 0.5
    abnormal = Batch(x[48:], torch.ones(16))
    with torch.no_grad():
        raised = detector._loss(module, abnormal)["detection"].item()
        module["head"].bias -= 0.5
        assert raised < detector._loss(module, abnormal)["detection"].item()
        list(module["decoder"].parameters())[-1].add_(10.0)
    assert detector._loss(module, Batch(x, y))["reconstruction"].item() > before["reconstruction"]


def gradients(detector, x, part):
    detector.module_.zero_grad()
    y = torch.from_numpy(LABELS).float()
    sum(detector._loss(detector.module_, Batch(x, y)).values()).backward()
    return sum(p.grad.abs().sum().item() for p in detector.module_[part].parameters())


def test_detection_weight__one__the_autoencoder_does_not_learn():
    detector, x = fitted(detection_weight=1.0)
    assert gradients(detector, x, "decoder") == gradients(detector, x, "encoder") == 0
    assert gradients(detector, x, "features") > 0


def test_detection_weight__zero__only_the_head_does_not_learn():
    detector, x = fitted(detection_weight=0.0)
    assert gradients(detector, x, "head") == 0
    assert gradients(detector, x, "features") > 0  # through z0


# --- A3, A7: pseudo-labels ----------------------------------------------------------------------


@pytest.mark.parametrize("n", [30, 100, 500, 2000])
def test_pseudo_labels__shares(n):
    rows, out, labels = prepared(small(), n)
    noisy = max(2, round(0.02 * n))
    assert (labels == 0).sum() == n - noisy
    assert labels.mean() == pytest.approx(max(0.05, noisy / n), abs=1 / n)
    # Noisy rows replace, they are not added: what is left are originals, each once.
    left = out[labels == 0]
    assert len(np.unique(left, axis=0)) == n - noisy
    assert np.isin(left.view("V12"), rows.view("V12")).all()


def test_pseudo_labels__noise_has_the_asked_size():
    detector = small(noise_ratio=0.5, synthetic_ratio=0.0, noise_std=2.0)
    rows, out, labels = prepared(detector, 4000)
    noise_variance = out[labels == 1].var() - rows.var()
    assert noise_variance == pytest.approx(4.0, rel=0.1)


def test_pseudo_labels__smote__rows_between_two_noisy_ones():
    _, out, labels = prepared(small(), 400)
    abnormal = out[labels == 1].astype(float)
    noisy, synthetic = abnormal[:8], abnormal[8:]
    assert len(synthetic) > 8
    for row in synthetic:
        gaps = [
            np.linalg.norm(row - a) + np.linalg.norm(row - b) - np.linalg.norm(a - b)
            for i, a in enumerate(noisy)
            for b in noisy[:i]
        ]
        assert min(gaps) < 1e-5


@pytest.mark.parametrize("n", [2, 3, 4, 30, 100])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"k_neighbors": 50},
        {"noise_ratio": 0.5},
        {"noise_ratio": 0},
        {"synthetic_ratio": 0},
        {"synthetic_ratio": 0.5},
    ],
)
def test_pseudo_labels__few_rows_and_extreme_shares__work(n, params):
    _, out, labels = prepared(small(**params), n)
    assert np.isfinite(out).all()
    assert (labels == 0).any()
    assert np.isfinite(small(epochs=1, **params).fit(samples(n=n)).decision_scores_).all()


def test_pseudo_labels__images__keep_their_shape():
    images = samples("images", n=50)
    out, labels = small()._prepare(images, None, np.random.default_rng(0))
    assert out.shape[1:] == images.shape[1:]
    assert len(out) == len(labels)


def test_pseudo_labels__same_generator__same_rows():
    first, second = (prepared(small())[1] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_decision_scores__of_the_rows_as_given():
    detector = small().fit(X)
    np.testing.assert_array_equal(detector.decision_scores_, detector.decision_function(X))


# --- A4 to A6: the score ------------------------------------------------------------------------


def test_score__every_fusion_by_hand():
    detector, x = fitted()
    with torch.no_grad():
        x_hat, logit = (t.double().numpy() for t in detector._forward(detector.module_, x))
    e = np.linalg.norm(x_hat - x.numpy(), axis=1)
    p_ae, p_mlp = 1 / (1 + np.exp(-e)), 1 / (1 + np.exp(-logit))
    assert ((p_ae >= 0.5) & (p_ae < 1)).all()
    q_ae, q_mlp = np.quantile(p_ae, 0.75), np.quantile(p_mlp, 0.75)
    alpha = q_ae / (q_mlp + q_ae)  # equation 7
    assert 1 / 3 <= alpha <= 1
    assert detector.alpha_ == pytest.approx(alpha, rel=1e-5)
    expected = {
        "paper": (1 - alpha) * p_ae + alpha * p_mlp,  # equation 8
        "swapped": alpha * p_ae + (1 - alpha) * p_mlp,
        "mean": (p_ae + p_mlp) / 2,
        "reconstruction": e,
        "detection": logit,
    }
    expected["auto"] = e
    for fusion in expected:
        scores = small(fusion=fusion).fit(X).decision_scores_
        np.testing.assert_allclose(scores, expected[fusion], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_score__rises_with_each_block(fusion):
    detector, _ = fitted(fusion=fusion)
    errors = torch.linspace(0, 30, 50)
    logits = torch.linspace(-5, 5, 50)

    def score(error, logit):
        detector._blocks = lambda module, x: torch.stack([error, logit], 1)
        return np.diff(detector._score(detector.module_, None).numpy())

    by_error, by_logit = score(errors, 0 * logits), score(0 * errors, logits)
    assert (by_error > 0).all() == (fusion != "detection")
    assert (by_logit > 0).all() == (fusion != "reconstruction")
    assert (by_error >= 0).all()
    assert (by_logit >= 0).all()


def test_quartiles__of_the_training_rows_as_given__stored():
    detector, _ = fitted(fusion="paper")
    alone = np.concatenate([detector.decision_function(row[None]) for row in X[:5]])
    np.testing.assert_allclose(alone, detector.decision_scores_[:5], rtol=1e-6)


# --- supervision, A8 ----------------------------------------------------------------------------


def test_few_labels__known_anomalies__kept_as_they_are_and_never_noised():
    y = np.zeros(100, int)
    y[:7] = 1
    detector = small(supervision="few_labels", known_ratio=0)
    rows, out, labels = prepared(detector, 100, y=y)
    known = rows[:7].view("V12").ravel()
    assert np.isin(known, out[labels == 1].view("V12").ravel()).all()
    assert not np.isin(known, out[labels == 0].view("V12").ravel()).any()
    without = prepared(small(), 93)[2]
    assert (labels == 1).sum() == (without == 1).sum() + 7


@pytest.mark.parametrize(("known", "ratio", "expected"), [(7, 0.5, 91), (1, 0.5, 97), (7, 0.2, 23)])
def test_few_labels__known_anomalies__repeated_evenly(known, ratio, expected):
    y = np.zeros(100, int)
    y[:known] = 1
    detector = small(supervision="few_labels", known_ratio=ratio, synthetic_ratio=0)
    rows, out, labels = prepared(detector, 100, y=y)
    assert (labels == 0).sum() == 98 - known  # two are noisy
    times = [(out[labels == 1] == row).all(1).sum() for row in rows[:known]]
    assert sum(times) == expected
    assert max(times) - min(times) <= 1


def test_supervised__true_labels__no_synthetic_rows():
    rows, out, labels = prepared(small(supervision="supervised", known_ratio=0), 64, y=LABELS)
    np.testing.assert_array_equal(out, rows)
    np.testing.assert_array_equal(labels, LABELS)
    rows, out, labels = prepared(small(supervision="supervised"), 64, y=LABELS)
    np.testing.assert_array_equal(out, np.concatenate([rows, rows[48:], rows[48:]]))
    np.testing.assert_array_equal(labels, np.repeat([0, 1], 48))
    rows, out, _ = prepared(small(supervision="supervised"), 64, y=1 - LABELS)
    assert len(out) == len(rows)  # more than half are anomalies already


@pytest.mark.parametrize("supervision", ["few_labels", "supervised"])
def test_fusion__auto_with_labels__mean(supervision):
    scores = [
        small(supervision=supervision, fusion=fusion).fit(X, LABELS).decision_scores_
        for fusion in ("auto", "mean")
    ]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_few_labels__six_known_eights_among_digits__worth_much(seed):
    """Trained on once each, they are worth nothing."""
    digits = load_bundled("digits")
    split = split_table("few-labels-5", digits.data, digits.target, seed)
    assert split.given.sum() == 6

    def found(y=None, **params):
        detector = AnoRand(random_state=seed, **params).fit(split.X_train, y)
        return roc_auc_score(split.y_test, detector.decision_function(split.X_test))

    assert found(split.given, supervision="few_labels") > max(0.85, found() + 0.15)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("supervision", ["few_labels", "supervised"])
def test_supervision__rows_held_out__some_anomalies_stay_in_training(supervision, seed):
    y = np.repeat([0, 1], [38, 2])
    params = {"validation_fraction": 0.5, "random_state": seed, "noise_ratio": 0}
    detector = small(supervision=supervision, **params)
    shares = {"validation_fraction": 0.5, "calibration_fraction": 0}
    division = divide(40, y, seeds=draw_seeds(seed), **shares)
    assert y[division.watch].sum() == 1
    assert np.isfinite(detector.fit(X[:40], y).decision_scores_).all()


def test_few_labels__few_rows_and_some_held_out__works():
    y = np.array([1, 1, 1, 0, 0, 0])
    params = {"supervision": "few_labels", "validation_fraction": 0.2, "epochs": 1}
    for seed in range(5):
        small(random_state=seed, **params).fit(X[:6], y)


@pytest.mark.parametrize("supervision", ["few_labels", "supervised"])
def test_supervision__one_class__refused(supervision):
    for y in (np.zeros(64), np.ones(64)):
        with pytest.raises(ValueError, match=r"both classes|some rows must be normal"):
            small(supervision=supervision).fit(X, y)


@pytest.mark.parametrize("supervision", ["few_labels", "supervised"])
def test_supervision__without_y__refused(supervision):
    with pytest.raises(ValueError, match="needs labels"):
        small(supervision=supervision).fit(X)


@pytest.mark.parametrize("supervision", ["few_labels", "supervised"])
def test_labels__anomalies_among_normal_rows__are_learned(supervision):
    """Known anomalies inside the range of the normal rows, where no one-class method finds them."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(600, 4))
    odd = 0.1 * generator.normal(size=(60, 4))
    everything, y = np.concatenate([rows, odd]), np.repeat([0, 1], [600, 60])
    shown = np.where(np.arange(660) % 2, y, 0) if supervision == "few_labels" else y
    detector = AnoRand(supervision=supervision, fusion="detection", epochs=100)
    seen = fit_many(detector, everything, shown, seeds=range(2))
    found = [roc_auc_score(y, d.decision_function(everything)) for d in seen]
    # Half of the known anomalies are shown as unlabelled rows: contradictory labels, with which
    # single seeds reach 0.75 to 0.96.
    assert np.mean(found) > (0.8 if supervision == "few_labels" else 0.95)
    blind = AnoRand(fusion="detection", random_state=0).fit(everything)
    assert roc_auc_score(y, blind.decision_scores_) < 0.6


@pytest.mark.parametrize("contaminated", [False, True])
@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_easy_problem__far_outliers__found(contaminated, seed):
    generator = np.random.default_rng(seed)
    normal = generator.normal(size=(500, 5))
    far = 8 * np.sign(generator.normal(size=(40, 5))) + generator.normal(size=(40, 5))
    train = np.concatenate([normal[:400], far[:8]]) if contaminated else normal[:400]
    detector = AnoRand(random_state=seed).fit(train)
    scores = detector.decision_function(np.concatenate([normal[400:], far[8:]]))
    assert roc_auc_score(np.repeat([0, 1], [100, 32]), scores) > 0.95


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"noise_ratio": 0.6}, "noise_ratio"),
        ({"synthetic_ratio": -0.1}, "synthetic_ratio"),
        ({"noise_std": -1}, "noise_std"),
        ({"k_neighbors": 0}, "k_neighbors"),
        ({"known_ratio": 0.6}, "known_ratio"),
        ({"detection_weight": 1.2}, "detection_weight"),
        ({"supervision": "semi"}, "supervision"),
        ({"fusion": "max"}, "fusion"),
        ({"z0": "input"}, "z0"),
    ],
)
def test_fit__bad_parameter__named(params, message):
    with pytest.raises(ValueError, match=message):
        small(**params).fit(X)


def test_paper_settings__every_section__fits():
    path = ROOT / "benchmarks" / "papers" / "anorand.toml"
    for section in tomllib.loads(path.read_text()):
        detector, _ = find(f"{path}:{section}").build(0)
        y = LABELS if detector.supervision else None
        detector.set_params(epochs=1).fit(X, y)
