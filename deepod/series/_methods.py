"""Methods of all detectors of time series, and of what holds such: points in, scores out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import nn

from deepod import metrics
from deepod._inputs.series import Series, as_series
from deepod._inputs.settings import fixed
from deepod._inputs.validation import validate_rows
from deepod._scoring.as_module import as_module
from deepod._scoring.points import (
    CHUNK_WINDOWS,
    Span,
    as_new,
    averaged_over,
    kernel,
    smoothed,
    spans_of,
)
from deepod._scoring.threshold import of_events
from deepod._scoring.vocabulary import Metric
from deepod._storage.saved import Saved
from deepod.series._running import Running, Scorer, Smoothed, Values, check_looks_back
from deepod.series.stream import Stream


class SeriesMethods(Saved):
    """Methods of detectors of series, which take and give back the forms that series have.

    A class that has it defines ``_scores(series, context, batch_size)``: a score for each point of
    a :class:`deepod._inputs.series.Series`.
    """

    n_features_in_: int
    unseen_: bool
    window_: int
    smoothing: Literal["centred", "causal"] | None
    smoothing_length: int
    _point_scores: np.ndarray
    _unseen_scores: np.ndarray
    # Whether scores are those of windows, and not of a pass over the series.
    windowed: ClassVar[bool] = True

    @property
    def warm_up_(self) -> int:
        """The number of first points, without context, that have no score of their own."""
        raise NotImplementedError

    def _reach(self) -> int:
        """Points before a point that its score can depend on."""
        size = CHUNK_WINDOWS * self.window_
        needed = self.window_ + size + len(kernel(self.smoothing_length))
        # Whole chunks: blocks of such then have scores of the same chunks as the whole series.
        return -(-needed // size) * size

    def _over_time(
        self,
        values: Callable[[Sequence[Span]], np.ndarray],
        spans: Sequence[Span],
        apart: bool = False,
    ) -> np.ndarray:
        """Smooth the ``values`` of points, those that lead up to them included.

        With ``apart``, what leads up to them has been learned from, and is no part of the means:
        nor of windows, where there are enough points without.
        """
        if apart:
            least = 2 * self.window_ if self.windowed else 1 << 62
            spans = [Span(max(a, min(b, c - least)), b, c) for a, b, c in spans]
            return smoothed(values(spans), spans, self.smoothing, self.smoothing_length)
        wide = [Span(span.begin, span.begin, span.stop) for span in spans]
        found = smoothed(values(wide), wide, self.smoothing, self.smoothing_length)
        if wide == list(spans):
            return found
        ends = np.cumsum([span.stop - span.begin for span in spans])
        parts = zip(ends.tolist(), spans, strict=True)
        return np.concatenate([found[end - stop + start : end] for end, (_, start, stop) in parts])

    def _scores(self, series: Series, context: Any, batch_size: int | None) -> np.ndarray:
        raise NotImplementedError

    def _remember_points(
        self, scores: np.ndarray, lengths: Sequence[int], unseen: np.ndarray | None
    ) -> None:
        """Keep the scores of all training points, and those that the threshold follows.

        Points that were trained on may score lower than others. ``unseen`` are the scores of those
        that were not, as if they came after the others, and NaN for the others; None if all were.
        """
        if not np.isfinite(scores).all():
            raise FloatingPointError(
                "Points of the training series got scores that are NaN or infinite. Lower lr, or "
                "set scaler='standard' if the channels of X differ much in size."
            )
        self._point_scores = scores
        self.unseen_ = unseen is not None
        if unseen is not None:
            self._unseen_scores = unseen
            parts = [unseen[span.start : span.stop] for span in spans_of(lengths)]
            scores = self._as_new([part[~np.isnan(part)] for part in parts])
        self._remember_scores(scores)  # type: ignore[attr-defined]

    def _as_new(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Return what new normal points are likely to score, from the scores of stretches."""
        return as_new([part for part in parts if len(part)], self._averaged_over())

    def _averaged_over(self) -> float:
        """Return of how many points, about, a score is the mean."""
        return averaged_over(self.smoothing, self.smoothing_length)

    @property
    def decision_scores_(self) -> np.ndarray:
        """The scores of the points of the training series, one series after the other."""
        check_is_fitted(self)
        return self._point_scores

    @property
    def labels_(self) -> np.ndarray:
        """The labels of the points of the training series, one series after the other."""
        return self._labels(self.decision_scores_)  # type: ignore[attr-defined]

    def _with_context(self, series: Series, context: Any) -> tuple[np.ndarray, list[Span]]:
        """Validate points, and put the last points of its context before each series."""
        rows = validate_rows(self, series.rows, reset=False)
        spans = spans_of(series.lengths)
        if context is not None:
            before = self._series(context, "context")
            if len(before.lengths) != len(series.lengths):
                raise ValueError(
                    f"context holds {len(before.lengths)} series, and X {len(series.lengths)}."
                )
            given = validate_rows(self, before.rows, reset=False)
            parts, joined, at = [], [], 0
            for own, earlier in zip(spans, spans_of(before.lengths), strict=True):
                past_rows = given[earlier.start : earlier.stop][-self._reach() :]
                parts += [past_rows, rows[own.start : own.stop]]
                start = at + len(past_rows)
                stop = start + own.stop - own.start
                joined.append(Span(at, start, stop))
                at = stop
            rows, spans = np.concatenate(parts), joined
        least = max(self.warm_up_ + 1, self.window_)
        for number, (begin, start, stop) in enumerate(spans):
            if stop - begin < least:
                which = "X" if len(spans) == 1 else f"series {number} of X"
                past = "" if context is None else f" and {start - begin} of context"
                count = f"{stop - start} point{'s' * (stop - start != 1)}"
                raise ValueError(
                    f"{which} has {count}{past}, and {type(self).__name__} with "
                    f"window={self.window_} needs {least}: give more of the points before it as "
                    "context=."
                )
        return rows, spans

    @staticmethod
    def _like(X: Any, series: Series, values: np.ndarray) -> Any:
        """Give values of points and channels, (n_points, channels), the shape of X."""
        if series.form == "list" and not isinstance(X, Series):
            parts = zip(X, series.shaped(values), strict=True)
            return [own[:, 0] if np.ndim(x) == 1 else own for x, own in parts]
        found = series.shaped(values)
        return found[:, 0] if np.ndim(X) == 1 and series.form == "series" else found

    def _series(self, X: Any, name: str = "X") -> Series:
        check_is_fitted(self)
        return as_series(X, name=name, channels=self.n_features_in_)

    @fixed()
    def decision_function(
        self, X: Any, batch_size: int | None = None, *, context: Any = None
    ) -> Any:
        """Return anomaly scores, one for each point in time; higher = more anomalous.

        Parameters
        ----------
        X : array-like of shape (T,), (T, channels) or (n, T, channels), or a list of series
            A series, episodes of equal length, or several series. A DataFrame may have a time
            index, which must be in order.
        batch_size : int, optional
            Chunks or windows to score at once, for when memory is short.
        context : array-like, optional
            The points before X, of which the last ones are used: then the first points of X have a
            past. A list, if X is one.

        Returns
        -------
        scores : ndarray of shape (T,) or (n, T), or a list of arrays, float64
            In the order of the points: none is shifted. Points without enough points before them
            (see ``warm_up_``) get the score of the first point that has.

        Raises
        ------
        ValueError
            If X or ``context`` is not such, or X is too short and ``context`` does not help.
        """
        check_is_fitted(self)
        series = self._series(X)
        scores = self._scores(series, context, batch_size)
        return scores if X is series else series.shaped(scores)

    def predict(self, X: Any, return_confidence: bool = False) -> Any:
        """Label points: 0 (normal) or 1 (anomaly).

        Parameters
        ----------
        X : array-like or list of series
            As in :meth:`decision_function`.
        return_confidence : bool, default=False
            Whether to return :meth:`predict_confidence` too.

        Returns
        -------
        labels : ndarray of shape (T,) or (n, T), or a list of arrays, int
        confidence : like labels
            Only if ``return_confidence``.
        """
        check_is_fitted(self)
        series = self._series(X)
        found = super().predict(series, return_confidence)  # type: ignore[misc]
        if return_confidence:
            return series.shaped(found[0]), series.shaped(found[1])
        return series.shaped(found)

    def predict_proba(self, X: Any, method: Any = "linear", return_confidence: bool = False) -> Any:
        """Return the probabilities of being normal and of being an anomaly, for each point.

        Parameters
        ----------
        X : array-like or list of series
            As in :meth:`decision_function`.
        method : {"linear", "unify", "conformal"}, default="linear"
            As for rows. Points of a series depend on each other, so that "conformal" promises less.
        return_confidence : bool, default=False
            Whether to return :meth:`predict_confidence` too.

        Returns
        -------
        probabilities : ndarray of shape (T, 2) or (n, T, 2), or a list of arrays
        confidence : ndarray of shape (T,) or (n, T), or a list of arrays
            Only if ``return_confidence``.
        """
        series = self._series(X)
        found = super().predict_proba(series, method, return_confidence)  # type: ignore[misc]
        if return_confidence:
            return series.shaped(found[0]), series.shaped(found[1])
        return series.shaped(found)

    def p_values(self, X: Any) -> Any:
        """Return how rarely a held-out normal point scores as high as each point of X.

        The p-values of :meth:`deepod.BaseDetector.p_values`, of the points that
        ``validation_fraction`` or ``calibration_fraction`` held out, or that ``calibrate`` was
        given. Neighbouring points score alike, so that n of them tell as much as fewer independent
        ones: scores above the median are moved up accordingly before they are compared.

        Parameters
        ----------
        X : array-like or list of series
            As in :meth:`decision_function`.

        Returns
        -------
        p : ndarray of shape (T,) or (n, T), or a list of arrays, float64
        """
        series = self._series(X)
        return series.shaped(super().p_values(series))  # type: ignore[misc]

    def calibrate(self, X: Any) -> Self:
        """Take the points of these series for calibration, in place of any others.

        :meth:`p_values` and ``false_alarm_rate`` follow them; ``contamination`` does not. Recent
        normal points are what to give where a series has drifted since training.

        Parameters
        ----------
        X : array-like or list of series
            Normal series that were not trained on.

        Returns
        -------
        self : object
        """
        series = self._series(X)
        scores = self.decision_function(series)
        parts = [scores[span.start : span.stop] for span in spans_of(series.lengths)]
        return self._calibrate(self._as_new(parts))  # type: ignore[attr-defined]

    def predict_confidence(self, X: Any) -> Any:
        """Return how surely each label would be the same had other points been trained on.

        Parameters
        ----------
        X : array-like or list of series
            As in :meth:`decision_function`.

        Returns
        -------
        confidence : ndarray of shape (T,) or (n, T), or a list of arrays
        """
        series = self._series(X)
        return series.shaped(super().predict_confidence(series))  # type: ignore[misc]

    def predict_with_rejection(self, X: Any, *args: Any, **kwargs: Any) -> Any:
        """Label points, with -2 for those of too little confidence; see the class of rows.

        Parameters
        ----------
        X : array-like or list of series
            As in :meth:`decision_function`.
        *args, **kwargs
            As in :meth:`deepod.BaseDetector.predict_with_rejection`.

        Returns
        -------
        labels : ndarray of shape (T,) or (n, T), or a list of arrays, int
        stats : list of three floats
            Only if ``return_stats``.
        """
        series = self._series(X)
        found = super().predict_with_rejection(series, *args, **kwargs)  # type: ignore[misc]
        if isinstance(found, tuple):
            return series.shaped(found[0]), found[1]
        return series.shaped(found)

    def fit_predict(self, X: Any, y: Any = None) -> Any:
        """Fit, and return the labels of the points of X.

        Parameters
        ----------
        X, y : array-like
            As in ``fit``.

        Returns
        -------
        labels : ndarray of shape (T,) or (n, T), or a list of arrays, int
        """
        return as_series(X).shaped(self.fit(X, y).labels_)  # type: ignore[attr-defined]

    def fit_predict_score(self, X: Any, y: Any, scoring: Metric = "roc_auc_score") -> float:
        """Fit on X and compare the scores of its points with y, which is not trained on.

        Parameters
        ----------
        X : array-like or list of series
            As in ``fit``.
        y : array-like of shape (T,) or (n, T), or a list of arrays
            One label for each point.
        scoring : {"roc_auc_score", "prc_n_score"}, default="roc_auc_score"

        Returns
        -------
        score : float
        """
        several = isinstance(y, list | tuple) and len(y)
        points = np.concatenate([np.ravel(part) for part in y]) if several else np.ravel(y)
        return super().fit_predict_score(X, points, scoring)  # type: ignore[misc]

    @fixed()
    def explain(
        self, X: Any, batch_size: int | None = None, rule: str = "auto", *, context: Any = None
    ) -> Any:
        """Find what each channel adds to the score of each point.

        Parameters
        ----------
        X : array-like or list of series
            As in :meth:`decision_function`.
        batch_size : int, optional
            As in :meth:`decision_function`.
        rule : {"auto"}, default="auto"
            Other detectors have other rules.
        context : array-like, optional
            As in :meth:`decision_function`.

        Returns
        -------
        contributions : ndarray shaped like X, or a list of such, float64
            They sum up to the score over the channels, but for :class:`Windows` around a detector
            whose scores are no sums over the values of a row.

        Raises
        ------
        TypeError
            If a detector that is none of deepod's has to explain scores.
        """
        check_is_fitted(self)
        if rule != "auto":
            raise ValueError(f"rule must be 'auto' for series, got {rule!r}.")
        series = self._series(X)
        return self._like(X, series, self._explained(series, context, batch_size))

    def _explained(self, series: Series, context: Any, batch_size: int | None) -> np.ndarray:
        """Give what each channel adds to the scores of points, (n_points, channels)."""
        raise NotImplementedError

    def as_module(self) -> nn.Module:
        """Raise an error, because a point has no score without the points around it.

        Raises
        ------
        TypeError
            Always.
        """
        return as_module(self)

    @fixed()
    def events(self, X: Any, gap: int = 0, *, context: Any = None) -> Any:
        """Return the stretches of a series that are flagged.

        Parameters
        ----------
        X : array-like or list of series
            As in :meth:`decision_function`.
        gap : int, default=0
            Stretches with at most so many points between them are one.
        context : array-like, optional
            As in :meth:`decision_function`.

        Returns
        -------
        events : ndarray of shape (n_events, 2), or a list of them for several series
            First point of each, and the one after its last: ``X[start:stop]`` is flagged. They are
            longer than what caused them, by the smoothing, and by ``window`` points of forecasts
            that were misled.

        Examples
        --------
        >>> import numpy as np
        >>> from deepod.series import RidgeAR
        >>> x = np.sin(np.arange(2000) / 5) + np.random.default_rng(0).normal(0, 0.1, 2000)
        >>> x[1700:1710] = 3.0
        >>> detector = RidgeAR(smoothing_length=5).fit(x[:1500])
        >>> detector.set_threshold(3.0).events(x[1500:], gap=10)  # 3 times what is usual
        array([[193, 258]])
        """
        check_is_fitted(self)
        series = self._series(X)
        labels = self._labels(self._scores(series, context, None))  # type: ignore[attr-defined]
        found = [
            _merged(metrics.events(labels[span.start : span.stop]), gap)
            for span in spans_of(series.lengths)
        ]
        return found[0] if series.form == "series" else found

    def set_event_rate(self, rate: float) -> Self:
        """Set the threshold so that normal series have few flagged stretches.

        What a person is woken by is a stretch, not a point: ``contamination`` and
        ``false_alarm_rate`` count points.

        Parameters
        ----------
        rate : float
            Stretches in 1000 points, at most, of the points that were held out (of all training
            points, if none were): 0 allows none.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If ``rate`` is no number from 0 on.
        """
        check_is_fitted(self)
        if not (isinstance(rate, Real) and rate >= 0):
            raise ValueError(f"rate must be a number from 0 on, got {rate!r}.")
        scores = self._training_scores
        most = float(rate) * len(scores) / 1000
        return self.set_threshold(of_events(scores, most))

    def stream(self, context: Any = None) -> Stream:
        """Return what scores points one after the other, as they come, in constant memory.

        Parameters
        ----------
        context : array-like of shape (n,) or (n, channels), optional
            The points before the first one, as in :meth:`decision_function`.

        Returns
        -------
        stream : Stream
            ``stream.push(x)`` gives the score of a point: see
            :class:`deepod.series.stream.Stream`.

        Raises
        ------
        ValueError
            If ``smoothing`` looks at points that are still to come.
        """
        check_is_fitted(self)
        return Stream(self, context)

    def _scorer(self) -> Scorer:
        """Return what makes scores of points as they come."""
        check_looks_back(self)
        smoothing = self.smoothing_length if self.smoothing == "causal" else 1
        running, finish = self._running()
        return Smoothed(running, self.scaler_, kernel(smoothing), finish)  # type: ignore[attr-defined]

    def _running(self) -> tuple[Running, Values]:
        """Return what makes values of points as they come, and scores of smoothed values."""
        raise NotImplementedError

    def score_batches(self, batches: Iterable[Any]) -> Iterator[np.ndarray]:
        """Score blocks of one series that follow on one another as they come.

        Parameters
        ----------
        batches : iterable of array-like of shape (T,) or (T, channels)
            Each is scored with the last points of those before as ``context``.

        Yields
        ------
        scores : ndarray of shape (T,), float64
            Of one block.
        """
        check_is_fitted(self)
        past = None
        for X in batches:
            series = self._series(X)
            yield self.decision_function(X, context=past)
            past = series.after(past, self._reach())


def _merged(events: np.ndarray, gap: int) -> np.ndarray:
    """Make events with at most ``gap`` points between them one."""
    if not len(events):
        return events
    apart = events[1:, 0] - events[:-1, 1] > gap
    first, last = np.concatenate([[True], apart]), np.concatenate([apart, [True]])
    return np.column_stack([events[first, 0], events[last, 1]])
