"""Starts of fits from given weights, some of which may be frozen."""

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
    """Protocol of objects that observe a fit from its first step to its last."""

    def begin(self, module: nn.Module) -> None:
        """Receive the module with its values before training."""

    def end(self, fit: Any) -> None:
        """Receive the fit after training."""


@dataclass(frozen=True, eq=False)
class Start:
    """The weights from which a fit starts, and how it differs from a fit with new weights.

    Parameters
    ----------
    weights : dict of ndarray, optional
        Parameters and buffers by their names in the module; None stands for new ones.
    shape : tuple of int
        Shape of the samples that they were trained on.
    frozen : tuple of str
        Names of parameters that are not trained.
    fresh : tuple of str
        Names of parameters that get new values.
    lr_scale : float
        Factor of the learning rates.
    scaler : Scaler, optional
        A scaler to keep; None learns one from the rows.
    known : dict
        Other attributes of the detector to keep, which describe the columns.
    passes : int, optional
        Largest number of epochs that ``epochs="auto"`` may choose.
    terms : callable, optional
        Additional terms of every loss, computed from the module.
    watcher : Watcher, optional
        An object that observes the fit.
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
        """Whether the fit cannot be stacked with others."""
        return bool(self.frozen) or self.terms is not None

    def of_half(self) -> Start:
        """Return the start of the fit of one half in cross-fitting, whose rows are encoded."""
        return replace(self, known={}, watcher=None)

    def check(self, shape: Shape) -> None:
        """Raise ValueError for samples of another shape."""
        if self.weights is not None and shape != self.shape:
            raise ValueError(
                f"X has samples of shape {shape}, but the weights to start from were trained on "
                f"samples of shape {self.shape}; both must be the same."
            )

    def put_into(self, module: nn.Module) -> None:
        """Load the weights into a new module, and freeze parameters."""
        if self.weights is not None:
            given = {k: torch.tensor(v) for k, v in self.weights.items() if k not in self.fresh}
            try:
                missing, unknown = module.load_state_dict(given, strict=False)
            except RuntimeError:  # of another shape
                missing, unknown = list(given), []
            if unknown or set(missing) != set(self.fresh):
                raise ValueError(
                    "The weights to start from belong to another network: do not change parameters "
                    "on which the network depends, such as network or latent_dim."
                )
        for name in self.frozen:
            module.get_parameter(name).requires_grad_(False)
        if self.watcher is not None:
            self.watcher.begin(module)

    def finish(self, fit: Any) -> None:
        """Unfreeze the parameters after training."""
        for name in self.frozen:
            fit.trained.module_.get_parameter(name).requires_grad_()
        if self.watcher is not None:
            self.watcher.end(fit)

    def adapted(self, task: Task) -> Task:
        """Return a task whose phases have the learning rates and the loss terms of this start.

        A phase that could train frozen parameters only takes no steps; in a cycle, it is left out.

        Raises
        ------
        ValueError
            If no phase takes steps.
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
            raise ValueError(
                "freeze leaves no parameter to train on which a loss depends: freeze less."
            )
        return replace(task, phases=phases)

    def identity(self) -> dict[str, Any]:
        """Return a description for a checkpoint, which is empty for new weights."""
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
    """Return whether the loss of a phase depends on a parameter that the phase may train."""
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
    """Return copies of all parameters and buffers."""
    return {name: t.numpy(force=True).copy() for name, t in module.state_dict().items()}


def layers(module: nn.Module) -> list[tuple[str, list[str]]]:
    """Return the parameter names of each layer that has its own parameters, in order."""
    found = []
    for name, part in module.named_modules():
        own = [f"{name}.{p}" if name else p for p, _ in part.named_parameters(recurse=False)]
        if own:
            found.append((name, own))
    return found


def frozen_names(module: nn.Module, freeze: str | int | Iterable[str] | None) -> tuple[str, ...]:
    """Return the names of the parameters that ``freeze`` selects.

    Parameters
    ----------
    module : torch.nn.Module
    freeze : None, str, int or iterable of str
        The argument of :meth:`deepod.BaseDetector.transfer`.

    Raises
    ------
    ValueError
        If it selects no parameter, or all.
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
            raise ValueError(
                f"freeze must be from 1 to {len(parts)}, the number of layers with parameters, got "
                f"{freeze}."
            )
        frozen = {name for _, own in parts[: int(freeze)] for name in own}
    else:
        wanted = [freeze] if isinstance(freeze, str) else list(freeze)
        frozen = set().union(*(_named(part, names) for part in wanted))
    if not frozen:
        raise ValueError(
            f"freeze={freeze!r} names no parameter; use None in order to freeze nothing."
        )
    if frozen == set(names):
        raise ValueError(f"freeze={freeze!r} leaves no parameter to train; freeze less.")
    return tuple(name for name in names if name in frozen)


def _named(part: str, names: Sequence[str]) -> set[str]:
    """Return the parameters of a part; "encoder" may stand for all but the head."""
    found = {name for name in names if name == part or name.startswith(f"{part}.")}
    if part == "encoder" and not found:
        inside = {name for name in names if "encoder" in name.split(".")}
        heads = {name for name in names if "head" in name.split(".")}
        found = inside or (set(names) - heads if heads else set())
    if not found:
        tops = sorted({name.partition(".")[0] for name in names})
        raise ValueError(
            f"freeze names {part!r}, but the network has no such part: its parts are "
            f"{', '.join(tops)}, and its parameters are {', '.join(names)}."
        )
    return found


def head_names(module: nn.Module) -> tuple[str, ...]:
    """Return the parameters of the head: of the parts with this name, or of the last layer."""
    parts = layers(module)
    heads = [own for name, own in parts if "head" in name.split(".")] or [parts[-1][1]]
    if len(heads) == len(parts):
        raise ValueError(
            "reset_head=True would reset everything, because the network has only one layer; use "
            "reset_head=False."
        )
    return tuple(name for own in heads for name in own)
