"""What the commands share: a loop that goes on where it was stopped, and how a command ends."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deepod.bench import rows
from deepod.bench.lock import only_one


def measure_missing(
    out: Path,
    kind: type[Any],
    cells: Sequence[Any],
    measure: Callable[[Any], Mapping[str, Any]],
    about: Mapping[str, Any],
    unit: str = "cell",
) -> list[dict[str, Any]]:
    """Measure the cells that a file of results lacks, and append a row for each as it is there.

    Parameters
    ----------
    out : Path
        File of JSON lines. Half a last line, as a kill leaves it, is cut off, and measured again.
    kind : type
        Class of the cells, a named tuple.
    cells : sequence of kind
    measure : callable
        Gives the result of a cell, without the cell itself. What it raises ends the loop.
    about : mapping
        What all new rows say, such as versions.
    unit : str, default="cell"
        What the progress bar counts.

    Returns
    -------
    list of dict
        All rows of the file, those of other cells too.
    """
    with only_one(out):
        there = rows.resume(out, kind)
        for cell in tqdm([cell for cell in cells if cell not in there], unit=unit):
            rows.append(out, cell._asdict() | measure(cell) | about, kind)
        return rows.read(out, kind)


@contextmanager
def explained(parser: argparse.ArgumentParser) -> Iterator[None]:
    """End the command with a line on what went wrong, or on how it goes on after Ctrl-C."""
    try:
        yield
    except (OSError, ImportError, ValueError) as error:
        parser.error(str(error))
    except KeyboardInterrupt as error:
        message = str(error) or "stopped by Ctrl-C."
        parser.exit(128 + signal.SIGINT, f"{parser.prog}: {message}\n")
