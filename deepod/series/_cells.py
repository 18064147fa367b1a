"""Layers of an LSTM in NumPy, point by point: torch takes ten times as long for a single one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn


class Layer:
    """One layer of ``torch.nn.LSTM``, in float32.

    A sigmoid is half a hyperbolic tangent: with halved weights of the three gates that have one,
    all four take one call.
    """

    def __init__(self, layer: nn.LSTM) -> None:
        size = self.size = layer.hidden_size
        order = np.r_[0 : 2 * size, 3 * size : 4 * size, 2 * size : 3 * size]  # i f o g, not i f g o
        halves = np.repeat(np.float32([0.5, 0.5, 0.5, 1.0]), size)
        ih, hh = numpy(layer.weight_ih_l0), numpy(layer.weight_hh_l0)
        self.w_in = np.ascontiguousarray(ih[order].T * halves)
        self.w_state = np.ascontiguousarray(hh[order].T * halves)
        self.bias = (numpy(layer.bias_ih_l0) + numpy(layer.bias_hh_l0))[order] * halves

    def begin(self) -> np.ndarray:
        """Return outputs and cells before the first point, (1, 2, size)."""
        return np.zeros((1, 2, self.size), np.float32)

    def pass_over(self, state: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the outputs at points, and leave the state after the last one in ``state``.

        Parameters
        ----------
        state : ndarray of shape (lanes, 2, size)
        x : ndarray of shape (n, lanes or 1, channels)

        Returns
        -------
        outputs : ndarray of shape (n, lanes, size)
        """
        lanes, n, size = len(state), len(x), self.size
        h, c = state[:, 0].copy(), state[:, 1].copy()
        gates = np.empty((lanes, 4 * size), np.float32)
        sigmoids = gates[:, : 3 * size]
        i, f, o, g = (gates[:, k * size : (k + 1) * size] for k in range(4))
        half = np.float32(0.5)
        outputs = np.empty((n, lanes, size), np.float32)
        for given, output in zip(x @ self.w_in + self.bias, outputs, strict=True):
            np.dot(h, self.w_state, gates)
            np.add(gates, given, gates)
            np.tanh(gates, gates)
            np.multiply(sigmoids, half, sigmoids)
            np.add(sigmoids, half, sigmoids)
            np.multiply(c, f, c)
            np.multiply(i, g, i)
            np.add(c, i, c)
            np.tanh(c, h)
            np.multiply(h, o, h)
            output[...] = h
        state[:, 0], state[:, 1] = h, c
        return outputs


class Dense:
    """A linear layer, in float32."""

    def __init__(self, layer: nn.Linear) -> None:
        self.weight = np.ascontiguousarray(numpy(layer.weight).T)
        self.bias = numpy(layer.bias)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x @ self.weight + self.bias


class Stack:
    """Layers of an LSTM, each on the outputs of the one before."""

    def __init__(self, layers: Sequence[nn.LSTM]) -> None:
        self.layers = [Layer(layer) for layer in layers]

    def begin(self) -> dict[str, np.ndarray]:
        """Return the state of all layers before the first point, of one lane."""
        return {f"layer{k}": layer.begin() for k, layer in enumerate(self.layers)}

    def pass_over(self, state: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        """Return the outputs of the last layer at points (n, channels): (n, lanes, size)."""
        x = x[:, None]
        for k, layer in enumerate(self.layers):
            x = layer.pass_over(state[f"layer{k}"], x)
        return x


def numpy(tensor: Tensor) -> np.ndarray:
    """Return the values of a tensor of any device."""
    return tensor.detach().cpu().numpy()
