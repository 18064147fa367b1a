"""NS-AE: an autoencoder with a novelty-scoring head and a normalised loss."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepod.models.reconstruction._reconstruction import ErrorMaps
from deepod.networks import MLP
from deepod.networks.layers import ERRORS, EncoderDecoder, HardConcrete, RunningMinMax, drawn_by
from deepod.params import integer, one_of, param, parameters, real
from deepod.types import Batch, Losses, Shape

COUNTED = 1e-10  # weights above it count as non-zero (paper, section 3)


class _Net(nn.Module):
    """Autoencoder and novelty head."""

    def __init__(self, autoencoder: EncoderDecoder, novelty: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.novelty = novelty

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstructions (B, *shape) and novelty scores (B,)."""
        z = self.autoencoder.encoder(x)
        return self.autoencoder.decoder(z), torch.sigmoid(self.novelty(z)).squeeze(-1)


@parameters
class NSAE(ErrorMaps):
    """Novelty normalisation: an autoencoder with a novelty score, both scaled by each batch.

    A small network, the novelty head, reads the code of a row and gives a number from 0 to 1. Error
    and novelty are joined to S = (1 - novelty_weight) * error + novelty_weight * novelty. In
    training S is mapped to [0, 1] by its extremes in the batch; for scoring, by the mean extremes
    of training.

    Notes
    -----
    **When to use it.** To compare with published figures. As a detector it does what
    :class:`deepod.AutoEncoder` does, and fails where that one fails. Most training rows have to be
    normal.

    **What the parts do.** The novelty head has no target but 0 and learns a constant: it tells
    nothing of its own. With ``normalize="attached"``, the loss as printed, gradients flow through
    the extremes and sum up to zero: the worst rows are pushed up, and unbounded outputs diverge.
    ``"detach"`` is the plain loss at another scale. In scoring, the mapping cannot change a
    ranking. The number of non-zero weights is subtracted from the loss, as printed, against the
    solution that all weights are 0; ``l0="count"`` has no gradient and is only logged,
    ``l0="hard_concrete"`` has gates with gradients. The term ``normalization`` of ``history_`` is
    the normalised loss less S: for :class:`deepod.callbacks.EarlyStopping`, hold rows out or watch
    ``monitor="reconstruction"``. ``benchmarks/README.md`` has what we measured.

    **Setting.** The paper's setting for 28x28 images: ``NSAE(network=LeNet(channels=(8, 4),
    hidden=(), bias=True), latent_dim=32, normalize="attached", error="norm", scaler="minmax",
    milestones=(30, 60, 90))``; for 32x32 ``channels=(32, 64, 128)``, ``latent_dim=64``,
    ``novelty_layers=3``. Channels, epochs, batch size and learning rate are not stated. Ablations
    (Table 4): ``normalize=None, novelty_weight=0`` is the autoencoder alone, ``novelty_weight=0``
    adds the normalisation; with neither changed, it is the whole method.

    References
    ----------
    J.-C. Wu, S. Lu, C.-S. Fuh and T.-L. Liu. One-class Anomaly Detection via Novelty Normalization.
    Computer Vision and Image Understanding, 2021. Equations 1 to 7.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import NSAE
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) @ np.ones((2, 6))
    >>> detector = NSAE(epochs=20, random_state=0).fit(X)
    >>> detector.predict([[0] * 6, [9, -9] * 3])
    array([0, 1])
    """

    latent_dim: int | None = param(
        default=None,
        accepts=[integer(1), None],
        doc="Length of the code; None: 32 for images, 8 otherwise.",
    )
    error: Literal["mse", "norm"] = param(
        default="mse",
        accepts=[one_of("mse", "norm")],
        doc="Error of the reconstruction: mean squared, or the Euclidean norm (printed).",
    )
    novelty_weight: float = param(
        default=0.5, accepts=[real(0, 1)], doc="Share of the novelty score in S (lambda 1)."
    )
    novelty_layers: int = param(
        default=2, accepts=[integer(1)], doc="Dense layers of the novelty head, wide as the code."
    )
    normalize: Literal["detach", "attached"] | None = param(
        default="detach",
        accepts=[one_of("detach", "attached"), None],
        doc="Normalisation of the loss by the extremes of the batch: without gradients through "
        "them, with (as printed), or none.",
    )
    l0: Literal["count", "hard_concrete"] = param(
        default="count",
        accepts=[one_of("count", "hard_concrete")],
        doc="The term of the non-zero weights: counted and logged, or gates that can be trained.",
    )
    l0_weight: float = param(
        default=1e-5, accepts=[real(0)], doc="Weight of that term (lambda 2); 0 leaves it out."
    )
    family = "reconstruction"
    auto_steps = 250
    auto_epochs = 40
    auto_batch_norm = True
    paper = "Wu et al., One-class Anomaly Detection via Novelty Normalization, CVIU 2021"

    def _build_module(self, shape: Shape) -> nn.Module:
        if self.normalize == "attached" and self.batch_size < 3:
            raise ValueError("batch_size must be 3 or more with normalize='attached': of two rows "
                             "the normalised loss is constant.")  # fmt: skip
        network = self._network(shape)
        code = self.latent_dim or (32 if len(shape) == 3 else 8)
        autoencoder = EncoderDecoder(network.encoder(shape, code), network.decoder(code, shape))
        head = MLP(hidden=(code,) * (self.novelty_layers - 1)).encoder((code,), 1)
        net: nn.Module = _Net(autoencoder, head)
        if self.l0 == "hard_concrete":
            net = HardConcrete(net)
        parts = {"net": net, "extremes": RunningMinMax(attached=self.normalize == "attached")}
        return nn.ModuleDict(parts)

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Tensor | None:
        if self.l0 == "count":
            return None
        gates = self.module_.get_parameter("net.log_odds")
        return torch.rand(gates.shape, **drawn_by(generator))

    def _reconstruct(self, module: Any, x: Tensor) -> Tensor:
        return module["net"](x)[0]

    def _parts(self, module: Any, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return weighted error and novelty of each row, whose sum is S (equations 5 and 7)."""
        gates = () if noise is None else (noise,)
        reconstruction, novelty = module["net"](x, *gates)
        error = ERRORS[self.error](reconstruction, x)
        return (1 - self.novelty_weight) * error, self.novelty_weight * novelty

    def _loss(self, module: Any, batch: Batch) -> Losses:
        error, novelty = self._parts(module, batch.x, batch.noise)
        terms = {"reconstruction": error.mean(), "novelty": novelty.mean()}
        if self.normalize is not None and module.training:
            # Equation 6, told apart from S itself, which alone can be followed over the epochs: a
            # loss divided by the extremes of its own batch hardly changes. Rows that are only
            # watched are not normalised.
            plain = error + novelty
            terms["normalization"] = (module["extremes"](plain) - plain).mean()
        if self.l0_weight:  # equation 4: subtracted, against the trivial solution W = 0
            if self.l0 == "hard_concrete":
                size = module["net"].expected_l0()
            else:  # no gradient
                counts = [(p.detach().abs() > COUNTED).sum() for p in module["net"].parameters()]
                size = torch.stack(counts).sum()
            terms["l0"] = -self.l0_weight * size
        return terms

    def _score(self, module: Any, x: Tensor) -> Tensor:
        s = torch.stack(self._parts(module, x)).sum(0)
        return s if self.normalize is None else module["extremes"](s)

    def _scored_error(self) -> str | None:
        return None if self.novelty_weight or self.normalize else self.error
