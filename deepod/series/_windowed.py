"""What detectors have in common that give each point the errors of the windows that cover it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deepod._inputs.chunks import take
from deepod._scoring.apply import chunk_rows, score
from deepod._scoring.points import Span, windows_of
from deepod.params import parameters
from deepod.series._base import SeriesDetector

_LEARNED_FROM = 1 << 22  # values of windows whose errors show what is usual, at most
_COVERED_BY = 4  # windows that a point lies in, where a series does not begin or end


@parameters
class WindowedDetector(SeriesDetector):
    """Detector of series whose errors at a point are those in the windows that cover it.

    About four windows cover a point; with ``smoothing="causal"`` a point has the mean over the one
    that ends at it.
    """

    windowed = True

    def _learn_errors(self, module: Any, x: Tensor, spans: Sequence[Span]) -> None:
        """Learn from the errors in each window: means over several windows are smaller."""
        window = self.window_
        parts = [windows_of(span, window, self._stride(), causal=False) for span in spans]
        first = torch.cat([p.new_full(p.shape, s.start) for p, s in zip(parts, spans, strict=True)])
        starts = torch.cat(parts)
        most = max(1, _LEARNED_FROM // (window * x.shape[1]))
        if len(starts) > most:
            some = torch.linspace(0, len(starts) - 1, most).long()
            starts, first = starts[some], first[some]
        size = chunk_rows((window, *x.shape[1:]))
        windows = (take(x, part, window) for part in starts.split(size))
        errors = score(module, self._errors, windows, x.device, len(starts))
        held_out = starts[:, None] + torch.arange(window) >= first[:, None]
        module.errors.learn(errors[held_out.to(x.device)])

    def _stride(self) -> int:
        return max(1, self.window_ // _COVERED_BY)
