"""Any detector on a series: it sees windows, and each point gets the mean of those around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from deepod._base import BaseDetector
from deepod._inputs.chunks import take
from deepod._inputs.rows import blocks
from deepod._inputs.scaling import Scaler
from deepod._inputs.seeds import spawn_seeds
from deepod._inputs.series import Series, as_series
from deepod._inputs.settings import fixed
from deepod._inputs.validation import validate_rows
from deepod._members import check_member, scores_of, seed_member
from deepod._scoring.apply import finite
from deepod._scoring.points import Span, covered, spans_of
from deepod._scoring.threshold import CONTAMINATION, FALSE_ALARM_RATE
from deepod._scoring.vocabulary import Contamination, PyODVocabulary
from deepod._training.series_fit import (
    SCALE_FLOOR,
    Smallest,
    check_length,
    last_parts,
    resolve_window,
)
from deepod.models.reconstruction._reconstruction import ErrorMaps
from deepod.params import integer, one_of, real
from deepod.series._methods import SeriesMethods
from deepod.series._running import Buffered, Running, Values
from deepod.types import Shape

_AUTO_WINDOW = 50
_LEAST_SCALE = 1e-2  # of the mean over channels: one may be reconstructed exactly, by accident


class Windows(SeriesMethods, PyODVocabulary):
    """Windows of a series as rows of a table, for any detector of deepod, PyOD or scikit-learn.

    Each window of ``window`` points is a row of ``window * channels`` values, of channels that were
    standardised on the training series. The score of a point is the mean over the windows that
    cover it. Where the detector reconstructs its rows, such as :class:`deepod.AutoEncoder`, each
    value has an error of its own: the score is then made of the errors at the point, as in other
    detectors of series.

    Parameters
    ----------
    detector : detector
        Of deepod, PyOD or scikit-learn, also at the end of a scikit-learn pipeline. It is cloned;
        a ``random_state`` of None is replaced, and ``cross_fitting`` is switched off, because
        windows that overlap show each other's points.
    window : int or "auto", default="auto"
        Points in a window; "auto" is 50, or a third of the shortest series if that is less.
    stride : int, default=1
        Points between the windows that are scored, with ``smoothing="centred"`` or None.
    flatten : bool, default=True
        Whether a window is a row. False gives detectors of deepod windows (window, channels), for
        their recurrent networks.
    max_windows : int, default=10000
        Windows to train on, at most: of more, some that are spread evenly over the series.
    smoothing : {"centred", "causal"} or None, default="centred"
        Mean of the scores over the ``smoothing_length`` points around each point ("centred"), or
        up to it ("causal"): then only the window that ends at a point counts for it.
    smoothing_length : int, default=51
        Points that scores are smoothed over.
    error_scale : {"validation"} or None, default="validation"
        What errors of each channel are divided by, where there are any; None leaves them.
    validation_fraction : float in [0, 0.5], default=0.2
        Share of each series, its last part, that a first copy of the detector is not trained on, to
        find out how new points score: the threshold follows them. The copy that is kept is trained
        on everything. With 0, the threshold follows the points that were trained on.
    contamination : float in [0, 0.5], "auto" or thresholder, default=0.1
        As in other detectors; that of ``detector`` has no effect.
    false_alarm_rate : float in (0, 1) or None, default=None
        As in other detectors, of points.
    random_state : int, RandomState or None, default=None
        Source of the detector's seed.

    Attributes
    ----------
    detector_ : object
        The fitted detector of windows.
    error_weights_ : ndarray of shape (channels,) or None
        What errors are multiplied by, if the detector gives errors.
    scaler_ : object
        What standardises channels.
    decision_scores_ : ndarray of shape (n_points,), float64
        Scores of the training series, one after the other. Points that were trained on.
    threshold_ : float
        Scores above it are labelled 1.
    labels_ : ndarray of shape (n_points,), int
    unseen_ : bool
        Whether the threshold follows points that were held out.
    warm_up_ : int
        First points of a series, without ``context``, that have no score of their own.
    n_features_in_ : int
        Channels.
    feature_names_in_ : ndarray of str
        Only if X had column names.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import Neighbors
    >>> from deepod.series import Windows
    >>> x = np.sin(np.arange(2000) / 5)
    >>> detector = Windows(Neighbors(), window=30).fit(x[:1500])
    >>> test = x[1500:].copy()
    >>> test[250:260] = 0.0
    >>> abs(int(detector.decision_function(test).argmax()) - 255) < 40
    True
    """

    detector_: Any
    error_weights_: np.ndarray | None
    scaler_: Scaler
    input_shape_: Shape

    # For list_detectors().
    family: ClassVar[str] = "windows"
    inputs: ClassVar[tuple[str, ...]] = ("series",)
    paper: ClassVar[str] = "Any detector"

    # What validate_rows asks of a detector.
    missing: ClassVar[str] = "refuse"
    memory_limit: ClassVar[int] = 1 << 62
    input_shape: ClassVar[None] = None
    fill_: ClassVar[None] = None

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "detector": "no_validation",
        "window": [integer(2), one_of("auto")],
        "stride": [integer(1)],
        "flatten": ["boolean"],
        "max_windows": [integer(2)],
        "smoothing": [one_of("centred", "causal"), None],
        "smoothing_length": [integer(1)],
        "error_scale": [one_of("validation"), None],
        "validation_fraction": [real(0, 0.5)],
        "contamination": CONTAMINATION,
        "false_alarm_rate": FALSE_ALARM_RATE,
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        detector: Any,
        window: int | Literal["auto"] = "auto",
        *,
        stride: int = 1,
        flatten: bool = True,
        max_windows: int = 10_000,
        smoothing: Literal["centred", "causal"] | None = "centred",
        smoothing_length: int = 51,
        error_scale: Literal["validation"] | None = "validation",
        validation_fraction: float = 0.2,
        contamination: Contamination = 0.1,
        false_alarm_rate: float | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.detector = detector
        self.window = window
        self.stride = stride
        self.flatten = flatten
        self.max_windows = max_windows
        self.smoothing = smoothing
        self.smoothing_length = smoothing_length
        self.error_scale = error_scale
        self.validation_fraction = validation_fraction
        self.contamination = contamination
        self.false_alarm_rate = false_alarm_rate
        self.random_state = random_state

    @property
    def warm_up_(self) -> int:
        """The number of first points, without context, that have no score of their own."""
        check_is_fitted(self)
        return self.window_ - 1 if self.smoothing == "causal" else 0

    # --- fit ------------------------------------------------------------------------------------

    @fixed()
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the detector on windows of series.

        Parameters
        ----------
        X : array-like of shape (T,), (T, channels) or (n, T, channels), or a list of series
            Each of at least ``window + 1`` points.
        y : object, optional
            Ignored.

        Returns
        -------
        self : object
            If fit fails, self is as it was before.

        Raises
        ------
        TypeError
            If ``detector`` is no detector.
        ValueError
            If a parameter or X is not acceptable; the message names it.
        """
        self._validate_params()
        params = self.get_params(deep=False)
        fitted = type(self)(**params)
        fitted._fit(as_series(X))
        kept = {k: v for k, v in self.__dict__.items() if not k.endswith("_")}
        self.__dict__ = kept | fitted.__dict__ | params
        return self

    def _fit(self, series: Series) -> None:
        detector = self._unfitted()
        check_length("Windows", self.window, series.lengths, Smallest(), lambda window: window + 2)
        rows = validate_rows(self, series.rows, reset=True)
        self.input_shape_ = rows.shape[1:]
        self.window_ = resolve_window(self.window, _AUTO_WINDOW, series.lengths)
        spans = spans_of(series.lengths)
        first, held_out = last_parts(spans, self.validation_fraction, self.window_ + 1)
        self.scaler_ = Scaler.fit(
            (block for begin, _, stop in spans for block in blocks(rows[begin:stop])),
            rows.shape[1:],
            "standard",
            floor=SCALE_FLOOR,
        )
        points = torch.from_numpy(self.scaler_.transform(rows))
        self.error_weights_ = None
        unseen = None
        if held_out:
            self._train(clone(detector), points, first)
            self._learn_errors(points, held_out)
            unseen = np.full(len(points), np.nan)
            own = np.concatenate([np.arange(start, stop) for _, start, stop in held_out])
            unseen[own] = self._score_points(points, held_out, apart=True)
        self._train(detector, points, spans)
        if not held_out:
            self._learn_errors(points, spans)
        self._remember_points(self._score_points(points, spans), series.lengths, unseen)

    def _unfitted(self) -> Any:
        check_member(self.detector)
        detector = clone(self.detector)
        if isinstance(detector, BaseDetector):
            detector.set_params(cross_fitting=False)
            if not self.flatten and detector.network == "mlp":
                raise ValueError(
                    "flatten=False is for networks of windows; network='mlp' has rows."
                )
        elif not self.flatten:
            raise ValueError(
                f"flatten=False is for detectors of deepod; {type(detector).__name__} takes rows."
            )
        (seed,) = spawn_seeds(self.random_state, 1)
        seed_member(detector, seed)
        return detector

    def _train(self, detector: Any, points: Tensor, spans: Sequence[Span]) -> None:
        starts = torch.cat([torch.arange(a, b - self.window_ + 1) for _, a, b in spans])
        if len(starts) > self.max_windows:
            starts = starts[torch.linspace(0, len(starts) - 1, self.max_windows).long()]
        self.detector_ = detector.fit(self._windows(points, starts))

    def _windows(self, points: Tensor, starts: Tensor) -> np.ndarray:
        windows = take(points, starts, self.window_).numpy()
        return windows.reshape(len(windows), -1) if self.flatten else windows

    def _learn_errors(self, points: Tensor, spans: Sequence[Span]) -> None:
        """Learn how large the errors of each channel are, if the detector gives errors."""
        detector = self.detector_
        if not (isinstance(detector, ErrorMaps) and detector._scored_error() is not None):
            return
        if self.error_scale is None:
            self.error_weights_ = np.ones(points.shape[1])
            return
        usual = np.nanmean(self._of_points(points, spans, by_value=True), axis=0)
        varies = (points != points[0]).any(0).numpy()
        least = _LEAST_SCALE * usual[varies].mean() + 1e-12 if varies.any() else 1.0
        # A channel that stood still has no usual error: it counts as it is.
        self.error_weights_ = np.where(varies, 1 / np.maximum(usual, least), 1.0)

    # --- scores ---------------------------------------------------------------------------------

    def _scores(self, series: Series, context: Any, batch_size: int | None) -> np.ndarray:
        rows, spans = self._with_context(series, context)
        points = torch.from_numpy(self.scaler_.transform(rows))
        return self._score_points(points, spans, batch_size)

    def _score_points(
        self,
        points: Tensor,
        spans: Sequence[Span],
        batch_size: int | None = None,
        apart: bool = False,
    ) -> np.ndarray:
        if self.error_weights_ is not None:
            return finite(self._contributed(points, spans, batch_size, apart).sum(1))

        def values(wide: Sequence[Span]) -> np.ndarray:
            return self._of_points(points, wide, batch_size)

        return finite(self._over_time(values, spans, apart))

    def _contributed(
        self,
        points: Tensor,
        spans: Sequence[Span],
        batch_size: int | None = None,
        apart: bool = False,
    ) -> np.ndarray:
        """Give what each channel adds to the scores of points, (n_points, channels)."""
        weights = self.error_weights_

        def terms(wide: Sequence[Span]) -> np.ndarray:
            found = self._of_points(points, wide, batch_size, by_value=True)
            return found if weights is None else found * weights

        found = self._over_time(terms, spans, apart)
        return found if weights is None else np.sqrt(found) / found.shape[1]

    def _of_points(
        self,
        points: Tensor,
        spans: Sequence[Span],
        batch_size: int | None = None,
        by_value: bool = False,
    ) -> np.ndarray:
        """Give points the scores of their windows, or what their values add to these."""
        detector, d = self.detector_, points.shape[1]

        def of_windows(starts: Tensor) -> np.ndarray:
            windows = self._windows(points, starts)
            if not by_value:
                return scores_of(detector, windows, batch_size)
            found: np.ndarray = detector.explain(windows, batch_size)
            return found.reshape(len(starts), self.window_, d)

        causal, values = self.smoothing == "causal", self.window_ * d
        return covered(of_windows, spans, self.window_, self.stride, causal, values)

    def _running(self) -> tuple[Running, Values]:
        weights, before = self.error_weights_, self.window_ - 1

        @fixed()
        def values(points: np.ndarray) -> np.ndarray:
            spans = [Span(0, before, len(points))]
            found = self._of_points(torch.from_numpy(points), spans, by_value=weights is not None)
            return found[:, None] if weights is None else found * weights

        def finish(found: np.ndarray) -> np.ndarray:
            return found.sum(1) if weights is None else np.sqrt(found).mean(1)

        return Buffered(values, before, self.n_features_in_), finish

    def _explained(self, series: Series, context: Any, batch_size: int | None) -> np.ndarray:
        if not isinstance(self.detector_, BaseDetector):
            raise TypeError(f"{type(self.detector_).__name__} explains no scores.")
        rows, spans = self._with_context(series, context)
        points = torch.from_numpy(self.scaler_.transform(rows))
        return self._contributed(points, spans, batch_size)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "detector_")
