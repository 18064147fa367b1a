"""Protection of results from global settings of torch in the user's program."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

# The dtype that new tensors have by default holds for all threads: the first call that needs
# float32 sets it, the last one puts back what was.
_changing = threading.Lock()
_calls: list[int] = []  # the threads that they are in
_before = torch.float32


@contextmanager
def fixed() -> Iterator[None]:
    """Use torch's own defaults in a ``with`` block: float32 tensors on the CPU, no autocast.

    The user's settings are restored afterwards. Do not put it around the ``yield`` of a generator,
    whose caller would then run with these settings too.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():  # its tensors could never be trained on
            stack.enter_context(torch.inference_mode(False))
        _begin()
        stack.callback(_end)
        for device in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


def _begin() -> None:
    global _before
    with _changing:
        if not _calls:
            _before = torch.get_default_dtype()
        if torch.get_default_dtype() != torch.float32:
            torch.set_default_dtype(torch.float32)
        _calls.append(threading.get_ident())


def _end() -> None:
    with _changing:
        _calls.remove(threading.get_ident())
        _put_back()


def _put_back() -> None:
    if not _calls and _before != torch.float32:
        torch.set_default_dtype(_before)


def _in_forked_child() -> None:
    """Use one thread, because torch would wait forever for its pool of threads after a fork."""
    torch.set_num_threads(1)
    # Nor are other threads, whose calls end no more.
    _calls[:] = [thread for thread in _calls if thread == threading.get_ident()]
    _put_back()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    # A thread of the parent that holds the lock would be missing in the child.
    os.register_at_fork(
        before=_changing.acquire,
        after_in_parent=_changing.release,
        after_in_child=_changing.release,
    )
    os.register_at_fork(after_in_child=_in_forked_child)
