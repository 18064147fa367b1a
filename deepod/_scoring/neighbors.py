"""Distances of samples to the nearest training rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from deepod._scoring.tails import Tail
from deepod.networks import KeepsRows, StartsFromRows
from deepod.types import Shape

_BLOCK_VALUES = 1 << 20  # distances, and differences, in memory at once
_IQR_OF_NORMAL = 1.349  # interquartile range of a normal distribution of variance 1
_GRID = 512  # values that stand for all of a feature


class References(StartsFromRows, KeepsRows):
    """Training rows, and the distances of samples from them in three scalings at two scales.

    In the three scalings, each feature is divided by its range, divided by its interquartile range,
    or replaced by the normal quantile of its rank. The two scales are the mean distance to the
    ``near`` nearest rows, and the distance within which a share ``far`` of the rows lies. Each of
    the six distances becomes a tail with respect to the distances of training rows from the others.
    The largest tail is the score.

    Parameters
    ----------
    shape : tuple of int
        Shape of a sample.
    near : int
        Number of nearest rows for the mean distance.
    far : float
        Share of the rows for the other distance.
    most : int
        Largest number of rows to keep.
    """

    per_row = ("picks", "rows", "ranked")

    rows: Tensor  # (n, values)
    ranked: Tensor  # (n, values), the same in the third scaling
    scales: Tensor  # (2, values), of the first two
    grid: Tensor  # (values, _GRID), in ascending order, what ranks are among
    quantiles: Tensor  # (2 * _GRID + 1,), normal ones of twice the rank
    picks: Tensor  # (most,), which rows are kept, as a fraction of the part that each is from

    def __init__(self, shape: Shape, near: int, far: float, most: int) -> None:
        super().__init__()
        size = torch.Size(shape).numel()
        self.shape, self.near, self.far = shape, near, far
        self.register_buffer("rows", torch.zeros(most, size))
        self.register_buffer("ranked", torch.zeros(most, size))
        self.register_buffer("scales", torch.ones(2, size))
        self.register_buffer("grid", torch.zeros(size, _GRID))
        shares = torch.arange(2 * _GRID + 1, dtype=torch.float64) / (2 * _GRID)
        shares = shares.clamp(0.5 / _GRID, 1 - 0.5 / _GRID)
        self.register_buffer("quantiles", torch.special.ndtri(shares).float())
        self.register_buffer("picks", torch.rand(most))
        self.tails = nn.ModuleList(Tail() for _ in range(6))

    @torch.no_grad()
    def start_from_rows(self, x: Tensor) -> None:
        """Store training rows, (n, *shape), and learn scalings and tails from them."""
        self.scales = _scales(x, self.shape)
        x = thinned(x, self.picks)
        self.picks = self.picks[: len(x)].clone()
        self.rows = x.flatten(1).clone()
        spread = torch.linspace(0, len(x) - 1, _GRID, device=x.device).round().long()
        self.grid = self.rows.sort(0).values[spread].T.contiguous()
        self.ranked = self._ranked(self.rows)
        distances = self.distances(self.rows, leave_out=True)
        for k, own in enumerate(distances.unbind(1)):
            cast(Tail, self.tails[k]).learn(own)

    def forward(self, x: Tensor, leave_out: bool = False) -> Tensor:
        """Return the scores of samples (B, *shape); with ``leave_out``, as training rows."""
        return self._tails(self.distances(x.flatten(1), leave_out)).amax(1)

    def contributions(self, x: Tensor) -> Tensor:
        """Divide the scores of samples among their values by the shares in the distance."""
        squares = self._squares(x.flatten(1), leave_out=False)
        totals = squares.sum(-1, keepdim=True)
        # A distance is the sum over values of square / distance.
        parts = torch.where(totals > 0, squares / totals.sqrt(), 0.0)
        parts = torch.stack([parts[:, :, :-1].mean(2), parts[:, :, -1]], 2).flatten(1, 2)
        tails = self._tails(parts.sum(-1))
        score, which = tails.max(1)
        behind = parts[torch.arange(len(x), device=x.device), which]
        return divided(score, behind).unflatten(1, self.shape)

    def _tails(self, distances: Tensor) -> Tensor:
        pairs = zip(self.tails, distances.unbind(1), strict=True)
        return torch.stack([tail(own) for tail, own in pairs], 1)

    def distances(self, x: Tensor, leave_out: bool) -> Tensor:
        """Return the distances of samples (B, values): near and far in each scaling, (B, 6)."""
        blocks = in_blocks(x, max(len(self.rows), (self.near + 1) * x.shape[1]))
        return torch.cat([self._block(block, leave_out) for block in blocks])

    def _block(self, x: Tensor, leave_out: bool) -> Tensor:
        distances = self._squares(x, leave_out).sum(-1).sqrt()
        near, far = distances[:, :, :-1].mean(2), distances[:, :, -1]
        return torch.stack([near, far], 2).flatten(1)

    def _squares(self, x: Tensor, leave_out: bool) -> Tensor:
        """Return squared differences from the ``near`` nearest rows and from the ``far``-th one.

        The shape is (B, 3, near + 1, values).
        """
        # Around the middle, for products to lose few digits: not the mean, which one row far out
        # moves.
        middle = self.grid[:, _GRID // 2]
        around, rows = x - middle, self.rows - middle
        views = [(around * scale, rows * scale) for scale in self.scales]
        views.append((self._ranked(x), self.ranked))
        far = min(max(1, round(self.far * len(rows))), len(rows))
        found = [differences(*view, self.near, far, leave_out) for view in views]
        return torch.stack(found, 1).square()

    def _ranked(self, x: Tensor) -> Tensor:
        """Return the normal quantiles of the ranks of samples (B, values), equal for ties."""
        columns = x.T.contiguous()
        if torch.compiler.is_exporting():  # ONNX has no search
            below = (columns.unsqueeze(-1) > self.grid.unsqueeze(1)).long().sum(-1)
            up_to = (columns.unsqueeze(-1) >= self.grid.unsqueeze(1)).long().sum(-1)
        else:
            below = torch.searchsorted(self.grid, columns)
            up_to = torch.searchsorted(self.grid, columns, right=True)
        return self.quantiles[below + up_to].T


def differences(x: Tensor, rows: Tensor, near: int, far: int, leave_out: bool) -> Tensor:
    """Return what samples differ by from their nearest rows.

    Parameters
    ----------
    x : Tensor of shape (B, values)
    rows : Tensor of shape (n, values)
        Scaled like x, and around 0.
    near : int
        Number of nearest rows; there are fewer if there are not so many rows.
    far : int
        Number of one more row, counted from the nearest one.
    leave_out : bool
        Whether x are among the rows, and are compared with the others only.

    Returns
    -------
    Tensor of shape (B, near + 1, values)
    """
    n = len(rows)
    most = max(1, n - 1)  # with itself left out
    near, far = min(near, most), min(far, most)
    extra = min(int(leave_out), n - most)
    # Which are nearest by one product of matrices, in float64, or rows far from the middle would
    # lose their digits; how near by differences: copies are at distance 0.
    known = rows.double()
    order = known.square().sum(1) - 2 * x.double() @ known.T
    nearest = order.topk(max(near, far) + extra, dim=1, largest=False).indices
    places = [*range(near + extra), *range(far - 1, far + extra)]
    found = x.unsqueeze(1) - rows[nearest[:, places]]
    if not extra:
        return found
    # A row that is kept is at distance 0 from itself: without it, every other moves up.
    totals = found.square().sum(-1)
    first, second = found[:, : near + 1], found[:, near + 1 :]
    itself = totals[:, : near + 1].amin(1) == 0
    leave = torch.where(itself, totals[:, : near + 1].argmin(1), near)
    kept = torch.arange(near, device=x.device) + (
        torch.arange(near, device=x.device) >= leave.unsqueeze(1)
    )
    first = first.gather(1, kept.unsqueeze(-1).expand(-1, -1, x.shape[1]))
    second = torch.where(itself.view(-1, 1), second[:, 1], second[:, 0])
    return torch.cat([first, second.unsqueeze(1)], 1)


def divided(scores: Tensor, parts: Tensor) -> Tensor:
    """Divide scores, (B,), in the proportions of parts, (B, values); evenly if all are 0."""
    whole = parts.sum(1, keepdim=True)
    even = torch.full_like(parts, 1 / parts.shape[1])
    shares = torch.where(whole > 0, parts / whole, even)
    return shares.double() * scores.unsqueeze(1)


def in_blocks(x: Tensor, values: int) -> Sequence[Tensor]:
    """Divide samples into blocks, with so many values in memory for each sample."""
    if torch.compiler.is_exporting():  # of a number of samples that is not known yet
        return [x]
    return x.split(max(1, _BLOCK_VALUES // values))


def thinned(x: Tensor, picks: Tensor) -> Tensor:
    """Return at most as many rows as picks, (most,): one of each part, so that every part is there.

    A pick says which row of its part is taken, as a fraction.
    """
    n, most = len(x), len(picks)
    if n <= most:
        return x
    parts = (torch.arange(most, device=x.device) + picks) * (n / most)
    return x[parts.long().clamp_(max=n - 1)]


def _scales(x: Tensor, shape: Shape) -> Tensor:
    """Return the factors of the values of a sample in the first two scalings, (2, values).

    1 over the range of each feature of a table, or channel of other samples, and 1 over its robust
    standard deviation; 1 where all rows are the same.
    """
    channel = 0 if len(shape) == 3 else len(shape) - 1
    columns = x.movedim(channel + 1, -1).flatten(0, -2).double().sort(0).values
    whole = columns[-1] - columns[0]
    robust = (_quantile(columns, 0.75) - _quantile(columns, 0.25)) / _IQR_OF_NORMAL
    robust = torch.where(robust > 0, robust, columns.std(0, correction=0))
    scales = torch.stack([whole, robust])
    scales = 1 / torch.where(scales > 0, scales, 1.0)
    before, after = (1,) * channel, (1,) * (len(shape) - 1 - channel)
    per_value = scales.view(2, *before, -1, *after).expand(2, *shape)
    return per_value.flatten(1).to(x.dtype)


def _quantile(columns: Tensor, level: float) -> Tensor:
    """Interpolate between ordered rows, of which torch.quantile refuses 16 million values."""
    place = level * (len(columns) - 1)
    low, high = columns[int(place)], columns[min(int(place) + 1, len(columns) - 1)]
    return low + (place - int(place)) * (high - low)
