"""Compare detectors on your own arrays
====================================

Detectors on your own arrays, with a detector of your own among them, and a table.

A detector is named as on the command line: "AutoEncoder", "pyod:KNN", "module:Class" for any class
that follows PyOD, or "file.toml:section" for settings other than the defaults. Results are lines of
JSON; a run that was stopped goes on where it was.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from pyod.models.base import BaseDetector
from sklearn.covariance import LedoitWolf

from deepod import bench


class Mahalanobis(BaseDetector):
    """Your detector: the distance from the mean, by a shrunk covariance matrix."""

    def __init__(self, contamination=0.1):
        super().__init__(contamination=contamination)

    def fit(self, X, y=None):
        """Learn mean and covariance."""
        self.model_ = LedoitWolf().fit(X)
        self.decision_scores_ = self.decision_function(X)
        self._process_decision_scores()
        return self

    def decision_function(self, X):
        """Distances; higher = more anomalous."""
        return self.model_.mahalanobis(X)


def rings(seed, n=600, n_anomalies=60):
    """Your data: X of shape (n, d), and y with 1 = anomaly."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    ring = np.column_stack([np.cos(angle), np.sin(angle)]) + rng.normal(0, 0.1, (n, 2))
    inside = rng.normal(0, 0.2, (n_anomalies, 2))  # near the mean: Mahalanobis is wrong here
    return np.concatenate([ring, inside]), np.repeat([0, 1], [n, n_anomalies])


def draw(table, X, y):
    if find_spec("matplotlib") is None:
        print("The picture is left out: pip install matplotlib")
        return
    import matplotlib.pyplot as plt

    left, right = plt.figure(figsize=(9, 3.5), layout="constrained").subplots(1, 2)
    left.scatter(*X.T, c=y, s=8, cmap="coolwarm")
    left.set(title="rings: anomalies in red", aspect="equal")
    names = sorted({row["detector"] for row in table})
    areas = [[row["auc_roc"] for row in table if row["detector"] == name] for name in names]
    right.boxplot(areas, tick_labels=names)
    right.set(title="AUC-ROC, 2 datasets x 3 seeds", ylim=(-0.05, 1.05))
    plt.show()


def main(epochs="auto"):
    data = {"rings": rings(0), "other rings": rings(1)}
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "settings.toml"
        settings.write_text(f'[ours]\ndetector = "AutoEncoder"\nparams.epochs = {epochs!r}\n')
        names = [f"{settings}:ours", "pyod:KNN", f"{__name__}:Mahalanobis"]
        rows = bench.run(data, names, Path(folder) / "r.jsonl", seeds=3, progress=False)
    for row in rows:
        row["detector"] = row["detector"].rpartition(":")[2]
    print(bench.report(rows, per_dataset=True))
    draw(rows, *data["rings"])
    return rows


if __name__ == "__main__":
    main()
