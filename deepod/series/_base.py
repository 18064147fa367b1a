"""What detectors of time series with a torch module have in common: scores made of errors."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from deepod._base import BaseDetector
from deepod._inputs.chunks import take
from deepod._inputs.series import Series
from deepod._inputs.settings import fixed
from deepod._reporting import reported
from deepod._scoring.apply import chunk_rows, finite, score
from deepod._scoring.points import Function, Span, covered, passed_over
from deepod._training.no_steps import NoSteps
from deepod._training.series_fit import SeriesFit, Smallest
from deepod._training.together import fit_all
from deepod.params import integer, one_of, param, parameters
from deepod.series._methods import SeriesMethods
from deepod.series._running import Buffered, Repeated, Running, Values
from deepod.types import Shape


@parameters
class SeriesDetector(SeriesMethods, BaseDetector):
    """Detector of time series: a torch module that finds an error for each value of each point.

    X is a series (T,) or (T, channels), rows in the order of time; episodes (n, T, channels); or a
    list of series, between which nothing is carried over. Scores have one value for each point.

    A method defines ``_build_module``, ``_loss`` (of chunks, (B, length, channels)) and
    ``_errors(module, x)``, which gives the errors at each point of chunks or windows. The last
    ``validation_fraction`` of each series is not trained on: it shows how large errors of normal
    points are. A point's score is the mean over channels of the root of the squared errors, each
    over its mean on those points and smoothed over time: about 1 for a normal point.

    Notes
    -----
    Of the parameters of other detectors, ``suspects``, ``cross_fitting``, ``network`` and
    ``input_shape`` have no meaning for series, and are refused if they are set. Series are held in
    memory.

    Attributes
    ----------
    warm_up_ : int
        First points of a series, without ``context``, that have no score of their own.
    """

    window: int | Literal["auto"] = param(
        default="auto",
        accepts=[integer(2), one_of("auto")],
        doc="Points of the past that a score depends on, at least. 'auto' is the class attribute "
        "``auto_window``, or a third of the shortest series if that is less.",
    )
    smoothing: Literal["centred", "causal"] | None = param(
        default="centred",
        accepts=[one_of("centred", "causal"), None],
        doc="Mean of the squared errors over the points around each point ('centred'), for series "
        "that are scored afterwards; or up to it ('causal'), so that a score depends on nothing "
        "that comes later: what a stream needs; or none. Exponential means: near points count "
        "more.",
    )
    smoothing_length: int = param(
        default=51,
        accepts=[integer(1)],
        doc="Points that errors are smoothed over: each point further away counts less by the "
        "factor 1 - 2 / (smoothing_length + 1), and nothing beyond twice as many points.",
    )
    error_scale: Literal["validation", "covariance"] | None = param(
        default="validation",
        accepts=[one_of("validation", "covariance"), None],
        doc="What errors are measured against: each channel's mean squared error on points that "
        "were not trained on ('validation'), the covariance of all errors there, by Mahalanobis' "
        "distance ('covariance'), or nothing.",
    )
    batch_size = 32
    validation_fraction = 0.2
    cross_fitting = False

    inputs = ("series",)
    _fit_kind = SeriesFit
    auto_steps = 300
    # What window="auto" stands for, on long series.
    auto_window: ClassVar[int] = 50
    windowed: ClassVar[bool] = False

    # --- What a method defines ------------------------------------------------------------------

    @abc.abstractmethod
    def _errors(self, module: nn.Module, x: Tensor) -> Tensor:
        """Errors at each point of chunks or windows, (B, length, k), as ``module.errors`` takes."""

    def _longest_window(self, shape: Shape) -> int:
        """Points that window="auto" stands for, on long series of such points."""
        return self.auto_window

    def _smallest_window(self) -> Smallest:
        """Return the fewest points that window="auto" may stand for."""
        return Smallest()

    def _needed_points(self, window: int) -> int:
        """Return how many points a series must have for such a window."""
        return window + 2

    def _possible_window(self, window: int) -> int:
        """Return the window to take, where the method does not take every one."""
        return window

    def _chunk_length(self) -> int:
        """Points of the chunks to train on, if the series are long enough."""
        return self.window_

    def _whole_episodes(self) -> bool:
        """Whether the method learns from whole episodes of one length, and not from parts."""
        return False

    def _solve(
        self,
        module: nn.Module,
        x: Tensor,
        spans: Sequence[tuple[int, int]],
        generator: torch.Generator,
    ) -> None:
        """Learn from the points of ``spans`` what is learned without steps, before any."""

    def _learn_labels(self, module: nn.Module, y: Tensor, spans: Sequence[tuple[int, int]]) -> None:
        """Learn from the labels of the points of ``spans``, under ``supervision``."""

    def _terms(self, module: Any, x: Tensor) -> Tensor:
        """Give what each value adds to the score of its point, (B, length, channels)."""
        return module.errors(self._errors(module, x))

    def _totals(self, module: Any, x: Tensor) -> Tensor:
        """Give fewer terms with the same sum, where those of each value take longer."""
        return self._terms(module, x)

    def _learn_errors(self, module: Any, x: Tensor, spans: Sequence[Span]) -> None:
        """Learn what errors are usual from normal points that were not trained on."""
        module.errors.learn(self._known_errors(module, x, spans))

    def _known_errors(self, module: Any, x: Tensor, spans: Sequence[Span]) -> Tensor:
        """Errors of the points of ``spans`` that have any, (n, k)."""
        errors = self._of_points(module, x, spans, self._errors)
        return torch.from_numpy(errors[~np.isnan(errors).any(1)]).to(x.device)

    def _score(self, module: nn.Module, x: Tensor) -> Tensor:
        raise NotImplementedError  # a point has no score without those around it

    # --- fit ------------------------------------------------------------------------------------

    @reported
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from series.

        Parameters
        ----------
        X : array-like of shape (T,), (T, channels) or (n, T, channels), or a list of series
            As in :meth:`decision_function`; ``window + 2`` points at least.
        y : array-like of shape (T,) or (n, T), or a list of arrays, optional
            Ignored, unless a ``supervision`` parameter of the method asks for it: one label for
            each point, 0 (normal) or 1 (anomaly).

        Returns
        -------
        self : object
            The fitted detector. If fit fails or is interrupted, self is as it was before.

        Raises
        ------
        ValueError
            If a parameter or X is not acceptable; the message names it.
        FloatingPointError
            If a loss becomes NaN or infinite; the message names the term and the step.
        KeyboardInterrupt
            At the end of the optimiser step during which Ctrl-C was pressed.
        """
        (error,) = fit_all([self], [X], [y])
        if error is not None:
            raise error
        return self

    # --- scores ---------------------------------------------------------------------------------

    @property
    def warm_up_(self) -> int:
        """The number of first points, without context, that have no score of their own."""
        check_is_fitted(self)
        if self.windowed:
            return self.window_ - 1 if self.smoothing == "causal" else 0
        return self.window_

    def _scores(self, series: Series, context: Any, batch_size: int | None) -> np.ndarray:
        points, spans = self._points(series, context)
        return self._score_points(points, spans, batch_size)

    def _explained(self, series: Series, context: Any, batch_size: int | None) -> np.ndarray:
        return self._contributed(*self._points(series, context), batch_size)

    def _points(self, series: Series, context: Any) -> tuple[Tensor, list[Span]]:
        """Scale points, each series after the last points of its context."""
        rows, spans = self._with_context(series, context)
        scaled = self.scaler_.transform(rows)
        return torch.from_numpy(scaled).to(self.device_), spans

    def _score_trained_points(self, points: Tensor, spans: Sequence[Span]) -> np.ndarray:
        """Score points that were trained on, each as if it had not been, where that is known."""
        return self._score_points(points, spans)

    def _score_points(
        self,
        points: Tensor,
        spans: Sequence[Span],
        batch_size: int | None = None,
        apart: bool = False,
    ) -> np.ndarray:
        """One score for each point of ``spans``, of scaled points."""
        found = self._contributed(points, spans, batch_size, self._totals, apart)
        return finite(found.sum(1, dtype=np.float64))

    def _contributed(
        self,
        points: Tensor,
        spans: Sequence[Span],
        batch_size: int | None = None,
        function: Function | None = None,
        apart: bool = False,
    ) -> np.ndarray:
        """Give what each channel adds to the scores of points, (n_points, channels)."""

        def terms(wide: Sequence[Span]) -> np.ndarray:
            return self._of_points(self.module_, points, wide, function or self._terms, batch_size)

        return self._contributions_of(self._over_time(terms, spans, apart))

    def _contributions_of(self, terms: np.ndarray) -> np.ndarray:
        """Turn smoothed terms, which may be changed, into what they add to the score.

        The score is the mean over channels of the root of each one's mean squared error; with
        "covariance" the root of the mean squared distance.
        """
        d = terms.shape[1]
        if self.error_scale == "covariance":
            total = np.maximum(terms.sum(1, keepdims=True), 1e-30)
            return terms / np.sqrt(total * d)
        np.sqrt(terms, out=terms)
        terms /= d
        return terms

    def _of_points(
        self,
        module: nn.Module,
        points: Tensor,
        spans: Sequence[Span],
        function: Function,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Apply a function of module and chunks, or windows, to the points of ``spans``.

        NaN for points without enough points before them.
        """
        if not self.windowed:
            return passed_over(module, function, points, spans, self.window_, batch_size)
        size = batch_size or chunk_rows((self.window_, *points.shape[1:]))

        def of_windows(starts: Tensor) -> np.ndarray:
            windows = (take(points, part, self.window_) for part in starts.split(size))
            found = score(module, function, windows, points.device, len(starts))
            return found.cpu().numpy()

        causal = self.smoothing == "causal"
        values = self.window_ * points.shape[1]
        return covered(of_windows, spans, self.window_, self._stride(), causal, values)

    def _running(self) -> tuple[Running, Values]:
        """Make values of the window that ends at a point, or of a pass that is repeated."""
        module, device, window = self.module_, self.device_, self.window_

        @fixed()
        def of_windows(points: np.ndarray) -> np.ndarray:
            x = torch.from_numpy(points).to(device)
            return self._of_points(module, x, [Span(0, window - 1, len(x))], self._totals)

        @fixed()
        @torch.no_grad()
        def of_chunk(points: np.ndarray) -> np.ndarray:
            x = torch.from_numpy(points).to(device)
            return self._totals(module, x[None])[0].cpu().numpy()

        channels = self.n_features_in_
        if self.windowed:
            return Buffered(of_windows, window - 1, channels), self._finish
        return Repeated(of_chunk, window, channels), self._finish

    def _finish(self, terms: np.ndarray) -> np.ndarray:
        """Make scores of smoothed terms."""
        return self._contributions_of(terms).sum(1, dtype=np.float64)

    def _stride(self) -> int:
        """Points between the windows that are scored, where a point is covered by several."""
        return 1


@parameters
class WithoutSteps(NoSteps, SeriesDetector):
    """Detector of series that learns without steps, by ``_solve``."""

    _in_steps = False
