"""Callbacks: functions that are told an event after every epoch and may end the phase.

Any callable ``f(event) -> bool | None`` will do; True ends the phase. One that has a method
``end()`` is told when a phase is over, however it ended; one that has
``begin_epoch(phase, epoch, epochs)``, before every epoch. :class:`deepod.types.Event` says what an
event holds.

The callbacks of scikit-learn 1.9 and later, such as its ``ProgressBar`` and ``ScoringMonitor``, are
not for the parameter ``callbacks`` but for ``detector.set_callbacks``, or that of the pipeline or
the search around it. The fit is their root task, phases its subtasks, epochs those of a phase; True
at the end of an epoch ends the phase. What they are given as ``fitted_estimator`` is the detector
as if training was over, which takes a scoring of all rows an epoch. Detectors that are fitted
together (:func:`deepod.fit_many`, members of ensembles) tell them nothing.

A fit with a ``checkpoint`` may go on where another one was killed: its callbacks are new then, and
the first event they see need not be of epoch 0. One that remembers something from epoch to epoch
should have the two methods of a torch module: ``state_dict()`` gives a dict of tensors, numbers,
strings and None, and of lists and dicts of them, after every event that the file is written after;
``load_state_dict(state)`` is given it before the first event, with tensors on the CPU, and raises a
ValueError if it cannot go on from it. Keys must be strings (a TypeError says so if they are not),
and tuples come back as lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from deepod.types import Event

__all__ = ["EarlyStopping", "Event", "Progress"]


class EarlyStopping:
    """End a phase when the watched loss no longer falls, and put the best weights back.

    Parameters
    ----------
    patience : int, default=10
        Epochs without improvement to wait.
    min_delta : float, default=0.0
        Smallest fall of the loss that counts as an improvement.
    monitor : str or None, default=None
        Loss term to watch; None is the sum of all. Phases that lack it are not watched, unless it
        is the last.

    Notes
    -----
    Watches the held-out rows when the detector's ``validation_fraction`` is positive, else the
    training loss. The state is reset at the first epoch of every phase, so that one object may
    serve several fits, one after the other.

    Examples
    --------
    >>> from deepod import PLAD
    >>> from deepod.callbacks import EarlyStopping
    >>> detector = PLAD(validation_fraction=0.2, callbacks=[EarlyStopping(patience=5)])
    """

    def __init__(
        self, patience: int = 10, min_delta: float = 0.0, monitor: str | None = None
    ) -> None:
        self.patience = patience
        self.min_delta = min_delta
        self.monitor = monitor
        self._best, self._waited = float("inf"), 0
        self._weights: dict[str, Tensor] = {}
        self._module: nn.Module | None = None

    def __repr__(self) -> str:
        settings = f"patience={self.patience}, min_delta={self.min_delta}, monitor={self.monitor!r}"
        return f"{type(self).__name__}({settings})"

    def __call__(self, event: Event) -> bool:
        """Judge one epoch."""
        if event.epoch == 0:
            self._best, self._waited, self._weights = float("inf"), 0, {}
        self._module = event.module
        losses = event.validation or event.losses
        if self.monitor is not None and self.monitor not in losses:
            if not event.last:
                return False  # a phase without this term
            raise ValueError(
                f"EarlyStopping(monitor={self.monitor!r}): no such loss term; "
                f"there are {sorted(losses)}."
            )
        loss = sum(losses.values()) if self.monitor is None else losses[self.monitor]
        if loss < self._best - self.min_delta:
            self._best, self._waited = loss, 0
            state = event.module.state_dict()
            self._weights = {name: value.detach().clone() for name, value in state.items()}
        else:
            self._waited += 1
        return self._waited >= self.patience

    def end(self) -> None:
        """Put the best weights back, and keep nothing of the module."""
        module, self._module = self._module, None
        if module is not None and self._weights:
            module.load_state_dict(self._weights)
        self._weights = {}

    def state_dict(self) -> dict[str, Any]:
        """Give the best loss so far, its weights, the epochs since, and the settings."""
        return {
            "settings": [self.patience, self.min_delta, self.monitor],
            "best": self._best,
            "waited": self._waited,
            "weights": self._weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        Raises
        ------
        ValueError
            If the settings are not those of the callback that gave the state, or it is no state.
        """
        ours = [self.patience, self.min_delta, self.monitor]
        if state["settings"] != ours:
            raise ValueError(
                "EarlyStopping has [patience, min_delta, monitor] = "
                f"{ours} here and {state['settings']} there."
            )
        best, waited, weights = state["best"], state["waited"], state["weights"]
        if not (
            type(best) is float
            and type(waited) is int
            and isinstance(weights, dict)
            and all(isinstance(value, Tensor) for value in weights.values())
        ):
            raise ValueError("EarlyStopping cannot go on from a state that it has not given.")
        self._best, self._waited, self._weights = best, waited, dict(weights)


class Progress:
    """One progress bar per phase, with the loss terms. What ``verbose=1`` adds."""

    def __call__(self, event: Event) -> None:
        """Advance the bar by one epoch."""
        from tqdm.auto import tqdm

        if not hasattr(self, "_bar"):
            shown = {"desc": event.phase, "unit": "epoch", "initial": event.epoch}
            self._bar: Any = tqdm(total=event.epochs, **shown)
        self._bar.set_postfix({name: f"{value:.3g}" for name, value in event.losses.items()})
        self._bar.update()

    def end(self) -> None:
        """Close the bar."""
        if hasattr(self, "_bar"):
            self._bar.close()
            del self._bar
