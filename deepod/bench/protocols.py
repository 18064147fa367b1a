"""Protocols: how a dataset is divided, and which labels a detector gets in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch

_BLENDED = 10_000  # training images of all classes
SMALL, LARGE = 1000, 50_000  # rows that the published protocol brings every table to


class Split(NamedTuple):
    """Training and test rows, with labels: 1 = anomaly, 0 = normal."""

    X_train: np.ndarray
    y_train: np.ndarray  # true labels: for facts about the rows, not for the detector
    X_test: np.ndarray
    y_test: np.ndarray
    given: np.ndarray | None = None  # labels that the detector gets, of the training rows


class Rows(NamedTuple):
    """A table, and the numbers of its training and test rows. Noise studies change ``X``."""

    X: np.ndarray
    y: np.ndarray
    train: np.ndarray
    test: np.ndarray
    given: np.ndarray | None = None  # of all rows


class Protocol(NamedTuple):
    """One way to divide a table."""

    divide: Callable[[np.ndarray, np.ndarray, int, float], Rows]
    about: str
    least: float | None = None  # smallest amount in the name of the protocol; None: no amount
    most: float | None = None  # largest amount
    shared_rows: bool = False  # whether test rows may be training rows too
    standardised: bool = False  # whether rows are standardised for every detector


# --- clean protocols ------------------------------------------------------------------------------


def one_class(X: np.ndarray, y: np.ndarray, seed: int, amount: float = 0) -> Rows:
    """Train on a random half of the normal rows, test on the other half and all anomalies."""
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
    half = len(normal) // 2
    return Rows(X, y, normal[:half], np.concatenate([normal[half:], np.flatnonzero(y == 1)]))


def unsupervised(X: np.ndarray, y: np.ndarray, seed: int, amount: float = 0) -> Rows:
    """Train on 70 % of all rows and test on the others, with the same share of anomalies."""
    train, test = train_test_split(np.arange(len(y)), test_size=0.3, stratify=y, random_state=seed)
    return Rows(X, y, train, test)


def supervised(X: np.ndarray, y: np.ndarray, seed: int, amount: float = 0) -> Rows:
    """Divide as "unsupervised" does, and give the detector the labels of the training rows."""
    return unsupervised(X, y, seed)._replace(given=y)


def few_labels(X: np.ndarray, y: np.ndarray, seed: int, amount: float) -> Rows:
    """Divide as "unsupervised" does, and label ``amount`` % of the anomalies in training.

    At least one anomaly is labelled 1. All other training rows have the label 0, including the
    other anomalies, as in ADBench (Han et al., NeurIPS 2022, section 3.2).
    """
    rows = unsupervised(X, y, seed)
    anomalies = rows.train[y[rows.train] == 1]
    count = max(1, round(len(anomalies) * amount / 100))
    given = np.zeros_like(y)
    given[np.random.default_rng((seed, 2)).choice(anomalies, count, replace=False)] = 1
    return rows._replace(given=given)


def contaminated(X: np.ndarray, y: np.ndarray, seed: int, amount: float) -> Rows:
    """Train on half of the normal rows, with anomalies that make up ``amount`` % of all.

    The anomalies are taken from a random half of them. The other half is tested on, so that the
    test rows are the same for every amount. If there are too few, all of the half is taken;
    ``train_anomaly_share`` in the results is the actual share.
    """
    rows = one_class(X, y, seed)
    anomalies = np.random.default_rng((seed, 2)).permutation(np.flatnonzero(y == 1))
    half = len(anomalies) // 2
    share = amount / 100
    count = min(half, round(share / (1 - share) * len(rows.train)))
    normal = rows.test[y[rows.test] == 0]
    train = np.concatenate([rows.train, anomalies[:count]])
    return Rows(X, y, train, np.concatenate([normal, anomalies[half:]]))


# --- noise studies: ADBench, section 4.4 ----------------------------------------------------------


def duplicated(X: np.ndarray, y: np.ndarray, seed: int, amount: float) -> Rows:
    """Divide as "unsupervised" does, and repeat every anomaly ``amount`` times.

    The copies of an anomaly are either all training rows or all test rows.
    """
    rows = unsupervised(X, y, seed)

    def repeated(part: np.ndarray) -> np.ndarray:
        return np.repeat(part, np.where(y[part] == 1, int(amount), 1))

    return rows._replace(train=repeated(rows.train), test=repeated(rows.test))


def irrelevant(X: np.ndarray, y: np.ndarray, seed: int, amount: float) -> Rows:
    """Divide as "unsupervised" does, and add noise until it is ``amount`` % of the columns.

    The values of a noise column are uniform between the smallest and the largest training value of
    another column, which is chosen at random.
    """
    rows = unsupervised(X, y, seed)
    rng = np.random.default_rng((seed, 2))
    d = X.shape[1]
    count = max(1, round(d * amount / (100 - amount)))
    like = X[rows.train][:, rng.integers(d, size=count)]
    noise = rng.uniform(like.min(0), like.max(0), (len(X), count))
    return rows._replace(X=np.concatenate([X, noise.astype(X.dtype)], axis=1))


def label_errors(X: np.ndarray, y: np.ndarray, seed: int, amount: float) -> Rows:
    """Divide as "supervised" does, and invert ``amount`` % of the labels of each class."""
    rows = unsupervised(X, y, seed)
    given, rng = y.copy(), np.random.default_rng((seed, 2))
    for label in (0, 1):
        of_class = rows.train[y[rows.train] == label]
        wrong = rng.choice(of_class, round(len(of_class) * amount / 100), replace=False)
        given[wrong] = 1 - label
    return rows._replace(given=given)


# --- protocols whose test rows may be training rows too -------------------------------------------


def transductive(X: np.ndarray, y: np.ndarray, seed: int, amount: float = 0) -> Rows:
    """Train on all rows and score the same rows."""
    return Rows(X, y, np.arange(len(y)), np.arange(len(y)))


def published_semi(X: np.ndarray, y: np.ndarray, seed: int, amount: float = 0) -> Rows:
    """Train on the first half of the normal rows, in the order of the file; test on all others.

    This is the protocol of Livernoche et al. (ICLR 2024). Test rows may be copies of training rows,
    which :func:`_resized` has made.
    """
    X, y, _ = _resized(X, y, seed)
    normal, anomalies = np.flatnonzero(y == 0), np.flatnonzero(y == 1)
    half = len(normal) // 2
    return Rows(X, y, normal[:half], np.concatenate([normal[half:], anomalies]))


def published_unsupervised(X: np.ndarray, y: np.ndarray, seed: int, amount: float = 0) -> Rows:
    """Train on n rows drawn with replacement from all n rows, and test on all rows.

    This is the protocol of Livernoche et al. (ICLR 2024).
    """
    X, y, rng = _resized(X, y, seed)
    return Rows(X, y, rng.choice(len(y), len(y), replace=True), np.arange(len(y)))


def _resized(
    X: np.ndarray, y: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.random.RandomState]:
    """Draw 1,000 rows with replacement if there are fewer, and 50,000 without if there are more."""
    rng = np.random.RandomState(seed)
    if len(y) < SMALL:
        drawn = rng.choice(len(y), SMALL, replace=True)
    elif len(y) > LARGE:
        drawn = rng.choice(len(y), LARGE, replace=False)
    else:
        return X, y, rng
    return X[drawn], y[drawn], rng


PROTOCOLS = {
    "one-class": Protocol(one_class, "half of the normal rows train"),
    "unsupervised": Protocol(unsupervised, "70 % of all rows train"),
    # DAGMM's (Zong et al., ICLR 2018), as GOAD and those after it use it: the rows are those of
    # "one-class"; the name says which published F1 a result may be put beside.
    "dagmm": Protocol(one_class, "half of the normal rows train; F1 is the metric"),
    "supervised": Protocol(supervised, "70 % of all rows train, with their labels"),
    "few-labels": Protocol(
        few_labels, "70 % of all rows train; this % of their anomalies is labelled", 0, 100
    ),
    "contaminated": Protocol(
        contaminated, "half of the normal rows train, and anomalies: this % of all", 0, 50
    ),
    "duplicated": Protocol(duplicated, "unsupervised, every anomaly this many times", 1, 100),
    "irrelevant": Protocol(irrelevant, "unsupervised, this % of the columns is noise", 0, 99),
    "label-errors": Protocol(label_errors, "supervised, this % of the labels is wrong", 0, 50),
    "transductive": Protocol(transductive, "all rows train, and are scored", shared_rows=True),
    "published-semi": Protocol(
        published_semi, "Livernoche et al., semi-supervised", shared_rows=True, standardised=True
    ),
    "published-unsupervised": Protocol(
        published_unsupervised,
        "Livernoche et al., unsupervised",
        shared_rows=True,
        standardised=True,
    ),
}


# Protocols whose datasets come divided into a training and a test part.
DIVIDED = {
    "images": "the images of one class train, or of several; all others are anomalies",
    "blended-images": "images of all classes train; means of two test images are anomalies",
    "series": "the training part of a series trains, the part after it is scored point by point",
}


def find(name: str) -> tuple[Protocol, float]:
    """Return a protocol and the amount in its name, such as 5 in "few-labels-5", else 0.

    The protocols of :data:`DIVIDED` are not found.

    Raises
    ------
    ValueError
        If no protocol has this name; the message lists all.
    """
    if name in PROTOCOLS and PROTOCOLS[name].least is None:
        return PROTOCOLS[name], 0.0
    kind, _, text = name.rpartition("-")
    protocol = PROTOCOLS.get(kind)
    if protocol is not None and protocol.least is not None and protocol.most is not None:
        try:
            amount = float(text)
        except ValueError:
            amount = np.nan
        if protocol.least <= amount <= protocol.most:
            return protocol, amount
    known = (
        f"{key}-N (N from {p.least:g} to {p.most:g})" if p.least is not None else key
        for key, p in PROTOCOLS.items()
    )
    raise ValueError(f"No protocol {name!r}; there are {', '.join([*DIVIDED, *known])}.")


def split_table(
    protocol: str,
    X: np.ndarray,
    y: np.ndarray,
    seed: int,
    max_train: int | None = None,
    max_test: int | None = None,
) -> Split:
    """Divide a table into training and test rows.

    Parameters
    ----------
    protocol : str
        A key of :data:`PROTOCOLS`, followed by the amount if it has one, as in "few-labels-5".
    X : ndarray of shape (n, d)
    y : ndarray of shape (n,)
        True labels: 1 = anomaly, 0 = normal. The detector gets only those in ``given``.
    seed : int
    max_train, max_test : int, optional
        Largest number of training and of test rows. If there are more, they are drawn at random;
        test rows keep their share of anomalies, with at least one anomaly.

    Returns
    -------
    Split
        The test rows are in random order.

    Raises
    ------
    ValueError
        If there are too few rows, or the test rows have only one class.
    RuntimeError
        If a row is both a training and a test row, unless the protocol allows it.
    """
    found, amount = find(protocol)
    X, y, train, test, given = found.divide(X, y, seed, amount)
    rng = np.random.default_rng((seed, 1))
    labelled = np.flatnonzero(given) if given is not None else None
    train = _cap_train(train, max_train, rng, labelled)
    test = _cap_test(test, y, max_test, rng)
    if not found.shared_rows and np.intersect1d(train, test).size:
        raise RuntimeError(f"Protocol {protocol} both trains and tests on a row: a leak.")
    shown = None if given is None else given[train]
    return _checked(Split(X[train], y[train], X[test], y[test], shown))


def split_images(
    images: Bunch,
    normal: int | Sequence[int],
    seed: int,
    max_train: int | None = None,
    max_test: int | None = None,
) -> Split:
    """Train on the training images of one or more classes, and test on all test images.

    Parameters
    ----------
    images : Bunch
        As :func:`deepod.datasets.load_images` returns it without ``normal``.
    normal : int or sequence of int
        The normal classes; the images of all other classes are the anomalies.
    seed : int
        Seed of the draws for ``max_train`` and ``max_test``, and of the order of the test images.
    max_train, max_test : int, optional
        As in :func:`split_table`.

    Returns
    -------
    Split
    """
    classes = np.atleast_1d(normal)
    y_test = (~np.isin(images.test_target, classes)).astype(int)
    rng = np.random.default_rng((seed, 1))
    train = _cap_train(np.flatnonzero(np.isin(images.target, classes)), max_train, rng)
    test = _cap_test(np.arange(len(y_test)), y_test, max_test, rng)
    X_train = images.data[train]
    return _checked(Split(X_train, np.zeros(len(train), int), images.test[test], y_test[test]))


def blend_images(
    images: Bunch, seed: int, max_train: int | None = None, max_test: int | None = None
) -> Split:
    """Train on images of all classes, and test on test images and means of two of them.

    The means, pixel by pixel, are the anomalies. This is the protocol of section 4.5 of PLAD (Cai &
    Fan, NeurIPS 2022): 10,000 training images, all test images, and as many anomalies, each of a
    random pair.

    Parameters
    ----------
    images : Bunch
        As :func:`deepod.datasets.load_images` returns it without ``normal``.
    seed : int
    max_train : int, optional
        Largest number of training images; 10,000 by default.
    max_test : int, optional
        As in :func:`split_table`.

    Returns
    -------
    Split
    """
    rng = np.random.default_rng((seed, 1))
    train = _cap_train(np.arange(len(images.data)), max_train or _BLENDED, rng)
    n = len(images.test)
    if n < 2:
        raise ValueError(f"Two test images are blended; there are {n}.")
    first = rng.integers(n, size=n)
    second = (first + rng.integers(1, n, size=n)) % n  # another one
    pairs = images.test[first].astype(np.float32) + images.test[second]
    X = np.concatenate([images.test, (pairs / 2).round().astype(images.test.dtype)])
    y = np.repeat([0, 1], n)
    test = _cap_test(np.arange(len(y)), y, max_test, rng)
    return _checked(Split(images.data[train], np.zeros(len(train), int), X[test], y[test]))


def split_series(series: Bunch, max_train: int | None = None, max_test: int | None = None) -> Split:
    """Train on the training part of a series, and test on its test part, in the order of time.

    Parameters
    ----------
    series : Bunch
        As :func:`deepod.datasets.load_series` returns it.
    max_train, max_test : int, optional
        Largest number of points: the last ones of the training part, the first ones of the test
        part.

    Returns
    -------
    Split
        ``y_train`` is empty, because the training part has no labels.
    """
    train = series.data if max_train is None else series.data[-max_train:]
    test, y = series.test[:max_test], series.test_target[:max_test]
    return _checked(Split(train, np.empty(0, int), test, y))


def copies(split: Split) -> float:
    """Return the share of test rows that equal a training row in every value.

    Data may have equal rows, so this is no error of the division. Methods that store training rows
    have an advantage on such data.
    """
    train, test = (
        np.ascontiguousarray(X.reshape(len(X), -1) + 0) for X in (split.X_train, split.X_test)
    )
    whole = np.dtype((np.void, train.dtype.itemsize * train.shape[1]))
    return float(np.isin(test.view(whole).ravel(), train.view(whole).ravel()).mean())


def _cap_train(
    rows: np.ndarray,
    cap: int | None,
    rng: np.random.Generator,
    labelled: np.ndarray | None = None,
) -> np.ndarray:
    if cap is None or len(rows) <= cap:
        return rows
    kept = rng.choice(rows, cap, replace=False)
    if labelled is not None and not np.isin(kept, labelled).any():
        # Few labels may all be lost by chance; a method that needs one then has nothing to learn.
        kept[0] = rng.choice(rows[np.isin(rows, labelled)])
    return kept


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
    if not split.X_train[:1].size and len(split.X_train):
        raise ValueError("Rows without columns: expected at least one beside the labels.")
    if len(split.X_train) < 2 or len(np.unique(split.y_test)) != 2:
        raise ValueError(
            f"{len(split.X_train)} training rows and test labels {np.unique(split.y_test)}: "
            "expected at least 2 rows, and both normal rows (0) and anomalies (1) to test on."
        )
    return split


def f1_at_true_count(y: np.ndarray, scores: np.ndarray) -> float:
    """Return the F1 score if the k highest scores are flagged; k is the number of anomalies in y.

    Precision, recall and F1 are then equal. Among equal scores, the first rows are flagged, which
    is a random choice, because the test rows of :class:`Split` are in random order.
    """
    k = int(y.sum())
    return float(y[np.argsort(-scores, kind="stable")[:k]].mean())
