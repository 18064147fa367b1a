"""ONNX files beside ``decision_function``: time to export, time to score, largest deviation.

``python -m benchmarks.onnx --help``; needs ``deepod[onnx]`` and onnxruntime.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import deepod
from benchmarks import _common
from deepod import onnx
from deepod.bench import environment
from deepod.bench.reporting.tables import pipe_table

# Shape of a sample, and rows to score at once besides a single one.
KINDS = {"table": ((32,), 100_000), "windows": ((50, 4), 5_000), "images": ((1, 16, 16), 5_000)}
TRAINING, REPEATS = 500, 5


class Cell(NamedTuple):
    """One detector on one kind of input."""

    detector: str
    kind: str


def measure(cell: Cell, largest: int) -> dict[str, Any]:
    """Fit with defaults, export, and score the same rows both ways, on one thread.

    Returns
    -------
    dict
        ``export`` seconds, ``bytes`` of the file, ``rows`` scored at once, median seconds of one
        row and of all by ``onnxruntime`` and by ``decision_function``, and the largest
        ``deviation`` of their scores, over the score where that is above 1.
    """
    import onnxruntime

    shape, n = KINDS[cell.kind]
    X = np.random.default_rng(0).normal(size=(min(n, largest), *shape))
    X[::10] *= 5  # a tenth is far out
    detector = getattr(deepod, cell.detector)(random_state=0).fit(X[:TRAINING])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.onnx"
        onnx.export(detector, path)  # what the first call loads does not count
        export = _median(lambda: onnx.export(detector, path), 3)
        size = path.stat().st_size
        session = onnxruntime.InferenceSession(path, options)
    ways = {
        "onnxruntime": lambda rows: session.run(["scores"], {"X": rows})[0],
        "decision_function": detector.decision_function,
    }
    found = {name: score(X) for name, score in ways.items()}
    expected = found["decision_function"]
    deviations = np.abs(found["onnxruntime"] - expected) / np.maximum(1, np.abs(expected))
    return {
        "export": export,
        "bytes": size,
        "rows": len(X),
        "one": {name: _median(lambda w=w: w(X[:1]), 10 * REPEATS) for name, w in ways.items()},
        "all": {name: _median(lambda w=w: w(X), REPEATS) for name, w in ways.items()},
        "deviation": float(deviations.max()),
    }


def _median(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of a call."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def report(found: Sequence[dict[str, Any]]) -> str:
    """Render a table, milliseconds and all."""
    head = ["detector", "input", "export, s", "KiB", "one row, ms: file", "detector"]
    head += ["rows", "microseconds a row: file", "detector", "deviation"]
    lines = [head]
    for row in sorted(found, key=lambda row: (row["kind"], row["detector"])):
        one, whole = (row[key] for key in ("one", "all"))
        names = ("onnxruntime", "decision_function")
        lines.append([
            row["detector"], row["kind"], f"{row['export']:.1f}", f"{row['bytes'] / 1024:.0f}",
            *(f"{1e3 * one[name]:.2f}" for name in names), f"{row['rows']:,}",
            *(f"{1e6 * whole[name] / row['rows']:.2f}" for name in names),
            f"{row['deviation']:.1e}",
        ])  # fmt: skip
    return pipe_table(lines, text=(0, 1))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onnx", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="file of JSON lines to append to")
    add("--detectors", default=",".join(deepod.DETECTORS), help="names with commas")
    add("--kinds", default=",".join(KINDS), help=f"with commas, of {', '.join(KINDS)}")
    add("--largest", type=int, default=100_000, help="most rows to score at once")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cells = [Cell(d, k) for k in args.kinds.split(",") for d in args.detectors.split(",")]
    about = environment.describe() | environment.machine()
    about["versions"] |= {name: version(name) for name in ("onnx", "onnxscript", "onnxruntime")}

    def measured(cell: Cell) -> dict[str, Any]:
        return measure(cell, args.largest) | {"load": environment.load()}

    print(report(_common.measure_missing(args.out, Cell, cells, measured, about, "detector")))


if __name__ == "__main__":
    main()
