"""What ``deepod fit`` and ``deepod score`` do: rows on disk to a saved model, and to scores."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np

import deepod
from deepod import _data, data
from deepod._files import prepare, replacing
from deepod._persistence import check_place

_CSV_LINES = 10_000  # turned into numbers at once


class Fitted(NamedTuple):
    """What was learned from."""

    rows: int
    threshold: float


class Scored(NamedTuple):
    """What was scored."""

    rows: int
    flagged: int
    threshold: float


def fit(
    train: Path,
    out: Path,
    *,
    detector: str = "PLAD",
    settings: dict[str, Any] | None = None,
    columns: Sequence[str] | None = None,
) -> Fitted:
    """Fit a detector on the rows of a file, and save it.

    Parameters
    ----------
    train : Path
        .npy, .csv, or Parquet, a file or a folder.
    out : Path
        As in :meth:`deepod.BaseDetector.save`.
    detector : str, default="PLAD"
        One of ``deepod.DETECTORS``.
    settings : dict, optional
        The detector's hyper-parameters.
    columns : sequence of str, optional
        Columns to read; None takes all.

    Returns
    -------
    fitted : Fitted

    Raises
    ------
    ValueError
        If an argument is not acceptable; the message names it.
    """
    model = getattr(deepod, detector)()
    with _about("--set"):
        model.set_params(**(settings or {}))._validate_params()
        if model.false_alarm_rate is not None and not model.calibration_fraction:
            raise ValueError("false_alarm_rate needs rows: set calibration_fraction=0.2, too.")
    with _about(f"--out {out}"):
        check_place(out)
    with _about(f"TRAIN {train}"):
        _check(train, out, columns)
        rows, names = _open(train, columns, out.parent)
    with _about(f"fitting {detector} on {train}"):
        model.fit(rows)
    if names is not None:  # new rows are read by them
        model.feature_names_in_ = np.array(names, dtype=object)
    with _about(f"--out {out}"):
        model.save(out)
    return Fitted(len(rows), model.threshold_)


def score(model: Path, new: Path, out: Path, *, quiet: bool = False) -> Scored:
    """Write the scores of the rows of a file by a saved detector.

    Parameters
    ----------
    model : Path
        As :func:`fit` or :meth:`deepod.BaseDetector.save` left it.
    new : Path
        What to score; its columns are read by the names of the training columns, if these had any.
    out : Path
        .npy (float64 scores), or .csv with the columns score and label. Takes the place of an
        older file when all rows are scored, not before.
    quiet : bool, default=False
        Whether to show no progress bar on a terminal either.

    Returns
    -------
    scored : Scored

    Raises
    ------
    ValueError
        If an argument is not acceptable; the message names it.
    """
    with _about(f"MODEL {model}"):
        detector = deepod.load(model)
    # Parts of the rows are read by the names, and come without.
    names = vars(detector).pop("feature_names_in_", None)
    with _about(f"NEW {new}"):
        _check(new, out, None)
        rows, _ = _open(new, None if names is None else list(names), out.parent)
        if np.prod(rows.shape[1:]) != np.prod(detector.input_shape_):
            raise ValueError(
                f"its rows have shape {rows.shape[1:]}, those of training had "
                f"{detector.input_shape_}; both need the same columns."
            )
    source = data.array(rows) if isinstance(rows, np.ndarray) else rows
    # Whole chunks, so that rows are scored as decision_function scores those of one array.
    chunk = detector._chunk_rows(None)
    size = chunk * max(1, _data.block_rows(source.shape[1:]) // chunk)
    ranges = list(data.cut(0, len(source), size))
    scored = detector.score_batches(source.read(start, stop) for start, stop in ranges)
    threshold, flagged = detector.threshold_, 0
    with _written(out, len(source)) as write, _progress(len(source), quiet) as bar:
        for start, stop in ranges:
            with _about(f"NEW {new}, rows {start + 1} to {stop}"):
                scores = next(scored)
            labels = scores > threshold
            write(scores, labels)
            flagged += int(labels.sum())
            bar.update(stop - start)
    return Scored(len(source), flagged, threshold)


def _progress(n: int, quiet: bool) -> Any:
    from tqdm.auto import tqdm

    # None: only on a terminal.
    return tqdm(total=n, desc="score", unit="row", unit_scale=True, disable=True if quiet else None)


@contextmanager
def _written(out: Path, n: int) -> Iterator[Callable[[np.ndarray, np.ndarray], None]]:
    """Take scores and labels as they come; the file gets its name when all n are there.

    Not through a memory map: on a full disk that kills the process, while this is an OSError.
    """
    try:
        prepare(out)
        with replacing(out) as partial, partial.open("wb") as file:
            if out.suffix == ".npy":
                header = {"descr": "<f8", "fortran_order": False, "shape": (n,)}
                np.lib.format.write_array_header_1_0(file, header)
            else:
                file.write(b"score,label\n")

            def write(scores: np.ndarray, labels: np.ndarray) -> None:
                if out.suffix == ".npy":
                    file.write(scores.astype("<f8").tobytes())
                else:  # as many digits as tell a float64 from all others
                    pairs = zip(scores.tolist(), labels.tolist(), strict=True)
                    file.writelines(b"%r,%d\n" % pair for pair in pairs)

            yield write
    except OSError as error:
        raise OSError(f"--out {out}: {error}") from error


def _check(path: Path, out: Path, columns: Sequence[str] | None) -> None:
    """Refuse what is seen without reading."""
    if not path.exists():
        raise FileNotFoundError("there is no such file or folder.")
    if out.exists() and out.samefile(path):
        raise ValueError("--out would overwrite it; give another name.")
    if not path.is_dir() and path.suffix not in (".npy", ".csv", ".parquet", ".pq"):
        raise ValueError("expected a .npy, .csv or .parquet file, or a folder of Parquet files.")
    if columns is not None and path.suffix == ".npy":
        raise ValueError("--columns is for Parquet and .csv; a .npy file has no names of columns.")


def _open(path: Path, columns: Sequence[str] | None, folder: Path) -> tuple[Any, list[str] | None]:
    """Open rows, none of which are read; and name their columns, if they have names.

    A source is stripped of the names: new rows are read by those of the training rows and in their
    order, so that parts of them can do without.
    """
    rows: Any
    names = None
    if path.suffix == ".npy" and path.is_file():
        try:
            rows = np.lib.format.open_memmap(path, mode="r")
        except ValueError as error:  # Python objects, half a file, something else
            raise ValueError(f"{error} Write numbers, with numpy.save.") from error
        if rows.ndim < 2:
            raise ValueError(
                f"expected rows of several values, got an array of shape {rows.shape}."
            )
    elif path.suffix == ".csv" and path.is_file():
        rows, names = _csv(path, columns, folder)
    else:
        rows = data.parquet(path, columns)
        names, rows.feature_names = rows.feature_names, None
    if rows.dtype.kind not in "biuf":
        raise ValueError(f"its values are {rows.dtype}; expected numbers.")
    if not len(rows):
        raise ValueError("there are no rows.")
    return rows, names


def _csv(path: Path, columns: Sequence[str] | None, folder: Path) -> tuple[np.ndarray, list[str]]:
    """Copy the numbers to a file without a name, which is gone when the process is, and map it."""
    with path.open(encoding="utf-8-sig") as lines, TemporaryFile(dir=folder) as file:
        header = [name.strip() for name in next(csv.reader(lines), [])]
        if not any(map(_is_text, header)):
            raise ValueError("expected a first line with the names of the columns.")
        # Others leave the blanks around names.
        names = header if columns is None else [name.strip() for name in columns]
        for name in names:
            if header.count(name) != 1:
                raise ValueError(f"there is not one column {name!r}; there are {header}.")
        places = None if columns is None else [header.index(name) for name in names]
        filled = (line for line in lines if line.strip())
        n = 0
        while block := list(islice(filled, _CSV_LINES)):
            _numbers(block, places, len(names), n + 1).tofile(file)
            n += len(block)
        file.flush()
        if not n:
            return np.empty((0, len(names))), names
        return np.memmap(file, np.float64, "r", shape=(n, len(names))), names


def _numbers(lines: list[str], places: list[int] | None, width: int, first: int) -> np.ndarray:
    """Numbers in lines of a .csv, of which ``first`` is the number of the first; NaN if empty."""
    style: Any = {"delimiter": ",", "comments": None, "quotechar": '"', "encoding": None}
    try:
        try:
            block = np.loadtxt(lines, usecols=places, ndmin=2, **style)
        except ValueError:  # an empty cell perhaps: cell by cell takes several times as long
            block = np.loadtxt(lines, usecols=places, ndmin=2, converters=_number, **style)
        if block.shape[1] != width:
            raise ValueError(f"{block.shape[1]} values for {width} columns")
    except ValueError as error:
        if len(lines) == 1:
            reason = str(error).partition(" at row")[0]
            raise ValueError(f"row {first}: {reason}; expected a number in each cell.") from error
        for i, line in enumerate(lines):  # one of them it is
            _numbers([line], places, width, first + i)
        raise
    return block


def _number(cell: str) -> float:
    return float(cell) if cell.strip() else np.nan


def _is_text(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return bool(cell)
    return False


@contextmanager
def _about(what: str) -> Iterator[None]:
    """Have errors say what they are about."""
    try:
        yield
    except (OSError, ValueError, FloatingPointError, MemoryError) as error:
        raise ValueError(f"{what}: {error}") from error
