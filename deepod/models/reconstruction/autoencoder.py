"""Autoencoder: what cannot be squeezed through a narrow code is abnormal."""

from __future__ import annotations

from deepod.models.reconstruction._reconstruction import Reconstruction
from deepod.params import parameters


@parameters
class AutoEncoder(Reconstruction):
    """Autoencoder: the score is the mean squared error of the reconstruction.

    On images, with its default network, it is the convolutional autoencoder (CAE) that papers
    compare with.

    Notes
    -----
    Assumes that most training rows are normal: a few anomalies among them do little harm, many of
    one kind are learned too. Fails where anomalies lie within the range of the normal rows, feature
    by feature and in combination, or are simpler than they are (flat images among textured ones).
    On tables narrower than ``latent_dim`` there is no bottleneck, and what keeps the network from
    copying everything is that training is short.

    There is no paper setting; ``AutoEncoder(network=LeNet(channels=(32, 64, 128), hidden=(),
    batch_norm=True, pad_to=8), latent_dim=128, error="mse")`` is near the CAE of the IAE-LSTM-KL
    paper for 28x28 images.

    References
    ----------
    G. E. Hinton and R. R. Salakhutdinov. Reducing the Dimensionality of Data with Neural Networks.
    Science, 2006.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import AutoEncoder
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) @ np.ones((2, 6))
    >>> detector = AutoEncoder(epochs=20, random_state=0).fit(X)
    >>> detector.predict([[0] * 6, [9, -9] * 3])
    array([0, 1])
    """

    paper = "Hinton & Salakhutdinov, Reducing the Dimensionality of Data with Neural Networks, 2006"
