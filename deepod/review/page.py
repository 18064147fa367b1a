"""The review page, which is one HTML file with its style, its script and its data."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, NamedTuple

import numpy as np

from deepod.review.columns import Cells, shown
from deepod.review.groups import Group

_BINS = 80
_CELLS = 100_000  # above which a row shows the columns alone that add most to its score
_FEW = 3  # columns that every row shows
_BYTES = 4_500_000  # of data
_LOGARITHMIC = 50  # times the median that the highest score is, from which on scores are so shown


class Reviewed(NamedTuple):
    """The contents of a review page."""

    title: str
    fingerprint: str  # of the rows: marks that the browser keeps stay with them
    detector: str
    compared: str | None  # what it is compared with
    file: str | None
    id_name: str | None
    ids: list[str] | None  # of the rows that are shown
    rows: np.ndarray  # that are shown, from 0
    scores: np.ndarray  # of all rows
    before: np.ndarray | None  # scores of all rows by what it is compared with
    threshold: float
    top: int
    contributions: np.ndarray  # of the rows that are shown
    cells: Cells
    labels: np.ndarray
    groups: list[Group]


def as_page(reviewed: Reviewed) -> str:
    """Return the HTML of the page.

    Cells may hold anything, also HTML. Therefore the data are JSON without "<", so that no parser
    finds the end of a script in them. The page's script inserts them as text only, and the page's
    content security policy allows no other script.

    Parameters
    ----------
    reviewed : Reviewed

    Returns
    -------
    page : str
    """
    parts = {name: files(__package__).joinpath(f"page.{name}") for name in ("html", "css", "js")}
    html, style, script = (part.read_text(encoding="utf-8") for part in parts.values())
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(html).substitute(
        title=escape(reviewed.title),
        policy=policy,
        style=style,
        script=script,
        data=_fitting(reviewed).replace("<", "\\u003c"),
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _fitting(reviewed: Reviewed) -> str:
    """Return the data as JSON, with as many columns of each row as fit."""
    n, width = reviewed.contributions.shape
    most = width if n * width <= _CELLS else max(_FEW, _CELLS // n)
    while True:
        data = _data(reviewed, min(most, width))
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        if len(text.encode()) <= _BYTES or most <= _FEW:
            return text
        most = max(_FEW, most // 2)


def _data(reviewed: Reviewed, most: int) -> dict[str, Any]:
    scores, before = reviewed.scores, reviewed.before
    ranks = _ranks(scores)
    earlier = None if before is None else _ranks(before)
    columns = reviewed.cells.columns
    rows = []
    for i, row in enumerate(reviewed.rows):
        parts = reviewed.contributions[i]
        cells: list[Any] = []
        for j in np.argsort(-parts, kind="stable")[:most].tolist():
            cells += [j, _digits(parts[j]), *columns[j].cell(i)]
        rows.append(
            [
                int(row) + 1,
                int(ranks[row]),
                float(scores[row]),
                int(reviewed.labels[i]),
                None if reviewed.ids is None else reviewed.ids[i],
                None if earlier is None else int(earlier[row]),
                cells,
            ]
        )
    flagged = int((scores > reviewed.threshold).sum())
    return {
        "key": f"deepod review {reviewed.fingerprint}",
        "summary": _summary(reviewed, flagged),
        "file": reviewed.file,
        "id": reviewed.id_name,
        "compare": reviewed.compared,
        "threshold": reviewed.threshold,
        "n": len(scores),
        "flagged": flagged,
        "top": reviewed.top,
        "columns": [
            [name, shown(column.typical), column.text]
            for name, column in zip(reviewed.cells.names, columns, strict=True)
        ],
        "groups": [list(group) for group in reviewed.groups],
        "bins": _bins(scores, reviewed.threshold),
        "rows": rows,
    }


def _ranks(scores: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(scores), int)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks


def _summary(reviewed: Reviewed, flagged: int) -> str:
    n, shown = len(reviewed.scores), len(reviewed.rows)
    text = (
        f"{reviewed.detector}: {n:,} rows scored, {flagged:,} above the threshold "
        f"{reviewed.threshold:.4g}; "
    )
    if reviewed.compared is None:
        return text + f"the {shown:,} highest are shown."
    return text + f"{shown:,} rows are shown, the {reviewed.top:,} highest now or before."


def _bins(scores: np.ndarray, threshold: float) -> dict[str, Any]:
    low, high = float(scores.min()), float(scores.max())
    low, high = min(low, threshold), max(high, threshold)
    middle = float(np.median(scores))
    log = low > 0 and high > _LOGARITHMIC * middle
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.geomspace(low, high, _BINS + 1) if log else np.linspace(low, high, _BINS + 1)
    edges[0], edges[-1] = low, high  # rounding must leave none outside
    counts = np.histogram(scores, edges)[0]
    return {"edges": [_digits(x, 7) for x in edges], "counts": counts.tolist(), "log": log}


def _digits(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")
