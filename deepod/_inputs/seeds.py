"""Seeds of everything random, all drawn from ``random_state``."""

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
    """Draw the seeds of n independent streams by one draw of ``random_state``.

    None takes new entropy: NumPy's global generator, scikit-learn's default, stays untouched.
    """
    seed = None
    if random_state is not None:
        seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    children = np.random.SeedSequence(seed).spawn(n)
    return [int(child.generate_state(1)[0]) for child in children]


@contextmanager
def global_generator(seed: int | None = None) -> Iterator[None]:
    """Put torch's global generator back afterwards; one thread at a time.

    Layers draw their initial weights from it, and dropout its masks. It is seeded with ``seed``, if
    there is one.
    """
    with _drawing, torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        yield
