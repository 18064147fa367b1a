"""Contributions of the values of a row to its score, as functions of tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from deepod.networks.layers import without_cudnn

# Points on the line to a row at which the gradient is computed. The scores of LeakyReLU networks
# have kinks, so that the error falls only as 1 / NODES; see benchmarks/results/explain.jsonl.
NODES = 128
_TYPICAL_ROWS = 1024  # that medians are taken of


def spread(x: Tensor, y: Tensor | None) -> Tensor:
    """Return the numbers of a few evenly spaced rows that are not labelled 1, if there are any."""
    normal = x if y is None or bool((y == 1).all()) else x[y != 1]
    return normal[:: 1 + len(normal) // _TYPICAL_ROWS]


def typical(rows: Tensor) -> np.ndarray:
    """Return the median of each value, in float64."""
    return np.median(rows.cpu().numpy(), axis=0).astype(np.float64)


@cache
def _quadrature(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes and weights of the quadrature on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (1 + nodes) / 2, weights / 2


def integrated_gradients(
    module: nn.Module,
    score: Callable[[nn.Module, Tensor], Tensor],
    x: Tensor,
    baseline: Tensor,
    most: int,
) -> Tensor:
    """Return the integrated gradients of the score on the line from the baseline to each row.

    Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017, equation 1, by
    Gauss-Legendre quadrature.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode.
    score : callable
        ``score(module, x)`` returns one number per row, which depends on that row alone.
    x : Tensor of shape (B, *shape)
    baseline : Tensor of shape (*shape)
    most : int
        Number of points on such lines to score at once, but at least one for each row of x.

    Returns
    -------
    Tensor of shape (B, *shape)
        Contributions that sum up to ``score(x) - score(baseline)``, except for quadrature errors.
    """
    most = max(most, len(x))
    # Whatever mode the caller is in.
    with torch.inference_mode(False), torch.enable_grad(), without_cudnn(module, x):
        # Rows are filled up to whole blocks with copies of the last one: once is enough.
        x, copies = x.detach().unique_consecutive(return_inverse=True, dim=0)
        way, total = x - baseline, torch.zeros_like(x)
        nodes, weights = (
            torch.as_tensor(values, dtype=x.dtype, device=x.device).view(-1, *[1] * x.dim())
            for values in _quadrature(NODES)
        )
        step = max(1, most // len(x))
        for t, weight in zip(nodes.split(step), weights.split(step), strict=True):
            points = (baseline + t * way).flatten(0, 1).requires_grad_()
            (gradient,) = torch.autograd.grad(score(module, points).sum(), points)
            total += (weight * gradient.view(len(t), *x.shape)).sum(0)
        return (way * total)[copies]
