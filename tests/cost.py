"""What the default tests cost, by file, test and detector, in seconds of the processor.

::

    python -m tests.cost                     # all default tests, one after the other
    python -m tests.cost tests/test_pyod.py  # what follows is given to pytest

A new detector may add 5 seconds. Counted as its own are, of the tests that have a case for every
detector of rows, or for every one of series, the cases in which its name stands. Times come from
/proc, which Linux has: those of processes that tests have started are among them.
"""

import contextlib
import os
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from .cases import NAMES, SERIES_NAMES

MOST = 30  # tests that are named


def seconds(process="self"):
    """Return how long a process has used the processor, and all that it has started."""
    folder = Path("/proc") / process
    spent = (folder / "stat").read_text().rpartition(")")[2].split()[11:15]
    children = [
        child for task in (folder / "task").glob("*/children") for child in task.read_text().split()
    ]
    total = sum(map(int, spent)) / os.sysconf("SC_CLK_TCK")
    for child in children:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            total += seconds(child)
    return total


class Cost:
    """A plugin of pytest that adds up what tests cost."""

    def __init__(self):
        self.files = defaultdict(list)
        self.tests = defaultdict(float)  # with all of their cases
        self.cases = defaultdict(lambda: defaultdict(list))  # by test and detector
        self.began = seconds()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        before = seconds()
        done = yield
        cost = seconds() - before
        test, _, case = item.nodeid.partition("[")
        self.files[test.partition("::")[0]].append(cost)
        self.tests[test] += cost
        for name in set(re.findall(r"\w+", case)) & {*NAMES, *SERIES_NAMES}:
            self.cases[test][name].append(cost)
        return done

    def pytest_terminal_summary(self, terminalreporter):
        show = terminalreporter.write_line
        show("\nseconds of the processor, tests:")
        for file, costs in sorted(self.files.items(), key=lambda of: -sum(of[1])):
            show(f"{sum(costs):8.1f} {len(costs):5} {file}")
        for test in sorted(self.tests, key=self.tests.get, reverse=True)[:MOST]:
            show(f"{self.tests[test]:8.1f}       {test}")
        for names in (NAMES, SERIES_NAMES):
            of_all = [cases for cases in self.cases.values() if cases.keys() >= set(names)]
            for name in names:
                costs = [cost for cases in of_all for cost in cases[name]]
                show(f"{sum(costs):8.1f} {len(costs):5} {name}")
        show(f"{seconds() - self.began:8.1f}       all, with imports")


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:], plugins=[Cost()]))
