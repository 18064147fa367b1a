"""Scores of the points of series: from a recurrent pass, or from the windows that cover them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.fft import irfft, next_fast_len, rfft
from torch import Tensor, nn

from deepod._inputs.chunks import take
from deepod._scoring.apply import chunk_rows, score

Function = Callable[[nn.Module, Tensor], Tensor]  # of a module and chunks; a row for each point
Smoothing = Literal["centred", "causal"] | None

CHUNK_WINDOWS = 4  # windows in a chunk that is passed over at once, after one that leads up to it
_COVERED_AT_ONCE = 1 << 22  # values of windows that are added up at once
_LEAST_KNOWN = 0.25  # share of the variance of scores that few of them show, at least


class Span(NamedTuple):
    """A range of points to score, ``start`` to ``stop``; its context begins at ``begin``."""

    begin: int
    start: int
    stop: int


def spans_of(lengths: Sequence[int]) -> list[Span]:
    """Return one span for each of several successive series."""
    ends = np.cumsum(lengths).tolist()
    return [Span(end - n, end - n, end) for end, n in zip(ends, lengths, strict=True)]


# --- a pass over the series -----------------------------------------------------------------------


def passed_over(
    module: nn.Module,
    function: Function,
    x: Tensor,
    spans: Sequence[Span],
    window: int,
    batch_size: int | None = None,
) -> np.ndarray:
    """Apply ``function(module, chunks)`` to each point with at least ``window`` points before it.

    Chunks begin anew every ``4 * window`` points, so that they can be passed over side by side:
    a result depends on at least ``window`` and at most ``5 * window`` points before, no others.

    Returns
    -------
    results : ndarray of shape (n_points, ...), float32
        Results of the points of all spans; NaN for points with fewer points before them.
    """
    size = CHUNK_WINDOWS * window
    starts, stops, counts = [], [], []
    for begin, start, stop in spans:
        first = max(0, start - begin - window) // size  # chunks before it are for nothing
        last = max(0, -(-(stop - begin - window) // size))
        starts.append(torch.arange(first, last) * size + begin)
        stops.append(torch.full((last - first,), stop))
        counts.append(first)
    all_starts, all_stops = torch.cat(starts), torch.cat(stops)
    length = window + size
    at_a_time = batch_size or chunk_rows((length, *x.shape[1:]))

    def chunks() -> Iterator[Tensor]:
        for part in torch.arange(len(all_starts)).split(at_a_time):
            yield take(x, all_starts[part], length, all_stops[part])

    def after_window(module: nn.Module, rows: Tensor) -> Tensor:
        return function(module, rows)[:, window:]

    if not len(all_starts):
        raise ValueError(f"no point has {window} points before it")
    found = score(module, after_window, chunks(), x.device, len(all_starts))
    values = found.cpu().numpy()
    n = sum(span.stop - span.start for span in spans)
    out = np.full((n, *values.shape[2:]), np.nan, values.dtype)
    row = chunk = 0
    for (begin, start, stop), skipped, own in zip(spans, counts, starts, strict=True):
        flat = values[chunk : chunk + len(own)].reshape(-1, *values.shape[2:])
        known = begin + window + skipped * size  # the point that the first row is of
        flat = flat[max(0, start - known) : max(0, stop - known)]
        out[row + stop - start - len(flat) : row + stop - start] = flat
        row, chunk = row + stop - start, chunk + len(own)
    return out


# --- windows --------------------------------------------------------------------------------------


def windows_of(span: Span, window: int, stride: int, causal: bool) -> Tensor:
    """Return the starts of the windows that cover the points of a span.

    Every ``stride`` points, but no further apart than one after the other, and one at the very end;
    if ``causal``, one that ends at each point.
    """
    if causal:
        return torch.arange(max(span.begin, span.start - window + 1), span.stop - window + 1)
    begin = max(span.begin, span.start - window + 1)
    starts = torch.arange(begin, span.stop - window + 1, min(stride, window))
    if len(starts) and int(starts[-1]) < span.stop - window:
        starts = torch.cat([starts, torch.tensor([span.stop - window])])
    return starts


def covered(
    of_windows: Callable[[Tensor], np.ndarray],
    spans: Sequence[Span],
    window: int,
    stride: int,
    causal: bool,
    values: int,
) -> np.ndarray:
    """Return for each point the mean result of the windows that cover it, or that end at it.

    Parameters
    ----------
    of_windows : callable
        Maps the starts of windows to one result per window, (n,), or one per point of each window,
        (n, window, ...).
    spans : sequence of Span
    window, stride : int
    causal : bool
        Whether the result of a point is the mean over the window that ends there, only.
    values : int
        Number of values in a window, which limits how many windows are computed at once.

    Returns
    -------
    results : ndarray of shape (n_points, ...), float64
        Results of the points; NaN where no window is.
    """
    parts = []
    for span in spans:
        starts = windows_of(span, window, stride, causal)
        sums: np.ndarray | None = None
        counts = np.zeros(span.stop - span.begin)
        for part in starts.split(max(1, _COVERED_AT_ONCE // values)):
            found = np.asarray(of_windows(part), dtype=np.float64)
            rest = found.shape[2:] if found.ndim > 1 else ()
            if sums is None:
                sums = np.zeros((span.stop - span.begin, *rest))
            first = (part - span.begin).numpy()
            if causal:
                at_end = found if found.ndim == 1 else found.mean(1)
                sums[first + window - 1] += at_end
                counts[first + window - 1] += 1
                continue
            for step in range(window):  # starts differ, so that no point is met twice in a step
                sums[first + step] += found if found.ndim == 1 else found[:, step]
                counts[first + step] += 1
        if sums is None:
            raise ValueError(f"no series has {window} points, which a window needs")
        with np.errstate(invalid="ignore"):
            sums /= counts.reshape(-1, *[1] * (sums.ndim - 1))
        parts.append(sums[span.start - span.begin :])
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


# --- smoothing ------------------------------------------------------------------------------------

_REACH = 2  # lengths, after which nothing is left of a point


def kernel(length: int) -> np.ndarray:
    """Return the exponential weights of a point and of those before it, nearest first.

    They are those of an exponential moving average with factor ``2 / (length + 1)``, as usual for
    an average over ``length`` points. They are cut off, so that the effect of an outlier ends.
    """
    return (1 - 2 / (length + 1)) ** np.arange(_REACH * length if length > 1 else 1)


def averaged_over(smoothing: Smoothing, length: int) -> float:
    """Return how many independent values a mean would be of that varies as smoothed values do."""
    weights = kernel(length) if smoothing else np.ones(1)
    if smoothing == "centred":
        weights = np.concatenate([weights[:0:-1] / 2, weights[:1], weights[1:] / 2])
    return float(weights.sum() ** 2 / np.square(weights).sum())


def as_new(parts: Sequence[np.ndarray], least: float) -> np.ndarray:
    """Return the scores that new normal points are likely to have, from scores of a few of them.

    Scores of neighbouring points are alike: n of them tell as much as n / t independent ones,
    where t is the sum of their autocorrelations. Few scores vary less about their mean than new
    ones do, because the mean is their own: the variance about it is 1 - t / n times that of all
    scores, and that of new scores about it 1 + t / n times. So scores above the median are moved
    away from it, by the root of the quotient: next to nothing for long series, and at most by the
    root of 4 (1 + t / n).

    Parameters
    ----------
    parts : sequence of ndarray of shape (n_i,)
        Scores of stretches of points, each in the order of time.
    least : float
        What t is no less than: short stretches do not show it.

    Returns
    -------
    scores : ndarray of shape (n,)
        One stretch after the other.
    """
    scores = np.concatenate(parts)
    alike = max(least, _autocorrelations([part - scores.mean() for part in parts]))
    middle, share = np.median(scores), alike / len(scores)
    further = np.sqrt((1 + share) / max(1 - share, _LEAST_KNOWN))
    return np.where(scores > middle, middle + (scores - middle) * further, scores)


def _autocorrelations(parts: Sequence[np.ndarray]) -> float:
    """Return the sum of the autocorrelations of centred values, up to the first below 0."""
    longest = max(map(len, parts))
    size = next_fast_len(2 * longest)
    power = sum(np.square(np.abs(rfft(part, size))) for part in parts)
    products = irfft(power, size)[:longest]
    if products[0] <= 0:
        return 1.0
    below = np.flatnonzero(products <= 0)
    end = below[0] if len(below) else longest
    return float(2 * products[:end].sum() / products[0] - 1)


def smoothed(
    values: np.ndarray, spans: Sequence[Span], smoothing: Smoothing, length: int
) -> np.ndarray:
    """Return exponential means over the points around each ("centred") or up to it ("causal").

    Points without a value (NaN) are ignored. At the beginning of a span, they get the result of the
    first point that has a value.

    Parameters
    ----------
    values : ndarray of shape (n_points,) or (n_points, channels)
        Values of the points of all spans; changed in place and returned.
    spans : sequence of Span
    smoothing : {"centred", "causal"} or None
    length : int
    """
    table = values.reshape(len(values), -1)
    row = 0
    for _, start, stop in spans:
        own = table[row : row + stop - start]
        row += stop - start
        known = np.flatnonzero(~np.isnan(own).any(1))
        if not len(known):
            continue
        first = int(known[0])
        if smoothing is not None and length > 1:
            weights = kernel(length)
            count = np.convolve(np.ones(len(own) - first), weights)[: len(own) - first]
            for column in own[first:].T:  # one at a time: they are as long as the series
                column[:] = _mean(column, weights, count, smoothing)
        own[:first] = own[first]
    return values


def _mean(
    column: np.ndarray, weights: np.ndarray, count: np.ndarray, smoothing: Smoothing
) -> np.ndarray:
    column = column.astype(np.float64)
    before = np.convolve(column, weights)[: len(column)] / count
    if smoothing == "causal":
        return before
    after = np.convolve(column[::-1], weights)[: len(column)] / count
    return (before + after[::-1]) / 2
