"""Artificial anomalies: noise on a few rows, and SMOTE between these; repeated known ones."""

from __future__ import annotations

import numpy as np


def replace_by_noise(
    X: np.ndarray,
    rng: np.random.Generator,
    *,
    noise_ratio: float,
    noise_std: float,
    synthetic_ratio: float,
    k_neighbors: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Turn a few rows into artificial anomalies.

    Parameters
    ----------
    X : ndarray of shape (n, *shape)
    rng : numpy.random.Generator
    noise_ratio : float
        Share of the rows that get noise: two rows at least, and never all.
    noise_std : float
        Standard deviation of the noise.
    synthetic_ratio : float
        Share of all rows that are abnormal in the end, where SMOTE has to add some for it.
    k_neighbors : int
        Neighbours of a noisy row that SMOTE interpolates to, at most all.

    Returns
    -------
    rest : ndarray of shape (n - m, *shape)
        Rows without noise.
    abnormal : ndarray
        The m noisy rows, then those that SMOTE drew.
    """
    n = len(X)
    X = rng.permutation(X)
    m = max(0, min(max(2, round(noise_ratio * n)), n - 1)) if noise_ratio else 0
    noisy = X[:m] + rng.normal(0, noise_std, (m, *X.shape[1:]))
    extra = round(synthetic_ratio / (1 - synthetic_ratio) * (n - m)) - m
    abnormal = np.concatenate([noisy, _interpolate(noisy, extra, k_neighbors, rng)])
    return X[m:], abnormal.astype(np.float32)


def repeat(known: np.ndarray, others: int, ratio: float) -> np.ndarray:
    """Repeat known anomalies evenly, until they are this share of themselves and so many others.

    All are there at least once, and none are made where none are known: of rows that are read from
    disk, buffer by buffer, only those with a known anomaly get more of it.
    """
    wanted = max(len(known), round(ratio / (1 - ratio) * others)) if len(known) else 0
    return known[np.resize(np.arange(len(known)), wanted)]


def _interpolate(
    rows: np.ndarray, extra: int, k_neighbors: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw more rows between neighbouring ones."""
    if extra <= 0 or len(rows) < 2:
        return rows[:0]
    from imblearn.over_sampling import SMOTE

    flat = rows.reshape(len(rows), -1)
    smote = SMOTE(
        sampling_strategy={1: len(rows) + extra},
        k_neighbors=min(k_neighbors, len(rows) - 1),
        random_state=int(rng.integers(2**31)),
    )
    # SMOTE wants a second class: one row of it.
    labels = np.repeat([1, 0], [len(rows), 1])
    more, _ = smote.fit_resample(np.concatenate([flat, flat[:1]]), labels)
    return more[len(rows) + 1 :].reshape(-1, *rows.shape[1:])
