"""Training scores, or where they are too many a sketch of their quantiles."""

from __future__ import annotations

import numpy as np

_SCORES_SHARE = 4  # part of ``memory_limit`` that training scores may take: a quarter
_CENTROIDS = 65535  # of the quantile sketch: the most there may be, about 1 MiB
_STAND_INS = 100_001  # quantiles kept in place of the scores


class Scores:
    """Training scores as they come in: all of them, or a sketch of their quantiles.

    All, if they fit into a quarter of ``memory_limit`` or are few. Else a t-digest (of Apache
    DataSketches, in float32), of which evenly spaced quantiles stand in for the scores. The same
    scores in the same order give the same answer, which the library's sketches with a proven bound
    do not promise. The rank of a quantile was never off by more than 1e-4 in our tests, nor by more
    than 3e-5 above 0.9, with any order and with ties; what is closer than the stand-ins, 1e-5, is
    not told apart.

    Parameters
    ----------
    n : int
        Scores to come.
    memory_limit : int or None
        Bytes; None keeps all.
    """

    def __init__(self, n: int, memory_limit: int | None) -> None:
        self.n = n
        most = n if memory_limit is None else memory_limit // (8 * _SCORES_SHARE)
        self.complete = n <= max(most, _STAND_INS)
        self._filled = 0
        if self.complete:
            self._scores = np.empty(n)
            return
        try:
            from datasketches import tdigest_double
        except ImportError as error:
            raise ImportError(
                f"{n} training scores do not fit into memory_limit={memory_limit}; for a sketch of "
                'them, pip install "deepod[data]".'
            ) from error
        self._digest = tdigest_double(_CENTROIDS)

    def add(self, scores: np.ndarray) -> None:
        """Take the next scores, float64."""
        if self.complete:
            self._scores[self._filled : self._filled + len(scores)] = scores
            self._filled += len(scores)
        else:
            # A mean of equal numbers may differ from them in the last digit of float64.
            self._digest.update(scores.astype(np.float32).astype(np.float64))

    def result(self) -> np.ndarray:
        """Give all scores in their order, or quantiles that stand in for them, from low to high."""
        if self.complete:
            return self._scores
        ranks = np.linspace(0, 1, _STAND_INS)
        values = np.array([self._digest.get_quantile(rank) for rank in ranks])
        return values.astype(np.float32).astype(np.float64)
