"""IGD: a Gaussian around the codes of an autoencoder that also decodes what lies between them."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepod.models._code import Coded
from deepod.models.reconstruction._reconstruction import TwoParts
from deepod.networks.layers import EncoderDecoder, away_from_zero, drawn_by, squared_error
from deepod.params import one_of, param, parameters, real
from deepod.types import Batch, Losses, Phase, Refresh, Shape


class _Net(EncoderDecoder):
    """Autoencoder, critic of what is decoded, and the Gaussian on the codes."""

    center: Tensor
    width: Tensor

    def __init__(self, encoder: nn.Module, decoder: nn.Module, critic: nn.Module, d: int) -> None:
        super().__init__(encoder, decoder)
        self.critic = critic
        self.register_buffer("center", torch.zeros(d))
        self.register_buffer("width", torch.ones(()))  # 2 sigma^2

    def gaussian(self, z: Tensor) -> Tensor:
        """Return 1 - exp(-|z - c|^2 / (2 sigma^2)) of each code, (B,)."""
        return 1 - (-(z - self.center).square().sum(1) / self.width).exp()

    def mixed(self, z: Tensor, share: Tensor) -> Tensor:
        """Decode each code mixed with that of another row, of which it is ``share``."""
        return self.decoder(share * z + (1 - share) * z.flip(0))


def _encode(module: Any, x: Tensor) -> Tensor:
    return module.encoder(x)


@parameters
class IGD(Coded, TwoParts):
    """Interpolated Gaussian descriptor: an autoencoder whose codes follow one Gaussian.

    Training also decodes mixtures of the codes of two rows, and a critic learns to tell from what
    is decoded how they were mixed. The autoencoder learns to leave the critic no trace, so that
    what lies between two normal rows looks normal too. The score is the mean of the reconstruction
    error and of how far the code is from the centre of the Gaussian, as 1 - exp(-|z - c|^2 / (2
    sigma^2)).

    Notes
    -----
    **When to use it.** Training rows are (nearly) all normal and of one kind.

    **When it fails.** There are two clusters or more: what lies between them would have to look
    normal, too. Else where :class:`deepod.IAEAD` fails. All rows far outside have the largest
    Gaussian term, 1, and are ranked by their error.

    **Loss.** Autoencoder and critic take turns in each batch. The autoencoder minimises the mean
    squared error, plus ``gaussian_weight`` times the mean of the Gaussian term, plus
    ``interpolation_weight`` times the mean square of what the critic says of mixtures. The critic
    minimises the squared difference of what it says to the share of the mixture, which is uniform
    on (0, 0.5), plus the square of what it says of reconstructions that are moved to their row by a
    fifth. After every epoch c becomes the mean code, with coordinates pushed 0.1 off zero, and 2
    sigma^2 the mean squared distance to it, at least 1.

    **Left out of the paper.** The structural similarity of images (MS-SSIM and L1; here the mean
    squared error), encoders pre-trained on ImageNet, patches and two scales for MVTec, and the
    polynomial decay of the learning rate. The published code updates c and sigma every ten epochs.
    Codes of tables and windows are ours.

    **Setting.** The paper's text was not available: the published code has ``latent_dim=128,
    lr=1e-4, epochs=256``.

    References
    ----------
    Y. Chen, Y. Tian, G. Pang and G. Carneiro. Deep One-Class Classification via Interpolated
    Gaussian Descriptor. AAAI 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import IGD
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = IGD(random_state=0).fit(X)
    >>> detector.predict([[0, 0, 0], [9, 9, 9]])
    array([0, 1])
    """

    gaussian_weight: float = param(
        default=1.0, accepts=[real(0)], doc="Weight of the Gaussian term."
    )
    interpolation_weight: float = param(
        default=0.1,
        accepts=[real(0)],
        doc="Weight of the critic's opinion of mixtures; 0 leaves them and the critic out.",
    )
    center_eps: float = param(
        default=0.1,
        accepts=[real(0)],
        doc="Coordinates of the centre closer to 0 than this are moved there.",
    )
    score_by: Literal["combined", "gaussian", "reconstruction"] = param(
        default="combined",
        accepts=[one_of("combined", "gaussian", "reconstruction")],
        doc="The mean of both parts, the Gaussian term, or the mean squared error.",
    )
    family = "one-class"
    auto_steps = 300
    auto_epochs = 40
    auto_batch_norm = True
    paper = "Chen et al., Deep One-Class Classification via Interpolated Gaussian Descriptor, 2022"

    def _build_module(self, shape: Shape) -> nn.Module:
        network = self._network(shape)
        code = self._code_length(shape)
        encoder, decoder = network.encoder(shape, code), network.decoder(code, shape)
        return _Net(encoder, decoder, network.encoder(shape, 1), code)

    def _phases(self) -> list[Phase]:
        fit = Phase(
            "fit",
            self.epochs_,
            self._loss,
            params=("encoder", "decoder"),
            start=self._gaussian(),
            each_epoch=self._gaussian(),
            milestones=tuple(self.milestones),
            cycle="game",
        )
        critic = Phase(
            "critic",
            self.epochs_,
            self._critic_loss,
            params=("critic",),
            milestones=tuple(self.milestones),
            cycle="game",
        )
        # A critic that nobody listens to is not trained.
        return [fit, critic] if self.interpolation_weight else [fit]

    def _after_training(self) -> Refresh:
        return self._gaussian()

    def _gaussian(self) -> Refresh:
        def reduce(codes: Tensor) -> dict[str, Tensor]:
            center = away_from_zero(codes.mean(0), self.center_eps)
            width = (codes - center).square().sum(1).mean().clamp_min(1.0)
            return {"center": center, "width": width}

        return Refresh(_encode, reduce)

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Tensor:
        return 0.5 * torch.rand(n, 1, **drawn_by(generator))  # shares

    def _loss(self, module: Any, batch: Batch) -> Losses:
        z = module.encoder(batch.x)
        terms = {
            "reconstruction": squared_error(module.decoder(z), batch.x).mean(),
            "gaussian": self.gaussian_weight * module.gaussian(z).mean(),
        }
        if self.interpolation_weight:
            opinion = module.critic(module.mixed(z, batch.noise))
            terms["interpolation"] = self.interpolation_weight * opinion.square().mean()
        return terms

    def _critic_loss(self, module: Any, batch: Batch) -> Losses:
        z = module.encoder(batch.x).detach()
        mixed, found = module.mixed(z, batch.noise).detach(), module.decoder(z).detach()
        known = found + 0.2 * (batch.x - found)
        difference = module.critic(mixed) - batch.noise
        return {"critic": difference.square().mean() + module.critic(known).square().mean()}

    def _parts(self, module: Any, x: Tensor) -> Tensor:
        """Return Gaussian term and error of each row, (B, 2)."""
        z = module.encoder(x)
        return torch.stack([module.gaussian(z), squared_error(module.decoder(z), x)], 1)

    def _joined(self, module: Any, parts: Tensor) -> Tensor:
        return parts.sum(1) / 2  # both in [0, 1] or so: not standardised
