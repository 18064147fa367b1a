"""TQM: the code of an autoencoder, mapped to uniform values by a learned triangular map."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, logsigmoid, softplus

from deepod.models._code import Coded
from deepod.models.reconstruction._reconstruction import TwoParts
from deepod.networks.layers import squared_error, with_moments
from deepod.params import integer, one_of, param, parameters, real
from deepod.types import Batch, Losses, Shape

_LEAST_SCALE = 0.05  # of a logistic distribution, of codes with standard deviation 1


class _Masked(nn.Linear):
    """Linear map of which some weights are held at zero."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:  # (out, in)
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.float())

    def forward(self, z: Tensor) -> Tensor:
        return linear(z, self.weight * self.mask, self.bias)


class _TriangularMap(nn.Module):
    """Increasing triangular map of codes into (0, 1)^d: u_j grows with z_j, given those before it.

    u_j is the distribution function of a mixture of logistic distributions, whose weights, means
    and scales a masked network makes of z_1, ..., z_{j-1}.
    """

    def __init__(self, code: int, hidden: int, components: int) -> None:
        super().__init__()
        place = torch.arange(code)
        # Hidden unit i sees coordinates up to places[i], output j hidden units of those before j.
        places = torch.arange(hidden) % max(1, code - 1)
        first = (places[:, None] >= place) & torch.tensor(code > 1)
        last = (place[:, None] > places).repeat_interleave(3 * components, 0)
        mixtures = _Masked(last)
        self.conditioner = nn.Sequential(_Masked(first), nn.Tanh(), mixtures)
        self.components = components
        with torch.no_grad():  # the means begin side by side
            bias = mixtures.bias.view(code, 3, components)
            bias[:, 1] += torch.linspace(-1.5, 1.5, components)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log u, log(1 - u) and the log of du_j / dz_j, each (B, code)."""
        made = self.conditioner(z).view(*z.shape, 3, self.components)
        weights, means, scales = made.unbind(-2)
        weights, scales = weights.log_softmax(-1), softplus(scales) + _LEAST_SCALE
        a = (z.unsqueeze(-1) - means) / scales
        below, above = logsigmoid(a), logsigmoid(-a)
        density = below + above - scales.log()
        terms = torch.stack([below, above, density])
        below, above, density = torch.logsumexp(weights + terms, -1).unbind(0)
        return below, above, density


@parameters
class TQM(Coded, TwoParts):
    """Triangular quantile map: an autoencoder, and the probability of its codes by a learned map.

    The map turns codes into values that are uniform on (0, 1) for normal rows. The score is how
    unlikely the code of a row is by this map, or how far out it lies in quantiles.

    Notes
    -----
    **When to use it.** Normal rows have codes of a smooth density.

    **When it fails.** A long code, of more values than the rows can tell about, makes the
    likelihood noise. The order of the values of the code has no meaning, but matters. A row that is
    far from all others may yet have a common code: ``score_by="combined"`` adds its reconstruction
    error.

    **Method.** A code z = f(x), and a map T with u = T(z) uniform on (0, 1)^d, where u_j depends on
    z_1, ..., z_j and grows with z_j: the inverse of a quantile function of many variables. Map and
    autoencoder are trained together, on the reconstruction error plus the negative log-likelihood,
    -sum_j log dT_j / dz_j. A row is novel by its likelihood (``score_by="density"``, the paper's
    choice on its data), or because u lies outside of a central cube, max_j |u_j - 1/2| > (1 -
    rate)^(1/d) / 2 (``"quantile"``: the score -log min_j(2 u_j, 2 - 2 u_j) ranks alike and has no
    ties far out).

    **Departures.** T_j is the distribution function of a mixture of logistic distributions, where
    the paper has a polynomial, a sum of squares, before a normal distribution function. Both can
    come near any density; ours has no powers that overflow far out. The weight of the likelihood is
    fixed, where the paper has the multiple gradient descent algorithm choose it in every step. The
    code passes BatchNorm, as the likelihood would grow without bound if the code shrank. It still
    gains by codes with heavy tails and by values that copy one another: with a weight of 1 u was
    far from uniform on new rows in our tests, with 0.01 it was not.

    **Setting.** The paper's text was not available: its networks for images are those of LSA, with
    a code of 64 values. ``TQM(latent_dim=64, map_hidden=1024, score_by="density")`` is near; for
    Thyroid ``network=MLP(hidden=(12, 4))``.

    References
    ----------
    J. Wang, S. Sun and Y. Yu. Multivariate Triangular Quantile Maps for Novelty Detection.
    NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import TQM
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) @ np.ones((2, 6))
    >>> detector = TQM(random_state=0).fit(X)
    >>> detector.predict([[0] * 6, [9, -9] * 3])
    array([0, 1])
    """

    density_weight: float = param(
        default=0.01,
        accepts=[real(0)],
        doc="Weight of the negative log-likelihood, a mean over the values of the code. The map "
        "learns alike under any, the encoder does not: see the notes.",
    )
    n_components: int = param(
        default=5, accepts=[integer(1)], doc="Logistic distributions in the mixture of each value."
    )
    map_hidden: int = param(
        default=64, accepts=[integer(1)], doc="Width of the hidden layer that makes the mixtures."
    )
    score_by: Literal["density", "quantile", "reconstruction", "combined"] = param(
        default="density",
        accepts=[one_of("density", "quantile", "reconstruction", "combined")],
        doc="Negative log-likelihood of the code, how far out its quantiles are, mean squared "
        "error of the reconstruction, or the sum of likelihood and error, each standardised over "
        "the training rows.",
    )
    family = "density"
    auto_steps = 500
    auto_epochs = 80
    auto_batch_norm = True
    paper = "Wang et al., Multivariate Triangular Quantile Maps, NeurIPS 2019"

    def _build_module(self, shape: Shape) -> nn.Module:
        network = self._network(shape)
        code = self._code_length(shape)
        features, width = network.features(shape)
        # BatchNorm takes away the mean, and any bias with it.
        norm = nn.Linear(width, code, bias=False), nn.BatchNorm1d(code, eps=1e-4, affine=False)
        module = nn.ModuleDict(
            {
                "encoder": nn.Sequential(features, *norm),
                "decoder": network.decoder(code, shape),
                "map": _TriangularMap(code, self.map_hidden, self.n_components),
            }
        )
        return with_moments(module)

    def _loss(self, module: Any, batch: Batch) -> Losses:
        z = module["encoder"](batch.x)
        density = module["map"](z)[2]
        return {
            "reconstruction": squared_error(module["decoder"](z), batch.x).mean(),
            "density": -self.density_weight * density.mean(),
        }

    def _reconstruct(self, module: Any, x: Tensor) -> Tensor:
        return module["decoder"](module["encoder"](x))

    def _parts(self, module: Any, x: Tensor) -> Tensor:
        """Return negative log-likelihood and error of each row, (B, 2)."""
        z = module["encoder"](x)
        error = squared_error(module["decoder"](z), x)
        return torch.stack([-module["map"](z)[2].sum(1), error], 1)

    def _score(self, module: Any, x: Tensor) -> Tensor:
        if self.score_by == "quantile":
            below, above, _ = module["map"](module["encoder"](x))
            return -torch.minimum(below, above).amin(1)
        return super()._score(module, x)
