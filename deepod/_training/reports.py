"""Calls of scikit-learn's callbacks (``set_callbacks``) for phases and epochs."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from deepod._training.checkpoint import NoCheckpoint
from deepod._training.task import Member
from deepod.types import Event


def reporters(fit: Any) -> list[Reporter]:
    """Return a callback that calls those of scikit-learn, if the fit has any."""
    context = getattr(fit.detector, "_callback_fit_ctx", None)
    return [] if context is None else [Reporter(fit, context)]


class Reporter:
    """Callback that calls scikit-learn's callbacks for phases and their epochs.

    Parameters
    ----------
    fit : Fit
    context : sklearn.callback.CallbackContext
        Context of the whole fit.
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
        # Only for callbacks that ask for it, because all rows have to be scored.
        detector = {"reconstruction_attributes": self._learned_so_far}
        stop: bool = context.call_on_fit_task_end(**self.told, **detector)
        return stop

    def end(self) -> None:
        """End the phase, unless an error has ended it within an epoch."""
        phase, self.phase = self.phase, None
        if phase is not None and self.epoch is None:
            phase.call_on_fit_task_end(**self.told)

    def _learned_so_far(self) -> dict[str, Any]:
        """Return the attributes that the detector would have if training ended now.

        ``history_`` is left out. The threshold is that of trained rows, because cross-fitting comes
        at the end.
        """
        fit = copy.copy(self.fit)
        fit.trained = fit.hooks = copy.copy(fit.trained)  # which gives it a module of its own
        member = Member(replace(fit.task, checkpoint=NoCheckpoint()))
        fit._refresh_after_training(member)
        fit._score_training_rows(member)
        params = fit.trained.get_params(deep=False)
        return {name: value for name, value in vars(fit.trained).items() if name not in params}
