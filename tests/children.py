"""Processes that tests may stop: forked from one that has imported these tests, too."""

from benchmarks.stress import children
from benchmarks.stress.children import context, start

__all__ = ["context", "start"]

context.set_forkserver_preload([children.__name__, "tests.test_checkpoint", "tests.test_interrupt"])
