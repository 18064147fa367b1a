"""LSTM autoencoders of windows: Wei's, and EncDec-AD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepod._inputs.chunks import take
from deepod._scoring.apply import chunk_rows, score
from deepod._scoring.series import Span, windows_of
from deepod.networks.layers import drawn_by
from deepod.params import integer, one_of, param, parameters, real
from deepod.series._base import SeriesDetector
from deepod.series._errors import Errors
from deepod.types import Batch, Losses, Shape

_COVERED_BY = 4  # windows that a point lies in, where a series does not begin or end


class Reconstructor(nn.Module):
    """An LSTM whose last state is the code of a window, and one that reconstructs it from that.

    Parameters
    ----------
    channels, hidden : int
    latent_dim : int or None
        Values of the code, a linear map of the last state; None: the state is the code.
    from_state : bool
        Whether the decoder starts from the code and is given, at each step, the value before: the
        true one in training, its own else. If not, it is given the code at each step.
    reverse : bool
        Whether the last point is reconstructed first.
    scale : str or None
        Of :class:`Errors`.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        latent_dim: int | None,
        from_state: bool,
        reverse: bool,
        scale: str | None,
    ) -> None:
        super().__init__()
        code = latent_dim or hidden
        self.from_state, self.reverse = from_state, reverse
        self.encoder = nn.LSTM(channels, hidden, batch_first=True)
        self.to_code = nn.Linear(hidden, code) if latent_dim else nn.Identity()
        self.to_state = nn.Linear(code, 2 * hidden) if from_state and latent_dim else None
        self.decoder = nn.LSTM(channels if from_state else code, hidden, batch_first=True)
        self.head = nn.Linear(hidden, channels)
        self.errors = Errors(channels, 1, scale)

    def forward(
        self, x: Tensor, masks: tuple[Tensor, Tensor] | None = None, teach: bool = False
    ) -> Tensor:  # (B, L, d) -> (B, L, d)
        """Reconstruct windows, in the order of time; 0 for channels that do not vary.

        ``masks`` are multiplied with codes and with states of the decoder; with ``teach``, a
        decoder that is given the value before is given the true one.
        """
        x = x * self.errors.varies
        _, (state, cell) = self.encoder(x)
        code = self.to_code(state[0])
        if masks is not None:
            code = code * masks[0]
        if not self.from_state:
            states, _ = self.decoder(code[:, None].expand(-1, x.shape[1], -1))
        else:
            start = (code, cell[0])
            if self.to_state is not None:
                first, second = self.to_state(code).chunk(2, -1)
                start = (first.tanh(), second)
            true = (x.flip(1) if self.reverse else x) if teach else None
            states = self._one_by_one(start, x.shape[1], true)
        if masks is not None:
            states = states * masks[1]
        out = self.head(states) * self.errors.varies
        return out.flip(1) if self.reverse else out

    def _one_by_one(
        self, start: tuple[Tensor, Tensor], length: int, true: Tensor | None
    ) -> Tensor:  # (B, L, hidden)
        """States of the decoder, the first of which is the one to start from."""
        state, cell = start[0][None].contiguous(), start[1][None].contiguous()
        if true is not None:
            rest, _ = self.decoder(true[:, :-1], (state, cell))
            return torch.cat([state[0][:, None], rest], 1)
        states = [state[0]]
        for _ in range(length - 1):
            own = self.head(states[-1]) * self.errors.varies
            _, (state, cell) = self.decoder(own[:, None], (state, cell))
            states.append(state[0])
        return torch.stack(states, 1)


@parameters
class LSTMAE(SeriesDetector):
    """Autoencoder of LSTMs: a point is abnormal if windows around it are reconstructed badly.

    TODO

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.series import LSTMAE
    >>> x = np.sin(np.arange(2000) / 5)
    >>> detector = LSTMAE(epochs=2, random_state=0).fit(x[:1500])
    >>> test = x[1500:].copy()
    >>> test[250:260] = 0.0
    >>> abs(int(detector.decision_function(test).argmax()) - 255) < 40
    True
    """

    hidden: int = param(
        default=64, accepts=[integer(1)], doc="Units of the encoder's and the decoder's LSTM."
    )
    latent_dim: int | None = param(
        default=None,
        accepts=[integer(1), None],
        doc="Values of the code, a linear map of the encoder's last state; None takes that state.",
    )
    reverse: bool = param(
        default=False,
        accepts=["boolean"],
        doc="Whether the decoder reconstructs the last point of a window first.",
    )
    teacher_forcing: bool = param(
        default=False,
        accepts=["boolean"],
        doc="False: the decoder is given the code at each step. True: it starts from the code as "
        "its state and is given the point that it reconstructed before, the true one in training "
        "and its own at scoring, which takes longer.",
    )
    error: Literal["mae", "mse"] = param(
        default="mse",
        accepts=[one_of("mae", "mse")],
        doc="Whether losses and scores are absolute errors or their squares.",
    )
    dropout: float = param(
        default=0.0,
        accepts=[real(0, 0.9)],
        doc="Share of the values of the code, and of the decoder's states, that are set to 0 in "
        "training.",
    )
    lr = 5e-3
    max_grad_norm = 1.0
    family = "reconstruction"
    paper = "Wei et al., LSTM-Autoencoder-Based Anomaly Detection for Indoor Air Quality, 2023"
    windowed = True

    def _build_module(self, shape: Shape) -> nn.Module:
        return Reconstructor(
            shape[0],
            self.hidden,
            self.latent_dim,
            self.teacher_forcing,
            self.reverse,
            self.error_scale,
        )

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Any:
        if not self.dropout:
            return None
        code = self.latent_dim or self.hidden
        sizes = (n, code), (n, shape[0], self.hidden)
        return tuple(torch.rand(size, **drawn_by(generator)) for size in sizes)

    def _loss(self, module: Any, batch: Batch) -> Losses:
        masks = None
        if batch.noise is not None:
            masks = tuple((u >= self.dropout) / (1 - self.dropout) for u in batch.noise)
        off = (batch.x - module(batch.x, masks, teach=True)) * module.errors.varies
        sizes = off.abs() if self.error == "mae" else off.square()
        return {"reconstruction": sizes.mean()}

    def _errors(self, module: nn.Module, x: Tensor) -> Tensor:
        errors = x - module(x)
        if self.error_scale == "covariance":
            return errors.abs()
        # Terms of the score are squares.
        return errors.abs().sqrt() if self.error == "mae" else errors

    def _learn_errors(self, module: Any, x: Tensor, spans: Sequence[Span]) -> None:
        """Learn from the errors in each window: means over several windows are smaller."""
        parts = [windows_of(span, self.window, self._stride(), causal=False) for span in spans]
        starts = torch.cat(parts)
        size = chunk_rows((self.window, *x.shape[1:]))
        windows = (take(x, part, self.window) for part in starts.split(size))
        errors = score(module, self._errors, windows, x.device, len(starts))
        first = torch.cat(
            [torch.full_like(p, span.start) for p, span in zip(parts, spans, strict=True)]
        )
        unseen = starts[:, None] + torch.arange(self.window) >= first[:, None]
        module.errors.learn(errors[unseen.to(x.device)])

    def _stride(self) -> int:
        return max(1, self.window // _COVERED_BY)
