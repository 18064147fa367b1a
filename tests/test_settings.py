"""Settings of the process and of torch that must not change results."""

import contextlib
import pickle
import warnings

import numpy as np
import pytest
import sklearn
import torch

import deepod
from deepod import onnx
from tests.cases import (
    FAST,
    SERIES_NAMES,
    fast,
    fast_series,
    fitted,
    samples,
    waves,
)


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def warnings_as_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


OF_TORCH = {
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "meta": lambda: default_device("meta"),
    "inference mode": torch.inference_mode,
    "no_grad": torch.no_grad,
}
OTHERS = {
    "NumPy raises": lambda: np.errstate(all="raise"),
    "warnings are errors": warnings_as_errors,
    "assume_finite": lambda: sklearn.config_context(assume_finite=True),
    "output of pandas": lambda: sklearn.config_context(transform_output="pandas"),
}
MODES = OF_TORCH | OTHERS
every_mode = pytest.mark.parametrize("mode", MODES)

ENSEMBLES = {
    "Consensus": lambda: deepod.Consensus([fast("Neighbors"), fast("AutoEncoder")], random_state=0),
    "SeedEnsemble": lambda: deepod.SeedEnsemble(fast("DeepSVDD"), 2, random_state=0),
    "cross-fitted": lambda: fast("DeepSVDD", cross_fitting=True),
    "traced": lambda: fast("DeepSVDD", engine="trace"),
}


QUICK = ("DeepSVDD", "Consensus", "RidgeAR")
every_kind = pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in [*FAST, *ENSEMBLES, *SERIES_NAMES]
    ],
)


def unfitted(name):
    if name in ENSEMBLES:
        return ENSEMBLES[name]()
    if name in FAST:
        return fast(name)
    # Windows of rows are scored as they come in any order.
    return fast_series(name, smoothing="causal")


def rows_for(name):
    if name in SERIES_NAMES:
        return waves()
    return samples(getattr(deepod, name).inputs[0] if name in FAST else "table", n=64)


def used(detector, X, folder):
    """What all that a fitted detector can be asked gives."""
    found = {
        "scores": detector.decision_function(X),
        "labels": detector.predict(X),
        "reasons": detector.explain(X[:20]),
        "batches": np.concatenate(list(detector.score_batches([X[:32], X[32:]]))),
    }
    detector.save(folder / "it.deepod")
    found["file"] = np.frombuffer((folder / "it.deepod").read_bytes(), np.uint8)
    for way, twin in {
        "load": deepod.load(folder / "it.deepod"),
        "pickle": pickle.loads(pickle.dumps(detector)),
    }.items():
        found[way] = twin.decision_function(X)
    if hasattr(detector, "stream"):
        stream = detector.stream()
        found["stream"] = np.append([stream.push(x) for x in X[:12]], stream.push_many(X[12:]))
    return found


def state():
    """Whatever of torch could be left changed."""
    return (
        *(torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()),
        *(torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()),
        *(torch.get_num_threads(), tuple(np.geterr().items())),
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    known = {}

    def of(name):
        if name not in known:
            detector = unfitted(name).fit(rows_for(name))
            folder = tmp_path_factory.mktemp("models")
            known[name] = detector, used(detector, rows_for(name), folder)
        return known[name]

    return of


@every_kind
def test_settings__fit__same_scores(name, expected):
    detector, _ = expected(name)
    X = rows_for(name)
    for mode in MODES:
        with MODES[mode]():
            before = state()
            scores = unfitted(name).fit(X).decision_scores_
            assert state() == before, mode
        np.testing.assert_array_equal(scores, detector.decision_scores_, err_msg=mode)


@every_kind
def test_settings__fitted__same_results_everywhere(name, expected, tmp_path):
    detector, known = expected(name)
    for mode in MODES:
        with MODES[mode]():
            before = state()
            found = used(detector, rows_for(name), tmp_path)
            assert state() == before, mode
        for way, values in known.items():
            np.testing.assert_array_equal(found[way], values, err_msg=f"{way}, {mode}")


@every_mode
def test_settings__partial_fit__same_scores(mode):
    def scores():
        x = waves(400, channels=None)
        detector = deepod.series.ReRe(window=10, smoothing="causal", random_state=0)
        return detector.fit(x[:200]).partial_fit(x[200:300]).decision_function(x[300:])

    expected = scores()
    with MODES[mode]():
        np.testing.assert_array_equal(scores(), expected)


@pytest.mark.slow
@pytest.mark.parametrize("mode", OF_TORCH)
def test_settings__onnx__same_file(mode, tmp_path):
    pytest.importorskip("onnxscript")
    detector = fitted("DeepSVDD")
    onnx.export(detector, tmp_path / "plain.onnx")
    with MODES[mode]():
        onnx.export(detector, tmp_path / "other.onnx")
    session = pytest.importorskip("onnxruntime").InferenceSession
    plain, other = (
        session(tmp_path / f"{name}.onnx").run(None, {"X": samples().astype(np.float64)})
        for name in ("plain", "other")
    )
    for a, b in zip(plain, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mode", OF_TORCH)
def test_settings__after_an_error__as_before(mode):
    class Failing(deepod.DeepSVDD):
        def _score(self, module, x):
            raise ArithmeticError("on purpose")

    broken = Failing(epochs=1, cross_fitting=False)
    fine = fitted("DeepSVDD")
    with MODES[mode]():
        before = state()
        with pytest.raises(ArithmeticError, match="on purpose"):
            broken.fit(samples())
        with pytest.raises(ValueError, match="features"):
            fine.decision_function(samples()[:, :2])
        with pytest.raises(deepod.InvalidFileError):
            deepod.load(__file__)
        batches = fine.score_batches([samples()] * 2)
        next(batches)  # the caller goes on between two batches
        assert state() == before


def test_settings__two_threads_in_turns__as_before():
    """The first to begin ends first: what it found is put back when the last has ended."""
    from deepod._inputs.settings import fixed

    with default_dtype(torch.float64):
        first, second = fixed(), fixed()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float32
        second.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float64
