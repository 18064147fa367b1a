"""The scoring loop of all methods, which applies a function of module and rows chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepod._inputs.rows import block_rows, chunks, read
from deepod._inputs.settings import fixed
from deepod._inputs.validation import column_names
from deepod._scoring.memory import AtOnce, ran_out, too_little
from deepod.sources import Source, cut

Function = Callable[[nn.Module, Tensor], Tensor]  # of a module and samples; one row for each

# Rows are scored in multiples of this, so that BLAS computes a row the same way in any batch.
ROW_BLOCK = 32
# Values per scoring chunk: large enough to hide the overhead, small enough to stay in the cache.
CHUNK_VALUES = 1 << 17
MOST_ROWS = 4096  # hidden layers are wider than a narrow table
LARGEST_SCORE = float(np.finfo(np.float32).max)  # where a network's squares do not fit


def apply(
    detector: Any,
    X: np.ndarray | Source,
    function: Function,
    batch_size: int | None = None,
    at_once: AtOnce | None = None,
) -> np.ndarray:
    """Apply ``function(module, x)`` of a fitted detector to validated rows, as float64."""
    parts = apply_in_parts(detector, X, function, batch_size, at_once)
    first = next(parts)
    if len(first) == len(X):
        return first
    out = np.empty((len(X), *first.shape[1:]))
    filled = 0
    for part in chain([first], parts):
        out[filled : filled + len(part)] = part
        filled += len(part)
    return out


def apply_in_parts(
    detector: Any,
    X: np.ndarray | Source,
    function: Function,
    batch_size: int | None = None,
    at_once: AtOnce | None = None,
) -> Iterator[np.ndarray]:
    """Apply ``function`` to all rows of an array, or part by part to those of a source."""
    at_once = at_once or AtOnce()
    size = rows_at_once(detector.input_shape_, batch_size)

    def values(rows: np.ndarray) -> np.ndarray:
        scaled = chunks(rows, detector.input_shape_, detector.scaler_, size)
        found = score(detector.module_, function, scaled, detector.device_, len(rows), at_once)
        return found.cpu().double().numpy()

    if isinstance(X, np.ndarray):
        yield values(X)
        return
    from tqdm.auto import tqdm

    shown = {"desc": "score", "unit": "row", "unit_scale": True, "disable": not detector.verbose}
    columns, allow_nan = column_names(detector, X), detector.fill_ is not None
    with tqdm(total=len(X), **shown) as bar:
        for start, stop in parts_of(len(X), detector.input_shape_, batch_size):
            yield values(read(X, start, stop, columns, allow_nan=allow_nan))
            bar.update(stop - start)


def parts_of(
    n: int, shape: Sequence[int], batch_size: int | None = None
) -> Iterator[tuple[int, int]]:
    """Return the ranges of n rows on disk that are scored one after the other.

    They consist of whole chunks, so that scores equal those of an array.
    """
    size = rows_at_once(shape, batch_size)
    yield from cut(0, n, size * max(1, block_rows(tuple(shape)) // size))


def finite(scores: np.ndarray) -> np.ndarray:
    """Replace infinite scores, of rows very far away, by the largest number of float32."""
    return np.minimum(scores, LARGEST_SCORE, out=scores)


def rows_at_once(shape: Sequence[int], batch_size: int | None) -> int:
    """Return ``batch_size``, or if it is None the best number for samples of ``shape``.

    Raises
    ------
    ValueError
        If ``batch_size`` is not a positive integer.
    """
    if batch_size is not None and not (isinstance(batch_size, Integral) and batch_size > 0):
        raise ValueError(f"batch_size must be a positive integer or None, got {batch_size!r}.")
    return int(batch_size or chunk_rows(shape))


def chunk_rows(shape: Sequence[int]) -> int:
    """Return how many samples of a ``shape`` to score at once."""
    values = max(1, torch.Size(shape).numel())
    return max(ROW_BLOCK, min(MOST_ROWS, CHUNK_VALUES // values // ROW_BLOCK * ROW_BLOCK))


@fixed()
@torch.no_grad()
def score(
    module: nn.Module,
    function: Function,
    chunks: Iterable[Tensor],
    device: torch.device,
    n: int | None = None,
    at_once: AtOnce | None = None,
) -> Tensor:
    """Apply ``function(module, x)`` to every chunk in eval mode, or to halves if memory runs out.

    Parameters
    ----------
    n : int, optional
        Number of rows in all chunks, if it is known. Results are then written to one array at once;
        keeping many small results would fragment the memory.
    at_once : AtOnce, optional
        The limit on rows that the user's call has found so far, if it scores several times.

    Returns
    -------
    Tensor of shape (n, ...)
        One row of results per row of input, on ``device``.

    Raises
    ------
    MemoryError
        If memory does not suffice for ``ROW_BLOCK`` rows, or for all results.
    """
    if module.training:
        module.eval()
    parts: list[Tensor] = []
    results, done = torch.empty(0), 0
    try:
        for part in _scored(module, function, chunks, device, at_once or AtOnce()):
            if n is None:
                parts.append(part)
                continue
            if not done:
                results = part.new_empty((n, *part.shape[1:]))
            results[done : done + len(part)] = part
            done += len(part)
        return results if n is not None else torch.cat(parts)
    except RuntimeError as error:
        if not ran_out(error):
            raise
        message = too_little(device, "the results of all rows", "fewer rows in one call")
        raise MemoryError(message) from error


def _scored(
    module: nn.Module,
    function: Function,
    chunks: Iterable[Tensor],
    device: torch.device,
    at_once: AtOnce,
) -> Iterator[Tensor]:
    """Yield the results of all rows in order, part by part."""
    for chunk in chunks:
        waiting = [chunk]  # the last comes first
        while waiting:
            rows = waiting.pop()
            part = _attempt(module, function, rows, device, at_once)
            if part is None:
                waiting += reversed(rows.split(at_once.most))
            else:
                yield part


def _attempt(
    module: nn.Module,
    function: Function,
    rows: Tensor,
    device: torch.device,
    at_once: AtOnce,
) -> Tensor | None:
    """Return the results of rows, or None if memory runs out; then its memory is free again."""
    if at_once.most is not None and len(rows) > at_once.most:
        return None
    try:
        x = rows.to(device)
        missing = -len(x) % ROW_BLOCK
        if missing:
            x = torch.cat([x, x[-1:].expand(missing, *x.shape[1:])])
        part = function(module, x)[: len(rows)]
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        if len(rows) <= ROW_BLOCK:
            purpose = f"scoring {ROW_BLOCK} rows of shape {tuple(rows.shape[1:])}, the fewest"
            raise MemoryError(too_little(device, purpose, "a smaller network")) from error
        at_once.halve(len(rows), ROW_BLOCK)
        return None
    at_once.tell()
    return part
