"""A fit that is stopped and started again, against one that never was."""

import itertools
import json
import os
import random
import shutil
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from sklearn.model_selection import GridSearchCV

from deepod import (
    AutoEncoder,
    DeepSVDD,
    SeedEnsemble,
    StackedSearchCV,
    data,
    fit_many,
)
from deepod._storage import atomic
from deepod._storage import tensors as _tensors
from deepod._storage.tensors import InvalidFileError
from deepod._training import checkpoint as checkpoint_module
from deepod._training import engines, loop, processes, stacked, together
from deepod.callbacks import EarlyStopping
from deepod.networks import MLP
from deepod.params import param, parameters

from . import children
from .cases import IN_TURNS, NAMES, REPRESENTATIVES, fast, samples
from .test_engines import CYCLE, task

X = samples()
TINY = MLP(hidden=(4,))


class StoppedError(Exception):
    """Ends a fit in the middle."""


class StopAt:
    """Ends a fit at the n-th event, before the file is written."""

    def __init__(self, n):
        self.left = n

    def __call__(self, event):
        self.left -= 1
        if not self.left:
            raise StoppedError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.ckpt"


def stop(detector, n, X=X, y=None):
    """Fit until the n-th event."""
    detector.set_params(callbacks=[*detector.callbacks, StopAt(n)])
    with pytest.raises(StoppedError):
        detector.fit(X, y)
    assert not detector.__sklearn_is_fitted__()


def without_seconds(history):
    return [{key: value for key, value in h.items() if key != "seconds"} for h in history]


def assert_same(one, other):
    """Two detectors that are equal to the last bit."""
    np.testing.assert_array_equal(one.decision_scores_, other.decision_scores_)
    assert without_seconds(one.history_) == without_seconds(other.history_)
    assert one.engine_ == other.engine_
    for (name, a), b in zip(
        one.module_.state_dict().items(), other.module_.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def assert_stopping_changes_nothing(make, path, X=X, step=1):
    """Stop a fit at every ``step``-th event and go on, against one that was not stopped."""
    whole = make().fit(X)
    for n in range(2, len(whole.history_) + 1, step):
        stop(make(checkpoint=path), n, X)
        assert_same(make(checkpoint=path).fit(X), whole)
        assert not path.exists()
    return whole


# --- the same to the last bit -------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_stopped__at_every_epoch__ends_as_if_it_never_was(name, path):
    def make(**params):
        return fast(name, epochs=3, batch_size=16, milestones=(1,), **params)

    assert_stopping_changes_nothing(make, path)


@pytest.mark.parametrize(
    ("name", "kind"), [case for case in IN_TURNS if case[0] in REPRESENTATIVES]
)
def test_stopped__every_kind_of_input__ends_as_if_it_never_was(name, kind, path):
    def make(**params):
        return fast(name, epochs=3, batch_size=16, **params)

    assert_stopping_changes_nothing(make, path, samples(kind), step=2)


SETTINGS = {
    "sgd": {"optimizer": "sgd", "lr": 1e-3},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "milestones": {"milestones": (2, 3), "lr": 0.1},
    "held out": {"validation_fraction": 0.25},
    "soft": {"objective": "soft", "warmup_epochs": 1},
    "not every epoch": {"checkpoint_every": 3},
    "only at the end of a phase": {"checkpoint_every": 100},
    "one batch": {"batch_size": 64},
    "traced": {"engine": "trace", "network": TINY},
    "traced, sgd": {"engine": "trace", "network": TINY, "optimizer": "sgd", "lr": 1e-3},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_stopped__any_settings__ends_as_if_it_never_was(case, path):
    def make(**params):
        base = {"epochs": 4, "pretrain_epochs": 2, "batch_size": 16, "random_state": 0}
        return DeepSVDD(**(base | SETTINGS[case] | params))

    assert_stopping_changes_nothing(make, path)


def test_stopped__long_enough_to_be_traced__goes_on_traced(path):
    def make(**params):
        return fast("PLAD", network=TINY, epochs=50, batch_size=8, **params)

    whole = assert_stopping_changes_nothing(make, path, step=20)
    assert whole.engine_ == "trace"


@pytest.mark.parametrize(("begun", "worth"), [("trace", 10**6), ("eager", 1)])
def test_stopped__way_to_carry_out_steps__is_that_of_the_file(begun, worth, path, monkeypatch):
    def make(**params):
        return fast("PLAD", network=TINY, epochs=6, batch_size=8, **params)

    monkeypatch.setattr(engines, "STEPS_WORTH_RECORDING", 1 if begun == "trace" else 10**6)
    whole = make().fit(X)
    assert whole.engine_ == begun
    stop(make(checkpoint=path), 4)
    monkeypatch.setattr(engines, "STEPS_WORTH_RECORDING", worth)
    assert_same(make(checkpoint=path).fit(X), whole)


@pytest.mark.parametrize("engine", ["eager", "trace"])
def test_stopped__phases_that_take_turns__go_on(engine, path):
    def trained(callbacks=(), **checkpoint):
        given = task(0, phases=CYCLE, callbacks=callbacks, **checkpoint)
        (member,) = loop.train([given], engine)
        return member

    whole = trained()
    for n in range(2, len(whole.history) + 1):
        stopped = trained([StopAt(n)], checkpoint=checkpoint_module.Checkpoint(path, 1, {}, {}))
        assert isinstance(stopped.error, StoppedError)
        member = trained(checkpoint=checkpoint_module.Checkpoint(path, 1, {}, {}))
        assert without_seconds(member.history) == without_seconds(whole.history)
        for ours, theirs in zip(
            member.task.module.state_dict().values(),
            whole.task.module.state_dict().values(),
            strict=True,
        ):
            assert torch.equal(ours, theirs)
        path.unlink()


def test_stepper__late_sizes__recorded_again_as_far_as_they_were(monkeypatch):
    monkeypatch.setattr(stacked, "MOST_RECORDINGS", 3)

    def made():
        given = task(0)  # 50 rows: batches of 12 and 13
        return given, stacked.Functional(stacked.Stack([given.module]), [given], 0, "trace")

    given, stepper = made()
    for size in (5, 7, 12):
        stepper.step([given.example(size)])
    _, other = made()
    other.load_state_dict(stepper.state_dict())
    assert list(other.runs) == list(stepper.runs) == [12, 13, 5, 7]
    for size, run in stepper.runs.items():
        assert type(run) is type(other.runs[size])
    assert type(stepper.runs[5]) is not type(stepper.runs[7])  # one too many


@pytest.mark.parametrize("name", ["AutoEncoder", "AnoRand", "PLAD"])
def test_stopped__rows_on_disk__go_on(name, path):
    rows = data.array(samples(n=300))

    def make(**params):
        return fast(
            name, network=TINY, epochs=6, batch_size=8, memory_limit=1 << 12, **params
        )  # buffers of some 25 rows: AnoRand's are of many sizes

    whole = assert_stopping_changes_nothing(make, path, rows, step=2)
    assert whole.engine_ == "trace"


def test_stopped__early_stopping__waits_on_and_restores_the_best_weights(path):
    def make(**params):
        return fast(
            "AutoEncoder",
            epochs=30,
            lr=0.04,
            validation_fraction=0.25,
            callbacks=[EarlyStopping(patience=3)],
            **params,
        )

    whole = assert_stopping_changes_nothing(make, path)
    assert 6 < len(whole.history_) < 30


def test_stopped__early_stopping_in_the_first_phase__goes_on_in_the_second(path):
    def make(**params):
        return fast(
            "DeepSVDD",
            epochs=12,
            lr=0.05,
            callbacks=[EarlyStopping(patience=1, min_delta=0.05)],
            **params,
        )

    whole = assert_stopping_changes_nothing(make, path)
    lengths = [
        len([*group]) for _, group in itertools.groupby(whole.history_, lambda h: h["phase"])
    ]
    assert lengths[0] < 12


def test_stopped__while_a_phase_ends__best_weights_are_restored(path):
    class FailsAtTheEnd:
        def __call__(self, event):
            pass

        def end(self):
            raise StoppedError

    def make(**params):
        return fast("AutoEncoder", epochs=6, lr=0.05, validation_fraction=0.25, **params)

    whole = make(callbacks=[EarlyStopping(patience=50)]).fit(X)
    watched = [h["validation_reconstruction"] for h in whole.history_]
    assert np.argmin(watched) < 5  # there is something to restore
    callbacks = [FailsAtTheEnd(), EarlyStopping(patience=50)]
    with pytest.raises(StoppedError):
        make(checkpoint=path, callbacks=callbacks).fit(X)
    detector = make(checkpoint=path, callbacks=[EarlyStopping(patience=50)]).fit(X)
    assert_same(detector, whole)


def test_stopped__several_times__ends_as_if_it_never_was(path):
    whole = fast("DeepSVDD", epochs=5).fit(X)
    for n in (3, 1, 2, 4):
        stop(fast("DeepSVDD", epochs=5, checkpoint=path), n)
    assert_same(fast("DeepSVDD", epochs=5, checkpoint=path).fit(X), whole)


def test_stopped__after_training__only_scores(path):
    class Fails:
        def fit(self, scores):
            raise StoppedError

        def predict(self, scores):
            raise StoppedError

    seen = []
    detector = fast("DeepSVDD", checkpoint=path, contamination=Fails())
    with pytest.raises(StoppedError):
        detector.fit(X)
    detector.set_params(contamination=0.1, callbacks=[seen.append]).fit(X)
    assert seen == []
    assert_same(detector, fast("DeepSVDD").fit(X))


@pytest.mark.parametrize("unseeded", [lambda: None, np.random.RandomState])
def test_stopped__no_seed__goes_on_with_the_seeds_of_the_file(unseeded, path):
    def make(**params):
        params |= {"random_state": unseeded(), "validation_fraction": 0.25, "checkpoint": path}
        return fast("AnoRand", epochs=6, **params)

    losses = []
    stop(make(callbacks=[lambda event: losses.append(event.losses)]), 4)
    copied = path.with_name("copy")
    shutil.copy(path, copied)
    one = make().fit(X)
    shutil.copy(copied, path)
    other = make().fit(X)
    assert_same(one, other)
    terms = [{name: h[name] for name in losses[0]} for h in one.history_]
    assert terms[:3] == losses[:3]
    assert not np.array_equal(make().fit(X).decision_scores_, one.decision_scores_)


def test_checkpoint__none_or_never_stopped__same_scores(path):
    assert_same(fast("DeepSVDD", checkpoint=str(path)).fit(X), fast("DeepSVDD").fit(X))


# --- killed -------------------------------------------------------------------------------------


class Gate:
    """Holds up the last epoch until a file is there: no machine is too fast to be killed."""

    def __init__(self, path):
        self.path = path

    def __call__(self, event):
        while event.last and event.epoch + 1 == event.epochs and not self.path.exists():
            time.sleep(0.001)


def fit_and_save(name, params, out):
    """What the process does that is killed."""
    callbacks = [*params.get("callbacks", ()), Gate(out.with_name("gate"))]
    params = params | {"callbacks": callbacks}
    detector = fast(name, **params).fit(samples(n=120))
    with atomic.replacing(out) as partial:
        values = {f"m{i}": t.numpy() for i, t in enumerate(detector.module_.state_dict().values())}
        history = json.dumps(without_seconds(detector.history_))
        with partial.open("wb") as file:
            np.savez(file, scores=detector.decision_scores_, history=history, **values)


def kill_until_done(name, params, folder, longest, moments, least):
    """Start a fit again and again, kill it at least so often; until it ends by itself."""
    params = params | {"checkpoint": str(folder / "run.ckpt")}
    path, out = folder / "run.ckpt", folder / "out.npz"
    killed = 0
    while not out.exists():
        before = path.stat().st_mtime_ns if path.exists() else 0
        process = children.start(fit_and_save, name, params, out)
        if killed % 3:  # so that there is some progress
            while process.is_alive() and not (path.exists() and path.stat().st_mtime_ns != before):
                time.sleep(0.001)
        process.join(moments.uniform(0, longest))
        if process.is_alive():
            process.kill()
            killed += 1
        process.join()
        if killed >= least:
            (folder / "gate").touch()
    assert not path.exists()
    return killed


def assert_killing_changes_nothing(name, params, folder, longest, moments, least):
    assert kill_until_done(name, params, folder, longest, moments, least) >= least
    whole = folder / "whole.npz"
    process = children.start(fit_and_save, name, params, whole)
    process.join()
    ours, theirs = np.load(folder / "out.npz"), np.load(whole)
    assert set(ours) == set(theirs)
    for key in ours:
        np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)


def test_killed__at_random_moments__ends_as_if_it_never_was(tmp_path):
    params = {"epochs": 20, "network": TINY, "batch_size": 16}
    assert_killing_changes_nothing("DeepSVDD", params, tmp_path, 0.15, random.Random(0), 2)


LONG = {
    "DeepSVDD": {"epochs": 200, "validation_fraction": 0.2},
    "PLAD": {"epochs": 500, "callbacks": [EarlyStopping(patience=500)]},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_killed__at_twenty_random_moments__ends_as_if_it_never_was(name, tmp_path):
    params = {"network": TINY, "batch_size": 16} | LONG[name]
    assert_killing_changes_nothing(name, params, tmp_path, 0.2, random.Random(0), 20)


# --- of another fit -----------------------------------------------------------------------------

ROWS = {
    "a value": np.where(np.arange(200).reshape(40, 5) == 77, X + 1e-6, X),
    "the order": X[::-1].copy(),
    "the shape": X.reshape(20, 10),
    "a row less": X[:-1],
    "the type": X.astype(np.float64),
}


@pytest.mark.parametrize("case", ROWS)
def test_other_rows__refused__file_stays(case, path):
    stop(fast("AutoEncoder", checkpoint=path), 2)
    before = path.read_bytes()
    with pytest.raises(InvalidFileError, match=r"checkpoint=.*another fit: X is .*Delete the file"):
        fast("AutoEncoder", checkpoint=path).fit(ROWS[case])
    assert path.read_bytes() == before


LAYOUTS = {
    "columns together": np.asfortranarray(X),
    "a view from the end": X[::-1].copy()[::-1],
    "a part of more": np.repeat(X, 2, axis=1)[:, ::2],
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_same_rows__in_another_layout__go_on(case, path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "_HASHED_AT_ONCE", 3 * X[0].nbytes)  # some, and a rest
    rows = LAYOUTS[case]
    assert rows.strides != X.strides
    np.testing.assert_array_equal(rows, X)
    seen = []
    stop(fast("AutoEncoder", epochs=4, checkpoint=path), 3)
    fast("AutoEncoder", epochs=4, checkpoint=path, callbacks=[seen.append]).fit(rows)
    assert [event.epoch for event in seen] == [2, 3]


def test_other_rows_on_disk__refused_by_shape_and_both_ends(path):
    rows = samples(n=1000)

    def make(**params):
        return fast("AutoEncoder", checkpoint=path, memory_limit=1 << 13, **params)

    stop(make(), 2, data.array(rows))
    for place in (0, 999):
        other = rows.copy()
        other[place] += 1
        with pytest.raises(InvalidFileError, match="X is"):
            make().fit(data.array(other))
    for other in (rows[:-1], rows.astype(np.float64), rows[:, :-1]):
        with pytest.raises(InvalidFileError, match="X is"):
            make().fit(data.array(other))
    with pytest.raises(InvalidFileError, match="X is"):
        make().fit(rows)  # in memory
    assert_same(make().fit(data.array(rows)), make().fit(data.array(rows)))


OTHERS = {
    "lr": 0.01,
    "epochs": 7,
    "batch_size": 16,
    "optimizer": "sgd",
    "network": TINY,
    "scaler": "minmax",
    "milestones": (1,),
    "weight_decay": 0.1,
    "validation_fraction": 0.2,
    "random_state": 1,
    "engine": "trace",
    "lam": 2.0,
    "callbacks": [EarlyStopping()],
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_parameter__refused_by_name__file_stays(name, path):
    stop(fast("PLAD", checkpoint=path), 2)
    before = path.read_bytes()
    with pytest.raises(InvalidFileError, match=rf"checkpoint=.*{name} is .* here and .* there"):
        fast("PLAD", **({"checkpoint": path, name: OTHERS[name]})).fit(X)
    assert path.read_bytes() == before


def test_other_labels__refused(path):
    y = (np.arange(40) % 10 == 0).astype(int)
    stop(fast("PLAD", checkpoint=path, supervision="drop_anomalies"), 2, y=y)
    with pytest.raises(InvalidFileError, match="y is"):
        fast("PLAD", checkpoint=path, supervision="drop_anomalies").fit(X, y[::-1])


def test_other_class_or_version__refused(path, monkeypatch):
    stop(fast("AutoEncoder", checkpoint=path), 2)
    with pytest.raises(InvalidFileError, match=r"class is .*DAE.* here"):
        fast("DAE", checkpoint=path).fit(X)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "__version__", "99.0")
        with pytest.raises(InvalidFileError, match=r"deepod is '99.0' here"):
            fast("AutoEncoder", checkpoint=path).fit(X)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "99.0")
        with pytest.raises(InvalidFileError, match=r"torch is '99.0' here"):
            fast("AutoEncoder", checkpoint=path).fit(X)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "FORMAT", 99)
        with pytest.raises(InvalidFileError, match="another version of deepod"):
            fast("AutoEncoder", checkpoint=path).fit(X)


def test_other_settings_of_a_callback__refused(path):
    stop(fast("AutoEncoder", checkpoint=path, callbacks=[EarlyStopping(patience=5)]), 2)
    before = path.read_bytes()
    with pytest.raises(InvalidFileError, match=r"\[6, 0.0, None\], but .* with \[5, 0.0, None\]"):
        fast("AutoEncoder", checkpoint=path, callbacks=[EarlyStopping(patience=6)]).fit(X)
    assert path.read_bytes() == before


def test_what_training_does_without__may_differ(path):
    stop(fast("AutoEncoder", checkpoint=path), 2)
    params = {"contamination": 0.3, "checkpoint_every": 2, "callbacks": [lambda event: None]}
    detector = fast("AutoEncoder", checkpoint=path, **params).fit(X)
    assert_same(detector, fast("AutoEncoder").fit(X))
    assert detector.labels_.mean() == pytest.approx(0.3)


def test_parameter__of_any_kind__told_apart_or_refused(path):
    @parameters
    class Weighted(AutoEncoder):
        weights: Any = param(default=None, accepts=[object], doc="Of columns.")

    def make(weights):
        return Weighted(epochs=3, random_state=0, checkpoint=path, weights=weights)

    stop(make(np.ones(2000)), 2)
    heavy = np.ones(2000)
    heavy[1000] = 2
    with pytest.raises(InvalidFileError, match="weights is"):
        make(heavy).fit(X)
    make(np.ones(2000)).fit(X)
    with pytest.raises(ValueError, match="checkpoint cannot compare weights="):
        make(lambda: None).fit(X)


# --- the file -----------------------------------------------------------------------------------


def test_file__is_safetensors_and_json(path):
    stop(fast("AutoEncoder", checkpoint=path), 2)
    with safe_open(path, "pt") as file:
        description = json.loads(file.metadata()["deepod"].partition(" ")[2])
        assert len(description["history"]) == 1
        assert len(list(file.keys())) > 4


def damaged(contents):
    tensors = _tensors.pack({"kind": "model"}, {"a": np.ones(3)})
    yield "empty", b""
    yield "text", b"epochs = 3\n"
    yield "half", contents[: len(contents) // 2]
    yield "longer", contents + b"\0"
    yield "another kind", tensors
    yield "zeros", bytes(len(contents))
    flipped = bytearray(contents)
    flipped[-1] ^= 1
    yield "one bit", bytes(flipped)


def test_file__damaged__refused_and_left_alone(path):
    stop(fast("AutoEncoder", checkpoint=path), 2)
    for case, contents in damaged(path.read_bytes()):
        path.write_bytes(contents)
        with pytest.raises(
            InvalidFileError, match=r"checkpoint=.*[^.]\. \w.* another name\.$"
        ) as e:
            fast("AutoEncoder", checkpoint=path).fit(X)
        # Only what says that it is a checkpoint.
        assert ("Delete the file to train anew" in str(e.value)) == (case == "one bit")
        assert path.read_bytes() == contents, case
    path.unlink()
    assert_same(fast("AutoEncoder", checkpoint=path).fit(X), fast("AutoEncoder").fit(X))


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_file__any_byte_changed__refused_or_without_effect(place, value, path):
    """A space of the header may become another kind of space."""
    if not path.exists():
        stop(fast("AutoEncoder", checkpoint=path, network=TINY), 2)
    contents = bytearray(path.read_bytes())
    changed = contents.copy()
    changed[int(place * len(contents))] = value
    path.write_bytes(changed)
    try:
        detector = fast("AutoEncoder", checkpoint=path, network=TINY).fit(X)
    except InvalidFileError:
        assert path.read_bytes() == changed
    else:
        assert_same(detector, fast("AutoEncoder", network=TINY).fit(X))
    path.write_bytes(contents)


def test_file__states_that_do_not_fit__refused(path):
    stop(fast("AutoEncoder", checkpoint=path), 2)
    description, tensors = _tensors.read(path)
    for key in ("module", "rows", "callbacks", "turn", "resumed"):
        state = {k: v for k, v in description["state"].items() if k != key}
        path.write_bytes(_tensors.pack(description | {"state": state}, tensors))
        with pytest.raises(InvalidFileError, match="Delete the file"):
            fast("AutoEncoder", checkpoint=path).fit(X)
    path.write_bytes(_tensors.pack(description, {k: v[:0] for k, v in tensors.items() if v.dim()}))
    with pytest.raises(InvalidFileError, match="Delete the file"):
        fast("AutoEncoder", checkpoint=path).fit(X)


NONSENSE = {
    "seeds": ("seeds", 3),
    "a seed that is text": ("seeds.order", "x"),
    "a seed that is too large": ("seeds.weights", 1 << 80),
    "a seed that is negative": ("seeds.weights", -1),
    "an unknown seed": ("seeds.more", 1),
    "a state that is a list": ("state", [1]),
    "a turn that is text": ("state.turn", "a"),
    "a turn that is not there": ("state.turn", 99),
    "a turn in which nothing was trained": ("state.turn", 0),
    "a turn that is over": ("state.turn", 2),
    "an engine that is not there": ("state.engine", "zzz"),
    "an engine that is not possible": ("state.engine", "cuda_graph"),
    "an engine that is a number": ("state.engine", [3]),
    "a history of numbers": ("history", [1, 2]),
    "a history that is too short": ("history", []),
    "another history": ("history.1.phase", "fit"),
    "another epoch": ("history.2.epoch", 7),
    "begun is text": ("state.resumed", "x"),
    "begun is a number": ("state.resumed", 5),
    "negative epochs": ("state.resumed.epochs", -3),
    "no epochs": ("state.resumed.epochs", 0),
    "more epochs than in the history": ("state.resumed.epochs", 2),
    "epochs that are text": ("state.resumed.epochs", "1"),
    "no parts": ("state.resumed.parts", []),
    "parts that are numbers": ("state.resumed.parts", [1, 2]),
    "no moments": ("state.resumed.parts.0.moments", {}),
    "moments of nothing": ("state.resumed.parts.0.moments.99", {}),
    "no moment of a parameter": ("state.resumed.parts.0.moments.0", {}),
    "a moment that is a number": ("state.resumed.parts.0.moments.0.exp_avg", 1.0),
    "another moment": (
        "state.resumed.parts.0.moments.0.exp_avg",
        {checkpoint_module._TENSOR: "0"},
    ),
    "a moment more": ("state.resumed.parts.0.moments.0.more", 1.0),
    "moments of a name": ("state.resumed.parts.0.moments.x", {}),
    "a module that is a number": ("state.module", 1),
    "a stream that is a number": ("state.order_stream", 1),
    "a tensor that is not there": ("state.order_stream", {checkpoint_module._TENSOR: "zzz"}),
    "a callback with text": ("state.callbacks.0.best", "x"),
    "a callback with half an epoch": ("state.callbacks.0.waited", 1.5),
    "a callback with other weights": ("state.callbacks.0.weights", [1]),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_file__nonsense_with_a_right_checksum__refused(case, path):
    def make(**params):
        base = {"epochs": 4, "network": TINY, "callbacks": [EarlyStopping(patience=9)]}
        return fast("DeepSVDD", checkpoint=path, **(base | params))

    def fail(event):
        raise AssertionError("trained")

    stop(make(), len(fast("DeepSVDD", epochs=4, network=TINY).fit(X).history_) - 2)
    description, tensors = _tensors.read(path)
    assert description["state"]["resumed"]["epochs"] == 1
    address, value = NONSENSE[case]
    *parents, last = address.split(".")
    place = description
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    if isinstance(place, list) and int(last) == len(place):
        place.append(value)
    else:
        place[int(last) if isinstance(place, list) else last] = value
    path.write_bytes(_tensors.pack(description, tensors))
    before = path.read_bytes()
    with pytest.raises(
        InvalidFileError, match=r"(?s)^checkpoint=.*Delete the file to train anew, or give another"
    ):
        make(callbacks=[EarlyStopping(patience=9), fail]).fit(X)
    assert path.read_bytes() == before


def test_file__nonsense_of_rows_on_disk__refused(path):
    def make(**params):
        return fast("AutoEncoder", epochs=4, checkpoint=path, memory_limit=1 << 13, **params)

    rows = data.array(samples(n=800))
    stop(make(), 3, rows)
    description, tensors = _tensors.read(path)
    for key, value in (("n", "x"), ("n", -1), ("n", 1 << 60), ("epoch", -1), ("epoch", 0.5)):
        state = description["state"] | {"rows": description["state"]["rows"] | {key: value}}
        path.write_bytes(_tensors.pack(description | {"state": state}, tensors))
        with pytest.raises(InvalidFileError, match="Delete the file"):
            make().fit(rows)


def test_file__is_no_checkpoint__not_told_to_delete_it(path):
    path.write_text("Notes of mine.\n")
    for place in (path, path.parent):
        with pytest.raises(InvalidFileError) as raised:
            fast("AutoEncoder", checkpoint=place).fit(X)
        assert str(raised.value).endswith(". Give another name.")
        assert "elete" not in str(raised.value)
    assert path.read_text() == "Notes of mine.\n"


def test_file__after_a_good_fit__is_gone_and_the_next_is_new(path):
    detector = fast("AutoEncoder", checkpoint=path).fit(X)
    assert not path.exists()
    assert_same(detector.fit(X), fast("AutoEncoder").fit(X))
    assert list(path.parent.iterdir()) == []


def test_file__after_a_fit_that_failed__stays(path):
    def jump(event):
        if event.epoch == 1:
            with torch.no_grad():
                for p in event.module.parameters():
                    p.fill_(float("nan"))

    with pytest.raises(FloatingPointError):
        fast("AutoEncoder", epochs=4, checkpoint=path, callbacks=[jump]).fit(X)
    assert path.exists()


def test_file__left_half_written_by_a_killed_process__deleted(path):
    left = path.with_name(".run.ckpt.1234567.part")
    other = path.with_name(".run2.ckpt.1234567.part")
    left.write_bytes(b"half"), other.write_bytes(b"half")
    fast("AutoEncoder", checkpoint=path).fit(X)
    assert list(path.parent.iterdir()) == [other]


def test_file__deleted_in_the_middle__written_again(path):
    seen = []

    def delete(event):
        if event.epoch == 2:
            path.unlink()
        seen.append(path.exists())

    fast("AutoEncoder", epochs=5, checkpoint=path, callbacks=[delete]).fit(X)
    assert seen == [False, True, False, True, True]


@pytest.mark.parametrize("contents", [b"mine", b""])
def test_file__of_somebody_else_meanwhile__kept_and_named(contents, path):
    def write(event):
        if event.epoch == 1:
            path.write_bytes(contents)

    with pytest.raises(ValueError, match=r"checkpoint=.*give each fit its own file"):
        fast("AutoEncoder", epochs=3, checkpoint=path, callbacks=[write]).fit(X)
    assert path.read_bytes() == contents


# --- the path -----------------------------------------------------------------------------------


def test_path__cannot_be_written__said_before_training(tmp_path, monkeypatch):
    def fail(event):
        raise AssertionError("trained")

    def refused(path, error=ValueError, match="checkpoint="):
        detector = fast("AutoEncoder", checkpoint=path, callbacks=[fail])
        with pytest.raises(error, match=match):
            detector.fit(X)

    refused(tmp_path / "missing" / "run.ckpt")
    refused(tmp_path)
    refused("")
    refused(tmp_path / ("x" * 300))
    refused(3, match="checkpoint")
    (tmp_path / "file").write_text("a file")
    refused(tmp_path / "file" / "run.ckpt")

    def read_only(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(tmp_path), "open", read_only)
    refused(tmp_path / "run.ckpt", match=r"checkpoint=.*Permission denied")


def test_checkpoint_every__not_a_positive_integer__refused(path):
    for value in (0, -1, 1.5, None):
        with pytest.raises(ValueError, match="checkpoint_every"):
            fast("AutoEncoder", checkpoint=path, checkpoint_every=value).fit(X)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_path__a_link__its_target_is_written(tmp_path):
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    stop(fast("AutoEncoder", checkpoint=link), 2)
    assert target.exists()
    assert link.is_symlink()
    assert_same(fast("AutoEncoder", checkpoint=link).fit(X), fast("AutoEncoder").fit(X))
    assert not target.exists()


def test_disk__full_in_the_middle__one_warning_and_the_last_file_stays(path):
    resource = pytest.importorskip("resource")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    contents = []

    def fill(event):
        if event.epoch == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        contents.append(path.read_bytes() if path.exists() else None)

    try:
        with pytest.warns(RuntimeWarning, match="could not be written after 3 epochs") as warned:
            detector = fast("AutoEncoder", epochs=6, checkpoint=path, callbacks=[fill]).fit(X)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert len(warned) == 1
    assert contents[1] != contents[2]
    assert contents[2:] == [contents[2]] * 4
    whole = fast("AutoEncoder", epochs=6).fit(X)
    assert_same(detector, whole)
    assert not path.exists()
    path.write_bytes(contents[2])
    assert_same(fast("AutoEncoder", epochs=6, checkpoint=path).fit(X), whole)


# --- several fits -------------------------------------------------------------------------------


def test_several_detectors__one_file__refused(path):
    detector = fast("AutoEncoder", checkpoint=path)
    for n_jobs in (1, 2):
        with pytest.raises(ValueError, match="checkpoint"):
            fit_many(detector, X, seeds=[0, 1], n_jobs=n_jobs)
    with pytest.raises(ValueError, match="checkpoint"):
        SeedEnsemble(detector, 2).fit(X)
    with pytest.raises(ValueError, match="checkpoint"):
        StackedSearchCV(detector, {"lr": [1e-3, 1e-2]}, scoring="roc_auc", cv=2).fit(
            X, np.arange(40) % 2
        )
    (one,) = fit_many(detector, X, seeds=[0])
    assert_same(one, fast("AutoEncoder").fit(X))


def test_several_detectors__each_its_file__train_alone_to_the_last_bit(path):
    files = [path, path.with_name("other.ckpt"), None]
    detectors = [fast("AutoEncoder", random_state=k, checkpoint=f) for k, f in enumerate(files)]
    assert together.fit_all(detectors, [X] * 3, [None] * 3) == [None] * 3
    for k, detector in enumerate(detectors):
        assert_same(detector, fast("AutoEncoder", random_state=k).fit(X))


def test_grid_search__one_fit_after_the_other__works(path):
    search = GridSearchCV(
        fast("AutoEncoder", checkpoint=path), {"lr": [1e-3, 1e-2]}, scoring="roc_auc", cv=2
    )
    assert np.isfinite(search.fit(X, np.arange(40) % 2).cv_results_["mean_test_score"]).all()


def test_several_processes__refused_by_all(path):
    told = []

    class One(processes.Ranks):
        def agree(self, error, signature):
            told.append(error)

    token = processes._current.set(One(0, 2))
    try:
        with pytest.raises(ValueError, match="checkpoint=None"):
            fast("AutoEncoder", checkpoint=path).fit(X)
    finally:
        processes._current.reset(token)
    assert len(told) == 1


# --- callbacks ----------------------------------------------------------------------------------


class Counter:
    """Remembers how many epochs there were, and a tensor."""

    def __init__(self):
        self.epochs, self.sum = 0, torch.zeros(2)

    def __call__(self, event):
        self.epochs += 1
        self.sum += event.epoch

    def state_dict(self):
        return {"epochs": self.epochs, "nested": {"sum": self.sum, "none": None, "list": [1.5]}}

    def load_state_dict(self, state):
        assert state["nested"]["list"] == [1.5]
        assert state["nested"]["none"] is None
        self.epochs, self.sum = state["epochs"], state["nested"]["sum"]


def test_callback__with_a_state__goes_on(path):
    stop(fast("DeepSVDD", epochs=4, checkpoint=path, callbacks=[Counter()]), 6)
    counter = Counter()
    fast("DeepSVDD", epochs=4, checkpoint=path, callbacks=[counter]).fit(X)
    assert counter.epochs == 8
    assert counter.sum.tolist() == [12, 12]


def test_callback__with_a_state_that_cannot_be_written__said(path):
    class Odd(Counter):
        def state_dict(self):
            return {"seen": {1, 2}}

    with pytest.raises(TypeError, match=r"checkpoint can hold .* holds set"):
        fast("AutoEncoder", checkpoint=path, callbacks=[Odd()]).fit(X)


def test_callback__with_keys_that_are_no_text__said(path):
    class Odd(Counter):
        def state_dict(self):
            return {"seen": {1: 2}}

    with pytest.raises(TypeError, match=r"keys are strings, .* has the key 1; use str\(key\)"):
        fast("AutoEncoder", checkpoint=path, callbacks=[Odd()]).fit(X)
    assert not path.exists()


def test_progress__starts_in_the_middle(path, capfd):
    stop(fast("AutoEncoder", epochs=5, checkpoint=path), 4)
    fast("AutoEncoder", epochs=5, checkpoint=path, verbose=1).fit(X)
    shown = capfd.readouterr().err
    assert "5/5" in shown
    assert "3/5" in shown or "4/5" in shown
    assert "1/5" not in shown
