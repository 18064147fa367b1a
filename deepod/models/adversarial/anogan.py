"""AnoGAN: search what a generator makes for a row like this one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepod.models.adversarial._gan import GAN
from deepod.params import integer, param, parameters, positive, real


@parameters
class AnoGAN(GAN):
    """GAN with a search: how near a generator of normal rows can come to this row.

    A generator G, which makes rows of normal z, and a discriminator are trained against each other.
    For a row x, steps of gradient descent seek the z whose G(z) is most like x; the difference that
    is left is the score.

    Notes
    -----
    **When to use it.** Only normal rows to train on, and time: for each row to score there is a
    search.

    **When it fails.** Training comes out badly, and nothing shows it: the two losses say little,
    and another seed or a few more epochs may give another ranking. The generator may make a part of
    the normal rows alone, so that others score high (mode collapse). Run several seeds
    (:class:`deepod.SeedEnsemble`) before you trust one. Where G can make anything, as on tables
    with few columns, the search finds anomalies too.

    **Score.** (1 - lambda) sum |x - G(z)| + lambda sum |f(x) - f(G(z))| at the z that was found, f
    being the last hidden layer of the discriminator: the paper's residual loss, discrimination loss
    by feature matching, and anomaly score A(x), with lambda = 0.1.

    **Departures.** The paper starts each search at a random z and takes 500 steps. Here it starts
    at the best of ``n_starts`` points drawn in ``fit``, the same for all rows, and takes
    ``search_steps`` steps of Adam that become shorter, so that scores are repeatable. Tables have
    an MLP.

    **Cost.** A score takes ``search_steps`` passes through G and f, forth and back; an
    autoencoder's is one pass forth. Gradients of the score, as in ``explain``, go through the whole
    search, which takes memory in proportion. There is no ONNX file of a search.

    **Setting.** The paper has 64x64 patches of retina scans and DCGAN's networks of four
    convolutions: ``AnoGAN(network=LeNet(channels=(64, 128, 256, 512), hidden=(), batch_norm=True,
    bias=True), latent_dim=100, search_steps=500, n_starts=1, scaler="symmetric")`` is near, with
    ``epochs=20``.

    References
    ----------
    T. Schlegl, P. Seeboeck, S. M. Waldstein, U. Schmidt-Erfurth and G. Langs. Unsupervised Anomaly
    Detection with Generative Adversarial Networks to Guide Marker Discovery. IPMI 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import AnoGAN
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) @ np.ones((2, 6))
    >>> detector = AnoGAN(random_state=0).fit(X)
    >>> detector.predict([[0] * 6, [9, -9] * 3])
    array([0, 1])
    """

    search_steps: int = param(
        default=25, accepts=[integer(0)], doc="Steps of the search for z, for every row to score."
    )
    search_lr: float = param(
        default=0.1,
        accepts=[positive()],
        doc="Size of the first of these steps, in z, whose values have standard deviation 1; it "
        "falls to zero.",
    )
    feature_weight: float = param(
        default=0.1,
        accepts=[real(0, 1)],
        doc="Share of the difference of features in the score (lambda).",
    )
    paper = "Schlegl et al., Unsupervised Anomaly Detection with GANs, IPMI 2017"

    def _cost(self, module: Any, z: Tensor, x: Tensor, features: Tensor) -> Tensor:
        """Return the weighted differences of values and of features, (B,)."""
        found = module["generator"](z)
        residual = (x - found).abs().flatten(1).sum(1)
        difference = (features - module["discriminator"].features(found)).abs().sum(1)
        return (1 - self.feature_weight) * residual + self.feature_weight * difference

    def _score(self, module: Any, x: Tensor) -> Tensor:
        features = module["discriminator"].features(x)
        begun = module["generator"](module.starts).flatten(1)
        z = module.starts[torch.cdist(x.flatten(1), begun, p=1.0).argmin(1)]
        downhill = torch.func.grad(lambda z: self._cost(module, z, x, features).sum())
        first, second = torch.zeros_like(z), torch.zeros_like(z)
        for t in range(1, self.search_steps + 1):  # Adam, with steps that fall to zero
            gradient = downhill(z)
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient.square()
            size = self.search_lr * (1 - (t - 1) / self.search_steps)
            away = (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
            z = z - size * away
        return self._cost(module, z, x, features)
