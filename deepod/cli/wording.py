"""Errors of the library, in the words of the command line."""

from __future__ import annotations

import ast
import re
import shlex

_LISTS = re.compile(r"\b(columns|drop)=(\[\.\.\.\]|\[(?:'(?:[^'\\]|\\.)*'|\"[^\"]*\")\])")
_VALUES = re.compile(r"\b(anomaly|normal|sep|decimal|encoding)=('[^']*'|-?\w+|\.\.\.)")
_SETTINGS = re.compile(
    r"(?<!--set )\b(missing|calibration_fraction|cross_fitting|memory_limit|\w+_features)="
    r"('[^']*'|\"[^\"]*\"|[\w.]*\w)"
)
# What only Python can do, beside a remedy that the command line has.
_PYTHON = re.compile(
    r", or (call calibrate\(X\) with normal rows that it was not trained on"
    r"|put an imputer in front, in a Pipeline)"
)
_WITHOUT_LISTS = ("score", "plot")  # they read the columns that deepod fit has read


def translate(message: str, command: str) -> str:
    """Return the message with remedies that work on the command line.

    Parameters
    ----------
    message : str
        Of an error, whose remedies are Python arguments, such as ``missing='impute'``.
    command : str
        Of ``deepod``. Hyper-parameters are set by ``deepod fit``.
    """
    fit = "" if command in ("fit", "bench") else "deepod fit "
    message = _PYTHON.sub("", message)
    message = _LISTS.sub(
        lambda found: (fit if command in _WITHOUT_LISTS else "") + _list(found), message
    )
    message = _VALUES.sub(_value, message)
    if command == "bench":
        return message
    return _SETTINGS.sub(lambda m: f"{fit}--set {m[1]}=" + m[2].strip("\"'"), message)


def _list(found: re.Match[str]) -> str:
    name, value = found[1], found[2]
    if value == "[...]":
        return f"--{name} a,b,c"
    return f"--{name} {shlex.quote(','.join(ast.literal_eval(value)))}"


def _value(found: re.Match[str]) -> str:
    name, value = found[1], found[2]
    if value == "...":
        return f"--{name} VALUE"
    # Or the parser takes -1 for an option.
    return f"--{name}={value}" if value.startswith("-") else f"--{name} {value}"
