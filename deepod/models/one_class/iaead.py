"""IAEAD: Deep SVDD that keeps its decoder."""

from __future__ import annotations

from deepod.models.one_class._svdd_autoencoder import SVDDAutoencoder
from deepod.params import parameters


@parameters
class IAEAD(SVDDAutoencoder):
    """Improved autoencoder for anomaly detection: Deep SVDD and reconstruction in one loss.

    Notes
    -----
    Assumes (nearly) clean training rows. The reconstruction keeps the codes from collapsing, the
    hypersphere keeps them together. The encoder has no biases, whatever ``network`` says. Fails
    where :class:`deepod.AutoEncoder` and :class:`deepod.DeepSVDD` both fail: anomalies among the
    normal rows that are as easy to reconstruct.

    The paper scores by the distance, ``IAEAD(score_by="distance", reconstruction_weight=1.0)``; the
    default, chosen on development datasets (``benchmarks/README.md``), adds the error.

    References
    ----------
    Z. Cheng, S. Wang, P. Zhang, S. Wang, X. Liu and E. Zhu. Improved Autoencoder for Unsupervised
    Anomaly Detection. International Journal of Intelligent Systems, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import IAEAD
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = IAEAD(epochs=20, random_state=1).fit(X)
    >>> detector.predict([[0, 0, 0], [9, 9, 9]])
    array([0, 1])
    """

    paper = "Cheng et al., Improved Autoencoder for Unsupervised Anomaly Detection, IJIS 2021"
