"""``deepod report``, where ``--datasets`` may also be development, confirmation or all."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.adbench import GROUPS
from deepod.cli import main as deepod


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = list(sys.argv[1:] if argv is None else argv)
    return deepod(["report", *(",".join(GROUPS.get(arg, [arg])) for arg in args)])


if __name__ == "__main__":
    raise SystemExit(main())
