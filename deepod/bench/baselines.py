"""Simple detectors with which every benchmark of time series is compared."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from pyod.models.base import BaseDetector
from scipy.ndimage import uniform_filter1d
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA


class _Baseline(BaseDetector):
    """Base class of detectors that score training rows like all others."""

    def fit(self, X: np.ndarray, y: Any = None) -> Self:
        """Fit on rows."""
        self._learn(X)
        self.decision_scores_ = self.decision_function(X)
        self._process_decision_scores()
        return self

    def _learn(self, X: np.ndarray) -> None:
        """Learn nothing, where there is nothing to learn."""


class Random(_Baseline):
    """Random scores, which show what a metric is worth."""

    def __init__(self, contamination: float = 0.1, random_state: int | None = None) -> None:
        super().__init__(contamination=contamination)
        self.random_state = random_state

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return a random number for each row."""
        return np.random.default_rng(self.random_state).uniform(size=len(X))


class MovingAverage(_Baseline):
    """The distance of a point of a series from the mean of the last points, including itself."""

    def __init__(self, contamination: float = 0.1, window: int = 50) -> None:
        super().__init__(contamination=contamination)
        self.window = window

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return the mean distance over the channels, which have been scaled before."""
        past = (self.window - 1) // 2  # shifts the window to end at the point
        mean = uniform_filter1d(
            np.asarray(X, float), self.window, axis=0, mode="nearest", origin=past
        )
        return np.abs(X - mean).mean(axis=1)


class PrincipalComponents(_Baseline):
    """Mahalanobis distance by principal components, with equal variance in all other directions."""

    def __init__(self, contamination: float = 0.1, variance: float = 0.95) -> None:
        super().__init__(contamination=contamination)
        self.variance = variance

    def _learn(self, X: np.ndarray) -> None:
        self.pca_ = PCA(self.variance, svd_solver="full").fit(X)

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return minus the log-likelihood."""
        return -self.pca_.score_samples(X)


class NearestCentre(_Baseline):
    """The distance to the nearest centre of k-means."""

    def __init__(
        self, contamination: float = 0.1, n_clusters: int = 20, random_state: int | None = None
    ) -> None:
        super().__init__(contamination=contamination)
        self.n_clusters = n_clusters
        self.random_state = random_state

    def _learn(self, X: np.ndarray) -> None:
        clusters = min(self.n_clusters, len(X))
        self.centres_ = KMeans(clusters, random_state=self.random_state).fit(X)

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return the distances."""
        return self.centres_.transform(X).min(axis=1)
