"""AnoRand: an autoencoder and a perceptron trained together on randomly labelled noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from deepod._base import BaseDetector
from deepod.networks import MLP, Network
from deepod.networks.layers import error_norm, squared_error
from deepod.params import integer, one_of, param, parameters, real
from deepod.types import Batch, Losses, Refresh, Shape


class _Net(nn.Module):
    """Detection block and autoencoder, whose decoder sees the code and the block's features."""

    def __init__(self, features: nn.Module, head: nn.Module, encoder: nn.Module, decoder: nn.Module,
                 z0: str) -> None:  # fmt: skip
        super().__init__()
        self.features = features
        self.head = head
        self.encoder = encoder
        self.decoder = decoder
        self.z0 = z0
        # Third quartiles of both probabilities over the training rows.
        self.register_buffer("quartiles", torch.full((2,), 0.5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction (B, *shape) and logit of being noise (B,)."""
        hidden = self.features(x)
        logit = self.head(hidden)
        z0 = hidden if self.z0 == "hidden" else torch.sigmoid(logit)
        return self.decoder(torch.cat([self.encoder(x), z0], 1)), logit.squeeze(-1)


@parameters
class AnoRand(BaseDetector):
    """todo"""

    latent_dim: int = param(default=16, accepts=[integer(1)], doc="Length of the code.")
    detection_weight: float = param(
        default=0.2,
        accepts=[real(0, 1)],
        doc="Weight w of the detection block's cross-entropy; 1 - w weighs the reconstruction.",
    )
    noise_ratio: float = param(
        default=0.02, accepts=[real(0, 0.5)], doc="Share of the rows that is replaced by noisy ones."
    )
    synthetic_ratio: float = param(
        default=0.05,
        accepts=[real(0, 0.5)],
        doc="Share of noisy rows after SMOTE has added interpolated ones.",
    )
    noise_std: float = param(
        default=0.6, accepts=[real(0)], doc="Standard deviation of the noise, in scaled units."
    )
    k_neighbors: int = param(
        default=5, accepts=[integer(1)], doc="Neighbours that SMOTE interpolates to; at most all."
    )
    supervision: str | None = param(
        default=None,
        accepts=[one_of("few_labels", "supervised"), None],
        doc="None ignores y. 'few_labels': y is 1 for known anomalies and 0 for unlabelled rows, "
        "and known anomalies join the noisy rows. 'supervised': y holds true labels of both "
        "classes, which replace the noisy rows.",
    )
    fusion: str = param(
        default="paper",
        accepts=[one_of("paper", "swapped", "mean", "reconstruction", "detection")],
        doc="How the score joins both blocks.",
    )
    error: str = param(
        default="norm", accepts=[one_of("norm", "mse")], doc="Error of the reconstruction."
    )
    z0: str = param(
        default="hidden",
        accepts=[one_of("hidden", "output")],
        doc="What the decoder is told of the detection block: its last hidden layer or its output.",
    )
    scaler = "minmax"
    family = "pseudo-label"
    paper = "Mayaki & Riveill, AnoRand, 2023"

    def _network(self, shape: Shape) -> Network:
        if self.network == "auto" and len(shape) == 1:
            return MLP(hidden=(32, 16), activation="relu")
        return super()._network(shape)

    def _build_module(self, shape: Shape) -> nn.Module:
        network = self._network(shape)
        features, width = network.features(shape)
        z0 = width if self.z0 == "hidden" else 1
        return _Net(
            features,
            nn.Linear(width, 1),
            network.encoder(shape, self.latent_dim),
            network.decoder(self.latent_dim + z0, shape),
            self.z0,
        )

    # --- pseudo-labels --------------------------------------------------------------------------

    def _validate_y(self, y: Any, n: int) -> np.ndarray | None:
        y = super()._validate_y(y, n)
        if self.supervision == "supervised" and y is not None and not (y == 1).any():
            raise ValueError("supervision='supervised' needs both classes in y, got only 0.")
        return y

    def _prepare(
        self, X: np.ndarray, y: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and labels to train on: 1 for noisy rows, and for anomalies that are known."""
        if self.supervision == "supervised" and y is not None:
            return X, y
        known = np.zeros(len(X), bool) if y is None else y == 1
        unlabelled = rng.permutation(X[~known])
        n = len(unlabelled)
        noisy = min(max(2, round(self.noise_ratio * n)), n - 1) if self.noise_ratio else 0
        noise = rng.normal(0, self.noise_std, (noisy, *X.shape[1:]))
        first, rest = unlabelled[:noisy] + noise, unlabelled[noisy:]
        # So many that they are synthetic_ratio of the rows in the end.
        wanted = round(self.synthetic_ratio / (1 - self.synthetic_ratio) * (n - noisy))
        synthetic = self._interpolate(first, wanted - noisy, rng)
        abnormal = np.concatenate([first, synthetic, X[known]]).astype(np.float32)
        return np.concatenate([rest, abnormal]), np.repeat([0, 1], [len(rest), len(abnormal)])

    def _interpolate(self, rows: np.ndarray, extra: int, rng: np.random.Generator) -> np.ndarray:
        """Draw more rows between neighbouring ones, by SMOTE."""
        if extra <= 0 or len(rows) < 2:
            return rows[:0]
        from imblearn.over_sampling import SMOTE

        flat = rows.reshape(len(rows), -1)
        smote = SMOTE(
            sampling_strategy={1: len(rows) + extra},
            k_neighbors=min(self.k_neighbors, len(rows) - 1),
            random_state=int(rng.integers(2**31)),
        )
        # SMOTE wants a second class: one row of it.
        labels = np.repeat([1, 0], [len(rows), 1])
        more, _ = smote.fit_resample(np.concatenate([flat, flat[:1]]), labels)
        return more[len(rows) + 1 :].reshape(-1, *rows.shape[1:])

    # --- loss and score -------------------------------------------------------------------------

    def _error(self, reconstruction: Tensor, x: Tensor) -> Tensor:
        return (error_norm if self.error == "norm" else squared_error)(reconstruction, x)

    def _loss(self, module: Any, batch: Batch) -> Losses:
        reconstruction, logit = module(batch.x)
        assert batch.y is not None
        # Equation 3 and the final loss with their signs corrected: as printed, the error of the
        # reconstruction would be maximised.
        w, normal = self.detection_weight, 1 - batch.y
        return {
            "detection": w * binary_cross_entropy_with_logits(logit, batch.y),
            "reconstruction": (1 - w) * (normal * self._error(reconstruction, batch.x)).mean(),
        }

    def _blocks(self, module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        reconstruction, logit = module(x)
        return error_norm(reconstruction, x), logit

    def _probabilities(self, module: Any, x: Tensor) -> Tensor:
        # Equations 5 to 7 in float64: in float32 the sigmoid of an error above 17 is 1.
        error, logit = self._blocks(module, x)
        return torch.sigmoid(torch.stack([error, logit], 1).double())

    def _score(self, module: Any, x: Tensor) -> Tensor:
        error, logit = self._blocks(module, x)
        if self.fusion == "reconstruction":
            return error
        if self.fusion == "detection":
            return logit
        p = torch.sigmoid(torch.stack([error, logit], 1).double())
        q = module.quartiles.double()
        weights = {"paper": q.flip(0) / q.sum(), "swapped": q / q.sum(), "mean": 0.5 * torch.ones_like(q)}
        return (p * weights[self.fusion]).sum(1)

    def _calibration(self) -> Refresh:
        def reduce(p: Tensor) -> dict[str, Tensor]:
            return {"quartiles": torch.quantile(p, 0.75, dim=0)}

        return Refresh(self._probabilities, reduce)
