"""Gaussian anomaly detection: the Mahalanobis distance from the training rows."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor, nn

from deepod.models.density._without_steps import WithoutSteps
from deepod.networks import StartsFromRows
from deepod.params import fraction, one_of, param, parameters
from deepod.types import Shape


class _Gaussian(StartsFromRows):
    """Mean of the training rows, and the symmetric matrix that whitens them."""

    mean: Tensor
    whitening: Tensor
    unseen: Tensor

    def __init__(self, values: int, pca: str | None, variance: float) -> None:
        super().__init__()
        self.pca, self.variance = pca, variance
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("whitening", torch.eye(values))
        self.register_buffer("unseen", torch.tensor([1.0, 0.0]))  # see _score_trained

    def start_from_rows(self, x: Tensor) -> None:
        """Estimate mean and whitening matrix, as StartsFromRows asks."""
        rows = x.flatten(1).cpu().double().numpy()
        covariance, shrinkage = ledoit_wolf(rows)
        variances, directions = np.linalg.eigh(covariance)
        # Of rows that are all alike: whatever is different is far, and no number infinite.
        sizes = np.sqrt(variances.clip(max(1e-9 * variances[-1], 1e-12)))
        whitening = (directions / sizes * self._chosen(variances)) @ directions.T
        self.mean.copy_(torch.from_numpy(rows.mean(0)))
        self.whitening.copy_(torch.from_numpy(whitening))
        others = max(1, len(rows) - 1)
        self.unseen.copy_(torch.tensor([len(rows) / others, (1 - shrinkage) / others]))

    def _chosen(self, variances: np.ndarray) -> np.ndarray:
        """Return which principal components count, given their variances in ascending order."""
        larger = np.append(variances[:0:-1].cumsum()[::-1], 0.0)  # sum of those above each
        first = larger < self.variance * variances.sum()
        first[-1], last = True, ~first
        last[0] = True
        return {None: np.ones(len(variances), bool), "first": first, "last": last}[self.pca]

    def forward(self, x: Tensor) -> Tensor:
        """Return the whitened difference of each row from the mean, (B, values)."""
        x = x.flatten(1) if x.device.type == "mps" else x.flatten(1).double()  # MPS has no float64
        return (x - self.mean) @ self.whitening.to(x)


@parameters
class GaussianAD(WithoutSteps):
    """Gaussian anomaly detection: the squared Mahalanobis distance from the training rows.

    Mean and covariance are those of the training rows, flattened. The covariance is shrunk towards
    a multiple of the identity (Ledoit and Wolf), so that it can be inverted even with fewer rows
    than values. There is no network and no training.

    Notes
    -----
    **When to use it.** Normal rows form one cloud, and what matters is how values vary together. It
    is also what to compare networks with.

    **When it fails.** Normal rows form several clusters or a curved surface. Many anomalies among
    the training rows stretch the covariance; ``suspects`` leaves the farthest rows out.

    **Images.** Rippel et al. take the distance of features of a network that was trained on other
    images, and add it up over its levels. No weights come with this package, and a model holds no
    network of yours. To do as they do, compute the features of your images at each level, and fit
    one detector on each. They also take the distance within the first principal components, or
    within the last ones, which tell anomalies of images apart: ``pca="first"``, ``pca="last"``.

    **Contributions.** What a value adds to the score is the square of its whitened difference from
    the mean, by the symmetric root of the inverse covariance, which keeps whitened values nearest
    to the given ones (Garthwaite and Koch, Evaluating the Contributions of Individual Variables to
    a Quadratic Form, 2016).

    **Training rows.** Each is scored as if it had not been in mean and covariance, with the
    shrinkage and the principal components of all rows; with ``calibration_fraction``, like a new
    row.

    **Cost.** As nothing is trained, the shared parameters that steer training (``epochs``, ``lr``,
    ``batch_size``, ``network`` and so on) have no effect, and rows that are held out or left out as
    suspects do not count. Memory grows with the square of the number of values in a sample, time
    with its cube.

    References
    ----------
    O. Rippel, P. Mertens, E. König and D. Merhof. Gaussian Anomaly Detection by Modeling the
    Distribution of Normal Data in Pretrained Deep Features. IEEE Transactions on Instrumentation
    and Measurement, 2021.
    O. Ledoit and M. Wolf. A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices.
    Journal of Multivariate Analysis, 2004.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import GaussianAD
    >>> generator = np.random.default_rng(0)
    >>> X = generator.normal(size=(200, 1)) + 0.1 * generator.normal(size=(200, 3))
    >>> detector = GaussianAD().fit(X)
    >>> detector.predict([[1, 1, 1], [2, -2, 2]])
    array([0, 1])
    >>> detector.explain([[2, -2, 2]]).argmax()
    np.int64(1)
    """

    pca: Literal["first", "last"] | None = param(
        default=None,
        accepts=[one_of("first", "last"), None],
        doc="Principal components that the distance is taken in: the fewest that have "
        "``pca_variance``, the others, or all.",
    )
    pca_variance: float = param(
        default=0.99,
        accepts=[fraction()],
        doc="Share of the variance of the training rows that the first components have.",
    )
    family = "density"
    paper = "Rippel et al., Gaussian Anomaly Detection in Pretrained Deep Features, 2021"

    def _build_module(self, shape: Shape) -> nn.Module:
        return _Gaussian(torch.Size(shape).numel(), self.pca, self.pca_variance)

    def _score(self, module: Any, x: Tensor) -> Tensor:
        return module(x).square().sum(1)

    def _score_trained(self, module: Any, x: Tensor) -> Tensor:
        q = self._score(module, x)
        if self.calibration_fraction:  # those that calibrate are among x, and new to the module
            return q
        # By the formula of Sherman and Morrison: n / (n - 1) * q / left, with left = 1 - q times
        # what is not shrunk over n - 1. Of rows that were trained on, no left is below 0.
        growth, share = module.unseen.to(q)
        left = 1 - share * q
        return torch.where(left > 0, growth * q / left.clamp_min(1e-6), q)

    def _contributions(self, module: Any, x: Tensor) -> Tensor:
        return module(x).square().view(x.shape)
