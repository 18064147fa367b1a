"""Tails: a common unit for scores of different detectors, learned from training scores."""

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
    """Function from scores to tails: minus the log of the estimated share of scores as high.

    Up to the quantile ``level`` of the training scores, the share is that of training scores that
    are higher (half of the equal ones count; it is interpolated between two scores). Above it, the
    share is that of an exponential distribution with the mean excess of the training scores, so
    that scores above all of them still differ. The tail increases with the score.

    Parameters
    ----------
    level : float, default=0.9
        Quantile of the training scores above which the tail is exponential.
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
        """Learn from training scores, which should be those of rows that were not trained on."""
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
        """Return the tails of scores of any shape, in float64."""
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
        """Return how many points of the grid are below each score, or ``equal`` to it."""
        if torch.compiler.is_exporting():  # ONNX has no search
            points, others = self.grid, scores.unsqueeze(-1)
            return (others >= points if equal else others > points).long().sum(-1)
        return torch.searchsorted(self.grid, scores.contiguous(), right=equal)

    @fixed()
    def of_array(self, scores: np.ndarray) -> np.ndarray:
        """Return the tails of an array of scores."""
        tails: np.ndarray = self(torch.from_numpy(scores)).numpy()
        return tails

    def __getstate__(self) -> dict[str, Any]:
        """Return the state as plain arrays, for skops."""
        arrays = {name: tensor.numpy(force=True) for name, tensor in self.state_dict().items()}
        return {"level": self.level} | arrays

    @fixed()
    def __setstate__(self, state: dict[str, Any]) -> None:
        Tail.__init__(self, state["level"])
        self.load_state_dict({k: torch.from_numpy(v) for k, v in state.items() if k != "level"})

    def inverse(self, tails: Tensor) -> Tensor:
        """Return the scores that have these tails, interpolated between training scores."""
        place = -(-tails.clamp(max=self.at_start)).expm1() * POINTS - 0.5
        place = place.clamp(0, POINTS - 1)
        low = self.grid[place.floor().long()]
        within = low + (place - place.floor()) * (self.grid[place.ceil().long()] - low)
        beyond = self.start + (tails - self.at_start) * self.excess
        return torch.where(tails > self.at_start, beyond, within.minimum(self.start))


@fixed()
def as_unseen(scores: np.ndarray, halves: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return the scores of training rows as if the detector had not been trained on them.

    Two more detectors were each trained on half of the rows and score the other half. Their scores
    are converted to the units of the first detector: a row gets the score that has the same tail
    among the training scores of the first as its score has among those of the half.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Training scores of the first detector.
    halves : sequence of (rows, tails)
        For each half, the numbers of the rows that it was not trained on, and their tails (with
        ``level=BY_HEART``) among the rows that it was trained on.

    Returns
    -------
    unseen : ndarray of shape (n,)
        The converted scores; rows that no half has left out keep their ordinary score.
    """
    trained = np.concatenate([rows for rows, _ in halves])
    own = Tail(BY_HEART).learn(torch.from_numpy(scores[trained]))
    unseen = scores.copy()
    tails = torch.from_numpy(np.concatenate([tails for _, tails in halves]))
    unseen[trained] = own.inverse(tails).numpy()
    return unseen


def ranked_as(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return scores, rearranged so that they rank the rows as other scores do.

    Detectors that have learned from all rows rank better than those that have learned from half of
    them. Equal scores of rows with different others are spread up to the next score; rows with
    equal others get equal scores.
    """
    distinct, first = np.unique(np.sort(scores), return_index=True)
    spread = np.interp(np.arange(len(scores)), first, distinct)
    _, which, counts = np.unique(others, return_inverse=True, return_counts=True)
    return cast(np.ndarray, spread[counts.cumsum() - counts][which])
