"""NeuTraL: learned transformations of a row that stay like it and unlike one another."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from deepod._base import BaseDetector
from deepod.networks import MLP, Network
from deepod.params import integer, one_of, param, parameters, positive, real
from deepod.types import Batch, Losses, Shape


@parameters
class NeuTraL(BaseDetector):
    """Neural transformation learning: networks that learn different views of a row.

    K small networks each turn a row x into a view of it, and an encoder turns x and its views into
    codes. Together they learn to keep the code of each view near that of x and far from those of
    the other views. With an abnormal row, whose parts do not belong together, they fail: the score
    is the loss.

    Notes
    -----
    **When to use it.** Tables of many columns, and windows; training rows are (nearly) all normal.

    **When it fails.** With few columns, of which there are few different views.

    **Loss and score.** With h(a, b) = exp(cos(a, b) / ``temperature``) and the codes z of x and z_k
    of its views, the deterministic contrastive loss (DCL) of the paper: - sum_k log[h(z_k, z) /
    (h(z_k, z) + sum of h(z_k, z_l) over the other views l)]. A view is x + M_k(x) (``"residual"``),
    sigmoid(M_k(x)) * x (``"multiplicative"``) or M_k(x) (``"forward"``).

    **Why there are no biases, and [0, 1].** With biases, views could be constants; neither the
    networks of the views nor the default encoder have any. A row and its double then have the same
    angles around 0, hence the scaling to [0, 1]. A row of all columns' minima would be 0, which has
    no angle and the highest score: in tables of counts, it may be the most common row. Therefore
    ``offset``, which the paper does not have, is added to every value.

    **Setting.** For Thyroid: ``NeuTraL(network=MLP(hidden=(24, 24, 24, 24), bias=False,
    activation="relu"), latent_dim=24, transform_hidden=(24,), offset=0, epochs=200,
    weight_decay=1e-5)``; for Arrhythmia widths of 64, ``latent_dim=32``,
    ``transform_hidden=(200,)`` and ``lr=5e-4``. There, training ends when the loss has not fallen
    for 100 epochs.

    References
    ----------
    C. Qiu, T. Pfrommer, M. Kloft, S. Mandt and M. Rudolph. Neural Transformation Learning for Deep
    Anomaly Detection Beyond Images. ICML 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import NeuTraL
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) @ np.ones((2, 6))
    >>> detector = NeuTraL(random_state=0).fit(X)
    >>> detector.predict([[0] * 6, [9, -9] * 3])
    array([0, 1])
    """

    n_transforms: int = param(
        default=11, accepts=[integer(2)], doc="Number of learned transformations: K in the notes."
    )
    view: Literal["residual", "multiplicative", "forward"] = param(
        default="residual",
        accepts=[one_of("residual", "multiplicative", "forward")],
        doc="How a network makes a view of a row, see the notes.",
    )
    transform_hidden: tuple[int, ...] | list[int] = param(
        default=(32,), accepts=[tuple, list], doc="Widths of the networks that transform."
    )
    latent_dim: int = param(default=32, accepts=[integer(1)], doc="Length of the code.")
    temperature: float = param(
        default=0.1, accepts=[positive()], doc="What cosines are divided by in the loss."
    )
    offset: float = param(
        default=0.1,
        accepts=[real(0)],
        doc="What is added to every scaled value, so that no training row is 0.",
    )
    scaler = "minmax"
    family, inputs = "self-supervised", ("table", "windows")
    paper = "Qiu et al., Neural Transformation Learning Beyond Images, ICML 2021"
    auto_steps = 300
    auto_epochs = 60

    def _network(self, shape: Shape) -> Network:
        return (
            MLP(hidden=(64, 64), bias=False) if self.network == "auto" else super()._network(shape)
        )

    def _build_module(self, shape: Shape) -> nn.Module:
        size = torch.Size(shape).numel()
        mlp = MLP(hidden=self.transform_hidden, activation="relu", bias=False)
        return nn.ModuleDict(
            {
                "transforms": mlp.decoder(size, shape, self.n_transforms),
                "encoder": self._network(shape).encoder(shape, self.latent_dim),
            }
        )

    def _views(self, module: Any, x: Tensor) -> Tensor:
        """Make K views of every row, (K, B, *shape)."""
        made = module["transforms"](x.flatten(1))
        if self.view == "residual":
            return x + made
        return torch.sigmoid(made) * x if self.view == "multiplicative" else made

    def _contrast(self, module: Any, x: Tensor) -> Tensor:
        """Return the deterministic contrastive loss of every row, (B,)."""
        x = x + self.offset
        both = torch.cat([x.unsqueeze(0), self._views(module, x)])  # (1 + K, B, *shape)
        codes = module["encoder"](both.flatten(0, 1)).unflatten(0, both.shape[:2])
        codes = normalize(codes, dim=2).transpose(0, 1)  # (B, 1 + K, latent_dim)
        z, views = codes[:, :1], codes[:, 1:]
        to_row = (views @ z.mT).squeeze(2) / self.temperature  # (B, K)
        to_views = views @ views.mT / self.temperature  # (B, K, K), and to themselves
        own = torch.eye(views.shape[1], dtype=torch.bool, device=x.device)
        others = to_views.masked_fill(own, -torch.inf).logsumexp(2)
        return (torch.logaddexp(to_row, others) - to_row).sum(1)

    def _loss(self, module: Any, batch: Batch) -> Losses:
        return {"contrast": self._contrast(module, batch.x).mean()}

    def _score(self, module: Any, x: Tensor) -> Tensor:
        return self._contrast(module, x)
