"""Errors of the library, in the words of the command line."""

from __future__ import annotations

import re

_LISTS = re.compile(r"\b(columns|drop)=\[\.\.\.\]")
_VALUES = re.compile(r"\b(anomaly|normal|sep|decimal|encoding)=('[^']*'|-?\w+|\.\.\.)")
_SETTINGS = re.compile(
    r"(?<!--set )\b(missing|calibration_fraction|cross_fitting|memory_limit)="
    r"('[^']*'|\"[^\"]*\"|[\w.]*\w)"
)


def translate(message: str, command: str) -> str:
    """Return the message with remedies that work on the command line.

    Parameters
    ----------
    message : str
        Of an error, whose remedies are Python arguments, such as ``missing='impute'``.
    command : str
        Of ``deepod``. Hyper-parameters are set by ``deepod fit``.
    """
    message = _LISTS.sub(lambda found: f"--{found[1]} a,b,c", message)
    message = _VALUES.sub(_value, message)
    before = "" if command == "fit" else "deepod fit "
    if command == "bench":
        return message
    return _SETTINGS.sub(lambda m: f"{before}--set {m[1]}=" + m[2].strip("\"'"), message)


def _value(found: re.Match[str]) -> str:
    name, value = found[1], found[2]
    if value == "...":
        return f"--{name} VALUE"
    # Or the parser takes -1 for an option.
    return f"--{name}={value}" if value.startswith("-") else f"--{name} {value}"
