"""Attributes of a fitted detector, apart from its hyper-parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from deepod._inputs.encoding import Encoder
from deepod._inputs.scaling import Scaler
from deepod._scoring.vocabulary import PyODVocabulary
from deepod.params import Noted
from deepod.types import Shape


class Fitted(Noted, PyODVocabulary):
    """Attributes that ``fit`` sets on a detector, apart from its hyper-parameters."""

    history_: list[dict[str, Any]]
    module_: nn.Module
    device_: torch.device
    baseline_: np.ndarray
    epochs_: int
    engine_: str
    input_shape_: Shape
    scaler_: Scaler
    encoder_: Encoder
    columns_: list[dict[str, Any]]
    unseen_: bool

    @property
    def shift_(self) -> np.ndarray:
        """The offset that scaling subtracts, per feature or channel; broadcasts to one sample."""
        return self._scaler().shift

    @property
    def scale_(self) -> np.ndarray:
        """The divisor of scaling, per feature or channel; broadcasts to one sample."""
        return self._scaler().scale

    @property
    def fill_(self) -> np.ndarray | None:
        """The values that replace NaN, in the units of X; None if ``missing="refuse"``."""
        return self._scaler().fill

    def _scaler(self) -> Scaler:
        if "scaler_" not in self.__dict__:
            raise NotFittedError(f"This {type(self).__name__} is not fitted yet; call fit first.")
        return self.scaler_
