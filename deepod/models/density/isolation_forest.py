"""Isolation forest: rows that few random splits set apart from the others are abnormal."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from deepod._scoring.neighbors import divided, in_blocks
from deepod.models.density._without_steps import WithoutSteps
from deepod.networks import StartsFromRows
from deepod.params import integer, param, parameters
from deepod.types import Shape


@parameters
class IsolationForest(WithoutSteps):
    """Isolation forest: rows that few random splits set apart score high; no network is trained.

    Each tree divides some training rows again and again, each time at a random value of a random
    feature, until each row is alone or the tree is as deep as that takes on average. The score of
    a row is ``2 ** -(E[h] / c)``: h is the number of splits on its way through a tree, c the number
    for a row like the others.

    Notes
    -----
    **When to use it.** On tables with anomalies among the training rows: each tree sees few rows,
    and fewer anomalies. As a member of :class:`Consensus`, it finds rows with a rare value of one
    feature. Features need no scaling.

    **When it fails.** Where a row is odd by the dependence between features alone, or in a gap
    between normal rows. With clean training rows, it is behind :class:`Neighbors`.

    **Departures from the paper.** A feature that is constant within a node is not chosen to divide
    it, as in other libraries.

    **Contributions.** Each split changes the expected length of the path. The score of a row is
    divided among its features by the sum of the changes that made its path shorter.

    References
    ----------
    F. T. Liu, K. M. Ting and Z.-H. Zhou. Isolation Forest. ICDM 2008, equations 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import IsolationForest
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = IsolationForest(random_state=0).fit(X)
    >>> detector.predict([[0, 0, 0], [9, 9, 9]])
    array([0, 1])
    >>> detector.explain([[0, 9, 0]]).argmax()
    np.int64(1)
    """

    n_trees: int = param(default=100, accepts=[integer(1)], doc="Number of trees.")
    rows_per_tree: int = param(
        default=256, accepts=[integer(2)], doc="Training rows that a tree divides, drawn at random."
    )
    family = "isolation"
    paper = "Liu et al., Isolation Forest, ICDM 2008"
    has_gradients = False  # a score jumps at each split

    def _build_module(self, shape: Shape) -> nn.Module:
        return _Forest(shape, self.n_trees, self.rows_per_tree)


class _Forest(StartsFromRows):
    """Complete binary trees: the children of node i are the nodes 2 i + 1 and 2 i + 2.

    What is below a leaf has the value of the leaf, so that all paths have the same length.
    """

    feature: Tensor  # (trees, inner nodes), by which a node divides its rows
    border: Tensor  # (trees, inner nodes): rows with a larger value go to the second child
    length: Tensor  # (trees, nodes), expected length of the paths through a node, in c
    seed: Tensor  # of the random choices

    def __init__(self, shape: Shape, trees: int, rows: int) -> None:
        super().__init__()
        self.shape, self.per_tree = shape, rows
        self.depth = max(1, math.ceil(math.log2(rows)))
        inner = 2**self.depth - 1
        self.register_buffer("feature", torch.zeros(trees, inner, dtype=torch.long))
        self.register_buffer("border", torch.zeros(trees, inner))
        self.register_buffer("length", torch.zeros(trees, 2 * inner + 1, dtype=torch.float64))
        self.register_buffer("seed", torch.randint(2**62, ()))

    @torch.no_grad()
    def start_from_rows(self, x: Tensor) -> None:
        """Grow the trees on some of the training rows, (n, *shape)."""
        rng = np.random.default_rng(int(self.seed))
        rows, n = x.flatten(1).cpu().numpy(), len(x)
        size = min(self.per_tree, n)
        for tree in range(len(self.feature)):
            chosen = rows[rng.choice(n, size, replace=False)]
            for name, values in zip(
                ("feature", "border", "length"), self._grow(chosen, rng), strict=True
            ):
                getattr(self, name)[tree] = torch.from_numpy(values)

    def _grow(
        self, rows: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Grow one tree, level by level, and return its features, borders and lengths."""
        limit = min(self.depth, max(1, math.ceil(math.log2(len(rows)))))
        inner = 2**self.depth - 1
        feature, border = np.zeros(inner, int), np.zeros(inner, rows.dtype)
        counts, depths = np.zeros(2 * inner + 1), np.zeros(2 * inner + 1)
        counts[0] = len(rows)
        at = np.zeros(len(rows), int)  # the node in which each row is
        for level in range(self.depth):
            first = 2**level - 1
            nodes = np.arange(first, 2 * first + 1)
            order = np.argsort(at, kind="stable")
            starts = np.searchsorted(at[order], nodes)
            there = np.flatnonzero(np.bincount(at - first, minlength=len(nodes)))
            low = np.minimum.reduceat(rows[order], starts[there])
            high = np.maximum.reduceat(rows[order], starts[there])
            # A feature at random among those that differ within the node.
            draws = np.where(high > low, rng.random(low.shape), -1.0)
            which = draws.argmax(1)
            each = np.arange(len(there))
            low, high = low[each, which], high[each, which]
            split = (draws[each, which] >= 0) & (level < limit)
            between = low + (high - low) * rng.random(len(there)).astype(rows.dtype)
            parents = nodes[there]
            feature[parents] = which
            # Below the largest value, so that there are rows on both sides; nobody is above inf.
            border[parents] = np.where(split, np.minimum(between, np.nextafter(high, low)), np.inf)
            at = 2 * at + 1 + (rows[np.arange(len(rows)), feature[at]] > border[at])
            below = 2 * first + 1 + np.arange(2 * len(nodes))
            counts[below] = np.bincount(at, minlength=2 * inner + 1)[below]
            depths[2 * parents + 1] = depths[2 * parents + 2] = depths[parents] + split
        length = depths + _of_others(counts)
        for level in reversed(range(self.depth)):
            parents = np.arange(2**level - 1, 2 ** (level + 1) - 1)
            pairs = 2 * parents[:, None] + [1, 2]
            total = (counts[pairs] * length[pairs]).sum(1)
            length[parents] = total / np.maximum(counts[parents], 1)
        return feature, border, length / max(float(_of_others(np.array([len(rows)]))[0]), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of samples (B, *shape)."""
        blocks = in_blocks(x.flatten(1), 4 * len(self.feature))
        lengths = [self.length.gather(1, self._nodes(block)[-1]) for block in blocks]
        return torch.cat([2 ** -length.double().mean(0) for length in lengths])

    def contributions(self, x: Tensor) -> Tensor:
        """Divide the scores of samples among their values by what made their paths shorter."""
        x = x.flatten(1)
        parts = torch.zeros_like(x.T, dtype=torch.float64)
        for before, after in pairwise(self._nodes(x)):
            change = self.length.gather(1, before) - self.length.gather(1, after)
            parts.scatter_add_(0, self.feature.gather(1, before), change.double())
        return divided(self(x), parts.T.clamp(min=0)).unflatten(1, self.shape)

    def _nodes(self, x: Tensor) -> list[Tensor]:
        """Return the nodes on the way of samples (B, values), (trees, B) for each level."""
        columns = x.T
        found = [torch.zeros_like(columns[:1], dtype=torch.long).expand(len(self.feature), -1)]
        for _ in range(self.depth):
            values = columns.gather(0, self.feature.gather(1, found[-1]))
            further = values > self.border.gather(1, found[-1])
            found.append(2 * found[-1] + 1 + further.long())
        return found


def _of_others(counts: np.ndarray) -> np.ndarray:
    """Return the mean length of a path in a tree of so many rows, c in equation 1."""
    n = np.maximum(counts, 2)
    harmonic = np.log(n - 1) + np.euler_gamma
    usual = np.where(n == 2, 1.0, 2 * harmonic - 2 * (n - 1) / n)
    return np.where(counts < 2, 0.0, usual)
