"""Variational autoencoder: codes are distributions, kept near a normal one."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepod.models.reconstruction._reconstruction import ErrorMaps
from deepod.networks.layers import EncoderDecoder, drawn_by, squared_error
from deepod.params import integer, one_of, param, parameters, real
from deepod.types import Batch, Losses, Shape

LARGEST_LOG_VARIANCE = 10.0  # of a code


def _encode(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance of the code of each row, (B, latent_dim)."""
    mean, log_variance = module.encoder(x).chunk(2, 1)
    return mean, log_variance.clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the KL divergence of each code from the standard normal distribution, (B,)."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2


@parameters
class VAE(ErrorMaps):
    """Variational autoencoder: an autoencoder whose codes are noisy and kept near the origin.

    The encoder gives each row a Gaussian distribution of codes, and one drawn from it is decoded.
    The score is the mean squared error of the reconstruction from the mean of the code, or the loss
    there.

    Notes
    -----
    **When to use it.** Most training rows are normal, and you want a bottleneck that does not
    depend on the length of the code: the noise is one.

    **When it fails.** Where :class:`deepod.AutoEncoder` fails. Directions in which scaled rows have
    a variance below ``kl_weight`` are not coded, and are rebuilt by their mean; with a large weight
    that is true of all directions.

    **Loss.** The negative evidence lower bound (Kingma and Welling, section 3 and appendix B), for
    values with a Gaussian distribution of variance 1 around the decoded ones, without its constant:
    ||x - x'||^2 / 2 + ``kl_weight`` * KL(q(z | x) || N(0, I)), means over the rows, with one code
    drawn for each. ``kl_weight`` other than 1 is the beta of Higgins et al. (ICLR 2017).

    **Score.** Nothing is drawn for a score, so that a row always has the same. Papers differ in it:
    OCGAN's comparison, which the NS-AE paper quotes, and the IAE-LSTM-KL paper take the
    reconstruction, others ``score_by="elbo"``.

    **Setting.** PyOD's VAE is near ``VAE(network=MLP(hidden=(128, 64, 32), activation="relu"),
    latent_dim=2)``.

    References
    ----------
    D. P. Kingma and M. Welling. Auto-Encoding Variational Bayes. ICLR 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import VAE
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) @ np.ones((2, 6))
    >>> detector = VAE(epochs=20, random_state=0).fit(X)
    >>> detector.predict([[0] * 6, [9, -9] * 3])
    array([0, 1])
    """

    latent_dim: int = param(default=32, accepts=[integer(1)], doc="Length of the code.")
    kl_weight: float = param(
        default=1.0, accepts=[real(0)], doc="Weight of the divergence of the codes (beta)."
    )
    score_by: Literal["reconstruction", "elbo"] = param(
        default="reconstruction",
        accepts=[one_of("reconstruction", "elbo")],
        doc="The score: error of the reconstruction, or the loss at the mean of the code.",
    )
    family = "reconstruction"
    auto_steps, auto_epochs, auto_batch_norm = 250, 40, True
    paper = "Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014"

    def _build_module(self, shape: Shape) -> nn.Module:
        network, code = self._network(shape), self.latent_dim
        return EncoderDecoder(network.encoder(shape, 2 * code), network.decoder(code, shape))

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Tensor:
        return torch.randn(n, self.latent_dim, **drawn_by(generator))

    def _reconstruct(self, module: Any, x: Tensor) -> Tensor:
        return module.decoder(_encode(module, x)[0])

    def _loss(self, module: Any, batch: Batch) -> Losses:
        mean, log_variance = _encode(module, batch.x)
        found = module.decoder(mean + (log_variance / 2).exp() * batch.noise)
        half = batch.x[0].numel() / 2
        return {
            "reconstruction": half * squared_error(found, batch.x).mean(),
            "kl": self.kl_weight * _divergence(mean, log_variance).mean(),
        }

    def _score(self, module: Any, x: Tensor) -> Tensor:
        mean, log_variance = _encode(module, x)
        error = squared_error(module.decoder(mean), x)
        if self.score_by == "reconstruction":
            return error
        half = x[0].numel() / 2
        return half * error + self.kl_weight * _divergence(mean, log_variance)

    def _scored_error(self) -> str | None:
        return "mse" if self.score_by == "reconstruction" else None
