"""What to train, on what, and how: plain data for the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from deepod._training.checkpoint import Checkpoint
from deepod._training.processes import Ranks
from deepod.types import Batch, Callback, Phase, Rows


@dataclass(frozen=True)
class Task:
    """One member: what to train, on what, and how."""

    module: nn.Module
    rows: Rows
    phases: Sequence[Phase]
    noise: Callable[[int, torch.Generator], Any]  # the random numbers of a batch of n rows
    batch_size: int
    lr: float
    weight_decay: float
    optimizer: str
    order_stream: torch.Generator  # on the CPU, so that every device sees the same permutations
    noise_stream: torch.Generator  # on the device of the rows
    callbacks: Sequence[Callback] = ()
    held_out: Batch | None = None  # rows that are only watched
    held_out_seed: int = 0
    ranks: Ranks | None = None  # other processes, each with rows of its own
    max_grad_norm: float | None = None
    checkpoint: Checkpoint | None = None  # of a task that is trained alone
    # Hyper-parameters in which members side by side differ, and the phases whose losses take them
    # from here, as tensors.
    values: dict[str, float] = field(default_factory=dict)
    phases_with: Callable[[dict[str, Tensor]], Sequence[Phase]] | None = None

    def draw(self) -> Iterator[Batch]:
        """Batches of one epoch, in a new order."""
        for x, y in self.rows.batches(self.order_stream, self.batch_size):
            yield Batch(x, y, self.noise(len(x), self.noise_stream))

    def example(self, size: int) -> Batch:
        """Return some batch of ``size`` rows; no stream notices."""
        x, y = self.rows.head(size)
        return Batch(x, y, self.noise(size, torch.Generator(x.device).manual_seed(0)))
