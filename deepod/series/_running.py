"""Points as they come, in constant memory: to values, which are smoothed, and to scores.

Values are what detectors smooth over time: terms of the score, one for each channel or one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from deepod._inputs.scaling import LARGEST, Scaler
from deepod._scoring.apply import finite
from deepod._scoring.points import CHUNK_WINDOWS

Arrays = dict[str, np.ndarray]
Values = Callable[[np.ndarray], np.ndarray]

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
        """Return the values of the next scaled points: (n - m, k), if the first m have none."""

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
        """Pass over points, (n, channels); return the values of the first lane, (n, k)."""


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
        self.points = points[-self.before :].copy()
        if len(points) <= self.before:
            return x[:0]
        return self._values(points)

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
            unknown = min(n, max(0, self.window - self.seen))
            if unknown < n:
                parts.append(self._values(points)[len(points) - n + unknown :])
            over = len(points) == self.window + self.size
            self.points = points[self.size :].copy() if over else points
            self.seen += n
            x = x[n:]
        return np.concatenate(parts) if parts else x

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
        parts = []
        while len(x):
            # Where the next lane starts, or takes over.
            to_start = -self.seen % self.size or self.size
            to_end = (self.window - self.seen) % self.size or self.size
            part = x[: min(to_start, to_end)]
            x = x[len(part) :]
            unknown = min(len(part), max(0, self.window - self.seen))
            parts.append(self.cell.values(self.lanes, part)[unknown:])
            self.seen += len(part)
            if self.seen % self.size == 0:
                new = self.cell.begin()
                self.lanes = {k: np.concatenate([v, new[k]]) for k, v in self.lanes.items()}
            elif self.seen > self.size and (self.seen - self.window) % self.size == 0:
                self.lanes = {k: v[1:].copy() for k, v in self.lanes.items()}
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def state(self) -> Arrays:
        return self.lanes

    def load(self, state: Mapping[str, np.ndarray], seen: int) -> None:
        two = seen >= self.size and seen % self.size < self.window
        blank = {k: np.concatenate([v] * (1 + two)) for k, v in self.cell.begin().items()}
        self.lanes, self.seen = checked(state, blank), seen


# --- scores ---------------------------------------------------------------------------------------


class Scorer(Protocol):
    """What makes scores of points that come; see :class:`Running`, which it is for raw points."""

    at_once: int

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return the scores of the next points, (n, channels); NaN where there is none."""

    def state(self) -> Arrays:
        """Return everything that the next scores depend on."""

    def load(self, state: Mapping[str, np.ndarray], seen: int) -> None:
        """Take on the state of another one after ``seen`` points."""


class Smoothed:
    """Scores by the mean of the last values.

    Parameters
    ----------
    running : Running
    scaler : Scaler
    weights : ndarray of shape (length,)
        Of the last values, the newest first.
    finish : callable
        Makes scores, (n,), of smoothed values, which it may change.
    """

    def __init__(
        self, running: Running, scaler: Scaler, weights: np.ndarray, finish: Values
    ) -> None:
        self.running, self.finish, self.at_once = running, finish, running.at_once
        self.shift, self.scale, self.fill = scaler.shift, scaler.scale, scaler.fill
        self.length, self.counts = len(weights), weights.cumsum()
        self.weights = np.tile(weights[::-1], 2)  # a slice has those of a ring, wherever it begins
        # The last values, each at its number modulo the length; zeros before the first one.
        self.ring, self.known = np.zeros((self.length, 0)), 0

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        values = self.running(self._scaled(rows))
        if not len(values):
            return np.full(len(rows), np.nan)
        if not self.known:
            self.ring = np.zeros((self.length, values.shape[1]))
        smooth = self._newest(values) if len(values) == 1 else self._many(values)
        scores = finite(self.finish(smooth))
        unknown = len(rows) - len(values)
        return np.concatenate([np.full(unknown, np.nan), scores]) if unknown else scores

    def _scaled(self, rows: np.ndarray) -> np.ndarray:
        """Scale as ``scaler.transform`` does, which takes longer to begin."""
        if self.fill is not None:
            rows = np.where(np.isnan(rows), self.fill, rows)
        scaled = rows - self.shift
        scaled /= self.scale
        np.maximum(scaled, -LARGEST, out=scaled)
        np.minimum(scaled, LARGEST, out=scaled)
        return scaled.astype(np.float32)

    def _newest(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of the last values, this one included: few calls, as each takes time."""
        place = self.known % self.length
        self.ring[place] = values[0]
        self.known += 1
        weights = self.weights[self.length - 1 - place : 2 * self.length - 1 - place]
        mean: np.ndarray = weights @ self.ring
        mean /= self.counts[min(self.known, self.length) - 1]
        return mean[None]

    def _many(self, values: np.ndarray) -> np.ndarray:
        """Return what :meth:`_newest` would, of each."""
        length, n = self.length, len(values)
        last = np.roll(self.ring, -(self.known % length), axis=0)  # in the order of time
        padded = np.concatenate([last[1:], values])
        views = np.lib.stride_tricks.sliding_window_view(padded, length, axis=0)
        numbers = self.known + np.arange(n)
        self.known += n
        self.ring = np.roll(padded[n - 1 :], self.known % length, axis=0)
        counts = self.counts[np.minimum(numbers, length - 1)]
        return views @ self.weights[:length] / counts[:, None]

    def state(self) -> Arrays:
        return {"ring": self.ring, "known": np.array(self.known)} | self.running.state()

    def load(self, state: Mapping[str, np.ndarray], seen: int) -> None:
        k = np.shape(state.get("ring", self.ring))[-1:]
        blank = {"ring": np.zeros((self.length, *k)), "known": np.array(0)}
        own = checked(state, blank)
        self.running.load(state, seen)
        self.ring, self.known = own["ring"], int(own["known"])


class Joined:
    """Scores of several scorers, as one.

    Parameters
    ----------
    scorers : sequence of Scorer
    join : callable
        Makes the scores of some points of those of each scorer.
    """

    def __init__(
        self, scorers: Sequence[Scorer], join: Callable[[Sequence[np.ndarray]], np.ndarray]
    ) -> None:
        self.scorers, self.join = scorers, join
        self.at_once = min(scorer.at_once for scorer in scorers)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return self.join([scorer(rows) for scorer in self.scorers])

    def state(self) -> Arrays:
        parts = enumerate(scorer.state().items() for scorer in self.scorers)
        return {f"{i}.{name}": value for i, part in parts for name, value in part}

    def load(self, state: Mapping[str, np.ndarray], seen: int) -> None:
        for i, scorer in enumerate(self.scorers):
            own = {k.removeprefix(f"{i}."): v for k, v in state.items() if k.startswith(f"{i}.")}
            scorer.load(own, seen)


def check_looks_back(detector: Any) -> None:
    """Refuse a detector whose scores depend on points that come later."""
    smoothing = detector.smoothing
    if smoothing == "centred" or (smoothing is None and detector.windowed):
        raise ValueError(
            f"a stream knows no points that are still to come, and {type(detector).__name__}("
            f"smoothing={smoothing!r}) looks at them: fit with smoothing='causal'."
        )


def checked(state: Mapping[str, np.ndarray], blank: Mapping[str, np.ndarray]) -> Arrays:
    """Return copies of the arrays of ``blank``; refuse others, and other shapes and types."""
    found: dict[str, Any] = {}
    for name, like in blank.items():
        value = state.get(name)
        if value is None or value.shape != like.shape or value.dtype != like.dtype:
            raise ValueError(f"{name} is missing, or of another shape or type than it must be")
        found[name] = value.copy()
    return found
