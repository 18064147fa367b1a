"""Tables of results: ``python -m benchmarks.report results.jsonl``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import pandas as pd

from deepod.bench import rows

METRICS = ("auc_roc", "auc_pr", "f1", "false_alarms")


def split_common(results: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find the (dataset, seed) cells that all detectors have.

    Parameters
    ----------
    results : DataFrame
        Rows of one protocol, as :func:`deepod.bench.rows.read` gives them.

    Returns
    -------
    common : DataFrame
        The rows of those cells.
    missing : DataFrame
        What keeps the others out: ``detector``, ``dataset``, ``seed`` and ``reason``, the error or
        "not run".
    """
    pairs = results[["dataset", "seed"]].drop_duplicates()
    wanted = results[["detector"]].drop_duplicates().merge(pairs, how="cross")
    there = results.assign(reason=results["error"].astype(object).fillna(""))
    there = there[[*wanted.columns, "reason"]]
    reasons = wanted.merge(there, how="left").fillna({"reason": "not run"})
    missing = reasons[reasons["reason"] != ""]
    left_out = pd.MultiIndex.from_frame(missing[["dataset", "seed"]])
    cells = pd.MultiIndex.from_frame(results[["dataset", "seed"]])
    return results[~cells.isin(left_out)], missing


def per_dataset(common: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean over the seeds: datasets x detectors."""
    return common.pivot_table(values=metric, index="dataset", columns="detector", sort=False)


def summary(common: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Compare detectors over all datasets.

    Parameters
    ----------
    common : DataFrame
        Rows of cells that all detectors have.
    metric : {"auc_roc", "auc_pr", "f1", "false_alarms"}

    Returns
    -------
    DataFrame
        One line per detector, the best first. ``mean``: over datasets, of the mean over seeds.
        ``std``: over seeds, of the mean over datasets; of the seeds that have every dataset, NaN
        if these are fewer than two. ``rank``: mean over datasets of the rank by the mean over
        seeds, 1 = best. ``fit_seconds`` and ``score_seconds``: mean over cells.
    """
    fewer_is_better = metric == "false_alarms"
    scores = per_dataset(common, metric)
    by_seed = common.pivot_table(values=metric, index=["detector", "seed"], columns="dataset")
    table = pd.DataFrame(
        {
            "mean": scores.mean(),
            "std": by_seed.dropna().mean(axis=1).groupby("detector").std(),
            "rank": scores.rank(axis=1, ascending=fewer_is_better).mean(),
            "datasets": common.groupby("detector")["dataset"].nunique(),
            "seeds": common.groupby("detector")["seed"].nunique(),
            "fit_seconds": common.groupby("detector")["fit_seconds"].mean(),
            "score_seconds": common.groupby("detector")["score_seconds"].mean(),
        }
    )
    return table.sort_values("mean", ascending=fewer_is_better).rename_axis("detector")


def render(results: list[dict[str, Any]], metric: str = "auc_roc", detailed: bool = False) -> str:
    """Write Markdown: for every protocol in the rows a table, and what was left out of it.

    Parameters
    ----------
    results : list of dict
        Rows of results.
    metric : {"auc_roc", "auc_pr", "f1", "false_alarms"}, default="auc_roc"
    detailed : bool, default=False
        Whether to add a table of datasets x detectors.

    Returns
    -------
    str
    """
    parts, groups = [], ["protocol", "max_train", "max_test"]
    table = pd.DataFrame(results, columns=sorted({"error", "device"}.union(*results)))
    for (protocol, *caps), part in table.groupby(groups, dropna=False, sort=False):
        named = zip(("training", "test"), caps, strict=True)
        capped = [f"at most {cap:.0f} {rows_} rows" for rows_, cap in named if pd.notna(cap)]
        parts.append(f"## {', '.join([f'{protocol}: {metric}', *capped])}")
        common, missing = split_common(part)
        if len(common):
            parts.append(_markdown(summary(common, metric)))
        if len(common) and detailed:
            parts.append(_markdown(per_dataset(common, metric)))
        parts.append(_left_out(part, missing))
        where = [*part["commit"].fillna("unknown").unique(), *part["device"].dropna().unique()]
        parts.append(f"Commit and device: {', '.join(where)}.")
    return "\n\n".join(parts)


def _left_out(results: pd.DataFrame, missing: pd.DataFrame) -> str:
    total = len(results[["dataset", "seed"]].drop_duplicates())
    out = len(missing[["dataset", "seed"]].drop_duplicates())
    lines = [f"Left out: {out} of {total} pairs of dataset and seed{':' if out else '.'}"]
    for (detector, reason), part in missing.groupby(["detector", "reason"], sort=False):
        seeds = part.groupby("dataset", sort=False)["seed"].apply(list)
        cells = "; ".join(f"{name} {', '.join(map(str, found))}" for name, found in seeds.items())
        lines.append(f"- {detector}, {' '.join(reason.split())} ({cells})")
    return "\n".join(lines)


def _markdown(table: pd.DataFrame) -> str:
    def text(value: Any) -> str:
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = [[table.index.name or "", *table.columns], ["---", *["--:"] * table.shape[1]]]
    lines += [[index, *map(text, values)] for index, *values in table.itertuples(name=None)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description="Print Markdown tables. Detectors are compared on the datasets and seeds that "
        "all of them have a result for.",
        epilog="example: python -m benchmarks.report results.jsonl --metric auc_pr --per-dataset",
    )
    parser.add_argument("results", nargs="+", help="files of JSON lines from benchmarks.run")
    parser.add_argument("--metric", choices=METRICS, default=METRICS[0])
    parser.add_argument("--per-dataset", action="store_true", help="add datasets x detectors")
    parser.add_argument("--detectors", help="only these, with commas")
    parser.add_argument("--datasets", help="only these, with commas, or development, confirmation")
    args = parser.parse_args(argv)
    found = {rows.Cell.of(row): row for path in args.results for row in rows.read(path)}
    wanted = args.detectors.split(",") if args.detectors else {cell.detector for cell in found}
    chosen = {cell.dataset for cell in found}
    if args.datasets:
        chosen = set(args.datasets.split(","))
    results = [
        row for cell, row in found.items() if cell.detector in wanted and cell.dataset in chosen
    ]
    if not results:
        parser.error("no results")
    print(render(results, args.metric, args.per_dataset))


if __name__ == "__main__":
    main()
