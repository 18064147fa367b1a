"""The perturbator of PLAD: x~ = alpha * x + beta, alpha and beta put out by a small network."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepod._base import BaseDetector
from deepod.networks import MLP
from deepod.params import integer, one_of, param, parameters
from deepod.types import Shape


@parameters
class Perturbation(BaseDetector):
    """Detector with a network g that perturbs samples."""

    perturbator: Literal["vae", "mlp"] = param(
        default="vae",
        accepts=[one_of("vae", "mlp")],
        doc="Whether the perturbation of a row is drawn from a learned distribution (equation 5) "
        "or deterministic (equation 3).",
    )
    penalty: Literal["mean", "sum"] = param(
        default="mean",
        accepts=[one_of("mean", "sum")],
        doc="Whether the penalty is a mean over the values of a sample or, as printed, a sum.",
    )
    perturbator_hidden: tuple[int, ...] | list[int] | None = param(
        default=None,
        accepts=[tuple, list, None],
        doc="g's hidden widths; None: min(size, 256), where size is the number of values that are "
        "perturbed.",
    )
    latent_dim: int | None = param(
        default=None, accepts=[integer(1), None], doc="Length of g's code; None: min(size, 64)."
    )
    alpha: Literal["identity", "raw"] = param(
        default="identity",
        accepts=[one_of("identity", "raw")],
        doc="Whether g puts out alpha - 1, so that it starts near no perturbation, or alpha.",
    )

    def _perturbator(self, shape: Shape, members: int) -> dict[str, nn.Module]:
        """Build the two parts of g for samples of ``shape``, all members of it side by side."""
        hidden = self.perturbator_hidden
        mlp = MLP(hidden=(min(torch.Size(shape).numel(), 256),) if hidden is None else hidden)
        latent = self._latent_dim(shape)
        code = 2 * latent if self.perturbator == "vae" else latent
        return {
            "encoder": mlp.encoder(shape, code, members),
            "decoder": mlp.decoder(latent, (2, *shape), members),
        }

    def _latent_dim(self, shape: Shape) -> int:
        return self.latent_dim or min(torch.Size(shape).numel(), 64)

    def _perturb(self, module: Any, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return x~ (K, B, *shape), and its penalty and its KL divergence (K, B)."""
        code = module["encoder"](x)
        kl = code.new_zeros(code.shape[:2])
        if self.perturbator == "vae":
            mean, log_variance = code.chunk(2, -1)  # (K, B, latent_dim) each
            log_variance = log_variance.clamp(-10, 10)
            kl = 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(-1)
            code = mean + (0.5 * log_variance).exp() * eps
        alpha, beta = module["decoder"](code).unbind(2)
        if self.alpha == "identity":
            alpha = 1 + alpha
        sizes = ((alpha - 1).square() + beta.square()).flatten(2)
        return alpha * x + beta, sizes.mean(-1) if self.penalty == "mean" else sizes.sum(-1), kl
