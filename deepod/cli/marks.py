"""Labels to learn from: a column of the training file, or marks of a page of ``deepod review``.

Labels and ids are read as text, so that the id 0012 differs from 12.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepod._inputs.dialects import Dialect, number
from deepod._inputs.tables import open_table
from deepod.cli.tables import read_text
from deepod.review.ids import check_ids, listed

_ROW, _LABEL, _FILE = "row", "label", "file"  # columns of marks


class Labels(NamedTuple):
    """The known labels of the rows of a file."""

    y: np.ndarray  # 1: known anomaly, 0: all others
    anomalies: int
    normal: int
    unlabelled: int  # rows of which nothing is known, those marked unsure among them

    @property
    def described(self) -> str:
        """Return a description of the numbers of labels."""
        return (
            f"labels: {self.anomalies:,} rows are known anomalies, {self.normal:,} known to be "
            f"normal, {self.unlabelled:,} without a label"
        )


def is_file(labels: str) -> bool:
    """Return whether ``--labels`` names a file; otherwise it names a column."""
    return labels.lower().endswith(".csv")


def no_features(train: Path, labels: str | None, id_name: str | None) -> list[str]:
    """Return the columns of ids and labels; raise ValueError if the file has no column names."""
    columns = {"--id": id_name}
    if labels is not None and not is_file(labels):
        columns["--labels"] = labels
    found = {option: column for option, column in columns.items() if column is not None}
    for option, column in found.items():
        if train.suffix == ".npy":
            raise ValueError(
                f"{option} {column}: a .npy file has no column names; use a .csv or Parquet file, "
                "or join marks by the numbers of the rows."
            )
    return list(found.values())


def check_supervision(model: Any, labels: str | None) -> None:
    """Raise ValueError for labels that a detector ignores, or if it lacks labels that it needs."""
    supervision = getattr(model, "supervision", None)
    if labels is None:
        if supervision is not None:
            raise ValueError(
                f"--set supervision={supervision} needs labels: add --labels with a column of "
                "TRAIN, or with the .csv file of marks from a page of deepod review."
            )
    elif supervision is None:
        raise ValueError(
            f"--labels {labels}: {type(model).__name__} would not use the labels; add "
            "--detector AnoRand --set supervision=few_labels."
        )


def read_labels(labels: str, train: Path, id_name: str | None, n: int, dialect: Dialect) -> Labels:
    """Return the labels of the n rows of a file.

    Parameters
    ----------
    labels : str
        A .csv file of marks, or a column of ``train``.
    train : Path
        The file.
    id_name : str or None
        Column of both files by which marks are joined; None joins them by the numbers of the rows.
    n : int
        Number of rows of ``train``.

    Returns
    -------
    labels : Labels

    Raises
    ------
    ValueError
        If a label is not valid, or a mark does not belong to exactly one row.
    """
    if not is_file(labels):
        cells = read_text(train, [labels], dialect)[labels]
        places = list(range(n))
    elif id_name is None:
        places, cells = _by_row(Path(labels), train, n)
    else:
        places, cells = _by_id(Path(labels), train, id_name, dialect)
    found = np.full(n, np.nan)
    found[places] = [_label(cell, place) for place, cell in enumerate(cells, 1)]
    y = (found == 1).astype(np.int64)
    known = Labels(y, int(y.sum()), int((found == 0).sum()), int(np.isnan(found).sum()))
    if not known.anomalies:
        raise ValueError(
            "no row is labelled 1 (anomaly), so that there is nothing to learn from the labels; "
            "mark at least one anomaly, or leave --labels out."
        )
    return known


def check_complete(labels: Labels, supervision: str) -> None:
    """Raise ValueError if labels are missing although ``supervision`` needs those of all rows."""
    if supervision == "supervised" and labels.unlabelled:
        raise ValueError(
            f"supervision=supervised needs the labels of all rows, but {labels.unlabelled:,} have "
            "none; use --set supervision=few_labels to learn from some labels."
        )


def _label(cell: str, row: int) -> float:
    try:
        value = number(cell)
    except ValueError:
        value = np.inf
    if not (np.isnan(value) or value in (0, 1)):
        raise ValueError(
            f"row {row}: expected the label 1 (anomaly), 0 (normal) or nothing, got {cell!r}."
        )
    return value


def _by_row(marks: Path, train: Path, n: int) -> tuple[list[int], list[str]]:
    header = _header(marks)
    if _ROW not in header:
        raise ValueError(
            f"it has no column {_ROW!r}; its columns are {', '.join(header)}. Name the one that "
            "holds ids of rows of TRAIN as --id NAME."
        )
    names = [_ROW, _LABEL, *([_FILE] if _FILE in header else [])]
    cells = read_text(marks, names)
    others = sorted(set(cells.get(_FILE, [])) - {train.name, ""})
    if others:
        raise ValueError(
            f"its marks name rows of {listed(others)} by their numbers, but TRAIN is "
            f"{train.name}; fit on the file that was reviewed, or review it with --id to join "
            "marks by ids."
        )
    check_ids(cells[_ROW], f"column {_ROW!r}")
    wrong = [cell for cell in cells[_ROW] if not (cell.isdecimal() and 1 <= int(cell) <= n)]
    if wrong:
        raise ValueError(
            f"the numbers of rows must be from 1 to {n}, the last row of {train.name}, got "
            f"{listed(wrong)}."
        )
    return [int(cell) - 1 for cell in cells[_ROW]], cells[_LABEL]


def _by_id(marks: Path, train: Path, name: str, dialect: Dialect) -> tuple[list[int], list[str]]:
    header = _header(marks)
    if name not in header and _ROW in header:
        raise ValueError(
            f"its marks name rows by their numbers, not by {name!r}; use --drop {name} instead of "
            f"--id {name}."
        )
    cells = read_text(marks, [name, _LABEL])
    check_ids(cells[name], f"column {name!r}")
    places = check_ids(read_text(train, [name], dialect)[name], f"{train.name}, column {name!r}")
    unknown = [repr(cell) for cell in cells[name] if cell not in places]
    if unknown:
        raise ValueError(
            f"{train.name} has no row with the {name} {listed(unknown)}; fit on a file that holds "
            "the rows that were reviewed."
        )
    return [places[cell] for cell in cells[name]], cells[_LABEL]


def _header(path: Path) -> list[str]:
    if not path.exists():
        raise FileNotFoundError("there is no such file; check its name.")
    return open_table(path).header
