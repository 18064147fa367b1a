"""Local reconstruction: what the nearest training rows cannot be mixed to give is abnormal."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from deepod._scoring.neighbors import differences, divided, in_blocks, thinned
from deepod.models.density._without_steps import AmongRows
from deepod.networks import KeepsRows, StartsFromRows
from deepod.params import integer, param, parameters, positive
from deepod.types import Shape


@parameters
class LocalReconstruction(AmongRows):
    """Locally linear reconstruction: rows that their neighbours do not reconstruct score high.

    Each row is reconstructed as the mean of its ``n_neighbors`` nearest training rows plus a
    combination of their differences from this mean. The score is the square root of the smallest
    sum of the squared error and a penalty on the squared weights of the combination. Nothing is
    trained.

    Notes
    -----
    **When to use it.** On tables of which you know that most rows are normal, best beside
    :class:`Neighbors`, as in ``Consensus(novelty=True)``: it sees that a row leaves the surface on
    which the rows around it lie, although it is not far from them.

    **When it fails.** Anomalies among the training rows reconstruct each other. Even a few that lie
    close together hide new ones; ``Neighbors`` and ``AutoEncoder(suspects=0.3)`` lose less.

    **The score.** With the mean m of the neighbours, their differences C from it, and the penalty
    a = ``ridge`` times the sum of the squares of C, the squared score of a row x is the least
    ``|x - m - C'w|^2 + a |w|^2`` over the weights w. It is the squared distance of x from m, less
    in the directions in which the neighbours differ. A training row is scored without itself, so
    that ``contamination`` holds for new rows too. Scored again as a new row, it is one of its own
    neighbours and scores low: ``labels_`` and ``decision_scores_`` are those of training rows.

    **Not in the sources.** Roweis and Saul, and Kang and Cho, have weights that add up to one, as
    here, and the same form of penalty against weights that are not unique; they take the error
    alone. Here the penalty is part of the score, or rows would have no error where there are more
    neighbours than features.

    **Cost.** As nothing is trained, the shared parameters that steer training (``epochs``, ``lr``,
    ``batch_size``, ``network`` and so on) have no effect; rows that are held out or left out as
    suspects are not compared with. The model holds up to ``max_rows`` training rows, scaled:
    **whoever reads a saved model sees them.** Memory and time of a score grow with ``max_rows``
    times the number of values. Distances are computed in float64, which ``device="mps"`` lacks.

    References
    ----------
    S. T. Roweis and L. K. Saul. Nonlinear Dimensionality Reduction by Locally Linear Embedding.
    Science 290, 2000.
    P. Kang and S. Cho. Locally Linear Reconstruction for Instance-Based Learning. Pattern
    Recognition 41, 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import LocalReconstruction
    >>> x = np.random.default_rng(0).normal(size=(200, 1))
    >>> detector = LocalReconstruction().fit(np.hstack([x, 2 * x]))
    >>> detector.predict([[1, 2], [1, 1]])
    array([0, 1])
    """

    n_neighbors: int = param(
        default=10, accepts=[integer(1)], doc="Nearest rows that reconstruct a row."
    )
    ridge: float = param(
        default=0.01,
        accepts=[positive()],
        doc="Penalty on squared weights, as a share of the sum of squares of the neighbours' "
        "differences from their mean. With a large one, the score is the distance from the mean.",
    )
    max_rows: int = param(
        default=5000,
        accepts=[integer(2)],
        doc="Training rows that are kept to reconstruct from, at most: of more, a random subset "
        "that is spread over them.",
    )
    scaler = "minmax"
    paper = "Kang & Cho, Locally Linear Reconstruction, Pattern Recognition 2008"

    def _build_module(self, shape: Shape) -> nn.Module:
        return _Reconstruction(shape, self.n_neighbors, self.ridge, self.max_rows)


class _Reconstruction(StartsFromRows, KeepsRows):
    """Training rows, and the distance of samples from what the nearest ones reconstruct."""

    per_row = ("picks", "rows")

    rows: Tensor  # (n, values)
    middle: Tensor  # (values,), around which products lose few digits
    picks: Tensor  # (most,), which rows are kept, as a fraction of the part that each is from

    def __init__(self, shape: Shape, near: int, ridge: float, most: int) -> None:
        super().__init__()
        size = torch.Size(shape).numel()
        self.shape, self.near, self.ridge = shape, near, ridge
        self.register_buffer("rows", torch.zeros(most, size))
        self.register_buffer("middle", torch.zeros(size))
        self.register_buffer("picks", torch.rand(most))

    @torch.no_grad()
    def start_from_rows(self, x: Tensor) -> None:
        """Store training rows, (n, *shape)."""
        x = thinned(x, self.picks)
        self.picks = self.picks[: len(x)].clone()
        self.rows = x.flatten(1).clone()
        self.middle = self.rows.median(0).values

    def forward(self, x: Tensor, leave_out: bool = False) -> Tensor:
        """Return the scores of samples (B, *shape); with ``leave_out``, as training rows."""
        x = x.flatten(1)
        size = max(len(self.rows), 2 * (self.near + 1) * x.shape[1], self.near**2)
        return torch.cat([self._errors(block, leave_out)[0] for block in in_blocks(x, size)])

    def contributions(self, x: Tensor) -> Tensor:
        """Divide the scores of samples among their values by the squares of the errors."""
        scores, errors = self._errors(x.flatten(1), leave_out=False)
        return divided(scores, errors.square()).unflatten(1, self.shape)

    def _errors(self, x: Tensor, leave_out: bool) -> tuple[Tensor, Tensor]:
        """Return the scores of samples (B, values), and the error of each value."""
        rows = self.rows - self.middle
        found = differences(x - self.middle, rows, self.near, 1, leave_out)[:, :-1].double()
        from_mean = found.mean(1, keepdim=True)
        others = from_mean - found  # of the neighbours from their mean, (B, near, values)
        products = _products(others)
        total = products.diagonal(dim1=1, dim2=2).sum(1).view(-1, 1, 1)
        # Neighbours that are all alike give nothing to combine, and no weights.
        unit = torch.where(total > 0, total, 1.0)
        right = (others * from_mean).sum(2, keepdim=True)
        weights = _solve(products / unit, right / unit, self.ridge)
        errors = from_mean.squeeze(1) - (weights * others).sum(1)
        squares = (errors * from_mean.squeeze(1)).sum(1)  # the least sum of error and penalty
        return squares.clamp(min=torch.finfo(x.dtype).tiny).sqrt(), errors


def _products(rows: Tensor) -> Tensor:
    """Return the inner products of rows with each other, (B, k, k), given (B, k, values)."""
    if not torch.compiler.is_exporting():
        return rows @ rows.mT
    # onnxruntime before 1.26 has no product with a transposed matrix in float64.
    return torch.stack([(rows * row.unsqueeze(1)).sum(2) for row in rows.unbind(1)], 1)


def _solve(products: Tensor, right: Tensor, ridge: float) -> Tensor:
    """Solve (products + ridge) w = right, where the trace of products, (B, k, k), is at most 1."""
    eye = torch.eye(products.shape[1], dtype=products.dtype, device=products.device)
    matrix = products + ridge * eye
    if not torch.compiler.is_exporting():
        return torch.linalg.solve(matrix, right)
    # ONNX has no solver. The iteration of Newton and Schulz squares its error in each step, and no
    # eigenvalue is above 1 + ridge or below ridge.
    matrix, right = matrix / (1 + ridge), right / (1 + ridge)
    inverse = eye.expand_as(matrix)
    for _ in range(max(1, math.ceil(math.log2(40 * (1 + ridge) / ridge)))):
        inverse = inverse @ (2 * eye - matrix @ inverse)
    return inverse @ right
