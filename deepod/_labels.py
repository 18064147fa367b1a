"""From scores to labels: PyOD's vocabulary, on top of a score function and ``contamination``."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
from pyod.models.base import BaseDetector as PyODBaseDetector
from pyod.utils.utility import precision_n_scores
from scipy.special import erf
from scipy.stats import binom
from sklearn.base import BaseEstimator
from sklearn.metrics import roc_auc_score


class _Thresholded(NamedTuple):
    """What ``contamination`` makes of the training scores."""

    contamination: Any
    threshold: float
    labels: np.ndarray
    thresholder: Any


class PyODVocabulary(PyODBaseDetector):
    """PyOD's public methods, computed from ``decision_function`` and the training scores.

    Replaces those of PyOD's base class, which read ``contamination`` at fit only, change a
    thresholder given by the user, and loop over rows in Python.
    """

    contamination: Any

    # scikit-learn's own, which PyOD's base class replaces.
    get_params = BaseEstimator.get_params
    set_params = BaseEstimator.set_params
    _get_param_names: ClassVar[Any] = classmethod(
        cast(Any, BaseEstimator._get_param_names).__func__
    )
    __repr__ = BaseEstimator.__repr__

    def _remember_scores(self, scores: np.ndarray, n: int | None = None) -> None:
        """Keep the scores of all training rows, or fewer that stand in for those of n rows."""
        self._training_scores, self._n_training = scores, len(scores) if n is None else n
        # PyOD's own helpers read these.
        self._classes = 2
        self._mu, self._sigma = scores.mean(), scores.std()
        self._thresholded_ = self._apply_contamination()

    def predict(self, X: Any, return_confidence: bool = False) -> Any:
        """Label rows: 0 (normal) or 1 (anomaly).

        Parameters
        ----------
        X : array-like
            Samples shaped like those of ``fit``.
        return_confidence : bool, default=False
            Whether to return :meth:`predict_confidence` too.

        Returns
        -------
        labels : ndarray of shape (n,), int
        confidence : ndarray of shape (n,)
            Only if ``return_confidence``.
        """
        scores = self.decision_function(X)
        labels = self._labels(scores)
        return (labels, self._confidence(scores)) if return_confidence else labels

    def predict_proba(self, X: Any, method: str = "linear", return_confidence: bool = False) -> Any:
        """Probabilities of being normal and of being an anomaly.

        Parameters
        ----------
        X : array-like
            Samples shaped like those of ``fit``.
        method : {"linear", "unify"}, default="linear"
            "linear" maps the range of the training scores to [0, 1]; "unify" is Kriegel et al.
            (SDM 2011), the error function of the standardised score.
        return_confidence : bool, default=False
            Whether to return :meth:`predict_confidence` too.

        Returns
        -------
        probabilities : ndarray of shape (n, 2)
        confidence : ndarray of shape (n,)
            Only if ``return_confidence``.
        """
        scores = self.decision_function(X)
        if method == "linear":
            low = self._training_scores.min()
            shifted, size = scores - low, self._training_scores.max() - low
        elif method == "unify":
            shifted, size = scores - self._mu, self._sigma * np.sqrt(2)
        else:
            raise ValueError(f"method must be 'linear' or 'unify', got {method!r}.")
        ratio = shifted / (size or 1.0)
        anomaly = np.clip(ratio if method == "linear" else erf(ratio), 0, 1)
        probabilities = np.column_stack([1 - anomaly, anomaly])
        return (probabilities, self._confidence(scores)) if return_confidence else probabilities

    def predict_confidence(self, X: Any) -> np.ndarray:
        """How surely the label would be the same had other rows been drawn for training.

        The measure of Perini et al. (ECML PKDD 2020), in [0, 1].

        Parameters
        ----------
        X : array-like
            Samples shaped like those of ``fit``.

        Returns
        -------
        confidence : ndarray of shape (n,)
        """
        return self._confidence(self.decision_function(X))

    def predict_with_rejection(
        self,
        X: Any,
        T: float = 32,
        return_stats: bool = False,
        delta: float = 0.1,
        c_fp: float = 1,
        c_fn: float = 1,
        c_r: float = -1,
    ) -> Any:
        """Label rows, with -2 for those of too little confidence.

        The method of Perini and Davis (NeurIPS 2023).

        Parameters
        ----------
        X : array-like
            Samples shaped like those of ``fit``.
        T : float, default=32
            The rejection threshold is 1 - 2 exp(-T): the higher, the more rejections.
        return_stats : bool, default=False
            Whether to return the expected rejection rate, its upper bound and that of the cost.
        delta : float in (0, 1), default=0.1
            The upper bound of the rejection rate holds with probability 1 - delta.
        c_fp, c_fn, c_r : float
            Costs of a false alarm, a miss and a rejection; a negative c_r means the contamination.

        Returns
        -------
        labels : ndarray of shape (n,), int
            0, 1 or -2.
        stats : list of three floats
            Only if ``return_stats``.
        """
        scores = self.decision_function(X)
        labels = self._labels(scores)
        labels[2 * np.abs(self._confidence(scores) - 0.5) <= 1 - 2 * np.exp(-T)] = -2
        if not return_stats:
            return labels
        return labels, list(self.compute_rejection_stats(T, delta, c_fp, c_fn, c_r))

    def compute_rejection_stats(self, *args: Any, **kwargs: Any) -> tuple[float, float, float]:
        """Give the expected rejection rate, its upper bound and that of the cost; see PyOD."""
        # PyOD's formulas need a number, which a thresholder is not.
        share = self._contamination_share()
        if share == 0:
            raise ValueError("contamination marks no training row: there are no rejection rates.")
        stand_in = type(self)(**self.get_params(deep=False))
        every_row = np.broadcast_to(0.0, self._n_training)  # they count the rows, no more
        known = self._current()._replace(contamination=share, labels=every_row)
        changed = {"contamination": share, "_thresholded_": known, "_training_scores": every_row}
        stand_in.__dict__.update(self.__dict__ | changed)
        return super(PyODVocabulary, stand_in).compute_rejection_stats(*args, **kwargs)

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit and return the labels of the training rows, 0 or 1."""
        return self.fit(X, y).labels_

    def fit_predict_score(self, X: Any, y: Any, scoring: str = "roc_auc_score") -> float:
        """Fit on X and compare the training scores with y, which is not trained on.

        Parameters
        ----------
        X : array-like
        y : array-like of shape (n,)
        scoring : {"roc_auc_score", "prc_n_score"}, default="roc_auc_score"

        Returns
        -------
        score : float
        """
        metrics = {"roc_auc_score": roc_auc_score, "prc_n_score": precision_n_scores}
        if scoring not in metrics:
            raise ValueError(f"scoring must be one of {sorted(metrics)}, got {scoring!r}.")
        return float(metrics[scoring](y, self.fit(X).decision_scores_))

    # --- threshold ------------------------------------------------------------------------------

    @property
    def threshold_(self) -> float:
        """Score above which a row is labelled 1."""
        return self._current().threshold

    @property
    def decision_scores_(self) -> np.ndarray:
        """Scores of the training rows."""
        self._current()
        return self._of_every_row(self._training_scores, "decision_scores_", "decision_function")

    @property
    def labels_(self) -> np.ndarray:
        """Labels of the training rows."""
        return self._of_every_row(self._current().labels, "labels_", "predict")

    def _of_every_row(self, values: np.ndarray, name: str, method: str) -> np.ndarray:
        if len(values) < self._n_training:
            raise AttributeError(
                f"There is no {name}: the scores of {self._n_training} training rows take more "
                f"than memory_limit allows. Call {method}(X), or raise memory_limit."
            )
        return values

    @property
    def thresholder_(self) -> Any:
        """Fitted copy of the thresholder given as ``contamination``."""
        if self._current().thresholder is None:
            raise AttributeError("contamination is a number: there is no thresholder_.")
        return self._current().thresholder

    def _current(self) -> _Thresholded:
        if "_thresholded_" not in self.__dict__:
            raise AttributeError(f"This {type(self).__name__} is not fitted yet; call fit first.")
        known = self._thresholded_.contamination
        if known is not self.contamination and known != self.contamination:
            self._validate_params()
            self._thresholded_ = self._apply_contamination()
        return self._thresholded_

    def _apply_contamination(self) -> _Thresholded:
        scores = self._training_scores
        if not hasattr(self.contamination, "fit"):
            threshold = float(np.quantile(scores, 1 - self.contamination))
            labels = (scores > threshold).astype(int)
            return _Thresholded(self.contamination, threshold, labels, None)
        thresholder = copy.deepcopy(self.contamination)
        thresholder.fit(scores)
        labels = np.asarray(thresholder.labels_).astype(int)
        # As PyOD does for thresholders that find labels but no threshold.
        threshold = labels.mean() if thresholder.thresh_ is None else thresholder.thresh_
        return _Thresholded(self.contamination, float(threshold), labels, thresholder)

    def _labels(self, scores: np.ndarray) -> np.ndarray:
        thresholder = self._current().thresholder
        if thresholder is None:
            return (scores > self.threshold_).astype(int)
        return np.asarray(thresholder.predict(scores)).astype(int)

    def _contamination_share(self) -> float:
        if self._current().thresholder is None:
            return float(self.contamination)
        return float(self._current().labels.mean())

    def _confidence(self, scores: np.ndarray) -> np.ndarray:
        n, known = self._n_training, self._training_scores
        below = np.searchsorted(np.sort(known), scores, side="right") * (n / len(known))
        posterior = (1 + below) / (2 + n)
        confidence = 1 - binom.cdf(n - int(n * self._contamination_share()), n, posterior)
        return np.where(self._labels(scores) == 1, confidence, 1 - confidence)
