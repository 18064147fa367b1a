"""Values of points as they come, in constant memory: what scores of a stream are smoothed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from deepod._scoring.series import CHUNK_WINDOWS

Arrays = dict[str, np.ndarray]
Values = Callable[[np.ndarray], np.ndarray]  # of points (n, channels), one each: (n,), float64

_POINTS_AT_ONCE = 1024
_VALUES_AT_ONCE = 1 << 20


class Running(Protocol):
    """What has been kept of the points so far, and makes values of those that come.

    Attributes
    ----------
    at_once : int
        Points of a block, at most: a longer one is to be cut, for the sake of memory.
    """

    at_once: int

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the values of the next scaled points, (n, channels); NaN where there is none."""

    def state(self) -> Arrays:
        """Return everything that the next values depend on."""

    def load(self, state: Mapping[str, np.ndarray], seen: int) -> None:
        """Take on the state of another one after ``seen`` points.

        Raises
        ------
        ValueError
            If it cannot be one; then nothing has changed.
        """


class Cell(Protocol):
    """A recurrent network, point by point, for one pass or several: the lanes."""

    def begin(self) -> Arrays:
        """Return the state before the first point, of one lane: the first axis of each array."""

    def values(self, state: Arrays, x: np.ndarray) -> np.ndarray:
        """Pass over points, (n, channels); return the values of the first lane, (n,)."""


class Buffered:
    """Values that depend on the last points alone, which are kept.

    Parameters
    ----------
    values : callable
        Gives those of points (n, channels), but for the first ``before``.
    before : int
        Points before a point that its value depends on.
    channels : int
    """

    def __init__(self, values: Values, before: int, channels: int) -> None:
        self._values, self.before = values, before
        self.at_once = max(1, min(_POINTS_AT_ONCE, _VALUES_AT_ONCE // (before * channels)))
        self.points = np.empty((0, channels), np.float32)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        points = np.concatenate([self.points, x])
        values = np.full(len(x), np.nan)
        if len(points) > self.before:
            values[self.before - len(points) :] = self._values(points)
        self.points = points[-self.before :].copy()
        return values

    def state(self) -> Arrays:
        return {"points": self.points}

    def load(self, state: Mapping[str, np.ndarray], seen: int) -> None:
        shape = (min(seen, self.before), self.points.shape[1])
        self.points = checked(state, {"points": np.empty(shape, np.float32)})["points"]


class Repeated:
    """Values of a pass that begins anew, as in scoring: made again from the points of the chunk.

    Slow, for all passes that are not known point by point: each block takes a pass over up to
    ``5 * window`` points.

    Parameters
    ----------
    values : callable
        Gives those of the points of a chunk, (n, channels).
    window, channels : int
    """

    at_once = _POINTS_AT_ONCE

    def __init__(self, values: Values, window: int, channels: int) -> None:
        self._values, self.window, self.size = values, window, CHUNK_WINDOWS * window
        self.seen = 0
        self.points = np.empty((0, channels), np.float32)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        parts = []
        while len(x):
            n = min(len(x), self.window + self.size - len(self.points))  # to the end of the chunk
            points = np.concatenate([self.points, x[:n]])
            values = np.asarray(self._values(points), np.float64)[-n:]
            parts.append(np.where(self.seen + np.arange(n) < self.window, np.nan, values))
            over = len(points) == self.window + self.size
            self.points = points[self.size :].copy() if over else points
            self.seen += n
            x = x[n:]
        return np.concatenate(parts)

    def state(self) -> Arrays:
        return {"points": self.points}

    def load(self, state: Mapping[str, np.ndarray], seen: int) -> None:
        begin = max(0, seen - self.window) // self.size * self.size
        shape = (seen - begin, self.points.shape[1])
        self.points = checked(state, {"points": np.empty(shape, np.float32)})["points"]
        self.seen = seen


class Restarted:
    """Values of a recurrent network that begins anew, as in scoring: :func:`passed_over`.

    A second lane starts ``window`` points before the first one ends, and takes over from it.

    Parameters
    ----------
    cell : Cell
    window : int
    """

    at_once = _POINTS_AT_ONCE

    def __init__(self, cell: Cell, window: int) -> None:
        self.cell, self.window, self.size = cell, window, CHUNK_WINDOWS * window
        self.seen = 0
        self.lanes = cell.begin()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        values = np.full(len(x), np.nan)
        done = 0
        while done < len(x):
            # Where the next lane starts, or takes over.
            to_start = -self.seen % self.size or self.size
            to_end = (self.window - self.seen) % self.size or self.size
            part = x[done : done + min(to_start, to_end)]
            found = self.cell.values(self.lanes, part)
            unknown = min(len(part), max(0, self.window - self.seen))
            values[done + unknown : done + len(part)] = found[unknown:]
            self.seen += len(part)
            done += len(part)
            if self.seen % self.size == 0:
                new = self.cell.begin()
                self.lanes = {k: np.concatenate([v, new[k]]) for k, v in self.lanes.items()}
            elif self.seen > self.size and (self.seen - self.window) % self.size == 0:
                self.lanes = {k: v[1:].copy() for k, v in self.lanes.items()}
        return values

    def state(self) -> Arrays:
        return self.lanes

    def load(self, state: Mapping[str, np.ndarray], seen: int) -> None:
        two = seen >= self.size and seen % self.size < self.window
        blank = {k: np.concatenate([v] * (1 + two)) for k, v in self.cell.begin().items()}
        self.lanes, self.seen = checked(state, blank), seen


def checked(state: Mapping[str, np.ndarray], blank: Mapping[str, np.ndarray]) -> Arrays:
    """Return copies of the arrays of ``blank``; refuse others, and other shapes and types."""
    found: dict[str, Any] = {}
    for name, like in blank.items():
        value = state.get(name)
        if value is None or value.shape != like.shape or value.dtype != like.dtype:
            raise ValueError(f"{name} is missing, or of another shape or type than it must be")
        found[name] = value.copy()
    return found
