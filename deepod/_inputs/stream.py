"""Training rows that are read from disk one buffer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepod._inputs.rows import InMemory, block_rows, even_parts, read
from deepod._inputs.scaling import Scaler, medians
from deepod.sources import Source, cut, spread
from deepod.types import Batch, Shape

# Parts of ``memory_limit``: an eighth for the buffer, whose rows a method may copy a few times, and
# an eighth for the sample.
_ROWS_SHARE = 8
# A buffer is composed from at least about this many places in the file, so that a sorted file does
# not give buffers with one kind of row.
_PIECES = 64


class Stream:
    """Samples of a source: one pass to fit the scaler, then buffers in random order.

    Parameters
    ----------
    source : Source
    shape : tuple of int
        Shape of one sample, to which rows are reshaped.
    memory_limit : int
        Limit in bytes; a buffer takes at most an eighth of it, and so does the sample.
    rng : numpy.random.Generator
        Generator that draws the rows of the sample and the held-out rows.
    y : ndarray of shape (n,), optional
        Labels; the scaler does not learn from rows with a 1.
    held_out : float, default=0.0
        Share of the rows to keep out of the buffers, limited to what fits into an eighth of
        ``memory_limit``.
    columns : sequence, optional
        Names or numbers of columns, for error messages.
    impute : bool, default=False
        Whether NaN is replaced by medians of the sample; otherwise it is refused.

    Attributes
    ----------
    most_rows : int
        Largest number of rows of a buffer, and of the sample.
    sampled, held_out : ndarray of int
        Numbers of the rows in the sample (all training rows if they fit) and of the held-out rows.
    """

    def __init__(
        self,
        source: Source,
        shape: Shape,
        memory_limit: int,
        rng: np.random.Generator,
        *,
        y: np.ndarray | None = None,
        held_out: float = 0.0,
        columns: Sequence[Any] | None = None,
        impute: bool = False,
    ) -> None:
        self.source, self.shape, self.y = source, shape, y
        self.columns, self.impute = columns, impute
        n = len(source)
        row_bytes = max(4, source.dtype.itemsize) * int(np.prod(shape))
        # At least four: even buffers then have two rows or more.
        self.most_rows = max(4, memory_limit // _ROWS_SHARE // row_bytes)
        wanted = max(1, round(held_out * n)) if held_out else 0
        self.held_out = spread(n, min(wanted, self.most_rows), rng)
        self.sampled = np.setdiff1d(spread(n, self.most_rows, rng), self.held_out)

    def survey(self, how: str | None) -> tuple[Scaler, np.ndarray, np.ndarray]:
        """Return the fitted scaler and the scaled samples ``sampled`` and ``held_out``.

        All rows are read once, or twice with ``impute``, because the scaler learns from imputed
        rows. ``how`` is as in :meth:`deepod._inputs.scaling.Scaler.fit`.

        Raises
        ------
        ValueError
            If a value is infinite, or NaN without ``impute``.
        """
        parts = [
            (rows, np.empty((len(rows), *self.shape), self.source.dtype))
            for rows in (self.sampled, self.held_out)
        ]

        def blocks() -> Iterator[np.ndarray]:
            for start, stop in cut(0, len(self.source), block_rows(self.shape)):
                block = self._read(start, stop)
                for rows, picked in parts:
                    first, last = np.searchsorted(rows, (start, stop))
                    picked[first:last] = block[rows[first:last] - start]
                learned_from = self._in_training(start, stop)
                if self.y is not None:
                    learned_from &= self.y[start:stop] != 1
                yield block if learned_from.all() else block[learned_from]

        fill = None
        if self.impute:
            for _ in blocks():  # the sample
                pass
            normal = slice(None) if self.y is None else self.y[self.sampled] != 1
            fill = medians(parts[0][1][normal], self.shape)
        scaler = Scaler.fit(blocks(), self.shape, how, fill=fill)
        sample, watched = (scaler.transform(picked) for _, picked in parts)
        return scaler, sample, watched

    def buffers(
        self, scaler: Scaler, generator: torch.Generator
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield buffers of scaled samples and labels of one epoch, every training row once.

        A buffer mixes pieces from all over the source, and its rows are not shuffled yet. The next
        buffer overwrites it.
        """
        buffer = np.empty((min(self.most_rows, len(self.source)), *self.shape), np.float32)
        for ranges in shuffled(self.source, self.most_rows, generator):
            filled, labels = 0, []
            for start, stop in ranges:
                rows = self._in_training(start, stop)
                part = self._read(start, stop)
                part = scaler.transform(part if rows.all() else part[rows])
                buffer[filled : filled + len(part)] = part
                filled += len(part)
                if self.y is not None:
                    labels.append(self.y[start:stop][rows])
            yield buffer[:filled], np.concatenate(labels) if labels else None

    def _read(self, start: int, stop: int) -> np.ndarray:
        rows = read(self.source, start, stop, self.columns, allow_nan=self.impute)
        return rows.reshape(len(rows), *self.shape)

    def _in_training(self, start: int, stop: int) -> np.ndarray:
        """Return for each row of a range whether it is trained on."""
        mask = np.ones(stop - start, bool)
        first, last = np.searchsorted(self.held_out, (start, stop))
        mask[self.held_out[first:last] - start] = False
        return mask


def shuffled(
    source: Source, most: int, generator: torch.Generator
) -> Iterator[list[tuple[int, int]]]:
    """Return for each buffer the ranges of rows that it is composed of, drawn at random.

    Buffers have nearly equal sizes of at most ``most`` rows. The ranges of a buffer should be read
    in their order.
    """
    n = len(source)
    count = -(-n // most)
    ranges: list[tuple[int, int]] = []
    dealt, buffers = 0, 1
    for start, stop in _pieces(source, max(1, most // _PIECES), generator):
        while start < stop:
            end = n * buffers // count  # of the rows to deal, for this buffer to be full
            last = min(stop, start + end - dealt)
            ranges.append((start, last))
            dealt, start = dealt + last - start, last
            if dealt == end:
                yield sorted(ranges) if source.turns is None else ranges
                ranges, buffers = [], buffers + 1


def _pieces(source: Source, rows: int, generator: torch.Generator) -> Iterator[tuple[int, int]]:
    """Return pieces of blocks in random order; with ``turns``, from so many blocks alternately."""
    blocks, turns = source.blocks(), source.turns
    if turns is None:
        blocks, turns = [piece for first, last in blocks for piece in cut(first, last, rows)], 1
    order = torch.randperm(len(blocks), generator=generator).tolist()
    waiting = (cut(first, last, rows) for first, last in (blocks[i] for i in order))
    taken_up = list(islice(waiting, turns))
    while taken_up:
        turn = int(torch.randint(len(taken_up), (), generator=generator))
        piece = next(taken_up[turn], None)
        if piece is None:
            taken_up[turn : turn + 1] = islice(waiting, 1)
        else:
            yield piece


class Streamed(InMemory):
    """Training rows that are read from disk, with a sample of them in memory.

    Parameters
    ----------
    stream : Stream
    scaler : Scaler
    given : ndarray
        The scaled rows ``stream.sampled``.
    prepare : callable
        ``prepare(x, y, seed)`` turns scaled samples and their labels into a batch on the device.
    seed : int
        The seed of ``prepare`` for the sample; buffers have their own seeds.
    """

    def __init__(
        self,
        stream: Stream,
        scaler: Scaler,
        given: np.ndarray,
        prepare: Callable[[np.ndarray, np.ndarray | None, Any], Batch],
        seed: int,
    ) -> None:
        sample = prepare(given, None if stream.y is None else stream.y[stream.sampled], seed)
        super().__init__(sample.x, sample.y)
        self.given = torch.from_numpy(given)
        self._stream, self._scaler, self._prepare, self._seed = stream, scaler, prepare, seed
        self._epoch = 0
        # How many come out of as many rows; of an epoch that is over, it is known.
        self._share = len(sample.x) / len(given)
        self._n = round((len(stream.source) - len(stream.held_out)) * self._share)

    def __len__(self) -> int:
        return self._n

    def sizes(self, batch_size: int) -> list[int]:
        """Return the distinct sizes of the batches of an epoch."""
        buffers = -(-len(self._stream.source) // self._stream.most_rows)
        rows = {self._n // buffers, -(-self._n // buffers)}
        parts = [even_parts(torch.arange(n), batch_size) for n in rows]
        return sorted({len(part) for part in chain.from_iterable(parts)})

    def batches(
        self, stream: torch.Generator, batch_size: int
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the batches of one epoch in a new order: rows and labels."""
        n = 0
        for number, (x, y) in enumerate(self._stream.buffers(self._scaler, stream)):
            buffer = self._prepare(x, y, [self._seed, self._epoch, number])
            if len(buffer.x) < min(2, batch_size):
                continue  # BatchNorm has nothing to average, or all rows were left out
            n += len(buffer.x)
            yield from InMemory(buffer.x, buffer.y).batches(stream, batch_size)
        self._n, self._epoch = n, self._epoch + 1

    def state_dict(self) -> dict[str, int]:
        """Return the state that the next epoch needs from those before it."""
        return {"n": self._n, "epoch": self._epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore a state that ``state_dict`` has returned."""
        n, epoch = state["n"], state["epoch"]
        most = 10 * (self._n + len(self._stream.source))  # a method may make more rows of them
        if not (type(n) is type(epoch) is int and 0 < n <= most and epoch >= 0):
            raise ValueError(f"n={n!r} and epoch={epoch!r} are not those of rows read from disk.")
        self._n, self._epoch = n, epoch
