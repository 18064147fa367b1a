"""What ``deepod fit``, ``score`` and ``plot`` do: from rows on disk to models, scores, pictures."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np

import deepod
from deepod import sources
from deepod._inputs import rows as _rows
from deepod._storage.atomic import prepare, replacing
from deepod._storage.models import check_place
from deepod.datasets import NO_NAME

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
    drop: Sequence[str] = (),
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
    drop : sequence of str, default=()
        Columns to leave out.

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
        _check(train, out, columns, drop)
        rows, names = _open(train, columns, out.parent, drop)
        if names is not None and isinstance(rows, np.ndarray):
            start = 0
            for block in _rows.blocks(rows):
                _check_values(block, names, start, allow_nan=model.missing == "impute")
                start += len(block)
        elif names is not None:
            rows.feature_names = names  # errors speak of them; read once, when it is fitted
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
    opened = _open_new(model, new, out)
    threshold, flagged, n = opened.detector.threshold_, 0, len(opened.source)
    with _written(out, n) as write:
        for scores in _scores(opened, quiet):
            labels = scores > threshold
            write(scores, labels)
            flagged += int(labels.sum())
    return Scored(n, flagged, threshold)


def plot_history(model: Path, out: Path) -> None:
    """Draw the terms of the loss over the epochs.

    Parameters
    ----------
    model : Path
        A saved detector.
    out : Path
        .png, .pdf or .svg.

    Raises
    ------
    ValueError
        If an argument is not acceptable; the message names it.
    """
    from deepod import plotting

    detector = _load(model)
    with _drawn(out) as ax:
        plotting.plot_history(detector, ax=ax)


def plot_scores(
    model: Path, new: Path, out: Path, *, label: str | None = None, quiet: bool = False
) -> Scored:
    """Draw the distribution of the scores of the rows of a file, and the threshold.

    Parameters
    ----------
    model, new : Path
        As in :func:`score`.
    out : Path
        .png, .pdf or .svg.
    label : str, optional
        Column of ``new`` with 0 = normal and 1 = anomaly, by which the distribution is split.
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
    from deepod import plotting

    opened = _open_new(model, new, out, label)
    y = None if label is None else _labels(new, label, out.parent)
    scores = np.concatenate(list(_scores(opened, quiet)))
    threshold = opened.detector.threshold_
    with _drawn(out) as ax:
        plotting.plot_scores(scores, y, threshold, ax=ax)
    return Scored(len(scores), int((scores > threshold).sum()), threshold)


def plot_row(model: Path, new: Path, row: int, out: Path) -> float:
    """Draw what the columns add to the score of a row.

    Parameters
    ----------
    model, new : Path
        As in :func:`score`.
    row : int
        Number of the row in ``new``; 1 = the first.
    out : Path
        .png, .pdf or .svg.

    Returns
    -------
    score : float

    Raises
    ------
    ValueError
        If an argument is not acceptable; the message names it.
    """
    from deepod import plotting

    opened = _open_new(model, new, out)
    n = len(opened.source)
    if not 1 <= row <= n:
        raise ValueError(f"--row {row}: expected a number from 1 to {n}, the last row of {new}.")
    if len(opened.source.shape) != 2:
        raise ValueError(f"--row {row}: only rows of a table can be drawn, not windows or images.")
    detector = opened.detector
    with _about(f"NEW {new}"):
        values = opened.read(row - 1, row)
        contributions = detector.explain(values)[0]
        score = float(detector.decision_function(values)[0])
    with _drawn(out) as ax:
        plotting.plot_contributions(contributions, opened.names, ax=ax)
        ax.set_title(f"row {row}: score {score:.4g}, threshold {detector.threshold_:.4g}")
    return score


class _Opened(NamedTuple):
    """A saved detector, and rows to score by it."""

    detector: Any
    names: list[str] | None  # of the columns, in the order of training
    source: sources.Source
    path: Path

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read rows, and refuse values that the detector would refuse without names."""
        rows = self.source.read(start, stop)
        if self.names is not None:
            _check_values(rows, self.names, start, allow_nan=self.detector.fill_ is not None)
        return rows


def _load(model: Path) -> Any:
    with _about(f"MODEL {model}"):
        if not model.exists():
            raise FileNotFoundError("there is no such file or folder; deepod fit writes one.")
        return deepod.load(model)


def _open_new(model: Path, new: Path, out: Path, label: str | None = None) -> _Opened:
    """Open rows to score; ``label`` is a column that is none of those to score."""
    detector = _load(model)
    # Parts of the rows are read by the names, and come without.
    found = vars(detector).pop("feature_names_in_", None)
    names = None if found is None else [str(name) for name in found]
    if label is not None and names is not None and label in names:
        raise ValueError(
            f"--label {label}: {model} was fitted on this column, too; fit without it: deepod fit "
            f"--drop {label}"
        )
    with _about(f"NEW {new}"):
        _check(new, out, None)
        drop = [label] if label is not None and names is None else []
        rows, _ = _open(new, names, out.parent, drop)
        if np.prod(rows.shape[1:]) != np.prod(detector.input_shape_):
            raise ValueError(
                f"its rows have shape {rows.shape[1:]}, those of training had "
                f"{detector.input_shape_}; both need the same columns."
            )
    source = sources.array(rows) if isinstance(rows, np.ndarray) else rows
    return _Opened(detector, names, source, new)


def _scores(opened: _Opened, quiet: bool) -> Iterator[np.ndarray]:
    """Score part by part."""
    detector, source = opened.detector, opened.source
    # Whole chunks, so that rows are scored as decision_function scores those of one array.
    chunk = detector._chunk_rows(None)
    size = chunk * max(1, _rows.block_rows(source.shape[1:]) // chunk)
    ranges = list(sources.cut(0, len(source), size))
    scored = detector.score_batches(opened.read(start, stop) for start, stop in ranges)
    with _progress(len(source), quiet) as bar:
        for start, stop in ranges:
            with _about(f"NEW {opened.path}, rows {start + 1} to {stop}"):
                scores = next(scored)
            yield scores
            bar.update(stop - start)


def _labels(path: Path, column: str, folder: Path) -> np.ndarray:
    with _about(f"--label {column}"):
        if path.suffix == ".npy":
            raise ValueError(f"{path} has no names of columns; write .csv or Parquet.")
        rows, _ = _open(path, [column], folder)
        source = sources.array(rows) if isinstance(rows, np.ndarray) else rows
        y = source.read(0, len(source))[:, 0]
        if not np.isin(y, (0, 1)).all():
            found = ", ".join(f"{value:g}" for value in np.unique(y)[:5])
            raise ValueError(f"expected 0 for normal rows and 1 for anomalies; there are {found}.")
        return y


@contextmanager
def _drawn(out: Path) -> Iterator[Any]:
    """Give axes to draw in; the picture gets its name when all is drawn."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    yield figure.subplots()
    try:
        prepare(out)
        # matplotlib warns of letters that its font lacks.
        quiet = warnings.catch_warnings(action="ignore", category=UserWarning)
        with replacing(out) as partial, quiet:
            figure.savefig(partial, format=out.suffix[1:], dpi=120)
    except OSError as error:
        raise OSError(f"--out {out}: {error}") from error


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


def _check(path: Path, out: Path, columns: Sequence[str] | None, drop: Sequence[str] = ()) -> None:
    """Refuse what is seen without reading."""
    if not path.exists():
        raise FileNotFoundError("there is no such file or folder.")
    if out.exists() and out.samefile(path):
        raise ValueError("--out would overwrite it; give another name.")
    if not path.is_dir() and path.suffix not in (".npy", ".csv", ".parquet", ".pq"):
        raise ValueError("expected a .npy, .csv or .parquet file, or a folder of Parquet files.")
    for option, names in (("--columns", columns), ("--drop", drop)):
        if names and path.suffix == ".npy":
            raise ValueError(
                f"{option} is for Parquet and .csv; a .npy file has no names of columns."
            )


def _open(
    path: Path, columns: Sequence[str] | None, folder: Path, drop: Sequence[str] = ()
) -> tuple[Any, list[str] | None]:
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
        try:
            rows, names = _csv(path, columns, folder, drop)
        except UnicodeDecodeError as error:
            raise ValueError(f"it is not in UTF-8 ({error}); save it so.") from error
    else:
        rows = _parquet(path, columns, drop)
        names, rows.feature_names = rows.feature_names, None
    if rows.dtype.kind not in "biuf":
        raise ValueError(f"its values are {rows.dtype}; expected numbers.")
    if not len(rows):
        raise ValueError("there are no rows.")
    return rows, names


def _parquet(path: Path, columns: Sequence[str] | None, drop: Sequence[str]) -> Any:
    if drop and find_spec("pyarrow"):  # or else the next error says what to install
        import pyarrow.dataset as pads

        header = pads.dataset(str(path), format="parquet").schema.names
        columns = _chosen(header, columns, drop)
    return sources.parquet(path, columns)


def _chosen(header: list[str], columns: Sequence[str] | None, drop: Sequence[str]) -> list[str]:
    """Choose columns, and refuse names that are not there or there twice."""
    names = header if columns is None else list(columns)
    for name in [*names, *drop]:
        if name not in header:
            raise ValueError(f"there is no column {name!r}; there are {', '.join(header)}.")
        if header.count(name) > 1:
            raise ValueError(f"{header.count(name)} columns have the name {name!r}; rename them.")
    left = [name for name in names if name not in drop]
    if not left:
        raise ValueError("--drop leaves no column.")
    return left


def _csv(
    path: Path, columns: Sequence[str] | None, folder: Path, drop: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Copy the numbers to a file without a name, which is gone when the process is, and map it."""
    with path.open(encoding="utf-8-sig") as lines, TemporaryFile(dir=folder) as file:
        header = [name.strip() for name in next(csv.reader(lines), [])]
        if not header:
            raise ValueError("the file is empty, or its first line is; expected names of columns.")
        if not any(map(_is_text, header)):
            raise ValueError("expected a first line with the names of the columns.")
        # Others leave the blanks around names.
        wanted = None if columns is None else [name.strip() for name in columns]
        names = _chosen(header, wanted, drop)
        if "" in names:
            raise ValueError(NO_NAME)
        places = None if names == header else [header.index(name) for name in names]
        filled = (line for line in lines if line.strip())
        n = 0
        while block := list(islice(filled, _CSV_LINES)):
            _numbers(block, places, header, n + 1).tofile(file)
            n += len(block)
        file.flush()
        if not n:
            return np.empty((0, len(names))), names
        return np.memmap(file, np.float64, "r", shape=(n, len(names))), names


def _numbers(
    lines: list[str], places: list[int] | None, header: list[str], first: int
) -> np.ndarray:
    """Numbers in lines of a .csv, of which ``first`` is the number of the first; NaN if empty."""
    style: Any = {"delimiter": ",", "comments": None, "quotechar": '"', "encoding": None}
    try:
        try:
            block = np.loadtxt(lines, usecols=places, ndmin=2, **style)
        except ValueError:  # an empty cell perhaps: cell by cell takes several times as long
            block = np.loadtxt(lines, usecols=places, ndmin=2, converters=_number, **style)
        if places is None and block.shape[1] != len(header):
            raise ValueError("too many or too few values")
        for line in lines if places is not None else ():  # loadtxt passes over what it leaves out
            if '"' not in line and line.count(",") + 1 != len(header):
                raise ValueError("too many or too few values")
    except ValueError as error:
        if len(lines) == 1:
            reason = _reason(lines[0], places, header) or str(error)
            raise ValueError(f"row {first}{reason}.") from error
        for i, line in enumerate(lines):  # one of them it is
            _numbers([line], places, header, first + i)
        raise
    if len(block) != len(lines):
        last = first + len(lines) - 1
        raise ValueError(f"rows {first} to {last}: a cell in quotes goes on in the next line.")
    return block


def _reason(line: str, places: list[int] | None, header: list[str]) -> str:
    """Say what keeps a line from being numbers."""
    cells = next(csv.reader([line]))
    if len(cells) != len(header):
        return f": {len(cells)} values for {len(header)} columns"
    for place in range(len(header)) if places is None else places:
        try:
            _number(cells[place])
        except ValueError:
            return (
                f", column {header[place]!r}: expected a number, got {cells[place].strip()!r} "
                "(leave a cell without a value empty; encode text, or deepod fit --drop NAMES)"
            )
    return ": expected a number in each cell"


def _check_values(rows: np.ndarray, names: list[str], start: int, *, allow_nan: bool) -> None:
    """Refuse gaps, unless they are allowed, and infinity by the names of the columns.

    ``start`` rows of the file come before these.
    """
    what, bad = "has no value", np.isnan(rows)
    remedy = "fill the gaps, or have them filled: deepod fit --set missing=impute"
    if allow_nan or not bad.any():
        what, bad, remedy = "is infinite", np.isinf(rows), "replace it"
    if not bad.any():
        return
    row, column = np.argwhere(bad)[0]
    found = [repr(names[j]) for j in np.flatnonzero(bad.any(0))]
    more = f"; columns with such cells: {', '.join(found[:5])}" if len(found) > 1 else ""
    more += f" and {len(found) - 5} more" if len(found) > 5 else ""
    raise ValueError(f"row {start + row + 1}, column {names[column]!r} {what}{more}; {remedy}.")


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
