"""From the errors at a point to its score: each against its usual size on normal points."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

_USUAL = 0.99  # quantile at which squared errors are capped before their mean is taken
_FLOOR = 1e-2  # of the mean square of all errors: a channel may be known exactly, by accident


class Errors(nn.Module):
    """What errors are usual, as learned from points that were not trained on.

    Parameters
    ----------
    channels : int
        Of the series.
    per_channel : int, default=1
        Errors of each channel at each point: one for each horizon. They come horizon by horizon.
    scale : {"validation", "covariance"} or None
        "validation" divides each squared error by its mean; "covariance" takes all errors of a
        point together, by Mahalanobis' distance; None takes them as they are.

    Attributes
    ----------
    mean : Tensor of shape (k,)
        What is subtracted from errors: their mean with "covariance", else 0.
    weight : Tensor of shape (k,) or (k, k)
        What their squares are multiplied by; k = channels times per_channel.
    varies : Tensor of shape (channels,)
        1 for the channels that vary in training, 0 for the others. These are no part of what a
        network sees or forecasts: what they are off their constant is the error.
    """

    mean: Tensor
    weight: Tensor
    varies: Tensor

    def __init__(self, channels: int, per_channel: int = 1, scale: str | None = "validation"):
        super().__init__()
        k = channels * per_channel
        self.channels, self.per_channel, self.scale = channels, per_channel, scale
        self.register_buffer("mean", torch.zeros(k))
        self.register_buffer("weight", torch.eye(k) if scale == "covariance" else torch.ones(k))
        self.register_buffer("varies", torch.ones(channels))

    def forward(self, errors: Tensor) -> Tensor:
        """Give the squared errors of each channel, (..., channels), in units of usual ones.

        With "covariance", terms of the squared distance, of which some may be negative.
        """
        errors = errors - self.mean
        weighted = errors @ self.weight if self.scale == "covariance" else errors * self.weight
        terms = (errors * weighted).unflatten(-1, (self.per_channel, self.channels)).sum(-2)
        return terms / self.per_channel

    @torch.no_grad()
    def find_constant(self, x: Tensor, spans: Sequence[tuple[int, int]]) -> None:
        """Find the channels that vary within the points of ``spans``."""
        first = x[spans[0][0]]
        vary = torch.stack([(x[start:stop] != first).any(0) for start, stop in spans]).any(0)
        self.varies.copy_(vary)

    @torch.no_grad()
    def learn(self, errors: Tensor, trim: float = 0.0) -> None:
        """Learn from errors of normal points, (n, k), but for the share ``trim`` of the worst."""
        if self.scale is None:
            return
        errors = errors.double()
        if trim:
            size = (errors.square() / errors.square().mean(0).clamp_min(1e-30)).mean(1)
            errors = errors[size <= _quantile(size, 1 - trim)]
        if self.scale == "validation":
            squares = errors.square()
            # A few points that are not normal after all must not decide what is usual.
            squares = squares.minimum(_quantile(squares, _USUAL)).mean(0)
            vary = self.varies.bool().repeat(self.per_channel)
            floor = (_FLOOR * squares[vary].mean()).clamp_min(1e-12)
            self.weight.copy_(torch.where(vary, 1 / squares.maximum(floor), 1.0))
            return
        self.mean.copy_(errors.mean(0))
        self.weight.copy_(precision(errors - errors.mean(0)))


def _quantile(values: Tensor, level: float) -> Tensor:
    """Quantile over the first dimension; torch's own refuses 16 million values."""
    found = np.quantile(values.cpu().numpy(), level, axis=0)
    return torch.as_tensor(found, device=values.device)


def precision(errors: Tensor) -> Tensor:
    """Return the inverse of the covariance of centred errors, shrunk as Ledoit and Wolf do."""
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(errors.cpu().numpy(), assume_centered=True)
    matrix = torch.from_numpy(covariance).to(errors.device)
    floor = matrix.diagonal().mean().clamp_min(1e-12) * 1e-6
    return torch.linalg.inv(matrix + floor * torch.eye(len(matrix), device=matrix.device))


def terms_of(module: Errors) -> Callable[[np.ndarray], np.ndarray]:
    """Return what ``module`` does, in NumPy: for a single point in a tenth of torch's time."""
    mean, weight = (part.cpu().numpy().copy() for part in (module.mean, module.weight))
    shape = module.per_channel, module.channels
    weight = weight / np.float32(module.per_channel)

    def terms(errors: np.ndarray) -> np.ndarray:
        if weight.ndim == 1:
            found = np.square(errors) * weight
        else:
            errors = errors - mean
            found = errors * (errors @ weight)
        return found if shape[0] == 1 else np.add.reduce(found.reshape(-1, *shape), 1)

    return terms
