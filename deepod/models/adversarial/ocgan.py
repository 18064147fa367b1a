"""OCGAN: an autoencoder whose every code is to give a normal row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from deepod.models._code import Coded
from deepod.models.reconstruction._reconstruction import ErrorMaps
from deepod.networks import MLP
from deepod.networks.layers import EncoderDecoder, drawn_by, squared_error
from deepod.params import integer, param, parameters, real
from deepod.types import Batch, Losses, Phase, Shape


@contextmanager
def _fixed(*networks: nn.Module) -> Iterator[None]:
    """Put networks into eval mode, in which BatchNorm stores nothing, and back."""
    modes = [network.training for network in networks]
    for network in networks:
        network.eval()
    yield
    for network, mode in zip(networks, modes, strict=True):
        network.train(mode)


def _real(logits: Tensor) -> Tensor:
    """Return the cross-entropy of logits with the label real."""
    return softplus(-logits).mean()


def _fake(logits: Tensor) -> Tensor:
    return softplus(logits).mean()


@parameters
class OCGAN(Coded, ErrorMaps):
    """Constrained latent GAN: a denoising autoencoder whose every code decodes to a normal row.

    Codes are bounded, in (-1, 1)^d. Three networks are trained against the autoencoder until codes
    fill this cube and whatever is decoded from it looks normal. An abnormal row, for which there is
    then no code, is rebuilt badly: the score is its mean squared error.

    Notes
    -----
    **When to use it.** Only normal rows to train on.

    **When it fails.** Four networks against one another are unstable: other seeds give other
    rankings, and no loss says how well training went. As the reconstruction outweighs the rest, a
    game that fails leaves a denoising autoencoder. Codes in a cube cannot follow rows far out:
    normal rows in heavy tails score high.

    **Training.** The decoder is to give the row without noise from the code of the row with noise.
    In turns within every batch, the opponents learn: a discriminator of codes, codes of rows
    against uniform ones; a discriminator of rows, given rows against decoded uniform codes; and a
    weak classifier, decoded codes of rows against decoded uniform codes. Before each step of the
    autoencoder the uniform codes go ``mining_steps`` steps to where the classifier is surest that
    what is decoded is not normal (informative negatives): there the discriminator of rows has most
    to object to. The autoencoder minimises lambda |x - x'|^2 plus the cross-entropies of being
    taken for uniform and for real (algorithm 1, lambda = 10). No noise is added for scoring.

    **Departures.** The classifier and both discriminators take their steps at once, as none depends
    on the others.

    **Setting.** The paper's text was not available. For MNIST, as its authors' code documents it:
    ``OCGAN(scaler="minmax", noise_std=0.2**0.5, latent_dim=16, reconstruction_weight=10)``, with
    networks like LeNet.

    References
    ----------
    P. Perera, R. Nallapati and B. Xiang. OCGAN: One-class Novelty Detection Using GANs with
    Constrained Latent Representations. CVPR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import OCGAN
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) @ np.ones((2, 6))
    >>> detector = OCGAN(random_state=0).fit(X)
    >>> detector.predict([[0] * 6, [9, -9] * 3])
    array([0, 1])
    """

    noise_std: float = param(
        default=0.2,
        accepts=[real(0)],
        doc="Standard deviation of the Gaussian noise on rows to encode, scaled units.",
    )
    reconstruction_weight: float = param(
        default=10.0, accepts=[real(0)], doc="Weight of the squared error (lambda)."
    )
    mining_steps: int = param(
        default=3, accepts=[integer(0)], doc="Steps of the search for informative negatives."
    )
    mining_lr: float = param(
        default=0.1, accepts=[real(0)], doc="Length of such a step, of codes in (-1, 1)."
    )
    longest_code = 16
    family = "adversarial"
    auto_steps = 500
    auto_epochs = 80
    paper = "Perera et al., OCGAN: One-class Novelty Detection Using GANs, CVPR 2019"

    def _build_module(self, shape: Shape) -> nn.Module:
        network, code = self._network(shape), self._code_length(shape)
        encoder = nn.Sequential(network.encoder(shape, code), nn.Tanh())
        parts = {
            "autoencoder": EncoderDecoder(encoder, network.decoder(code, shape)),
            "of_codes": MLP(hidden=(64, 32)).encoder((code,), 1),
            "of_rows": network.encoder(shape, 1),
            "classifier": network.encoder(shape, 1),
        }
        return nn.ModuleDict(parts)

    def _phases(self) -> list[Phase]:
        opponents = ("of_codes.", "of_rows.", "classifier.")
        turns = {opponents: self._opponents_loss, ("autoencoder.",): self._loss}
        milestones = tuple(self.milestones)
        return [
            Phase("fit", self.epochs_, loss, params=parts, milestones=milestones, cycle="game")
            for parts, loss in turns.items()
        ]

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        to = drawn_by(generator)
        uniform = 2 * torch.rand(n, self._code_length(shape), **to) - 1
        return torch.randn(n, *shape, **to), uniform

    def _encode(self, module: Any, batch: Batch) -> Tensor:
        return module["autoencoder"].encoder(batch.x + self.noise_std * batch.noise[0])

    def _opponents_loss(self, module: Any, batch: Batch) -> Losses:
        z, uniform = self._encode(module, batch).detach(), batch.noise[1]
        decoder = module["autoencoder"].decoder
        decoded, made = decoder(z).detach(), decoder(uniform).detach()
        of_codes, of_rows, classifier = (
            module[name] for name in ("of_codes", "of_rows", "classifier")
        )
        return {
            "of_codes": _real(of_codes(uniform)) + _fake(of_codes(z)),
            "of_rows": _real(of_rows(batch.x)) + _fake(of_rows(made)),
            "classifier": _real(classifier(decoded)) + _fake(classifier(made)),
        }

    def _mined(self, module: Any, uniform: Tensor) -> Tensor:
        """Move codes to where the classifier is surest that what they decode to is not normal."""
        decoder, classifier = module["autoencoder"].decoder, module["classifier"]
        with _fixed(decoder, classifier):
            uphill = torch.func.grad(lambda z: softplus(-classifier(decoder(z))).sum())
            for _ in range(self.mining_steps):
                gradient = uphill(uniform).detach()
                length = gradient.norm(dim=1, keepdim=True).clamp_min(1e-12)
                uniform = (uniform + self.mining_lr * gradient / length).clamp(-1, 1)
        return uniform

    def _loss(self, module: Any, batch: Batch) -> Losses:
        z, decoder = self._encode(module, batch), module["autoencoder"].decoder
        made = decoder(self._mined(module, batch.noise[1]))
        error = squared_error(decoder(z), batch.x).mean()
        return {
            "reconstruction": self.reconstruction_weight * error,
            "codes": _real(module["of_codes"](z)),
            "rows": _real(module["of_rows"](made)),
        }

    def _reconstruct(self, module: Any, x: Tensor) -> Tensor:
        return module["autoencoder"](x)

    def _score(self, module: Any, x: Tensor) -> Tensor:
        return squared_error(self._reconstruct(module, x), x)

    def _scored_error(self) -> str:
        return "mse"
