"""What the command line does about tables with text, times and gaps: it encodes, and says how."""

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
    """Have a detector encode the columns of a mixed table, but for what the user has set."""
    given: dict[str, Any] = {
        name: value for name, value in _SETTINGS.items() if name not in settings
    }
    if hasattr(model, "member_params"):
        given = {"member_params": given | (model.member_params or {})}
    model.set_params(**given)


def encoder_of(model: Any) -> Any:
    """Return what encodes the columns for a fitted detector or the members of one; or None."""
    return getattr(getattr(model, "members_", [model])[0], "encoder_", None)


def described(model: Any, frame: Any) -> str:
    """Say what was made of the columns of a frame, in a line for each kind of them."""
    lines: dict[str, list[str]] = {}
    for name, words in encoder_of(model).summary().items():
        kind, _, more = words.partition(": ")
        gaps = int(frame[name].isna().sum()) if kind == "number" else 0
        more = f"{gaps:,} gaps filled by the median" if gaps else more
        if more == "every value is different":
            more += f"; if it names the rows, fit with --id {shlex.quote(str(name))}"
        lines.setdefault(kind, []).append(f"{name} ({more})" if more else str(name))
    return "\n".join(f"{_TITLES.get(kind, kind)}: {', '.join(own)}" for kind, own in lines.items())
