"""Rows that need not fit into memory: what ``fit`` and ``decision_function`` read part by part.

A NumPy memory map may be passed to a detector as it is. :func:`array` wraps other arrays that live
on disk (zarr, HDF5), :func:`parquet` files, folders and datasets in that format. Anything with the
members of :class:`Source` will do.
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
    """Rows on disk.

    Attributes
    ----------
    shape : tuple of int
        Number of rows, then the shape of one.
    dtype : numpy.dtype
        Of what ``read`` returns.
    feature_names : list of str or None
        Names of the columns of a table.
    turns : int or None
        Blocks that can be read in turns, part by part, at no more expense than one after the other;
        None if any range of rows costs what its length does.
    """

    shape: Shape
    dtype: np.dtype
    feature_names: list[str] | None
    turns: int | None

    def __len__(self) -> int:
        """Count the rows."""

    def blocks(self) -> list[tuple[int, int]]:
        """Return the ranges (start, stop) that are stored together, in order, of all rows."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read rows ``start`` to ``stop``, and no others for long."""


def is_mapped(X: Any) -> bool:
    """Return whether X lies on disk; what NumPy computes from a memory map only keeps its type."""
    return isinstance(X, np.memmap) and getattr(X, "_mmap", None) is not None


def array(X: Any) -> Source:
    """Return the rows of an array that can be sliced: a memory map, a zarr array, an HDF5 dataset.

    Parameters
    ----------
    X : array-like of shape (n, ...)
        Has ``shape``, ``dtype`` and slices along its first axis. ``chunks``, where it has any, are
        read as a whole.

    Returns
    -------
    source : Source

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
    """Return the rows of Parquet files; needs ``pip install "deepod[data]"``.

    Parameters
    ----------
    path : str, Path, list of them, or pyarrow.dataset.Dataset
        A file, a folder, several files, or a dataset without a filter.
    columns : sequence of str, optional
        Columns to read, in this order; None reads all but what pandas has written as an index. What
        folders are called after, as in ``year=2024``, is a column too.

    Returns
    -------
    source : Source
        A table of float32, or float64 where float32 would lose digits; nulls are NaN, about which
        the detector's ``missing`` says what to do. Where the rows are windows or images, give the
        detector their ``input_shape``. Columns of text and times are for detectors with
        ``categorical_features`` and ``datetime_features``, which learn from a sample of the rows
        how to encode them.

    Notes
    -----
    Training reads four row groups at a time, in random order. Large ones of a sorted file mix
    badly, therefore, and Arrow takes up to 3 MiB per column to decode each: write files with
    ``row_group_size=50_000`` or so.

    Raises
    ------
    ValueError
        If a column is missing, there is no column, or one holds neither numbers, text nor times;
        and when rows are read, if nothing encodes columns of text and times.
    """
    return _Parquet(path, columns)


class _Group(NamedTuple):
    """Where a row group is."""

    start: int
    stop: int
    file: Any  # pyarrow.dataset.ParquetFileFragment
    number: int  # in the file
    keys: dict[str, Any]  # values of all its rows, which the names of the folders say


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
        self._no_numbers = ""  # in which column there are none, and what to do
        types = []
        start = 0
        for fragment in path.get_fragments():
            if not hasattr(fragment, "row_groups"):
                raise ValueError("The dataset is not in Parquet format; write it as Parquet first.")
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
        self._open: dict[int, _Reader] = {}  # by the starts of groups; that used last at the end

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self) -> list[tuple[int, int]]:
        return [(group.start, group.stop) for group in self._groups if group.stop > group.start]

    @property
    def is_mixed(self) -> bool:
        """Whether there are columns of text or times, so that rows can be had as a frame only."""
        return bool(self._no_numbers)

    def encoded_by(self, encode: Callable[[Any], np.ndarray], width: int) -> _Parquet:
        """Return the rows as ``encode``, given a frame of pandas, makes float64 (n, width)."""
        encoded = copy.copy(self)
        encoded._encode, encoded._no_numbers, encoded._open = encode, "", {}
        encoded.shape, encoded.dtype = (len(self), width), np.dtype(np.float64)
        encoded.feature_names = None
        return encoded

    def frame_of(self, rows: np.ndarray) -> Any:
        """Read rows by their numbers, in ascending order, into a frame of pandas; in one pass."""
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

        # Open for as long as it is read: there may be thousands of files. Page by page.
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
    """Reads rows that come in batches, forwards."""

    def __init__(self, batches: Iterator[np.ndarray], start: int) -> None:
        self._batches = batches
        self._left = next(batches)  # from row ``at`` on
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
    """NumPy's types of the columns of a file; and what to say if some are no numbers."""
    import pyarrow as pa

    path = fragment.path
    if not columns:
        raise ValueError(f"{path} has no column to read.")
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
            f"{said}{which}='from_dtype' has detectors encode it, or leave it out with "
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
        raise ValueError(f"{path} has no column {name!r}; it has {schema.names}.")
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
        raise ImportError('Parquet needs pyarrow: pip install "deepod[data]"') from error
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
    """Return the types of all columns of a dataset, the different ones that its files have."""
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
    """Return the names of the columns that are an index of pandas, as its metadata says."""
    said = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    # A RangeIndex is no column but a dictionary.
    return [name for name in said.get("index_columns", []) if isinstance(name, str)]


def parquet_batches(
    dataset: Any, names: list[str], rows: int
) -> Iterator[tuple[str, Iterator[Any]]]:
    """Return for each file its path, and its rows in batches, each column in its type there."""
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
    """Return what a type of Arrow holds: "number", "boolean", "text", "time" or "other"."""
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
    """Return an array of Arrow without a dictionary."""
    import pyarrow.types as pat

    return column.dictionary_decode() if pat.is_dictionary(column.type) else column


def head(source: Source, n: int) -> Any:
    """Read the first rows, as a table where the columns have names."""
    rows = source.read(0, min(n, len(source)))
    if source.feature_names is None:
        return rows
    import pyarrow as pa

    return pa.table(dict(zip(source.feature_names, rows.T, strict=True)))


def spread(n: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most that many of n row numbers, in order: one at random of each of as many equal parts.

    No array is as long as n. Two parts that share a row may draw it both: then there is one less.
    """
    if most >= n:
        return np.arange(n)
    part = n / max(1, most)
    return np.unique(((np.arange(most) + rng.random(most)) * part).astype(np.int64))


def cut(start: int, stop: int, rows: int) -> Iterator[tuple[int, int]]:
    """Cut a range into ranges of at most ``rows``."""
    for first in range(start, stop, rows):
        yield first, min(first + rows, stop)
