"""Denoising autoencoder: reconstruct the clean row from a corrupted one."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from deepod.models.reconstruction._reconstruction import Reconstruction
from deepod.networks.layers import ERRORS, drawn_by
from deepod.params import one_of, param, parameters, real
from deepod.types import Batch, Losses, Shape


@parameters
class DAE(Reconstruction):
    """Denoising autoencoder: an autoencoder that learns to remove noise from rows.

    In training it gets rows with noise and has to rebuild them without it. The score of a row is
    the mean squared error with which it is rebuilt; no noise is added for scoring.

    Notes
    -----
    **When to use it.** As :class:`deepod.AutoEncoder`, with most training rows normal. The noise
    keeps also a wide network from copying its input.

    **When it fails.** Where :class:`deepod.AutoEncoder` fails, and where the noise is larger than
    the difference between anomalies and normal rows.

    **Setting.** OCGAN's comparison, which the NS-AE paper quotes, has images in [0, 1] and noise of
    variance 0.2: ``DAE(scaler="minmax", noise_std=0.2**0.5, error="mse")``.

    References
    ----------
    P. Vincent, H. Larochelle, Y. Bengio and P.-A. Manzagol. Extracting and Composing Robust
    Features with Denoising Autoencoders. ICML 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import DAE
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) @ np.ones((2, 6))
    >>> detector = DAE(epochs=20, random_state=0).fit(X)
    >>> detector.predict([[0] * 6, [9, -9] * 3])
    array([0, 1])
    """

    corruption: Literal["gaussian", "masking"] = param(
        default="gaussian",
        accepts=[one_of("gaussian", "masking")],
        doc="Gaussian noise is added to the scaled values, or a share of them is set to 0.",
    )
    noise_std: float = param(
        default=0.2,
        accepts=[real(0)],
        doc="Standard deviation of the Gaussian noise, scaled units.",
    )
    masked_share: float = param(
        default=0.3, accepts=[real(0, 1)], doc="Chance of a value to be masked."
    )
    paper = "Vincent et al., Extracting and Composing Robust Features with Denoising AE, ICML 2008"

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Tensor:
        draw = torch.randn if self.corruption == "gaussian" else torch.rand
        return draw(n, *shape, **drawn_by(generator))

    def _loss(self, module: Any, batch: Batch) -> Losses:
        if self.corruption == "gaussian":
            corrupted = batch.x + self.noise_std * batch.noise
        else:
            corrupted = batch.x * (batch.noise >= self.masked_share)
        return {"reconstruction": ERRORS[self.error](module(corrupted), batch.x).mean()}
