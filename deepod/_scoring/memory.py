"""When memory runs out: how that is told, and how scoring goes on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# In RuntimeErrors that have no type of their own: of the CPU, of devices, of CUDA's libraries.
_TEXTS = ("DefaultCPUAllocator", "out of memory", "STATUS_ALLOC_FAILED")


def ran_out(error: BaseException) -> bool:
    """Whether an error means that there was not enough memory, on the CPU or on a device."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


def too_little(device: torch.device, purpose: str, *ways: str) -> str:
    """Say what memory did not suffice for, and the ways out."""
    others = [] if device.type == "cpu" else ["device='cpu'"]
    return f"Too little memory on {device} for {purpose}. Ways out: {'; '.join([*ways, *others])}."


@contextmanager
def explained(message: str) -> Iterator[None]:
    """Give errors for want of memory this message.

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
    """Rows that are scored at once: as many as come, fewer once memory has run out.

    One for each call of the user, who is told once.

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
        """Allow half of as many rows as did not fit, in whole blocks."""
        self._too_many = self._too_many or rows
        self.most = max(block, rows // 2 // block * block)

    def tell(self) -> None:
        """Tell the user, now that the rows allowed are known to fit."""
        if self._too_many is None or self._told:
            return
        self._told = True
        warnings.warn(
            f"Too little memory to score {self._too_many} rows at once: from here on {self.most}. "
            f"Scores stay the same; decision_function(X, batch_size={self.most}) begins with that.",
            RuntimeWarning,
            stacklevel=2,
        )
