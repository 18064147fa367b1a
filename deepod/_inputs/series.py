"""Conversion of the user's series to points in one table, and of results back to that form.

Rows are points in time and columns are channels. One series is an array of shape (T,) or (T, d) or
a DataFrame. Several series are a list of these, or an array (n, T, d) of episodes of equal length.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse

from deepod._inputs.containers import array_of
from deepod._inputs.frames import in_memory, kinds_of_types
from deepod._inputs.validation import as_nan
from deepod.sources import Source

_GAP = 1.5  # times the median step
_NUMBERS = {"integer", "floating", "mixed-integer-float", "boolean", "decimal", "empty"}
_TIMES = {"datetime", "datetime64", "date", "time", "timedelta", "timedelta64", "period"}


@dataclass(frozen=True, eq=False)
class Series:
    """The points of one series or several, one after the other.

    Attributes
    ----------
    rows : ndarray of shape (n_points, channels) or DataFrame
        What :func:`deepod._inputs.validation.validate_rows` takes for a table.
    lengths : tuple of int
        Points of each series.
    form : {"series", "list", "episodes"}
        Form of the user's input: one series, a list, or an array (n, T, d).
    index : pandas Index or None
        Times of the points of a single DataFrame or pandas Series, if it has any.
    """

    rows: Any
    lengths: tuple[int, ...]
    form: Literal["series", "list", "episodes"]
    index: Any = None

    def __len__(self) -> int:
        return sum(self.lengths)

    @property
    def starts(self) -> np.ndarray:
        """The numbers of the first points of the series."""
        return np.cumsum((0, *self.lengths[:-1]))

    def after(self, past: Series | None, n: int) -> Series:
        """Return the last n points of one series that continues ``past``."""
        rows = self.rows
        if past is not None and hasattr(rows, "iloc") and hasattr(past.rows, "iloc"):
            import pandas

            rows = pandas.concat([past.rows, rows])
        elif past is not None:
            rows = np.concatenate([past.rows, rows])
        rows = rows[-n:]
        return Series(rows, (len(rows),), "series")

    def labels(self, y: Any) -> Any:
        """Return y, given in the form of the series, as one array with the labels of all points.

        Raises
        ------
        ValueError
            If there is not one label for each point.
        """
        if self.form == "list" and isinstance(y, list | tuple) and not all(map(_is_number, y)):
            lengths = tuple(np.size(part) for part in y)
            if lengths != self.lengths:
                raise ValueError(
                    f"y holds series of {lengths} labels, but X holds series of {self.lengths} "
                    "points; give one label for each point."
                )
            return np.concatenate([np.ravel(part) for part in y])
        if self.form == "episodes" and np.ndim(y) == 2:
            shape = (len(self.lengths), self.lengths[0])
            if np.shape(y) != shape:
                raise ValueError(
                    f"y has shape {np.shape(y)}, but the points of X have shape {shape}; give one "
                    "label for each point."
                )
            return np.ravel(y)
        return y

    def shaped(self, values: np.ndarray) -> Any:
        """Return values of points in the form of the user's series.

        Parameters
        ----------
        values : ndarray of shape (n_points, ...)

        Returns
        -------
        values : ndarray of shape (T, ...) or (n, T, ...), or list of ndarray of shape (T_i, ...)
        """
        if self.form == "series":
            return values
        if self.form == "list":
            return np.split(values, self.starts[1:])
        return values.reshape(len(self.lengths), self.lengths[0], *values.shape[1:])

    def joined(self, values: Any) -> np.ndarray:
        """Return values in the form of the user's series as one array of shape (n_points, ...).

        This is the inverse of :meth:`shaped`.
        """
        return np.asarray(values) if self.form == "series" else np.concatenate(list(values))


class Gaps(NamedTuple):
    """The gaps of a series: steps in time that are much longer than its others."""

    name: str  # of the series
    starts: np.ndarray  # points that follow a gap
    ratio: float  # of the largest to the median step
    largest: str  # in words


class Remedies(NamedTuple):
    """Remedies for invalid times, in terms of where they come from."""

    missing: str
    order: str
    twice: str
    first: int = 0  # number of the first row


def as_series(
    X: Any, *, time: str | None = None, name: str = "X", channels: int | None = None
) -> Series:
    """Return one series or several as points in one table.

    Missing and infinite values are not checked here, but by ``validate_rows``.

    Parameters
    ----------
    X : array-like of shape (T,), (T, d) or (n, T, d), list of array-like, or Series
        One series or several. A list of numbers is one series. DataFrames and pandas Series may
        have a time index. A :class:`Series` is returned unchanged.
    time : str, optional
        Column of the DataFrames, or name of their index, that holds the times: dates, numbers or
        text. Text is read as ISO 8601 if possible, and offsets are converted to UTC.
    name : str, default="X"
        Name of the argument in errors.
    channels : int, optional
        Number of channels, if it is known. Without it, an array with more columns than rows is
        refused as a transposed one.

    Returns
    -------
    series : Series

    Warns
    -----
    UserWarning
        If there are gaps in time.

    Raises
    ------
    ValueError
        If X is not one series or several. The message says what is wrong and what to do.
    """
    if isinstance(X, Series):
        return X
    gaps: list[Gaps] = []
    if isinstance(X, list | tuple) and _holds_series(X, name):
        parts = [_one(part, time, f"{name}[{i}]", channels, gaps) for i, part in enumerate(X)]
        series = _joined([rows for rows, _ in parts], name)
    elif _dimensions(X) == 3:
        series = _episodes(_array(X, name), time, name)
    else:
        rows, index = _one(X, time, name, channels, gaps)
        series = Series(rows, (len(rows),), "series", index)
    if gaps:
        warnings.warn(
            f"{said_of_gaps(gaps, name)} To avoid this, pass the list of the parts between gaps "
            "that deepod.series.split_at_gaps returns.",
            UserWarning,
            stacklevel=2,
        )
    return series


def split_at_gaps(X: Any, *, time: str | None = None) -> list[Any]:
    """Return the parts of a series between gaps in time, so that no window spans a gap.

    Parameters
    ----------
    X : DataFrame or pandas Series
        A series with a time index or a column of times.
    time : str, optional
        Name of the column, or of the index, that holds the times: dates, numbers or text.

    Returns
    -------
    parts : list of DataFrame or of pandas Series
        Consecutive rows of X, unchanged.
    """
    X = _to_pandas(X)
    _, index = _one(X, time, "X", None, [])
    if index is None:
        raise ValueError(
            "X has no times in which to find gaps; give a DataFrame with a time index, or name its "
            "column of times as time=..."
        )
    borders = [start for gaps in find_gaps(index) for start in gaps.starts]
    return [X.iloc[part] for part in map(slice, [0, *borders], [*borders, len(X)])]


# --- kinds of input -------------------------------------------------------------------------------


def _holds_series(X: Sequence[Any], name: str) -> bool:
    """Return whether X is a list of series; raise ValueError if that cannot be decided."""
    if not len(X):
        raise ValueError(f"{name} is an empty list; give at least one series.")
    numbers = [_is_number(part) for part in X]
    if any(isinstance(part, list | tuple) for part in X):
        raise ValueError(
            f"{name} is a list of lists, which may be the points of one series or several series; "
            f"give numpy.asarray({name}) for one, with rows as time, or a list of arrays."
        )
    if any(numbers) and not all(numbers):
        raise ValueError(
            f"{name} is a list of both numbers and series; give the numbers of one series, or a "
            "list of arrays or DataFrames."
        )
    return not all(numbers)


def _is_number(part: Any) -> bool:
    dimensions = getattr(part, "ndim", None)
    if dimensions is not None:
        return dimensions == 0
    return isinstance(part, str | bytes) or not hasattr(part, "__len__")


def _dimensions(X: Any) -> int | None:
    """Return the number of dimensions of an array, and None for other objects."""
    return None if _is_pandas(X) else getattr(X, "ndim", None)


def _is_pandas(X: Any) -> bool:
    pandas = sys.modules.get("pandas")  # while it is not loaded, there is no DataFrame
    return pandas is not None and isinstance(X, pandas.DataFrame | pandas.Series)


def _to_pandas(X: Any) -> Any:
    """Return a table of polars or pyarrow as one of pandas, and everything else unchanged."""
    X = in_memory(X)
    return X.to_pandas() if hasattr(X, "to_pandas") else X


def _one(
    X: Any, time: str | None, name: str, channels: int | None, gaps: list[Gaps]
) -> tuple[Any, Any]:
    """Return the rows of one series and its times, if it has any, and collect its gaps."""
    X = _to_pandas(X)
    if _is_pandas(X):
        rows, index = _take_times(X, time, name)
        if index is not None:
            check_times(index, name, _remedies(X, None if rows is X else time, index, name))
            gaps += find_gaps(index, name)
        if rows.ndim == 1:  # its name is no name of a channel: another series has another
            rows = _array(rows.to_numpy(), name)[:, None]
        else:
            _check_columns(rows, name)
        _check_size(rows.shape, name)
        return rows, index
    if time is not None:
        raise ValueError(
            f"time={time!r}: {name} has no column of this name, because it is not a DataFrame; "
            "leave time out, or give a DataFrame."
        )
    rows = _array(X, name)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2:
        raise ValueError(
            f"{name} has {rows.ndim} dimensions; expected (T,) or (T, channels) for one series, a "
            "list of such arrays, or (n, T, channels) for n episodes. Reshape it."
        )
    _check_size(rows.shape, name)
    points, width = rows.shape
    if width != channels and width > points and (width > 100 or points < 3):
        raise ValueError(
            f"{name} has shape {rows.shape}, but rows must be points in time and columns channels: "
            f"transpose it with {name}.T. If it does have {width} channels, pass "
            f"pandas.DataFrame({name})."
        )
    return rows, None


def _episodes(X: np.ndarray, time: str | None, name: str) -> Series:
    if time is not None:
        raise ValueError(
            f"time={time!r}: {name} is an array, which has no column of this name; leave time out."
        )
    if 0 in X.shape:
        raise ValueError(f"{name} has shape {X.shape}; give episodes of at least one point.")
    n, length, width = X.shape
    return Series(X.reshape(n * length, width), (length,) * n, "episodes")


def _joined(parts: list[Any], name: str) -> Series:
    """Return several series, which must have the same channels, one after the other."""
    first = _columns(parts[0])
    for i, part in enumerate(parts):
        if _columns(part) != first:
            raise ValueError(
                f"{name}[{i}] has {_described(part)}, but {name}[0] has {_described(parts[0])}; "
                "all series need the same channels in the same order."
            )
    lengths = tuple(map(len, parts))
    if not _is_pandas(parts[0]):
        return Series(np.concatenate(parts), lengths, "list")
    pandas = sys.modules["pandas"]
    return Series(pandas.concat(parts, ignore_index=True), lengths, "list")


def _columns(part: Any) -> Any:
    return part.columns.tolist() if _is_pandas(part) else part.shape[1]


def _described(part: Any) -> str:
    return f"the columns {_columns(part)}" if _is_pandas(part) else f"{_columns(part)} channels"


def _array(X: Any, name: str) -> np.ndarray:
    """Return an array of numbers; NaN stands for what is missing."""
    if isinstance(X, Source):
        raise ValueError(
            f"{name} is a {type(X).__name__}; give an array of its values, such as "
            f"{name}.read(0, len({name}))."
        )
    if issparse(X):
        raise ValueError(
            f"{name} is a {type(X).__name__}, and sparse data is not supported for series; give "
            f"an array of its values, {name}.toarray()."
        )
    if isinstance(X, torch.Tensor):
        X = array_of(X, name)
    X = as_nan(X)
    X = X if isinstance(X, np.ndarray) else np.asarray(X)
    # NumPy's times among Python objects would be numbers of nanoseconds.
    times = X.dtype.kind in "Mm" or (
        X.dtype == object and "time" in kinds_of_types(set(map(type, X.ravel())))
    )
    if X.dtype == object and X.ndim and not times:
        with suppress(ValueError):  # of text, which is told below
            X = _as_numbers(X, name)
    if times:
        raise ValueError(
            f"{name} holds times instead of values; give a DataFrame of the values with the times "
            "as its index."
        )
    if X.dtype.kind == "c":
        raise ValueError(
            f"Complex data not supported: {name} holds complex numbers; give their real and "
            "imaginary parts as two channels."
        )
    if X.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} holds values that are not numbers ({X.dtype}); convert text to numbers first, "
            "and give several series as a list of arrays."
        )
    if not X.ndim:
        raise ValueError(f"{name} is a single number; give a series, such as an array (T,).")
    return X


def _as_numbers(X: np.ndarray, name: str) -> np.ndarray:
    """Return Python's numbers as float64."""
    try:
        return X.astype(float)
    except TypeError as error:  # a dictionary, or a list among numbers
        raise TypeError(
            f"{name} holds values that are no numbers: {error}. Give an array of numbers."
        ) from error


def _check_size(shape: tuple[int, ...], name: str) -> None:
    if 0 in shape:
        lacking = "points" if not shape[0] else "channels"
        count = "0 sample(s)" if not shape[0] else "0 feature(s)"
        raise ValueError(
            f"{name} has no {lacking}, {count} (shape={tuple(shape)}) while a minimum of 1 is "
            "required; give a series with at least one, or leave it out of the list."
        )


def _check_columns(frame: Any, name: str) -> None:
    """Raise an error that names the first column of times or text, if there is one."""
    from pandas.api.types import infer_dtype

    for number, column in enumerate(frame.columns):
        values = frame.iloc[:, number]
        if values.dtype.kind in "biuf":
            continue
        kind = infer_dtype(np.asarray(values, dtype=object), skipna=True)
        if values.dtype.kind in "Mm" or kind in _TIMES:
            raise ValueError(
                f"column {column!r} of {name} holds times; make it the index, "
                f"{name}.set_index({column!r}), or leave it out, {name}.drop(columns={column!r})."
            )
        if kind not in _NUMBERS:
            raise ValueError(
                f"column {column!r} of {name} holds values that are not numbers ({kind}); convert "
                f"them, or leave it out, {name}.drop(columns={column!r}). If it holds the times: "
                f"{name}.set_index(pandas.to_datetime({name}.pop({column!r})))."
            )


# --- the time -------------------------------------------------------------------------------------


def _take_times(X: Any, time: str | None, name: str) -> tuple[Any, Any]:
    """Return a DataFrame or Series of pandas without its times, and the times if it has any."""
    import pandas

    temporal = pandas.DatetimeIndex | pandas.TimedeltaIndex | pandas.PeriodIndex
    if time is None:
        objects = X.index.dtype == object and X.index.inferred_type in _TIMES
        index = parse_times(X.index, f"the index of {name}") if objects else X.index
        return X, index if isinstance(index, temporal) else None
    names = X.columns.tolist() if X.ndim == 2 else []
    if time not in names and time == X.index.name:
        return X, parse_times(X.index, f"the index of {name}")
    if names.count(time) != 1:
        found = ", ".join(map(repr, names)) or "none"
        raise ValueError(
            f"time={time!r}: {name} has {names.count(time)} columns of that name, but needs "
            f"exactly one; its columns are {found}."
        )
    return X.drop(columns=time), parse_times(pandas.Index(X[time]), f"column {time!r} of {name}")


def parse_times(values: Any, where: str, *, first: int = 0) -> Any:
    """Return an index of times or numbers, parsed if it holds text or Python's dates.

    Parameters
    ----------
    values : pandas Index
    where : str
        Name of the values in errors.
    first : int, default=0
        Number of the first row in errors.
    """
    import pandas

    if values.dtype.kind in "iufMm" or isinstance(values, pandas.PeriodIndex):
        return values
    for form in ("ISO8601", None):
        with suppress(ValueError, TypeError):
            return pandas.to_datetime(values, format=form, utc=True).tz_localize(None)
    parsed = pandas.to_datetime(values, format="mixed", utc=True, errors="coerce")
    i = int(np.argmax(parsed.isna() & ~values.isna()))
    raise ValueError(
        f"{where} holds times that cannot be read, such as {values[i]!r} in row {first + i} "
        f"(counted from {first}); write them like 2024-12-31 23:59:59, or parse them with "
        "pandas.to_datetime(..., format=...)."
    )


def check_times(index: Any, name: str, remedies: Remedies) -> None:
    """Raise an error if times are missing, out of order or duplicated."""
    missing, first = index.isna(), remedies.first
    if missing.any():
        raise ValueError(
            f"{name} has {missing.sum()} points without a time, the first in row "
            f"{first + np.argmax(missing)} (counted from {first}); {remedies.missing}."
        )
    steps = _steps(index)
    if (steps < 0).any():
        i = int(np.argmax(steps < 0)) + 1
        raise ValueError(
            f"{name} is not in the order of time: row {first + i} (counted from {first}) has the "
            f"time {index[i]}, after {index[i - 1]}; {remedies.order}."
        )
    if not steps.all():
        i = int(np.argmax(steps == 0)) + 1
        raise ValueError(
            f"{name} has {np.count_nonzero(steps == 0)} points at the same time as another, the "
            f"first in row {first + i} (counted from {first}), at {index[i]}; {remedies.twice}."
        )


def _remedies(X: Any, column: str | None, index: Any, name: str) -> Remedies:
    """Return remedies in pandas for the times in a column or in the index."""
    text = (X.index if column is None else X[column]).dtype.kind == "O" and index.dtype.kind == "M"
    key = "key=lambda x: pandas.to_datetime(x, format='mixed', utc=True)" if text else ""
    if column is None:
        complete = f"{name}[{name}.index.notna()]"
        ordered = f"{name}.sort_index({key})"
        once = f"{name}[~{name}.index.duplicated()]"
    else:
        complete = f"{name}.dropna(subset=[{column!r}])"
        ordered = f"{name}.sort_values({column!r}{key and ', '}{key})"
        once = f"{name}.drop_duplicates({column!r})"
    return Remedies(
        f"leave them out: {complete}",
        f"sort it by time: {ordered}",
        f"keep one of each, {once}, or give several series as a list",
    )


def _steps(index: Any) -> np.ndarray:
    """Return the differences between successive times, as numbers."""
    return np.diff(index.astype("float64" if index.dtype.kind == "f" else "int64").to_numpy())


def find_gaps(index: Any, name: str = "X") -> list[Gaps]:
    """Return the gaps in the times of a series, or an empty list.

    Parameters
    ----------
    index : pandas Index
        Times that :func:`check_times` has accepted.
    name : str, default="X"
        Name of the series.
    """
    steps = _steps(index)
    starts = np.flatnonzero(steps > _GAP * np.median(steps)) + 1 if len(steps) else steps
    if not len(starts):
        return []
    i = int(np.argmax(steps))
    largest = f"{index[i + 1] - index[i]} after {index[i]}"
    return [Gaps(name, starts, float(steps[i] / np.median(steps)), largest)]


def said_of_gaps(gaps: list[Gaps], name: str) -> str:
    """Return a sentence that describes the gaps in one series or several."""
    count = sum(len(found.starts) for found in gaps)
    worst = max(gaps, key=lambda found: found.ratio)
    where = "" if worst.name == name else f" of {worst.name}"
    return (
        f"{name} has {count} gap{'s' * (count > 1)} in time (steps above {_GAP} times the median), "
        f"the largest{where} {worst.largest}; windows run across them."
    )
