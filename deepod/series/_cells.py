"""Layers of an LSTM in NumPy, point by point: torch takes ten times as long for a single one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

HALF = np.float32(0.5)


class Layer:
    """One layer of ``torch.nn.LSTM``, in float32.

    A sigmoid is half a hyperbolic tangent: with halved weights of the three gates that have one,
    all four take one call.

    Parameters
    ----------
    layer : torch.nn.LSTM
    mask : ndarray of shape (channels,), optional
        What inputs are multiplied by.
    """

    def __init__(self, layer: Any, mask: np.ndarray | None = None) -> None:
        size = self.size = layer.hidden_size
        order = np.r_[
            0 : 2 * size, 3 * size : 4 * size, 2 * size : 3 * size
        ]  # i f o g, not i f g o
        halves = np.repeat(np.array([0.5, 0.5, 0.5, 1.0], np.float32), size)
        ih, hh = numpy(layer.weight_ih_l0), numpy(layer.weight_hh_l0)
        ih = ih if mask is None else ih * mask
        self.w_in = np.ascontiguousarray(ih[order].T * halves)
        self.w_state = np.ascontiguousarray(hh[order].T * halves)
        self.bias = (numpy(layer.bias_ih_l0) + numpy(layer.bias_hh_l0))[order] * halves
        self._gates = [self._room(1), self._room(2)]

    def _room(self, lanes: int) -> tuple[np.ndarray, ...]:
        """Return room for the gates: all, those with a sigmoid, and each."""
        gates, size = np.empty((lanes, 4 * self.size), np.float32), self.size
        return gates, gates[:, : 3 * size], *np.split(gates, 4, axis=1)

    def pass_over(self, h: np.ndarray, c: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the outputs at points, (n, lanes, size), and leave the last state in h and c.

        Parameters
        ----------
        h, c : ndarray of shape (lanes, size)
            Outputs and cells after the point before. There are one or two lanes.
        x : ndarray of shape (n, lanes or 1, channels)
        """
        given = x @ self.w_in
        given += self.bias
        outputs = np.empty((len(x), *h.shape), np.float32)
        for own, output in zip(given, outputs, strict=True):
            self._step(h, c, own)
            output[:] = h
        return outputs

    def step(self, h: np.ndarray, c: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the outputs at one point, (lanes, size): h, which is led on; x is (lanes, k)."""
        given = np.dot(x, self.w_in)
        given += self.bias
        self._step(h, c, given)
        return h

    def _step(self, h: np.ndarray, c: np.ndarray, given: np.ndarray) -> None:
        gates, sigmoids, i, f, o, g = self._gates[len(h) - 1]
        np.dot(h, self.w_state, gates)
        np.add(gates, given, gates)
        np.tanh(gates, gates)
        np.multiply(sigmoids, HALF, sigmoids)
        np.add(sigmoids, HALF, sigmoids)
        np.multiply(c, f, c)
        np.multiply(i, g, i)
        np.add(c, i, c)
        np.tanh(c, h)
        np.multiply(h, o, h)


class Stack:
    """Layers of an LSTM, each on the outputs of the one before, and a linear layer on the last.

    Parameters
    ----------
    layers : sequence of torch.nn.LSTM
    head : torch.nn.Linear
    mask : ndarray of shape (channels,)
        What inputs are multiplied by, and outputs, of which there may be several times as many.
    """

    def __init__(self, layers: Sequence[nn.LSTM], head: nn.Linear, mask: np.ndarray) -> None:
        masks = [mask, *[None] * (len(layers) - 1)]
        self.layers = [Layer(layer, own) for layer, own in zip(layers, masks, strict=True)]
        self.names = [(f"h{k}", f"c{k}") for k in range(len(layers))]  # of their states
        repeated = np.tile(mask, head.out_features // len(mask))
        self.weight = np.ascontiguousarray(numpy(head.weight).T * repeated)
        self.bias = numpy(head.bias) * repeated

    def begin(self) -> dict[str, np.ndarray]:
        """Return the state of all layers before the first point, of one lane."""
        pairs = zip(self.names, self.layers, strict=True)
        sizes = [(name, layer.size) for names, layer in pairs for name in names]
        return {name: np.zeros((1, size), np.float32) for name, size in sizes}

    def pass_over(self, state: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        """Return the outputs at points (n, channels): (n, lanes, k); ``state`` is led on."""
        if len(x) == 1:
            for layer, (h, c) in zip(self.layers, self.names, strict=True):
                x = layer.step(state[h], state[c], x)
            return (np.dot(x, self.weight) + self.bias)[None]
        x = x[:, None]
        for layer, (h, c) in zip(self.layers, self.names, strict=True):
            x = layer.pass_over(state[h], state[c], x)
        x = x @ self.weight
        x += self.bias
        return x


def numpy(tensor: Tensor) -> np.ndarray:
    """Return a copy of the values of a tensor of any device."""
    return tensor.detach().cpu().numpy().copy()
