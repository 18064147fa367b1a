"""Scores of a series point by point, as the points come."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Self

import numpy as np

from deepod._inputs.series import as_series
from deepod._inputs.settings import fixed
from deepod._inputs.validation import check_finite, column_names, validate_rows
from deepod._storage import atomic, tensors
from deepod._storage.tensors import InvalidFileError

_FORMAT = 1


class Stream:
    """Scorer of points that come one by one, in constant memory; see ``detector.stream()``.

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

    @fixed()
    def __init__(self, detector: Any, context: Any = None) -> None:
        # As it is now: a later fit replaces what the detector holds, and leaves this alone.
        self._detector = object.__new__(type(detector))
        self._detector.__dict__ = dict(detector.__dict__)
        self._scorer = self._detector._scorer()
        self._parts = getattr(detector, "members_", [self._detector])
        self._allow_nan = all(part.fill_ is not None for part in self._parts)
        self._channels = int(detector.n_features_in_)
        self.threshold = float(detector.threshold_)
        self.n_points = 0
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
            columns = column_names(self._parts[0], point)
            check_finite(point, columns, allow_nan=self._allow_nan)
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
        step = self._scorer.at_once
        parts = [self._score(rows[i : i + step]) for i in range(0, len(rows), step)]
        return np.concatenate([np.empty(0), *parts])

    def _block(self, block: Any, name: str) -> np.ndarray:
        if not len(block):
            return np.empty((0, self._channels))
        series = as_series(block, name=name, channels=self._channels)
        if series.form != "series":
            raise ValueError(f"{name} holds several series; a stream is one.")
        *_, rows = [validate_rows(part, series.rows, reset=False) for part in self._parts]
        return rows

    def _score(self, rows: np.ndarray) -> np.ndarray:
        scores = self._scorer(rows)
        self.n_points += len(rows)
        return scores

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
        atomic.write({path: tensors.pack(description, self._scorer.state())})

    @fixed()
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
        state = {name: tensor.numpy() for name, tensor in found.items()}
        seen, scorer = description.get("n_points"), self._detector._scorer()
        try:
            if type(seen) is not int or not 0 <= seen < 1 << 60:
                raise ValueError(f"n_points is {seen!r}")
            scorer.load(state, seen)
        except ValueError as error:
            raise InvalidFileError(f"{path} is no state of a stream: {error}.") from error
        self._scorer, self.n_points = scorer, seen
        return self


def _identity(detector: Any) -> str:
    """Tell fitted detectors apart: by what they were trained on, and how they score that."""
    found = hashlib.sha256()
    for part in getattr(detector, "members_", [detector]):
        settings = {k: v for k, v in vars(part).items() if k.startswith(("window", "smoothing"))}
        found.update(json.dumps([type(part).__name__, settings], default=str).encode())
        for values in (part.scaler_.shift, part.scaler_.scale, part._point_scores):
            found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()
