"""Ctrl-C during training: it ends a step, not the middle of one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Interrupt:
    """Whether Ctrl-C was pressed, for a loop that looks at it after every step.

    Parameters
    ----------
    message : callable
        Gives the text of :meth:`error`.

    Attributes
    ----------
    asked : bool
    """

    def __init__(self, message: Callable[[], str]) -> None:
        self.asked = False
        self._message = message

    def handle(self, number: int, frame: Any) -> None:
        """Note it; the next time the program stops at once."""
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def error(self) -> KeyboardInterrupt:
        """Make what to raise."""
        return KeyboardInterrupt(self._message())


@contextmanager
def at_end_of_step(message: Callable[[], str]) -> Iterator[Interrupt]:
    """Keep Ctrl-C for the loop inside, which raises ``error()`` once it was ``asked``.

    In the main thread, and if nobody else handles Ctrl-C; elsewhere everything is as without.

    Raises
    ------
    KeyboardInterrupt
        At the end, if the loop did not come to look any more.
    """
    interrupt = Interrupt(message)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, interrupt.handle)
    try:
        yield interrupt
    except Exception as error:
        if interrupt.asked:  # a search that goes on after errors is to end
            raise interrupt.error() from error
        raise
    finally:
        if signal.getsignal(signal.SIGINT) == interrupt.handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupt.asked:
        raise interrupt.error()
