"""Neighbours of windows: a stretch of a series is abnormal if no stretch of training is like it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepod._inputs.chunks import take
from deepod._scoring.points import Span, covered
from deepod.networks import KeepsRows
from deepod.params import integer, param, parameters
from deepod.series._base import WithoutSteps
from deepod.series._errors import Errors
from deepod.types import Shape

_VALUES_AT_ONCE = 1 << 21  # of windows and their neighbours


class Kept(KeepsRows):
    """Windows of training series.

    Attributes
    ----------
    windows : Tensor of shape (n, window * channels)
    begins : Tensor of shape (n,)
        Which point of all that were trained on each begins at, so that a window of training is not
        compared with itself.
    """

    per_row = ("windows", "begins")

    windows: Tensor
    begins: Tensor

    def __init__(self, values: int, most: int, channels: int) -> None:
        super().__init__()
        self.errors = Errors(channels)  # which channels vary; distances are no errors
        self.register_buffer("windows", torch.zeros(most, values))
        self.register_buffer("begins", torch.zeros(most, dtype=torch.int64))


@parameters
class WindowNeighbors(WithoutSteps):
    """Distance of each window to the nearest windows of training: nothing is trained.

    The distance of two windows is the root of the mean squared difference of their values. A
    window's score is the mean distance to the ``n_neighbors`` nearest of those that are kept of
    training; a point's is the mean over the windows that cover it.

    Notes
    -----
    Windows of training are compared with those that begin at least half a window away, so that
    scores of training points are like those of new ones, and no part of the series is held out. The
    model holds up to ``max_windows`` of them: a saved model shows them to whoever reads the file.
    The mean over the windows that cover a point smooths scores already: ``smoothing_length`` is 1.

    Nothing is trained in steps: of the shared parameters, ``epochs``, ``lr``, ``batch_size``,
    ``error_scale`` and the like have no effect.

    References
    ----------
    E. Keogh, J. Lin and A. Fu. HOT SAX: Efficiently Finding the Most Unusual Time Series
    Subsequence. ICDM 2005: the distance to the nearest window that does not overlap.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.series import WindowNeighbors
    >>> x = np.sin(np.arange(2000) / 5)
    >>> detector = WindowNeighbors(window=30).fit(x[:1500])
    >>> test = x[1500:].copy()
    >>> test[250:260] = 0.0
    >>> abs(int(detector.decision_function(test).argmax()) - 255) < 40
    True
    """

    n_neighbors: int = param(
        default=5, accepts=[integer(1)], doc="Nearest windows whose mean distance is taken."
    )
    max_windows: int = param(
        default=1000,
        accepts=[integer(2)],
        doc="Windows of training that are kept, at most: of more, random ones.",
    )
    stride: int = param(
        default=5,
        accepts=[integer(1)],
        doc="Points between the windows that are scored, unless ``smoothing='causal'``.",
    )
    validation_fraction = 0.0
    smoothing_length = 1
    family = "neighbors"
    paper = "Keogh et al., HOT SAX: Finding the Most Unusual Time Series Subsequence, ICDM 2005"
    auto_window = 100
    learns_by_heart = False
    windowed = True

    def _build_module(self, shape: Shape) -> nn.Module:
        return Kept(self.window_ * shape[0], self.max_windows, shape[0])

    def _errors(self, module: nn.Module, x: Tensor) -> Tensor:
        raise NotImplementedError  # distances of windows are no errors of values

    def _learn_errors(self, module: Any, x: Tensor, spans: Sequence[Span]) -> None:
        pass

    def _solve(
        self,
        module: Any,
        x: Tensor,
        spans: Sequence[tuple[int, int]],
        generator: torch.Generator,
    ) -> None:
        starts = torch.cat([torch.arange(a, b - self.window_ + 1) for a, b in spans])
        if len(starts) > self.max_windows:
            chosen = torch.randperm(len(starts), generator=generator)[: self.max_windows]
            starts = starts[chosen.sort().values]
        module.windows = take(x, starts, self.window_).flatten(1)
        module.begins = starts.to(x.device)

    def _score_trained_points(self, points: Tensor, spans: Sequence[Span]) -> np.ndarray:
        found = self._over_time(lambda wide: self._distances(points, wide, trained=True), spans)
        return found.sum(1)

    def _of_points(
        self,
        module: Any,
        points: Tensor,
        spans: Sequence[Span],
        function: Any,
        batch_size: int | None = None,
    ) -> np.ndarray:
        return self._distances(points, spans)

    def _contributions_of(self, terms: np.ndarray) -> np.ndarray:
        return terms

    @torch.no_grad()
    def _distances(
        self, points: Tensor, spans: Sequence[Span], trained: bool = False
    ) -> np.ndarray:
        """Give what each channel adds to the mean distance, (n_points, channels)."""
        causal = self.smoothing == "causal"
        step = 1 if causal else self.stride
        values = self.window_ * points.shape[1]
        at_once = max(1, _VALUES_AT_ONCE // max(values * self.n_neighbors, self.max_windows))

        def of_windows(starts: Tensor) -> np.ndarray:
            parts = [self._by_channel(points, part, trained) for part in starts.split(at_once)]
            found = torch.cat(parts).cpu().double().numpy()
            return np.broadcast_to(found[:, None], (len(found), self.window_, found.shape[1]))

        return covered(of_windows, spans, self.window_, step, causal, values)

    def _by_channel(self, points: Tensor, starts: Tensor, trained: bool) -> Tensor:
        """Give what each channel adds to the mean distance of windows, (n, channels)."""
        module: Any = self.module_
        d = points.shape[1]
        own = take(points, starts, self.window_).flatten(1)
        # Which are nearest by a product of matrices; how near by differences, which lose no digits.
        order = module.windows.square().sum(1) - 2 * own @ module.windows.T
        if trained:
            apart = (starts.to(points.device)[:, None] - module.begins).abs()
            order = order.masked_fill(apart < max(1, self.window_ // 2), torch.inf)
        nearest = order.topk(min(self.n_neighbors, order.shape[1]), dim=1, largest=False)
        squares = (own[:, None] - module.windows[nearest.indices]).square()
        squares = squares.unflatten(-1, (self.window_, d)).mean(2) / d
        distances = squares.sum(-1, keepdim=True).sqrt()
        # A distance is the sum over channels of square / distance.
        parts = torch.where(distances > 0, squares / distances, 0.0)
        # Windows of a short training series have few neighbours.
        known = nearest.values.isfinite()
        parts = torch.where(known[..., None], parts, 0.0).sum(1)
        return parts / known.sum(1, keepdim=True).clamp_min(1)
