"""Soft and hard-wired attention: where tracks go next, from their past and their neighbours'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepod.params import integer, param, parameters
from deepod.series._base import SeriesDetector
from deepod.series._errors import Errors
from deepod.types import Batch, Losses, Shape

_NEAREST = 0.1  # distance below which neighbours are no nearer, in mean standard deviations


class Attentive(nn.Module):
    """Encoder and decoder of an LSTM each, which all tracks share, and the contexts between them.

    Parameters
    ----------
    tracks, size, hidden : int
        Tracks side by side, of ``size`` channels each, and units of both LSTMs.
    scale : str or None
        Of :class:`Errors`.

    Attributes
    ----------
    gain, offset : Tensor of shape (tracks * size,)
        From scaled channels to positions of all tracks in one frame: the same units for all.
    """

    gain: Tensor
    offset: Tensor

    def __init__(self, tracks: int, size: int, hidden: int, scale: str | None) -> None:
        super().__init__()
        self.tracks, self.size = tracks, size
        self.encoder = nn.LSTM(size, hidden, batch_first=True)
        self.of_state = nn.Linear(hidden, hidden)
        self.of_memory = nn.Linear(hidden, hidden, bias=False)
        self.alignment = nn.Linear(hidden, 1, bias=False)
        self.merge = nn.Linear(hidden * (2 if tracks > 1 else 1), hidden)
        self.decoder = nn.LSTMCell(size + hidden, hidden)
        self.head = nn.Linear(hidden, size)
        self.register_buffer("gain", torch.ones(tracks * size))
        self.register_buffer("offset", torch.zeros(tracks * size))
        self.errors = Errors(tracks * size, 1, scale)

    def forward(self, x: Tensor, steps: int) -> Tensor:  # (B, W, d) -> (B, steps, d)
        """Forecast the points after x, in scaled units; 0 for channels that do not vary."""
        positions = (x * self.gain + self.offset).unflatten(-1, (self.tracks, self.size))
        positions = positions.transpose(1, 2)  # (B, tracks, W, size)
        own = positions.flatten(0, 1)
        memory, (h, c) = self.encoder(own)  # (B * tracks, W, hidden)
        keys, wired = self.of_memory(memory), self.hard_wired(positions, memory)
        state, last = (h[0], c[0]), own[:, -1]
        found = []
        for _ in range(steps):
            context = [self.soft(state[0], keys, memory), *wired]
            merged = torch.tanh(self.merge(torch.cat(context, -1)))
            state = self.decoder(torch.cat([last, merged], -1), state)
            last = self.head(state[0])
            found.append(last)
        ahead = torch.stack(found, 1).unflatten(0, (-1, self.tracks))  # (B, tracks, steps, size)
        ahead = ahead.transpose(1, 2).flatten(-2)
        return (ahead - self.offset) / self.gain * self.errors.varies

    def soft(self, state: Tensor, keys: Tensor, memory: Tensor) -> Tensor:
        """Mean of a track's own states, by how they match the decoder's: (M, hidden)."""
        match = self.alignment(torch.tanh(self.of_state(state)[:, None] + keys))
        return (match.softmax(1) * memory).sum(1)

    def hard_wired(self, positions: Tensor, memory: Tensor) -> list[Tensor]:
        """Mean of the neighbours' states, each over its distance at that time: (M, hidden).

        Nothing if there is one track.
        """
        if self.tracks == 1:
            return []
        off = positions[:, :, None] - positions[:, None]  # (B, tracks, tracks, W, size)
        near = 1 / off.square().sum(-1).sqrt().clamp_min(_NEAREST)
        others = 1 - torch.eye(self.tracks, dtype=near.dtype, device=near.device)
        weights = near * others[..., None]
        memory = memory.unflatten(0, (-1, self.tracks))  # (B, tracks, W, hidden)
        context = torch.einsum("bijt,bjth->bih", weights, memory)
        return [context.flatten(0, 1) / ((self.tracks - 1) * positions.shape[2])]


@parameters
class Seq2SeqAttention(SeriesDetector):
    """Forecasts by soft and hard-wired attention: a point is abnormal if it is far from its own.

    An LSTM reads ``window`` points, a second one forecasts the ``horizon`` points after them, each
    from the one before and a context: the mean of the first one's states, by weights that are
    learned, and, of tracks side by side, the mean of the states of the others, each over its
    distance at that time, which is not learned. The squared errors of the forecasts make the score.

    Notes
    -----
    **Tracks.** With ``track_size=2`` the channels are x and y of the first track, x and y of the
    second, and so on: each is forecast by the same networks, the others are its neighbours. All
    must be there all the time, in one unit and one frame, and the more the slower: the neighbours'
    time grows with their square. Episodes (n, T, channels) are scenes. With ``track_size=None`` the
    channels are one track, which has no neighbours: an attentive Seq2Seq model for any series.

    Assumes that normal points follow from those before. It forecasts ``horizon`` points at once,
    without looking at those between, where :class:`LSTMAD` is told each. Which points begin a
    forecast depends on where the series begins: every ``horizon`` points after the first
    ``window``, which have no score of their own.

    The defaults were looked at on two development series, no more. ``docs/series.md`` has figures
    of other series.

    **The equations.** Soft context: C_s = sum_j a_j h_j, a = softmax_j(v tanh(W s + U h_j)), of the
    decoder's last state s. Hard-wired context: C_h = sum_n sum_j h_nj / distance_nj, here the mean
    instead of the sum, which the weights after it make no difference of, and no distance below 0.1
    mean standard deviations. Together: C = tanh(W [C_s; C_h]), s' = LSTM(s, [last forecast; C]).
    Loss: the mean squared error of positions. The decoder goes on from its own forecasts in
    training, too. Positions are those of X, divided by one number for each of x and y.

    The paper's setting: ``Seq2SeqAttention(track_size=2, window=20, horizon=20, hidden=300,
    smoothing=None, error_scale=None)``, with one model for each pair of entry and exit and the ten
    nearest neighbours on each side, where ours takes all. It calls tracks abnormal by grouping the
    networks' hidden states, and leaves the score open: errors of forecasts are our choice.

    References
    ----------
    T. Fernando, S. Denman, S. Sridharan and C. Fookes. Soft + Hardwired Attention: An LSTM
    Framework for Human Trajectory Prediction and Abnormal Event Detection. Neural Networks 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.series import Seq2SeqAttention
    >>> x = np.sin(np.arange(2000) / 5)
    >>> detector = Seq2SeqAttention(epochs=20, random_state=0).fit(x[:1500])
    >>> test = x[1500:].copy()
    >>> test[250:260] = 0.0
    >>> abs(int(detector.decision_function(test).argmax()) - 255) < 40
    True
    """

    horizon: int | None = param(
        default=None,
        accepts=[integer(1), None],
        doc="Points that are forecast at once; None: as many as ``window``.",
    )
    track_size: int | None = param(
        default=None,
        accepts=[integer(1), None],
        doc="Channels of a track: 2 for x and y. So many channels after one another are one track, "
        "and the others its neighbours. None: all channels are one track.",
    )
    hidden: int = param(
        default=64, accepts=[integer(1)], doc="Units of the encoder's and the decoder's LSTM."
    )
    lr = 3e-3
    auto_steps = 200
    max_grad_norm = 1.0
    family = "forecasting"
    paper = "Fernando et al., Soft + Hardwired Attention for Trajectory Prediction, 2018"
    auto_window = 20

    def _ahead(self) -> int:
        return self.window_ if self.horizon is None else self.horizon

    def _chunk_length(self) -> int:
        return self.window_ + self._ahead()

    def _build_module(self, shape: Shape) -> nn.Module:
        d = shape[0]
        size = self.track_size or d
        if d % size:
            raise ValueError(f"X has {d} channels, which are no tracks of track_size={size}.")
        return Attentive(d // size, size, self.hidden, self.error_scale)

    def _solve(
        self,
        module: Any,
        x: Tensor,
        spans: Sequence[tuple[int, int]],
        generator: torch.Generator,
    ) -> None:
        """Find how to put tracks in one frame: they were scaled each by itself."""
        if module.tracks == 1:
            return
        scale, shift = (
            torch.as_tensor(part, dtype=torch.float64).reshape(-1, module.size)
            for part in (self.scaler_.scale, self.scaler_.shift)
        )
        unit = scale.mean(0)
        module.gain.copy_((scale / unit).flatten())
        module.offset.copy_(((shift - shift.mean(0)) / unit).flatten())

    def _loss(self, module: Any, batch: Batch) -> Losses:
        x, window = batch.x, self.window_
        off = x[:, window:] - module(x[:, :window], x.shape[1] - window)
        # In the frame of all tracks: errors of positions.
        return {"forecast": (off * module.gain * module.errors.varies).square().mean()}

    def _errors(self, module: Any, x: Tensor) -> Tensor:
        """Errors of forecasts that begin every ``horizon`` points; 0 for the first ``window``."""
        window, length = self.window_, x.shape[1]
        if length <= window:
            return torch.zeros_like(x)
        steps = min(self._ahead(), length - window)
        past = x[:, : length - 1].unfold(1, window, steps).mT  # (B, n, window, d)
        ahead = module(past.flatten(0, 1), steps)
        found = ahead.unflatten(0, past.shape[:2]).flatten(1, 2)[:, : length - window]
        return torch.cat([torch.zeros_like(x[:, :window]), x[:, window:] - found], 1)
