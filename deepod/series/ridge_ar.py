"""Linear autoregression: each point as a linear function of those before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from deepod._inputs.chunks import take
from deepod.params import integer, param, parameters, positive
from deepod.series._base import WithoutSteps
from deepod.series._cells import numpy
from deepod.series._errors import Errors, terms_of
from deepod.series._running import Buffered, Running, Values
from deepod.types import Shape

_MOST_COEFFICIENTS = 5000  # of a channel, with window="auto": time grows with their cube
_AT_ONCE = 1 << 22  # values of windows that are gathered at once


class Linear(nn.Module):
    """Weights of all values of the last ``window`` points, and an offset, for each channel."""

    weight: Tensor
    offset: Tensor

    def __init__(self, channels: int, window: int, scale: str | None) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(channels, channels, window))
        self.register_buffer("offset", torch.zeros(channels))
        self.errors = Errors(channels, 1, scale)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, d) -> (B, L - window, d)
        """Forecast the points from the one after the first window on."""
        return conv1d(x[:, :-1].transpose(1, 2), self.weight, self.offset).transpose(1, 2)


@parameters
class RidgeAR(WithoutSteps):
    """Linear autoregression by ridge regression, in one step: the plain forecaster.

    All channels at the last ``window`` points forecast each channel of the next. On many series it
    detects as well as a network; what it lacks is what is not linear.

    Notes
    -----
    **The equation.** With w(t) the values of the last ``window`` points before t, one after the
    other, the coefficients B and the offset a are those with the smallest sum over t of
    |x(t) - B w(t) - a|^2, plus ``alpha`` times the number of points times |B|^2. Errors are
    x(t) - B w(t) - a, and scores are made of them as in :class:`LSTMAD`.

    ``window="auto"`` is shorter for more than 100 channels: 5,000 coefficients for each, at most.

    Nothing is trained in steps: of the shared parameters, ``epochs``, ``lr``, ``batch_size`` and
    the like have no effect.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.series import RidgeAR
    >>> x = np.sin(np.arange(2000) / 5)
    >>> detector = RidgeAR().fit(x[:1500])
    >>> test = x[1500:].copy()
    >>> test[250:260] = 0.0
    >>> abs(int(detector.decision_function(test).argmax()) - 255) < 40
    True
    """

    alpha: float = param(
        default=0.01,
        accepts=[positive()],
        doc="Weight of the sum of squared coefficients, of standardised values, against the mean "
        "squared error.",
    )
    max_points: int = param(
        default=20_000,
        accepts=[integer(100)],
        doc="Points to forecast in the regression, at most: of more, a random subset.",
    )
    family = "forecasting"
    paper = "Hoerl and Kennard, Ridge Regression, Technometrics 1970"

    def _longest_window(self, shape: Shape) -> int:
        return max(2, min(self.auto_window, _MOST_COEFFICIENTS // shape[0]))

    def _build_module(self, shape: Shape) -> nn.Module:
        return Linear(shape[0], self.window_, self.error_scale)

    @torch.no_grad()
    def _solve(
        self,
        module: Any,
        x: Tensor,
        spans: Sequence[tuple[int, int]],
        generator: torch.Generator,
    ) -> None:
        window, d = self.window_, x.shape[1]
        starts = torch.cat([torch.arange(a, b - window) for a, b in spans])
        if len(starts) > self.max_points:
            order = torch.randperm(len(starts), generator=generator)[: self.max_points]
            starts = starts[order.sort().values]
        k = window * d + 1
        gram = x.new_zeros(k, k, dtype=torch.float64)
        moments = x.new_zeros(k, d, dtype=torch.float64)
        for part in starts.split(max(1, _AT_ONCE // k)):
            chunk = take(x, part, window + 1)
            rows = pad(chunk[:, :-1].flatten(1), (0, 1), value=1.0)
            gram += rows.T @ rows
            moments += rows.T @ chunk[:, -1]
        weight = float(self.alpha) * len(starts)
        penalty = torch.full((k,), weight, dtype=torch.float64, device=x.device)
        penalty[-1] = 0  # not of the offset
        found = torch.linalg.solve(gram + penalty.diag(), moments)
        module.weight.copy_(found[:-1].reshape(window, d, d).permute(2, 1, 0))
        module.offset.copy_(found[-1])

    def _errors(self, module: Any, x: Tensor) -> Tensor:
        return pad(x[:, self.window_ :] - module(x), (0, 0, self.window_, 0))

    def _running(self) -> tuple[Running, Values]:
        module: Any = self.module_
        window, d = self.window_, self.n_features_in_
        weight = numpy(module.weight.permute(2, 1, 0).reshape(window * d, d))
        offset, terms = numpy(module.offset), terms_of(module.errors)

        def values(points: np.ndarray) -> np.ndarray:
            # Rows that share values: a product of n of them copies these, and no more.
            rows = as_strided(
                points, (len(points) - window, window * d), (4 * d, 4), writeable=False
            )
            return terms(points[window:] - (rows @ weight + offset))

        return Buffered(values, window, d), self._finish
