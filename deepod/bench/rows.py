"""Results on disk: one JSON line per cell, appended whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Cell(NamedTuple):
    """One run of a benchmark; what else is in a row is its result."""

    protocol: str
    dataset: str
    detector: str
    seed: int
    max_train: int | None = None
    max_test: int | None = None


def cell_of(row: Mapping[str, Any], kind: type[Any] = Cell) -> Any:
    """Return the cell that a row is the result of.

    ``kind`` is the class of the cells, a named tuple, for a benchmark that has one of its own.
    """
    return kind(*(row[name] for name in kind._fields))


def read(path: str | Path, kind: type[Any] = Cell) -> list[dict[str, Any]]:
    """Read the complete lines of a results file; of several rows of one cell, the last.

    Half a last line, as a kill in the middle of a write leaves it, is left out.

    Raises
    ------
    ValueError
        If a line is no row; the message has its number.
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
                f"{path}, line {number}: not a row of results (no {error})."
            ) from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: not a row of results ({error}).") from error
    return list(rows.values())


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def read_and_repair(path: str | Path, kind: type[Any] = Cell) -> list[dict[str, Any]]:
    """Read as :func:`read` does, and cut off half a last line so that rows can follow."""
    path = Path(path)
    if not path.exists():
        return []
    if not path.is_file():  # a device may have no end
        raise ValueError(f"{path}: expected the name of a file to append rows to.")
    rows = read(path, kind)
    content = path.read_bytes()
    rest = content[content.rfind(b"\n") + 1 :]
    if _is_whole(rest):
        with path.open("ab") as file:
            file.write(b"\n")
        return rows
    start = f'{{"{kind._fields[0]}": '.encode()
    if rest and rest[: len(start)] != start[: len(rest)]:
        raise ValueError(f"{path}: the last line is not a row of results; is this the right file?")
    os.truncate(path, len(content) - len(rest))
    return rows


def resume(path: str | Path, kind: type[Any] = Cell) -> dict[Any, dict[str, Any]]:
    """Return by cell what a file of results has, and make it ready for more rows.

    It is repaired as :func:`read_and_repair` does; where there is none, its folder is made.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return {cell_of(row, kind): row for row in read_and_repair(path, kind)}


def append(path: str | Path, row: dict[str, Any], kind: type[Any] = Cell) -> None:
    """Append a row: one write, on disk when this returns."""
    line = json.dumps(cell_of(row, kind)._asdict() | row, allow_nan=False).encode() + b"\n"
    binary = getattr(os, "O_BINARY", 0)  # Windows would write other ends of lines
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | binary, 0o644)
    try:
        if os.write(file, line) != len(line):
            raise OSError(f"{path}: a row was written in part; is the disk full?")
        os.fsync(file)
    finally:
        os.close(file)
