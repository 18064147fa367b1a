"""The page of a report: a single HTML file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from deepod.bench import protocols
from deepod.bench.reporting import figures, tables
from deepod.bench.reporting.figures import Look
from deepod.bench.reporting.tables import METRICS, Group

if TYPE_CHECKING:
    import pandas as pd

_HOW = {
    "nemenyi": "Nemenyi's test of all pairs: a bar joins detectors (its dots) whose mean "
    "ranks differ by less than the critical difference (CD)",
    "wilcoxon-holm": "Wilcoxon's signed-rank test of each pair, with Holm's correction: a bar "
    "joins detectors (its dots) that it does not tell apart",
}
_LONG = 400  # characters that the header shows at once
_MANY = 12  # detectors that are not named one by one
_COPIES = 0.01  # share of copies from which on a dataset is named


class Options(NamedTuple):
    """Options of a page, as in :func:`deepod.bench.report`."""

    test: str = "nemenyi"
    dataset: str | None = None  # for the curves
    reference: Mapping[str, Any] = {}  # protocol to file of published figures
    differences_of: str | None = None  # detector to set beside the others


def write(found: Sequence[Group], options: Options) -> dict[str, str]:
    """Write the page, and the tables behind it.

    Parameters
    ----------
    found : sequence of Group
    options : Options

    Returns
    -------
    dict
        Names of files to their contents: ``index.html`` and .csv.
    """
    import pandas as pd

    everything = pd.concat([group.rows for group in found])
    own = everything.groupby("detector")["ours"].any()
    look = figures.looks({str(name): bool(ours) for name, ours in own.items()})
    files: dict[str, str] = {}
    sections, contents = [], []
    for number, group in enumerate(found, start=1):
        section = _Section(number, group, options, look, files)
        sections.append(section.write())
        links = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title in section.parts)
        name = escape(_title(group))
        contents.append(f'<li><a href="#{section.key}">{name}</a><ul>{links}</ul></li>')
    body = (
        f"<header><h1>Anomaly detectors compared</h1>{_run(found, everything)}</header>"
        f"{_warnings(found)}"
        f'<nav aria-label="Contents"><h2>Contents</h2><ul>{"".join(contents)}</ul></nav>'
        f"<main>{''.join(sections)}</main>"
        f"<footer>{_legend()} Written by <code>deepod report</code>.</footer>"
    )
    return {"index.html": f"{_HEAD}<body>{body}</body></html>\n", **files}


class _Section:
    """The section of the page about one group."""

    def __init__(
        self,
        number: int,
        group: Group,
        options: Options,
        look: Mapping[str, Look],
        files: dict[str, str],
    ) -> None:
        self.key = f"g{number}"
        words = (group.protocol, group.prefix or None, group.max_train, group.max_test)
        name = "-".join(str(word) for word in words if word is not None)
        # A number in front: names that differ in other characters only are different files.
        self.stem = f"{number}-{''.join(c if c.isalnum() else '-' for c in name)[:60]}"
        self.group, self.options, self.look, self.files = group, options, look, files
        self.low = tables.lower_is_better(group.metric)
        self.metric = METRICS[group.metric]
        self.parts: list[tuple[str, str]] = []

    def write(self) -> str:
        """Write the section."""
        group = self.group
        done = (
            f"<h2>{escape(_title(group))}</h2><p class=about>{escape(_about(group.protocol))}</p>"
        )
        if len(group.common):
            scores = tables.per_dataset(group.common, self.group.metric)
            done += self.data_sets() + self.summary() + self.differences() + self.ranks(scores)
            done += self.datasets(scores)
            done += self.time() + self.curves(scores) + self.published()
        done += self.left_out()
        return f'<section id="{self.key}">{done}</section>'

    def part(self, name: str, title: str, text: str) -> str:
        """Return a part with its heading, which is added to the contents."""
        key = f"{self.key}-{name}"
        self.parts.append((key, title))
        return f'<article id="{key}"><h3>{title}</h3>{text}</article>'

    def figure(self, name: str, drawn: Any, title: str, caption: str) -> str:
        """Return a picture with its caption."""
        drawing = figures.svg(drawn, title, f"{self.key}-{name}")
        return f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>"

    def save(self, name: str, table: pd.DataFrame) -> str:
        """Add a table to the files beside the page, and return a link to it."""
        file = f"{self.stem}-{name}.csv"
        self.files[file] = table.to_csv(lineterminator="\n")
        return f'<a href="{escape(file)}">{escape(file)}</a>'

    # --- parts ---

    def data_sets(self) -> str:
        """Return means over the series of each data set."""
        if self.group.protocol != "series":
            return ""
        table = tables.per_data_set(self.group.common, self.group.metric)
        best = table.agg("min" if self.low else "max")
        lines = []
        for name, row in table.iterrows():
            cells = "".join(_cell(f"{100 * row[c]:.1f}", row, best, c) for c in table)
            lines.append(f"<tr{self.ours(name)}>{self.name(name)}{cells}</tr>")
        heads = "".join(f"<th scope=col>{escape(tables.flat(c))}</th>" for c in table)
        note = f"{tables.PER_DATA_SET}: {self.metric}, percent. Table: "
        note += self.save("data-sets", table)
        text = _table(f"<tr><th scope=col>detector</th>{heads}</tr>", lines)
        return self.part("sets", "Data sets", f"{text}<p class=note>{note}</p>")

    def summary(self) -> str:
        """Return all metrics in one table."""
        table = tables.overview(self.group.common, self.group.metric)
        file = self.save("summary", table)
        shown = tables.metrics_of(self.group.protocol)
        head = "".join(f"<th colspan=2 scope=colgroup>{METRICS[m]}, %</th>" for m in shown)
        below = "<th scope=col>mean ± std</th><th scope=col>rank</th>" * len(shown)
        best = {
            f"{m}_{kind}": table[f"{m}_{kind}"].agg(
                "min" if kind == "rank" or tables.lower_is_better(m) else "max"
            )
            for m in shown
            for kind in ("mean", "rank")
        }
        lines = []
        for name, row in table.iterrows():
            cells = ""
            for m in shown:
                std = _text(100 * row[f"{m}_std"], " <small>± {:.1f}</small>")
                mean = _text(100 * row[f"{m}_mean"], "{:.1f}")
                cells += _cell(mean + std, row, best, f"{m}_mean")
                cells += _cell(_text(row[f"{m}_rank"], "{:.2f}"), row, best, f"{m}_rank")
            for seconds in (row["fit_seconds"], row["score_seconds"]):
                cells += f"<td>{_text(seconds, '{:.3g}')}</td>"
            lines.append(f"<tr{self.ours(name)}>{self.name(name)}{cells}</tr>")
        rest = ("fit, s", "score, s")
        text = _table(
            f"<tr><th rowspan=2 scope=col>detector</th>{head}"
            + "".join(f"<th rowspan=2 scope=col>{name}</th>" for name in rest)
            + f"</tr><tr>{below}</tr>",
            lines,
        )
        n = self.group.common[["detector", "dataset", "seed"]].nunique()
        counts = (f"{n[kind]} {kind}{'s' if n[kind] > 1 else ''}" for kind in n.index)
        lead = f"<p>{', '.join(counts)}.</p>"
        note = (
            "Mean over the datasets of the mean over the seeds; ± is the standard deviation, over "
            "the seeds, of the mean over the datasets; rank is the mean over the datasets, 1 is "
            "best. F1 is that of flagging as many rows as there are anomalies; range F1 and false "
            "alarms, the share of normal test rows, are those of the threshold that training set."
        )
        return self.part(
            "summary", "Summary", f"{lead}{text}<p class=note>{note} Table: {file}</p>"
        )

    def differences(self) -> str:
        """Return how far one detector is ahead of the others."""
        if self.options.differences_of is None:
            return ""
        title = "Differences"
        table = tables.differences(self.group.common, self.options.differences_of)
        if not len(table):
            return self.part("differences", title, f"<p>{tables.NO_DIFFERENCES}</p>")
        lines = []
        for name, row in table.iterrows():
            interval = [_text(100 * row[end], "{:+.1f}") for end in ("low", "high")]
            cells = (row["metric"], f"{100 * row['difference']:+.1f}", *interval)
            cells += (row["wins"], row["losses"], row["datasets"])
            text = "".join(f"<td>{cell}</td>" for cell in cells)
            lines.append(f"<tr{self.ours(name)}>{self.name(name)}{text}</tr>")
        heads = (str(table.index.name), "metric", "difference, points", "low", "high")
        head = "".join(
            f"<th scope=col>{escape(tables.flat(name))}</th>"
            for name in (*heads, "wins", "losses", "datasets")
        )
        note = (
            f"{escape(self.options.differences_of)} minus each other detector, in percentage "
            "points: mean over the datasets of the difference of the means over the seeds. Low and "
            "high are the ends of its 95 % interval by bootstrap over the datasets; of few "
            "datasets it is too narrow. Wins and losses are numbers of datasets. Table: "
            f"{self.save('differences', table)}"
        )
        text = f"{_table(f'<tr>{head}</tr>', lines)}<p class=note>{note}</p>"
        return self.part("differences", title, text)

    def ranks(self, scores: pd.DataFrame) -> str:
        """Return the critical-difference diagram."""
        found = tables.compare(scores, self.group.metric, self.options.test)
        if found.ranks is None:
            return self.part("ranks", "Ranks", f"<p>{escape(found.reason)}</p>")
        p = f"p {'< 0.0001' if found.friedman < 1e-4 else f'= {found.friedman:.4f}'}"
        alike = (
            f"{_HOW[self.options.test]}."
            if found.friedman < tables.ALPHA
            else "It does not tell the detectors apart, so no pairs were tested: one bar joins all."
        )
        caption = (
            f"Mean ranks by {self.metric} over {len(scores)} datasets, the best at the left. "
            f"Friedman's test that all rank alike: {p}. {alike} Level {tables.ALPHA}."
        )
        drawn = figures.critical_difference(found, self.look)
        title = f"Critical-difference diagram of {len(found.ranks)} detectors"
        return self.part("ranks", "Ranks", self.figure("cd", drawn, title, caption))

    def datasets(self, scores: pd.DataFrame) -> str:
        """Return the heat map, and a table of the datasets."""
        drawn = figures.heat_map(scores, self.look, self.low)
        file = self.save(f"{self.group.metric}-per-dataset", scores)
        caption = (
            f"Percent, mean over the seeds of {self.metric}. Detectors from the best mean at the "
            f"left, datasets from the easiest on top; bold is best on a dataset. Table: {file}"
        )
        title = f"{self.metric} of {scores.shape[1]} detectors on {len(scores)} datasets"
        facts = {
            "n_train": ("training rows", "{:.0f}"),
            "n_test": ("test rows", "{:.0f}"),
            "n_features": ("features", "{:.0f}"),
            "anomaly_share": ("anomalies in test", "{:.1%}"),
            "train_anomaly_share": ("anomalies in training", "{:.1%}"),
            "copies": ("test rows that equal a training row", "{:.1%}"),
        }
        known = self.group.common.groupby("dataset", sort=False)[list(facts)].agg(_mean)
        lines = [
            f"<tr><th scope=row>{escape(str(name))}</th>"
            + "".join(f"<td>{_text(row[c], form)}</td>" for c, (_, form) in facts.items())
            + "</tr>"
            for name, row in known.iterrows()
        ]
        head = "".join(f"<th scope=col>{name}</th>" for name, _ in facts.values())
        about = _table(f"<tr><th scope=col>dataset</th>{head}</tr>", lines)
        return self.part(
            "datasets",
            "Datasets",
            self.figure("heat", drawn, title, caption)
            + f"<details><summary>Facts about the datasets</summary>{about}</details>",
        )

    def time(self) -> str:
        """Draw seconds against quality."""
        table = tables.summary(self.group.common, self.group.metric)
        if table[["fit_seconds", "mean"]].isna().any(axis=None):
            return ""
        drawn = figures.time_against_quality(table, self.metric, self.look, self.low)
        caption = (
            "Up and to the left is better. The grey line and a star mark the Pareto front: no "
            "other detector is both as fast and as good."
        )
        title = f"Fit time against {self.metric}"
        return self.part("time", "Time and quality", self.figure("time", drawn, title, caption))

    def curves(self, scores: pd.DataFrame) -> str:
        """Draw curves and histograms of one dataset."""
        title = "Curves and scores on one dataset"
        dataset, seed, kept = _kept(self.group.common, scores, self.options.dataset)
        if dataset is None or not kept:
            text = "No scores are kept for these results. Run "
            if dataset is not None:
                text = f"The scores kept for {escape(dataset)} cannot be read. Delete them, run "
            text += (
                "<code>deepod bench ... --keep-scores</code>, which keeps them in a folder beside "
                "the file of results, and write this report again."
            )
            if dataset is None and self.options.dataset is not None:
                text = f"On {escape(self.options.dataset)}: {text}"
            return self.part("curves", title, f"<p>{text}</p>")
        why = (
            "" if self.options.dataset else
            " Of the datasets with kept scores, the one on which the detectors differ most in "
            f"{self.metric}."
        )  # fmt: skip
        without = sorted(set(scores.columns) - set(kept))
        lacking = f" No readable scores are kept for {', '.join(without)}." if without else ""
        other = _of_another_run(self.group.common, dataset, seed, kept)
        stale = (
            f" The scores kept for {', '.join(other)} are of another run than the tables: their "
            "AUC-ROC is not that of the results." if other else ""
        )  # fmt: skip
        drawn, order = figures.curves(kept, self.look)
        text = self.figure(
            "curves",
            drawn,
            f"ROC and precision-recall curves on {dataset}",
            escape(
                f"{dataset}, seed {seed}.{why}{lacking} Grey lines: scores that say nothing about "
                f"the labels.{stale}"
            ),
        )
        drawn = figures.histograms(kept, order, self.look)
        text += self.figure(
            "scores",
            drawn,
            f"Score histograms on {dataset}",
            escape(f"{dataset}, seed {seed}: scores of normal rows and anomalies, each as shares."),
        )
        return self.part("curves", title, text)

    def published(self) -> str:
        """Return our figures among published ones."""
        path = self.options.reference.get(self.group.protocol)
        if path is None:
            return ""
        scores, means = tables.with_published(self.group.common, path)
        gaps = [str(name) for name in scores.columns.difference(means.index, sort=False)]
        if not len(scores):
            text = f"<p>No dataset is in both the results and {escape(Path(path).name)}.</p>"
            return self.part("published", "Beside published figures", text)
        file = self.save("published", scores)
        lines = [
            f"<tr{' class=ours' if row['here'] else ''}>"
            + (self.name(name) if row["here"] else f"<th scope=row>{escape(str(name))}</th>")
            + f"<td>{row['mean']:.2f}</td><td>{row['rank']:.2f}</td>"
            f"<td>{'this run' if row['here'] else ''}</td></tr>"
            for name, row in means.iterrows()
        ]
        head = "".join(
            f"<th scope=col>{name}</th>" for name in ("detector", "AUC-ROC, %", "rank", "")
        )
        drawn = figures.places(means, self.look)
        picture = self.figure(
            *("places", drawn, "Mean AUC-ROC of ours and published detectors"),
            "Mean AUC-ROC; in colour what was run here, in grey what others have published.",
        )
        caps = self.group.caps
        note = (
            f"Mean and mean rank among all of these, on the {len(scores)} datasets that are in "
            f"both the results and {Path(path).name}: {', '.join(scores.index)}. The published "
            "figures were not run here."
            + (f" Left out, as they lack some of these: {', '.join(gaps)}." if gaps else "")
            + (f" Ours saw {caps}, which those who published did not limit so." if caps else "")
        )
        table = f"<details><summary>Table</summary>{_table(f'<tr>{head}</tr>', lines)}</details>"
        text = f"{picture}{table}<p class=note>{escape(note)} Table: {file}</p>"
        return self.part("published", "Beside published figures", text)

    def left_out(self) -> str:
        """Return what is not compared, and why."""
        first, *others = map(escape, tables.left_out(self.group))
        text = f"<p>Detectors are compared on what all of them have. {first}</p>"
        if others:
            items = "".join(f"<li>{line}</li>" for line in others)
            text += f"<details open><summary>Why</summary><ul class=plain>{items}</ul></details>"
            file = self.save("left-out", self.group.missing.set_index("detector"))
            text += f"<p class=note>Table: {file}</p>"
        return self.part("left-out", "Left out", text)

    # --- names ---

    def ours(self, name: str) -> str:
        """Return the HTML class of a line of a table: detectors of deepod have one."""
        return " class=ours" if self.look[name].ours else ""

    def name(self, name: str) -> str:
        """Return the head of a line, with the colour of the detector in the figures."""
        of = self.look[name]
        fill = of.color if of.ours else "transparent"
        dot = f'<i class=dot style="border-color:{of.color};background:{fill}"></i>'
        shown = escape(str(name)).replace("/", "/<wbr>").replace(":", ":<wbr>")
        return f"<th scope=row>{dot}{shown}</th>"


def _kept(
    common: pd.DataFrame, scores: pd.DataFrame, wanted: str | None
) -> tuple[str | None, int, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return a dataset with kept scores, its first seed with any, and scores by detector."""
    there = common[[p is not None and Path(p).exists() for p in common["scores"]]]
    if wanted is not None:
        there = there[there["dataset"] == wanted]
    if not len(there):
        return None, 0, {}
    seen = scores.loc[there["dataset"].unique()]
    dataset = (seen.max(axis=1) - seen.min(axis=1)).idxmax()
    there = there[there["dataset"] == dataset]
    seed = int(there["seed"].min())
    cells = there[there["seed"] == seed].itertuples()
    read = {row.detector: _read_scores(row.scores) for row in cells}
    return dataset, seed, {name: found for name, found in read.items() if found is not None}


def _read_scores(path: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Return labels and scores from a file, or None if it is damaged or holds something else."""
    try:
        with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            y, scores = file["y"], file["scores"]
    except Exception:  # of numpy, zipfile, zlib and others, as the damage has it
        return None
    known = y.ndim == 1 and y.shape == scores.shape and y.dtype.kind in "biu"
    known = known and scores.dtype.kind in "biuf" and bool(np.isfinite(scores).all())
    return (y, scores) if known and np.array_equal(np.unique(y), (0, 1)) else None


def _of_another_run(
    common: pd.DataFrame, dataset: str, seed: int, kept: Mapping[str, Any]
) -> list[str]:
    """Return the detectors whose kept scores have another AUC-ROC than the results."""
    from sklearn.metrics import roc_auc_score

    rows = common[(common["dataset"] == dataset) & (common["seed"] == seed)]
    found = rows.set_index("detector")["auc_roc"].dropna()
    return [
        name
        for name, (y, scores) in kept.items()
        if name in found and abs(roc_auc_score(y, scores) - found[name]) > 1e-6
    ]


# --- header ---------------------------------------------------------------------------------------


def _run(found: Sequence[Group], rows: pd.DataFrame) -> str:
    """Return a list of what was run, with which versions and on which device."""
    versions: dict[str, set[str]] = {}
    for of_row in rows["versions"]:
        for name, version in (of_row if isinstance(of_row, dict) else {}).items():
            versions.setdefault(name, set()).add(str(version))
    seeds, detectors = sorted(rows["seed"].unique()), sorted(rows["detector"].unique())
    facts = {
        "Protocols": "; ".join(
            dict.fromkeys(f"{g.protocol}: {_about(g.protocol)[:-1]}" for g in found)
        ),
        "Caps": "; ".join(dict.fromkeys(g.caps or "none" for g in found)),
        "Detectors": f"{len(detectors)}: {', '.join(detectors)}",
        "Datasets": f"{rows['dataset'].nunique()}: {', '.join(rows['dataset'].unique())}",
        "Seeds": f"{len(seeds)}: {', '.join(map(str, seeds))}",
        "Rows": f"{len(rows)}, {rows['error'].notna().sum()} of them with an error",
        "Commit": ", ".join(_unique(rows["commit"])),
        "Device": ", ".join(_unique(rows["device"])),
        "Versions": ", ".join(
            f"{name} {' and '.join(sorted(found))}" for name, found in sorted(versions.items())
        ),
    }
    items = ""
    for name, value in facts.items():
        text = escape(tables.flat(value or "unknown"))
        first, _, rest = text.partition(": ")
        if len(text) > _LONG and first.isdigit():  # a count, and a list to open
            text = f"<details><summary>{first}</summary>{rest}</details>"
        items += f"<dt>{name}</dt><dd>{text}</dd>"
    return f"<dl>{items}</dl>"


def _warnings(found: Sequence[Group]) -> str:
    """Return warnings and hints about the results as a whole."""
    done = ""
    for group in found:
        rows, name = group.rows, _title(group)
        unclean = tables.unclean(rows)
        if unclean:
            done += _box(
                "warning",
                f"{name}: {unclean} of {len(rows)} rows are not clean. Test rows, or copies of "
                "them, may be among the training rows, which flatters methods that memorise. Set "
                "these figures beside others of the same protocol only.",
            )
        copies = rows.groupby("dataset", sort=False)["copies"].agg(_mean)
        many = copies[copies > _COPIES].sort_values(ascending=False)
        if len(many) and not unclean:
            listed = ", ".join(f"{dataset} {share:.0%}" for dataset, share in many.items())
            done += _box(
                "hint", f"{name}: on some datasets test rows equal a training row: {listed}."
            )
        together = rows[rows["stacked"].fillna(1).astype(float) > 1]
        if len(together):
            seeds = ", ".join(str(int(n)) for n in sorted(together["stacked"].unique()))
            which = sorted(together["detector"].unique())
            names = ", ".join(which) if len(which) <= _MANY else f"{len(which)} detectors"
            done += _box(
                "hint",
                f"{name}: {seeds} seeds of {names} were trained side by side; the fit seconds of "
                "each are its share of the time that they took together.",
            )
        unknown = int((rows["clean"].isna() & rows["error"].isna()).sum())
        if unknown:
            done += _box(
                "hint",
                f"{name}: {unknown} rows are from an older version that did not record copies of "
                "rows, nor how many seeds were trained side by side.",
            )
    return done


def _title(group: Group) -> str:
    return tables.flat(group.name + (group.caps and f", {group.caps}"))


def _about(protocol: str) -> str:
    if protocol in protocols.DIVIDED:
        about = protocols.DIVIDED[protocol]
        return f"{about[0].upper()}{about[1:]}."
    try:
        found, amount = protocols.find(protocol)
    except ValueError:
        return "Unknown to this version of deepod."
    about = found.about[0].upper() + found.about[1:]
    return about + (f" ({amount:g})." if found.least is not None else ".")


def _legend() -> str:
    return (
        "Bold names and filled points are detectors of deepod; hollow points and dashed, pale "
        "lines are others."
    )


# --- pieces of HTML -------------------------------------------------------------------------------


def _box(kind: str, text: str) -> str:
    return f'<p class="box {kind}" role=note>{escape(text)}</p>'


def _table(head: str, lines: Iterable[str]) -> str:
    rows = "".join(lines)
    return f"<div class=wide><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>"


def _cell(text: str, row: Any, best: Mapping[str, float], column: str) -> str:
    return f"<td{' class=best' if row[column] == best[column] else ''}>{text}</td>"


def _text(value: float, form: str) -> str:
    """Format a number; NaN gives an empty text."""
    return "" if np.isnan(value) else form.format(value)


def _mean(values: pd.Series) -> float:
    known = values.dropna()
    return float(known.astype(float).mean()) if len(known) else np.nan


def _unique(values: pd.Series) -> list[str]:
    return [str(value) for value in values.dropna().unique()]


_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Anomaly detectors compared</title>
<style>
:root { --ink: #1c2733; --soft: #55636f; --line: #dfe4e9; --ours: #0b5fa5; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0 auto; max-width: 1160px; padding: 2rem 1.25rem 4rem; background: #fff;
  color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { font-size: 1.9rem; margin: 0 0 1rem; letter-spacing: -.01em; }
h2 { font-size: 1.4rem; margin: 3rem 0 .25rem; padding-top: 1rem;
  border-top: 2px solid var(--ink); }
h3 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
nav h2 { font-size: 1rem; border: 0; margin: 0 0 .3rem; padding: 0; }
a { color: var(--ours); }
.about, figcaption, .note, footer { color: var(--soft); }
.about { margin: 0; }
figcaption, .note, footer { font-size: .875rem; max-width: 52rem; }
h2, p, figcaption, .box, .plain { overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0;
  font-size: .9rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
nav { margin: 1.5rem 0; padding: 1rem 1.25rem; background: #f5f7f9; border-radius: 6px;
  font-size: .9rem; }
nav ul { margin: 0; padding: 0; list-style: none; }
nav ul ul { display: flex; flex-wrap: wrap; gap: 0 1.2rem; }
.box { margin: .8rem 0; padding: .6rem 1rem; border-left: 4px solid var(--line);
  background: #f5f7f9; font-size: .9rem; }
.warning { border-color: #c2410c; background: #fff4ec; }
.warning::before { content: "Warning. "; font-weight: 700; color: #9a3412; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .5rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--soft);
  vertical-align: bottom; }
thead th[colspan] { text-align: center; border-bottom: 0; }
tbody th, thead tr:first-child th:first-child { text-align: left; font-weight: 400;
  position: sticky; left: 0; background: #fff; }
tbody th { white-space: normal; overflow-wrap: anywhere; min-width: 11rem; }
tr.ours th { font-weight: 700; }
tr.ours th, tr.ours td { background: #f1f6fb; }
td small { color: var(--soft); }
.best { font-weight: 700; }
.dot { display: inline-block; width: .7em; height: .7em; margin-right: .55em; border: 2px solid;
  border-radius: 50%; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
figure { margin: .5rem 0 1.5rem; overflow-x: auto; }
svg { display: block; width: 100%; height: auto; margin-bottom: .5rem; }
details { margin: .5rem 0; font-size: .9rem; }
dd details { margin: 0; font-size: inherit; }
summary { cursor: pointer; }
.plain { padding-left: 1.2rem; }
code { background: #eef1f4; padding: 0 .25em; border-radius: 3px; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; }
@media (max-width: 700px) { body { padding: 1rem .75rem 3rem; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } nav { display: none; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } a { color: inherit; }
  .wide, figure { overflow: visible; } svg { min-width: 0 !important; }
  table { font-size: 7.5pt; } th, td { padding: .15rem .3rem; } }
</style></head>
"""
