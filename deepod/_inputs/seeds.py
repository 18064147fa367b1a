"""Seeds of all random numbers, drawn from ``random_state``."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_random_state

# One thread at a time draws from torch's global generator, which is set or put back.
_drawing = threading.RLock()
if hasattr(os, "register_at_fork"):  # a thread that holds it would be missing in a forked child
    os.register_at_fork(
        before=_drawing.acquire, after_in_parent=_drawing.release, after_in_child=_drawing.release
    )


class Seeds(NamedTuple):
    """Seeds of independent streams of random numbers."""

    weights: int
    order: int
    noise: int
    prepare: int
    split: int
    calibration: int


def draw_seeds(random_state: Any) -> Seeds:
    """Draw the seeds of a fit."""
    return Seeds(*spawn_seeds(random_state, len(Seeds._fields)))


def spawn_seeds(random_state: Any, n: int) -> list[int]:
    """Return the seeds of n independent streams, derived from one draw of ``random_state``.

    None uses new entropy, and not NumPy's global generator as in scikit-learn.
    """
    seed = None
    if random_state is not None:
        seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    children = np.random.SeedSequence(seed).spawn(n)
    return [int(child.generate_state(1)[0]) for child in children]


@contextmanager
def global_generator(seed: int | None = None) -> Iterator[None]:
    """Restore torch's global generator after a ``with`` block; one thread at a time.

    Layers draw their initial weights from it, and dropout its masks. Within the block, it is seeded
    with ``seed`` if that is given.
    """
    with _drawing, torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        yield
