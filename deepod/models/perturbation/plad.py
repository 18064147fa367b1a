"""PLAD: learn small perturbations that a classifier can still tell from the normal data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from deepod.models.perturbation._perturbation import Perturbation
from deepod.networks import Network, Prototypes
from deepod.networks.layers import drawn_by
from deepod.params import integer, one_of, param, parameters, real
from deepod.types import Batch, Losses, Shape


@parameters
class PLAD(Perturbation):
    """Perturbation learning: a classifier of rows against slightly changed copies of them.

    A network g, the perturbator, turns every training row x into x~ = alpha * x + beta. A
    classifier f learns to tell x from x~, and a penalty keeps alpha near 1 and beta near 0, so that
    the changes are as small as f can still detect. The score is the logit of f.

    Notes
    -----
    **When to use it.** (Nearly) all training rows are normal.

    **When it fails.** Anomalies lie among the normal rows.

    **The default is not the paper's setting.** As printed, all rows are changed in the same
    direction, and f cuts off one side of the data; which side depends on the initial weights.
    Changes chosen on development datasets cure that (``benchmarks/README.md``).
    ``symmetry="random_signs"`` perturbs in all directions, ``reach`` at several distances, and
    several members are averaged. On tables and images f is :class:`deepod.networks.Prototypes`,
    whose logit grows with the distance from the data. It starts as a density estimate, to which
    most of the quality is due; learning adds to it.

    **Wide tables, and images.** With more than 128 values, samples are seen and perturbed along
    128 random directions, others for each of three members, so that the cost hardly grows with the
    values.
    ``network="prototypes", n_members=5`` sees all columns, and takes far longer.

    **Left open by the paper.** The widths of g and the weight of the KL divergence. With the
    printed sum as ``penalty``, the right ``lam`` depends on the number of features.

    **Setting.** The paper's setting for Thyroid, over ten seeds or more:
    ``PLAD(network=MLP(hidden=(32, 16)), symmetry="none", reach=(1, 1), alpha="raw", lam=3,
    n_members=1, scaler="minmax", epochs=100, batch_size=128, lr=1e-3)``.

    References
    ----------
    J. Cai and J. Fan. Perturbation Learning Based Anomaly Detection. NeurIPS 2022.
    Equation 3 (``perturbator="mlp"``) and equation 5 (``perturbator="vae"``).

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import PLAD
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = PLAD(random_state=0).fit(X)
    >>> detector.predict([[0, 0, 0], [9, 9, 9]])
    array([0, 1])
    """

    symmetry: Literal["none", "mirror", "random_signs"] = param(
        default="random_signs",
        accepts=[one_of("none", "mirror", "random_signs")],
        doc="How the move x~ - x is used in training: as learned (the paper), also backwards, or "
        "with a random sign per row and feature.",
    )
    reach: Sequence[float] = param(
        default=(0.1, 3.0),
        accepts=[tuple, list],
        doc="Range of the factor of the move, drawn log-uniformly per row; (1, 1) is the paper.",
    )
    lam: float = param(default=3.0, accepts=[real(0)], doc="Weight of |alpha - 1|^2 + |beta|^2.")
    kl_weight: float = param(
        default=1.0, accepts=[real(0)], doc="Weight of the KL divergence of the VAE's code."
    )
    n_members: int | None = param(
        default=None,
        accepts=[integer(1), None],
        doc="Pairs of f and g; their probabilities are averaged. None: 5, or 3 where f sees "
        "samples along random directions.",
    )
    supervision: Literal["drop_anomalies"] | None = param(
        default=None,
        accepts=[one_of("drop_anomalies"), None],
        doc="'drop_anomalies' trains on the rows with y == 0 alone; None ignores y.",
    )
    batch_size, lr, scaler = 256, 3e-3, "symmetric"
    family = "perturbation"
    paper = "Cai & Fan, Perturbation Learning Based Anomaly Detection, NeurIPS 2022"
    auto_steps = 250

    def _network(self, shape: Shape) -> Network:
        if self.network == "auto" and len(shape) != 2:
            return Prototypes(n_directions=128)
        return super()._network(shape)

    def _seen(self, shape: Shape) -> Shape:
        """Return the shape of what f sees and g perturbs: a sample's, or that along directions."""
        network = self._network(shape)
        return network.seen(shape) if isinstance(network, Prototypes) else shape

    def _members(self, shape: Shape) -> int:
        return self.n_members or (5 if self._seen(shape) == shape else 3)

    def _build_module(self, shape: Shape) -> nn.Module:
        if len(self.reach) != 2 or not 0 < self.reach[0] <= self.reach[1] < np.inf:
            raise ValueError(f"reach must be (low, high) with 0 < low <= high, got {self.reach!r}.")
        members = self._members(shape)  # side by side: the first axis of what they put out
        classifier = self._network(shape).encoder(shape, 1, members)
        return nn.ModuleDict(
            {"classifier": classifier, **self._perturbator(self._seen(shape), members)}
        )

    def _prepare(self, X: np.ndarray, y: np.ndarray | None, rng: np.random.Generator) -> Any:
        return (X if y is None else X[y == 0]), None

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Any:
        to = drawn_by(generator)
        k, shape = self._members(shape), self._seen(shape)
        eps = torch.randn(k, n, self._latent_dim(shape), **to)
        low, high = np.log(self.reach)
        factors = (low + (high - low) * torch.rand(k, n, *[1] * len(shape), **to)).exp()
        if self.symmetry == "random_signs":
            factors = factors * (2 * torch.randint(0, 2, (k, n, *shape), **to) - 1)
        return eps, factors

    def _loss(self, module: Any, batch: Batch) -> Losses:
        eps, factors = batch.noise
        f = module["classifier"]
        along = getattr(f, "directions", None) is not None
        x = f.see(batch.x) if along else batch.x
        perturbed, penalty, kl = self._perturb(module, x, eps)
        x = x.expand_as(perturbed)  # (K, B, *shape)
        move = factors * (perturbed - x)
        moved = [x + move, x - move] if self.symmetry == "mirror" else [x + move]
        # One call on all, so that a BatchNorm in f sees both classes, as in second-hand code.
        both = torch.cat([x, *moved], 1)
        logits = (f.of_seen(both) if along else f(both)).squeeze(-1)
        normal, abnormal = logits[:, : x.shape[1]], logits[:, x.shape[1] :]
        return {  # equations 3 and 5, label 0 = normal; means over members and rows
            "normal": softplus(normal).mean(),
            "perturbed": softplus(-abnormal).mean(),
            "penalty": self.lam * penalty.mean(),
            "kl": self.kl_weight * kl.mean(),
        }

    def _score(self, module: Any, x: Tensor) -> Tensor:
        f = module["classifier"](x).squeeze(-1)  # (K, B)
        # The logit of the members' mean probability, written so that it does not saturate.
        return torch.logsumexp(logsigmoid(f), 0) - torch.logsumexp(logsigmoid(-f), 0)

    def perturb(
        self, X: Any, random_state: int | np.random.RandomState | None = None
    ) -> np.ndarray:
        """Return rows perturbed as the first member has learned to, x~ in the units of X.

        Parameters
        ----------
        X : array-like
            Samples shaped like those of ``fit``.
        random_state : int, RandomState or None, default=None
            Seed of the noise of ``perturbator="vae"``.

        Returns
        -------
        perturbed : ndarray shaped like X, float64
        """
        check_is_fitted(self)
        generator = self._generator(random_state)

        def first(module: Any, x: Tensor) -> Tensor:
            eps = self._noise(len(x), self.input_shape_, generator)[0]
            f = module["classifier"]
            if getattr(f, "directions", None) is None:
                return self._perturb(module, x, eps)[0][0]
            seen = f.see(x)
            move = (self._perturb(module, seen, eps)[0] - seen)[0]
            return x + (move @ f.directions[0].mT).reshape(x.shape)

        return self.scaler_.inverse(self._apply(X, first)).reshape(np.shape(X))
