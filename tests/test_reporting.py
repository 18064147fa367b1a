"""scikit-learn's callbacks on detectors: told of fits, phases and epochs, and may end phases."""

import importlib.util
import pickle
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import deepod
from tests.cases import REPRESENTATIVES, fast, fast_series, samples, waves

Y = np.repeat([0, 1], [30, 10])


class Recorder:
    """A callback that is passed on to estimators inside, and keeps what it is told."""

    max_propagation_depth = None

    def __init__(self, stop_at: int | None = None, fail_in: str = "", ask: bool = False):
        self.stop_at, self.fail_in, self.ask = stop_at, fail_in, ask
        self.told: list[tuple] = []
        self.fitted: list = []

    def setup(self, estimator, context):
        self.told.append(("setup",))

    def teardown(self, estimator, context):
        self.told.append(("teardown",))

    def on_fit_task_begin(self, estimator, context, *, X=None):
        self.told.append(("begin", context.task_name, context.task_id, context.max_subtasks))
        if self.fail_in == context.task_name:
            raise RuntimeError("a mistake in the callback")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None):
        self.told.append(("end", context.task_name, context.task_id))
        return context.task_name == "epoch" and context.task_id == self.stop_at


class Asking(Recorder):
    """One that wants to know how good the detector is."""

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        if fitted_estimator is not None:
            scores = fitted_estimator.decision_function(X)
            self.fitted.append((context.task_name, scores, fitted_estimator.predict(X)))


needs_callbacks = pytest.mark.skipif(
    importlib.util.find_spec("sklearn.callback") is None, reason="scikit-learn before 1.9"
)


@needs_callbacks
def test_callbacks__told_of_fit_phases_and_epochs_in_order():
    recorder = Recorder()
    detector = fast("IAELSTMKL", network="mlp").set_callbacks(recorder).fit(samples())
    phases = list(dict.fromkeys(entry["phase"] for entry in detector.history_))
    assert len(phases) == 2
    expected = [("setup",), ("begin", "fit", 0, None)]
    for number, phase in enumerate(phases):
        expected.append(("begin", phase, number, 2))
        for epoch in range(2):
            expected += [("begin", "epoch", epoch, 0), ("end", "epoch", epoch)]
        expected.append(("end", phase, number))
    assert recorder.told == [*expected, ("end", "fit", 0), ("teardown",)]


@needs_callbacks
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_callbacks__true_at_an_epoch__ends_the_phase(name):
    detector = fast(name, epochs=5, network="mlp").set_callbacks(Recorder(stop_at=1))
    history = detector.fit(samples()).history_
    assert {entry["epoch"] for entry in history} == {0, 1}
    by_ours = fast(name, epochs=5, network="mlp", callbacks=[lambda event: event.epoch == 1])
    assert len(by_ours.fit(samples()).history_) == len(history)


@needs_callbacks
@pytest.mark.parametrize("engine", ["eager", "trace"])
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_callbacks__fitted_estimator__is_the_detector_as_if_training_was_over(name, engine):
    X, asking = samples(), Asking()
    detector = fast(name, network="mlp", engine=engine).set_callbacks(asking).fit(X, Y)
    (_, last, labels), (task, scores, _) = asking.fitted[-2:]
    assert task == "fit"
    np.testing.assert_array_equal(scores, detector.decision_function(X))
    np.testing.assert_array_equal(last, scores)
    np.testing.assert_array_equal(labels, detector.predict(X))
    first = asking.fitted[0][1]
    assert not np.array_equal(first, last)
    alone = fast(name, network="mlp", engine=engine).fit(X)  # nobody notices that it was asked
    np.testing.assert_array_equal(alone.decision_function(X), scores)


@needs_callbacks
def test_callbacks__series__told_and_given_series_back():
    asking, recorder = Asking(), Recorder(stop_at=0)
    X = waves(200).reshape(4, 50, 2)
    detector = fast_series("LSTMAE", epochs=2).set_callbacks(asking).fit(X)
    assert [task for task, _, _ in asking.fitted] == ["epoch", "epoch", "fit"]
    np.testing.assert_array_equal(asking.fitted[1][1], detector.decision_function(X))
    stopped = fast_series("LSTMAE", epochs=5).set_callbacks(recorder).fit(waves())
    assert len(stopped.history_) == 1
    without_steps = Recorder()
    fast_series("RidgeAR").set_callbacks(without_steps).fit(waves())
    assert [told[0] for told in without_steps.told] == ["setup", "begin", "end", "teardown"]


@needs_callbacks
@pytest.mark.parametrize("where", ["pipeline", "search"])
def test_callbacks__of_a_pipeline_or_search__told_of_epochs_without_warning(where, recwarn):
    recorder, detector = Recorder(), fast("PLAD")
    if where == "pipeline":
        around, fits = make_pipeline(StandardScaler(), detector), 1
    else:
        around = GridSearchCV(detector, {"lr": [1e-3, 1e-2]}, cv=2, scoring="roc_auc")
        fits = 5
    around.set_callbacks(recorder).fit(samples(), np.tile([0, 1], 20))
    assert not [w for w in recwarn.list if "callbacks" in str(w.message)]
    assert recorder.told.count(("begin", "epoch", 1, 0)) == fits
    assert [told[0] for told in recorder.told].count("setup") == 1
    assert not hasattr(detector, "_skl_callbacks")


@needs_callbacks
def test_callbacks__scoring_monitor__one_score_an_epoch():
    from sklearn.callback import ScoringMonitor
    from sklearn.metrics import roc_auc_score

    monitor, X = ScoringMonitor(scoring="roc_auc"), samples()
    detector = fast("PLAD", epochs=3).set_callbacks(monitor).fit(X, Y)
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert [row["task_id"] for row in rows] == [0, 1, 2]
    assert rows[-1]["roc_auc"] == roc_auc_score(Y, detector.decision_function(X))


@needs_callbacks
def test_callbacks__progress_bar__shows_epochs(capsys):
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    fast("PLAD").set_callbacks(ProgressBar()).fit(samples())
    assert "PLAD - fit" in capsys.readouterr().out


@needs_callbacks
@pytest.mark.parametrize("task", ["fit", "epoch"])
def test_callbacks__error_of_theirs__fit_fails_and_changes_nothing(task):
    recorder = Recorder(fail_in=task)
    detector = fast("PLAD").set_callbacks(recorder)
    with pytest.raises(RuntimeError, match="a mistake"):
        detector.fit(samples())
    assert recorder.told[-1] == ("teardown",)
    assert not [told for told in recorder.told if told[0] == "end"]
    assert not hasattr(detector, "module_")
    assert not hasattr(detector, "_callback_fit_ctx")


@needs_callbacks
def test_callbacks__loss_not_finite__torn_down_without_an_end():
    recorder = Recorder()
    detector = fast("AutoEncoder", lr=1e30, epochs=20, scaler=None).set_callbacks(recorder)
    with pytest.raises(FloatingPointError):
        detector.fit(samples() * 1e18)
    assert recorder.told[-1] == ("teardown",)
    assert recorder.told[-2][:2] == ("begin", "epoch")


@needs_callbacks
def test_callbacks__detectors_fitted_together_and_halves__not_told():
    recorder = Recorder()
    prototype = deepod.AutoEncoder(epochs=3, random_state=0).set_callbacks(recorder)
    deepod.fit_many(prototype, samples(), seeds=[0, 1])
    assert recorder.told == []
    clone(prototype).fit(samples())  # its halves are trained out of sight
    assert recorder.told.count(("begin", "epoch", 0, 0)) == 1


@needs_callbacks
def test_callbacks__kept_by_fit_and_clone__not_by_files(tmp_path):
    detector = fast("PLAD").set_callbacks(Recorder()).fit(samples())
    assert clone(detector)._skl_callbacks is detector._skl_callbacks
    detector.save(tmp_path / "m")
    for again in (deepod.load(tmp_path / "m"), pickle.loads(pickle.dumps(detector))):
        np.testing.assert_array_equal(
            again.decision_function(samples()), detector.decision_function(samples())
        )
    assert not hasattr(deepod.load(tmp_path / "m"), "_skl_callbacks")


def test_older_scikit_learn__detectors_without_callbacks(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)
    spec = importlib.util.find_spec("deepod._reporting")
    older = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(older)

    def fit(detector, X, y=None):
        return detector

    assert older.reported(fit) is fit
    assert not hasattr(older.CallbackSupport, "set_callbacks")


def test_own_callbacks__begin_epoch__told_before_every_epoch():
    told = []

    class Both:
        def begin_epoch(self, phase, epoch, epochs):
            told.append((phase, epoch, epochs))

        def __call__(self, event):
            assert isinstance(event.module, torch.nn.Module)
            assert told[-1] == (event.phase, event.epoch, event.epochs)

    detector = fast("IAELSTMKL", network="mlp", callbacks=[Both()]).fit(samples())
    assert [(e["phase"], e["epoch"], 2) for e in detector.history_] == told
