"""GEOM: which way an image was turned is easy to see, if it is a normal one."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from deepod._base import BaseDetector
from deepod.params import integer, one_of, param, parameters, real
from deepod.types import Batch, Losses, Refresh, Shape


class _Net(nn.Module):
    """Classifier of transformed samples, and where the values of each come from."""

    places: Tensor
    alpha: Tensor

    def __init__(self, places: Tensor, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.register_buffer("places", places)  # (T, values)
        # Of the Dirichlet distribution of what the classifier says of each transformation.
        self.register_buffer("alpha", torch.ones(len(places), len(places)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the log-probability of each transformation (last axis) of each made, (B, T, T)."""
        made = x.flatten(1).index_select(1, self.places.flatten()).view(-1, *x.shape[1:])
        logits = self.classifier(made).unflatten(0, (-1, len(self.places)))
        return log_softmax(logits, 2)


def _moved(places: Tensor, shift: int, axis: int) -> Tensor:
    """Return places moved along an axis, mirrored at the border."""
    side = places.shape[axis]
    source = (torch.arange(side) - shift).abs()
    return places.index_select(axis, torch.minimum(source, 2 * (side - 1) - source).clamp(0))


@parameters
class GEOM(BaseDetector):
    """Geometric transformations: a network that tells how an image was turned, flipped or moved.

    Every image is transformed in all T ways, and a network learns to tell which way it was. Of an
    abnormal image it is less sure, or says other things than of normal images: that is the score.

    Notes
    -----
    **When to use it.** Images that have an up and a down, (nearly) all of them normal.

    **When it fails.** On symmetric images (the digits 0, 8 and 1), whose transformations cannot be
    told apart, and on textures. Images that are not square are not turned by a quarter. Windows,
    reversed in time and moved along it, and tables, whose columns are put into random orders that
    are fixed at the start, are for authors of methods: rows far outside are often those it is most
    sure of.

    **Loss and score.** The loss is the cross-entropy, mean over the T transformed samples of each
    row. With y_t the probabilities that the network gives for transformation t of a row, the score
    is minus the sum over t of (alpha_t - 1) log y_t, the paper's Dirichlet likelihood. Each alpha_t
    is the one with the highest likelihood for the training rows (fixed point of Minka).
    ``likelihood="softmax"`` is the simpler score GEOM-: minus the mean probability of the right
    transformation.

    **Setting.** ``GEOM(shift=0.25)``, which makes 72 transformations, with a wide residual network
    (WRN-10-4), ``batch_size=128`` of transformed images, of which 3 passes are made. Here the
    network is small, and a batch holds all transformations of a few rows.

    References
    ----------
    I. Golan and R. El-Yaniv. Deep Anomaly Detection Using Geometric Transformations. NeurIPS 2018.
    T. Minka. Estimating a Dirichlet Distribution. 2000.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import GEOM
    >>> noise = np.random.default_rng(0).normal(size=(100, 1, 8, 8))
    >>> X = np.linspace(-3, 3, 64).reshape(8, 8) + noise
    >>> detector = GEOM(random_state=0).fit(X)
    >>> detector.predict([np.linspace(-3, 3, 64).reshape(1, 8, 8), np.zeros((1, 8, 8))])
    array([0, 1])
    """

    shift: float = param(
        default=0.0,
        accepts=[real(0, 0.5)],
        doc="Share of the side by which images are moved to either side, up and down, and windows "
        "in time; 0 moves nothing.",
    )
    n_transforms: int = param(
        default=8, accepts=[integer(2)], doc="Orders of the columns of a table."
    )
    likelihood: Literal["dirichlet", "softmax"] = param(
        default="dirichlet",
        accepts=[one_of("dirichlet", "softmax")],
        doc="How the score is made of the probabilities, see the notes.",
    )
    batch_size = 32
    family, inputs = "self-supervised", ("images",)
    paper = "Golan & El-Yaniv, Deep AD Using Geometric Transformations, NeurIPS 2018"
    auto_steps = 200
    auto_epochs = 60
    auto_of_images = "lenet"

    def _places(self, shape: Shape) -> Tensor:
        """Return where each value of each transformed sample comes from, (T, values)."""
        places = torch.arange(torch.Size(shape).numel())
        if len(shape) == 1:
            orders = [torch.randperm(len(places)) for _ in range(self.n_transforms - 1)]
            return torch.stack([places, *orders])
        found = [places.view(shape), places.view(shape).flip(0 if len(shape) == 2 else 2)]
        for axis in [0] if len(shape) == 2 else [1, 2]:
            step = round(self.shift * shape[axis])
            shifts = (0, -step, step) if step else (0,)
            found = [_moved(grid, by, axis) for grid in found for by in shifts]
        if len(shape) == 3:
            quarters = (0, 1, 2, 3) if shape[1] == shape[2] else (0, 2)
            found = [grid.rot90(k, (1, 2)) for grid in found for k in quarters]
        return torch.stack(found).flatten(1)

    def _build_module(self, shape: Shape) -> nn.Module:
        places = self._places(shape)
        return _Net(places, self._network(shape).encoder(shape, len(places)))

    def _loss(self, module: Any, batch: Batch) -> Losses:
        right = module(batch.x).diagonal(dim1=1, dim2=2)
        return {"classification": -right.mean()}

    def _after_training(self) -> Refresh:
        return Refresh(lambda module, x: module(x).flatten(1), _dirichlet)

    def _score(self, module: Any, x: Tensor) -> Tensor:
        logs = module(x)
        if self.likelihood == "softmax":
            return -logs.diagonal(dim1=1, dim2=2).exp().mean(1)
        return ((1 - module.alpha) * logs).sum((1, 2))


def _dirichlet(logs: Tensor) -> dict[str, Tensor]:
    """Fit a Dirichlet distribution to the log-probabilities of every transformation."""
    mean = logs.double().mean(0).cpu()
    mean = mean.view(round(len(mean) ** 0.5), -1)
    alpha = torch.ones_like(mean)
    for _ in range(1000):
        target = torch.digamma(alpha.sum(1, keepdim=True)) + mean
        alpha = _inverse_digamma(target)
    return {"alpha": alpha.clamp_max(1e6).float().to(logs.device)}


def _inverse_digamma(y: Tensor) -> Tensor:
    x = torch.where(y >= -2.22, y.exp() + 0.5, -1 / (y - torch.digamma(torch.ones_like(y))))
    for _ in range(5):
        x = x - (torch.digamma(x) - y) / torch.polygamma(1, x)
    return x
