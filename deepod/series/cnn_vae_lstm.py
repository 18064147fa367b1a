"""PCovNet+: a convolutional VAE gives windows codes, and an LSTM forecasts codes from codes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from deepod._training.series_fit import Smallest
from deepod.networks.layers import drawn_by
from deepod.params import integer, param, parameters, real
from deepod.series._errors import Errors
from deepod.series._windowed import WindowedDetector
from deepod.types import Batch, Losses, Phase, Shape

_LARGEST_LOG_VARIANCE = 10.0  # of a code


class Coder(nn.Module):
    """Convolutional VAE of short windows: (N, w, d) to codes and back.

    Each convolution halves the window, rounding up; the decoder's take the same lengths in reverse.
    """

    def __init__(self, length: int, channels: int, filters: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        lengths = [length]
        for _ in filters:
            lengths.append((lengths[-1] + 1) // 2)
        widths = [channels, *filters]
        encoder: list[nn.Module] = []
        for inputs, outputs in zip(widths, filters, strict=False):
            encoder += [nn.Conv1d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
        width = widths[-1] * lengths[-1]
        dense = [nn.Flatten(), nn.Linear(width, latent_dim), nn.ReLU()]
        self.encoder = nn.Sequential(*encoder, *dense, nn.Linear(latent_dim, 2 * latent_dim))
        decoder: list[nn.Module] = [
            nn.Linear(latent_dim, width),
            nn.Unflatten(1, (-1, lengths[-1])),
        ]
        places = range(len(filters) - 1, -1, -1)
        for k in places:
            outputs = filters[max(0, k - 1)]
            more = lengths[k] - (2 * lengths[k + 1] - 1)  # what rounding up has added, 0 or 1
            layer = nn.ConvTranspose1d(
                widths[k + 1], outputs, 3, stride=2, padding=1, output_padding=more
            )
            decoder += [layer, nn.ReLU()]
        self.decoder = nn.Sequential(
            *decoder, nn.ConvTranspose1d(filters[0], channels, 3, padding=1)
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the codes."""
        mean, log_variance = self.encoder(x.mT).chunk(2, -1)
        return mean, log_variance.clamp(-_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE)

    def decode(self, z: Tensor) -> Tensor:
        """Windows, (N, w, d), of codes."""
        return self.decoder(z).mT


class CodeForecaster(nn.Module):
    """LSTM autoencoder from codes 1 to n - 1 to codes 2 to n: (B, n - 1, k) -> (B, n - 1, k)."""

    def __init__(self, latent_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        down = [latent_dim, *hidden]
        up = [hidden[-1], *reversed(hidden)]

        def stack(sizes: Sequence[int]) -> nn.ModuleList:
            return nn.ModuleList(nn.LSTM(a, b, batch_first=True) for a, b in pairwise(sizes))

        self.encoder, self.decoder = stack(down), stack(up)
        self.head = nn.Linear(hidden[0], latent_dim)

    def forward(self, z: Tensor) -> Tensor:
        """Give each code the one after it; all are made of one vector, which has seen them all."""
        states = z
        for layer in self.encoder:
            states, _ = layer(states)
        states = states[:, -1:].expand(-1, z.shape[1], -1)
        for layer in self.decoder:
            states, _ = layer(states)
        return self.head(states)


class CodedWindows(nn.Module):
    """A VAE of sub-windows and a forecaster of their codes.

    Parameters
    ----------
    window, n_windows, channels, latent_dim : int
        ``window`` points are ``n_windows`` sub-windows.
    filters, hidden : sequence of int
    scale : str or None
        Of :class:`Errors`.
    """

    def __init__(
        self,
        window: int,
        n_windows: int,
        channels: int,
        latent_dim: int,
        filters: Sequence[int],
        hidden: Sequence[int],
        scale: str | None,
    ) -> None:
        super().__init__()
        self.n_windows = n_windows
        self.coder = Coder(window // n_windows, channels, filters, latent_dim)
        self.forecaster = CodeForecaster(latent_dim, hidden)
        self.errors = Errors(channels, 1, scale)

    def cut(self, x: Tensor) -> Tensor:
        """Cut windows, (B, L, d), into sub-windows, (B * n, w, d), of the channels that vary."""
        return (x * self.errors.varies).unflatten(1, (self.n_windows, -1)).flatten(0, 1)

    def joined(self, parts: Tensor) -> Tensor:
        """Put sub-windows, or codes, in their order again: (B * n, ...) -> (B, n, ...)."""
        return parts.unflatten(0, (-1, self.n_windows))

    def forward(self, x: Tensor) -> Tensor:
        """Decode the codes that are forecast; of the first sub-window its own: (B, L, d)."""
        codes = self.joined(self.coder.encode(self.cut(x))[0])
        codes = torch.cat([codes[:, :1], self.forecaster(codes[:, :-1])], 1)
        found = self.joined(self.coder.decode(codes.flatten(0, 1)))
        return found.flatten(1, 2) * self.errors.varies


@parameters
class CNNVAELSTM(WindowedDetector):
    """Codes of windows forecast from codes, PCovNet+: a point is abnormal if it is far from that.

    ``window`` points are ``n_windows`` sub-windows. A convolutional VAE learns a code of each; then
    an LSTM learns to make codes 2 to n of codes 1 to n - 1. What the VAE decodes of the codes that
    were made is compared with the points: the squared errors make the score.

    Notes
    -----
    Assumes that what is normal changes slowly or in a pattern: the forecast is of a whole
    sub-window, and coarser than that of :class:`LSTMAD`. All codes that are made come from one
    vector, in which codes 1 to n - 1 are summed up: only the last is a forecast in the strict
    sense, and an anomaly in the others can be copied. The first sub-window has nothing before it:
    the VAE's own reconstruction is compared, which the paper leaves out; else the first points of a
    series would have no score. About four windows cover a point; the last points of a series lie in
    one alone, and score higher than others: the last code is the hardest to make.

    **Training.** First the VAE, by the sum over time of the squared errors plus ``kl_weight`` times
    the divergence of the codes from the standard normal distribution, both divided by the number
    of values; then, with the VAE as it is, the LSTM by the mean squared error of the codes: it is
    given codes that are drawn, as in the authors' code, and told the means, which has the same
    gradient on average. ``epochs`` are those of each of both. At scoring codes are their means.

    The defaults were looked at on two development series, no more. ``docs/series.md`` has figures
    of other series.

    Where ``kl_weight`` or ``lr`` is large the codes may all equal their prior, and forecasts are
    the mean of the series: then "divergence" in ``history_`` is 0.

    **The paper** (``filters=(128, 64, 32), hidden=(128, 64), smoothing=None, error_scale=None``):
    hourly heart rates of one channel, ``window=384, n_windows=8, latent_dim=6`` for a model of many
    healthy people, which is a fit on a list of series, and ``window=16, n_windows=2`` for one of a
    single person; ``batch_size=64, lr=2e-4``, at most 1000 epochs with early stopping, augmented
    series, and the largest training loss as threshold: ``contamination=0, validation_fraction=0``.
    Ours are half as large, and train faster: on short series the LSTM is not done otherwise. The
    paper goes on from the model of many with the series of one person; ``fit`` always begins anew,
    and nothing is augmented here. The authors' decoder ends in a sigmoid, which standardised series
    do not fit: ours is linear. Their LSTM stops early by the codes of test series; ours does not
    see any.

    References
    ----------
    F. F. Abir, M. E. H. Chowdhury, M. I. Tapotee, A. Mushtak, A. Khandakar, S. Mahmud and A. Hasan.
    PCovNet+: A CNN-VAE Anomaly Detection Framework with LSTM Embeddings for Smartwatch-Based
    COVID-19 Detection. Engineering Applications of Artificial Intelligence 2023.
    S. Lin, R. Clark, R. Birke, S. Schoenborn, N. Trigoni and S. Roberts. Anomaly Detection for Time
    Series Using VAE-LSTM Hybrid Model. ICASSP 2020: the scheme, with a VAE of dense layers.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.series import CNNVAELSTM
    >>> x = np.sin(np.arange(2000) / 5) + 0.1 * np.random.default_rng(0).normal(size=2000)
    >>> small = {"filters": (16, 8), "hidden": (32,), "lr": 5e-3, "epochs": 60}
    >>> detector = CNNVAELSTM(**small, random_state=0).fit([x[:700], x[700:1500]])
    >>> test = x[1500:].copy()
    >>> test[250:260] = 0.0
    >>> abs(int(detector.decision_function(test).argmax()) - 255) < 40
    True
    """

    n_windows: int = param(
        default=4,
        accepts=[integer(2)],
        doc="Sub-windows of a window, whose points must be a multiple of it.",
    )
    latent_dim: int = param(default=16, accepts=[integer(1)], doc="Values of a sub-window's code.")
    filters: tuple[int, ...] | list[int] = param(
        default=(64, 32, 16),
        accepts=[tuple, list],
        doc="Filters of the encoder's convolutions, each of which halves the sub-window; the "
        "decoder's are the same in reverse.",
    )
    hidden: tuple[int, ...] | list[int] = param(
        default=(64, 32),
        accepts=[tuple, list],
        doc="Units of the LSTM layers that sum up the codes; those that make the next ones of it "
        "are the same in reverse.",
    )
    kl_weight: float = param(
        default=1.0,
        accepts=[real(0)],
        doc="Weight of the divergence of the codes from their prior.",
    )
    lr = 2e-3
    max_grad_norm = 1.0
    family = "forecasting"
    paper = "Abir et al., PCovNet+: A CNN-VAE Framework with LSTM Embeddings, 2023"
    auto_window = 64

    def _smallest_window(self) -> Smallest:
        return Smallest(self.n_windows, " or a smaller n_windows")

    def _possible_window(self, window: int) -> int:
        n = self.n_windows
        if self.window == "auto":
            window -= window % n
        if window % n:
            raise ValueError(f"window must be a multiple of n_windows={n}, got {window}.")
        return window

    def _build_module(self, shape: Shape) -> nn.Module:
        for name, values in (("filters", self.filters), ("hidden", self.hidden)):
            if not values or not all(isinstance(v, Integral) and v > 0 for v in values):
                raise ValueError(f"{name} must hold positive integers, got {values!r}.")
        filters, hidden = ([int(v) for v in values] for values in (self.filters, self.hidden))
        sizes = self.window_, self.n_windows, shape[0], self.latent_dim
        return CodedWindows(*sizes, filters, hidden, self.error_scale)

    def _phases(self) -> list[Phase]:
        def phase(name: str, loss: Any) -> Phase:
            return Phase(
                name, self.epochs_, loss, params=(name,), milestones=tuple(self.milestones)
            )

        return [phase("coder", self._loss), phase("forecaster", self._loss_of_codes)]

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Tensor:
        return torch.randn(n * self.n_windows, self.latent_dim, **drawn_by(generator))

    def _loss(self, module: Any, batch: Batch) -> Losses:
        x = module.cut(batch.x)
        mean, log_variance = module.coder.encode(x)
        found = module.coder.decode(drawn(mean, log_variance, batch.noise))
        off = (x - found) * module.errors.varies
        divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean() / 2
        # Both per value, so that gradients are as long for many values as for few.
        return {
            "reconstruction": off.square().mean(),
            "divergence": self.kl_weight * divergence / x[0].numel(),
        }

    def _loss_of_codes(self, module: Any, batch: Batch) -> Losses:
        mean, log_variance = (part.detach() for part in module.coder.encode(module.cut(batch.x)))
        given = module.joined(drawn(mean, log_variance, batch.noise))
        off = module.forecaster(given[:, :-1]) - module.joined(mean)[:, 1:]
        return {"forecast": off.square().mean()}

    def _errors(self, module: nn.Module, x: Tensor) -> Tensor:
        return x - module(x)


def drawn(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Codes of a Gaussian, from standard normal noise."""
    return mean + (log_variance / 2).exp() * noise
