"""The training loop and the scoring loop of every method. Functions over torch modules only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from deepod.types import Batch, Callback, Event, Losses, Phase, Refresh

# Rows are scored in multiples of this: BLAS then treats a row alike whatever its neighbours.
ROW_BLOCK = 32
# Values per scoring chunk: large enough to hide the overhead, small enough to stay in the cache.
CHUNK_VALUES = 1 << 17
MOST_ROWS = 4096  # hidden layers are wider than a narrow table


@dataclass(frozen=True)
class Task:
    """What to train, on what, and how: the same through all phases."""

    module: nn.Module  # on the device of x
    x: Tensor  # (n, *shape)
    y: Tensor | None  # (n,)
    noise: Callable[[int, torch.Generator], Any]  # the random numbers of a batch of n rows
    batch_size: int
    lr: float
    weight_decay: float
    optimizer: str
    order_stream: torch.Generator  # on the CPU, so that every device sees the same permutations
    noise_stream: torch.Generator  # on the device of x
    held_out: Batch | None = None  # rows that are only watched
    held_out_seed: int = 0


def train(
    task: Task, phases: Sequence[Phase], callbacks: Sequence[Callback] = ()
) -> list[dict[str, Any]]:
    """Train ``task.module`` in place through ``phases``.

    Parameters
    ----------
    task : Task
    phases : sequence of Phase
    callbacks : sequence of callables
        Told an :class:`Event` after every epoch; one that returns True ends the phase. A method
        ``end()`` of theirs is called when a phase is over, also by an exception.

    Returns
    -------
    history : list of dict
        One entry per epoch: phase, epoch, seconds, and every weighted loss term; terms of the
        held-out rows are prefixed ``validation_``.
    """
    history: list[dict[str, Any]] = []
    # Neighbours that name the same cycle form a group; any other phase is a group of its own.
    for _, turn in groupby(enumerate(phases), key=lambda p: p[1].cycle or p[0]):
        try:
            group = [phase for _, phase in turn]
            for event in _epochs(task, group, last=group[-1] is phases[-1]):
                watched = {f"validation_{name}": loss for name, loss in event.validation.items()}
                entry = {"phase": event.phase, "epoch": event.epoch, "seconds": event.seconds}
                history.append(entry | event.losses | watched)
                # A list, not a generator: every callback hears of every epoch.
                if any([callback(event) for callback in callbacks]):
                    break
        finally:
            for callback in callbacks:
                getattr(callback, "end", lambda: None)()
    task.module.eval()
    return history


def _epochs(task: Task, group: Sequence[Phase], *, last: bool) -> Iterator[Event]:
    """Train one phase, or several that take turns within each batch, epoch by epoch."""
    optimizers = [_optimizer(task, phase) for phase in group]
    schedules = [
        torch.optim.lr_scheduler.MultiStepLR(optimizer, phase.milestones)
        for optimizer, phase in zip(optimizers, group, strict=True)
    ]
    for phase in group:
        if phase.start is not None:
            _refresh_all(task, phase.start)
    name, epochs = group[0].name, group[0].epochs
    for epoch in range(epochs):
        began = time.perf_counter()
        losses = _epoch(task, group, optimizers)
        for phase in group:
            if phase.each_epoch is not None and epoch >= phase.skip:
                _refresh_all(task, phase.each_epoch)
        for schedule in schedules:
            schedule.step()
        watched = _watch(task, group)
        seconds = time.perf_counter() - began
        _check_finite(losses, name, epoch)
        yield Event(name, epoch, epochs, losses, watched, seconds, last, task.module)


def _epoch(
    task: Task, group: Sequence[Phase], optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, float]:
    """One pass over the rows in a new order; mean loss terms, read from the device once."""
    task.module.train()
    n = len(task.x)
    order = torch.randperm(n, generator=task.order_stream, device="cpu").to(task.x.device)
    totals: Losses = {}
    for rows in _batches(order, task.batch_size):
        batch = Batch(
            task.x.index_select(0, rows),
            None if task.y is None else task.y.index_select(0, rows),
            task.noise(len(rows), task.noise_stream),
        )
        for phase, optimizer in zip(group, optimizers, strict=True):
            optimizer.zero_grad()
            terms = phase.loss(task.module, batch)
            sum(terms.values()).backward()  # type: ignore[union-attr]
            optimizer.step()
            _accumulate(totals, terms, len(rows))
    return _means(totals, n)


def _batches(order: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Cut a permutation into even parts of at most ``batch_size`` rows.

    Even, because the statistics of BatchNorm would follow a short last part as much as a full one.
    A part of one row would have no variance: there may be one row more than ``batch_size`` instead.
    """
    n = len(order)
    parts = -(-n // batch_size)
    if batch_size > 1 and n < 2 * parts:
        parts = max(1, n // 2)
    yield from order.tensor_split(parts)


def _accumulate(totals: Losses, terms: Losses, weight: int) -> None:
    for name, value in terms.items():
        share = value.detach() * weight
        totals[name] = totals[name] + share if name in totals else share


def _means(totals: Losses, n: int) -> dict[str, float]:
    values = (torch.stack(list(totals.values())) / n).tolist()
    return dict(zip(totals, values, strict=True))


@torch.no_grad()
def _watch(task: Task, group: Sequence[Phase]) -> dict[str, float]:
    """Loss terms of the held-out rows, with the same noise every epoch so that they compare."""
    if task.held_out is None:
        return {}
    task.module.eval()
    x, y, _ = task.held_out
    generator = torch.Generator(x.device).manual_seed(task.held_out_seed)
    totals: Losses = {}
    for rows in _batches(torch.arange(len(x), device=x.device), task.batch_size):
        noise = task.noise(len(rows), generator)
        batch = Batch(x[rows], None if y is None else y[rows], noise)
        for phase in group:
            _accumulate(totals, phase.loss(task.module, batch), len(rows))
    return _means(totals, len(x))


def _check_finite(losses: dict[str, float], phase: str, epoch: int) -> None:
    for name, value in losses.items():
        if not abs(value) < float("inf"):
            raise FloatingPointError(
                f"The loss term {name!r} became {value} in epoch {epoch} of phase {phase!r}. "
                "Lower lr, or set scaler='standard' if the columns of X differ much in size."
            )


def _optimizer(task: Task, phase: Phase) -> torch.optim.Optimizer:
    trained = [
        p
        for name, p in task.module.named_parameters()
        if phase.params is None or name.startswith(phase.params)
    ]
    options: dict[str, Any] = {
        "lr": task.lr if phase.lr is None else phase.lr,
        "weight_decay": task.weight_decay,
        "fused": task.x.device.type in ("cpu", "cuda"),
    }
    if task.optimizer == "sgd":
        return torch.optim.SGD(trained, momentum=0.9, **options)
    adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[task.optimizer]
    return adam(trained, **options)


def _refresh_all(task: Task, how: Refresh) -> None:
    """Refresh from all rows that are trained on."""
    refresh(task.module, how, task.x.split(chunk_rows(task.x.shape[1:])), task.x.device)


def refresh(
    module: nn.Module, how: Refresh, chunks: Iterable[Tensor], device: torch.device
) -> None:
    """Set buffers of ``module`` from statistics of the rows in ``chunks``."""
    values = how.reduce(score(module, how.collect, chunks, device))
    for name, value in values.items():
        module.get_buffer(name).copy_(value)


def chunk_rows(shape: Sequence[int]) -> int:
    """Rows of one sample ``shape`` to score at once."""
    values = max(1, torch.Size(shape).numel())
    return max(ROW_BLOCK, min(MOST_ROWS, CHUNK_VALUES // values // ROW_BLOCK * ROW_BLOCK))


@torch.no_grad()
def score(
    module: nn.Module,
    function: Callable[[nn.Module, Tensor], Tensor],
    chunks: Iterable[Tensor],
    device: torch.device,
) -> Tensor:
    """Apply ``function(module, x)`` to every chunk in eval mode.

    Returns
    -------
    Tensor of shape (n, ...)
        One row of results per row of input, on ``device``.
    """
    module.eval()
    parts = []
    for chunk in chunks:
        x = chunk.to(device)
        missing = -len(x) % ROW_BLOCK
        if missing:
            x = torch.cat([x, x[-1:].expand(missing, *x.shape[1:])])
        parts.append(function(module, x)[: len(chunk)])
    return torch.cat(parts)
