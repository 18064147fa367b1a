"""Ids of rows: text, exactly as it is written, that stands for one row each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_NAMED = 5  # ids of an error


def check_ids(ids: Sequence[str], what: str) -> dict[str, int]:
    """Return where each id is, and refuse ids that are missing or there twice.

    Parameters
    ----------
    ids : sequence of str
    what : str
        Where they are, for the error.

    Returns
    -------
    places : dict of str to int
        Rows, from 0.
    """
    places: dict[str, int] = {}
    missing, twice = [], []
    for row, value in enumerate(ids):
        if not value.strip():
            missing.append(f"{row + 1}")
        elif value in places:
            twice.append(f"{value!r} (rows {places[value] + 1} and {row + 1})")
        else:
            places[value] = row
    if missing:
        raise ValueError(f"{what}: there is no id in row {listed(missing)}; give every row one.")
    if twice:
        raise ValueError(f"{what}: an id stands for one row; there twice: {listed(twice)}.")
    return places


def listed(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
