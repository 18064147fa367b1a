"""The hyper-parameters that all detectors have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from deepod._scoring.fitted import Fitted
from deepod._scoring.threshold import CONTAMINATION, FALSE_ALARM_RATE
from deepod._scoring.vocabulary import Contamination
from deepod._training.task import ENGINES
from deepod.networks import FAMILIES, Network
from deepod.params import integer, one_of, param, parameters, positive, real
from deepod.types import Callback


@parameters
class Hyperparameters(Fitted):
    """What may be set of every detector; a method adds its own."""

    contamination: Contamination = param(
        default=0.1,
        accepts=CONTAMINATION,
        doc="Share of anomalies expected in the training rows: the threshold leaves this share of "
        "their scores above it; 0 leaves none, for rows that are known to be normal. 'auto' needs "
        "no share: the threshold is the third quartile of the training scores plus 1.5 times the "
        "distance between the quartiles (Tukey, Exploratory Data Analysis, 1977). Or a "
        "PyThresh-like thresholder, of which a copy is fitted on the training scores. May be "
        "changed after ``fit``.",
    )
    false_alarm_rate: float | None = param(
        default=None,
        accepts=FALSE_ALARM_RATE,
        doc="Share of new normal rows that may be flagged, on average: those whose ``p_values`` "
        "are at most this. Replaces ``contamination`` where it is given; needs 1 / rate - 1 rows: "
        "those of ``calibrate`` or ``calibration_fraction``, else of training, with "
        "``cross_fitting``. May be changed after ``fit``.",
    )
    calibration_fraction: float = param(
        default=0.0,
        accepts=[real(0, 0.5)],
        doc="Share of the rows that is held out of training, scaling and watching, to find out how "
        "new normal rows score: for ``false_alarm_rate`` and ``p_values``. Of rows with labels, "
        "under ``supervision``, normal ones only.",
    )
    cross_fitting: bool = param(
        default=True,
        accepts=["boolean"],
        doc="Whether two more networks are trained, each on half of the rows, to find out how rows "
        "score that were not trained on: threshold, ``decision_scores_`` and ``p_values`` then "
        "hold for new rows. A fit takes about twice as long. Not of rows that are read from disk, "
        "fewer than 20, or passed over once or twice only, nor in several processes.",
    )
    suspects: float = param(
        default=0.0,
        accepts=[real(0, 0.5)],
        doc="Share of the training rows, those farthest from the others by the distances of "
        ":class:`deepod.Neighbors`, that are not learned from, because they may be anomalies. They "
        "are scored like all others. 0.3 is for rows of which one does not know. Clusters of more "
        "than 5 % of the rows are not found; of rows from disk, suspects count in the scaling.",
    )
    epochs: int | Literal["auto"] = param(
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
    milestones: tuple[int, ...] | list[int] = param(
        default=(),
        accepts=[tuple, list],
        doc="Epochs after which the learning rate is divided by ten.",
    )
    weight_decay: float = param(
        default=0.0,
        accepts=[real(0)],
        doc="Weight of the L2 penalty.",
    )
    optimizer: Literal["adam", "adamw", "sgd"] = param(
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
    network: Literal["auto", "mlp", "lenet", "recurrent", "prototypes"] | Network = param(
        default="auto",
        accepts=[one_of("auto", *FAMILIES), Network],
        doc="Architecture: a name, or a description such as "
        "``deepod.networks.MLP(hidden=(64, 32))``. 'auto' chooses by the shape of a sample, MLP "
        "for tables, Recurrent for windows, LeNet for images, unless the notes of the method say "
        "otherwise; with BatchNorm if the class attribute ``auto_batch_norm`` says so. "
        "``network__hidden`` and the like may be set on a name too; on 'auto', ``hidden`` stands "
        "for an MLP.",
    )
    input_shape: tuple[int, ...] | list[int] | None = param(
        default=None,
        accepts=[tuple, list, None],
        doc="Shape of one sample when the rows of X are flat: (channels, height, width) or "
        "(time, channels). None takes the shape of X's rows.",
    )
    scaler: Literal["standard", "minmax", "symmetric", "gcn"] | None = param(
        default="standard",
        accepts=[one_of("standard", "minmax", "symmetric", "gcn"), None],
        doc="Scaling learned from the training rows, per feature of a table and per channel of "
        "images and windows: to mean 0 and standard deviation 1, to [0, 1], to [-1, 1], or none. "
        "'gcn' first divides each image, less its mean, by its mean absolute value (global "
        "contrast normalisation), then maps to [0, 1].",
    )
    missing: Literal["refuse", "impute"] = param(
        default="refuse",
        accepts=[one_of("refuse", "impute")],
        doc="What is done about NaN (also None, pandas' NA, and what a masked array masks): "
        "'refuse' them with an error that names the columns, or 'impute' them, in ``fit`` and in "
        "new rows, by the median of the training rows: of the feature in a table, of the channel "
        "in windows and images, where a sensor that is silent for a whole window then shows its "
        "usual value. Where all of it is missing, by 0. Of rows that are read from disk, a sample "
        "gives the medians. Infinity is always refused.",
    )
    categorical_features: Literal["from_dtype"] | Sequence[Any] | None = param(
        default=None,
        accepts=[one_of("from_dtype"), "array-like", None],
        doc="Columns of a frame or an array that hold categories: names, numbers or a mask; "
        "'from_dtype' takes those of a frame that are categories, text or booleans. Each category "
        "becomes a column of 0 and 1, divided by 0.2 or more, so that a rare one does not outweigh "
        "numbers; those in fewer than 0.5 % of the training rows are pooled, a new one is 0 in "
        "all. A cell without a value is a category. "
        "``encoder_.summary()`` says what became of each column.",
    )
    datetime_features: Literal["from_dtype"] | Sequence[Any] | None = param(
        default=None,
        accepts=[one_of("from_dtype"), "array-like", None],
        doc="Columns that hold dates or times, as ``categorical_features`` names them; ISO 8601 if "
        "text. They become sine and cosine of the time of day, day of week and day of year, each "
        "if the training rows span at least one day, week or year.",
    )
    validation_fraction: float = param(
        default=0.0,
        accepts=[real(0, 0.5)],
        doc="Share of the other rows that is held out of training and watched: their losses are in "
        "``history_`` and steer :class:`deepod.callbacks.EarlyStopping`.",
    )
    callbacks: Sequence[Callback] = param(
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
    random_state: int | np.random.RandomState | None = param(
        default=None,
        accepts=["random_state"],
        doc="Seed of everything random; an int repeats results exactly.",
    )
    engine: Literal["auto", "eager", "trace", "compile", "cuda_graph"] = param(
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
        ":mod:`deepod.sources`: such rows are read from disk anew in every epoch. Scoring reads "
        "them a few MiB at a time.",
    )
    checkpoint: str | os.PathLike[str] | None = param(
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
