"""Detectors that are fitted, saved, loaded and dropped one after the other, and what they leave."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

import deepod
from benchmarks.memory import kib

from . import children
from .cases import NAMES_AND_KINDS, fast, samples

LOOKS = 6
Turns = Sequence[tuple[str, str]]  # names of detectors, and kinds of samples


def _detectors(turns: Turns) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield detectors and samples in turns, and of each round one that is traced, for ever."""
    number = 0
    while True:
        for name, kind in turns:
            yield fast(name, random_state=number), samples(kind, seed=number)
            number += 1
        name = turns[number % len(turns)][0]
        yield fast(name, random_state=number, network="mlp", epochs=90, batch_size=16), samples()


def _use(detector: Any, X: np.ndarray, path: Path) -> bool:
    """Do with a detector what people do; whether its training was traced."""
    detector.fit(X)
    detector.predict(X)
    detector.save(path)
    assert np.array_equal(deepod.load(path).decision_function(X), detector.decision_function(X))
    return detector.engine_ == "trace"


def _look() -> dict[str, float]:
    gc.collect()
    objects = gc.get_objects()
    python = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0
    return {
        "objects": len(objects),
        "modules": sum(issubclass(type(thing), nn.Module) for thing in objects),
        "tensors": sum(issubclass(type(thing), Tensor) for thing in objects),
        "process": kib("RssAnon") / 1024,  # what is no page of a file
        "python": python / (1 << 20),
    }


def _churn(fits: int, folder: Path, turns: Turns, python: bool) -> None:
    looks, traced = [], 0
    if python:
        tracemalloc.start()
    for number, (detector, X) in enumerate(_detectors(turns)):
        if number * (LOOKS - 1) % fits < LOOKS - 1:
            looks.append(_look())
        if number == fits:
            break
        traced += _use(detector, X, folder / "model.deepod")
    found = {name: [look[name] for look in looks] for name in looks[0]}
    (folder / "churn.json").write_text(json.dumps(found | {"fits": fits, "traced": traced}))


def churn(
    fits: int, folder: Path, *, turns: Turns = NAMES_AND_KINDS, python: bool = False
) -> dict[str, Any]:
    """Fit, save, load and drop detectors in a process of their own.

    Parameters
    ----------
    fits : int
    folder : Path
    turns : sequence of (str, str), optional
        Names of detectors and kinds of samples; by default, every detector on every kind.
    python : bool, default=False
        Whether to measure the memory of Python's objects, which takes three times as long.

    Returns
    -------
    dict
        Number of ``fits``, of those that were ``traced``, and, at six moments from before the first
        to after the last, living ``objects``, ``modules`` and ``tensors``, and MiB of the
        ``process`` and of ``python``.
    """
    process = children.start(_churn, fits, folder, turns, python)
    process.join()
    assert process.exitcode == 0
    return json.loads((folder / "churn.json").read_text())
