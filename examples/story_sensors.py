"""Story: sensors of a pump
========================

A series of several sensors: fit on a normal stretch, find what is abnormal and why, then go live.

The pump is made up: five sensors, one value a minute. Flow, pressure, current and both temperatures
follow the load. Three things happen that are faults, and one that is not. The last part does the
same with a real series, if you have it. You need ``pip install "deepod[data,plots]"``.
"""

import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import deepod
from deepod.datasets import load_series
from deepod.metrics import detection_delay, events, range_f1, vus_pr
from deepod.plotting import plot_series
from deepod.series import SeriesConsensus

# %%
# Load
# ----
#
# A series is a table whose rows are points in time, in their order. A DataFrame may have a time
# index, which serves the pictures. With a file of your own, this cell is
# ``frame = pd.read_csv("pump.csv", index_col="time", parse_dates=True)``.

rng = np.random.default_rng(0)
n = 5000
minutes = np.arange(n)
load = 1 + 0.3 * np.sin(2 * np.pi * minutes / 240) + 0.1 * np.sin(2 * np.pi * minutes / 37)


def noise(size):
    return size * rng.normal(size=n)


frame = pd.DataFrame(
    {
        "flow": 40 * load + noise(0.8),
        "pressure": 3 + 0.8 * load**2 + noise(0.05),
        "current": 12 * load + noise(0.3),
        "inlet": 18 + noise(0.1),
        "outlet": 18 + 4 * np.roll(load, 5) + noise(0.1),
    },
    index=pd.date_range("2025-05-01", periods=n, freq="min"),
)
faults = np.zeros(n, dtype=int)
frame.iloc[3300:3360, 1] -= 0.5  # a leak: less pressure at the same flow
frame.iloc[3800:3900, 0] = frame.iloc[3800, 0]  # a flow meter that is stuck
frame.iloc[4300:4380, 2] *= 1.2  # a bearing: more current at the same load
for start, stop in [(3300, 3360), (3800, 3900), (4300, 4380)]:
    faults[start:stop] = 1
frame.iloc[4600:, 3:] += np.linspace(0, 2, n - 4600)[:, None]  # the water gets warmer: no fault

# %%
# Fit on a normal stretch
# -----------------------
#
# Take a stretch in which nothing is wrong, as far as you know, and as much of it as covers what the
# machine usually does. Columns need no scaling.
#
# ``smoothing="causal"`` makes every score depend on this point and those before it, which a live
# stream needs. For a series that is looked at afterwards the default, "centred", ranks better.

train, test, y = frame[:3000], frame[3000:], faults[3000:]
detector = SeriesConsensus(smoothing="causal", random_state=0).fit(train)

# %%
# Whoever is woken by alarms counts stretches, not points. ``set_event_rate(1)`` sets the threshold
# so that at most one stretch in 1000 normal points is flagged. It counts in the last fifth of
# ``train``, which was held out.
#
# Score and look
# --------------
#
# The first points of ``test`` have no past of their own; ``context`` gives it to them.

detector.set_event_rate(1)
scores = detector.decision_function(test, context=train)
figure = plot_series(detector, test, y, context=train, scores=scores)
plt.show()

# %%
# Which sensor made it so
# -----------------------
#
# ``events`` lists the stretches above the threshold; those with at most 30 points between them are
# one. ``explain`` says what each channel added to the score of each point. The three faults are
# found, with the right channels: pressure, flow, current. A stretch ends late, because each score
# is a mean over some of the past.

reasons = detector.explain(test, context=train)
for start, stop in detector.events(test, gap=30, context=train):
    channel = test.columns[reasons[start:stop].sum(axis=0).argmax()]
    sure = "a fault" if y[start:stop].any() else "no fault"
    print(f"{test.index[start]:%H:%M} for {stop - start} minutes: {channel}, {sure}")

# %%
# Short stretches that are no fault are what one in 1000 points allows. The warmer water at the end
# is no fault either, and it is flagged for hours: the detector knows the temperatures of ``train``
# and no others. Nothing in the data tells a drift from a fault. When the normal has changed, fit
# again, or set the threshold on recent normal points with ``calibrate``.
#
# How good is it
# --------------
#
# Only with labels can that be said. Points of one fault belong together, so metrics of single
# points say little. VUS-PR judges the order of the scores, the range F1 judges the alarms, and the
# delay says how late they were. The drift costs most of the VUS-PR, as its scores are the highest.
# The range F1 is low with or without it: alarms that go on after the fault count as wrong.

flagged = (scores > detector.threshold_).astype(int)
for name, stop in (("before the drift", 1600), ("with it", len(y))):
    vus, f1 = vus_pr(y[:stop], scores[:stop]), range_f1(y[:stop], flagged[:stop])
    print(f"{name}: VUS-PR {vus:.2f}, range F1 {f1:.2f}")
delay = detection_delay(y, flagged)
print(f"{delay.detected} of {delay.events} faults, {delay.mean:.0f} minutes after their beginning")

# %%
# Live
# ----
#
# A stream takes points as they come and gives the same scores, in constant memory.

stream = detector.stream(context=train)
live = np.array([stream.push(point) for point in test.to_numpy()[:400]])
print(f"largest difference: {np.abs(live - scores[:400]).max():.0e}")
alarm = 300 + np.argmax(live[300:] > stream.threshold)
print(f"the leak began at {test.index[300]:%H:%M}, the alarm came at {test.index[alarm]:%H:%M}")

# %%
# Restart
# -------
#
# A process ends one day. Save the detector once, and the state of the stream as often as you like.
# The new process loads both and goes on with the next point.

with tempfile.TemporaryDirectory() as folder:
    detector.save(Path(folder) / "pump")
    stream.save(Path(folder) / "pump.stream")

    # in the new process:
    loaded = deepod.load(Path(folder) / "pump")
    stream = loaded.stream().load(Path(folder) / "pump.stream")

rest = stream.push_many(test[400:])
print(f"{stream.n_points} points seen; largest difference {np.abs(rest - scores[400:]).max():.0e}")

# %%
# A real series
# -------------
#
# Made series are kind. The taxi rides of New York of the Numenta Anomaly Benchmark (NAB) are not:
# one value each half hour, with labelled stretches around five days (a marathon, Thanksgiving,
# Christmas, New Year, a blizzard). This part needs the file, in the folder that the environment
# variable DEEPOD_DATA names.

file = Path(os.environ.get("DEEPOD_DATA", "")) / "timeseries/NAB/realKnownCause__nyc_taxi.npz"
if file.is_file():
    taxi = load_series(file)
    rides = np.concatenate([taxi.data, taxi.test])
    y = np.concatenate([np.zeros(len(taxi.data), dtype=int), taxi.test_target])
    weeks = 6 * 7 * 48  # six weeks to learn from, in half hours
    detector = SeriesConsensus(random_state=0).fit(rides[:weeks]).set_event_rate(1)
    scores = detector.decision_function(rides[weeks:], context=rides[:weeks])
    flagged = scores > detector.threshold_
    found = sum(flagged[start:stop].any() for start, stop in events(y[weeks:]))
    print(f"VUS-PR {vus_pr(y[weeks:], scores):.2f}, alarms in {found} of 5 labelled stretches")
    print(f"but {flagged[y[weeks:] == 0].mean():.0%} of the normal points are flagged")
    plot_series(detector, rides[weeks:], y[weeks:], scores=scores, context=rides[:weeks])
    plt.show()
else:
    print("The file of NAB is not there: this part is left out.")

# %%
# What to remember
# ----------------
#
# - The order of the scores is worth more than the threshold: series drift, and a threshold set on
#   one month flags too much of the next.
# - Reasons name the channel that stands out, which is where to look first, not always the cause.
