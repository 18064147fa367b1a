"""What a detector that learns without optimiser steps says in the place of losses."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from deepod.types import Batch, Losses, Phase


class NoSteps:
    """Detector that has nothing for the training loop to do; it precedes the base class."""

    auto_epochs: ClassVar[int] = 0

    def _phases(self) -> list[Phase]:
        return []

    def _loss(self, module: nn.Module, batch: Batch) -> Losses:
        return {}
