"""Fitting of one detector or many; those whose steps differ only in numbers are stacked."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pickle import PicklingError
from typing import Any

import numpy as np
import torch
from joblib import hash as fingerprint
from torch import nn

from deepod._inputs.seeds import global_generator
from deepod._inputs.settings import fixed
from deepod._training.crossfit import halves_of
from deepod._training.fitting import Fit
from deepod._training.loop import train
from deepod._training.stacked import NotRecordableError
from deepod._training.starts import Start
from deepod._training.task import Member
from deepod.params import noting_reads

MOST_MEMBERS = 64  # side by side: more are no faster, and take more memory


def fit_all(
    detectors: Sequence[Any], Xs: Sequence[Any], ys: Sequence[Any], begin: Start | None = None
) -> list[Exception | None]:
    """Fit every detector on its X and y; similar ones are stacked and trained together.

    ``begin`` is a start for all of them, instead of the one that ``transfer`` has set.

    Returns
    -------
    errors : list of Exception or None
        The error of each detector whose fit failed; such a detector is left unchanged.
    """
    errors: list[Exception | None] = [None] * len(detectors)
    shared: dict[Any, Any] = {}
    fits = []
    # Gradients whatever mode the caller is in.
    with fixed(), torch.enable_grad():
        for k, (detector, X, y) in enumerate(zip(detectors, Xs, ys, strict=True)):
            fit = (detector._fit_kind or Fit)(k, detector, X, y)
            fit.start = begin or fit.start
            try:
                fit.set_up(shared)
            except Exception as error:
                errors[k] = error
            else:
                fits.append(fit)
        del shared
        waiting = _groups_alike(fits)
        del fits
        while waiting:
            group = waiting.pop()  # with its data, once it is trained
            for start in range(0, len(group), MOST_MEMBERS):
                _train_and_complete(group[start : start + MOST_MEMBERS], errors)
    return errors


def _train_and_complete(fits: Sequence[Fit], errors: list[Exception | None]) -> None:
    differing = _differing_numbers(fits)
    tasks = [replace(fit.task, values=own) for fit, own in zip(fits, differing, strict=True)]
    try:
        members = train(tasks, fits[0].trained.engine)
    except NotRecordableError as error:
        if len(fits) == 1:
            errors[fits[0].number] = error
            return
        for group in _smaller_groups(fits, differing):
            for fit in group:  # from the beginning
                fit.set_up({})
            _train_and_complete(group, errors)
        return
    except Exception as error:
        if len(fits) > 1:
            raise
        errors[fits[0].number] = error
        return
    _cross_fit(fits, members)
    for fit, member in zip(fits, members, strict=True):
        try:
            fit.complete(member)
        except Exception as error:
            errors[fit.number] = error


def _cross_fit(fits: Sequence[Fit], members: Sequence[Member]) -> None:
    """Train the two halves of each fit for cross-fitting, all of them together."""
    halves = [h for fit, member in zip(fits, members, strict=True) for h in halves_of(fit, member)]
    errors: list[Exception | None] = [None] * len(halves)
    ready = []
    for number, half in enumerate(halves):
        half.number = number
        try:
            half.set_up({})
        except Exception as error:
            errors[number] = error
        else:
            ready.append(half)
    for group in _groups_alike(ready):
        for start in range(0, len(group), MOST_MEMBERS):
            _train_and_complete(group[start : start + MOST_MEMBERS], errors)
    for half, reason in zip(halves, errors, strict=True):
        if reason is not None:
            half.give_up(reason)


def _differing_numbers(fits: Sequence[Fit]) -> list[dict[str, float]]:
    """Return for each fit the numbers in its losses that are not equal in all fits."""
    read = sorted(fits[0].numbers_in_loss)
    values = [{name: float(getattr(fit.trained, name)) for name in read} for fit in fits]
    differing = [name for name in read if len({own[name] for own in values}) > 1]
    return [{name: own[name] for name in differing} for own in values]


def _smaller_groups(
    fits: Sequence[Fit], differing: Sequence[dict[str, float]]
) -> Iterable[list[Fit]]:
    """Return smaller groups of fits with equal losses, or nothing if all losses are equal."""
    if not differing[0]:
        return [[fit] for fit in fits]
    groups: dict[tuple[float, ...], list[Fit]] = {}
    for fit, own in zip(fits, differing, strict=True):
        groups.setdefault(tuple(own.values()), []).append(fit)
    return groups.values()


# --- which fits are alike -------------------------------------------------------------------------


def _groups_alike(fits: Sequence[Fit]) -> list[list[Fit]]:
    """Return groups of fits that can be stacked, and note which numbers their losses read."""
    if len(fits) < 2:
        return [list(fits)] if fits else []
    groups: dict[Any, list[Fit]] = {}
    for fit in fits:
        groups.setdefault(_likeness(fit), []).append(fit)
    return list(groups.values())


def _likeness(fit: Fit) -> tuple[Any, ...]:
    """Return a key that is equal for fits whose steps differ only in numbers."""
    task, detector = fit.task, fit.trained
    # torch has no rule for many recurrent layers at once, and convolutions gain nothing. Rows that
    # are read from disk take up the memory of one fit; a checkpoint is a file of one.
    unfit = nn.RNNBase | nn.modules.conv._ConvNd
    if (
        not isinstance(fit.rows, np.ndarray)
        or task.ranks.size > 1
        or detector.checkpoint is not None
        or fit.start.alone
        or any(isinstance(part, unfit) for part in task.module.modules())
    ):
        return (fit.number,)
    params = detector.get_params(deep=False)
    try:
        by_phases, by_losses = _read_by_training(fit)
    except Exception:  # a mistake in the loss: training says which
        return (fit.number,)
    fit.numbers_in_loss = {name for name in by_losses if type(params[name]) in (int, float)}
    others = sorted((by_losses | by_phases | fit.read_by_build) - fit.numbers_in_loss)
    values = tuple((name, _description(params[name])) for name in others)
    sizes = len(task.rows), task.rows.shape, task.held_out and len(task.held_out.x)
    steps = task.batch_size, task.optimizer, detector.engine, str(task.rows.device)
    phases = tuple((p.name, p.epochs, p.params, p.milestones, p.cycle) for p in task.phases)
    structure = _structure(task.module)
    numbers = frozenset(fit.numbers_in_loss)
    return type(detector), values, numbers, sizes, steps, phases, structure


def _read_by_training(fit: Fit) -> tuple[set[str], set[str]]:
    """Return the hyper-parameters that phases and losses read, found by computing the losses."""
    with noting_reads() as by_phases:
        phases = fit.hooks._phases()
    module, batch = copy.deepcopy(fit.task.module).train(), fit.task.example(2)
    with global_generator(), noting_reads() as by_losses:  # dropout draws from it
        for phase in phases:
            phase.loss(module, batch)
    return by_phases, by_losses


def _structure(module: nn.Module) -> tuple[Any, ...]:
    """Return a description of a module without the values of its parameters and buffers."""
    internal = vars(nn.Module())
    parts = tuple(
        (name, type(part), tuple((k, _description(v)) for k, v in vars(part).items()
                                 if k not in internal))
        for name, part in module.named_modules()
    )  # fmt: skip
    state = tuple((name, t.shape, t.dtype) for name, t in module.state_dict().items())
    return parts, state, tuple(p.requires_grad for p in module.parameters())


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
