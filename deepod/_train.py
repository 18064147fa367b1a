"""The training loop and the scoring loop of every method. Functions over torch modules only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from deepod.types import Batch, Callback, Event, Losses, Phase, Refresh

# Rows are scored in multiples of this: BLAS then treats a row alike whatever its neighbours.
ROW_BLOCK = 16
# Values per scoring chunk: large enough to hide the overhead, small enough to stay in the cache.
CHUNK_VALUES = 1 << 17
MOST_ROWS = 4096  # hidden layers are wider than a narrow table

Noise = Callable[[int, torch.Generator], Any]


@dataclass(frozen=True)
class Settings:
    """How to train: the shared hyper-parameters and the streams of random numbers."""

    batch_size: int
    lr: float
    weight_decay: float
    optimizer: str
    order: torch.Generator  # permutations; on the CPU, so that every device sees the same ones
    noise: torch.Generator  # on the training device
    validation_seed: int


def train(
    module: nn.Module,
    phases: Sequence[Phase],
    x: Tensor,
    y: Tensor | None,
    noise: Noise,
    settings: Settings,
    held_out: Batch | None = None,
    callbacks: Sequence[Callback] = (),
) -> list[dict[str, Any]]:
    """Train ``module`` in place through ``phases``.

    Parameters
    ----------
    module : Module
        On the device of ``x``.
    phases : sequence of Phase
    x : Tensor of shape (n, *shape)
    y : Tensor of shape (n,) or None
    noise : callable
        ``noise(n, generator)`` gives the random numbers of a batch of n rows.
    settings : Settings
    held_out : Batch or None
        Rows that are only watched.
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
    for _, turn in groupby(enumerate(phases), key=lambda p: p[1].cycle or p[0]):
        group = [phase for _, phase in turn]
        optimizers = [_optimizer(module, phase, settings) for phase in group]
        try:
            _run(module, group, optimizers, x, y, noise, settings, held_out, callbacks, history)
        finally:
            for callback in callbacks:
                getattr(callback, "end", lambda: None)()
    module.eval()
    return history


def _run(
    module: nn.Module,
    group: Sequence[Phase],
    optimizers: Sequence[torch.optim.Optimizer],
    x: Tensor,
    y: Tensor | None,
    noise: Noise,
    settings: Settings,
    held_out: Batch | None,
    callbacks: Sequence[Callback],
    history: list[dict[str, Any]],
) -> None:
    """Train one phase, or several that take turns; append to ``history``."""
    schedules = [
        torch.optim.lr_scheduler.MultiStepLR(optimizer, phase.milestones)
        for optimizer, phase in zip(optimizers, group, strict=True)
    ]
    for phase in group:
        if phase.start is not None:
            refresh(module, phase.start, x)
    lead = group[0]
    for epoch in range(lead.epochs):
        began = time.perf_counter()
        losses = _epoch(module, group, optimizers, x, y, noise, settings)
        for phase in group:
            if phase.each_epoch is not None and epoch >= phase.skip:
                refresh(module, phase.each_epoch, x)
        for schedule in schedules:
            schedule.step()
        watched = {} if held_out is None else _watch(module, group, held_out, noise, settings)
        seconds = time.perf_counter() - began
        _check_finite(losses, lead.name, epoch)
        event = Event(lead.name, epoch, lead.epochs, losses, watched, seconds, module)
        history.append(
            {"phase": lead.name, "epoch": epoch, "seconds": seconds}
            | losses
            | {f"validation_{name}": value for name, value in watched.items()}
        )
        # A list, not a generator: every callback hears of every epoch.
        if any([callback(event) for callback in callbacks]):
            return


def _epoch(
    module: nn.Module,
    group: Sequence[Phase],
    optimizers: Sequence[torch.optim.Optimizer],
    x: Tensor,
    y: Tensor | None,
    noise: Noise,
    settings: Settings,
) -> dict[str, float]:
    """One pass over the rows in a new order; mean loss terms, read from the device once."""
    module.train()
    order = torch.randperm(len(x), generator=settings.order, device="cpu").to(x.device)
    totals: Losses = {}
    for rows in _batches(order, settings.batch_size):
        batch = Batch(
            x.index_select(0, rows),
            None if y is None else y.index_select(0, rows),
            noise(len(rows), settings.noise),
        )
        for phase, optimizer in zip(group, optimizers, strict=True):
            optimizer.zero_grad()
            terms = phase.loss(module, batch)
            sum(terms.values()).backward()  # type: ignore[union-attr]
            optimizer.step()
            _accumulate(totals, terms, len(rows))
    return _means(totals, len(x))


def _batches(order: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Cut a permutation; a single left-over row joins its neighbour (BatchNorm needs two)."""
    parts = list(order.split(batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [order[(len(parts) - 2) * batch_size :]]
    yield from parts


def _accumulate(totals: Losses, terms: Losses, weight: int) -> None:
    for name, value in terms.items():
        share = value.detach() * weight
        totals[name] = totals[name] + share if name in totals else share


def _means(totals: Losses, n: int) -> dict[str, float]:
    values = (torch.stack(list(totals.values())) / n).tolist()
    return dict(zip(totals, values, strict=True))


@torch.no_grad()
def _watch(
    module: nn.Module,
    group: Sequence[Phase],
    held_out: Batch,
    noise: Noise,
    settings: Settings,
) -> dict[str, float]:
    """Loss terms of the held-out rows, with the same noise every epoch so that they compare."""
    module.eval()
    generator = torch.Generator(held_out.x.device).manual_seed(settings.validation_seed)
    totals: Losses = {}
    everything = torch.arange(len(held_out.x), device=held_out.x.device)
    for rows in _batches(everything, settings.batch_size):
        y = None if held_out.y is None else held_out.y[rows]
        batch = Batch(held_out.x[rows], y, noise(len(rows), generator))
        for phase in group:
            _accumulate(totals, phase.loss(module, batch), len(rows))
    return _means(totals, len(held_out.x))


def _check_finite(losses: dict[str, float], phase: str, epoch: int) -> None:
    for name, value in losses.items():
        if not abs(value) < float("inf"):
            raise FloatingPointError(
                f"The loss term {name!r} became {value} in epoch {epoch} of phase {phase!r}. "
                "Lower lr, or set scaler='standard' if the columns of X differ much in size."
            )


def _optimizer(module: nn.Module, phase: Phase, settings: Settings) -> torch.optim.Optimizer:
    trained = [
        p
        for name, p in module.named_parameters()
        if phase.params is None or name.startswith(phase.params)
    ]
    lr = settings.lr if phase.lr is None else phase.lr
    fused = trained[0].device.type in ("cpu", "cuda")
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            trained, lr=lr, momentum=0.9, weight_decay=settings.weight_decay, fused=fused
        )
    adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    return adam(trained, lr=lr, weight_decay=settings.weight_decay, fused=fused)


def refresh(module: nn.Module, how: Refresh, x: Tensor) -> None:
    """Set buffers of ``module`` from statistics over all rows of ``x``."""
    values = how.reduce(score(module, how.collect, x.split(chunk_rows(x.shape[1:])), x.device))
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
    chunks: Iterator[Tensor] | Sequence[Tensor],
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
