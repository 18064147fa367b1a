"""How a dataset is divided into training and test rows.

Detectors are given the training rows without their labels, in every protocol but "supervised".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch


class Split(NamedTuple):
    """Training and test rows; labels 1 = anomaly."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def one_class(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Train on a random half of the normal rows, test on the other half and all anomalies."""
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
    half = len(normal) // 2
    return normal[:half], np.concatenate([normal[half:], np.flatnonzero(y == 1)])


def unsupervised(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Train on 70 % of the rows, anomalies among them, test on 30 %; the same share in both."""
    train, test = train_test_split(np.arange(len(y)), test_size=0.3, stratify=y, random_state=seed)
    return train, test


def dagmm(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Train on 50 % of the normal rows, test on the others and all anomalies.

    The protocol of DAGMM (Zong et al., ICLR 2018) as GOAD (Bergman & Hoshen, ICLR 2020) and those
    after it use it; its metric is F1 when as many test rows are flagged as there are anomalies
    among them. The rows are those of "one-class", and F1 at the true count is reported for every
    protocol: the name says which published numbers a result may be put beside.
    """
    return one_class(y, seed)


def supervised(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split as "unsupervised" does; the detectors get the labels of the training rows."""
    return unsupervised(y, seed)


PROTOCOLS: dict[str, Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]] = {
    "one-class": one_class,
    "unsupervised": unsupervised,
    "dagmm": dagmm,
    "supervised": supervised,
}


def split_table(
    protocol: str,
    X: np.ndarray,
    y: np.ndarray,
    seed: int,
    max_train: int | None = None,
    max_test: int | None = None,
) -> Split:
    """Divide a table.

    Parameters
    ----------
    protocol : {"one-class", "unsupervised", "dagmm", "supervised"}
    X : ndarray of shape (n, d)
    y : ndarray of shape (n,)
        1 = anomaly. Decides the division; a detector sees it in "supervised" only.
    seed : int
    max_train, max_test : int, optional
        At most so many rows, drawn at random; those to test on with the share of anomalies kept
        (but at least one anomaly).

    Returns
    -------
    Split
        Test rows in random order, so that nothing follows from the position of a row.
    """
    train, test = PROTOCOLS[protocol](y, seed)
    rng = np.random.default_rng((seed, 1))
    train, test = _cap_train(train, max_train, rng), _cap_test(test, y, max_test, rng)
    assert not np.intersect1d(train, test).size, "a row is both trained and tested on"
    return _checked(Split(X[train], y[train], X[test], y[test]))


def split_images(
    images: Bunch,
    normal: int,
    seed: int,
    max_train: int | None = None,
    max_test: int | None = None,
) -> Split:
    """Train on the training images of one class, test on all test images.

    Parameters
    ----------
    images : Bunch
        As :func:`benchmarks.datasets.load_images` returns it.
    normal : int
        The normal class; the images of all other classes are the anomalies.
    seed : int
        Seed of the caps and of the order; without caps every seed has the same images.
    max_train, max_test : int, optional
        As in :func:`split_table`.

    Returns
    -------
    Split
    """
    y_test = (images.test_target != normal).astype(int)
    rng = np.random.default_rng((seed, 1))
    train = _cap_train(np.flatnonzero(images.train_target == normal), max_train, rng)
    test = _cap_test(np.arange(len(y_test)), y_test, max_test, rng)
    X_train = images.train[train]
    return _checked(Split(X_train, np.zeros(len(train), int), images.test[test], y_test[test]))


def _cap_train(rows: np.ndarray, cap: int | None, rng: np.random.Generator) -> np.ndarray:
    return rows if cap is None or len(rows) <= cap else rng.choice(rows, cap, replace=False)


def _cap_test(
    rows: np.ndarray, y: np.ndarray, cap: int | None, rng: np.random.Generator
) -> np.ndarray:
    if cap is not None and len(rows) > cap:
        normals, anomalies = rows[y[rows] == 0], rows[y[rows] == 1]
        count = int(np.clip(round(cap * len(anomalies) / len(rows)), 1, cap - 1))
        parts = ((anomalies, count), (normals, cap - count))
        rows = np.concatenate([rng.choice(part, n, replace=False) for part, n in parts])
    return rng.permutation(rows)


def _checked(split: Split) -> Split:
    if len(split.X_train) < 2 or len(np.unique(split.y_test)) != 2:
        raise ValueError(
            f"{len(split.X_train)} training rows and test labels {np.unique(split.y_test)}: "
            "expected at least 2 rows, and both normal rows (0) and anomalies (1) to test on."
        )
    return split


def f1_at_true_count(y: np.ndarray, scores: np.ndarray) -> float:
    """F1 of flagging the k highest scores, where k is the number of anomalies in y.

    Precision, recall and F1 are then the same number. Of tied scores the earlier rows are flagged:
    a random choice, as :class:`Split` holds the test rows in random order.
    """
    k = int(y.sum())
    return float(y[np.argsort(-scores, kind="stable")[:k]].mean())
