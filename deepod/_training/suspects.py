"""Suspects: training rows far from the others, which may be anomalies."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from deepod._inputs.seeds import global_generator
from deepod._scoring.apply import chunk_rows, score
from deepod._scoring.neighbors import References

# The distances of Neighbors() by default, but to fewer rows, which suffice to find the farthest.
_NEAR, _FAR, _MOST = 5, 0.05, 2000


class Suspects:
    """A detector of the share of rows that are farthest from the others.

    Parameters
    ----------
    share : float
    x : Tensor of shape (n, *shape)
        Scaled rows to learn from: all rows, or a sample of them.
    device : torch.device
    seed : int
        Seed for the choice of rows to compare with, if there are very many.
    """

    def __init__(self, share: float, x: Tensor, device: torch.device, seed: int) -> None:
        self.device, self.size = device, chunk_rows(x.shape[1:])
        with global_generator(seed), torch.device("cpu"):
            self.references = References(tuple(x.shape[1:]), _NEAR, _FAR, _MOST)
        self.references.to(device).start_from_rows(x.to(device))
        # The distance of the farthest rows; about the same share of other rows will exceed it.
        self.limit = float(np.quantile(self._scores(x), 1 - share))

    def others(self, x: Tensor) -> np.ndarray:
        """Return the numbers of those of the rows, (n, *shape), that are not suspects."""
        return np.flatnonzero(self._scores(x) <= self.limit)

    def _scores(self, x: Tensor) -> np.ndarray:
        chunks = x.split(self.size)
        return score(self.references, _without_itself, chunks, self.device, len(x)).cpu().numpy()


def _without_itself(references: nn.Module, x: Tensor) -> Tensor:
    scores: Tensor = references(x, leave_out=True)
    return scores
