"""Scaling in float64, and imputation of missing values by medians."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from deepod.types import Shape

# Scaled values are kept below this size: a row far outside the training range still gets a
# finite score, because its squares and products fit into float32.
LARGEST = 1e9
_CACHE_VALUES = 1 << 15  # values scaled at once: what is made of them stays in the cache


def medians(rows: np.ndarray, shape: Shape) -> np.ndarray:
    """Return the medians, without NaN, of each feature of a table or channel of other samples.

    Parameters
    ----------
    rows : ndarray of shape (n, *shape)
    shape : tuple of int
        Of one sample.

    Returns
    -------
    medians : ndarray, float64
        Medians that broadcast to one sample; 0 where there is no value at all.
    """
    columns = _by_channel(rows, shape).astype(np.float64)  # a copy; no sum of float16 overflows
    columns[:, np.isnan(columns).all(0)] = 0.0
    if not len(columns):
        return _broadcastable(np.zeros(columns.shape[1]), shape)
    # As scikit-learn's SimpleImputer finds them, in a seventh of its time.
    with np.errstate(over="ignore"):  # seen by the scaler
        return _broadcastable(np.nanmedian(columns, axis=0, overwrite_input=True), shape)


def _by_channel(rows: np.ndarray, shape: Shape) -> np.ndarray:
    """Turn samples into a table with one column for each feature or channel."""
    channel = _channel_axis(shape)
    return np.moveaxis(rows, channel + 1, -1).reshape(-1, shape[channel])


def _broadcastable(values: np.ndarray, shape: Shape) -> np.ndarray:
    """Give one value for each feature or channel the dimensions of a sample."""
    return values.reshape(-1, *(1,) * (len(shape) - 1 - _channel_axis(shape)))


def _channel_axis(shape: Shape) -> int:
    return 0 if len(shape) == 3 else len(shape) - 1


class Scaler:
    """Shift and scale each feature of a table, or each channel of images and series.

    Statistics and arithmetic are in float64, the result in float32: a column of 1e6 plus or minus
    1e-3 keeps its digits. Constant features are divided by one.

    Parameters
    ----------
    shift, scale : ndarray
        Broadcastable to one sample.
    contrast : bool, default=False
        Whether each sample is first scaled by itself to mean 0 and mean absolute value 1, which is
        global contrast normalisation in the L1 norm.
    fill : ndarray, optional
        Values that replace NaN before anything else; they broadcast to one sample.
    """

    def __init__(
        self,
        shift: np.ndarray,
        scale: np.ndarray,
        contrast: bool = False,
        fill: np.ndarray | None = None,
    ) -> None:
        self.shift = shift
        self.scale = scale
        self.contrast = contrast
        self.fill = fill
        self._known: dict[np.dtype, list[np.ndarray]] = {}  # see _terms

    @classmethod
    def fit(
        cls,
        blocks: Iterable[np.ndarray],
        shape: Shape,
        how: str | None,
        gather: Callable[[Any], list[Any]] = lambda found: [found],
        fill: np.ndarray | None = None,
        floor: float = 0.0,
        least: np.ndarray | None = None,
    ) -> Scaler:
        """Learn from samples of ``shape`` in one pass over blocks of them, such as :func:`blocks`.

        ``how`` is "standard" (mean 0, standard deviation 1), "minmax" (to [0, 1]), "symmetric"
        (to [-1, 1]), "gcn" (contrast normalisation of each sample, then to [0, 1]) or None
        (unchanged). ``gather`` collects what processes with rows of their own have found. ``fill``
        is as in the constructor. With ``floor``, features are divided by no less than this part of
        the median of what those that vary are divided by, constant ones included. No feature
        is divided by less than its value in ``least``, if there is one.
        """
        low, high, mean, variance = _combined(gather(_statistics(blocks, shape, how, fill)))
        # The scalers' own rule for constant columns takes too many for one: all that are narrower
        # than 2e-15, or long and far from zero.
        constant = high - low <= 10 * np.finfo(float).eps * np.maximum(abs(low), abs(high))
        if how is None:
            shift, scale = np.zeros_like(low), np.ones_like(low)
        elif how == "standard":
            shift, scale = mean, np.where(constant, 1.0, np.sqrt(variance))
        elif how in ("minmax", "gcn"):
            shift, scale = low, np.where(constant, 1.0, high - low)
        else:
            shift = np.where(constant, low, low / 2 + high / 2)
            scale = np.where(constant, 1.0, high / 2 - low / 2)
        scale = np.where(scale > 0, scale, 1.0)  # a variance that underflowed
        if floor and how is not None and not constant.all():
            least = floor * np.median(scale[~constant])
            scale = np.where(constant, least, np.maximum(scale, least))
        scale = scale if least is None else np.maximum(scale, least)
        learned = [shift, scale] if fill is None else [shift, scale, fill]
        if not all(np.isfinite(values).all() for values in learned):
            raise ValueError(
                "X holds values so large that their variance exceeds float64; rescale its columns."
            )
        shift, scale = _broadcastable(shift, shape), _broadcastable(scale, shape)
        return cls(shift, scale, how == "gcn", fill)

    def copy(self) -> Scaler:
        """Return a copy for one pass over rows, whose caches are freed with it."""
        return Scaler(self.shift, self.scale, self.contrast, self.fill)

    def state(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {name: getattr(self, name) for name in ("shift", "scale", "contrast", "fill")}

    def __getstate__(self) -> dict[str, Any]:
        return self.state()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_known": {}}

    def inverse(self, samples: np.ndarray) -> np.ndarray:
        """Turn scaled samples back into the units of X.

        Raises
        ------
        ValueError
            If contrast was normalised, which cannot be undone.
        """
        if self.contrast:
            raise ValueError(
                "scaler='gcn' cannot be undone, because it divides each sample by its own size; "
                "fit with another scaler."
            )
        return samples * self.scale + self.shift

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Scale rows of shape (n, *shape) into a new float32 array."""
        out = np.empty(X.shape, np.float32)
        rows = max(1, min(len(X), _CACHE_VALUES // max(1, X[:1].size)))
        *shifts, scale = self._terms(X.dtype, rows, X.shape[1:])
        work = np.empty((rows, *X.shape[1:])) if scale.dtype == np.float64 else None
        with np.errstate(over="ignore"):  # clipped below
            for start in range(0, len(X), rows):
                samples = _filled(X[start : start + rows], self.fill)
                samples = _normalize(samples) if self.contrast else samples
                size = len(samples)
                result = out[start : start + size]
                block = result if work is None else work[:size]
                for shift in shifts:
                    samples = np.subtract(samples, shift[:size], out=block, dtype=block.dtype)
                np.divide(block, scale[:size], out=block)
                if work is not None:
                    result[...] = block
        torch.from_numpy(out).clamp_(-LARGEST, LARGEST)  # in half the time of NumPy
        return out

    def _terms(self, dtype: np.dtype, rows: int, shape: Shape) -> list[np.ndarray]:
        """Return the numbers to subtract one after the other, and the divisor.

        For ``rows`` samples or more: parts of all sizes share the longest.
        A float64 shift in two float32 parts takes no digit to speak of from float32 values.
        """
        known = self._known.get(dtype)
        if known is None or len(known[0]) < rows:
            terms = [self.shift, self.scale]
            size = np.abs(self.scale)
            if (
                dtype == np.float32
                and not self.contrast
                and 1e-30 < size.min() <= size.max() < 1e30
            ):
                first = self.shift.astype(np.float32)
                terms = [
                    first,
                    (self.shift - first).astype(np.float32),
                    self.scale.astype(np.float32),
                ]
            # Repeated, because short inner loops would take most of the time.
            known = self._known[dtype] = [
                np.ascontiguousarray(np.broadcast_to(term, (rows, *shape))) for term in terms
            ]
        return known


def _statistics(
    blocks: Iterable[np.ndarray], shape: Shape, how: str | None, fill: np.ndarray | None
) -> tuple[np.ndarray, ...]:
    """Return minimum, maximum, number of values, mean and variance of each channel."""
    channels = shape[_channel_axis(shape)]
    standard, minmax = StandardScaler(), MinMaxScaler()
    for block in blocks:  # also without a scaler: who gives the blocks looks at their values
        if how is None or not len(block):
            continue
        block = _filled(block, fill)
        block = _normalize(block) if how == "gcn" else block
        block = _by_channel(block, shape).astype(np.float64)
        minmax.partial_fit(block)
        if how == "standard":
            standard.partial_fit(block)
    if how is None:
        return (np.zeros(channels),) * 5
    low, high, seen = minmax.data_min_, minmax.data_max_, minmax.n_samples_seen_
    mean = standard.mean_ if how == "standard" else np.zeros(1)
    variance = standard.var_ if how == "standard" else np.zeros(1)
    return low, high, seen, mean, variance


def _combined(parts: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Combine the statistics of several processes into minimum, maximum, mean and variance."""
    if len(parts) == 1:  # no arithmetic, which would round
        low, high, _, mean, variance = parts[0]
        return low, high, mean, variance
    lows, highs, counts, means, variances = map(np.array, zip(*parts, strict=True))
    if not counts.any():  # without a scaler
        return lows[0], highs[0], means[0], variances[0]
    mean = np.average(means, 0, counts)
    variance = np.average(variances + (means - mean) ** 2, 0, counts)
    return lows.min(0), highs.max(0), mean, variance


def _filled(samples: np.ndarray, fill: np.ndarray | None) -> np.ndarray:
    """Return samples with NaN replaced by ``fill``, in a copy if there are any."""
    if fill is None or samples.dtype.kind != "f":
        return samples
    gaps = np.isnan(samples)
    if not gaps.any():
        return samples
    # In the precision of samples, as if they had come filled; float16 may be too short.
    return np.where(gaps, fill.astype(np.result_type(samples.dtype, np.float32)), samples)


def _normalize(samples: np.ndarray) -> np.ndarray:
    """Subtract each sample's mean, divide by its mean absolute value; constant ones become 0."""
    axes = tuple(range(1, samples.ndim))
    samples = samples.astype(np.float64)
    largest = np.abs(samples).max(axes, keepdims=True)
    samples /= np.where(largest > 0, largest, 1.0)  # so that no sum overflows
    samples -= samples.mean(axes, keepdims=True)
    size = np.abs(samples).mean(axes, keepdims=True)
    constant = size < 1e-12  # rounding, beside a largest value of 1
    return np.where(constant, 0.0, samples / np.where(constant, 1.0, size))
