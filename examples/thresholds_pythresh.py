"""Thresholds in four ways
=======================

Thresholds: a share, a rule, a bound on false alarms, or one of PyThresh's.

Two ways to train. Where anomalies are among the training rows, ``contamination`` is their share, or
something that finds it. Where all training rows are normal, ``false_alarm_rate`` holds some of them
out and bounds how many new normal rows are flagged.
"""

from importlib.util import find_spec

import numpy as np
from sklearn.metrics import f1_score

from deepod import DeepSVDD
from deepod.bench.protocols import split_table
from deepod.datasets import load_bundled


def draw(found):
    if find_spec("matplotlib") is None:
        print("The picture is left out: pip install matplotlib")
        return
    import matplotlib.pyplot as plt

    axes = plt.figure(figsize=(7, 3), layout="constrained").subplots()
    axes.barh(list(found), list(found.values()))
    axes.set(xlabel="F1 on the test rows", xlim=(0, 1))
    axes.invert_yaxis()
    plt.show()


def main(epochs="auto"):
    X, y = load_bundled("breast_cancer", return_X_y=True)
    kept = np.concatenate([np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:40]])
    X, y = X[kept], y[kept]

    def fit_and_show(protocol, name, **threshold):
        split = split_table(protocol, X, y, seed=0)
        detector = DeepSVDD(epochs=epochs, random_state=0, **threshold).fit(split.X_train)
        labels = detector.predict(split.X_test)
        false_alarms = labels[split.y_test == 0].mean()
        f1 = f1_score(split.y_test, labels)
        print(f"{name:<32}{labels.mean():>8.0%}{false_alarms:>14.0%}{f1:>7.2f}")
        return f1

    print(f"10 % of the training rows are anomalies\n{'':<32} flagged  false alarms    F1")
    found = {}
    rules = {"contamination=0.05": 0.05, "contamination=0.1": 0.1, 'contamination="auto"': "auto"}
    if find_spec("pythresh"):
        from pythresh.thresholds.filter import FILTER
        from pythresh.thresholds.karch import KARCH

        rules |= {"contamination=KARCH()": KARCH(), "contamination=FILTER()": FILTER()}
    else:
        print("PyThresh is left out: pip install pythresh")
    for name, contamination in rules.items():
        found[name] = fit_and_show("unsupervised", name, contamination=contamination)

    print("All training rows are normal")
    share = {"contamination": 0.05}
    found["share"] = fit_and_show("one-class", "contamination=0.05", **share)
    bound = {"false_alarm_rate": 0.05, "calibration_fraction": 0.2}
    found["bound"] = fit_and_show("one-class", "false_alarm_rate=0.05", **bound)
    draw(found)
    return found


if __name__ == "__main__":
    main()
