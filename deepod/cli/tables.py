"""Files of rows, as ``deepod fit``, ``score`` and ``plot`` open them: .npy, .csv and Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from deepod import sources
from deepod._inputs import rows as _rows
from deepod._inputs.tables import Block, choose, read_csv

_NAMED = 5  # columns of an error


@contextmanager
def about(what: str) -> Iterator[None]:
    """Have errors say what they are about."""
    try:
        yield
    except (OSError, ValueError, FloatingPointError, MemoryError) as error:
        raise ValueError(f"{what}: {error}") from error


def check_file(
    path: Path, out: Path, columns: Sequence[str] | None = None, drop: Sequence[str] = ()
) -> None:
    """Refuse what is seen without reading."""
    if not path.exists():
        raise FileNotFoundError("there is no such file or folder.")
    if out.exists() and out.samefile(path):
        raise ValueError("--out would overwrite it; give another name.")
    if not path.is_dir() and path.suffix not in (".npy", ".csv", ".parquet", ".pq"):
        raise ValueError("expected a .npy, .csv or .parquet file, or a folder of Parquet files.")
    for option, names in (("--columns", columns), ("--drop", drop)):
        if names and path.suffix == ".npy":
            raise ValueError(
                f"{option} is for Parquet and .csv; a .npy file has no names of columns."
            )


def open_rows(
    path: Path, folder: Path, columns: Sequence[str] | None = None, drop: Sequence[str] = ()
) -> tuple[Any, list[str] | None]:
    """Open rows, none of which are in memory then.

    Parameters
    ----------
    path : Path
        What :func:`check_file` has let pass.
    folder : Path
        Where the copy of the numbers of a .csv is.
    columns : sequence of str, optional
        Columns to read, in this order; None takes all.
    drop : sequence of str, default=()
        Columns to leave out.

    Returns
    -------
    rows : ndarray or Source
        A source is stripped of the names: new rows are read by those of the training rows and in
        their order, so that parts of them can do without.
    names : list of str or None
        Of the columns, if they have any.
    """
    rows: Any
    names = None
    if path.suffix == ".npy" and path.is_file():
        rows = _npy(path)
    elif path.suffix == ".csv" and path.is_file():
        names, rows, _ = _csv(path, folder, columns, drop)
    else:
        rows = _parquet(path, columns, drop)
        names, rows.feature_names = rows.feature_names, None
    if rows.dtype.kind not in "biuf":
        raise ValueError(f"its values are {rows.dtype}; expected numbers.")
    if not len(rows):
        raise ValueError("there are no rows.")
    return rows, names


def open_to_fit(
    path: Path,
    folder: Path,
    columns: Sequence[str] | None,
    drop: Sequence[str],
    *,
    allow_nan: bool,
) -> tuple[Any, list[str] | None]:
    """Open rows as :func:`open_rows` does, such that errors about values name the columns."""
    rows, names = open_rows(path, folder, columns, drop)
    if names is not None and isinstance(rows, np.ndarray):
        start = 0
        for block in _rows.blocks(rows):
            check_values(block, names, start, allow_nan=allow_nan)
            start += len(block)
    elif names is not None:
        rows.feature_names = names  # errors speak of them; read once, when it is fitted
    return rows, names


def open_source(
    path: Path, folder: Path, columns: Sequence[str] | None = None, drop: Sequence[str] = ()
) -> sources.Source:
    """Open rows as :func:`open_rows` does, to read them part by part."""
    rows, _ = open_rows(path, folder, columns, drop)
    return sources.array(rows) if isinstance(rows, np.ndarray) else rows


def read_points(
    path: Path,
    folder: Path,
    columns: Sequence[str] | None,
    drop: Sequence[str],
    time: str | None,
) -> tuple[np.ndarray, list[str] | None, list[Any] | None]:
    """Read a series into memory, and its times as they are: the text of a .csv, or values.

    Parameters
    ----------
    path, folder, columns, drop
        As in :func:`open_rows`; a .npy file may be 1-D.
    time : str or None
        Column that holds the time.

    Returns
    -------
    rows : ndarray
    names : list of str or None
        Of the columns, if they have any.
    times : list or None
    """
    if path.suffix == ".npy" and path.is_file():
        if time is not None:
            raise ValueError(
                f"it has no names of columns, such as {time!r}; write .csv or Parquet."
            )
        return np.array(_npy(path, dimensions=1)), None, None
    if path.suffix == ".csv" and path.is_file():
        names, rows, cells = _csv(path, folder, columns, drop, time)
        return np.array(rows), names, cells if time is not None else None
    source = _parquet(path, columns, drop if time is None else [*drop, time])
    rows = source.read(0, len(source))
    return rows, source.feature_names, None if time is None else _values(path, time)


def _values(path: Path, column: str) -> list[Any]:
    import pyarrow.dataset as pads

    files = pads.dataset(str(path), format="parquet").get_fragments()
    return [v for file in files for v in file.to_table(columns=[column]).column(0).to_pylist()]


def read_labels(path: Path, column: str, folder: Path) -> np.ndarray:
    """Read a column of labels, 0 = normal and 1 = anomaly."""
    if path.suffix == ".npy":
        raise ValueError(f"{path} has no names of columns; write .csv or Parquet.")
    source = open_source(path, folder, [column])
    y = source.read(0, len(source))[:, 0]
    if not np.isin(y, (0, 1)).all():
        found = ", ".join(f"{value:g}" for value in np.unique(y)[:5])
        raise ValueError(f"expected 0 for normal rows and 1 for anomalies; there are {found}.")
    return y


def check_values(rows: np.ndarray, names: list[str], start: int, *, allow_nan: bool) -> None:
    """Refuse gaps, unless they are allowed, and infinity by the names of the columns.

    ``start`` rows of the file come before these.
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
        raise ValueError(f"{error} Write numbers, with numpy.save.") from error
    if rows.ndim < dimensions:
        raise ValueError(f"expected rows of several values, got an array of shape {rows.shape}.")
    return rows


def _csv(
    path: Path,
    folder: Path,
    columns: Sequence[str] | None,
    drop: Sequence[str],
    text: str | None = None,
) -> Block:
    """Copy the numbers to a file without a name, which is gone when the process is, and map it."""
    names: list[str] = []
    cells: list[str] = []
    n = 0
    with TemporaryFile(dir=folder) as file:
        for block in read_csv(path, columns, drop, text):
            block.numbers.tofile(file)
            names, n = block.names, n + len(block.numbers)
            cells += block.text
        file.flush()
        return Block(names, np.memmap(file, np.float64, "r", shape=(n, len(names))), cells)


def _parquet(path: Path, columns: Sequence[str] | None, drop: Sequence[str]) -> Any:
    if drop and find_spec("pyarrow"):  # or else the next error says what to install
        import pyarrow.dataset as pads

        header = pads.dataset(str(path), format="parquet").schema.names
        columns = choose(header, columns, drop)
    return sources.parquet(path, columns)
