"""Cross-fitting, which scores training rows as if they had not been trained on.

Networks score new rows higher than the rows that they were trained on. To measure by how much, two
more networks are trained on half of the rows each, and each scores the other half.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import torch

from deepod._scoring.apply import apply
from deepod._scoring.tails import BY_HEART, Tail
from deepod._training.fitting import Fit
from deepod._training.task import Member, turns
from deepod.types import Phase

_FEWEST_ROWS = 20
_FEWEST_PASSES = 3  # over the rows: one or two passes hardly lower their scores
# Parameters of a half. It is trained as the whole was, but nobody sees it.
_WITHOUT = {
    **{"callbacks": (), "checkpoint": None, "cross_fitting": False},
    **{"calibration_fraction": 0.0, "validation_fraction": 0.0, "suspects": 0.0},
    **{"categorical_features": None, "datetime_features": None},  # the rows are encoded
}


def halves_of(fit: Fit, member: Member) -> list[Half]:
    """Return the two halves of a trained fit, or an empty list if it is not cross-fitted."""
    detector = fit.trained
    if (
        member.error is not None
        or not (detector.cross_fitting and detector.learns_by_heart)
        or not isinstance(fit.rows, np.ndarray)
        or fit.ranks.size > 1
        or len(member.history) < _FEWEST_PASSES
    ):
        return []
    # Known anomalies are few and do not measure normal rows, so both halves are trained on them.
    trained, known = fit.division.train, np.arange(0)
    if fit.labels is not None:
        known = trained[fit.labels[trained] == 1]
        trained = np.setdiff1d(trained, known)
    if len(trained) < _FEWEST_ROWS:
        return []
    order = np.random.default_rng(fit.seeds.split).permutation(trained)
    half = len(order) // 2  # rows in each, as many in both, so that they train side by side
    parts = order[:half], order[half : 2 * half]
    left_out = order[half:], order[:half]
    fit.halves = [
        Half(fit, member, np.sort(np.concatenate([part, known])), np.sort(others))
        for part, others in zip(parts, left_out, strict=True)
    ]
    fit.halves[1].detector.verbose = 0  # one bar shows the progress of both
    return fit.halves


class Half(Fit):
    """A fit of half of the rows of another.

    Parameters
    ----------
    whole : Fit
    member : Member
        Of the whole, trained.
    rows, left_out : ndarray of int
        Numbers of the rows to train on, and of the rows to score.

    Attributes
    ----------
    tails : ndarray
        Tails of the rows that were left out, among the scores of the rows that were trained on.
    """

    tails: np.ndarray
    title = "cross-fitting, "

    def __init__(self, whole: Fit, member: Member, rows: np.ndarray, left_out: np.ndarray) -> None:
        self.whole, self.left_out = whole, left_out
        # As many passes over the rows as the whole took, which a callback may have ended early.
        self.passes = Counter(entry["phase"] for entry in member.history)
        detector = whole.trained
        same = detector.get_params(deep=False) | {"epochs": detector.epochs_}
        seed = int(whole.seeds.prepare) ^ int(left_out[0])  # another one for each half
        params = same | _WITHOUT | {"random_state": seed & 0x7FFFFFFF}
        labels = None if whole.labels is None else whole.labels[rows]
        super().__init__(0, type(detector)(**params), whole.rows[rows], labels)
        self.start = whole.start.of_half()

    def _validate(self) -> None:
        super()._validate()
        self.encoder = self.whole.encoder  # has encoded these rows

    def set_up(self, shared: dict[object, object]) -> None:
        """Do all that comes before training."""
        super().set_up(shared)
        phases: list[Phase] = []
        for numbers in turns(self.task.phases):
            together = [self.task.phases[i] for i in numbers]
            most = self.passes[together[0].name]
            phases += [replace(phase, epochs=min(phase.epochs, most)) for phase in together]
        self.task = replace(self.task, phases=phases)

    def complete(self, member: Member) -> None:
        """Score the rows left out."""
        if member.error is not None:
            raise member.error
        detector = self.trained
        self._refresh_after_training(member)
        own, others = (
            apply(detector, rows, self.hooks._score, at_once=member.at_once)
            for rows in (self.rows, self.whole.rows[self.left_out])
        )
        if self.labels is not None:
            own = own[self.labels != 1]
        self.tails = Tail(BY_HEART).learn(torch.from_numpy(own)).of_array(others)
        del self.X, self.y, self.given, self.rows, self.task, self.trained, self.detector

    def give_up(self, error: Exception) -> None:
        """Warn, and continue without cross-fitting."""
        self.whole.halves = []
        warnings.warn(
            f"Cross-fitting failed ({error}). The threshold of "
            f"{type(self.whole.detector).__name__} is therefore computed from rows that it was "
            "trained on, and may flag more new rows than contamination says.",
            RuntimeWarning,
            stacklevel=2,
        )
