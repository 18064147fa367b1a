"""Saved models: what is written, what comes back, what is refused."""

import copy
import importlib
import json
import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import deepod
from deepod._scoring import sketch
from deepod._storage import detectors as _detectors
from deepod._storage import tensors as _tensors
from deepod.callbacks import EarlyStopping, Progress
from deepod.networks import MLP, LeNet, Prototypes, Recurrent
from deepod.params import integer, param, parameters

from .cases import (
    EVERY_NAME,
    NAMES,
    NAMES_AND_KINDS,
    REPRESENTATIVES,
    SERIES_NAMES,
    fast,
    fitted,
    fitted_series,
    samples,
    waves,
)
from .test_pyod import Thresholder

every_detector = pytest.mark.parametrize("name", NAMES)

# Settings whose modules or scores differ from those of the defaults.
SETTINGS = [
    ("AnoRand", {"fusion": "paper", "z0": "output"}),
    ("AutoEncoder", {"network": MLP(hidden=(7,), batch_norm=True), "scaler": "minmax"}),
    ("DeepSVDD", {"objective": "soft", "latent_dim": 3}),
    ("DeepSVDD", {"pretrain_epochs": 0}),
    ("IAELSTMKL", {"gates": ["input"], "kl": None, "use_decoder": False, "score_by": "distance"}),
    ("NSAE", {"l0": "hard_concrete", "novelty_layers": 4}),
    ("PLAD", {"network": MLP(hidden=(4,)), "perturbator": "mlp", "perturbator_hidden": [9, 3]}),
    ("PLAD", {"callbacks": (EarlyStopping(patience=3),), "validation_fraction": 0.2}),
    ("PLAD", {"calibration_fraction": 0.25, "false_alarm_rate": 0.1}),
    ("PLAD", {"contamination": "auto", "missing": "impute", "max_grad_norm": 1.0}),
    ("PLAD", {"contamination": 0, "checkpoint_every": 2}),
    ("PLAD", {"scaler": None, "reach": [0.5, 2], "milestones": (1,)}),
]


def assert_same(one, other, X):
    assert type(one) is type(other)
    np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    np.testing.assert_array_equal(one.predict_confidence(X), other.predict_confidence(X))
    np.testing.assert_array_equal(one.decision_scores_, other.decision_scores_)
    np.testing.assert_array_equal(one.labels_, other.labels_)
    assert one.threshold_ == other.threshold_
    assert one.history_ == other.history_
    assert repr(one) == repr(other)


# --- what comes back ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "file"),
    [(*case, ["model", "model.deepod"][i % 2]) for i, case in enumerate(NAMES_AND_KINDS)],
)
def test_save_and_load__every_detector_and_input__scores_bit_for_bit(name, kind, file, tmp_path):
    detector = fitted(name, kind)
    detector.save(tmp_path / file)
    again = deepod.load(tmp_path / file)
    assert_same(again, detector, samples(kind, n=7, seed=1))
    assert vars(again).keys() == vars(detector).keys()


@pytest.mark.parametrize(("name", "params"), SETTINGS)
def test_save_and_load__other_settings__scores_bit_for_bit(name, params, tmp_path):
    detector = fast(name, **params).fit(samples())
    detector.save(tmp_path / "a.deepod")
    again = deepod.load(tmp_path / "a.deepod")
    assert_same(again, detector, samples(n=7, seed=1))
    again.save(tmp_path / "b.deepod")
    assert (tmp_path / "a.deepod").read_bytes() == (tmp_path / "b.deepod").read_bytes()


def test_save__numbers_of_numpy__become_plain(tmp_path):
    detector = fast("PLAD", lr=np.float64(1e-3), batch_size=np.int64(16)).fit(samples())
    detector.save(tmp_path / "m")
    again = deepod.load(tmp_path / "m")
    assert (again.lr, again.batch_size) == (1e-3, 16)
    assert {type(again.lr), type(again.batch_size)} == {float, int}


def test_save_and_load__threshold_that_was_set__kept(tmp_path):
    detector = fast("PLAD").fit(samples()).set_threshold(0.25)
    detector.save(tmp_path / "m")
    again = deepod.load(tmp_path / "m")
    assert again.threshold_ == 0.25
    assert_same(again, detector, samples(n=7, seed=1))
    assert "by set_threshold" in (tmp_path / "m/README.md").read_text()
    again.contamination = 0.3
    assert again.threshold_ == detector.set_params(contamination=0.3).threshold_ != 0.25
    again.save(tmp_path / "m")
    assert deepod.load(tmp_path / "m").threshold_ == again.threshold_


def test_save_and_load__threshold_set_under_another_rule__holds_when_its_own_is_back(tmp_path):
    detector = fast("PLAD", contamination=np.float32(0.2)).fit(samples()).set_threshold(0.25)
    detector.set_params(contamination=0.3).save(tmp_path / "m")
    assert "by contamination=0.3" in (tmp_path / "m/README.md").read_text()
    again = deepod.load(tmp_path / "m")
    assert again.threshold_ == detector.threshold_ != 0.25
    assert again.set_params(contamination=np.float32(0.2)).threshold_ == 0.25


def test_save_and_load__threshold_set_under_a_thresholder__only_if_taken_over(tmp_path):
    detector = fast("PLAD", contamination=Thresholder()).fit(samples()).set_threshold(0.25)
    detector.set_params(contamination=0.1).save(tmp_path / "m.deepod")
    again = deepod.load(tmp_path / "m.deepod")
    assert again.given_threshold_ is None
    assert again.threshold_ == detector.threshold_
    detector.set_threshold(0.25).save(tmp_path / "m.deepod")
    assert deepod.load(tmp_path / "m.deepod").threshold_ == 0.25


@pytest.mark.parametrize("calibration_fraction", [0, 0.2])
def test_save_and_load__threshold_set_under_a_rate_that_no_rows_allow__kept(
    calibration_fraction, tmp_path
):
    detector = fast("PLAD", calibration_fraction=calibration_fraction).fit(samples())
    detector.set_params(false_alarm_rate=0.001).set_threshold(1.0).save(tmp_path / "m.deepod")
    again = deepod.load(tmp_path / "m.deepod")
    assert again.threshold_ == 1
    assert_same(again, detector, samples(n=7, seed=1))
    with pytest.raises(ValueError if calibration_fraction else NotFittedError, match="calib"):
        again.set_threshold(None).predict(samples())


def test_load__file_without_the_rule_of_its_threshold__the_present_one(tmp_path):
    path = tmp_path / "m.deepod"
    fast("PLAD").fit(samples()).set_threshold(0.25).save(path)
    altered(path, lambda description, tensors: description["fitted"].pop("given_under_"))
    again = deepod.load(path)
    assert again.threshold_ == 0.25
    assert again.given_under_ == (0.1, None)


def test_save_and_load__waits_for_calibrate__no_threshold_yet(tmp_path):
    detector = fast("PLAD", false_alarm_rate=0.1).fit(samples())
    detector.save(tmp_path / "m")
    again = deepod.load(tmp_path / "m")
    with pytest.raises(NotFittedError, match="calibrate"):
        again.predict(samples())
    again.calibrate(samples(seed=1))
    assert again.threshold_ == detector.calibrate(samples(seed=1)).threshold_
    again.save(tmp_path / "m")
    np.testing.assert_array_equal(
        deepod.load(tmp_path / "m").p_values(samples()), detector.p_values(samples())
    )


def test_save_and_load__gaps__filled_alike(tmp_path):
    X = samples()
    X[3, 2] = X[7, 0] = np.nan
    detector = fast("PLAD", missing="impute").fit(X)
    detector.save(tmp_path / "m")
    assert_same(deepod.load(tmp_path / "m"), detector, X)


@every_detector
def test_fitted_attributes__all_known_to_files(name):
    X = pd.DataFrame(samples(), columns=list("abcde"))
    left = {key for key in vars(fast(name).fit(X)) if key.endswith("_")}
    assert left <= {*_detectors.PLAIN, *_detectors.ARRAYS, *_detectors._DERIVED}


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_load__then_fit__like_a_new_detector(name, tmp_path):
    fast(name).fit(samples()).save(tmp_path / "m")
    wide = np.hstack([samples(), samples(seed=1)])
    again, fresh = deepod.load(tmp_path / "m").fit(wide), fast(name).fit(wide)
    np.testing.assert_array_equal(again.decision_scores_, fresh.decision_scores_)


@pytest.mark.parametrize("how", ["save", "pickle", "deepcopy"])
def test_copies__parameters_changed_after_fit__keep_network_and_new_parameters(how, tmp_path):
    X = samples()
    detector = fast("PLAD", network=MLP(hidden=(6,))).fit(X)
    expected = detector.decision_function(X)
    detector.set_params(n_members=7, network__hidden=(5, 5), latent_dim=9, contamination=0.3)
    if how == "save":
        detector.save(tmp_path / "m")
        again = deepod.load(tmp_path / "m")
    else:
        again = (
            copy.deepcopy(detector) if how == "deepcopy" else pickle.loads(pickle.dumps(detector))
        )
    np.testing.assert_array_equal(again.decision_function(X), expected)
    assert again.threshold_ == detector.threshold_
    assert again.get_params()["network__hidden"] == (5, 5)
    again.fit(X)  # with the new ones
    assert again.module_["classifier"][1].weight.shape[0] == 7


def test_load__column_names__kept_and_checked(tmp_path):
    X = pd.DataFrame(samples(), columns=list("abcde"))
    detector = fast("AutoEncoder").fit(X)
    detector.save(tmp_path / "m")
    again = deepod.load(tmp_path / "m")
    assert again.feature_names_in_.tolist() == list("abcde")
    with pytest.raises(ValueError, match="feature names"):
        again.decision_function(X[list("edcba")])


def test_load__another_process__same_scores(tmp_path):
    X = samples()
    np.save(tmp_path / "X.npy", X)
    detector = fast("PLAD").fit(X)
    detector.save(tmp_path / "m")
    code = (
        "import sys, numpy as np, deepod; d = deepod.load(sys.argv[1] + '/m');"
        "print(d.decision_function(np.load(sys.argv[1] + '/X.npy')).tolist())"
    )
    run = [sys.executable, "-c", code, str(tmp_path)]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == detector.decision_function(X).tolist()


def test_load__scores_of_a_stream__stand_ins_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sketch, "_STAND_INS", 1001)
    X = np.random.default_rng(0).normal(size=(8000, 2)).astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    detector = fast("AutoEncoder", epochs=1, batch_size=512, memory_limit=1 << 14).fit(mapped)
    detector.save(tmp_path / "m")
    again = deepod.load(tmp_path / "m")
    assert again.threshold_ == detector.threshold_
    with pytest.raises(AttributeError, match="memory_limit"):
        _ = again.decision_scores_


# --- devices ------------------------------------------------------------------------------------


def test_load__device_that_is_not_here__cpu(tmp_path):
    detector = fast("PLAD").fit(samples()).set_params(device="cuda:99")
    detector.save(tmp_path / "m")
    again = deepod.load(tmp_path / "m")
    assert again.device_ == torch.device("cpu")
    assert again.device == "cuda:99"
    np.testing.assert_array_equal(again.decision_scores_, detector.decision_scores_)
    assert deepod.load(tmp_path / "m", device="cpu").device == "cpu"
    with pytest.raises(ValueError, match="not available"):
        deepod.load(tmp_path / "m", device="cuda:98")


@pytest.mark.gpu
@every_detector
def test_load__saved_on_cuda__tensors_are_on_the_cpu_in_the_file(name, tmp_path):
    X = samples()
    detector = fast(name, device="cuda").fit(X)
    detector.save(tmp_path / "m")
    assert deepod.load(tmp_path / "m").device_.type == "cuda"
    on_cpu = deepod.load(tmp_path / "m", device="cpu")
    np.testing.assert_allclose(
        on_cpu.decision_function(X), detector.decision_function(X), rtol=1e-4, atol=1e-4
    )


# --- what is written ----------------------------------------------------------------------------


def test_save__folder__as_the_hub_has_them(tmp_path):
    X = pd.DataFrame(samples(), columns=["speed", "load|peak", "c", "d", "e"])
    detector = fast("PLAD").fit(X)
    detector.save(tmp_path / "m")
    names = sorted(path.name for path in (tmp_path / "m").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((tmp_path / "m/config.json").read_text())
    assert config["library_name"] == "deepod"
    assert config["detector"] == "PLAD"
    assert config["params"]["lam"] == detector.lam
    card = (tmp_path / "m/README.md").read_text()
    for part in ("library_name: deepod", "PLAD", "(5,)", "speed", "| lam | 3.0 |", "perturbed"):
        assert part in card, part
    assert repr(detector.threshold_) in card
    with safe_open(tmp_path / "m/model.safetensors", "pt") as file:  # any reader can
        for key, value in detector.module_.state_dict().items():
            assert torch.equal(file.get_tensor(f"module.{key}"), value)


def test_save__twice__same_bytes_and_over_an_older_one(tmp_path):
    first, second = (fast("PLAD", random_state=seed).fit(samples()) for seed in (0, 1))
    first.save(tmp_path / "m")
    written = (tmp_path / "m/model.safetensors").read_bytes()
    second.save(tmp_path / "m")
    assert_same(deepod.load(tmp_path / "m"), second, samples())
    first.save(tmp_path / "m")
    assert (tmp_path / "m/model.safetensors").read_bytes() == written


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_save__through_a_link__file_replaced_and_link_kept(tmp_path):
    (tmp_path / "link.deepod").symlink_to(tmp_path / "m.deepod")
    detector = fast("PLAD").fit(samples())
    detector.save(tmp_path / "link.deepod")
    assert (tmp_path / "link.deepod").is_symlink()
    assert_same(deepod.load(tmp_path / "m.deepod"), detector, samples())


def test_save__folder_with_other_things__refused_and_untouched(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match="something other than a model"):
        fast("PLAD").fit(samples()).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"
    with pytest.raises(FileExistsError, match="is a file"):
        fast("PLAD").fit(samples()).save(tmp_path / "README.md")


def test_save__unfitted__says_so(tmp_path):
    with pytest.raises(NotFittedError):
        fast("PLAD").save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("parameter", "value", "plain"),
    [
        ("callbacks", [lambda event: None], []),
        ("random_state", np.random.RandomState(0), 0),
    ],
)
def test_save__parameter_that_no_file_can_hold__named(parameter, value, plain, tmp_path):
    detector = fast("PLAD", **{parameter: value}).fit(samples())
    with pytest.raises(TypeError, match=f"{parameter}=.*set_params"):
        detector.save(tmp_path / "m")
    assert not list(tmp_path.iterdir())
    detector.set_params(**{parameter: plain}).save(tmp_path / "m")


def test_save__file_of_a_checkpoint__stays_private(tmp_path):
    detector = fast("PLAD", checkpoint=str(tmp_path / "private")).fit(samples())
    detector.save(tmp_path / "m")
    again = deepod.load(tmp_path / "m")
    assert again.checkpoint is None
    for path in (tmp_path / "m").iterdir():
        assert b"private" not in path.read_bytes(), path.name
    altered(tmp_path / "m/model.safetensors", put("params", "checkpoint", value="/etc/passwd"))
    with pytest.raises(deepod.InvalidFileError, match=r"unknown entries \['checkpoint'\]"):
        deepod.load(tmp_path / "m")


def test_save__no_epochs__folder(tmp_path):
    detector = fast("PLAD", epochs=0).fit(samples())
    detector.save(tmp_path / "m")
    assert_same(deepod.load(tmp_path / "m"), detector, samples())


def test_save_and_load__sizes_of_numpy__plain(tmp_path):
    shape = tuple(np.array([1, 5]))
    detector = fast("DeepSVDD", input_shape=shape).fit(samples())
    detector.save(tmp_path / "m")
    assert_same_scores(deepod.load(tmp_path / "m"), detector)
    assert fast("PLAD", input_shape=shape).fit(samples()).input_shape_ == (1, 5)


def test_save_and_load__input_shape_changed_after_fit__kept(tmp_path):
    X = samples("images")
    detector = fast("PLAD", input_shape=(1, 8, 8)).fit(X.reshape(len(X), -1))
    detector.set_params(input_shape=None)
    detector.save(tmp_path / "m")
    np.testing.assert_array_equal(
        deepod.load(tmp_path / "m").decision_scores_, detector.decision_scores_
    )


def test_save_and_load__large_images__no_more_than_they_need(tmp_path):
    images = samples("images", n=2).repeat(32, 2).repeat(32, 3)
    network = LeNet(channels=(32, 8), hidden=())
    params = {"network": network, "pretrain_epochs": 0, "epochs": 0, "latent_dim": 2}
    detector = fast("DeepSVDD", **params).fit(images)
    detector.save(tmp_path / "m")
    assert deepod.load(tmp_path / "m").input_shape_ == (1, 256, 256)


def test_save__parameter_made_invalid_after_fit__named(tmp_path):
    with pytest.raises(ValueError, match="lr"):
        fast("PLAD").fit(samples()).set_params(lr=-1).save(tmp_path / "m")


def test_save__attribute_that_no_file_can_hold__named(tmp_path):
    detector = fast("PLAD").fit(samples())
    detector.extra_ = object()
    with pytest.raises(TypeError, match="extra_"):
        detector.save(tmp_path / "m")


# --- what is refused ----------------------------------------------------------------------------


def altered(path, change):
    """Rewrite a model with another description, its checksum right again."""
    description, tensors = _tensors.read(path)
    change(description, tensors)
    path.write_bytes(_tensors.pack(description, tensors))


def put(*keys, value):
    def change(description, tensors):
        place = description
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


REFUSED = {
    "newer format": (put("format", value=2), "format 2.*newer deepod"),
    "other library": (put("library_name", value="other"), "not a detector of deepod"),
    "other class": (put("detector", value="os.system"), "not a detector of deepod"),
    "base class": (put("detector", value="BaseDetector"), "not a detector of deepod"),
    "function of ours": (put("detector", value="load"), "not a detector of deepod"),
    "unknown key": (put("run", value="code"), r"unknown entries \['run'\]"),
    "unknown parameter": (put("params", "hook", value=1), r"unknown entries \['hook'\]"),
    "unknown attribute": (put("fitted", "x_", value=1), r"unknown entries \['x_'\]"),
    "unknown object": (
        put("params", "network", value={"object": "os", "params": {}}),
        "not a value that a parameter can have",
    ),
    "lists within lists": (
        put("params", "milestones", value={"tuple": json.loads("[" * 200 + "]" * 200)}),
        "more than 100 lists within lists",
    ),
    "bad parameter": (put("params", "lr", value=-1), "lr"),
    "other width": (put("params", "latent_dim", value=3), "size mismatch"),
    "giant width": (put("params", "latent_dim", value=10**12), "larger than its network can be"),
    "giant number of members": (
        put("params", "n_members", value=10**9),
        "larger than its network can be",
    ),
    "many members": (put("params", "n_members", value=19_000), "too many layers"),
    "infinite threshold": (put("fitted", "given_threshold_", value=float("inf")), "finite|Infin"),
    "bad rule": (put("fitted", "given_under_", value=[0.1, [None]]), "given_under_"),
    "bad history": (put("fitted", "history_", value=[[1]]), "history_"),
    "bad shape": (put("fitted", "input_shape_", value=[-5]), "input_shape_"),
    "no tensors": (lambda d, t: t.clear(), "Missing key"),
    "one tensor more": (lambda d, t: t.update(x=torch.zeros(1)), "unknown entries"),
    "no scores": (lambda d, t: t.pop("_training_scores"), "_training_scores"),
    "other type": (
        lambda d, t: t.update({k: v.double() for k, v in t.items()}),
        "another type",
    ),
    "NaN scale": (lambda d, t: t["scale_"].fill_(float("nan")), "not finite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_load__wrong_contents__refused_with_the_reason(case, tmp_path):
    change, message = REFUSED[case]
    path = tmp_path / "m.deepod"
    fast("PLAD", network=MLP()).fit(samples()).save(path)
    altered(path, change)
    with pytest.raises(deepod.InvalidFileError, match=message):
        deepod.load(path)


def test_load__flipped_byte_anywhere__refused(tmp_path):
    path = tmp_path / "m.deepod"
    fast("AutoEncoder").fit(samples()).save(path)
    data = path.read_bytes()
    for place in np.random.default_rng(0).integers(len(data), size=50):
        path.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        with pytest.raises(deepod.InvalidFileError):
            deepod.load(path)


def test_load__other_files__refused(tmp_path):
    path = tmp_path / "m.deepod"
    for data in (b"", b"\x80\x05.", b"PK\x03\x04" * 10, b"\xff" * 100, pickle.dumps(fast("PLAD"))):
        path.write_bytes(data)
        with pytest.raises(deepod.InvalidFileError):
            deepod.load(path)
    with pytest.raises(FileNotFoundError):
        deepod.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        deepod.load(tmp_path)  # a folder without a model


def test_load__larger_than_max_bytes__refused(tmp_path):
    fast("PLAD").fit(samples()).save(tmp_path / "m.deepod")
    with pytest.raises(deepod.InvalidFileError, match="max_bytes=1000"):
        deepod.load(tmp_path / "m.deepod", max_bytes=1000)


# --- classes and tools of others ----------------------------------------------------------------


def assert_same_scores(one, other):
    np.testing.assert_array_equal(
        one.decision_function(samples(seed=2)), other.decision_function(samples(seed=2))
    )


class Mine(deepod.AutoEncoder):
    """A detector that deepod does not know."""


@parameters
class Demanding(deepod.AutoEncoder):
    stamp: int = param(default=1_700_000_000, accepts=[integer(0)], doc="No size of anything.")
    hook: Any = param(default=None, accepts=[object, None], doc="Anything.")

    def _build_module(self, shape):
        assert self.n_features_in_ == 5
        module = super()._build_module(shape)
        module.register_buffer("mask", torch.arange(3.0), persistent=False)
        assert module.mask.sum().item() == 3
        return module


def test_load__own_class__only_when_it_is_given(tmp_path):
    detector = Mine(epochs=1, random_state=0).fit(samples())
    detector.save(tmp_path / "m")
    with pytest.raises(deepod.InvalidFileError, match="detectors="):
        deepod.load(tmp_path / "m")
    assert_same(deepod.load(tmp_path / "m", detectors=[Mine]), detector, samples())


@pytest.mark.parametrize("how", ["save", "pickle", "deepcopy"])
def test_own_class__builds_from_values_and_attributes__comes_back(how, tmp_path):
    detector = Demanding(epochs=1, random_state=0).fit(samples())
    if how == "save":
        with pytest.raises(ValueError, match="could not be loaded again"):
            detector.save(tmp_path / "m")  # what it builds by needs memory
        return
    again = copy.deepcopy(detector) if how == "deepcopy" else pickle.loads(pickle.dumps(detector))
    assert_same_scores(again, detector)
    assert again.module_.mask.tolist() == [0, 1, 2]


class Stamped(Mine):
    pass


def test_own_class__no_docstring_and_large_numbers__saved(tmp_path):
    Stamped.__doc__ = None
    detector = Stamped(epochs=1, random_state=0, batch_size=1 << 40).fit(samples())
    detector.save(tmp_path / "m")
    assert_same_scores(deepod.load(tmp_path / "m", detectors=[Stamped]), detector)


def test_own_class__parameter_of_fit_that_no_file_can_hold__says_to_fit_again(tmp_path):
    detector = Demanding(epochs=1, random_state=0, hook=np.tanh).fit(samples())
    detector.set_params(hook=None)
    with pytest.raises(TypeError, match=r"hook was .* in fit.*fit again"):
        detector.save(tmp_path / "m")


@every_detector
def test_skops__pipeline__same_scores(name):
    sio = pytest.importorskip("skops.io")
    X = samples()
    pipeline = make_pipeline(StandardScaler(), fast(name, network="mlp")).fit(X)
    data = sio.dumps(pipeline)
    untrusted = sio.get_untrusted_types(data=data)
    assert {kind.partition(".")[0] for kind in untrusted} == {"deepod"}
    again = sio.loads(data, trusted=deepod.TRUSTED_TYPES)
    np.testing.assert_array_equal(again.decision_function(X), pipeline.decision_function(X))
    np.testing.assert_array_equal(again.predict(X), pipeline.predict(X))


def kept_by_skops():
    """Fitted, with X: all that is registered, and all parameters that are objects of deepod."""
    X = samples()
    for name in EVERY_NAME:
        kind = getattr(deepod, name).inputs[0]
        yield fitted(name, kind), samples(kind)
    for name in SERIES_NAMES:
        yield fitted_series(name), waves()
    yield deepod.series.ReRe(window=10, random_state=0).fit(waves(120, None)), waves(120, None)
    yield deepod.Consensus([fast("Neighbors"), fast("AutoEncoder")], random_state=0).fit(X), X
    yield deepod.SeedEnsemble(fast("DeepSVDD"), 2, random_state=0).fit(X), X
    yield deepod.SklearnOutlierAdapter(fast("DeepSVDD")).fit(X), X
    yield fitted("AutoEncoder").transfer().fit(X), X
    for kind, network in [("table", MLP(hidden=(4,))), ("windows", Recurrent(hidden=(4,)))]:
        yield fast("AutoEncoder", network=network).fit(samples(kind)), samples(kind)
    yield fast("AutoEncoder", network=LeNet(channels=(2, 2, 2))).fit(samples("images")), None
    callbacks = [EarlyStopping(), Progress()]
    yield fast("PLAD", network=Prototypes(n_prototypes=4), callbacks=callbacks).fit(X), X


def test_trusted_types__all_that_skops_needs_and_no_other():
    sio = pytest.importorskip("skops.io")
    needed = set()
    for detector, X in kept_by_skops():
        data = sio.dumps(detector)
        needed |= set(sio.get_untrusted_types(data=data))
        again = sio.loads(data, trusted=deepod.TRUSTED_TYPES)
        if X is not None:
            expected = detector.decision_function(X)
            np.testing.assert_array_equal(again.decision_function(X), expected)
    # A search holds scorers and splitters of scikit-learn, which are the user's to trust.
    assert needed | {"deepod.search.StackedSearchCV"} == set(deepod.TRUSTED_TYPES)
    for name in deepod.TRUSTED_TYPES:
        module, _, kind = name.rpartition(".")
        assert getattr(importlib.import_module(module), kind).__module__ == module
        assert name.startswith("deepod.")


# --- Class.load, and what other libraries read --------------------------------------------------


def every_kind():
    """One of each class that has ``save``, as a function, so that none is fitted too early."""
    for name in NAMES:
        yield pytest.param(lambda name=name: fitted(name), id=name)
    for name in SERIES_NAMES:
        yield pytest.param(lambda name=name: fitted_series(name), id=name)
    members = [fast("Neighbors"), fast("AutoEncoder")]
    for one in (deepod.Consensus(members), deepod.SeedEnsemble(fast("DeepSVDD"), 2)):
        yield pytest.param(lambda one=one: one.fit(samples()), id=type(one).__name__)


@pytest.mark.parametrize("make", [*every_kind()])
def test_load__of_every_class__what_deepod_load_returns_and_no_other_class(make, tmp_path):
    detector = make()
    if type(detector).__name__ == "Windows":
        detector = deepod.series.Windows(fast("AutoEncoder"), window=10).fit(waves())
    detector.save(tmp_path / "m.deepod")
    again = type(detector).load(tmp_path / "m.deepod", device="cpu")
    assert type(again) is type(detector)
    by_root = deepod.load(tmp_path / "m.deepod", device="cpu")
    assert vars(again).keys() == vars(by_root).keys()
    series = "series" in getattr(detector, "inputs", ())
    X = waves() if series else samples()
    np.testing.assert_array_equal(again.decision_function(X), by_root.decision_function(X))
    name = type(detector).__name__
    other = deepod.PLAD if name != "PLAD" else deepod.AutoEncoder
    with pytest.raises(TypeError, match=rf"class {name}, not of {other.__name__}: .*{name}\.load"):
        other.load(tmp_path / "m.deepod")
    # Loaders of the Hugging Face hub read no file that does not say so.
    with safe_open(tmp_path / "m.deepod", "pt") as file:
        assert file.metadata()["format"] == "pt"


def test_load__class_that_others_derive_from__takes_them(tmp_path):
    fitted("PLAD").save(tmp_path / "m.deepod")
    assert type(deepod.BaseDetector.load(tmp_path / "m.deepod")) is deepod.PLAD
    deepod.SeedEnsemble(fast("DeepSVDD"), 2).fit(samples()).save(tmp_path / "e.deepod")
    assert type(deepod.Consensus.load(tmp_path / "e.deepod")) is deepod.SeedEnsemble
    with pytest.raises(TypeError, match="not of BaseDetector"):
        deepod.BaseDetector.load(tmp_path / "e.deepod")


def test_load__of_an_own_class__needs_no_list(tmp_path):
    detector = Stamped(epochs=1, random_state=0).fit(samples())
    detector.save(tmp_path / "m.deepod")
    assert_same_scores(Stamped.load(tmp_path / "m.deepod"), detector)
    with pytest.raises(deepod.InvalidFileError, match="Stamped"):
        deepod.PLAD.load(tmp_path / "m.deepod")
    with pytest.raises(FileNotFoundError):
        Stamped.load(tmp_path / "none.deepod")


def with_metadata(path, change):
    """Alter what the header says of the whole file."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    head = json.loads(data[8:start])
    change(head["__metadata__"])
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[start:])


def test_load__metadata__older_files_have_no_format_and_nothing_else_may_stand_there(tmp_path):
    path = tmp_path / "m.deepod"
    fitted("PLAD").save(path)
    with_metadata(path, lambda metadata: metadata.pop("format"))
    assert_same_scores(deepod.load(path), fitted("PLAD"))
    for change in ({"format": "tf"}, {"format": "pt", "more": "x"}, {"more": "x"}):
        with_metadata(path, lambda metadata, change=change: metadata.update(change))
        with pytest.raises(deepod.InvalidFileError, match="metadata"):
            deepod.load(path)


def test_pickle__holds_no_torch_objects():
    state = fast("PLAD").fit(samples()).__getstate__()
    assert all(type(array) is np.ndarray for array in state["module_"].values())
    assert not any(isinstance(value, torch.nn.Module | torch.Tensor) for value in state.values())
