"""AnoRand: an autoencoder and a perceptron trained together on randomly labelled noise."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from deepod.models.perturbation._pseudo_labels import repeat, replace_by_noise
from deepod.models.reconstruction._reconstruction import ErrorMaps
from deepod.networks import MLP, Network
from deepod.networks.layers import ERRORS, error_norm
from deepod.params import integer, one_of, param, parameters, real
from deepod.types import Batch, Losses, Refresh, Shape

_NOISE = ("noise_ratio", "noise_std", "synthetic_ratio", "k_neighbors")


@parameters
class AnoRand(ErrorMaps):
    """Random labelling: an autoencoder and a classifier of noise, trained together.

    Noise replaces a few rows, SMOTE adds more rows between these, and all of them get the label 1.
    A perceptron learns the labels. An autoencoder, whose decoder also sees the perceptron's last
    hidden layer, learns to rebuild the rows labelled 0. ``fusion`` joins both in a score.

    Attributes
    ----------
    alpha_ : float
        Weight of the detection block in the paper's score.

    Notes
    -----
    **When to use it.** Most training rows are normal, or you have labels for ``supervision``.

    **When it fails.** Where :class:`deepod.AutoEncoder` fails. Noise is easy to tell from normal
    rows, and telling it says little of real anomalies: the paper's fusion, mostly the perceptron,
    ranks worse than the reconstruction alone (``benchmarks/README.md``). Known anomalies are
    repeated; the paper trains on each once, from which few of them teach next to nothing.

    **Setting.** ``AnoRand(network=MLP(hidden=(32, 16), activation="relu"), latent_dim=16,
    fusion="paper", known_ratio=0, epochs=200, lr=1e-4)``; scaling and noisy share are not stated.

    References
    ----------
    M. Zoubeirou A Mayaki and M. Riveill. AnoRand: A Semi Supervised Deep Learning Anomaly Detection
    Method by Random Labeling. 2023. Equations 3 to 8.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import AnoRand
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = AnoRand(random_state=0).fit(X)
    >>> detector.predict([[0, 0, 0], [9, 9, 9]])
    array([0, 1])
    """

    latent_dim: int = param(default=8, accepts=[integer(1)], doc="Length of the code.")
    detection_weight: float = param(
        default=0.2, accepts=[real(0, 1)], doc="Weight w of the cross-entropy; 1 - w of the error."
    )
    noise_ratio: float = param(
        default=0.02, accepts=[real(0, 0.5)], doc="Share of rows that noisy ones replace."
    )
    synthetic_ratio: float = param(
        default=0.05, accepts=[real(0, 0.5)], doc="Share of abnormal rows, SMOTE's included."
    )
    noise_std: float = param(
        default=0.6, accepts=[real(0)], doc="Standard deviation of the noise, in scaled units."
    )
    k_neighbors: int = param(
        default=5, accepts=[integer(1)], doc="Neighbours that SMOTE interpolates to; at most all."
    )
    supervision: Literal["few_labels", "supervised"] | None = param(
        default=None,
        accepts=[one_of("few_labels", "supervised"), None],
        doc="None ignores y. 'few_labels': y is 1 for known anomalies, which join the noisy rows, "
        "and 0 for unlabelled ones. 'supervised': y holds the true labels, without noisy rows.",
    )
    known_ratio: float = param(
        default=0.5, accepts=[real(0, 0.5)], doc="Share of known anomalies, repeated; 0: once each."
    )
    fusion: Literal["auto", "paper", "swapped", "mean", "reconstruction", "detection"] = param(
        default="auto",
        accepts=[one_of("auto", "paper", "swapped", "mean", "reconstruction", "detection")],
        doc="How the score joins both blocks: by the paper's weights, these exchanged, equal ones, "
        "or one block alone. 'auto': 'reconstruction' without labels, 'mean' with them.",
    )
    error: Literal["norm", "mse"] = param(
        default="norm",
        accepts=[one_of("norm", "mse")],
        doc="Error of the reconstruction in the loss; the score always takes the norm.",
    )
    z0: Literal["hidden", "output"] = param(
        default="hidden",
        accepts=[one_of("hidden", "output")],
        doc="What the decoder is told of the detection block: its last hidden layer or its output.",
    )
    scaler = "minmax"
    family, paper = "pseudo-label", "Mayaki & Riveill, AnoRand, 2023"
    auto_steps, auto_epochs, auto_batch_norm = 500, 80, True

    def _network(self, shape: Shape) -> Network:
        if self.network == "auto" and len(shape) == 1:
            return MLP(hidden=(32, 16), activation="relu", batch_norm=True)
        return super()._network(shape)

    def _build_module(self, shape: Shape) -> nn.Module:
        network = self._network(shape)
        features, width = network.features(shape)
        z0 = width if self.z0 == "hidden" else 1
        module = nn.ModuleDict({"features": features, "head": nn.Linear(width, 1)})  # detection
        module["encoder"] = network.encoder(shape, self.latent_dim)
        module["decoder"] = network.decoder(self.latent_dim + z0, shape)
        # Third quartiles of both blocks' probabilities over the training rows.
        module.register_buffer("quartiles", torch.full((2,), 0.5))
        return module

    def _forward(self, module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstructions (B, *shape) and the logits of being noise (B,)."""
        hidden = module["features"](x)
        logit = module["head"](hidden)
        z0 = hidden if self.z0 == "hidden" else torch.sigmoid(logit)
        return module["decoder"](torch.cat([module["encoder"](x), z0], 1)), logit.squeeze(-1)

    def _validate_y(self, y: Any, n: int) -> np.ndarray | None:
        y = super()._validate_y(y, n)
        if y is not None and not y.any():
            raise ValueError(
                f"supervision={self.supervision!r} needs both classes in y, got only 0."
            )
        return y

    def _prepare(self, X: np.ndarray, y: np.ndarray | None, rng: np.random.Generator) -> Any:
        """Return rows and labels to train on: 1 for noisy rows and known anomalies."""
        known = np.zeros(len(X), bool) if y is None else y == 1
        rest, noise = X[~known], X[:0]
        if y is None or self.supervision != "supervised":
            rest, noise = replace_by_noise(rest, rng, **{k: getattr(self, k) for k in _NOISE})
        abnormal = np.concatenate([noise, repeat(X[known], len(rest), self.known_ratio)])
        return np.concatenate([rest, abnormal]), np.repeat([0, 1], [len(rest), len(abnormal)])

    # --- loss and score -------------------------------------------------------------------------

    def _loss(self, module: Any, batch: Batch) -> Losses:
        reconstruction, logit = self._forward(module, batch.x)
        error = ERRORS[self.error](reconstruction, batch.x)
        assert batch.y is not None
        # Signs corrected: the final loss as printed would maximise the error.
        w, normal = self.detection_weight, 1 - batch.y
        return {
            "detection": w * binary_cross_entropy_with_logits(logit, batch.y),
            "reconstruction": (1 - w) * (normal * error).mean(),
        }

    def _blocks(self, module: Any, x: Tensor) -> Tensor:
        """Return error and logit of each row, (B, 2)."""
        reconstruction, logit = self._forward(module, x)
        return torch.stack([error_norm(reconstruction, x), logit], 1)

    def _probabilities(self, module: Any, x: Tensor) -> Tensor:
        # Equation 6, in float64 (not on MPS): in float32 the sigmoid of an error above 17 is 1.
        blocks = self._blocks(module, x)
        return torch.sigmoid(blocks if blocks.device.type == "mps" else blocks.double())

    def _fused_by(self) -> str:
        auto = "reconstruction" if self.supervision is None else "mean"
        return auto if self.fusion == "auto" else self.fusion

    def _reconstruct(self, module: Any, x: Tensor) -> Tensor:
        return self._forward(module, x)[0]

    def _scored_error(self) -> str | None:
        return "norm" if self._fused_by() == "reconstruction" else None

    def _score(self, module: Any, x: Tensor) -> Tensor:
        fusion = self._fused_by()
        if fusion in ("reconstruction", "detection"):
            return self._blocks(module, x)[:, int(fusion == "detection")]
        q = module.quartiles  # equations 7 and 8
        weights = {"paper": q.flip(0), "swapped": q, "mean": torch.ones_like(q)}[fusion]
        return (self._probabilities(module, x) * weights).sum(1) / weights.sum()

    def _after_training(self) -> Refresh:
        def quartiles(p: Tensor) -> dict[str, Tensor]:  # torch.quantile refuses long tensors
            return {"quartiles": torch.from_numpy(np.quantile(p.cpu().numpy(), 0.75, axis=0))}

        return Refresh(self._probabilities, quartiles)

    @property
    def alpha_(self) -> float:
        """The weight of the detection block in the paper's score (equation 7)."""
        check_is_fitted(self)
        q_error, q_detection = self.module_.get_buffer("quartiles").tolist()
        return q_error / (q_error + q_detection)
