"""Scores of a series point by point, as the points come."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Self

import numpy as np

from deepod._inputs.scaling import LARGEST
from deepod._inputs.series import as_series
from deepod._inputs.validation import check_finite, column_names, validate_rows
from deepod._scoring.apply import LARGEST_SCORE, finite
from deepod._storage import atomic, tensors
from deepod._storage.tensors import InvalidFileError
from deepod.series._running import Arrays, checked

_FORMAT = 1


class Stream:
    """Scores points one after the other, in constant memory; see ``detector.stream()``.

    The scores are those that ``decision_function`` gives the whole series, rounding aside, with
    one difference: points without enough points before them, for which it takes the first score
    that there is, have NaN here, because that score is not known yet. NaN is above no threshold.

    Parameters
    ----------
    detector : detector
        A fitted one of :mod:`deepod.series`, with ``smoothing="causal"``. What happens to it
        afterwards makes no difference to the stream.
    context : array-like, optional
        The points before the first one, as in ``decision_function``.

    Attributes
    ----------
    threshold : float
        Scores above it are labelled 1: the detector's ``threshold_`` when the stream began.
    n_points : int
        How many points there were, those of ``context`` included.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.series import RidgeAR
    >>> x = np.sin(np.arange(2000) / 5)
    >>> stream = RidgeAR(smoothing="causal").fit(x[:1500]).stream(context=x[1400:1500])
    >>> bool(stream.push(x[1500]) > stream.threshold)
    False
    >>> stream.push_many(x[1501:]).shape
    (499,)
    """

    def __init__(self, detector: Any, context: Any = None) -> None:
        smoothing, name = detector.smoothing, type(detector).__name__
        if smoothing == "centred" or (smoothing is None and detector.windowed):
            raise ValueError(
                f"a stream knows no points that are still to come, and {name}(smoothing="
                f"{smoothing!r}) looks at them: fit with smoothing='causal'."
            )
        # As it is now: a later fit replaces what the detector holds, and leaves this alone.
        self._detector = object.__new__(type(detector))
        self._detector.__dict__ = dict(detector.__dict__)
        scaler = detector.scaler_
        self._shift, self._scale, self._fill = scaler.shift, scaler.scale, scaler.fill
        self.threshold = float(detector.threshold_)
        self.n_points, self._channels = 0, int(detector.n_features_in_)
        self._running = self._detector._running()
        length = detector.smoothing_length if smoothing == "causal" else 1
        # The last values, each at its number modulo the length; zeros before the first one.
        self._recent, self._n_known = np.zeros(length), 0
        if context is not None:
            self.push_many(self._block(context, "context")[-detector._reach() :])

    # --- scores ---------------------------------------------------------------------------------

    def push(self, x: Any) -> float:
        """Take the next point, and return its score.

        Parameters
        ----------
        x : float or array-like of shape (channels,)
            The channels in the order of training. After a fit with ``missing="impute"``, NaN
            stands for a value that is missing.

        Returns
        -------
        score : float
            NaN for the first ``detector.warm_up_`` points.

        Raises
        ------
        ValueError
            If x is no such point. The stream is then as it was before.
        """
        point = np.asarray(x, dtype=np.float64).reshape(1, -1)
        channels = self._channels
        if point.shape[1] != channels or np.ndim(x) > 1:
            given = f"an array of shape {np.shape(x)}" if np.ndim(x) else "a single number"
            raise ValueError(f"x is {given}; expected a point of {channels} channels.")
        if not np.isfinite(point).all():
            check_finite(point, column_names(self._detector, point), allow_nan=self._fill is not None)
        return float(self._score(point)[0])

    def push_many(self, block: Any) -> np.ndarray:
        """Take the next points, and return their scores: as :meth:`push` would, but faster.

        Parameters
        ----------
        block : array-like of shape (n,) or (n, channels)

        Returns
        -------
        scores : ndarray of shape (n,), float64

        Raises
        ------
        ValueError
            If a point is none. The stream is then as it was before.
        """
        rows = self._block(block, "block")
        step = self._running.at_once
        parts = [self._score(rows[i : i + step]) for i in range(0, len(rows), step)]
        return np.concatenate([np.empty(0), *parts])

    def _block(self, block: Any, name: str) -> np.ndarray:
        detector = self._detector
        if not len(block):
            return np.empty((0, detector.n_features_in_))
        series = as_series(block, name=name, channels=detector.n_features_in_)
        if series.form != "series":
            raise ValueError(f"{name} holds several series; a stream is one.")
        rows: np.ndarray = validate_rows(detector, series.rows, reset=False)
        return rows

    def _score(self, rows: np.ndarray) -> np.ndarray:
        values = self._running(self._scaled(rows))
        self.n_points += len(rows)
        scores = np.full(len(rows), np.nan)
        if len(rows) == 1:  # a push: few calls, because each takes a microsecond
            if values[0] == values[0]:  # it is no NaN
                scores[0] = min(self._smoothed(values[0]), LARGEST_SCORE)
            return scores
        known = ~np.isnan(values)
        if known.any():
            scores[known] = finite(self._all_smoothed(values[known]))
        return scores

    def _smoothed(self, value: float) -> float:
        """Return the mean of the last values, this one included."""
        length = len(self._recent)
        self._recent[self._n_known % length] = value
        self._n_known += 1
        return float(self._recent.sum()) / min(self._n_known, length)

    def _all_smoothed(self, values: np.ndarray) -> np.ndarray:
        """Return what :meth:`_smoothed` would, of each."""
        length, n = len(self._recent), len(values)
        last = np.roll(self._recent, -(self._n_known % length))  # in the order of time
        padded = np.concatenate([last[1:], values])
        sums = np.lib.stride_tricks.sliding_window_view(padded, length).sum(1)
        counts = np.minimum(self._n_known + np.arange(1, n + 1), length)
        self._n_known += n
        self._recent = np.roll(padded[n - 1 :], self._n_known % length)
        return sums / counts

    def _scaled(self, rows: np.ndarray) -> np.ndarray:
        """Scale as ``scaler_.transform`` does, which takes longer to begin."""
        if self._fill is not None:
            rows = np.where(np.isnan(rows), self._fill, rows)
        scaled = (rows - self._shift) / self._scale
        return np.minimum(np.maximum(scaled, -LARGEST), LARGEST).astype(np.float32)

    # --- a state that outlives the process --------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state, for a stream of the same detector to go on from: see :meth:`load`.

        Parameters
        ----------
        path : str or path-like
            A file of safetensors, without pickle; an older one is replaced as a whole. It holds
            the last points in scaled units, not the detector: ``detector.save`` writes that.
        """
        description = {
            "library_name": "deepod",
            "stream": _FORMAT,
            "of": _identity(self._detector),
            "n_points": self.n_points,
        }
        path = Path(path)
        atomic.prepare(path)
        own = {"recent": self._recent, "n_known": np.array(self._n_known)}
        atomic.write({path: tensors.pack(description, own | self._running.state())})

    def load(self, path: str | os.PathLike[str]) -> Self:
        """Go on where a stream of the same fitted detector was when it was saved.

        Parameters
        ----------
        path : str or path-like

        Returns
        -------
        self : Stream

        Raises
        ------
        OSError
            If there is no such file.
        ValueError
            If it is no state of a stream of this detector. The stream is then as it was before.
        """
        description, found = tensors.read(Path(path))
        if description.get("stream") != _FORMAT:
            raise InvalidFileError(f"{path} is no state of a stream, or of a newer version.")
        if description.get("of") != _identity(self._detector):
            raise InvalidFileError(
                f"{path} is the state of a stream of another detector, or of one that was fitted "
                "again since; start a new stream."
            )
        state: Arrays = {name: tensor.numpy() for name, tensor in found.items()}
        seen = description.get("n_points")
        try:
            if type(seen) is not int or not 0 <= seen < 1 << 60:
                raise ValueError(f"n_points is {seen!r}")
            own = checked(state, {"recent": self._recent, "n_known": np.array(0)})
            self._running.load(state, seen)
        except ValueError as error:
            raise InvalidFileError(f"{path} is no state of a stream: {error}.") from error
        self._recent, self._n_known = own["recent"], int(own["n_known"])
        self.n_points = seen
        return self


def _identity(detector: Any) -> str:
    """Tell fitted detectors apart: by what they were trained on, and how they score that."""
    parameters = {k: v for k, v in vars(detector).items() if k.startswith(("window", "smoothing"))}
    found = hashlib.sha256(json.dumps([type(detector).__name__, parameters]).encode())
    scaler = detector.scaler_
    for values in (scaler.shift, scaler.scale, detector._point_scores):
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()
