"""Thresholds of series that do not drift: how many new normal points are flagged.

``python -m benchmarks.stationary --help``. Where this is near ``contamination`` and the share on a
real series is not, the series has changed since training.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import deepod
from benchmarks import _common
from deepod import series
from deepod._registry import SERIES
from deepod.bench import environment
from deepod.bench.reporting.tables import pipe_table

NEW, CHANNELS, PERIOD = 5000, 3, 25
# ReRe has a rule of its own in place of a share.
DETECTORS = [name for name in SERIES if name != "ReRe"]
# Four lengths of training series for those that are fast or usual, one for the others.
LENGTHS, LONGEST = (200, 500, 2000), 5000
OF_ALL_LENGTHS = ("SeriesConsensus", "WindowNeighbors", "RidgeAR", "LSTMAD")


class Cell(NamedTuple):
    """A detector, the length of the series it is fitted on, and a seed of both."""

    detector: str
    length: int
    seed: int


def stationary(n: int, seed: int) -> np.ndarray:
    """Return n points: waves, and noise in which each point takes 0.7 of the one before."""
    rng = np.random.default_rng(seed)
    noise = 0.3 * rng.normal(size=(n, CHANNELS))
    for t in range(1, n):
        noise[t] += 0.7 * noise[t - 1]
    return np.sin(2 * np.pi * np.arange(n)[:, None] / PERIOD + np.arange(CHANNELS)) + noise


def measure(cell: Cell) -> dict[str, Any]:
    """Fit, and flag what follows on the training series.

    Returns
    -------
    dict
        ``flagged``, the share of the 5000 new points, at the default ``contamination=0.1``.
    """
    cls: Any = getattr(series, cell.detector)
    given = {"detector": deepod.AutoEncoder()} if cell.detector == "Windows" else {}
    x = stationary(cell.length + NEW, cell.seed)
    detector = cls(**given, random_state=cell.seed).fit(x[: cell.length])
    return {"flagged": float(detector.predict(x[cell.length :]).mean())}


def report(found: Sequence[dict[str, Any]]) -> str:
    """Render a table: the mean over seeds and, in brackets, the lowest and the highest share."""
    lengths = sorted({row["length"] for row in found})
    lines = [["detector", *(f"{n} points" for n in lengths)]]
    for name in dict.fromkeys(row["detector"] for row in found):
        line = [f"`{name}`"]
        for n in lengths:
            own = [r["flagged"] for r in found if (r["detector"], r["length"]) == (name, n)]
            low, mean, high = (100 * f(own) if own else 0 for f in (min, np.mean, max))
            line.append(f"{mean:.0f} % ({low:.0f} to {high:.0f})" if own else "")
        lines.append(line)
    return pipe_table(lines, text=(0,))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stationary", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="file of JSON lines to append to")
    add("--detectors", default=",".join(DETECTORS), help="names with commas")
    add("--seeds", type=int, default=5, help="number of seeds, from 0 on (default: 5)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cells = [
        Cell(name, n, seed)
        for name in args.detectors.split(",")
        for n in (*(LENGTHS if name in OF_ALL_LENGTHS else ()), LONGEST)
        for seed in range(args.seeds)
    ]
    about = environment.describe() | environment.machine()
    print(report(_common.measure_missing(args.out, Cell, cells, measure, about, "fit")))


if __name__ == "__main__":
    main()
