"""What users write: type checkers are to find no fault with it, see test_typing.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

import deepod
from deepod import (
    DAE,
    PLAD,
    AnoRand,
    AutoEncoder,
    BaseDetector,
    DeepSVDD,
    SeedEnsemble,
    SklearnOutlierAdapter,
    fit_many,
    list_detectors,
)
from deepod.callbacks import EarlyStopping, Event, Progress
from deepod.networks import MLP, LeNet, Network, Recurrent
from deepod.params import integer, one_of, param, parameters
from deepod.types import Batch, Losses, Shape

X = np.random.default_rng(0).normal(size=(60, 3))


def told(event: Event) -> None:
    assert event.epoch < event.epochs, event.losses


class Highest:
    """A thresholder: the highest score alone is an anomaly."""

    def fit(self, scores: np.ndarray, y: Any = None) -> Highest:
        self.thresh_ = float(np.sort(scores)[-2])
        self.labels_ = self.predict(scores)
        return self

    def predict(self, scores: np.ndarray) -> np.ndarray:
        return (scores > self.thresh_).astype(int)


@parameters
class Own(BaseDetector):
    """A method of one's own: the squared error of a code."""

    latent_dim: int = param(default=2, accepts=[integer(1)], doc="Length of the code.")
    power: Literal["one", "two"] = param(
        default="two", accepts=[one_of("one", "two")], doc="Of the error."
    )
    lr = 1e-2
    scaler = "minmax"
    family = "mine"

    def _build_module(self, shape: Shape) -> nn.Module:
        network = self._network(shape)
        code = self.latent_dim
        return nn.Sequential(network.encoder(shape, code), network.decoder(code, shape))

    def _error(self, module: nn.Module, x: Tensor) -> Tensor:
        error: Tensor = (module(x) - x).abs().flatten(1).mean(1)
        return error.square() if self.power == "two" else error

    def _loss(self, module: nn.Module, batch: Batch) -> Losses:
        return {"error": self._error(module, batch.x).mean()}

    def _score(self, module: nn.Module, x: Tensor) -> Tensor:
        return self._error(module, x)


def fits_and_scores(folder: Path) -> None:
    detector = PLAD(epochs=2, n_members=1, random_state=0)
    lam: float = detector.fit(X).lam
    scores: np.ndarray = detector.decision_function(X, batch_size=16)
    labels: np.ndarray = detector.predict(X)
    both: tuple[np.ndarray, np.ndarray] = detector.predict(X, return_confidence=True)
    surely: np.ndarray = detector.predict_proba(X, "unify")
    _, surely = detector.predict_proba(X, return_confidence=True)
    for certain in (False, True):
        detector.predict(X, return_confidence=certain)
    assert lam == 3.0
    assert len(scores) == len(labels) == len(both[0]) == len(surely) == len(X)
    assert detector.explain(X, rule="gradients").shape == X.shape
    assert sum(map(len, detector.score_batches([X[:5], X[5:]]))) == len(X)
    assert len(detector.perturb(X, random_state=1)) == len(X)
    assert detector.set_threshold(1.0).threshold_ == 1.0
    assert detector.set_params(false_alarm_rate=0.1).calibrate(X).p_values(X).min() > 0
    losses = [entry["normal"] for entry in detector.history_]
    shape: tuple[int, ...] = detector.input_shape_
    device: torch.device = detector.device_
    weights = sum(p.numel() for p in detector.module_.parameters())
    assert shape == (3,)
    assert losses[0] * weights > 0
    assert device.type == "cpu"
    assert detector.n_features_in_ == len(detector.baseline_) == len(detector.shift_)
    assert len(detector.labels_) == len(detector.decision_scores_)
    params: dict[str, Any] = detector.get_params()
    assert params["epochs"] == detector.epochs_

    detector.save(folder / "model.deepod")
    again: BaseDetector = deepod.load(str(folder / "model.deepod"), device="cpu")
    assert again.decision_function(X).shape == (len(X),)
    own = Own(epochs=1, power="one").fit(X)
    own.save(os.fspath(folder / "own"))
    assert deepod.load(folder / "own", detectors=[Own]).predict(X).shape == (len(X),)


def settings() -> list[BaseDetector]:
    widths = [8, 4]
    watching = [EarlyStopping(patience=2)]
    networks: list[Network] = [MLP(hidden=widths), LeNet(channels=(4,)), Recurrent(cell="lstm")]
    detectors = [
        AutoEncoder(epochs="auto", network=networks[0], callbacks=watching, contamination="auto"),
        AutoEncoder(callbacks=[told, Progress()], validation_fraction=0.2, contamination=0),
        AnoRand(supervision="few_labels", fusion="mean", checkpoint=Path("fit.safetensors")),
        DAE(corruption="masking", milestones=[3, 5], input_shape=(1, 3), contamination=Highest()),
        DeepSVDD(pretrain_epochs=0, scaler=None, false_alarm_rate=0.1, calibration_fraction=0.2),
        PLAD(reach=[1, 3], perturbator_hidden=(8,), network="mlp", max_grad_norm=1),
        PLAD(random_state=np.random.RandomState(0), engine="eager", verbose=True),
    ]
    for row in list_detectors():
        detectors.append(row["detector"](epochs=1))
    return [d.set_params(lr=1e-3, network__hidden=(4,)).set_params(epochs=1) for d in detectors]


def many() -> None:
    detectors: list[PLAD] = fit_many(PLAD(epochs=1), X, seeds=range(2))
    assert detectors[0].lam == 3.0
    ensemble = SeedEnsemble(PLAD(epochs=1), n_members=2, combination="max", random_state=0).fit(X)
    assert ensemble.predict(X).shape == ensemble.decision_scores_.shape
    assert ensemble.set_params(contamination="auto").members_[1].epochs_ == 1
    adapter = SklearnOutlierAdapter(ensemble).fit(X)
    assert adapter.predict(X).shape == adapter.score_samples(X).shape


def exports(detector: BaseDetector, folder: Path) -> None:
    deepod.onnx.export(detector, folder / "model.onnx", dtype="float32")
    deepod.plotting.plot_scores(detector.decision_function(X))
    data = deepod.datasets.load_bundled("breast_cancer")
    detector.fit(deepod.data.array(data.data))
