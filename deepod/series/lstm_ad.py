"""LSTM-AD: forecasts of an LSTM, and how far the points are from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from deepod.params import param, parameters
from deepod.series._base import SeriesDetector
from deepod.series._cells import Stack, numpy
from deepod.series._errors import Errors, terms_of
from deepod.series._running import Restarted, Running, Values
from deepod.types import Batch, Losses, Shape


class Forecaster(nn.Module):
    """A stack of LSTM layers that forecasts, from each point, those at several horizons."""

    def __init__(self, channels: int, hidden: Sequence[int], horizons: int, scale: str | None):
        super().__init__()
        inputs = [channels, *hidden[:-1]]
        self.layers = nn.ModuleList(
            nn.LSTM(int(i), int(size), batch_first=True)
            for i, size in zip(inputs, hidden, strict=True)
        )
        self.head = nn.Linear(int(hidden[-1]), horizons * channels)
        self.errors = Errors(channels, horizons, scale)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, d) -> (B, L, horizons * d)
        """Forecast those channels that vary; 0 for the others."""
        varies = self.errors.varies
        x = x * varies
        for layer in self.layers:
            x, _ = layer(x)
        return self.head(x).unflatten(-1, (-1, len(varies))).mul(varies).flatten(-2)


@parameters
class LSTMAD(SeriesDetector):
    """Forecaster of LSTM layers: a point is abnormal if it is far from what was forecast.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.series import LSTMAD
    >>> x = np.sin(np.arange(2000) / 5)
    >>> detector = LSTMAD(epochs=2, random_state=0).fit(x[:1500])
    >>> test = x[1500:].copy()
    >>> test[250:260] = 0.0
    >>> abs(int(detector.decision_function(test).argmax()) - 255) < 40
    True
    """

    hidden: tuple[int, ...] | list[int] = param(
        default=(64,), accepts=[tuple, list], doc="Units of the LSTM layers, the first one first."
    )
    horizons: tuple[int, ...] | list[int] = param(
        default=(1,),
        accepts=[tuple, list],
        doc="How many points ahead each forecast is; at most ``window``.",
    )
    lr = 5e-3
    max_grad_norm = 1.0
    family = "forecasting"
    paper = "Malhotra et al., Long Short Term Memory Networks for Anomaly Detection, ESANN 2015"

    def _build_module(self, shape: Shape) -> nn.Module:
        return Forecaster(shape[0], self.hidden, len(self.horizons), self.error_scale)

    def _loss(self, module: Any, batch: Batch) -> Losses:
        errors = self._by_horizon(module, batch.x)
        varies = module.errors.varies
        squares = [e[:, h:].square() * varies for e, h in zip(errors, self.horizons, strict=True)]
        terms = [square.mean() for square in squares]
        return {"forecast": torch.stack(terms).mean()}

    def _errors(self, module: nn.Module, x: Tensor) -> Tensor:
        return torch.cat(self._by_horizon(module, x), -1)

    def _by_horizon(self, module: Any, x: Tensor) -> list[Tensor]:
        """Errors of the forecasts of each point, not of those from it, for each horizon.

        (B, L, d); those of the first points, of which there is no forecast, are 0.
        """
        forecasts = module(x).chunk(len(self.horizons), -1)
        return [
            pad(x[:, h:] - forecast[:, :-h], (0, 0, h, 0))
            for forecast, h in zip(forecasts, self.horizons, strict=True)
        ]

    def _running(self) -> tuple[Running, Values]:
        return Restarted(_Cell(self.module_, self.horizons), self.window_), self._finish


class _Cell:
    """A forecaster point by point: :class:`deepod.series._running.Cell`."""

    def __init__(self, module: Any, horizons: Sequence[int]) -> None:
        self.stack = Stack(module.layers, module.head, numpy(module.errors.varies))
        self.horizons, self.most = [int(h) for h in horizons], int(max(horizons))
        self.channels = len(module.errors.varies)
        self.terms = terms_of(module.errors)

    def begin(self) -> dict[str, np.ndarray]:
        """Return the state before the first point; the last forecasts are part of it."""
        shape = (1, self.most, len(self.horizons) * self.channels)
        return self.stack.begin() | {"forecasts": np.zeros(shape, np.float32)}

    def values(self, state: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        """Pass over points, (n, channels); return the terms by the forecasts of the first lane."""
        n, most, d = len(x), self.most, self.channels
        new = self.stack.pass_over(state, x).swapaxes(0, 1)
        forecasts = np.concatenate([state["forecasts"], new], 1)
        state["forecasts"] = forecasts[:, n:].copy()
        # Row t has the forecasts made at t - most; that of horizon h is of the point h later.
        errors = np.empty((n, forecasts.shape[2]), np.float32)
        for j, h in enumerate(self.horizons):
            own = slice(j * d, (j + 1) * d)
            np.subtract(x, forecasts[0, most - h : most - h + n, own], out=errors[:, own])
        return self.terms(errors)
