"""Descriptions of networks: parameters now, torch modules once the shape of the data is known."""

from __future__ import annotations

import abc
from numbers import Integral
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from deepod.params import Estimator
from deepod.types import Shape

Activation = Literal["leaky_relu", "relu", "elu", "gelu", "silu", "tanh", "sigmoid", "softplus"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
}


class Network(Estimator, metaclass=abc.ABCMeta):
    """Description of a network that is still to be built: sizes and options, no weights.

    Subclasses hold their parameters as scikit-learn estimators do (``get_params``,
    ``set_params``, ``clone``), so that ``network__hidden`` can be searched.
    """

    def encoder(self, shape: Shape, out: int, members: int | None = None) -> nn.Module:
        """Build a module from samples to vectors.

        Parameters
        ----------
        shape : tuple of int
            Shape of one sample.
        out : int
            Length of the output vector.
        members : int or None
            None builds one network: (B, *shape) -> (B, out). A number builds that many of the
            same architecture side by side, each with initial weights of its own:
            (B, *shape) or (members, B, *shape) -> (members, B, out).
        """
        self._check()
        if members is None:
            return self._encoder(shape, out)
        return self._side_by_side([self._encoder(shape, out) for _ in range(members)], shape)

    def features(self, shape: Shape) -> tuple[nn.Module, int]:
        """Build an encoder without its last layer, from samples to its last hidden layer.

        Parameters
        ----------
        shape : tuple of int
            Shape of one sample.

        Returns
        -------
        module : torch.nn.Module
            (B, *shape) -> (B, width).
        width : int
        """
        self._check()
        return self._features(shape)

    def decoder(self, inp: int, shape: Shape, members: int | None = None) -> nn.Module:
        """Build a module from vectors to samples: (B, inp) -> (B, *shape).

        With ``members``: (B, inp) or (members, B, inp) -> (members, B, *shape).
        """
        self._check()
        if members is None:
            return self._decoder(inp, shape)
        return self._side_by_side([self._decoder(inp, shape) for _ in range(members)], (inp,))

    def _check(self) -> None:
        self._validate_params()
        for name, value in self.get_params().items():
            sizes = value if isinstance(value, tuple | list) else ()
            if not all(isinstance(size, Integral) and int(size) > 0 for size in sizes):
                raise ValueError(
                    f"{type(self).__name__}({name}={value!r}): expected positive integers."
                )

    def _side_by_side(self, networks: list[nn.Module], shape: Shape) -> nn.Module:
        return Members(networks, len(shape))

    def _encoder(self, shape: Shape, out: int) -> nn.Module:
        features, width = self._features(shape)
        return nn.Sequential(*features, nn.Linear(width, out, bias=getattr(self, "bias", True)))

    @abc.abstractmethod
    def _features(self, shape: Shape) -> tuple[nn.Sequential, int]: ...

    @abc.abstractmethod
    def _decoder(self, inp: int, shape: Shape) -> nn.Module: ...


class StartsFromRows(nn.Module, metaclass=abc.ABCMeta):
    """Layer on the samples themselves, whose initial values come from the training rows."""

    @abc.abstractmethod
    def start_from_rows(self, x: Tensor) -> None:
        """Set the initial values from all training rows, (n, *shape)."""


class KeepsRows(nn.Module):
    """Module with training rows, or what was computed of each, in buffers named in ``per_row``."""

    holds_rows = True  # whoever has the module may read them
    per_row: ClassVar[tuple[str, ...]]

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Load a state, in which there may be fewer rows: as many in all of the buffers."""
        first, room = prefix + self.per_row[0], len(self.get_buffer(self.per_row[0]))
        n = len(state_dict[first]) if first in state_dict else room
        if 0 < n < room:
            for name in self.per_row:
                setattr(self, name, self.get_buffer(name)[:n].clone())
        super()._load_from_state_dict(state_dict, prefix, *args)


class Members(nn.Module):
    """Networks side by side: (B, ...) or (K, B, ...) -> (K, B, ...)."""

    def __init__(self, networks: list[nn.Module], sample_dims: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.sample_dims = sample_dims

    def forward(self, x: Tensor) -> Tensor:
        """Give every member the same input, or its own."""
        inputs = [x] * len(self.networks) if x.dim() == self.sample_dims + 1 else x
        return torch.stack([net(part) for net, part in zip(self.networks, inputs, strict=True)])
