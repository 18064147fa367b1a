"""Time deepod beside PyOD and beside the bare work: ``python -m benchmarks.speed --help``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from benchmarks import side_by_side, speed_report
from benchmarks.side_by_side import Cell, Comparison
from benchmarks.speed_sections import SECTIONS, Work
from deepod.bench import environment, rows
from deepod.bench.lock import only_one

THREADS = 1  # for every contender alike
REPEATS, QUICK_REPEATS = 5, 2
EXAMPLE = """example:
  python -m benchmarks.speed --out benchmarks/results/speed.jsonl --plots plots
  python -m benchmarks.speed --report benchmarks/results/speed.jsonl --all

A run that was stopped goes on where it was when the same command is given again.
"""


def done(
    comparison: Comparison, there: dict[Cell, dict[str, Any]], quick: bool, retry: bool
) -> bool:
    """Tell whether a file has all rows of a comparison, none of them to be measured again.

    What was skipped is measured once it is there.
    """
    found = [there.get(cell) for cell in comparison.cells(quick)]
    if None in found:
        return False
    if retry and any("error" in row for row in found):
        return False
    return all(row.get("skipped", comparison.missing) == comparison.missing for row in found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description="Do the same work with deepod, PyOD and bare torch in turns, on one CPU "
        "thread; append a JSON line for each measured quantity and ratio, and print the targets.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="file of JSON lines to append to")
    where.add_argument("--report", type=Path, help="measure nothing: print what a file has")
    add("--sections", default=",".join(SECTIONS), help=f"with commas, of {', '.join(SECTIONS)}")
    add("--quick", action="store_true", help="a trial with tiny sizes, in about a minute")
    add("--repeats", type=int, help=f"rounds (default {REPEATS}; {QUICK_REPEATS} with --quick)")
    add("--largest", type=int, default=10_000_000, help="most rows of any table (default 1e7)")
    add("--retry-errors", action="store_true", help="measure again what ended in an error")
    add("--all", action="store_true", help="print every median and ratio, too")
    add("--plots", type=Path, help="folder for pictures; needs the extra deepod[plots]")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.out is not None:
        sections = args.sections.split(",")
        unknown = [name for name in sections if name not in SECTIONS]
        if unknown:
            parser.error(f"no such section: {', '.join(unknown)}")
        repeats = args.repeats or (QUICK_REPEATS if args.quick else REPEATS)
        _measure(args, sections, repeats)
    found = rows.read(args.out or args.report, Cell)
    if args.all:
        print(speed_report.listing(found), end="\n\n")
    print(speed_report.table(found), speed_report.where(found), sep="\n\n")
    if args.plots is not None:
        speed_report.draw(found, args.plots)


def _measure(args: argparse.Namespace, sections: Sequence[str], repeats: int) -> None:
    about = environment.describe() | environment.machine() | {"threads": THREADS}
    torch.set_num_threads(THREADS)
    with only_one(args.out), ExitStack() as resources, threadpool_limits(THREADS):
        there = rows.resume(args.out, Cell)
        work = Work(args.quick, args.largest, resources)
        for name in sections:
            with tqdm(SECTIONS[name](work), desc=name, unit="comparison") as progress:
                for comparison in progress:
                    if done(comparison, there, args.quick, args.retry_errors):
                        continue
                    progress.set_postfix_str(comparison.setting)
                    for row in side_by_side.run(comparison, repeats, args.quick):
                        rows.append(args.out, row | about, Cell)


if __name__ == "__main__":
    main()
