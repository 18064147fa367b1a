"""What detectors of dynamic graphs have in common: one fit, and scores in the order of time."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from deepod._hyperparameters import Hyperparameters
from deepod._inputs.rows import InMemory
from deepod._inputs.seeds import draw_seeds, global_generator
from deepod._inputs.settings import fixed
from deepod._inputs.validation import resolve_device
from deepod._scoring.apply import finite
from deepod._scoring.fitted import Fitted
from deepod._scoring.vocabulary import Contamination
from deepod._storage import rebuild
from deepod._storage.saved import Saved
from deepod._training.loop import train
from deepod._training.task import Task
from deepod.callbacks import Progress
from deepod.params import integer, param, parameters
from deepod.types import Callback, Phase, Shape

_SHARED = {field.name: field for field in fields(Hyperparameters)}


def _shared(name: str) -> Any:
    """Declare a hyper-parameter as the detectors of rows have it."""
    return param(default=_SHARED[name].default, **_SHARED[name].metadata)


def vectors(*shape: int) -> nn.Parameter:
    """Draw parameters of mean squared length 1 in the last dimension.

    Uniformly: normal numbers on the device "meta" would import libraries for ten seconds.
    """
    bound = (3 / shape[-1]) ** 0.5
    return nn.Parameter(nn.init.uniform_(torch.empty(shape), -bound, bound))


@parameters
class GraphDetector(Saved, Fitted):
    """Detector of dynamic graphs, which reads snapshots of a graph in the order of time.

    What X is, the method says. A score depends on what comes before it: on the training data, which
    X is taken to follow, and on the earlier snapshots of X. It depends on nothing later, and
    :meth:`decision_function` changes nothing: every call begins where training ended.

    A method defines ``_read`` (X to what it calls data), ``_build_module``, ``_rows`` and
    ``_phases`` (what the training loop is given), ``_noise`` and ``_scores``.

    Attributes
    ----------
    decision_scores_ : ndarray, float64
        Scores of the training data, in their order.
    threshold_ : float
        Scores above it are labelled 1. Follows ``contamination`` and ``false_alarm_rate``, also
        when they are changed after ``fit``, and ``set_threshold``.
    labels_ : ndarray, int
        0 (normal) or 1 (anomaly) for the training data.
    history_ : list of dict
        One entry per epoch: phase, epoch, seconds and each weighted loss term.
    module_ : torch.nn.Module
        The trained module, on ``device_``.
    device_ : torch.device
    n_features_in_ : int
    """

    contamination: Contamination = _shared("contamination")
    false_alarm_rate: float | None = param(
        default=None,
        accepts=_SHARED["false_alarm_rate"].metadata["accepts"],
        doc="Share of normal scores that may be flagged, on average. Replaces ``contamination`` "
        "where it is given; needs ``calibrate`` with normal data that follow the training data.",
    )
    epochs: int = param(
        default=200, accepts=[integer(0)], doc="Passes over the training data, in order."
    )
    lr: float = _shared("lr")
    weight_decay: float = _shared("weight_decay")
    max_grad_norm: float | None = _shared("max_grad_norm")
    callbacks: Sequence[Callback] = _shared("callbacks")
    device: str = _shared("device")
    random_state: int | np.random.RandomState | None = _shared("random_state")
    verbose: int = _shared("verbose")

    # For list_detectors(); every method sets its own.
    family: ClassVar[str] = ""
    inputs: ClassVar[tuple[str, ...]] = ("edges",)
    paper: ClassVar[str] = ""

    # --- What a method defines ------------------------------------------------------------------

    @abc.abstractmethod
    def _read(self, X: Any, reset: bool) -> Any:
        """Validate X and give it the form that the method works on; ``reset`` in ``fit``."""

    @abc.abstractmethod
    def _build_module(self, shape: Shape) -> nn.Module:
        """Build the module, on the CPU."""

    @abc.abstractmethod
    def _rows(self, data: Any) -> InMemory:
        """Return what an epoch passes over."""

    @abc.abstractmethod
    def _phases(self, data: Any) -> list[Phase]:
        """Return the stages of training."""

    def _rows_at_once(self) -> int:
        """Return how many rows an optimiser step takes."""
        return 1

    def _noise(self, data: Any, n: int, generator: torch.Generator) -> Any:
        """Draw every random number that the loss of n rows uses."""
        return None

    @abc.abstractmethod
    def _score_training(self, data: Any) -> tuple[np.ndarray, int]:
        """Score the training data and keep what scores of later data begin with.

        Returns the scores, and how many of the first ones the threshold leaves out, because they
        have too little before them.
        """

    @abc.abstractmethod
    def _scores(self, data: Any) -> np.ndarray:
        """Score data that follow those of training."""

    # --- fit ------------------------------------------------------------------------------------

    @fixed()
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from data in the order of time.

        Parameters
        ----------
        X : array-like or sequence
            As in :meth:`decision_function`.
        y : object, optional
            Ignored.

        Returns
        -------
        self : object
            The fitted detector. If fit fails or is interrupted, self is as it was before.

        Raises
        ------
        ValueError
            If a parameter or X is not acceptable; the message names it.
        FloatingPointError
            If a loss becomes NaN or infinite; the message names the term and the step.
        KeyboardInterrupt
            At the end of the optimiser step during which Ctrl-C was pressed.
        """
        self._validate_params()
        params = self.get_params(deep=False)
        fitted = type(self)(**params)
        with torch.enable_grad():
            fitted._fit(X)
        kept = {k: v for k, v in self.__dict__.items() if not k.endswith("_")}
        self.__dict__ = kept | fitted.__dict__ | params
        return self

    def _fit(self, X: Any) -> None:
        self.device_ = resolve_device(self.device)
        self._seeds = draw_seeds(self.random_state)
        data = self._read(X, reset=True)
        with global_generator(self._seeds.weights), torch.device("cpu"):
            module = self._build_module(self.input_shape_).float()
        self.module_ = module.to(self.device_)
        self._fitted_params = rebuild.built_by(self.get_params(deep=False))
        task = Task(
            self.module_,
            self._rows(data),
            self._phases(data),
            lambda n, generator: self._noise(data, n, generator),
            batch_size=self._rows_at_once(),
            lr=self.lr,
            weight_decay=self.weight_decay,
            optimizer="adam",
            max_grad_norm=self.max_grad_norm,
            order_stream=torch.Generator("cpu").manual_seed(self._seeds.order),
            noise_stream=torch.Generator(self.device_).manual_seed(self._seeds.noise),
            callbacks=[*self.callbacks, *([Progress()] if self.verbose else [])],
        )
        # Nothing is recorded: what a loss reads of the graph is not in its batches.
        (member,) = train([task], engine="eager")
        if member.error is not None:
            raise member.error
        self.history_ = member.history
        del self._seeds
        with torch.no_grad():
            scores, early = self._score_training(data)
        if not np.isfinite(scores).all():
            raise FloatingPointError("Training data got scores that are NaN or infinite: lower lr.")
        self._point_scores = scores
        self._remember_scores(scores[early:])

    # --- scores ---------------------------------------------------------------------------------

    @fixed()
    def decision_function(self, X: Any, batch_size: int | None = None) -> np.ndarray:
        """Return anomaly scores of data that follow those of training; higher = more anomalous.

        Parameters
        ----------
        X : array-like or sequence
            Data that follow those of training: what a detector takes is in its docstring.
        batch_size : int, optional
            Has no effect: snapshots come one after the other.

        Returns
        -------
        scores : ndarray of shape (n,), float64
            Each depends on the earlier snapshots of X, too: to score data that follow on others,
            give both, and take the last scores.
        """
        check_is_fitted(self)
        data = self._read(X, reset=False)
        with torch.no_grad():
            return finite(self._scores(data))

    @property
    def decision_scores_(self) -> np.ndarray:
        """The scores of the training data."""
        self._check_scores()
        return self._point_scores

    @property
    def labels_(self) -> np.ndarray:
        """The labels of the training data, 1 for anomalies."""
        return self._labels(self.decision_scores_)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")
