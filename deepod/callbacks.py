"""Callbacks: functions that are called after every epoch of training and may end a phase.

A callback is any callable ``f(event) -> bool | None``; if it returns True, the phase ends.
:class:`deepod.types.Event` describes its argument. If a callback has a method ``end()``, it is
called at the end of every phase, also after an error. If it has a method
``begin_epoch(phase, epoch, epochs)``, it is called before every epoch.

Callbacks of scikit-learn 1.9 and later, such as ``ProgressBar`` and ``ScoringMonitor``, do not
belong in the parameter ``callbacks``: pass them to ``detector.set_callbacks``, or to the
``set_callbacks`` of the pipeline or search around the detector. The fit is their root task, phases
are its subtasks, and epochs are the subtasks of a phase; one that returns True at the end of an
epoch ends the phase. Their ``fitted_estimator`` is the detector as if training had ended, for which
all rows are scored after every epoch. Detectors that are fitted together (by
:func:`deepod.fit_many` or as members of an ensemble) do not call them.

With ``checkpoint``, a fit may continue one that was killed. Its callbacks are then new objects,
and the first event they see need not be of epoch 0. A callback that keeps a state should therefore
have two methods, as torch modules do. ``state_dict()`` returns the state as a dict of tensors,
numbers, strings and None, or of lists and dicts of these; it is called whenever the file is
written. ``load_state_dict(state)`` is called before the first event, with tensors on the CPU; it
should raise a ValueError if it cannot restore the state. Keys must be strings, or a TypeError is
raised; tuples are restored as lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from deepod.types import Event

__all__ = ["EarlyStopping", "Event", "Progress"]


class EarlyStopping:
    """Callback that ends a phase when the loss stops falling, and restores the best weights.

    Parameters
    ----------
    patience : int, default=10
        Number of epochs without improvement after which the phase ends.
    min_delta : float, default=0.0
        Smallest decrease of the loss that counts as an improvement.
    monitor : str or None, default=None
        Name of the loss term to watch. None watches the sum of all terms. A phase without this
        term is not watched; if it is the last phase, a ValueError is raised.

    Notes
    -----
    The loss is that of the validation rows if ``validation_fraction`` of the detector is positive,
    and that of the training rows otherwise. The state is reset at the first epoch of every phase,
    so the same object can be used in several fits, one after the other.

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
        """Return whether the phase should end after this epoch."""
        if event.epoch == 0:
            self._best, self._waited, self._weights = float("inf"), 0, {}
        self._module = event.module
        losses = event.validation or event.losses
        if self.monitor is not None and self.monitor not in losses:
            if not event.last:
                return False  # a phase without this term
            raise ValueError(
                f"EarlyStopping(monitor={self.monitor!r}): there is no loss term of this name; "
                f"choose one of {sorted(losses)}."
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
        """Restore the best weights of the module at the end of a phase."""
        module, self._module = self._module, None
        if module is not None and self._weights:
            module.load_state_dict(self._weights)
        self._weights = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state: settings, best loss, its weights, and the epochs since then.

        Returns
        -------
        state : dict
            The argument for :meth:`load_state_dict`.
        """
        return {
            "settings": [self.patience, self.min_delta, self.monitor],
            "best": self._best,
            "waited": self._waited,
            "weights": self._weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that :meth:`state_dict` has returned.

        Parameters
        ----------
        state : dict
            The state of an ``EarlyStopping`` with the same settings.

        Raises
        ------
        ValueError
            If the state belongs to other settings, or is not a state of ``EarlyStopping``.
        """
        ours = [self.patience, self.min_delta, self.monitor]
        if state["settings"] != ours:
            raise ValueError(
                f"EarlyStopping has [patience, min_delta, monitor] = {ours}, but the state was "
                f"saved with {state['settings']}; use the same settings, or start training anew."
            )
        best, waited, weights = state["best"], state["waited"], state["weights"]
        if not (
            type(best) is float
            and type(waited) is int
            and isinstance(weights, dict)
            and all(isinstance(value, Tensor) for value in weights.values())
        ):
            raise ValueError(
                "state is not one that EarlyStopping.state_dict has returned; start training anew."
            )
        self._best, self._waited, self._weights = best, waited, dict(weights)


class Progress:
    """Callback that shows a progress bar with the loss terms for each phase, as ``verbose=1``.

    Parameters
    ----------
    title : str, default=""
        What the bars begin with, before the name of the phase.
    """

    def __init__(self, title: str = "") -> None:
        self.title = title

    def __call__(self, event: Event) -> None:
        """Advance the progress bar by one epoch."""
        from tqdm.auto import tqdm

        if not hasattr(self, "_bar"):
            named = f"{self.title}{event.phase}"
            shown = {"desc": named, "unit": "epoch", "initial": event.epoch}
            self._bar: Any = tqdm(total=event.epochs, **shown)
        self._bar.set_postfix({name: f"{value:.3g}" for name, value in event.losses.items()})
        self._bar.update()

    def end(self) -> None:
        """Close the progress bar at the end of a phase."""
        if hasattr(self, "_bar"):
            self._bar.close()
            del self._bar
