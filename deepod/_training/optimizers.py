"""Adam, AdamW and SGD with torch's own functions.

torch's optimiser classes are not used, because they import torch's compiler (800 modules, two
seconds) in every process that trains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from deepod._training.checkpoint import require

Moments = dict[str, Tensor]  # what is remembered of one tensor


@dataclass
class Group:
    """A group of tensors that are trained with the same settings."""

    tensors: list[Tensor]
    lr: float
    weight_decay: float


class Optimizer:
    """One optimiser for groups of tensors; with torch's defaults, and momentum 0.9 for "sgd".

    Parameters
    ----------
    kind : {"adam", "adamw", "sgd"}
    groups : sequence of Group
    milestones : sequence of int, default=()
        Epochs after which the learning rates are divided by ten.
    """

    def __init__(self, kind: str, groups: Sequence[Group], milestones: Sequence[int] = ()) -> None:
        self.groups, self.milestones = list(groups), tuple(milestones)
        self._update = _UPDATES[kind]
        self._shapes = {"momentum": None} if kind == "sgd" else _ADAM
        self._moments: dict[Tensor, Moments] = {}
        # One call for all tensors, on devices for which torch has one.
        self._fused = all(t.device.type in ("cpu", "cuda") for t in self.tensors)

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors of all groups, in their order."""
        return [tensor for group in self.groups for tensor in group.tensors]

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients of the tensors that have one."""
        return [tensor.grad for tensor in self.tensors if tensor.grad is not None]

    def zero_grad(self) -> None:
        """Delete all gradients."""
        for tensor in self.tensors:
            tensor.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every tensor that has a gradient."""
        for group in self.groups:
            reached = [tensor for tensor in group.tensors if tensor.grad is not None]
            if reached:
                moments = [self._moments_of(tensor) for tensor in reached]
                self._update(reached, moments, group, self._fused)

    def _moments_of(self, tensor: Tensor) -> Moments:
        if tensor not in self._moments:
            self._moments[tensor] = {
                name: torch.zeros_like(tensor)
                if shape is None
                else torch.zeros(shape, dtype=torch.float32, device=tensor.device)
                for name, shape in self._shapes.items()
            }
        return self._moments[tensor]

    def end_epoch(self, epoch: int) -> None:
        """Reduce the learning rates if the epoch that has ended (counted from 0) is a milestone."""
        passed = self.milestones.count(epoch + 1)
        for group in self.groups:
            group.lr *= 0.1**passed

    def replace(self, tensors: Mapping[Tensor, Tensor], rows: Sequence[int] | None = None) -> None:
        """Replace the tensors by others with the same state, and drop those without a successor.

        With ``rows``, a successor consists of these rows of its predecessor.
        """
        moments, self._moments = self._moments, {}
        for group in self.groups:
            kept = [tensor for tensor in group.tensors if tensor in tensors]
            group.tensors = [tensors[tensor] for tensor in kept]
            for tensor in kept:
                known = moments.get(tensor, {})
                if rows is not None:
                    known = {k: m[list(rows)] if m.dim() else m for k, m in known.items()}
                if known:
                    self._moments[tensors[tensor]] = known

    def state_dict(self) -> dict[str, Moments]:
        """Return the moments of the tensors that have been updated, by their numbers."""
        tensors = self.tensors
        return {str(k): self._moments[t] for k, t in enumerate(tensors) if t in self._moments}

    def load_state_dict(self, state: Mapping[str, Moments]) -> None:
        """Restore moments that ``state_dict`` has returned.

        Raises
        ------
        InvalidFileError
            If they cannot be moments of this optimiser.
        """
        tensors = self.tensors
        require(state, "optimizer")  # it has taken steps
        for number, moments in state.items():
            require(number.isdecimal() and int(number) < len(tensors), "optimizer")
            tensor = tensors[int(number)]
            shapes = {k: tensor.shape if v is None else v for k, v in self._shapes.items()}
            require({name: m.shape for name, m in moments.items()} == shapes, "optimizer")
            self._moments[tensor] = {k: m.to(tensor.device) for k, m in moments.items()}


# Shapes of the moments; None: that of the tensor.
_ADAM: dict[str, tuple[int, ...] | None] = {"step": (), "exp_avg": None, "exp_avg_sq": None}


def _by_adam(function: Callable[..., None]) -> Callable[..., None]:
    def update(tensors: list[Tensor], moments: list[Moments], group: Group, fused: bool) -> None:
        function(
            tensors,
            [tensor.grad for tensor in tensors],
            [known["exp_avg"] for known in moments],
            [known["exp_avg_sq"] for known in moments],
            [],
            [known["step"] for known in moments],
            fused=fused,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=group.lr,
            weight_decay=group.weight_decay,
            eps=1e-8,
            maximize=False,
        )

    return update


def _by_sgd(tensors: list[Tensor], moments: list[Moments], group: Group, fused: bool) -> None:
    sgd(
        tensors,
        [tensor.grad for tensor in tensors],  # type: ignore[misc]
        [known["momentum"] for known in moments],
        fused=fused,
        foreach=False,
        weight_decay=group.weight_decay,
        momentum=0.9,
        lr=group.lr,
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )


_UPDATES = {"adam": _by_adam(adam), "adamw": _by_adam(adamw), "sgd": _by_sgd}
