"""ICL: a part of a normal row fits the rest of it better than its other parts do."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from deepod._base import BaseDetector
from deepod.networks import MLP, Network
from deepod.networks._spec import ACTIVATIONS, Activation
from deepod.networks.layers import EPS
from deepod.params import integer, param, parameters, positive
from deepod.types import Batch, Losses, Shape


class _Pair(nn.Module):
    """The networks F and G, and the columns of every window and of its complement."""

    inside: Tensor
    outside: Tensor

    def __init__(self, mlp: MLP, order: Tensor, window: int, windows: int, code: int) -> None:
        super().__init__()
        size = len(order)
        starts = torch.linspace(0, size - window, windows).round().long().unsqueeze(1)
        rest = torch.arange(size - window)
        rest = rest + window * (rest >= starts)  # past the window
        self.register_buffer("inside", order[starts + torch.arange(window)])
        self.register_buffer("outside", order[rest])
        narrow = [max(1, width // 4) for width in mlp.hidden]
        self.of_rest = _layers(mlp, [size - window, *mlp.hidden, code], windows, "tanh")
        self.of_window = _layers(mlp, [window, *narrow, code], windows, mlp.activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return cosines of complements and windows, (B, complements, windows)."""
        codes = self.of_rest(_columns(x, self.outside)), self.of_window(_columns(x, self.inside))
        # First each value of the code over the windows, so that what all have in common is small.
        rest, window = (_unit(_unit(z, 1), 2) for z in codes)
        return rest @ window.mT


def _columns(x: Tensor, places: Tensor) -> Tensor:
    """Take columns of every row, (B, *places.shape)."""
    return x.index_select(1, places.flatten()).view(-1, *places.shape)


def _unit(z: Tensor, dim: int) -> Tensor:
    """Scale to unit length along one dimension; of a middle one, faster than torch's own."""
    return z * (z.square().sum(dim, keepdim=True) + EPS**2).rsqrt()


class _OfWindows(nn.Linear):
    """Linear layer on (B, windows, values), which are one dimension for it.

    Members side by side would get a copy of their weights for each row after BatchNorm otherwise.
    """

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(0, 1)).unflatten(0, input.shape[:2])


def _layers(mlp: MLP, sizes: list[int], windows: int, first: Activation) -> nn.Sequential:
    """Build layers for (B, windows, values), shared by the windows but for BatchNorm."""
    layers: list[nn.Module] = []
    for i, (inp, out) in enumerate(pairwise(sizes)):
        layers += [_OfWindows(inp, out, bias=mlp.bias)]
        layers += [ACTIVATIONS[mlp.activation if i else first]()]
        if mlp.batch_norm and i < len(sizes) - 2:
            layers.append(nn.BatchNorm1d(windows))
    return nn.Sequential(*layers)


@parameters
class ICL(BaseDetector):
    """Internal contrastive learning: two networks that match a part of a row with its rest.

    A window of ``window`` neighbouring columns slides over the row. One network gives a code to
    each window, the other to its complement, all other columns of the row. They learn to make both
    codes alike, and those of the complement and of other windows unlike. In an abnormal row, whose
    columns do not go together as usual, windows and complements match badly: that is the score.

    Notes
    -----
    **When to use it.** Columns depend on one another, and training rows are (nearly) all normal.
    The score knows only how well the parts of a row agree, not how common the row is.

    **When it fails.** Columns are independent. With two columns little is left to compare; to a
    single one a column of zeros is added.

    **Loss and score.** With q_i the code of complement i by the network F, and p_j that of window j
    by G, both of unit length, the mean over i of -log[exp(q_i p_i / ``temperature``) / sum_j
    exp(q_i p_j / ``temperature``)]. It is so steep that what :meth:`explain` finds does not add up
    to it: take the order of contributions, not their size.

    **Networks.** The order of columns is arbitrary, so several pairs of networks see them in random
    orders; one pair sees them as they come. ``network`` has to be an MLP: its widths are those of
    F, a quarter of them those of G.

    **Setting.** ``ICL(network=MLP(hidden=(200, 400), batch_norm=True), latent_dim=200,
    max_windows=None, batch_size=3000, lr=1e-3, epochs=2000, callbacks=[lambda event:
    event.losses["contrast"] < 1e-3])``, with 1e-2 above 40 columns, and ``n_members`` 1 + 100 /
    (log(n) + d), rounded down, for n rows of d columns. Here the networks are smaller, of wide
    tables not every window is taken, training has a fixed length, and BatchNorm (for each window,
    as there) follows every hidden layer, also those of G.

    References
    ----------
    T. Shenkar and L. Wolf. Anomaly Detection for Tabular Data with Internal Contrastive Learning.
    ICLR 2022. What the text leaves open follows the settings of its published code.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import ICL
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) @ np.ones((2, 6))
    >>> detector = ICL(random_state=0).fit(X)
    >>> detector.predict([[1] * 6, [9, -9] * 3])
    array([0, 1])
    """

    window: int | None = param(
        default=None,
        accepts=[integer(1), None],
        doc="Columns in a window, fewer than there are. None: 2 of up to 40 columns, 10 of up to "
        "160, and all but 150 of more.",
    )
    max_windows: int | None = param(
        default=16,
        accepts=[integer(2), None],
        doc="Windows that are taken, evenly spaced, if there are more; None takes all.",
    )
    n_members: int = param(
        default=4,
        accepts=[integer(1)],
        doc="Pairs of networks, each with an order of the columns of its own; their losses are "
        "averaged.",
    )
    latent_dim: int = param(default=32, accepts=[integer(1)], doc="Length of the codes.")
    temperature: float = param(
        default=0.01, accepts=[positive()], doc="What cosines are divided by in the loss."
    )
    batch_size, lr = 64, 3e-3
    family, inputs = "self-supervised", ("table", "windows")
    paper = "Shenkar & Wolf, Anomaly Detection with Internal Contrastive Learning, ICLR 2022"
    auto_steps = 100

    def _network(self, shape: Shape) -> Network:
        network = super()._network((torch.Size(shape).numel(),))
        if self.network == "auto":
            return network.set_params(hidden=(32, 64), batch_norm=True)
        if not isinstance(network, MLP):
            raise ValueError(f"network must be an MLP for ICL, got {network!r}.")
        return network

    def _build_module(self, shape: Shape) -> nn.Module:
        size = max(2, torch.Size(shape).numel())
        window = self.window or (2 if size <= 40 else 10 if size <= 160 else size - 150)
        window = min(window, size - 1)
        windows = size - window + 1
        if self.max_windows is not None:
            windows = min(windows, self.max_windows)
        members = self.n_members
        mlp: Any = self._network(shape)
        mlp._check()
        as_given = torch.arange(size)
        orders = [torch.randperm(size) if members > 1 else as_given for _ in range(members)]
        return nn.ModuleList(
            _Pair(mlp, order, window, windows, self.latent_dim) for order in orders
        )

    def _contrast(self, module: Any, x: Tensor) -> Tensor:
        """Return the mean loss of each row over windows and members, (B,)."""
        x = x.flatten(1)
        x = pad(x, (0, 1)) if x.shape[1] == 1 else x
        losses = []
        for pair in module:
            logits = pair(x) / self.temperature
            losses.append((logits.logsumexp(2) - logits.diagonal(dim1=1, dim2=2)).mean(1))
        return torch.stack(losses).mean(0)

    def _loss(self, module: Any, batch: Batch) -> Losses:
        return {"contrast": self._contrast(module, batch.x).mean()}

    def _score(self, module: Any, x: Tensor) -> Tensor:
        return self._contrast(module, x)
