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
    """Add all options but those that say which datasets there are."""
    add = parser.add_argument
    usual = f"default: {detectors}; " if detectors else ""
    parser.set_defaults(usual=listed(detectors or ""))
    add("--detectors", type=listed, help="with commas: PLAD, pyod:IForest, module:Class, "
        f"file.toml:section ({usual}of series, ours for series and the baselines, which are run "
        "in any case)")  # fmt: skip
    add("--without", type=listed, default=[], metavar="a,b,c", help="leave out these, such as "
        "baseline:lstmad-pyod, which is slow; baselines: all that --detectors has not")  # fmt: skip
    add("--protocol", default="one-class", help=", ".join(DIVIDED) + ", "
        + ", ".join(k if p.least is None else f"{k}-N" for k, p in PROTOCOLS.items())
        + ", with a number for N (default: %(default)s)")  # fmt: skip
    add("--seeds", type=count, default=5, help="number of seeds, from 0 on (default: %(default)s)")
    add("--max-train", type=count, metavar="N", help="at most N training rows, drawn at random; of "
        "a series the last ones")  # fmt: skip
    add("--max-test", type=count, metavar="N", help="at most N test rows, with the share of "
        "anomalies kept; of a series the first ones")  # fmt: skip
    add("--jobs", type=count, default=1, help="detectors at a time (default: %(default)s)")
    add("--no-stack", action="store_true", help="train the seeds of a detector of ours one by one, "
        "not side by side")  # fmt: skip
    add("--time-limit", type=float, metavar="SECONDS", help="for each detector, dataset and seed; "
        "what takes longer is a row with an error")  # fmt: skip
    add("--memory-limit", type=float, metavar="GIB", help="for the process of a detector, in which "
        "the libraries take some 0.4")  # fmt: skip
    add("--keep-scores", action="store_true", help="keep the scores of the test rows beside --out: "
        "for curves and histograms in the report")  # fmt: skip
    add("--retry-errors", action="store_true", help="run again what ended in an error")
    add("--quiet", action="store_true", help="no progress bar")
    add("--out", required=True, type=Path, metavar="RESULTS", help="file of JSON lines to append "
        "to; a run that was stopped goes on where it was")  # fmt: skip


def run_with_options(data: Sequence[Any], args: argparse.Namespace) -> tuple[str, list[str]]:
    """Run as the options say; a sentence on what was done, and datasets that cannot be read."""
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
        done += f"\nfirst error: {errors[0]}\n--retry-errors runs what ended in an error again"
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
        raise ValueError(f"--without: {unknown} is none of {', '.join(names)}.")
    names = [name for name in names if name not in left_out]
    if not names:
        raise ValueError("--detectors: name at least one, such as PLAD or pyod:KNN.")
    return names


@contextlib.contextmanager
def stoppable(out: Path) -> Iterator[None]:
    """Let SIGTERM, as ``kill`` and schedulers send it, end the workers too; explain Ctrl-C."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    # Python handles signals in the main thread alone.
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped; {out} has what was done, and the same command goes on."
        ) from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def count(text: str) -> int:
    """Read a number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number


def listed(text: str) -> list[str]:
    """Read names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]
