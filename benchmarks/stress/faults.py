"""Processes that are killed while they write, and what is there afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import deepod
from deepod._storage import atomic
from deepod.networks import MLP

from . import children
from .cases import fast, samples

X = samples()


def detector(seed: int) -> Any:
    """Fit a model of a few MiB, so that it takes some time to write."""
    network = MLP(hidden=(700, 700))
    return fast("AutoEncoder", epochs=0, network=network, random_state=seed).fit(X)


def tree(folder: Path) -> dict[str, Any]:
    """Return everything in a folder: contents, links and rights."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        kind = path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()
        found[str(path.relative_to(folder))] = kind, path.lstat().st_mode
    return found


def partials(folder: Path) -> list[Path]:
    """List the files that were being written."""
    return [path for path in folder.rglob("*") if atomic.is_partial(path)]


# --- saves ----------------------------------------------------------------------------------------


def _save_until_killed(path: Path, started: Path) -> None:
    models = [detector(seed) for seed in (1, 0)]
    _tell(started, lambda: models[1].save(path))
    while True:
        for model in models:
            model.save(path)


def _save_new_ones_until_killed(folder: Path, name: str, started: Path) -> None:
    model = detector(0)
    _tell(started, lambda: model.save(folder / f"0{name}"))
    for number in range(1, 10_000):
        model.save(folder / f"{number}{name}")


def _tell(started: Path, save: Callable[[], None]) -> None:
    """Tell how many seconds a save takes."""
    begun = time.perf_counter()
    save()
    with atomic.replacing(started) as partial:
        partial.write_text(str(time.perf_counter() - begun))


def _killed(
    function: Callable[..., None], *args: Any, started: Path, moments: random.Random
) -> None:
    """Kill a process at a random moment after it has started to save."""
    started.unlink(missing_ok=True)
    process = children.start(function, *args, started)
    while not started.exists():
        assert process.is_alive(), "it ended by itself"
        time.sleep(0.001)
    time.sleep(moments.uniform(0, 4 * float(started.read_text())))
    assert process.is_alive(), "it ended by itself"
    process.kill()
    process.join()


def kill_saves(folder: Path, name: str, times: int, seed: int = 0) -> Counter[str]:
    """Kill saves over an older model: afterwards there is that, or the new one.

    Parameters
    ----------
    folder : Path
    name : str
        Of the model; with ".deepod" a single file.
    times : int

    Returns
    -------
    counts : Counter
        How often the model was "old" or "new" afterwards, and after how many kills a partial file
        was "left".

    Raises
    ------
    AssertionError
        If anything else is there, or a later save does not clean up.
    """
    moments, counts = random.Random(seed), Counter[str]()
    path, started = folder / name, folder / "started"
    scores = [detector(seed).decision_function(X) for seed in (0, 1)]
    detector(0).save(path)
    for _ in range(times):
        _killed(_save_until_killed, path, started=started, moments=moments)
        found = deepod.load(path).decision_function(X)
        same = [np.array_equal(found, one) for one in scores]
        assert sum(same) == 1, "neither of the two models"
        counts[["old", "new"][same.index(True)]] += 1
        left = partials(folder)
        counts["left"] += bool(left)
        # A model has three files, of each one that is being written, and what it will replace.
        assert len(left) <= (2 if path.is_file() else 6), "partial files of several kills"
    detector(0).save(path)
    assert not partials(folder), "a partial file is left"
    return counts


def kill_first_saves(folder: Path, name: str, times: int, seed: int = 0) -> Counter[str]:
    """Kill saves where no model was before: afterwards there is none, or all of it.

    The arguments are those of :func:`kill_saves`; the counts are of kills that left "nothing" of a
    model that was being saved, and of those between two models.
    """
    moments, counts = random.Random(seed), Counter[str]()
    expected = detector(0).decision_function(X)
    for number in range(times):
        place = folder / f"{name} {number}"
        place.mkdir()
        started = folder / "started"
        _killed(_save_new_ones_until_killed, place, name, started=started, moments=moments)
        begun = {path for path in place.iterdir() if not atomic.is_partial(path)}
        for path in begun:
            with contextlib.suppress(FileNotFoundError):
                assert np.array_equal(deepod.load(path).decision_function(X), expected)
        weights = [path / "model.safetensors" if path.is_dir() else path for path in begun]
        whole = sum(path.exists() for path in weights)
        assert whole >= len(begun) - 1, "an older model is not there any more"
        last = place / f"{whole}{name}"
        counts["nothing" if last in begun or partials(place) else "between"] += 1
        detector(0).save(last)  # nothing is in the way
        assert np.array_equal(deepod.load(last).decision_function(X), expected)
        assert not partials(place)
    return counts


# --- the runner of benchmarks ---------------------------------------------------------------------


def _run_benchmark(data: Path, args: list[str]) -> None:
    os.environ["DEEPOD_DATA"] = str(data)
    from deepod.cli import main

    main(["bench", "--quiet", *args])


def kill_benchmarks(
    data: Path, out: Path, args: list[str], longest: float, seed: int = 0, most: float = np.inf
) -> int:
    """Start a benchmark again and again, kill it, until it ends by itself; number of kills.

    It is killed ``most`` times, up to ``longest`` seconds after it has added to its rows.
    """
    moments, kills = random.Random(seed), 0
    while True:
        before = out.stat().st_size if out.exists() else 0
        process = children.start(_run_benchmark, data, [*args, "--out", str(out)])
        # So that there is some progress.
        while process.is_alive() and not (out.exists() and out.stat().st_size > before):
            time.sleep(0.001)
        process.join(moments.uniform(0, longest) if kills < most else None)
        if not process.is_alive():
            assert process.exitcode == 0
            return kills
        process.kill()
        process.join()
        kills += 1


def untimed(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a results file without their times."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in found]
