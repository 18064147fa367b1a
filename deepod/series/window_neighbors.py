"""Neighbours of windows: a stretch of a series is abnormal if no stretch of training is like it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepod._inputs.chunks import take
from deepod._scoring.memory import AtOnce
from deepod._scoring.series import Span, covered
from deepod.params import integer, param, parameters
from deepod.series._base import SeriesDetector
from deepod.series._errors import Errors
from deepod.types import Batch, Losses, Phase, Shape

_PAIRS_AT_ONCE = 1 << 22  # of a point and a point of training
_FEW_CHANNELS = 4
_STRETCH = 8  # windows, in the stretches that are kept of long series


class Stretches(nn.Module):
    """Points of training series, and which windows of them may be neighbours.

    Attributes
    ----------
    points : Tensor of shape (n, channels)
    numbers : Tensor of shape (n,)
        Of the points among all that were trained on, so that a window of training is not compared
        with itself.
    begins : Tensor of shape (n,), bool
        Whether a window begins at the point, and lies within one stretch.
    """

    holds_rows = True  # of training: whoever has the module may read them

    points: Tensor
    numbers: Tensor
    begins: Tensor

    def __init__(self, channels: int, points: int) -> None:
        super().__init__()
        self.errors = Errors(channels)  # which channels vary
        self.register_buffer("points", torch.zeros(points, channels))
        self.register_buffer("numbers", torch.zeros(points, dtype=torch.int64))
        self.register_buffer("begins", torch.zeros(points, dtype=torch.bool))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Take on the number of points that were kept."""
        n = len(state_dict.get(prefix + "points", self.points))
        if 0 < n < len(self.points):
            self.points, self.numbers = self.points[:n].clone(), self.numbers[:n].clone()
            self.begins = self.begins[:n].clone()
        super()._load_from_state_dict(state_dict, prefix, *args)


@parameters
class WindowNeighbors(SeriesDetector):
    """Distance of each window to the nearest windows of training: nothing is trained.

    The distance of two windows is the root of the mean squared difference of their values. A
    window's score is the mean distance to the ``n_neighbors`` nearest windows of training; a
    point's is the mean over the windows that cover it.

    Notes
    -----
    Distances are sums along the diagonals of the matrix of distances of points, so that time grows
    with the number of pairs of points, not with the length of windows. Windows of training are
    compared with those that share no point with them: scores of training points are those of
    points that were not learned from, and no part of the series is held out. The model holds up to
    ``max_points`` training points: a saved model shows them to whoever reads the file.

    Nothing is trained in steps: of the shared parameters, ``epochs``, ``lr``, ``batch_size`` and
    the like have no effect.

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
    max_points: int = param(
        default=10_000,
        accepts=[integer(1000)],
        doc="Points of training that are kept, at most: of longer series, stretches that are "
        "spread evenly over them.",
    )
    stride: int = param(
        default=5,
        accepts=[integer(1)],
        doc="Points between the windows that are scored, with ``smoothing='centred'`` or None.",
    )
    window = 100
    validation_fraction = 0.0
    family = "neighbors"
    paper = "Keogh et al., HOT SAX: Finding the Most Unusual Time Series Subsequence, ICDM 2005"
    auto_epochs = 0
    learns_by_heart = False
    windowed = True

    def _build_module(self, shape: Shape) -> nn.Module:
        return Stretches(shape[0], self.max_points)

    def _phases(self) -> list[Phase]:
        return []

    def _loss(self, module: nn.Module, batch: Batch) -> Losses:
        return {}

    def _errors(self, module: nn.Module, x: Tensor) -> Tensor:
        raise NotImplementedError  # distances of windows are no errors of values

    def _learn_errors(self, module: Any, x: Tensor, spans: Sequence[Span]) -> None:
        pass

    def _solve(self, module: Any, x: Tensor, spans: Sequence[tuple[int, int]]) -> None:
        n = sum(stop - start for start, stop in spans)
        if n < 2 * self.window:
            raise ValueError(
                f"X has {n} points, and WindowNeighbors(window={self.window}) compares windows "
                f"among {2 * self.window} or more: give more points or a smaller window."
            )
        kept = _stretches(spans, self.max_points, self.window)
        module.numbers = torch.cat([torch.arange(a, b) for a, b in kept]).to(x.device)
        module.points = x[module.numbers]
        begins = [torch.arange(b - a) <= b - a - self.window for a, b in kept]
        module.begins = torch.cat(begins).to(x.device)

    def _score_trained_points(self, points: Tensor, spans: Sequence[Span]) -> np.ndarray:
        return self._over_time(lambda wide: self._distances(points, wide, trained=True), spans)

    def _of_points(
        self,
        module: Any,
        points: Tensor,
        spans: Sequence[Span],
        function: Any,
        batch_size: int | None = None,
        at_once: AtOnce | None = None,
    ) -> np.ndarray:
        return self._distances(points, spans, by_channel=function == self._terms)

    @torch.no_grad()
    def _distances(
        self,
        points: Tensor,
        spans: Sequence[Span],
        trained: bool = False,
        by_channel: bool = False,
    ) -> np.ndarray:
        """Mean distances at points, (n,), or what each channel adds to them, (n, channels)."""
        causal = self.smoothing == "causal"
        step = 1 if causal else self.stride
        module: Any = self.module_
        at_once = max(1, _PAIRS_AT_ONCE // len(module.points) // step)

        def of_windows(starts: Tensor) -> np.ndarray:
            parts = []
            for part in starts.split(at_once):
                found, nearest = self._nearest(points, part, trained)
                if by_channel:
                    parts.append(self._by_channel(points, part, nearest))
                else:
                    parts.append(_finite_mean(found))
            values = torch.cat(parts).cpu().double().numpy()
            return np.repeat(values[:, None], self.window, 1) if by_channel else values

        size = self.window * points.shape[1] if by_channel else 1
        return covered(of_windows, spans, self.window, step, causal, size)

    def _nearest(self, points: Tensor, starts: Tensor, trained: bool) -> tuple[Tensor, Tensor]:
        """Distances to the nearest windows of training, and where these begin, (n, n_neighbors)."""
        module: Any = self.module_
        window = self.window
        first = int(starts[0])
        own = points[first : int(starts[-1]) + window]
        squares = window_squares(own, module.points, window)[starts - first]
        may_be = module.begins[: squares.shape[1]]
        squares = squares.masked_fill(~may_be, torch.inf)
        if trained:
            apart = (starts.to(points.device)[:, None] - module.numbers[: len(may_be)]).abs()
            squares = squares.masked_fill(apart < max(1, window // 2), torch.inf)
        k = min(self.n_neighbors, int(may_be.sum()))
        found = squares.topk(k, dim=1, largest=False)
        return (found.values / (window * points.shape[1])).sqrt(), found.indices

    def _by_channel(self, points: Tensor, starts: Tensor, nearest: Tensor) -> Tensor:
        """Give what each channel adds to the mean distance of windows, (n, channels)."""
        module: Any = self.module_
        window, parts = self.window, []
        size = nearest.shape[1] * window * points.shape[1]
        for rows, near in zip(
            *(part.split(max(1, _PAIRS_AT_ONCE // size)) for part in (starts, nearest)), strict=True
        ):
            own = take(points, rows, window).unsqueeze(1)
            others = take(module.points, near.flatten().cpu(), window)
            squares = (own - others.unflatten(0, near.shape)).square().mean(2) / points.shape[1]
            distances = squares.sum(-1, keepdim=True).sqrt()
            # A distance is the sum over channels of square / distance.
            parts.append(torch.where(distances > 0, squares / distances, 0.0).mean(1))
        return torch.cat(parts)


def window_squares(x: Tensor, others: Tensor, window: int) -> Tensor:
    """Return the squared distances of all windows of two series, (n - window + 1, m - window + 1).

    The distance of two windows is a sum along a diagonal of the distances of their points. Sums
    over 1, 2, 4 ... points are made of one another, so that this takes the logarithm of ``window``
    in passes, and no sum contains anything but the points of its windows.

    Parameters
    ----------
    x, others : Tensor of shape (n, channels) and (m, channels)
    window : int
    """
    if x.shape[1] <= _FEW_CHANNELS:  # differences lose no digits
        sums = torch.zeros(len(x), len(others), device=x.device)
        for own, other in zip(x.unbind(1), others.unbind(1), strict=True):
            sums += (own[:, None] - other).square_()
    else:
        sums = x.square().sum(1)[:, None] + others.square().sum(1) - 2 * (x @ others.T)
        sums.clamp_min_(0)
    total = torch.zeros((), device=x.device).expand_as(sums)
    done, size = 0, 1  # points that are in total, and in sums
    while done < window:
        if window & size:
            rest = sums[done:, done:]
            total = total[: len(rest), : rest.shape[1]] + rest
            done += size
        if done < window:
            sums = sums[:-size, :-size] + sums[size:, size:]
            size *= 2
    return total


def _finite_mean(found: Tensor) -> Tensor:
    """Mean over the neighbours that there are: windows of a short training series have few."""
    known = found.isfinite()
    return torch.where(known, found, 0.0).sum(1) / known.sum(1)


def _stretches(spans: Sequence[tuple[int, int]], most: int, window: int) -> list[tuple[int, int]]:
    """Choose stretches of series, at most ``most`` points, that are spread evenly over them."""
    if sum(stop - start for start, stop in spans) <= most:
        return list(spans)
    length = min(most, _STRETCH * window)
    blocks = []
    for start, stop in spans:
        ends = [*range(start + length, stop, length), stop]
        blocks += [(max(start, end - length), end) for end in ends]
    count = min(len(blocks), most // length)
    chosen = np.linspace(0, len(blocks) - 1, count).round().astype(int)
    return [blocks[k] for k in sorted(set(chosen.tolist()))]
