"""What rules for the threshold find and how many normal rows they flag: ``--help``.

Every detector is trained once per dataset, seed and protocol; all rules see its training scores and
nothing else, and label its test scores. On clean training rows a second detector holds rows out for
calibration.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import f1_score, roc_auc_score
from threadpoolctl import threadpool_limits

from benchmarks import _common, adbench
from deepod.bench import detectors, environment, protocols, rows
from deepod.bench.options import listed
from deepod.bench.reporting.tables import markdown
from deepod.bench.runner import load

DETECTORS = "PLAD,AutoEncoder,DeepSVDD,IAELSTMKL,AnoRand"
CONFORMAL = {"calibration_fraction": 0.2, "false_alarm_rate": 0.1}
CALIBRATED = "false_alarm_rate=0.1"
METRICS = ("f1", "recall", "false_alarms", "flagged")  # the last: of the training rows
_QUANTILES = 500  # that stand in for the scores where a rule looks at all pairs


def mad(scores: np.ndarray) -> float:
    """Flag modified z-scores above 3.5 (Iglewicz & Hoaglin 1993)."""
    middle = np.median(scores)
    return float(middle + 3.5 * np.median(np.abs(scores - middle)) / 0.6745)


def log_tukey(scores: np.ndarray) -> float:
    """Take the fence Q3 + 1.5 (Q3 - Q1) of log scores (Tukey 1977); NaN if one is not positive."""
    if scores.min() <= 0:
        return np.nan
    low, high = np.quantile(np.log(scores), [0.25, 0.75])
    return float(np.exp(high + 1.5 * (high - low)))


def semi_interquartile(scores: np.ndarray) -> float:
    """Take a fence for skewed data, Q3 + 3 (Q3 - Q2) (Kimber 1990)."""
    middle, high = np.quantile(scores, [0.5, 0.75])
    return float(high + 3 * (high - middle))


def adjusted_boxplot(scores: np.ndarray) -> float:
    """Take a fence for skewed data, Q3 + 1.5 exp(3 MC) (Q3 - Q1) (Hubert & Vandervieren 2008)."""
    low, high = np.quantile(scores, [0.25, 0.75])
    skew = medcouple(scores)
    return float(high + 1.5 * np.exp((3 if skew >= 0 else 4) * skew) * (high - low))


def medcouple(scores: np.ndarray) -> float:
    """Measure skewness by medians (Brys et al. 2004), of at most 500 evenly spaced quantiles."""
    if len(scores) > _QUANTILES:
        scores = np.quantile(scores, np.linspace(0, 1, _QUANTILES))
    above = np.sort(scores)[:, None] - np.median(scores)
    upper, lower = above[above >= 0][:, None], above[above <= 0]
    apart = upper - lower
    # Pairs of scores that equal the median count for 0, as they do on average in the paper.
    kernel = np.divide(upper + lower, apart, out=np.zeros_like(apart), where=apart > 0)
    return float(np.median(kernel))


def three_sigma(scores: np.ndarray) -> float:
    """Take the mean plus three standard deviations."""
    return float(scores.mean() + 3 * scores.std())


RULES: dict[str, Callable[[np.ndarray], float]] = {
    "MAD": mad,
    "Tukey, log scores": log_tukey,
    "semi-interquartile": semi_interquartile,
    "adjusted boxplot": adjusted_boxplot,
    "three sigma": three_sigma,
}
SETTINGS = (0.1, 0.05, 0, "auto")  # of contamination


def run_cell(cell: rows.Cell, thresholders: Sequence[str] = ()) -> dict[str, Any]:
    """Train, threshold in every way, compare with the labels of the test rows.

    Parameters
    ----------
    cell : rows.Cell
    thresholders : sequence of str
        Names of PyThresh's, such as "KARCH".

    Returns
    -------
    dict
        ``rules`` has METRICS, in their order, by rule: of all that apply to such scores.
    """
    split = load(cell, adbench.find(cell.dataset)[0])
    found = detectors.find(cell.detector)
    with threadpool_limits(1):
        torch.set_num_threads(1)
        detector = found.build(cell.seed)[0].fit(split.X_train)
        scores = detector.decision_function(split.X_test)
        known = detector.decision_scores_
        thresholds = {}
        for contamination in SETTINGS:
            detector.contamination = contamination
            thresholds[f"contamination={contamination!r}"] = detector.threshold_
        thresholds |= {name: rule(known) for name, rule in RULES.items()}
        for name in thresholders:
            thresholder = getattr(import_module(f"pythresh.thresholds.{name.lower()}"), name)
            detector.contamination = thresholder()
            thresholds[f"PyThresh {name}"] = detector.threshold_
        rules = {
            name: _compare(split, scores > threshold, known > threshold)
            for name, threshold in thresholds.items()
            if not np.isnan(threshold)
        }
        row = {"auc_roc": _auc(split, scores)}
        if cell.protocol == "one-class":
            held_out = found.build(cell.seed, **CONFORMAL)[0].fit(split.X_train)
            scores = held_out.decision_function(split.X_test)
            labels = held_out.predict(split.X_test) == 1
            rules[CALIBRATED] = _compare(split, labels, held_out.labels_ == 1)
            row["auc_roc_held_out"] = _auc(split, scores)
    sizes = {"n_train": len(split.X_train), "n_test": len(split.X_test)}
    return sizes | row | {"rules": rules}


def _compare(split: protocols.Split, test: np.ndarray, training: np.ndarray) -> list[float]:
    y = split.y_test
    f1 = f1_score(y, test, zero_division=0)
    values = f1, test[y == 1].mean(), test[y == 0].mean(), training.mean()
    return [round(float(value), 4) for value in values]


def _auc(split: protocols.Split, scores: np.ndarray) -> float:
    return round(float(roc_auc_score(split.y_test, scores)), 4)


def by_rule(results: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return a line for each cell and rule, with METRICS as columns."""
    return pd.DataFrame(
        [
            {**{name: row[name] for name in rows.Cell._fields}, "rule": rule}
            | dict(zip(METRICS, values, strict=True))
            for row in results
            for rule, values in row["rules"].items()
        ]
    )


def render(results: Sequence[dict[str, Any]]) -> str:
    """Write Markdown tables: rules by metrics, and detectors by false alarms.

    Parameters
    ----------
    results : sequence of dict
        Rows. Their means are over datasets, of the mean over detectors and seeds.

    Returns
    -------
    str
    """
    parts = []
    for protocol, part in by_rule(results).groupby("protocol", sort=False):
        count, seeds = part["dataset"].nunique(), part["seed"].nunique()
        parts.append(f"## {protocol}: {count} datasets, {seeds} seeds, percent")
        best_first = means(part, ["rule"], list(METRICS)).sort_values("f1", ascending=False)
        parts.append(markdown(best_first, _percent))
        asked = part[part["rule"].isin(["contamination=0.1", "contamination='auto'", CALIBRATED])]
        alarms = means(asked, ["detector", "rule"], ["false_alarms"])["false_alarms"]
        worst = 100 * asked.groupby(["dataset", "rule"])["false_alarms"].mean().unstack("rule")
        table = alarms.unstack("rule")
        table.loc["worst dataset"] = worst.max()
        parts.append(f"False alarms:\n\n{markdown(table, _percent)}")
    return "\n\n".join(parts)


def means(table: pd.DataFrame, by: list[str], metrics: list[str]) -> pd.DataFrame:
    """Return means over datasets of the means over the rest, in percent."""
    per_dataset = table.groupby([*by, "dataset"], sort=False)[metrics].mean()
    return 100 * per_dataset.groupby(by, sort=False).mean()


def _percent(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.1f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.thresholds",
        description=__doc__,
        epilog="The same command again goes on where a run was stopped, and prints the tables.",
    )
    add = parser.add_argument
    add("--datasets", default="development", help="development (default), confirmation, all, or "
        "names with commas")  # fmt: skip
    add("--protocols", default="one-class,unsupervised")
    add("--detectors", default=DETECTORS, help=f"with commas; default {DETECTORS}")
    add("--seeds", type=int, default=2, help="number of seeds, from 0 on (default 2)")
    add("--max-train", type=int, default=2000, help="training rows at most (default 2000)")
    add("--max-test", type=int, default=5000, help="test rows at most (default 5000)")
    add("--pythresh", default="", help="thresholders of PyThresh to run too, with commas: KARCH")
    add("--out", required=True, type=Path, help="file of JSON lines to append to")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = _parser().parse_args(argv)
    names = [dataset.name for dataset in adbench.find(args.datasets)]
    cells = [
        rows.Cell(protocol, dataset, detector, seed, args.max_train, args.max_test)
        for seed in range(args.seeds)
        for protocol in args.protocols.split(",")
        for dataset in names
        for detector in args.detectors.split(",")
    ]
    found = _common.measure_missing(
        args.out,
        rows.Cell,
        cells,
        lambda cell: run_cell(cell, listed(args.pythresh)),
        environment.describe(),
    )
    wanted = set(cells)
    print(render([row for row in found if rows.cell_of(row) in wanted]))


if __name__ == "__main__":
    main()
