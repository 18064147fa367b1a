"""scikit-learn's own convention for outlier detectors around one of ours."""

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
    """Labels -1 (anomaly) and +1 (normal), and lower scores = more anomalous.

    Parameters
    ----------
    detector : BaseDetector
        The detector to adapt. It is cloned by ``fit``, not changed.

    Attributes
    ----------
    detector_ : BaseDetector
        The fitted clone.
    offset_ : float
        ``decision_function`` is ``score_samples`` minus this.

    Notes
    -----
    Give the detector a ``random_state``. With None two fits differ, as they should; but
    scikit-learn's ``check_estimator`` seeds only a parameter of the adapter itself, which has none,
    and those of its checks that compare two fits then fail.

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
        """Fit a clone of the detector."""
        self.detector_ = clone(self.detector).fit(X, y)
        return self

    def calibrate(self, X: Any) -> Self:
        """Take these rows for calibration, as the detector's ``calibrate`` does.

        Parameters
        ----------
        X : array-like
            Normal rows that were not trained on, shaped like those of ``fit``.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If there are too few for the detector's ``false_alarm_rate``.
        """
        check_is_fitted(self)
        self.detector_.calibrate(X)
        return self

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit and return the labels of the training rows, -1 (anomaly) or +1 (normal).

        Parameters
        ----------
        X, y : array-like
            As in ``fit``.

        Returns
        -------
        labels : ndarray of shape (n,), int

        Raises
        ------
        ValueError
            Before training, if the detector's ``false_alarm_rate`` has to wait for ``calibrate``.
        """
        self.detector._check_calibrates_in_fit()
        return self.fit(X, y).predict(X)

    def set_params(self, **params: Any) -> Self:
        """Set parameters; those of the detector that set the threshold hold for ``detector_`` too.

        Parameters
        ----------
        **params
            ``detector``, or parameters of it as ``detector__contamination`` and the like.

        Returns
        -------
        self : object
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
        """The labels, -1 and +1, for ``cross_val_predict`` of scikit-learn with labels."""
        check_is_fitted(self)
        return np.array([-1, 1])

    @property
    def offset_(self) -> float:
        """Score below which a row is labelled -1."""
        return -self.detector_.threshold_

    @property
    def n_features_in_(self) -> int:
        """Number of features seen in ``fit``."""
        return self.detector_.n_features_in_

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the columns seen in ``fit``, if they had any."""
        return self.detector_.feature_names_in_

    def score_samples(self, X: Any) -> np.ndarray:
        """Return scores of shape (n,); lower = more anomalous."""
        check_is_fitted(self)
        return -self.detector_.decision_function(X)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return scores of shape (n,), negative for anomalies."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Return labels of shape (n,): -1 (anomaly) or +1 (normal)."""
        check_is_fitted(self)
        return 1 - 2 * self.detector_.predict(X)
