"""Columns of arrays, frames and files: values to show, what is typical, and a row's place in it."""

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
    """Rows of a table, in memory or on disk."""

    table: Any
    names: list[str]
    n: int

    @classmethod
    def of(cls, X: Any, names: Any = None, others: Any = None, name: str = "X") -> Columns:
        """Look at a table, which stays where it is; refuse what is none.

        The columns are called by ``names``, or those of the table, or else ``others``.
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
            raise ValueError(f"feature_names holds {len(chosen)} names for {shape[1]} columns.")
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
        """Return rows that stand for all, evenly spaced."""
        rows = min(self.n, _KNOWN_ROWS)
        return self.take(np.unique(np.linspace(0, self.n - 1, rows).astype(int)))

    def fingerprint(self) -> str:
        """Tell tables apart by what is in them, not by what they are called."""
        told = hashlib.sha256(repr((self.n, self.names)).encode())
        for values in _lists(self.sample()):
            plain = values.dtype.kind in "biuf"
            told.update(values.tobytes() if plain else repr(values.tolist()).encode())
        return told.hexdigest()[:16]


def _read(source: Any, rows: np.ndarray) -> Any:
    """Read rows of a file in one pass over it."""
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
    """What is shown of a column."""

    typical: float | str | None  # the median, or the most frequent text if there is one
    text: bool
    values: Any  # of the rows to show: NaN or None where there is none
    # In thousandths, of the rows with a value: of a number, how many are below it, ties by half;
    # of a text, how many have it. 1000 and 0 are kept for what is above or below all of them.
    places: np.ndarray  # -1 where there is no value, or none to compare with

    def cell(self, row: int) -> list[Any]:
        """Return value and place of a row, as JSON has them."""
        place = int(self.places[row])
        return [shown(self.values[row]), None if place < 0 else place]


class Cells(NamedTuple):
    """Columns of the rows to show."""

    names: list[str]
    columns: list[Column]

    @classmethod
    def of(cls, rows: Any, known: Columns) -> Cells:
        """Look up every column of some rows among those of reference."""
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
    """Return float64, with NaN where there is no value; None if they are no numbers."""
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
    # Where all are different, none is typical.
    typical = most[0][0] if most and (most[0][1] > 1 or len(most) == 1) else None
    total = counts.total()
    places = [-1 if v is None else _thousandths(counts[v], total) for v in values]
    return Column(typical, True, values, np.array(places))


def _thousandths(n: int, total: int) -> int:
    return max(1, round(1000 * n / total)) if n else 0


def shown(value: Any) -> Any:
    """Return what JSON has for a value: numbers of six digits, but whole ones, which may be codes.

    Long texts are cut.
    """
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else value[: _SHOWN - 1] + "…"
    if value is None or np.isnan(value):
        return None
    value = float(value)
    if value.is_integer() and abs(value) < 2**53:
        return int(value)
    return float(f"{value:.6g}")
