"""Encoding of tables with text, times and missing values by the command line."""

from __future__ import annotations

import shlex
from typing import Any

# What is set of a detector for a mixed table, if the user does not set it.
_SETTINGS = {
    "categorical_features": "from_dtype",
    "datetime_features": "from_dtype",
    "missing": "impute",
}
_TITLES = {"number": "numbers", "category": "categories", "time": "times"}


def encode(model: Any, settings: dict[str, Any]) -> None:
    """Set a detector to encode the columns of a mixed table, except where the user has set it."""
    given: dict[str, Any] = {
        name: value for name, value in _SETTINGS.items() if name not in settings
    }
    if hasattr(model, "member_params"):
        given = {"member_params": given | (model.member_params or {})}
    model.set_params(**given)


def encoder_of(model: Any) -> Any:
    """Return the encoder of a fitted detector or of its members, or None."""
    return getattr(getattr(model, "members_", [model])[0], "encoder_", None)


def described(model: Any, frame: Any) -> str:
    """Return lines that describe the encoding of the columns, one for each kind."""
    lines: dict[str, list[str]] = {}
    for name, words in encoder_of(model).summary().items():
        kind, _, more = words.partition(": ")
        gaps = int(frame[name].isna().sum()) if kind == "number" else 0
        more = f"{gaps:,} gaps filled by the median" if gaps else more
        if more == "every value is different":
            more += f"; if it names the rows, fit with --id {shlex.quote(str(name))}"
        lines.setdefault(kind, []).append(f"{name} ({more})" if more else str(name))
    return "\n".join(f"{_TITLES.get(kind, kind)}: {', '.join(own)}" for kind, own in lines.items())
