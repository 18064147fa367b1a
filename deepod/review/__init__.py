"""Review pages, which show why the top rows score high and collect labels for training.

``deepod review`` writes it from files, :func:`write` from arrays and frames.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from deepod._storage.atomic import prepare, replacing
from deepod.review.columns import Cells, Columns
from deepod.review.groups import alike
from deepod.review.ids import check_ids
from deepod.review.page import Reviewed, as_page

__all__ = ["Written", "write"]

_RESERVED = ("row", "label", "score", "file")  # columns of the marks


class Written(NamedTuple):
    """Facts about a review page, as :func:`write` returns them."""

    rows: int  # that were scored
    flagged: int  # above the threshold
    shown: int
    groups: int  # of rows that score high for like reasons; 0 if there are none
    explained: float  # seconds that it took to explain the rows that are shown


def write(
    path: Any,
    detector: Any,
    X: Any,
    *,
    top: int = 50,
    ids: Any = None,
    id_name: str = "id",
    feature_names: Any = None,
    values: Any = None,
    reference: Any = None,
    scores: Any = None,
    compare: Any = None,
    title: str | None = None,
    file: str | None = None,
) -> Written:
    """Write an HTML page to inspect and mark the rows with the highest scores.

    The page is one file that needs no network. It shows the values of each row beside typical
    values, and groups rows with similar reasons for their scores. Rows can be marked as anomaly,
    normal or unsure. The page offers the marks as a CSV file with the number of the row (from 1) or
    its id, the label (1, 0 or nothing) and the score. ``deepod fit --labels`` trains with that
    file.

    Parameters
    ----------
    path : path-like
        File to write; an older one is replaced.
    detector : fitted detector
        A detector of rows with ``decision_function``, ``explain`` and ``threshold_``.
    X : array-like of shape (n, d), DataFrame or Source
        Rows to score.
    top : int, default=50
        Number of rows to show, those with the highest scores. Only these are explained. With
        integrated gradients, this takes as long as scoring these rows hundreds of times.
    ids : array-like of shape (n,), optional
        Unique names of the rows, used in the marks. By default, rows are named by their numbers.
    id_name : str, default="id"
        Name of the column of ids in the marks.
    feature_names : sequence of str of shape (d,), optional
        Names of the columns. By default those of ``values``, X or the detector, or "feature 0" and
        so on.
    values : array-like of shape (n, d), DataFrame or Source, optional
        Values to show instead of X, such as values before scaling.
    reference : array-like of shape (m, d), DataFrame or Source, optional
        Rows, such as the training rows, whose medians are shown as typical values and among which
        the shown values are ranked. By default ``values`` or X. Of more than 20,000 rows, 20,000
        evenly spaced ones are used.
    scores : array-like of shape (n,), optional
        The result of ``detector.decision_function(X)``, if it is known already.
    compare : fitted detector, or array-like of shape (n,), optional
        Another detector of the same rows, such as one fitted before marks were given, or its
        scores. The page then shows the top rows of both, and their earlier ranks.
    title : str, optional
        Title of the page. By default "Review of" the file, or of the rows.
    file : str, optional
        Name of the file that X was read from. Marks by row number contain it, so that they cannot
        be applied to another file by mistake.

    Returns
    -------
    written : Written
        The numbers of rows, flagged rows, shown rows and groups, and the time of the explanations.

    Raises
    ------
    ValueError
        If an argument is not valid; the message names it.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> from deepod import Neighbors, review
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(size=(200, 3)), [[9, 0, 0]]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = pathlib.Path(folder) / "review.html"
    ...     review.write(page, Neighbors().fit(X), X, top=10).shown
    10
    """
    path = Path(path)
    if "series" in getattr(detector, "inputs", ()):
        raise ValueError(
            f"{type(detector).__name__} is a detector of series, but a page shows rows of tables; "
            "use deepod.plotting.plot_series to draw a series with its scores."
        )
    columns = Columns.of(X, feature_names, getattr(detector, "feature_names_in_", None))
    scores = _scores_of(detector, X, len(columns), scores, "scores")
    before = None if compare is None else _before(compare, X, len(columns))
    names = _checked_ids(ids, id_name, len(columns))
    chosen = _highest(scores, top)
    if before is not None:
        others = np.setdiff1d(_highest(before, top), chosen)
        chosen = np.concatenate([chosen, others[np.argsort(-scores[others], kind="stable")]])
    seen = (
        columns
        if values is None
        else Columns.of(values, feature_names, columns.names, name="values")
    )
    if len(seen) != len(columns) or len(seen.names) != len(columns.names):
        raise ValueError(
            f"values must have as many rows and columns as X, {len(columns)} and "
            f"{len(columns.names)}, got {len(seen)} and {len(seen.names)}."
        )
    rows = columns.take(chosen)
    start = perf_counter()
    contributions = np.asarray(detector.explain(rows), dtype=float)
    seconds = perf_counter() - start
    known = seen if reference is None else Columns.of(reference, seen.names, name="reference")
    cells = Cells.of(rows if seen is columns else seen.take(chosen), known)
    labels, groups = alike(contributions, seen.names)
    threshold = float(detector.threshold_)
    flagged = int((scores > threshold).sum())
    page = as_page(
        Reviewed(
            title=title or f"Review of {file or f'{len(scores):,} rows'}",
            fingerprint=columns.fingerprint(),
            detector=type(detector).__name__,
            compared=None if before is None else _named(compare),
            file=file,
            id_name=None if names is None else id_name,
            ids=None if names is None else [names[row] for row in chosen],
            rows=chosen,
            scores=scores,
            before=before,
            threshold=threshold,
            top=top,
            contributions=contributions,
            cells=cells,
            labels=labels,
            groups=groups,
        )
    )
    prepare(path)
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8", newline="\n")
    return Written(len(scores), flagged, len(chosen), len(groups), seconds)


def _highest(scores: np.ndarray, top: int) -> np.ndarray:
    if not (isinstance(top, int | np.integer) and top >= 1):
        raise ValueError(f"top must be an integer of 1 or more, got {top!r}.")
    return np.argsort(-scores, kind="stable")[:top]


def _named(compare: Any) -> str:
    return type(compare).__name__ if hasattr(compare, "decision_function") else "another"


def _before(compare: Any, X: Any, n: int) -> np.ndarray:
    if hasattr(compare, "decision_function"):
        return _scores_of(compare, X, n, None, "compare")
    return _scores_of(None, X, n, compare, "compare")


def _scores_of(detector: Any, X: Any, n: int, scores: Any, name: str) -> np.ndarray:
    found = detector.decision_function(X) if scores is None else scores
    found = np.asarray(found, dtype=float)
    if found.shape != (n,) or not np.isfinite(found).all():
        raise ValueError(
            f"{name} must be {n} finite numbers, one for each row of X, got an array of shape "
            f"{found.shape}."
        )
    return found


def _checked_ids(ids: Any, name: str, n: int) -> list[str] | None:
    """Return ids as text, after a check that each stands for exactly one row."""
    if ids is None:
        return None
    if name.strip() in _RESERVED:
        raise ValueError(
            f"id_name={name!r} is the name of another column of the marks ({', '.join(_RESERVED)});"
            " give it another name."
        )
    names = ["" if value is None else str(value) for value in ids]
    if len(names) != n:
        raise ValueError(f"ids holds {len(names)} ids for {n} rows of X; give one for each row.")
    check_ids(names, "ids")
    return names
