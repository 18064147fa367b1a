"""What a few known anomalies are worth
====================================

A few known anomalies: what they are worth beside none.

The rows are divided as ADBench does: 70 % train, of their anomalies 5 or 25 % are labelled, and
all others count as unlabelled. AnoRand trains with these labels, and without; the isolation forest
has no use for them. The tables are scikit-learn's digits (the 8 is the anomaly), and ADBench's
cardio if it is in the folder that DEEPOD_DATA names. Six labels are worth much on the digits, and
much AUC-PR on cardio.
"""

from importlib.util import find_spec

import numpy as np
from pyod.models.iforest import IForest
from sklearn.metrics import average_precision_score, roc_auc_score

from deepod import AnoRand
from deepod.bench.protocols import split_table
from deepod.datasets import load_adbench, load_bundled


def tables():
    yield load_bundled("digits")
    try:
        yield load_adbench("cardio")
    except FileNotFoundError as error:
        print(f"cardio is left out. {error}")


def draw(found):
    if find_spec("matplotlib") is None:
        print("The picture is left out: pip install matplotlib")
        return
    import matplotlib.pyplot as plt

    labels = [f"{name}\n({table})" for table, name in found]
    axes = plt.figure(figsize=(8, 1 + 0.5 * len(found)), layout="constrained").subplots()
    axes.barh(labels, [pr for _, pr in found.values()])
    axes.set(xlabel="AUC-PR on the test rows", xlim=(0, 1))
    axes.invert_yaxis()
    plt.show()


def main(epochs="auto"):
    labelled = AnoRand(supervision="few_labels", epochs=epochs)
    trials = {
        "AnoRand, 5 % of the anomalies labelled": (labelled, "few-labels-5"),
        "AnoRand, 25 % labelled": (labelled, "few-labels-25"),
        "AnoRand, no labels": (AnoRand(epochs=epochs), "unsupervised"),
        "IForest, no labels": (IForest(), "unsupervised"),  # the same rows
    }
    found = {}
    for table in tables():
        print(f"{table.name}: {len(table.target)} rows, {table.target.sum()} anomalies")
        for name, (detector, protocol) in trials.items():
            areas = []
            for seed in range(2):
                split = split_table(protocol, table.data, table.target, seed)
                shown = split.given if detector is labelled else None
                detector.set_params(random_state=seed).fit(split.X_train, shown)
                scores = detector.decision_function(split.X_test)
                y = split.y_test
                areas.append([roc_auc_score(y, scores), average_precision_score(y, scores)])
            found[table.name, name] = roc, pr = np.mean(areas, axis=0)
            print(f"  {name:<40}AUC-ROC {roc:.3f}  AUC-PR {pr:.3f}")
    draw(found)
    return found


if __name__ == "__main__":
    main()
