"""Deep SVDD: an encoder that maps normal rows close to one point."""

from __future__ import annotations

from deepod.models.one_class._svdd import SVDD
from deepod.params import parameters


@parameters
class DeepSVDD(SVDD):
    """Deep support vector data description: the score is the squared distance to a centre.

    An encoder is trained to map the training rows near a fixed centre, or inside the smallest
    hypersphere that leaves a share ``nu`` of them out (``objective="soft"``).

    Notes
    -----
    Assumes (nearly) clean training rows; ``"soft"`` tolerates a share ``nu`` of others. The encoder
    has no biases, whatever ``network`` says, and its activations must not be bounded: else it could
    map all rows onto the centre. Fails where rows do not vary around one kind of normal (several
    clusters), and scores mean little after very long training, when all codes have shrunk together.

    The paper's setting for 28x28 images: ``DeepSVDD(network=LeNet(channels=(8, 4), hidden=(),
    batch_norm=True), latent_dim=32, scaler="gcn", epochs=150, pretrain_epochs=150, batch_size=200,
    lr=1e-4, milestones=(50,), weight_decay=5e-7)``.

    References
    ----------
    L. Ruff et al. Deep One-Class Classification. ICML 2018. Equation 3 (``"soft"``) and 4
    (``"hard"``). Here the radius is updated once an epoch from all rows, not from each batch.

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
