"""Several detectors of series, whose scores are joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from deepod._inputs.seeds import spawn_seeds
from deepod._inputs.series import Series, as_series
from deepod._members import seed_member
from deepod._scoring.threshold import CONTAMINATION, FALSE_ALARM_RATE
from deepod._scoring.vocabulary import Contamination, PyODVocabulary
from deepod.params import one_of
from deepod.series._methods import SeriesMethods
from deepod.series._running import Joined, Scorer
from deepod.types import Shape


class SeriesConsensus(SeriesMethods, PyODVocabulary):
    """Several detectors of series, whose scores are joined: what to take for an unknown series.

    The score of each member is divided by its mean on normal points that the member has not
    learned from, so that scores of any unit count alike; where that is not above 0, as it may be of
    :class:`LSTMVAE`, they are taken as they are. The score of a point is the largest of
    them: one member that is sure suffices.

    Parameters
    ----------
    detectors : sequence of detectors or None, default=None
        Of :mod:`deepod.series`; others inside :class:`Windows`. Each is cloned; a ``random_state``
        of None is replaced. None stands for ``[WindowNeighbors(), RidgeAR()]``.
    smoothing : {"centred", "causal"} or None, default="centred"
        That of the members that None stands for; detectors that are given keep their own.
    combination : {"max", "mean"}, default="max"
        How the members' scores of a point become one.
    contamination : float in [0, 0.5], "auto" or thresholder, default=0.1
        As in the detectors, for the joint score; those of the members have no effect.
    false_alarm_rate : float in (0, 1) or None, default=None
        As in the detectors, for the joint score.
    random_state : int, RandomState or None, default=None
        Source of the members' seeds.

    Attributes
    ----------
    members_ : list
        Fitted detectors.
    units_ : ndarray of shape (n_members,), float64
        What the scores of each are divided by.
    combination_ : str
        ``combination`` as it was in ``fit``, which the scores follow.
    decision_scores_ : ndarray of shape (n_points,), float64
        Joint scores of the points of the training series, one series after the other.
    threshold_ : float
        Scores above it are labelled 1.
    labels_ : ndarray of shape (n_points,), int
    unseen_ : bool
        Whether the threshold follows points that no member has learned from: those that all members
        have held out, or that a member scores as if it had, such as :class:`WindowNeighbors`.
    warm_up_ : int
        First points of a series, without ``context``, for which a member has no score of its own.
    n_features_in_ : int
        Channels.
    feature_names_in_ : ndarray of str
        Only if X had column names.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.series import SeriesConsensus
    >>> x = np.sin(np.arange(2000) / 5)
    >>> detector = SeriesConsensus(random_state=0).fit(x[:1500])
    >>> test = x[1500:].copy()
    >>> test[250:260] = 0.0
    >>> abs(int(detector.decision_function(test).argmax()) - 255) < 60
    True
    """

    members_: list[Any]
    units_: np.ndarray
    combination_: str

    # For list_detectors().
    family: ClassVar[str] = "ensemble"
    inputs: ClassVar[tuple[str, ...]] = ("series",)
    paper: ClassVar[str] = "Any detectors of series"

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "detectors": [list, tuple, None],
        "smoothing": [one_of("centred", "causal"), None],
        "combination": [one_of("max", "mean")],
        "contamination": CONTAMINATION,
        "false_alarm_rate": FALSE_ALARM_RATE,
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        detectors: Sequence[Any] | None = None,
        *,
        smoothing: Literal["centred", "causal"] | None = "centred",
        combination: Literal["max", "mean"] = "max",
        contamination: Contamination = 0.1,
        false_alarm_rate: float | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.detectors = detectors
        self.smoothing = smoothing
        self.combination = combination
        self.contamination = contamination
        self.false_alarm_rate = false_alarm_rate
        self.random_state = random_state

    @property
    def warm_up_(self) -> int:
        """The number of first points, without context, of which a member has no score."""
        check_is_fitted(self)
        return max(member.warm_up_ for member in self.members_)

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the members.

        Parameters
        ----------
        X : array-like of shape (T,), (T, channels) or (n, T, channels), or a list of series
            As in the members' ``fit``.
        y : object, optional
            Ignored.

        Returns
        -------
        self : object
            If fit fails or is interrupted, self is as it was before.

        Raises
        ------
        TypeError
            If a member is no detector of series.
        ValueError, FloatingPointError
            As ``fit`` of the first member that failed.
        """
        self._validate_params()
        params = self.get_params(deep=False)
        fitted = type(self)(**params)
        series = as_series(X)
        members = self._unfitted()
        for member, seed in zip(members, spawn_seeds(self.random_state, len(members)), strict=True):
            seed_member(member, seed)
            member.fit(series)
        fitted.members_, fitted.combination_ = members, self.combination
        unseen = [member._unseen_scores for member in members if member.unseen_]
        means = [
            np.nanmean(member._unseen_scores if member.unseen_ else member.decision_scores_)
            for member in members
        ]
        fitted.units_ = np.array([mean if mean > 0 else 1.0 for mean in means])
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(members[0], name):
                setattr(fitted, name, getattr(members[0], name))
        scores = fitted._join([member.decision_scores_ for member in members])
        joint = fitted._join(unseen) if len(unseen) == len(members) else np.array(np.nan)
        known = not np.isnan(joint).all()  # by all members, of some points
        fitted._remember_points(scores, series.lengths, joint if known else None)
        kept = {k: v for k, v in self.__dict__.items() if not k.endswith("_")}
        self.__dict__ = kept | fitted.__dict__ | params
        return self

    def _unfitted(self) -> list[Any]:
        from deepod.series import RidgeAR, WindowNeighbors

        given = self.detectors
        if given is None:
            smoothing = self.smoothing
            given = [WindowNeighbors(smoothing=smoothing), RidgeAR(smoothing=smoothing)]
        if not given:
            raise ValueError("detectors must hold at least one detector, or be None.")
        for member in given:
            if not isinstance(member, SeriesMethods) or isinstance(member, SeriesConsensus):
                raise TypeError(
                    "detectors must hold detectors of deepod.series; put others into "
                    f"Windows(...): got {member!r}."
                )
        return [clone(member) for member in given]

    def _scores(self, series: Series, context: Any, batch_size: int | None) -> np.ndarray:
        return self._join([m._scores(series, context, batch_size) for m in self.members_])

    def _join(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """One score per point from one per point and member."""
        in_units = np.stack(scores) / self.units_[:, None]
        return in_units.max(0) if self.combination_ == "max" else in_units.mean(0)

    def _explained(self, series: Series, context: Any, batch_size: int | None) -> np.ndarray:
        """Give the reasons of the member whose score is the joint one, or the mean of all."""
        terms = [member._explained(series, context, batch_size) for member in self.members_]
        in_units = np.stack(terms) / self.units_[:, None, None]
        if self.combination_ == "mean":
            return in_units.mean(0)
        scores = [member._scores(series, context, batch_size) for member in self.members_]
        which = (np.stack(scores) / self.units_[:, None]).argmax(0)
        return in_units[which, np.arange(len(which))]

    def _averaged_over(self) -> float:
        return max(member._averaged_over() for member in self.members_)

    def _scorer(self) -> Scorer:
        return Joined([member._scorer() for member in self.members_], self._join)

    @property
    def input_shape_(self) -> Shape:
        """The shape of one point: (channels,)."""
        return (self.n_features_in_,)

    def _reach(self) -> int:
        return max(member._reach() for member in self.members_)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "members_")
