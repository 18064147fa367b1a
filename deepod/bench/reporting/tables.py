"""The numbers of a report: groups of results, means and ranks, tests of ranks, Markdown tables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from deepod._inputs.tables import open_table
from deepod.bench.rows import Cell

if TYPE_CHECKING:
    import pandas as pd

METRICS = {
    "auc_roc": "AUC-ROC", "auc_pr": "AUC-PR", "f1": "F1", "false_alarms": "false alarms",
    "vus_pr": "VUS-PR", "vus_roc": "VUS-ROC", "range_f1": "range F1",
}  # fmt: skip
# Those of a protocol, the one that it is judged by first; of two there are differences.
_OF_ROWS = ("auc_roc", "auc_pr", "f1", "false_alarms")
_OF_SERIES = ("vus_pr", "auc_pr", "vus_roc", "auc_roc", "range_f1", "false_alarms")
TESTS = ("nemenyi", "wilcoxon-holm")
NO_DIFFERENCES = "No differences: the detector, or another one, has no results here."
PER_DATA_SET = "Mean over the series of each data set, and the mean of these"
ALPHA = 0.05  # level of the tests and intervals
_LEAST_DETECTORS, _LEAST_DATASETS = 3, 5  # fewer say nothing about ranks
_RESAMPLES = 10_000  # of the datasets, for an interval
_DIGITS = 9  # beyond, a mean depends on the order of the rows; equal means have to be ties
# What older or failed rows may lack.
NUMBERS = (
    *("n_train", "n_test", "n_features", "anomaly_share", "train_anomaly_share"),
    *("fit_seconds", "score_seconds", "stacked", "copies", *METRICS),
)
_OPTIONAL = (
    *("error", "device", "commit", "clean", "versions", "scaling", "own", "scores", "data"),
    *NUMBERS,
)


class Group(NamedTuple):
    """Comparable results: the same protocol, group of datasets, and largest numbers of rows."""

    protocol: str
    metric: str  # by which detectors are compared
    prefix: str  # group of the datasets: "wide" of "wide/letters"; may be empty
    max_train: int | None
    max_test: int | None
    rows: pd.DataFrame
    common: pd.DataFrame
    missing: pd.DataFrame

    @property
    def name(self) -> str:
        """The protocol and the group of datasets, such as "one-class, wide"."""
        return ", ".join(filter(None, (self.protocol, self.prefix)))

    @property
    def caps(self) -> str:
        """The limits, such as "at most 2000 training rows, at most 5000 test rows", or ""."""
        named = (("training", self.max_train), ("test", self.max_test))
        return ", ".join(f"at most {cap} {name} rows" for name, cap in named if cap is not None)


class Comparison(NamedTuple):
    """The results of tests of mean ranks, or the reason why there is no test."""

    reason: str = ""  # empty: tested
    ranks: pd.Series | None = None  # mean over the datasets, 1 = best
    friedman: float = 1.0  # p-value: all detectors rank alike
    pairs: pd.DataFrame | None = None  # p-values, detectors x detectors
    difference: float | None = None  # Nemenyi's critical difference


def frame(results: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows of results as a DataFrame, which has all columns also for older rows.

    Parameters
    ----------
    results : sequence of dict
        As :func:`deepod.bench.read` gives them.

    Returns
    -------
    DataFrame
        The column ``ours`` is True for detectors of deepod. In older rows, these are detectors
        that have a name without a module, or that scale rows themselves.

    Raises
    ------
    ValueError
        If datasets with different contents have the same name.
    """
    import pandas as pd

    table = pd.DataFrame(results, columns=list(dict.fromkeys([*Cell._fields, *_OPTIONAL])))
    contents = table.groupby("dataset")["data"].nunique()
    if (contents > 1).any():
        raise ValueError(
            f"results: rows of dataset {contents.idxmax()!r} come from different values or labels; "
            "compare them apart, or give one another name and run again."
        )
    plain = ~table["detector"].str.contains(":", regex=False)
    own = plain | (table["own"] == True) | (table["scaling"] == "own")  # noqa: E712
    own = own.groupby(table["detector"]).any()
    return table.assign(ours=table["detector"].map(own))


def choose(
    table: pd.DataFrame,
    detectors: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the rows of some detectors and datasets (None: all), with detectors renamed.

    Raises
    ------
    ValueError
        If a name is not in the results, or two detectors would get the same name.
    """
    names, everything = dict(rename or {}), table
    _check_known("rename", names, everything["detector"])
    for kind, wanted in (("detector", detectors), ("dataset", datasets)):
        if wanted is not None:
            _check_known(f"{kind}s", wanted, everything[kind])
            table = table[table[kind].isin(wanted)]
    if not len(table):
        raise ValueError("detectors, datasets: there are no results of these.")
    before = table["detector"].nunique()
    table = table.assign(detector=table["detector"].replace(names))
    if table["detector"].nunique() < before:
        raise ValueError("rename: two detectors would have the same name.")
    return table


def metrics_of(protocol: str) -> tuple[str, ...]:
    """Return the metrics of a protocol; the first one is its main metric."""
    return _OF_SERIES if protocol == "series" else _OF_ROWS


def groups(table: pd.DataFrame, metric: str | None = None) -> list[Group]:
    """Divide results into groups that may be compared.

    Rows of a group have the same protocol, the same prefix of the dataset's name, and the same
    limits on rows. Names of series also contain the folder of the data set, which follows the
    prefix. A row without ``metric``, as older versions wrote, counts as one with an error. If
    ``metric`` is None, it is the main metric of the protocol.
    """
    import pandas as pd

    found = []
    prefix = table["dataset"].str.rpartition("/")[0]
    outer = prefix.str.rpartition("/")[0]
    prefix = prefix.where(table["protocol"] != "series", outer).rename("prefix")
    by = ["protocol", prefix, "max_train", "max_test"]
    for (protocol, name, *caps), part in table.groupby(by, dropna=False, sort=False):
        train, test = (None if pd.isna(cap) else int(cap) for cap in caps)
        chosen = metric or metrics_of(protocol)[0]
        known = part["error"].notna() | part[chosen].notna()
        errors = part["error"].astype(object).where(known, f"no {chosen} recorded")
        part = part.assign(error=errors)
        found.append(Group(protocol, chosen, name, train, test, part, *split_common(part)))
    return found


def split_common(results: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of pairs of dataset and seed for which all detectors have results.

    Parameters
    ----------
    results : DataFrame
        Rows of one protocol and the same limits.

    Returns
    -------
    common : DataFrame
        The rows of these pairs.
    missing : DataFrame
        The missing results of the other pairs, with ``detector``, ``dataset``, ``seed`` and
        ``reason``, which is the error or "not run".
    """
    import pandas as pd

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
    """Return the means over the seeds: datasets x detectors."""
    return common.pivot_table(values=metric, index="dataset", columns="detector", sort=False)


def per_data_set(common: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return means over the series of each data set, which is the folder of the series.

    Parameters
    ----------
    common : DataFrame
        Rows of the protocol "series" for which all detectors have results.
    metric : str

    Returns
    -------
    DataFrame
        Detectors, the best first, x data sets. The column ``mean`` is the mean of the data sets.
    """
    scores = per_dataset(common, metric)
    table = scores.groupby([data_set(name) for name in scores.index], sort=False).mean().T
    table["mean"] = table.mean(axis=1)
    return table.sort_values("mean", ascending=lower_is_better(metric)).rename_axis("detector")


def data_set(series: str) -> str:
    """Return the data set of a series: "SMD" of "series-first/SMD/machine-1-6"."""
    return str(series).rpartition("/")[0].rpartition("/")[2]


def lower_is_better(metric: str) -> bool:
    """Return whether a lower value of the metric is better."""
    return metric == "false_alarms"


def summary(common: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Compare detectors over all datasets.

    Parameters
    ----------
    common : DataFrame
        Rows of cells that all detectors have.
    metric : str
        A key of :data:`METRICS`.

    Returns
    -------
    DataFrame
        One line per detector, the best first. ``mean``: mean over datasets of the means over
        seeds. ``std``: standard deviation over seeds of the mean over datasets, computed from the
        seeds that have every dataset; NaN if there are fewer than two. ``rank``: mean rank over
        datasets, 1 = best. ``fit_seconds`` and ``score_seconds``: means over all rows.
    """
    import pandas as pd

    scores = per_dataset(common, metric)
    by_seed = common.pivot_table(values=metric, index=["detector", "seed"], columns="dataset")
    table = pd.DataFrame(
        {
            "mean": scores.mean(),
            "std": by_seed.dropna().mean(axis=1).groupby("detector").std(),
            "rank": _ranks(scores, metric).mean(),
            "datasets": common.groupby("detector")["dataset"].nunique(),
            "seeds": common.groupby("detector")["seed"].nunique(),
            "fit_seconds": common.groupby("detector")["fit_seconds"].mean(),
            "score_seconds": common.groupby("detector")["score_seconds"].mean(),
        }
    )
    return table.sort_values("mean", ascending=lower_is_better(metric)).rename_axis("detector")


def overview(common: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Join the summaries by all metrics, in the order of one of them.

    Returns
    -------
    DataFrame
        Columns ``auc_roc_mean``, ``auc_roc_std``, ``auc_roc_rank`` and so on, and those of
        :func:`summary` that do not depend on the metric. The values of a metric are NaN for a
        detector that lacks it in some rows.
    """
    import pandas as pd

    main = summary(common, metric)
    parts = []
    for m in metrics_of(common["protocol"].iloc[0]):
        part = summary(_with_metric(common, m), m)
        parts.append(part[["mean", "std", "rank"]].add_prefix(f"{m}_").reindex(main.index))
    return pd.concat([*parts, main[["datasets", "seeds", "fit_seconds", "score_seconds"]]], axis=1)


def differences(common: pd.DataFrame, detector: str) -> pd.DataFrame:
    """Return by how much a detector is ahead of each other one, over datasets.

    Parameters
    ----------
    common : DataFrame
        Rows of cells that all detectors have.
    detector : str

    Returns
    -------
    DataFrame
        A line for each other detector and each ``metric`` (AUC-ROC and AUC-PR, or VUS-PR and
        AUC-PR of series), the smallest difference first. ``difference``: mean over datasets of the
        differences of the means over seeds. ``low`` and ``high``: 95 % interval, the percentiles of
        the mean over datasets drawn with replacement; NaN for a single dataset. ``wins`` and
        ``losses``: numbers of datasets, of ``datasets``. If one of the two detectors lacks a metric
        in some rows, there is no line.
    """
    import pandas as pd

    parts = []
    for metric in metrics_of(common["protocol"].iloc[0])[:2] if len(common) else ():
        scores = per_dataset(_with_metric(common, metric), metric)
        if detector in scores:
            ahead = -scores.drop(columns=detector).sub(scores[detector], axis=0).round(_DIGITS)
            low, high = interval(ahead.to_numpy())
            part = {"metric": METRICS[metric], "difference": ahead.mean(), "low": low, "high": high}
            part |= {"wins": (ahead > 0).sum(), "losses": (ahead < 0).sum(), "datasets": len(ahead)}
            parts.append(pd.DataFrame(part).sort_values("difference"))
    found = pd.concat(parts) if parts else pd.DataFrame()
    return found.rename_axis(f"{detector} minus")


def interval(values: np.ndarray) -> np.ndarray:
    """Return the ends of the 95 % intervals of the means of columns, by bootstrap over rows."""
    n, k = values.shape
    if n < 2:
        return np.full((2, k), np.nan)
    # How often each row is drawn; the same draws for all columns, and in every report.
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    return np.quantile(counts / n @ values, (ALPHA / 2, 1 - ALPHA / 2), axis=0)


def _with_metric(common: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the rows of detectors whose rows all have a metric."""
    lacking = common.loc[common[metric].isna(), "detector"]
    return common[~common["detector"].isin(lacking)]


def compare(scores: pd.DataFrame, metric: str, test: str = "nemenyi") -> Comparison:
    """Test whether detectors rank differently over datasets (Demsar, JMLR 2006).

    Friedman's test comes first; pairs are tested only if it says that there is a difference.

    Parameters
    ----------
    scores : DataFrame
        Datasets x detectors, as :func:`per_dataset` gives it.
    metric : str
        A key of :data:`METRICS`.
    test : {"nemenyi", "wilcoxon-holm"}, default="nemenyi"
        Test of the pairs: of their mean ranks, or of their differences on each dataset.

    Returns
    -------
    Comparison
    """
    import pandas as pd
    import scikit_posthocs
    from scipy.stats import friedmanchisquare, studentized_range

    n, k = scores.shape
    if k < _LEAST_DETECTORS or n < _LEAST_DATASETS:
        return Comparison(
            f"No critical-difference diagram: it needs {_LEAST_DETECTORS} detectors and "
            f"{_LEAST_DATASETS} datasets or more, and these are {k} and {n}."
        )
    ranks = _ranks(scores, metric)
    if np.ptp(ranks.mean()) < 1e-9:
        return Comparison("No critical-difference diagram: all have the same mean rank.")
    names = scores.columns
    friedman = float(friedmanchisquare(*ranks.to_numpy().T).pvalue)
    if friedman >= ALPHA:
        alike = pd.DataFrame(1.0, index=names, columns=names)
        return Comparison("", ranks.mean(), friedman, alike)
    if test == "nemenyi":
        pairs = scikit_posthocs.posthoc_nemenyi_friedman(ranks.to_numpy())
        quantile = studentized_range.ppf(1 - ALPHA, k, np.inf) / np.sqrt(2)
        difference = float(quantile * np.sqrt(k * (k + 1) / (6 * n)))
    else:  # zsplit: detectors that are equal everywhere have a p-value, too
        columns = list(scores.round(_DIGITS).to_numpy().T)
        pairs = scikit_posthocs.posthoc_wilcoxon(columns, zero_method="zsplit", p_adjust="holm")
        difference = None
    pairs = pd.DataFrame(pairs.to_numpy(), index=names, columns=names)
    return Comparison("", ranks.mean(), friedman, pairs, difference)


def pareto(seconds: Any, quality: Any) -> np.ndarray:
    """Return which points no other point dominates in time and quality (higher = better).

    Examples
    --------
    >>> from deepod.bench.reporting.tables import pareto
    >>> pareto([1, 2, 3, 4], [0.7, 0.6, 0.9, 0.9]).tolist()
    [True, False, True, False]
    """
    seconds, quality = np.asarray(seconds), np.asarray(quality)
    no_worse = (seconds <= seconds[:, None]) & (quality >= quality[:, None])
    better = (seconds < seconds[:, None]) | (quality > quality[:, None])
    return ~(no_worse & better).any(axis=1)


def with_published(common: pd.DataFrame, path: str | os.PathLike[str]) -> tuple[Any, Any]:
    """Return AUC-ROC beside published figures, on the datasets that both have.

    Parameters
    ----------
    common : DataFrame
        Rows of cells that all detectors have.
    path : path-like
        .csv with a column ``dataset`` and one for each detector, AUC-ROC in percent. A dataset is
        the same with or without ADBench's number, in upper or lower case. An empty cell is a figure
        that is not known.

    Returns
    -------
    scores : DataFrame
        Datasets x detectors, in percent; published ones are called "NAME (published)".
    means : DataFrame
        ``mean``, ``rank`` among all of them, and ``here``, which is True for the detectors of
        ``common``; the best first. Published detectors that lack a figure are left out.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is another kind of file, its figures are not in percent, or it names one dataset
        twice.
    """
    import pandas as pd

    published = _read_published(path)
    ours = 100 * per_dataset(common, "auc_roc")
    for table in (published, ours):
        table.index = [_without_number(name) for name in table.index]
        if not table.index.is_unique:
            twice = table.index[table.index.duplicated()][0]
            raise ValueError(f"reference {path}: dataset {twice!r} is there twice, or in results.")
    published.columns = [f"{name} (published)" for name in published.columns]
    here = set(ours.columns)
    if twice := here & set(published.columns):
        raise ValueError(f"reference {path}: the results have a {min(twice)!r}, too; rename it.")
    scores = ours.join(published, how="inner").rename_axis("dataset")
    whole = scores.dropna(axis=1)
    means = pd.DataFrame(
        {"mean": whole.mean(), "rank": _ranks(whole, "auc_roc").mean()},
    ).rename_axis("detector")
    means["here"] = [name in here for name in means.index]
    return scores, means.sort_values("mean", ascending=False)


def markdown(table: pd.DataFrame, number: Callable[[float], str] = "{:.3f}".format) -> str:
    """Return a table with its index in Markdown; ``number`` formats floats."""
    lines = [[table.index.name or "", *table.columns]]
    for values in table.itertuples(name=None):
        lines.append([number(v) if isinstance(v, float) else v for v in values])
    return pipe_table(lines)


def pipe_table(lines: Iterable[Sequence[Any]], text: Container[int] = (0,)) -> str:
    """Return lines of cells as a Markdown table; the first line is the head.

    The columns with the numbers in ``text`` are aligned left, the others right.
    """
    # No name ends a cell or opens a tag.
    head, *rest = ([re.sub(r"([|<\\])", r"\\\1", flat(cell)) for cell in line] for line in lines)
    rule = ["---" if place in text else "--:" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rest))


def left_out(group: Group) -> list[str]:
    """Return how many pairs of dataset and seed are left out, and a line for each reason."""
    total = len(group.rows[["dataset", "seed"]].drop_duplicates())
    out = len(group.missing[["dataset", "seed"]].drop_duplicates())
    lines = [f"Left out: {out} of {total} pairs of dataset and seed{':' if out else '.'}"]
    alike: dict[str, list[str]] = {}  # detectors that lack the same cells for the same reason
    for (detector, reason), part in group.missing.groupby(["detector", "reason"], sort=False):
        seeds = part.groupby("dataset", sort=False)["seed"].apply(list)
        cells = "; ".join(f"{name} {', '.join(map(str, found))}" for name, found in seeds.items())
        alike.setdefault(f"{reason} ({cells})", []).append(detector)
    lines += [flat(f"{', '.join(names)}, {why}") for why, names in alike.items()]
    return lines


def render(
    found: Sequence[Group], detailed: bool = False, differences_of: str | None = None
) -> str:
    """Return Markdown with a table for every group, and what was left out of it.

    Parameters
    ----------
    found : sequence of Group
    detailed : bool, default=False
        Whether to add a table of datasets x detectors.
    differences_of : str, optional
        Add a table of the differences between this detector and the others.

    Returns
    -------
    str
    """
    parts = []
    for group in found:
        metric = group.metric
        parts.append(flat(f"## {group.name}: {metric}" + (group.caps and f", {group.caps}")))
        if len(group.common):
            if group.protocol == "series":
                table = markdown(per_data_set(group.common, metric))
                parts += [f"{PER_DATA_SET}:", table, "Mean over all series:"]
            parts.append(markdown(summary(group.common, metric)))
            if differences_of is not None:
                ahead = differences(group.common, differences_of)
                parts.append(markdown(ahead, _signed) if len(ahead) else NO_DIFFERENCES)
            if detailed:
                parts.append(markdown(per_dataset(group.common, metric)))
        first, *others = left_out(group)
        parts.append("\n".join([first, *(f"- {line}" for line in others)]))
        if unclean(group.rows):
            parts.append("Not clean: test rows may be training rows, too.")
        commits = group.rows["commit"].astype(object).fillna("unknown").unique()
        where = [*commits, *group.rows["device"].dropna().unique()]
        parts.append(f"Commit and device: {', '.join(map(flat, where))}.")
    return "\n\n".join(parts)


def _signed(value: float) -> str:
    return "nan" if np.isnan(value) else f"{value:+.3f}"


def unclean(rows: pd.DataFrame) -> int:
    """Return the number of rows whose test rows may be training rows, too."""
    return sum(value is False for value in rows["clean"])  # None: unknown


def flat(value: Any) -> str:
    """Return a value as one line of text, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def _read_published(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return published figures from a file: datasets x detectors, in percent."""
    import pandas as pd

    try:
        table = open_table(Path(path), as_text=["dataset"])
        names = [name for name in table.names if name != "dataset"]
        if not names:
            raise ValueError("no column of figures is there.")
        values = np.concatenate(list(table.numbers(names)))
        index = table.values("dataset")
    except ValueError as error:
        raise ValueError(
            f"reference {path}: {error} There should be a column 'dataset' and one per detector."
        ) from error
    published = pd.DataFrame(values, index=index, columns=names)
    for name, column in published.items():
        if ((column < 0) | (column > 100)).any() or column.max() <= 1:
            raise ValueError(
                f"reference {path}: column {name!r} must hold AUC-ROC in percent, from 0 to 100; "
                "leave out all columns but 'dataset' and those of detectors."
            )
    return published


def _ranks(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    return scores.round(_DIGITS).rank(axis=1, ascending=lower_is_better(metric))


def _without_number(name: str) -> str:
    """Return a name without ADBench's number: thyroid for 38_thyroid."""
    return re.sub(r"^\d+_", "", str(name)).casefold()


def _check_known(argument: str, names: Any, known: pd.Series) -> None:
    if isinstance(names, str):
        raise ValueError(f"{argument}: expected a list of names, got {names!r}.")
    for name in names:
        if name not in set(known):
            raise ValueError(
                f"{argument}: the results have no {name!r}; they have "
                f"{', '.join(sorted(set(known)))}."
            )
