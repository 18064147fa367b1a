"""Ensembles of detectors, and detectors that are fitted together with several seeds."""

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
    """Fit copies of a detector with several seeds, all at once.

    The copies train together as one stacked network if the method allows it (not on images, and not
    with recurrent layers). This takes a fraction of the time of separate fits and gives the same
    scores except for rounding; see the notes.

    Parameters
    ----------
    detector : BaseDetector
        The detector to fit. It is cloned and not changed.
    X, y : array-like
        As in the detector's ``fit``.
    seeds : iterable of int
        The ``random_state`` of each copy.
    n_jobs : int or None, default=None
        Number of processes to distribute the copies to, as in scikit-learn; None means 1.

    Returns
    -------
    detectors : list of BaseDetector
        The fitted copies, in the order of the seeds.

    Raises
    ------
    ValueError, FloatingPointError
        The error of the first copy whose fit failed. ValueError also if ``checkpoint`` is set,
        because several fits cannot share a file.

    Notes
    -----
    Products of stacked matrices differ from those of single matrices in the last digit, and
    training amplifies the difference. After a few epochs, scores still agree to six digits; after
    hundreds of steps, with BatchNorm or LeakyReLU, they may differ as much as with another seed.

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
    """Fit every detector on its X and y in ``n_jobs`` processes; return detectors and errors.

    Raises
    ------
    ValueError
        If two detectors have the same ``checkpoint``.
    """
    files = [Path(str(d.checkpoint)).resolve() for d in detectors if d.checkpoint is not None]
    if len(set(files)) < len(files):
        raise ValueError(
            "checkpoint is the same file for several detectors, but a file serves only one fit; "
            "set checkpoint=None for detectors that are fitted together."
        )
    mapped = [is_mapped(X) for X in Xs]

    def fitted(part: slice) -> tuple[list[Any], list[Exception | None]]:
        mine = list(detectors[part])
        # joblib passes large arrays as memory maps, which fit would otherwise read from disk.
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
    """Raise TypeError if an argument is not a detector of deepod."""
    if not isinstance(detector, BaseDetector):
        raise TypeError(
            f"{name} must be a deepod detector such as PLAD(), got {type(detector).__name__}."
        )


_PASSED_ON = re.compile(r"(categorical_features|datetime_features|missing)='(\w+)'")


def _with_member_params(error: Exception) -> Exception:
    """Return a member's error, with a note on how to set the parameters that it recommends."""
    advised = dict(_PASSED_ON.findall(str(error)))
    if advised:
        error.add_note(f"A Consensus passes parameters on to its members: member_params={advised}.")
    return error


class Consensus(Saved, PyODVocabulary):
    """Ensemble of several detectors; its default suits tables about which nothing is known.

    To make scores comparable, each member's score of a row is turned into a tail: minus the
    logarithm of the share of training rows that score as high. The joint score of a row is its
    largest tail by default, so that one member that finds the row odd suffices. Members score the
    training rows as if they had not been trained on them. If you know that all training rows are
    normal, set ``novelty=True``.

    Parameters
    ----------
    detectors : sequence of detectors or None, default=None
        Detectors of deepod, PyOD and scikit-learn, or scikit-learn pipelines that end in one. They
        are cloned, and every ``random_state`` that is None gets a seed. None stands for
        ``[Neighbors(), LocalReconstruction(), IsolationForest(), AutoEncoder(suspects=0.3)]``,
        or for the first two if ``novelty`` is True.
    novelty : bool, default=False
        Whether the training rows are known to be normal (novelty detection, in scikit-learn's
        words). The default members and the default combination are those that rank best then,
        and take a fraction of the time. With anomalies among the rows, they lose more.
    member_params : dict or None, default=None
        Hyper-parameters to set on every member of deepod, such as ``{"missing": "impute"}``.
    combination : {"auto", "max", "mean", "median"}, default="auto"
        How to compute the joint score of a row from the members' tails. "auto" is the mean if
        ``novelty`` is True, and the maximum if not.
    contamination : float in [0, 0.5], "auto" or thresholder, default=0.1
        As in the detectors, for the joint scores. That of the members has no effect.
    false_alarm_rate : float in (0, 1) or None, default=None
        As in the detectors, for the joint scores. That of the members has no effect.
    n_jobs : int or None, default=None
        Number of processes that train the members of deepod; None means 1.
    random_state : int, RandomState or None, default=None
        Seed from which the seeds of the members are drawn.

    Attributes
    ----------
    members_ : list
        The fitted members.
    tails_ : list of Tail
        For each member, the object that turns its scores into tails.
    combination_ : str
        How scoring joins the tails: ``combination`` in ``fit``, or what "auto" stood for.
    decision_scores_ : ndarray of shape (n_samples,), float64
        Joint scores of the training rows.
    unseen_ : bool
        Whether all members score training rows as if they had not been trained on.
    threshold_ : float
        Rows with a joint score above it are labelled 1.
    labels_ : ndarray of shape (n_samples,), int
        Labels of the training rows: 0 = normal, 1 = anomaly.
    calibration_scores_ : ndarray, float64
        Joint scores of the rows given to ``calibrate``, in ascending order. Absent before.
    given_threshold_ : float or None
        The argument of the last ``set_threshold``. It is used while ``contamination`` and
        ``false_alarm_rate`` have the values in ``given_under_``.
    given_under_ : tuple or None
        Values of ``contamination`` and ``false_alarm_rate`` when ``set_threshold`` was called.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Absent if X had none.

    Notes
    -----
    Members of deepod with the same architecture train together as one stacked network. Each member
    of PyOD or scikit-learn is fitted three times: on all rows, and on each half of them, to learn
    how it scores rows that it has not seen. These detectors do not scale their input: pass them as
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
        "novelty": ["boolean"],
        "member_params": [dict, None],
        "combination": [one_of("auto", "max", "mean", "median")],
        "contamination": CONTAMINATION,
        "false_alarm_rate": FALSE_ALARM_RATE,
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        detectors: Sequence[Any] | None = None,
        *,
        novelty: bool = False,
        member_params: dict[str, Any] | None = None,
        combination: Literal["auto", "max", "mean", "median"] = "auto",
        contamination: Contamination = 0.1,
        false_alarm_rate: float | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.detectors = detectors
        self.novelty = novelty
        self.member_params = member_params
        self.combination = combination
        self.contamination = contamination
        self.false_alarm_rate = false_alarm_rate
        self.n_jobs = n_jobs
        self.random_state = random_state

    def _unfitted(self) -> list[Any]:
        """Return the members to fit, without their seeds."""
        given = default_members(self.novelty) if self.detectors is None else self.detectors
        if not given:
            raise ValueError(
                "detectors is empty; give at least one detector, or None for the default ones."
            )
        for member in given:
            check_member(member)
        members = [clone(member) for member in given]
        for member in members:
            if isinstance(member, BaseDetector):
                member.set_params(**self.member_params or {})
        return members

    def _how_to_combine(self) -> str:
        """Return what ``combination`` stands for."""
        if self.combination == "auto":
            return "mean" if self.novelty else "max"
        return self.combination

    def _seed(self, members: Sequence[Any]) -> None:
        """Set a seed on each member that has none."""
        for member, seed in zip(members, spawn_seeds(self.random_state, len(members)), strict=True):
            seed_member(member, seed)

    @fixed()
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the members and set the threshold of the joint score.

        Parameters
        ----------
        X : array-like
            Training samples, as in the detectors' ``fit``.
        y : array-like of shape (n,), optional
            Labels, which are passed to members of deepod only.

        Returns
        -------
        self : object
            The fitted ensemble. If the fit fails or is interrupted, self is left unchanged.

        Raises
        ------
        TypeError
            If a member is not a detector.
        ValueError, FloatingPointError, MemoryError
            The error of the first member whose fit failed.
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
        fitted.members_, fitted.combination_ = members, self._how_to_combine()
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
            Number of rows to score at once, as in the detectors.

        Returns
        -------
        scores : ndarray of shape (n,), float64
            Joint scores in the order of X.
        """
        check_is_fitted(self)
        return self._join([scores_of(member, X, batch_size) for member in self.members_])

    def score_batches(self, batches: Iterable[Any]) -> Iterator[np.ndarray]:
        """Return an iterator over the joint scores of batches, computed one after the other.

        Parameters
        ----------
        batches : iterable of array-like
            Batches of samples shaped like those of ``fit``, each with at least one sample.

        Yields
        ------
        scores : ndarray of shape (n,), float64
            Joint scores of one batch of n samples.
        """
        for X in batches:
            yield self.decision_function(X)

    def explain(self, X: Any, batch_size: int | None = None) -> np.ndarray:
        """Return how much each value of a row contributes to its joint score.

        Parameters
        ----------
        X : array-like
            Samples shaped like those of ``fit``.
        batch_size : int, optional
            Number of rows to score at once, as in the detectors.

        Returns
        -------
        contributions : ndarray shaped like X, float64
            Contributions in units of the joint score. The contributions of each member are divided
            by the sum of their absolute values, multiplied by the member's tail, and joined by
            ``combination`` as the tails are.

        Raises
        ------
        TypeError
            If a member has no ``explain``, as the detectors of PyOD and scikit-learn.
        """
        check_is_fitted(self)
        for member in self.members_:
            if not hasattr(member, "explain"):
                raise TypeError(
                    f"The member {type(member).__name__} has no explain; only ensembles whose "
                    "members are all detectors of deepod explain scores."
                )
        tails = self._tails([scores_of(member, X, batch_size) for member in self.members_])
        total: Any = 0.0
        for member, own, weight in zip(self.members_, tails, self._weights(tails), strict=True):
            parts = member.explain(X, batch_size)
            sizes = np.abs(parts).reshape(len(parts), -1).sum(1)
            factors = weight * own / np.where(sizes > 0, sizes, 1.0)
            total = total + parts * factors.reshape(-1, *[1] * (parts.ndim - 1))
        return np.asarray(total)

    def as_module(self) -> nn.Module:
        """Return a torch module that computes the joint scores of unscaled rows.

        See :meth:`deepod.BaseDetector.as_module`.

        Returns
        -------
        module : torch.nn.Module
            A module that maps a tensor of n rows to a float64 tensor of shape (n,). It raises a
            RuntimeError if X requires gradients and a member's score has none, as that of
            ``Neighbors``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called.
        TypeError
            If a member is not a detector of deepod; the message names it.
        """
        return as_module(self)

    @property
    def input_shape_(self) -> Shape:
        """The shape of one sample, as in the first member of deepod."""
        shape: Shape = self._first().input_shape_
        return shape

    @property
    def fill_(self) -> np.ndarray | None:
        """The values that replace NaN in the first member of deepod; None if NaN is refused."""
        fill: np.ndarray | None = self._first().fill_
        return fill

    def _first(self) -> Any:
        for member in self.members_:
            if isinstance(member, BaseDetector):
                return member
        raise AttributeError(
            "This ensemble has no such attribute, because no member is a detector of deepod."
        )

    def _scores_as_unseen(self) -> bool:
        return all(
            not isinstance(member, BaseDetector) or member._scores_as_unseen()
            for member in self._unfitted()
        )

    def _tails(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """Return the tails, (members, rows), of one score per row and member."""
        pairs = zip(self.tails_, scores, strict=True)
        return np.stack([tail.of_array(own) for tail, own in pairs])

    def _join(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """Return one joint score per row from one score per row and member."""
        return cast(np.ndarray, getattr(np, self.combination_)(self._tails(scores), axis=0))

    def _weights(self, tails: np.ndarray) -> np.ndarray:
        """Return the weights, (members, rows), by which tails sum up to the joint score."""
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


def default_members(novelty: bool) -> list[BaseDetector]:
    """Return the members of ``Consensus()``, or of ``Consensus(novelty=True)``."""
    from deepod.models import AutoEncoder, IsolationForest, LocalReconstruction, Neighbors

    members: list[BaseDetector] = [Neighbors(), LocalReconstruction()]
    if not novelty:
        members += [IsolationForest(), AutoEncoder(suspects=0.3)]
    return members


class SeedEnsemble(Consensus):
    """Ensemble of copies of one detector with different seeds, joined as in :class:`Consensus`.

    The copies start from different weights and make different errors. The joint score therefore
    varies less from run to run than that of a single detector, and often ranks better. The copies
    train together, see :func:`deepod.fit_many`.

    Parameters
    ----------
    detector : BaseDetector
        The detector to clone for every member, with a new ``random_state``. Its
        ``calibration_fraction`` does not calibrate the ensemble, because the rows that one member
        holds out are trained on by others.
    n_members : int, default=5
        Number of members.
    combination : {"mean", "median", "max"}, default="mean"
        How to compute the joint score of a row from the members' tails.
    contamination : float in [0, 0.5], "auto" or thresholder, default=0.1
        As in the detectors, for the joint scores. That of ``detector`` has no effect.
    false_alarm_rate : float in (0, 1) or None, default=None
        As in the detectors, for the joint scores. That of ``detector`` has no effect.
    n_jobs : int or None, default=None
        Number of processes that train the members; None means 1.
    random_state : int, RandomState or None, default=None
        Seed from which the seeds of the members are drawn.

    Attributes
    ----------
    members_, tails_, combination_, decision_scores_, unseen_, threshold_, labels_ : object
        As in :class:`Consensus`.
    calibration_scores_, given_threshold_, given_under_ : object
        As in :class:`Consensus`.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Absent if X had none.

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
            if k not in ("detectors", "novelty", "member_params")
        },
        "combination": [one_of("max", "mean", "median")],
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
