"""LSTM autoencoders of windows: Wei's, and EncDec-AD."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from deepod.networks.layers import drawn_by
from deepod.params import integer, one_of, param, parameters, real
from deepod.series._errors import Errors
from deepod.series._windowed import WindowedDetector
from deepod.types import Batch, Losses, Shape


class Reconstructor(nn.Module):
    """An LSTM whose last state is the code of a window, and one that reconstructs it from that.

    Parameters
    ----------
    channels, hidden : int
    latent_dim : int or None
        Values of the code, a linear map of the last state; None: the state is the code.
    carry_state : bool
        Whether the decoder starts from the encoder's state, or what the code says of it.
    feed_back : bool
        Whether the decoder is given, at each step, the value before: the true one in training, its
        own else. If not, it is given the code at each step.
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
        carry_state: bool,
        feed_back: bool,
        reverse: bool,
        scale: str | None,
    ) -> None:
        super().__init__()
        code = latent_dim or hidden
        self.carry_state, self.feed_back, self.reverse = carry_state, feed_back, reverse
        self.encoder = nn.LSTM(channels, hidden, batch_first=True)
        self.to_code = nn.Linear(hidden, code) if latent_dim else nn.Identity()
        self.to_state = nn.Linear(code, 2 * hidden) if carry_state and latent_dim else None
        self.decoder = nn.LSTM(channels if feed_back else code, hidden, batch_first=True)
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
        start = self._start(code, cell)
        if self.feed_back:
            true = (x.flip(1) if self.reverse else x) if teach else None
            states = self._fed_back(start, x.shape[1], true)
        else:
            states, _ = self.decoder(code[:, None].expand(-1, x.shape[1], -1), start)
        if masks is not None:
            states = states * masks[1]
        out = self.head(states) * self.errors.varies
        return out.flip(1) if self.reverse else out

    def _start(self, code: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """State of the decoder to start from, as an LSTM takes it."""
        if not self.carry_state:
            return torch.zeros_like(cell), torch.zeros_like(cell)
        if self.to_state is None:
            return code[None], cell
        state, cell = self.to_state(code).chunk(2, -1)
        return state.tanh()[None], cell[None].contiguous()

    def _fed_back(
        self, start: tuple[Tensor, Tensor], length: int, true: Tensor | None
    ) -> Tensor:  # (B, L, hidden)
        """States of the decoder, of which the first is the one to start from."""
        first = start[0][0][:, None]
        if true is not None:
            rest, _ = self.decoder(true[:, :-1], start)
            return torch.cat([first, rest], 1)
        states, carried = [first], start
        for _ in range(length - 1):
            own = self.head(states[-1]) * self.errors.varies
            state, carried = self.decoder(own, carried)
            states.append(state)
        return torch.cat(states, 1)


@parameters
class LSTMAE(WindowedDetector):
    """Autoencoder of LSTMs: a point is abnormal if windows around it are reconstructed badly.

    An LSTM reads a window, a second one reconstructs it from the state that the first ends in. A
    point's error is the mean of those in the windows that cover it: about four, or with
    ``smoothing="causal"`` the mean over the window that ends at it.

    Notes
    -----
    **The equations.** A code z = h(L), the encoder's state after the L points of a window, or a
    linear map of it; a reconstruction y(1), ..., y(L) by the decoder; the loss is the mean of
    (x - y)^2 or, with ``error="mae"``, of |x - y|. The errors of a point are x - y in the windows
    that cover it, and scores are made of them as in :class:`LSTMAD`.

    Assumes that normal windows are alike, and that ``hidden`` values say what sets them apart. It
    needs more steps than a forecaster for what is regular, and fails like all autoencoders where
    an anomaly can be reconstructed as well as what is normal. The ends of windows are reconstructed
    worst, and the first and last points of a series are in no other place: give ``context``.

    **Wei et al.**: the state, repeated for each point, is the input of a decoder that
    begins at zero; mean absolute errors; a point is flagged above the largest training score:
    ``LSTMAE(reverse=False, carry_state=False, error="mae", dropout=0.2, error_scale=None,
    smoothing=None, validation_fraction=0, contamination=0)``. With ``validation_fraction`` above 0
    the threshold follows the largest score of the points held out. Text and figures differ in
    window, units and epochs: they are those of other detectors here. Dropout acts on the code and
    on the decoder's states. Its scores are those of windows, ours those of points.

    **EncDec-AD** (Malhotra et al.): the decoder starts from the encoder's state and
    reconstructs backwards, in training from the true values, else from its own; the score is
    Mahalanobis' distance of the absolute errors, with their mean and covariance on normal points
    that were not trained on: ``LSTMAE(teacher_forcing=True, error_scale="covariance",
    smoothing=None)``. The covariance is shrunk (Ledoit and Wolf), the threshold that the paper
    chooses by labelled points is ``set_threshold``.

    The default is between the two: the decoder starts from the state, backwards, and is given the
    state at each step. It learns faster: on one series, 300 steps did what took Wei's 900.

    References
    ----------
    Y. Wei, J. Jang-Jaccard, W. Xu, F. Sabrina, S. Camtepe and M. Boulic. LSTM-Autoencoder-Based
    Anomaly Detection for Indoor Air Quality Time-Series Data. IEEE Sensors Journal 2023.

    P. Malhotra, A. Ramakrishnan, G. Anand, L. Vig, P. Agarwal and G. Shroff. LSTM-Based
    Encoder-Decoder for Multi-Sensor Anomaly Detection. ICML workshop on anomaly detection 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.series import LSTMAE
    >>> x = np.sin(np.arange(2000) / 5)
    >>> detector = LSTMAE(window=20, epochs=20, random_state=0).fit(x[:1500])
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
        default=True,
        accepts=["boolean"],
        doc="Whether the decoder reconstructs the last point of a window first.",
    )
    carry_state: bool = param(
        default=True,
        accepts=["boolean"],
        doc="Whether the decoder starts from the encoder's last state (of ``latent_dim`` values, "
        "from a linear map of the code), or from zeros.",
    )
    teacher_forcing: bool = param(
        default=False,
        accepts=["boolean"],
        doc="False: the decoder is given the code at each step. True: it is given the point that "
        "it reconstructed before, the true one in training and its own at scoring, which takes "
        "longer.",
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

    def _build_module(self, shape: Shape) -> nn.Module:
        if self.teacher_forcing and not self.carry_state:
            raise ValueError(
                "teacher_forcing=True tells the decoder nothing of the code but by its state: set "
                "carry_state=True."
            )
        return Reconstructor(
            shape[0],
            self.hidden,
            self.latent_dim,
            self.carry_state,
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
        return errors.abs().sqrt() if self.error == "mae" else errors  # terms are squares

    def _contributions_of(self, terms: np.ndarray) -> np.ndarray:
        if self.error == "mae" and self.error_scale != "covariance":
            return terms / terms.shape[1]
        return super()._contributions_of(terms)
