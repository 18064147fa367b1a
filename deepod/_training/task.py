"""Tasks for the training loop, and their progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from deepod._scoring.memory import AtOnce
from deepod._training.checkpoint import Checkpoint, NoCheckpoint, is_count, require
from deepod._training.processes import ALONE, Ranks
from deepod.types import Batch, Callback, Phase, Rows

ENGINES = ("eager", "trace", "compile", "cuda_graph")


@dataclass(frozen=True)
class Task:
    """The task of one member: a module, the rows to train it on, and the settings."""

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
    ranks: Ranks = ALONE  # processes, each with rows of its own
    max_grad_norm: float | None = None
    checkpoint: Checkpoint | NoCheckpoint = field(default_factory=NoCheckpoint)
    # Hyper-parameters in which stacked members differ, and the phases whose losses read them from
    # here as tensors.
    values: dict[str, float] = field(default_factory=dict)
    phases_with: Callable[[dict[str, Tensor]], Sequence[Phase]] | None = None

    def draw(self) -> Iterator[Batch]:
        """Yield the batches of one epoch in a new order."""
        for x, y in self.rows.batches(self.order_stream, self.batch_size):
            yield Batch(x, y, self.noise(len(x), self.noise_stream))

    def example(self, size: int) -> Batch:
        """Return some batch of ``size`` rows without advancing any random stream."""
        x, y = self.rows.head(size)
        return Batch(x, y, self.noise(size, torch.Generator(x.device).manual_seed(0)))


def turns(phases: Sequence[Phase]) -> list[list[int]]:
    """Return the phases in groups: successive phases of the same cycle, and single phases."""
    groups = groupby(enumerate(phases), key=lambda p: p[1].cycle or p[0])
    return [[i for i, _ in group] for _, group in groups]


class Member:
    """A task and its progress in training.

    Attributes
    ----------
    history : list of dict
        One entry per epoch: phase, epoch, seconds, and every weighted loss term; terms of the
        held-out rows are prefixed ``validation_``.
    error : Exception or None
    engine : str
        Engine of the last phase.
    at_once : AtOnce
        Limit on the rows that are scored at once, in training and after it.
    turn : int
        Number of the first phase that has not ended.
    resumed : dict
        Progress within that phase, if the fit continues from a checkpoint.
    """

    def __init__(self, task: Task, at_once: AtOnce | None = None) -> None:
        self.task = task
        self.at_once = at_once or AtOnce()
        self.history: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.engine = "eager"
        self.stopped = False  # in this phase
        self.in_phase = False
        self.turn = 0
        self.resumed: dict[str, Any] = {}
        with task.checkpoint.reading():
            state = task.checkpoint.take()
            if state is not None:
                self._load(state)

    def _load(self, state: Mapping[str, Any]) -> None:
        """Restore the progress of a fit that :meth:`save` has written."""
        task = self.task
        self.turn, self.engine = state["turn"], state["engine"]
        self.history, self.resumed = state["history"], state["resumed"]
        require(self.engine in ENGINES, "engine")
        self._check_how_far()
        task.module.load_state_dict(state["module"])
        task.rows.load_state_dict(state["rows"])
        task.order_stream.set_state(state["order_stream"])
        task.noise_stream.set_state(state["noise_stream"])
        callbacks: list[Any] = [*filter(remembers, task.callbacks)]
        for callback, own in zip(callbacks, state["callbacks"], strict=True):
            callback.load_state_dict(own)

    def _check_how_far(self) -> None:
        """Raise InvalidFileError if the history in a file does not fit its other contents."""
        phases = self.task.phases
        starts = [*(turn[0] for turn in turns(phases)), len(phases)]
        require(type(self.turn) is int and self.turn in starts, "turn")
        epochs_done = 0
        if self.resumed:
            known = self.resumed.keys() == {"epochs", "parts"} and self.turn < len(phases)
            require(known, "part of a phase")
            epochs_done = self.resumed["epochs"]
            # After the last one the phase is over, and this no longer its state.
            most = phases[self.turn].epochs - 1
            require(is_count(epochs_done, most) and epochs_done, "epochs")
        told = [(entry["phase"], entry.get("epoch")) for entry in self.history]
        for first in starts:
            if first < len(phases) and first <= self.turn:
                name, epochs = phases[first].name, phases[first].epochs
                n = 0
                while n < len(told) and n < epochs and told[n] == (name, n):
                    n += 1
                told = told[n:]
                # Callbacks may have ended an earlier phase, but not before its first epoch.
                ended = n == epochs_done if first == self.turn else n or not epochs
                require(ended, "history")
        require(not told, "history")

    def begin_epoch(self, phase: str, epoch: int, epochs: int) -> None:
        """Call ``begin_epoch`` of callbacks that have it; an error is set on the member."""
        try:
            for callback in self.task.callbacks:
                getattr(callback, "begin_epoch", lambda *_: None)(phase, epoch, epochs)
        except Exception as error:
            self.error = error

    def resuming(self) -> AbstractContextManager[None]:
        """Convert errors to ones that name the checkpoint, if the member was loaded from it."""
        return self.task.checkpoint.reading() if self.resumed else nullcontext()

    def save(self, resumed: Mapping[str, Any] | None = None) -> None:
        """Write the checkpoint between phases, or within one with its progress (``resumed``)."""
        task = self.task

        def state() -> dict[str, Any]:
            callbacks: list[Any] = [*filter(remembers, task.callbacks)]
            return {
                "turn": self.turn,
                "engine": self.engine,
                "resumed": resumed or {},
                "module": task.module.state_dict(),
                "rows": task.rows.state_dict(),
                "order_stream": task.order_stream.get_state(),
                "noise_stream": task.noise_stream.get_state(),
                "callbacks": [callback.state_dict() for callback in callbacks],
            }

        task.checkpoint.write(state, self.history)


def remembers(callback: Any) -> bool:
    """Return whether a callback has a state for the checkpoint."""
    return hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict")
