"""Deep SVDD: an encoder that maps normal rows close to one point."""

from __future__ import annotations

from deepod.models.one_class._svdd import SVDD
from deepod.params import parameters


@parameters
class DeepSVDD(SVDD):
    """Deep support vector data description: an encoder that maps normal rows close to one point.

    That point, the centre, is the mean code of the training rows after ``pretrain_epochs`` as an
    autoencoder, and stays where it is. The score of a row is the squared distance of its code to
    the centre.

    Notes
    -----
    **When to use it.** Training rows are (nearly) all normal and vary around one kind of normal.
    ``objective="soft"`` tolerates a share ``nu`` of other rows: it draws only those rows to the
    centre that are outside a radius, which leaves that share out.

    **When it fails.** Normal rows form several clusters. After very long training all codes have
    shrunk together, and scores mean little.

    **Why there are no biases.** With biases or bounded activations the encoder could map all rows
    onto the centre. It has no biases, whatever ``network`` says; choose an activation without
    bounds.

    **Departure.** The radius is updated once an epoch from all rows, not from each batch.

    **Setting.** The paper's setting for 28x28 images: ``DeepSVDD(network=LeNet(channels=(8, 4),
    hidden=(), batch_norm=True), latent_dim=32, scaler="gcn", epochs=150, pretrain_epochs=150,
    batch_size=200, lr=1e-4, milestones=(50,), weight_decay=5e-7)``.

    References
    ----------
    L. Ruff et al. Deep One-Class Classification. ICML 2018. Equation 3 (``"soft"``) and 4
    (``"hard"``).

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import DeepSVDD
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = DeepSVDD(random_state=0).fit(X)
    >>> detector.predict([[1, 1, 1], [9, 9, 9]])
    array([0, 1])
    """

    paper = "Ruff et al., Deep One-Class Classification, ICML 2018"
