"""From the user's array to tensors: shapes, scaling in float64, devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import Tensor

from deepod._missing import check_finite
from deepod.data import Source, cut
from deepod.types import Shape

# Scaled values are kept below this size: a row far outside the training range still gets a
# finite score, because its squares and products fit into float32.
LARGEST = 1e9
LARGEST_SCORE = float(np.finfo(np.float32).max)  # where a network's squares do not fit all the same
_BLOCK_VALUES = 1 << 20  # values that statistics are taken of at once
_GATHERED_ROWS = 4096  # that each of several processes shows, for medians of all
_CACHE_VALUES = 1 << 15  # values scaled at once: what is made of them stays in the cache


def resolve_device(name: str) -> torch.device:
    """Turn the ``device`` parameter into an available device.

    Raises
    ------
    ValueError
        If the string names no device, or one that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"device={name!r} is no device; use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'."
        ) from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise ValueError(f"device={name!r} is not available on this machine; use 'auto' or 'cpu'.")
    return device


def sample_shape(X: np.ndarray | Source, input_shape: Shape | None) -> Shape:
    """Shape of one sample: that of X's rows, or ``input_shape`` when the rows are flat.

    Raises
    ------
    ValueError
        If ``input_shape`` does not fit the rows, or X has more than four dimensions.
    """
    rows = X.shape[1:]
    if 0 in rows:
        raise ValueError(f"X has 0 features: its samples have shape {rows}.")
    if input_shape is None:
        if len(X.shape) > 4:
            raise ValueError(
                f"X has {len(X.shape)} dimensions; expected (n, features), (n, time, channels) or "
                "(n, channels, height, width)."
            )
        return rows
    shape = tuple(input_shape)
    if (
        not all(type(size) is int or isinstance(size, np.integer) for size in shape)
        or min(shape, default=0) < 1
    ):
        raise ValueError(f"input_shape must hold positive integers, got {input_shape!r}.")
    shape = tuple(int(size) for size in shape)
    if rows != shape and not (len(rows) == 1 and rows[0] == np.prod(shape)):
        raise ValueError(
            f"input_shape={input_shape!r} does not fit X, whose rows have shape {rows}: expected "
            f"rows of that shape, or flat rows of {int(np.prod(shape))} values."
        )
    return shape


def medians(
    rows: np.ndarray, shape: Shape, gather: Callable[[Any], list[Any]] | None = None
) -> np.ndarray:
    """Medians of each feature of a table, or each channel of images and windows, without the NaNs.

    Parameters
    ----------
    rows : ndarray of shape (n, *shape)
    shape : tuple of int
        Of one sample.
    gather : callable, optional
        Collects what processes with rows of their own have; each shows some of its rows.

    Returns
    -------
    medians : ndarray, float64
        Broadcastable to one sample; 0 where there is no value at all.
    """
    if gather is not None:
        rows = np.concatenate(gather(rows[:: 1 + len(rows) // _GATHERED_ROWS]))
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
        Whether each sample is first brought to mean 0 and mean absolute value 1 on its own: global
        contrast normalisation in the L1 norm.
    fill : ndarray, optional
        Broadcastable to one sample: what takes the place of NaN before anything else.
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
        gather: Callable[[Any], list[Any]] | None = None,
        fill: np.ndarray | None = None,
    ) -> Scaler:
        """Learn from samples of ``shape`` in one pass over blocks of them, such as :func:`blocks`.

        ``how`` is "standard" (mean 0, standard deviation 1), "minmax" (to [0, 1]), "symmetric"
        (to [-1, 1]), "gcn" (contrast normalisation of each sample, then to [0, 1]) or None
        (unchanged). ``gather`` collects what processes with rows of their own have found. ``fill``
        is as in the constructor.
        """
        contrast = how == "gcn"
        channels = shape[_channel_axis(shape)]
        standard, minmax = StandardScaler(), MinMaxScaler()
        for block in blocks:
            if how is None or not len(block):
                continue
            block = _filled(block, fill)
            block = _by_channel(_normalize(block) if contrast else block, shape).astype(np.float64)
            minmax.partial_fit(block)
            if how == "standard":
                standard.partial_fit(block)
        if how is not None:
            low, high = minmax.data_min_, minmax.data_max_
            seen = minmax.n_samples_seen_
            mean = standard.mean_ if how == "standard" else np.zeros(1)
            variance = standard.var_ if how == "standard" else np.zeros(1)
            if gather is not None:
                parts = gather((low, high, seen, mean, variance))
                lows, highs, counts, means, variances = map(np.array, zip(*parts, strict=True))
                low, high = lows.min(0), highs.max(0)
                mean = np.average(means, 0, counts)
                variance = np.average(variances + (means - mean) ** 2, 0, counts)
            # The scalers' own rule for constant columns takes too many for one: all that are
            # narrower than 2e-15, or long and far from zero.
            constant = high - low <= 10 * np.finfo(float).eps * np.maximum(abs(low), abs(high))
        if how is None:
            shift, scale = np.zeros(channels), np.ones(channels)
        elif how == "standard":
            shift, scale = mean, np.where(constant, 1.0, np.sqrt(variance))
        elif how in ("minmax", "gcn"):
            shift, scale = low, np.where(constant, 1.0, high - low)
        else:
            shift = np.where(constant, low, low / 2 + high / 2)
            scale = np.where(constant, 1.0, high / 2 - low / 2)
        scale = np.where(scale > 0, scale, 1.0)  # a variance that underflowed
        learned = [shift, scale] if fill is None else [shift, scale, fill]
        if not all(np.isfinite(values).all() for values in learned):
            raise ValueError("X holds values too large for float64; rescale its columns.")
        return cls(_broadcastable(shift, shape), _broadcastable(scale, shape), contrast, fill)

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
        """List what to subtract, one after the other, and what to divide by.

        For ``rows`` samples or more: parts of all sizes share the longest.
        A float64 shift in two float32 parts takes no digit to speak of from float32 values.
        """
        if dtype not in self._known or len(self._known[dtype][0]) < rows:
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
            self._known[dtype] = [
                np.ascontiguousarray(np.broadcast_to(term, (rows, *shape))) for term in terms
            ]
        return self._known[dtype]


class InMemory:
    """Rows that lie on the device as a whole: :class:`deepod.types.Rows`."""

    def __init__(self, x: Tensor, y: Tensor | None = None) -> None:
        self.x = x  # (n, *shape)
        self.y = y  # (n,)
        self.device, self.shape = x.device, tuple(x.shape[1:])
        self.parts: int | None = None  # batches of an epoch, if not batch_size decides

    def __len__(self) -> int:
        return len(self.x)

    def sizes(self, batch_size: int) -> list[int]:
        return sorted(
            {len(part) for part in self._even_parts(torch.arange(len(self.x)), batch_size)}
        )

    def batches(
        self, stream: torch.Generator, batch_size: int
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        order = torch.randperm(len(self.x), generator=stream, device="cpu").to(self.device)
        for rows in self._even_parts(order, batch_size):
            yield self._take(rows)

    def _even_parts(self, rows: Tensor, batch_size: int) -> Sequence[Tensor]:
        return even_parts(rows, batch_size) if self.parts is None else rows.tensor_split(self.parts)

    def head(self, n: int) -> tuple[Tensor, Tensor | None]:
        return self._take(torch.arange(n, device=self.device) % len(self.x))

    def chunks(self, n: int) -> Iterator[Tensor]:
        yield from self.x.split(n)

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass

    def _take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        y = None if self.y is None else self.y.index_select(0, rows)
        return self.x.index_select(0, rows), y


def even_parts(rows: Tensor, batch_size: int) -> Sequence[Tensor]:
    """Cut rows into even parts of at most ``batch_size``.

    Even, because the statistics of BatchNorm would follow a short last part as much as a full one.
    A part of one row would have no variance: there may be one row more than ``batch_size`` instead.
    """
    n = len(rows)
    parts = -(-n // batch_size)
    if batch_size > 1 and n < 2 * parts:
        parts = max(1, n // 2)
    return rows.tensor_split(parts)


def block_rows(shape: Shape) -> int:
    """Rows of one sample ``shape`` that are few enough for a copy in float64."""
    return max(1, _BLOCK_VALUES // max(1, int(np.prod(shape))))


def blocks(X: np.ndarray) -> Iterator[np.ndarray]:
    """Cut rows into blocks small enough for a copy in float64."""
    for start, stop in cut(0, len(X), block_rows(X.shape[1:])):
        yield X[start:stop]


def read(
    source: Source, start: int, stop: int, columns: Sequence[Any] | None, *, allow_nan: bool
) -> np.ndarray:
    """Read rows, and refuse them as :func:`deepod._missing.check_finite` does."""
    rows = source.read(start, stop)
    check_finite(rows, columns, allow_nan=allow_nan, rows=f", among rows {start} to {stop - 1}")
    return rows


def _filled(samples: np.ndarray, fill: np.ndarray | None) -> np.ndarray:
    """Put ``fill`` in place of NaN, in a copy; samples without any are returned as they are."""
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


def chunks(X: np.ndarray, shape: Shape, scaler: Scaler, rows: int) -> Iterator[Tensor]:
    """Scaled tensors of at most ``rows`` samples, in order."""
    for start in range(0, len(X), rows):
        part = X[start : start + rows]
        yield torch.from_numpy(scaler.transform(part.reshape(len(part), *shape)))
