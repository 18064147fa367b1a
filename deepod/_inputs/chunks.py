"""Chunks of series to train on, gathered from the points when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from deepod._inputs.rows import even_parts

_OVERLAP = 4  # an epoch has as many chunks as if one began every quarter of a chunk's length


class Chunks:
    """Random chunks of series, in the form of :class:`deepod.types.Rows`.

    Parameters
    ----------
    x : Tensor of shape (n_points, channels)
        The points of all series, one series after the other.
    spans : sequence of (int, int)
        Ranges (start, stop) of points to take chunks from; none is shorter than ``length``.
    length : int
        Number of points in a chunk.
    y : Tensor of shape (n_points,), optional
        Labels of the points. Labels of n chunks then have the shape (n, length).
    """

    def __init__(
        self,
        x: Tensor,
        spans: Sequence[tuple[int, int]],
        length: int,
        y: Tensor | None = None,
    ) -> None:
        self.x, self.y = x, y
        self.device, self.shape = x.device, (length, *x.shape[1:])
        self.parts: int | None = None
        possible = torch.tensor([stop - start - length + 1 for start, stop in spans], device="cpu")
        self._first = torch.tensor([start for start, _ in spans], device="cpu")
        self._ends = possible.cumsum(0)
        points = sum(stop - start for start, stop in spans)
        self._n = max(2, _OVERLAP * points // length)

    def __len__(self) -> int:
        return self._n

    def sizes(self, batch_size: int) -> list[int]:
        """Return the distinct sizes of the batches of an epoch."""
        return sorted({len(part) for part in even_parts(torch.arange(len(self)), batch_size)})

    def batches(
        self, stream: torch.Generator, batch_size: int
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the chunks of one epoch, with starts drawn uniformly from all possible ones."""
        most = int(self._ends[-1])
        drawn = torch.randint(most, (len(self),), generator=stream, device="cpu")
        for part in even_parts(self._start(drawn), batch_size, self.parts):
            yield self._take(part)

    def head(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Return the same n chunks in every call."""
        return self._take(self._start(torch.arange(n, device="cpu") % int(self._ends[-1])))

    def chunks(self, n: int) -> Iterator[Tensor]:
        """Yield chunks that are spread evenly over all points, at most n at a time."""
        spread = torch.linspace(0, int(self._ends[-1]) - 1, len(self), device="cpu").long()
        for part in self._start(spread).split(n):
            yield take(self.x, part, self.shape[0])

    def state_dict(self) -> dict[str, int]:
        """Return the state that the next epoch needs from those before it."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore a state that ``state_dict`` has returned."""

    def _start(self, numbers: Tensor) -> Tensor:
        """Turn numbers of possible starts into numbers of points."""
        span = torch.searchsorted(self._ends, numbers, right=True)
        before = torch.cat([self._ends.new_zeros(1), self._ends])[span]
        return self._first[span] + numbers - before

    def _take(self, starts: Tensor) -> tuple[Tensor, Tensor | None]:
        length = self.shape[0]
        y = None if self.y is None else take(self.y, starts, length)
        return take(self.x, starts, length), y


def take(x: Tensor, starts: Tensor, length: int, stops: Tensor | None = None) -> Tensor:
    """Return chunks of points, (n, length, ...), that begin at ``starts``.

    If a chunk extends beyond its ``stops``, the last point before that is repeated.
    """
    numbers = starts[:, None] + torch.arange(length, device=starts.device)
    if stops is not None:
        numbers = torch.minimum(numbers, stops[:, None] - 1)
    return x[numbers.to(x.device)]
