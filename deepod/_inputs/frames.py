"""Tables of other libraries: the kinds of their columns, and errors for those without numbers.

No library is imported here: if it is not loaded yet, X cannot be one of its tables.
"""

from __future__ import annotations

import datetime
import decimal
import numbers
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np

from deepod.sources import index_names

Kind = Literal["number", "boolean", "text", "category", "time", "other"]

_NAMED = 5  # columns, at most, in a message
_LONGEST = 40  # characters of a value, at most, in a message
_NUMBERS = (numbers.Real, decimal.Decimal, np.bool_)
_TIMES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)
_OF_PANDAS = {"Period": "time", "NaTType": "time", "NAType": None}


class Column(NamedTuple):
    """The kind of a column of a table.

    Attributes
    ----------
    name : object
        Name of the column, or its number, counted from 0, if it has no name.
    dtype : str
        Data type, as its library calls it.
    kind : {"number", "boolean", "text", "category", "time", "other"}
        Kind of the values. That of Python objects is their common kind, or "other".
    numeric : bool
        Whether it converts to numbers directly: numbers, booleans, and categories of numbers.
    """

    name: Any
    dtype: str
    kind: Kind
    numeric: bool


def in_memory(X: Any, name: str = "X") -> Any:
    """Return a table of another library as one of pandas, polars or pyarrow.

    Dask's tables are computed; those of cuDF, Modin and the like are converted to pandas. An index
    of pandas in an Arrow table is dropped. Everything else is returned unchanged.

    Raises
    ------
    TypeError
        If the conversion is for the user to decide on, as with tables of Spark.
    """
    if isinstance(X, np.ndarray) or _is(X, "pandas", "DataFrame", "Series"):
        return X
    if _is(X, "polars", "LazyFrame"):
        raise TypeError(
            f"{name} is a LazyFrame of polars, which holds no rows yet; pass {name}.collect()."
        )
    if _is(X, "pyspark", "DataFrame"):
        raise TypeError(
            f"{name} is a DataFrame of Spark; pass {name}.toPandas(), or score it with "
            "deepod.distributed.score_spark."
        )
    if _is(X, "xarray", "Dataset"):
        raise TypeError(
            f"{name} is a Dataset of xarray, which holds several arrays; pass one of them, or "
            f"{name}.to_dataframe() for a table."
        )
    if _is(X, "polars", "DataFrame", "Series") or _is(X, "pyarrow", "ChunkedArray"):
        return X
    if _is(X, "pyarrow", "RecordBatch"):
        X = sys.modules["pyarrow"].Table.from_batches([X])
    if _is(X, "pyarrow", "Table"):
        index = [name for name in index_names(X.schema) if name in X.column_names]
        return X.drop_columns(index) if index else X
    if _is(X, "pyarrow", "Array"):
        return sys.modules["pyarrow"].chunked_array([X])
    if type(X).__module__.partition(".")[0] == "dask" and hasattr(X, "compute"):
        return X.compute()
    convert = getattr(X, "to_pandas", None) or getattr(X, "_to_pandas", None)
    if callable(convert) and not _is(X, "xarray", "DataArray"):
        return convert()
    return X


def columns_of(X: Any) -> list[Column] | None:
    """Return the kinds of the columns of a table, or None if X is not a table.

    Parameters
    ----------
    X : object
        A table, or a single column, of pandas, polars or pyarrow; convert others with
        :func:`in_memory` first.

    Returns
    -------
    columns : list of Column or None
    """
    names_and_values = _columns(X)
    if names_and_values is None:
        return None
    return [_column(name, values) for name, values in names_and_values]


def refuse_columns(X: Any, name: str = "X") -> None:
    """Raise an error if a table or an array has columns that are not numbers.

    Raises
    ------
    ValueError
        If it has. The message names the columns, their type and first value, and a remedy.
    TypeError
        If the columns hold Python objects that are neither text nor times.
    """
    if isinstance(X, np.ndarray):
        _refuse_array(X, name)
        return
    found = [
        (column, first_value(values, column))
        for (_, values), column in zip(_columns(X) or (), columns_of(X) or (), strict=True)
        if not column.numeric
    ]
    if found:
        _refuse(found, name)


def numbers_of(X: Any) -> Any:
    """Return a table whose columns NumPy converts to numbers, without decimals or dictionaries.

    Parameters
    ----------
    X : DataFrame of pandas or polars, or Table of pyarrow
        A table that :func:`refuse_columns` accepts.
    """
    if _is(X, "polars", "DataFrame"):
        pl = sys.modules["polars"]
        plain = [n for n, d in X.schema.items() if not (d.is_integer() or d.is_float())]
        return X.with_columns(pl.col(n).cast(pl.Float64) for n in plain)
    if _is(X, "pyarrow", "Table"):
        return _arrow_numbers(X)
    pandas = sys.modules["pandas"]
    changed = {}
    for i, dtype in enumerate(X.dtypes):
        if isinstance(dtype, pandas.SparseDtype):
            changed[i] = X.iloc[:, i].sparse.to_dense()
        elif isinstance(dtype, pandas.CategoricalDtype) or (
            dtype.kind == "O" and dtype != np.dtype(object)
        ):
            changed[i] = pandas.to_numeric(X.iloc[:, i].astype(object)).astype(np.float64)
    if not changed:
        return X
    columns = [changed.get(i, X.iloc[:, i]) for i in range(X.shape[1])]
    frame = pandas.concat(columns, axis=1)
    frame.columns = X.columns
    return frame


# --- what columns hold ----------------------------------------------------------------------------


def _is(X: Any, library: str, *classes: str) -> bool:
    """Return whether an object is of a class of a library that need not be installed."""
    module = sys.modules.get(library)
    if library == "pyspark":
        return type(X).__module__.startswith("pyspark.sql") and type(X).__name__ in classes
    return module is not None and any(
        isinstance(X, found) for name in classes if (found := getattr(module, name, None))
    )


def _columns(X: Any) -> list[tuple[Any, Any]] | None:
    """Return the names and values of the columns of a table."""
    if _is(X, "pandas", "DataFrame"):
        return [(name, X.iloc[:, i]) for i, name in enumerate(X.columns)]
    if _is(X, "polars", "DataFrame"):
        return [(column.name, column) for column in X.get_columns()]
    if _is(X, "pyarrow", "Table"):
        return list(zip(X.column_names, X.columns, strict=True))
    if _is(X, "pandas", "Series") or _is(X, "polars", "Series"):
        return [(0 if X.name is None else X.name, X)]
    return [(0, X)] if _is(X, "pyarrow", "ChunkedArray") else None


def _column(name: Any, values: Any) -> Column:
    if _is(values, "polars", "Series"):
        kind, numeric = _kind_in_polars(values)
        return Column(name, str(values.dtype), kind, numeric)
    if _is(values, "pyarrow", "ChunkedArray"):
        return Column(name, str(values.type), *_kind_in_arrow(values.type))
    return Column(name, str(values.dtype), *kind_in_pandas(values))


def _kind_in_polars(values: Any) -> tuple[Kind, bool]:
    pl, dtype = sys.modules["polars"], values.dtype
    if dtype.is_numeric() or dtype == pl.Null:
        return "number", True
    if dtype == pl.Boolean:
        return "boolean", True
    if dtype.is_temporal():
        return "time", False
    if dtype == pl.Object:
        kind = kind_of_objects(values.to_list())
        return kind, False
    if dtype in (pl.Categorical, pl.Enum):
        return "category", False
    return ("text" if dtype == pl.String else "other"), False


def _kind_in_arrow(kind: Any) -> tuple[Kind, bool]:
    import pyarrow.types as pat

    if pat.is_integer(kind) or pat.is_floating(kind) or pat.is_decimal(kind) or pat.is_null(kind):
        return "number", True
    if pat.is_boolean(kind):
        return "boolean", True
    if pat.is_dictionary(kind):
        return "category", _kind_in_arrow(kind.value_type)[0] in ("number", "boolean")
    if pat.is_temporal(kind):
        return "time", False
    if pat.is_string(kind) or pat.is_large_string(kind) or str(kind) == "string_view":
        return "text", False
    return "other", False


def kind_in_pandas(values: Any) -> tuple[Kind, bool]:
    """Return the kind of a column of pandas, and whether it converts to numbers directly."""
    pandas, dtype = sys.modules["pandas"], values.dtype
    if isinstance(dtype, pandas.CategoricalDtype):
        return "category", kind_in_pandas(dtype.categories)[1]
    if isinstance(dtype, pandas.ArrowDtype):
        return _kind_in_arrow(dtype.pyarrow_dtype)
    if isinstance(dtype, pandas.SparseDtype):
        dtype = dtype.subtype
    if isinstance(dtype, pandas.StringDtype):
        return "text", False
    if isinstance(dtype, pandas.PeriodDtype):
        return "time", False
    if dtype == np.dtype(object):
        kind = kind_of_objects(values)
        return kind, kind in ("number", "boolean")
    kind = _kind_of_dtype(dtype)
    return kind, kind in ("number", "boolean")


def _kind_of_dtype(dtype: Any) -> Kind:
    kinds: dict[str, Kind] = {"i": "number", "u": "number", "f": "number"}
    kinds |= {"b": "boolean", "U": "text"}
    return kinds.get(dtype.kind, "time" if dtype.kind in "mM" else "other")


def kind_of_objects(values: Iterable[Any]) -> Kind:
    """Return the common kind of Python objects, ignoring missing values."""
    types = set(map(type, values))
    kinds = kinds_of_types(types)
    if kinds <= {"number", "boolean"}:
        return "boolean" if kinds == {"boolean"} else "number"
    # A missing value among text or times may be a float NaN.
    if float in types or np.float64 in types:
        kinds -= {"number"} if all(_is_nan(v) for v in values if _is_number(v)) else set()
    return kinds.pop() if len(kinds) == 1 else "other"


def kinds_of_types(types: Iterable[type]) -> set[Kind]:
    """Return the kinds of Python types, ignoring those of missing values."""
    return {kind for found in types if (kind := _kind_of_type(found)) is not None}


def _kind_of_type(found: type) -> Kind | None:
    if found is type(None):
        return None
    if found.__module__.partition(".")[0] == "pandas" and found.__name__ in _OF_PANDAS:
        return _OF_PANDAS[found.__name__]  # type: ignore[return-value]
    if issubclass(found, bool | np.bool_):
        return "boolean"
    # NumPy's durations count as whole numbers in Python's eyes.
    if issubclass(found, _TIMES):
        return "time"
    if issubclass(found, _NUMBERS):
        return "number"
    if issubclass(found, str):
        return "text"
    # Tensors of one value, say; NumPy's complex numbers and text claim to be numbers as well.
    number = hasattr(found, "__float__") and not issubclass(found, np.generic | np.ndarray)
    return "number" if number else "other"


def _is_number(value: Any) -> bool:
    return _kind_of_type(type(value)) in ("number", "boolean")


def _is_nan(value: Any) -> bool:
    return value != value


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or _is_nan(value) is True


def first_value(values: Any, column: Column) -> Any:
    """Return the first value of a column that is not a number, or its first value."""
    if _is(values, "pyarrow", "ChunkedArray"):
        values = (value.as_py() for value in values)
    there = None
    for value in values:
        if _is_missing(value):
            continue
        if column.kind != "other" or not _is_number(value):
            return value
        there = value if there is None else there
    return there


# --- refusals -------------------------------------------------------------------------------------


def _refuse_array(X: np.ndarray, name: str) -> None:
    if X.dtype.kind in "biuf" or not X.size:
        return
    if X.dtype.names is not None:
        raise ValueError(
            f"{name} is an array of records with the fields {', '.join(X.dtype.names[:_NAMED])}; "
            f"pass pandas.DataFrame({name})."
        )
    table = X.ndim == 2
    # All values are checked at once; single columns only if some values are not numbers.
    kind = kind_of_objects(X.ravel()) if X.dtype == object else _kind_of_dtype(X.dtype)
    if kind in ("number", "boolean"):
        return
    found = []
    for i, values in enumerate(X.T if table else [X.ravel()]):
        kind = kind_of_objects(values) if X.dtype == object else _kind_of_dtype(X.dtype)
        if kind not in ("number", "boolean"):
            column = Column(i, str(X.dtype), kind, False)
            found.append((column, first_value(values, column)))
    _refuse(found, name, table=table, array=True)


def _refuse(
    found: Sequence[tuple[Column, Any]], name: str, *, table: bool = True, array: bool = False
) -> NoReturn:
    """Raise an error that names the columns without numbers, with a remedy for each kind."""
    said = [
        (f"{column.name!r} " if table else "") + f"({column.dtype}, first value {_shown(value)})"
        for column, value in found[:_NAMED]
    ]
    if table:
        counted = isinstance(found[0][0].name, int)
        where = f" in column{'s' * (len(found) > 1)} " + ", ".join(said)
        where += f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        where += " (counted from 0)" if counted else ""
    else:
        where = f" {said[0]}"
    kinds = [column.kind for column, _ in found]
    first = {kind: found[kinds.index(kind)] for kind in dict.fromkeys(kinds)}
    remedies = [_remedy(kind, *first[kind], None if array else name) for kind in first]
    what = {"text": "text", "category": "categories", "time": "times"}
    held = [what.get(kind, "values that are not numbers") for kind in first]
    message = f"{name} holds {' and '.join(dict.fromkeys(held))}{where}; {'; '.join(remedies)}"
    message += f"; or drop the column{'s' * (len(found) > 1)}." if table else "."
    odd = all(kind == "other" and column.dtype == "object" for kind, (column, _) in first.items())
    if odd and not isinstance(found[0][1], complex | str | bytes):
        kind = type(found[0][1]).__name__
        raise TypeError(f"{message} A value's argument must be a string or a number, not {kind!r}.")
    raise ValueError(message)


def _shown(value: Any) -> str:
    if isinstance(value, np.generic) and not isinstance(value, _TIMES):
        value = value.item()
    text = " ".join((str(value) if isinstance(value, _TIMES) else repr(value)).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _remedy(kind: Kind, column: Column, value: Any, frame: str | None) -> str:
    if kind in ("text", "category"):
        return (
            "use categorical_features='from_dtype' to have a detector of rows encode it, or encode "
            "it beforehand, for example with OneHotEncoder in a ColumnTransformer in a Pipeline"
        )
    if kind == "time":
        if isinstance(value, datetime.timedelta | np.timedelta64):
            return "turn durations into numbers of seconds"
        return (
            "use datetime_features='from_dtype' to have a detector of rows encode them, or replace "
            "them by numbers that are comparable in new rows, such as the hour"
            f"{_hour(column, frame)}, the day of the week or the seconds since an event"
        )
    if isinstance(value, complex | np.complexfloating):
        return "Complex data not supported: give real and imaginary parts as two columns"
    if isinstance(value, bytes):
        return "decode the bytes, and convert them to numbers"
    return "give one number in each cell"


def _hour(column: Column, frame: str | None) -> str:
    """Return the expression of a library for the hour of a column of times."""
    example, dtype = f"{frame}[{column.name!r}]", column.dtype
    if frame is None:
        return ""
    if dtype.startswith("Datetime("):
        return f" ({example}.dt.hour())"
    if dtype.startswith("timestamp[") and not dtype.endswith("[pyarrow]"):
        return f" (pyarrow.compute.hour({example}))"
    return f" ({example}.dt.hour)" if dtype.startswith(("datetime64[", "timestamp[")) else ""


def _arrow_numbers(X: Any) -> Any:
    import pyarrow as pa
    import pyarrow.types as pat

    for i, field in enumerate(X.schema):
        kind, column = field.type, X.column(i)
        if pat.is_dictionary(kind):
            column = pa.chunked_array(
                [part.dictionary_decode() for part in column.chunks], kind.value_type
            )
            kind = kind.value_type
        if column.null_count or not (pat.is_integer(kind) or pat.is_floating(kind)):
            if pat.is_boolean(kind):
                column = column.cast(pa.uint8())
            column = column.cast(pa.float64(), safe=False)
        if column is not X.column(i):
            X = X.set_column(i, field.name, column)
    return X
