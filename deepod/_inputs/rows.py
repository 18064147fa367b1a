"""Rows in memory: batches for training, and blocks and chunks of large arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepod._inputs.scaling import Scaler
from deepod._inputs.validation import check_finite
from deepod.sources import Source, cut
from deepod.types import Shape

_BLOCK_VALUES = 1 << 20  # values that statistics are taken of at once


class InMemory:
    """Rows that are on the device as a whole, in the form of :class:`deepod.types.Rows`."""

    def __init__(self, x: Tensor, y: Tensor | None = None) -> None:
        self.x = x  # (n, *shape)
        self.y = y  # (n,)
        self.device, self.shape = x.device, tuple(x.shape[1:])
        self.parts: int | None = None  # batches of an epoch, if not batch_size decides

    def __len__(self) -> int:
        return len(self.x)

    def sizes(self, batch_size: int) -> list[int]:
        """Return the distinct sizes of the batches of an epoch."""
        rows = torch.arange(len(self.x))
        return sorted({len(part) for part in even_parts(rows, batch_size, self.parts)})

    def batches(
        self, stream: torch.Generator, batch_size: int
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the batches of one epoch in a new order: rows and labels."""
        order = torch.randperm(len(self.x), generator=stream, device="cpu").to(self.device)
        for rows in even_parts(order, batch_size, self.parts):
            yield self._take(rows)

    def head(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Return the same n rows and their labels in every call."""
        return self._take(torch.arange(n, device=self.device) % len(self.x))

    def chunks(self, n: int) -> Iterator[Tensor]:
        """Yield all rows in order, at most n at a time."""
        yield from self.x.split(n)

    def state_dict(self) -> dict[str, int]:
        """Return the state that the next epoch needs from those before it."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore a state that ``state_dict`` has returned."""

    def _take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        y = None if self.y is None else self.y.index_select(0, rows)
        return self.x.index_select(0, rows), y


def even_parts(rows: Tensor, batch_size: int, parts: int | None = None) -> Sequence[Tensor]:
    """Cut rows into even parts of at most ``batch_size``, or into so many ``parts``.

    Even, because the statistics of BatchNorm would follow a short last part as much as a full one.
    A part of one row would have no variance: there may be one row more than ``batch_size`` instead.
    """
    n = len(rows)
    if parts is None:
        parts = -(-n // batch_size)
        if batch_size > 1 and n < 2 * parts:
            parts = max(1, n // 2)
    return rows.tensor_split(parts)


def block_rows(shape: Shape) -> int:
    """Return how many samples of a ``shape`` may be copied in float64 at once."""
    return max(1, _BLOCK_VALUES // max(1, int(np.prod(shape))))


def blocks(X: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows in blocks that are small enough for a copy in float64."""
    for start, stop in cut(0, len(X), block_rows(X.shape[1:])):
        yield X[start:stop]


def read(
    source: Source, start: int, stop: int, columns: Sequence[Any] | None, *, allow_nan: bool
) -> np.ndarray:
    """Return rows of a source, checked by :func:`deepod._inputs.validation.check_finite`."""
    rows = source.read(start, stop)
    check_finite(rows, columns, allow_nan=allow_nan, rows=f", among rows {start} to {stop - 1}")
    return rows


def chunks(X: np.ndarray, shape: Shape, scaler: Scaler, rows: int) -> Iterator[Tensor]:
    """Yield scaled samples in order, at most ``rows`` at a time."""
    scaler = scaler.copy()
    for start in range(0, len(X), rows):
        part = X[start : start + rows]
        yield torch.from_numpy(scaler.transform(part.reshape(len(part), *shape)))
