"""The command line: ``deepod --help`` lists the commands."""

from __future__ import annotations

import argparse
import ast
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import deepod
from deepod._registry import SERIES
from deepod.bench.options import add_options
from deepod.cli import actions
from deepod.cli.wording import translate

# Windows needs a detector of rows, which no option can say.
_FITTED = ["Consensus", *deepod.DETECTORS, *(name for name in SERIES if name != "Windows")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; None takes those of the process.

    Returns
    -------
    int
        Exit code: 0; 1 after a failure, and 130 after Ctrl-C, with a line on standard error;
        141 if nobody reads what is printed.
    """
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
        if _nobody_reads():
            return 141  # as a process that SIGPIPE ends
    except (OSError, ImportError, ValueError) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads("\n"):
            return 141
        return _failed(arguments.command, error, 1)
    except KeyboardInterrupt as error:
        return _failed(arguments.command, error, 128 + signal.SIGINT)
    return 0


def _nobody_reads(more: str = "") -> bool:
    """Whether what is printed cannot be read any more, as of ``deepod list | head``."""
    if sys.stdout is None:  # closed from the start
        return False
    try:
        print(more, end="", flush=True)
    except BrokenPipeError:
        with Path(os.devnull).open("wb") as nowhere:  # or the interpreter complains at its end
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return True
    return False


def _failed(command: str, error: BaseException, code: int) -> int:
    message = translate(" ".join(str(error).split()), command) or "stopped by Ctrl-C."
    print(f"deepod {command}: {message}", file=sys.stderr)
    return code


# --- the parser: each command has the function that runs it as ``run`` ----------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deepod", description="Deep anomaly detection that behaves like scikit-learn."
    )
    parser.add_argument("--version", action="version", version=f"deepod {deepod.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _add_demo(commands)
    _add_list(commands)
    _add_fit(commands)
    _add_score(commands)
    _add_review(commands)
    _add_bench(commands)
    _add_report(commands)
    _add_plot(commands)
    _add_watch(commands)
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="compare Consensus and PLAD with PyOD's detectors on a real dataset",
        description="Fit Consensus, PLAD and PyOD's IForest, ECOD and KNN on normal rows of the "
        "breast cancer data that scikit-learn ships, print a table of how well each finds the "
        "malignant ones, and save a picture of the score distributions. Takes less than a minute "
        "on a laptop.",
        epilog="example: deepod demo --out scores.png --seed 1",
    )
    demo.set_defaults(run=actions.run_demo)
    demo.add_argument(
        "--out", type=Path, default=Path("demo.png"), help="picture to write (default: %(default)s)"
    )
    demo.add_argument("--seed", type=int, default=0, help="seed of split and training (default: 0)")


def _add_list(commands: Any) -> None:
    listing = commands.add_parser("list", help="list the detectors with family, inputs and paper")
    listing.set_defaults(run=actions.run_list)


def _add_fit(commands: Any) -> None:
    fit = commands.add_parser(
        "fit",
        help="fit a detector on a file and save it",
        description="Fit a detector on the rows of TRAIN, and save it for deepod score and "
        "deepod.load. A file is .npy (no pickles), .csv (numbers below a line of names; a copy "
        "takes 8 bytes per value beside MODEL meanwhile) or Parquet, which may be a folder. Above "
        "memory_limit it is read from disk part by part. Empty cells of .csv and nulls of Parquet "
        "are refused, or filled by --set missing=impute. What Consensus has no hyper-parameter for "
        "is set for each of its members. For a detector of series, the rows of TRAIN are points in "
        "the order of time, which are read into memory.",
        epilog="example: deepod fit train.csv --detector AutoEncoder --set random_state=0 "
        "--set lr=0.01 --out model; of series: deepod fit sensors.csv --time when "
        "--detector LSTMAD --out model",
    )
    fit.set_defaults(run=actions.run_fit)
    fit.add_argument("train", type=Path, metavar="TRAIN", help="rows to fit on")
    fit.add_argument(
        "--detector",
        choices=_FITTED,
        default="Consensus",
        metavar="NAME",
        help="what to fit: Consensus, several detectors that are joined, or one of deepod list; "
        f"of series {', '.join(name for name in _FITTED if name in SERIES)} (default: %(default)s)",
    )
    fit.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a hyper-parameter of the detector; may be repeated",
    )
    fit.add_argument(
        "--columns",
        type=_names,
        metavar="a,b,c",
        help="columns of Parquet or .csv to read (default: all)",
    )
    fit.add_argument(
        "--drop",
        type=_names,
        default=[],
        metavar="a,b,c",
        help="columns of Parquet or .csv to leave out, such as labels",
    )
    _add_dialect(fit)
    fit.add_argument(
        "--labels",
        metavar="COLUMN|MARKS",
        help="labels to learn from, with --set supervision=...: a column of TRAIN, 1 = anomaly, "
        "0 = normal or nothing, or the .csv file of marks that a page of deepod review gives. "
        "few_labels learns from the anomalies; all other rows count as unlabelled",
    )
    fit.add_argument(
        "--id",
        metavar="COLUMN",
        help="column of ids, which is no feature; MARKS by ids are joined by it, as text",
    )
    _add_time(fit)
    fit.add_argument(
        "--out",
        type=Path,
        metavar="MODEL",
        required=True,
        help="folder to write, or a file if the name ends in .deepod; replaces an older model",
    )


def _add_score(commands: Any) -> None:
    score = commands.add_parser(
        "score",
        help="score rows from disk in constant memory",
        description="Score the rows of NEW by a saved detector. They are read from disk part by "
        "part: .npy, .csv or Parquet, the columns by the names of those that were trained on, if "
        "they had names. A series is read into memory; each point has a score, in the order of the "
        "file.",
        epilog="example: deepod score model new.csv --out scores.csv; of series: deepod score "
        "model new.csv --time when --context train.csv --out scores.csv",
    )
    score.set_defaults(run=actions.run_score)
    score.add_argument("model", type=Path, metavar="MODEL", help="as deepod fit has saved it")
    score.add_argument("new", type=Path, metavar="NEW", help="rows to score")
    score.add_argument(
        "--out",
        type=Path,
        metavar="SCORES",
        required=True,
        help=".npy (scores) or .csv (score,label, after the time if --time is given) to write; "
        "higher scores are more anomalous",
    )
    score.add_argument(
        "--id",
        metavar="COLUMN",
        help="column of NEW that .csv scores carry in front, as it is written: what rows are "
        "called by",
    )
    _add_dialect(score)
    _add_time(score)
    _add_context(score)
    score.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_review(commands: Any) -> None:
    review = commands.add_parser(
        "review",
        help="write a page to decide what the top rows are, and to learn from it",
        description="Score the rows of NEW by a saved detector and write a page of those that "
        "score highest: the columns that made each score, beside what is typical; groups of rows "
        "that are alike; the distribution of the scores. Rows are marked in the page as anomaly, "
        "normal or unsure by keys, and the marks downloaded for deepod fit --labels. The page is "
        "one file that needs no network. Only the rows on it are explained, which for methods "
        "whose reasons are integrated gradients takes as long as hundreds of scorings of them.",
        epilog="example: deepod review model new.csv --top 50 --id transaction_id --out "
        "review.html; after learning from the marks, deepod review model2 new.csv --compare model "
        "--out moved.html",
    )
    review.set_defaults(run=actions.run_review)
    review.add_argument("model", type=Path, metavar="MODEL", help="as deepod fit has saved it")
    review.add_argument("new", type=Path, metavar="NEW", help="rows to score and review")
    review.add_argument(
        "--top", type=int, default=50, metavar="N", help="rows to show (default: %(default)s)"
    )
    review.add_argument(
        "--id", metavar="COLUMN", help="column of NEW that rows are called by in the marks"
    )
    review.add_argument(
        "--compare",
        type=Path,
        metavar="BEFORE",
        help="an earlier model of the same rows: show what has moved from it to MODEL",
    )
    review.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="rows that typical values are medians of, such as TRAIN (default: those of NEW)",
    )
    review.add_argument(
        "--out", type=Path, metavar="PAGE", required=True, help=".html file to write"
    )
    _add_dialect(review)
    review.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_bench(commands: Any) -> None:
    bench = commands.add_parser(
        "bench",
        help="compare detectors on datasets with known anomalies",
        description="Run detectors on datasets and append a row of results for each seed to a file "
        "of JSON lines, for deepod report. Rows are divided, and scaled by training rows alone, "
        "before a detector sees them; it never sees labels of test rows. What fails is a row too.",
        epilog="example: deepod bench --data tables/ --detectors PLAD,AnoRand,pyod:KNN --jobs 2 "
        "--out results.jsonl",
    )
    bench.set_defaults(run=actions.run_bench)
    bench.add_argument(
        "--data",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="files or folders: .npz (arrays X and y), or .csv and .parquet with a column of "
        "labels; of series .npz (arrays train, test and test_labels), in folders of folders, too "
        "(default: tabular/, images/ or timeseries/ in the folder that DEEPOD_DATA names)",
    )
    bench.add_argument(
        "--datasets",
        type=_names,
        default=[],
        metavar="a,b,c",
        help="only these; for images mnist (every class in turn is normal) or mnist:3; for series "
        "SMD/machine-1-6 or SMD",
    )
    bench.add_argument(
        "--label", default="label", help="column that says what is an anomaly (default: label)"
    )
    bench.add_argument(
        "--anomaly",
        type=_literal,
        action="append",
        metavar="VALUE",
        help="value in that column that stands for an anomaly; may be repeated (default: 1, of "
        "labels 0 and 1)",
    )
    bench.add_argument(
        "--normal",
        type=_literal,
        action="append",
        metavar="VALUE",
        help="instead: value that stands for a normal row, all others being anomalies; may be "
        "repeated",
    )
    bench.add_argument(
        "--drop", type=_names, default=[], metavar="a,b,c", help="columns to leave out"
    )
    _add_dialect(bench)
    add_options(bench)


def _add_plot(commands: Any) -> None:
    plot = commands.add_parser(
        "plot",
        help="draw how training went, scores of a file, or the reasons of one",
        description="Draw a picture: of MODEL alone, the terms of its loss over the epochs; with "
        "NEW, the distribution of the scores of its rows and the threshold, or if MODEL detects in "
        "series, its channels with the scores, the threshold and the stretches above it below "
        "them; with --row, what each column adds to the score of that row. NEW is read as deepod "
        "score reads it.",
        epilog="example: deepod plot model new.csv --label fraud --out scores.png; of series: "
        "deepod plot model new.csv --time when --out series.png",
    )
    plot.set_defaults(run=actions.run_plot)
    plot.add_argument("model", type=Path, metavar="MODEL", help="as deepod fit has saved it")
    plot.add_argument("new", type=Path, metavar="NEW", nargs="?", help="rows to score")
    what = plot.add_mutually_exclusive_group()
    what.add_argument(
        "--label",
        metavar="COLUMN",
        help="column of NEW with 0 = normal and 1 = anomaly, to split the distribution by, or to "
        "draw below the scores of a series",
    )
    what.add_argument("--row", type=int, metavar="N", help="number of a row of NEW; 1 = the first")
    plot.add_argument(
        "--out", type=Path, metavar="PICTURE", required=True, help=".png, .pdf or .svg to write"
    )
    _add_dialect(plot)
    _add_time(plot)
    _add_context(plot)
    plot.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_watch(commands: Any) -> None:
    watch = commands.add_parser(
        "watch",
        help="score points of a series as they come, from standard input",
        description="Read points of a series from standard input, one a line, and write a line "
        "with score and label for each as it comes, below a line of names: nan and 0 while there "
        "are not enough points for a score. A line has the numbers of all channels, separated by "
        "what the first line has of ';', tab, '|' and the comma, or else by blanks; a first line "
        "with names is understood. MODEL is a detector of series "
        "that was fitted with --set smoothing=causal. A line that is no point ends the command "
        "with exit code 1.",
        epilog="example: tail -n +1 -f sensors.csv | deepod watch model --time when",
    )
    watch.set_defaults(run=actions.run_watch)
    watch.add_argument("model", type=Path, metavar="MODEL", help="as deepod fit has saved it")
    watch.add_argument(
        "--time", metavar="COLUMN", help="column of times, to repeat in front of the scores"
    )
    watch.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="go on from this state, if it is there, and write it in the end, after Ctrl-C too",
    )
    watch.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out lines that are no points, with a word on standard error, and go on",
    )
    _add_dialect(watch)


def _add_report(commands: Any) -> None:
    from deepod.bench import reporting

    report = commands.add_parser(
        "report",
        help="compare detectors: tables, and a page with pictures",
        description="Print Markdown tables of what deepod bench has measured, and with --out write "
        "a page with pictures that needs no network, and .csv files. Detectors are compared on "
        "the datasets and seeds that all of them have a result for.",
        epilog="example: deepod report results.jsonl --out report --rename pyod:KNN=KNN",
    )
    report.set_defaults(run=actions.run_report)
    reporting.add_options(report)


def _add_dialect(command: Any) -> None:
    command.add_argument(
        "--sep",
        type=_character,
        metavar="CHARACTER",
        help="what separates the cells of .csv, such as ';' or tab (default: found out)",
    )
    command.add_argument(
        "--decimal",
        choices=[".", ","],
        help="decimal point of .csv (default: found out; a point on standard input)",
    )
    command.add_argument(
        "--encoding",
        metavar="NAME",
        help="encoding of .csv, such as latin-1 (default: UTF-8, or what a byte order mark says)",
    )


def _add_time(command: Any) -> None:
    command.add_argument(
        "--time",
        metavar="COLUMN",
        help="for detectors of series: column with the time, by which the rows have to be sorted; "
        "it is no channel",
    )
    command.add_argument(
        "--split-at-gaps",
        action="store_true",
        help="where the time makes a step of more than 1.5 times the median, begin a new series",
    )


def _add_context(command: Any) -> None:
    command.add_argument(
        "--context",
        type=Path,
        metavar="FILE",
        help="for detectors of series: the points before NEW, so that its first ones have a past; "
        "read as NEW is",
    )


def _character(text: str) -> str:
    return "\t" if text in ("tab", "\\t") else text


def _setting(text: str) -> tuple[str, Any]:
    """Split at "="; the value is a Python literal, or else a string."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, _literal(value)


def _literal(text: str) -> Any:
    """Read a Python literal, or else take the string."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if "" in names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"expected different names like a,b,c, got {text!r}")
    return names
