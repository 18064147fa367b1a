"""Phases and epochs told to the callbacks that scikit-learn's ``set_callbacks`` was given."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from deepod._training.checkpoint import NoCheckpoint
from deepod._training.task import Member
from deepod.types import Event


def reporters(fit: Any) -> list[Reporter]:
    """Return a callback that tells those of scikit-learn, if the fit is one that they follow."""
    context = getattr(fit.detector, "_callback_fit_ctx", None)
    return [] if context is None else [Reporter(fit, context)]


class Reporter:
    """Tells scikit-learn's callbacks of phases and, within these, of epochs.

    Parameters
    ----------
    fit : Fit
    context : sklearn.callback.CallbackContext
        Of the whole fit.
    """

    def __init__(self, fit: Any, context: Any) -> None:
        self.fit, self.context = fit, context
        self.told = {"estimator": fit.detector, "X": fit.given, "y": fit.y}
        self.phase: Any = None
        self.epoch: Any = None

    def begin_epoch(self, phase: str, epoch: int, epochs: int) -> None:
        """Begin the phase, if this is its first epoch here, and the epoch."""
        if self.phase is None:
            self.phase = self.context.subcontext(phase, max_subtasks=epochs - epoch)
            self.phase.call_on_fit_task_begin(**self.told)
        self.epoch = self.phase.subcontext("epoch")
        self.epoch.call_on_fit_task_begin(**self.told)

    def __call__(self, event: Event) -> bool:
        """End the epoch, and the phase if a callback says so."""
        context, self.epoch = self.epoch, None
        # Made only for callbacks that ask for it: all rows have to be scored.
        detector = {"reconstruction_attributes": self._learned_so_far}
        stop: bool = context.call_on_fit_task_end(**self.told, **detector)
        return stop

    def end(self) -> None:
        """End the phase, unless an error has ended it within an epoch."""
        phase, self.phase = self.phase, None
        if phase is not None and self.epoch is None:
            phase.call_on_fit_task_end(**self.told)

    def _learned_so_far(self) -> dict[str, Any]:
        """Return what the detector would know if training was over, but for ``history_``.

        The threshold is that of rows that were trained on: cross-fitting comes at the end.
        """
        fit = copy.copy(self.fit)
        fit.trained = fit.hooks = copy.copy(fit.trained)  # which gives it a module of its own
        member = Member(replace(fit.task, checkpoint=NoCheckpoint()))
        fit._refresh_after_training(member)
        fit._score_training_rows(member)
        params = fit.trained.get_params(deep=False)
        return {name: value for name, value in vars(fit.trained).items() if name not in params}
