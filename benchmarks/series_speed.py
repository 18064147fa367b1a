"""Time of detectors of series: LSTMAD beside PyOD's, and as the number of points grows.

``python -m benchmarks.series_speed --out benchmarks/results/series_speed.jsonl``. A run that was
stopped goes on where it was.

**Beside PyOD's**, with the same network and the same number of optimiser steps: two layers of 64
units, windows of 50 points, batches of 32, Adam; three channels. PyOD's learns one forecast from
each window, ours one from each point of a chunk; PyOD's scores a window for each point, ours passes
over chunks. Both do all else that their ``fit`` does: errors, threshold.

**As points grow**: default settings, 38 channels, fit and score of as many points; the memory that
the process allocates meanwhile.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import _common
from benchmarks.memory import peak_of
from deepod import series
from deepod.bench import environment
from deepod.bench.reporting.tables import pipe_table

WINDOW, UNITS, BATCH, CHANNELS = 50, 64, 32, 3
TRAINING, NEW, EPOCHS_OF_PYOD = 2_000, 10_000, 5
GROWING = ("RidgeAR", "LSTMAD", "WindowNeighbors", "SeriesConsensus")
POINTS, OF_GROWING = (10_000, 100_000, 1_000_000), 38


class Cell(NamedTuple):
    """A detector, the points that it is trained on, and a round; "LSTMAD" has PyOD's beside it."""

    part: str  # "beside" or "growth"
    detector: str
    points: int
    round: int


def seconds(work: Any) -> float:
    """Return the seconds of the processor that a call takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def waves(n: int, channels: int, seed: int) -> np.ndarray:
    """Return n points of waves with noise."""
    noise = 0.1 * np.random.default_rng(seed).normal(size=(n, channels))
    return np.sin(np.arange(n)[:, None] / 5 + np.arange(channels)) + noise


def beside(cell: Cell) -> dict[str, Any]:
    """Fit and score once with each, one after the other, on one thread.

    Returns
    -------
    dict
        ``steps`` of each, seconds of the processor, and ratios: PyOD's over ours.
    """
    from pyod.models import ts_lstm

    x = waves(TRAINING + NEW, CHANNELS, cell.round)
    train, new = x[:TRAINING], x[TRAINING:]
    theirs = ts_lstm.LSTMAD(WINDOW, UNITS, 2, epochs=EPOCHS_OF_PYOD, lr=1e-3, batch_size=BATCH)
    steps = EPOCHS_OF_PYOD * -(-(TRAINING - WINDOW) // BATCH)
    of_ours = -(-(4 * TRAINING // WINDOW) // BATCH)  # in an epoch, of chunks that overlap
    ours = series.LSTMAD(
        window=WINDOW,
        hidden=(UNITS, UNITS),
        horizons=(1,),
        epochs=steps // of_ours,
        batch_size=BATCH,
        lr=1e-3,
        validation_fraction=0.0,
        random_state=cell.round,
    )
    found = {
        "fit": seconds(lambda: ours.fit(train)),
        "fit_pyod": seconds(lambda: theirs.fit(train)),
        "score": seconds(lambda: ours.decision_function(new)),
        "score_pyod": seconds(lambda: theirs.decision_function(new)),
    }
    ratios = {f"{k}_ratio": found[f"{k}_pyod"] / found[k] for k in ("fit", "score")}
    return {"steps": ours.epochs_ * of_ours, "steps_pyod": steps} | found | ratios


def growth(cell: Cell) -> dict[str, Any]:
    """Fit and score as many points.

    Returns
    -------
    dict
        Seconds of the processor of both, and ``mib``, the larger peak of memory beyond the series.
    """
    x = waves(cell.points, OF_GROWING, cell.round).astype(np.float32)
    detector = getattr(series, cell.detector)(random_state=cell.round)
    fit: dict[str, float] = {}
    score: dict[str, float] = {}
    peaks = [
        peak_of(lambda: fit.update(s=seconds(lambda: detector.fit(x)))),
        peak_of(lambda: score.update(s=seconds(lambda: detector.decision_function(x)))),
    ]
    most = max(found["peak"] - found["before"] for found in peaks)
    return {"fit": fit["s"], "score": score["s"], "mib": most}


def measure(cell: Cell) -> dict[str, Any]:
    """Measure one cell."""
    found = beside(cell) if cell.part == "beside" else growth(cell)
    return found | {"load": environment.load()}


def report(found: Sequence[dict[str, Any]]) -> str:
    """Render two tables: ratios to PyOD's, medians over rounds; and seconds as points grow."""
    own = [row for row in found if row["part"] == "beside"]
    lines = [["", "ours, s", "PyOD's, s", "median of the ratios"]]
    for name in ("fit", "score"):
        ours, theirs, ratio = (
            median([row[key] for row in own] or [0.0])
            for key in (name, f"{name}_pyod", f"{name}_ratio")
        )
        lines.append([name, f"{ours:.2f}", f"{theirs:.2f}", f"{ratio:.2f}"])
    head = [f"{what} of {n:,} points, s" for n in POINTS for what in ("fit", "score")]
    grown = [["detector", *head, "MiB"]]
    for name in GROWING:
        at = {
            row["points"]: row
            for row in found
            if row["part"] == "growth" and row["detector"] == name
        }
        cells = [
            f"{at[n][what]:.2f}" if n in at else "" for n in POINTS for what in ("fit", "score")
        ]
        most = at[max(at)]["mib"] if at else 0
        grown.append([f"`{name}`", *cells, f"{most:.0f}"])
    return f"{pipe_table(lines)}\n\n{pipe_table(grown)}"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.series_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines to append to")
    parser.add_argument("--rounds", type=int, default=3, help="beside PyOD's (default: 3)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cells = [Cell("beside", "LSTMAD", TRAINING, k) for k in range(args.rounds)]
    cells += [Cell("growth", name, n, 0) for n in POINTS for name in GROWING]
    about = environment.describe() | environment.machine()
    with _common.explained(parser):
        print(report(_common.measure_missing(args.out, Cell, cells, measure, about)))


if __name__ == "__main__":
    main()
