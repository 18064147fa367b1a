"""What integrated gradients leave of a score, and whether they blame a value that was shifted.

``python -m benchmarks.explain --help``
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

import deepod
from benchmarks import _common, adbench
from deepod._scoring import explain as _explain_module
from deepod.bench import environment, protocols
from deepod.bench.reporting.tables import markdown

NODES = (32, 64, _explain_module.NODES, 256)
SHIFT = 5.0  # standard deviations by which one value of a normal row is moved
MOST_TRAINING, MOST_TEST = 2000, 200
NARROW = 10  # columns that the report tells apart from more


class Cell(NamedTuple):
    """One fit."""

    dataset: str
    detector: str
    seed: int


def measure(cell: Cell) -> dict[str, Any]:
    """Fit a detector with its defaults on normal rows, and explain test rows.

    Returns
    -------
    dict
        ``gaps``: for each number of nodes, quantiles over the test rows of what contributions lack
        of the difference between the scores of row and baseline, beside the sum of their sizes;
        ``gaps_of_anomalies``: beside that difference, over the anomalies alone. ``blamed``: for
        each rule, the share of normal rows in which the largest contribution is that of the value
        that was shifted; ``chance`` is that of guesses. ``seconds``: of 200 rows.
    """
    table = adbench.load(cell.dataset)
    X = table.data[:, np.ptp(table.data, axis=0) > 0].astype(float)
    split = protocols.split_table("one-class", X, table.target, cell.seed, MOST_TRAINING, MOST_TEST)
    detector = getattr(deepod, cell.detector)(random_state=cell.seed).fit(split.X_train)
    began = time.perf_counter()
    scores = detector.decision_function(split.X_test)
    seconds = {"score": time.perf_counter() - began}
    start = detector.decision_function(
        (detector.baseline_ * detector.scale_ + detector.shift_)[None]
    )
    wanted, anomalous = scores - start, split.y_test == 1
    gaps, of_anomalies = {}, {}
    known = _explain_module.NODES
    try:
        for nodes in NODES:
            _explain_module.NODES = nodes
            began = time.perf_counter()
            found = detector.explain(split.X_test, rule="gradients")
            seconds[f"{nodes} nodes"] = time.perf_counter() - began
            missing = np.abs(found.sum(1) - wanted)
            gaps[nodes] = _quantiles(missing / np.abs(found).sum(1))
            of_anomalies[nodes] = _quantiles((missing / np.abs(wanted))[anomalous])
    finally:
        _explain_module.NODES = known
    odd, places = shifted(split.X_test[~anomalous], split.X_train.std(0), cell.seed)
    blamed = {
        rule: float(np.mean(detector.explain(odd, rule=rule).argmax(1) == places))
        for rule in ("auto", "gradients")
    }
    return {
        "gaps": gaps,
        "gaps_of_anomalies": of_anomalies,
        "blamed": blamed,
        "chance": 1 / X.shape[1],
        "features": X.shape[1],
        "seconds": seconds,
    }


def shifted(X: np.ndarray, spread: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Move one value of each row, of those that vary in training, by ``SHIFT`` of its spreads.

    Returns
    -------
    X : ndarray of shape (n, d)
    places : ndarray of shape (n,)
        Which value.
    """
    rng = np.random.default_rng(seed)
    places = rng.choice(np.flatnonzero(spread > 0), len(X))
    X = X.copy()
    X[np.arange(len(X)), places] += SHIFT * spread[places] * rng.choice([-1, 1], len(X))
    return X, places


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return {name: float(np.quantile(values, q)) for name, q in
            (("median", 0.5), ("0.95", 0.95), ("max", 1))}  # fmt: skip


def report(found: Sequence[dict[str, Any]]) -> str:
    """Render two tables, in percent: medians of the gaps, and means of the shares blamed."""
    used = str(_explain_module.NODES)
    gaps, shares = [], []
    for row in found:
        name = {"detector": row["detector"]}
        medians = {f"{nodes} nodes": gap["median"] for nodes, gap in row["gaps"].items()}
        tail = {f"{used} nodes, {q}": row["gaps"][used][q] for q in ("0.95", "max")}
        gaps.append(name | medians | tail | {"anomalies": row["gaps_of_anomalies"][used]["median"]})
        width = f"up to {NARROW}" if row["features"] <= NARROW else "more"
        blamed = {f"{width} columns: {rule}": share for rule, share in row["blamed"].items()}
        shares.append(name | blamed | {f"{width} columns: chance": row["chance"]})
    tables = [
        pd.DataFrame(gaps).groupby("detector").median(),
        pd.DataFrame(shares).groupby("detector").mean(),
    ]
    return "\n\n".join(markdown(100 * table, "{:.2g}".format) for table in tables)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explain", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="file of JSON lines to append to")
    add("--datasets", default="development", help="groups or names, with commas")
    add("--detectors", default=",".join(deepod.DETECTORS), help="names with commas")
    add("--seeds", type=int, default=3)
    args = parser.parse_args(argv)
    names = [dataset.name for dataset in adbench.find(args.datasets)]
    detectors = args.detectors.split(",")
    cells = [Cell(*c) for c in product(names, detectors, range(args.seeds))]
    torch.set_num_threads(1)
    about = environment.describe() | environment.machine()
    print(report(_common.measure_missing(args.out, Cell, cells, measure, about, "fit")))


if __name__ == "__main__":
    main()
