"""``deepod watch``: a score for each line as it arrives."""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepod._inputs.tables import UNKNOWN, Dialect, number
from deepod.cli import commands
from deepod.cli.tables import about

# Separators in the order of search: if another one occurs, a comma may be the decimal point.
_SEPARATORS = (";", "\t", "|", ",")


class Watched(NamedTuple):
    """The result of a line."""

    time: str | None  # its cell of the column of times
    score: float  # NaN while there are not enough points
    flagged: bool


class BadLineError(ValueError):
    """Error for a line that is not a point; the message says which line, and why."""


def watch(
    model: Path,
    lines: Iterable[str],
    *,
    time: str | None = None,
    state: Path | None = None,
    dialect: Dialect = UNKNOWN,
) -> Generator[Watched | BadLineError, None, None]:
    """Return an iterator over the scores of lines, each computed when the line arrives.

    Parameters
    ----------
    model : Path
        A saved detector of series.
    lines : iterable of str
        Lines with one number for each channel. The separator is the first of ``;``, tab, ``|`` and
        comma that the first line contains, or blanks. If a cell of the first line is not a number,
        this line holds the names of the columns. Then the columns with the names of the training
        columns are used, or all except ``time`` if these had no names. Empty lines are skipped.
    time : str, optional
        Name of the column of times, which is passed on unchanged.
    state : Path, optional
        File of the state of the stream. If it exists, the stream continues from it; it is written
        at the end.
    dialect : Dialect, optional
        Separator and decimal point. By default, the separator is detected and the decimal point is
        a point.

    Returns
    -------
    watched : iterator of Watched and BadLineError
        A result for each line with a point, and an error for each other line, which does not change
        the state. An invalid line of names raises ValueError.

    Raises
    ------
    ValueError
        If the model or the state is not valid.
    """
    detector = commands._load(model)
    with about(f"MODEL {model}"):
        if not hasattr(detector, "stream"):
            raise ValueError(
                f"{type(detector).__name__} scores rows of tables, but deepod watch needs a "
                "detector of series, such as LSTMAD."
            )
        stream = detector.stream()
    if state is not None and state.exists():
        with about(f"--state {state}"):
            stream.load(state)
    return _kept(stream, _scored(stream, detector, lines, time, dialect), state)


def _kept(
    stream: Any, scored: Generator[Watched | BadLineError, None, None], state: Path | None
) -> Generator[Watched | BadLineError, None, None]:
    """Write the state of the stream at the end, also after an error."""
    try:
        yield from scored
    finally:
        if state is not None:
            with about(f"--state {state}"):
                stream.save(state)


def _scored(
    stream: Any, detector: Any, lines: Iterable[str], time: str | None, dialect: Dialect
) -> Generator[Watched | BadLineError, None, None]:
    places: list[int] | None = None  # of the channels
    width, at, sep = detector.n_features_in_, None, dialect.sep
    decimal = dialect.decimal or "."
    for row, line in enumerate(lines, 1):
        if not line.strip():
            continue
        sep = sep or _separator(line, decimal)
        cells = _cells(line, sep)
        if places is None:
            if not all(_is_number(cell, decimal) for cell in cells):
                with about(f"line {row}, with the names of the columns"):
                    places, at = _places(cells, detector, time)
                width = len(cells)
                continue
            if time is not None:
                raise ValueError(
                    f"--time {time}: line {row} does not hold column names, which --time needs."
                )
            places = list(range(width))
        try:
            if len(cells) != width:
                raise ValueError(f"it has {len(cells)} values, but must have {width}.")
            score = stream.push([_number(cells[place], sep, decimal) for place in places])
        except ValueError as error:
            yield BadLineError(f"line {row}: {error}")
            continue
        yield Watched(None if at is None else cells[at], score, score > stream.threshold)


def _separator(line: str, decimal: str) -> str:
    marks = [mark for mark in _SEPARATORS if mark != decimal and len(_cells(line, mark)) > 1]
    return marks[0] if marks else " "


def _cells(line: str, sep: str) -> list[str]:
    if sep == " ":
        return line.split()
    (cells,) = csv.reader([line.rstrip("\r\n")], delimiter=sep, skipinitialspace=True)
    return [cell.strip() for cell in cells]


def _is_number(cell: str, decimal: str) -> bool:
    try:
        number(cell, decimal)
    except ValueError:
        return False
    return True


def _number(cell: str, sep: str, decimal: str) -> float:
    try:
        return number(cell, decimal)
    except ValueError as error:
        if sep != "," and decimal == "." and _is_number(cell, ","):
            raise ValueError(
                f"{error} If the comma is the decimal point, add --decimal ,"
            ) from error
        raise


def _places(header: Sequence[str], detector: Any, time: str | None) -> tuple[list[int], int | None]:
    """Return the positions of the channels and of the time in a line of names."""
    header = [name.removeprefix("\ufeff") for name in header]
    first = getattr(detector, "members_", [detector])[0]
    known = getattr(detector, "feature_names_in_", getattr(first, "feature_names_in_", None))
    names = [name for name in header if name != time] if known is None else list(map(str, known))
    for name in [*names, *([] if time is None else [time])]:
        if header.count(name) != 1:
            found = ", ".join(header)
            raise ValueError(f"{header.count(name)} columns have the name {name!r}: {found}.")
    if len(names) != detector.n_features_in_:
        raise ValueError(
            f"there are {len(names)} channels ({', '.join(names)}), but the model was fitted on "
            f"{detector.n_features_in_}; if one is a column of times, name it as --time COLUMN."
        )
    return [header.index(name) for name in names], None if time is None else header.index(time)


def as_line(watched: Watched) -> str:
    """Return the result of a line as a line of CSV with time, score and label."""
    before = "" if watched.time is None else f"{_quoted(watched.time)},"
    score = "nan" if np.isnan(watched.score) else repr(watched.score)
    return f"{before}{score},{int(watched.flagged)}"


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if set(cell) & set(',"') else cell
