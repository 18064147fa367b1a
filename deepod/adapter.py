"""Adapter from deepod's labels and scores to scikit-learn's convention for outlier detectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, OutlierMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:  # scikit-learn's own have no types, see Estimator
    from deepod._scoring.vocabulary import PyODVocabulary
    from deepod.params import Estimator as _OutlierEstimator
else:

    class _OutlierEstimator(MetaEstimatorMixin, OutlierMixin, BaseEstimator):
        pass


_OF_THRESHOLD = ("contamination", "false_alarm_rate")  # which may be changed after fit


class SklearnOutlierAdapter(_OutlierEstimator):
    """Adapter that gives a detector scikit-learn's convention: -1 and +1, lower = more anomalous.

    ``predict`` returns -1 for anomalies and +1 for normal rows, and ``decision_function`` is
    negative for anomalies, as in :class:`sklearn.ensemble.IsolationForest`.

    Parameters
    ----------
    detector : BaseDetector
        The detector to adapt. ``fit`` clones it and does not change it.

    Attributes
    ----------
    detector_ : BaseDetector
        The fitted clone.
    offset_ : float
        ``decision_function`` returns ``score_samples`` minus this number.

    Notes
    -----
    To pass scikit-learn's ``check_estimator``, give the detector a ``random_state``: some checks
    compare two fits, and they can seed only parameters of the adapter itself.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import PLAD, SklearnOutlierAdapter
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> adapter = SklearnOutlierAdapter(PLAD(epochs=5, random_state=0)).fit(X)
    >>> sorted(set(adapter.predict(X).tolist()))
    [-1, 1]
    """

    detector_: Any  # of the class of ``detector``

    def __init__(self, detector: PyODVocabulary) -> None:
        self.detector = detector

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit a clone of the detector and set ``offset_``.

        Parameters
        ----------
        X : array-like
            Training samples, as in the ``fit`` of the detector.
        y : array-like of shape (n,), optional
            Labels of the detector's convention: 1 = anomaly, 0 = normal. Ignored unless its
            ``supervision`` uses them.

        Returns
        -------
        self : object
            The fitted adapter. If the fit fails, an earlier ``detector_`` is kept.

        Raises
        ------
        ValueError, FloatingPointError, MemoryError
            As in the ``fit`` of the detector.
        """
        self.detector_ = clone(self.detector).fit(X, y)
        return self

    def calibrate(self, X: Any) -> Self:
        """Use these rows as calibration rows of the detector, instead of any earlier ones.

        Parameters
        ----------
        X : array-like
            Normal rows that were not trained on, shaped like those of ``fit``.

        Returns
        -------
        self : object
            The same adapter.

        Raises
        ------
        ValueError
            If X has too few rows for the ``false_alarm_rate`` of the detector.
        """
        check_is_fitted(self)
        self.detector_.calibrate(X)
        return self

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit the detector and return the labels of the training rows, -1 or +1.

        Parameters
        ----------
        X, y : array-like
            As in ``fit``.

        Returns
        -------
        labels : ndarray of shape (n,), int
            -1 = anomaly, +1 = normal.

        Raises
        ------
        ValueError
            If the detector's ``false_alarm_rate`` needs ``calibrate`` first; raised before
            training.
        """
        self.detector._check_calibrates_in_fit()
        return self.fit(X, y).predict(X)

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the adapter and of its detector.

        ``detector__contamination`` and ``detector__false_alarm_rate`` also change the threshold of
        the fitted ``detector_``.

        Parameters
        ----------
        **params
            ``detector``, or parameters of the detector such as ``detector__contamination``.

        Returns
        -------
        self : object
            The same adapter.
        """
        super().set_params(**params)
        own = {name: params.get(f"detector__{name}", self) for name in _OF_THRESHOLD}
        own = {name: value for name, value in own.items() if value is not self}
        if own and "detector" not in params and hasattr(self, "detector_"):
            self.detector_.set_params(**own)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = get_tags(self.detector).input_tags.allow_nan
        return tags

    @property
    def classes_(self) -> np.ndarray:
        """The two labels, [-1, 1], which scikit-learn's ``cross_val_predict`` asks for."""
        check_is_fitted(self)
        return np.array([-1, 1])

    @property
    def offset_(self) -> float:
        """The value of ``score_samples`` below which a row is labelled -1."""
        return -self.detector_.threshold_

    @property
    def n_features_in_(self) -> int:
        """The number of features seen in ``fit``."""
        return self.detector_.n_features_in_

    @property
    def feature_names_in_(self) -> np.ndarray:
        """The names of the columns seen in ``fit``, if they had names."""
        return self.detector_.feature_names_in_

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the negative scores of the detector; lower = more anomalous.

        Parameters
        ----------
        X : array-like
            Samples shaped like those of ``fit``.

        Returns
        -------
        scores : ndarray of shape (n,), float64
            Minus the scores of the detector's ``decision_function``.
        """
        check_is_fitted(self)
        return -self.detector_.decision_function(X)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return shifted scores, which are negative for anomalies; lower = more anomalous.

        Parameters
        ----------
        X : array-like
            Samples shaped like those of ``fit``.

        Returns
        -------
        scores : ndarray of shape (n,), float64
            ``score_samples(X) - offset_``, in the order of X. ``predict`` returns -1 where it is
            negative.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called, or the ``false_alarm_rate`` of the detector needs
            ``calibrate`` first.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Return the labels of rows: -1 = anomaly, +1 = normal.

        Parameters
        ----------
        X : array-like
            Samples shaped like those of ``fit``.

        Returns
        -------
        labels : ndarray of shape (n,), int
            Labels in the order of X.
        """
        check_is_fitted(self)
        return 1 - 2 * self.detector_.predict(X)
