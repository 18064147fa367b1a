"""Run detectors on datasets: ``python -m benchmarks.run --help``."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from benchmarks import datasets, detectors, environment, protocols, rows
from benchmarks.rows import Cell

THREADS = 1  # per worker, for every detector alike
_warm: set[tuple[str, str]] = set()  # classes that this process has run
EXAMPLE = """example:
  python -m benchmarks.run --protocol one-class --datasets development \\
      --detectors PLAD,pyod:IForest,pyod:ECOD --seeds 5 --jobs 2 --out results.jsonl
  python -m benchmarks.report results.jsonl

A run that was stopped goes on where it was when the same command is given again.
"""


def run_cell(cell: Cell, found: detectors.Found) -> dict[str, Any]:
    """Run one cell.

    Parameters
    ----------
    cell : Cell
    found : detectors.Found
        What ``cell.detector`` stands for.

    Returns
    -------
    row : dict
        The cell and its result; what goes wrong is its ``error``.
    """
    row = cell._asdict()
    try:
        split = load(cell)
        y = split.y_test
        row |= {
            "n_train": len(split.X_train),
            "n_test": len(y),
            "n_features": split.X_train[0].size,
            "anomaly_share": float(y.mean()),
        }
        detector, facts = found.build(cell.seed, n_features=row["n_features"])
        row |= facts
        with threadpool_limits(THREADS):
            torch.set_num_threads(THREADS)
            labelled = cell.protocol == "supervised"
            _warm_up(found, split, labelled)
            scores, seconds = fit_and_score(
                detector, split, facts["scaling"], cell.seed, labelled=labelled
            )
        row |= seconds | {"device": environment.device_name(detector), "threads": THREADS}
        if scores.shape != y.shape or not np.isfinite(scores).all():
            raise ValueError(
                f"Expected {len(y)} finite scores, got shape {scores.shape} with "
                f"{np.count_nonzero(~np.isfinite(scores))} that are NaN or infinite."
            )
        row |= {
            "auc_roc": float(roc_auc_score(y, scores)),
            "auc_pr": float(average_precision_score(y, scores)),
            "f1": protocols.f1_at_true_count(y, scores),
            # Share of normal test rows above the threshold that fit set; contamination is 0.1.
            "false_alarms": float((scores[y == 0] > detector.threshold_).mean()),
        }
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {error}"
    return row


def load(cell: Cell) -> protocols.Split:
    """Load the dataset of a cell and divide it."""
    caps = cell.seed, cell.max_train, cell.max_test
    if cell.protocol == "images":
        name, _, normal = cell.dataset.partition(":")
        return protocols.split_images(datasets.load_images(name), int(normal), *caps)
    table = datasets.load_table(cell.dataset)
    return protocols.split_table(cell.protocol, table.data, table.target, *caps)


def fit_and_score(
    detector: Any, split: protocols.Split, scaling: str, seed: int, *, labelled: bool = False
) -> tuple[np.ndarray, dict[str, float]]:
    """Fit on the training rows, with their labels only if ``labelled``, and score the test rows.

    Scaling counts into the times, whether the detector does it or ``scaling="standard"`` asks for
    it to be done here.
    """
    X_train, X_test = split.X_train, split.X_test
    # For detectors without a random_state of their own.
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    start = perf_counter()
    scaler = StandardScaler()
    if scaling == "standard":
        X_train = scaler.fit_transform(X_train.reshape(len(X_train), -1))
    detector.fit(X_train, split.y_train) if labelled else detector.fit(X_train)
    fitted = perf_counter()
    if scaling == "standard":
        X_test = scaler.transform(X_test.reshape(len(X_test), -1))
    scores = np.asarray(detector.decision_function(X_test))
    scored = perf_counter()
    return scores, {"fit_seconds": fitted - start, "score_seconds": scored - fitted}


def _warm_up(found: detectors.Found, split: protocols.Split, labelled: bool) -> None:
    """Fit once per worker on a few rows: no imports or compilation in the times."""
    if found[:2] not in _warm:
        _warm.add(found[:2])
        few = protocols.Split(*(part[:64] for part in split))
        n_features = few.X_train[0].size
        with contextlib.suppress(Exception):  # should it matter, it happens again
            detector, facts = found.build(0, epochs=1, n_features=n_features)
            fit_and_score(detector, few, facts["scaling"], 0, labelled=labelled)


def expand_datasets(names: str, protocol: str) -> list[str]:
    """Turn the command line's datasets into the names in the rows; all of them must exist."""
    if protocol == "images":
        found = []
        for name in names.split(","):
            name, _, normal = name.partition(":")
            classes = np.unique(datasets.load_images(name).train_target)
            found += [f"{name}:{number}" for number in ([normal] if normal else classes)]
        return list(dict.fromkeys(found))
    chosen = datasets.GROUPS.get(names) or names.split(",")
    return list(dict.fromkeys(datasets.load_table(name).name for name in chosen))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Run protocol x dataset x detector x seed and append a JSON line for each.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--protocol", required=True, choices=[*protocols.PROTOCOLS, "images"])
    add("--datasets", required=True, help="development, confirmation, all (both), or names with "
        "commas; for images: mnist (every class in turn is normal) or mnist:3")  # fmt: skip
    add("--detectors", required=True, help="with commas: PLAD, pyod:IForest, module:Class, "
        "file.toml:section")  # fmt: skip
    add("--seeds", type=int, default=5, help="number of seeds, from 0 on (default 5)")
    add("--max-train", type=int, help="at most so many training rows, drawn at random")
    add("--max-test", type=int, help="at most so many test rows, with the share of anomalies kept")
    add("--jobs", type=int, default=1, help="cells at a time (default 1)")
    add("--out", required=True, type=Path, help="file of JSON lines to append to")
    add("--retry-errors", action="store_true", help="run cells again that ended in an error")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = _parser().parse_args(argv)
    found = {name: detectors.find(name) for name in args.detectors.split(",")}
    names = expand_datasets(args.datasets, args.protocol)
    cells = [
        Cell(args.protocol, name, detector, seed, args.max_train, args.max_test)
        for seed in range(args.seeds)
        for name in names
        for detector in found
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    there = rows.read_and_repair(args.out)
    done = {Cell.of(row) for row in there if not (args.retry_errors and "error" in row)}
    todo = [cell for cell in cells if cell not in done]
    about, failed = environment.describe(), 0
    parallel = Parallel(args.jobs, batch_size=1, return_as="generator_unordered")
    results = parallel(delayed(run_cell)(cell, found[cell.detector]) for cell in todo)
    with tqdm(results, total=len(todo), unit="cell") as progress:
        for row in progress:
            rows.append(args.out, row | about)
            failed += "error" in row
            progress.set_postfix_str(f"{row['detector']} on {row['dataset']}, seed {row['seed']}")
    skipped = len(cells) - len(todo)
    print(f"{len(todo)} cells run, {failed} with an error; {skipped} were in {args.out} already.")


if __name__ == "__main__":
    # By its name, so that workers import this module instead of being sent a copy of it.
    from benchmarks.run import main as main_by_name

    main_by_name()
