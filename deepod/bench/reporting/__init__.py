"""``deepod report``: tables of results, and a page with pictures."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from deepod.bench import rows
from deepod.bench.options import listed
from deepod.bench.reporting import tables

_PUBLISHED = "published-"  # protocols whose results may be set beside published ones
_WRITTEN_BY = "Written by <code>deepod report</code>"  # at the end of a page, and in no other


def report(
    results: Any,
    out: str | os.PathLike[str] | None = None,
    *,
    metric: str | None = None,
    detectors: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    per_dataset: bool = False,
    test: str = "nemenyi",
    dataset: str | None = None,
    reference: Any = None,
    differences_of: str | None = None,
) -> str:
    """Return tables that compare detectors, and write a page with pictures if ``out`` is given.

    Detectors are compared on the pairs of dataset and seed for which all of them have results.
    Results of different protocols, caps on the rows, or groups of datasets are never mixed. A group
    consists of datasets with the same prefix before a slash, as "oddbench-development" in
    "oddbench-development/AdPerformance".

    Parameters
    ----------
    results : path-like, list of path-like, or list of dict
        Files that ``deepod bench`` or :func:`deepod.bench.run` has written, or rows that it has
        returned. If a cell has several rows, the last is used. Scores that were kept beside the
        files are shown as curves and histograms.
    out : path-like, optional
        Folder to write ``report.md``, .csv files and ``index.html`` to, which needs no other file
        and no network. It is created if necessary. Other files in it are kept, and an
        ``index.html`` or ``report.md`` that is not a report is not replaced.
    metric : str, optional
        Metric of the Markdown and the pictures; the page has a table of all metrics. It is
        "auc_roc" (the default), "auc_pr", "f1" or "false_alarms"; for time series it is "vus_pr"
        (the default), "vus_roc", "auc_pr", "auc_roc", "range_f1" or "false_alarms".
    detectors, datasets : sequence of str, optional
        Names of the detectors and datasets to compare; by default all.
    rename : mapping, optional
        A mapping from names of detectors to names for the report.
    per_dataset : bool, default=False
        Whether the Markdown also has a table of datasets x detectors.
    test : {"nemenyi", "wilcoxon-holm"}, default="nemenyi"
        Test of pairs of detectors for the critical-difference diagram.
    dataset : str, optional
        Dataset whose curves and histograms are drawn. By default, among those with kept scores, the
        one on which the detectors differ most.
    reference : path-like or mapping, optional
        .csv file of published figures for the protocol "published-semi" or
        "published-unsupervised", see :func:`deepod.bench.reporting.tables.with_published`. If the
        results have both protocols, a mapping from protocols to files.
    differences_of : str, optional
        Name, in the report, of a detector whose lead over each other one is added as a table: in
        AUC-ROC and AUC-PR over datasets, or in VUS-PR and AUC-PR over time series, with 95 %
        intervals by bootstrap, wins and losses.

    Returns
    -------
    tables : str
        The tables in Markdown.

    Raises
    ------
    OSError
        If a file cannot be read or written, or a file that is not a report would be replaced.
    ValueError
        If an argument or a row is not valid; the message names it.
    ImportError
        If the extra ``deepod[bench]`` is not installed.

    Examples
    --------
    >>> from deepod import bench
    >>> cell = {"protocol": "one-class", "dataset": "wine", "max_train": None, "max_test": None}
    >>> cell |= {"auc_pr": 0.5, "f1": 0.5, "fit_seconds": 1.0, "score_seconds": 0.1}
    >>> rows = [
    ...     cell | {"detector": name, "seed": seed, "auc_roc": auc_roc + seed / 10}
    ...     for name, auc_roc in [("PLAD", 0.75), ("pyod:KNN", 0.5)]
    ...     for seed in (0, 1)
    ... ]
    >>> print(bench.report(rows, rename={"pyod:KNN": "KNN"}))  # doctest: +ELLIPSIS
    ## one-class: auc_roc
    <BLANKLINE>
    | detector | mean | std | rank | datasets | seeds | fit_seconds | score_seconds |
    | --- | --: | --: | --: | --: | --: | --: | --: |
    | PLAD | 0.800 | 0.071 | 1.000 | 1 | 2 | 1.000 | 0.100 |
    | KNN | 0.550 | 0.071 | 2.000 | 1 | 2 | 1.000 | 0.100 |
    ...
    """
    for name, value, known in (("metric", metric, tables.METRICS), ("test", test, tables.TESTS)):
        if value is not None and value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise NotADirectoryError(f"out={str(out)!r} is a file; name a folder instead.")
    if out is not None:
        _check_own(Path(out))
    try:
        table = tables.frame(_read_results(results))
        chosen = tables.choose(table, detectors, datasets, rename)
        found = tables.groups(chosen, metric)
        published = _references(reference, [group.protocol for group in found])
        if published and out is None:
            raise ValueError(
                "reference is given without out, but published figures appear only on the page; "
                "name a folder as out."
            )
        if dataset is not None:
            tables.choose(table, datasets=[dataset])
        if differences_of is not None:
            tables.choose(chosen, detectors=[differences_of])
        markdown = tables.render(found, per_dataset, differences_of)
        if out is not None:
            from deepod.bench.reporting import page

            options = page.Options(test, dataset, published, differences_of)
            files = page.write(found, options) | {"report.md": markdown + "\n"}
            _write(Path(out), files)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"A report needs more libraries ({error}); install them with pip install "
            '"deepod[bench]".'
        ) from error
    return markdown


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``deepod report``."""
    add = parser.add_argument
    add("results", nargs="+", type=Path, metavar="RESULTS", help="file that deepod bench has "
        "written")  # fmt: skip
    add("--out", type=Path, metavar="FOLDER", help="folder to write index.html, report.md and .csv "
        "files to")  # fmt: skip
    add("--metric", choices=list(tables.METRICS), help="metric of the Markdown tables and the "
        "pictures (default: auc_roc, or vus_pr for series)")  # fmt: skip
    add("--per-dataset", action="store_true", help="also print a table of datasets x detectors")
    add("--detectors", type=listed, metavar="a,b,c", help="detectors to compare (default: all)")
    add("--datasets", type=listed, metavar="a,b,c", help="datasets to use (default: all)")
    add("--rename", type=_pair, action="append", default=[], metavar="OLD=NEW", help="show a "
        "detector under another name; may be repeated")  # fmt: skip
    add("--test", choices=tables.TESTS, default="nemenyi", help="test of pairs of detectors for "
        "the critical-difference diagram (default: %(default)s)")  # fmt: skip
    add("--dataset", metavar="NAME", help="dataset whose curves and histograms to draw (default: "
        "among those with kept scores, the one on which detectors differ most)")  # fmt: skip
    add(
        "--differences-of",
        metavar="DETECTOR",
        help="add tables of the lead of this detector (by its name in the report) over the others, "
        "with 95 %% intervals by bootstrap over datasets",
    )
    add("--reference", type=_reference, action="append", default=[], metavar="[PROTOCOL=]FILE",
        help=".csv with the columns dataset and one per detector, AUC-ROC in percent, to set "
        "beside results of the protocols published-semi and published-unsupervised; name the "
        "protocol if the results have both")  # fmt: skip


def run_report(args: argparse.Namespace) -> str:
    """Return the text that ``deepod report`` prints for these options."""
    unnamed = [path for protocol, path in args.reference if not protocol]
    named = {protocol: path for protocol, path in args.reference if protocol}
    if len(unnamed) + bool(named) > 1:
        raise ValueError("--reference: with several files, write PROTOCOL=FILE for each.")
    markdown = report(
        args.results,
        args.out,
        metric=args.metric,
        detectors=args.detectors,
        datasets=args.datasets,
        rename=dict(args.rename),
        per_dataset=args.per_dataset,
        test=args.test,
        dataset=args.dataset,
        reference=unnamed[0] if unnamed else named or None,
        differences_of=args.differences_of,
    )
    return markdown + (f"\n\nPage: {args.out / 'index.html'}" if args.out else "")


def _read_results(results: Any) -> list[dict[str, Any]]:
    """Return the rows of results, the last one of each cell, with the files of their scores."""
    from deepod.bench.runner import scores_file

    if isinstance(results, (str, os.PathLike, Mapping)):
        results = [results]
    found: dict[rows.Cell, dict[str, Any]] = {}
    for given in results:
        if isinstance(given, Mapping):
            _check_row(given, "results")
            found[rows.cell_of(given)] = {**given, "scores": None}
            continue
        path = Path(given)
        folder = path.with_name(path.name + ".scores")
        for row in rows.read(path):
            _check_row(row, str(path))
            cell = rows.cell_of(row)
            found[cell] = row | {"scores": scores_file(folder, cell) if folder.is_dir() else None}
    if not found:
        raise ValueError("results: there are no rows.")
    return list(found.values())


def _check_row(row: Mapping[str, Any], where: str) -> None:
    """Raise an error if a row is not one of a benchmark, for example with percent as shares."""
    for name in rows.Cell._fields:
        if name not in row:
            raise ValueError(f"{where}: a row has no {name!r}; it is not of deepod bench.")
    kinds: dict[str, tuple[type, str]] = {}
    kinds |= dict.fromkeys(("protocol", "dataset", "detector"), (str, "text"))
    kinds |= dict.fromkeys(("seed", "max_train", "max_test"), (Integral, "a whole number"))
    kinds |= dict.fromkeys(tables.NUMBERS, (Real, "a number"))
    for name, (kind, expected) in kinds.items():
        value = row.get(name)
        if value is None and name not in ("protocol", "dataset", "detector", "seed"):
            continue
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if name in tables.METRICS and isinstance(value, Real):
            # NaN: not known. A little above 1 is what sums of shares may come to.
            fits, expected = not abs(float(value) - 0.5) > 0.5 + 1e-9, "from 0 to 1"
        if not fits:
            raise ValueError(
                f"{where}: {row['detector']} on {row['dataset']}, seed {row['seed']}: {name} must "
                f"be {expected}, got {value!r}."
            )


def _references(reference: Any, there: Iterable[str]) -> dict[str, Any]:
    """Return the file of published figures for each protocol."""
    if reference is None:
        return {}
    usable = list(dict.fromkeys(name for name in there if name.startswith(_PUBLISHED)))
    if isinstance(reference, Mapping):
        for protocol in reference:
            if protocol not in usable:
                raise ValueError(
                    f"reference: there are no results of the protocol {protocol!r} that may be set "
                    f"beside published ones; there are those of {', '.join(usable) or 'none'}."
                )
        return dict(reference)
    if len(usable) != 1:
        raise ValueError(
            "reference: expected results of one of the protocols published-semi and "
            f"published-unsupervised, got {', '.join(usable) or 'none'}"
            + ("; say which one the file is for: published-semi=FILE." if usable else ".")
        )
    return {usable[0]: reference}


def _check_own(folder: Path) -> None:
    """Raise an error if ``index.html`` or ``report.md`` exists and is not of a report."""
    page = folder / "index.html"
    ours = page.is_file() and _WRITTEN_BY in page.read_text(encoding="utf-8", errors="replace")
    for path in (page, folder / "report.md"):
        if path.exists() and not ours:
            raise FileExistsError(
                f"out: {path} exists and is not of a report; move it, or name another folder."
            )


def _write(folder: Path, files: Mapping[str, str]) -> None:
    from deepod._storage.atomic import write

    folder.mkdir(parents=True, exist_ok=True)
    write({folder / name: text.encode() for name, text in files.items()})


def _pair(text: str) -> tuple[str, str]:
    old, _, new = text.partition("=")
    if not (old and new):
        raise argparse.ArgumentTypeError(f"expected OLD=NEW, got {text!r}")
    return old, new


def _reference(text: str) -> tuple[str, Path]:
    protocol, equals, path = text.partition("=")
    named = equals and protocol.startswith(_PUBLISHED)
    return (protocol, Path(path)) if named else ("", Path(text))
