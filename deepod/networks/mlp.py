"""Multi-layer perceptrons, one or many side by side."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from deepod.networks._spec import ACTIVATIONS, Activation, Network
from deepod.params import one_of, param, parameters
from deepod.types import Shape


@parameters
class MLP(Network):
    """Multi-layer perceptron: a network of fully connected layers.

    It is what ``network="auto"`` stands for on tables and images. Images and windows are flattened.

    Examples
    --------
    >>> from deepod.networks import MLP
    >>> MLP(hidden=(8,)).encoder((5,), 2)
    Sequential(
      (0): Flatten(start_dim=-1, end_dim=-1)
      (1): Linear(in_features=5, out_features=8, bias=True)
      (2): LeakyReLU(negative_slope=0.01)
      (3): Linear(in_features=8, out_features=2, bias=True)
    )
    """

    hidden: tuple[int, ...] | list[int] = param(
        default=(64, 32),
        accepts=[tuple, list],
        doc="Widths of the hidden layers, from the input of an encoder on.",
    )
    activation: Activation = param(
        default="leaky_relu",
        accepts=[one_of(*ACTIVATIONS)],
        doc="Non-linearity between the layers.",
    )
    bias: bool = param(default=True, accepts=["boolean"], doc="Whether the layers add a bias.")
    batch_norm: bool = param(
        default=False,
        accepts=["boolean"],
        doc="Whether BatchNorm, without scale and shift of its own, follows every hidden layer.",
    )

    def _features(self, shape: Shape) -> tuple[nn.Sequential, int]:
        sizes = [torch.Size(shape).numel(), *self.hidden]
        return nn.Sequential(nn.Flatten(-len(shape)), *self._hidden_layers(sizes)), sizes[-1]

    def _decoder(self, inp: int, shape: Shape) -> nn.Module:
        sizes = [inp, *reversed(self.hidden)]
        out = nn.Linear(sizes[-1], torch.Size(shape).numel(), bias=self.bias)
        return nn.Sequential(*self._hidden_layers(sizes), out, nn.Unflatten(-1, shape))

    def _hidden_layers(self, sizes: list[int]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for inp, out in pairwise(sizes):
            # BatchNorm takes away the mean, and any bias with it.
            layers.append(nn.Linear(inp, out, bias=self.bias and not self.batch_norm))
            if self.batch_norm:
                layers.append(nn.BatchNorm1d(out, eps=1e-4, affine=False))
            layers.append(ACTIVATIONS[self.activation]())
        return layers

    def _side_by_side(self, networks: list[nn.Module], shape: Shape) -> nn.Module:
        if self.batch_norm:
            return super()._side_by_side(networks, shape)
        # One batched product per layer: the cost of K small networks is near that of one.
        layers = zip(*networks, strict=True)
        return nn.Sequential(
            *[StackedLinear(same) if isinstance(same[0], nn.Linear) else same[0] for same in layers]
        )


class StackedLinear(nn.Module):
    """Linear layers of one size as one product: (B, in) or (K, B, in) -> (K, B, out)."""

    def __init__(self, layers: tuple[nn.Linear, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]))
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(torch.stack(biases).unsqueeze(1)) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply layer k to input k."""
        if x.dim() == 2:
            x = x.expand(len(self.weight), *x.shape)
        return x @ self.weight if self.bias is None else torch.baddbmm(self.bias, x, self.weight)
