"""Contributions add up, blame what is odd, and depend on one row and the fitted detector alone."""

import contextlib
import copy
import functools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from torch import nn

import deepod
from deepod import data
from deepod._scoring.apply import ROW_BLOCK, chunk_rows
from deepod._scoring.explain import NODES
from deepod.networks import MLP, Recurrent

from .cases import (
    CHEAPER,
    IN_TURNS,
    NAMES,
    REPRESENTATIVES,
    SHAPES,
    as_usual,
    fast,
    fitted,
    samples,
)

every_detector = pytest.mark.parametrize("name", NAMES)
representatives = pytest.mark.parametrize("name", REPRESENTATIVES)
in_turns = pytest.mark.parametrize(("name", "kind"), IN_TURNS)

WITH_GRADIENTS = [name for name in NAMES if getattr(deepod, name).has_gradients]
GRADIENTS_IN_TURNS = [(name, kind) for name, kind in IN_TURNS if name in WITH_GRADIENTS]

# Settings with which the score is a sum over values.
SUMS = [
    ("ADGAN", {}),
    ("AnoRand", {}),
    ("AutoEncoder", {}),
    ("DAE", {}),
    ("DCN", {"score_by": "reconstruction"}),
    ("DSEBM", {"score_by": "reconstruction"}),
    ("E2EAE", {}),
    ("GaussianAD", {}),
    ("GaussianAD", {"pca": "first", "pca_variance": 0.8}),
    ("IAEAD", {"score_by": "reconstruction"}),
    ("IAELSTMKL", {"score_by": "reconstruction"}),
    ("IGD", {"score_by": "reconstruction"}),
    ("LSA", {"score_by": "reconstruction"}),
    ("IsolationForest", {}),
    ("LocalReconstruction", {}),
    ("MemAE", {}),
    ("NSAE", {"novelty_weight": 0, "normalize": None}),
    ("NSAE", {"novelty_weight": 0, "normalize": None, "error": "norm"}),
    ("Neighbors", {}),
    ("OCGAN", {}),
    ("TQM", {"score_by": "reconstruction"}),
    ("VAE", {}),
]


def takes(name):
    return getattr(deepod, name).inputs


SUMS_BY_DEFAULT = {name for name, params in SUMS if not params}
# What the quadrature may leave of a row, beside the sum of the sizes of its contributions: kinks of
# LeakyReLU and of max-pooling limit it. benchmarks/results/explain.jsonl has it on real data.
GAP, MEAN_GAP = 0.15, 0.03


def base_row(detector):
    """The baseline in the units of X."""
    return (detector.baseline_ * detector.scale_ + detector.shift_)[None]


def gaps(detector, X, contributions):
    """What is missing to the difference of the scores, beside the sizes of the contributions."""
    axes = tuple(range(1, X.ndim))
    wanted = detector.decision_function(X) - detector.decision_function(base_row(detector))
    return np.abs(contributions.sum(axes) - wanted) / np.abs(contributions).sum(axes)


# --- they add up --------------------------------------------------------------------------------


@functools.cache
def of_sums(name, kind, *params):
    return fast(name, epochs=1, **dict(params)).fit(samples(kind))


@pytest.mark.parametrize(
    ("name", "params", "kind"), [(*sum_, kind) for sum_ in SUMS for kind in takes(sum_[0])]
)
@settings(max_examples=4)
@given(seed=st.integers(0, 2**31 - 1), scale=st.floats(1e-2, 1e2))
def test_explain__score_is_a_sum__terms_add_up_to_it(name, params, kind, seed, scale):
    detector = of_sums(name, kind, *params.items())
    X = scale * samples(kind, n=9, seed=seed)
    terms = detector.explain(X)
    assert terms.dtype == np.float64
    assert (terms >= 0).all()
    sums = terms.sum(tuple(range(1, X.ndim)))
    # Tails are logarithms of shares, of which rounding is absolute.
    atol = 1e-5 if name == "Neighbors" else 0
    np.testing.assert_allclose(sums, detector.decision_function(X), rtol=1e-5, atol=atol)


# At the temperature of ICL the score changes so steeply along the way that the nodes miss some of
# it, as its docstring says: its gradients are checked by what they blame alone.
@pytest.mark.parametrize(("name", "kind"), [c for c in GRADIENTS_IN_TURNS if c[0] != "ICL"])
@settings(max_examples=4)
@given(seed=st.integers(0, 2**31 - 1), scale=st.floats(0.1, 10))
def test_explain__gradients__add_up_to_the_difference_from_the_baseline(name, kind, seed, scale):
    detector = fitted(name, kind)
    X = scale * samples(kind, n=9, seed=seed)
    contributions = detector.explain(X, rule="gradients")
    assert contributions.dtype == np.float64
    found = gaps(detector, X, contributions)
    assert found.max() < GAP
    assert found.mean() < MEAN_GAP


@pytest.mark.parametrize("name", ["AnoRand", "AutoEncoder", "DAE", "DeepSVDD", "PLAD"])
def test_explain__smooth_network__adds_up_to_float32_rounding(name):
    """The others have a LeakyReLU that ``network`` does not replace."""
    network = MLP(hidden=(8,), activation="silu")
    detector = fast(name, network=network).fit(samples())
    X = samples(n=50, seed=1)
    assert gaps(detector, X, detector.explain(X, rule="gradients")).max() < 1e-5


def test_explain__linear_score__by_hand():
    class Linear(deepod.BaseDetector):
        def _build_module(self, shape):
            return nn.Linear(*shape, 1)

        def _loss(self, module, batch):
            return {"zero": 0 * module(batch.x).sum()}

        def _score(self, module, x):
            return module(x).squeeze(1)

    detector = Linear(epochs=1, random_state=0).fit(samples())
    X = samples(n=7, seed=1)
    scaled = (X - detector.shift_) / detector.scale_
    weights = detector.module_.weight.detach().numpy()
    expected = weights * (scaled - detector.baseline_)
    np.testing.assert_allclose(detector.explain(X), expected, rtol=1e-4, atol=1e-6)


def test_explain__default_rule__gradients_only_where_the_score_is_no_sum():
    X = samples(n=5, seed=1)
    for name in WITH_GRADIENTS:
        detector = fitted(name)
        same = np.array_equal(detector.explain(X), detector.explain(X, rule="gradients"))
        assert same == (name not in SUMS_BY_DEFAULT)


def test_explain__gradients_of_ranks__refused():
    with pytest.raises(ValueError, match=r"is not for Neighbors, .*: use rule='auto'"):
        fitted("Neighbors").explain(samples(n=5, seed=1), rule="gradients")


# --- they blame what is odd ---------------------------------------------------------------------


@every_detector
def test_explain__one_value_shifted__is_blamed(name):
    """20 correlated features; by chance, one row in 20 would blame the right one."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 20))
    X = rng.normal(size=(600, 3)) @ mixing + 0.5 * rng.normal(size=(600, 20))
    odd, shifted = X[400:].copy(), np.arange(200) % 20
    odd[np.arange(200), shifted] += 8 * X.std(0)[shifted] * rng.choice([-1, 1], 200)
    contributions = as_usual(name, **CHEAPER.get(name, {})).fit(X[:400]).explain(odd)
    assert np.mean(contributions.argmax(1) == shifted) > 0.7
    of_each = np.stack([contributions[shifted == j].mean(0) for j in range(20)])
    np.testing.assert_array_equal(of_each.argmax(1), np.arange(20))


# --- a row's contributions are its own ----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "rule"),
    [(name, kind, "gradients") for name, kind in GRADIENTS_IN_TURNS]
    + [(name, kind, "auto") for name, kind in IN_TURNS if name in SUMS_BY_DEFAULT],
)
def test_explain__neighbours_order_and_batch_size__do_not_matter(name, kind, rule):
    detector = fitted(name, kind)
    X = samples(kind, n=12, seed=1)
    whole = detector.explain(X, rule=rule)
    # A point that lies on a kink but for rounding may move by one node's share of it.
    close = {"rtol": 1e-3, "atol": 1e-3 * np.abs(whole).max()}
    assert whole.shape == X.shape
    order = np.random.default_rng(0).permutation(12)
    shuffled = detector.explain(X[order], 33, rule)
    np.testing.assert_allclose(shuffled, whole[order], **close)
    for size in (1, 3):
        np.testing.assert_allclose(detector.explain(X[:3], size, rule), whole[:3], **close)
    np.testing.assert_allclose(detector.explain(X[:1], rule=rule), whole[:1], **close)
    twice = detector.explain(np.concatenate([X[:3], X[2:3], X[:3]]), rule=rule)
    np.testing.assert_allclose(twice[4:], twice[:3], **close)


@pytest.mark.parametrize(
    ("name", "rule"),
    [(name, "auto") for name in NAMES] + [(name, "gradients") for name in WITH_GRADIENTS],
)
def test_explain__far_outside_the_training_range__finite(name, rule):
    detector = fitted(name)
    far = np.array([[1e300, -1e300, 0, 0, 0], [1e10] * 5])
    assert np.isfinite(detector.explain(far, rule=rule)).all()
    assert np.isfinite(detector.explain(base_row(detector), rule=rule)).all()


@pytest.mark.parametrize(("batch_size", "most"), [(None, chunk_rows((5,))), (3, ROW_BLOCK)])
def test_explain__never_scores_more_rows_at_once_than_decision_function(batch_size, most):
    seen = []

    class Watched(deepod.DeepSVDD):
        def _score(self, module, x):
            seen.append(len(x))
            return super()._score(module, x)

    detector = Watched(epochs=1, random_state=0).fit(samples())
    seen.clear()
    detector.explain(samples(n=40), batch_size)
    assert max(seen) <= most
    assert sum(seen) == NODES * 40  # and no copy of a row, with which blocks are filled up


def test_explain__memory_runs_out__goes_on_with_fewer_points():
    class Tight(deepod.DeepSVDD):
        most = 10_000

        def _score(self, module, x):
            if len(x) > self.most:
                raise RuntimeError("DefaultCPUAllocator: not enough memory")
            return super()._score(module, x)

    detector = Tight(epochs=1, random_state=0).fit(samples())
    X = samples(n=200, seed=1)
    expected = detector.explain(X)
    detector.most = 64
    with pytest.warns(RuntimeWarning, match="Memory does not suffice"):
        found = detector.explain(X)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_explain__imputed_values__count_as_what_takes_their_place():
    X = samples(n=60)
    X[np.random.default_rng(0).random(X.shape) < 0.1] = np.nan
    detector = fast("DeepSVDD", missing="impute").fit(X)
    filled = np.where(np.isnan(X), detector.fill_.astype(np.float32), X)
    np.testing.assert_array_equal(detector.explain(X), detector.explain(filled))


# --- the detector is left alone -----------------------------------------------------------------

AMBIENT = {
    "no_grad": torch.no_grad,
    "inference mode": torch.inference_mode,
    "meta by default": lambda: torch.device("meta"),
}


@in_turns
def test_explain__ambient_torch_state__does_not_matter(name, kind):
    detector = fitted(name, kind)
    X = samples(kind, n=3, seed=1)
    rule = "gradients" if detector.has_gradients else "auto"
    expected = detector.explain(X, rule=rule)
    for mode, ambient in AMBIENT.items():
        with ambient():
            before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            found = detector.explain(X, rule=rule)
            assert before == (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        np.testing.assert_array_equal(found, expected, mode)


@representatives
def test_explain__does_not_change_the_detector(name):
    detector = fast(name).fit(samples())
    before = copy.deepcopy(detector.module_.state_dict())
    detector.explain(samples(seed=3), rule="gradients")
    assert not detector.module_.training
    assert all(p.grad is None for p in detector.module_.parameters())
    for key, value in detector.module_.state_dict().items():
        assert torch.equal(value, before[key])


@every_detector
def test_explain__deep_copy_and_saved_model__the_same(name, tmp_path):
    detector = fitted(name)
    detector.save(tmp_path / "model.deepod")
    rule = "gradients" if detector.has_gradients else "auto"
    expected = detector.explain(samples(seed=1), rule=rule)
    for twin in (copy.deepcopy(detector), deepod.load(tmp_path / "model.deepod")):
        np.testing.assert_array_equal(twin.baseline_, detector.baseline_)
        np.testing.assert_array_equal(twin.explain(samples(seed=1), rule=rule), expected)


# --- shapes and bad input -----------------------------------------------------------------------


@in_turns
def test_explain__flat_rows__flat_contributions(name, kind):
    X = samples(kind)
    flat = X.reshape(len(X), -1)
    detector = fast(name, input_shape=SHAPES[kind]).fit(flat)
    of_flat = detector.explain(flat[:5])
    assert of_flat.shape == flat[:5].shape
    np.testing.assert_array_equal(of_flat.reshape(X[:5].shape), detector.explain(X[:5]))


def test_explain__data_frame_list_and_source__like_arrays():
    X = samples()
    detector = fast("DeepSVDD").fit(pd.DataFrame(X, columns=list("abcde")))
    expected = detector.explain(pd.DataFrame(X, columns=list("abcde")))
    assert expected.shape == X.shape
    plain = fast("DeepSVDD").fit(X)
    np.testing.assert_array_equal(plain.explain(X), expected)
    np.testing.assert_allclose(plain.explain(X.tolist()), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(plain.explain(data.array(X)), expected)


@representatives
def test_explain__unfitted_or_bad_input__says_so(name):
    with pytest.raises(NotFittedError):
        fast(name).explain(samples())
    detector = fast(name).fit(samples())
    with pytest.raises(ValueError, match="NaN"):
        detector.explain(np.full((2, 5), np.nan))
    with pytest.raises(ValueError, match="features"):
        detector.explain(samples()[:, :4])
    with pytest.raises(ValueError, match="rule"):
        detector.explain(samples(), rule="shapley")
    with pytest.raises(ValueError, match="batch_size"):
        detector.explain(samples(), batch_size=0)


# --- the baseline -------------------------------------------------------------------------------


@in_turns
def test_baseline__median_of_the_scaled_training_rows(name, kind):
    X = samples(kind, n=41)
    detector = fast(name, scaler="standard").fit(X)
    assert detector.baseline_.shape == SHAPES[kind]
    assert detector.baseline_.dtype == np.float64
    if name == "AnoRand":  # whose noise takes the place of a few rows
        assert np.abs(detector.baseline_).max() < 1
    else:
        median = (np.median(X, 0) - detector.shift_) / detector.scale_
        np.testing.assert_allclose(detector.baseline_, median, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("PLAD", {"supervision": "drop_anomalies"}),
        ("AnoRand", {"supervision": "supervised"}),
        ("AnoRand", {"supervision": "few_labels", "noise_ratio": 0}),
    ],
)
def test_baseline__labelled_anomalies__have_no_part_in_it(name, params):
    X = samples(n=100)
    y = (np.arange(100) % 5 < 2).astype(int)
    X[y == 1] += 100
    detector = fast(name, scaler=None, **params).fit(X, y)
    np.testing.assert_allclose(detector.baseline_, np.median(X[y == 0], 0), atol=1e-5)


def test_baseline__many_rows_or_rows_on_disk__of_a_sample(tmp_path):
    X = np.random.default_rng(0).normal(size=(20_000, 5)).astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for rows in (X, mapped):
        detector = fast("AutoEncoder", epochs=1, memory_limit=2**17).fit(rows)
        # Standard error of a median of 1000 rows: 0.04.
        assert np.abs(detector.baseline_).max() < 0.2


# --- devices ------------------------------------------------------------------------------------


@in_turns
@pytest.mark.gpu
def test_cuda__contributions_like_those_of_the_cpu(name, kind):
    X = samples(kind)
    cpu, gpu = (fast(name, device=d, epochs=0).fit(X) for d in ("cpu", "cuda"))
    expected = cpu.explain(X, rule="gradients")
    found = gpu.explain(X, rule="gradients")
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.05 * np.abs(expected).max())


def test_recurrent_layers__explained_without_cudnn(monkeypatch):
    """Where there is no GPU to fail on: the switch is set for these layers alone, and put back."""
    used = []
    flags = torch.backends.cudnn.flags

    def record(**given):
        used.append(given)
        return flags(**given)

    monkeypatch.setattr(torch.backends.cudnn, "flags", record)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: True))
    before = torch.backends.cudnn.enabled
    for network, expected in (
        (MLP(hidden=(4,)), []),
        (Recurrent(hidden=(4,)), [{"enabled": False}]),
    ):
        detector = fast("DeepSVDD", network=network, epochs=0).fit(samples("windows"))
        with contextlib.suppress(AssertionError):
            detector.explain(samples("windows", n=2))
        assert used == expected
        assert torch.backends.cudnn.enabled == before
