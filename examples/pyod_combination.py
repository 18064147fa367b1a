"""One ensemble of our detectors and PyOD's
========================================

Our detectors and PyOD's in one ensemble, by PyOD's own means.

Scores of different detectors have different units: ``standardizer`` brings those of the test rows
to the mean and the standard deviation of the training rows before they are combined. LSCP and SUOD
fit unfitted detectors themselves. PyOD combines by another library: ``pip install combo``.
"""

from importlib.util import find_spec

import numpy as np
from pyod.models.combination import aom, average, maximization, moa
from pyod.models.iforest import IForest
from pyod.models.knn import KNN
from pyod.models.lscp import LSCP
from pyod.utils.utility import standardizer
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from deepod import PLAD, AutoEncoder
from deepod.bench.protocols import split_table
from deepod.datasets import load_bundled


def detectors(epochs):
    ours = [AutoEncoder(epochs=epochs, random_state=0), PLAD(epochs=epochs, random_state=0)]
    return [*ours, KNN(), IForest(random_state=0)]


def draw(areas):
    if find_spec("matplotlib") is None:
        print("The picture is left out: pip install matplotlib")
        return
    import matplotlib.pyplot as plt

    axes = plt.figure(figsize=(7, 3.5), layout="constrained").subplots()
    axes.plot(list(areas.values()), list(areas), "o")
    axes.invert_yaxis()
    axes.set(xlabel="AUC-ROC")
    axes.grid(alpha=0.4)
    plt.show()


def main(epochs="auto"):
    split = split_table("one-class", *load_bundled("breast_cancer", return_X_y=True), seed=0)
    scaler = StandardScaler().fit(split.X_train)  # KNN and LSCP need it, ours have it
    X_train, X_test = scaler.transform(split.X_train), scaler.transform(split.X_test)

    fitted = [detector.fit(X_train) for detector in detectors(epochs)]
    scores = {type(d).__name__: d.decision_function(X_test) for d in fitted}
    train = np.column_stack([d.decision_scores_ for d in fitted])
    _, table = standardizer(train, np.column_stack(list(scores.values())))
    scores |= {"average": average(table), "maximization": maximization(table)}
    # Average of maxima and maximum of averages, over two random halves of the detectors.
    scores |= {"AOM": aom(table, 2, random_state=0), "MOA": moa(table, 2, random_state=0)}

    lscp = LSCP(detectors(epochs), n_bins=4, random_state=0).fit(X_train)
    scores["LSCP"] = lscp.decision_function(X_test)
    if find_spec("suod"):
        from pyod.models.suod import SUOD

        plain = {"rp_flag_global": False, "approx_flag_global": False, "bps_flag": False}
        suod = SUOD(detectors(epochs), n_jobs=1, **plain).fit(X_train)
        scores["SUOD"] = suod.decision_function(X_test)
    else:
        print("SUOD is left out: pip install suod")

    areas = {name: roc_auc_score(split.y_test, values) for name, values in scores.items()}
    for name, area in areas.items():
        print(f"{name:<14}AUC-ROC {area:.3f}")
    draw(areas)
    return areas


if __name__ == "__main__":
    main()
