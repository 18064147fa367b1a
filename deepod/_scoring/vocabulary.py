"""Labels, probabilities and p-values computed from scores: the public methods of PyOD."""

from __future__ import annotations

import abc
import copy
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, Self, overload

import numpy as np
from pyod.utils.utility import precision_n_scores
from scipy.special import erf
from scipy.stats import binom
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.utils.validation import check_is_fitted

from deepod._scoring import threshold as _threshold_module

if TYPE_CHECKING:
    from deepod.params import Estimator

    class PyODBaseDetector(Estimator, metaclass=abc.ABCMeta):
        """Stand-in for PyOD's base class in type checks, because PyOD has no types."""

        @abc.abstractmethod
        def fit(self, X: Any, y: Any = None) -> Self:
            """Fit the detector to the rows of X and return it."""

        @abc.abstractmethod
        def decision_function(self, X: Any, batch_size: int | None = None) -> np.ndarray:
            """Return anomaly scores of shape (n,), float64; higher = more anomalous."""

        def compute_rejection_stats(self, *args: Any, **kwargs: Any) -> tuple[float, float, float]:
            """Return the expected rejection rate, its upper bound and that of the cost."""

else:
    from pyod.models.base import BaseDetector as PyODBaseDetector


class Thresholder(Protocol):
    """Protocol of objects that label rows by their scores, such as the classes of PyThresh."""

    def fit(self, scores: Any, /) -> Any:
        """Fit the thresholder to the scores of the training rows."""

    def predict(self, scores: Any, /) -> Any:
        """Return the labels of scores, 0 or 1."""


Contamination = float | Literal["auto"] | Thresholder
Metric = Literal["roc_auc_score", "prc_n_score"]
Probability = Literal["linear", "unify", "conformal"]


class _Thresholded(NamedTuple):
    """A threshold, the parameters that it was computed with, and the labels of training rows."""

    rule: tuple[Any, Any]  # contamination and false_alarm_rate
    threshold: float
    labels: np.ndarray
    thresholder: Any


class PyODVocabulary(PyODBaseDetector):
    """PyOD's public methods, computed from ``decision_function`` and the training scores.

    They replace those of PyOD's base class, which read ``contamination`` only in ``fit``, change
    the thresholder that the user has given, and loop over rows in Python.
    """

    contamination: Contamination
    false_alarm_rate: float | None

    if not TYPE_CHECKING:  # scikit-learn's own, which PyOD's base class replaces
        get_params = BaseEstimator.get_params
        set_params = BaseEstimator.set_params
        _get_param_names: ClassVar[Any] = classmethod(BaseEstimator._get_param_names.__func__)
        __repr__ = BaseEstimator.__repr__

    n_features_in_: int
    feature_names_in_: np.ndarray
    calibration_scores_: np.ndarray
    given_threshold_: float | None
    given_under_: tuple[Any, Any] | None

    def _remember_scores(self, scores: np.ndarray, n: int | None = None) -> None:
        """Keep the scores of all training rows, and set the threshold by them."""
        self._keep_scores(scores, n)
        self.given_threshold_ = self.given_under_ = None
        rate, known = self.false_alarm_rate, hasattr(self, "calibration_scores_")
        if rate is not None and not known and getattr(self, "unseen_", False):
            # With too few training rows for the rate, the threshold is set by calibrate.
            known = _threshold_module.enough(len(scores), rate)
        if rate is None or known:
            self._current()  # so that fit raises the errors of a thresholder

    def _keep_scores(self, scores: np.ndarray, n: int | None = None) -> None:
        """Keep the scores of all training rows, or a sample of the scores of n rows."""
        self._training_scores, self._n_training = scores, len(scores) if n is None else n
        # PyOD's own helpers read these.
        self._classes = 2
        self._mu, self._sigma = scores.mean(), scores.std()

    @overload
    def predict(self, X: Any, return_confidence: Literal[False] = False) -> np.ndarray: ...
    @overload
    def predict(
        self, X: Any, return_confidence: Literal[True]
    ) -> tuple[np.ndarray, np.ndarray]: ...
    @overload
    def predict(self, X: Any, return_confidence: bool) -> Any: ...
    def predict(self, X: Any, return_confidence: bool = False) -> Any:
        """Return the labels of rows: 0 = normal, 1 = anomaly.

        A row is labelled 1 if its score is above ``threshold_``.

        Parameters
        ----------
        X : array-like
            Samples shaped like those of ``fit``.
        return_confidence : bool, default=False
            Whether to return the confidence of :meth:`predict_confidence` too.

        Returns
        -------
        labels : ndarray of shape (n,), int
            Labels in the order of X.
        confidence : ndarray of shape (n,), float64
            Confidence of each label, in [0, 1]. Returned only if ``return_confidence`` is True.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called, or ``false_alarm_rate`` needs :meth:`calibrate` first.
        """
        self._current()  # an error comes before the work
        scores = self.decision_function(X)
        labels = self._labels(scores)
        return (labels, self._confidence(scores)) if return_confidence else labels

    @overload
    def predict_proba(
        self, X: Any, method: Probability = "linear", return_confidence: Literal[False] = False
    ) -> np.ndarray: ...
    @overload
    def predict_proba(
        self, X: Any, method: Probability = "linear", *, return_confidence: Literal[True]
    ) -> tuple[np.ndarray, np.ndarray]: ...
    @overload
    def predict_proba(
        self, X: Any, method: Probability = "linear", return_confidence: bool = False
    ) -> Any: ...
    def predict_proba(
        self, X: Any, method: Probability = "linear", return_confidence: bool = False
    ) -> Any:
        """Return the probabilities of being normal and of being an anomaly.

        Parameters
        ----------
        X : array-like
            Samples shaped like those of ``fit``.
        method : {"linear", "unify", "conformal"}, default="linear"
            How to compute the second column from the scores. "linear" maps the range of the
            training scores to [0, 1] and clips. "unify" is the error function of the standardised
            score (Kriegel et al., SDM 2011). "conformal" is 1 minus :meth:`p_values`.
        return_confidence : bool, default=False
            Whether to return the confidence of :meth:`predict_confidence` too.

        Returns
        -------
        probabilities : ndarray of shape (n, 2), float64
            First column: normal, second column: anomaly. They sum to 1.
        confidence : ndarray of shape (n,), float64
            Confidence of each label, in [0, 1]. Returned only if ``return_confidence`` is True.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called, or ``method`` is "conformal" and there are no
            calibration scores.
        ValueError
            If ``method`` is unknown.

        Notes
        -----
        These numbers are not the probability that a row is an anomaly, which no detector can know
        without labels. A "conformal" value of 0.95 means that one normal row in twenty scores as
        high: for every a in (0, 1), at most a share a of new normal rows gets a value of 1 - a or
        more. It does not say how many of the rows with that value are anomalies. "linear" and
        "unify" have no such guarantee.
        """
        if method == "conformal":
            self._calibrated()  # an error comes before the work
        scores = self.decision_function(X)
        anomaly = self._probability(scores, method)
        probabilities = np.column_stack([1 - anomaly, anomaly])
        return (probabilities, self._confidence(scores)) if return_confidence else probabilities

    def _probability(self, scores: np.ndarray, method: str) -> np.ndarray:
        if method == "conformal":
            return 1 - _threshold_module.p_values(scores, self._calibrated())
        if method == "linear":
            low = self._training_scores.min()
            shifted, size = scores - low, self._training_scores.max() - low
            return np.clip(shifted / (size or 1.0), 0, 1)
        if method == "unify":
            size = self._sigma * np.sqrt(2)
            return np.clip(erf((scores - self._mu) / (size or 1.0)), 0, 1)
        raise ValueError(f"method must be 'linear', 'unify' or 'conformal', got {method!r}.")

    def p_values(self, X: Any) -> np.ndarray:
        """Return conformal p-values, the share of normal rows that score as high as each row.

        The p-value of a score s is (1 + number of calibration scores >= s) / (n + 1). The n
        calibration scores are those of the rows given to :meth:`calibrate` or held out of training
        by ``calibration_fraction``. With neither, they are ``decision_scores_``, provided that
        ``unseen_`` is True.

        Parameters
        ----------
        X : array-like
            Samples shaped like those of ``fit``.

        Returns
        -------
        p : ndarray of shape (n,), float64
            P-values from 1 / (n + 1) to 1; lower = more anomalous.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there are no calibration scores.

        Notes
        -----
        Suppose that a new normal row and the calibration rows are exchangeable, for example
        independent draws from one distribution. Then the probability that the row's p-value is at
        most a is at most a, for every a, any detector and any n. This probability is over the draw
        of the calibration rows: with given calibration rows, the share of new normal rows with
        p <= a differs from a by a standard deviation of about sqrt(a (1 - a) / n). Anomalies among
        the calibration rows make all p-values larger. There is no guarantee if normal rows change
        over time or come in groups of similar rows. All rows of X are compared with the same
        calibration rows, so their p-values are dependent. Bates et al. prove that this dependence
        is positive, so that the Benjamini-Hochberg procedure controls the share of normal rows
        among the flagged ones.

        References
        ----------
        V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World, Springer, 2005.
        S. Bates, E. Candes, L. Lei, Y. Romano, M. Sesia, Testing for outliers with conformal
        p-values, Annals of Statistics 51(1), 2023.

        Examples
        --------
        >>> import numpy as np
        >>> from deepod import PLAD
        >>> X = np.random.default_rng(0).normal(size=(250, 2))
        >>> detector = PLAD(epochs=5, calibration_fraction=0.2, random_state=0).fit(X)
        >>> detector.p_values([[9.0, 9.0]])  # 1 / 51: higher than all calibration scores
        array([0.01960784])
        """
        calibration = self._calibrated()
        return _threshold_module.p_values(self.decision_function(X), calibration)

    def calibrate(self, X: Any) -> Self:
        """Use these rows as calibration rows, instead of any earlier ones.

        :meth:`p_values`, ``predict_proba(X, method="conformal")`` and ``false_alarm_rate`` compare
        new rows with their scores.

        Parameters
        ----------
        X : array-like
            Normal rows that were not trained on, shaped like those of ``fit``. A source of
            :mod:`deepod.sources` is read from disk.

        Returns
        -------
        self : object
            The same detector.

        Raises
        ------
        ValueError
            If X has fewer than 1 / ``false_alarm_rate`` - 1 rows.
        FloatingPointError
            If a score is NaN or infinite.

        Examples
        --------
        >>> import numpy as np
        >>> from deepod import PLAD
        >>> rng = np.random.default_rng(0)
        >>> detector = PLAD(epochs=5, false_alarm_rate=0.05, random_state=0)
        >>> detector.fit(rng.normal(size=(200, 2))).calibrate(rng.normal(size=(99, 2)))
        PLAD(epochs=5, false_alarm_rate=0.05, random_state=0)
        >>> detector.predict([[0, 0], [9, 9]])
        array([0, 1])
        """
        return self._calibrate(self.decision_function(X))

    def _calibrate(self, scores: np.ndarray) -> Self:
        """Take the scores of rows for calibration, in place of any others."""
        if not np.isfinite(scores).all():
            raise FloatingPointError(
                "X: some calibration rows have scores that are NaN or infinite; leave these rows "
                "out. decision_function(X) shows which they are."
            )
        if self.false_alarm_rate is not None:
            self._validate_params()
            _threshold_module.check_enough(len(scores), self.false_alarm_rate)
        self.calibration_scores_ = np.sort(scores)
        self.__dict__.pop("_thresholded_", None)
        return self

    def predict_confidence(self, X: Any) -> np.ndarray:
        """Return how likely each label is to stay the same with another sample of training rows.

        This is the confidence of Perini, Vercruyssen and Davis (ECML PKDD 2020).

        Parameters
        ----------
        X : array-like
            Samples shaped like those of ``fit``.

        Returns
        -------
        confidence : ndarray of shape (n,), float64
            Confidence of the label of each row, in [0, 1].
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
        """Return the labels of rows, with -2 for rows whose confidence is too low.

        This is the method of Perini and Davis (NeurIPS 2023).

        Parameters
        ----------
        X : array-like
            Samples shaped like those of ``fit``.
        T : float, default=32
            Strictness. Rows are rejected if |2 confidence - 1| is at most 1 - 2 exp(-T), so a
            larger T rejects more rows.
        return_stats : bool, default=False
            Whether to return the statistics of :meth:`compute_rejection_stats` too.
        delta : float in (0, 1), default=0.1
            The upper bound on the rejection rate holds with probability 1 - delta.
        c_fp, c_fn, c_r : float
            Costs of a false positive, a false negative and a rejection. A negative c_r stands for
            the contamination.

        Returns
        -------
        labels : ndarray of shape (n,), int
            0 = normal, 1 = anomaly, -2 = rejected.
        stats : list of three floats
            Expected rejection rate, its upper bound, and the upper bound on the cost. Returned only
            if ``return_stats`` is True.
        """
        scores = self.decision_function(X)
        labels = self._labels(scores)
        labels[2 * np.abs(self._confidence(scores) - 0.5) <= 1 - 2 * np.exp(-T)] = -2
        if not return_stats:
            return labels
        return labels, list(self.compute_rejection_stats(T, delta, c_fp, c_fn, c_r))

    def compute_rejection_stats(self, *args: Any, **kwargs: Any) -> tuple[float, float, float]:
        """Return the expected rejection rate, its upper bound and the upper bound on the cost.

        Parameters
        ----------
        T, delta, c_fp, c_fn, c_r : float
            As in :meth:`predict_with_rejection`.

        Returns
        -------
        stats : tuple of three floats
            Expected rejection rate, its upper bound, and the upper bound on the cost.

        Raises
        ------
        ValueError
            If ``contamination`` is so small that no training row is expected to be an anomaly.
        """
        # PyOD's formulas need a number for contamination, and at least one row.
        share = self._contamination_share()
        if int(self._n_training * share) == 0:
            raise ValueError(
                f"contamination={share:.3g} of {self._n_training} training rows is less than one "
                "row, which leaves the rejection rates undefined: set a larger contamination."
            )
        stand_in = type(self)(**self.get_params(deep=False))
        every_row = np.broadcast_to(0.0, self._n_training)  # they count the rows, no more
        known = self._current()._replace(rule=(share, self.false_alarm_rate), labels=every_row)
        changed = {"contamination": share, "_thresholded_": known, "_training_scores": every_row}
        stand_in.__dict__.update(self.__dict__ | changed)
        return super(PyODVocabulary, stand_in).compute_rejection_stats(*args, **kwargs)

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit the detector and return the labels of the training rows, 0 or 1.

        Parameters
        ----------
        X, y : array-like
            As in ``fit``.

        Returns
        -------
        labels : ndarray of shape (n,), int
            ``labels_``: 0 = normal, 1 = anomaly.

        Raises
        ------
        ValueError
            If ``false_alarm_rate`` needs :meth:`calibrate` first; raised before training.
        """
        self._check_calibrates_in_fit()
        return self.fit(X, y).labels_

    def _check_calibrates_in_fit(self) -> None:
        """Raise an error if ``fit`` alone cannot set the threshold."""
        self._validate_params()
        held_out = getattr(self, "calibration_fraction", 0) or self._scores_as_unseen()
        if self.false_alarm_rate is not None and not held_out:
            first = "call fit(X), then calibrate(X) with normal rows that it was not trained on"
            if hasattr(self, "calibration_fraction"):
                first = f"use cross_fitting=True or calibration_fraction=0.2, or {first}"
            raise ValueError(
                f"false_alarm_rate={self.false_alarm_rate} needs calibration rows, and fit_predict "
                f"has none: {first}."
            )

    def _scores_as_unseen(self) -> bool:
        """Return whether ``fit`` scores training rows as if they had not been trained on."""
        return False

    def fit_predict_score(self, X: Any, y: Any, scoring: Metric = "roc_auc_score") -> float:
        """Fit the detector and return how well the training scores separate the labels.

        Parameters
        ----------
        X : array-like
            Training samples, as in ``fit``.
        y : array-like of shape (n,)
            True labels: 0 = normal, 1 = anomaly. They are used in training only if ``supervision``
            asks for it.
        scoring : {"roc_auc_score", "prc_n_score"}, default="roc_auc_score"
            "roc_auc_score" is the area under the ROC curve; "prc_n_score" is the precision among
            the n rows with the highest scores, where n is the number of anomalies in y.

        Returns
        -------
        score : float
            Value of the metric, from 0 to 1; higher is better.

        Raises
        ------
        NotImplementedError
            If ``scoring`` is unknown; raised before training. (PyOD raises the same type.)
        """
        metrics = {"roc_auc_score": roc_auc_score, "prc_n_score": precision_n_scores}
        if not isinstance(scoring, str) or scoring not in metrics:
            raise NotImplementedError(f"scoring must be one of {sorted(metrics)}, got {scoring!r}.")
        return float(metrics[scoring](y, self.fit(X, y).decision_scores_))

    # --- threshold ------------------------------------------------------------------------------

    def set_threshold(self, threshold: float | None) -> Self:
        """Set the threshold to a number, instead of computing it from ``contamination``.

        Parameters
        ----------
        threshold : float or None
            Rows with a score above it are labelled 1. It applies while ``contamination`` and
            ``false_alarm_rate`` keep their present values: if they are changed, the threshold is
            computed from them again. None, or another ``fit``, removes the number.

        Returns
        -------
        self : object
            The same detector.

        Raises
        ------
        ValueError
            If ``threshold`` is not a finite number.

        Examples
        --------
        >>> import numpy as np
        >>> from deepod import PLAD
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> detector = PLAD(epochs=5, random_state=0).fit(X)
        >>> highest = detector.decision_scores_.max()
        >>> detector.set_threshold(highest).labels_.sum()
        np.int64(0)
        >>> detector.set_threshold(None).labels_.sum()  # contamination=0.1
        np.int64(20)
        """
        check_is_fitted(self)
        given, under = None, None
        if threshold is not None:
            try:
                given = float(threshold) if isinstance(threshold, Real) else np.nan
            except OverflowError:  # an int may be of any size
                given = np.inf
            if not np.isfinite(given):
                raise ValueError(f"threshold must be a finite number or None, got {threshold!r}.")
            under = self._rule()
        self.given_threshold_, self.given_under_ = given, under
        self.__dict__.pop("_thresholded_", None)
        return self

    def _rule(self) -> tuple[Any, Any]:
        return self.contamination, self.false_alarm_rate

    def _given(self) -> float | None:
        """Return the argument of ``set_threshold`` if it applies, and None otherwise."""
        # Tuples compare by identity first: a thresholder need not have an ==.
        return self.given_threshold_ if self.given_under_ == self._rule() else None

    @property
    def classes_(self) -> np.ndarray:
        """The two labels, [0, 1], which scikit-learn's ``cross_val_predict`` asks for."""
        self._check_scores()
        return np.array([0, 1])

    @property
    def threshold_(self) -> float:
        """The score above which a row is labelled 1."""
        return self._current().threshold

    @property
    def decision_scores_(self) -> np.ndarray:
        """The scores of the training rows, in the order of X."""
        self._check_scores()
        return self._of_every_row(self._training_scores, "decision_scores_", "decision_function")

    @property
    def labels_(self) -> np.ndarray:
        """The labels of the training rows: 0 = normal, 1 = anomaly."""
        return self._of_every_row(self._current().labels, "labels_", "predict")

    def _check_scores(self) -> None:
        if "_training_scores" not in self.__dict__:
            raise NotFittedError(f"This {type(self).__name__} is not fitted yet; call fit first.")

    def _of_every_row(self, values: np.ndarray, name: str, method: str) -> np.ndarray:
        if len(values) < self._n_training:
            raise AttributeError(
                f"There is no {name}, because the scores of {self._n_training} training rows take "
                f"more memory than memory_limit. Call {method}(X), or raise memory_limit and fit "
                "again."
            )
        return values

    @property
    def thresholder_(self) -> Any:
        """The fitted copy of the thresholder, if ``contamination`` is one."""
        if self._current().thresholder is None:
            raise AttributeError(
                "There is no thresholder_, because contamination is not a thresholder or the "
                "threshold was set by false_alarm_rate or set_threshold."
            )
        return self._current().thresholder

    def _calibrated(self) -> np.ndarray:
        """Return the calibration scores, in ascending order."""
        self._check_scores()
        if "calibration_scores_" not in self.__dict__:
            if getattr(self, "unseen_", False):
                return np.sort(self._training_scores)
            ways = ["call calibrate(X) with normal rows that it was not trained on"]
            if hasattr(self, "calibration_fraction"):
                first = "calibration_fraction=0.2 or so"
                if not self._scores_as_unseen():
                    first = f"cross_fitting=True, {first}"
                ways.insert(0, f"fit it with {first}")
            raise NotFittedError(
                f"This {type(self).__name__} has no calibration scores: {', or '.join(ways)}."
            )
        return self.calibration_scores_

    def _current(self) -> _Thresholded:
        """Return the threshold and labels for the present values of the parameters."""
        self._check_scores()
        known = self.__dict__.get("_thresholded_")
        if known is None or known.rule != self._rule():
            self._find_threshold()
        return self._thresholded_

    def _find_threshold(self) -> None:
        self._validate_params()
        scores, labels = self._training_scores, None
        thresholder: Any = None
        given = self._given()
        if given is not None:
            threshold = given
        elif self.false_alarm_rate is not None:
            threshold = _threshold_module.of_false_alarms(self._calibrated(), self.false_alarm_rate)
        elif hasattr(self.contamination, "fit"):
            thresholder = copy.deepcopy(self.contamination)
            thresholder.fit(scores)
            labels = np.asarray(thresholder.labels_).astype(int)
            threshold = _threshold_module.of_labels(scores, labels, thresholder.thresh_)
        else:
            threshold = _threshold_module.of_contamination(scores, self.contamination)
        labels = (scores > threshold).astype(int) if labels is None else labels
        self._thresholded_ = _Thresholded(self._rule(), threshold, labels, thresholder)

    def _labels(self, scores: np.ndarray) -> np.ndarray:
        unknown = np.count_nonzero(np.isnan(scores))
        if unknown:  # which is above no threshold
            raise FloatingPointError(
                f"{unknown} of {len(scores)} scores are NaN, so that these rows of X have no "
                "label. decision_function(X) shows which rows they are: check or leave them out."
            )
        thresholder = self._current().thresholder
        if thresholder is None:
            return (scores > self.threshold_).astype(int)
        return np.asarray(thresholder.predict(scores)).astype(int)

    def _contamination_share(self) -> float:
        """Return the share of anomalies in training: ``contamination``, or that of ``labels_``."""
        labels = self._current().labels
        by_share = self.false_alarm_rate is None and self._given() is None
        if by_share and isinstance(self.contamination, Real) and self.contamination:
            return float(self.contamination)
        return float(labels.mean())

    def _confidence(self, scores: np.ndarray) -> np.ndarray:
        n, known = self._n_training, self._training_scores
        below = np.searchsorted(np.sort(known), scores, side="right") * (n / len(known))
        posterior = (1 + below) / (2 + n)
        # At least one, so that a row above all training scores is flagged with confidence.
        flagged = max(1, int(n * self._contamination_share()))
        confidence = 1 - binom.cdf(n - flagged, n, posterior)
        return np.where(self._labels(scores) == 1, confidence, 1 - confidence)
