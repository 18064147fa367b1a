"""Many detectors at once: one per seed, and ensembles of any detectors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, cast

import numpy as np
import torch
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.base import clone
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from deepod._base import BaseDetector
from deepod._inputs.seeds import spawn_seeds
from deepod._inputs.settings import fixed
from deepod._members import check_member, check_of_rows, scores_of, seed_member, training_scores
from deepod._scoring.as_module import as_module
from deepod._scoring.tails import Tail, ranked_as
from deepod._scoring.threshold import CONTAMINATION, FALSE_ALARM_RATE
from deepod._scoring.vocabulary import Contamination, PyODVocabulary
from deepod._storage.saved import Saved
from deepod._training.together import fit_all
from deepod.params import integer, one_of
from deepod.sources import is_mapped
from deepod.types import Shape

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


_PASSED_ON = re.compile(r"(categorical_features|datetime_features|missing)='(\w+)'")


def _with_member_params(error: Exception) -> Exception:
    """Add to the error of a member how a Consensus is given the parameters that it advises."""
    advised = dict(_PASSED_ON.findall(str(error)))
    if advised:
        error.add_note(f"A Consensus passes parameters on to its members: member_params={advised}.")
    return error


class Consensus(Saved, PyODVocabulary):
    """Several detectors of different kinds, whose scores are joined.

    Each member's scores become tails: minus the log of the share of training rows that score as
    high, so that members with scores in any unit count alike. The score of a row is the largest of
    them: one member that is sure suffices. Training rows are scored by members as if they had not
    been trained on.

    Parameters
    ----------
    detectors : sequence of detectors or None, default=None
        Detectors of deepod, PyOD and scikit-learn, also at the end of a scikit-learn pipeline. Each
        is cloned; a ``random_state`` of None is replaced. None stands for
        ``[Neighbors(), AutoEncoder(suspects=0.3)]``.
    member_params : dict or None, default=None
        Hyper-parameters that each member of deepod gets, such as ``{"missing": "impute"}``.
    combination : {"max", "mean", "median"}, default="max"
        How the members' tails of a row become one score.
    contamination : float in [0, 0.5], "auto" or thresholder, default=0.1
        As in the detectors, for the joint score; those of the members have no effect.
    false_alarm_rate : float in (0, 1) or None, default=None
        As in the detectors, for the joint score.
    n_jobs : int or None, default=None
        Processes that train detectors of deepod; None means 1.
    random_state : int, RandomState or None, default=None
        Source of the members' seeds.

    Attributes
    ----------
    members_ : list
        Fitted detectors.
    tails_ : list of Tail
        What turns the scores of each into tails.
    combination_ : str
        ``combination`` as it was in ``fit``, which the scores follow.
    decision_scores_ : ndarray of shape (n_samples,), float64
        Joint scores of the training rows.
    unseen_ : bool
        Whether all members score training rows as if they had not been trained on.
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

    Notes
    -----
    Detectors of deepod that are alike train side by side. Of others, ``fit`` makes two more copies,
    each of half of the rows, to learn how they score rows that they have not seen. PyOD's and
    scikit-learn's detectors scale nothing by themselves: give them as
    ``make_pipeline(StandardScaler(), KNN())``.

    Examples
    --------
    >>> import numpy as np
    >>> from pyod.models.iforest import IForest
    >>> from deepod import Consensus, Neighbors
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> Consensus(random_state=0).fit(X).predict([[0, 0, 0], [9, 9, 9]])
    array([0, 1])
    >>> mixed = Consensus([Neighbors(), IForest()], random_state=0).fit(X)
    >>> mixed.predict([[0, 0, 0], [9, 9, 9]])
    array([0, 1])
    """

    members_: list[Any]
    tails_: list[Tail]
    combination_: str
    unseen_: bool

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "detectors": [list, tuple, None],
        "member_params": [dict, None],
        "combination": [one_of("max", "mean", "median")],
        "contamination": CONTAMINATION,
        "false_alarm_rate": FALSE_ALARM_RATE,
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        detectors: Sequence[Any] | None = None,
        *,
        member_params: dict[str, Any] | None = None,
        combination: Literal["max", "mean", "median"] = "max",
        contamination: Contamination = 0.1,
        false_alarm_rate: float | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.detectors = detectors
        self.member_params = member_params
        self.combination = combination
        self.contamination = contamination
        self.false_alarm_rate = false_alarm_rate
        self.n_jobs = n_jobs
        self.random_state = random_state

    def _unfitted(self) -> list[Any]:
        """Make the members to fit, but for their seeds."""
        given = default_members() if self.detectors is None else self.detectors
        if not given:
            raise ValueError("detectors must hold at least one detector, or be None.")
        for member in given:
            check_member(member)
        members = [clone(member) for member in given]
        for member in members:
            if isinstance(member, BaseDetector):
                member.set_params(**self.member_params or {})
        return members

    def _seed(self, members: Sequence[Any]) -> None:
        """Give each member a seed, where it has none."""
        for member, seed in zip(members, spawn_seeds(self.random_state, len(members)), strict=True):
            seed_member(member, seed)

    @fixed()
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the members.

        Parameters
        ----------
        X, y : array-like
            As in the detectors' ``fit``; detectors of others are not given y.

        Returns
        -------
        self : object
            If fit fails or is interrupted, self is as it was before.

        Raises
        ------
        TypeError
            If a member is no detector.
        ValueError, FloatingPointError, MemoryError
            As ``fit`` of the first member that failed.
        """
        self._validate_params()
        params = self.get_params(deep=False)
        fitted = type(self)(**params)
        members = self._unfitted()
        self._seed(members)
        ours = [k for k, member in enumerate(members) if isinstance(member, BaseDetector)]
        found, errors = fit_in_jobs(
            [members[k] for k in ours], [X] * len(ours), [y] * len(ours), self.n_jobs
        )
        for error in errors:
            if error is not None:
                raise _with_member_params(error)
        for k, member in zip(ours, found, strict=True):
            members[k] = member
        scores = [training_scores(member, X) for member in members]
        fitted.members_, fitted.combination_ = members, self.combination
        fitted.tails_ = [Tail().learn(torch.from_numpy(known)) for known, _, _ in scores]
        for name in ("n_features_in_", "feature_names_in_"):
            for member in members:
                if hasattr(member, name):
                    setattr(fitted, name, getattr(member, name))
                    break
        fitted.unseen_ = all(getattr(member, "unseen_", True) for member in members)
        unseen, own = (fitted._join([of_member[k] for of_member in scores]) for k in (1, 2))
        joint = ranked_as(unseen, own)
        labels = [member._validate_y(y, len(joint)) for member in found]
        known = next((given for given in labels if given is not None), None)
        if fitted.unseen_ and known is not None:  # known anomalies are no measure of normal rows
            fitted.calibration_scores_ = np.sort(joint[known != 1])
        fitted._remember_scores(joint)
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
        return self._join([scores_of(member, X, batch_size) for member in self.members_])

    def score_batches(self, batches: Iterable[Any]) -> Iterator[np.ndarray]:
        """Score batches as they come, each by :meth:`decision_function`.

        Parameters
        ----------
        batches : iterable of array-like
            Samples shaped like those of ``fit``, at least one in each batch.

        Yields
        ------
        scores : ndarray of shape (n,), float64
            Of one batch.
        """
        for X in batches:
            yield self.decision_function(X)

    def explain(self, X: Any, batch_size: int | None = None) -> np.ndarray:
        """Find what each value of a row adds to its score.

        Parameters
        ----------
        X : array-like
            Samples shaped like those of ``fit``.
        batch_size : int, optional
            As in the detectors.

        Returns
        -------
        contributions : ndarray shaped like X, float64
            Each member's contributions, in proportion to the sum of their sizes, times its tail,
            joined as the tails are: in units of the score.

        Raises
        ------
        TypeError
            If a member has no ``explain``.
        """
        check_is_fitted(self)
        for member in self.members_:
            if not hasattr(member, "explain"):
                raise TypeError(f"{type(member).__name__} explains no scores.")
        tails = self._tails([scores_of(member, X, batch_size) for member in self.members_])
        total: Any = 0.0
        for member, own, weight in zip(self.members_, tails, self._weights(tails), strict=True):
            parts = member.explain(X, batch_size)
            sizes = np.abs(parts).reshape(len(parts), -1).sum(1)
            factors = weight * own / np.where(sizes > 0, sizes, 1.0)
            total = total + parts * factors.reshape(-1, *[1] * (parts.ndim - 1))
        return np.asarray(total)

    def as_module(self) -> nn.Module:
        """Return a torch module that maps rows to joint scores: see the detectors' ``as_module``.

        Returns
        -------
        module : torch.nn.Module
            Scores of one row depend on that row alone. An X that asks for gradients is refused
            with a RuntimeError if a member's scores have none, as those of ``Neighbors``.

        Raises
        ------
        NotFittedError
            If there is nothing to make it of yet.
        TypeError
            If a member is no detector of deepod; the message names it.
        """
        return as_module(self)

    @property
    def input_shape_(self) -> Shape:
        """Shape of one sample, as the first member of deepod sees it."""
        shape: Shape = self._first().input_shape_
        return shape

    @property
    def fill_(self) -> np.ndarray | None:
        """What takes the place of NaN in the first member of deepod; None if they are refused."""
        fill: np.ndarray | None = self._first().fill_
        return fill

    def _first(self) -> Any:
        for member in self.members_:
            if isinstance(member, BaseDetector):
                return member
        raise AttributeError("No member is a detector of deepod.")

    def _scores_as_unseen(self) -> bool:
        return all(
            not isinstance(member, BaseDetector) or member._scores_as_unseen()
            for member in self._unfitted()
        )

    def _tails(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """Tails, (members, rows), of one score per row and member."""
        pairs = zip(self.tails_, scores, strict=True)
        return np.stack([tail.of_array(own) for tail, own in pairs])

    def _join(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """One score per row from one per row and member."""
        return cast(np.ndarray, getattr(np, self.combination_)(self._tails(scores), axis=0))

    def _weights(self, tails: np.ndarray) -> np.ndarray:
        """By what the tails, (members, rows), are multiplied to make up the joint score."""
        k = len(tails)
        if self.combination_ == "mean":
            return np.full(tails.shape, 1 / k)
        place = tails.argsort(0).argsort(0)
        if self.combination_ == "max":
            return (place == k - 1).astype(float)
        middle = (place == (k - 1) // 2) | (place == k // 2)
        return middle / middle.sum(0)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "members_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        members = self._unfitted()
        tags.input_tags.allow_nan = all(get_tags(m).input_tags.allow_nan for m in members)
        return tags


def default_members() -> list[BaseDetector]:
    """Return what ``Consensus()`` is made of."""
    from deepod.models import AutoEncoder, Neighbors

    return [Neighbors(), AutoEncoder(suspects=0.3)]


class SeedEnsemble(Consensus):
    """The same detector with several seeds; their scores are joined as :class:`Consensus` does.

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
        How the members' tails of a row become one score.
    contamination : float in [0, 0.5], "auto" or thresholder, default=0.1
        As in the detectors, for the joint score; that of ``detector`` has no effect.
    false_alarm_rate : float in (0, 1) or None, default=None
        As in the detectors, for the joint score.
    n_jobs : int or None, default=None
        Processes that train; None means 1.
    random_state : int, RandomState or None, default=None
        Source of the members' seeds.

    Attributes
    ----------
    members_, tails_, combination_, decision_scores_, unseen_, threshold_, labels_ : object
        As in :class:`Consensus`.
    calibration_scores_, given_threshold_, given_under_ : object
        As in :class:`Consensus`.
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

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "detector": [BaseDetector],
        "n_members": [integer(1)],
        **{
            k: v
            for k, v in Consensus._parameter_constraints.items()
            if k not in ("detectors", "member_params")
        },
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

    def _unfitted(self) -> list[Any]:
        check_of_rows(self.detector)
        return [clone(self.detector) for _ in range(self.n_members)]

    def _seed(self, members: Sequence[Any]) -> None:
        for member, seed in zip(members, spawn_seeds(self.random_state, len(members)), strict=True):
            member.set_params(random_state=seed)

    def _scores_as_unseen(self) -> bool:
        return self.detector._scores_as_unseen()

    def __sklearn_tags__(self) -> Any:
        tags = PyODVocabulary.__sklearn_tags__(self)
        tags.input_tags.allow_nan = get_tags(self.detector).input_tags.allow_nan
        return tags
