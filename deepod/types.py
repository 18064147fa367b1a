"""Data types that the training loop, the methods and the callbacks exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
Losses = dict[str, Tensor]


class Batch(NamedTuple):
    """A mini-batch; absent fields are None."""

    x: Tensor  # (B, *shape)
    y: Tensor | None = None  # (B,), only for methods that train on labels
    noise: Any = None  # every random number the loss uses, as drawn by ``_noise``


class Rows(Protocol):
    """Protocol of the rows to train on, whether they are in memory or on disk."""

    device: torch.device
    shape: Shape  # of one row

    def __len__(self) -> int: ...

    def sizes(self, batch_size: int) -> list[int]:
        """Return the distinct sizes of the batches of an epoch."""

    def batches(
        self, stream: torch.Generator, batch_size: int
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the batches of one epoch in a new order: rows and labels, on ``device``."""

    def head(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Return the same n rows and labels in every call; repeat rows if there are fewer."""

    def chunks(self, n: int) -> Iterator[Tensor]:
        """Yield all rows in order, at most n at a time; a sample if there are very many."""

    def state_dict(self) -> dict[str, int]:
        """Return the state that the next epoch needs from those before it."""

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore a state that ``state_dict`` has returned."""


@dataclass(frozen=True)
class Refresh:
    """A rule that sets a quantity which gradients do not train, such as a centre or a radius.

    ``collect(module, x)`` returns statistics per sample. ``reduce(statistics)`` turns those of the
    whole training set into ``{buffer name: value}``, which the loop writes into the module.
    """

    collect: Callable[[nn.Module, Tensor], Tensor]
    reduce: Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Phase:
    """A stage of training with its own loss and optimiser.

    Phases run one after the other. Successive phases with the same ``cycle`` instead take turns in
    every batch, as in adversarial training; they must have the same number of ``epochs``.
    """

    name: str
    epochs: int
    loss: Callable[[nn.Module, Batch], Losses]
    lr: float | None = None  # None: the detector's
    params: tuple[str, ...] | None = None  # prefixes of the trained parameters; None: all
    start: Refresh | None = None  # before the first epoch
    each_epoch: Refresh | None = None  # after every epoch
    skip: int = 0  # epochs before each_epoch acts
    milestones: tuple[int, ...] = ()  # epochs at which lr is divided by ten
    cycle: str | None = None


@dataclass(frozen=True)
class Event:
    """The argument of callbacks, which describes the epoch that has just ended.

    Attributes
    ----------
    phase : str
        Name of the phase of training.
    epoch : int
        Number of the epoch in the phase, from 0.
    epochs : int
        Number of epochs planned for the phase.
    losses : dict of float
        Weighted loss terms by name, each the mean over the training rows.
    validation : dict of float
        The same terms over the rows of ``validation_fraction``; empty if there are none.
    seconds : float
        Duration of the epoch.
    last : bool
        Whether this is the last phase.
    module : torch.nn.Module
        The module in training.
    """

    phase: str
    epoch: int
    epochs: int
    losses: dict[str, float]
    validation: dict[str, float]
    seconds: float
    last: bool
    module: nn.Module = field(repr=False)


Callback = Callable[[Event], bool | None]
