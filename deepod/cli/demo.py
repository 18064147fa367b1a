"""``deepod demo``: a comparison with detectors of PyOD on data that scikit-learn ships."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from pyod.models.ecod import ECOD
from pyod.models.iforest import IForest
from pyod.models.knn import KNN
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from deepod import PLAD, Consensus
from deepod.plotting import plot_scores


class Data(NamedTuple):
    """Normal rows to train on; normal and anomalous rows to test on."""

    train: np.ndarray
    test: np.ndarray
    target: np.ndarray


class Result(NamedTuple):
    """The result of one detector."""

    name: str
    auc_roc: float
    auc_pr: float
    fit_seconds: float
    score_seconds: float
    scores: np.ndarray


def load(seed: int) -> Data:
    """Return half of the benign tumours for training; the others and all malignant ones to test."""
    X, benign = load_breast_cancer(return_X_y=True)
    train, held_out = train_test_split(X[benign == 1], test_size=0.5, random_state=seed)
    scale = StandardScaler().fit(train)
    test = np.concatenate([held_out, X[benign == 0]])
    target = np.repeat([0, 1], [len(held_out), int((benign == 0).sum())])
    return Data(scale.transform(train), scale.transform(test), target)


def run(data: Data, seed: int) -> list[Result]:
    """Fit and score every detector, with a progress bar on a terminal."""
    from tqdm.auto import tqdm

    ours = [Consensus(random_state=seed), PLAD(random_state=seed)]
    detectors: list[Any] = [*ours, IForest(random_state=seed), ECOD(), KNN()]
    results = []
    for detector in tqdm(detectors, desc="fit", unit="detector", disable=None):
        began = time.perf_counter()
        detector.fit(data.train)
        fitted = time.perf_counter()
        scores = detector.decision_function(data.test)
        scored = time.perf_counter()
        results.append(
            Result(
                type(detector).__name__,
                float(roc_auc_score(data.target, scores)),
                float(average_precision_score(data.target, scores)),
                fitted - began,
                scored - fitted,
                scores,
            )
        )
    return results


def picture(data: Data, results: list[Result]) -> Any:
    """Return a figure with one panel of score distributions per detector."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    panels[-1].set_axis_off()  # there are five
    for panel, result in zip(panels, results, strict=False):
        plot_scores(result.scores, data.target, ax=panel)
        panel.set_title(f"{result.name}: AUC-ROC {result.auc_roc:.3f}")
    return figure
