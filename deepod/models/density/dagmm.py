"""DAGMM: a mixture of Gaussians over codes and reconstruction errors, learned with them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from deepod._base import BaseDetector
from deepod.networks import MLP
from deepod.networks.layers import EPS, EncoderDecoder, drawn_by
from deepod.params import integer, param, parameters, real
from deepod.types import Batch, Losses, Phase, Refresh, Shape

JITTER = 1e-6  # added to variances, so that no covariance is singular
LEAST = 0.1  # root mean square of a row, scaled, below which it counts as this


class _Mixture(nn.Module):
    """Autoencoder, estimation network, and the mixture of all training rows."""

    log_weight: Tensor
    mean: Tensor
    factor: Tensor

    def __init__(self, autoencoder: EncoderDecoder, code: int, estimation: MLP, k: int) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.hidden, width = estimation.features((code + 2,))
        self.head = nn.Linear(width, k)
        # What the density is made of: see _density.
        self.register_buffer("log_weight", torch.zeros(k))
        self.register_buffer("mean", torch.zeros(k, code + 2))
        self.register_buffer("factor", torch.eye(code + 2).repeat(k, 1, 1))


def _precise(x: Tensor) -> Tensor:
    return x if x.device.type == "mps" else x.double()  # MPS has no float64


def _size(x: Tensor) -> Tensor:
    """Return the root mean square of each row, (B,); its gradient is finite at zero."""
    return (x.square().mean(1) + EPS**2).sqrt()


def _represent(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return reconstructions (B, *shape), and codes, relative errors and cosines (B, D)."""
    code = module.autoencoder.encoder(x)
    reconstruction = module.autoencoder.decoder(code)
    x, found = _precise(x.flatten(1)), _precise(reconstruction.flatten(1))
    size, size_found = (_size(rows).clamp_min(LEAST) for rows in (x, found))
    relative = _size(x - found) / size
    cosine = (x * found).mean(1) / (size * size_found)
    return reconstruction, torch.cat([_precise(code), torch.stack([relative, cosine], 1)], 1)


def _memberships(module: Any, z: Tensor, keep: Tensor | float = 1.0) -> Tensor:
    """Return the share of each Gaussian in each row, (B, K); ``keep`` is the dropout's mask."""
    return _precise(module.head(module.hidden(z.float()) * keep)).softmax(1)


def _mixture(z: Tensor, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights (K,), means (K, D) and covariances (K, D, D) (equation 5)."""
    total = shares.sum(0).clamp_min(EPS)
    mean = shares.T @ z / total[:, None]
    away = z - mean[:, None]  # (K, B, D)
    covariance = (shares.T[..., None] * away).mT @ away / total[:, None, None]
    return total / len(z), mean, covariance + JITTER * torch.eye(z.shape[1]).to(z)


def _density(weight: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the log-density at each mean, the means, and matrices that whiten (K, D, D)."""
    # A part of the variances is added again, or float64 could not tell large ones from singular.
    spread = covariance.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    identity = torch.eye(mean.shape[1]).to(mean)
    lower = torch.linalg.cholesky_ex(covariance + 1e-10 * spread * identity).L
    factor = torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False)
    log_volume = lower.diagonal(dim1=1, dim2=2).log().sum(1)
    constant = mean.shape[1] / 2 * math.log(2 * math.pi)
    return weight.log() - log_volume - constant, mean, factor


def _energy(z: Tensor, log_weight: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """Return the negative log-likelihood of each row, (B,) (equation 6)."""
    whitened = (z - mean.to(z)[:, None]) @ factor.to(z).mT  # (K, B, D)
    return -(log_weight.to(z)[:, None] - whitened.square().sum(2) / 2).logsumexp(0)


@parameters
class DAGMM(BaseDetector):
    """Deep autoencoding Gaussian mixture model: a mixture of Gaussians over codes and errors.

    An autoencoder gives each row a short code and two numbers on how well it is rebuilt: the
    relative error ||x - x'|| / ||x|| and the cosine of x and x'. A second network says to which
    Gaussian a row belongs. The score is how unlikely a row is under the mixture.

    Notes
    -----
    **When to use it.** Most training rows are normal, and fall into a few clusters. The two numbers
    need an origin far from the rows, hence [0, 1] as the default scaling.

    **When it fails.** The code collapses, which makes all rows likelier: only the penalty on small
    variances is against it. Results vary with the seed more than those of other methods. On images
    it is near chance (``docs/papers.md``).

    **Loss** (equation 7). ||x - x'||^2 + ``energy_weight`` * E(z) + ``covariance_weight`` * the sum
    of 1 over all variances, with the energy E(z) = -log sum_k phi_k N(z; mu_k, Sigma_k) (equation
    6), means over the rows of a batch. **Score.** E(z) under the mixture of all training rows
    (equation 5), found anew after every epoch; it may be negative.

    **Departures.** A row whose root mean square is below 0.1, in scaled units, counts as 0.1 where
    its norm divides: the relative error of a row of zeros would be infinite. 1e-6 is added to
    variances; mixtures are computed in float64.

    **Setting.** The paper's text was not available: settings are from memory. For Thyroid
    ``DAGMM(network=MLP(hidden=(12, 4), activation="tanh"), latent_dim=1, n_components=2,
    batch_size=1024, lr=1e-4, epochs=20000)``; Arrhythmia has ``hidden=(10,), latent_dim=2,
    batch_size=128, epochs=10000``.

    References
    ----------
    B. Zong, Q. Song, M. R. Min, W. Cheng, C. Lumezanu, D. Cho and H. Chen. Deep Autoencoding
    Gaussian Mixture Model for Unsupervised Anomaly Detection. ICLR 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import DAGMM
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) @ np.ones((2, 6))
    >>> detector = DAGMM(epochs=20, random_state=0).fit(X)
    >>> detector.predict([[0] * 6, [9, -9] * 3])
    array([0, 1])
    """

    latent_dim: int = param(default=2, accepts=[integer(1)], doc="Length of the code.")
    n_components: int = param(default=4, accepts=[integer(1)], doc="Gaussians of the mixture (K).")
    estimation_hidden: tuple[int, ...] | list[int] = param(
        default=(10,),
        accepts=[tuple, list],
        doc="Widths of the hidden layers of the network that gives the shares of the Gaussians.",
    )
    dropout: float = param(
        default=0.5, accepts=[real(0, 0.99)], doc="Chance that a unit of the last one is left out."
    )
    energy_weight: float = param(
        default=0.1, accepts=[real(0)], doc="Weight of the energy in the loss (lambda 1)."
    )
    covariance_weight: float = param(
        default=0.005,
        accepts=[real(0)],
        doc="Weight of the penalty on small variances (lambda 2).",
    )
    scaler = "minmax"
    family = "density"
    auto_steps, auto_epochs = 500, 80
    paper = "Zong et al., Deep Autoencoding Gaussian Mixture Model, ICLR 2018"

    def _build_module(self, shape: Shape) -> nn.Module:
        if self.batch_size == 1:
            raise ValueError("batch_size=1 leaves no mixture to estimate; use many more.")
        network, code = self._network(shape), self.latent_dim
        autoencoder = EncoderDecoder(network.encoder(shape, code), network.decoder(code, shape))
        estimation = MLP(hidden=self.estimation_hidden, activation="tanh")
        return _Mixture(autoencoder, code, estimation, self.n_components)

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Tensor:
        width = (self.latent_dim + 2, *self.estimation_hidden)[-1]
        return torch.rand(n, width, **drawn_by(generator))

    def _phases(self) -> list[Phase]:
        def collect(module: Any, x: Tensor) -> Tensor:
            z = _represent(module, x)[1]
            return torch.cat([z, _memberships(module, z)], 1)

        def reduce(found: Tensor) -> dict[str, Tensor]:
            mixture = _mixture(*found.tensor_split([self.latent_dim + 2], 1))
            names = ("log_weight", "mean", "factor")
            return dict(zip(names, _density(*mixture), strict=True))

        # After every epoch, for early stopping to put the mixture back that belongs to its weights.
        how, milestones = Refresh(collect, reduce), tuple(self.milestones)
        return [Phase("fit", self.epochs_, self._loss, None, None, how, how, 0, milestones)]

    def _loss(self, module: Any, batch: Batch) -> Losses:
        reconstruction, z = _represent(module, batch.x)
        keep = (batch.noise >= self.dropout) / (1 - self.dropout) if module.training else 1.0
        mixture = _mixture(z, _memberships(module, z, keep))
        penalty = (1 / mixture[2].diagonal(dim1=1, dim2=2)).sum()
        energy = _energy(z, *_density(*mixture)).mean()
        return {
            "reconstruction": (reconstruction - batch.x).flatten(1).square().sum(1).mean(),
            "energy": self.energy_weight * energy.float(),
            "covariance": self.covariance_weight * penalty.float(),
        }

    def _score(self, module: Any, x: Tensor) -> Tensor:
        z = _represent(module, x)[1]
        return _energy(z, module.log_weight, module.mean, module.factor)
