"""A classifier that keeps account of distance: a learned mixture around prototypes."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from deepod.networks._spec import Network, StartsFromRows
from deepod.params import integer, param, parameters
from deepod.types import Shape


@parameters
class Prototypes(Network):
    """Minus the log of a learned mixture of Gaussians, as an encoder of samples.

    The output is b - a log sum_p exp(w_p - |s * (x - c_p)|^2 / t_p), with everything but x
    learned: centres c, widths t, weights w, feature scales s, slope a and offset b. It grows with
    the distance from all prototypes, where an MLP may turn flat or fall. The centres start at
    training rows, the widths at the mean squared distance between neighbouring centres.

    Images and windows are flattened. There is no decoder.

    Examples
    --------
    >>> import torch
    >>> from deepod.networks import Prototypes
    >>> Prototypes(n_prototypes=10).encoder((5,), 1)(torch.zeros(3, 5)).shape
    torch.Size([3, 1])
    """

    n_prototypes: int = param(default=250, accepts=[integer(1)], doc="Number of centres, at most.")
    rows_per_prototype: int = param(
        default=8,
        accepts=[integer(1)],
        doc="Training rows there must be for each centre. With fewer the network learns the rows "
        "by heart, and scores them lower than new normal rows.",
    )

    def _encoder(self, shape: Shape, out: int) -> nn.Module:
        return _Mixture(self, None, shape, out)

    def _side_by_side(self, networks: list[nn.Module], shape: Shape) -> nn.Module:
        out = cast(_Mixture, networks[0]).bias.shape[-1]
        return _Mixture(self, len(networks), shape, out)

    def _decoder(self, inp: int, shape: Shape) -> nn.Module:
        raise ValueError("network=Prototypes() has no decoder; use it where a method classifies.")


class _Mixture(StartsFromRows):
    def __init__(self, spec: Prototypes, members: int | None, shape: Shape, out: int) -> None:
        super().__init__()
        size = torch.Size(shape).numel()
        k = 1 if members is None else members
        prototypes = spec.n_prototypes
        self.rows_per_prototype = spec.rows_per_prototype
        self.members = members
        self.sample_dims = len(shape)
        self.centers = nn.Parameter(torch.randn(k, prototypes, size))
        self.log_widths = nn.Parameter(torch.zeros(k, 1, prototypes))
        self.weights = nn.Parameter(torch.zeros(k, out, 1, prototypes))
        self.log_scales = nn.Parameter(torch.zeros(k, 1, size))
        self.log_slope = nn.Parameter(torch.zeros(k, 1, out))
        self.bias = nn.Parameter(torch.zeros(k, 1, out))
        # Where in its part of the training set each centre starts, as a fraction.
        self.register_buffer("picks", torch.rand(k, prototypes))

    @torch.no_grad()
    def start_from_rows(self, x: Tensor) -> None:  # (n, *shape)
        prototypes = self.centers.shape[1]
        active = max(1, min(prototypes, len(x) // self.rows_per_prototype))
        # The training set is cut into `active` parts; a centre starts at a row of its part.
        part = torch.arange(prototypes, device=x.device) * active // prototypes
        rows = ((part + self.get_buffer("picks")) * len(x) / active).long().clamp_(max=len(x) - 1)
        self.centers.copy_(x.flatten(1)[rows])
        first = torch.cat([part.new_ones(1), part.diff()]).bool()  # in its part
        self.weights.masked_fill_(~first, -1e4)  # the others take no part
        used = self.centers[:, first]
        distances = torch.cdist(used, used).square()  # (K, active, active)
        distances[distances == 0] = float("inf")  # to itself, and to copies of the same row
        for member, nearest in enumerate(distances.amin(-1)):
            known = nearest[nearest.isfinite()]
            self.log_widths[member] = known.mean().clamp_min(1e-3).log() if len(known) else 0.0

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(-self.sample_dims)  # (B, d) or (K, B, d)
        scales = self.log_scales.exp()
        x, centers = x * scales, self.centers * scales
        if x.dim() == 2:
            x = x.expand(len(centers), *x.shape)
        # -|x - c|^2 / t = -|c|^2 / t + (2 x c - |x|^2) / t, as one batched product (K, B, P).
        narrow = (-self.log_widths).exp()  # 1 / t, (K, 1, P)
        features = torch.cat([x, x.square().sum(-1, keepdim=True)], -1)
        factors = torch.cat([2 * centers.mT, -torch.ones_like(narrow)], 1) * narrow
        offset = -centers.square().sum(-1).unsqueeze(1) * narrow
        exponents = torch.baddbmm(offset, features, factors).unsqueeze(1) + self.weights
        density = exponents.logsumexp(-1).mT  # (K, B, out)
        out = self.bias - self.log_slope.exp() * density
        return out[0] if self.members is None else out
