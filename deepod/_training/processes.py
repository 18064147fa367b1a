"""What processes that train one model together tell each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

_current: ContextVar[Ranks | None] = ContextVar("ranks", default=None)


class Ranks:
    """The processes of torch's default group; every method is to be called by all of them.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    size : int
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size

    def gather(self, value: Any) -> list[Any]:
        """Collect a small object of every rank, in their order."""
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Put the rows of all ranks behind one another."""
        lengths = self.gather(len(rows))
        padded = rows.new_zeros((max(lengths), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in lengths]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)])

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its sum over the ranks."""
        if not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def agree(self, error: Exception | None, signature: Any) -> None:
        """Fail on all ranks if one has an error, or if they do not fit the same model."""
        told = self.gather((None if error is None else repr(error), signature))
        if error is not None:
            raise error
        failed = {rank: text for rank, (text, _) in enumerate(told) if text is not None}
        if failed:
            raise RuntimeError(f"fit failed on other ranks: {failed}.")
        others = [s for _, s in told if s != signature]
        if others:
            raise ValueError(
                f"Ranks fit different models or samples: {signature} here, {others[0]} elsewhere."
            )


def current() -> Ranks | None:
    """Ranks that ``fit`` works with, if any."""
    return _current.get()


@contextmanager
def together() -> Iterator[Ranks]:
    """Let ``fit`` work with the other processes of torch's default group."""
    ranks = Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())
    token = _current.set(ranks)
    try:
        yield ranks
    finally:
        _current.reset(token)
