"""Options of ``deepod bench`` and of ``python -m benchmarks.adbench``."""

from __future__ import annotations

import argparse
import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deepod.bench.protocols import DIVIDED, PROTOCOLS


def add_options(parser: argparse.ArgumentParser, detectors: str | None = None) -> None:
    """Add all options except those that name the datasets."""
    add = parser.add_argument
    usual = f"default: {detectors}; " if detectors else ""
    parser.set_defaults(usual=listed(detectors or ""))
    add("--detectors", type=listed, metavar="a,b,c", help="detectors to run: PLAD, pyod:IForest, "
        f"module:Class or file.toml:section ({usual}for series, deepod's detectors of series). For "
        "series, baselines are run in any case")  # fmt: skip
    add("--without", type=listed, default=[], metavar="a,b,c", help="detectors to leave out, such "
        "as baseline:lstmad-pyod, which is slow; 'baselines' leaves out all baselines that "
        "--detectors does not name")  # fmt: skip
    add("--protocol", default="one-class", help=", ".join(DIVIDED) + ", "
        + ", ".join(k if p.least is None else f"{k}-N" for k, p in PROTOCOLS.items())
        + ", with a number for N (default: %(default)s)")  # fmt: skip
    add("--seeds", type=count, default=5, help="number of seeds, from 0 on (default: %(default)s)")
    add("--max-train", type=count, metavar="N", help="at most N training rows, drawn at random; of "
        "a series the last ones")  # fmt: skip
    add("--max-test", type=count, metavar="N", help="at most N test rows, with the share of "
        "anomalies kept; of a series the first ones")  # fmt: skip
    add("--jobs", type=count, default=1, help="number of detectors to run at a time (default: "
        "%(default)s)")  # fmt: skip
    add("--no-stack", action="store_true", help="train the seeds of each detector of deepod one by "
        "one instead of together")  # fmt: skip
    add("--time-limit", type=float, metavar="SECONDS", help="time limit for each detector, dataset "
        "and seed; one that takes longer gets a row with an error")  # fmt: skip
    add("--memory-limit", type=float, metavar="GIB", help="memory limit for the process of a "
        "detector, of which the libraries take some 0.4 GiB")  # fmt: skip
    add("--keep-scores", action="store_true", help="keep the scores of the test rows beside --out, "
        "for curves and histograms in the report")  # fmt: skip
    add("--retry-errors", action="store_true", help="repeat runs that ended in an error")
    add("--quiet", action="store_true", help="show no progress bar")
    add("--out", required=True, type=Path, metavar="RESULTS", help="file of JSON lines to append "
        "to; a run that was stopped continues from it")  # fmt: skip


def run_with_options(data: Sequence[Any], args: argparse.Namespace) -> tuple[str, list[str]]:
    """Run the benchmark, and return a summary and the names of datasets that cannot be read."""
    from deepod.bench.runner import run

    with stoppable(args.out):
        found = run(
            data,
            wanted(args),
            args.out,
            protocol=args.protocol,
            seeds=args.seeds,
            jobs=args.jobs,
            max_train=args.max_train,
            max_test=args.max_test,
            stack=not args.no_stack,
            time_limit=args.time_limit,
            memory_limit=args.memory_limit,
            keep_scores=args.keep_scores,
            retry_errors=args.retry_errors,
            progress=not args.quiet,
        )
    errors = [row["error"] for row in found if "error" in row]
    done = f"{len(found)} rows of {len(data)} datasets, {len(errors)} with an error: {args.out}"
    if errors:
        done += f"\nfirst error: {errors[0]}\n--retry-errors repeats runs that ended in an error"
    unread = [row["dataset"] for row in found if row.get("unread")]
    return done, list(dict.fromkeys(unread))


def wanted(args: argparse.Namespace) -> list[str]:
    """Return the names of the detectors to run, with baselines beside those of time series."""
    from deepod.bench.detectors import BASELINES, usual_of_series

    series = args.protocol == "series"
    usual = usual_of_series() if series else args.usual
    names = list(usual if args.detectors is None else args.detectors)
    if series and "baselines" not in args.without:
        names += [f"baseline:{name}" for name in BASELINES]
    left_out = set(args.without) - {"baselines"}
    if not left_out <= set(names):
        unknown = min(left_out - set(names))
        raise ValueError(f"--without {unknown}: there is no such detector to leave out of "
                         f"{', '.join(names)}.")  # fmt: skip
    names = [name for name in names if name not in left_out]
    if not names:
        raise ValueError("--detectors: name at least one, such as PLAD or pyod:KNN.")
    return names


@contextlib.contextmanager
def stoppable(out: Path) -> Iterator[None]:
    """Make SIGTERM end the workers too, and explain Ctrl-C, within a ``with`` block."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    # Python handles signals in the main thread alone.
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped; the results so far are in {out}, and the same command continues."
        ) from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def count(text: str) -> int:
    """Return text as a number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number


def listed(text: str) -> list[str]:
    """Return the names in a text with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]
