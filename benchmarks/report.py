"""``deepod report`` that knows the groups of datasets by name."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from benchmarks import _common
from benchmarks.adbench import expand
from deepod.bench import reporting, rows


def chosen(name: str, there: Iterable[str]) -> list[str]:
    """Return the datasets of a group that are there, or the name as it is if there are none."""
    members = expand([name])
    return [d for d in there if d in members or d.partition("/")[0] in members] or [name]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description="As deepod report; --datasets takes groups, too: development, confirmation, "
        "oddbench-development and so on, as python -m benchmarks.adbench does.",
        epilog="example: python -m benchmarks.report results.jsonl --datasets confirmation",
    )
    reporting.add_options(parser)
    args = parser.parse_args(argv)
    with _common.explained(parser):
        if args.datasets:
            there = {row["dataset"] for path in args.results for row in rows.read(path)}
            args.datasets = [d for name in args.datasets for d in chosen(name, there)]
        print(reporting.run_report(args))


if __name__ == "__main__":
    main()
