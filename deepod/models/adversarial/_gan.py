"""What methods share that train a generator against a discriminator and search it afterwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from deepod.models._code import Coded
from deepod.networks import Network
from deepod.networks.layers import drawn_by
from deepod.params import integer, param, parameters
from deepod.types import Batch, Losses, Phase, Shape


class Discriminator(nn.Module):
    """Network that tells real from generated rows: (B, *shape) -> logits (B,)."""

    def __init__(self, network: Network, shape: Shape) -> None:
        super().__init__()
        self.features, width = network.features(shape)
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logit of being real, (B,)."""
        return self.head(self.features(x)).squeeze(-1)


@parameters
class GAN(Coded):
    """Detector with a generator and a discriminator, which take turns in every batch."""

    n_starts: int = param(
        default=64,
        accepts=[integer(1)],
        doc="Points z that a search may start from: drawn once, in ``fit``, so that scores are "
        "not random.",
    )
    family = "adversarial"
    inputs = ("table", "images")
    auto_steps = 1000
    auto_epochs = 200
    auto_of_images = "lenet"
    # The search follows gradients, which no graph of operators holds.
    has_graph = False

    def _network(self, shape: Shape) -> Network:
        network = super()._network(shape)
        # Without biases, which LeNet leaves out for Deep SVDD's sake, z = 0 gives a black image.
        if self.network == "auto" and "bias" in network.get_params():
            network.set_params(bias=True)
        return network

    def _build_module(self, shape: Shape) -> nn.Module:
        network, code = self._network(shape), self._code_length(shape)
        parts = {
            "generator": network.decoder(code, shape),
            "discriminator": Discriminator(network, shape),
        }
        module = nn.ModuleDict(parts)
        module.register_buffer("starts", torch.randn(self.n_starts, code))
        return module

    def _phases(self) -> list[Phase]:
        turns = {"discriminator.": self._loss, "generator.": self._generator_loss}
        milestones = tuple(self.milestones)
        return [
            Phase("fit", self.epochs_, loss, params=(part,), milestones=milestones, cycle="game")
            for part, loss in turns.items()
        ]

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Tensor:
        return torch.randn(n, self._code_length(shape), **drawn_by(generator))

    def _loss(self, module: Any, batch: Batch) -> Losses:
        """Return the cross-entropy of the discriminator."""
        judge = module["discriminator"]
        fake = module["generator"](batch.noise).detach()
        return {"real": softplus(-judge(batch.x)).mean(), "fake": softplus(judge(fake)).mean()}

    def _generator_loss(self, module: Any, batch: Batch) -> Losses:
        """Return the cross-entropy of generated rows, labelled real: it does not saturate."""
        fake = module["generator"](batch.noise)
        return {"generator": softplus(-module["discriminator"](fake)).mean()}
