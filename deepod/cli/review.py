"""``deepod review``: a review page from a model and a file of rows."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepod import review as pages
from deepod._inputs.dialects import UNKNOWN, Dialect
from deepod._storage.atomic import prepare
from deepod.cli import commands, mixed, series, tables
from deepod.cli.tables import about


class Reviewed(NamedTuple):
    """Facts about a review page."""

    threshold: float
    page: pages.Written


def review(
    model: Path,
    new: Path,
    out: Path,
    *,
    top: int = 50,
    id_name: str | None = None,
    reference: Path | None = None,
    compare: Path | None = None,
    quiet: bool = False,
    dialect: Dialect = UNKNOWN,
) -> Reviewed:
    """Write a page to review the rows of a file that score highest.

    Parameters
    ----------
    model : Path
        A model saved by ``deepod fit`` or :meth:`deepod.BaseDetector.save`.
    new : Path
        File of rows to score. Its columns are chosen by the names of the training columns, if these
        had names.
    out : Path
        .html file to write; an older one is replaced.
    top : int, default=50
        Number of rows to show.
    id_name : str, optional
        Column of ``new`` with ids of the rows; by default rows are named by their numbers.
    reference : Path, optional
        Rows whose medians are shown as typical values, such as the training rows; by default
        ``new``.
    compare : Path, optional
        An earlier model; the page then shows which rows have moved.
    quiet : bool, default=False
        Whether to hide the progress bar, which is shown on terminals only.
    dialect : Dialect
        Format of .csv files. What is None is detected.

    Returns
    -------
    reviewed : Reviewed

    Raises
    ------
    ValueError
        If an argument is not acceptable; the message names it.
    """
    if top < 1:
        raise ValueError(f"--top {top}: the number of rows must be 1 or more.")
    with about(f"--out {out}"):
        prepare(out)
    opened, scores = _scored(model, new, out, id_name, quiet, dialect)
    before = None if compare is None else _scored(compare, new, out, id_name, quiet, dialect)[1]
    ids = known = None
    if id_name is not None:
        with about(f"--id {id_name}"):
            ids = tables.read_text(new, [id_name], dialect)[id_name]
    if reference is not None:
        with about(f"--reference {reference}"):
            tables.check_file(reference, out)
            drop = [id_name] if id_name is not None and opened.names is None else []
            reading = tables.Reading(opened.names, drop, dialect)
            encoder = mixed.encoder_of(opened.detector)
            if encoder is None:
                known = tables.open_source(reference, out.parent, reading)
            else:
                known = tables.read_as_encoded(reference, reading, encoder.columns)
    with about(f"NEW {new}"):
        page = pages.write(
            out,
            opened.detector,
            getattr(opened.source, "frame", opened.source),
            top=top,
            ids=ids,
            id_name=id_name or "id",
            feature_names=opened.names,
            reference=known,
            scores=scores,
            compare=before,
            file=new.name,
        )
    return Reviewed(float(opened.detector.threshold_), page)


def _scored(
    model: Path, new: Path, out: Path, id_name: str | None, quiet: bool, dialect: Dialect
) -> tuple[commands._Opened, np.ndarray]:
    detector = commands._load(model)
    if series.is_for_series(detector):
        raise ValueError(
            f"MODEL {model}: {type(detector).__name__} scores points of series, but a page shows "
            "rows of tables; use deepod plot to draw a series with its scores."
        )
    opened = commands._open_new(detector, model, new, out, dialect, id_name=id_name)
    if len(opened.source.shape) != 2:
        raise ValueError(f"NEW {new}: only rows of a table can be reviewed, not windows or images.")
    return opened, np.concatenate(list(commands._scores(opened, quiet)))
