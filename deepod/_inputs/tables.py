"""The reader of all tables on disk: CSV in any dialect, and Parquet.

Arrow splits the lines into cells. This module defines what a cell means, with one grammar of
numbers for all commands, and guesses nothing: no row is padded, and no column is assumed to hold
row numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepod._inputs.dialects import SUFFIXES, UNKNOWN, CsvFile, Dialect, number

if TYPE_CHECKING:
    from deepod.sources import Source

__all__ = ["UNKNOWN", "Dialect", "TableFile", "choose", "is_table", "number", "open_table", "stem"]

_CELLS = 1 << 19  # in memory at once
_SHOWN = 40  # characters of a cell in an error
_PARQUET = (".parquet", ".pq")
_WORDS = ("true", "false")


def _sources() -> Any:
    """Import ``deepod.sources``, which imports torch, only for Parquet."""
    from deepod import sources

    return sources


def is_table(path: Path) -> bool:
    """Return whether a file or a folder has the name of a table."""
    return _is_csv(path) or path.suffix.lower() in _PARQUET


def stem(path: Path) -> str:
    """Return the name of a table: the name of its file without the suffix of the format."""
    name = path.name
    for suffix in (*SUFFIXES, *_PARQUET):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem


def _is_csv(path: Path) -> bool:
    return path.name.lower().endswith(tuple(SUFFIXES))


def open_table(
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    dialect: Dialect = UNKNOWN,
    as_text: Sequence[str] = (),
) -> TableFile:
    """Open a table; only its header is read at once.

    Parameters
    ----------
    path : Path
        A file .csv, .csv.gz, .csv.bz2, .csv.zst (in any case of letters), .parquet or .pq; or a
        folder of such files, which are read in the order of their names as one table. An index that
        pandas has written to Parquet is not a column unless ``columns`` names it. The keys of
        partitioned folders, as in ``year=2024``, are columns.
    columns : sequence of str, optional
        Columns to read, in this order; None reads all. Blanks around names are ignored.
    drop : sequence of str, default=()
        Columns to leave out.
    dialect : Dialect
        The known part of the format of CSV. The rest is detected from the first lines of each file.
    as_text : sequence of str, default=()
        Columns to read unchanged as text, such as keys like ``0012345``.

    Returns
    -------
    table : TableFile

    Raises
    ------
    ValueError
        If the name of a column is missing, empty or not unique, or the dialect cannot be detected.
    ImportError
        If pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'Reading {path.name} needs pyarrow; install it with pip install "deepod[data]".'
        ) from error
    if not path.is_dir():
        reader: type[TableFile] = _Csv if _is_csv(path) else _Parquet
        if not is_table(path):
            raise ValueError(f"expected a file of .csv or .parquet, got {path.name!r}.")
        return reader([path], path, columns, drop, dialect, as_text)
    inside = [
        p
        for p in sorted(path.rglob("*"))
        # Without the files of Spark and file managers, such as _SUCCESS.
        if p.is_file() and not any(part[0] in "._" for part in p.relative_to(path).parts)
    ]
    csv = [p for p in inside if _is_csv(p)]
    parquet = [p for p in inside if p.suffix.lower() in _PARQUET]
    if csv and any("=" in str(p.parent.relative_to(path)) for p in csv):
        raise ValueError(
            f"the names of its folders hold values ({csv[0].parent.relative_to(path)}), which are "
            "read with Parquet files only; write the values into the .csv files, and put these "
            "into one folder."
        )
    if not (csv or parquet):
        raise ValueError("there is no .csv or .parquet file in this folder.")
    if csv and parquet:
        raise ValueError(
            f"the folder holds both .csv files ({csv[0].name}) and Parquet files "
            f"({parquet[0].name}); put each kind into a folder of its own."
        )
    return (_Csv if csv else _Parquet)(csv or parquet, path, columns, drop, dialect, as_text)


def choose(header: Sequence[str], columns: Sequence[str] | None, drop: Sequence[str]) -> list[str]:
    """Return the names of the columns to read; raise ValueError if a name is absent or duplicated.

    Parameters
    ----------
    header : sequence of str
        Names of all columns.
    columns : sequence of str or None
        Columns to read; None reads all.
    drop : sequence of str
        Columns to leave out.

    Returns
    -------
    names : list of str
    """
    names = header if columns is None else columns
    if "" in names:
        raise ValueError(
            "a column has no name. If it holds the row numbers that pandas writes, which are not a "
            "feature, save the file with to_csv(index=False); otherwise give the column a name."
        )
    for name in [*names, *drop]:
        if name not in header:
            raise ValueError(f"there is no column {name!r}; the columns are {', '.join(header)}.")
        if header.count(name) > 1:
            raise ValueError(f"{header.count(name)} columns have the name {name!r}; rename them.")
    left = [name for name in names if name not in drop]
    if not left:
        raise ValueError("no column is left to read; keep at least one.")
    return left


class TableFile(ABC):
    """A table on disk, whose rows are read when they are needed.

    Attributes
    ----------
    names : list of str
        Names of the columns to read, in order.
    header : list of str
        Names of all columns of the file.
    is_text : bool
        Whether the file is text, so that its cells have no types.
    """

    is_text = False

    def __init__(
        self,
        files: list[Path],
        path: Path,
        columns: Sequence[str] | None,
        drop: Sequence[str],
        dialect: Dialect,
        as_text: Sequence[str],
    ) -> None:
        self.path = path
        self._open(files, dialect)
        self.as_text = [name.strip() for name in as_text]
        columns = self._columns() if columns is None else [name.strip() for name in columns]
        self.names = choose(self.header, columns, [name.strip() for name in drop])
        choose(self.header, [*self.as_text, *self.names], ())

    header: list[str]

    @abstractmethod
    def _open(self, files: list[Path], dialect: Dialect) -> None:
        """Read the header."""

    @abstractmethod
    def _columns(self) -> list[str]:
        """Return the columns to read by default."""

    @abstractmethod
    def _kinds(self, names: list[str]) -> dict[str, str]:
        """Return the kind of each column."""

    @abstractmethod
    def numbers(self, names: Sequence[str] | None = None) -> Iterator[np.ndarray]:
        """Yield blocks of columns as float64 (n, d), in which empty cells are NaN.

        Parameters
        ----------
        names : sequence of str, optional
            Names of the columns; None reads all columns of this table.

        Raises
        ------
        ValueError
            If there are no rows, a row has another number of cells than there are columns, or a
            cell is not a number. The message says in which row, counted from 1, and column.
        """

    def source(self, names: Sequence[str] | None = None) -> Source | None:
        """Return a source of rows that can be read in any order, or None if it is CSV."""
        return None

    def values(self, name: str) -> list[Any]:
        """Return the cells of a column unchanged: text from CSV, any type from Parquet."""
        return [v for _, batch, _ in self._read([name]) for v in batch.column(0).to_pylist()]

    @abstractmethod
    def _read(self, names: list[str]) -> Iterator[tuple[Any, Any, int]]:
        """Yield unconverted Arrow batches, each with its file and the number of its first row."""

    @abstractmethod
    def _converted(self, column: Any, name: str, kind: str, file: Any, row: int) -> Any:
        """Return an Arrow array, converted to the type of its kind."""

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The kind of each column by name: "number", "boolean", "text", "time" or "other".

        For CSV, it is found from all rows: a column is text if one cell is not a number.
        """
        rest = [name for name in self.names if name not in self.as_text]
        found = self._kinds(rest) if rest else {}
        return {name: found.get(name, "text") for name in self.names}

    def batches(self, names: Sequence[str] | None = None) -> Iterator[Any]:
        """Yield batches as ``pyarrow.RecordBatch`` of float64, bool, string and timestamps.

        Parameters
        ----------
        names : sequence of str, optional
            Names of the columns; None reads all columns of this table.
        """
        import pyarrow as pa

        names = self.names if names is None else list(names)
        as_they_are = all(name in self.as_text for name in names)
        kinds = dict.fromkeys(names, "text") if as_they_are else self.kinds
        for file, batch, row in self._read(names):
            arrays = [
                self._converted(batch.column(i), name, kinds[name], file, row)
                for i, name in enumerate(names)
            ]
            yield pa.RecordBatch.from_arrays(arrays, names)


class _Csv(TableFile):
    """One or more CSV files with the same header."""

    is_text = True

    def _open(self, files: list[Path], dialect: Dialect) -> None:
        self._files = [CsvFile(file, dialect) for file in files]
        self.header = self._files[0].header
        for file in self._files[1:]:
            if file.header != self.header:
                raise ValueError(
                    f"{file.path.name} has the columns {', '.join(file.header)}, but "
                    f"{self._files[0].path.name} has {', '.join(self.header)}; all files of a "
                    "folder need the same columns."
                )

    def _columns(self) -> list[str]:
        return self.header

    def _read(self, names: list[str]) -> Iterator[tuple[CsvFile, Any, int]]:
        places = [self.header.index(name) for name in names]
        some = False
        for file in self._files:
            row = 1
            with self._of(file):
                for batch in file.batches(places, max(1, _CELLS // len(self.header))):
                    yield file, batch, row
                    row += len(batch)
                    some = True
        if not some:
            raise ValueError("there are no rows.")

    def _of(self, file: CsvFile) -> Any:
        return _about(file.path.name if len(self._files) > 1 else None)

    def numbers(self, names: Sequence[str] | None = None) -> Iterator[np.ndarray]:
        names = self.names if names is None else list(names)
        for file, batch, row in self._read(names):
            out = np.empty((len(batch), len(names)))
            with self._of(file):
                wrong = []
                for i, column in enumerate(batch.columns):
                    found = _floats(column, file.decimal)
                    if isinstance(found, int):
                        wrong.append((found, i))
                    else:
                        out[:, i] = found
                if wrong:
                    at, i = min(wrong)
                    raise ValueError(
                        f"row {row + at}, column {names[i]!r}: "
                        f"{_not_a_number(batch.column(i)[at].as_py(), names[i], file)}"
                    )
            yield out

    def _kinds(self, names: list[str]) -> dict[str, str]:
        possible = {name: ["boolean", "number", "naive", "zoned", "either"] for name in names}
        empty = set(names)
        for file, batch, _ in self._read(names):
            for name, column in zip(names, batch.columns, strict=True):
                possible[name] = [k for k in possible[name] if _fits(column, k, file)]
                if name in empty and not _is_blank(column):
                    empty.remove(name)
        kinds = {}
        for name, left in possible.items():
            kind = "number" if name in empty else (left or ["text"])[0]
            if kind == "either":
                raise ValueError(
                    f"column {name!r} has numbers with a comma; give decimal=',' if that is the "
                    "decimal point, or decimal='.' if these cells are text."
                )
            kinds[name] = "time" if kind in ("naive", "zoned") else kind
        return kinds

    def _converted(self, column: Any, name: str, kind: str, file: CsvFile, row: int) -> Any:
        import pyarrow as pa

        if kind == "number":
            found = _floats(column, file.decimal)
            if isinstance(found, int):  # the file has changed since its kinds were found
                cell = _not_a_number(column[found].as_py(), name, file)
                raise ValueError(f"row {row + found}, column {name!r}: {cell}")
            return pa.array(found, from_pandas=True)
        if kind == "boolean":
            return _trimmed(column).cast(pa.bool_())
        if kind == "time":
            return _times(column)
        return column


class _Parquet(TableFile):
    """One or more Parquet files."""

    def _open(self, files: list[Path], dialect: Dialect) -> None:
        if any(option is not None for option in (dialect.sep, dialect.decimal, dialect.encoding)):
            raise ValueError(
                "sep, decimal and encoding are for CSV files, but this is Parquet; leave them out."
            )
        # The folder instead of its files, because the names of its folders may be values.
        self._dataset = _sources().open_parquet(self.path if self.path.is_dir() else files)
        self._types = _sources().parquet_types(self._dataset)
        self._names = list(self._types)  # as they are in the files
        self.header = [name.strip() for name in self._names]

    def _columns(self) -> list[str]:
        index = _sources().index_names(self._dataset.schema)
        return [name.strip() for name in self._names if name not in index]

    def _inside(self, names: Sequence[str]) -> list[str]:
        return [self._names[self.header.index(name)] for name in names]

    def _kinds(self, names: list[str]) -> dict[str, str]:
        return {name: self._kind(name) for name in names}

    def _kind(self, name: str) -> str:
        types = self._types[self._names[self.header.index(name)]]
        kinds = {_sources().kind_of(kind) for kind in types}
        if kinds == {"number", "boolean"}:
            return "number"
        if len(kinds) > 1:
            raise ValueError(
                f"column {name!r} is {' in some files and '.join(map(str, types))} in others; "
                f"write it with one type, or leave it out with drop={[name]}."
            )
        return kinds.pop()

    def source(self, names: Sequence[str] | None = None) -> Source:
        names = self.names if names is None else list(names)
        for name, inside in zip(names, self._inside(names), strict=True):
            kind = self._kind(name)
            if kind not in ("number", "boolean"):
                arrow_type = self._types[inside][0]
                raise ValueError(f"column {name!r} {_not_numeric(kind, name, arrow_type)}")
        return _sources().parquet(self._dataset, self._inside(names))

    def numbers(self, names: Sequence[str] | None = None) -> Iterator[np.ndarray]:
        source = self.source(names)
        if not len(source):
            raise ValueError("there are no rows.")
        for start, stop in _sources().cut(0, len(source), max(1, _CELLS // source.shape[1])):
            yield source.read(start, stop).astype(np.float64)

    def _read(self, names: list[str]) -> Iterator[tuple[str, Any, int]]:
        some = False
        inside = self._inside(names)
        rows = max(1, _CELLS // len(names))
        for path, batches in _sources().parquet_batches(self._dataset, inside, rows):
            row = 1
            for batch in batches:
                yield path, batch, row
                row += len(batch)
                some = some or len(batch) > 0
        if not some:
            raise ValueError("there are no rows.")

    def _converted(self, column: Any, name: str, kind: str, file: str, row: int) -> Any:
        import pyarrow as pa

        column = _sources().as_plain(column)
        if kind == "number":
            return column.cast(pa.float64(), safe=False)
        if kind == "time":  # those with a zone in UTC, as of CSV
            return column.cast(pa.timestamp("us"), safe=False)
        if kind != "text":
            return column
        try:
            return column.cast(pa.string())
        except pa.ArrowNotImplementedError as error:  # lists and the like
            raise ValueError(
                f"column {name!r} has the type {column.type}, which cannot be read as text; leave "
                f"it out with drop={[name]}."
            ) from error


def _about(what: str | None) -> Any:
    """Return a context in which error messages begin with the name of a file."""
    return _Named(what)


class _Named:
    def __init__(self, what: str | None) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if self.what is not None and isinstance(error, ValueError):
            raise ValueError(f"{self.what}: {error}") from error


def _not_a_number(cell: str, name: str, file: CsvFile) -> str:
    way = "missing values must be empty cells; encode text, or leave the column out with "
    way += f"drop={[name]}"
    if file.decimal == "." and "," in cell and _is_number(cell, ","):
        way = "if the comma is the decimal point, give decimal=','"
    return f"expected a number, got {cell.strip()[:_SHOWN]!r} ({way})."


def _not_numeric(kind: str, name: str, arrow_type: Any) -> str:
    what = {"time": "holds times", "text": "holds text"}.get(
        kind, "holds values that are not numbers"
    )
    return f"{what} ({arrow_type}); encode it, or leave the column out with drop={[name]}."


def _is_number(cell: str, decimal: str) -> bool:
    with suppress(ValueError):
        number(cell, decimal)
        return True
    return False


def _trimmed(column: Any) -> Any:
    """Return text without surrounding blanks, and null for blank cells."""
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def _is_blank(column: Any) -> bool:
    return column.null_count == len(column) or _trimmed(column).null_count == len(column)


def _floats(column: Any, decimal: str) -> np.ndarray | int:
    """Return a column of text as numbers, or the index of the first cell that is not a number.

    If Arrow cannot convert the whole column, its cells are converted one by one.
    """
    import pyarrow as pa

    if decimal == ".":
        with suppress(pa.ArrowInvalid):
            return _cast(column)
    cells = column.to_pylist()
    if decimal != "." and not any(cell is not None and "." in cell for cell in cells):
        import pyarrow.compute as pc

        with suppress(pa.ArrowInvalid):
            return _cast(pc.replace_substring(column, decimal, "."))
    numbers = np.empty(len(cells))
    for i, cell in enumerate(cells):
        try:
            numbers[i] = np.nan if cell is None else number(cell, decimal)
        except ValueError:
            return i
    return numbers


def _cast(column: Any) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = column.cast(pa.float64())
    for cell in column.filter(pc.fill_null(pc.is_nan(numbers), False)).to_pylist():
        if cell.lower().lstrip("+-") != "nan":  # Arrow accepts nan(1) too
            raise pa.ArrowInvalid(cell)
    return numbers.to_numpy(zero_copy_only=False)


def _fits(column: Any, kind: str, file: CsvFile) -> bool:
    """Return whether all cells that are not blank are of this kind.

    In addition to the kinds of tables, there are "naive" and "zoned" times, and "either": numbers
    with a comma that may be a decimal point.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind == "number":
        return isinstance(_floats(column, file.decimal), np.ndarray)
    if kind == "either":
        if file.decimal_is_known:
            return False
        cells = (cell for cell in column.to_pylist() if cell is not None)
        return all(_is_number(cell, ".") or _is_number(cell, ",") for cell in cells)
    if kind in ("naive", "zoned"):
        with suppress(pa.ArrowInvalid):
            _times(column, (pa.timestamp("us", "UTC" if kind == "zoned" else None),))
            return True
        return False
    words = pc.utf8_lower(_trimmed(column))
    among = pc.is_in(words, pa.array(_WORDS))
    return pc.all(pc.or_(among, pc.is_null(words)), min_count=0).as_py()


def _times(column: Any, types: Sequence[Any] = ()) -> Any:
    """Parse dates and times in ISO 8601, to the microsecond; those with a zone become UTC."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = pc.replace_substring_regex(_trimmed(column), r"(\.\d{6})\d+", r"\1")
    *others, last = types or (pa.timestamp("us"), pa.timestamp("us", "UTC"))
    for kind in others:
        with suppress(pa.ArrowInvalid):
            return column.cast(kind)
    return column.cast(last).cast(pa.timestamp("us"))
