"""Calls of functions with limits on time and memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import wait
from importlib import import_module
from multiprocessing.util import Finalize
from time import monotonic
from typing import Any

_LOOK = 0.05  # seconds between two looks at the memory
_GIB = 1 << 30
_pool: Any = None

_RUNNER = "deepod.bench.runner"  # what workers run; by name, because it imports this module


class LimitError(RuntimeError):
    """Error raised if a call exceeds its time or memory limit, or its process dies."""


def call(function: Callable[..., Any], *args: Any, seconds: float | None, gib: float | None) -> Any:
    """Call a function in another process, which is killed if it exceeds a limit.

    The process is used again for the next call. Its start does not count towards the limits.

    Parameters
    ----------
    function, *args
        The function and its arguments, which must be picklable.
    seconds : float or None
        Time limit.
    gib : float or None
        Limit on the memory of the process, as its resident set, in GiB.

    Returns
    -------
    object
        What the function returns; what it raises is raised.

    Raises
    ------
    LimitError
        If a limit is exceeded or the process dies.
    ImportError
        If the extra ``deepod[bench]`` is not installed.
    """
    try:
        import psutil
        from pebble import ProcessExpired
    except ImportError as error:
        raise ImportError(
            "time_limit and memory_limit need more libraries; install them with pip install "
            '"deepod[bench]".'
        ) from error
    pool = _started()
    pool.schedule(_nothing).result()  # once the process is there
    future = pool.schedule(function, args=args)
    began = monotonic()
    try:
        while True:
            wait([future], _LOOK)
            if future.done():
                return future.result()
            if seconds is not None and monotonic() - began > seconds:
                raise LimitError(f"took more than {seconds:g} seconds.")
            if gib is not None and _resident(psutil) > gib * _GIB:
                raise LimitError(f"took more than {gib:g} GiB of memory.")
    except ProcessExpired as error:
        raise LimitError(f"its process died (exit code {error.exitcode}).") from error
    finally:
        if not future.done():
            future.cancel()  # kills the process; another takes its place


def _started() -> Any:
    global _pool
    if _pool is None or not _pool.active:
        from pebble import ProcessPool

        # Not forked from this process, whose threads may hold locks.
        method = "forkserver" if sys.platform == "linux" else "spawn"
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([_RUNNER])
        _pool = ProcessPool(1, context=context)
        # Not atexit: a worker of joblib first waits for its processes, and the pool replaces them.
        Finalize(None, _stop, args=(_pool,), exitpriority=10)
    return _pool


def _nothing() -> None:
    """Do nothing; the process is ready when this returns."""
    import_module(_RUNNER)


def _stop(pool: Any) -> None:
    pool.stop()
    pool.join()


def _resident(psutil: Any) -> int:
    """Return the memory of the largest process that this one has started, in bytes."""
    sizes = [0]
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            sizes.append(process.memory_info().rss)
    return max(sizes)
