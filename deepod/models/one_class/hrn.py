"""HRN: one class learned by a classifier that must not lean on a few features."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.functional import normalize, pad, softplus

from deepod._base import BaseDetector
from deepod.networks import MLP, Network
from deepod.networks.layers import input_gradients
from deepod.params import one_of, param, parameters, real
from deepod.types import Batch, Losses, Shape


@parameters
class HRN(BaseDetector):
    """Holistic regularization: a network that is high on normal rows and nowhere steep.

    A network f without biases learns to be high on the training rows. Steep slopes are punished, as
    the length of its gradient to the power 12, so that no single feature can decide. Each row is
    scaled to length 1 before. The score is minus f.

    Notes
    -----
    **When to use it.** Training rows are (nearly) all normal and have values from 0 to 1, hence the
    default ``scaler``. Scaled to length 1, such rows lie close together on the unit sphere.

    **When it fails.** Normal rows lie in all directions from the origin, as standardised rows do,
    or anomalies have the direction of normal rows. f grows along every line from the origin; only
    the scaling to length 1 makes it low elsewhere.

    **Loss.** Minus the mean of log sigmoid(f(x)) plus ``lam`` times the mean of |df/dx|^power, with
    the gradient taken in the row of length 1.

    **Departure.** Scaling a row to length 1 loses its size, which on tables is much of what is
    known. A 1 is therefore put beside the features of a row first, and nothing is lost
    (``instance_norm="lifted"``, the default for tables). The paper scales the row as it is and
    subtracts the mean of its values (``"l2"``, the default for images and windows). Its code adds
    0.01 within the logarithm, and prints the epoch that is best on the labels of the test set.

    **Setting.** ``network="auto"`` is the paper's one hidden layer of 100 without biases, for all
    kinds of samples. The setting for MNIST: ``HRN(scaler=None, optimizer="sgd", lr=0.1,
    batch_size=100, epochs=50)`` on pixels from 0 to 1. The paper's text was not available: the
    setting is that of its published code.

    References
    ----------
    W. Hu, M. Wang, Q. Qin, J. Ma and B. Liu. HRN: A Holistic Approach to One Class Learning.
    NeurIPS 2020. H-regularization and 2-norm instance-level normalization.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import HRN
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = HRN(random_state=0).fit(X)
    >>> detector.predict([[0, 0, 0], [9, 9, 9]])
    array([0, 1])
    """

    lam: float = param(default=0.1, accepts=[real(0)], doc="Weight of the gradients (lambda).")
    power: float = param(
        default=12.0, accepts=[real(1)], doc="Power of the length of the gradients (n)."
    )
    instance_norm: Literal["auto", "l2", "lifted"] = param(
        default="auto",
        accepts=[one_of("auto", "l2", "lifted")],
        doc="How a row is scaled to length 1: as it is, and its mean taken off ('l2', printed), or "
        "with a 1 beside its features ('lifted', tables only). 'auto': 'lifted' for tables.",
    )
    family = "one-class"
    paper = "Hu et al., HRN: A Holistic Approach to One Class Learning, NeurIPS 2020"
    auto_steps = 500
    scaler = "minmax"

    def _network(self, shape: Shape) -> Network:
        if self.network == "auto":
            return MLP(hidden=(100,), bias=False)
        return super()._network(shape)

    def _build_module(self, shape: Shape) -> nn.Module:
        if self.instance_norm == "lifted" and len(shape) > 1:
            raise ValueError("instance_norm='lifted' is for tables; use 'l2' or 'auto'.")
        seen = (shape[0] + 1,) if self._lifts(len(shape)) else shape
        return nn.ModuleDict({"classifier": self._network(shape).encoder(seen, 1)})

    def _lifts(self, dimensions: int) -> bool:
        return self.instance_norm == "lifted" or (self.instance_norm == "auto" and dimensions == 1)

    def _normalized(self, x: Tensor) -> Tensor:
        """Return rows scaled to length 1, and less their mean if they are not lifted."""
        if self._lifts(x.dim() - 1):
            return normalize(pad(x, (0, 1), value=1.0), dim=1)
        rows = normalize(x.flatten(1), dim=1)
        return (rows - rows.mean(1, keepdim=True)).view_as(x)

    def _loss(self, module: Any, batch: Batch) -> Losses:
        x, f = self._normalized(batch.x), module["classifier"]
        gradients = input_gradients(f, x)
        steep = gradients.flatten(1).square().sum(1) ** (self.power / 2)
        return {
            "normal": softplus(-f(x)).mean(),
            "gradients": self.lam * steep.mean(),
        }

    def _score(self, module: Any, x: Tensor) -> Tensor:
        return -module["classifier"](self._normalized(x)).squeeze(1)
