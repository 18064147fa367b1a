"""Grid search that trains all candidates and folds together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import check_scoring, get_scorer
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from deepod.ensemble import check_detector, fit_in_jobs


class StackedSearchCV(GridSearchCV):
    """Faster :class:`sklearn.model_selection.GridSearchCV` that trains many candidates at once.

    Candidates and folds are stacked and trained together (see :func:`deepod.fit_many`) if their
    networks, numbers of rows and numbers of epochs are equal. They may differ in ``lr``,
    ``weight_decay``, ``scaler``, ``random_state`` or a weight of the loss such as
    ``PLAD(lam=...)``. Candidates that differ in other parameters form further stacks or are trained
    one by one. Parameters, attributes and results are those of ``GridSearchCV``, except for the
    following.

    Parameters
    ----------
    estimator : BaseDetector
        A detector of deepod. For pipelines and other estimators, use ``GridSearchCV``.
    param_grid : dict or list of dict
        Parameters and the values to try, as in ``GridSearchCV``.
    scoring, refit, cv, error_score, return_train_score, verbose
        As in ``GridSearchCV``. Detectors have no ``score`` method, so ``scoring`` is needed: give
        "roc_auc" or the like, and pass y to ``fit``.
    n_jobs : int or None, default=None
        Number of processes to distribute the stacks to; None means 1.
    pre_dispatch : object
        Has no effect.

    Attributes
    ----------
    cv_results_ : dict
        As in ``GridSearchCV``, but ``mean_fit_time`` is the same for every candidate: the total
        time of training divided by the number of fits.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import PLAD, StackedSearchCV
    >>> X = np.random.default_rng(0).normal(size=(120, 3))
    >>> y = (np.arange(120) % 10 == 0).astype(int)
    >>> X[y == 1] += 4
    >>> search = StackedSearchCV(
    ...     PLAD(epochs=5, random_state=0), {"lam": [0.1, 5.0], "lr": [1e-3, 1e-2]},
    ...     scoring="roc_auc", cv=3,
    ... ).fit(X, y)
    >>> sorted(search.best_params_)
    ['lam', 'lr']
    """

    def fit(self, X: Any, y: Any = None, *, groups: Any = None) -> Self:
        """Train all candidates on all folds, score them, and refit the best on all rows.

        Parameters
        ----------
        X : array-like
            As in the detector's ``fit``.
        y : array-like of shape (n,), optional
            Labels for ``scoring``. Detectors train on them only if their parameter ``supervision``
            says so.
        groups : array-like of shape (n,), optional
            Groups of the rows, if ``cv`` splits by groups.

        Returns
        -------
        self : object
            The fitted search.

        Raises
        ------
        TypeError
            If ``estimator`` is not a detector of deepod.
        ValueError
            If a parameter is not valid; raised before training.
        """
        check_detector(self.estimator, "estimator")
        # Errors that GridSearchCV would raise after hours of training are raised now.
        self._validate_params()
        scorers = self._scorers()
        if isinstance(scorers, dict):
            self._check_refit_for_multimetric(scorers)
        candidates = list(ParameterGrid(self.param_grid))
        splits = list(check_cv(self.cv, y).split(X, y, groups))
        table = _Table(self.estimator, X, y, candidates, splits, self.n_jobs)
        rows = np.arange(_num_samples(X))
        # scikit-learn does everything but training, with an estimator that looks up results.
        inner = GridSearchCV(
            _LookUp(table),
            self.param_grid,
            scoring=_on_rows(scorers, table),
            n_jobs=1,  # in the order of the table, whatever joblib is told outside
            refit=self.refit,
            cv=splits,
            verbose=self.verbose,
            error_score=self.error_score,
            return_train_score=self.return_train_score,
        ).fit(rows, y)
        found = {name: value for name, value in vars(inner).items() if name.endswith("_")}
        found["scorer_"] = scorers
        found["cv_results_"]["mean_fit_time"][:] = table.seconds / len(table.fitted)
        found["cv_results_"]["std_fit_time"][:] = 0.0
        if "best_estimator_" in found:
            best = found["best_estimator_"] = inner.best_estimator_.detector_
            if hasattr(best, "feature_names_in_"):
                found["feature_names_in_"] = best.feature_names_in_
        kept = {name: value for name, value in vars(self).items() if not name.endswith("_")}
        self.__dict__ = kept | found
        return self

    def _scorers(self) -> Any:
        """Return ``scoring`` as a scorer or a dict of scorers."""
        if isinstance(self.scoring, Mapping):
            return {name: get_scorer(scorer) for name, scorer in self.scoring.items()}
        if isinstance(self.scoring, list | tuple | set):
            return {name: get_scorer(name) for name in self.scoring}
        return check_scoring(self.estimator, self.scoring)


class _Table:
    """The detectors trained for every candidate and fold, in scikit-learn's order."""

    def __init__(
        self,
        detector: Any,
        X: Any,
        y: Any,
        candidates: Sequence[dict[str, Any]],
        splits: Sequence[tuple[np.ndarray, np.ndarray]],
        n_jobs: int | None,
    ) -> None:
        self.detector, self.X, self.y, self.splits = detector, X, y, splits
        # One array per fold, so that candidates share what is computed from it.
        Xs = [_safe_indexing(X, train) for train, _ in splits]
        ys = [None if y is None else _safe_indexing(y, train) for train, _ in splits]
        began = time.perf_counter()
        detectors = [
            clone(detector).set_params(**clone(candidate, safe=False))
            for candidate in candidates
            for _ in splits
        ]
        self.fitted, self.errors = fit_in_jobs(
            detectors, Xs * len(candidates), ys * len(candidates), n_jobs
        )
        self.seconds = time.perf_counter() - began
        self.used = 0

    def next(self, train: np.ndarray) -> Any:
        """Return the next trained detector, or raise the error of its fit."""
        number, self.used = self.used, self.used + 1
        assert np.array_equal(train, self.splits[number % len(self.splits)][0])
        error = self.errors[number]
        if error is not None:
            raise error
        return self.fitted[number]

    def __deepcopy__(self, memo: Any) -> _Table:
        return self  # scikit-learn copies parameters for every fit


class _LookUp(BaseEstimator):
    """An estimator that is "fitted" on row numbers: it looks up the detector for these rows."""

    def __init__(self, table: _Table) -> None:
        self.table = table

    def set_params(self, **params: Any) -> Self:
        self.candidate = params
        return self

    def fit(self, rows: np.ndarray, y: Any = None) -> Self:
        table = self.table
        if table.used < len(table.fitted):
            self.detector_ = table.next(rows)
        else:  # the refit of the best candidate on all rows
            detector = clone(table.detector).set_params(**self.candidate)
            self.detector_ = detector.fit(table.X, table.y)
        return self


def _on_rows(scorers: Any, table: _Table) -> Any:
    """Turn scorers of detectors and samples into scorers of look-ups and row numbers."""
    if isinstance(scorers, dict):
        return {name: _on_rows(scorer, table) for name, scorer in scorers.items()}
    scorer: Callable[..., Any] = scorers

    def score(estimator: _LookUp, rows: np.ndarray, *y: Any) -> Any:
        return scorer(estimator.detector_, _safe_indexing(table.X, rows), *y)

    return score
