"""Processes that may be stopped: forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import torch

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([__name__])


def start(function: Callable[..., None], *args: Any) -> BaseProcess:
    """Run a function of a module in a process of its own."""
    process = context.Process(target=_call, args=(function, args))
    process.start()
    return process


def _call(function: Callable[..., None], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    function(*args)
