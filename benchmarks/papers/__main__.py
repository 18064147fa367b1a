"""What a paper prints beside what we get: ``python -m benchmarks.papers --help``.

A section of a file beside this one is a detector with ``params``, as ``deepod bench`` takes it, and
either ``ours``, a line on why no printed figure belongs to it, or a table ``paper``:

``source``
    Where the figures are printed.
``protocol``, ``metric``, ``datasets``
    As ``deepod bench`` has them.
``published``
    The figures, in percent: ``each`` and ``std``, of each dataset, and ``mean``, over all of them
    as printed; what is not printed is left out, in a list it is nan.
``others``
    What is printed beside them for other methods: names to tables like ``published``.
``runs``, ``seeds``
    How many runs the paper has, if it says so, and how many seeds are run here.
``unstated``, ``departs``
    Lists of what the paper does not say and what is done here, and of where we do otherwise.

Sections of images set ``cross_fitting = false``: it learns the threshold alone, which their metric
does not need, and doubles the time of a fit.

``default``
    Section to run as the default setting, where that is not the detector without parameters.
"""

from __future__ import annotations

import argparse
import math
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from benchmarks import _common, adbench
from deepod import bench
from deepod.bench.options import count, listed, stoppable
from deepod.bench.reporting.tables import pipe_table

FOLDER = Path(__file__).parent
METRICS = {"f1": "F1", "auc_roc": "AUC-ROC", "auc_pr": "AUC-PR"}


class Section(NamedTuple):
    """A setting, and what its paper prints."""

    file: str  # as in the names of detectors
    name: str
    spec: dict[str, Any]

    @property
    def paper(self) -> dict[str, Any]:
        """The table ``paper``; empty if the setting is ours."""
        return self.spec.get("paper", {})

    @property
    def detector(self) -> str:
        """Name of the detector with the setting of the paper."""
        return f"{self.file}:{self.name}"

    @property
    def default(self) -> str:
        """Name of the detector with the default setting."""
        own = self.paper.get("default")
        return f"{self.file}:{own}" if own else self.spec["detector"]


class Result(NamedTuple):
    """A section that was run: names of its datasets, in order, and rows of results."""

    section: Section
    datasets: Sequence[str]
    rows: Sequence[dict[str, Any]]

    def values(self, dataset: str, detector: str) -> dict[int, float]:
        """Figures in percent by seed, of the seeds without an error."""
        metric = self.section.paper["metric"]
        return {
            row["seed"]: 100 * row[metric]
            for row in self.rows
            if (row["dataset"], row["detector"]) == (dataset, detector) and "error" not in row
        }

    def means(self, detector: str) -> dict[int, float]:
        """Means over the datasets by seed, of the seeds that have all datasets."""
        each = [self.values(dataset, detector) for dataset in self.datasets]
        common = set(each[0]).intersection(*each)
        return {seed: fmean(values[seed] for values in each) for seed in sorted(common)}


def read(paper: str, names: Sequence[str] = ()) -> list[Section]:
    """Read the sections of a paper, or those of these names.

    Raises
    ------
    ValueError
        If there is no such paper or section.
    """
    path = FOLDER / f"{paper}.toml"
    if not path.is_file():
        raise ValueError(f"No paper {paper!r}; there are {', '.join(papers())}.")
    specs = tomllib.loads(path.read_text(encoding="utf-8"))
    unknown = [name for name in names if name not in specs]
    if unknown:
        raise ValueError(f"{path.name} has no section {unknown[0]!r}; it has {', '.join(specs)}.")
    return [Section(os.path.relpath(path), name, specs[name]) for name in names or specs]


def papers() -> list[str]:
    """Name the papers that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


# --- tables ---------------------------------------------------------------------------------------


def listing() -> str:
    """Write a Markdown table of all sections."""
    lines = [["paper", "section", "protocol", "datasets", "metric", "published", "source"]]
    for paper in papers():
        for section in read(paper):
            facts = section.paper
            if not facts:
                ours = f"none, ours: {section.spec['ours']}"
                lines.append([paper, section.name, "", "", "", "", ours])
                continue
            published, names = facts["published"], facts["datasets"]
            only = published.get("mean", published.get("each", [math.nan])[0])
            shown = _printed(only) if len(names) == 1 or "mean" in published else "of each"
            row = [facts["protocol"], _joined(names), METRICS[facts["metric"]], shown]
            lines.append([paper, section.name, *row, facts["source"]])
    return pipe_table(lines, text=range(len(lines[0])))


def render(results: Sequence[Result], defaults: bool, beside: Sequence[str]) -> str:
    """Write Markdown: printed figures beside ours, and below what belongs to them.

    Parameters
    ----------
    results : list of Result
    defaults : bool
        Whether the default setting was run, too.
    beside : list of str
        Names of the other detectors that were run.

    Returns
    -------
    str
        Figures in percent: mean and standard deviation, over as many seeds as the brackets say.
        ``difference`` is that of the paper's setting to what is printed.
    """
    settings = [
        "paper's setting",
        "difference",
        *(["default setting"] if defaults else []),
        *beside,
    ]
    lines = [["section", "dataset", "metric", "published", *settings, "training rows", "test rows"]]
    for result in results:
        lines += _lines(result, defaults, beside)
    about = "Percent: mean ± standard deviation (number of seeds)."
    if any("*" in cell for row in lines[1:] for cell in row[-2:]):
        about += " *: capped, the other rows were left out."
    parts = [pipe_table(lines, text=range(len(lines[0]))), about]
    return "\n\n".join([*parts, *map(_notes, results)])


def _lines(result: Result, defaults: bool, beside: Sequence[str]) -> list[list[str]]:
    section, facts = result.section, result.section.paper
    published, many = facts["published"], len(result.datasets) > 1
    ours = [section.detector, *([section.default] if defaults else []), *beside]

    def line(name: str, mean: float, std: float, found: list[dict[int, float]]) -> list[str]:
        shown = [_summary(list(values.values())) for values in found]
        away = fmean(found[0].values()) - mean if found[0] else math.nan
        shown.insert(1, "" if math.isnan(away) else f"{away:+.1f}")
        return [section.name, name, METRICS[facts["metric"]], _printed(mean, std), *shown]

    lines = []
    for i, dataset in enumerate(result.datasets):
        found = [result.values(dataset, detector) for detector in ours]
        lines.append(line(dataset, *_at(published, i), found) + _sizes(result, dataset))
    if many:
        found = [result.means(detector) for detector in ours]
        lines.append([*line("mean", published.get("mean", math.nan), math.nan, found), "", ""])
    return lines


def _sizes(result: Result, dataset: str) -> list[str]:
    """Numbers of training and of test rows, with * where a cap has made them fewer."""
    for row in result.rows:
        if row["dataset"] == dataset and "n_train" in row:
            both = ((row[f"n_{part}"], row[f"max_{part}"]) for part in ("train", "test"))
            return [f"{n:,}{'*' if n == cap else ''}" for n, cap in both]
    return ["", ""]


def _notes(result: Result) -> str:
    """Where the figures are printed, what is open, what failed, what others have."""
    section, facts = result.section, result.section.paper
    runs = f"{facts['runs']} runs" if "runs" in facts else "number of runs not stated"
    about = f"**{section.name}**: {section.spec['detector']}, {facts['source']}, {runs}; protocol "
    parts = [f"{about}`{facts['protocol']}`."]
    listed = (("Not the published setting", "departs"), ("Not stated, or not at hand", "unstated"))
    for title, key in listed:
        if facts.get(key):
            parts.append("\n".join([f"{title}:", "", *(f"- {item}" for item in facts[key])]))
    errors = [row for row in result.rows if "error" in row]
    if errors:
        where = (
            f"- {r['detector']} on {r['dataset']}, seed {r['seed']}: {r['error']}" for r in errors
        )
        parts.append("\n".join(["Errors:", "", *(" ".join(text.split()) for text in where)]))
    if facts.get("others"):
        many = len(result.datasets) > 1
        lines = [["printed beside it", *result.datasets, *(["mean"] if many else [])]]
        for name, figures in facts["others"].items():
            each = [_printed(*_at(figures, i)) for i in range(len(result.datasets))]
            mean = [_printed(figures.get("mean", math.nan))] if many else []
            lines.append([name, *each, *mean])
        parts.append(pipe_table(lines, text=range(len(lines[0]))))
    return "\n\n".join(parts)


def _at(figures: dict[str, Any], i: int) -> tuple[float, float]:
    """Mean and standard deviation that are printed for one dataset; nan where there is none."""
    mean, std = (figures.get(key) for key in ("each", "std"))
    return (mean[i] if mean else math.nan, std[i] if std else math.nan)


def _printed(mean: float, std: float = math.nan) -> str:
    """Write a printed figure with the digits that it has."""
    shown = "" if math.isnan(mean) else f"{mean}"
    return shown if math.isnan(std) else f"{shown} ± {std}"


def _summary(values: Sequence[float]) -> str:
    if not values:
        return "none"
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):.1f}{spread} ({len(values)})"


def _joined(names: Sequence[str]) -> str:
    """Write the classes of an image dataset as one name."""
    return ", ".join(dict.fromkeys(name.partition(":")[0] for name in names))


# --- command --------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.papers",
        description="Run the settings of a paper by its protocol, and print its figures beside "
        "ours as Markdown. A run that was stopped goes on where it was.",
        epilog="example: python -m benchmarks.papers plad --sections thyroid,arrhythmia "
        "--defaults --with pyod:KNN,pyod:IForest --out results.jsonl",
    )
    add = parser.add_argument
    add("paper", nargs="?", help=", ".join(papers()))
    add("--list", action="store_true", help="say what there is, and run nothing")
    add("--sections", default="", help="with commas; else all that have printed figures")
    add("--datasets", default="", help="only these of the sections, with commas, such as mnist:3")
    add("--seeds", type=count, help="number of seeds (default: as the section says)")
    add("--max-train", type=count, metavar="N", help="at most N training rows")
    add("--max-test", type=count, metavar="N", help="at most N test rows")
    add("--jobs", type=count, default=1, help="detectors at a time (default: %(default)s)")
    add("--with", dest="beside", default="", metavar="DETECTORS", help="run these as well")
    add("--defaults", action="store_true", help="run the default settings as well")
    add("--retry-errors", action="store_true", help="run again what ended in an error")
    add("--quiet", action="store_true", help="no progress bar")
    add("--out", type=Path, metavar="RESULTS", help="file of JSON lines to append to")
    args = parser.parse_args(argv)
    if args.list:
        print(listing())
        return
    if args.paper is None or args.out is None:
        parser.error("expected the name of a paper, and --out; or --list")
    beside = listed(args.beside)
    with _common.explained(parser):
        results = _run(args, beside)
    print(render(results, args.defaults, beside))


def _run(args: argparse.Namespace, beside: Sequence[str]) -> list[Result]:
    names = listed(args.sections)
    sections = [section for section in read(args.paper, names) if names or section.paper]
    without = [section.name for section in sections if not section.paper]
    if without:
        raise ValueError(f"No printed figures for {', '.join(without)}; see --list.")
    if chosen := listed(args.datasets):
        known = {name for section in sections for name in section.paper["datasets"]}
        if unknown := [name for name in chosen if name not in known]:
            raise ValueError(
                f"No section has the datasets {', '.join(unknown)}; there are "
                f"{', '.join(sorted(known))}."
            )
        sections = [
            cut for section in sections if (cut := _only(section, chosen)).paper["datasets"]
        ]
    # All data are looked for before anything is run.
    data = [adbench.find(",".join(s.paper["datasets"]), s.paper["protocol"]) for s in sections]
    results = []
    for section, found in zip(sections, data, strict=True):
        wanted = [section.detector, *([section.default] if args.defaults else []), *beside]
        with stoppable(args.out):
            rows = bench.run(
                found,
                dict.fromkeys(wanted),
                args.out,
                protocol=section.paper["protocol"],
                seeds=args.seeds or section.paper["seeds"],
                jobs=args.jobs,
                max_train=args.max_train,
                max_test=args.max_test,
                # Networks of images train in turn anyway; one by one, a stopped run loses one seed.
                stack=section.paper["protocol"] != "images",
                retry_errors=args.retry_errors,
                progress=not args.quiet,
            )
        results.append(Result(section, [dataset.name for dataset in found], rows))
    return results


def _only(section: Section, names: Sequence[str]) -> Section:
    """Leave out all datasets but these, and the printed means, which are of all of them."""
    paper = section.paper
    kept = [i for i, name in enumerate(paper["datasets"]) if name in names]

    def cut(figures: dict[str, Any]) -> dict[str, Any]:
        return {key: [figures[key][i] for i in kept] for key in ("each", "std") if key in figures}

    less = {
        "datasets": [paper["datasets"][i] for i in kept],
        "published": cut(paper["published"]),
        "others": {
            name: figures
            for name, whole in paper.get("others", {}).items()
            if (figures := cut(whole))  # of some only the mean is printed
        },
    }
    return section._replace(spec=section.spec | {"paper": paper | less})


if __name__ == "__main__":
    main()
