"""What the methods of the Deep SVDD family share that keep their decoder."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from deepod.models.one_class._svdd import SVDD
from deepod.models.reconstruction._reconstruction import TwoParts
from deepod.networks.layers import moments, squared_error
from deepod.params import one_of, param, parameters, real
from deepod.types import Batch, Losses, Refresh


@parameters
class SVDDAutoencoder(SVDD, TwoParts):
    """Detector with a hypersphere around the codes of an autoencoder, both trained at once."""

    reconstruction_weight: float = param(
        default=0.01, accepts=[real(0)], doc="Weight of the mean squared error of reconstruction."
    )
    score_by: Literal["distance", "reconstruction", "combined"] = param(
        default="combined",
        accepts=[one_of("distance", "reconstruction", "combined")],
        doc="Squared distance of the code to the centre, mean squared error of the reconstruction, "
        "or the sum of both, each standardised over the training rows.",
    )

    def _keeps_decoder(self) -> bool:
        return True

    def _reconstruct(self, module: Any, x: Tensor) -> Tensor:
        return module.decoder(module.encoder(x))

    def _loss(self, module: Any, batch: Batch) -> Losses:
        z = module.encoder(batch.x)
        error = squared_error(module.decoder(z), batch.x).mean()
        return {
            "svdd": self._svdd(module, z),
            "reconstruction": self.reconstruction_weight * error,
        }

    def _parts(self, module: Any, x: Tensor) -> Tensor:
        """Return distance and error of each row, (B, 2)."""
        z = module.encoder(x)
        return torch.stack([module.distance(z), squared_error(module.decoder(z), x)], 1)

    def _score(self, module: Any, x: Tensor) -> Tensor:
        if self.score_by == "distance":  # without the decoder, which need not be there
            return super()._score(module, x)
        return TwoParts._score(self, module, x)

    def _after_training(self) -> Refresh | None:
        if not self._keeps_decoder():
            return super()._after_training()

        def reduce(parts: Tensor) -> dict[str, Tensor]:
            radius = self._radius(parts[:, 0]) if self.objective == "soft" else {}
            return moments(parts) | radius

        return Refresh(self._parts, reduce)
