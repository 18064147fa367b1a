"""LSA: an autoencoder, and how likely its code is, value after value."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from deepod.models.reconstruction._reconstruction import TwoParts
from deepod.networks.layers import EncoderDecoder, squared_error
from deepod.params import integer, one_of, param, parameters, real
from deepod.types import Batch, Losses, Refresh, Shape

EPS = 1e-8


class _Masked(nn.Linear):
    """Layer on blocks of channels, one for each value of the code, that sees no later block.

    Nor its own one, if it is the first: (B, d * before) -> (B, d * after).
    """

    mask: Tensor

    def __init__(self, d: int, before: int, after: int, first: bool) -> None:
        super().__init__(d * before, d * after)
        seen = torch.ones(d, d).tril(-1 if first else 0)
        mask = torch.kron(seen, torch.ones(after, before))
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight * self.mask, self.bias)


class _Net(EncoderDecoder):
    """Autoencoder with a code in (0, 1), and the estimator of its distribution."""

    low: Tensor
    high: Tensor

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, code: int, hidden: Sequence[int], n_bins: int
    ) -> None:
        super().__init__(encoder, decoder)
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise([1, *hidden, n_bins])):
            layers += [_Masked(code, before, after, first=number == 0), nn.LeakyReLU()]
        self.estimator = nn.Sequential(*layers[:-1])
        self.n_bins = n_bins
        # Extremes of minus log-likelihood and error over the training rows.
        self.register_buffer("low", torch.zeros(2))
        self.register_buffer("high", torch.ones(2))

    def encode(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.encoder(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encode(x))

    def surprise(self, z: Tensor, place: Tensor) -> Tensor:
        """Return minus log-likelihood of codes at ``place``, given earlier values in z, (B,)."""
        log_p = self.estimator(z).unflatten(1, (-1, self.n_bins)).log_softmax(2)  # (B, d, bins)
        # Between the centres of two bins both count.
        place = (place * self.n_bins - 0.5).clamp(0, self.n_bins - 1).unsqueeze(2)
        below = place.detach().floor().clamp(max=self.n_bins - 2)
        index, share = below.long(), place - below
        both = log_p.gather(2, torch.cat([index, index + 1], 2))
        return -(both * torch.cat([1 - share, share], 2)).sum((1, 2))


@parameters
class LSA(TwoParts):
    """Latent space autoregression: an autoencoder that also learns which codes are likely.

    A second network, the estimator, predicts each value of the code from the values before it. The
    score adds up how badly a row is rebuilt and how unlikely its code is. A preprint and other
    papers call the method AND (autoregressive novelty detector).

    Notes
    -----
    **When to use it.** Most training rows are normal, and anomalies may be easy to rebuild but have
    unusual codes.

    **When it fails.** Anomalies are easy to rebuild and have common codes. Rows far outside have
    codes near 0 and 1, which the estimator takes for likely if many normal rows have such codes.
    One extreme training row shrinks its part of the score for all other rows.

    **Loss.** The squared error, summed over the values of a row, plus ``autoregression_weight``
    times minus the log-likelihood of the code. Codes are in (0, 1), by a sigmoid; each value falls
    into one of ``n_bins`` bins, to which the estimator gives probabilities. The bin that is to be
    predicted is taken as given: the encoder learns only from what a value tells about the later
    ones.

    **Score.** Minus log-likelihood plus mean squared error, each mapped to [0, 1] by its smallest
    and largest value over the training rows.

    **Departures.** The paper counts the one bin that a value falls into. Here the two bins with the
    nearest centres count in proportion, so that scores do not jump. The paper takes the extremes
    from normal rows that were held out. The estimator has no BatchNorm.

    **Setting.** The paper's text was not available: settings are from memory. For 28x28 images
    ``LSA(network=LeNet(channels=(32, 64), kernel_size=3, hidden=(64,), batch_norm=True),
    latent_dim=64, estimation_hidden=(32, 32, 32, 32), scaler="minmax")``; the paper's convolutions
    are residual. The default is as wide as a table needs.

    References
    ----------
    D. Abati, A. Porrello, S. Calderara and R. Cucchiara. Latent Space Autoregression for Novelty
    Detection. CVPR 2019. Its masked fully connected layers, objective and novelty score.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import LSA
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) @ np.ones((2, 6))
    >>> detector = LSA(random_state=0).fit(X)
    >>> detector.predict([[0] * 6, [9, -9] * 3])
    array([0, 1])
    """

    latent_dim: int | None = param(
        default=None,
        accepts=[integer(1), None],
        doc="Length of the code; None: 32 for images, 8 otherwise.",
    )
    n_bins: int = param(
        default=100, accepts=[integer(2)], doc="Parts of [0, 1] with a probability each."
    )
    estimation_hidden: tuple[int, ...] | list[int] = param(
        default=(16, 16),
        accepts=[tuple, list],
        doc="Channels of the estimator's hidden layers, for each value of the code.",
    )
    autoregression_weight: float = param(
        default=1.0, accepts=[real(0)], doc="Weight of minus the log-likelihood (lambda)."
    )
    score_by: Literal["combined", "likelihood", "reconstruction"] = param(
        default="combined",
        accepts=[one_of("combined", "likelihood", "reconstruction")],
        doc="The sum of both parts, minus the log-likelihood, or the mean squared error.",
    )
    family = "reconstruction"
    auto_steps = 250
    auto_epochs = 40
    auto_batch_norm = True
    paper = "Abati et al., Latent Space Autoregression for Novelty Detection, CVPR 2019"

    def _build_module(self, shape: Shape) -> nn.Module:
        network = self._network(shape)
        code = self.latent_dim or (32 if len(shape) == 3 else 8)
        encoder, decoder = network.encoder(shape, code), network.decoder(code, shape)
        return _Net(encoder, decoder, code, self.estimation_hidden, self.n_bins)

    def _loss(self, module: Any, batch: Batch) -> Losses:
        z = module.encode(batch.x)
        error = (module.decoder(z) - batch.x).square().flatten(1).sum(1)
        surprise = module.surprise(z, z.detach())
        return {
            "reconstruction": error.mean(),
            "autoregression": self.autoregression_weight * surprise.mean(),
        }

    def _parts(self, module: Any, x: Tensor) -> Tensor:
        """Return minus log-likelihood and error of each row, (B, 2)."""
        z = module.encode(x)
        return torch.stack([module.surprise(z, z), squared_error(module.decoder(z), x)], 1)

    def _after_training(self) -> Refresh:
        return Refresh(self._parts, lambda parts: {"low": parts.amin(0), "high": parts.amax(0)})

    def _joined(self, module: Any, parts: Tensor) -> Tensor:
        spread = module.high - module.low
        # Parts that were all equal in training are not divided.
        return ((parts - module.low) / spread.where(spread > EPS, 1.0)).sum(1)
