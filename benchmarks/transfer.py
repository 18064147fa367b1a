"""What a fitted detector is worth on another machine, and what it forgets on a third.

``python -m benchmarks.transfer --help``
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.metrics import roc_auc_score

from benchmarks import _common
from deepod import AutoEncoder
from deepod.bench import environment
from deepod.bench.reporting.tables import markdown
from deepod.continual import METHODS, ContinualTrainer
from deepod.metrics import vus_pr
from deepod.networks import MLP
from deepod.series import LSTMAD, Windows

WINDOW = 50
SIZES = (200, 500, 2000)  # windows of the target
WAYS = {
    "source alone": "source alone",
    "scratch": "from scratch",
    "frozen": '`transfer("encoder")`',
    "tuned": "`transfer()`",
    "gentle": "`transfer(lr_scale=0.1)`",
}
DETECTORS = ("LSTMAD", "AutoEncoder")
TITLES = {"vus_pr": "VUS-PR", "roc_auc": "AUC-ROC", "flagged": "share of flagged normal points"}
# Signals that are made: period and gain of each. The first is the source, or the first task.
MADE = ((25, 1.0), (40, 2.0), (15, 0.6))
MACHINES = ("machine-1-6", "machine-2-1", "machine-3-3")
SOURCE_POINTS, TEST_POINTS, TASK_POINTS = 4000, 4000, 2000


class Cell(NamedTuple):
    """One fit on a target, or one detector on three tasks."""

    part: str  # "transfer" or "continual"
    data: str
    detector: str
    way: str
    windows: int  # of the target; 0: not of its matter
    seed: int


def cells(seeds: int) -> list[Cell]:
    """List all cells."""
    targets = ("made", MACHINES[1])
    found = []
    for data, detector, way, seed in product(targets, DETECTORS, WAYS, range(seeds)):
        sizes = (0,) if way == "source alone" else SIZES
        found += [Cell("transfer", data, detector, way, n, seed) for n in sizes]
    pairs = (("made", "LSTMAD"), ("made", "AutoEncoder"), ("SMD", "LSTMAD"))
    tasks = product(pairs, METHODS, range(seeds))
    return found + [Cell("continual", *pair, way, 0, seed) for pair, way, seed in tasks]


# --- series ---------------------------------------------------------------------------------------


def signal(period: float, gain: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Three channels of waves with noise."""
    t = np.arange(n)[:, None] + rng.integers(1000)
    turn = 2 * np.pi * t / period + np.arange(3)
    return gain * (np.sin(turn) + np.sin(2 * turn) / 2 + 0.1 * rng.normal(size=(n, 3)))


def made(number: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make a normal series, a test series and its labels: steps, other periods, still channels."""
    period, gain = MADE[number]
    rng = np.random.default_rng([10 + seed, number])
    train = signal(period, gain, SOURCE_POINTS, rng)
    test, labels = signal(period, gain, 3000, rng), np.zeros(3000, int)
    for kind, start in enumerate(np.linspace(100, 2850, 15).astype(int)):
        part = slice(start, start + rng.integers(15, 40))
        length, channel = part.stop - part.start, rng.integers(3)
        labels[part] = 1
        if kind % 3 == 0:
            test[part, channel] += gain
        elif kind % 3 == 1:
            test[part] = signal(0.6 * period, gain, length, rng)
        else:
            test[part, channel] = test[part, channel].mean()
    return train, test, labels


@cache
def machine(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read a machine of SMD; its test series from 1000 points before the first anomaly on."""
    file = Path(os.environ["DEEPOD_DATA"]) / "timeseries" / "SMD" / f"{name}.npz"
    with np.load(file) as arrays:
        train, test, labels = (arrays[k] for k in ("train", "test", "test_labels"))
    start = max(0, int(labels.argmax()) - 1000)
    part = slice(start, start + TEST_POINTS)
    return train[:SOURCE_POINTS].astype(float), test[part].astype(float), labels[part].astype(int)


# --- source and target ----------------------------------------------------------------------------


def detector_of_series(name: str, seed: int, inner: Any = None) -> Any:
    """Make a detector with its defaults, of windows of one length."""
    if name == "LSTMAD":
        return inner or LSTMAD(window=WINDOW, random_state=seed)
    return Windows(inner or AutoEncoder(random_state=seed), window=WINDOW, random_state=seed)


@cache
def source(data: str, detector: str, seed: int) -> Any:
    """Fit a detector on the source."""
    train = made(0, seed)[0] if data == "made" else machine(MACHINES[0])[0]
    return detector_of_series(detector, seed).fit(train)


def transfer(cell: Cell) -> dict[str, Any]:
    """Score the target's test series."""
    train, test, labels = made(1, cell.seed) if cell.data == "made" else machine(cell.data)
    few = train[: cell.windows + WINDOW - 1]
    began = time.process_time()
    if cell.way == "scratch":
        fitted = detector_of_series(cell.detector, cell.seed).fit(few)
    else:
        fitted = source("made" if cell.data == "made" else "SMD", cell.detector, cell.seed)
        began = time.process_time()
    if cell.way in ("frozen", "tuned", "gentle"):
        start = fitted if cell.detector == "LSTMAD" else fitted.detector_
        inner = start.transfer(
            "encoder" if cell.way == "frozen" else None,
            lr_scale=0.1 if cell.way == "gentle" else 1.0,
        )
        fitted = detector_of_series(cell.detector, cell.seed, inner).fit(few)
    seconds = time.process_time() - began
    scores = fitted.decision_function(test)
    found = {"vus_pr": vus_pr(labels, scores), "roc_auc": float(roc_auc_score(labels, scores))}
    return found | {"flagged": float(fitted.predict(test)[labels == 0].mean()), "seconds": seconds}


# --- three tasks ----------------------------------------------------------------------------------


def continual(cell: Cell) -> dict[str, Any]:
    """Learn three tasks one after another."""
    series = cell.detector == "LSTMAD"
    # Without BatchNorm, whose statistics no method holds.
    detector = (
        LSTMAD(window=WINDOW, random_state=cell.seed)
        if series
        else AutoEncoder(network=MLP(), latent_dim=8, cross_fitting=False, random_state=cell.seed)
    )
    trainer = ContinualTrainer(detector, cell.way, random_state=cell.seed)  # type: ignore[arg-type]
    began = time.process_time()
    for number in range(3):
        if cell.data == "made":
            train, test, labels = made(number, cell.seed)
            train = train[:TASK_POINTS]
        else:  # each in units of its own, or the first one's scaling would decide
            train, test, labels = machine(MACHINES[number])
            train = train[:TASK_POINTS]
            spread = train.std(0)
            least = 0.1 * np.median(spread[spread > 0])
            mean, spread = train.mean(0), np.maximum(spread, least)
            train, test = (train - mean) / spread, ((test - mean) / spread).clip(-20, 20)
        if not series:
            train, test = windows(train), windows(test)[::2]
            labels = sliding_window_view(labels, WINDOW).max(1)[::2]
        trainer.learn_task(train, held_out=(test, labels))
    return {
        "average": trainer.average_,
        "forgetting": trainer.forgetting_,
        "backward_transfer": trainer.backward_transfer_,
        "results": [[None if np.isnan(v) else v for v in row] for row in trainer.results_.tolist()],
        "seconds": time.process_time() - began,
    }


def windows(x: np.ndarray) -> np.ndarray:
    """Windows of a series as rows of a table."""
    return sliding_window_view(x, WINDOW, 0).reshape(len(x) - WINDOW + 1, -1).astype(np.float32)


def measure(cell: Cell) -> dict[str, Any]:
    """Measure a cell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return transfer(cell) if cell.part == "transfer" else continual(cell)


# --- the command ----------------------------------------------------------------------------------


def report(found: Sequence[dict[str, Any]]) -> str:
    """Render the tables: means over the seeds."""
    frame, tables = pd.DataFrame(found), []
    moved = frame[frame["part"] == "transfer"]
    order = [(d, n, w) for d in ("made", MACHINES[1]) for n in DETECTORS for w in WAYS]
    for metric, title in TITLES.items():
        table = moved.pivot_table(metric, ["data", "detector", "way"], "windows").loc[order]
        table.columns = [n or "none of the target" for n in table.columns]
        table.index = [f"{d}, `{n}`, {WAYS[w]}" for d, n, w in table.index]
        tables.append(f"{title}, by windows of the target\n\n{_rendered(table)}")
    tasks = frame[frame["part"] == "continual"]
    for metric in ("average", "forgetting"):
        table = tasks.pivot_table(metric, ["data", "detector"], "way")[[*METHODS]]
        table.index = [f"{d}, `{n}`" for d, n in table.index]
        tables.append(f"{metric} of AUC-ROC over three tasks\n\n{_rendered(table)}")
    return "\n\n".join(tables)


def _rendered(table: pd.DataFrame) -> str:
    return markdown(table, lambda v: "" if pd.isna(v) else f"{v:.3f}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__)
    add = parser.add_argument
    default = Path(__file__).parent / "results" / "transfer.jsonl"
    add("--out", type=Path, default=default, help="file of JSON lines to append to")
    add("--seeds", type=int, default=3)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    about = environment.describe() | environment.machine()
    print(report(_common.measure_missing(args.out, Cell, cells(args.seeds), measure, about)))


if __name__ == "__main__":
    main()
