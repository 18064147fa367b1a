"""Layers and small modules that several methods share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import mse_loss
from torch.nn.modules.batchnorm import _BatchNorm

EPS = 1e-8


class EncoderDecoder(nn.Module):
    """Autoencoder: (B, *shape) -> (B, *shape)."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct x."""
        return self.decoder(self.encoder(x))


def squared_error(reconstruction: Tensor, x: Tensor) -> Tensor:
    """Return the mean squared error over the values of each sample, (B,)."""
    return mse_loss(reconstruction, x, reduction="none").flatten(1).mean(1)


def error_norm(reconstruction: Tensor, x: Tensor) -> Tensor:
    """Return the Euclidean norm of the error of each sample, (B,), with a gradient at 0."""
    return (mse_loss(reconstruction, x, reduction="none").flatten(1).sum(1) + EPS**2).sqrt()


ERRORS = {"norm": error_norm, "mse": squared_error}


def error_terms(name: str, reconstruction: Tensor, x: Tensor) -> Tensor:
    """Return what each value adds to ``ERRORS[name]`` of its sample, (B, *shape)."""
    squares = mse_loss(reconstruction, x, reduction="none")
    if name == "mse":
        return squares / x[0].numel()
    return squares / error_norm(reconstruction, x).view(-1, *[1] * (x.dim() - 1))


def with_moments(module: nn.Module) -> nn.Module:
    """Give a module the buffers that :func:`moments` sets; return it."""
    module.register_buffer("mean", torch.zeros(2))
    module.register_buffer("std", torch.ones(2))
    return module


def moments(parts: Tensor) -> dict[str, Tensor]:
    """Return mean and standard deviation of two parts of a score over the training rows, (n, 2).

    A part that is the same for all rows gets a standard deviation of 1.
    """
    spread = parts.std(0, correction=0)
    return {"mean": parts.mean(0), "std": spread.where(spread > 1e-12, 1.0)}


def away_from_zero(center: Tensor, eps: float) -> Tensor:
    """Return a centre of codes with coordinates at least ``eps`` from 0, each on its side of it.

    A centre at 0 is what an encoder reaches by losing all its weights.
    """
    return center.where(center.abs() >= eps, torch.where(center < 0, -eps, eps))


def drawn_by(generator: torch.Generator) -> dict[str, Any]:
    """Return arguments that make a draw come from ``generator``, on its device, in float32."""
    return {"generator": generator, "device": generator.device, "dtype": torch.float32}


def without_cudnn(module: nn.Module, x: Tensor) -> Any:
    """Leave cuDNN out: its recurrent layers go backwards neither in eval mode nor twice."""
    recurrent = any(isinstance(part, nn.RNNBase) for part in module.modules())
    return torch.backends.cudnn.flags(enabled=False) if recurrent and x.is_cuda else nullcontext()


def input_gradients(module: nn.Module, x: Tensor) -> Tensor:
    """Return the gradient of a module's output for each sample in that sample, (B, *shape).

    To be used in a loss, also without gradients and with members side by side; it can itself be
    differentiated. BatchNorm works as in evaluation, or samples would depend on one another.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
    for norm in norms:
        norm.eval()
    try:
        with without_cudnn(module, x):
            return torch.func.grad(lambda x: module(x).sum())(x)
    finally:
        for norm in norms:
            norm.train()


class Gate(nn.Module):
    """Gates of an LSTM: one step of it from a zero state, (B, width) -> (B, width).

    ``output * tanh(input * candidate)``, each a linear map of z followed by a sigmoid, the
    candidate's by tanh. The forget gate and all recurrent weights would multiply zeros, and are
    left out. A gate that is not in ``gates`` is 1.
    """

    def __init__(self, width: int, gates: Sequence[str] = ("input", "output")) -> None:
        super().__init__()
        self.blocks = ("candidate", *gates)
        self.linear = nn.Linear(width, len(self.blocks) * width)
        for block in self.linear.weight.chunk(len(self.blocks)):
            nn.init.orthogonal_(block)
        nn.init.zeros_(self.linear.bias)

    def forward(self, z: Tensor) -> Tensor:
        """Gate z."""
        parts = dict(zip(self.blocks, self.linear(z).chunk(len(self.blocks), -1), strict=True))
        state = torch.tanh(parts["candidate"])
        if "input" in parts:
            state = torch.sigmoid(parts["input"]) * state
        state = torch.tanh(state)
        return torch.sigmoid(parts["output"]) * state if "output" in parts else state


class Hypersphere(nn.Module):
    """Encoder, centre and radius; a decoder that sees the code through BatchNorm."""

    center: Tensor
    radius: Tensor

    def __init__(self, encoder: nn.Module, code: int, decoder: nn.Module | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = None
        if decoder is not None:
            norm = nn.BatchNorm1d(code, eps=1e-4, affine=False)
            self.decoder = nn.Sequential(norm, nn.LeakyReLU(), decoder)
        self.register_buffer("center", torch.zeros(code))
        self.register_buffer("radius", torch.zeros(()))
        with_moments(self)  # of distance and error

    def distance(self, z: Tensor) -> Tensor:
        """Return the squared distance of codes to the centre, (B,)."""
        return (z - self.center).square().sum(1)


class RunningMinMax(nn.Module):
    """Layer that maps values to [0, 1] by the extremes of their batch, of which it keeps means.

    Like BatchNorm, it uses the batch in training and what it has stored in evaluation, where values
    may lie outside [0, 1]. Before any training, and where all was equal in training, it changes
    nothing.

    Parameters
    ----------
    attached : bool
        Whether gradients flow through the extremes.
    momentum : float, default=0.1
        Weight of the newest batch in the running means.
    """

    low: Tensor
    high: Tensor
    batches: Tensor

    def __init__(self, attached: bool, momentum: float = 0.1) -> None:
        super().__init__()
        self.attached = attached
        self.momentum = momentum
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.ones(()))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, s: Tensor) -> Tensor:
        """Normalise the values of a batch, (B,)."""
        if not self.training:
            spread = self.high - self.low
            normalized = (s - self.low) / spread.clamp_min(EPS)
            return torch.where(spread > EPS, normalized, s)  # no spread to divide by: unchanged
        low, high = s.amin(), s.amax()
        with torch.no_grad():
            self.batches += 1
            # A plain mean at first, so that the initial values have no say.
            weight = torch.clamp(1 / self.batches, min=self.momentum)
            self.low += weight * (low - self.low)
            self.high += weight * (high - self.high)
        if not self.attached:
            low, high = low.detach(), high.detach()
        spread = high - low
        # Equal values become 0, with a gradient of 0.
        return (s - low) / spread.where(spread > EPS, torch.inf)


class HardConcrete(nn.Module):
    """Module whose weights are each multiplied by a gate in [0, 1] that learns to be 0.

    Louizos, Welling & Kingma, Learning Sparse Neural Networks through L0 Regularization, ICLR 2018,
    with their constants. Gates are noisy where ``forward`` is given uniform noise, else fixed.

    Parameters
    ----------
    module : torch.nn.Module
    start : float, default=2.0
        Initial log-odds of a gate; about 0.98 of each weight is kept at first.
    """

    BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1

    def __init__(self, module: nn.Module, start: float = 2.0) -> None:
        super().__init__()
        self.module = module
        self.names = [name for name, p in module.named_parameters() if p.dim() > 1]
        sizes = [module.get_parameter(name).numel() for name in self.names]
        self.sizes = sizes
        self.log_odds = nn.Parameter(torch.full((sum(sizes),), start))

    def gates(self, noise: Tensor | None = None) -> Tensor:
        """Return the gates of all weights, flat; ``noise`` is uniform on (0, 1)."""
        odds: Tensor = self.log_odds
        if noise is not None:
            odds = (odds + torch.logit(noise, eps=1e-6)) / self.BETA
        stretched = torch.sigmoid(odds) * (self.ZETA - self.GAMMA) + self.GAMMA
        return stretched.clamp(0, 1)

    def expected_l0(self) -> Tensor:
        """Sum up the chances of the gates not to be 0."""
        ratio = math.log(-self.GAMMA / self.ZETA)
        return torch.sigmoid(self.log_odds - self.BETA * ratio).sum()

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Call the module with gated weights."""
        parts = self.gates(noise).split(self.sizes)
        known, weights = dict(self.module.named_parameters()), {}
        for name, gates in zip(self.names, parts, strict=True):
            weights[name] = known[name] * gates.view_as(known[name])
        return functional_call(self.module, weights, (x,))
