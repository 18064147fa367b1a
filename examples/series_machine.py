"""A machine with many sensors
===========================

A machine with many sensors: which stretches are abnormal, and which sensors made them so.

The series is the machine 1-6 of the Server Machine Dataset, if it is in the folder that DEEPOD_DATA
names (timeseries/SMD/machine-1-6.npz), else one that is made up: twenty sensors that follow three
loads, of which two drift apart for a while.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from deepod.datasets import load_series
from deepod.metrics import range_f1, vus_pr
from deepod.plotting import plot_series
from deepod.series import LSTMAD, RidgeAR, SeriesConsensus


def made_up(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(n)[:, None]
    loads = np.sin(2 * np.pi * t / [60, 90, 150]) + 0.3 * rng.normal(size=(n, 3))
    x = loads @ rng.normal(size=(3, 20)) + 0.2 * rng.normal(size=(n, 20))
    y = np.zeros(n, dtype=int)
    x[3200:3260, [4, 11]] += 4 * np.hanning(60)[:, None]
    y[3200:3260] = 1
    return x[:2500], x[2500:], y[2500:]


def machine():
    file = Path(os.environ.get("DEEPOD_DATA", "")) / "timeseries/SMD/machine-1-6.npz"
    if not file.is_file():
        print(f"There is no {file}: the machine is made up.")
        return made_up()
    series = load_series(file)
    return series.data[-8000:], series.test[:8000], series.test_target[:8000]


def draw(detector, test, y, scores, train):
    if find_spec("matplotlib") is None:
        print("The picture is left out: pip install matplotlib")
        return
    import matplotlib.pyplot as plt

    plot_series(detector, test, y, context=train, scores=scores, n_channels=4)
    plt.show()


def main(epochs="auto"):
    train, test, y = machine()
    found, drawn = {}, None
    for detector in (SeriesConsensus(random_state=0), RidgeAR(), LSTMAD(epochs=epochs)):
        name = type(detector).__name__
        detector.fit(train).set_event_rate(1)  # at most one false event in 1000 normal points
        scores = detector.decision_function(test, context=train)
        flagged = (scores > detector.threshold_).astype(int)
        found[name] = vus_pr(y, scores)
        print(f"{name}: VUS-PR {found[name]:.2f}, range F1 {range_f1(y, flagged):.2f}")
        drawn = drawn or (detector, test, y, scores, train)
        reasons = detector.explain(test, context=train)
        for start, stop in detector.events(test, gap=50, context=train)[:5]:
            channels = reasons[start:stop].sum(0).argsort()[::-1][:3]
            sure = "true" if y[start:stop].any() else "false"
            print(f"  points {start} to {stop - 1} ({sure}): channels {channels.tolist()}")
    draw(*drawn)
    return found


if __name__ == "__main__":
    main()
