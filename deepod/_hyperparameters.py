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
    """Hyper-parameters of every detector; each method adds its own."""

    contamination: Contamination = param(
        default=0.1,
        accepts=CONTAMINATION,
        doc="Expected share of anomalies in the training rows. The threshold is set so that this "
        "share of the training scores lies above it; use 0 if all training rows are known to be "
        "normal. With 'auto', no share is needed: the threshold is the third quartile of the "
        "training scores plus 1.5 times the interquartile range (Tukey, Exploratory Data Analysis, "
        "1977). A thresholder in the style of PyThresh may be given too; a copy of it is fitted to "
        "the training scores. May be changed after ``fit``.",
    )
    false_alarm_rate: float | None = param(
        default=None,
        accepts=FALSE_ALARM_RATE,
        doc="Share of new normal rows that may be flagged on average, instead of "
        "``contamination``: rows are flagged if their ``p_values`` are at most this. Needs at "
        "least 1 / rate - 1 calibration rows: from ``calibrate``, from ``calibration_fraction`` "
        "or, with ``cross_fitting``, from training. May be changed after ``fit``.",
    )
    calibration_fraction: float = param(
        default=0.0,
        accepts=[real(0, 0.5)],
        doc="Share of the rows that is held out of scaling, training and validation as calibration "
        "rows: ``false_alarm_rate`` and ``p_values`` compare new rows with their scores. If "
        "``supervision`` uses labels, only rows labelled normal are held out.",
    )
    cross_fitting: bool = param(
        default=True,
        accepts=["boolean"],
        doc="Whether to train two more networks, each on half of the rows, and to score every "
        "training row by the network that has not seen it. The threshold, ``decision_scores_`` and "
        "``p_values`` are then valid for new rows; a fit takes about twice as long. It has no "
        "effect with rows on disk, with fewer than 20 rows, with one or two epochs, and in "
        "training across processes.",
    )
    suspects: float = param(
        default=0.0,
        accepts=[real(0, 0.5)],
        doc="Share of the training rows to leave out of training because they may be anomalies: "
        "the rows farthest from the others by the distances of :class:`deepod.Neighbors`. They are "
        "scored like all others. Use 0.3 if the training rows may hold anomalies and nothing else "
        "is known. Clusters of anomalies with more than 5 % of the rows are not found. If the rows "
        "are on disk, suspects still take part in the scaling.",
    )
    epochs: int | Literal["auto"] = param(
        default="auto",
        accepts=[integer(0), one_of("auto")],
        doc="Number of passes over the training rows. 'auto' chooses it so that training takes "
        "about ``auto_steps`` optimiser steps (a class attribute) for any number of rows, with at "
        "least one and at most ``auto_epochs`` passes.",
    )
    batch_size: int = param(
        default=128, accepts=[integer(1)], doc="Number of rows per optimiser step."
    )
    lr: float = param(
        default=1e-3,
        accepts=[positive()],
        doc="Learning rate of the optimiser.",
    )
    milestones: tuple[int, ...] | list[int] = param(
        default=(),
        accepts=[tuple, list],
        doc="Epochs after which the learning rate is divided by ten.",
    )
    weight_decay: float = param(
        default=0.0,
        accepts=[real(0)],
        doc="Weight of the L2 penalty on the network's weights.",
    )
    optimizer: Literal["adam", "adamw", "sgd"] = param(
        default="adam",
        accepts=[one_of("adam", "adamw", "sgd")],
        doc="Optimiser; 'sgd' has momentum 0.9.",
    )
    max_grad_norm: float | None = param(
        default=None,
        accepts=[positive(), None],
        doc="Largest Euclidean norm of the gradient of a step, over all trained parameters; longer "
        "gradients are scaled down to it (Pascanu et al., ICML 2013). Set it, for example to 1, if "
        "losses explode. None does not limit gradients.",
    )
    network: Literal["auto", "mlp", "lenet", "recurrent", "prototypes"] | Network = param(
        default="auto",
        accepts=[one_of("auto", *FAMILIES), Network],
        doc="Architecture: a name, or an object such as ``deepod.networks.MLP(hidden=(64, 32))``. "
        "'auto' chooses an MLP for tables and images (for images, what the class attribute "
        "``auto_of_images`` names) and a recurrent network for windows, unless the notes of the "
        "method say otherwise, with BatchNorm if the class attribute ``auto_batch_norm`` is True. "
        "``set_params(network__hidden=...)`` also works with a name; "
        "with 'auto' it chooses an MLP.",
    )
    input_shape: tuple[int, ...] | list[int] | None = param(
        default=None,
        accepts=[tuple, list, None],
        doc="Shape of one sample, (channels, height, width) for images or (time, channels) for "
        "windows, if X holds them as flat rows. None uses the shape of the rows of X.",
    )
    scaler: Literal["standard", "minmax", "symmetric", "gcn"] | None = param(
        default="standard",
        accepts=[one_of("standard", "minmax", "symmetric", "gcn"), None],
        doc="Scaling learned from the training rows, for each feature of a table and each channel "
        "of windows and images: 'standard' to mean 0 and standard deviation 1, 'minmax' to [0, 1], "
        "'symmetric' to [-1, 1], None for no scaling. 'gcn' (global contrast normalisation) "
        "subtracts the mean of each image, divides it by its mean absolute value and then scales "
        "to [0, 1].",
    )
    missing: Literal["refuse", "impute"] = param(
        default="refuse",
        accepts=[one_of("refuse", "impute")],
        doc="What to do with missing values: NaN, None, pandas' NA and the masked entries of "
        "masked arrays. 'refuse' raises an error that names the columns. 'impute' replaces them, "
        "in ``fit`` and in new rows, by the median over the training rows of the feature (tables) "
        "or channel (windows, images), or by 0 if there is no value at all. If the rows are on "
        "disk, the medians are those of a sample. Infinite values are always refused.",
    )
    categorical_features: Literal["from_dtype"] | Sequence[Any] | None = param(
        default=None,
        accepts=[one_of("from_dtype"), "array-like", None],
        doc="Columns of a DataFrame or an array that hold categories: their names, their numbers "
        "or a boolean mask. 'from_dtype' selects the columns of a DataFrame that hold categories, "
        "text or booleans. Each category becomes a column of 0 and 1, which is scaled like "
        "the others but never divided by less than 0.2, so that a rare category does not outweigh "
        "numbers. "
        "Categories in fewer than 0.5 % of the training rows are pooled. A missing value is a "
        "category of its own; a category that was not seen in ``fit`` is 0 in all columns. "
        "``encoder_.summary()`` returns the encoding of each column.",
    )
    datetime_features: Literal["from_dtype"] | Sequence[Any] | None = param(
        default=None,
        accepts=[one_of("from_dtype"), "array-like", None],
        doc="Columns that hold dates or times (ISO 8601 if they are text), given like "
        "``categorical_features``. Each becomes the sine and cosine of the time of day, the day of "
        "the week and the day of the year, provided that the training rows span at least one day, "
        "week or year.",
    )
    validation_fraction: float = param(
        default=0.0,
        accepts=[real(0, 0.5)],
        doc="Share of the training rows (without calibration rows) to hold out for validation: "
        "their losses are recorded in ``history_``, and :class:`deepod.callbacks.EarlyStopping` "
        "uses them.",
    )
    callbacks: Sequence[Callback] = param(
        default=(),
        accepts=[tuple, list],
        doc="Functions that are called with a :class:`deepod.callbacks.Event` after every epoch. "
        "If one returns True, the phase ends.",
    )
    device: str = param(
        default="auto",
        accepts=[str],
        doc="Device to train and score on: 'cpu', 'cuda', 'cuda:1', 'mps' or the like. 'auto' "
        "chooses CUDA if it is available, and the CPU otherwise.",
    )
    random_state: int | np.random.RandomState | None = param(
        default=None,
        accepts=["random_state"],
        doc="Seed of all random numbers. Pass an int to get the same results in every fit.",
    )
    engine: Literal["auto", "eager", "trace", "compile", "cuda_graph"] = param(
        default="auto",
        accepts=[one_of("auto", *ENGINES)],
        doc="How optimiser steps are executed. The results are the same except for rounding. "
        "'eager' is plain PyTorch. 'trace' records the operations of one step and replays them "
        "without Python. 'compile' uses torch.compile (it takes half a minute and needs a C++ "
        "compiler). 'cuda_graph' captures the steps on a GPU. 'auto' uses 'trace' for long "
        "training on a CPU if the loss permits it, and 'eager' otherwise.",
    )
    memory_limit: int = param(
        default=1 << 28,
        accepts=[integer(1)],
        doc="Limit, in bytes, on the rows that ``fit`` holds in memory. It applies to memory maps "
        "that are larger than this and to sources of :mod:`deepod.sources`, which are read from "
        "disk again in every epoch. Scoring reads them a few MiB at a time.",
    )
    checkpoint: str | os.PathLike[str] | None = param(
        default=None,
        accepts=[str, os.PathLike, None],
        doc="File to save the progress of training in. If a fit is killed and started again with "
        "the same arguments, it continues from this file. ``fit`` deletes it when it succeeds; see "
        "its notes.",
    )
    checkpoint_every: int = param(
        default=1,
        accepts=[integer(1)],
        doc="Number of epochs between two writes of ``checkpoint``, each of which takes about "
        "10 ms for a small network. It is also written at the end of every phase.",
    )
    verbose: int = param(
        default=0,
        accepts=["verbose"],
        doc="0 prints nothing; 1 shows a progress bar with the losses.",
    )
