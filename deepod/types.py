"""The plain data that the training loop, the methods and the callbacks exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
Losses = dict[str, Tensor]


class Batch(NamedTuple):
    """One mini-batch. Absent fields are None."""

    x: Tensor  # (B, *shape)
    y: Tensor | None = None  # (B,), only for methods that train on labels
    noise: Any = None  # every random number the loss uses, as drawn by ``_noise``


class Rows(Protocol):
    """The rows to train on, wherever they are."""

    device: torch.device
    shape: Shape  # of one row

    def __len__(self) -> int: ...

    def sizes(self, batch_size: int) -> list[int]:
        """List the different sizes of the batches of an epoch."""

    def batches(
        self, stream: torch.Generator, batch_size: int
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Give rows and labels of one epoch in a new order, on ``device``."""

    def head(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Return n rows and their labels, always the same; repeated if there are not as many."""

    def chunks(self, n: int) -> Iterator[Tensor]:
        """Give all rows in order, at most n at a time; of very many, a sample."""

    def state_dict(self) -> dict[str, int]:
        """Give what the next epoch takes from those before it."""

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""


@dataclass(frozen=True)
class Refresh:
    """How a quantity that is not trained by gradients (a centre, a radius) is set.

    ``collect(module, x)`` gives statistics per sample; ``reduce(statistics)`` turns those of the
    whole training set into ``{buffer name: value}``, which the loop writes into the module.
    """

    collect: Callable[[nn.Module, Tensor], Tensor]
    reduce: Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Phase:
    """One stage of training with its own loss and optimiser.

    Phases run one after the other; neighbours that name the same ``cycle`` take turns within each
    batch instead (adversarial and alternating methods) and must have the same ``epochs``.
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
    """What a callback is told after every epoch."""

    phase: str
    epoch: int  # from 0
    epochs: int  # planned for this phase
    losses: dict[str, float]  # weighted terms, mean over the training rows
    validation: dict[str, float]  # the same over the held-out rows; empty without them
    seconds: float
    last: bool  # whether no other phase follows
    module: nn.Module = field(repr=False)


Callback = Callable[[Event], bool | None]
