"""The one reader of CSV files: numbers below a line of names, and perhaps a column of text.

NumPy reads blocks of lines that hold nothing but numbers; it is fast. Python's ``csv`` takes the
others apart, and says what is wrong. pandas takes the first column of ``1,2,3,`` below ``a,b,c``
for row numbers, and "None" for a gap; pyarrow is not among the packages that deepod needs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

_CELLS = 200_000  # that are in memory at once
_SHOWN = 40  # characters of a cell in an error
_WORDS = {"true": 1.0, "false": 0.0}


class Block(NamedTuple):
    """Some rows of a file that follow each other."""

    names: list[str]  # of the columns of numbers, in every block the same
    numbers: np.ndarray  # float64 (n, len(names)); NaN where a cell is empty
    text: list[str]  # n cells of the column of text, or none


def read_csv(
    path: Path,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    text: str | None = None,
) -> Iterator[Block]:
    """Read a file block by block, in memory that does not depend on its length.

    The file is in UTF-8, with or without a byte order mark. Its first line has the names of the
    columns; blanks around them are dropped. Empty lines are passed over. True and False are 1 and
    0.

    Parameters
    ----------
    path : Path
    columns : sequence of str, optional
        Columns of numbers to read, in this order; None takes all.
    drop : sequence of str, default=()
        Columns to leave out, whatever is in them.
    text : str, optional
        Column whose cells are read as they are; it is no column of numbers then.

    Yields
    ------
    block : Block

    Raises
    ------
    ValueError
        If there are no rows, a row has more or fewer values than there are columns, a cell of the
        columns to read is not a number, or one of these columns has no name or shares it with
        another. The message says in which row, counted from 1 below the names, and column.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _blocks((line for line in file if line.strip()), columns, drop, text)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not in UTF-8 ({error}); save it so.") from error


def choose(header: Sequence[str], columns: Sequence[str] | None, drop: Sequence[str]) -> list[str]:
    """Choose columns of a table, and refuse names that are not there, or there twice.

    Parameters
    ----------
    header : sequence of str
        Names of all columns.
    columns : sequence of str or None
        Those to read; None takes all.
    drop : sequence of str
        Those to leave out.

    Returns
    -------
    names : list of str
    """
    names = header if columns is None else columns
    if "" in names:
        raise ValueError(
            "a column has no name; pandas writes the numbers of the rows like that, which are no "
            "feature: save with to_csv(index=False), or give the column a name."
        )
    for name in [*names, *drop]:
        if name not in header:
            raise ValueError(f"there is no column {name!r}; there are {', '.join(header)}.")
        if header.count(name) > 1:
            raise ValueError(f"{header.count(name)} columns have the name {name!r}; rename them.")
    left = [name for name in names if name not in drop]
    if not left:
        raise ValueError("no column is left; expected at least one of numbers.")
    return left


def number(cell: str) -> float:
    """Return the number in a cell, NaN for a blank one.

    Raises
    ------
    ValueError
        If it is text. So are 2021_03, which Python takes for 202103, and "None" and "NA".
    """
    word = cell.strip() or "nan"
    if "_" in word or not word.isascii():
        raise ValueError(f"expected a number, got {cell!r}.")
    try:
        return float(word)
    except ValueError:
        if word.lower() not in _WORDS:
            raise
        return _WORDS[word.lower()]


def _blocks(
    lines: Iterator[str], columns: Sequence[str] | None, drop: Sequence[str], text: str | None
) -> Iterator[Block]:
    header = _header(lines)
    if columns is not None:
        columns = [name.strip() for name in columns]
    if text is not None:
        text = text.strip()
        drop = [*drop, text]
    names = choose(header, columns, drop)
    places = [header.index(name) for name in names]
    row = 1
    while part := list(islice(lines, max(1, _CELLS // len(header)))):
        numbers, cells = _plain_numbers(part, places, len(header)), []
        if numbers is None or text is not None:
            cells = _split(part, lines, len(header), row)
        if numbers is None:
            numbers = _numbers(cells, places, header, row)
        at = None if text is None else header.index(text)
        yield Block(names, numbers, [] if at is None else [values[at] for values in cells])
        row += len(numbers)
    if row == 1:
        raise ValueError("there are no rows.")


def _header(lines: Iterator[str]) -> list[str]:
    """Read the names of the columns."""
    try:
        header = [name.strip() for name in next(csv.reader(lines, strict=True), [])]
    except csv.Error as error:
        raise ValueError(f"the line of names: {error}; does each quote have its other?") from error
    if not header:
        raise ValueError("the file is empty; expected a line of names, and rows below it.")
    if not any(map(_is_text, header)):
        raise ValueError("expected a first line with the names of the columns, got numbers.")
    return header


def _is_text(cell: str) -> bool:
    try:
        number(cell)
    except ValueError:
        return True
    return False


def _plain_numbers(lines: list[str], places: list[int], width: int) -> np.ndarray | None:
    """Numbers in these places; None if one is text, or a line has quotes or another width."""
    if any(line.count(",") != width - 1 or '"' in line for line in lines):
        return None
    with suppress(ValueError):
        return _load(lines, places)
    with suppress(ValueError):
        rows = (line.rstrip("\n").split(",") for line in lines)
        return _load([",".join(cell or "nan" for cell in row) for row in rows], places)
    return None


def _load(lines: list[str], places: list[int]) -> np.ndarray:
    return np.loadtxt(lines, delimiter=",", comments=None, usecols=places, ndmin=2, encoding=None)


def _split(part: list[str], lines: Iterable[str], width: int, row: int) -> list[list[str]]:
    """Split as many rows as there are lines, the first of which is that number.

    A cell in quotes may go on in the next line: rows that are lacking come from ``lines``.
    """
    cells: list[list[str]] = []
    try:
        for values in islice(csv.reader(chain(part, lines), strict=True), len(part)):
            if len(values) != width:
                raise ValueError(
                    f"row {row + len(cells)}: {len(values)} values for {width} columns."
                )
            cells.append(values)
    except csv.Error as error:
        raise ValueError(
            f"row {row + len(cells)}: {error}; does each quote have its other?"
        ) from error
    return cells


def _numbers(cells: list[list[str]], places: list[int], header: list[str], row: int) -> np.ndarray:
    """Numbers in these places, cell by cell; ``row`` is the number of the first."""
    numbers = np.empty((len(cells), len(places)))
    for i, values in enumerate(cells):
        try:
            numbers[i] = [number(values[place]) for place in places]
        except ValueError as error:
            place = next(place for place in places if _is_text(values[place]))
            raise ValueError(
                f"row {row + i}, column {header[place]!r}: expected a number, got "
                f"{values[place].strip()[:_SHOWN]!r} (leave a cell without a value empty; encode "
                "text, or leave the column out, as deepod fit --drop does)."
            ) from error
    return numbers
