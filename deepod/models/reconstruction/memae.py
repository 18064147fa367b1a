"""MemAE: an autoencoder that may only decode what its memory of normal codes can make."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, relu

from deepod.models.reconstruction._reconstruction import Reconstruction
from deepod.networks.layers import ERRORS, EncoderDecoder
from deepod.params import integer, one_of, param, parameters, positive, real
from deepod.types import Batch, Losses, Shape

EPS = 1e-12


class _MemoryNet(EncoderDecoder):
    """Autoencoder whose decoder sees a mixture of stored codes in the place of the code."""

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        slots: Tensor,  # (N, code)
        shrink: float,
        similarity: str,
    ) -> None:
        super().__init__(encoder, decoder)
        self.slots = nn.Parameter(slots)
        self.shrink = shrink
        self.similarity = similarity

    def address(self, x: Tensor) -> Tensor:
        """Return the weights of the slots for each sample, (B, N)."""
        z: Tensor = self.encoder(x)
        slots: Tensor = self.slots
        if self.similarity == "cosine":
            z, slots = normalize(z, dim=1), normalize(slots, dim=1)
        w = (z @ slots.T).softmax(1)
        # w where it is above the threshold, else 0, with a gradient in w.
        above = w - self.shrink
        w = relu(above) * w / (above.abs() + EPS)
        # A row whose weights have all been shrunk away stays at 0, and is decoded from nothing.
        return normalize(w, p=1, dim=1, eps=EPS)

    def read(self, w: Tensor) -> Tensor:
        """Reconstruct from the slots with these weights."""
        return self.decoder(w @ self.slots)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.address(x))


@parameters
class MemAE(Reconstruction):
    """Memory-augmented autoencoder: rows are rebuilt from a few stored codes of normal rows.

    The code of a row is not decoded itself. It is compared with ``n_slots`` learned vectors, the
    memory; what is decoded is the weighted mean of the vectors most like it. Whatever is rebuilt is
    so made of what normal rows have left in the memory. The score is the mean squared error.

    Notes
    -----
    **When to use it.** Most training rows are normal, and :class:`deepod.AutoEncoder` rebuilds
    anomalies too well.

    **When it fails.** Where :class:`deepod.AutoEncoder` fails, and where mixtures of stored vectors
    reach as far as the anomalies. Many anomalies of one kind get vectors of their own. Scores jump
    a little where a weight crosses ``shrink``.

    **Weights and loss.** Weights are the softmax of the similarity of the code to the vectors.
    Those below ``shrink`` become 0, and the others are scaled to sum up to 1. The loss is ``error``
    plus ``entropy_weight`` times the mean entropy of the weights.

    **Departures.** The paper measures similarity by the cosine, with which no weight can exceed e^2
    / n_slots; its published code takes the plain product, the default here. With ``shrink`` above 1
    / n_slots (the paper has up to 3 / n_slots) all weights of a row may become 0: it is then
    decoded from zeros, and no gradient reaches the encoder. The paper asks the memory for each
    position of a feature map; here it is asked once for each row, images too.

    **Setting.** The paper's text was not available: settings are from memory and from its published
    code. For 28x28 images ``MemAE(network=LeNet(channels=(16, 32, 64), kernel_size=3, hidden=(),
    batch_norm=True), n_slots=100, similarity="cosine", error="mse", lr=1e-4)``, with strides in the
    place of pooling; for 32x32 ``n_slots=500`` and wider layers.

    References
    ----------
    D. Gong, L. Liu, V. Le, B. Saha, M. R. Mansour, S. Venkatesh and A. van den Hengel. Memorizing
    Normality to Detect Anomaly: Memory-Augmented Deep Autoencoder for Unsupervised Anomaly
    Detection. ICCV 2019. Its memory, hard shrinkage and sparsity loss.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import MemAE
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) @ np.ones((2, 6))
    >>> detector = MemAE(random_state=0).fit(X)
    >>> detector.predict([[0] * 6, [9, -9] * 3])
    array([0, 1])
    """

    n_slots: int = param(default=100, accepts=[integer(1)], doc="Vectors in the memory (N).")
    shrink: float | None = param(
        default=None,
        accepts=[positive(), None],
        doc="Weight below which a slot is left out (lambda); None: 1 / n_slots.",
    )
    similarity: Literal["dot", "cosine"] = param(
        default="dot",
        accepts=[one_of("dot", "cosine")],
        doc="How alike a code and a slot are: by their product, or by their cosine, as printed.",
    )
    entropy_weight: float = param(
        default=2e-4, accepts=[real(0)], doc="Weight of the entropy of the weights (alpha)."
    )
    paper = "Gong et al., Memorizing Normality to Detect Anomaly, ICCV 2019"

    def _build_module(self, shape: Shape) -> nn.Module:
        network, code = self._network(shape), self.latent_dim
        bound = code**-0.5
        slots = torch.empty(self.n_slots, code).uniform_(-bound, bound)
        shrink = 1 / self.n_slots if self.shrink is None else self.shrink
        encoder, decoder = network.encoder(shape, code), network.decoder(code, shape)
        return _MemoryNet(encoder, decoder, slots, shrink, self.similarity)

    def _loss(self, module: Any, batch: Batch) -> Losses:
        w = module.address(batch.x)
        entropy = -(w * (w + EPS).log()).sum(1)
        return {
            "reconstruction": ERRORS[self.error](module.read(w), batch.x).mean(),
            "entropy": self.entropy_weight * entropy.mean(),
        }
