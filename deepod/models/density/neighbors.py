"""Neighbours: what is far from the training rows is abnormal, near by and at large."""

from __future__ import annotations

from torch import nn

from deepod._scoring.neighbors import References
from deepod.models.density._without_steps import AmongRows
from deepod.params import fraction, integer, param, parameters
from deepod.types import Shape


@parameters
class Neighbors(AmongRows):
    """Nearest neighbours: rows far from the training rows score high; nothing is trained.

    A row has six distances: the mean distance to the ``n_neighbors`` nearest training rows and the
    distance that reaches the nearest share ``far`` of them, each in three scalings. Features are
    divided by their range, divided by their interquartile range, or replaced by the normal quantile
    of their rank. Each distance becomes a tail: minus the log of the share of training rows that
    are at least as far from the others. The score is the largest tail.

    Notes
    -----
    **When to use it.** On tables of which you know that most rows are normal: of the networks
    compared on ADBench's tables none is ahead of it in mean AUC-ROC (``docs/benchmarks.md``).

    **When it fails.** Irrelevant features, or many more features than rows, make all distances
    alike. Clusters of anomalies among the training rows hide from the near distance, and from the
    far one if they are more than the share ``far``.

    **Why so many distances.** The near distance finds rows in gaps, the far one small clusters.
    Ranges let far values weigh, ranks let rare ones: of skewed features, and of categories that are
    coded as numbers. A training row is scored without itself, so that ``contamination`` holds for
    new rows too.

    **Cost.** As nothing is trained, the shared parameters that steer training (``epochs``, ``lr``,
    ``batch_size``, ``network`` and so on) have no effect; rows that are held out or left out as
    suspects are not compared with. The model holds up to ``max_rows`` training rows, scaled:
    **whoever reads a saved model sees them.** Memory and time of a score grow with ``max_rows``
    times the number of values. Distances are computed in float64, which ``device="mps"`` lacks.

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
    paper = "Ramaswamy et al., Efficient Algorithms for Mining Outliers, SIGMOD 2000"

    def _build_module(self, shape: Shape) -> nn.Module:
        return References(shape, self.n_neighbors, self.far, self.max_rows)
