"""Recurrent networks for windows of a series."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from deepod.networks._spec import Network
from deepod.params import one_of, param, parameters
from deepod.types import Shape


@parameters
class Recurrent(Network):
    """Recurrent network for windows, GRU or LSTM: its last state summarises a window.

    It is what ``network="auto"`` stands for on windows, samples of shape (time, channels). The
    decoder is given the code at every time step.

    Examples
    --------
    >>> import torch
    >>> from deepod.networks import Recurrent
    >>> Recurrent(hidden=(16,)).encoder((30, 4), 2)(torch.zeros(5, 30, 4)).shape
    torch.Size([5, 2])
    """

    hidden: tuple[int, ...] | list[int] = param(
        default=(64,),
        accepts=[tuple, list],
        doc="Widths of the recurrent layers, from the input of an encoder on.",
    )
    cell: Literal["gru", "lstm"] = param(
        default="gru", accepts=[one_of("gru", "lstm")], doc="Kind of recurrent layer."
    )
    bias: bool = param(default=True, accepts=["boolean"], doc="Whether the layers add a bias.")

    def _features(self, shape: Shape) -> tuple[nn.Sequential, int]:
        layers = self._stack(_channels(shape), list(self.hidden))
        return nn.Sequential(_LastState(layers)), self.hidden[-1]

    def _decoder(self, inp: int, shape: Shape) -> nn.Module:
        sizes = list(reversed(self.hidden))
        layers = self._stack(inp, sizes)
        head = nn.Linear(sizes[-1], _channels(shape), bias=self.bias)
        return _Decoder(layers, head, shape[0])

    def _stack(self, inp: int, sizes: list[int]) -> nn.ModuleList:
        if not sizes:
            raise ValueError("Recurrent(hidden=()): expected at least one width.")
        layer = {"gru": nn.GRU, "lstm": nn.LSTM}[self.cell]
        inputs = [inp, *sizes[:-1]]
        return nn.ModuleList(
            layer(int(i), int(size), bias=self.bias, batch_first=True)
            for i, size in zip(inputs, sizes, strict=True)
        )


def _channels(shape: Shape) -> int:
    if len(shape) != 2:
        raise ValueError(
            f"Recurrent needs windows of shape (time, channels), got samples of shape {shape}; "
            "give input_shape=(time, channels) for flat windows."
        )
    return shape[1]


class _LastState(nn.Module):
    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, hidden)
        for layer in self.layers:
            x, _ = layer(x)
        return x[:, -1]


class _Decoder(nn.Module):
    def __init__(self, layers: nn.ModuleList, head: nn.Linear, steps: int) -> None:
        super().__init__()
        self.layers = layers
        self.head = head
        self.steps = steps

    def forward(self, z: Tensor) -> Tensor:  # (B, in) -> (B, T, C)
        z = z.unsqueeze(1).expand(-1, self.steps, -1)
        for layer in self.layers:
            z, _ = layer(z)
        return self.head(z)
