"""Time of LSTMAD beside PyOD's, with the same network and the same number of optimiser steps.

``python -m benchmarks.series_speed --out benchmarks/results/series_speed.jsonl``.

Two layers of 64 units, windows of 50 points, batches of 32, Adam; three channels. PyOD's learns
one forecast from each window, ours one from each point of a chunk; PyOD's scores a window for each
point, ours passes over chunks. Both do all else that their ``fit`` does: errors, threshold.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import _common
from deepod.bench import environment
from deepod.series import LSTMAD

WINDOW, UNITS, BATCH, CHANNELS = 50, 64, 32, 3
TRAINING, NEW, EPOCHS_OF_PYOD = 2_000, 10_000, 5


def seconds(work: Any) -> float:
    """Return the seconds of the processor that a call takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(seed: int) -> dict[str, Any]:
    """Fit and score once with each, one after the other, on one thread.

    Returns
    -------
    dict
        ``steps`` of each, seconds of the processor, and ratios: PyOD's over ours.
    """
    from pyod.models import ts_lstm

    rng = np.random.default_rng(seed)
    n = TRAINING + NEW
    x = np.sin(np.arange(n)[:, None] / 5 + np.arange(CHANNELS)) + 0.1 * rng.normal(size=(n, 3))
    train, new = x[:TRAINING], x[TRAINING:]
    theirs = ts_lstm.LSTMAD(WINDOW, UNITS, 2, epochs=EPOCHS_OF_PYOD, lr=1e-3, batch_size=BATCH)
    steps = EPOCHS_OF_PYOD * -(-(TRAINING - WINDOW) // BATCH)
    of_ours = -(-(4 * TRAINING // WINDOW) // BATCH)  # in an epoch, of chunks that overlap
    ours = LSTMAD(
        window=WINDOW,
        hidden=(UNITS, UNITS),
        horizons=(1,),
        epochs=steps // of_ours,
        batch_size=BATCH,
        lr=1e-3,
        validation_fraction=0.0,
        random_state=seed,
    )
    found = {
        "fit": seconds(lambda: ours.fit(train)),
        "fit_pyod": seconds(lambda: theirs.fit(train)),
        "score": seconds(lambda: ours.decision_function(new)),
        "score_pyod": seconds(lambda: theirs.decision_function(new)),
    }
    ratios = {f"{k}_ratio": found[f"{k}_pyod"] / found[k] for k in ("fit", "score")}
    return {"steps": ours.epochs_ * of_ours, "steps_pyod": steps} | found | ratios


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.series_speed", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines to append to")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    about = environment.describe() | environment.machine()
    with _common.explained(parser), args.out.open("a", encoding="utf-8") as file:
        for seed in range(args.rounds):
            row = {"round": seed} | measure(seed) | {"load": environment.load()} | about
            file.write(json.dumps(row) + "\n")
            print({key: row[key] for key in ("steps", "steps_pyod", "fit_ratio", "score_ratio")})


if __name__ == "__main__":
    main()
