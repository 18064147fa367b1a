"""E2E-AE: the autoencoder inside DAGMM, trained by itself."""

from __future__ import annotations

from deepod.models.reconstruction._reconstruction import Reconstruction
from deepod.networks import MLP, Network
from deepod.params import integer, param, parameters
from deepod.types import Shape


@parameters
class E2EAE(Reconstruction):
    """End-to-end autoencoder: the autoencoder inside DAGMM, with a code of one or two values.

    The DAGMM paper compares its method with this part of it, trained by itself. The score is the
    mean squared error of the reconstruction.

    Notes
    -----
    **When to use it.** Normal rows lie near a curve or a surface, or you want to compare with
    published figures. :class:`deepod.AutoEncoder`, with its longer code, LeakyReLU and BatchNorm,
    is usually the better choice.

    **When it fails.** Normal rows do not lie near a curve or a surface. With so short a code most
    of the score is then the distance of a row from the mean. Small networks with tanh may be stuck
    near that mean: published figures are low (F1 of 13 % on Thyroid).

    **Loss.** |x - x'|^2, as DAGMM's objective without its energy term (section 4.2). Here it is the
    mean over the values of a row, in the paper the sum. "End-to-end" says that all layers are
    trained at once; trained layer by layer first, the same network is the paper's PAE.

    **Setting.** On tables ``network="auto"`` is ``MLP(hidden=(64, 32), activation="tanh")``. The
    paper's setting for Thyroid: ``E2EAE(network=MLP(hidden=(12, 4), activation="tanh"),
    latent_dim=1, lr=1e-4, batch_size=1024, epochs=20000)``; for Arrhythmia ``hidden=(10,)``,
    ``latent_dim=2``, ``batch_size=128``, ``epochs=10000``; for KDDCUP ``hidden=(60, 30, 10)``,
    ``latent_dim=1``, ``batch_size=1024``, ``epochs=200``.

    References
    ----------
    B. Zong et al. Deep Autoencoding Gaussian Mixture Model for Unsupervised Anomaly Detection.
    ICLR 2018. Sections 4.2 and 4.3.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import E2EAE
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) @ np.ones((2, 6))
    >>> detector = E2EAE(random_state=0).fit(X)
    >>> detector.predict([[0] * 6, [9, -9] * 3])
    array([0, 1])
    """

    latent_dim: int = param(default=2, accepts=[integer(1)], doc="Length of the code.")
    error = "mse"
    auto_steps = 1000
    auto_epochs = 100
    auto_batch_norm = False
    paper = "Zong et al., Deep Autoencoding Gaussian Mixture Model, ICLR 2018"

    def _network(self, shape: Shape) -> Network:
        table = self.network == "auto" and len(shape) == 1
        return MLP(activation="tanh") if table else super()._network(shape)
