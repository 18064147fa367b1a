"""Checks of the shapes of samples, with expressions that correct likely mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from deepod.types import Shape

_CHANNELS = (1, 3, 4)  # of photos: grey, red-green-blue, with transparency
_LEAST_SIDE = 8  # pixels; smaller arrays of bytes may be windows of small numbers


def check_layout(shape: Shape, dtype: np.dtype, given: Any) -> None:
    """Raise an error if X looks like images whose axes are in another order.

    Parameters
    ----------
    shape : tuple of int
        Shape of X, samples first.
    dtype : numpy.dtype
    given : object
        X as the user gave it, for the remedy.

    Raises
    ------
    ValueError
        If it does. The message says how to change the layout, and how to insist on it.
    """
    if not shape:
        raise ValueError("X is a single number; expected rows, such as an array (n, features).")
    if len(shape) < 2:
        raise ValueError(
            f"X has shape {tuple(shape)}, expected (n, features), (n, time, channels) or (n, "
            f"channels, height, width). Reshape your data: {_array(given)}[:, None] if these are "
            "rows of one feature each."
        )
    samples = shape[1:]
    if len(shape) == 4 and shape[3] in _CHANNELS and shape[1] not in _CHANNELS:
        taken = f"images of {shape[1]} channels and a width of {shape[3]}"
        remedy = f"{_moved(given)} if the channels come last"
    elif len(shape) == 3 and dtype.kind in "bu" and dtype.itemsize == 1:
        if min(samples) < _LEAST_SIDE:
            return
        taken = f"windows of {shape[1]} points in time and {shape[2]} channels"
        remedy = f"{_array(given)}[:, None] if they are grey images"
    else:
        return
    raise ValueError(
        f"X has shape {tuple(shape)}, which would be read as {taken}; pass {remedy}. If that "
        f"reading is right, set input_shape={samples}."
    )


def compare_shapes(shape: Shape, detector: Any, given: Any) -> None:
    """Raise an error if new samples have another shape than those of ``fit``.

    scikit-learn checks the number of features of tables.

    Raises
    ------
    ValueError
        If they have. The message names both shapes, and an expression that corrects X if possible.
    """
    expected = detector.input_shape_
    if shape[1:] == expected and len(shape) > 1:
        return
    flat = len(shape) == 2 and (len(expected) == 1 or shape[1] == np.prod(expected))
    if flat and (len(expected) == 1 or detector.input_shape is not None):
        return
    one = " Reshape your data." if len(shape) < 2 else ""
    raise ValueError(
        f"X has shape {tuple(shape)}, but {type(detector).__name__} was fitted on samples of shape "
        f"{expected}, {_expected(expected)}.{way_to(shape, expected, given)}{one}"
    )


def way_to(shape: Shape, expected: Shape, given: Any) -> str:
    """Return an expression that gives X the expected shape, or an empty string."""
    s, X = tuple(shape), _array(given)
    size = int(np.prod(expected))
    ways: list[tuple[str, str, Sequence[int]]] = [("One sample?", f"{X}[None]", (1, *s))]
    if len(s) > 2:
        ways += [
            ("Channels last?", _moved(given), (s[0], s[-1], *s[1:-1])),
            ("One sample, channels last?", f"{_moved(given, 0)}[None]", (1, s[-1], *s[:-1])),
        ]
    if s:
        ways += [
            ("No axis for one channel?", f"{X}[:, None]", (s[0], 1, *s[1:])),
            ("One sample of one channel?", f"{X}[None, None]", (1, 1, *s)),
            ("No axis for one channel?", f"{X}[..., None]", (*s, 1)),
            ("One sample of one channel?", f"{X}[None, ..., None]", (1, *s, 1)),
        ]
    if len(s) == 2 and s[1] == size:
        ways.append(("Flat rows?", f"{X}.reshape{(-1, *expected)}", (s[0], *expected)))
    if s == (size,):
        ways.append(("One flat sample?", f"{X}.reshape{(1, *expected)}", (1, *expected)))
    for question, expression, result in ways:
        if tuple(result[1:]) == tuple(expected):
            return f" {question} {expression}."
    return ""


def _expected(shape: Shape) -> str:
    return f"expected ({', '.join(map(str, ('n', *shape)))})"


def _array(given: Any) -> str:
    return "numpy.asarray(X)" if isinstance(given, list | tuple) else "X"


def _moved(given: Any, to: int = 1) -> str:
    library = "torch" if isinstance(given, Tensor) else "numpy"
    return f"{library}.moveaxis(X, -1, {to})"
