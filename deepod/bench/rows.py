"""Files of results with one JSON line per run of a detector."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Cell(NamedTuple):
    """The key of one run of a benchmark; the other entries of a row are its result."""

    protocol: str
    dataset: str
    detector: str
    seed: int
    max_train: int | None = None
    max_test: int | None = None


def cell_of(row: Mapping[str, Any], kind: type[Any] = Cell) -> Any:
    """Return the cell whose result a row is.

    ``kind`` is the class of the cells, a named tuple, if a benchmark has its own.
    """
    return kind(*(row[name] for name in kind._fields))


def read(path: str | Path, kind: type[Any] = Cell) -> list[dict[str, Any]]:
    """Return the rows of a file of results.

    If a cell has several rows, only the last is returned. An incomplete last line, from a run that
    was killed, is ignored.

    Parameters
    ----------
    path : path-like
        File that ``deepod bench`` or :func:`deepod.bench.run` has written.

    Returns
    -------
    rows : list of dict
        One dict per cell: its protocol, dataset, detector, seed and caps, and its results.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a line is not a row of results; the message has its number.
    """
    rows = {}
    *lines, last = Path(path).read_bytes().split(b"\n")
    if _is_whole(last):  # as an editor may leave it
        lines.append(last)
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows[cell_of(row, kind)] = row
        except KeyError as error:
            raise ValueError(
                f"{path}, line {number} is not a row of results, because it lacks {error}."
            ) from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number} is not a row of results: {error}") from error
    return list(rows.values())


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def read_and_repair(path: str | Path, kind: type[Any] = Cell) -> list[dict[str, Any]]:
    """Return rows as :func:`read` does, and remove an incomplete last line from the file."""
    path = Path(path)
    if not path.exists():
        return []
    if not path.is_file():  # a device may have no end
        raise ValueError(f"{path} is not a file to which rows can be appended; name another one.")
    rows = read(path, kind)
    content = path.read_bytes()
    rest = content[content.rfind(b"\n") + 1 :]
    if _is_whole(rest):
        with path.open("ab") as file:
            file.write(b"\n")
        return rows
    start = f'{{"{kind._fields[0]}": '.encode()
    if rest and rest[: len(start)] != start[: len(rest)]:
        raise ValueError(
            f"{path}: the last line is not a row of results; check that this is the right file."
        )
    os.truncate(path, len(content) - len(rest))
    return rows


def resume(path: str | Path, kind: type[Any] = Cell) -> dict[Any, dict[str, Any]]:
    """Return the rows of a file of results by cell, and prepare the file for more rows.

    It is repaired by :func:`read_and_repair`. If there is no file, its folder is created.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return {cell_of(row, kind): row for row in read_and_repair(path, kind)}


def append(path: str | Path, row: dict[str, Any], kind: type[Any] = Cell) -> None:
    """Append a row in one write, which is on disk when this returns."""
    line = json.dumps(cell_of(row, kind)._asdict() | row, allow_nan=False).encode() + b"\n"
    binary = getattr(os, "O_BINARY", 0)  # Windows would write other ends of lines
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | binary, 0o644)
    try:
        if os.write(file, line) != len(line):
            raise OSError(f"{path}: a row was written only partly; check whether the disk is full.")
        os.fsync(file)
    finally:
        os.close(file)
