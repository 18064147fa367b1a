"""Streams of edges: validated, cut into snapshots, as matrices, and with others beside them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

ROUNDS = 8  # of drawing another node for a pair that turned out to be an edge


class Edges(NamedTuple):
    """Stream of edges, in the order of time."""

    pairs: np.ndarray  # (n, 2), numbers of nodes, int64
    weights: np.ndarray  # (n,), float64
    columns: int  # of X


def read_edges(X: Any) -> Edges:
    """Return X as a stream of edges; refuse what is none.

    Raises
    ------
    ValueError
        Says what is wrong, and what to do.
    """
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    X = np.asarray(X)
    if X.ndim != 2 or X.shape[1] not in (2, 3, 4) or not len(X):
        raise ValueError(
            f"X has shape {X.shape}; expected edges, (n_edges, 2), (n_edges, 3) or (n_edges, 4), "
            "with columns source, target, weight, time."
        )
    if X.dtype.kind not in "iuf":
        raise ValueError(
            f"X holds {X.dtype}; nodes must be integers: number them, by pandas.factorize say."
        )
    if X.dtype.kind == "f" and not np.isfinite(X).all():
        raise ValueError("X holds NaN or infinity; leave such edges out.")
    ends = X[:, :2]
    if X.dtype.kind == "f" and ((ends != np.floor(ends)) | (np.abs(ends) >= 1 << 53)).any():
        raise ValueError("Nodes, the first two columns of X, must be integers.")
    weights = X[:, 2].astype(np.float64) if X.shape[1] > 2 else np.ones(len(X))
    if not (weights > 0).all():
        raise ValueError("Weights, the third column of X, must be positive.")
    if X.shape[1] == 4 and (X[1:, 3] < X[:-1, 3]).any():
        raise ValueError("X must be in the order of time, its fourth column: sort the edges.")
    return Edges(ends.astype(np.int64), weights, X.shape[1])


def starts(nodes: np.ndarray, key: int, size: int) -> Tensor:
    """Draw a normal vector for each node, (n, size): always the same for a number and a key.

    So a node that was not there in training starts as it would have started in it.
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64: SplitMix64 of node and place
        place = np.arange(1, size + 1, dtype=np.uint64)
        x = _mixed(nodes.astype(np.uint64) + _mixed(np.uint64(key)))[:, None]
        x = _mixed(x + place * np.uint64(0x9E3779B97F4A7C15))
    uniform = ((x >> np.uint64(11)).astype(np.float64) + 0.5) / (1 << 53)
    return torch.from_numpy((ndtri(uniform) / np.sqrt(size)).astype(np.float32))


def _mixed(x: Any) -> Any:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def normalised(rows: Tensor, weights: Tensor, n: int) -> Tensor:
    """Return D^-1/2 (A + I) D^-1/2 of undirected edges between n rows, sparse."""
    own = torch.arange(n, device=rows.device)
    place = torch.cat([rows.T, rows.T.flip(0), own.expand(2, -1)], 1)
    values = torch.cat([weights, weights, torch.ones(n, device=rows.device)])
    degrees = torch.zeros(n, device=rows.device).index_add_(0, place[0], values)
    values = values * (degrees[place[0]] * degrees[place[1]]).rsqrt()
    return torch.sparse_coo_tensor(place, values, (n, n), check_invariants=False).coalesce()


class Others:
    """Source of pairs of nodes that are no edges, which edges are compared with.

    Parameters
    ----------
    rows : Tensor of shape (n_edges, 2)
        Edges between the rows ``first`` to ``n - 1``.
    n, first : int
    """

    def __init__(self, rows: Tensor, n: int, first: int) -> None:
        self.n, self.first = n, first
        self.known = self._keys(rows).unique()  # in ascending order
        self.degrees = torch.bincount(rows.reshape(-1), minlength=n).float()

    def _keys(self, rows: Tensor) -> Tensor:
        a, b = rows.unbind(1)
        return torch.minimum(a, b) * self.n + torch.maximum(a, b)

    def draw(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a pair for each edge, (n, 2), and return which are no edges and of two nodes.

        One end is replaced by a node drawn uniformly: the source i with probability
        d_i / (d_i + d_j), or the target j. After ``ROUNDS`` draws it is left as it is.
        """
        at: Any = {"generator": generator, "device": rows.device}
        degrees = self.degrees[rows]
        source = torch.rand(len(rows), **at) * degrees.sum(1) < degrees[:, 0]
        replaced = torch.stack([source, ~source], 1)
        found, good = rows, torch.zeros_like(source)
        for _ in range(ROUNDS):
            node = torch.randint(self.first, self.n, (len(rows), 1), **at)
            pair = torch.where(replaced, node, rows)
            found = torch.where(good[:, None], found, pair)
            keys = self._keys(found)
            place = torch.searchsorted(self.known, keys).clamp(max=len(self.known) - 1)
            good = (self.known[place] != keys) & (found[:, 0] != found[:, 1])
        return found, good
