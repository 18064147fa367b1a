"""Files of rows (.npy and tables) for ``deepod fit``, ``deepod score`` and ``deepod plot``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np

from deepod import sources
from deepod._inputs import rows as _rows
from deepod._inputs.tables import UNKNOWN, Dialect, TableFile, is_table, open_table

_NAMED = 5  # columns of an error


@contextmanager
def about(what: str) -> Iterator[None]:
    """Put a name before the messages of errors in a ``with`` block."""
    try:
        yield
    except (OSError, ValueError, FloatingPointError, MemoryError) as error:
        raise ValueError(f"{what}: {error}") from error


class Reading(NamedTuple):
    """The columns of a table to read, and its format."""

    columns: Sequence[str] | None = None  # in this order; None takes all
    drop: Sequence[str] = ()  # left out
    dialect: Dialect = UNKNOWN  # of CSV; what is None is found out

    def open(self, path: Path, more: str | None = None) -> TableFile:
        """Open a table, with an additional last column that is read as text."""
        if more is None:
            return open_table(path, columns=self.columns, drop=self.drop, dialect=self.dialect)
        columns = None if self.columns is None else [*self.columns, more]
        return open_table(
            path, columns=columns, drop=self.drop, dialect=self.dialect, as_text=[more]
        )

    def refuse_for_arrays(self) -> None:
        """Raise ValueError for options that cannot be used with .npy files."""
        options = {"--columns": self.columns, "--drop": self.drop}
        options |= {f"--{name}": value for name, value in vars(self.dialect).items()}
        for option, value in options.items():
            if value:
                raise ValueError(
                    f"{option} is for Parquet and .csv files; a .npy file has no column names."
                    if option in ("--columns", "--drop")
                    else f"{option} is for .csv files, but this is a .npy file; leave it out."
                )


ALL = Reading()


def check_file(path: Path, out: Path, reading: Reading = ALL) -> None:
    """Raise an error for problems of a file that can be seen without reading it."""
    if not path.exists():
        raise FileNotFoundError("there is no such file or folder; check its name.")
    if out.exists() and out.samefile(path):
        raise ValueError("--out would overwrite it; give another name.")
    if path.suffix == ".npy" and not path.is_dir():
        reading.refuse_for_arrays()
    elif not path.is_dir() and not is_table(path):
        raise ValueError(
            "expected a .npy, .csv or .parquet file, or a folder of .csv or Parquet files."
        )


def open_rows(
    path: Path, folder: Path, reading: Reading = ALL, *, as_array: bool = False
) -> tuple[Any, list[str] | None]:
    """Open rows without reading them into memory.

    Parameters
    ----------
    path : Path
        A file that :func:`check_file` has accepted.
    folder : Path
        Folder for the copy of the numbers of a .csv.
    reading : Reading
    as_array : bool, default=False
        Whether to copy Parquet as well, to get an array.

    Returns
    -------
    rows : ndarray or Source
        The rows. A source has no column names, because columns are chosen, in the order of the
        training columns, when it is opened.
    names : list of str or None
        Names of the columns, if they have any.
    """
    rows: Any
    if path.suffix == ".npy" and path.is_file():
        rows, names = _npy(path), None
    else:
        table = reading.open(path)
        rows, names = _numbers(table, table.names, folder, as_array), table.names
    if rows.dtype.kind not in "biuf":
        raise ValueError(f"its values have the type {rows.dtype}, but must be numbers.")
    if not len(rows):
        raise ValueError("there are no rows.")
    return rows, names


def open_to_fit(
    path: Path, folder: Path, reading: Reading, *, allow_nan: bool, as_array: bool = False
) -> tuple[Any, list[str] | None]:
    """Open rows as :func:`open_rows` does, with column names for errors about values."""
    rows, names = open_rows(path, folder, reading, as_array=as_array)
    if names is not None and isinstance(rows, np.ndarray):
        start = 0
        for block in _rows.blocks(rows):
            check_values(block, names, start, allow_nan=allow_nan)
            start += len(block)
    elif names is not None:
        rows.feature_names = names  # errors speak of them; read once, when it is fitted
    return rows, names


def open_source(path: Path, folder: Path, reading: Reading = ALL) -> sources.Source:
    """Open rows as :func:`open_rows` does, as a source to read part by part."""
    rows, _ = open_rows(path, folder, reading)
    return sources.array(rows) if isinstance(rows, np.ndarray) else rows


def read_points(
    path: Path, folder: Path, reading: Reading, time: str | None
) -> tuple[np.ndarray, list[str] | None, list[Any] | None]:
    """Return a series in memory, and its times unconverted: text from .csv, values from Parquet.

    Parameters
    ----------
    path, folder, reading
        As in :func:`open_rows`; a .npy file may be 1-D.
    time : str or None
        Column of times.

    Returns
    -------
    rows : ndarray
    names : list of str or None
        Names of the columns, if they have any.
    times : list or None
    """
    if path.suffix == ".npy" and path.is_file():
        if time is not None:
            raise ValueError(
                f"it has no column names, such as {time!r}; use a .csv or Parquet file."
            )
        return np.array(_npy(path, dimensions=1)), None, None
    table = reading.open(path, time)
    names = [name for name in table.names if name != time]
    if not names:
        raise ValueError("no column is left to read; keep at least one.")
    times = None if time is None else table.values(time)
    rows = np.concatenate(list(table.numbers(names)))
    return rows, names, times


def read_labels(path: Path, column: str, folder: Path, dialect: Dialect) -> np.ndarray:
    """Return a column of labels, 0 = normal and 1 = anomaly."""
    if path.suffix == ".npy":
        raise ValueError(f"{path} has no names of columns; write .csv or Parquet.")
    table = Reading([column], dialect=dialect).open(path)
    if table.kinds[table.names[0]] not in ("number", "boolean"):
        found = ", ".join(map(repr, list(dict.fromkeys(table.values(column)))[:5]))
        raise ValueError(f"expected 0 for normal rows and 1 for anomalies; there are {found}.")
    source = open_source(path, folder, Reading([column], dialect=dialect))
    y = source.read(0, len(source))[:, 0]
    if not np.isin(y, (0, 1)).all():
        found = ", ".join(f"{value:g}" for value in np.unique(y)[:5])
        raise ValueError(f"expected 0 for normal rows and 1 for anomalies; there are {found}.")
    return y


def read_text(path: Path, names: Sequence[str], dialect: Dialect = UNKNOWN) -> dict[str, list[str]]:
    """Return columns of a table as unchanged text; missing values are empty texts."""
    if path.suffix == ".npy":
        raise ValueError(f"{path} has no names of columns; write .csv or Parquet.")
    if not path.exists():
        raise FileNotFoundError("there is no such file.")
    table = open_table(path, columns=names, dialect=dialect, as_text=names)
    return {
        name: ["" if v is None or v != v else str(v) for v in table.values(name)] for name in names
    }


class Frame:
    """The rows of a mixed table in memory, with the interface of a source."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame
        self.shape = frame.shape

    def __len__(self) -> int:
        return len(self.frame)

    def read(self, start: int, stop: int) -> Any:
        """Return rows ``start`` to ``stop`` (excluded)."""
        return self.frame.iloc[start:stop]


# If this share of the cells of a column are numbers, its texts may be typing errors or "NA".
_MOST_NUMBERS = 0.1


def read_mixed(path: Path, reading: Reading, categories: Any = None) -> Any:
    """Return a table whose columns hold numbers, text and times as a DataFrame.

    Parameters
    ----------
    path : Path
    reading : Reading
    categories : list of str or object, optional
        Columns of categories, most of whose cells may be numbers.

    Returns
    -------
    frame : pandas.DataFrame or None
        None without pandas; if all columns hold numbers; or if a column holds other values, or
        numbers and a few texts, which may be typing errors. Then use :func:`open_rows`, which
        raises the error.
    """
    if path.suffix == ".npy" or not find_spec("pandas"):
        return None
    table = reading.open(path)
    if table.is_text and isinstance(categories, list | tuple):
        table.as_text = [name for name in categories if name in table.names]
    kinds = table.kinds
    if "other" in kinds.values() or set(kinds.values()) <= {"number", "boolean"}:
        return None
    frame = _frame(table)
    texts = [name for name, kind in kinds.items() if kind == "text" and name not in table.as_text]
    if table.is_text and any(_has_slips(frame[name]) for name in texts):
        return None
    return frame


def read_as_encoded(path: Path, reading: Reading, known: Sequence[dict[str, Any]]) -> Any:
    """Return a table as a DataFrame for an encoder of these ``known`` columns.

    Cells of its columns of numbers must be numbers; categories are read as unchanged text.
    """
    if path.suffix == ".npy":
        raise ValueError(
            "it has no column names, by which MODEL encodes the columns; use a .csv or Parquet "
            "file."
        )
    kinds = {column["name"]: column["kind"] for column in known}
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    others = [name for name in kinds if name not in numbers]
    table = reading._replace(columns=others).open(path)
    if table.is_text:
        table.as_text = [column["name"] for column in known if _is_written(column)]
    frame = _frame(table)
    if numbers:
        own = reading._replace(columns=numbers).open(path)
        values = np.concatenate(list(own.numbers()))
        for name, column in zip(numbers, values.T, strict=True):
            frame[name] = column
    return frame[list(kinds)]


def _frame(table: TableFile) -> Any:
    import pyarrow as pa

    return pa.Table.from_batches(table.batches()).to_pandas()


def _is_written(column: dict[str, Any]) -> bool:
    """Return whether cells of a column are read as text even if all of them look like numbers."""
    if column["kind"] != "category":
        return False
    return not {*column["frequent"], *column["rare"]} <= {"True", "False", ""}


def _has_slips(cells: Any) -> bool:
    import pandas as pd

    there = cells[cells.notna() & (cells != "")]
    numbers = pd.to_numeric(there, errors="coerce").notna()
    return bool(numbers.mean() >= _MOST_NUMBERS) if len(there) else False


def check_values(rows: np.ndarray, names: list[str], start: int, *, allow_nan: bool) -> None:
    """Raise an error that names the column if a value is infinite, or missing and not allowed.

    ``start`` is the number of rows of the file before these.
    """
    what, bad = "has no value", np.isnan(rows)
    remedy = "fill the gaps, or have them filled: deepod fit --set missing=impute"
    if allow_nan or not bad.any():
        what, bad, remedy = "is infinite", np.isinf(rows), "replace it"
    if not bad.any():
        return
    row, column = np.argwhere(bad)[0]
    found = [repr(names[j]) for j in np.flatnonzero(bad.any(0))]
    more = f"; columns with such cells: {', '.join(found[:_NAMED])}" if len(found) > 1 else ""
    more += f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    raise ValueError(f"row {start + row + 1}, column {names[column]!r} {what}{more}; {remedy}.")


def _npy(path: Path, dimensions: int = 2) -> np.ndarray:
    try:
        rows = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:  # Python objects, half a file, something else
        raise ValueError(f"{error} Save an array of numbers with numpy.save.") from error
    if rows.ndim < dimensions:
        raise ValueError(
            f"it holds an array of shape {rows.shape}, but rows need at least two axes; reshape it "
            "to (n, features)."
        )
    return rows


def _numbers(table: TableFile, names: list[str], folder: Path, as_array: bool) -> Any:
    """Open columns of numbers, whose rows can then be read in any order.

    Those of CSV are copied to a temporary file, which disappears with the process.
    """
    source = None if as_array else table.source(names)
    if source is not None:
        source.feature_names = None
        return source
    n = 0
    with TemporaryFile(dir=folder) as file:
        for block in table.numbers(names):
            block.tofile(file)
            n += len(block)
        file.flush()
        return np.memmap(file, np.float64, "r", shape=(n, len(names)))
