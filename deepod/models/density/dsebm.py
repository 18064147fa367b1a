"""DSEBM: a deep structured energy-based model, trained by denoising score matching."""

from __future__ import annotations

from typing import Any, Literal

import torch
from sklearn.base import clone
from torch import Tensor, nn
from torch.nn.functional import softplus

from deepod._base import BaseDetector
from deepod.networks import MLP, Network
from deepod.networks.layers import drawn_by, squared_error, without_cudnn
from deepod.params import integer, one_of, param, parameters, real
from deepod.types import Batch, Losses, Shape

_BY_HAND = (nn.Flatten, nn.Linear, nn.Softplus)


def _slope(layers: list[nn.Module], x: Tensor) -> Tensor:
    """Return the gradient in x of the sum of the layers' output, by the chain rule, (B, *shape)."""
    shape, factors = x.shape, []
    for layer in layers:
        factors.append(torch.sigmoid(x) if isinstance(layer, nn.Softplus) else x)
        x = layer(x)
    gradient = torch.ones_like(x)
    for layer, factor in zip(reversed(layers), reversed(factors), strict=True):
        if isinstance(layer, nn.Linear):
            gradient = gradient @ layer.weight
        elif isinstance(layer, nn.Softplus):
            gradient = gradient * factor
    return gradient.reshape(shape)


class _Energy(nn.Module):
    """The energy of rows, E(x) = ||x - b||^2 / 2 - sum of h(x)."""

    def __init__(self, trunk: nn.Module, shape: Shape) -> None:
        super().__init__()
        self.trunk = trunk
        self.bias = nn.Parameter(torch.zeros(shape))

    def _units(self, x: Tensor) -> Tensor:
        return softplus(self.trunk(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return the energy of each row, (B,)."""
        return (x - self.bias).square().flatten(1).sum(1) / 2 - self._units(x).sum(1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return x less the gradient of its energy, (B, *shape)."""
        layers = [*self.trunk.children(), nn.Softplus()]
        if isinstance(self.trunk, nn.Sequential) and all(isinstance(x, _BY_HAND) for x in layers):
            return self.bias + _slope(layers, x)
        # Composes with vmap, and gives gradients where others are off; but torch imports its
        # compiler for it, in seconds, and writes no ONNX graph of it.
        with without_cudnn(self, x):
            return self.bias + torch.func.grad(lambda rows: self._units(rows).sum())(x)


@parameters
class DSEBM(BaseDetector):
    """Deep structured energy-based model: a network gives each row an energy, low for normal rows.

    It learns that a step down the slope of the energy leads from a row with noise back to the row
    without: a denoising autoencoder whose decoder is the gradient of its encoder. The score is the
    energy of a row, or the length of the slope there.

    Notes
    -----
    **When to use it.** Most training rows are normal.

    **When it fails.** Noise of ``noise_std`` is larger than what tells anomalies apart. Where no
    noisy rows were, the network has learned nothing, and the distance from b decides. The slope is
    small on hilltops as well as in valleys.

    **Loss and score.** E(x) = ||x - b||^2 / 2 - sum_j h_j(x), with the units h of a network that
    has softplus in all layers. With noisy rows y = x + ``noise_std`` * N(0, I) the loss is the mean
    square of y - dE/dx(y) - x (score matching; Vincent, 2011). The score is E(x), which may be
    negative, or ||dE/dx(x)||^2, the error of the reconstruction x - dE/dx(x) (criteria of section
    4).

    **Networks and costs.** The networks that "auto" stands for have softplus. A window goes
    flattened through an MLP, not through the paper's recurrent model. BatchNorm is left out of any
    network: the energy of a row would depend on the other rows. The loss has gradients in it, so
    that a step costs more than one of other methods. An ONNX file of ``score_by="reconstruction"``
    can be written if the network is an MLP with softplus.

    **Setting.** The paper's text was not available: noise of 0.5 is said of inputs in [-1, 1]:
    ``DSEBM(scaler="symmetric", noise_std=0.5)``. That is about one standard deviation, hence the
    default.

    References
    ----------
    S. Zhai, Y. Cheng, W. Lu and Z. Zhang. Deep Structured Energy Based Models for Anomaly
    Detection. ICML 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import DSEBM
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) @ np.ones((2, 6))
    >>> detector = DSEBM(epochs=20, random_state=0).fit(X)
    >>> detector.predict([[0] * 6, [9, -9] * 3])
    array([0, 1])
    """

    latent_dim: int = param(
        default=32, accepts=[integer(1)], doc="Units of the last layer, which are summed up."
    )
    noise_std: float = param(
        default=1.0,
        accepts=[real(0)],
        doc="Standard deviation of the Gaussian noise, scaled units.",
    )
    score_by: Literal["energy", "reconstruction"] = param(
        default="energy",
        accepts=[one_of("energy", "reconstruction")],
        doc="The score: the energy (DSEBM-e), or the squared norm of its gradient, which is the "
        "error of the reconstruction (DSEBM-r).",
    )
    family = "density"
    auto_steps, auto_epochs = 500, 80
    paper = "Zhai et al., Deep Structured Energy Based Models for Anomaly Detection, ICML 2016"

    def _network(self, shape: Shape) -> Network:
        if self.network == "auto":
            return MLP(activation="softplus")
        network = super()._network(shape)
        has_norm = "batch_norm" in network.get_params()
        return clone(network).set_params(batch_norm=False) if has_norm else network

    def _build_module(self, shape: Shape) -> nn.Module:
        return _Energy(self._network(shape).encoder(shape, self.latent_dim), shape)

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Tensor:
        return torch.randn(n, *shape, **drawn_by(generator))

    def _loss(self, module: Any, batch: Batch) -> Losses:
        noisy = batch.x + self.noise_std * batch.noise
        return {"reconstruction": squared_error(module.reconstruct(noisy), batch.x).mean()}

    def _score(self, module: Any, x: Tensor) -> Tensor:
        if self.score_by == "energy":
            return module(x)
        return (module.reconstruct(x) - x).square().flatten(1).sum(1)

    def _contributions(self, module: Any, x: Tensor) -> Tensor | None:
        if self.score_by == "energy":
            return None
        return (module.reconstruct(x) - x).square()
