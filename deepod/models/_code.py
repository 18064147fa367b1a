"""The length of a code, where the size of a sample decides."""

from __future__ import annotations

from typing import ClassVar

import torch

from deepod._base import BaseDetector
from deepod.params import integer, param, parameters
from deepod.types import Shape


@parameters
class Coded(BaseDetector):
    """Detector whose code is half as long as a sample has values, unless it is told otherwise."""

    latent_dim: int | None = param(
        default=None,
        accepts=[integer(1), None],
        doc="Length of the code. None: half the number of values of a sample, at least 2 and at "
        "most the class attribute ``longest_code``.",
    )
    longest_code: ClassVar[int] = 32

    def _code_length(self, shape: Shape) -> int:
        half = torch.Size(shape).numel() // 2
        return self.latent_dim or max(2, min(self.longest_code, half))
