"""What a fit begins with instead of new weights, and what of them stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from deepod._inputs.scaling import Scaler
from deepod._inputs.seeds import global_generator
from deepod._training.checkpoint import describe, describe_data
from deepod._training.steps import selected
from deepod._training.task import Task
from deepod.types import Batch, Losses, Phase, Shape


class Watcher(Protocol):
    """What follows a fit from its first step to its last."""

    def begin(self, module: nn.Module) -> None:
        """Be told the module, with the values that training begins with."""

    def end(self, fit: Any) -> None:
        """Be told the fit, when its module is trained."""


@dataclass(frozen=True, eq=False)
class Start:
    """What a fit begins with, and what it does otherwise than a fit from nothing.

    Parameters
    ----------
    weights : dict of ndarray, optional
        Parameters and buffers to begin with, by their names in the module; None: new ones.
    shape : tuple of int
        Of the samples that they were learned from.
    frozen : tuple of str
        Parameters that stay as they are.
    fresh : tuple of str
        Parameters that begin anew.
    lr_scale : float
        Factor of the learning rates.
    scaler : Scaler, optional
        Stays; None: one is learned from the rows.
    known : dict
        Attributes of the detector that stay too: what it knows of the columns.
    passes : int, optional
        Passes over the rows, at most, that ``epochs="auto"`` stands for.
    terms : callable, optional
        Further terms of every loss, of the module alone.
    watcher : Watcher, optional
    """

    weights: dict[str, np.ndarray] | None = None
    shape: Shape = ()
    frozen: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    lr_scale: float = 1.0
    scaler: Scaler | None = None
    known: dict[str, Any] = field(default_factory=dict)
    passes: int | None = None
    terms: Callable[[nn.Module], Losses] | None = None
    watcher: Watcher | None = None

    @property
    def alone(self) -> bool:
        """Whether the fit may not train side by side with others."""
        return bool(self.frozen) or self.terms is not None

    def of_half(self) -> Start:
        """Return the start of a fit of half of the rows, which are encoded by now."""
        return replace(self, known={}, watcher=None)

    def check(self, shape: Shape) -> None:
        """Refuse samples of another shape."""
        if self.weights is not None and shape != self.shape:
            raise ValueError(
                f"X has samples of shape {shape}, and the weights to start from were learned on "
                f"samples of shape {self.shape}: both must be the same."
            )

    def put_into(self, module: nn.Module) -> None:
        """Put the weights into a new module, and hold those that are frozen."""
        if self.weights is not None:
            given = {k: torch.tensor(v) for k, v in self.weights.items() if k not in self.fresh}
            try:
                missing, unknown = module.load_state_dict(given, strict=False)
            except RuntimeError:  # of another shape
                missing, unknown = list(given), []
            if unknown or set(missing) != set(self.fresh):
                raise ValueError(
                    "The network is not the one whose weights it is to start from: leave the "
                    "parameters that it is built by, such as network, as they were."
                )
        for name in self.frozen:
            module.get_parameter(name).requires_grad_(False)
        if self.watcher is not None:
            self.watcher.begin(module)

    def finish(self, fit: Any) -> None:
        """Let go of what was held, once it is trained."""
        for name in self.frozen:
            fit.trained.module_.get_parameter(name).requires_grad_()
        if self.watcher is not None:
            self.watcher.end(fit)

    def adapted(self, task: Task) -> Task:
        """Give the phases of a task the learning rates and terms that belong to this start.

        A phase whose loss reaches nothing but what is frozen has no steps; those of a cycle are
        left out.

        Raises
        ------
        ValueError
            If no phase has any.
        """
        if not self.alone and self.lr_scale == 1:
            return task
        phases, idle = [], 0
        for phase in task.phases:
            lr = self.lr_scale * (task.lr if phase.lr is None else phase.lr)
            if self.frozen and not _trains(task, phase):
                idle += 1
                if phase.cycle is None:
                    phases.append(replace(phase, epochs=0))
                continue
            loss = phase.loss if self.terms is None else _with(phase.loss, self.terms)
            phases.append(replace(phase, lr=lr, loss=loss))
        if idle and idle == len(task.phases):
            raise ValueError("freeze leaves nothing that the loss depends on: freeze less.")
        return replace(task, phases=phases)

    def identity(self) -> dict[str, Any]:
        """Describe it for a checkpoint; a fit from new weights adds nothing."""
        if self.weights is None and self.terms is None:
            return {}
        weights = self.weights or {}
        arrays = self.scaler.state() if self.scaler is not None else {}
        start = {
            "weights": {name: describe_data(np.atleast_1d(v)) for name, v in weights.items()},
            "frozen": list(self.frozen),
            "fresh": list(self.fresh),
            "lr_scale": self.lr_scale,
            "scaler": {name: describe(name, value) for name, value in arrays.items()},
            "passes": self.passes,
            "terms": describe("terms", self.terms),
        }
        return {"start": start}


def _with(
    loss: Callable[[nn.Module, Batch], Losses], terms: Callable[[nn.Module], Losses]
) -> Callable[[nn.Module, Batch], Losses]:
    return lambda module, batch: loss(module, batch) | terms(module)


def _trains(task: Task, phase: Phase) -> bool:
    """Whether the loss of a phase reaches a parameter that the phase may train."""
    tensors = [*selected(task.module, phase).values()]
    if not tensors:
        return False
    # Running statistics are part of the module, and must not notice.
    buffers = [(buffer, buffer.clone()) for buffer in task.module.buffers()]
    with global_generator(), torch.enable_grad():  # dropout draws from it
        total = sum(phase.loss(task.module.train(), task.example(2)).values())
        reached = isinstance(total, Tensor) and total.requires_grad
        if reached:
            found = torch.autograd.grad(total, tensors, allow_unused=True)  # type: ignore[arg-type]
            reached = any(gradient is not None for gradient in found)
    for buffer, before in buffers:
        buffer.copy_(before)
    return reached


# --- what a start is made of ----------------------------------------------------------------------


def weights_of(module: nn.Module) -> dict[str, np.ndarray]:
    """Copy all parameters and buffers."""
    return {name: t.numpy(force=True).copy() for name, t in module.state_dict().items()}


def layers(module: nn.Module) -> list[tuple[str, list[str]]]:
    """List the parts that have parameters of their own, in their order, and the names of these."""
    found = []
    for name, part in module.named_modules():
        own = [f"{name}.{p}" if name else p for p, _ in part.named_parameters(recurse=False)]
        if own:
            found.append((name, own))
    return found


def frozen_names(module: nn.Module, freeze: str | int | Iterable[str] | None) -> tuple[str, ...]:
    """Find the parameters that ``freeze`` names.

    Parameters
    ----------
    module : torch.nn.Module
    freeze : None, str, int or iterable of str
        As :meth:`deepod.BaseDetector.transfer` takes it.

    Raises
    ------
    ValueError
        If it names nothing, or everything.
    """
    names = [name for name, _ in module.named_parameters()]
    parts = layers(module)
    if freeze is None:
        return ()
    if isinstance(freeze, bool) or not isinstance(freeze, str | int | np.integer | Iterable):
        raise ValueError(
            f"freeze must be None, 'encoder', names of parameters or a number, got {freeze!r}."
        )
    if isinstance(freeze, int | np.integer):
        if not 0 < freeze <= len(parts):
            raise ValueError(f"freeze={freeze} must be from 1 to {len(parts)}, the layers there.")
        frozen = {name for _, own in parts[: int(freeze)] for name in own}
    else:
        wanted = [freeze] if isinstance(freeze, str) else list(freeze)
        frozen = set().union(*(_named(part, names) for part in wanted))
    if not frozen:
        raise ValueError(f"freeze={freeze!r} names no parameter; leave it None.")
    if frozen == set(names):
        raise ValueError(f"freeze={freeze!r} leaves no parameter to train; freeze less.")
    return tuple(name for name in names if name in frozen)


def _named(part: str, names: Sequence[str]) -> set[str]:
    """Find the parameters of a part; "encoder" is all but the head where no part is called so."""
    found = {name for name in names if name == part or name.startswith(f"{part}.")}
    if part == "encoder" and not found:
        inside = {name for name in names if "encoder" in name.split(".")}
        heads = {name for name in names if "head" in name.split(".")}
        found = inside or (set(names) - heads if heads else set())
    if not found:
        tops = sorted({name.partition(".")[0] for name in names})
        raise ValueError(
            f"freeze names {part!r}, and the network has no such part: its parts are "
            f"{', '.join(tops)}, and its parameters {', '.join(names)}."
        )
    return found


def head_names(module: nn.Module) -> tuple[str, ...]:
    """Find the parameters of the head: of the parts called so, or else of the last layer."""
    parts = layers(module)
    heads = [own for name, own in parts if "head" in name.split(".")] or [parts[-1][1]]
    if len(heads) == len(parts):
        raise ValueError("reset_head=True leaves nothing to start from: there is but one layer.")
    return tuple(name for own in heads for name in own)
