"""Files of series, whose rows are points in the order of time."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepod._inputs.series import (
    Remedies,
    Series,
    as_series,
    check_times,
    find_gaps,
    parse_times,
    said_of_gaps,
)
from deepod._inputs.tables import number
from deepod._registry import SERIES
from deepod._storage.atomic import prepare, replacing
from deepod.cli import tables

_REMEDIES = Remedies(
    "give these rows a time, or leave them out",
    "sort the rows of the file by it",
    "keep one row of each time",
    first=1,
)


class Options(NamedTuple):
    """Options of a series on the command line."""

    time: str | None = None  # the column that holds it
    split_at_gaps: bool = False
    context: Path | None = None  # file of the points before

    def refuse(self, detector: str) -> None:
        """Raise ValueError for options that a detector of rows cannot use."""
        for option, value in zip(self._fields, self, strict=True):
            if value:
                way = f"; leave the column out: --drop {value}" if option == "time" else ""
                raise ValueError(
                    f"--{option.replace('_', '-')} is for detectors of series ({', '.join(SERIES)})"
                    f", but {detector} takes rows in any order{way}."
                )


NO_OPTIONS = Options()


class Points(NamedTuple):
    """The points of a file."""

    series: Series
    names: list[str] | None  # of the channels
    times: Sequence[Any] | None  # as they are in the file
    gaps: str | None  # what there is to say of gaps that windows run across

    @property
    def described(self) -> str:
        """Return a description of the numbers of points and channels."""
        parts = len(self.series.lengths)
        return f"{len(self.series):,} points" + (f" in {parts:,} parts" if parts > 1 else "")


def is_for_series(detector: Any) -> bool:
    """Return whether a detector scores points of series, not rows of tables."""
    return type(detector).__name__ in SERIES


def read(
    path: Path,
    folder: Path,
    reading: tables.Reading,
    options: Options,
    *,
    allow_nan: bool,
    channels: int | None = None,
) -> Points:
    """Return a series from a file, in memory.

    Parameters
    ----------
    path : Path
        A file that :func:`deepod.cli.tables.check_file` has accepted.
    folder : Path
        Folder for a temporary copy.
    reading : Reading
    options : Options
    allow_nan : bool
        Whether cells may be empty.
    channels : int, optional
        Number of channels of arrays without names, if it is known.
    """
    try:
        rows, names, times = tables.read_points(path, folder, reading, options.time)
    except ValueError as error:
        if options.time is None and "expected a number" in str(error):
            raise ValueError(
                f"{error} If this is the column of times, name it as --time COLUMN."
            ) from error
        raise
    if names is not None:
        tables.check_values(rows, names, 0, allow_nan=allow_nan)
        channels = len(names)
    series = as_series(rows, channels=channels)
    if times is None:
        if options.split_at_gaps:
            raise ValueError("--split-at-gaps needs --time COLUMN, in which to find the gaps.")
        return Points(series, names, None, None)
    index = _index(times, f"column {options.time!r}")
    gaps = find_gaps(index, path.name)
    if options.split_at_gaps:
        borders = [start for found in gaps for start in found.starts]
        lengths = tuple(np.diff([0, *borders, len(series)]).tolist())
        return Points(Series(series.rows, lengths, "list", index), names, times, None)
    said = None
    if gaps:
        said = f"{said_of_gaps(gaps, path.name)} --split-at-gaps keeps them from it."
    return Points(replace(series, index=index), names, times, said)


def _index(times: list[Any], where: str) -> Any:
    """Return times as a checked index."""
    if find_spec("pandas") is None:
        raise ImportError("--time needs pandas; install it with pip install pandas.")
    import pandas

    values = times
    if all(isinstance(cell, str) for cell in times):
        with suppress(ValueError):  # it is no column of numbers
            values = [number(cell) for cell in times]
    index = parse_times(pandas.Index(values), where, first=1)
    check_times(index, where, _REMEDIES)
    return index


def check_context(context: Points, new: Points) -> None:
    """Raise ValueError if a context is not before the new points."""
    if len(new.series.lengths) > 1:
        raise ValueError(
            "a context cannot be used with --split-at-gaps, which makes several series; leave out "
            "one of both options."
        )
    before, after = context.series.index, new.series.index
    if before is not None and not before[-1] < after[0]:
        raise ValueError(
            f"it ends at {before[-1]}, but NEW begins at {after[0]}; give the points before NEW."
        )


def write(
    out: Path, scores: np.ndarray, labels: np.ndarray, points: Points, time: str | None
) -> None:
    """Write scores to .npy in the form of the series, or to .csv with the times."""
    try:
        prepare(out)
        if out.suffix == ".npy":
            episodes = points.series.form == "episodes"
            with replacing(out) as partial, partial.open("wb") as file:
                np.save(file, points.series.shaped(scores) if episodes else scores)
            return
        with replacing(out) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            columns: list[Any] = [scores.tolist(), labels.astype(int).tolist()]
            beside = [] if points.times is None else [points.times]
            writer.writerow([*([] if time is None else [time]), "score", "label"])
            writer.writerows(zip(*beside, *columns, strict=True))
    except OSError as error:
        raise OSError(f"--out {out}: {error}") from error
