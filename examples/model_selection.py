"""Choose hyper-parameters of a whole pipeline, on the few labels that are at hand.

``fit`` ignores y by default, and the labels serve for scoring alone. Here the detector is asked to
leave the known anomalies out of its training rows. The folds must be stratified and shuffled: an
outlier detector is no classifier, so ``cv=3`` would mean unshuffled folds, and a fold without an
anomaly has no AUC.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline

from deepod import PLAD


def main(epochs="auto"):
    X, digit = load_digits(return_X_y=True)
    normal, nines = X[digit < 3], X[digit == 9][:40]
    X = np.concatenate([normal, nines])
    y = np.repeat([0, 1], [len(normal), len(nines)])

    detector = PLAD(supervision="drop_anomalies", epochs=epochs, random_state=0)
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
    return search


if __name__ == "__main__":
    main()
