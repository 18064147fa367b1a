"""Ctrl-C, as a signal to a process that trains."""

import os
import signal
import threading
import time
import traceback

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from deepod import AutoEncoder, StackedSearchCV, fit_many
from deepod.networks import MLP

from . import children
from .cases import fast, samples

X = samples()
Y = np.arange(40) % 2
SMALL = {"network": MLP(hidden=(4,), activation="tanh"), "batch_size": 16}
FOREVER = SMALL | {"epochs": 10**6}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")


# --- in the other process -----------------------------------------------------------------------


def _report(scenario, connection, args):
    os.setpgrp()  # Ctrl-C reaches a process and those that it has started
    # What runs in the background may have been started with the signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        connection.send(scenario(connection, *args))
    except BaseException:
        connection.send(traceback.format_exc())


def press():
    """Press Ctrl-C in this process."""
    signal.raise_signal(signal.SIGINT)


def caught(call):
    """Text of the KeyboardInterrupt that a call ends with; the handler must be Python's again."""
    try:
        call()
    except KeyboardInterrupt as error:
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return str(error)
    raise AssertionError("no KeyboardInterrupt")


class At:
    """Does something after an epoch of every phase; counts phases that are over."""

    def __init__(self, epoch, action):
        self.epoch, self.action, self.ends = epoch, action, 0

    def __call__(self, event):
        if event.epoch == self.epoch:
            self.action()

    def end(self):
        self.ends += 1

    def __deepcopy__(self, memo):  # shared by the clones of a search
        return self


# --- in this one --------------------------------------------------------------------------------


def run(scenario, *args, press=False):
    """Run a scenario in a process of its own; what it found.

    Ctrl-C may be pressed when it says "training".
    """
    ours, theirs = children.context.Pipe()
    process = children.start(_report, scenario, theirs, args)
    theirs.close()
    try:
        if press:
            assert ours.poll(600)
            assert ours.recv() == "training"
            os.killpg(process.pid, signal.SIGINT)
        found = "training"
        while found == "training":  # told by several members
            assert ours.poll(600), "it goes on"
            found = ours.recv()
        assert isinstance(found, dict), found
        return found
    finally:
        if process.is_alive():
            process.kill()
        process.join()


# --- one fit ------------------------------------------------------------------------------------


def one_fit(connection, engine):
    at = At(1, lambda: connection.send("training"))
    detector = fast("DeepSVDD", **SMALL).fit(X)
    scores = detector.decision_scores_.copy()
    detector.set_params(callbacks=[at], engine=engine, **FOREVER)
    text = caught(lambda: detector.fit(samples(seed=1)))
    same = np.array_equal(detector.decision_function(X), scores)
    unfitted = fast("DeepSVDD", callbacks=[At(0, press)], **SMALL)
    texts = text, caught(lambda: unfitted.fit(X))
    fitted = unfitted.__sklearn_is_fitted__()
    later = unfitted.set_params(callbacks=()).fit(X).decision_scores_
    again = np.array_equal(later, scores)
    return {"texts": texts, "same": same, "fitted": fitted, "again": again, "ends": at.ends}


@pytest.mark.parametrize("engine", ["eager", "trace"])
def test_interrupt__one_fit__says_how_far_and_changes_nothing(engine):
    found = run(one_fit, engine, press=True)
    for text in found["texts"]:
        start, _, epoch_and_rest = text.partition("after epoch ")
        assert start == "Training was interrupted "
        assert epoch_and_rest.endswith(" of phase 'pretrain'; the detector is as it was before.")
    assert found["texts"][1].startswith("Training was interrupted after epoch 0 of")
    assert found["same"]
    assert not found["fitted"]
    assert found["again"]
    assert found["ends"] == 1


class Pressed(AutoEncoder):
    """Ctrl-C is pressed while the third of many steps is calculated."""

    steps = 0

    def _loss(self, module, batch):
        type(self).steps += 1
        if self.steps == 3:
            press()
        return super()._loss(module, batch)


def long_epoch(connection):
    detector = Pressed(epochs=1, batch_size=2, engine="eager")
    return {"text": caught(lambda: detector.fit(samples(n=200))), "steps": Pressed.steps}


def test_interrupt__in_the_middle_of_an_epoch__ends_with_the_step():
    found = run(long_epoch)
    assert "in the first epoch" in found["text"]
    assert found["steps"] == 3


def impatient(connection):
    reached = []

    def press_twice():
        press()
        reached.append("the first")
        press()
        reached.append("the second")

    detector = fast("AutoEncoder", callbacks=[At(0, press_twice)], **FOREVER)
    text = caught(lambda: detector.fit(X))
    return {"text": text, "reached": reached, "fitted": detector.__sklearn_is_fitted__()}


def test_interrupt__pressed_twice__stops_at_once():
    assert run(impatient) == {"text": "", "reached": ["the first"], "fitted": False}


def last_epoch(connection):
    at = At(1, press)
    detector = fast("AutoEncoder", callbacks=[at], epochs=2)
    text = caught(lambda: detector.fit(X))
    return {"text": text, "fitted": detector.__sklearn_is_fitted__(), "ends": at.ends}


def test_interrupt__after_the_last_step__is_not_lost():
    found = run(last_epoch)
    assert "after epoch 1 of phase 'fit'" in found["text"]
    assert not found["fitted"]
    assert found["ends"] == 1


def before_an_error(connection):
    def fail():
        press()
        raise RuntimeError("of the callback")

    return {"text": caught(lambda: fast("AutoEncoder", callbacks=[At(0, fail)]).fit(X))}


def test_interrupt__then_an_error__is_not_lost():
    assert "interrupted" in run(before_an_error)["text"]


def after_errors(connection):
    def fail():
        raise RuntimeError("of the callback")

    for callbacks, params in [([At(0, fail)], {}), ([], {"lr": 1e30, "optimizer": "sgd"})]:
        with pytest.raises((RuntimeError, FloatingPointError)):
            fast("AutoEncoder", callbacks=callbacks, **params).fit(X)
    return {"back": signal.getsignal(signal.SIGINT) is signal.default_int_handler}


def test_handler__after_errors__is_put_back():
    assert run(after_errors)["back"]


def while_scoring(connection):
    class Presses:
        def fit(self, scores):
            press()

        def predict(self, scores):
            raise AssertionError

    detector = fast("AutoEncoder", contamination=Presses())
    text = caught(lambda: detector.fit(X))
    fitted = detector.__sklearn_is_fitted__()
    return {"text": text, "fitted": fitted}


def test_interrupt__when_training_is_over__as_python_does():
    assert run(while_scoring) == {"text": "", "fitted": False}


def with_checkpoint(connection, path):
    detector = fast("AutoEncoder", epochs=20, checkpoint=path, checkpoint_every=5)
    text = caught(lambda: detector.set_params(callbacks=[At(12, press)]).fit(X))
    epochs = []
    detector.set_params(callbacks=[lambda event: epochs.append(event.epoch)]).fit(X)
    whole = fast("AutoEncoder", epochs=20).fit(X)
    same = np.array_equal(detector.decision_scores_, whole.decision_scores_)
    return {"text": text, "epochs": epochs, "same": same}


def test_interrupt__with_a_checkpoint__says_where_the_next_fit_goes_on(tmp_path):
    path = str(tmp_path / "run.ckpt")
    found = run(with_checkpoint, path)
    assert found["text"] == (
        "Training was interrupted after epoch 12 of phase 'fit'; the detector is as it was before. "
        f"The next fit goes on from checkpoint={path!r}, written when 10 of 13 epochs were over."
    )
    assert found["epochs"] == list(range(10, 20))
    assert found["same"]


# --- others who handle Ctrl-C, or cannot ------------------------------------------------------


def other_handler(connection):
    pressed = []

    def handle(number, frame):
        pressed.append(number)

    signal.signal(signal.SIGINT, handle)
    detector = fast("AutoEncoder", epochs=3, callbacks=[At(0, press)]).fit(X)
    return {
        "pressed": len(pressed),
        "epochs": len(detector.history_),
        "kept": signal.getsignal(signal.SIGINT) is handle,
    }


def test_handler__of_the_program__is_left_alone():
    assert run(other_handler) == {"pressed": 1, "epochs": 3, "kept": True}


def handler_of_a_callback(connection):
    def handle(number, frame):
        pass

    at = At(0, lambda: signal.signal(signal.SIGINT, handle))
    fast("AutoEncoder", callbacks=[at]).fit(X)
    return {"kept": signal.getsignal(signal.SIGINT) is handle}


def test_handler__set_during_training__is_left_alone():
    assert run(handler_of_a_callback)["kept"]


def other_thread(connection):
    handlers = []
    at = At(0, lambda: handlers.append(signal.getsignal(signal.SIGINT)))
    detector = fast("AutoEncoder", callbacks=[at])
    thread = threading.Thread(target=detector.fit, args=(X,))
    thread.start()
    thread.join()
    return {
        "fitted": detector.__sklearn_is_fitted__(),
        "default": handlers == [signal.default_int_handler],
    }


def test_handler__in_another_thread__is_python_s():
    assert run(other_thread) == {"fitted": True, "default": True}


# --- many fits ----------------------------------------------------------------------------------


def many_fits(connection):
    at = At(1, lambda: connection.send("training"))
    text = caught(lambda: fit_many(AutoEncoder(callbacks=[at], **FOREVER), X, seeds=range(3)))
    return {"text": text, "ends": at.ends}


def test_interrupt__members_side_by_side__all_stop():
    ours = run(many_fits, press=True)
    assert "Training was interrupted after epoch" in ours["text"]
    assert ours["ends"] == 3


def search(connection, kind):
    begun = []
    callbacks = [At(0, lambda: begun.append(1)), At(1, lambda: connection.send("training"))]
    detector = fast("AutoEncoder", callbacks=callbacks, **FOREVER)
    searching = kind(detector, {"batch_size": [16, 20]}, scoring="roc_auc", cv=2)
    text = caught(lambda: searching.fit(X, Y))
    return {"text": text, "begun": len(begun), "fitted": hasattr(searching, "cv_results_")}


@pytest.mark.parametrize("kind", [GridSearchCV, StackedSearchCV])
def test_interrupt__within_a_search__ends_the_search(kind):
    found = run(search, kind, press=True)
    assert "Training was interrupted" in found["text"]
    assert found["begun"] == (1 if kind is GridSearchCV else 2)  # folds side by side
    assert not found["fitted"]


class Beat:
    """Leaves a file that tells when this process has last trained."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, event):
        (self.folder / str(os.getpid())).touch()


def search_in_processes(connection, kind, folder):
    def tell():
        while len([*folder.iterdir()]) < 2:
            time.sleep(0.1)
        connection.send("training")

    threading.Thread(target=tell, daemon=True).start()
    detector = fast("AutoEncoder", callbacks=[Beat(folder)], **FOREVER)
    searching = kind(detector, {"batch_size": [16, 20]}, scoring="roc_auc", cv=2, n_jobs=2)
    caught(lambda: searching.fit(X, Y))
    return {"fitted": hasattr(searching, "cv_results_")}


@pytest.mark.slow  # workers import torch
@pytest.mark.parametrize("kind", [GridSearchCV, StackedSearchCV])
def test_interrupt__within_a_search_in_processes__ends_all_of_them(kind, tmp_path):
    assert run(search_in_processes, kind, tmp_path, press=True) == {"fitted": False}
    workers = [*tmp_path.iterdir()]
    assert len(workers) == 2
    until = time.monotonic() + 600
    before: list[int] = []
    while before != (beats := [path.stat().st_mtime_ns for path in workers]):
        assert time.monotonic() < until, "a worker goes on"
        before = beats
        time.sleep(2)
