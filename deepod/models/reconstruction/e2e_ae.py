"""E2E-AE: the autoencoder inside DAGMM, trained by itself."""

from __future__ import annotations

from deepod.models.reconstruction._reconstruction import Reconstruction
from deepod.networks import MLP, Network
from deepod.params import integer, param, parameters
from deepod.types import Shape


@parameters
class E2EAE(Reconstruction):
    """End-to-end autoencoder of the DAGMM paper: a very short code, tanh, one training of all.

    Notes
    -----
    The DAGMM paper (section 4.2) takes the energy out of its objective: what is left is an
    autoencoder that minimises |x - x'|^2 and scores by it. Trained layer by layer first, it is the
    PAE of that paper; trained from end to end, E2E-AE. Other papers quote the second. It has the
    network of DAGMM: dense layers with tanh, none after the code and the output, and a code of one
    or two values. :class:`deepod.AutoEncoder` differs by LeakyReLU, BatchNorm, and a long code.

    Assumes that normal rows lie near a curve or a surface. Fails where they do not: with so short a
    code most of the score is then how far a row is from the mean. Small networks of tanh may be
    stuck near that mean; what papers quote for it is low (F1 of 13 % on Thyroid).

    On tables ``network="auto"`` is ``MLP(hidden=(64, 32), activation="tanh")``. The paper's setting
    for Thyroid: ``E2EAE(network=MLP(hidden=(12, 4), activation="tanh"), latent_dim=1, lr=1e-4,
    batch_size=1024, epochs=20000)``; for Arrhythmia ``hidden=(10,)``, ``latent_dim=2``,
    ``batch_size=128``, ``epochs=10000``; for KDDCUP ``hidden=(60, 30, 10)``, ``latent_dim=1``,
    ``batch_size=1024``, ``epochs=200``. The sum over the values of a row is a mean here.

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
