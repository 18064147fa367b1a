"""Peak memory of one fit or one scoring, in a process of its own.

``python -m benchmarks.memory --help``; :func:`in_fresh_process` starts one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
_STATUS = Path("/proc/self/status")
_EVERY = 0.002  # seconds between two looks


def peak_of(function: Callable[[], Any]) -> dict[str, Any]:
    """Memory that a call takes beyond what the process had before.

    Parameters
    ----------
    function : callable

    Returns
    -------
    dict
        ``before`` and ``peak`` in MiB and ``how`` they were found: "RssAnon" is what the process
        has allocated, without the pages of mapped files, looked at every 2 ms; elsewhere than on
        Linux, "ru_maxrss", which counts those pages and everything since the process began.
    """
    if _anonymous() is None:
        before = _largest()
        function()
        return {"before": before, "peak": _largest(), "how": "ru_maxrss"}
    before = highest = _anonymous() or 0.0
    over = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(_EVERY):
            highest = max(highest, _anonymous() or 0.0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        function()
    finally:
        over.set()
        watcher.join()
    highest = max(highest, _anonymous() or 0.0)
    return {"before": before, "peak": highest, "how": "RssAnon"}


def _anonymous() -> float | None:
    """MiB that are not backed by a file, if the system tells."""
    found = kib("RssAnon")
    return None if found is None else found / 1024


def kib(name: str) -> int | None:
    """Return KiB of this process under a name of Linux's ``/proc/self/status``, if it is there."""
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return None


def _largest() -> float:
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def in_fresh_process(
    work: str, side: str, n: int, features: int, mapped: Path | None = None
) -> dict[str, Any]:
    """Run :func:`peak_of` in a new interpreter.

    Parameters
    ----------
    work : {"fit", "score"}
        One epoch of training and the scores of the training rows; or scores alone, after a fit on
        few rows.
    side : str
        A key of ``benchmarks.speed_sections.SIDES``.
    n, features : int
        Size of X, float32.
    mapped : Path, optional
        A ``.npy`` file whose first n rows are X; without one, X is drawn into memory before.

    Returns
    -------
    dict
    """
    command = [sys.executable, "-m", "benchmarks.memory", work, side, str(n), str(features)]
    if mapped is not None:
        command += ["--mapped", str(mapped)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=_environment())
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed: out of memory?"])[-1]
        raise RuntimeError(f"{work} of {n} rows ended with status {done.returncode}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def _environment() -> dict[str, str]:
    """Make the child import the packages that this process has."""
    import deepod

    paths = [str(ROOT), str(Path(deepod.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    from benchmarks import speed_sections

    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("work", choices=["fit", "score"])
    parser.add_argument("side", choices=speed_sections.SIDES)
    parser.add_argument("n", type=int)
    parser.add_argument("features", type=int)
    parser.add_argument("--mapped", type=Path, help=".npy file of the rows")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    few = speed_sections.rows_of(1000, args.features)
    detector = speed_sections.SIDES[args.side](epochs=1, batch_size=128)
    # What the first call loads and compiles does not count.
    detector.fit(few)
    detector.decision_function(few)
    if args.mapped is None:
        X = speed_sections.rows_of(args.n, args.features)
    else:
        X = np.load(args.mapped, mmap_mode="r")[: args.n]
    if args.work == "score":
        print(json.dumps(peak_of(lambda: detector.decision_function(X))))
        return
    detector = speed_sections.SIDES[args.side](epochs=1, batch_size=128)
    print(json.dumps(peak_of(lambda: detector.fit(X))))


if __name__ == "__main__":
    main()
