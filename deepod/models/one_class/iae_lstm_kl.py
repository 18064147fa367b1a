"""IAE-LSTM-KL: IAEAD with the gates of an LSTM step, and a KL term, on the code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax

from deepod.models.one_class._svdd_autoencoder import SVDDAutoencoder
from deepod.networks import Network
from deepod.networks.layers import Gate, drawn_by, squared_error
from deepod.params import one_of, param, parameters, real
from deepod.types import Batch, Losses, Shape


@parameters
class IAELSTMKL(SVDDAutoencoder):
    """Improved autoencoder with LSTM gates and a KL term: IAEAD with two parts more.

    To the hypersphere and the reconstruction of :class:`deepod.IAEAD` come one step of an LSTM
    between the encoder's features and the code, as an input gate and an output gate, and a term of
    the loss on the codes that is named after the KL divergence.

    Notes
    -----
    **When to use it.** As :class:`deepod.IAEAD`, on training rows that are (nearly) all normal. It
    fails in the same places.

    **What is built.** The paper's text: one LSTM step for each row, from a zero state. Its
    published code runs the LSTM from row to row of a batch, so that a score depends on neighbouring
    rows; we do not copy that. Layers are initialised as torch does, those of the gate orthogonally;
    Adam is not the amsgrad kind.

    **The KL term.** A KL divergence between a single code and a Gaussian does not exist, so there
    are three readings. ``kl="shift"`` is the term of the published code. It is linear in the code:
    it moves the best code by ``kl_weight / (2 latent_dim)``. ``kl="moments"`` is the divergence of
    mean and variance of a batch, ``kl="gaussian"`` half the squared code. The paper chooses weights
    for each class on test labels.

    **Setting.** For 28x28 images: ``IAELSTMKL(network=LeNet(channels=(32, 64, 128), hidden=(),
    batch_norm=True, pad_to=8), latent_dim=128, scaler="gcn", score_by="distance", lr=1e-4,
    milestones=(250,), weight_decay=5e-7)``; epochs and weights are not stated.

    **Ablations** (Tables V to VII, all with ``score_by="distance"``): DSVDD-KL is ``gate=None,
    use_decoder=False``; DLSVDD ``kl=None, use_decoder=False``; DLSVDD-KL ``use_decoder=False``;
    IAE-KL ``gate=None``; IAE-LSTM ``kl=None``; with one gate fixed to 1 ``gates=("input",)`` or
    ``gates=("output",)``, with both ``gates=()``. CAE is ``gate=None, kl=None, svdd_weight=0,
    score_by="reconstruction"``.

    References
    ----------
    W. Huang, B. Zhang, K. Zhang, H. Gao and R. Wan. Improved AutoEncoder with LSTM Module and KL
    Divergence for Anomaly Detection. 2024. Equations 6 to 12 (gates), 13 to 16 (loss), 17 (score).

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import IAELSTMKL
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = IAELSTMKL(epochs=20, random_state=0).fit(X)
    >>> detector.predict([[0, 0, 0], [9, 9, 9]])
    array([0, 1])
    """

    gate: Literal["lstm"] | None = param(
        default="lstm", accepts=[one_of("lstm"), None], doc="The gated layer, or none."
    )
    gates: Sequence[Literal["input", "output"]] = param(
        default=("input", "output"),
        accepts=[tuple, list],
        doc="Gates that are learned; one left out is 1.",
    )
    kl: Literal["shift", "moments", "gaussian"] | None = param(
        default="shift",
        accepts=[one_of("shift", "moments", "gaussian"), None],
        doc="The term on the codes, see the notes; or none.",
    )
    kl_weight: float = param(default=1e-3, accepts=[real(0)], doc="Weight of that term.")
    svdd_weight: float = param(default=1.0, accepts=[real(0)], doc="Weight of the SVDD term.")
    use_decoder: bool = param(
        default=True,
        accepts=["boolean"],
        doc="Whether reconstruction is part of the loss; False needs ``score_by='distance'``.",
    )
    paper = "Huang et al., Improved AutoEncoder with LSTM Module and KL Divergence, 2024"

    def _keeps_decoder(self) -> bool:
        return self.use_decoder

    def _build_module(self, shape: Shape) -> nn.Module:
        if not set(self.gates) <= {"input", "output"}:
            raise ValueError(f"gates may hold 'input' and 'output', got {self.gates!r}.")
        if not self.use_decoder and self.score_by != "distance":
            raise ValueError(f"score_by={self.score_by!r} needs use_decoder=True.")
        weights = self.svdd_weight, self.use_decoder and self.reconstruction_weight
        if not any(weights) and (self.kl is None or not self.kl_weight):
            raise ValueError("svdd_weight=0 and the other weights of 0 leave nothing to learn.")
        return super()._build_module(shape)

    def _encoder(self, network: Network, shape: Shape, code: int) -> nn.Module:
        if self.gate is None:
            return network.encoder(shape, code)
        features, width = network.features(shape)
        return nn.Sequential(features, Gate(width, self.gates), nn.Linear(width, code, bias=False))

    def _reconstruct(self, module: Any, x: Tensor) -> Tensor:
        if not self.use_decoder:
            raise ValueError("use_decoder=False leaves no decoder to reconstruct with.")
        return super()._reconstruct(module, x)

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Tensor | None:
        if self.kl != "shift":
            return None
        code = self.module_.get_buffer("center").shape
        return torch.randn(n, *code, **drawn_by(generator))

    def _loss(self, module: Any, batch: Batch) -> Losses:
        z = module.encoder(batch.x)
        terms = {}
        if self.svdd_weight:
            terms["svdd"] = self.svdd_weight * self._svdd(module, z)
        if self.use_decoder:
            error = squared_error(module.decoder(z), batch.x).mean()
            terms["reconstruction"] = self.reconstruction_weight * error
        if self.kl is not None:
            terms["kl"] = self.kl_weight * self._kl(z, batch.noise)
        return terms

    def _kl(self, z: Tensor, noise: Tensor | None) -> Tensor:
        if self.kl == "shift":  # torch's kl_div of z, taken for log-probabilities, per row
            target = softmax(noise, 1)  # type: ignore[arg-type]
            return (target * (target.log() - z)).sum(1).mean()
        if self.kl == "gaussian":
            return 0.5 * z.square().sum(1).mean()
        mean, variance = z.mean(0), z.var(0, correction=0) + 1e-6
        return 0.5 * (mean.square() + variance - variance.log() - 1).sum()
