"""Columns of arrays, DataFrames and files: shown values, typical values, and ranks of values."""

from __future__ import annotations

import hashlib
from collections import Counter
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from deepod._scoring.apply import parts_of
from deepod.sources import Source, array

_KNOWN_ROWS = 20_000  # that typical values and places are counted among
_SHOWN = 80  # characters of a cell of text


class Columns(NamedTuple):
    """A table, in memory or on disk."""

    table: Any
    names: list[str]
    n: int

    @classmethod
    def of(cls, X: Any, names: Any = None, others: Any = None, name: str = "X") -> Columns:
        """Return the columns of a table, which is not copied; raise ValueError for other data.

        Their names are ``names``, those of the table, or ``others``.
        """
        own: Any = None
        if isinstance(X, Source):
            own = X.feature_names
        elif hasattr(X, "column_names"):  # pyarrow
            own = X.column_names
        elif hasattr(X, "columns"):
            own = list(X.columns)
        else:
            X = np.asarray(X)
        shape = X.shape
        if len(shape) != 2 or not shape[0] or not shape[1]:
            raise ValueError(
                f"{name} must be rows of a table, of shape (n, d), got shape {tuple(shape)}; "
                "windows, images and series cannot be reviewed."
            )
        for found in (names, own, others):
            if found is not None:
                chosen = [str(column) for column in found]
                break
        else:
            chosen = [f"feature {j}" for j in range(shape[1])]
        if len(chosen) != shape[1]:
            raise ValueError(
                f"feature_names holds {len(chosen)} names for {shape[1]} columns of X; give one "
                "for each column."
            )
        return cls(X, chosen, shape[0])

    def __len__(self) -> int:
        return self.n

    def take(self, rows: np.ndarray) -> Any:
        """Return some rows, in this order, as a table of the same kind."""
        X = self.table
        if isinstance(X, Source):
            return _read(X, rows)
        if hasattr(X, "iloc"):
            return X.iloc[rows]
        if hasattr(X, "take"):  # pyarrow, NumPy
            return X.take(rows) if hasattr(X, "column_names") else X.take(rows, axis=0)
        return X[rows.tolist()]  # polars

    def sample(self) -> Any:
        """Return a sample of evenly spaced rows."""
        rows = min(self.n, _KNOWN_ROWS)
        return self.take(np.unique(np.linspace(0, self.n - 1, rows).astype(int)))

    def fingerprint(self) -> str:
        """Return a hash of the contents of a table, which does not depend on its name."""
        told = hashlib.sha256(repr((self.n, self.names)).encode())
        for values in _lists(self.sample()):
            plain = values.dtype.kind in "biuf"
            told.update(values.tobytes() if plain else repr(values.tolist()).encode())
        return told.hexdigest()[:16]


def _read(source: Any, rows: np.ndarray) -> Any:
    """Return rows of a file, read in one pass."""
    order = np.argsort(rows, kind="stable")
    if getattr(source, "is_mixed", False):
        return source.frame_of(np.unique(rows)).iloc[np.unique(rows, return_inverse=True)[1]]
    wanted, found = rows[order], np.empty((len(rows), *source.shape[1:]), source.dtype)
    for start, stop in parts_of(len(source), source.shape[1:]):
        first, last = np.searchsorted(wanted, [start, stop])
        if first < last:
            part = source.read(start, stop)
            found[order[first:last]] = part[wanted[first:last] - start]
    taken = array(found)
    taken.feature_names = source.feature_names  # or the detector would miss them
    return taken


class Column(NamedTuple):
    """The values that a page shows of a column."""

    typical: float | str | None  # the median, or the most frequent text if there is one
    text: bool
    values: Any  # of the rows to show: NaN or None where there is none
    # In thousandths, of the rows with a value: of a number, how many are below it, ties by half;
    # of a text, how many have it. 1000 and 0 are kept for what is above or below all of them.
    places: np.ndarray  # -1 where there is no value, or none to compare with

    def cell(self, row: int) -> list[Any]:
        """Return the value and the rank of a row, for JSON."""
        place = int(self.places[row])
        return [shown(self.values[row]), None if place < 0 else place]


class Cells(NamedTuple):
    """The columns of the rows that a page shows."""

    names: list[str]
    columns: list[Column]

    @classmethod
    def of(cls, rows: Any, known: Columns) -> Cells:
        """Return every column of some rows, ranked among the reference rows."""
        pairs = zip(_lists(rows), _lists(known.sample()), strict=True)
        return cls(known.names, [_column(values, others) for values, others in pairs])


def _lists(X: Any) -> list[np.ndarray]:
    if isinstance(X, Source):
        X = X.read(0, len(X))
    if hasattr(X, "iloc"):
        return [np.asarray(X.iloc[:, j]) for j in range(X.shape[1])]
    if hasattr(X, "columns"):  # pyarrow, polars
        names = getattr(X, "column_names", X.columns)
        return [np.asarray(X[name]) for name in names]
    return list(np.asarray(X).T)


def _column(values: np.ndarray, reference: np.ndarray) -> Column:
    numbers, others = _as_numbers(values), _as_numbers(reference)
    if numbers is not None and others is not None:
        return _of_numbers(numbers, others)
    return _of_text(_as_texts(values), _as_texts(reference))


def _missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA is neither
        return True


def _as_numbers(values: np.ndarray) -> np.ndarray | None:
    """Return values as float64, with NaN for missing ones, or None if they are not numbers."""
    if values.dtype.kind in "iuf":
        return values.astype(np.float64)
    if values.dtype.kind != "O":
        return None
    cells = values.tolist()
    if any(isinstance(v, bool) or not (isinstance(v, Real) or _missing(v)) for v in cells):
        return None
    return np.array([np.nan if _missing(v) else float(v) for v in cells])


def _as_texts(values: np.ndarray) -> list[str | None]:
    return [None if _missing(v) else str(v) for v in values.tolist()]


def _of_numbers(values: np.ndarray, reference: np.ndarray) -> Column:
    known = np.sort(reference[np.isfinite(reference)])
    if not len(known):
        return Column(None, False, values, np.full(len(values), -1))
    below = np.searchsorted(known, values, "left")
    up_to = np.searchsorted(known, values, "right")
    places = np.clip(np.rint(500 * (below + up_to) / len(known)), 1, 999)
    places[values > known[-1]], places[values < known[0]] = 1000, 0
    places[np.isnan(values)] = -1
    return Column(float(np.median(known)), False, values, places)


def _of_text(values: list[str | None], reference: list[str | None]) -> Column:
    counts = Counter(text for text in reference if text is not None)
    most = counts.most_common(2)
    # If all values are different, none is typical.
    typical = most[0][0] if most and (most[0][1] > 1 or len(most) == 1) else None
    total = counts.total()
    places = [-1 if v is None else _thousandths(counts[v], total) for v in values]
    return Column(typical, True, values, np.array(places))


def _thousandths(n: int, total: int) -> int:
    return max(1, round(1000 * n / total)) if n else 0


def shown(value: Any) -> Any:
    """Return a value for JSON: numbers with six digits (integers with all), shortened texts."""
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else value[: _SHOWN - 1] + "…"
    if value is None or np.isnan(value):
        return None
    value = float(value)
    if value.is_integer() and abs(value) < 2**53:
        return int(value)
    return float(f"{value:.6g}")
