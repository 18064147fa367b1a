"""Neighbours: what is far from the training rows is abnormal, near by and at large."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from deepod._base import BaseDetector
from deepod._scoring.neighbors import References
from deepod.params import fraction, integer, param, parameters
from deepod.types import Batch, Losses, Phase, Shape


@parameters
class Neighbors(BaseDetector):
    """Distances to the nearest training rows at two scales, in three scalings: nothing is trained.

    A row has six distances: the mean distance to the ``n_neighbors`` nearest training rows and the
    distance to the nearest share ``far`` of them, with each feature divided by its range, divided
    by its interquartile range, and replaced by the normal quantile of its rank. Each becomes a
    tail, minus the log of the share of training rows that are as far from the others. The score is
    the largest tail.

    Notes
    -----
    The near distance finds rows in gaps; clusters of anomalies among the training rows hide from
    it, and from the far one if they are more than the share ``far``. Ranges let far values weigh,
    ranks let rare ones: of skewed features, and of categories that are coded as numbers. Features
    that are irrelevant, or many more of them than rows, make all distances alike. A training row is
    scored without itself, so that ``contamination`` holds for new rows as well.

    Nothing is trained: of the shared parameters, those that steer training (``epochs``, ``lr``,
    ``batch_size``, ``network`` and so on) have no effect; rows that are held out or left out as
    suspects are not compared with. The model holds up to ``max_rows`` training rows, scaled: a
    saved model shows them to whoever reads the file. Memory and time of a score grow with
    ``max_rows`` times the number of values. It computes in float64, which ``device="mps"`` lacks.

    References
    ----------
    S. Ramaswamy, R. Rastogi and K. Shim. Efficient Algorithms for Mining Outliers from Large Data
    Sets. SIGMOD 2000.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import Neighbors
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = Neighbors().fit(X)
    >>> detector.predict([[0, 0, 0], [9, 9, 9]])
    array([0, 1])
    >>> detector.explain([[0, 9, 0]]).argmax()
    np.int64(1)
    """

    n_neighbors: int = param(
        default=5, accepts=[integer(1)], doc="Nearest rows whose mean distance is taken."
    )
    far: float = param(
        default=0.05,
        accepts=[fraction()],
        doc="The share of the training rows that the second scale reaches.",
    )
    max_rows: int = param(
        default=5000,
        accepts=[integer(2)],
        doc="Training rows that are kept for comparison, at most: of more, a random subset that is "
        "spread over them.",
    )
    family = "neighbors"
    paper = "Ramaswamy et al., Efficient Algorithms for Mining Outliers, SIGMOD 2000"
    auto_epochs = 0
    learns_by_heart = False
    has_gradients = False

    def _build_module(self, shape: Shape) -> nn.Module:
        return References(shape, self.n_neighbors, self.far, self.max_rows)

    def _phases(self) -> list[Phase]:
        return []

    def _loss(self, module: nn.Module, batch: Batch) -> Losses:
        return {}

    def _score(self, module: Any, x: Tensor) -> Tensor:
        return module(x)

    def _score_trained(self, module: Any, x: Tensor) -> Tensor:
        return module(x, leave_out=True)

    def _contributions(self, module: Any, x: Tensor) -> Tensor:
        return module.contributions(x)
