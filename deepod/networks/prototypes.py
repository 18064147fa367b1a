"""A classifier that keeps account of distance: a learned mixture around prototypes."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from deepod.networks._spec import Network, StartsFromRows
from deepod.params import integer, param, parameters
from deepod.types import Shape


@parameters
class Prototypes(Network):
    """Mixture of Gaussians as a network: its output grows with the distance from learned centres.

    For methods that classify, such as :class:`deepod.PLAD`: beyond the training rows the output
    goes on growing, where that of an MLP may turn flat or fall. It is the encoder of a sample;
    there is no decoder. Images and windows are flattened.

    The output is b - a log sum_p exp(w_p - |s * (x - c_p)|^2 / t_p). Everything but x is learned:
    centres c, widths t, weights w, feature scales s, slope a and offset b. The centres start at
    training rows, the widths at the mean squared distance between neighbouring centres.

    With ``n_directions`` each network sees samples along as many random directions alone, drawn
    when it is built: x and c are then coordinates along them. Distances nearly stay as they are,
    and apart from one matrix product the cost no longer depends on the number of values.

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
    n_directions: int | None = param(
        default=None,
        accepts=[integer(1), None],
        doc="Random orthonormal directions along which samples of more values are seen; None sees "
        "all values.",
    )

    def seen(self, shape: Shape) -> Shape:
        """Return the shape of what the network sees of a sample of ``shape``."""
        few = self.n_directions is not None and self.n_directions < torch.Size(shape).numel()
        return (self.n_directions,) if few else shape  # type: ignore[return-value]

    def _encoder(self, shape: Shape, out: int) -> nn.Module:
        return _Mixture(self, None, shape, out)

    def _features(self, shape: Shape) -> tuple[nn.Sequential, int]:
        raise ValueError("network=Prototypes() has no hidden layer; use another network here.")

    def _side_by_side(self, networks: list[nn.Module], shape: Shape) -> nn.Module:
        out = cast(_Mixture, networks[0]).bias.shape[-1]
        return _Mixture(self, len(networks), shape, out)

    def _decoder(self, inp: int, shape: Shape) -> nn.Module:
        raise ValueError("network=Prototypes() has no decoder; use it where a method classifies.")


class _Mixture(StartsFromRows):
    directions: Tensor | None

    def __init__(self, spec: Prototypes, members: int | None, shape: Shape, out: int) -> None:
        super().__init__()
        size = torch.Size(shape).numel()
        k, p = 1 if members is None else members, spec.n_prototypes
        self.rows_per_prototype = spec.rows_per_prototype
        self.members = members
        self.sample_dims = len(shape)
        directions = None
        if spec.seen(shape) != shape:
            directions = torch.empty(k, size, cast(int, spec.n_directions))
            for basis in directions:
                nn.init.orthogonal_(basis)
            size = directions.shape[-1]
        self.register_buffer("directions", directions)
        self.centers = nn.Parameter(torch.randn(k, p, size))
        self.log_widths = nn.Parameter(torch.zeros(k, 1, p))
        self.weights = nn.Parameter(torch.zeros(k, out, 1, p))
        self.log_scales = nn.Parameter(torch.zeros(k, 1, size))
        self.log_slope = nn.Parameter(torch.zeros(k, 1, out))
        self.bias = nn.Parameter(torch.zeros(k, 1, out))
        # Where in its part of the training set each centre starts, as a fraction.
        self.register_buffer("picks", torch.rand(k, p))

    @torch.no_grad()
    def start_from_rows(self, x: Tensor) -> None:  # (n, *shape)
        p = max(1, min(self.centers.shape[1], len(x) // self.rows_per_prototype))
        self._keep(p)
        # The training set is cut into p parts; a centre starts at a row of its part.
        rows = (torch.arange(p, device=x.device) + self.picks) * (len(x) / p)
        rows = rows.long().clamp_(max=len(x) - 1)
        centers = x.flatten(1)[rows]
        if self.directions is not None:
            centers = centers @ self.directions
        self.centers = nn.Parameter(centers)
        # On the CPU and exact, so that every device starts alike and a copy is at distance 0.
        c = self.centers.detach().cpu()
        distances = torch.cdist(c, c, compute_mode="donot_use_mm_for_euclid_dist").square()
        distances[distances == 0] = float("inf")  # to itself, and to copies of the same row
        nearest = distances.amin(-1)  # (K, P)
        known = nearest.isfinite()
        mean = nearest.where(known, 0.0).sum(-1) / known.sum(-1)  # nan: all rows are the same
        start = mean.nan_to_num(1.0).clamp_min(1e-3).log().view(-1, 1, 1)
        self.log_widths.add_(start.to(self.log_widths.device))

    def _keep(self, p: int) -> None:
        """Keep the first p centres alone."""
        self.centers = nn.Parameter(self.centers[:, :p].clone())
        self.log_widths = nn.Parameter(self.log_widths[..., :p].clone())
        self.weights = nn.Parameter(self.weights[..., :p].clone())
        self.picks = self.get_buffer("picks")[:, :p].clone()

    def forward(self, x: Tensor) -> Tensor:
        return self.of_seen(self.see(x))

    def see(self, x: Tensor) -> Tensor:
        """Return samples as the mixture sees them: (B, d) or (K, B, d)."""
        x = x.flatten(-self.sample_dims)
        return x if self.directions is None else x @ self.directions

    def of_seen(self, x: Tensor) -> Tensor:
        """Return the output for samples as they are seen."""
        scales = self.log_scales.exp()
        x, centers = x * scales, self.centers * scales  # (K, B, d), (K, P, d)
        # -|x - c|^2 / t = -|c|^2 / t + (2 x c - |x|^2) / t, as one batched product (K, B, P).
        narrow = (-self.log_widths).exp()  # 1 / t, (K, 1, P)
        features = torch.cat([x, x.square().sum(-1, keepdim=True)], -1)
        factors = torch.cat([2 * centers.mT, -torch.ones_like(narrow)], 1) * narrow
        norms = centers.square().sum(-1).unsqueeze(1) * narrow
        densities = [
            torch.baddbmm(weights - norms, features, factors).logsumexp(-1)  # (K, B)
            for weights in self.weights.unbind(1)
        ]
        out = self.bias - self.log_slope.exp() * torch.stack(densities, -1)  # (K, B, out)
        return out[0] if self.members is None else out

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Take on the number of centres that the training rows allowed for."""
        picks = state_dict.get(prefix + "picks", self.picks)
        p = picks.shape[-1] if picks.dim() == 2 else 0
        if 0 < p < self.picks.shape[-1]:
            self._keep(p)
        super()._load_from_state_dict(state_dict, prefix, *args)
