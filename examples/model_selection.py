"""Choose hyper-parameters of a pipeline
=====================================

Choose hyper-parameters of a whole pipeline, on the few labels that are at hand.

``fit`` ignores y by default, and the labels serve for scoring alone. Here the detector is asked to
leave the known anomalies out of its training rows. The folds must be stratified and shuffled: an
outlier detector is no classifier, so ``cv=3`` would mean unshuffled folds, and a fold without an
anomaly has no AUC.
"""

from importlib.util import find_spec

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline

from deepod import PLAD


def draw(results):
    if find_spec("matplotlib") is None:
        print("The picture is left out: pip install matplotlib")
        return
    import matplotlib.pyplot as plt

    names = [", ".join(f"{k} = {v}" for k, v in params.items()) for params in results["params"]]
    axes = plt.figure(figsize=(8, 2.5), layout="constrained").subplots()
    axes.barh(names, results["mean_test_score"], xerr=results["std_test_score"])
    axes.set(xlabel="AUC-ROC, mean and deviation over the folds", xlim=(0.5, 1.02))
    plt.show()


def main(epochs="auto"):
    X, digit = load_digits(return_X_y=True)
    normal, nines = X[digit < 3], X[digit == 9][:40]
    X = np.concatenate([normal, nines])
    y = np.repeat([0, 1], [len(normal), len(nines)])

    # Cross-fitting moves thresholds alone, and AUC-ROC needs none: a search does without.
    detector = PLAD(
        supervision="drop_anomalies", epochs=epochs, cross_fitting=False, random_state=0
    )
    pipeline = Pipeline([("reduce", PCA(random_state=0)), ("detector", detector)])
    search = GridSearchCV(
        pipeline,
        {"reduce__n_components": [10, 30], "detector__lam": [1, 3]},
        scoring="roc_auc",
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
    ).fit(X, y)
    for params, auc in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    ):
        print(f"AUC-ROC {auc:.3f}  {params}")
    print(f"best: {search.best_params_}")
    draw(search.cv_results_)
    return search


if __name__ == "__main__":
    main()
