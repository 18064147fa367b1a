"""Sources of rows that do not fit into memory, which ``fit`` and scoring read part by part.

A NumPy memory map can be passed to a detector directly. :func:`array` wraps other arrays on disk
(zarr, HDF5), and :func:`parquet` wraps Parquet files, folders and datasets. Any object with the
members of :class:`Source` can be used as X.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from deepod.types import Shape

__all__ = ["Source", "array", "parquet"]

_BLOCK_BYTES = 1 << 18  # of an array without chunks: long enough to read, short enough to mix
_GROUPS = 4  # of Parquet, under way at the same time
_PAGE_BYTES = 1 << 16  # read from Parquet at once
_BATCH_VALUES = 1 << 18  # decoded from Parquet at once


@runtime_checkable
class Source(Protocol):
    """Protocol of rows on disk, for your own kinds of storage.

    Attributes
    ----------
    shape : tuple of int
        Number of rows, followed by the shape of one row.
    dtype : numpy.dtype
        Data type of the arrays that ``read`` returns.
    feature_names : list of str or None
        Names of the columns of a table, if they have names.
    turns : int or None
        Number of blocks that can be read alternately, part by part, as fast as one after the other.
        None if the time to read rows depends on their number only.
    """

    shape: Shape
    dtype: np.dtype
    feature_names: list[str] | None
    turns: int | None

    def __len__(self) -> int:
        """Return the number of rows."""

    def blocks(self) -> list[tuple[int, int]]:
        """Return the ranges (start, stop) of rows that are stored together, in order."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows ``start`` to ``stop`` (excluded), and hold no others in memory."""


def is_mapped(X: Any) -> bool:
    """Return whether X is a memory map; arrays computed from one have its type but no file."""
    return isinstance(X, np.memmap) and getattr(X, "_mmap", None) is not None


def array(X: Any) -> Source:
    """Return a source of rows from an array on disk: a memory map, a zarr array, an HDF5 dataset.

    Parameters
    ----------
    X : array-like of shape (n, ...)
        Object with ``shape``, ``dtype`` and slicing along its first axis. If it has ``chunks``,
        they are read as a whole.

    Returns
    -------
    source : Source
        The rows, to be passed to a detector as X.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import sources
    >>> sources.array(np.arange(6).reshape(3, 2)).read(1, 3)
    array([[2, 3],
           [4, 5]])
    """
    return _Array(X)


class _Array:
    shape: Shape
    feature_names: list[str] | None = None
    turns: int | None = None

    def __init__(self, X: Any) -> None:
        self._X = X
        self.shape = tuple(X.shape)
        self.dtype = np.dtype(X.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self) -> list[tuple[int, int]]:
        chunks = getattr(self._X, "chunks", None)
        row = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        rows = int(chunks[0]) if chunks else max(1, _BLOCK_BYTES // max(1, row))
        return list(cut(0, len(self), rows))

    def read(self, start: int, stop: int) -> np.ndarray:
        return np.asarray(self._X[start:stop])


def parquet(path: Any, columns: Sequence[str] | None = None) -> Source:
    """Return a source of rows from Parquet files; needs ``pip install "deepod[data]"``.

    Parameters
    ----------
    path : str, Path, list of them, or pyarrow.dataset.Dataset
        A file, a folder, several files, or a dataset without a filter.
    columns : sequence of str, optional
        Names of the columns to read, in this order. By default, all columns except an index that
        pandas has written. The keys of partitioned folders, as in ``year=2024``, are columns too.

    Returns
    -------
    source : Source
        A table of float32, or of float64 where float32 would lose digits, to be passed to a
        detector as X. Nulls become NaN, which the detector treats as its parameter ``missing``
        says. If the rows are windows or images, set ``input_shape`` of the detector. Columns of
        text and times need a detector with ``categorical_features`` or ``datetime_features``, which
        learns their encoding from a sample of the rows.

    Raises
    ------
    ValueError
        If a column is missing, there is no column, or a column holds something other than numbers,
        text or times. When rows are read: if there are columns of text or times and the detector
        does not encode them.
    ImportError
        If pyarrow is not installed.

    Notes
    -----
    Training reads four row groups at a time, in random order. If a file is sorted, large row groups
    therefore mix badly; Arrow also takes up to 3 MiB per column to decode each. Write files with a
    ``row_group_size`` of about 50,000.

    Examples
    --------
    >>> from deepod import sources, AutoEncoder
    >>> rows = sources.parquet("transactions/")  # doctest: +SKIP
    >>> detector = AutoEncoder().fit(rows)  # doctest: +SKIP
    """
    return _Parquet(path, columns)


class _Group(NamedTuple):
    """The place of a row group in the dataset."""

    start: int
    stop: int
    file: Any  # pyarrow.dataset.ParquetFileFragment
    number: int  # in the file
    keys: dict[str, Any]  # values of partition columns, from the names of the folders


class _Parquet:
    shape: Shape
    feature_names: list[str] | None
    turns: int | None = _GROUPS

    def __init__(self, path: Any, columns: Sequence[str] | None) -> None:
        path = open_parquet(path)
        import pyarrow as pa
        import pyarrow.dataset as pads

        if columns is None:
            index = index_names(path.schema)
            columns = [name for name in parquet_types(path) if name not in index]
        self._columns = list(columns)
        self.feature_names = self._columns
        self._groups: list[_Group] = []
        self._encode: Callable[[Any], np.ndarray] | None = None
        self._no_numbers = ""  # an error message if a column is not numeric
        types = []
        start = 0
        for fragment in path.get_fragments():
            if not hasattr(fragment, "row_groups"):
                raise ValueError(
                    "path is a dataset that is not in Parquet format; write it as Parquet first."
                )
            keys = pads.get_partition_keys(fragment.partition_expression)
            found, no_numbers = _numeric(fragment, self._columns, keys)
            types += found
            self._no_numbers = self._no_numbers or no_numbers
            for group in fragment.row_groups:
                stop = start + group.num_rows
                self._groups.append(_Group(start, stop, fragment, group.id, keys))
                start = stop
        self.shape = (start, len(self._columns))
        # Floating, so that a null can be NaN.
        self.dtype = np.result_type(np.float32, *types)
        self._arrow_type = None if self._no_numbers else pa.from_numpy_dtype(self.dtype)
        self._starts = [group.start for group in self._groups]
        self._open: dict[int, _Reader] = {}  # by the start of the group; latest use last

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self) -> list[tuple[int, int]]:
        return [(group.start, group.stop) for group in self._groups if group.stop > group.start]

    @property
    def is_mixed(self) -> bool:
        """Whether there are columns of text or times, so that rows must be read as a DataFrame."""
        return bool(self._no_numbers)

    def encoded_by(self, encode: Callable[[Any], np.ndarray], width: int) -> _Parquet:
        """Return a source of encoded rows: ``encode`` maps a DataFrame to float64 (n, width)."""
        encoded = copy.copy(self)
        encoded._encode, encoded._no_numbers, encoded._open = encode, "", {}
        encoded.shape, encoded.dtype = (len(self), width), np.dtype(np.float64)
        encoded.feature_names = None
        return encoded

    def frame_of(self, rows: np.ndarray) -> Any:
        """Return rows by their numbers, which must ascend, as a DataFrame; read in one pass."""
        import pandas as pd

        parts = []
        for group in self._groups:
            start = group.start
            first, last = np.searchsorted(rows, (start, group.stop))
            for batch in self._batches(group) if first < last else ():
                first, last = np.searchsorted(rows, (start, start + len(batch)))
                if first < last:
                    parts.append(self._frame(batch, group).iloc[rows[first:last] - start])
                start += len(batch)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=self._columns)

    def read(self, start: int, stop: int) -> np.ndarray:
        if self._no_numbers:
            raise ValueError(self._no_numbers)
        out = np.empty((stop - start, self.shape[1]), self.dtype)
        while start < stop:
            group = self._groups[int(np.searchsorted(self._starts, start, side="right")) - 1]
            last = min(stop, group.stop)
            reader = self._open.pop(group.start, None)
            if reader is None or reader.at > start:
                reader = _Reader(self._decode(group), group.start)
            reader.read(start, out[len(out) - (stop - start) :][: last - start])
            if last < group.stop:
                self._open[group.start] = reader
            if len(self._open) > _GROUPS:
                del self._open[next(iter(self._open))]
            start = last
        return out

    def _batches(self, group: _Group) -> Iterator[Any]:
        from pyarrow.parquet import ParquetFile

        # Open only while it is read, because there may be thousands of files. Page by page.
        file = ParquetFile(
            group.file.path,
            metadata=group.file.metadata,
            filesystem=group.file.filesystem,
            buffer_size=_PAGE_BYTES,
            pre_buffer=False,
        )
        yield from file.iter_batches(
            batch_size=max(1, _BATCH_VALUES // max(len(self._columns), self.shape[1])),
            row_groups=[group.number],
            columns=[name for name in self._columns if name not in group.keys],
            use_threads=False,
        )

    def _decode(self, group: _Group) -> Iterator[np.ndarray]:
        for batch in self._batches(group):
            if self._encode is not None:
                yield self._encode(self._frame(batch, group))
                continue
            out = np.empty((len(batch), self.shape[1]), self.dtype)
            for i, name in enumerate(self._columns):
                if name in group.keys:
                    out[:, i] = group.keys[name]
                else:
                    column = as_plain(batch.column(name)).cast(self._arrow_type, safe=False)
                    out[:, i] = column.to_numpy(zero_copy_only=False)
            yield out

    def _frame(self, batch: Any, group: _Group) -> Any:
        frame = batch.to_pandas(ignore_metadata=True)  # else some columns would be the index
        return frame.assign(**group.keys)[self._columns]


class _Reader:
    """A reader of rows that come in batches, in ascending order only."""

    def __init__(self, batches: Iterator[np.ndarray], start: int) -> None:
        self._batches = batches
        self._left = next(batches)  # begins at row ``at``
        self.at = start

    def read(self, start: int, out: np.ndarray) -> None:
        """Fill ``out`` with the rows from ``start`` on."""
        filled = 0
        while filled < len(out):
            while self.at + len(self._left) <= start + filled:
                self.at += len(self._left)
                self._left = next(self._batches)
            part = self._left[start + filled - self.at :][: len(out) - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)


def _numeric(fragment: Any, columns: list[str], keys: dict[str, Any]) -> tuple[list[np.dtype], str]:
    """Return the NumPy types of the columns of a file, and a message if some are not numeric."""
    import pyarrow as pa

    path = fragment.path
    if not columns:
        raise ValueError(f"{path} has no column to read; name at least one in columns=[...].")
    types, no_numbers = [], ""
    for name in columns:
        kind = pa.scalar(keys[name]).type if name in keys else _field(fragment, name).type
        held = kind_of(kind)
        if held in ("number", "boolean"):
            types.append(_numpy_type(kind))
            continue
        said = f"Column {name!r} of {path} has type {kind}, which is not numeric; "
        if held == "other":
            raise ValueError(f"{said}leave it out with columns=[...].")
        which = "datetime_features" if held == "time" else "categorical_features"
        no_numbers = no_numbers or (
            f"{said}use {which}='from_dtype' to have the detector encode it, or leave it out with "
            "columns=[...]."
        )
        types.append(np.dtype(object))
    return types, no_numbers


def _field(fragment: Any, name: str) -> Any:
    schema, path = fragment.physical_schema, fragment.path
    there = schema.names.count(name)
    if there > 1:
        raise ValueError(f"{there} columns of {path} have the name {name!r}; rename them.")
    if not there:
        raise ValueError(f"{path} has no column {name!r}; its columns are {schema.names}.")
    return schema.field(name)


def _numpy_type(kind: Any) -> np.dtype:
    import pyarrow.types as pat

    if pat.is_dictionary(kind):
        kind = kind.value_type
    if pat.is_decimal(kind):
        return np.dtype(np.float64)
    return np.dtype(np.float32 if pat.is_null(kind) else kind.to_pandas_dtype())


def open_parquet(path: Any) -> Any:
    """Open files, a folder or a dataset as a ``pyarrow.dataset.Dataset``, partitions included."""
    try:
        import pyarrow as pa
        import pyarrow.dataset as pads
    except ImportError as error:
        raise ImportError(
            'Parquet files need pyarrow; install it with pip install "deepod[data]".'
        ) from error
    if isinstance(path, pads.Dataset):
        return path
    parts = [str(p) for p in (path if isinstance(path, list | tuple) else [path])]
    try:
        return pads.dataset(
            parts[0] if len(parts) == 1 else parts, format="parquet", partitioning="hive"
        )
    except pa.ArrowInvalid as error:
        if "duplicate" in str(error):
            raise ValueError("two columns have the same name; rename one of them.") from error
        raise


def parquet_types(dataset: Any) -> dict[str, list[Any]]:
    """Return the distinct Arrow types of each column of a dataset, over all its files."""
    types: dict[str, list[Any]] = {}
    schemas = [file.physical_schema for file in dataset.get_fragments()]
    # The names of folders are in none of the files.
    inside = {name for schema in schemas for name in schema.names}
    for schema in [*schemas, [field for field in dataset.schema if field.name not in inside]]:
        for field in schema:
            found = types.setdefault(field.name, [])
            if field.type not in found:
                found.append(field.type)
    return types


def index_names(schema: Any) -> list[str]:
    """Return the names of the columns that pandas has written as an index."""
    said = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    # A RangeIndex is no column but a dictionary.
    return [name for name in said.get("index_columns", []) if isinstance(name, str)]


def parquet_batches(
    dataset: Any, names: list[str], rows: int
) -> Iterator[tuple[str, Iterator[Any]]]:
    """Yield the path of each file and its rows in batches, with the column types of that file."""
    import pyarrow.dataset as pads

    for file in dataset.get_fragments():
        keys = pads.get_partition_keys(file.partition_expression)
        for name in names:
            if name not in keys:
                _field(file, name)
        schema = file.physical_schema
        for name in keys:
            schema = schema.append(dataset.schema.field(name)) if name in names else schema
        yield (
            file.path,
            file.to_batches(
                schema=schema,
                columns=names,
                batch_size=rows,
                batch_readahead=1,
                use_threads=False,
            ),
        )


def kind_of(kind: Any) -> str:
    """Return the kind of an Arrow type: "number", "boolean", "text", "time" or "other"."""
    import pyarrow.types as pat

    if pat.is_dictionary(kind):
        kind = kind.value_type
    if pat.is_boolean(kind):
        return "boolean"
    # All gaps: a column of floats, as in CSV.
    if pat.is_integer(kind) or pat.is_floating(kind) or pat.is_decimal(kind) or pat.is_null(kind):
        return "number"
    if pat.is_timestamp(kind) or pat.is_date(kind):  # not a time of day, or a span of time
        return "time"
    text = ("string", "large_string", "string_view")  # the last is not known to all versions
    return "text" if str(kind) in text else "other"


def as_plain(column: Any) -> Any:
    """Return an Arrow array without dictionary encoding."""
    import pyarrow.types as pat

    return column.dictionary_decode() if pat.is_dictionary(column.type) else column


def head(source: Source, n: int) -> Any:
    """Return the first n rows, as an Arrow table if the columns have names."""
    rows = source.read(0, min(n, len(source)))
    if source.feature_names is None:
        return rows
    import pyarrow as pa

    return pa.table(dict(zip(source.feature_names, rows.T, strict=True)))


def spread(n: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """Return at most ``most`` of n row numbers in order, one drawn from each of ``most`` parts.

    It allocates no array of length n. Neighbouring parts may draw the same row, which is then
    returned once.
    """
    if most >= n:
        return np.arange(n)
    part = n / max(1, most)
    return np.unique(((np.arange(most) + rng.random(most)) * part).astype(np.int64))


def cut(start: int, stop: int, rows: int) -> Iterator[tuple[int, int]]:
    """Yield consecutive ranges of at most ``rows`` that make up a range."""
    for first in range(start, stop, rows):
        yield first, min(first + rows, stop)
