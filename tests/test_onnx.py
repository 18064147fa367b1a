"""Files that score as the detector does, without it."""

import builtins
import copy
import functools
import json
import logging
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from pyod.models.iforest import IForest
from sklearn.exceptions import NotFittedError

import deepod
from deepod import onnx
from deepod.networks import MLP, LeNet, Prototypes, Recurrent

from .cases import EVERY_NAME, NAMES, NAMES_AND_KINDS, SHAPES, fast, samples

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
checker = pytest.importorskip("onnx.checker")

# Relative, and absolute for scores near zero.
BOUND = 1e-5
SCALERS = {kind: ["standard", "minmax", "symmetric", None] for kind in SHAPES}
SCALERS["images"].append("gcn")
# Kinds of samples and scalers in turns: an export takes a second, and the rest is for -m slow.
IN_TURNS = [
    (name, kind, SCALERS[kind][i // len(kinds) % len(SCALERS[kind])])
    for i, name in enumerate(name for name in EVERY_NAME if getattr(deepod, name).has_graph)
    for kinds in [getattr(deepod, name).inputs]
    for kind in [kinds[i % len(kinds)]]
]
WITH_GRAPH = [(name, kind) for name, kind in NAMES_AND_KINDS if getattr(deepod, name).has_graph]
WITHOUT_GRAPH = [name for name in NAMES if not getattr(deepod, name).has_graph]
ALL_SCALERS = [(name, kind, scaler) for name, kind in WITH_GRAPH for scaler in SCALERS[kind]]
OPTIONS = [
    *(("AnoRand", {"fusion": fusion}) for fusion in ("paper", "swapped", "mean", "detection")),
    ("AnoRand", {"fusion": "mean", "z0": "output"}),
    ("DSEBM", {"score_by": "reconstruction"}),
    ("DeepSVDD", {"objective": "soft"}),
    ("GaussianAD", {"pca": "last"}),
    ("IAEAD", {"score_by": "distance"}),
    ("IAEAD", {"score_by": "reconstruction"}),
    ("IAELSTMKL", {"score_by": "distance", "use_decoder": False}),
    ("IAELSTMKL", {"score_by": "reconstruction", "gates": ()}),
    ("IAELSTMKL", {"gate": None}),
    ("HRN", {"instance_norm": "l2"}),
    ("IGD", {"score_by": "gaussian"}),
    ("LSA", {"score_by": "likelihood"}),
    ("LSA", {"score_by": "reconstruction"}),
    ("MemAE", {"similarity": "cosine"}),
    ("NSAE", {"normalize": None}),
    ("NSAE", {"normalize": "attached", "error": "norm"}),
    ("NSAE", {"l0": "hard_concrete"}),
    ("PLAD", {"network": "mlp", "n_members": 3}),
    ("PLAD", {"network": MLP(hidden=(4,), batch_norm=True), "n_members": 3}),
    ("PLAD", {"network": Prototypes(n_prototypes=3), "n_members": 1}),
    ("VAE", {"score_by": "elbo"}),
    *(
        ("AutoEncoder", {"network": MLP(hidden=(4,), activation=activation)})
        for activation in ("relu", "elu", "gelu", "silu", "tanh", "sigmoid")
    ),
]
NETWORKS = [
    ("AutoEncoder", (6, 3), {"network": Recurrent(hidden=(4, 3), cell="lstm")}),
    ("AutoEncoder", (6, 3), {"network": Recurrent(hidden=(4, 3), bias=False)}),
    ("NSAE", (6, 3), {"l0": "hard_concrete"}),
    ("PLAD", (6, 3), {"network": Recurrent(cell="lstm"), "n_members": 2}),
    ("PLAD", (6, 3), {"network": Prototypes()}),
    ("AutoEncoder", (2, 9, 7), {"network": LeNet(batch_norm=True)}),
    ("IAEAD", (1, 9, 7), {"network": LeNet(channels=(2, 3, 4), kernel_size=3, pad_to=8)}),
]


@pytest.fixture(autouse=True, scope="module")
def _operators_once():
    """Translations of torch's operators, which every export would otherwise compile anew."""
    from onnxscript._framework_apis import torch_2_5

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_2_5, "get_torchlib_ops", functools.cache(torch_2_5.get_torchlib_ops))
        yield


def normal(shape, n, seed=0):
    return 3 + 2 * np.random.default_rng(seed).normal(size=(n, *shape))


def rows(shape):
    """New rows: normal ones, far ones, and some far beyond what float32 can square."""
    sizes = np.repeat([1.0, 30.0, 1e12], [40, 5, 3])
    return normal(shape, 48, seed=1) * sizes.reshape(-1, *[1] * len(shape))


def fitted(name, shape=SHAPES["table"], **params):
    return fast(name, **params).fit(normal(shape, 40))


def opened(detector, folder, **options):
    path = folder / "detector.onnx"
    onnx.export(detector, path, **options)
    checker.check_model(path, full_check=True)
    return onnxruntime.InferenceSession(path)


def allowed(detector, X, scores):
    """Rounding is relative to the numbers that scores are differences of: more, if they are large.

    Of standardised scores what is subtracted, of values beyond 1e9 the products in the network.
    """
    offset, spread = 0.0, 1.0
    if not hasattr(detector, "module_"):
        return BOUND * (1 + np.abs(scores))
    known = dict(detector.module_.named_buffers())
    if getattr(detector, "score_by", None) == "combined":
        if "mean" in known:
            offset, spread = known["mean"], known["std"]
        elif "low" in known:
            offset, spread = known["low"], known["high"] - known["low"]
    if getattr(detector, "normalize", None):
        offset, spread = known["extremes.low"], known["extremes.high"] - known["extremes.low"]
    least = max(1.0, float(np.max(np.asarray(offset / spread))))
    extreme = np.nanmax(np.abs(X.reshape(len(X), -1)), 1) > 1e9
    return BOUND * (least + np.where(extreme, 100, 1) * np.abs(scores))


def assert_alike(detector, X, folder, **options):
    """As many rows at once as you like; labels but for scores at the threshold."""
    session = opened(detector, folder, **options)
    for part in (X, X[:1], X[:33]):
        scores, labels = session.run(None, {"X": part})
        expected = detector.decision_function(part)
        near = allowed(detector, part, expected)
        assert scores.dtype == np.float64
        assert labels.dtype == np.int64
        assert (np.abs(scores - expected) <= near).all()
        clear = np.abs(expected - detector.threshold_) > near
        np.testing.assert_array_equal(labels[clear], detector.predict(part)[clear])


# --- scores -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind", "scaler"), IN_TURNS)
def test_export__every_detector__scores_like_the_detector(name, kind, scaler, tmp_path):
    assert_alike(fitted(name, SHAPES[kind], scaler=scaler), rows(SHAPES[kind]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "scaler"), ALL_SCALERS)
def test_export__every_scaler__scores_like_the_detector(name, kind, scaler, tmp_path):
    assert_alike(fitted(name, SHAPES[kind], scaler=scaler), rows(SHAPES[kind]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "params"), OPTIONS)
def test_export__every_option_of_the_score__scores_like_the_detector(name, params, tmp_path):
    assert_alike(fitted(name, **params), rows(SHAPES["table"]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape", "params"), NETWORKS)
def test_export__other_networks__score_like_the_detector(name, shape, params, tmp_path):
    assert_alike(fitted(name, shape, **params), rows(shape), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), WITH_GRAPH)
def test_export__default_settings__score_like_the_detector(name, kind, tmp_path):
    """Weights of a training that was not cut short."""
    detector = getattr(deepod, name)(random_state=0).fit(normal(SHAPES[kind], 300))
    assert_alike(detector, rows(SHAPES[kind]), tmp_path)


def test_export__column_far_from_zero__keeps_its_digits(tmp_path):
    X = 1e6 + 1e-3 * normal((5,), 60)
    assert_alike(fast("AutoEncoder").fit(X[:40]), X, tmp_path)


def test_export__score_beyond_float32__its_largest_number(tmp_path):
    detector = fitted("DeepSVDD", epochs=0, network="prototypes", scaler="minmax")
    X = np.full((1, *SHAPES["table"]), 1e30)
    assert detector.decision_function(X) == np.finfo(np.float32).max
    assert_alike(detector, X, tmp_path)


def test_export__constant_images_and_columns__score_like_the_detector(tmp_path):
    X = rows(SHAPES["images"])
    X[:3] = 7.0
    X[3] = 0.0
    assert_alike(fitted("AutoEncoder", SHAPES["images"], scaler="gcn"), X, tmp_path)
    constant = normal((5,), 40)
    constant[:, 2] = 3.0
    assert_alike(fast("DeepSVDD", scaler="minmax").fit(constant), constant, tmp_path)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("table", "float64"), ("windows", "float32"), ("images", "float64")]
)
def test_missing__imputed__by_the_graph_too(kind, dtype, tmp_path):
    X = normal(SHAPES[kind], 48).astype(dtype)
    X[np.random.default_rng(0).random(X.shape) < 0.2] = np.nan
    detector = fast("AutoEncoder", missing="impute").fit(X)
    assert_alike(detector, X, tmp_path, dtype=dtype)


@pytest.mark.slow
def test_export__long_windows__one_operator_per_layer(tmp_path):
    """Unrolled, the graph would grow with the time, and the export take minutes."""
    sizes = []
    for steps in (5, 40):
        onnx.export(fitted("AutoEncoder", (steps, 2), epochs=1), tmp_path / "a.onnx")
        sizes.append((tmp_path / "a.onnx").stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 100


@pytest.mark.parametrize(
    ("combination", "more"),
    [
        ("median", []),
        *(pytest.param(c, ["DeepSVDD"], marks=pytest.mark.slow) for c in ("mean", "median", "max")),
    ],
)
def test_export__consensus_with_gaps__scores_and_labels_like_it(combination, more, tmp_path):
    shape = SHAPES["windows"]
    X = normal(shape, 40).reshape(40, -1)
    X[3, 2] = np.nan
    members = [fast("Neighbors"), fast("AutoEncoder", input_shape=shape), *map(fast, more)]
    for member in members:
        member.set_params(missing="impute")
    one = deepod.Consensus(members, combination=combination, random_state=0).fit(X)
    new = rows(shape).reshape(48, -1)
    new[::7, 3] = np.nan
    assert_alike(one.set_threshold(1.5), new, tmp_path)


def test_export__seed_ensemble__scores_and_labels_like_it(tmp_path):
    one = deepod.SeedEnsemble(fast("DeepSVDD"), 2, random_state=0).fit(normal((5,), 40))
    assert_alike(one, rows((5,)), tmp_path)
    found = onnxruntime.InferenceSession(tmp_path / "detector.onnx").get_modelmeta()
    assert found.custom_metadata_map["detector"] == "SeedEnsemble"
    assert json.loads(found.custom_metadata_map["parameters"])["n_members"] == 2


# --- input and outputs --------------------------------------------------------------------------


def test_input_shape__given__flat_rows(tmp_path):
    shape = SHAPES["windows"]
    X = normal(shape, 40)
    detector = fast("AutoEncoder", input_shape=shape).fit(X.reshape(40, -1))
    session = opened(detector, tmp_path)
    assert session.get_inputs()[0].shape == ["n", 18]
    scores, _ = session.run(None, {"X": X.reshape(40, -1)})
    np.testing.assert_allclose(scores, detector.decision_function(X), rtol=BOUND, atol=BOUND)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_dtype__of_the_input(dtype, tmp_path):
    X = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8)).astype(dtype)
    detector = fast("AutoEncoder", scaler="gcn").fit(X)
    assert_alike(detector, X, tmp_path, dtype=dtype)


def test_contamination__changed_after_fit__its_threshold(tmp_path):
    detector = fitted("DeepSVDD")
    X = rows(SHAPES["table"])
    found = []
    for detector.contamination in (0.1, 0.5):
        session = opened(detector, tmp_path)
        found.append(session.run(["labels"], {"X": X})[0].sum())
        threshold = session.get_modelmeta().custom_metadata_map["threshold"]
        assert float(threshold) == detector.threshold_
    assert found[0] < found[1]


def test_threshold__by_another_rule__in_the_graph(tmp_path):
    detector = fitted("DeepSVDD", false_alarm_rate=0.2)
    with pytest.raises(NotFittedError, match="calibrate"):
        onnx.export(detector, tmp_path / "a.onnx")
    detector.calibrate(normal(SHAPES["table"], 20, seed=2))
    assert_alike(detector, rows(SHAPES["table"]), tmp_path)
    detector.set_threshold(0.5)
    session = opened(detector, tmp_path)
    assert session.get_modelmeta().custom_metadata_map["threshold"] == "0.5"


class Thresholder:
    def fit(self, scores):
        self.thresh_, self.labels_ = None, (scores > scores.mean()).astype(int)

    def predict(self, scores):
        return (scores > 1).astype(int)


def test_contamination__thresholder__no_labels(tmp_path):
    session = opened(fitted("DeepSVDD", contamination=Thresholder()), tmp_path)
    assert [output.name for output in session.get_outputs()] == ["scores"]
    assert "threshold" not in session.get_modelmeta().custom_metadata_map


def test_metadata__says_where_the_file_is_from(tmp_path):
    X = pd.DataFrame(samples(), columns=list("abcde"))
    params = {"network": MLP(hidden=(4,)), "lr": np.float64(0.01), "milestones": (1, 2)}
    detector = fast("AutoEncoder", **params).fit(X)
    found = opened(detector, tmp_path).get_modelmeta().custom_metadata_map
    assert found["detector"] == "AutoEncoder"
    assert found["version"] == deepod.__version__
    assert float(found["threshold"]) == detector.threshold_
    assert json.loads(found["feature_names"]) == list("abcde")
    known = json.loads(found["parameters"])
    assert set(known) == set(detector.get_params(deep=False))
    assert known["lr"] == 0.01
    assert known["milestones"] == [1, 2]
    assert known["network"] == "MLP(hidden=(4,))"


def test_file__names_no_folder_of_this_machine(tmp_path):
    onnx.export(fitted("PLAD"), tmp_path / "a.onnx")
    content = (tmp_path / "a.onnx").read_bytes()
    assert b".py" not in content
    assert b"classifier" in content
    assert b"module.decoder" not in content  # nor what only training needs


# --- errors, and what is left alone -------------------------------------------------------------


def test_export__no_detector_unfitted_or_bad_dtype__refused(tmp_path):
    path = tmp_path / "a.onnx"
    with pytest.raises(NotFittedError):
        onnx.export(fast("PLAD"), path)
    with pytest.raises(NotFittedError):
        onnx.export(deepod.SeedEnsemble(fast("PLAD")), path)
    with pytest.raises(TypeError, match="IForest"):
        onnx.export(deepod.Consensus([IForest()]).fit(samples()), path)
    with pytest.raises(TypeError, match="IForest"):
        onnx.export(IForest(), path)
    with pytest.raises(ValueError, match="dtype"):
        onnx.export(fitted("PLAD"), path, dtype="float16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_export__library_missing__says_what_to_install(missing, tmp_path, monkeypatch):
    load = builtins.__import__

    def fail(name, *args, **kwargs):
        if name == missing:
            raise ImportError(name)
        return load(name, *args, **kwargs)

    detector = fitted("PLAD")
    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(ImportError, match=r"deepod\[onnx\]"):
        onnx.export(detector, tmp_path / "a.onnx")


@pytest.mark.parametrize("name", WITHOUT_GRAPH)
def test_export__score_found_along_gradients__refused_by_name(name, tmp_path):
    detector = fast(name).fit(samples())
    for one in (detector, deepod.SeedEnsemble(fast(name), n_members=2).fit(samples())):
        with pytest.raises(RuntimeError, match=f"{name} cannot be written.*by gradient descent"):
            onnx.export(one, tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_export__own_score_that_is_no_graph__refused(tmp_path):
    class Branching(deepod.AutoEncoder):
        def _score(self, module, x):
            scores = super()._score(module, x)
            return scores if scores.sum() > 1 else 2 * scores

    detector = Branching(epochs=1).fit(samples())
    with pytest.raises(RuntimeError, match=r"Branching.*data-dependent"):
        onnx.export(detector, tmp_path / "a.onnx")


def test_export__interrupted__older_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "a.onnx"
    path.write_text("older")

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    detector = fitted("PLAD")
    monkeypatch.setattr(torch.onnx, "export", interrupt)
    with pytest.raises(KeyboardInterrupt):
        onnx.export(detector, path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.onnx", "older")]
    monkeypatch.undo()
    with pytest.raises(OSError, match="missing"):
        onnx.export(detector, tmp_path / "missing" / "a.onnx")


def test_export__silent_and_leaves_everything_as_it_was(tmp_path, capfd, recwarn, caplog):
    detector = fitted("PLAD", SHAPES["windows"], n_members=2)
    before = copy.deepcopy(detector.module_.state_dict())
    state, kept = torch.get_rng_state(), list(warnings.filters)
    levels = [logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    expected = detector.decision_function(normal(SHAPES["windows"], 5))
    with torch.inference_mode():
        onnx.export(detector, tmp_path / "a.onnx")
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
    assert warnings.filters == kept
    assert torch.equal(torch.get_rng_state(), state)
    names = ("torch.onnx", "onnxscript", "onnx_ir")
    assert [logging.getLogger(name).level for name in names] == levels
    for key, value in detector.module_.state_dict().items():
        assert torch.equal(value, before[key])
    found = detector.decision_function(normal(SHAPES["windows"], 5))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "kind"), WITH_GRAPH)
def test_cuda__fitted_there__file_scores_alike(name, kind, tmp_path):
    detector = fitted(name, SHAPES[kind], device="cuda")
    scores, _ = opened(detector, tmp_path).run(None, {"X": normal(SHAPES[kind], 20)})
    expected = detector.decision_function(normal(SHAPES[kind], 20))
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4)
    assert next(detector.module_.parameters()).is_cuda
