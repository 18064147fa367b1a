"""Saved models beside joblib's files, memory after a thousand fits, damaged files, killed saves.

``python -m benchmarks.trust --help``; on Linux.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from tqdm import tqdm

import deepod
from benchmarks import _common, adbench
from benchmarks.stress import churn, faults, fuzzing
from deepod.bench import environment, protocols
from deepod.bench.reporting.tables import pipe_table

DATASET, TRAINING, ROUNDS = "cardio", 2000, 9
SHARES = 4  # the damaged files are told off in as many processes


class Cell(NamedTuple):
    """One measurement: of a detector, or of all of them."""

    section: str
    detector: str
    number: int  # of rows, fits, files or kills


def saved(cell: Cell) -> dict[str, Any]:
    """Size of a saved model, and seconds to save and to load it, beside joblib's; by turns."""
    table = adbench.load(DATASET)
    split = protocols.split_table("one-class", table.data, table.target, 0, cell.number, None)
    detector = getattr(deepod, cell.detector)(random_state=0).fit(split.X_train)
    with tempfile.TemporaryDirectory() as folder:
        model, pickle = Path(folder) / "m.deepod", Path(folder) / "m.joblib"
        ways: dict[str, Callable[[], Any]] = {
            "save": lambda: detector.save(model),
            "joblib.dump": lambda: joblib.dump(detector, pickle),
            "load": lambda: deepod.load(model),
            "joblib.load": lambda: joblib.load(pickle),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - began)
        return {
            "dataset": DATASET,
            "rows": len(split.X_train),
            "bytes": model.stat().st_size,
            "joblib_bytes": pickle.stat().st_size,
            "weights_bytes": sum(4 * p.numel() for p in detector.module_.parameters()),
            "seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        }


def fits(cell: Cell) -> dict[str, Any]:
    """MiB of a process in which detectors are fitted, saved, loaded and dropped."""
    with tempfile.TemporaryDirectory() as folder:
        return churn.churn(cell.number, Path(folder))


def damaged(cell: Cell) -> dict[str, Any]:
    """Count what becomes of damaged files, of files made on purpose, and of what is no file."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    slowest, largest = 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        fuzzing.make_models(Path(folder))
        cuts = np.linspace(0, cell.number, SHARES + 1).astype(int).tolist()
        shares = [("random", *cut) for cut in pairwise(cuts)]
        for share in tqdm([*shares, ("attacks",), ("places",)], unit="share"):
            report = fuzzing.survive(Path(folder), *share)
            counts.update(report["counts"])
            failures += report["failures"]
            slowest = max(slowest, report["slowest"][0])
            largest = max(largest, report["largest"][0])
    return {
        "counts": counts,
        "failures": failures,
        "seconds_at_most": slowest,
        "mib_at_most": largest,
    }


def killed(cell: Cell) -> dict[str, Any]:
    """Count which model is there after a process was killed that saved another over it."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("model", "model.deepod"):
            counts.update(faults.kill_saves(Path(folder), name, cell.number // 2))
    return {"counts": counts}


def resumed(cell: Cell) -> dict[str, Any]:
    """Count rows of a benchmark that was killed which are not those of one that was not."""
    data = adbench.find(DATASET)[0].path.parents[1]
    detectors = "PLAD,AnoRand,IAELSTMKL,NSAE,pyod:KNN,pyod:IForest"
    args = f"--datasets {DATASET},glass --detectors {detectors} --seeds 3 --max-train 500".split()
    with tempfile.TemporaryDirectory() as folder:
        killed, whole = Path(folder) / "killed", Path(folder) / "whole"
        kills = faults.kill_benchmarks(data, killed, args, longest=0.5, most=cell.number)
        faults.kill_benchmarks(data, whole, args, longest=0, most=0)
        before, after = faults.untimed(whole), faults.untimed(killed)
    same = sum(row in before for row in after)
    return {"counts": {"kills": kills, "rows": len(before), "the same": same}}


SECTIONS = {"saved": saved, "fits": fits, "damaged": damaged, "killed": killed, "resumed": resumed}


def report(found: Sequence[dict[str, Any]]) -> str:
    """Render all rows."""
    head = ["detector", "rows", "KiB", "of them weights", "joblib: KiB"]
    head += ["save, ms", "joblib", "load, ms", "joblib"]
    lines = [head]
    others = []
    for row in found:
        if row["section"] == "saved":
            sizes = (row["bytes"], row["weights_bytes"], row["joblib_bytes"])
            names = ("save", "joblib.dump", "load", "joblib.load")
            lines.append([
                row["detector"], f"{row['rows']:,}", *(f"{size / 1024:.0f}" for size in sizes),
                *(f"{1e3 * row['seconds'][name]:.1f}" for name in names),
            ])  # fmt: skip
        elif row["section"] == "fits":
            mib = row["process"]
            text = f"{row['fits']} fits: {mib[1]:.1f} MiB after a fifth, {mib[-1]:.1f} after all"
            others.append(text)
        else:
            counts = ", ".join(f"{n} {what}" for what, n in row["counts"].items())
            failures = f", {len(row['failures'])} failures" if "failures" in row else ""
            others.append(f"{row['section']}: {counts}{failures}")
    return "\n".join([pipe_table(lines), "", *others])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="file of JSON lines to append to")
    add("--sections", default=",".join(SECTIONS), help=f"with commas, of {', '.join(SECTIONS)}")
    add("--detectors", default=",".join(deepod.DETECTORS), help="names with commas, for 'saved'")
    add("--fits", type=int, default=1000)
    add("--files", type=int, default=10_000)
    add("--kills", type=int, default=60)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    numbers = {"fits": args.fits, "damaged": args.files, "killed": args.kills, "resumed": 3}
    cells = []
    for section in args.sections.split(","):
        if section == "saved":
            cells += [Cell(section, name, TRAINING) for name in args.detectors.split(",")]
        else:
            cells.append(Cell(section, "all", numbers[section]))
    about = environment.describe() | environment.machine()

    def measure(cell: Cell) -> dict[str, Any]:
        return SECTIONS[cell.section](cell) | {"load": environment.load()}

    print(report(_common.measure_missing(args.out, Cell, cells, measure, about, "measurement")))


if __name__ == "__main__":
    main()
