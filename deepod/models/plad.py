"""PLAD: learn small perturbations that a classifier can still tell from the normal data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from deepod._base import BaseDetector
from deepod._params import integer, one_of, param, parameters, real
from deepod._types import Batch, Losses, Shape
from deepod.networks import MLP


class PLADModule(nn.Module):
    """Classifiers f and perturbators g, ``members`` of each; member k is the k-th pair."""

    def __init__(
        self, classifier: nn.Module, encoder: nn.Module, decoder: nn.Module, vae: bool
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.encoder = encoder
        self.decoder = decoder
        self.vae = vae

    def logits(self, x: Tensor) -> Tensor:
        """Logit of being abnormal: (B, *shape) or (K, B, *shape) -> (K, B)."""
        return self.classifier(x).squeeze(-1)

    def perturbator(self, x: Tensor, eps: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, beta (K, B, *shape) and the KL divergence (K, B) of the code.

        ``eps`` (K, B, latent_dim) is the noise of the VAE; None takes the mean code.
        """
        code = self.encoder(x)
        kl = code.new_zeros(code.shape[:2])
        if self.vae:
            mean, log_variance = code.chunk(2, -1)
            log_variance = log_variance.clamp(-10, 10)
            kl = 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(-1)
            code = mean if eps is None else mean + (0.5 * log_variance).exp() * eps
        alpha, beta = self.decoder(code).unbind(2)
        return alpha, beta, kl


@parameters
class PLAD(BaseDetector):
    """Perturbation learning: a classifier against the smallest perturbations it can detect.

    A perturbator g turns every normal row x into x~ = alpha * x + beta; a classifier f learns to
    tell x from x~; both minimise one loss, in which a penalty keeps alpha near 1 and beta near 0.
    f is the score. Assumes that the training rows are (nearly all) normal.
    """

    perturbator: str = param(
        default="vae",
        accepts=[one_of("vae", "mlp")],
        doc="'vae' draws the perturbation of a row from a learned distribution (equation 5), 'mlp' "
        "is deterministic (equation 3).",
    )
    lam: float = param(
        default=3.0,
        accepts=[real(0, None, closed="left")],
        doc="Weight of the penalty on the perturbation.",
    )
    penalty: str = param(
        default="mean",
        accepts=[one_of("mean", "sum")],
        doc="Whether the penalty is the mean over the features, or their sum as printed.",
    )
    kl_weight: float = param(
        default=1.0,
        accepts=[real(0, None, closed="left")],
        doc="Weight of the KL divergence of the VAE's code.",
    )
    perturbator_hidden: Any = param(
        default=None,
        accepts=[tuple, list, None],
        doc="Widths of the perturbator's hidden layers; None is one layer as wide as a flat "
        "sample, but at most 256.",
    )
    latent_dim: int | None = param(
        default=None,
        accepts=[integer(1), None],
        doc="Length of the perturbator's code; None is min(features, 64).",
    )
    alpha: str = param(
        default="identity",
        accepts=[one_of("identity", "raw")],
        doc="Whether the perturbator puts out alpha - 1, so that training starts near no "
        "perturbation, or alpha itself.",
    )
    n_members: int = param(
        default=1,
        accepts=[integer(1)],
        doc="Pairs of classifier and perturbator whose probabilities are averaged.",
    )
    supervision: str | None = param(
        default=None,
        accepts=[one_of("drop_anomalies"), None],
        doc="'drop_anomalies' leaves the rows with y == 1 out of training; None ignores y.",
    )

    family = "perturbation"
    paper = "Cai & Fan, Perturbation Learning Based Anomaly Detection, NeurIPS 2022"

    def _build_module(self, shape: Shape) -> nn.Module:
        size = torch.Size(shape).numel()
        hidden = self.perturbator_hidden
        mlp = MLP(hidden=(min(size, 256),) if hidden is None else hidden)
        latent, vae = self._latent_dim(shape), self.perturbator == "vae"
        return PLADModule(
            self._network(shape).encoder(shape, 1, self.n_members),
            mlp.encoder(shape, 2 * latent if vae else latent, self.n_members),
            mlp.decoder(latent, (2, *shape), self.n_members),
            vae,
        )

    def _latent_dim(self, shape: Shape) -> int:
        return self.latent_dim or min(torch.Size(shape).numel(), 64)

    def _prepare(
        self, X: np.ndarray, y: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        return (X if y is None else X[y == 0]), None

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Any:
        size = (self.n_members, n, self._latent_dim(shape))
        return torch.randn(size, generator=generator, device=generator.device)

    def _perturb(
        self, module: PLADModule, x: Tensor, eps: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x~ (K, B, *shape), its penalty and its KL divergence (K, B)."""
        alpha, beta, kl = module.perturbator(x, eps)
        if self.alpha == "identity":
            alpha = 1 + alpha
        penalty = ((alpha - 1).square() + beta.square()).flatten(2)
        return alpha * x + beta, getattr(penalty, self.penalty)(-1), kl

    def _loss(self, module: PLADModule, batch: Batch) -> Losses:  # type: ignore[override]
        perturbed, penalty, kl = self._perturb(module, batch.x, batch.noise)
        logits = module.logits(torch.cat([batch.x.expand_as(perturbed), perturbed], 1))
        normal, abnormal = logits.chunk(2, 1)  # (K, B) each
        return {  # equations 3 and 5; label 0 is normal
            "normal": softplus(normal).mean(),
            "perturbed": softplus(-abnormal).mean(),
            "penalty": self.lam * penalty.mean(),
            "kl": self.kl_weight * kl.mean(),
        }

    def _score(self, module: PLADModule, x: Tensor) -> Tensor:  # type: ignore[override]
        logits = module.logits(x)  # (K, B)
        # Logit of the mean probability, in a form that never saturates.
        return torch.logsumexp(logsigmoid(logits), 0) - torch.logsumexp(logsigmoid(-logits), 0)
