"""Columns of a mixed table as numbers: categories, calendar parts of dates, numbers as they are."""

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

# A category that fewer training rows have is pooled with others that are as rare.
_RARE_SHARE = 0.005
_FEWEST_ROWS = 2
_MOST_CATEGORIES = 100  # that get a column each; the rarest of more are pooled
_LEAST_SCALE = 0.2  # about the standard deviation of a category that 4 % of the rows have
_GAP = ""  # what a cell without a value is as text: a category like any other
_OF_CATEGORIES = ("category", "text", "boolean")  # what "from_dtype" takes
_SHOWN = 5  # names in an error
# Seconds of a period of the calendar, and how many of them training rows must span to learn from it
# where in it they are: rows of one spring would make every summer an anomaly.
_DAY = 86_400
_PERIODS = {"time of day": _DAY, "day of week": 7 * _DAY, "day of year": 365.2425 * _DAY}
_FIRST_MONDAY = 4 * _DAY  # after 1970-01-01


class Encoder:
    """Turn the columns of a frame into columns of numbers.

    Numbers stay as they are. Categories become a column each that is 1 where a row has that
    category, by scikit-learn's OneHotEncoder: those that fewer than 0.5 % of the training rows have
    are pooled in one column; a value that is new has 0 in all of them. A time becomes sine and
    cosine of its place in the day, the week and the year, each if training rows span at least one.

    Parameters
    ----------
    columns : list of dict
        As :meth:`fit` makes it and :func:`is_columns` allows it; plain values, for JSON.

    Attributes
    ----------
    columns : list of dict
        Of each column its ``kind``: "number"; "category", with ``frequent`` and ``rare``; "time",
        with ``periods``; or "unused", with the reason, ``why``.
    names : list of str or int
        Names, or numbers, of the columns of the frame.
    source : ndarray of int
        For each column that comes out, the column that it is made of.
    least_scale : ndarray
        What each column that comes out is to be divided by at least, 0 for numbers: the standard
        deviation of a rare category is small, and by it alone its column would outweigh all others.
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
        """Learn what to make of the columns of a frame or an array.

        Parameters
        ----------
        X : frame or array-like of shape (n, d)
        categories : {"from_dtype"} or sequence or None
            ``categorical_features`` of a detector.
        times : {"from_dtype"} or sequence or None
            ``datetime_features`` of a detector.

        Raises
        ------
        ValueError
            If a column is named that is not there, or is none of what it is said to be.
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
                "datetime_features; leave it in one of them."
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
        """Return the rows of a frame or an array as float64, (n, number of columns that come out).

        Raises
        ------
        ValueError
            If a column of numbers or times holds something else.
        """
        frame = as_frame(X)
        if frame.shape[1] != len(self.columns):
            raise ValueError(
                f"X has {frame.shape[1]} columns, but was fitted with {len(self.columns)}."
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
        """Sum up what each column that came out contributes, (n, out), by column of the frame."""
        belongs = self.source[:, None] == np.arange(len(self.columns))
        return contributions @ belongs.astype(float)

    def output_names(self) -> list[Any]:
        """Give the name of its column to each column that comes out."""
        return [self.names[i] for i in self.source]

    def summary(self) -> dict[Any, str]:
        """Say of each column, in words, what is made of it."""
        return {column["name"]: _in_words(column) for column in self.columns}


def restore_encoder(detector: Any) -> None:
    """Make ``encoder_`` of the ``columns_`` that a file or a pickle holds, if it holds any."""
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
    """Return a frame of pandas: of another library's frame, or of an array.

    Raises
    ------
    ImportError
        If pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            'categorical_features and datetime_features need pandas: pip install "deepod[data]".'
        ) from error
    if isinstance(X, Source):
        raise ValueError(
            "categorical_features and datetime_features are for rows in memory, and X is read from "
            "disk: read it before, by pandas.read_parquet, say."
        )
    X = array_of(X) if isinstance(X, Tensor) else in_memory(X)
    if isinstance(X, pd.DataFrame):
        return X
    if hasattr(X, "to_pandas"):  # polars and pyarrow
        return X.to_pandas()
    X = np.asarray(X, dtype=object) if isinstance(X, list | tuple) else np.asarray(X)
    if X.ndim != 2:
        raise ValueError(
            "categorical_features and datetime_features are for tables, (rows, columns), got an "
            f"array of shape {X.shape}."
        )
    return pd.DataFrame(X)


def _refuse_no_numbers(frame: Any, columns: Sequence[dict[str, Any]]) -> None:
    """Refuse what is no number in the columns of numbers, all of them at once."""
    numbers = [i for i, column in enumerate(columns) if column["kind"] == "number"]
    # A column without any value has no kind.
    refuse_columns(frame.iloc[:, [i for i in numbers if not frame.iloc[:, i].isna().all()]])


def _chosen(frame: Any, given: Any, parameter: str) -> set[int]:
    """Find the numbers of the columns that a parameter names."""
    if given is None or isinstance(given, str):  # "from_dtype"
        return set()
    given = np.asarray(given)
    if given.dtype == bool:
        if given.shape != (frame.shape[1],):
            raise ValueError(
                f"{parameter} is a mask of shape {given.shape}, and X has {frame.shape[1]} columns."
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
            raise ValueError(f"{parameter}: there is no column {wanted!r}; there are {shown}.")
    return found


# --- categories ----------------------------------------------------------------------------------


def _as_text(cells: Any) -> np.ndarray:
    """Cells as text, the same whether they come from a file or a frame; a gap is ``_GAP``."""
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
            f"Column {name!r} has no categories, {why}; leave it out of categorical_features and "
            "of X."
        )
    return {"kind": "unused", "why": why}


def _one_hot(column: dict[str, Any]) -> Any:
    """Make scikit-learn's encoder know the categories, which it learns from rows alone."""
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
        raise ValueError(f"Column {name!r}: {why}, so that nothing can be learned of them.")
    return {"kind": "unused", "why": why}


def _seconds(cells: Any, name: Any) -> np.ndarray:
    """Seconds since 1970 by the clock on the wall, NaN in gaps."""
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
            f"Column {name!r} holds cells that are no times{shown}; write them as "
            "2024-01-31 or 2024-01-31 09:30, or leave the column out of datetime_features."
        )
    if times.dt.tz is not None:
        times = times.dt.tz_localize(None)
    values = times.to_numpy(dtype="datetime64[us]")
    seconds = values.astype(np.int64) / 1e6
    seconds[np.isnat(values)] = np.nan
    return seconds


def _places(seconds: np.ndarray, periods: Sequence[str]) -> Iterator[np.ndarray]:
    """Sine and cosine of where in each period times are."""
    for period in periods:
        length = _PERIODS[period]
        angle = 2 * np.pi * ((seconds - _FIRST_MONDAY) % length) / length
        yield np.sin(angle)
        yield np.cos(angle)


# --- all of them ---------------------------------------------------------------------------------


def _width(column: dict[str, Any]) -> int:
    """Columns that come out of a column."""
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
