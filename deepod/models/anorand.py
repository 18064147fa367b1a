"""AnoRand: an autoencoder and a perceptron trained together on randomly labelled noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
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
    """Random labelling: an autoencoder and a noise detector, trained together on pseudo-labels.

    A few training rows are replaced by noisy ones, SMOTE draws more between these, and all get the
    label 1. A perceptron (detection block) learns the labels, an autoencoder, whose decoder also
    sees the perceptron's last hidden layer, learns to reconstruct the rows labelled 0. The score
    joins the probabilities of both.

    Attributes
    ----------
    alpha_ : float
        Weight of the detection block in the paper's score.

    Notes
    -----
    Assumes that most training rows are normal, or takes labels by ``supervision``. Without labels,
    detection is owed to the reconstruction: noise is easy to tell from normal rows, and telling it
    says little of real anomalies. The paper's fusion (equations 6 to 8) gives the detection block
    9/10 of the weight and more; the default swaps the weights, which was better on nearly every
    development dataset (``benchmarks/README.md``). With true labels the detection block is a good
    classifier and ``fusion="paper"`` does no harm. Fails where :class:`deepod.AutoEncoder` fails.

    The paper's setting, unsupervised: ``AnoRand(network=MLP(hidden=(32, 16), activation="relu"),
    latent_dim=16, fusion="paper", epochs=200, lr=1e-4)``. It does not state the scaling, the share
    of noisy rows, and whether SMOTE comes before the noise.

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
        default=0.2,
        accepts=[real(0, 1)],
        doc="Weight w of the detection block's cross-entropy; 1 - w weighs the reconstruction.",
    )
    noise_ratio: float = param(
        default=0.02,
        accepts=[real(0, 0.5)],
        doc="Share of the rows that is replaced by noisy ones.",
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
        default="swapped",
        accepts=[one_of("paper", "swapped", "mean", "reconstruction", "detection")],
        doc="How the score joins both blocks: with the paper's weights, these exchanged, equal "
        "ones, or only one of the blocks.",
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
    auto_steps = 500
    auto_batch_norm = True
    paper = "Mayaki & Riveill, AnoRand, 2023"

    def _network(self, shape: Shape) -> Network:
        if self.network == "auto" and len(shape) == 1:
            return MLP(hidden=(32, 16), activation="relu", batch_norm=True)
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

    @property
    def alpha_(self) -> float:
        """Weight of the detection block in the paper's score (equation 7)."""
        check_is_fitted(self)
        error, detection = self.module_.get_buffer("quartiles").tolist()
        return error / (error + detection)

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
        weights = {"paper": q.flip(0), "swapped": q, "mean": torch.ones_like(q)}[self.fusion]
        return (p * weights).sum(1) / weights.sum()

    def _calibration(self) -> Refresh:
        def reduce(p: Tensor) -> dict[str, Tensor]:
            return {"quartiles": torch.quantile(p, 0.75, dim=0)}

        return Refresh(self._probabilities, reduce)
