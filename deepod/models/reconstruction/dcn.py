"""DCN: an autoencoder whose codes gather around the centres of k-means."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepod.models._code import Coded
from deepod.models.reconstruction._kmeans import moved, spread
from deepod.models.reconstruction._reconstruction import TwoParts
from deepod.networks.layers import EncoderDecoder, squared_error, with_moments
from deepod.params import integer, one_of, param, parameters, real
from deepod.types import Batch, Losses, Phase, Refresh, Shape

_MOVES = 20  # of the centres, before the second phase begins


class _Clustered(EncoderDecoder):
    """Autoencoder and the centres of clusters of its codes."""

    centers: Tensor

    def __init__(self, encoder: nn.Module, decoder: nn.Module, centers: Tensor) -> None:
        super().__init__(encoder, decoder)
        self.register_buffer("centers", centers)

    def distance(self, z: Tensor) -> Tensor:
        """Return the squared distance of each code to its nearest centre, (B,)."""
        return (z.unsqueeze(1) - self.centers).square().sum(-1).amin(1)


@parameters
class DCN(Coded, TwoParts):
    """Deep clustering network: an autoencoder whose codes are drawn to the centres of clusters.

    Network and centres learn in turns: the network to rebuild rows and to bring their codes near a
    centre, the centres by k-means on the codes. The score of a row adds up how far its code is from
    the nearest centre and how badly the row is rebuilt.

    Notes
    -----
    **When to use it.** Normal rows come in at most ``n_clusters`` groups, and anomalies are in
    none.

    **When it fails.** A group of anomalies among the training rows gets a centre of its own.
    Nothing fixes the scale of the codes, as the decoder can undo any scaling: compare distances
    within one fit only.

    **Loss.** The paper minimises sum_i |x_i - g(f(x_i))|^2 + lambda / 2 |f(x_i) - M s_i|^2, with
    encoder f, decoder g, centres M, and s_i the cluster of row i. In a batch each row has the
    nearest centre, and f and g take one step. Training begins with the autoencoder alone, then
    comes k-means on its codes. Here the error is a mean over the values of a row.

    **Score.** The paper is about clustering. As a detector DCN is quoted from the DAGMM paper,
    which scores by the distance to the nearest centre (``score_by="distance"``); papers that copy
    its figures also cite DeepCluster (Caron et al., 2018) for them. The default adds the
    reconstruction error, because rows far from all training rows may have codes near a centre.

    **Departure.** All centres move once after every epoch, to the mean of their codes (a step of
    Lloyd's algorithm). The paper moves one centre after every row, by a step of one over the number
    of rows it has had. Both come to rest at the same places; here the order of the rows does not
    matter.

    **Setting.** The paper's clustering of MNIST: ``DCN(network=MLP(hidden=(500, 500, 2000),
    activation="relu"), latent_dim=10, n_clusters=10)``. What DAGMM ran is not stated, but for the
    network of its tables.

    References
    ----------
    B. Yang, X. Fu, N. D. Sidiropoulos and M. Hong. Towards K-means-friendly Spaces: Simultaneous
    Deep Learning and Clustering. ICML 2017.

    B. Zong et al. Deep Autoencoding Gaussian Mixture Model for Unsupervised Anomaly Detection.
    ICLR 2018. Section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import DCN
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) @ np.ones((2, 6))
    >>> detector = DCN(epochs=20, random_state=0).fit(X)
    >>> detector.predict([[0] * 6, [9, -9] * 3])
    array([0, 1])
    """

    n_clusters: int = param(default=10, accepts=[integer(1)], doc="Number of centres.")
    cluster_weight: float = param(
        default=0.1,
        accepts=[real(0)],
        doc="Weight of the squared distance to the centre (lambda; half of it, as printed).",
    )
    score_by: Literal["distance", "reconstruction", "combined"] = param(
        default="combined",
        accepts=[one_of("distance", "reconstruction", "combined")],
        doc="Squared distance of the code to the nearest centre, mean squared error of the "
        "reconstruction, or the sum of both, each standardised over the training rows.",
    )
    pretrain_epochs: int | Literal["auto"] = param(
        default="auto",
        accepts=[integer(0), one_of("auto")],
        doc="Epochs of training as an autoencoder, before there are centres, without "
        "``milestones``; 'auto': as many as ``epochs``.",
    )
    family = "reconstruction"
    auto_steps = 250
    auto_epochs = 40
    auto_batch_norm = True
    paper = "Yang et al., Towards K-means-friendly Spaces, ICML 2017"

    def _build_module(self, shape: Shape) -> nn.Module:
        network = self._network(shape)
        code = self._code_length(shape)
        centers = torch.zeros(self.n_clusters, code)
        module = _Clustered(network.encoder(shape, code), network.decoder(code, shape), centers)
        return with_moments(module)

    def _phases(self) -> list[Phase]:
        def encode(module: Any, x: Tensor) -> Tensor:
            return module.encoder(x)

        def start(z: Tensor) -> dict[str, Tensor]:
            centers = spread(z, self.n_clusters)
            for _ in range(_MOVES):
                centers = moved(z, centers)
            return {"centers": centers}

        def encode_beside_centers(module: Any, x: Tensor) -> Tensor:
            # Centres travel with the codes: what reduces them is told nothing else.
            z, centers = module.encoder(x), module.centers.flatten()
            return torch.cat([z, centers.expand(len(z), -1)], 1)

        def move(statistics: Tensor) -> dict[str, Tensor]:
            code = statistics.shape[1] // (self.n_clusters + 1)
            return {"centers": moved(statistics[:, :code], statistics[0, code:].view(-1, code))}

        epochs = self.epochs_ if self.pretrain_epochs == "auto" else self.pretrain_epochs
        pretrain = Phase("pretrain", epochs, self._reconstruction)
        fit = Phase(
            "fit",
            self.epochs_,
            self._loss,
            milestones=tuple(self.milestones),
            start=Refresh(encode, start),
            each_epoch=Refresh(encode_beside_centers, move),
        )
        return [pretrain, fit] if epochs else [fit]

    def _reconstruction(self, module: Any, batch: Batch) -> Losses:
        return {"reconstruction": squared_error(module(batch.x), batch.x).mean()}

    def _loss(self, module: Any, batch: Batch) -> Losses:
        z = module.encoder(batch.x)
        return {
            "reconstruction": squared_error(module.decoder(z), batch.x).mean(),
            "clustering": 0.5 * self.cluster_weight * module.distance(z).mean(),
        }

    def _parts(self, module: Any, x: Tensor) -> Tensor:
        """Return distance and error of each row, (B, 2)."""
        z = module.encoder(x)
        return torch.stack([module.distance(z), squared_error(module.decoder(z), x)], 1)
