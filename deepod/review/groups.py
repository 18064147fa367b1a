"""Groups of rows with similar reasons for their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

_MOST = 8  # groups
_SAMPLE = 1000  # rows that their number is chosen by
_CLEAR = 0.25  # silhouette (Rousseeuw, 1987) from which on there is said to be a structure
_NEARLY = 0.9  # of the clearest silhouette: few groups are seen through more easily
_NAMED = 3  # columns in the name of a group


class Group(NamedTuple):
    """A group of rows with similar reasons for their scores."""

    name: str  # the columns that add most
    rows: int


def alike(contributions: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[Group]]:
    """Group rows by the directions of their positive contributions.

    Parameters
    ----------
    contributions : ndarray of shape (n, d)
        Contributions as returned by ``explain``; negative ones are ignored.
    names : sequence of str of shape (d,)
        Names of the columns.

    Returns
    -------
    labels : ndarray of shape (n,), int
        The group of each row; the largest group is 0.
    groups : list of Group
        Empty if the rows make no clear groups.
    """
    reasons = np.maximum(contributions, 0)
    lengths = np.linalg.norm(reasons, axis=1, keepdims=True)
    directions = reasons / np.where(lengths > 0, lengths, 1)
    best = _best(directions[:: 1 + (len(directions) - 1) // _SAMPLE])
    if best is None:
        return np.zeros(len(directions), int), []
    found = np.unique(best.predict(directions), return_inverse=True)[1]
    counts = np.bincount(found)
    order = np.argsort(-counts, kind="stable")
    labels = np.argsort(order)[found]
    groups = [
        Group(_name(directions[found == group].mean(0), names), int(counts[group]))
        for group in order
    ]
    return labels, groups


def _best(sample: np.ndarray) -> KMeans | None:
    """Return the clustering with the fewest groups that is nearly the clearest, or None."""
    different = len(np.unique(sample.round(6), axis=0))
    found = []
    for k in range(2, min(_MOST, different, len(sample) // 3) + 1):
        clusters = KMeans(k, n_init=4, random_state=0).fit(sample)
        found.append((float(silhouette_score(sample, clusters.labels_)), clusters))
    clearest = max((clear for clear, _ in found), default=0.0)
    if clearest < _CLEAR:
        return None
    return next(clusters for clear, clusters in found if clear >= _NEARLY * clearest)


def _name(mean: np.ndarray, names: Sequence[str]) -> str:
    """Return a name for a group: its top columns, up to two thirds of all contributions."""
    order = np.argsort(-mean, kind="stable")[:_NAMED]
    before = np.cumsum(mean[order]) - mean[order]
    return ", ".join(names[j] for j in order[before < mean.sum() * 2 / 3])
