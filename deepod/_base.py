"""The base class of every detector: what a method does not have to write."""

from __future__ import annotations

import abc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from numbers import Integral
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import Tensor, nn

from deepod import sources
from deepod._inputs import rows as _rows
from deepod._inputs import scaling as _scaling
from deepod._inputs import validation as _validation
from deepod._inputs.stream import Stream, Streamed
from deepod._scoring import apply
from deepod._scoring import explain as _explain_module
from deepod._scoring.memory import AtOnce, explained, too_little
from deepod._scoring.sketch import Scores
from deepod._scoring.threshold import CONTAMINATION, FALSE_ALARM_RATE, check_enough
from deepod._scoring.vocabulary import PyODVocabulary
from deepod._storage import models
from deepod._training import loop as _loop
from deepod._training import processes as _processes
from deepod._training import task as _task
from deepod._training.checkpoint import Checkpoint, describe, describe_data
from deepod._training.fitting import fit_all
from deepod._training.stacked import building
from deepod._training.steps import ENGINES
from deepod.callbacks import Progress
from deepod.networks import FAMILIES, Network, StartsFromRows, family_with, resolve
from deepod.params import integer, one_of, param, parameters, positive, real
from deepod.sources import Source, cut
from deepod.types import Batch, Callback, Losses, Phase, Refresh, Shape

# Rows that each of several processes shows to layers that start from rows.
_START_ROWS = 4096


# Hyper-parameters that training does without, or that a checkpoint says in other words.
_NOT_IN_TRAINING = {
    *("contamination", "false_alarm_rate", "verbose", "checkpoint", "checkpoint_every"),
    *("random_state", "callbacks", "device"),
}

_NO_NORMAL_ROW = "y marks every row of X as an anomaly; some rows must be normal."


class _Streams(NamedTuple):
    """Independent seeds, all drawn from ``random_state``."""

    weights: int
    order: int
    noise: int
    prepare: int
    split: int
    calibration: int


@parameters
class BaseDetector(PyODVocabulary):
    """Deep anomaly detector: validates, scales, trains, scores and sets the threshold.

    A method declares its own hyper-parameters with :func:`deepod.params.param` and defines

    - ``_build_module(shape)``: the torch module for samples of ``shape``;
    - ``_loss(module, batch)``: a dict of weighted loss terms, which the loop adds up;
    - ``_score(module, x)``: one score per sample, higher = more anomalous;

    and, where it needs them, ``_prepare`` (the rows to train on), ``_noise`` (the random numbers
    of a loss), ``_phases`` (several stages of training) and ``_calibration`` (what the score needs
    to know of the scores of the training rows). Everything learned lives in the
    module's parameters and buffers. ``_loss`` and ``_score`` read hyper-parameters and their
    arguments, nothing else; the score of a sample depends on that sample alone.

    Attributes
    ----------
    decision_scores_ : ndarray of shape (n_samples,), float64
        Scores of the training rows, in their order; not if ``memory_limit`` does not allow it.
    threshold_ : float
        Scores above it are labelled 1. Follows ``contamination`` and ``false_alarm_rate``, also
        when they are changed after ``fit``, and ``set_threshold``.
    labels_ : ndarray of shape (n_samples,), int
        0 (normal) or 1 (anomaly) for the training rows; absent where ``decision_scores_`` is.
    calibration_scores_ : ndarray, float64
        Scores of the rows that ``calibration_fraction`` held out, or that ``calibrate`` was given,
        in ascending order. Only if there are any.
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
    fill_ : ndarray or None
        What takes the place of NaN, in the units of X: a median for each feature of a table, of
        shape (d,), and for each channel of windows, (channels,), and images, (channels, 1, 1). None
        if ``missing="refuse"``.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if X had column names.
    """

    contamination: Any = param(
        default=0.1,
        accepts=CONTAMINATION,
        doc="Share of anomalies expected in the training rows: the threshold leaves this share of "
        "their scores above it; 0 leaves none, for rows that are known to be normal. 'auto' needs "
        "no share: the threshold is the third quartile of the training scores plus 1.5 times the "
        "distance between the quartiles (Tukey, Exploratory Data Analysis, 1977). Or a "
        "PyThresh-like thresholder, of which a copy is fitted on the training scores. May be "
        "changed after ``fit``.",
    )
    false_alarm_rate: Any = param(
        default=None,
        accepts=FALSE_ALARM_RATE,
        doc="Share of new normal rows that may be flagged, on average: those whose ``p_values`` "
        "are at most this. Replaces ``contamination`` where it is given; needs "
        "``calibration_fraction``, or a call of ``calibrate``, and 1 / rate - 1 rows there. May be "
        "changed after ``fit``.",
    )
    calibration_fraction: float = param(
        default=0.0,
        accepts=[real(0, 0.5)],
        doc="Share of the rows that is held out of training, scaling and watching, to find out how "
        "new normal rows score: for ``false_alarm_rate`` and ``p_values``. Of rows with labels, "
        "under ``supervision``, normal ones only.",
    )
    epochs: Any = param(
        default="auto",
        accepts=[integer(0), one_of("auto")],
        doc="Passes over the training rows. 'auto' makes about as many optimiser steps as the "
        "class attribute ``auto_steps`` says, whatever the number of rows: at least one pass, at "
        "most ``auto_epochs``.",
    )
    batch_size: int = param(default=128, accepts=[integer(1)], doc="Rows per optimiser step.")
    lr: float = param(
        default=1e-3,
        accepts=[positive()],
        doc="Learning rate.",
    )
    milestones: Any = param(
        default=(),
        accepts=[tuple, list],
        doc="Epochs after which the learning rate is divided by ten.",
    )
    weight_decay: float = param(
        default=0.0,
        accepts=[real(0)],
        doc="Weight of the L2 penalty.",
    )
    optimizer: str = param(
        default="adam",
        accepts=[one_of("adam", "adamw", "sgd")],
        doc="Optimiser; 'sgd' has momentum 0.9.",
    )
    max_grad_norm: float | None = param(
        default=None,
        accepts=[positive(), None],
        doc="Euclidean norm to which the gradient of a step, over all parameters that it trains, "
        "is scaled down if it is longer (Pascanu et al., ICML 2013). Helps where losses explode. "
        "None leaves gradients alone.",
    )
    network: Any = param(
        default="auto",
        accepts=[one_of("auto", *FAMILIES), Network],
        doc="Architecture: a name, or a description such as "
        "``deepod.networks.MLP(hidden=(64, 32))``. 'auto' chooses by the shape of a sample, MLP "
        "for tables, Recurrent for windows, LeNet for images, unless the notes of the method say "
        "otherwise; with BatchNorm if the class attribute ``auto_batch_norm`` says so. "
        "``network__hidden`` and the like may be set on a name too; on 'auto', ``hidden`` stands "
        "for an MLP.",
    )
    input_shape: Any = param(
        default=None,
        accepts=[tuple, list, None],
        doc="Shape of one sample when the rows of X are flat: (channels, height, width) or "
        "(time, channels). None takes the shape of X's rows.",
    )
    scaler: str | None = param(
        default="standard",
        accepts=[one_of("standard", "minmax", "symmetric", "gcn"), None],
        doc="Scaling learned from the training rows, per feature of a table and per channel of "
        "images and windows: to mean 0 and standard deviation 1, to [0, 1], to [-1, 1], or none. "
        "'gcn' first divides each image, less its mean, by its mean absolute value (global "
        "contrast normalisation), then maps to [0, 1].",
    )
    missing: str = param(
        default="refuse",
        accepts=[one_of("refuse", "impute")],
        doc="What is done about NaN (also None, pandas' NA, and what a masked array masks): "
        "'refuse' them with an error that names the columns, or 'impute' them, in ``fit`` and in "
        "new rows, by the median of the training rows: of the feature in a table, of the channel "
        "in windows and images, where a sensor that is silent for a whole window then shows its "
        "usual value. Where all of it is missing, by 0. Of rows that are read from disk, a sample "
        "gives the medians. Infinity is always refused.",
    )
    validation_fraction: float = param(
        default=0.0,
        accepts=[real(0, 0.5)],
        doc="Share of the other rows that is held out of training and watched: their losses are in "
        "``history_`` and steer :class:`deepod.callbacks.EarlyStopping`.",
    )
    callbacks: Any = param(
        default=(),
        accepts=[tuple, list],
        doc="Functions told a :class:`deepod.callbacks.Event` after every epoch; one that returns "
        "True ends the phase.",
    )
    device: str = param(
        default="auto",
        accepts=[str],
        doc="'auto' (CUDA where there is any, else the CPU), 'cpu', 'cuda', 'cuda:1' or 'mps'.",
    )
    random_state: Any = param(
        default=None,
        accepts=["random_state"],
        doc="Seed of everything random; an int repeats results exactly.",
    )
    engine: str = param(
        default="auto",
        accepts=[one_of("auto", *ENGINES)],
        doc="How an optimiser step is carried out; results are the same, rounding aside. 'eager' "
        "is plain torch; 'trace' writes the operations of a step down once and repeats them "
        "without Python; 'compile' has them compiled by torch (half a minute, needs a C++ "
        "compiler); 'cuda_graph' captures them on a GPU. 'auto' traces long trainings on a CPU, "
        "where the loss allows it, and is 'eager' otherwise.",
    )
    memory_limit: int = param(
        default=1 << 28,
        accepts=[integer(1)],
        doc="Bytes that ``fit`` may hold of a memory map larger than this, or of a source of "
        ":mod:`deepod.data`: such rows are read from disk anew in every epoch. Scoring reads them "
        "a few MiB at a time.",
    )
    checkpoint: Any = param(
        default=None,
        accepts=[str, os.PathLike, None],
        doc="File that says how far training is, for a fit that was killed to go on from when it "
        "is started again; deleted when ``fit`` has ended well. See :meth:`fit`.",
    )
    checkpoint_every: int = param(
        default=1,
        accepts=[integer(1)],
        doc="Epochs after which ``checkpoint`` is written again, in 10 ms or so for a small "
        "network. It is also written at the end of every phase.",
    )
    verbose: int = param(
        default=0,
        accepts=["verbose"],
        doc="0 is silent; 1 shows a progress bar with the losses.",
    )

    # Hyper-parameters that the loss only calculates with, so that they may be tensors, and those
    # that it does not read: detectors that differ in no others train side by side. Each class lists
    # what it adds. Not ``checkpoint``: what has one trains alone.
    numbers_in_loss: ClassVar[tuple[str, ...]] = ()
    absent_from_loss: ClassVar[tuple[str, ...]] = (
        *("contamination", "false_alarm_rate", "calibration_fraction", "lr", "weight_decay"),
        *("max_grad_norm", "scaler", "missing", "validation_fraction", "callbacks"),
        *("random_state", "memory_limit", "checkpoint_every", "verbose"),
    )
    # For list_detectors(); every method sets its own.
    family: ClassVar[str] = ""
    inputs: ClassVar[tuple[str, ...]] = ("table", "windows", "images")
    paper: ClassVar[str] = ""
    # Optimiser steps that epochs="auto" aims at, and the most epochs it may take.
    auto_steps: ClassVar[int] = 2000
    auto_epochs: ClassVar[int] = 1000
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

    def _calibration(self) -> Refresh | None:
        """Buffers to set after training from all rows of X, as given: before ``_prepare``.

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

    def fit(self, X: Any, y: Any = None) -> BaseDetector:
        """Learn from the rows of X.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, time, channels) or (n, channels, height, width)
            Training samples: numbers without infinity, and without NaN unless
            ``missing="impute"``; at least two rows. Memory maps above ``memory_limit`` and sources
            of :mod:`deepod.data` are read from disk as needed.
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

    def _begin(self, X: Any, y: Any, shared: dict[Any, Any]) -> tuple[np.ndarray, _task.Task]:
        """Do all that comes before training: validated rows and what to train.

        ``shared`` holds what detectors that are fitted together have in common.
        """
        given, ranks = X, _processes.current()
        try:
            X, y = self._validate_all(X, y)
        except Exception as error:
            if ranks is not None:  # or they would wait for this one
                ranks.agree(error, None)
            raise
        seeds = _Streams(*spawn_seeds(self.random_state, len(_Streams._fields)))
        checkpoint = self._open_checkpoint(X, y, seeds)
        if checkpoint is not None:
            seeds = _Streams(**checkpoint.seeds)
        if ranks is not None:
            alike = (self.input_shape_, self.epochs, self.batch_size, self.missing)
            held_out = (self.calibration_fraction, self.false_alarm_rate)
            ranks.agree(None, (type(self).__name__, *alike, *held_out))
            first = _Streams(*ranks.gather(seeds)[0])
            seeds = _Streams(first.weights, *(seed + 2 * ranks.rank for seed in first[1:]))
        self._calibrating = self._draw_calibration(len(X), y, seeds.calibration)
        if self.calibration_fraction and self.false_alarm_rate is not None:
            n = len(self._calibrating)
            check_enough(n if ranks is None else sum(ranks.gather(n)), self.false_alarm_rate)
        with explained(self._too_many(X)):
            if isinstance(X, np.ndarray):
                rows, watched = self._in_memory(X, y, seeds, id(given), shared)
            else:
                rows, watched = self._streamed(X, y, seeds)
        if watched is not None and not len(watched.x):
            raise ValueError(
                f"validation_fraction={self.validation_fraction} holds out no row that the method "
                "learns from; use a larger share, or 0."
            )
        lengths = [len(rows)] if ranks is None else ranks.gather(len(rows))
        self.epochs_ = self._resolve_epochs(sum(lengths))
        if ranks is not None:  # as many batches on all of them, of two rows or more
            rows.parts = min(-(-sum(lengths) // self.batch_size), max(1, min(lengths) // 2))
        with building, torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seeds.weights)
            module = self._build_module(self.input_shape_).float()
        self.module_ = module.to(self.device_)
        self._fitted_params = self._network_params()
        spread = _explain_module.spread(rows.x, rows.y)
        self.baseline_ = _explain_module.typical(
            spread if ranks is None else ranks.gather_rows(spread)
        )
        for part in self.module_.modules():
            if isinstance(part, StartsFromRows):
                some = rows.x[:: 1 + len(rows.x) // _START_ROWS]
                part.start_from_rows(rows.x if ranks is None else ranks.gather_rows(some))
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and self.batch_size == 1:
                raise ValueError("batch_size=1 leaves BatchNorm nothing to average; use 2 or more.")
        return X, _task.Task(
            self.module_,
            rows,
            self._phases(),
            lambda n, generator: self._noise(n, self.input_shape_, generator),
            batch_size=self.batch_size,
            lr=self.lr,
            weight_decay=self.weight_decay,
            optimizer=self.optimizer,
            max_grad_norm=self.max_grad_norm,
            order_stream=torch.Generator("cpu").manual_seed(seeds.order),
            noise_stream=torch.Generator(self.device_).manual_seed(seeds.noise),
            callbacks=self._all_callbacks(),
            held_out=watched,
            held_out_seed=seeds.split,
            ranks=ranks,
            checkpoint=checkpoint,
            phases_with=self._phases_with,
        )

    def _validate_all(self, X: Any, y: Any) -> tuple[Any, np.ndarray | None]:
        """Refuse what cannot be trained; rows and labels."""
        self._validate_params()
        for callback in self.callbacks:
            if not callable(callback):
                raise ValueError(f"callbacks must hold callables, got {callback!r}.")
        for epoch in self.milestones:
            if not (isinstance(epoch, Integral) and int(epoch) > 0):
                raise ValueError(f"milestones must hold positive integers, got {epoch!r}.")
        self.device_ = _validation.resolve_device(self.device)
        X = self._validate_rows(X, reset=True)
        if _processes.current() is not None and not isinstance(X, np.ndarray):
            raise ValueError("Several processes train on arrays only; give each its part of X.")
        if _processes.current() is not None and self.checkpoint is not None:
            raise ValueError("Several processes write no checkpoint; leave checkpoint=None.")
        self.input_shape_ = _validation.sample_shape(X, self.input_shape)
        if self.scaler == "gcn" and len(self.input_shape_) != 3:
            raise ValueError("scaler='gcn' is for images of shape (channels, height, width).")
        if self.calibration_fraction and not isinstance(X, np.ndarray):
            raise ValueError(
                "calibration_fraction is for rows in memory, and X is read from disk: set it to 0, "
                "hold some rows back, and pass them to calibrate(X) after fit."
            )
        y = self._validate_y(y, len(X))
        self._count_calibration(len(X), y)  # an error here is told to other processes
        return X, y

    def _open_checkpoint(
        self, X: np.ndarray | Source, y: np.ndarray | None, seeds: _Streams
    ) -> Checkpoint | None:
        """Look for what a fit like this one has left."""
        if self.checkpoint is None:
            return None
        identity = {"class": f"{type(self).__module__}.{type(self).__qualname__}"}
        identity |= {
            name: describe(name, value)
            for name, value in self.get_params(deep=False).items()
            if name not in _NOT_IN_TRAINING
        }
        seeded = isinstance(self.random_state, Integral)
        return Checkpoint(
            self.checkpoint,
            self.checkpoint_every,
            identity
            | {
                # The seeds in the file are what an unseeded fit has drawn.
                "random_state": describe("random_state", self.random_state) if seeded else None,
                "callbacks": [type(c).__qualname__ for c in self.callbacks if _loop.remembers(c)],
                "device": str(self.device_),
                "X": describe_data(X),
                "y": describe_data(y),
            },
            seeds._asdict(),
        )

    def _in_memory(
        self, X: np.ndarray, y: np.ndarray | None, seeds: _Streams, key: int, shared: dict[Any, Any]
    ) -> tuple[_rows.InMemory, Batch | None]:
        """Rows to train on and rows to watch, scaled as a whole."""
        samples = X.reshape(len(X), *self.input_shape_)
        rest = np.delete(np.arange(len(X)), self._calibrating)
        training, held_out = self._split(rest, y, seeds.split)
        learned_from = training if y is None else training[y[training] != 1]
        if not len(learned_from):
            raise ValueError(_NO_NORMAL_ROW)
        everything = len(learned_from) == len(X)
        known = (key, self.scaler, self.missing, self.input_shape_) if everything else None
        scaler, scaled = shared.get(known, (None, None))
        if scaler is None:
            rows = samples if everything else samples[learned_from]
            ranks = _processes.current()
            gather = None if ranks is None else ranks.gather
            shape, impute = self.input_shape_, self.missing == "impute"
            fill = _scaling.medians(rows, shape, gather) if impute else None
            scaler = _scaling.Scaler.fit(_rows.blocks(rows), shape, self.scaler, gather, fill)
        self._remember_scaler(scaler)

        def batch(rows: np.ndarray, seed: int) -> Batch:
            part = scaled
            if part is None or len(rows) < len(X):
                part = scaler.transform(samples if len(rows) == len(X) else samples[rows])
            if known is not None and len(rows) == len(X):
                shared[known] = scaler, part
            return self._prepared(part, None if y is None else y[rows], seed)

        data = batch(training, seeds.prepare)
        watched = batch(held_out, seeds.prepare + 1) if len(held_out) else None
        return _rows.InMemory(data.x, data.y), watched

    def _streamed(
        self, X: Source, y: np.ndarray | None, seeds: _Streams
    ) -> tuple[Streamed, Batch | None]:
        """Rows to train on, which stay on disk, and rows to watch."""
        self._count_held_out("validation_fraction", len(X))
        Scores(len(X), self.memory_limit)  # if a library is missing for them, say so now
        stream = Stream(
            X,
            self.input_shape_,
            self.memory_limit,
            np.random.default_rng(seeds.split),
            y=y,
            held_out=self.validation_fraction,
            columns=self._columns(X),
            impute=self.missing == "impute",
        )
        if y is not None and np.count_nonzero(y == 0) == np.count_nonzero(y[stream.held_out] == 0):
            raise ValueError(_NO_NORMAL_ROW)
        scaler, sample, held_out = stream.survey(self.scaler)
        self._remember_scaler(scaler)
        rows = Streamed(stream, scaler, sample, self._prepared, seeds.prepare)
        if not len(rows.x):
            raise ValueError(
                f"No row that the method learns from is in a sample of {len(sample)} rows; raise "
                "memory_limit, or leave out the other rows."
            )
        if not len(held_out):
            return rows, None
        labels = None if y is None else y[stream.held_out]
        return rows, self._prepared(held_out, labels, seeds.prepare + 1)

    def _too_many(self, X: np.ndarray | Source) -> str:
        """Say that the rows to train on do not fit into memory."""
        size = 4 * len(X) * int(np.prod(self.input_shape_))
        way = f"a memory_limit below {self.memory_limit}"
        if isinstance(X, np.ndarray):
            way = f"deepod.data.array(X), of which fit holds memory_limit={self.memory_limit} bytes"
        purpose = f"the rows to train on, {len(X)} of shape {self.input_shape_}, {size} bytes"
        return too_little(self.device_, purpose, way)

    def _remember_scaler(self, scaler: _scaling.Scaler) -> None:
        self.shift_, self.scale_ = scaler.shift, scaler.scale
        self.contrast_, self.fill_ = scaler.contrast, scaler.fill

    def _prepared(self, x: np.ndarray, y: np.ndarray | None, seed: Any) -> Batch:
        """Let the method prepare scaled samples, and move them to the device."""
        whole, given = x, x.view()
        given.flags.writeable = False  # other detectors may train on the same rows
        x, y = self._prepare(given, y, np.random.default_rng(seed))
        to: Any = {"dtype": torch.float32, "device": self.device_}
        target = None if y is None else torch.as_tensor(y, **to)
        x = whole if x is given else np.ascontiguousarray(x)
        x = x if x.flags.writeable else x.copy()  # torch has no read-only tensors
        return Batch(torch.as_tensor(x, **to), target)

    def _phases_with(self, values: dict[str, Tensor]) -> list[Phase]:
        """Phases whose losses read these hyper-parameters instead of the detector's."""
        other = object.__new__(type(self))
        other.__dict__ = self.__dict__ | values
        return other._phases()

    def _finish(self, X: np.ndarray | Source, member: _loop.Member) -> None:
        """Do all that comes after training."""
        self.history_, self.engine_ = member.history, member.engine
        held_out, ranks = self.__dict__.pop("_calibrating"), member.task.ranks
        calibration = self._calibration()
        if calibration is not None:
            rows = member.task.rows
            known = rows.given if isinstance(rows, Streamed) else None  # of a source, the sample
            if isinstance(X, np.ndarray) and len(held_out):
                chunks = self._chunks(np.delete(X, held_out, axis=0))
            else:
                chunks = self._chunks(X) if known is None else known.split(self._chunk_rows(None))
            device, at_once = self.device_, member.at_once
            _loop.refresh(self.module_, calibration, chunks, device, ranks, at_once)
        scores = Scores(len(X), None if isinstance(X, np.ndarray) else self.memory_limit)
        for part in self._map_parts(X, self._score, at_once=member.at_once):
            if self.calibration_fraction:  # an array, all of whose rows are one part
                parts = [part[held_out]] if ranks is None else ranks.gather(part[held_out])
                self.calibration_scores_ = np.sort(np.concatenate(parts))
            if ranks is not None:
                part = np.concatenate(ranks.gather(part))
                scores = Scores(len(part), None)
            if not np.isfinite(part).all():
                raise FloatingPointError(
                    "Training rows got scores that are NaN or infinite. Lower lr, or set "
                    "scaler='standard' if the columns of X differ much in size."
                )
            scores.add(part)
        self._remember_scores(scores.result(), scores.n)

    def _validate_rows(self, X: Any, *, reset: bool) -> Any:
        """Return an array that can be trained on or scored, or a source of such rows.

        Whether all values of a source are finite is seen when they are read.
        """
        if sources.is_mapped(X) and X.nbytes > self.memory_limit:
            X = sources.array(X)
        streamed = isinstance(X, Source)
        rows = sources.head(X, 2) if streamed else _validation.as_nan(X)
        if self.input_shape is not None and np.ndim(rows) > 2:
            # Flat and shaped samples are then one and the same, at fit and at scoring.
            rows = np.asarray(rows)
            shape = _validation.sample_shape(rows, self.input_shape)
            rows = rows.reshape(len(rows), int(np.prod(shape)))
        try:
            rows = validate_data(
                self,
                rows,
                reset=reset,
                dtype="numeric",
                allow_nd=True,
                ensure_all_finite=False,  # but below
                ensure_min_samples=2 if reset else 1,
            )
        except ValueError as error:
            if "could not convert string" not in str(error):
                raise
            raise ValueError(
                f"X holds text ({error}); encode it before, by OneHotEncoder in a Pipeline, say."
            ) from error
        dtype = X.dtype if streamed else rows.dtype
        if dtype.kind not in "biuf":
            raise ValueError(f"X holds values of type {dtype}; turn them into numbers first.")
        if not reset and self.input_shape is None and rows.shape[1:] != self.input_shape_:
            raise ValueError(
                f"X has samples of shape {rows.shape[1:]}, but {type(self).__name__} was fitted on "
                f"samples of shape {self.input_shape_}."
            )
        if streamed:
            return X
        allow_nan = self.missing == "impute" if reset else self.fill_ is not None
        _validation.check_finite(rows, self._columns(rows), allow_nan=allow_nan)
        return rows

    def _columns(self, X: np.ndarray | Source) -> Sequence[Any] | None:
        """Names or numbers of the columns of a table, which errors speak of."""
        if len(self.input_shape or X.shape[1:]) != 1:
            return None
        return getattr(self, "feature_names_in_", range(X.shape[1]))

    def _validate_y(self, y: Any, n: int) -> np.ndarray | None:
        """Labels, or None unless ``supervision`` asks for them."""
        if getattr(self, "supervision", None) is None:
            return None
        if y is None:
            raise ValueError(f"supervision={self.supervision!r} needs y; pass it, or set None.")
        y = column_or_1d(y)
        if len(y) != n:
            raise ValueError(f"y has {len(y)} values and X has {n} rows.")
        if not np.isin(y, (0, 1)).all():
            raise ValueError(
                f"y must hold 0 (normal) and 1 (anomaly) only, got {np.unique(y)[:5].tolist()}."
            )
        return y.astype(np.int64)

    def _draw_calibration(self, n: int, y: np.ndarray | None, seed: int) -> np.ndarray:
        """Rows that are there for calibration alone, in order."""
        count = self._count_calibration(n, y)
        if not count:
            return np.arange(0)
        normal = np.arange(n) if y is None else np.flatnonzero(y == 0)
        return np.sort(np.random.default_rng(seed).permutation(normal)[:count])

    def _count_calibration(self, n: int, y: np.ndarray | None) -> int:
        normal = n if y is None else int(np.count_nonzero(y == 0))
        if not normal:
            raise ValueError(_NO_NORMAL_ROW)
        return self._count_held_out("calibration_fraction", normal)

    def _split(
        self, rows: np.ndarray, y: np.ndarray | None, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw the rows to train on and those to watch; of labelled rows, of both classes."""
        held_out = self._count_held_out("validation_fraction", len(rows))
        if not held_out:
            return rows, rows[:0]
        order = np.random.default_rng(seed).permutation(rows)
        if y is None:
            return np.sort(order[held_out:]), np.sort(order[:held_out])
        classes = [order[y[order] == label] for label in (0, 1)]
        cuts = [round(len(part) * self.validation_fraction) for part in classes]
        train = [part[cut:] for part, cut in zip(classes, cuts, strict=True)]
        watch = [part[:cut] for part, cut in zip(classes, cuts, strict=True)]
        return np.sort(np.concatenate(train)), np.sort(np.concatenate(watch))

    def _count_held_out(self, parameter: str, n: int) -> int:
        share = getattr(self, parameter)
        if not share:
            return 0
        held_out = max(1, round(n * share))
        if n - held_out < 2:
            raise ValueError(
                f"{parameter}={share} leaves {n - held_out} of {n} rows to train on; at least 2 "
                "are needed."
            )
        return held_out

    def _resolve_epochs(self, n: int) -> int:
        if self.epochs != "auto":
            return int(self.epochs)
        steps = -(-n // self.batch_size)
        return min(self.auto_epochs, -(-self.auto_steps // steps))

    def _all_callbacks(self) -> Sequence[Callback]:
        ranks = _processes.current()
        shown = self.verbose and (ranks is None or not ranks.rank)
        return [*self.callbacks, Progress()] if shown else list(self.callbacks)

    # --- scores and labels ----------------------------------------------------------------------

    def decision_function(self, X: Any, batch_size: int | None = None) -> np.ndarray:
        """Anomaly scores; higher = more anomalous.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, time, channels) or (n, channels, height, width)
            Samples shaped like those of ``fit``, or a source of :mod:`deepod.data`. NaN are allowed
            after a fit with ``missing="impute"``.
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
        return _finite(self._map(self._validate_rows(X, reset=False), self._score, batch_size))

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
            rows = self._validate_rows(X, reset=False)
            yield _finite(self._map(rows, self._score, at_once=at_once))

    def explain(self, X: Any, batch_size: int | None = None, rule: str = "auto") -> np.ndarray:
        """Find what each value of a row adds to its score.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, time, channels) or (n, channels, height, width)
            Samples shaped like those of ``fit``, or a source of :mod:`deepod.data`.
        batch_size : int, optional
            As in :meth:`decision_function`.
        rule : {"auto", "gradients"}, default="auto"
            "auto" takes the terms of the score where it is a sum over values, and integrated
            gradients elsewhere; "gradients" takes these always.

        Returns
        -------
        contributions : ndarray shaped like X, float64
            In units of the score. Those of a row depend on that row alone. A missing value that is
            imputed counts as what takes its place.

        Notes
        -----
        **Terms of the score** sum up to the score: of ``AutoEncoder`` and ``DAE``; of ``IAEAD`` and
        ``IAELSTMKL`` with ``score_by="reconstruction"``; of ``AnoRand`` where ``fusion`` is
        "reconstruction", as by default without labels (each squared error over the norm); of
        ``NSAE(novelty_weight=0, normalize=None)``.

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
        rows = self._validate_rows(X, reset=False)
        start = torch.as_tensor(self.baseline_, dtype=torch.float32, device=self.device_)
        at_once = AtOnce()

        def contributions(module: nn.Module, x: Tensor) -> Tensor:
            terms = self._contributions(module, x) if rule == "auto" else None
            if terms is not None:
                return terms
            most = at_once.most or self._chunk_rows(batch_size)
            return _explain_module.integrated_gradients(module, self._score, x, start, most)

        return self._map(rows, contributions, batch_size, at_once).reshape(np.shape(X))

    def save(self, path: Any) -> None:
        """Write the fitted detector to a folder or a file, for :func:`deepod.load`.

        Safetensors and JSON, no pickle. A failed or killed save leaves an older model as it was.

        Parameters
        ----------
        path : str or path-like
            A name that ends in ".deepod" or ".safetensors" becomes a single file. Any other becomes
            a folder as the Hugging Face hub has them: ``model.safetensors``, which holds
            everything, and to read ``config.json`` and a card, ``README.md``.

        Raises
        ------
        NotFittedError
            If there is nothing to save yet.
        TypeError
            If a parameter is an object of a class that files cannot hold, such as a thresholder or
            a function among ``callbacks``; the message names it.
        OSError
            If the file cannot be written, or a folder of this name holds other things.
        """
        check_is_fitted(self)
        models.save(self, path)

    def _map(
        self,
        X: np.ndarray | Source,
        function: Callable[[nn.Module, Tensor], Tensor],
        batch_size: int | None = None,
        at_once: AtOnce | None = None,
    ) -> np.ndarray:
        """Apply ``function(module, x)`` to validated rows, as float64."""
        parts = self._map_parts(X, function, batch_size, at_once)
        first = next(parts)
        if len(first) == len(X):
            return first
        out = np.empty((len(X), *first.shape[1:]))
        filled = 0
        for part in chain([first], parts):
            out[filled : filled + len(part)] = part
            filled += len(part)
        return out

    def _map_parts(
        self,
        X: np.ndarray | Source,
        function: Callable[[nn.Module, Tensor], Tensor],
        batch_size: int | None = None,
        at_once: AtOnce | None = None,
    ) -> Iterator[np.ndarray]:
        """Apply ``function`` to all rows of an array; to those of a source part by part."""
        at_once = at_once or AtOnce()

        def values(rows: np.ndarray) -> np.ndarray:
            chunks = self._chunks(rows, batch_size)
            results = apply.score(self.module_, function, chunks, self.device_, len(rows), at_once)
            return results.cpu().double().numpy()

        if isinstance(X, np.ndarray):
            yield values(X)
            return
        from tqdm.auto import tqdm

        # Whole chunks, so that rows are scored as those of an array are.
        chunk = self._chunk_rows(batch_size)
        rows = chunk * max(1, _rows.block_rows(self.input_shape_) // chunk)
        shown = {"desc": "score", "unit": "row", "unit_scale": True, "disable": not self.verbose}
        columns, allow_nan = self._columns(X), self.fill_ is not None
        with tqdm(total=len(X), **shown) as bar:
            for start, stop in cut(0, len(X), rows):
                yield values(_rows.read(X, start, stop, columns, allow_nan=allow_nan))
                bar.update(stop - start)

    def _chunks(self, X: Any, batch_size: int | None = None) -> Iterator[Tensor]:
        """Scaled samples from validated rows."""
        scaler = _scaling.Scaler(self.shift_, self.scale_, self.contrast_, self.fill_)
        return _rows.chunks(X, self.input_shape_, scaler, self._chunk_rows(batch_size))

    def _chunk_rows(self, batch_size: int | None) -> int:
        if batch_size is not None and not (isinstance(batch_size, Integral) and batch_size > 0):
            raise ValueError(f"batch_size must be a positive integer or None, got {batch_size!r}.")
        return int(batch_size or apply.chunk_rows(self.input_shape_))

    def _generator(self, random_state: Any) -> torch.Generator:
        """Random numbers on the device, from a ``random_state`` parameter."""
        return torch.Generator(self.device_).manual_seed(spawn_seeds(random_state, 1)[0])

    def _unscale(self, samples: np.ndarray) -> np.ndarray:
        """Turn scaled samples back into the units of X."""
        if self.contrast_:
            raise ValueError("scaler='gcn' forgets the units of X; fit with another scaler.")
        return samples * self.scale_ + self.shift_

    # --- scikit-learn's estimator API -----------------------------------------------------------

    def set_params(self, **params: Any) -> BaseDetector:
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

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "impute"
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Everything, with the module as arrays: for machines without a GPU, and for skops."""
        state = dict(BaseEstimator.__getstate__(self))
        if "module_" in state:
            tensors = self.module_.state_dict()
            state["module_"] = {name: t.numpy(force=True) for name, t in tensors.items()}
            del state["device_"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore, and go to the device that ``device`` stands for here, if there is one."""
        arrays = state.get("module_")
        BaseEstimator.__setstate__(self, state)
        if arrays is not None:
            self._restore_module({name: torch.tensor(array) for name, array in arrays.items()})
            self._to_device()

    def _network_params(self) -> dict[str, Any]:
        """Copy the parameters that a module may have been built by."""
        others = {*BaseDetector.absent_from_loss, "checkpoint"}
        params = self.get_params(deep=False)
        return {k: clone(v, safe=False) for k, v in params.items() if k not in others}

    def _build_again(self, device: str) -> nn.Module:
        """Build the module as fit has built it; on "meta", its tensors take no memory."""
        params = self.get_params(deep=False)
        builder = type(self)(**params | self._fitted_params)
        builder.__dict__ |= {k: v for k, v in vars(self).items() if k not in params}
        with building, torch.random.fork_rng(devices=[]), torch.device(device):
            return builder._build_module(self.input_shape_).float().eval()

    def _restore_module(self, tensors: dict[str, Tensor]) -> None:
        """Build the module again, with these parameters and buffers."""
        try:
            module = self._build_again("meta")
            module.load_state_dict(tensors, assign=True)
            whole = not any(t.is_meta for t in chain(module.parameters(), module.buffers()))
        except (RuntimeError, NotImplementedError):
            whole = False
        if not whole:  # a class of the user's may need values to build, or have some that are fixed
            module = self._build_again("cpu")
            module.load_state_dict(tensors)
        self.module_ = module

    def _to_device(self, strictly: bool = False) -> None:
        """Go to the device that ``device`` stands for here; unless ``strictly``, else to the CPU.

        There may be no such GPU here, a forked process may not use it, or its memory may be full.
        """
        try:
            self.device_ = _validation.resolve_device(self.device)
            self.module_.to(self.device_)
        except (ValueError, RuntimeError):
            if strictly:
                raise
            self.device_ = torch.device("cpu")
            self.module_.to(self.device_)


def _finite(scores: np.ndarray) -> np.ndarray:
    """Give rows so far away that their score is infinite in float32 its largest number."""
    return np.minimum(scores, apply.LARGEST_SCORE, out=scores)


def spawn_seeds(random_state: Any, n: int) -> list[int]:
    """Seeds of n independent streams from one draw of ``random_state``.

    None takes new entropy: NumPy's global generator, scikit-learn's default, stays untouched.
    """
    seed = None
    if random_state is not None:
        seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    children = np.random.SeedSequence(seed).spawn(n)
    return [int(child.generate_state(1)[0]) for child in children]
