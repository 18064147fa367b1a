"""Which training rows may be anomalies: those far from the others."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from deepod._inputs.seeds import global_generator
from deepod._scoring.apply import chunk_rows, score
from deepod._scoring.neighbors import References

# The distances of Neighbors() by default, to fewer rows: they only have to tell the farthest.
_NEAR, _FAR, _MOST = 5, 0.05, 2000


class Suspects:
    """Tells the share of rows that are farthest from the others.

    Parameters
    ----------
    share : float
    x : Tensor of shape (n, *shape)
        Scaled rows to learn from: those to tell, or a sample of them.
    device : torch.device
    seed : int
        Of the choice of rows for comparison, of very many.
    """

    def __init__(self, share: float, x: Tensor, device: torch.device, seed: int) -> None:
        self.device, self.size = device, chunk_rows(x.shape[1:])
        with global_generator(seed), torch.device("cpu"):
            self.references = References(tuple(x.shape[1:]), _NEAR, _FAR, _MOST)
        self.references.to(device).start_from_rows(x.to(device))
        # How far the farthest are: of rows to come, about as many will be.
        self.limit = float(np.quantile(self._scores(x), 1 - share))

    def others(self, x: Tensor) -> np.ndarray:
        """Find the numbers of the rows, of (n, *shape), that are no suspects."""
        return np.flatnonzero(self._scores(x) <= self.limit)

    def _scores(self, x: Tensor) -> np.ndarray:
        chunks = x.split(self.size)
        return score(self.references, _without_itself, chunks, self.device, len(x)).cpu().numpy()


def _without_itself(references: nn.Module, x: Tensor) -> Tensor:
    scores: Tensor = references(x, leave_out=True)
    return scores
