"""Which fits train side by side: those whose steps are the same but for numbers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pickle import PicklingError
from typing import Any

import numpy as np
from joblib import hash as fingerprint
from torch import nn

from deepod._inputs.seeds import global_generator
from deepod.params import watched


def groups_alike(fits: Sequence[Any]) -> list[list[Any]]:
    """Group fits that can train side by side, and note which numbers their losses read."""
    if len(fits) < 2:
        return [list(fits)] if fits else []
    groups: dict[Any, list[Any]] = {}
    for fit in fits:
        groups.setdefault(_likeness(fit), []).append(fit)
    return list(groups.values())


def _likeness(fit: Any) -> tuple[Any, ...]:
    """Return what is equal for fits whose steps are the same but for numbers."""
    task, detector = fit.task, fit.trained
    # torch has no rule for many recurrent layers at once, and convolutions gain nothing. Rows that
    # are read from disk take up the memory of one fit.
    unfit = nn.RNNBase | nn.modules.conv._ConvNd
    if (
        not isinstance(fit.rows, np.ndarray)
        or task.ranks.size > 1
        or any(isinstance(part, unfit) for part in task.module.modules())
    ):
        return (fit.number,)
    try:
        read = {name: detector.get_params()[name] for name in _read_by_losses(fit)}
    except Exception:  # a mistake in the loss: training says which
        return (fit.number,)
    numbers = {name for name, value in read.items() if type(value) in (int, float)}
    fit.numbers_in_loss = numbers
    others = tuple((k, _description(v)) for k, v in sorted(read.items()) if k not in numbers)
    sizes = len(task.rows), task.rows.shape, task.held_out and len(task.held_out.x)
    steps = task.batch_size, task.optimizer, detector.engine, str(task.rows.device)
    phases = tuple((p.name, p.epochs, p.params, p.milestones, p.cycle) for p in task.phases)
    structure = _structure(task.module)
    return type(detector), others, frozenset(numbers), sizes, steps, phases, structure


def _read_by_losses(fit: Any) -> set[str]:
    """Find the hyper-parameters that the losses read, by computing them once."""
    reader, read = watched(fit.trained)
    phases = reader._phases()
    read.clear()
    module, batch = copy.deepcopy(fit.task.module).train(), fit.task.example(2)
    with global_generator():  # dropout draws from it
        for phase in phases:
            phase.loss(module, batch)
    return set(read)


def _structure(module: nn.Module) -> tuple[Any, ...]:
    """Describe all of a module but the values of its parameters and buffers."""
    internal = vars(nn.Module())
    parts = tuple(
        (name, type(part), tuple((k, _description(v)) for k, v in vars(part).items()
                                 if k not in internal))
        for name, part in module.named_modules()
    )  # fmt: skip
    return parts, tuple((name, t.shape, t.dtype) for name, t in module.state_dict().items())


def _description(value: Any) -> Any:
    """Return something that is equal for equal values."""
    if value is None or type(value) in (bool, int, float, str):
        return type(value), value
    if type(value) in (tuple, list):
        return type(value), tuple(_description(part) for part in value)
    try:
        return fingerprint(value)
    except (PicklingError, TypeError, AttributeError):  # equal to itself alone
        return id(value)
