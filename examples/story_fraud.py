"""Story: frauds among payments
============================

A table with text, dates and gaps, from the first fit to a model in use.

The payments are made up, because no table of real ones may be shipped. There are four columns:
amount, kind of payment, shop and time. About 2 % are frauds, of three sorts:

- half of them buy electronics online, at night, for three times the usual amount;
- a quarter pay large sums for fuel online, which hardly any customer does;
- a quarter look like any other payment.

The truth plays the people who review and complain, and it counts what was found. No detector sees
it otherwise. On real payments frauds are rarer and less clear: take the steps from this page, not
the figures. You need ``pip install "deepod[data,plots,onnx]"``.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

import deepod
from deepod import AnoRand, Consensus, onnx, review
from deepod.plotting import plot_contributions

# %%
# Load
# ----
#
# With a file of your own, this cell is ``past = pd.read_csv("past.csv", parse_dates=["time"])``.

SHOPS = pd.DataFrame(
    {
        "share": [0.45, 0.2, 0.2, 0.1, 0.05],
        "amount": [30, 55, 70, 150, 200],
        "online": [0.1, 0.01, 0.5, 0.5, 0.1],
    },
    index=["grocer", "fuel", "clothes", "electronics", "jeweller"],
)
SORTS = ["none", "night", "fuel online", "looks normal"]


def payments(n, start, seed):
    """Return n payments of two months, and the sort of fraud that each of them is."""
    rng = np.random.default_rng(seed)
    sort = rng.choice(SORTS, n, p=[0.98, 0.01, 0.005, 0.005])
    night, fuel = sort == "night", sort == "fuel online"
    shop = rng.choice(SHOPS.index, n, p=SHOPS["share"]).astype(object)
    shop[night], shop[fuel] = "electronics", "fuel"
    online = (rng.random(n) < SHOPS["online"][shop]) | night | fuel
    amount = SHOPS["amount"][shop].to_numpy() * rng.lognormal(0, 0.3, n)
    amount[night | fuel] *= 3
    hour = np.where(night, rng.uniform(0, 5, n), rng.normal(14, 3, n).clip(6, 23))
    shop[rng.random(n) < 0.02] = None  # gaps among text
    amount[rng.random(n) < 0.02] = np.nan  # gaps among numbers
    days = pd.to_timedelta(rng.integers(0, 60, n), unit="D")
    frame = pd.DataFrame(
        {
            "amount": amount.round(2),
            "kind": np.where(online, "online", rng.choice(["card", "phone"], n, p=[0.7, 0.3])),
            "shop": shop,
            "time": pd.Timestamp(start) + days + pd.to_timedelta((hour * 3600).round(), unit="s"),
        }
    )
    return frame, sort


past, past_sort = payments(3000, "2025-01-01", seed=0)
later, later_sort = payments(3000, "2025-03-02", seed=1)
print(past.head())

# %%
# Fit
# ---
#
# ``Consensus`` is the detector for a table about which you know nothing. It hands the parameters in
# ``member_params`` on to its members. "from_dtype" means: encode what pandas holds as text, as a
# category or as a time. ``fit`` sees no labels. ``encoder_`` says what became of each column.

mixed = {
    "categorical_features": "from_dtype",
    "datetime_features": "from_dtype",
    "missing": "impute",  # a gap among numbers becomes the median
}
detector = Consensus(member_params=mixed, contamination=0.02, random_state=0).fit(past)
for column, made in detector.members_[0].encoder_.summary().items():
    print(f"{column}: {made}")

# %%
# A threshold that you can explain
# --------------------------------
#
# A score says which of two payments is the stranger one, and nothing else. Three numbers make it
# usable:
#
# - ``contamination=0.02`` asks for a threshold above which about 2 % of payments like those of
#   ``past`` lie. It is the size of the daily work list, not a claim about the number of frauds.
# - A p-value is the share of payments like those of ``past`` that score as high or higher.
# - A false alarm is a flagged payment that is no fraud. You can count these only where you know the
#   truth, as here.

scores = detector.decision_function(later)
flagged = scores > detector.threshold_  # what detector.predict(later) returns, as 0 and 1
fraud = later_sort != "none"
p = detector.p_values(later)
print(f"flagged {flagged.mean():.1%} of the later payments, where 2 % were asked for")
print(f"of {flagged.sum()} flagged payments {fraud[flagged].sum()} are frauds")
print(f"the strangest payment has the p-value {p.min():.4f}, the median one {np.median(p):.2f}")

axes = plt.figure(figsize=(7, 2.5), layout="constrained").subplots()
for row, sort in enumerate(SORTS):
    axes.plot(scores[later_sort == sort], np.full((later_sort == sort).sum(), row), "|")
axes.axvline(detector.threshold_, color="black", linestyle="--", label="threshold")
axes.set_yticks(range(len(SORTS)), SORTS)
axes.set(xlabel="score", title="later payments, by sort of fraud")
axes.legend()
plt.show()

# %%
# ``detector.contamination = 0.01`` moves the threshold at once, without another fit.
#
# Review
# ------
#
# Look at the payments with the highest scores before you trust any number. ``explain`` says what
# each column added to a score. Here are the first five rows of ``past``, and the reasons for the
# first one. ``decision_scores_`` holds the scores of the training rows, each as if it had not been
# trained on.

order = np.argsort(-detector.decision_scores_)
top = past.iloc[order[:5]]
reasons = detector.explain(top)
print(top.assign(reason=past.columns[reasons.argmax(1)]))

axes = plt.figure(figsize=(7, 2.2), layout="constrained").subplots()
plot_contributions(reasons[0], feature_names=list(past.columns), ax=axes)
axes.set_title("what each column added to the highest score")
plt.show()

# %%
# People work better on a page than on a printed array. ``review.write`` makes one file for the
# browser: each row beside what is typical, and keys to mark it as anomaly, normal or unsure. The
# marks are downloaded as a CSV file. (This page writes to a folder that is deleted at the end. Take
# ``folder = Path(".")`` to keep the files.)

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
page = folder / "review.html"
written = review.write(page, detector, past, top=10, scores=detector.decision_scores_)
print(f"{written.shown} rows on a page of {page.stat().st_size / 1024:.0f} KiB")

# %%
# Ten marks
# ---------
#
# The truth plays the reviewer and marks the ten payments on that page. 1 is a fraud; all other rows
# count as unlabelled, those that were marked normal too.

marks = np.zeros(len(past), dtype=int)
marks[order[:10]] = past_sort[order[:10]] != "none"
print(f"{marks.sum()} of the ten are frauds")

# %%
# ``Consensus`` takes no labels. ``AnoRand`` does, if ``supervision`` asks for it: its network also
# learns to tell the marked rows from all others.


def learn(marks):
    """Return a detector that has learned from marked payments."""
    detector = AnoRand(supervision="few_labels", contamination=0.02, random_state=0, **mixed)
    return detector.fit(past, marks)


def found(name, flagged):
    """Return the share of each sort of fraud that is flagged, and print it."""
    shares = [flagged[later_sort == sort].mean() for sort in SORTS[1:]]
    said = ", ".join(f"{s} {share:.0%}" for s, share in zip(SORTS[1:], shares, strict=True))
    print(f"{name}: {said}; false alarms {flagged[~fraud].mean():.1%}")
    return shares


bars = {"no labels": found("no labels", flagged)}
bars["ten marks"] = found("ten marks", learn(marks).predict(later) == 1)

# %%
# The marks are frauds at night, which ``Consensus`` had found without them: labels teach what they
# show. Two customers complain about payments for fuel, and these two labels are worth more than the
# ten marks.

marks[np.flatnonzero(past_sort == "fuel online")[:2]] = 1
taught = learn(marks)
bars["and two complaints"] = found("and two complaints", taught.predict(later) == 1)

axes = plt.figure(figsize=(7, 3), layout="constrained").subplots()
pd.DataFrame(bars, index=SORTS[1:]).plot.bar(ax=axes, rot=0, ylim=(0, 1), ylabel="share flagged")
axes.set_title("frauds among the later payments")
plt.show()

# %%
# The frauds that look like other payments are not found by anything: no column tells them apart.
# How much labels help differs from table to table, and on some they are worth nothing; the
# benchmarks have the figures.
#
# Save, and load elsewhere
# ------------------------
#
# A saved model is a folder of numbers and text. Loading it runs no code from it. It holds the
# encoding, the threshold and the parameters, and takes tables with text and dates as they are.

taught.save(folder / "model")
again = deepod.load(folder / "model")
assert (again.decision_function(later) == taught.decision_function(later)).all()

# %%
# Score without Python
# --------------------
#
# An ONNX file is read by runtimes for C, Java, JavaScript and others. It takes numbers only, so a
# detector that encodes text is refused:

try:
    onnx.export(taught, folder / "model.onnx")
except TypeError as error:
    print(error)

# %%
# What can be deployed so is the part behind the encoding. Encode by scikit-learn, fit on the
# numbers, and export that detector: scaling, network, score and threshold are in the file, and so
# is what takes the place of a gap. The few lines that make the numbers have to be written again in
# the program that scores.


def hour(frame):
    """Return the place of a time in the day, as sine and cosine."""
    angle = 2 * np.pi * frame["time"].dt.hour.to_numpy() / 24
    return np.column_stack([np.sin(angle), np.cos(angle)])


encode = make_column_transformer(
    ("passthrough", ["amount"]),
    (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["kind", "shop"]),
    (FunctionTransformer(hour), ["time"]),
)
numbers = AnoRand(
    supervision="few_labels", contamination=0.02, missing="impute", random_state=0
).fit(encode.fit_transform(past), marks)
onnx.export(numbers, folder / "model.onnx")
session = onnxruntime.InferenceSession(folder / "model.onnx")
onnx_scores, onnx_labels = session.run(None, {"X": encode.transform(later)})
difference = np.abs(onnx_scores - numbers.decision_function(encode.transform(later))).max()
print(f"largest difference from decision_function: {difference:.0e}")
found("ONNX file", onnx_labels == 1)
temporary.cleanup()

# %%
# What to remember
# ----------------
#
# - The threshold held: about 2 % of new payments are flagged. How many of them are frauds is known
#   only after somebody has looked.
# - The first model finds what is strange. What is strange need not be fraud, and a fraud need not
#   be strange.
# - A few labels of a sort that the first model misses are worth more than many of a sort that it
#   finds.
