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

# Windows needs a detector of rows, which cannot be given as an option.
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
        Exit code: 0 after success, 1 after a failure and 130 after Ctrl-C (both with a message on
        standard error), 141 if the reader of standard output has gone.
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
    """Return whether the reader of standard output has gone, as in ``deepod list | head``."""
    if sys.stdout is None:  # closed from the start
        return False
    try:
        print(more, end="", flush=True)
    except BrokenPipeError:
        with Path(os.devnull).open("wb") as nowhere:  # prevents a message when Python ends
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
        "malignant ones, and save a picture of the score distributions. This takes less than a "
        "minute on a laptop.",
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
        "deepod.load. TRAIN is a .npy file (without pickles), a .csv file with a line of column "
        "names (a temporary copy beside MODEL takes 8 bytes per value), a Parquet file or a "
        "folder of Parquet files. If it is larger than memory_limit, it is read from disk part by "
        "part. Missing values are refused, or filled in with --set missing=impute. "
        "Hyper-parameters that Consensus does not have are set on each of its members. For a "
        "detector of series, the rows of TRAIN are points in the order of time; they are read into "
        "memory.",
        epilog="example: deepod fit train.csv --detector AutoEncoder --set random_state=0 "
        "--set lr=0.01 --out model; for series: deepod fit sensors.csv --time when "
        "--detector LSTMAD --out model",
    )
    fit.set_defaults(run=actions.run_fit)
    fit.add_argument("train", type=Path, metavar="TRAIN", help="file of rows to fit on")
    fit.add_argument(
        "--detector",
        choices=_FITTED,
        default="Consensus",
        metavar="NAME",
        help="detector to fit: Consensus (an ensemble of several), or one that deepod list names; "
        f"for series {', '.join(name for name in _FITTED if name in SERIES)} (default: "
        "%(default)s)",
    )
    fit.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a hyper-parameter of the detector, to a number, true, false, a word or another "
        "Python literal; may be repeated",
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
        help="labels to learn from, with --set supervision=...: a column of TRAIN with 1 = "
        "anomaly, 0 = normal and empty cells for unknown, or the .csv file of marks that a page "
        "of deepod review offers for download. With few_labels, only the known anomalies are used "
        "and all other rows count as unlabelled",
    )
    fit.add_argument(
        "--id",
        metavar="COLUMN",
        help="column of ids, which is not used as a feature; MARKS with ids are joined by it",
    )
    _add_time(fit)
    fit.add_argument(
        "--out",
        type=Path,
        metavar="MODEL",
        required=True,
        help="folder to write, or a file if the name ends in .deepod; replaces an older model",
    )
    fit.add_argument("--quiet", action="store_true", help="show no progress bar")


def _add_score(commands: Any) -> None:
    score = commands.add_parser(
        "score",
        help="score rows from disk in constant memory",
        description="Score the rows of NEW (.npy, .csv or Parquet) with a saved detector, reading "
        "them from disk part by part. If the training columns had names, the columns of NEW are "
        "chosen by these names. A series is read into memory and gets one score for each point, in "
        "the order of the file.",
        epilog="example: deepod score model new.csv --out scores.csv; for series: deepod score "
        "model new.csv --time when --context train.csv --out scores.csv",
    )
    score.set_defaults(run=actions.run_score)
    score.add_argument("model", type=Path, metavar="MODEL", help="model that deepod fit has saved")
    score.add_argument("new", type=Path, metavar="NEW", help="file of rows to score")
    score.add_argument(
        "--out",
        type=Path,
        metavar="SCORES",
        required=True,
        help="file to write: .npy (scores) or .csv (score,label, after the time if --time is "
        "given); higher scores are more anomalous",
    )
    score.add_argument(
        "--id",
        metavar="COLUMN",
        help="column of NEW with ids of the rows, which is copied to the front of .csv scores",
    )
    _add_dialect(score)
    _add_time(score)
    _add_context(score)
    score.add_argument("--quiet", action="store_true", help="show no progress bar")


def _add_review(commands: Any) -> None:
    review = commands.add_parser(
        "review",
        help="write a page to inspect and mark the rows with the highest scores",
        description="Score the rows of NEW with a saved detector and write a page with the rows "
        "that score highest. For each row, it shows the columns that contributed most to the "
        "score, with their values and typical values. It also shows groups of rows with similar "
        "reasons and the distribution of the scores. On the page, rows are marked as anomaly, "
        "normal or unsure with keys, and the marks are downloaded for deepod fit --labels. The "
        "page is one file that needs no network. Only the rows on it are explained; for methods "
        "whose reasons are integrated gradients, this takes as long as scoring these rows "
        "hundreds of times.",
        epilog="example: deepod review model new.csv --top 50 --id transaction_id --out "
        "review.html; after learning from the marks, deepod review model2 new.csv --compare model "
        "--out moved.html",
    )
    review.set_defaults(run=actions.run_review)
    review.add_argument("model", type=Path, metavar="MODEL", help="model that deepod fit has saved")
    review.add_argument("new", type=Path, metavar="NEW", help="file of rows to score and review")
    review.add_argument(
        "--top",
        type=int,
        default=50,
        metavar="N",
        help="number of rows to show (default: %(default)s)",
    )
    review.add_argument(
        "--id", metavar="COLUMN", help="column of NEW with ids, by which the marks name the rows"
    )
    review.add_argument(
        "--compare",
        type=Path,
        metavar="BEFORE",
        help="an earlier model of the same rows; the page shows which rows moved up or down",
    )
    review.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="file of rows whose medians are shown as typical values, such as TRAIN (default: NEW)",
    )
    review.add_argument(
        "--out", type=Path, metavar="PAGE", required=True, help=".html file to write"
    )
    _add_dialect(review)
    review.add_argument("--quiet", action="store_true", help="show no progress bar")


def _add_bench(commands: Any) -> None:
    bench = commands.add_parser(
        "bench",
        help="compare detectors on datasets with known anomalies",
        description="Run detectors on datasets, and append a row of results for each seed to a "
        "file of JSON lines for deepod report. The rows of a dataset are divided into training and "
        "test rows, and scaled by the training rows alone. Detectors never see the labels of test "
        "rows. A run that fails is recorded as a row with an error.",
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
        help="files or folders of datasets: .npz (arrays X and y), or .csv and .parquet with a "
        "column of labels; for series .npz (arrays train, test and test_labels), also in nested "
        "folders (default: tabular/, images/ or timeseries/ in the folder that the environment "
        "variable DEEPOD_DATA names)",
    )
    bench.add_argument(
        "--datasets",
        type=_names,
        default=[],
        metavar="a,b,c",
        help="names of the datasets to use (default: all); for images mnist (every class in turn "
        "is normal) or mnist:3; for series SMD/machine-1-6 or SMD",
    )
    bench.add_argument(
        "--label", default="label", help="name of the column of labels (default: label)"
    )
    bench.add_argument(
        "--anomaly",
        type=_literal,
        action="append",
        metavar="VALUE",
        help="label of anomalies; may be repeated (default: 1, if all labels are 0 or 1)",
    )
    bench.add_argument(
        "--normal",
        type=_literal,
        action="append",
        metavar="VALUE",
        help="label of normal rows, instead of --anomaly; all other rows are anomalies; may be "
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
        help="draw the training history, the scores of a file, or the reasons of one score",
        description="Draw a picture. With MODEL alone, it shows the terms of the loss over the "
        "epochs. With NEW, it shows the distribution of the scores of its rows and the threshold; "
        "for a detector of series, the channels, the scores, the threshold and the flagged "
        "stretches. With --row, it shows how much each column contributes to the score of that "
        "row. NEW is read as by deepod score.",
        epilog="example: deepod plot model new.csv --label fraud --out scores.png; for series: "
        "deepod plot model new.csv --time when --out series.png",
    )
    plot.set_defaults(run=actions.run_plot)
    plot.add_argument("model", type=Path, metavar="MODEL", help="model that deepod fit has saved")
    plot.add_argument("new", type=Path, metavar="NEW", nargs="?", help="file of rows to score")
    what = plot.add_mutually_exclusive_group()
    what.add_argument(
        "--label",
        metavar="COLUMN",
        help="column of NEW with 0 = normal and 1 = anomaly; the distribution is drawn for each "
        "label, and labels of a series are drawn below the scores",
    )
    what.add_argument(
        "--row", type=int, metavar="N", help="number of the row of NEW to explain; 1 = the first"
    )
    plot.add_argument(
        "--id", metavar="COLUMN", help="column of NEW with ids, which is not used as a feature"
    )
    plot.add_argument(
        "--out",
        type=Path,
        metavar="PICTURE",
        required=True,
        help=".png, .pdf or .svg file to write",
    )
    _add_dialect(plot)
    _add_time(plot)
    _add_context(plot)
    plot.add_argument("--quiet", action="store_true", help="show no progress bar")


def _add_watch(commands: Any) -> None:
    watch = commands.add_parser(
        "watch",
        help="score points of a series from standard input as they arrive",
        description="Read points of a series from standard input, one per line, and print a line "
        "with score and label for each, after a line of names. The score is nan and the label 0 "
        "until there are enough points for a score. A line holds the numbers of all channels. The "
        "separator is the first of ';', tab, '|' and ',' that the first line contains, or blanks. "
        "The first line may hold the names of the columns. MODEL is a detector of series that was "
        "fitted with --set smoothing=causal. A line that is not a point ends the command with exit "
        "code 1.",
        epilog="example: tail -n +1 -f sensors.csv | deepod watch model --time when",
    )
    watch.set_defaults(run=actions.run_watch)
    watch.add_argument("model", type=Path, metavar="MODEL", help="model that deepod fit has saved")
    watch.add_argument(
        "--time",
        metavar="COLUMN",
        help="column of times, which is copied to the front of the scores",
    )
    watch.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="file of the state of the stream: continue from it if it exists, and write it at the "
        "end, also after Ctrl-C",
    )
    watch.add_argument(
        "--skip-bad",
        action="store_true",
        help="skip lines that are not points, with a message on standard error",
    )
    _add_dialect(watch)


def _add_report(commands: Any) -> None:
    from deepod.bench import reporting

    report = commands.add_parser(
        "report",
        help="compare detectors: tables, and a page with pictures",
        description="Print the results of deepod bench as Markdown tables. With --out, also write "
        "a page with pictures, which needs no network, and .csv files. Detectors are compared on "
        "the datasets and seeds for which all of them have results.",
        epilog="example: deepod report results.jsonl --out report --rename pyod:KNN=KNN",
    )
    report.set_defaults(run=actions.run_report)
    reporting.add_options(report)


def _add_dialect(command: Any) -> None:
    command.add_argument(
        "--sep",
        type=_character,
        metavar="CHARACTER",
        help="separator of the cells of .csv, such as ';' or tab (default: detected)",
    )
    command.add_argument(
        "--decimal",
        choices=[".", ","],
        help="decimal point of .csv (default: detected; '.' on standard input)",
    )
    command.add_argument(
        "--encoding",
        metavar="NAME",
        help="encoding of .csv, such as latin-1 (default: UTF-8, or that of a byte order mark)",
    )


def _add_time(command: Any) -> None:
    command.add_argument(
        "--time",
        metavar="COLUMN",
        help="for detectors of series: column of times, which is not used as a channel; the rows "
        "must be sorted by it",
    )
    command.add_argument(
        "--split-at-gaps",
        action="store_true",
        help="begin a new series at each step in time of more than 1.5 times the median step",
    )


def _add_context(command: Any) -> None:
    command.add_argument(
        "--context",
        type=Path,
        metavar="FILE",
        help="for detectors of series: file of the points before NEW, from which the first points "
        "of NEW are scored; it is read like NEW",
    )


def _character(text: str) -> str:
    return "\t" if text in ("tab", "\\t") else text


def _setting(text: str) -> tuple[str, Any]:
    """Return the name and the value of NAME=VALUE: a Python literal, true, false or a string."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, {"true": True, "false": False}.get(value, _literal(value))


def _literal(text: str) -> Any:
    """Return the value of a Python literal, or the text if it is not one."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if "" in names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"expected different names like a,b,c, got {text!r}")
    return names
