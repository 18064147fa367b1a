"""Communication between processes that train one model together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Ranks:
    """The processes of torch's default group, all of which must call each method.

    A single process (:data:`ALONE`) needs no group.

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
        """Return the small objects of all ranks, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Return the rows of all ranks, one rank after the other."""
        if self.size == 1:
            return rows
        lengths = self.gather(len(rows))
        padded = rows.new_zeros((max(lengths), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in lengths]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)])

    def some_rows(self, rows: Any, most: int) -> Any:
        """Return about ``most`` rows of every rank; a single process returns all its rows."""
        if self.size == 1:
            return rows
        some = rows[:: 1 + len(rows) // most]
        gathered = isinstance(some, Tensor)
        return self.gather_rows(some) if gathered else np.concatenate(self.gather(some))

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its sum over the ranks."""
        if not tensors or self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def total(self, tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
        """Return sums of tensors on the CPU over the ranks, which exchange them on ``device``."""
        if self.size == 1:
            return list(tensors)
        sums = [tensor.to(device, copy=True) for tensor in tensors]
        self.add(sums)
        return [tensor.cpu() for tensor in sums]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its mean over the ranks."""
        if self.size > 1:
            self.add(tensors)
            for tensor in tensors:
                tensor.div_(self.size)

    def average_gradients(self, gradients: Sequence[Tensor], n: int) -> None:
        """Replace gradients of the mean over n rows by those of the mean over all ranks' rows.

        torch's DistributedDataParallel is not used, because it acts on a module's ``forward``, and
        losses call parts of a module. For small networks, one sum over all gradients is also
        faster.
        """
        if self.size == 1:
            return
        count = torch.full((1,), float(n), device=gradients[0].device)
        for gradient in gradients:
            gradient.mul_(n)
        self.add([*gradients, count])
        for gradient in gradients:
            gradient.div_(count)

    def agree(self, error: Exception | None, signature: Any) -> None:
        """Raise an error on all ranks if one has an error, or if they do not fit the same model."""
        told = self.gather((None if error is None else repr(error), signature))
        if error is not None:
            raise error
        failed = {rank: text for rank, (text, _) in enumerate(told) if text is not None}
        if failed:
            raise RuntimeError(
                f"fit was stopped on this rank, because it failed on other ranks: {failed}."
            )
        others = [s for _, s in told if s != signature]
        if others:
            raise ValueError(
                f"The processes do not fit the same model: {signature} here, but {others[0]} in "
                "another process; give all of them the same detector and samples of one shape."
            )


ALONE = Ranks(0, 1)
_current: ContextVar[Ranks] = ContextVar("ranks", default=ALONE)


def current() -> Ranks:
    """Return the ranks that ``fit`` works with."""
    return _current.get()


@contextmanager
def together() -> Iterator[Ranks]:
    """Make ``fit`` in a ``with`` block work with the processes of torch's default group."""
    ranks = Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())
    token = _current.set(ranks)
    try:
        yield ranks
    finally:
        _current.reset(token)
