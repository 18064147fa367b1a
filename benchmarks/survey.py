"""The survey's table of LSTM detectors, beside ours, for those rows whose data can be had.

``python -m benchmarks.survey --out benchmarks/results/survey.jsonl``; series are below
``DEEPOD_DATA``/timeseries. A run that was stopped goes on where it was.

The survey's table has one figure for each of its papers; each is of other data, and it says itself
that they do not compare. Here, three of them are run in the papers' settings as far as these are
known, and by our defaults:

- Malhotra et al. (2015): their electrocardiogram, Space Shuttle valve and power demand series.
  Points; the survey's F1 is F0.1 in the paper, which hardly counts what is missed.
- Thill et al. (2019): three of the records of MIT-BIH. Precision of points, recall of events, with
  a tolerance of a quarter of a second.
- Lee et al. (2020), ReRe: NAB's series of known causes. Precision of points, recall of events, with
  a tolerance of 7 points, as in the paper.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import _common
from deepod import datasets, metrics, series
from deepod.bench import environment
from deepod.bench.reporting.tables import pipe_table

MALHOTRA = [f"discords/{name}" for name in ("qtdbsel102", "TEK14", "TEK16", "TEK17", "power_data")]
THILL = [f"ECG/MBA_ECG{record}" for record in (805, 806, 820)]
NAB = [
    f"NAB/realKnownCause__{name}"
    for name in (
        "ambient_temperature_system_failure",
        "cpu_utilization_asg_misconfiguration",
        "ec2_request_latency_system_failure",
        "machine_temperature_system_failure",
        "nyc_taxi",
        "rogue_agent_key_hold",
        "rogue_agent_key_updown",
    )
]
ROWS: dict[str, dict[str, Any]] = {
    "Malhotra et al. 2015": {
        "printed": "0.87",
        "series": MALHOTRA,
        "beta": 0.1,
        "tolerance": None,
        "detector": "LSTMAD",
        "params": {
            "hidden": (30, 20),
            "horizons": (1, 2, 3),
            "error_scale": "covariance",
            "smoothing": None,
        },
    },
    "Thill et al. 2019": {
        "printed": "0.81",
        "series": THILL,
        "beta": 1.0,
        "tolerance": 90,  # of 360 points in a second
        "detector": "LSTMAD",
        "params": {
            "hidden": (64, 64),
            "horizons": tuple(range(1, 50, 2)),
            "error_scale": "covariance",
            "error_trim": 0.01,
            "error_window": 5,
            "smoothing": None,
        },
    },
    "ReRe, Lee et al. 2020": {
        "printed": "0.69",
        "series": NAB,
        "beta": 1.0,
        "tolerance": 7,
        "detector": "ReRe",
        "params": {},
    },
}
LEVELS = 200  # thresholds of which the best is taken


class Cell(NamedTuple):
    """A row of the survey's table, a series, whether the paper's setting is run, and a seed."""

    row: str
    series: str
    setting: str  # "paper" or "default"
    seed: int


def f_score(y: np.ndarray, flagged: np.ndarray, beta: float, tolerance: int | None) -> float:
    """Return F-beta of the precision of points and the recall of points, or of events.

    Parameters
    ----------
    y, flagged : ndarray of shape (T,), bool
        Labelled points, and flagged ones.
    beta : float
        Weight of the recall.
    tolerance : int or None
        Points by which a flagged one may be off. None: none, and the recall is that of points.

    Returns
    -------
    float
        0 if nothing is flagged.
    """
    if not flagged.any():
        return 0.0
    if tolerance is None:
        near, recall = y, float(flagged[y].mean())
    else:
        reach = np.ones(2 * tolerance + 1)
        near = np.convolve(y, reach, "same") > 0.5
        found = np.convolve(flagged, reach, "same") > 0.5
        recall = float(np.mean([found[a:b].any() for a, b in metrics.events(y)]))
    precision = float(near[flagged].mean())
    both = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / both if both else 0.0


def measure(cell: Cell) -> dict[str, Any]:
    """Fit on the training part, score the test part, and compare.

    Returns
    -------
    dict
        ``f``: at the detector's own threshold, which knows no labels. ``best``: at the best of 200
        thresholds by the test labels, as papers choose it. ``f_random``: the best that random
        scores get in the same way.
    """
    row = ROWS[cell.row]
    home = datasets.get_data_home() / "timeseries"
    data = datasets.load_series(home / f"{cell.series}.npz")
    train, test, y = data.data, data.test, data.test_target.astype(bool)
    name = row["detector"] if cell.setting == "paper" else "SeriesConsensus"
    params = row["params"] if cell.setting == "paper" else {}
    detector = getattr(series, name)(**params, random_state=cell.seed).fit(train)
    scores = detector.decision_function(test)
    rng = np.random.default_rng(cell.seed)
    beta, tolerance = row["beta"], row["tolerance"]

    def best(values: np.ndarray) -> float:
        levels = np.unique(np.quantile(values, 1 - np.geomspace(1 / len(values), 0.5, LEVELS)))
        return max(f_score(y, values > level, beta, tolerance) for level in levels)

    return {
        "f": f_score(y, scores > detector.threshold_, beta, tolerance),
        "best": best(scores),
        "f_random": best(rng.random(len(y))),
    }


def report(found: Sequence[dict[str, Any]]) -> str:
    """Render the table: means over the series, in the papers' settings and by default."""
    head = ["paper", "printed", "series", "setting", "own threshold", "best threshold", "random"]
    lines = [head]
    for name, row in ROWS.items():
        for setting in ("paper", "default"):
            own = [r for r in found if (r["row"], r["setting"]) == (name, setting)]
            if own:
                label = f"`{row['detector']}`, as in the paper"
                values = [f"{np.mean([r[k] for r in own]):.2f}" for k in ("f", "best", "f_random")]
                which = label if setting == "paper" else "`SeriesConsensus()`"
                count = str(len({r["series"] for r in own}))
                lines.append([name, row["printed"], count, which, *values])
    return pipe_table(lines, text=(0, 3))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.survey",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="file of JSON lines to append to")
    add("--seeds", type=int, default=1, help="number of seeds, from 0 on (default: 1)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cells = [
        Cell(name, which, setting, seed)
        for seed in range(args.seeds)
        for name, row in ROWS.items()
        for which in row["series"]
        for setting in ("paper", "default")
    ]
    about = environment.describe() | environment.machine()
    with _common.explained(parser):
        print(report(_common.measure_missing(args.out, Cell, cells, measure, about, "series")))


if __name__ == "__main__":
    main()
