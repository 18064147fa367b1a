"""The functions behind ``deepod fit``, ``deepod score`` and ``deepod plot``."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import get_tags

import deepod
from deepod import sources
from deepod._inputs.tables import UNKNOWN, Dialect
from deepod._registry import GRAPHS, SERIES, detector_class
from deepod._scoring.apply import parts_of
from deepod._storage.atomic import prepare, replacing
from deepod._storage.models import check_place
from deepod.cli import marks, mixed, series, tables
from deepod.cli.scores import written
from deepod.cli.series import NO_OPTIONS, Options
from deepod.cli.tables import Reading, about


class Fitted(NamedTuple):
    """What was learned from."""

    rows: str  # their number, and what they are
    threshold: float
    note: str | None = None  # what there is to say of them


class Scored(NamedTuple):
    """What was scored."""

    rows: str
    flagged: int
    threshold: float
    note: str | None = None


def fit(
    train: Path,
    out: Path,
    *,
    detector: str = "Consensus",
    settings: dict[str, Any] | None = None,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    labels: str | None = None,
    id_name: str | None = None,
    quiet: bool = False,
    options: Options = NO_OPTIONS,
    dialect: Dialect = UNKNOWN,
) -> Fitted:
    """Fit a detector on the rows of a file, and save it.

    Parameters
    ----------
    train : Path
        .npy, .csv, or Parquet, a file or a folder.
    out : Path
        Folder or file of the model, as in :meth:`deepod.BaseDetector.save`.
    detector : str, default="Consensus"
        "Consensus", or a name in ``deepod.DETECTORS`` or of a detector of series.
    settings : dict, optional
        Hyper-parameters; those that Consensus does not have are set on each of its members.
    columns : sequence of str, optional
        Columns to read; None reads all.
    drop : sequence of str, default=()
        Columns to leave out.
    labels : str, optional
        Labels to learn from: a column of ``train`` with 1 = anomaly, 0 = normal and empty cells for
        unknown, or a .csv file of marks from a page of ``deepod review``.
    id_name : str, optional
        Column of ids, which is not used as a feature; marks are joined by it.
    quiet : bool, default=False
        Whether to hide the progress of training, which is shown on terminals only.
    options : Options
        Options of a series.
    dialect : Dialect
        Format of .csv files. What is None is detected.

    Returns
    -------
    fitted : Fitted

    Raises
    ------
    ValueError
        If an argument is not acceptable; the message names it.
    """
    if detector not in SERIES:
        options.refuse(detector)
    model = _set_up(detector, settings or {})
    marks.check_supervision(model, labels)
    drop = [*drop, *marks.no_features(train, labels, id_name)]
    with about(f"--out {out}"):
        check_place(out)
    with about(f"TRAIN {train}"):
        reading = Reading(columns, drop, dialect)
        tables.check_file(train, out, reading)
        allow_nan = get_tags(model).input_tags.allow_nan
        if detector in SERIES:
            points = series.read(train, out.parent, reading, options, allow_nan=allow_nan)
            rows, names, said, note = points.series, points.names, points.described, points.gaps
        else:
            # Calibration rows can be drawn from arrays only.
            as_array = bool(getattr(model, "calibration_fraction", 0))
            try:
                rows, names = tables.open_to_fit(
                    train, out.parent, reading, allow_nan=allow_nan, as_array=as_array
                )
            except ValueError:
                named = (settings or {}).get("categorical_features", "from_dtype")
                if named is None:
                    raise
                rows, names = tables.read_mixed(train, reading, named), None
                if rows is None:
                    raise
                mixed.encode(model, settings or {})
            said, note = f"{len(rows):,} rows", None
    y = None
    if labels is not None:
        with about(f"--labels {labels}"):
            known = marks.read_labels(labels, train, id_name, len(rows), dialect)
            marks.check_complete(known, model.supervision)
        y, note = known.y, known.described
    shown = not quiet and "verbose" not in (settings or {}) and sys.stderr.isatty()
    with about(f"fitting {detector} on {train}"), _verbose(model) if shown else nullcontext():
        if shown:  # some methods have no epochs
            print(f"deepod fit: fitting {detector} on {said}", file=sys.stderr)
        model.fit(rows, y)
    if mixed.encoder_of(model) is not None:
        note = "\n".join([*([note] if note else []), mixed.described(model, rows)])
    if names is not None:  # new rows are read by them
        for part in _with_members(model):
            part.feature_names_in_ = np.array(names, dtype=object)
    with about(f"--out {out}"):
        model.save(out)
    return Fitted(said, model.threshold_, note)


def score(
    model: Path,
    new: Path,
    out: Path,
    *,
    id_name: str | None = None,
    quiet: bool = False,
    options: Options = NO_OPTIONS,
    dialect: Dialect = UNKNOWN,
) -> Scored:
    """Score the rows of a file with a saved detector, and write the scores to a file.

    Parameters
    ----------
    model : Path
        A model saved by :func:`fit` or :meth:`deepod.BaseDetector.save`.
    new : Path
        File of rows to score. Its columns are chosen by the names of the training columns, if these
        had names.
    out : Path
        File to write: .npy (float64 scores), or .csv with the columns score and label. An older
        file is replaced only when all rows have been scored.
    id_name : str, optional
        Column of ``new`` that is copied, unchanged, to the front of a .csv of scores.
    quiet : bool, default=False
        Whether to hide the progress bar, which is shown on terminals only.
    options : Options
        Options of a series.
    dialect : Dialect
        Format of .csv files. What is None is detected.

    Returns
    -------
    scored : Scored

    Raises
    ------
    ValueError
        If an argument is not acceptable; the message names it.
    """
    detector = _load(model)
    if series.is_for_series(detector):
        _refuse_ids(id_name)
        found = _read_new(detector, model, new, out, options, dialect)
        labels = found.scores > detector.threshold_
        series.write(out, found.scores, labels, found.points, options.time)
        return found.counted()
    options.refuse(type(detector).__name__)
    opened = _open_new(detector, model, new, out, dialect, id_name=id_name)
    ids = None
    if id_name is not None:
        with about(f"--id {id_name}"):
            if out.suffix != ".csv":
                raise ValueError(
                    f"{out} is a .npy file, which holds scores only; write a .csv file."
                )
            ids = tables.read_text(new, [id_name], dialect)[id_name]
    threshold, flagged, n = opened.detector.threshold_, 0, len(opened.source)
    with written(out, n, id_name, ids) as write:
        for scores in _scores(opened, quiet):
            labels = scores > threshold
            write(scores, labels)
            flagged += int(labels.sum())
    return Scored(f"{n:,} rows", flagged, threshold)


def _refuse_ids(id_name: str | None) -> None:
    if id_name is not None:
        raise ValueError(
            f"--id {id_name} is for rows of tables; use --time to name the points of a series."
        )


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
    if not getattr(detector, "history_", None):
        raise ValueError(
            f"MODEL {model}: {type(detector).__name__} has no loss to draw; name a file of rows as "
            "NEW to draw their scores."
        )
    with _drawn(out) as figure:
        plotting.plot_history(detector, ax=figure.subplots())


def plot_scores(
    model: Path,
    new: Path,
    out: Path,
    *,
    label: str | None = None,
    id_name: str | None = None,
    quiet: bool = False,
    options: Options = NO_OPTIONS,
    dialect: Dialect = UNKNOWN,
) -> Scored:
    """Draw the scores of a file and the threshold: a histogram for rows, a line for series.

    Parameters
    ----------
    model, new : Path
        As in :func:`score`.
    out : Path
        .png, .pdf or .svg.
    label : str, optional
        Column of ``new`` with 0 = normal and 1 = anomaly. The histogram is drawn for each label;
        labels of a series are drawn below its scores.
    id_name : str, optional
        Column of ids, which is not scored.
    quiet : bool, default=False
        Whether to hide the progress bar, which is shown on terminals only.
    options : Options
        Options of a series.
    dialect : Dialect
        Format of .csv files. What is None is detected.

    Returns
    -------
    scored : Scored

    Raises
    ------
    ValueError
        If an argument is not acceptable; the message names it.
    """
    from deepod import plotting

    detector = _load(model)
    if series.is_for_series(detector):
        _refuse_ids(id_name)
        return _plot_series(detector, model, new, out, label, options, dialect)
    options.refuse(type(detector).__name__)
    opened = _open_new(detector, model, new, out, dialect, label, id_name)
    y = None
    if label is not None:
        with about(f"--label {label}"):
            y = tables.read_labels(new, label, out.parent, dialect)
    scores = np.concatenate(list(_scores(opened, quiet)))
    threshold = opened.detector.threshold_
    with _drawn(out) as figure:
        plotting.plot_scores(scores, y, threshold, ax=figure.subplots())
    return Scored(f"{len(scores):,} rows", int((scores > threshold).sum()), threshold)


def plot_row(
    model: Path,
    new: Path,
    row: int,
    out: Path,
    *,
    id_name: str | None = None,
    options: Options = NO_OPTIONS,
    dialect: Dialect = UNKNOWN,
) -> float:
    """Draw the contributions of the columns to the score of a row.

    Parameters
    ----------
    model, new : Path
        As in :func:`score`.
    row : int
        Number of the row in ``new``; 1 = the first.
    out : Path
        .png, .pdf or .svg.
    id_name : str, optional
        Column of ids, which is not scored.
    options : Options
        Options of a series.
    dialect : Dialect
        Format of .csv files. What is None is detected.

    Returns
    -------
    score : float

    Raises
    ------
    ValueError
        If an argument is not acceptable; the message names it.
    """
    detector = _load(model)
    if series.is_for_series(detector):
        _refuse_ids(id_name)
        return _plot_point(detector, model, new, row, out, options, dialect)
    options.refuse(type(detector).__name__)
    opened = _open_new(detector, model, new, out, dialect, id_name=id_name)
    _check_row(row, len(opened.source), new)
    if len(opened.source.shape) != 2:
        raise ValueError(
            f"--row {row}: only rows of tables can be explained in a picture, not windows or "
            "images."
        )
    with about(f"NEW {new}"):
        values = opened.read(row - 1, row)
        contributions = detector.explain(values)[0]
        score = float(detector.decision_function(values)[0])
    _draw_reasons(out, detector, contributions, opened.names, f"row {row}: score {score:.4g}")
    return score


def _check_row(row: int, n: int, new: Path) -> None:
    if not 1 <= row <= n:
        raise ValueError(f"--row {row}: expected a number from 1 to {n}, the last row of {new}.")


def _draw_reasons(
    out: Path, detector: Any, contributions: np.ndarray, names: list[str] | None, title: str
) -> None:
    from deepod import plotting

    with _drawn(out) as figure:
        ax = plotting.plot_contributions(contributions, names, ax=figure.subplots())
        ax.set_title(f"{title}, threshold {detector.threshold_:.4g}")


class _Opened(NamedTuple):
    """A saved detector, and rows to score by it."""

    detector: Any
    names: list[str] | None  # of the columns, in the order of training
    source: sources.Source | tables.Frame
    path: Path

    def read(self, start: int, stop: int) -> Any:
        """Return rows after a check of their values, whose errors name the columns."""
        rows = self.source.read(start, stop)
        if self.names is not None and isinstance(rows, np.ndarray):
            tables.check_values(rows, self.names, start, allow_nan=self.detector.fill_ is not None)
        return rows


def _set_up(detector: str, settings: dict[str, Any]) -> Any:
    with about("--set"):
        if detector == "Consensus":
            model = _consensus(settings)
        else:
            model = detector_class(detector)().set_params(**settings)
        model._validate_params()
        if detector in SERIES:
            return model
        held_out = getattr(model, "calibration_fraction", 0) or model._scores_as_unseen()
        if model.false_alarm_rate is not None and not held_out:
            ways = ["calibration_fraction=0.2"] if hasattr(model, "calibration_fraction") else []
            way = " or ".join([*ways, "cross_fitting=True"])
            raise ValueError(f"false_alarm_rate needs calibration rows: use {way}.")
    return model


def _consensus(settings: dict[str, Any]) -> Any:
    """Return a Consensus with its own settings and those of its members."""
    if "detectors" in settings:
        raise ValueError(
            "detectors cannot be set on the command line: fit and save deepod.Consensus([...]) in "
            "Python, or choose a single --detector."
        )
    own = {k: v for k, v in settings.items() if k in deepod.Consensus().get_params(deep=False)}
    rest = {name: value for name, value in settings.items() if name not in own}
    model = deepod.Consensus(**own, member_params=rest or None)
    for member in model._unfitted():
        member._validate_params()
    return model


@contextmanager
def _verbose(model: Any) -> Iterator[None]:
    """Let a fit show its progress; afterwards, the model is as if it had not."""
    before = model.get_params(deep=False)
    if "verbose" in before:
        model.set_params(verbose=1)
    elif isinstance(model, deepod.Consensus):
        model.set_params(member_params={**(model.member_params or {}), "verbose": 1})
    try:
        yield
    finally:
        model.set_params(**before)
        for member in _with_members(model)[1:]:
            member.set_params(verbose=0)


def _with_members(model: Any) -> list[Any]:
    """Return the detectors that know the names of the columns."""
    return [model, *getattr(model, "members_", [])]


def _load(model: Path) -> Any:
    with about(f"MODEL {model}"):
        if not model.exists():
            raise FileNotFoundError(
                "there is no such file or folder; create a model with deepod fit first."
            )
        detector = deepod.load(model)
        name = type(detector).__name__
        if name in GRAPHS:
            raise ValueError(
                f"it is an {name}, and no command takes detectors of dynamic graphs; in Python, "
                "deepod.load(MODEL).decision_function(X) scores."
            )
        return detector


def _names(
    detector: Any,
    model: Path,
    label: str | None,
    time: str | None = None,
    id_name: str | None = None,
) -> tuple[list[str] | None, list[str]]:
    """Return the columns to read (None for all) and those to leave out."""
    # Parts of the rows are read by the names, and come without.
    found, *_ = [vars(part).pop("feature_names_in_", None) for part in _with_members(detector)]
    names = None if found is None else [str(name) for name in found]
    others = [("--label", label, "--drop"), ("--time", time, "--time"), ("--id", id_name, "--id")]
    for option, column, way in others:
        if column is not None and names is not None and column in names:
            raise ValueError(
                f"{option} {column}: {model} was fitted on this column, too; fit a model without "
                f"it: deepod fit {way} {column}"
            )
    return names, [c for c in (label, id_name) if c is not None and names is None]


def _open_new(
    detector: Any,
    model: Path,
    new: Path,
    out: Path,
    dialect: Dialect,
    label: str | None = None,
    id_name: str | None = None,
) -> _Opened:
    """Open rows to score; ``label`` and ``id_name`` are columns that are not scored."""
    names, drop = _names(detector, model, label, None, id_name)
    with about(f"NEW {new}"):
        reading = Reading(names, drop, dialect)
        tables.check_file(new, out, Reading(dialect=dialect))
        encoder = mixed.encoder_of(detector)
        if encoder is not None:
            frame = tables.read_as_encoded(new, reading, encoder.columns)
            for part in _with_members(detector):  # a frame has names to compare
                part.feature_names_in_ = np.array(names, dtype=object)
            return _Opened(detector, names, tables.Frame(frame), new)
        source = tables.open_source(new, out.parent, reading)
        if np.prod(source.shape[1:]) != np.prod(detector.input_shape_):
            raise ValueError(
                f"its rows have shape {source.shape[1:]}, but those of training had "
                f"{detector.input_shape_}; both need the same columns."
            )
    return _Opened(detector, names, source, new)


def _scores(opened: _Opened, quiet: bool) -> Iterator[np.ndarray]:
    """Yield scores and labels part by part."""
    detector, source = opened.detector, opened.source
    ranges = list(parts_of(len(source), source.shape[1:]))
    scored = detector.score_batches(opened.read(start, stop) for start, stop in ranges)
    with _progress(len(source), quiet) as bar:
        for start, stop in ranges:
            with about(f"NEW {opened.path}, rows {start + 1} to {stop}"):
                scores = next(scored)
            yield scores
            bar.update(stop - start)


class _Read(NamedTuple):
    """A series that was scored."""

    points: series.Points
    context: Any  # a series before, or None
    scores: np.ndarray
    threshold: float

    def counted(self) -> Scored:
        flagged = int((self.scores > self.threshold).sum())
        return Scored(self.points.described, flagged, self.threshold, self.points.gaps)


def _read_new(
    detector: Any,
    model: Path,
    new: Path,
    out: Path,
    options: Options,
    dialect: Dialect,
    label: str | None = None,
) -> _Read:
    """Read and score a series; ``label`` is a column that is not a channel."""
    names, drop = _names(detector, model, label, options.time)

    def read(path: Path, options: Options) -> series.Points:
        tables.check_file(path, out, Reading(dialect=dialect))
        return series.read(
            path,
            out.parent,
            Reading(names, drop, dialect),
            options,
            allow_nan=getattr(detector, "fill_", None) is not None,
            channels=detector.n_features_in_,
        )

    with about(f"NEW {new}"):
        points, context = read(new, options), None
    if options.context is not None:
        with about(f"--context {options.context}"):
            before = read(options.context, Options(options.time))
            series.check_context(before, points)
            context = before.series
    with about(f"NEW {new}"):
        scores = detector.decision_function(points.series, context=context)
    return _Read(points, context, scores, detector.threshold_)


def _plot_series(
    detector: Any,
    model: Path,
    new: Path,
    out: Path,
    label: str | None,
    options: Options,
    dialect: Dialect,
) -> Scored:
    from deepod import plotting

    found = _read_new(detector, model, new, out, options, dialect, label)
    y = None
    if label is not None:
        with about(f"--label {label}"):
            y = tables.read_labels(new, label, out.parent, dialect)
    with _drawn(out) as figure, about(f"NEW {new}"):
        points = found.points
        figure.set_size_inches(9, 3 + min(points.series.rows.shape[1], 8))
        plotting.plot_series(
            detector,
            points.series,
            y,
            context=found.context,
            scores=found.scores,
            feature_names=points.names,
            figure=figure,
        )
    return found.counted()


def _plot_point(
    detector: Any,
    model: Path,
    new: Path,
    row: int,
    out: Path,
    options: Options,
    dialect: Dialect,
) -> float:
    found = _read_new(detector, model, new, out, options, dialect)
    _check_row(row, len(found.scores), new)
    with about(f"NEW {new}"):
        reasons = detector.explain(found.points.series, context=found.context)
        contributions = found.points.series.joined(reasons)[row - 1]
    score = float(found.scores[row - 1])
    title = f"row {row}: score {score:.4g}"
    _draw_reasons(out, detector, contributions, found.points.names, title)
    return score


@contextmanager
def _drawn(out: Path) -> Iterator[Any]:
    """Yield a figure to draw on, which is saved as a whole at the end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    yield figure
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
