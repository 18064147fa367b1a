"""Streams: points a second, and how long the score of one takes.

``python -m benchmarks.stream --help``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import deepod
from benchmarks import _common
from deepod import series
from deepod.bench import environment
from deepod.bench.reporting.tables import pipe_table

# And points that are pushed one by one, and that come in blocks: as many as take a while.
KINDS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "LSTMAD": (lambda **given: series.LSTMAD(epochs=2, **given), 10_000, 50_000),
    "RidgeAR": (lambda **given: series.RidgeAR(**given), 10_000, 50_000),
    "WindowNeighbors": (lambda **given: series.WindowNeighbors(**given), 500, 2_000),
    "Windows(AutoEncoder)": (
        lambda **given: series.Windows(deepod.AutoEncoder(epochs=2, random_state=0), **given),
        500,
        2_000,
    ),
    "ReRe": (lambda smoothing: series.ReRe(random_state=0), 1_000, 1_000),
}
TRAINING = 4_000


class Cell(NamedTuple):
    """A detector on a series of so many channels."""

    detector: str
    channels: int


def measure(cell: Cell) -> dict[str, Any]:
    """Push points one by one, then some blocks of 1000, on one thread.

    Returns
    -------
    dict
        ``median``, ``p99`` and ``largest`` seconds of the processor for one push; ``pushed`` and
        ``in_blocks``, points a second of the processor; ``bytes`` of a saved state; for ReRe
        ``retrained``, the share of points at which a network was trained.
    """
    make, singles, many = KINDS[cell.detector]
    rng, d = np.random.default_rng(0), cell.channels
    times = np.arange(TRAINING + singles + many)[:, None] / 5 + np.arange(d)
    X = np.sin(times) + 0.1 * rng.normal(size=times.shape)
    stream = make(smoothing="causal").fit(X[:TRAINING]).stream(X[:TRAINING])
    seconds = np.empty(singles)
    began = time.process_time()
    for k, x in enumerate(X[TRAINING : TRAINING + singles]):
        start = time.process_time()
        stream.push(x)
        seconds[k] = time.process_time() - start
    pushed = singles / (time.process_time() - began)
    began = time.process_time()
    for block in np.split(X[TRAINING + singles :], many // min(many, 1000)):
        stream.push_many(block)
    in_blocks = many / (time.process_time() - began)
    state = stream._scorer.state()
    found = {
        "median": float(np.median(seconds)),
        "p99": float(np.quantile(seconds, 0.99)),
        "largest": float(seconds.max()),
        "pushed": pushed,
        "in_blocks": in_blocks,
        "bytes": sum(array.nbytes for array in state.values()),
    }
    if "retrained" in state:
        found["retrained"] = float(state["retrained"][0] / (TRAINING + len(X)))
    return found


def report(found: Sequence[dict[str, Any]]) -> str:
    """Render a table."""
    head = ["detector", "channels", "one point, ms of the processor: median", "99 %", "largest"]
    head += ["points a second of the processor: one by one", "in blocks", "state, KiB"]
    lines = [head]
    lines += [
        [
            row["detector"],
            str(row["channels"]),
            *(f"{1e3 * row[key]:.2f}" for key in ("median", "p99", "largest")),
            *(f"{row[key]:,.0f}" for key in ("pushed", "in_blocks")),
            f"{row['bytes'] / 1024:.0f}",
        ]
        for row in found
    ]
    return pipe_table(lines, text=(0,))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="file of JSON lines to append to")
    add("--detectors", default=",".join(KINDS), help="names with commas")
    add("--channels", default="1,19", help="numbers with commas; ReRe has one")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cells = [
        Cell(name, int(d))
        for name in args.detectors.split(",")
        for d in args.channels.split(",")
        if name != "ReRe" or d == "1"
    ]
    about = environment.describe() | environment.machine()

    def measured(cell: Cell) -> dict[str, Any]:
        return measure(cell) | {"load": environment.load()}

    print(report(_common.measure_missing(args.out, Cell, cells, measured, about, "detector")))


if __name__ == "__main__":
    main()
