"""Scores of different detectors in one unit: how far out in the tail of the training scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from deepod._inputs.settings import fixed

LEVEL = 0.9  # above this quantile the tail is taken for exponential
# The same where what networks make of rows that they know is compared with others, of which many
# are above this quantile.
BY_HEART = 0.98
POINTS = 1024  # that stand for all training scores


class Tail(nn.Module):
    """Turns scores into tails: minus the log of the estimated share of scores as high.

    Up to the quantile ``level`` of the training scores the share is that of these scores (half of
    those that are equal; between two of them in proportion), above it that of an exponential
    distribution with their mean excess, so that scores beyond all of them are still told apart. It
    rises with the score.

    Parameters
    ----------
    level : float, default=0.9
    """

    grid: Tensor  # (POINTS,), training scores in ascending order, evenly spaced ones of many
    start: Tensor  # where the exponential part begins
    excess: Tensor  # mean excess above it

    def __init__(self, level: float = LEVEL) -> None:
        super().__init__()
        self.level, self.at_start = level, -math.log(1 - level)
        self.register_buffer("grid", torch.zeros(POINTS, dtype=torch.float64))
        self.register_buffer("start", torch.zeros((), dtype=torch.float64))
        self.register_buffer("excess", torch.ones((), dtype=torch.float64))

    @fixed()
    def learn(self, scores: Tensor) -> Tail:
        """Learn from training scores, those of rows as if they had not been trained on."""
        ordered = scores.detach().to(self.grid).sort().values
        to: Any = {"dtype": torch.float64, "device": ordered.device}
        spread = torch.linspace(0, len(ordered) - 1, POINTS, **to)
        self.grid.copy_(ordered[spread.round().long()])
        place = self.level * (len(ordered) - 1)
        low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
        self.start.copy_(low + (place - math.floor(place)) * (high - low))
        above = ordered[ordered > self.start]
        excess = above.mean() - self.start if len(above) else self.start - ordered.mean()
        self.excess.copy_(excess if excess > 0 else torch.ones_like(excess))
        return self

    def forward(self, scores: Tensor) -> Tensor:
        """Give the tails of scores of any shape, in float64."""
        scores = scores.double()
        shares = (self._count(self.grid, False) + self._count(self.grid, True)) / (2 * POINTS)
        # In proportion between two training scores, so that rounding moves nothing far.
        right = self._count(scores, True).clamp(1, POINTS - 1)
        left = right - 1
        gap = self.grid[right] - self.grid[left]
        within = ((scores - self.grid[left]) / torch.where(gap > 0, gap, 1.0)).clamp(0, 1)
        share = shares[left] + within * (shares[right] - shares[left])
        beyond = ((scores - self.start) / self.excess).clamp(min=0) + self.at_start
        below = -(-share.clamp(max=self.level)).log1p()
        return torch.where(scores > self.start, beyond, below)

    def _count(self, scores: Tensor, equal: bool) -> Tensor:
        """Count the points of the grid that are lower than each score, or ``equal`` to it."""
        if torch.compiler.is_exporting():  # ONNX has no search
            points, others = self.grid, scores.unsqueeze(-1)
            return (others >= points if equal else others > points).long().sum(-1)
        return torch.searchsorted(self.grid, scores.contiguous(), right=equal)

    @fixed()
    def of_array(self, scores: np.ndarray) -> np.ndarray:
        """Give the tails of scores in an array."""
        tails: np.ndarray = self(torch.from_numpy(scores)).numpy()
        return tails

    def __getstate__(self) -> dict[str, Any]:
        """Everything, as plain arrays: for skops."""
        arrays = {name: tensor.numpy(force=True) for name, tensor in self.state_dict().items()}
        return {"level": self.level} | arrays

    @fixed()
    def __setstate__(self, state: dict[str, Any]) -> None:
        Tail.__init__(self, state["level"])
        self.load_state_dict({k: torch.from_numpy(v) for k, v in state.items() if k != "level"})

    def inverse(self, tails: Tensor) -> Tensor:
        """Give the scores that have these tails; between two training scores, in proportion."""
        place = -(-tails.clamp(max=self.at_start)).expm1() * POINTS - 0.5
        place = place.clamp(0, POINTS - 1)
        low = self.grid[place.floor().long()]
        within = low + (place - place.floor()) * (self.grid[place.ceil().long()] - low)
        beyond = self.start + (tails - self.at_start) * self.excess
        return torch.where(tails > self.at_start, beyond, within.minimum(self.start))


@fixed()
def as_unseen(scores: np.ndarray, halves: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Find the scores of rows that a detector was trained on, of each as if it had not been.

    Two more detectors were each trained on half of these rows, and give those of the other half a
    score. In units of the first: what is as far out among the rows that a half was trained on as it
    is among its own.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Of the first.
    halves : sequence of (rows, tails)
        Numbers of the rows left out of each half, and their tails (of level ``BY_HEART``) among the
        rows that it was trained on.

    Returns
    -------
    unseen : ndarray of shape (n,)
        Scores of rows that are in no half as they were.
    """
    trained = np.concatenate([rows for rows, _ in halves])
    own = Tail(BY_HEART).learn(torch.from_numpy(scores[trained]))
    unseen = scores.copy()
    tails = torch.from_numpy(np.concatenate([tails for _, tails in halves]))
    unseen[trained] = own.inverse(tails).numpy()
    return unseen


def ranked_as(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Put scores in the order of others of the same rows.

    Detectors that have learned from all rows rank better than those that have learned from half.
    Where fewer are told apart by scores than by others, they are spread up to the next score; rows
    that are equal in others stay equal.
    """
    distinct, first = np.unique(np.sort(scores), return_index=True)
    spread = np.interp(np.arange(len(scores)), first, distinct)
    _, which, counts = np.unique(others, return_inverse=True, return_counts=True)
    return cast(np.ndarray, spread[counts.cumsum() - counts][which])
