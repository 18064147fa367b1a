"""The base class of every detector: what a method does not have to write."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from deepod._hyperparameters import Hyperparameters
from deepod._inputs.containers import as_rows
from deepod._inputs.encoding import restore_encoder
from deepod._inputs.scaling import Scaler
from deepod._inputs.seeds import spawn_seeds
from deepod._inputs.settings import fixed
from deepod._inputs.validation import validate_labels, validate_rows
from deepod._reporting import CallbackSupport, reported
from deepod._scoring.apply import Function, apply, finite, rows_at_once
from deepod._scoring.as_module import as_module
from deepod._scoring.explain import integrated_gradients
from deepod._scoring.memory import AtOnce
from deepod._storage import rebuild
from deepod._storage.saved import Saved
from deepod._training.fitting import Fit
from deepod._training.together import fit_all
from deepod._transfer import Continues
from deepod.networks import Network, family_with, resolve
from deepod.params import parameters
from deepod.types import Batch, Losses, Phase, Refresh, Shape


@parameters
class BaseDetector(Continues, Saved, CallbackSupport, Hyperparameters):
    """Deep anomaly detector: validates, scales, trains, scores and sets the threshold.

    A method declares its own hyper-parameters with :func:`deepod.params.param` and defines

    - ``_build_module(shape)``: the torch module for samples of ``shape``;
    - ``_loss(module, batch)``: a dict of weighted loss terms, which the loop adds up;
    - ``_score(module, x)``: one score per sample, higher = more anomalous;

    and, where it needs them, ``_prepare`` (the rows to train on), ``_noise`` (the random numbers
    of a loss), ``_phases`` (several stages of training) and ``_after_training`` (what the score
    needs to know of the training rows). Everything learned lives in the
    module's parameters and buffers. ``_loss`` and ``_score`` read hyper-parameters and their
    arguments, nothing else; the score of a sample depends on that sample alone.

    Attributes
    ----------
    decision_scores_ : ndarray of shape (n_samples,), float64
        Scores of the training rows, in their order, of each as if it had not been trained on, see
        ``cross_fitting``; not if ``memory_limit`` does not allow it.
    unseen_ : bool
        Whether it was: then ``p_values`` need no calibration rows.
    threshold_ : float
        Scores above it are labelled 1. Follows ``contamination`` and ``false_alarm_rate``, also
        when they are changed after ``fit``, and ``set_threshold``.
    labels_ : ndarray of shape (n_samples,), int
        0 (normal) or 1 (anomaly) for the training rows; absent where ``decision_scores_`` is.
    calibration_scores_ : ndarray, float64
        Scores of the rows that ``calibration_fraction`` held out, or that ``calibrate`` was given,
        in ascending order; under ``supervision`` with cross-fitting, without either, those of the
        training rows that are not labelled 1. Only if there are any.
    given_threshold_ : float or None
        What ``set_threshold`` was given; it holds under the parameters of ``given_under_``.
    given_under_ : tuple or None
        ``contamination`` and ``false_alarm_rate`` as they were then.
    history_ : list of dict
        One entry per epoch: phase, epoch, seconds and each weighted loss term.
    module_ : torch.nn.Module
        The trained module, on ``device_``.
    device_ : torch.device
    baseline_ : ndarray of shape input_shape_, float64
        A typical row, which :meth:`explain` compares with, in scaled units: the median of each
        value over at most 1024 rows that were trained on, evenly spaced, none of them labelled 1.
    epochs_ : int
        ``epochs``, or what "auto" stood for.
    engine_ : str
        What ``engine`` stood for in the last phase of training.
    input_shape_ : tuple of int
        Shape of one sample.
    scaler_ : object
        What scales samples; ``shift_``, ``scale_`` and ``fill_`` are what it has learned.
    fill_ : ndarray or None
        What takes the place of NaN, in the units of X: a median for each feature of a table, of
        shape (d,), and for each channel of windows, (channels,), and images, (channels, 1, 1). None
        if ``missing="refuse"``.
    encoder_ : object
        What encodes the columns of mixed tables; only with ``categorical_features`` or
        ``datetime_features``.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if X had column names.
    """

    # For list_detectors(); every method sets its own.
    family: ClassVar[str] = ""
    inputs: ClassVar[tuple[str, ...]] = ("table", "windows", "images")
    paper: ClassVar[str] = ""
    # Optimiser steps that epochs="auto" aims at, and the most epochs it may take.
    auto_steps: ClassVar[int] = 2000
    auto_epochs: ClassVar[int] = 1000
    # Whether rows score lower once they were trained on, so that cross_fitting is needed.
    learns_by_heart: ClassVar[bool] = True
    # Whether scores have gradients, for explain(rule="gradients"): ranks have none.
    has_gradients: ClassVar[bool] = True
    # Whether scores can be written as a graph of operators: those found along gradients cannot.
    has_graph: ClassVar[bool] = True
    # The class of its fits, if it is not that of rows.
    _fit_kind: ClassVar[type[Fit] | None] = None
    # Whether the networks that network="auto" stands for have BatchNorm.
    auto_batch_norm: ClassVar[bool] = False

    # --- What a method defines -----------------------------------------------------------------

    @abc.abstractmethod
    def _build_module(self, shape: Shape) -> nn.Module:
        """Build the module for samples of ``shape``, on the CPU."""

    @abc.abstractmethod
    def _loss(self, module: nn.Module, batch: Batch) -> Losses:
        """Weighted loss terms of a batch, each a scalar tensor."""

    @abc.abstractmethod
    def _score(self, module: nn.Module, x: Tensor) -> Tensor:
        """One score per sample, shape (B,), higher = more anomalous."""

    def _score_trained(self, module: nn.Module, x: Tensor) -> Tensor:
        """Score samples that were trained on, each as if it had not been, where that is known."""
        return self._score(module, x)

    def _prepare(
        self, X: np.ndarray, y: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Rows to train on and their labels, from scaled rows; y only under ``supervision``.

        X is read-only. Of rows that are read from disk, buffer by buffer.
        """
        return X, None

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Any:
        """Every random number that the loss of n samples uses, as a tensor or a tuple of them."""
        return None

    def _phases(self) -> list[Phase]:
        """Stages of training."""
        return [Phase("fit", self.epochs_, self._loss, milestones=tuple(self.milestones))]

    def _after_training(self) -> Refresh | None:
        """Return how to set buffers from all rows of X, as given: before ``_prepare``.

        Of rows that are read from disk, from a sample. Not from those of ``calibration_fraction``.
        """
        return None

    def _contributions(self, module: nn.Module, x: Tensor) -> Tensor | None:
        """List what each value adds to the score, (B, *shape); None: it is no sum over values."""
        return None

    def _network(self, shape: Shape) -> Network:
        """Architecture that ``network`` stands for."""
        network = resolve(self.network, shape)
        if self.auto_batch_norm and self.network == "auto" and "batch_norm" in network.get_params():
            network.set_params(batch_norm=True)
        return network

    # --- fit ------------------------------------------------------------------------------------

    @reported
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from the rows of X.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, time, channels) or (n, channels, height, width)
            Training samples: numbers without infinity, and without NaN unless
            ``missing="impute"``; at least two rows. Memory maps above ``memory_limit`` and sources
            of :mod:`deepod.sources` are read from disk as needed.
        y : array-like of shape (n,), optional
            Ignored, unless a ``supervision`` parameter of the method asks for it.

        Returns
        -------
        self : object
            The fitted detector. If fit fails or is interrupted, self is as it was before.

        Raises
        ------
        ValueError
            If a parameter or X is not acceptable, or ``checkpoint`` is the file of another fit or
            damaged; the message names it.
        FloatingPointError
            If a loss becomes NaN or infinite; the message names the term and the step.
        MemoryError
            If the rows or a step do not fit into memory; the message names what to make smaller.
        KeyboardInterrupt
            At the end of the optimiser step during which Ctrl-C was pressed; a second Ctrl-C stops
            at once. In the main thread, if the program handles Ctrl-C as Python does by itself.

        Notes
        -----
        With ``checkpoint``, a fit that was killed, failed or was interrupted is started again with
        the same data and parameters and goes on after the last epoch that is in the file. It ends
        with the scores, the module and the ``history_`` (but for seconds) of a fit that was never
        stopped: bit for bit, on the same machine with the same number of threads. That holds for
        ``random_state=None`` too, as the file has the seeds.

        The file is safetensors and JSON. It is replaced as a whole, so that there always is one to
        go on from, and deleted when ``fit`` has ended well. A file of another class, other data,
        other parameters (all but ``contamination``, ``false_alarm_rate``, ``verbose``,
        ``checkpoint_every`` and callbacks without a state), another device or other versions of
        torch or deepod is refused and left alone; so is a damaged one. Arrays are told apart by a
        hash of all values, rows on disk by shape, type and the 64 rows at both ends. If it cannot
        be written after training has begun, because the disk is full, there is one warning and
        training goes on. One file serves one fit at a time: not several detectors that are fitted
        together, nor a search. See :mod:`deepod.callbacks` for callbacks that remember something.
        """
        (error,) = fit_all([self], [X], [y])
        if error is not None:
            raise error
        return self

    def _scores_as_unseen(self) -> bool:
        return self.cross_fitting or not self.learns_by_heart

    def _validate_y(self, y: Any, n: int) -> np.ndarray | None:
        """Return the labels of n rows, or None unless ``supervision`` asks for them."""
        return validate_labels(y, n, getattr(self, "supervision", None))

    # --- scores and labels ----------------------------------------------------------------------

    def decision_function(self, X: Any, batch_size: int | None = None) -> np.ndarray:
        """Return anomaly scores; higher = more anomalous.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, time, channels) or (n, channels, height, width)
            Samples shaped like those of ``fit``, or a source of :mod:`deepod.sources`. NaN are
            allowed after a fit with ``missing="impute"``.
        batch_size : int, optional
            Rows to score at once, for when memory is short. Scores do not depend on it.

        Returns
        -------
        scores : ndarray of shape (n,), float64

        Warns
        -----
        RuntimeWarning
            If memory ran out, so that fewer rows than ``batch_size`` were scored at once.

        Raises
        ------
        MemoryError
            If there is not enough for 32 rows.
        """
        check_is_fitted(self)
        return finite(self._apply(X, self._score, batch_size))

    def score_batches(self, batches: Iterable[Any]) -> Iterator[np.ndarray]:
        """Score batches as they come, each by :meth:`decision_function`.

        Parameters
        ----------
        batches : iterable of array-like
            Samples shaped like those of ``fit``, at least one in each batch.

        Yields
        ------
        scores : ndarray of shape (n,), float64
            Of one batch.
        """
        check_is_fitted(self)
        at_once = AtOnce()
        for X in batches:
            yield finite(self._apply(X, self._score, at_once=at_once))

    @fixed()
    def explain(
        self, X: Any, batch_size: int | None = None, rule: Literal["auto", "gradients"] = "auto"
    ) -> np.ndarray:
        """Find what each value of a row adds to its score.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, time, channels) or (n, channels, height, width)
            Samples shaped like those of ``fit``, or a source of :mod:`deepod.sources`.
        batch_size : int, optional
            As in :meth:`decision_function`.
        rule : {"auto", "gradients"}, default="auto"
            "auto" takes the terms of the score where it is a sum over values, and integrated
            gradients elsewhere; "gradients" takes these always.

        Returns
        -------
        contributions : ndarray shaped like X, float64
            In units of the score. Those of a row depend on that row alone. A missing value that is
            imputed counts as what takes its place. What a category or a time adds is the sum over
            the columns that it was encoded as.

        Notes
        -----
        **Terms of the score** sum up to the score where it is a sum of errors of reconstruction: of
        ``AutoEncoder``, ``DAE``, ``MemAE``, ``E2EAE``, ``OCGAN`` and ``ADGAN``; of ``VAE`` and
        ``SCADN`` by default; of ``DCN``, ``IAEAD``, ``IAELSTMKL``, ``IGD`` and ``LSA`` with
        ``score_by="reconstruction"``; of ``AnoRand`` where ``fusion`` is "reconstruction", as by
        default without labels (each squared error over the norm); and of
        ``NSAE(novelty_weight=0, normalize=None)``; also of ``DSEBM(score_by="reconstruction")``,
        ``GaussianAD``, ``PixelCNN``, and ``Neighbors``, whose score has no gradients.

        **Integrated gradients** (Sundararajan, Taly and Yan, ICML 2017, equation 1) from
        ``baseline_`` to the row sum up to its score less that of the baseline, but for the error of
        a quadrature with 128 nodes (about 0.5 % of the sum of their sizes, where the network has
        kinks; ``benchmarks/README.md``). Values below zero make a row look more normal. They serve
        all other settings and methods, and take the time of 100 to 400 scorings.

        The terms say where a reconstruction fails, which need not be where the row is odd: on
        tables of few columns an autoencoder may copy the odd value and err on its neighbours.
        Gradients find it there more often.

        Examples
        --------
        >>> import numpy as np
        >>> from deepod import AutoEncoder
        >>> X = np.random.default_rng(0).normal(size=(200, 1)) @ np.ones((1, 5))
        >>> detector = AutoEncoder(random_state=0).fit(X)
        >>> contributions = detector.explain([[1, 1, 9, 1, 1]])
        >>> contributions.shape, contributions.argmax()
        ((1, 5), np.int64(2))
        """
        check_is_fitted(self)
        if rule not in ("auto", "gradients"):
            raise ValueError(f"rule must be 'auto' or 'gradients', got {rule!r}.")
        if rule == "gradients" and not self.has_gradients:
            raise ValueError(f"rule='gradients' is not for {type(self).__name__}: use 'auto'.")
        start = torch.as_tensor(self.baseline_, dtype=torch.float32, device=self.device_)
        at_once = AtOnce()

        def contributions(module: nn.Module, x: Tensor) -> Tensor:
            terms = self._contributions(module, x) if rule == "auto" else None
            if terms is not None:
                return terms
            most = at_once.most or rows_at_once(self.input_shape_, batch_size)
            return integrated_gradients(module, self._score, x, start, most)

        if self._encodes():
            return self.encoder_.joined(self._apply(X, contributions, batch_size, at_once))
        X = as_rows(X)
        return self._apply(X, contributions, batch_size, at_once).reshape(np.shape(X))

    def as_module(self) -> nn.Module:
        """Return a torch module that maps rows, as ``fit`` takes them, to their scores.

        Scaling, network and score are inside, and what takes the place of NaN if
        ``missing="impute"``: for explainers that follow gradients, ``torch.export`` and the like.

        Returns
        -------
        module : torch.nn.Module
            ``module(X)``, of a tensor of n rows in the units and the shape of those of ``fit``,
            gives a tensor of shape (n,), float64, equal to :meth:`decision_function` but for
            float32 rounding. It is a copy on the CPU, in the mode of evaluation, and follows no
            later change of the detector. What ``decision_function`` refuses, such as infinity, it
            does not check.

        Raises
        ------
        NotFittedError
            If there is nothing to make it of yet.

        Notes
        -----
        Gradients reach X where the score has any. The ranks of ``Neighbors`` have none: it refuses
        an X that asks for them with a RuntimeError.

        Examples
        --------
        >>> import numpy as np, torch
        >>> from deepod import AutoEncoder
        >>> X = np.random.default_rng(0).normal(size=(200, 3))
        >>> module = AutoEncoder(epochs=5, random_state=0).fit(X).as_module()
        >>> x = torch.tensor([[0.0, 0.0, 9.0]], requires_grad=True)
        >>> torch.autograd.grad(module(x).sum(), x)[0].abs().argmax()
        tensor(2)
        """
        return as_module(self)

    def _apply(
        self,
        X: Any,
        function: Function,
        batch_size: int | None = None,
        at_once: AtOnce | None = None,
    ) -> np.ndarray:
        """Apply ``function(module, x)``, a row of results for each sample, to new rows."""
        return apply(self, validate_rows(self, X, reset=False), function, batch_size, at_once)

    def _generator(self, random_state: Any) -> torch.Generator:
        """Return random numbers on the device, from a ``random_state`` parameter."""
        return torch.Generator(self.device_).manual_seed(spawn_seeds(random_state, 1)[0])

    # --- scikit-learn's estimator API -----------------------------------------------------------

    def set_params(self, **params: Any) -> Self:
        """Set hyper-parameters, ``network__hidden`` and the like included.

        On a network that is given by name, its parameters may be set too: the name is then
        replaced by the description it stands for.
        """
        nested = [name.partition("__")[2] for name in params if name.startswith("network__")]
        network = params.get("network", self.network)
        if nested and isinstance(network, str):
            params = params | {"network": family_with(network, nested)}
        BaseEstimator.set_params(self, **params)
        return self

    def _encodes(self) -> bool:
        return "encoder_" in self.__dict__

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "impute"
        tags.input_tags.categorical = self.categorical_features is not None
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Everything, as plain arrays: for machines without a GPU, and for skops."""
        state = dict(BaseEstimator.__getstate__(self))
        if "module_" in state:
            tensors = self.module_.state_dict()
            state["module_"] = {name: t.numpy(force=True) for name, t in tensors.items()}
            state["scaler_"] = self.scaler_.state()
            del state["device_"]
            state.pop("encoder_", None)  # made of columns_
        return state

    @fixed()
    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore, and go to the device that ``device`` stands for here, if there is one."""
        BaseEstimator.__setstate__(self, state)
        if "module_" in state:
            tensors = {name: torch.tensor(array) for name, array in state["module_"].items()}
            self.scaler_ = Scaler(**state["scaler_"])
            restore_encoder(self)
            rebuild.restore_module(self, tensors)
            rebuild.to_device(self)
