"""LSTM-AD: forecasts of an LSTM, and how far the points are from them."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from deepod._scoring.points import Span
from deepod._training.series_fit import Smallest
from deepod.params import integer, param, parameters, real
from deepod.series._base import SeriesDetector
from deepod.series._cells import Stack, numpy
from deepod.series._errors import Errors, terms_of
from deepod.series._running import Restarted, Running, Values
from deepod.types import Batch, Losses, Phase, Shape

_AT_FULL_RATE = 0.7  # of the epochs, unless milestones are given


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
    """Forecasts of an LSTM: a point is abnormal if it is far from what was forecast.

    Layers of LSTM units read a series; from each point, a linear layer forecasts those at one
    horizon or more. The errors of the forecasts of a point, from all horizons, are its errors.

    Notes
    -----
    The default is what detected best on development series (``docs/series.md``): one layer, two
    horizons, little training, each channel's squared errors over their mean on points that were not
    trained on. A network that is trained for longer forecasts the anomalies that training series
    hold, too, and no longer finds those like them. Without
    ``milestones`` the last 30 % of the epochs have a tenth of the learning rate.

    **The equations.** e_h(t) = x(t) - f_h(t - h), where f_h(s) is the forecast that the LSTM makes,
    from the points up to s, of the point h later: the errors of a point are those of the forecasts
    of it, not of those made from it. The loss is the mean of e_h(t)^2 over points, horizons and
    channels. The score with the default ``error_scale`` is the mean over channels c of
    sqrt(sum_k w_k u_c(t + k)), where u_c(t) is the mean over horizons of e_hc(t)^2 / E_hc, E_hc the
    mean of e_hc^2 on the points held out, and w_k the weights of the smoothing. With
    ``error_scale="covariance"`` it is the root of the smoothed (e - m)^T S^-1 (e - m), over the
    number of errors, where m and S are mean and covariance of e on the points held out.

    Malhotra et al. (2015) stack two layers and take the errors at several horizons for Gaussian:
    ``LSTMAD(hidden=(30, 20), horizons=(1, 2, 3), error_scale="covariance", smoothing=None)``. The
    squared Mahalanobis distance ranks as their negative log-likelihood does. They give no optimiser
    and choose the threshold by labelled anomalies: here ``contamination`` or ``set_threshold``.

    Thill et al. (2019) forecast a set of horizons, leave the largest errors out before they fit the
    Gaussian, and correct errors within a window: ``LSTMAD(hidden=(64, 64),
    horizons=tuple(range(1, 50, 2)), error_scale="covariance", error_trim=0.01, error_window=5,
    smoothing=None)``. Their share and window are not known to us; their window reaches forward,
    too, and ours does not, so that scores stay causal.

    Chunks to train on are ``window`` points long and drawn at random; no state is carried from one
    to the next. In scoring, a state runs for ``window`` points before the first score.

    References
    ----------
    P. Malhotra, L. Vig, G. Shroff and P. Agarwal. Long Short Term Memory Networks for Anomaly
    Detection in Time Series. ESANN 2015.
    M. Thill, S. Daebritz, W. Konen and T. Baeck. Anomaly Detection in Electrocardiogram Readings
    with Stacked LSTM Networks. ITAT 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.series import LSTMAD
    >>> x = np.sin(np.arange(2000) / 5)
    >>> detector = LSTMAD(epochs=20, random_state=0).fit(x[:1500])
    >>> test = x[1500:].copy()
    >>> test[250:260] = 0.0
    >>> abs(int(detector.decision_function(test).argmax()) - 255) < 40
    True
    """

    hidden: tuple[int, ...] | list[int] = param(
        default=(64,), accepts=[tuple, list], doc="Units of the LSTM layers, the first one first."
    )
    horizons: tuple[int, ...] | list[int] = param(
        default=(1, 5),
        accepts=[tuple, list],
        doc="How many points ahead each forecast is; less than ``window``.",
    )
    error_trim: float = param(
        default=0.0,
        accepts=[real(0, 0.5)],
        doc="Share of the points held out, those with the largest errors, from which it is not "
        "learned what errors are usual (Thill et al.).",
    )
    error_window: int = param(
        default=1,
        accepts=[integer(1)],
        doc="Each error is replaced by the smallest in size of the last ``error_window`` points, "
        "so that a pattern that comes a little early or late is no anomaly (Thill et al.).",
    )
    lr = 1e-2
    auto_steps = 150
    max_grad_norm = 1.0
    family = "forecasting"
    paper = "Malhotra et al., Long Short Term Memory Networks for Anomaly Detection, ESANN 2015"

    def _smallest_window(self) -> Smallest:
        for name, values in (("hidden", self.hidden), ("horizons", self.horizons)):
            if not values or not all(isinstance(v, Integral) and v > 0 for v in values):
                raise ValueError(f"{name} must hold positive integers, got {values!r}.")
        ahead = max(self.horizons) + 1
        return Smallest(max(ahead, self.error_window), " or smaller horizons")

    def _build_module(self, shape: Shape) -> nn.Module:
        if max(self.horizons) >= self.window_ or self.error_window > self.window_:
            raise ValueError(
                f"horizons={self.horizons!r} and error_window={self.error_window} must be less "
                f"than the window, {self.window_}: use a larger window or smaller horizons."
            )
        return Forecaster(shape[0], self.hidden, len(self.horizons), self.error_scale)

    def _phases(self) -> list[Phase]:
        # Without milestones: the last part with a tenth of the learning rate.
        steps = tuple(self.milestones) or (int(_AT_FULL_RATE * self.epochs_),)
        return [Phase("fit", self.epochs_, self._loss, milestones=steps)]

    def _loss(self, module: Any, batch: Batch) -> Losses:
        errors = self._by_horizon(module, batch.x)
        varies = module.errors.varies
        squares = [e[:, h:].square() * varies for e, h in zip(errors, self.horizons, strict=True)]
        terms = [square.mean() for square in squares]
        return {"forecast": torch.stack(terms).mean()}

    def _errors(self, module: nn.Module, x: Tensor) -> Tensor:
        errors = torch.cat(self._by_horizon(module, x), -1)
        if self.error_window == 1:
            return errors
        recent = pad(errors, (0, 0, self.error_window - 1, 0)).unfold(1, self.error_window, 1)
        return recent.gather(-1, recent.abs().argmin(-1, keepdim=True)).squeeze(-1)

    def _learn_errors(self, module: Any, x: Tensor, spans: Sequence[Span]) -> None:
        errors = self._known_errors(module, x, spans)
        module.errors.learn(errors, self.error_trim)

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
        if self.error_window > 1:  # needs the place in the chunk, which the cell does not know
            return super()._running()
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
        n = len(x)
        new = self.stack.pass_over(state, x).swapaxes(0, 1)
        if n == 1:  # without room for more
            forecasts = state["forecasts"]
            found = self._terms(forecasts[0], x)
            forecasts[:, :-1] = forecasts[:, 1:]
            forecasts[:, -1:] = new
            return found
        forecasts = np.concatenate([state["forecasts"], new], 1)
        state["forecasts"] = forecasts[:, n:].copy()
        return self._terms(forecasts[0], x)

    def _terms(self, forecasts: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the terms of points by the forecasts made from ``most`` points before on."""
        n, d = len(x), self.channels
        errors = np.empty((n, forecasts.shape[1]), np.float32)
        for j, h in enumerate(self.horizons):
            own, first = slice(j * d, (j + 1) * d), self.most - h
            np.subtract(x, forecasts[first : first + n, own], out=errors[:, own])
        return self.terms(errors)
