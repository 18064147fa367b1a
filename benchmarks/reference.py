"""Classifiers to put beside detectors that are trained on labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyod.models.base import BaseDetector
from sklearn.ensemble import RandomForestClassifier


class RandomForest(BaseDetector):
    """scikit-learn's random forest in PyOD's words; for the protocol "supervised"."""

    def __init__(self, contamination: float = 0.1, random_state: int | None = None) -> None:
        super().__init__(contamination=contamination)
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: Any = None) -> RandomForest:
        """Fit on labelled rows."""
        if y is None:
            raise ValueError("RandomForest needs labels: --protocol supervised.")
        self.forest_ = RandomForestClassifier(random_state=self.random_state).fit(X, y)
        self.decision_scores_ = self.decision_function(X)
        self._process_decision_scores()
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Probability of being an anomaly."""
        return self.forest_.predict_proba(X)[:, 1]
