"""K-means on codes: where to begin, and one move of all centres."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

_GOLDEN_RATIO = (1 + 5**0.5) / 2


def squared_distances(z: Tensor, centers: Tensor) -> Tensor:
    """Return the squared distances of codes (n, code) to centres (K, code), (n, K)."""
    exact = "donot_use_mm_for_euclid_dist"  # products would lose the digits of small distances
    return torch.cdist(z, centers, compute_mode=exact).square()


def spread(z: Tensor, k: int) -> Tensor:
    """Choose k codes as k-means++ does: far ones are the likelier, the farther they are.

    Multiples of the golden ratio take the place of random numbers, so that the same codes give the
    same centres.
    """
    centers = z[len(z) // 2].unsqueeze(0)
    nearest = squared_distances(z, centers)[:, 0].double()
    for j in range(1, k):
        total = nearest.cumsum(0)
        row = torch.searchsorted(total, total[-1:] * (j * _GOLDEN_RATIO % 1)).clamp(max=len(z) - 1)
        centers = torch.cat([centers, z[row]])
        nearest = nearest.minimum(squared_distances(z, z[row])[:, 0])
    return centers


def moved(z: Tensor, centers: Tensor) -> Tensor:
    """Move every centre to the mean of its codes; one without codes to one that is far off."""
    distance, own = squared_distances(z, centers).min(1)
    members = one_hot(own, len(centers)).to(z.dtype)  # (n, K)
    sizes = members.sum(0).unsqueeze(1)
    farthest = distance.topk(min(len(centers), len(z))).indices
    number = ((sizes[:, 0] == 0).cumsum(0) - 1) % len(farthest)  # of those without codes
    return torch.where(sizes > 0, members.mT @ z / sizes.clamp_min(1), z[farthest[number]])
