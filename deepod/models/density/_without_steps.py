"""Detectors that compute what they need from the training rows at once, without steps."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from deepod._base import BaseDetector
from deepod._training.no_steps import NoSteps
from deepod.params import parameters


@parameters
class WithoutSteps(NoSteps, BaseDetector):
    """Detector whose module learns by ``start_from_rows`` alone, and gives the scores itself."""

    learns_by_heart = False

    def _score(self, module: Any, x: Tensor) -> Tensor:
        return module(x)

    def _contributions(self, module: Any, x: Tensor) -> Tensor:
        return module.contributions(x)


@parameters
class AmongRows(WithoutSteps):
    """Detector that compares rows with those training rows that its module keeps."""

    family = "neighbors"
    has_gradients = False  # a score jumps where the set of the nearest rows changes

    def _score_trained(self, module: Any, x: Tensor) -> Tensor:
        return module(x, leave_out=True)
