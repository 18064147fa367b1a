"""Translation of the library's error messages to options of the command line."""

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
# Remedies that only Python has, beside one that the command line has too.
_PYTHON = re.compile(
    r", or (call calibrate\(X\) with normal rows that it was not trained on"
    r"|put an imputer before the detector in a Pipeline)"
)
_WITHOUT_LISTS = ("score", "plot")  # they read the same columns as deepod fit


def translate(message: str, command: str) -> str:
    """Return an error message with remedies that work on the command line.

    Parameters
    ----------
    message : str
        A message whose remedies are Python arguments, such as ``missing='impute'``.
    command : str
        The command of ``deepod`` that failed. Hyper-parameters are set by ``deepod fit``.
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
    # With a blank, the parser would read -1 as an option.
    return f"--{name}={value}" if value.startswith("-") else f"--{name} {value}"
