"""What every detector promises, generated from the registry."""

import contextlib
import copy
import itertools
import random
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

import deepod
from deepod._registry import DETECTORS, SERIES
from deepod.callbacks import EarlyStopping
from deepod.networks import MLP
from deepod.params import parameters

from . import children
from .cases import (
    EVERY_NAME,
    IN_TURNS,
    NAMES,
    NAMES_AND_KINDS,
    REPRESENTATIVES,
    SHAPES,
    TRAINED,
    as_usual,
    fast,
    samples,
)

# Float32 arithmetic: what a different grouping of the same sums may change, relative to the score
# and, since a logit may be near zero, absolute.
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}

every_detector = pytest.mark.parametrize("name", NAMES)
trained_detectors = pytest.mark.parametrize("name", TRAINED)
every_input = pytest.mark.parametrize(("name", "kind"), NAMES_AND_KINDS)
representatives = pytest.mark.parametrize("name", REPRESENTATIVES)
in_turns = pytest.mark.parametrize(("name", "kind"), IN_TURNS)


# --- registry and documentation -----------------------------------------------------------------


def test_list_detectors__describes_every_entry():
    for entry in [*deepod.list_detectors(), *deepod.list_detectors(series=True)]:
        assert entry["name"] in DETECTORS | SERIES
        assert entry["family"]
        assert entry["paper"]
        assert set(entry["inputs"]) <= {*SHAPES, "series"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(n, k) for n in EVERY_NAME for k in SHAPES if k not in getattr(deepod, n).inputs],
)
def test_fit__kind_of_samples_that_a_method_does_not_take__refused(name, kind):
    takes = " and ".join(getattr(deepod, name).inputs)
    called = {"table": "rows of a table; give input_shape="}.get(kind, f"{kind}; ")
    with pytest.raises(ValueError, match=f"{name} takes {takes}, but samples .* are {called}"):
        fast(name).fit(samples(kind))


@pytest.mark.parametrize("name", EVERY_NAME)
def test_docstring__names_every_parameter_once_and_has_an_example(name):
    doc = getattr(deepod, name).__doc__
    for parameter in fast(name).get_params(deep=False):
        assert doc.count(f"\n{parameter} : ") == 1
    for section in ("Parameters", "Attributes", "Notes", "References", "Examples"):
        assert doc.count(f"\n{section}\n---") == 1, section


# --- shapes and kinds of input ------------------------------------------------------------------


@every_input
def test_fit_and_score__every_kind_of_input__one_finite_score_per_row(name, kind):
    detector = fast(name).fit(samples(kind))
    scores = detector.decision_function(samples(kind, n=7, seed=1))
    assert scores.shape == (7,)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 1
    assert detector.input_shape_ == SHAPES[kind]


@in_turns
def test_input_shape__flat_rows__score_like_shaped_ones(name, kind):
    X, shape = samples(kind), SHAPES[kind]
    shaped = fast(name).fit(X)
    flat = fast(name, input_shape=shape).fit(X.reshape(len(X), -1))
    np.testing.assert_array_equal(flat.decision_scores_, shaped.decision_scores_)
    np.testing.assert_array_equal(flat.decision_function(X), shaped.decision_function(X))


@in_turns
def test_score__other_shape_than_fitted__refused(name, kind):
    detector = fast(name).fit(samples(kind))
    wrong = samples(kind)[:, :-1]
    with pytest.raises(ValueError, match=r"features|shape"):
        detector.decision_function(wrong)
    other = "windows" if kind != "windows" else "images"
    with pytest.raises(ValueError, match=r"features|shape"):
        detector.decision_function(samples(other))


@in_turns
def test_score__last_axis_differs__refused(name, kind):
    X = samples(kind)
    with pytest.raises(ValueError, match=r"features|shape"):
        fast(name).fit(X).decision_function(X[..., :-1])


# --- bad input ----------------------------------------------------------------------------------

GOOD = samples()
BAD_X = {
    "nan": (np.where(np.arange(5) == 2, np.nan, GOOD), "NaN"),
    "infinity": (np.where(np.arange(5) == 2, np.inf, GOOD), "infinity"),
    "strings": (np.full((40, 5), "a"), "string|convert|dtype"),
    "objects": (np.full((40, 5), object()), "float|number|object"),
    "list of objects": ([[object()] * 5] * 40, "float|number|object"),
    "dates": (GOOD.astype("M8[D]"), "datetime64.*numbers"),
    "date differences": (GOOD.astype("m8[D]"), "timedelta64.*numbers"),
    "records": (np.zeros((40, 5), [("a", float)]), "array of records"),
    "bytes strings": (np.full((40, 5), b"1"), "not numbers"),
    "sparse": (csr_array(GOOD), "[Ss]parse"),
    "complex": (GOOD + 1j, "[Cc]omplex"),
    "one dimension": (GOOD[:, 0], "Reshape your data"),
    "five dimensions": (np.zeros((4, 2, 2, 2, 2)), "5 dimensions"),
    "no rows": (GOOD[:0], "0 sample"),
    "no columns": (GOOD[:, :0], "0 feature"),
    "empty channels": (np.zeros((4, 3, 0)), "0 feature"),
    "empty images": (np.zeros((4, 1, 0, 3)), "0 feature"),
    "one row": (GOOD[:1], "minimum of 2|1 sample"),
}


@representatives
@pytest.mark.parametrize("case", BAD_X)
def test_fit__bad_input__refused_and_says_why(name, case):
    X, message = BAD_X[case]
    with pytest.raises((ValueError, TypeError), match=message):
        fast(name).fit(X)


@representatives
@pytest.mark.parametrize("case", ["nan", "infinity", "strings", "sparse", "no rows", "no columns"])
def test_score__bad_input__refused_and_says_why(name, case):
    X, message = BAD_X[case]
    with pytest.raises((ValueError, TypeError), match=message):
        fast(name).fit(GOOD).decision_function(X)


@representatives
def test_score__wrong_number_of_features__refused(name):
    detector = fast(name).fit(GOOD)
    for width in (1, 4, 6):
        with pytest.raises(ValueError, match="features"):
            detector.decision_function(np.zeros((3, width)))


BAD_PARAMETERS = [
    ("contamination", -0.1),
    ("contamination", 0.51),
    ("contamination", float("nan")),
    ("contamination", "automatic"),
    ("contamination", None),
    ("false_alarm_rate", 0),
    ("false_alarm_rate", 1),
    ("false_alarm_rate", float("nan")),
    ("false_alarm_rate", "auto"),
    ("calibration_fraction", -0.1),
    ("calibration_fraction", 0.51),
    ("calibration_fraction", None),
    ("epochs", -1),
    ("epochs", 1.5),
    ("epochs", "many"),
    ("batch_size", 0),
    ("lr", 0),
    ("lr", -1e-3),
    ("weight_decay", -1),
    ("max_grad_norm", 0),
    ("optimizer", "adamm"),
    ("network", "transformer"),
    ("network", 3),
    ("scaler", "robust"),
    ("validation_fraction", 0.6),
    ("validation_fraction", -0.1),
    ("callbacks", [1]),
    ("callbacks", print),
    ("device", "quantum"),
    ("device", None),
    ("random_state", "seed"),
    ("input_shape", (2, 3)),
    ("input_shape", (5.0,)),
    ("input_shape", (-5,)),
    ("input_shape", 5),
    ("input_shape", (True, 5)),
    ("input_shape", ()),
]


@representatives
@pytest.mark.parametrize(("parameter", "value"), BAD_PARAMETERS)
def test_fit__bad_parameter__named_in_the_error(name, parameter, value):
    detector = fast(name, **{parameter: value})  # the constructor only stores
    with pytest.raises((ValueError, TypeError), match=parameter):
        detector.fit(GOOD)
    assert not detector.__sklearn_is_fitted__()


@representatives
@pytest.mark.parametrize("hidden", [(0,), (-3,), (2.5,), ("a",)])
def test_fit__bad_network_size__named_in_the_error(name, hidden):
    with pytest.raises(ValueError, match="hidden"):
        fast(name, network=MLP(hidden=hidden)).fit(GOOD)


@representatives
def test_device__not_on_this_machine__refused_by_name(name):
    missing = "cuda:99" if torch.cuda.is_available() else "cuda"
    with pytest.raises(ValueError, match=f"device='{missing}'"):
        fast(name, device=missing).fit(GOOD)
    if not torch.backends.mps.is_available():
        with pytest.raises(ValueError, match="device='mps'"):
            fast(name, device="mps").fit(GOOD)


@representatives
def test_unfitted__scoring_and_attributes__say_so(name):
    detector = fast(name)
    scoring = ("decision_function", "predict", "predict_proba", "predict_confidence", "p_values")
    for method in (*scoring, "calibrate"):
        with pytest.raises(NotFittedError):
            getattr(detector, method)(GOOD)
    with pytest.raises(NotFittedError):
        detector.set_threshold(1.0)
    assert not hasattr(detector, "threshold_")
    assert not hasattr(detector, "labels_")


# --- legal edge cases ---------------------------------------------------------------------------

rng = np.random.default_rng(0)
READ_ONLY = GOOD.copy()
READ_ONLY.flags.writeable = False
EDGE_CASES = {
    "two rows": GOOD[:2],
    "fewer rows than a batch": GOOD[:5],
    "one left-over row": samples(n=33),
    "one feature": GOOD[:, :1],
    "constant column": np.where(np.arange(5) == 1, 3.0, GOOD),
    "all columns constant": np.ones((40, 5)),
    "duplicated rows": np.repeat(GOOD[:4], 10, axis=0),
    "large offset": 1e6 + 1e-3 * GOOD.astype(np.float64),
    "tiny values": 1e-30 * GOOD.astype(np.float64),
    "huge values": 1e30 * GOOD.astype(np.float64),
    "Fortran order": np.asfortranarray(GOOD),
    "negative strides": GOOD[::-1, ::-1],
    "read-only": READ_ONLY,
    "integers": rng.integers(0, 9, (40, 5)),
    "bytes": rng.integers(0, 255, (40, 5), dtype=np.uint8),
    "booleans": rng.integers(0, 2, (40, 5)).astype(bool),
    "half precision": GOOD.astype(np.float16),
    "list": GOOD.tolist(),
    "list of decimals": [[Decimal(value) for value in row] for row in GOOD.tolist()],
    "long integers": [[i * 10**30 + j for j in range(5)] for i in range(40)],
}


# What the base turns into the same float32 rows.
FORMS = {
    "Fortran order",
    "negative strides",
    "read-only",
    "bytes",
    "booleans",
    "half precision",
    "list",
    "list of decimals",
    "long integers",
}


@pytest.mark.parametrize(
    ("name", "case"),
    [(n, c) for n in NAMES for c in EDGE_CASES if n in REPRESENTATIVES or c not in FORMS],
)
def test_fit_and_score__legal_edge_case__finite(name, case):
    X = EDGE_CASES[case]
    before = copy.deepcopy(X)
    detector = fast(name, batch_size=32).fit(X)
    assert np.isfinite(detector.decision_scores_).all()
    assert np.isfinite(detector.decision_function(X[:1])).all()
    np.testing.assert_array_equal(X, before)


@representatives
def test_fit__read_only_memory_map__works(name, tmp_path):
    np.save(tmp_path / "X.npy", GOOD)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        fast(name).fit(mapped).decision_function(mapped), fast(name).fit(GOOD).decision_scores_
    )


@representatives
def test_scale_and_offset__of_the_columns__leave_the_scores(name):
    X = GOOD.astype(np.float64)
    moved = X * np.array([1e-3, 1, 10, 1e4, 1e6]) + np.array([0, 1e3, -5, 1e5, 1e9])
    scores = fast(name).fit(X).decision_scores_
    np.testing.assert_allclose(fast(name).fit(moved).decision_scores_, scores, rtol=1e-3, atol=1e-3)


@every_detector
def test_score__far_outside_the_training_range__finite(name):
    detector = fast(name).fit(GOOD)
    far = np.array([[1e300, -1e300, 0, 0, 0], [1e10] * 5])
    assert np.isfinite(detector.decision_function(far)).all()
    tiny = fast(name).fit(1e-20 * GOOD.astype(np.float64))
    assert np.isfinite(tiny.decision_function(far)).all()


@every_detector
@settings(max_examples=5)
@given(
    n=st.integers(2, 40),
    d=st.integers(1, 12),
    scale=st.floats(1e-20, 1e20),
    batch_size=st.integers(2, 50),
    seed=st.integers(0, 2**31 - 1),
)
def test_fit_and_score__any_size_and_scale__finite_and_repeatable(
    name, n, d, scale, batch_size, seed
):
    X = scale * np.random.default_rng(seed).standard_t(2, size=(n, d))
    detector = fast(name, epochs=1, batch_size=batch_size, random_state=seed).fit(X)
    assert np.isfinite(detector.decision_scores_).all()
    scores = detector.decision_function(X)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(detector.decision_function(X), scores)
    if detector.learns_by_heart:  # others leave a training row out of what it is compared with
        np.testing.assert_array_equal(detector.decision_scores_, scores)


@every_detector
def test_batch_size__one__trains_or_says_why_not(name):
    detector = fast(name, epochs=1, batch_size=1)
    try:
        assert np.isfinite(detector.fit(GOOD).decision_scores_).all()
    except ValueError as error:
        assert "batch_size=1" in str(error)  # noqa: PT017


# --- randomness ---------------------------------------------------------------------------------


@in_turns
def test_random_state__same_seed__same_scores_in_any_order(name, kind):
    X = samples(kind)
    first, second = fast(name), fast(name)
    later = second.fit(X).decision_scores_
    earlier = first.fit(X).decision_scores_
    np.testing.assert_array_equal(earlier, later)
    np.testing.assert_array_equal(first.fit(X).decision_scores_, earlier)


@trained_detectors
def test_random_state__other_seed_or_none__other_scores(name):
    scores = [fast(name, random_state=s).fit(GOOD).decision_scores_ for s in (0, 1, None, None)]
    for i in range(4):
        for j in range(i):
            assert not np.array_equal(scores[i], scores[j])


@representatives
def test_random_state__generator_object__advances(name):
    state = np.random.RandomState(0)
    first = fast(name, random_state=state).fit(GOOD).decision_scores_
    second = fast(name, random_state=state).fit(GOOD).decision_scores_
    assert not np.array_equal(first, second)
    again = fast(name, random_state=np.random.RandomState(0)).fit(GOOD).decision_scores_
    np.testing.assert_array_equal(first, again)


def fit_all_and_save_scores(path):
    np.savez(path, **{name: fast(name).fit(samples()).decision_scores_ for name in NAMES})


def test_random_state__another_process__same_scores(tmp_path):
    process = children.start(fit_all_and_save_scores, tmp_path / "scores.npz")
    process.join()
    found = np.load(tmp_path / "scores.npz")
    for name in NAMES:
        np.testing.assert_array_equal(found[name], fast(name).fit(GOOD).decision_scores_, name)


@every_detector
def test_global_generators__neither_read_nor_moved(name):
    def states():
        numpy_state = np.random.get_state()[1].tolist()  # noqa: NPY002
        return random.getstate(), numpy_state, torch.get_rng_state().tolist()

    before = states()
    scores = fast(name).fit(GOOD).decision_function(GOOD)
    fast(name, random_state=None).fit(GOOD)
    assert states() == before
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(fast(name).fit(GOOD).decision_function(GOOD), scores)


@every_detector
def test_output__silent_by_default(name, capfd, recwarn):
    fast(name).fit(GOOD).predict(GOOD)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


@representatives
def test_verbose__one__shows_the_loss_terms(name, capfd):
    detector = fast(name, verbose=1).fit(GOOD)
    shown = capfd.readouterr().err
    for term in set(detector.history_[0]) - {"phase", "epoch", "seconds"}:
        assert term in shown


@trained_detectors
def test_noise__another_seed__other_noise_on_the_same_start(name):
    """The stream of noise, too, comes from random_state."""
    drawn = []
    for seed in (0, 0, 1):
        detector = fast(name, random_state=seed, epochs=1)
        draw = type(detector)._noise

        def record(self, n, shape, generator, draw=draw):
            noise = draw(self, n, shape, generator)
            drawn.append(noise if isinstance(noise, tuple) else (noise,))
            return noise

        twin = type("Twin", (type(detector),), {"_noise": record})(
            **detector.get_params(deep=False)
        )
        twin.fit(GOOD)
    first, again, other = (drawn[i * len(drawn) // 3] for i in range(3))
    for a, b, c in zip(first, again, other, strict=True):
        assert a is None or (torch.equal(a, b) and not torch.equal(a, c))


AMBIENT = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "float64 by default": lambda: default_dtype(torch.float64),
    "meta by default": lambda: torch.device("meta"),
}


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


@every_detector
@pytest.mark.parametrize("mode", AMBIENT)
def test_ambient_torch_state__does_not_matter(name, mode):
    expected = fast(name).fit(GOOD).decision_function(GOOD)
    with AMBIENT[mode]():
        scores = fast(name).fit(GOOD).decision_function(GOOD)
    assert np.isfinite(scores).all()
    if mode != "float64 by default":  # whose initial weights are other draws
        np.testing.assert_allclose(scores, expected, rtol=1e-6)


@representatives
def test_numpy_scalars__as_hyper_parameters__work_and_stay(name):
    params = {"batch_size": np.int64(8), "lr": np.float64(1e-3), "epochs": np.int32(2)}
    detector = fast(name, **params, network=MLP(hidden=tuple(np.array([4])))).fit(GOOD)
    plain = fast(name, batch_size=8, lr=1e-3, epochs=2, network=MLP(hidden=(4,))).fit(GOOD)
    np.testing.assert_array_equal(detector.decision_scores_, plain.decision_scores_)
    assert all(getattr(detector, key) is value for key, value in params.items())


# --- a row's score is its own -------------------------------------------------------------------


@in_turns
def test_score__bad_batch_size__named(name, kind):
    detector = fast(name).fit(samples(kind))
    for size in (0, -1, 1.5, "a"):
        with pytest.raises(ValueError, match="batch_size"):
            detector.decision_function(samples(kind), batch_size=size)


@in_turns
def test_score__neighbours_order_and_batch_size__do_not_matter(name, kind):
    detector = fast(name).fit(samples(kind))
    X = samples(kind, n=70, seed=1)
    scores = detector.decision_function(X)
    order = np.random.default_rng(0).permutation(70)
    np.testing.assert_allclose(detector.decision_function(X[order]), scores[order], **TOLERANCE)
    for size in (1, 7, 33, 1000):
        np.testing.assert_allclose(
            detector.decision_function(X, batch_size=size), scores, **TOLERANCE
        )
    one_by_one = np.concatenate([detector.decision_function(row[None]) for row in X[:20]])
    np.testing.assert_allclose(one_by_one, scores[:20], **TOLERANCE)


@every_detector
def test_score__next_to_an_outlier__same(name):
    detector = fast(name).fit(GOOD)
    with_outlier = np.concatenate([GOOD, np.full((1, 5), 1e9, GOOD.dtype)])
    np.testing.assert_allclose(
        detector.decision_function(with_outlier)[:40],
        detector.decision_function(GOOD),
        **TOLERANCE,
    )


@every_detector
def test_score__does_not_change_the_detector(name):
    detector = fast(name).fit(GOOD)
    before = {k: v.clone() for k, v in detector.module_.state_dict().items()}
    detector.decision_function(samples(seed=3))
    for key, value in detector.module_.state_dict().items():
        assert torch.equal(value, before[key])


# --- fit again, interrupted fits ----------------------------------------------------------------


@every_detector
def test_refit__on_another_width__is_like_new(name):
    detector = fast(name).fit(GOOD).fit(GOOD[:, :3])
    np.testing.assert_array_equal(
        detector.decision_scores_, fast(name).fit(GOOD[:, :3]).decision_scores_
    )
    assert detector.n_features_in_ == 3


@representatives
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_refit__interrupted__detector_is_as_before(name, error):
    def interrupt(event):
        raise error

    detector = fast(name).fit(GOOD)
    scores = detector.decision_scores_.copy()
    detector.callbacks = [interrupt]
    with pytest.raises(error):
        detector.fit(samples(seed=1)[:, :3])
    np.testing.assert_array_equal(detector.decision_function(GOOD), scores)
    assert detector.n_features_in_ == 5

    unfitted = fast(name, callbacks=[interrupt])
    with pytest.raises(error):
        unfitted.fit(GOOD)
    with pytest.raises(NotFittedError):
        unfitted.decision_function(GOOD)


@every_detector
def test_deepcopy__fitted__same_scores_and_independent(name):
    detector = fast(name).fit(GOOD)
    twin = copy.deepcopy(detector)
    scores = detector.decision_function(GOOD)
    detector.fit(samples(seed=5))
    np.testing.assert_array_equal(twin.decision_function(GOOD), scores)


# --- training -----------------------------------------------------------------------------------


@in_turns
def test_history__every_epoch__finite_terms_that_fall(name, kind):
    detector = fast(name, epochs=40, lr=3e-3).fit(samples(kind))
    for _, phase in itertools.groupby(detector.history_, key=lambda entry: entry["phase"]):
        entries = list(phase)
        assert [entry["epoch"] for entry in entries] == list(range(40))
        terms = set(entries[0]) - {"phase", "epoch", "seconds"}
        totals = [sum(entry[term] for term in terms) for entry in entries]
        assert np.isfinite(totals).all()
        game = any(phase.cycle for phase in detector._phases())
        if game and "reconstruction" not in terms:  # what one side wins the other loses
            continue
        if game or "normalization" in terms:  # divided by the extremes of its batch: not the whole
            totals = [entry["reconstruction"] for entry in entries]
        assert np.mean(totals[-5:]) < np.mean(totals[:5])


@every_detector
def test_epochs__zero_or_auto(name):
    assert fast(name, epochs=0).fit(GOOD).history_ == []
    auto = fast(name, epochs="auto", batch_size=8, callbacks=[lambda event: True]).fit(GOOD)
    assert auto.epochs_ == min(auto.auto_epochs, auto.auto_steps / 5)  # 5 steps an epoch
    assert len(auto.history_) == len({entry["phase"] for entry in auto.history_})


@representatives
def test_early_stopping__on_held_out_rows__restores_the_best_weights(name):
    seen = []

    def record(event):
        if event.epoch == 0:
            seen.clear()  # the last phase counts
        weights = {k: v.clone() for k, v in event.module.state_dict().items()}
        seen.append((sum(event.validation.values()), weights))

    detector = fast(
        name,
        epochs=30,
        lr=0.05,
        validation_fraction=0.25,
        callbacks=[record, EarlyStopping(patience=3)],
    ).fit(GOOD)
    losses = [loss for loss, _ in seen]
    best = int(np.argmin(losses))
    assert len(losses) in (30, best + 4)
    refreshed = detector._after_training()  # which sets buffers after training
    with torch.no_grad():
        rows = torch.zeros(2, 5)
        statistics = refreshed.collect(detector.module_, rows) if refreshed else None
    later = set(refreshed.reduce(statistics)) if refreshed else set()
    for key, value in detector.module_.state_dict().items():
        assert key in later or torch.equal(value, seen[best][1][key])
    assert any(key.startswith("validation_") for key in detector.history_[0])
    assert detector.decision_scores_.shape == (40,)


@representatives
def test_held_out_rows__neither_trained_on_nor_scaled_by(name):
    detector = fast(name, validation_fraction=0.25, random_state=3)
    seen = []
    prepare, loss = type(detector)._prepare, type(detector)._loss
    prepared, trained = [], []

    def record_rows(self, X, y, rng):
        seen.append(X)
        prepared.append(prepare(self, X, y, rng)[0])
        return prepare(self, X, y, rng)

    def record_batch(self, module, batch):
        if module.training:
            trained.append(batch.x)
        return loss(self, module, batch)

    hooks = {"_prepare": record_rows, "_loss": record_batch}
    twin = type("Twin", (type(detector),), hooks)(**detector.get_params(deep=False))
    twin.set_params(scaler="minmax", epochs=1).fit(GOOD)
    trained_on, held_out = seen
    assert (len(trained_on), len(held_out)) == (30, 10)
    assert sum(len(x) for x in trained) == len(prepared[0])
    # Scaled by the rows that were trained on: these alone fill [0, 1] exactly.
    np.testing.assert_array_equal(trained_on.min(0), 0)
    np.testing.assert_array_equal(trained_on.max(0), 1)


@representatives
def test_validation_fraction__tiny_sets__one_row_or_a_clear_error(name):
    history = fast(name, validation_fraction=0.1).fit(GOOD[:4]).history_
    assert any(key.startswith("validation_") for key in history[0])
    with pytest.raises(ValueError, match="validation_fraction"):
        fast(name, validation_fraction=0.5).fit(GOOD[:3])


@trained_detectors
def test_loss__that_explodes__stops_with_the_name_of_the_term(name):
    with pytest.raises(FloatingPointError, match="loss term"):
        fast(name, lr=1e30, epochs=50, optimizer="sgd").fit(GOOD)


@representatives
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_optimizer__every_one__trains(name, optimizer):
    detector = fast(name, optimizer=optimizer, weight_decay=1e-4, epochs=3).fit(GOOD)
    untrained = fast(name, epochs=0).fit(GOOD)
    assert not np.array_equal(detector.decision_scores_, untrained.decision_scores_)


@every_detector
@pytest.mark.parametrize("batch_norm", [False, True])
def test_network__batch_norm_and_left_over_row__trains(name, batch_norm):
    network = MLP(hidden=(8,), batch_norm=batch_norm)
    detector = fast(name, network=network, batch_size=8).fit(samples(n=33))
    assert np.isfinite(detector.decision_scores_).all()


@every_detector
def test_default_settings__easy_problem__solved(name):
    generator = np.random.default_rng(0)
    X = generator.normal(size=(300, 6)) @ generator.normal(size=(6, 6))
    if "table" in getattr(deepod, name).inputs:
        rows = np.concatenate([X[:100], 8 * X[100:150]])
    else:  # images that grow darker, and others that are turned by a quarter
        X = np.linspace(-3, 3, 64).reshape(8, 8) + generator.normal(size=(300, 1, 8, 8))
        rows = np.concatenate([X[:100], X[100:150].swapaxes(2, 3)])
    detector = as_usual(name).fit(X[150:])
    scores = detector.decision_function(rows)
    for size, some in ((1, 15), (7, 5), (100, 1)):  # the promise holds for trained weights, too
        found = detector.decision_function(rows[::some], batch_size=size)
        np.testing.assert_allclose(found, scores[::some], **TOLERANCE)
    assert roc_auc_score(np.repeat([0, 1], [100, 50]), scores) > 0.9


# --- devices ------------------------------------------------------------------------------------


@every_input
@pytest.mark.gpu
def test_cuda__same_start_and_close_scores(name, kind):
    X = samples(kind)
    cpu, gpu = (fast(name, device=d, epochs=0).fit(X) for d in ("cpu", "cuda"))
    np.testing.assert_allclose(gpu.decision_scores_, cpu.decision_scores_, rtol=1e-3, atol=1e-4)
    trained = fast(name, device="cuda").fit(X)
    assert trained.device_.type == "cuda"
    state = trained.__getstate__()
    assert not any(p.is_cuda for p in state["module_"].parameters())
    assert next(trained.module_.parameters()).is_cuda
    loaded = copy.deepcopy(trained)
    np.testing.assert_allclose(loaded.decision_function(X), trained.decision_scores_, rtol=1e-5)


def test_watched_reads__class_that_looks_at_itself__fits_and_comes_back():
    """What a method depends on is found out without another class or another object."""
    builders, born = {}, []

    @parameters
    class Own(deepod.AutoEncoder):
        __module__ = __name__

        def __init_subclass__(cls, *, final=False, **kwargs):
            born.append(cls)

        def _build_module(self, shape):
            assert builders[type(self)] == "own"
            copy.deepcopy(self.get_params())
            self.built_ = True
            return super(type(self), self)._build_module(shape)

    builders[Own] = "own"
    detector = Own(epochs=1, random_state=0).fit(samples())
    assert detector.built_
    assert not born
    several = [Own(epochs=1, random_state=k) for k in range(2)]
    for one in deepod.fit_many(several[0], samples(), seeds=range(2)):
        assert type(one) is Own


def test_fit__nothing_to_train__a_random_projection():
    @parameters
    class Projection(deepod.AutoEncoder):
        def _build_module(self, shape):
            return super()._build_module(shape).requires_grad_(False)

    detector = Projection(epochs=0, random_state=0).fit(samples())
    assert np.isfinite(detector.decision_scores_).all()


def test_fitted_detector__keeps_no_work_space():
    detector = fast("AutoEncoder").fit(samples(n=500))
    detector.decision_function(samples(n=500))
    assert not detector.scaler_._known
