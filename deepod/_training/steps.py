"""One optimiser step: in plain torch, and what all ways of carrying it out have in common."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from itertools import chain
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from deepod._training.checkpoint import require
from deepod._training.processes import Ranks
from deepod._training.task import Task
from deepod.types import Batch, Phase

ENGINES = ("eager", "trace", "compile", "cuda_graph")
# What an optimiser remembers of each parameter.
_MOMENTS = {
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.SGD: ("momentum_buffer",),
}


class Stepper(abc.ABC):
    """One optimiser step after the other on the losses of one phase.

    Attributes
    ----------
    names : tuple of str
        Loss terms; known after the first step.
    optimizer : torch.optim.Optimizer
    """

    names: tuple[str, ...]
    optimizer: torch.optim.Optimizer

    @abc.abstractmethod
    def step(self, batches: Sequence[Batch]) -> Tensor:
        """Train every member on its batch; its weighted loss terms, (members, terms)."""

    def keep(self, members: Sequence[int]) -> None:  # noqa: B027
        """Go on with these members alone."""

    def state_dict(self) -> dict[str, Any]:
        """Give what the next step takes from those before it, apart from the module."""
        state = self.optimizer.state_dict()
        moments = {str(number): values for number, values in state["state"].items()}
        return {"optimizer": {"state": moments, "param_groups": state["param_groups"]}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        Raises
        ------
        InvalidFileError
            If that cannot be the state of this optimiser after some steps.
        """
        groups = state["optimizer"]["param_groups"]
        moments = {int(number): values for number, values in state["optimizer"]["state"].items()}
        ours = self.optimizer.state_dict()["param_groups"]
        require(len(groups) == len(ours), "optimizer")
        for group, own in zip(groups, ours, strict=True):
            # A schedule changes it; all else is as it was built, but for tuples that are lists now.
            rate = group["lr"]
            require(type(rate) in (int, float) and 0 < rate < inf, "learning rate")
            require(_plain(group) == _plain(own | {"lr": rate}), "optimizer")
        trained = list(
            chain.from_iterable(group["params"] for group in self.optimizer.param_groups)
        )
        require(moments, "optimizer")  # it has taken steps
        for number, values in moments.items():
            require(number in range(len(trained)), "optimizer")
            shapes = {name: tuple(trained[number].shape) for name in _MOMENTS[type(self.optimizer)]}
            if "step" in shapes:
                shapes["step"] = ()
            found = {name: tuple(value.shape) for name, value in values.items()}
            require(found == shapes, "optimizer")
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _plain(group: Mapping[str, Any]) -> dict[str, Any]:
    """Turn tuples into lists, as in a file."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in group.items()}


class Eager(Stepper):
    """Plain autograd on one module: the reference for all others."""

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
        share_gradients(self.optimizer, len(batches[0].x), self.ranks)
        if self.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.trained, self.max_grad_norm)
        self.optimizer.step()
        self.names = tuple(terms)
        return torch.stack([term.detach() for term in terms.values()]).unsqueeze(0)


@torch.no_grad()
def update(optimizer: torch.optim.Optimizer) -> None:
    """Step; past the first one of Adam, without the hooks and checks that outlast the update."""
    state = optimizer.state
    if type(optimizer) is not torch.optim.Adam or not state:
        optimizer.step()
        return
    for group in optimizer.param_groups:
        known = [state[p] for p in group["params"]]
        adam(
            group["params"],
            [p.grad for p in group["params"]],
            [s["exp_avg"] for s in known],
            [s["exp_avg_sq"] for s in known],
            [],
            [s["step"] for s in known],
            fused=group["fused"],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def share_gradients(optimizer: torch.optim.Optimizer, n: int, ranks: Ranks | None) -> None:
    """Replace gradients of the mean over n rows by those of the mean over the rows of all ranks.

    Not torch's DistributedDataParallel, which acts on a module's ``forward``: losses call the parts
    of a module. One sum over all gradients at once costs less too, for networks of this size.
    """
    if ranks is None:
        return
    groups = optimizer.param_groups
    gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    count = torch.full((1,), float(n), device=gradients[0].device)
    for gradient in gradients:
        gradient.mul_(n)
    ranks.add([*gradients, count])
    for gradient in gradients:
        gradient.div_(count)


def selected(module: nn.Module, phase: Phase) -> dict[str, nn.Parameter]:
    """Parameters that the phase trains."""
    return {
        name: p
        for name, p in module.named_parameters()
        if p.requires_grad and (phase.params is None or name.startswith(phase.params))
    }


def settings(task: Task, phase: Phase) -> tuple[float, float]:
    """Learning rate and weight decay."""
    return task.lr if phase.lr is None else phase.lr, task.weight_decay


def optimizer(
    tasks: Sequence[Task], phases: Sequence[Phase], trained: Sequence[Sequence[Tensor]]
) -> torch.optim.Optimizer:
    """One optimiser, with a group of parameters for members of the same settings.

    ``trained`` has one list per member, or one for all.
    """
    by_settings: dict[tuple[float, float], list[Tensor]] = {}
    for task, phase, tensors in zip(tasks, phases, trained, strict=False):
        by_settings.setdefault(settings(task, phase), []).extend(tensors)
    groups: list[Any] = [
        {"params": tensors, "lr": lr, "weight_decay": weight_decay}
        for (lr, weight_decay), tensors in by_settings.items()
    ]
    options: Any = {"fused": tasks[0].rows.device.type in ("cpu", "cuda")}
    if tasks[0].optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, **options)
    adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[tasks[0].optimizer]
    return adam(groups, **options)
