"""Fitting one detector, or many at once: those that are alike train side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pickle import PicklingError
from typing import Any

import numpy as np
import torch
from joblib import hash as fingerprint
from torch import nn

from deepod._training.loop import Member, train
from deepod._training.stacked import NotRecordableError, Task

MOST_MEMBERS = 64  # side by side: more are no faster, and take more memory


def fit_all(
    detectors: Sequence[Any], Xs: Sequence[Any], ys: Sequence[Any]
) -> list[Exception | None]:
    """Fit every detector on its X and y.

    Returns
    -------
    errors : list of Exception or None
        Why a detector could not be fitted. Such a detector is as it was before.
    """
    errors: list[Exception | None] = [None] * len(detectors)
    shared: dict[Any, Any] = {}
    groups: dict[Any, list[_Fit]] = {}
    # Gradients whatever mode the caller is in.
    with torch.inference_mode(False), torch.enable_grad():
        for k, (detector, X, y) in enumerate(zip(detectors, Xs, ys, strict=True)):
            fit = _Fit(k, detector, X, y)
            try:
                fit.begin(shared)
            except Exception as error:
                errors[k] = error
                continue
            groups.setdefault(fit.likeness(), []).append(fit)
        del shared
        while groups:
            _, fits = groups.popitem()  # with its data, once it is trained
            for start in range(0, len(fits), MOST_MEMBERS):
                _train_and_finish(fits[start : start + MOST_MEMBERS], errors)
    return errors


def _train_and_finish(fits: Sequence[_Fit], errors: list[Exception | None]) -> None:
    try:
        members = train(_side_by_side(fits), fits[0].trained.engine)
    except NotRecordableError as error:
        if len(fits) == 1:
            errors[fits[0].number] = error
            return
        for fit in fits:  # in turn, from the beginning
            fit.begin({})
            _train_and_finish([fit], errors)
        return
    except Exception as error:
        if len(fits) > 1:
            raise
        errors[fits[0].number] = error
        return
    for fit, member in zip(fits, members, strict=True):
        try:
            fit.finish(member)
        except Exception as error:
            errors[fit.number] = error


class _Fit:
    """One detector on its way through ``fit``."""

    def __init__(self, number: int, detector: Any, X: Any, y: Any) -> None:
        self.number, self.detector, self.X, self.y = number, detector, X, y

    def begin(self, shared: dict[Any, Any]) -> None:
        self.params = self.detector.get_params(deep=False)
        # NumPy's scalars, as searches draw them, become Python's, which torch insists on.
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in self.params.items()}
        self.trained = type(self.detector)(**plain)
        self.rows, self.task = self.trained._begin(self.X, self.y, shared)

    def finish(self, member: Member) -> None:
        if member.error is not None:
            raise member.error
        self.trained._finish(self.rows, member)
        # Only now, in one step: a failed or interrupted fit has changed nothing.
        kept = {k: v for k, v in self.detector.__dict__.items() if not k.endswith("_")}
        self.detector.__dict__ = kept | self.trained.__dict__ | self.params
        if self.task.checkpoint is not None:
            self.task.checkpoint.remove()

    def likeness(self) -> tuple[Any, ...]:
        """Equal for fits whose steps are the same but for numbers."""
        task: Task = self.task
        free = listed(self.trained, "numbers_in_loss") | listed(self.trained, "absent_from_loss")
        structure = tuple(
            _description(value)
            for name, value in self.trained.get_params(deep=False).items()
            if name not in free
        )
        sizes = len(task.rows), task.rows.shape, task.held_out and len(task.held_out.x)
        state = tuple((name, t.shape) for name, t in task.module.state_dict().items())
        phases = tuple((p.name, p.epochs, p.params, p.milestones, p.cycle) for p in task.phases)
        # torch has no rule for many recurrent layers at once, and convolutions gain nothing. Rows
        # that are read from disk take up the memory of one fit.
        alone = (
            not isinstance(self.rows, np.ndarray)
            or task.ranks is not None
            or any(
                isinstance(m, nn.RNNBase | nn.modules.conv._ConvNd) for m in task.module.modules()
            )
        )
        return type(self.trained), structure, sizes, state, phases, self.number if alone else None


def _side_by_side(fits: Sequence[_Fit]) -> list[Task]:
    """Tasks that know which numbers in their losses differ."""
    params = [fit.trained.get_params(deep=False) for fit in fits]
    differing = [
        name
        for name in sorted(listed(fits[0].trained, "numbers_in_loss"))
        if len({float(values[name]) for values in params}) > 1
    ]
    return [
        replace(fit.task, values={name: float(values[name]) for name in differing})
        for fit, values in zip(fits, params, strict=True)
    ]


def listed(detector: Any, attribute: str) -> set[str]:
    """Names in a class attribute, those of base classes included."""
    return {name for base in type(detector).__mro__ for name in vars(base).get(attribute, ())}


def _description(value: Any) -> Any:
    try:
        return fingerprint(value)
    except (PicklingError, TypeError, AttributeError):  # equal to itself alone
        return id(value)
