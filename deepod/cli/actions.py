"""The commands: each calls a function with its arguments, and prints the result."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import deepod
from deepod.bench.options import run_with_options
from deepod.cli.wording import translate


def _options(arguments: argparse.Namespace) -> Any:
    from deepod.cli.series import Options

    context = getattr(arguments, "context", None)
    return Options(arguments.time, arguments.split_at_gaps, context)


def _dialect(arguments: argparse.Namespace) -> Any:
    from deepod._inputs.tables import Dialect

    return Dialect(arguments.sep, arguments.decimal, arguments.encoding)


def _note(arguments: argparse.Namespace, text: str | None) -> None:
    if text is not None:
        print(f"deepod {arguments.command}: {text}", file=sys.stderr)


def _check_out(out: Path, suffixes: Sequence[str]) -> None:
    """Raise an error before the work if its result could not be written."""
    if not out.parent.is_dir():
        raise FileNotFoundError(
            f"--out {out}: there is no folder {out.parent}; create it first, or choose another."
        )
    if out.is_dir() or out.suffix not in suffixes:
        expected = " or ".join(", ".join(suffixes).rsplit(", ", 1))
        raise ValueError(f"--out {out}: expected the name of a {expected} file.")
    if not os.access(out.parent, os.W_OK):
        raise PermissionError(f"--out {out}: the folder is write-protected; choose another.")


def _check_picture(out: Path) -> None:
    _check_out(out, [".png", ".pdf", ".svg"])
    if find_spec("matplotlib") is None:
        raise ImportError(
            "the picture needs matplotlib; install it with pip install 'deepod[plots]'."
        )


def run_list(arguments: argparse.Namespace) -> None:
    """Print the detectors."""
    rows = [("detector", "family", "inputs", "paper")]
    for d in [*deepod.list_detectors(), *deepod.list_detectors(series=True)]:
        rows.append((d["name"], d["family"], ", ".join(d["inputs"]), d["paper"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def run_demo(arguments: argparse.Namespace) -> None:
    """Make a picture of all detectors on two moons."""
    from deepod.cli import demo

    out, seed = arguments.out, arguments.seed
    _check_picture(out)
    data = demo.load(seed)
    print(
        f"Breast cancer (scikit-learn): {len(data.train)} benign rows train; test has "
        f"{int((data.target == 0).sum())} benign and {int(data.target.sum())} malignant rows, "
        f"{data.train.shape[1]} features.\n"
    )
    results = demo.run(data, seed)
    print(f"{'detector':<10}{'AUC-ROC':>9}{'AUC-PR':>9}{'fit s':>9}{'score s':>9}")
    for r in results:
        print(
            f"{r.name:<10}{r.auc_roc:>9.3f}{r.auc_pr:>9.3f}"
            f"{r.fit_seconds:>9.2f}{r.score_seconds:>9.3f}"
        )
    demo.picture(data, results).savefig(out, dpi=120)
    print(f"\nScore distributions: {out}")


def run_fit(arguments: argparse.Namespace) -> None:
    """Fit a detector and save it."""
    from deepod.cli import commands

    result = commands.fit(
        arguments.train,
        arguments.out,
        detector=arguments.detector,
        settings=dict(arguments.set),
        columns=arguments.columns,
        drop=arguments.drop,
        labels=arguments.labels,
        id_name=arguments.id,
        quiet=arguments.quiet,
        options=_options(arguments),
        dialect=_dialect(arguments),
    )
    _note(arguments, result.note)
    print(
        f"{arguments.detector} fitted on {result.rows}, threshold {result.threshold:.6g}: "
        f"{arguments.out}"
    )


def run_score(arguments: argparse.Namespace) -> None:
    """Write scores."""
    from deepod.cli import commands

    _check_out(arguments.out, [".npy", ".csv"])

    result = commands.score(
        arguments.model,
        arguments.new,
        arguments.out,
        id_name=arguments.id,
        quiet=arguments.quiet,
        options=_options(arguments),
        dialect=_dialect(arguments),
    )
    _say_scored(arguments, result)


def _say_scored(arguments: argparse.Namespace, result: Any) -> None:
    _note(arguments, result.note)
    print(
        f"{result.rows} scored, {result.flagged:,} above the threshold "
        f"{result.threshold:.6g}: {arguments.out}"
    )


def run_review(arguments: argparse.Namespace) -> None:
    """Write a page of the top rows."""
    from deepod.cli import review

    _check_out(arguments.out, [".html"])
    result = review.review(
        arguments.model,
        arguments.new,
        arguments.out,
        top=arguments.top,
        id_name=arguments.id,
        reference=arguments.reference,
        compare=arguments.compare,
        quiet=arguments.quiet,
        dialect=_dialect(arguments),
    )
    page = result.page
    groups = f", in {page.groups} groups" if page.groups else ""
    print(
        f"{page.rows:,} rows scored, {page.flagged:,} above the threshold {result.threshold:.6g}; "
        f"{page.shown:,} explained in {page.explained:.1f} s{groups}: {arguments.out}"
    )


def run_bench(arguments: argparse.Namespace) -> None:
    """Run detectors on datasets, and print their results."""
    from deepod import bench

    found = bench.find_data(
        arguments.data,
        arguments.datasets,
        protocol=arguments.protocol,
        label=arguments.label,
        anomaly=arguments.anomaly,
        normal=arguments.normal,
        drop=arguments.drop,
        dialect=_dialect(arguments),
    )
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)  # module:Class may be here, and workers look where this process does
    try:
        done, unread = run_with_options(found, arguments)
        print(translate(done, arguments.command))
    finally:
        if added:
            sys.path.remove(here)
    if unread:
        raise ValueError(
            f"{', '.join(unread)} could not be read; repair these files, and run the same command "
            "with --retry-errors."
        )


def run_plot(arguments: argparse.Namespace) -> None:
    """Draw a picture."""
    from deepod.cli import commands

    model, new, out = arguments.model, arguments.new, arguments.out
    for option in ("label", "row", "id", "time", "split_at_gaps", "context"):
        if new is None and getattr(arguments, option) not in (None, False):
            option = option.replace("_", "-")
            raise ValueError(
                f"--{option} needs a file of rows: deepod plot MODEL NEW --{option} ..."
            )
    given = {"options": _options(arguments), "dialect": _dialect(arguments)}
    given["id_name"] = arguments.id
    _check_picture(out)

    if new is None:
        commands.plot_history(model, out)
        print(f"loss over the epochs: {out}")
    elif arguments.row is not None:
        score = commands.plot_row(model, new, arguments.row, out, **given)
        print(f"row {arguments.row} has the score {score:.6g}; what the columns add: {out}")
    else:
        result = commands.plot_scores(
            model, new, out, label=arguments.label, quiet=arguments.quiet, **given
        )
        _say_scored(arguments, result)


def run_report(arguments: argparse.Namespace) -> None:
    """Print the tables of a study."""
    from deepod.bench import reporting

    print(reporting.run_report(arguments))


def _lines(encoding: str) -> Iterator[str]:
    """Yield the lines of standard input as they arrive."""
    if hasattr(sys.stdin, "reconfigure"):  # unless something else has taken its place
        sys.stdin.reconfigure(encoding=encoding)
    try:
        yield from sys.stdin
    except UnicodeDecodeError as error:
        raise ValueError(
            f"standard input is not in {encoding} ({error}); give its encoding as --encoding NAME, "
            "such as latin-1."
        ) from error


def run_watch(arguments: argparse.Namespace) -> None:
    """Score points from standard input as they arrive."""
    from deepod.cli import watch

    dialect = _dialect(arguments)
    given = watch.watch(
        arguments.model,
        _lines(dialect.encoding or "utf-8"),
        time=arguments.time,
        state=arguments.state,
        dialect=dialect,
    )
    with closing(given), suppress(KeyboardInterrupt):  # as one ends what would go on for ever
        print("score,label" if arguments.time is None else "time,score,label", flush=True)
        for found in given:
            if isinstance(found, watch.Watched):
                print(watch.as_line(found), flush=True)
            elif arguments.skip_bad:
                print(f"deepod watch: {found}", file=sys.stderr, flush=True)
            else:
                raise found
