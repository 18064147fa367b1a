"""Optimiser steps in plain torch, and the interface of all steppers."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepod._training.optimizers import Group, Optimizer
from deepod._training.task import Task
from deepod.types import Batch, Phase


class Stepper(abc.ABC):
    """Base class of objects that take the optimiser steps of one phase.

    Attributes
    ----------
    names : tuple of str
        Names of the loss terms, known after the first step.
    optimizer : Optimizer
    """

    names: tuple[str, ...]
    optimizer: Optimizer

    @abc.abstractmethod
    def step(self, batches: Sequence[Batch]) -> Tensor:
        """Train every member on its batch, and return its weighted terms, (members, terms)."""

    def keep(self, members: Sequence[int]) -> None:  # noqa: B027
        """Keep only these members."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state that the next step needs from those before it, without the module."""
        return {"moments": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that ``state_dict`` has returned."""
        self.optimizer.load_state_dict(state["moments"])


class Eager(Stepper):
    """A stepper with plain autograd on one module, the reference for all others."""

    def __init__(self, task: Task, phase: Phase) -> None:
        self.module, self.loss, self.ranks = task.module, phase.loss, task.ranks
        self.trained = list(selected(task.module, phase).values())
        self.max_grad_norm = task.max_grad_norm
        self.optimizer = optimizer([task], [phase], [self.trained])

    def step(self, batches: Sequence[Batch]) -> Tensor:
        """Train the module on its batch."""
        self.optimizer.zero_grad()
        terms = self.loss(self.module, batches[0])
        sum(terms.values()).backward()  # type: ignore[union-attr]
        self.ranks.average_gradients(self.optimizer.gradients, len(batches[0].x))
        if self.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.trained, self.max_grad_norm)
        self.optimizer.step()
        self.names = tuple(terms)
        return torch.stack([term.detach() for term in terms.values()]).unsqueeze(0)


def selected(module: nn.Module, phase: Phase) -> dict[str, nn.Parameter]:
    """Return the parameters that the phase trains, by name."""
    return {
        name: p
        for name, p in module.named_parameters()
        if p.requires_grad and (phase.params is None or name.startswith(phase.params))
    }


def settings(task: Task, phase: Phase) -> tuple[float, float]:
    """Return the learning rate and the weight decay of a phase."""
    return task.lr if phase.lr is None else phase.lr, task.weight_decay


def optimizer(
    tasks: Sequence[Task], phases: Sequence[Phase], trained: Sequence[Sequence[Tensor]]
) -> Optimizer:
    """Return an optimiser with one group of tensors for members with the same settings.

    ``trained`` holds one list per member, or a single list for all.
    """
    groups: dict[tuple[float, float], Group] = {}
    for task, phase, tensors in zip(tasks, phases, trained, strict=False):
        lr, weight_decay = settings(task, phase)
        groups.setdefault((lr, weight_decay), Group([], lr, weight_decay)).tensors.extend(tensors)
    return Optimizer(tasks[0].optimizer, list(groups.values()), phases[0].milestones)
