"""Autoencoder: what cannot be squeezed through a narrow code is abnormal."""

from __future__ import annotations

from deepod.models.reconstruction._reconstruction import Reconstruction
from deepod.params import parameters


@parameters
class AutoEncoder(Reconstruction):
    """Autoencoder: a network that squeezes a row into a short code and rebuilds it.

    It learns to rebuild the training rows. The score of a row is its mean squared error after
    rebuilding. With ``network="lenet"`` it is the convolutional autoencoder (CAE) that papers of
    images compare with.

    Notes
    -----
    **When to use it.** Most training rows are normal. A few anomalies among them do little harm;
    many anomalies of one kind are learned like normal rows.

    **When it fails.** Anomalies lie within the range of the normal rows, both in single features
    and in their combinations, or are simpler than normal rows, as flat images among textured ones
    are. On tables with no more than ``latent_dim`` columns the code is no bottleneck; only the
    short training keeps the network from copying every row.

    **Setting.** There is no paper setting. ``AutoEncoder(network=LeNet(channels=(32, 64, 128),
    hidden=(), batch_norm=True, pad_to=8), latent_dim=128, error="mse")`` is near the CAE of the
    IAE-LSTM-KL paper for 28x28 images.

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
