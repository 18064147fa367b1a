"""Detection of errors for lack of memory, and scoring of fewer rows after one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Texts of RuntimeErrors for lack of memory: of the CPU, of devices and of CUDA's libraries.
_TEXTS = ("DefaultCPUAllocator", "out of memory", "STATUS_ALLOC_FAILED")


def ran_out(error: BaseException) -> bool:
    """Return whether an error was raised because memory ran out, on the CPU or on a device."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


def too_little(device: torch.device, purpose: str, *ways: str) -> str:
    """Return a message that says for what memory did not suffice, and what to make smaller."""
    others = [] if device.type == "cpu" else ["device='cpu'"]
    remedies = " or ".join([*ways, *others])
    return f"There is too little memory on {device} for {purpose}; use {remedies}."


@contextmanager
def explained(message: str) -> Iterator[None]:
    """Replace errors for lack of memory in a ``with`` block by MemoryError with this message.

    Raises
    ------
    MemoryError
        From the original error.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        raise MemoryError(message) from error


class AtOnce:
    """The limit on rows to score at once, which is lowered when memory runs out.

    There is one for each call of the user, with at most one warning.

    Attributes
    ----------
    most : int or None
        None allows any number.
    """

    def __init__(self) -> None:
        self.most: int | None = None
        self._too_many: int | None = None  # rows that did not fit first
        self._told = False

    def halve(self, rows: int, block: int) -> None:
        """Set the limit to half of the number of rows that did not fit, in whole blocks."""
        self._too_many = self._too_many or rows
        self.most = max(block, rows // 2 // block * block)

    def tell(self) -> None:
        """Warn the user, once it is known how many rows fit."""
        if self._too_many is None or self._told:
            return
        self._told = True
        warnings.warn(
            f"Memory does not suffice to score {self._too_many} rows at once, so {self.most} are "
            "scored at once from here on. The scores are the same. To avoid this warning, call "
            f"decision_function(X, batch_size={self.most}).",
            RuntimeWarning,
            stacklevel=2,
        )
