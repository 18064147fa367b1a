"""Ids of rows, which are text and unique."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_NAMED = 5  # ids of an error


def check_ids(ids: Sequence[str], what: str) -> dict[str, int]:
    """Return the row of each id; raise ValueError if an id is missing or not unique.

    Parameters
    ----------
    ids : sequence of str
    what : str
        Description of the ids for the error.

    Returns
    -------
    places : dict of str to int
        Numbers of rows, from 0.
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
        raise ValueError(f"{what}: there is no id in row {listed(missing)}; give each row one.")
    if twice:
        raise ValueError(
            f"{what}: each row needs an id of its own, but some occur twice: {listed(twice)}."
        )
    return places


def listed(names: Iterable[str]) -> str:
    """Return the first names as text, with the number of the others."""
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
