"""What holds of every detector for any rows: properties, searched for counterexamples.

The few examples of the fast suite are the same in every run; ``-m slow`` draws many new ones.
"""

import contextlib
import copy
import dataclasses
import pickle
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import deepod
from deepod.networks import MLP

from .cases import IN_TURNS, NAMES_AND_KINDS, fast

FEW, MANY = 4, 100
FEW_OR_MANY = [
    *(pytest.param(*case, FEW, id="-".join(case)) for case in IN_TURNS),
    *(
        pytest.param(*case, MANY, id="-".join(case) + "-many", marks=pytest.mark.slow)
        for case in NAMES_AND_KINDS
    ),
]
few_or_many = pytest.mark.parametrize(("name", "kind", "examples"), FEW_OR_MANY)


def search(examples, strategy):
    """Decorate a property: look for a counterexample at once."""

    def run(holds):
        searching = settings(
            max_examples=examples,
            database=None,
            derandomize=examples == FEW,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        searching(given(strategy)(holds))()

    return run


# --- rows ---------------------------------------------------------------------------------------

COLUMNS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "constant": lambda rng, n: np.full(n, 1.5),
    "two values": lambda rng, n: rng.integers(0, 2, n).astype(float),
    "Cauchy": lambda rng, n: rng.standard_cauchy(n),
    "Pareto": lambda rng, n: rng.pareto(0.5, n),
    "offset": lambda rng, n: 1e6 + 1e-3 * rng.normal(size=n),
    "rarely other": lambda rng, n: (rng.random(n) < 0.05).astype(float),
}
BOUNDS = {"f2": 6e4, "f4": 3e38, "f8": 1e300, "i4": 2e9, "i8": 9e18, "O": 1e300}
DTYPES = [*BOUNDS, "u1", "?"]
LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "strided": lambda X: np.repeat(X, 2, axis=0)[::2],
    "backwards": lambda X: X[::-1, ::-1],
    "read-only": lambda X: np.broadcast_to(X, X.shape),
}


@dataclasses.dataclass
class Rows:
    """A kind of rows, of which there are as many as one likes."""

    n: int
    columns: list[tuple[str, float]]  # how each feature or channel is drawn, and its exponent
    trailing: tuple[int, ...]  # height and width, or number of times
    copied_column: bool
    copied_rows: bool
    dtype: str
    layout: str
    gaps: float  # share of values that are missing, of types that can
    seed: int

    def draw(self, n: int | None = None, seed: int = 0) -> np.ndarray:
        n = self.n if n is None else n
        rng = np.random.default_rng([self.seed, seed])
        size = n * int(np.prod(self.trailing))
        columns = [10.0**exponent * COLUMNS[how](rng, size) for how, exponent in self.columns]
        if self.copied_column:
            columns[-1] = columns[0]
        X = np.stack(columns).reshape(len(columns), n, *self.trailing)
        X = np.moveaxis(X, 0, 1 if len(self.trailing) == 2 else -1)
        if self.copied_rows:
            X[n // 2 :] = X[0]
        X = self._typed(X)
        if X.dtype.kind in "fO":
            X[rng.random(X.shape) < self.gaps] = np.nan
        return LAYOUTS[self.layout](X)

    def far(self) -> np.ndarray:
        """Rows as far outside as the type allows."""
        X = np.nan_to_num(self.draw(6).astype(float))
        signs = np.random.default_rng(self.seed).choice([-1.0, 0.0, 1.0], X.shape)
        return self._typed(np.where(signs, signs * BOUNDS.get(self.dtype, 255), X))

    def _typed(self, X: np.ndarray) -> np.ndarray:
        if self.dtype == "?":
            return np.median(X) < X
        low, high = (0, 255) if self.dtype == "u1" else (-1, 1) * np.array(BOUNDS[self.dtype])
        return np.clip(X, low, high).astype(self.dtype)


def rows(kind, least=2):
    exponents = st.one_of(st.just(0.0), st.floats(-30, 30))
    column = st.tuples(st.sampled_from(sorted(COLUMNS)), exponents)
    trailing = {
        "table": st.just(()),
        "windows": st.tuples(st.integers(1, 6)),
        "images": st.tuples(st.integers(4, 9), st.integers(4, 9)),
    }
    return st.builds(
        Rows,
        n=st.integers(least, 60),
        columns=st.lists(column, min_size=1, max_size=12 if kind == "table" else 3),
        trailing=trailing[kind],
        copied_column=st.booleans(),
        copied_rows=st.booleans(),
        dtype=st.sampled_from(DTYPES),
        layout=st.sampled_from(sorted(LAYOUTS)),
        gaps=st.sampled_from([0.0, 0.0, 0.0, 0.3, 1.0]),
        seed=st.integers(0, 2**31 - 1),
    )


def options(name):
    """Every parameter of a detector that is one of a few words, with the words."""
    found = {}
    for field in dataclasses.fields(getattr(deepod, name)):
        accepted = field.metadata["accepts"]
        values = [word for a in accepted for word in sorted(getattr(a, "options", []))]
        values += [None] * (None in accepted) + [False, True] * ("boolean" in accepted)
        values = [v for v in values if v not in ("compile", "cuda_graph")]  # slow; no GPU
        if len(values) > 1:
            found[field.name] = st.sampled_from(values)
    return found


def detectors(name):
    return st.builds(
        lambda plain, chosen: fast(name, **(plain | chosen)),
        st.fixed_dictionaries(
            {
                "epochs": st.integers(0, 2),
                "batch_size": st.integers(2, 70),
                "random_state": st.integers(0, 2**31 - 1),
                "contamination": st.floats(1e-3, 0.5),
                "validation_fraction": st.sampled_from([0.0, 0.0, 0.25]),
                "weight_decay": st.sampled_from([0.0, 1e-3]),
            }
        ),
        st.fixed_dictionaries({}, optional=options(name)),
    )


def labels_for(X, detector):
    """Labels where the detector asks for them, of both classes."""
    if getattr(detector, "supervision", None) is None:
        return None
    return (np.arange(len(X)) % 3 == 1).astype(int)


@st.composite
def cases(draw, name, kind):
    """Rows, and a detector to fit on them."""
    case, detector = draw(rows(kind)), draw(detectors(name))
    if detector.missing == "refuse":
        case.gaps = 0.0
    return case, detector


def fitted(detector, X):
    """Fit, or say clearly why not."""
    refusal: Exception
    try:
        return detector.fit(X, labels_for(X, detector))
    except (ValueError, FloatingPointError) as error:
        refusal = error
    if isinstance(refusal, FloatingPointError):
        # Values that no scaler touched may be too large to train on.
        assert detector.scaler is None
        assert "set scaler='standard'" in str(refusal)
    else:
        # Settings that do not go together, or not with these rows.
        assert any(name in str(refusal) for name in detector.get_params(deep=False))
    event(str(refusal))
    return None


# --- properties ---------------------------------------------------------------------------------


@few_or_many
def test_fit_and_score__any_rows__finite(name, kind, examples):
    @search(examples, cases(name, kind))
    def holds(case):
        rows, detector = case
        X = rows.draw()
        before = X.astype(float)
        if fitted(detector, X) is None:
            return
        np.testing.assert_array_equal(X.astype(float), before)
        assert detector.decision_scores_.shape == (len(X),)
        if not detector.unseen_:  # else training rows are scored by the others, or by half of them
            np.testing.assert_array_equal(detector.decision_function(X), detector.decision_scores_)
        for new in (X, rows.draw(9, seed=1), rows.far()):
            scores, labels = detector.decision_function(new), detector.predict(new)
            assert scores.dtype == np.float64
            assert np.isfinite(scores).all()
            assert set(labels) <= {0, 1}
            probabilities = detector.predict_proba(new)
            np.testing.assert_allclose(probabilities.sum(1), 1)
            assert ((probabilities >= 0) & (probabilities <= 1)).all()


@few_or_many
def test_score__any_rows__neighbours_do_not_matter(name, kind, examples):
    @search(examples, st.tuples(cases(name, kind), st.integers(1, 40)))
    def holds(drawn):
        (rows, detector), size = drawn
        if fitted(detector, rows.draw()) is None:
            return
        X = np.concatenate([rows.draw(20, seed=1), rows.far()])
        scores = detector.decision_function(X)
        order = np.random.default_rng(rows.seed).permutation(len(X))
        shuffled = detector.decision_function(X[order], batch_size=size)
        # A small score may be the difference of terms as large as those of other rows.
        rounding = {"rtol": 1e-6, "atol": 1e-6 * max(1.0, np.median(np.abs(scores)))}
        np.testing.assert_allclose(shuffled, scores[order], **rounding)
        alone = detector.decision_function(X[order[:1]])
        np.testing.assert_allclose(alone, scores[order[:1]], **rounding)


def round_trips(detector):
    """Copies of a detector, fitted or not, by every way there is to make one."""
    yield "pickle", pickle.loads(pickle.dumps(detector))
    yield "deepcopy", copy.deepcopy(detector)
    if hasattr(detector, "module_"):
        with TemporaryDirectory() as folder:
            detector.save(f"{folder}/model.deepod")
            yield "save", deepod.load(f"{folder}/model.deepod")


def same(one, other, X):
    """Whether two detectors are the same, to the last bit."""
    assert one.get_params(deep=False).keys() == other.get_params(deep=False).keys()
    # Files leave out what nobody needs of a model that was loaded.
    left_out = {"_unseen_scores"}
    assert vars(one).keys() | left_out == vars(other).keys() | left_out
    np.testing.assert_array_equal(one.decision_scores_, other.decision_scores_)
    np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))
    np.testing.assert_array_equal(one.labels_, other.labels_)
    assert one.threshold_ == other.threshold_
    weights, others = one.module_.state_dict(), other.module_.state_dict()
    assert weights.keys() == others.keys()
    for key, value in weights.items():
        np.testing.assert_array_equal(value.numpy(), others[key].numpy(), err_msg=key)

    def terms(detector):
        return [{k: v for k, v in e.items() if k != "seconds"} for e in detector.history_]

    assert terms(one) == terms(other)


@few_or_many
def test_copy__before_or_after_fit__the_same_detector(name, kind, examples):
    @search(examples, cases(name, kind))
    def holds(case):
        rows, detector = case
        X = rows.draw()
        copies = list(round_trips(detector))
        if fitted(detector, X) is None:
            return
        for _, twin in copies:
            same(fitted(twin, X), detector, rows.far())
        for _, twin in round_trips(detector):
            same(twin, detector, rows.far())
            same(fitted(twin, X), detector, rows.far())


class Interrupt(BaseException):
    pass


def interrupt(event):
    raise Interrupt


def _fit_more_columns(detector, X):
    fitted(detector, np.concatenate([X, X], axis=1 if X.ndim == 4 else -1))


def _fit_fewer_rows_of_another_kind(detector, X):
    shape = {2: (3, 2), 3: (1, 8, 8)}.get(X.ndim, (5,))
    detector.set_params(network="auto", scaler="standard")
    fitted(detector, np.random.default_rng(0).normal(size=(9, *shape)))


def _fail(detector, X):
    with pytest.raises(ValueError, match="infinity"):
        detector.fit(np.full(X.shape, np.inf))


def _diverge(detector, X):
    detector.set_params(lr=1e30, optimizer="sgd", epochs=20, scaler="standard")
    with contextlib.suppress(ValueError, FloatingPointError):
        detector.fit(np.random.default_rng(0).normal(size=(20, 3)))


def _interrupt(detector, X):
    detector.set_params(callbacks=[interrupt], epochs=1)
    if not detector.auto_epochs:  # nothing to interrupt
        return
    with pytest.raises(Interrupt):
        detector.fit(X, labels_for(X, detector))


def _change_parameters(detector, X):
    detector.set_params(lr=0.1, contamination=0.3, missing="impute", network=MLP(hidden=(3,)))
    fitted(detector, X)


def _score(detector, X):
    if detector.__sklearn_is_fitted__() and detector.input_shape_ == X.shape[1:]:
        detector.contamination = 0.4
        detector.predict(X)


EVENTS = [
    _fit_more_columns,
    _fit_fewer_rows_of_another_kind,
    _fail,
    _diverge,
    _interrupt,
    _change_parameters,
    _score,
]


@few_or_many
def test_refit__after_anything__equals_a_fresh_fit(name, kind, examples):
    happened = st.lists(st.sampled_from(EVENTS), min_size=1, max_size=4)

    @search(examples, st.tuples(cases(name, kind), happened))
    def holds(drawn):
        (rows, detector), happened = drawn
        X, params = rows.draw(), detector.get_params(deep=False)
        fresh = getattr(deepod, name)(**params)
        if fitted(fresh, X) is None:
            return
        for happen in happened:
            happen(detector, X)
            detector.set_params(**params)
        same(fitted(detector, X), fresh, rows.far())
