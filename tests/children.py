"""Processes that tests may stop: forked from one that has imported everything."""

import multiprocessing

import torch._dynamo  # or the first optimiser of every child would import it

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([__name__, "tests.test_checkpoint", "tests.test_interrupt"])


def start(function, *args):
    """Run a function of one of these modules in a process of its own."""
    process = context.Process(target=_call, args=(function, args))
    process.start()
    return process


def _call(function, args):
    torch.set_num_threads(1)
    function(*args)
