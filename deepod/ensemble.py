"""Many detectors at once: one per seed, and the ensemble of these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, cast

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.base import clone
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from deepod._base import BaseDetector
from deepod._inputs.seeds import spawn_seeds
from deepod._scoring.threshold import CONTAMINATION, FALSE_ALARM_RATE
from deepod._scoring.vocabulary import Contamination, PyODVocabulary
from deepod._training.together import fit_all
from deepod.params import integer, one_of
from deepod.sources import is_mapped

Detector = TypeVar("Detector", bound=BaseDetector)


def fit_many(
    detector: Detector,
    X: Any,
    y: Any = None,
    *,
    seeds: Iterable[int],
    n_jobs: int | None = None,
) -> list[Detector]:
    """Fit a detector once per seed.

    They train side by side as one network where the method allows it (not on images, nor with
    recurrent layers), which takes a fraction of the time, and end with the scores that each would
    have on its own, rounding aside: see the notes.

    Parameters
    ----------
    detector : BaseDetector
        Is cloned and not changed.
    X, y : array-like
        As in the detector's ``fit``.
    seeds : iterable of int
        A ``random_state`` for every detector.
    n_jobs : int or None, default=None
        Processes to share the detectors out to, as in scikit-learn; None means 1.

    Returns
    -------
    detectors : list of BaseDetector
        Fitted, in the order of the seeds.

    Raises
    ------
    ValueError, FloatingPointError
        As ``fit`` of the first detector that failed, or if several would share a ``checkpoint``.

    Notes
    -----
    Products of stacked matrices round differently in the last digit. Training carries that further:
    after a few epochs the scores agree to six digits, after hundreds of steps through BatchNorm or
    a kink of LeakyReLU two trainings may part like those of two seeds.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import PLAD, fit_many
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> detectors = fit_many(PLAD(epochs=5), X, seeds=range(3))
    >>> [d.random_state for d in detectors]
    [0, 1, 2]
    """
    check_detector(detector, "detector")
    detectors = [clone(detector).set_params(random_state=seed) for seed in seeds]
    size = len(detectors)
    detectors, errors = fit_in_jobs(detectors, [X] * size, [y] * size, n_jobs)
    for error in errors:
        if error is not None:
            raise error
    return detectors


def fit_in_jobs(
    detectors: Sequence[Any], Xs: Sequence[Any], ys: Sequence[Any], n_jobs: int | None
) -> tuple[list[Any], list[Exception | None]]:
    """Fit every detector on its X and y, shared out to processes; fitted ones, and errors.

    Raises
    ------
    ValueError
        If two of them have the same ``checkpoint``.
    """
    files = [Path(str(d.checkpoint)).resolve() for d in detectors if d.checkpoint is not None]
    if len(set(files)) < len(files):
        raise ValueError(
            "checkpoint names a file of one fit, not of several; leave it None for detectors that "
            "are fitted together."
        )
    mapped = [is_mapped(X) for X in Xs]

    def fitted(part: slice) -> tuple[list[Any], list[Exception | None]]:
        mine = list(detectors[part])
        # joblib turns large arrays into memory maps on their way, which would be streamed.
        known = {
            id(X): np.asarray(X) if is_mapped(X) and not before else X
            for X, before in zip(Xs[part], mapped[part], strict=True)
        }
        return mine, fit_all(mine, [known[id(X)] for X in Xs[part]], ys[part])

    jobs = min(effective_n_jobs(n_jobs), max(1, len(detectors)))
    cuts = np.linspace(0, len(detectors), jobs + 1).astype(int)
    parts = [slice(start, stop) for start, stop in pairwise(cuts)]
    found = [fitted(parts[0])] if jobs == 1 else Parallel(n_jobs)(map(delayed(fitted), parts))
    return [d for ds, _ in found for d in ds], [e for _, es in found for e in es]


def check_detector(detector: Any, name: str) -> None:
    """Refuse what is no deepod detector."""
    if not isinstance(detector, BaseDetector):
        raise TypeError(
            f"{name} must be a deepod detector such as PLAD(), got {type(detector).__name__}."
        )


class SeedEnsemble(PyODVocabulary):
    """The same detector with several seeds; their scores are joined.

    Networks that start elsewhere err elsewhere: the joint score varies less from run to run than a
    single one, and often ranks better. Members train side by side, see :func:`deepod.fit_many`.

    Parameters
    ----------
    detector : BaseDetector
        Is cloned for every member; its ``random_state`` is replaced. Its ``calibration_fraction``
        does not serve the ensemble: each member holds out other rows, all of which some other
        member may have trained on.
    n_members : int, default=5
        How many.
    combination : {"mean", "median", "max"}, default="mean"
        How the members' scores of a row become one, after each member's scores are shifted and
        scaled to mean 0 and standard deviation 1 over the training rows.
    contamination : float in [0, 0.5], "auto" or thresholder, default=0.1
        As in the detectors, for the joint score; that of ``detector`` has no effect.
    false_alarm_rate : float in (0, 1) or None, default=None
        As in the detectors, for the joint score; takes a call of ``calibrate(X)`` after ``fit``,
        so that ``fit_predict`` refuses it.
    n_jobs : int or None, default=None
        Processes that train; None means 1.
    random_state : int, RandomState or None, default=None
        Source of the members' seeds.

    Attributes
    ----------
    members_ : list of BaseDetector
        Fitted detectors.
    decision_scores_ : ndarray of shape (n_samples,), float64
        Joint scores of the training rows.
    threshold_ : float
        Scores above it are labelled 1.
    labels_ : ndarray of shape (n_samples,), int
        0 (normal) or 1 (anomaly) for the training rows.
    calibration_scores_ : ndarray, float64
        Joint scores of the rows given to ``calibrate``, in ascending order; only after that.
    given_threshold_ : float or None
        What ``set_threshold`` was given; it holds under the parameters of ``given_under_``.
    given_under_ : tuple or None
        ``contamination`` and ``false_alarm_rate`` as they were then.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if X had column names.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import PLAD, SeedEnsemble
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> ensemble = SeedEnsemble(PLAD(epochs=20), n_members=3, random_state=0).fit(X)
    >>> ensemble.predict([[0, 0, 0], [9, 9, 9]])
    array([0, 1])
    """

    members_: list[BaseDetector]

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "detector": [BaseDetector],
        "n_members": [integer(1)],
        "combination": [one_of("mean", "median", "max")],
        "contamination": CONTAMINATION,
        "false_alarm_rate": FALSE_ALARM_RATE,
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        detector: BaseDetector,
        n_members: int = 5,
        *,
        combination: Literal["mean", "median", "max"] = "mean",
        contamination: Contamination = 0.1,
        false_alarm_rate: float | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.detector = detector
        self.n_members = n_members
        self.combination = combination
        self.contamination = contamination
        self.false_alarm_rate = false_alarm_rate
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the members.

        Parameters
        ----------
        X, y : array-like
            As in the detector's ``fit``.

        Returns
        -------
        self : object
            If fit fails or is interrupted, self is as it was before.
        """
        self._validate_params()
        params = self.get_params(deep=False)
        fitted = type(self)(**params)
        seeds = spawn_seeds(self.random_state, self.n_members)
        fitted.members_ = fit_many(self.detector, X, y, seeds=seeds, n_jobs=self.n_jobs)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(fitted.members_[0], name):
                setattr(fitted, name, getattr(fitted.members_[0], name))
        # Of rows on disk, members may have kept no scores.
        scores = [
            m.decision_scores_ if hasattr(m, "decision_scores_") else m.decision_function(X)
            for m in fitted.members_
        ]
        fitted._remember_scores(fitted._join(scores))
        kept = {k: v for k, v in self.__dict__.items() if not k.endswith("_")}
        self.__dict__ = kept | fitted.__dict__ | params
        return self

    def decision_function(self, X: Any, batch_size: int | None = None) -> np.ndarray:
        """Return joint anomaly scores; higher = more anomalous.

        Parameters
        ----------
        X : array-like
            Samples shaped like those of ``fit``.
        batch_size : int, optional
            As in the detectors.

        Returns
        -------
        scores : ndarray of shape (n,), float64
        """
        check_is_fitted(self)
        return self._join([member.decision_function(X, batch_size) for member in self.members_])

    def _join(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """One score per row from one per row and member."""
        standardized = []
        for member, own in zip(self.members_, scores, strict=True):
            standardized.append((own - member._mu) / (member._sigma or 1.0))
        return cast(np.ndarray, getattr(np, self.combination)(standardized, axis=0))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "members_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = get_tags(self.detector).input_tags.allow_nan
        return tags
