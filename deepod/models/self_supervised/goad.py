"""GOAD: which of many random affine maps a row went through is easy to tell, if it is normal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from deepod._base import BaseDetector
from deepod.networks import MLP, Network
from deepod.params import integer, param, parameters, real
from deepod.types import Batch, Losses, Refresh, Shape


class _Net(nn.Module):
    """Random maps, the network on what they give, its classifier, and the centres of the maps."""

    maps: Tensor
    offsets: Tensor
    centers: Tensor

    def __init__(self, network: Network, size: int, n_maps: int, mapped: int, code: int) -> None:
        super().__init__()
        self.register_buffer("maps", torch.randn(n_maps, size, mapped))
        # Small: large ones would tell the maps apart without a look at the row.
        self.register_buffer("offsets", 0.3 * torch.randn(n_maps, mapped))
        self.encoder = network.encoder((mapped,), code)
        self.classifier = nn.Sequential(nn.LeakyReLU(0.2), nn.Linear(code, n_maps))
        self.register_buffer("centers", torch.zeros(n_maps, code))

    def forward(self, x: Tensor) -> Tensor:
        """Return the code of every map of a row, (B, M, code)."""
        mapped = torch.einsum("bd,mde->bme", x.flatten(1), self.maps) + self.offsets
        return self.encoder(mapped.flatten(0, 1)).unflatten(0, mapped.shape[:2])


def _distances(codes: Tensor, centers: Tensor) -> Tensor:
    """Return the squared distance of the code of map m to the centre of map k, (B, M, M)."""
    lengths = codes.square().sum(-1, keepdim=True) + centers.square().sum(-1)
    return lengths - 2 * codes @ centers.mT


@parameters
class GOAD(BaseDetector):
    """Random affine maps: a network that tells through which of many maps a row was sent.

    Every row x goes through M fixed random affine maps, W_m x + b_m. A network f learns to put what
    comes out of map m near its centre c_m, the mean of all that came out of it, and away from the
    centres of the other maps. Of an abnormal row, what comes out is nearer to wrong centres.

    Notes
    -----
    **When to use it.** Numeric columns whose sizes and combinations matter, and training rows that
    are (nearly) all normal.

    **When it fails.** Anomalies lie close to the middle of the data, or f maps all of them alike.
    The middle itself looks alike through many maps, so that normal rows there may score high. With
    few maps scores depend on the seed. Windows and images are flattened.

    **Loss.** With z_m = f(W_m x + b_m), the triplet loss around centres max(0, |z_m - c_m|^2 +
    ``margin`` - min_k |z_m - c_k|^2) over k other than m, with the means of the batch as centres,
    times ``triplet_weight``; plus the cross-entropy of a linear classifier of the maps on f, as in
    the paper's code.

    **Score.** Minus the sum over m of log P(m), with P(k) in proportion to exp(-|z_m - c_k|^2) +
    ``eps``. With ``eps`` above 0, as in the paper's text, what is far from all centres belongs to
    none, and all such rows get the same, highest score. The paper's code has 0, as here.

    **Departures.** Centres at scoring are means over all training rows, in the paper's code over
    the batches of the last epoch. Its code has no b_m; of scaled columns, the middle of the data
    would look the same through all maps. W_m is divided by the root of the number of columns, so
    that wide tables start like narrow ones.

    **Setting.** The paper's setting for Thyroid and Arrhythmia: ``GOAD(n_transforms=32,
    transform_dim=4, network=MLP(hidden=(), bias=False), latent_dim=8, scaler=None,
    epochs=25)``, but for the betas of Adam (0.5 and 0.999 there).

    References
    ----------
    L. Bergman and Y. Hoshen. Classification-Based Anomaly Detection for General Data. ICLR 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import GOAD
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = GOAD(random_state=0).fit(X)
    >>> detector.predict([[1, 1, 1], [9, 9, 9]])
    array([0, 1])
    """

    n_transforms: int = param(
        default=32, accepts=[integer(2)], doc="Number of random maps: M in the notes."
    )
    transform_dim: int = param(
        default=16, accepts=[integer(1)], doc="Number of values that a map puts out."
    )
    latent_dim: int = param(default=16, accepts=[integer(1)], doc="Length of the code of a map.")
    margin: float = param(
        default=1.0,
        accepts=[real(0)],
        doc="How much nearer, in squared distance, a code is to be to its own centre.",
    )
    triplet_weight: float = param(
        default=0.1, accepts=[real(0)], doc="Weight of the triplet loss; 1 of the cross-entropy."
    )
    eps: float = param(
        default=0.0,
        accepts=[real(0)],
        doc="What is added to every exp(-distance): what is far from all centres belongs to none.",
    )
    batch_size = 64
    family, inputs = "self-supervised", ("table", "windows")
    paper = "Bergman & Hoshen, Classification-Based Anomaly Detection for General Data, ICLR 2020"
    auto_steps = 200
    auto_epochs = 60

    def _network(self, shape: Shape) -> Network:
        network = MLP(hidden=(32,)) if self.network == "auto" else super()._network(shape)
        if not isinstance(network, MLP):  # what it sees are projections, in no order
            raise ValueError(f"network must be an MLP for GOAD, got {network!r}.")
        return network

    def _build_module(self, shape: Shape) -> nn.Module:
        size = torch.Size(shape).numel()
        network = self._network((self.transform_dim,))
        net = _Net(network, size, self.n_transforms, self.transform_dim, self.latent_dim)
        net.maps /= size**0.5
        return net

    def _loss(self, module: Any, batch: Batch) -> Losses:
        codes = module(batch.x)
        distances = _distances(codes, codes.mean(0))
        own = torch.eye(codes.shape[1], device=codes.device)
        nearest = (distances + 1e6 * own).amin(2)
        triplet = (distances.diagonal(dim1=1, dim2=2) + self.margin - nearest).clamp_min(0)
        logits = module.classifier(codes)
        return {
            "triplet": self.triplet_weight * triplet.mean(),
            "classification": -(log_softmax(logits, 2) * own).sum(2).mean(),
        }

    def _after_training(self) -> Refresh:
        return Refresh(
            lambda module, x: module(x).flatten(1),
            lambda codes: {"centers": codes.mean(0).view(self.n_transforms, -1)},
        )

    def _score(self, module: Any, x: Tensor) -> Tensor:
        logits = -_distances(module(x), module.centers)  # (B, M, M)
        own = logits.diagonal(dim1=1, dim2=2)
        if self.eps:
            floor = torch.full_like(logits, self.eps).log()
            total = torch.logaddexp(logits, floor).logsumexp(2)
            return (total - torch.logaddexp(own, floor[..., 0])).sum(1)
        return (logits.logsumexp(2) - own).sum(1)
