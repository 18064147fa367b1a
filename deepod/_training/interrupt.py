"""Handling of Ctrl-C during training, which stops at the end of a step."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Interrupt:
    """A record of Ctrl-C, for a loop that checks it after every step.

    Parameters
    ----------
    message : callable
        Function that returns the text of :meth:`error`.

    Attributes
    ----------
    asked : bool
        Whether Ctrl-C was pressed.
    """

    def __init__(self, message: Callable[[], str]) -> None:
        self.asked = False
        self._message = message

    def handle(self, number: int, frame: Any) -> None:
        """Record the first Ctrl-C; a second one stops the program at once."""
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def error(self) -> KeyboardInterrupt:
        """Return the KeyboardInterrupt to raise."""
        return KeyboardInterrupt(self._message())


@contextmanager
def at_end_of_step(message: Callable[[], str]) -> Iterator[Interrupt]:
    """Delay Ctrl-C in a ``with`` block, whose loop raises ``error()`` once it was ``asked``.

    It has an effect only in the main thread, and only if the program has no handler of its own.

    Raises
    ------
    KeyboardInterrupt
        At the end of the block, if the loop did not check any more.
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
