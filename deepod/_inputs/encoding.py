"""Encoding of the columns of mixed tables: categories, dates and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from sklearn.preprocessing import OneHotEncoder
from torch import Tensor

from deepod._inputs.containers import array_of
from deepod._inputs.frames import in_memory, kind_in_pandas, refuse_columns
from deepod.sources import Source

# A category with a smaller share of the training rows is pooled with other rare ones.
_RARE_SHARE = 0.005
_FEWEST_ROWS = 2
_MOST_CATEGORIES = 100  # with a column of their own; the rarest others are pooled
_LEAST_SCALE = 0.2  # about the standard deviation of a category that 4 % of the rows have
_GAP = ""  # stands for a missing value, which is a category like any other
_OF_CATEGORIES = ("category", "text", "boolean")  # selected by "from_dtype"
_SHOWN = 5  # names in an error
# Seconds of a period of the calendar, and the time that training rows must span for it to be used:
# with training rows of one spring, every summer would be an anomaly.
_DAY = 86_400
_PERIODS = {"time of day": _DAY, "day of week": 7 * _DAY, "day of year": 365.2425 * _DAY}
_FIRST_MONDAY = 4 * _DAY  # after 1970-01-01


class Encoder:
    """Encoder of the columns of a DataFrame as columns of numbers.

    Columns of numbers are kept. Each category becomes a column of 0 and 1 (by scikit-learn's
    OneHotEncoder). Categories in fewer than 0.5 % of the training rows are pooled in one column,
    and a category that was not seen in ``fit`` is 0 in all columns. Times become the sine and
    cosine of the time of day, the day of the week and the day of the year, each if the training
    rows span at least one day, week or year.

    Parameters
    ----------
    columns : list of dict
        The encoding, as :meth:`fit` creates it and :func:`is_columns` checks it; plain values for
        JSON.

    Attributes
    ----------
    columns : list of dict
        For each column its ``kind``: "number"; "category", with ``frequent`` and ``rare``; "time",
        with ``periods``; or "unused", with the reason, ``why``.
    names : list of str or int
        Names, or numbers, of the columns of the DataFrame.
    source : ndarray of int
        For each encoded column, the number of the column that it comes from.
    least_scale : ndarray
        For each encoded column, the smallest number that scaling may divide it by; 0 for numbers.
        Without it, a rare category, whose standard deviation is small, would outweigh all others.
    """

    def __init__(self, columns: list[dict[str, Any]]) -> None:
        self.columns = columns
        self.names = [column["name"] for column in columns]
        self._encoders = [_one_hot(column) for column in columns]
        widths = [_width(column) for column in columns]
        self.source = np.repeat(np.arange(len(columns)), widths)
        least = [0.0 if column["kind"] == "number" else _LEAST_SCALE for column in columns]
        self.least_scale = np.array(least)[self.source]

    @classmethod
    def fit(cls, X: Any, categories: Any, times: Any) -> Encoder:
        """Return an encoder for the columns of a DataFrame or an array.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n, d)
        categories : {"from_dtype"} or sequence or None
            ``categorical_features`` of a detector.
        times : {"from_dtype"} or sequence or None
            ``datetime_features`` of a detector.

        Raises
        ------
        ValueError
            If a named column does not exist, or does not hold categories or times.
        ImportError
            If pandas is not installed.
        """
        frame = as_frame(X)
        named = _chosen(frame, categories, "categorical_features")
        timed = _chosen(frame, times, "datetime_features")
        both = sorted(named & timed)
        if both:
            raise ValueError(
                f"Column {frame.columns[both[0]]!r} is in categorical_features and in "
                "datetime_features; remove it from one of them."
            )
        kinds = [kind_in_pandas(frame.iloc[:, i])[0] for i in range(frame.shape[1])]
        columns = []
        for i, (name, kind) in enumerate(zip(frame.columns, kinds, strict=True)):
            if i in timed or (isinstance(times, str) and kind == "time"):
                made = _learn_time(frame.iloc[:, i], name, must=i in timed)
            elif i in named or (isinstance(categories, str) and kind in _OF_CATEGORIES):
                made = _learn_category(frame.iloc[:, i], name, must=i in named)
            else:
                made = {"kind": "number"}
            columns.append({"name": name if isinstance(name, str) else i} | made)
        _refuse_no_numbers(frame, columns)
        if all(column["kind"] == "unused" for column in columns):
            raise ValueError(
                "No column can be used: " + "; ".join(f"{c['name']!r}: {c['why']}" for c in columns)
            )
        return cls(columns)

    def transform(self, X: Any) -> np.ndarray:
        """Return encoded rows of a DataFrame or an array, float64 of shape (n, encoded columns).

        Raises
        ------
        ValueError
            If a column of numbers or times holds something else.
        """
        frame = as_frame(X)
        if frame.shape[1] != len(self.columns):
            raise ValueError(
                f"X has {frame.shape[1]} columns, but the detector was fitted on "
                f"{len(self.columns)}; pass the same columns."
            )
        _refuse_no_numbers(frame, self.columns)
        out = np.empty((len(frame), len(self.source)))
        start = 0
        for i, column in enumerate(self.columns):
            stop = start + _width(column)
            cells = frame.iloc[:, i]
            if column["kind"] == "number":
                out[:, start] = cells.to_numpy(dtype=np.float64, na_value=np.nan)
            elif column["kind"] == "category":
                out[:, start:stop] = self._encoders[i].transform(_as_text(cells)[:, None])
            elif column["kind"] == "time":
                seconds = _seconds(cells, frame.columns[i])
                out[:, start:stop] = np.stack(list(_places(seconds, column["periods"])), axis=1)
            start = stop
        return out

    def joined(self, contributions: np.ndarray) -> np.ndarray:
        """Return contributions of encoded columns, (n, encoded), summed by original column."""
        belongs = self.source[:, None] == np.arange(len(self.columns))
        return contributions @ belongs.astype(float)

    def output_names(self) -> list[Any]:
        """Return a name for each encoded column."""
        return [self.names[i] for i in self.source]

    def summary(self) -> dict[Any, str]:
        """Return a description of the encoding of each column, by name."""
        return {column["name"]: _in_words(column) for column in self.columns}


def restore_encoder(detector: Any) -> None:
    """Set ``encoder_`` from the ``columns_`` of a file or a pickle, if there are any."""
    if "columns_" in detector.__dict__:
        detector.encoder_ = Encoder(detector.columns_)


def is_columns(value: Any) -> bool:
    """Return whether a value from a file can be the ``columns`` of an encoder."""
    return isinstance(value, list) and bool(value) and all(map(_is_column, value))


def _is_column(column: Any) -> bool:
    if not isinstance(column, dict) or type(column.get("name")) not in (str, int):
        return False
    keys = {
        "number": set(),
        "category": {"frequent", "rare"},
        "time": {"periods"},
        "unused": {"why"},
    }.get(str(column.get("kind")))
    if keys is None or set(column) != {"name", "kind"} | keys:
        return False
    if column["kind"] == "category":
        lists = column["frequent"], column["rare"]
        texts = all(isinstance(x, list) and all(type(v) is str for v in x) for x in lists)
        return texts and bool(lists[0]) and len({*lists[0], *lists[1]}) == sum(map(len, lists))
    if column["kind"] == "time":
        periods = column["periods"]
        return isinstance(periods, list) and bool(periods) and all(p in _PERIODS for p in periods)
    return column["kind"] == "number" or type(column["why"]) is str


def as_frame(X: Any) -> Any:
    """Return an array, or a table of another library, as a DataFrame of pandas.

    Raises
    ------
    ImportError
        If pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "categorical_features and datetime_features need pandas; install it with pip install "
            '"deepod[data]".'
        ) from error
    if isinstance(X, Source):
        raise ValueError(
            "categorical_features and datetime_features need rows in memory or in Parquet files, "
            "but X is another source on disk; load X into memory, or write it as Parquet and pass "
            "deepod.sources.parquet(path)."
        )
    X = array_of(X) if isinstance(X, Tensor) else in_memory(X)
    if isinstance(X, pd.DataFrame):
        return X
    if hasattr(X, "to_pandas"):  # polars and pyarrow
        return X.to_pandas()
    X = np.asarray(X, dtype=object) if isinstance(X, list | tuple) else np.asarray(X)
    if X.ndim != 2:
        raise ValueError(
            "categorical_features and datetime_features are for tables of shape (rows, columns), "
            f"but X is an array of shape {X.shape}."
        )
    return pd.DataFrame(X)


def _refuse_no_numbers(frame: Any, columns: Sequence[dict[str, Any]]) -> None:
    """Raise one error for all values that are not numbers in columns of numbers."""
    numbers = [i for i, column in enumerate(columns) if column["kind"] == "number"]
    # A column without any value fits every kind.
    refuse_columns(frame.iloc[:, [i for i in numbers if not frame.iloc[:, i].isna().all()]])


def _chosen(frame: Any, given: Any, parameter: str) -> set[int]:
    """Return the numbers of the columns that a parameter selects."""
    if given is None or isinstance(given, str):  # "from_dtype"
        return set()
    given = np.asarray(given)
    if given.dtype == bool:
        if given.shape != (frame.shape[1],):
            raise ValueError(
                f"{parameter} is a mask of shape {given.shape}, but X has {frame.shape[1]} "
                "columns; it needs one value for each."
            )
        return set(np.flatnonzero(given).tolist())
    found = set()
    names = list(frame.columns)
    for wanted in given.tolist():
        if wanted in names:
            found.add(names.index(wanted))
        elif isinstance(wanted, int) and -len(names) <= wanted < len(names):
            found.add(wanted % len(names))
        else:
            shown = ", ".join(map(repr, names[:_SHOWN])) + ", ..." * (len(names) > _SHOWN)
            raise ValueError(
                f"{parameter}: there is no column {wanted!r}; the columns are {shown}."
            )
    return found


# --- categories ----------------------------------------------------------------------------------


def _as_text(cells: Any) -> np.ndarray:
    """Return cells as text, the same from a file and a DataFrame; a missing value is ``_GAP``."""
    codes, values = cells.factorize()
    words = [_word(value) for value in np.asarray(values, dtype=object)]
    return np.array([*words, _GAP], dtype=object)[codes]


def _word(value: Any) -> str:
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)  # integers with gaps are floating
    return str(value).strip()


def _learn_category(cells: Any, name: Any, *, must: bool) -> dict[str, Any]:
    text = _as_text(cells)
    values, counts = np.unique(text.astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    values, counts = values[order], counts[order]
    least = max(_FEWEST_ROWS, int(np.ceil(_RARE_SHARE * len(text))))
    n = min(int((counts >= least).sum()), _MOST_CATEGORIES)
    if n:
        return {
            "kind": "category",
            "frequent": sorted(values[:n].tolist()),
            "rare": sorted(values[n:].tolist()),
        }
    why = "every value is different"
    if len(values) < len(text):
        why = f"none of its {len(values)} values is in {least} rows or more"
    if must:
        raise ValueError(
            f"Column {name!r} has no categories to learn, because {why}; leave it out of "
            "categorical_features and of X."
        )
    return {"kind": "unused", "why": why}


def _one_hot(column: dict[str, Any]) -> Any:
    """Return scikit-learn's encoder with the given categories, which only a fit could set."""
    if column["kind"] != "category":
        return None
    rows = [*column["frequent"], *column["frequent"], *column["rare"]]
    encoder = OneHotEncoder(
        min_frequency=2 if column["rare"] else None, handle_unknown="ignore", sparse_output=False
    )
    return encoder.fit(np.array(rows, dtype=object)[:, None])


# --- times ---------------------------------------------------------------------------------------


def _learn_time(cells: Any, name: Any, *, must: bool) -> dict[str, Any]:
    seconds = _seconds(cells, name)
    known = seconds[~np.isnan(seconds)]
    span = np.ptp(known) if len(known) else 0.0
    periods = [period for period, length in _PERIODS.items() if span >= length]
    if "time of day" in periods and not (known % _DAY).any():  # dates without a time
        periods.remove("time of day")
    if periods:
        return {"kind": "time", "periods": periods}
    why = "its times span less than a day" if span < _DAY else "its dates span less than a week"
    if must:
        raise ValueError(
            f"Column {name!r} cannot be encoded, because {why}; leave it out of datetime_features "
            "and of X."
        )
    return {"kind": "unused", "why": why}


def _seconds(cells: Any, name: Any) -> np.ndarray:
    """Return local times as seconds since 1970, and NaN for missing values."""
    import pandas as pd

    kind, _ = kind_in_pandas(cells)
    cells = cells.replace("", None) if kind == "text" else cells
    how: dict[str, Any] = {"format": "ISO8601"} if kind == "text" else {}
    times = None
    if kind in ("time", "text") or cells.isna().all():
        with suppress(TypeError, ValueError):  # durations, periods
            times = pd.to_datetime(cells, errors="coerce", **how)
    bad = cells.dropna() if times is None else cells[times.isna() & cells.notna()]
    if times is None or len(bad):
        shown = f", such as {bad.tolist()[0]!r:.40}" if len(bad) else ""
        raise ValueError(
            f"Column {name!r} holds values that are not dates or times{shown}; write them like "
            "2024-01-31 or 2024-01-31 09:30, or leave the column out of datetime_features."
        )
    if times.dt.tz is not None:
        times = times.dt.tz_localize(None)
    values = times.to_numpy(dtype="datetime64[us]")
    seconds = values.astype(np.int64) / 1e6
    seconds[np.isnat(values)] = np.nan
    return seconds


def _places(seconds: np.ndarray, periods: Sequence[str]) -> Iterator[np.ndarray]:
    """Return the sine and cosine of the position of times in each period."""
    for period in periods:
        length = _PERIODS[period]
        angle = 2 * np.pi * ((seconds - _FIRST_MONDAY) % length) / length
        yield np.sin(angle)
        yield np.cos(angle)


# --- all of them ---------------------------------------------------------------------------------


def _width(column: dict[str, Any]) -> int:
    """Return the number of encoded columns of a column."""
    if column["kind"] == "category":
        return len(column["frequent"]) + bool(column["rare"])
    return {"number": 1, "time": 2 * len(column.get("periods", ())), "unused": 0}[column["kind"]]


def _in_words(column: dict[str, Any]) -> str:
    if column["kind"] == "category":
        rare = f", and {len(column['rare'])} rare ones as one" if column["rare"] else ""
        return f"category: {len(column['frequent'])} values{rare}"
    if column["kind"] == "time":
        return "time: " + ", ".join(column["periods"])
    return "number" if column["kind"] == "number" else f"left out: {column['why']}"
