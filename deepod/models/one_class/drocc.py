"""DROCC: a classifier against the most normal-looking points of a shell around every row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from deepod._base import BaseDetector
from deepod.networks import MLP, Network
from deepod.networks.layers import drawn_by, input_gradients
from deepod.params import integer, param, parameters, positive, real
from deepod.types import Batch, Losses, Phase, Shape

EPS = 1e-12


@parameters
class DROCC(BaseDetector):
    """Deep robust one-class classification: a classifier of rows against points near them.

    For every training row x, the points around it at a certain distance, the shell ``radius <= |h|
    <= gamma * radius``, are taken for abnormal. A search finds the point x + h in it that the
    classifier f holds for most normal, and f learns to tell it from x. The score is the logit of f.

    Notes
    -----
    **When to use it.** Training rows are (nearly) all normal and lie on a surface of few
    dimensions, so that nearly all points at a distance of ``radius`` are abnormal.

    **When it fails.** The radius decides more than all else. If it is smaller than the distance
    between normal rows, f learns to reject normal rows; if it is too large, anomalies near by are
    inside the shells, where f has seen nothing. Nor has it seen anything beyond them. Scores vary
    with the seed.

    **Loss.** The mean of log(1 + exp(f(x))) plus ``adversarial_weight`` times the mean of log(1 +
    exp(-f(x + h))), f being the logit of an anomaly (algorithm 1). The search starts at random;
    each of its steps is ``step_size`` long and is followed by a projection onto the shell.

    **Departure.** The published code takes 50 steps of 0.001 and projects after every tenth: its
    points are random ones at the distances of the shell, hardly moved. Here the ``ascent_steps``
    steps are by default together as long as the radius.

    **Setting.** On tables ``network="auto"`` stands for the paper's one hidden layer of 128 ReLU.
    The setting for Thyroid: ``DROCC(radius=2.5, ascent_steps=50, step_size=0.001, warmup_epochs=50,
    epochs=50, batch_size=256)``; for CIFAR-10 ``DROCC(network=LeNet(channels=(32, 64, 128),
    hidden=(128, 64), batch_norm=True), radius=8, gamma=1, ascent_steps=50, step_size=0.001,
    epochs=40, batch_size=256)``; both lower the learning rate on the way.

    References
    ----------
    S. Goyal, A. Raghunathan, M. Jain, H. V. Simhadri and P. Jain. DROCC: Deep Robust One-Class
    Classification. ICML 2020. Algorithm 1; not DROCC-LF, its variant for known close negatives.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import DROCC
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = DROCC(random_state=0).fit(X)
    >>> detector.predict([[0, 0, 0], [9, 9, 9]])
    array([0, 1])
    """

    radius: float | None = param(
        default=None,
        accepts=[positive(), None],
        doc="Inner radius of the shells, in scaled units; None: half the square root of the number "
        "of values of a sample.",
    )
    gamma: float = param(
        default=2.0, accepts=[real(1)], doc="Outer radius of the shells over the inner one."
    )
    ascent_steps: int = param(
        default=5, accepts=[integer(0)], doc="Steps of gradient ascent; 0: random points."
    )
    step_size: float | None = param(
        default=None,
        accepts=[positive(), None],
        doc="Length of a step, in scaled units; None: the radius over ``ascent_steps``.",
    )
    noise_std: float = param(
        default=1.0,
        accepts=[real(0)],
        doc="Standard deviation of the random start, in scaled units; it is projected, too.",
    )
    adversarial_weight: float = param(
        default=1.0, accepts=[real(0)], doc="Weight of the loss on the points of the shells (mu)."
    )
    warmup_epochs: int = param(
        default=0,
        accepts=[integer(0)],
        doc="Epochs on the training rows alone, before ``epochs`` with the points of the shells.",
    )
    family = "one-class"
    paper = "Goyal et al., DROCC: Deep Robust One-Class Classification, ICML 2020"
    auto_steps = 300

    def _network(self, shape: Shape) -> Network:
        table = self.network == "auto" and len(shape) == 1
        return MLP(hidden=(128,), activation="relu") if table else super()._network(shape)

    def _build_module(self, shape: Shape) -> nn.Module:
        return nn.ModuleDict({"classifier": self._network(shape).encoder(shape, 1)})

    def _phases(self) -> list[Phase]:
        warmup = Phase("warmup", self.warmup_epochs, self._normal)
        return [*[warmup] * bool(self.warmup_epochs), *super()._phases()]

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Tensor:
        return self.noise_std * torch.randn(n, *shape, **drawn_by(generator))

    def _normal(self, module: Any, batch: Batch) -> Losses:
        return {"normal": softplus(self._score(module, batch.x)).mean()}

    def _loss(self, module: Any, batch: Batch) -> Losses:
        h = self._search(module, batch.x, batch.noise)
        adversarial = softplus(-self._score(module, batch.x + h)).mean()
        return self._normal(module, batch) | {"adversarial": self.adversarial_weight * adversarial}

    def _search(self, module: Any, x: Tensor, h: Tensor) -> Tensor:
        """Return h, moved to where x + h looks normal on the shell, without gradients."""
        radius = x[0].numel() ** 0.5 / 2 if self.radius is None else self.radius
        step = radius / max(1, self.ascent_steps) if self.step_size is None else self.step_size
        with torch.no_grad():
            for _ in range(self.ascent_steps):
                # Up the loss of a point is down f, whatever the slope of the loss.
                down = -input_gradients(module["classifier"], x + h)
                h = self._projected(h + step * down / _norm(down), radius)
            return self._projected(h, radius)

    def _projected(self, h: Tensor, radius: float) -> Tensor:
        norm = _norm(h)
        return h * (norm.clamp_min(radius).clamp_max(self.gamma * radius) / norm)

    def _score(self, module: Any, x: Tensor) -> Tensor:
        return module["classifier"](x).squeeze(-1)


def _norm(x: Tensor) -> Tensor:
    """Return the length of each row, (B, 1, ...)."""
    norms = x.flatten(1).square().sum(1).sqrt().clamp_min(EPS)
    return norms.view(-1, *[1] * (x.dim() - 1))
