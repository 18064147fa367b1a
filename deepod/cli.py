"""The command line: ``deepod demo``, ``deepod list``, ``deepod --version``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import deepod


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; None takes those of the process.

    Returns
    -------
    int
        Exit code: 0, or 1 after a failure that was explained on standard error.
    """
    parser = argparse.ArgumentParser(
        prog="deepod", description="Deep anomaly detection that behaves like scikit-learn."
    )
    parser.add_argument("--version", action="version", version=f"deepod {deepod.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    demo = commands.add_parser(
        "demo",
        help="compare PLAD with PyOD's detectors on a real dataset",
        description="Fit PLAD and PyOD's IForest, ECOD and KNN on normal rows of the breast cancer "
        "data that scikit-learn ships, print a table of how well each finds the malignant ones, "
        "and save a picture of the score distributions. Takes less than a minute on a laptop.",
        epilog="example: deepod demo --out scores.png --seed 1",
    )
    demo.add_argument(
        "--out", type=Path, default=Path("demo.png"), help="picture to write (default: %(default)s)"
    )
    demo.add_argument("--seed", type=int, default=0, help="seed of split and training (default: 0)")
    commands.add_parser("list", help="list the detectors with family, inputs and paper")

    arguments = parser.parse_args(argv)
    if arguments.command == "list":
        _print_list()
        return 0
    try:
        _run_demo(arguments.out, arguments.seed)
    except (OSError, ImportError, ValueError) as error:
        print(f"deepod demo: {error}", file=sys.stderr)
        return 1
    return 0


def _print_list() -> None:
    rows = [("detector", "family", "inputs", "paper")]
    for d in deepod.list_detectors():
        rows.append((d["name"], d["family"], ", ".join(d["inputs"]), d["paper"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _run_demo(out: Path, seed: int) -> None:
    from deepod import _demo

    # Before the work, not after it: a picture that cannot be written is known now.
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: there is no folder {out.parent}.")
    if out.is_dir() or out.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"--out {out}: expected the name of a .png, .pdf or .svg file.")
    if find_spec("matplotlib") is None:
        raise ImportError("the picture needs matplotlib: pip install 'deepod[plots]'.")
    data = _demo.load(seed)
    print(
        f"Breast cancer (scikit-learn): {len(data.train)} benign rows train; test has "
        f"{int((data.target == 0).sum())} benign and {int(data.target.sum())} malignant rows, "
        f"{data.train.shape[1]} features.\n"
    )
    results = _demo.run(data, seed)
    print(f"{'detector':<10}{'AUC-ROC':>9}{'AUC-PR':>9}{'fit s':>9}{'score s':>9}")
    for r in results:
        print(
            f"{r.name:<10}{r.auc_roc:>9.3f}{r.auc_pr:>9.3f}"
            f"{r.fit_seconds:>9.2f}{r.score_seconds:>9.3f}"
        )
    _demo.picture(data, results).savefig(out, dpi=120)
    print(f"\nScore distributions: {out}")
