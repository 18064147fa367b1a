"""What methods that reconstruct their input share: the autoencoder, its error, error maps."""

from __future__ import annotations

import abc
from typing import Any, Literal

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from deepod._base import BaseDetector
from deepod.networks.layers import ERRORS, EncoderDecoder, error_terms, moments, squared_error
from deepod.params import integer, one_of, param, parameters
from deepod.types import Batch, Losses, Refresh, Shape


@parameters
class ErrorMaps(BaseDetector):
    """Detector that rebuilds its input, with maps of the error."""

    def _reconstruct(self, module: Any, x: Tensor) -> Tensor:
        return module(x)

    def _scored_error(self) -> str | None:
        """Return which of ``ERRORS`` the score is; None if there is more to it."""
        return None

    def _squares(self, module: Any, x: Tensor) -> Tensor:
        """Return the squared error of each value, (B, *shape), for the map."""
        return (self._reconstruct(module, x) - x).square()

    def _contributions(self, module: Any, x: Tensor) -> Tensor | None:
        error = self._scored_error()
        return None if error is None else error_terms(error, self._reconstruct(module, x), x)

    def score_map(self, X: Any, batch_size: int | None = None) -> np.ndarray:
        """Return how badly each pixel is rebuilt.

        Parameters
        ----------
        X : array-like
            Images shaped like those of ``fit``.
        batch_size : int, optional
            As in ``decision_function``.

        Returns
        -------
        errors : ndarray of shape (n, height, width), float64
            Squared error of every pixel, in scaled units, mean over the channels.
        """
        check_is_fitted(self)
        if len(self.input_shape_) != 3:
            raise ValueError(
                f"score_map needs images; {type(self).__name__} was fitted on samples of shape "
                f"{self.input_shape_}."
            )

        def errors(module: Any, x: Tensor) -> Tensor:
            return self._squares(module, x).mean(1)

        return self._apply(X, errors, batch_size)


@parameters
class TwoParts(ErrorMaps):
    """Detector whose score joins some number with the reconstruction error, or is one of both.

    A method declares ``score_by``: "combined", "reconstruction", or a name for that number.
    """

    @abc.abstractmethod
    def _parts(self, module: Any, x: Tensor) -> Tensor:
        """Return both parts of the score of each row, (B, 2): second, the mean squared error."""

    def _joined(self, module: Any, parts: Tensor) -> Tensor:
        """Add the parts up, each standardised over the training rows (by ``with_moments``)."""
        return ((parts - module.mean) / module.std).sum(1)

    def _score(self: Any, module: Any, x: Tensor) -> Tensor:
        parts = self._parts(module, x)
        if self.score_by == "combined":
            return self._joined(module, parts)
        return parts[:, int(self.score_by == "reconstruction")]

    def _scored_error(self: Any) -> str | None:
        return "mse" if self.score_by == "reconstruction" else None

    def _after_training(self) -> Refresh | None:
        return Refresh(self._parts, moments)


@parameters
class Reconstruction(ErrorMaps):
    """Autoencoder whose score is its mean squared error."""

    latent_dim: int = param(default=32, accepts=[integer(1)], doc="Length of the code.")
    error: Literal["norm", "mse"] = param(
        default="norm",
        accepts=[one_of("norm", "mse")],
        doc="Error that training minimises: its Euclidean norm, in which rows with large errors, "
        "anomalies perhaps, weigh less than in the usual mean square. The score is the mean square "
        "always, which ranks like the norm.",
    )
    family = "reconstruction"
    auto_steps = 250
    auto_epochs = 40
    auto_batch_norm = True

    def _build_module(self, shape: Shape) -> nn.Module:
        network, code = self._network(shape), self.latent_dim
        return EncoderDecoder(network.encoder(shape, code), network.decoder(code, shape))

    def _loss(self, module: Any, batch: Batch) -> Losses:
        return {"reconstruction": ERRORS[self.error](module(batch.x), batch.x).mean()}

    def _score(self, module: Any, x: Tensor) -> Tensor:
        return squared_error(module(x), x)

    def _scored_error(self) -> str:
        return "mse"
