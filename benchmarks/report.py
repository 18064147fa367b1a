"""``deepod report`` that knows the groups of datasets by name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks import _common
from benchmarks.adbench import GROUPS
from deepod.bench import reporting, rows


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description="As deepod report; --datasets takes development and confirmation, too.",
        epilog="example: python -m benchmarks.report results.jsonl --datasets confirmation",
    )
    reporting.add_options(parser)
    args = parser.parse_args(argv)
    with _common.explained(parser):
        if args.datasets and args.datasets[0] in GROUPS:
            there = {row["dataset"] for path in args.results for row in rows.read(path)}
            args.datasets = [name for name in GROUPS[args.datasets[0]] if name in there]
        print(reporting.run_report(args))


if __name__ == "__main__":
    main()
