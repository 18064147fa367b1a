"""Random division of rows into training, validation and calibration rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deepod._inputs.seeds import Seeds

NO_NORMAL_ROW = "y marks every row of X as an anomaly; some rows must be normal."


class Division(NamedTuple):
    """The numbers of training, validation and calibration rows.

    Attributes
    ----------
    train, watch, calibrate : ndarray of int
        Row numbers in ascending order. Every row is in exactly one of them.
    """

    train: np.ndarray
    watch: np.ndarray
    calibrate: np.ndarray


def divide(
    n: int,
    y: np.ndarray | None,
    *,
    validation_fraction: float,
    calibration_fraction: float,
    seeds: Seeds,
) -> Division:
    """Divide n rows at random into training, validation and calibration rows.

    Parameters
    ----------
    n : int
    y : ndarray of shape (n,) or None
        Labels. Only normal rows are used for calibration; validation rows are stratified.
    validation_fraction : float
        Share of validation rows among the rows that are not used for calibration.
    calibration_fraction : float
        Share of calibration rows among the normal rows.
    seeds : Seeds
        Its ``calibration`` and ``split`` are used.

    Raises
    ------
    ValueError
        If fewer than two rows are left to train on, or no row is normal.
    """
    calibrate = np.arange(0)
    count = count_calibration(n, y, calibration_fraction)
    if count:
        normal = np.arange(n) if y is None else np.flatnonzero(y == 0)
        calibrate = np.sort(np.random.default_rng(seeds.calibration).permutation(normal)[:count])
    rest = np.delete(np.arange(n), calibrate)
    count = count_held_out("validation_fraction", validation_fraction, len(rest))
    if not count:
        return Division(rest, rest[:0], calibrate)
    order = np.random.default_rng(seeds.split).permutation(rest)
    if y is None:
        return Division(np.sort(order[count:]), np.sort(order[:count]), calibrate)
    classes = [order[y[order] == label] for label in (0, 1)]
    counts = [round(len(rows) * validation_fraction) for rows in classes]
    train = np.concatenate([rows[k:] for rows, k in zip(classes, counts, strict=True)])
    watch = np.concatenate([rows[:k] for rows, k in zip(classes, counts, strict=True)])
    return Division(np.sort(train), np.sort(watch), calibrate)


def count_calibration(n: int, y: np.ndarray | None, fraction: float) -> int:
    """Return the number of calibration rows; raise ValueError if no row is normal."""
    normal = n if y is None else int(np.count_nonzero(y == 0))
    if not normal:
        raise ValueError(NO_NORMAL_ROW)
    return count_held_out("calibration_fraction", fraction, normal)


def count_held_out(parameter: str, fraction: float, n: int) -> int:
    """Return how many of n rows a share is: at least one, unless the share is 0."""
    if not fraction:
        return 0
    held_out = max(1, round(n * fraction))
    if n - held_out < 2:
        raise ValueError(
            f"{parameter}={fraction} leaves {n - held_out} of {n} rows to train on; at least 2 "
            "are needed."
        )
    return held_out
