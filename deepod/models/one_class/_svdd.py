"""What the Deep SVDD family shares: centre, radius, phases of training."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from deepod.models._code import Coded
from deepod.networks import Network
from deepod.networks.layers import Hypersphere, away_from_zero, squared_error
from deepod.params import integer, one_of, param, parameters, real
from deepod.types import Batch, Losses, Phase, Refresh, Shape


def _encode(module: Any, x: Tensor) -> Tensor:
    return module.encoder(x)


def _distance(module: Any, x: Tensor) -> Tensor:
    return module.distance(module.encoder(x))


@parameters
class SVDD(Coded):
    """Detector with one hypersphere around the codes of the training rows.

    Attributes
    ----------
    center_ : ndarray of shape (latent_dim,)
        Centre of the hypersphere.
    radius_ : float
        Its radius; 0 for ``objective="hard"``.
    """

    objective: Literal["hard", "soft"] = param(
        default="hard",
        accepts=[one_of("hard", "soft")],
        doc="'hard' pulls every row to the centre (one-class Deep SVDD); 'soft' only those outside "
        "a radius (soft-boundary).",
    )
    nu: float = param(
        default=0.1,
        accepts=[real(0, 1)],
        doc="Share of training rows outside the radius; above 0. 'soft' only.",
    )
    warmup_epochs: int = param(
        default=10, accepts=[integer(0)], doc="Epochs before the radius leaves 0. 'soft' only."
    )
    pretrain_epochs: int | Literal["auto"] = param(
        default="auto",
        accepts=[integer(0), one_of("auto")],
        doc="Epochs of training as an autoencoder, before the centre is set, without "
        "``milestones``; 'auto': as many as ``epochs``.",
    )
    center_eps: float = param(
        default=0.1,
        accepts=[real(0)],
        doc="Coordinates of the centre closer to 0 than this are moved there: a centre at 0 is "
        "what an encoder reaches by losing all its weights.",
    )
    family = "one-class"
    auto_steps = 300
    auto_epochs = 40
    auto_batch_norm = True

    # --- the module -----------------------------------------------------------------------------

    def _encoder(self, network: Network, shape: Shape, code: int) -> nn.Module:
        return network.encoder(shape, code)

    def _keeps_decoder(self) -> bool:
        """Return whether the loss after pre-training needs the decoder."""
        return False

    def _build_module(self, shape: Shape) -> nn.Module:
        if not self.nu > 0:
            raise ValueError(f"nu must be above 0, got {self.nu!r}.")
        network = self._network(shape)
        code = self._code_length(shape)
        # Biases would let the encoder map every row onto the centre.
        unbiased = "bias" in network.get_params()
        encoding = clone(network).set_params(bias=False) if unbiased else network
        encoder = self._encoder(encoding, shape, code)
        decode = self._keeps_decoder() or self._pretrain_epochs()
        return Hypersphere(encoder, code, network.decoder(code, shape) if decode else None)

    # --- phases ---------------------------------------------------------------------------------

    def _pretrain_epochs(self) -> int:
        return self.epochs_ if self.pretrain_epochs == "auto" else self.pretrain_epochs

    def _phases(self) -> list[Phase]:
        milestones = tuple(self.milestones)
        center = Refresh(_encode, self._center)
        radius = Refresh(_distance, self._radius)
        pretrain = Phase("pretrain", self._pretrain_epochs(), self._reconstruction)
        fit = Phase(
            "fit",
            self.epochs_,
            self._loss,
            milestones=milestones,
            start=center,
            each_epoch=radius if self.objective == "soft" else None,
            skip=self.warmup_epochs,
        )
        return [pretrain, fit] if pretrain.epochs else [fit]

    def _after_training(self) -> Refresh | None:
        # The radius of the weights that training ended with, or went back to.
        return Refresh(_distance, self._radius) if self.objective == "soft" else None

    def _center(self, codes: Tensor) -> dict[str, Tensor]:
        return {"center": away_from_zero(codes.mean(0), self.center_eps)}

    def _radius(self, distances: Tensor) -> dict[str, Tensor]:
        # The (1 - nu)-quantile of the true distances. Sorted: torch.quantile refuses long tensors.
        rank = max(0, int(np.ceil((1 - self.nu) * len(distances))) - 1)
        return {"radius": distances.sort().values[rank].sqrt()}

    def _reconstruction(self, module: Any, batch: Batch) -> Losses:
        error = squared_error(module.decoder(module.encoder(batch.x)), batch.x)
        return {"reconstruction": error.mean()}

    def _loss(self, module: Any, batch: Batch) -> Losses:
        return {"svdd": self._svdd(module, module.encoder(batch.x))}

    def _svdd(self, module: Any, z: Tensor) -> Tensor:
        distance = module.distance(z)
        if self.objective == "hard":
            return distance.mean()
        squared = module.radius.square()
        return squared + (distance - squared).clamp_min(0).mean() / self.nu

    def _score(self, module: Any, x: Tensor) -> Tensor:
        return _distance(module, x)

    @property
    def center_(self) -> np.ndarray:
        """The centre of the hypersphere."""
        check_is_fitted(self)
        return self.module_.get_buffer("center").cpu().numpy()

    @property
    def radius_(self) -> float:
        """The radius of the hypersphere."""
        check_is_fitted(self)
        return float(self.module_.get_buffer("radius"))
