"""AddAG-AE: snapshots of a graph with attributes that are unlike those before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, elu, leaky_relu

from deepod._inputs.rows import InMemory
from deepod._inputs.scaling import Scaler
from deepod._inputs.settings import fixed
from deepod.graphs._base import GraphDetector, vectors
from deepod.params import integer, one_of, param, parameters, real
from deepod.types import Batch, Losses, Phase, Shape

_KINDS = 4  # of errors: structure, attributes, reconstruction and forecast of latent vectors
_AT_ONCE = 32  # snapshots that are scored together


class Snapshots(NamedTuple):
    """Snapshots of one set of nodes, in the order of time."""

    adjacency: np.ndarray  # (T, N, N), float32, symmetric
    attributes: np.ndarray  # (T, N, F), float64


def read_snapshots(X: Any) -> Snapshots:
    """Return X as snapshots; refuse what is no sequence of pairs (adjacency, attributes).

    Raises
    ------
    ValueError
        Says what is wrong, and in which snapshot.
    """
    adjacency: list[np.ndarray] = []
    attributes: list[np.ndarray] = []
    pairs = list(X)
    if not pairs:
        raise ValueError("X holds no snapshot; expected pairs (adjacency, attributes).")
    for number, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(
                f"snapshot {number} of X is no pair (adjacency, attributes), of shapes (N, N) and "
                "(N, F)."
            )
        a, x = (part.toarray() if hasattr(part, "toarray") else np.asarray(part) for part in pair)
        if a.ndim != 2 or x.ndim != 2 or a.shape != (len(x), len(x)) or not x.size:
            raise ValueError(
                f"snapshot {number} of X has an adjacency matrix of shape {a.shape} and attributes "
                f"of shape {x.shape}; expected (N, N) and (N, F)."
            )
        if adjacency and x.shape != attributes[0].shape:
            raise ValueError(
                f"snapshot {number} of X has {x.shape} nodes and attributes, and snapshot 0 "
                f"{attributes[0].shape}: all have the same nodes, in one order."
            )
        a, x = a.astype(np.float64), x.astype(np.float64)
        if not (np.isfinite(a).all() and np.isfinite(x).all() and (a >= 0).all()):
            raise ValueError(
                f"snapshot {number} of X holds NaN, infinity or negative weights of edges."
            )
        adjacency.append(np.maximum(a, a.T).astype(np.float32))
        attributes.append(x)
    return Snapshots(np.stack(adjacency), np.stack(attributes))


class Attention(nn.Module):
    """Layer of graph attention (Velickovic et al., ICLR 2018) on dense matrices."""

    def __init__(self, inputs: int, outputs: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.values = nn.Linear(inputs, heads * outputs, bias=False)
        self.ends = vectors(2, heads, outputs)

    def forward(self, x: Tensor, linked: Tensor) -> Tensor:  # (B, N, F) -> (B, N, heads, outputs)
        """Replace each node by a mean over itself and its neighbours."""
        values = self.values(x).unflatten(-1, (self.heads, -1))
        source, target = (values * self.ends[:, None, None]).sum(-1)  # (B, N, heads)
        weights = leaky_relu(source[:, :, None] + target[:, None], 0.2)  # (B, N, N, heads)
        weights = weights.masked_fill(~linked[..., None], -torch.inf).softmax(2)
        return torch.einsum("bijh,bjhk->bihk", weights, values)


class DualAutoencoder(nn.Module):
    """Autoencoder of structure and attributes, with LSTMs on the latent vectors of nodes.

    Parameters
    ----------
    shape : (int, int)
        Nodes and attributes.
    heads, latent_dim, hidden, window : int
        As in :class:`AddAGAE`.
    """

    def __init__(self, shape: Shape, heads: int, latent_dim: int, hidden: int, window: int) -> None:
        super().__init__()
        n, d = shape
        self.first = Attention(d, latent_dim, heads)
        self.second = Attention(heads * latent_dim, latent_dim, 1)
        self.attributes = nn.Sequential(
            nn.Linear(n, hidden), nn.Tanh(), nn.Linear(hidden, latent_dim)
        )
        self.offset = nn.Parameter(torch.zeros(()))  # of all logits: graphs are sparse
        self.encoder = nn.LSTM(latent_dim, hidden, batch_first=True)
        self.decoder = nn.LSTM(hidden, hidden, batch_first=True)
        self.rebuilt = nn.Linear(hidden, latent_dim)
        self.predictor = nn.LSTM(latent_dim, hidden, num_layers=2, batch_first=True)
        self.forecast = nn.Linear(hidden, latent_dim)
        self.register_buffer("unit", torch.ones(()))  # the largest weight of an edge in training
        self.register_buffer("usual", torch.ones(_KINDS))  # errors
        self.register_buffer("past", torch.zeros(window, n, latent_dim))  # of the last snapshots

    def latent(self, adjacency: Tensor, x: Tensor) -> Tensor:  # (B, N, N), (B, N, F) -> (B, N, k)
        """Return the latent vectors of nodes."""
        own = torch.eye(adjacency.shape[1], dtype=torch.bool, device=x.device)
        linked = (adjacency > 0) | own
        return self.second(elu(self.first(x, linked).flatten(2)), linked).mean(2)

    def decoded(self, z: Tensor, adjacency: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the errors of structure and attributes of each node, (B, N)."""
        logits = z @ z.transpose(1, 2) + self.offset
        targets = (adjacency / self.get_buffer("unit")).clamp(max=1)
        structure = binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(2)
        attributes = z @ self.attributes(x.transpose(1, 2)).transpose(1, 2)
        return structure, (attributes - x).square().mean(2)

    def over_time(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the errors of rebuilt and of forecast latent vectors, (B, N).

        ``z`` (B, w + 1, N, k): of the last snapshot, and of the w before it. Targets are constants:
        vectors that are all alike would be easy to forecast.
        """
        paths = z.transpose(1, 2).flatten(0, 1)  # (B * N, w + 1, k)
        targets = paths.detach()
        _, (state, _) = self.encoder(paths[:, 1:])
        repeated = state[-1][:, None].expand(-1, paths.shape[1] - 1, -1)
        rebuilt = self.rebuilt(self.decoder(repeated.contiguous())[0])
        again = (rebuilt - targets[:, 1:]).square().mean((1, 2))
        forecast = self.forecast(self.predictor(paths[:, :-1])[0][:, -1])
        ahead = (forecast - targets[:, -1]).square().mean(1)
        return again.view(len(z), -1), ahead.view(len(z), -1)


@parameters
class AddAGAE(GraphDetector):
    """Detector of abnormal snapshots of a graph with attributes, by an autoencoder and LSTMs.

    The autoencoder gives each node a latent vector in each snapshot, from the edges and the
    attributes; LSTMs rebuild and forecast these vectors over time. A snapshot is abnormal if its
    nodes are rebuilt or forecast badly. Each snapshot gets a score, and by :meth:`node_scores` each
    node in it.

    X is a sequence of pairs (adjacency, attributes), of shapes (N, N) and (N, F), in the order of
    time, all of the same nodes. Adjacency matrices may be weighted or sparse; direction is left
    out: an edge has the larger weight of both.

    Notes
    -----
    **When to use it.** The same nodes are observed over time, and anomalies change edges or
    attributes of some of them.

    **When it fails.** Nodes come and go. Matrices are dense in memory: it is for some hundreds of
    nodes.

    **Loss.** With latent vectors Z_t of nodes (two layers of graph attention) and V_t of attributes
    (a perceptron of each one's values)::

        A'_t = sigmoid(Z_t Z_t^T + c)     X'_t = Z_t V_t^T
        loss = cross-entropy(A_t, A'_t) + mean (X_t - X'_t)^2
             + latent_weight (mean (z - LSTM-AE(z))^2 + mean (z_t - LSTM(z_(t-w) .. z_(t-1)))^2)

    **Score.** A node has four errors in a snapshot, each divided by its mean in training: of its
    row of the adjacency matrix, of its attributes, of its path over the last ``window`` snapshots,
    and of its forecast. Its score is (gamma * forecast + mean of the others) / (1 + gamma), which
    is 1 for a usual node. Attributes are standardised on the training snapshots.

    **Time.** The first snapshots of X follow the last ones of training. The first ``window``
    snapshots of training have too few before them; they get the score of the first one that has
    enough, and the threshold does not follow them.

    **What is ours.** The paper's text was not available. Its abstract names the parts: graph
    attention, a dual autoencoder, an LSTM autoencoder, a stacked LSTM that forecasts, one joint
    objective. Layer sizes, the weights of the terms, the offset c, constant targets of the latent
    terms and the score are our choice.

    References
    ----------
    G. Miao, G. Wu, Z. Zhang, Y. Tong and B. Lu. AddAG-AE: Anomaly Detection in Dynamic Attributed
    Graph Based on Graph Attention Network and LSTM Autoencoder. Electronics 12(13), 2763, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.graphs import AddAGAE
    >>> rng = np.random.default_rng(0)
    >>> def snapshot(groups):
    ...     links = rng.random((20, 20)) < np.where(groups[:, None] == groups, 0.5, 0.05)
    ...     return links | links.T, groups[:, None] + 0.1 * rng.normal(size=(20, 2))
    >>> groups = np.arange(20) % 2
    >>> detector = AddAGAE(epochs=15, random_state=0).fit([snapshot(groups) for _ in range(30)])
    >>> X = [snapshot(groups) for _ in range(5)] + [snapshot(rng.permutation(groups))]
    >>> detector.decision_function(X).argmax()
    np.int64(5)
    """

    window: int = param(
        default=5, accepts=[integer(1)], doc="Snapshots before one that its score depends on."
    )
    latent_dim: int = param(default=16, accepts=[integer(1)], doc="Size of the latent vectors.")
    heads: int = param(default=4, accepts=[integer(1)], doc="Heads of the first attention layer.")
    hidden: int = param(
        default=32, accepts=[integer(1)], doc="Units of the LSTMs and of the layer of attributes."
    )
    latent_weight: float = param(
        default=1.0, accepts=[real(0)], doc="Weight of the loss terms of latent vectors over time."
    )
    gamma: float = param(default=1.0, accepts=[real(0)], doc="Weight of the forecast in the score.")
    pooling: Literal["mean", "max"] = param(
        default="mean",
        accepts=[one_of("mean", "max")],
        doc="Whether the score of a snapshot is the mean of those of its nodes, or the largest: "
        "for anomalies of few nodes.",
    )
    batch_size: int = param(
        default=8, accepts=[integer(1)], doc="Snapshots, with their windows, per optimiser step."
    )
    epochs = 20
    lr = 5e-3
    max_grad_norm = 1.0
    family = "graph autoencoder"
    inputs = ("snapshots",)
    paper = "Miao et al., AddAG-AE: Anomaly Detection in Dynamic Attributed Graph, 2023"

    # --- what is read ---------------------------------------------------------------------------

    def _read(self, X: Any, reset: bool) -> Snapshots:
        data = read_snapshots(X)
        n, n_nodes, n_attributes = data.attributes.shape
        if not reset:
            if (n_nodes, n_attributes) != self.input_shape_:
                raise ValueError(
                    f"X has {n_nodes} nodes with {n_attributes} attributes, and that of fit "
                    f"{self.input_shape_[0]} with {self.input_shape_[1]}."
                )
            return data
        if n < self.window + 2:
            raise ValueError(
                f"X has {n} snapshots, and window={self.window} needs {self.window + 2}: give more "
                "or a smaller window."
            )
        self.n_features_in_, self.n_nodes_ = n_attributes, n_nodes
        self.input_shape_ = (n_nodes, n_attributes)
        rows = data.attributes.reshape(-1, n_attributes)
        self.scaler_ = Scaler.fit([rows], (n_attributes,), "standard")
        return data

    def _build_module(self, shape: Shape) -> nn.Module:
        return DualAutoencoder(shape, self.heads, self.latent_dim, self.hidden, self.window)

    def _tensors(self, data: Snapshots) -> tuple[Tensor, Tensor]:
        rows = self.scaler_.transform(data.attributes.reshape(-1, self.n_features_in_))
        scaled = torch.from_numpy(rows.reshape(data.attributes.shape)).to(self.device_)
        return torch.from_numpy(data.adjacency).to(self.device_), scaled

    # --- training -------------------------------------------------------------------------------

    def _rows(self, data: Snapshots) -> InMemory:
        """Return windows as numbers of snapshots: the last one and those before it."""
        module: Any = self.module_
        module.unit.fill_(float(data.adjacency.max()) or 1.0)
        self._training = self._tensors(data)
        first = torch.arange(len(data.adjacency) - self.window, device=self.device_)
        return InMemory(first[:, None] + torch.arange(self.window + 1, device=self.device_))

    def _phases(self, data: Snapshots) -> list[Phase]:
        return [Phase("fit", self.epochs, self._loss)]

    def _rows_at_once(self) -> int:
        return self.batch_size

    def _loss(self, module: Any, batch: Batch) -> Losses:
        own, places = batch.x.unique(return_inverse=True)  # windows overlap
        adjacency, x = (part[own] for part in self._training)
        z = module.latent(adjacency, x)
        structure, attributes = module.decoded(z, adjacency, x)
        again, ahead = module.over_time(z[places])
        return {
            "structure": structure.mean(),
            "attributes": attributes.mean(),
            "reconstruction": self.latent_weight * again.mean(),
            "forecast": self.latent_weight * ahead.mean(),
        }

    # --- scores ---------------------------------------------------------------------------------

    def _errors(self, tensors: Sequence[Tensor], past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the errors of nodes, (T, N, kinds), and the last latent vectors.

        Without a ``past``, of all snapshots but the first ``window``.
        """
        module: Any = self.module_
        found = []
        latent = [] if past is None else [*past]
        for adjacency, x in zip(*(part.split(_AT_ONCE) for part in tensors), strict=True):
            z = module.latent(adjacency, x)
            start = len(latent)
            latent += [*z]
            errors = torch.stack(module.decoded(z, adjacency, x), -1)
            ends = range(max(start, self.window), len(latent))
            windows = [torch.stack(latent[end - self.window : end + 1]) for end in ends]
            if windows:
                over_time = torch.stack(module.over_time(torch.stack(windows)), -1)
                found.append(torch.cat([errors[-len(windows) :], over_time], -1))
        return torch.cat(found), torch.stack(latent[-self.window :])

    def _score_training(self, data: Snapshots) -> tuple[np.ndarray, int]:
        module: Any = self.module_
        errors, past = self._errors(self._training, None)
        module.usual.copy_(errors.mean((0, 1)).clamp(min=1e-12))
        module.past.copy_(past)
        del self._training
        scores = self._pooled(self._of_nodes(errors))
        return np.concatenate([np.repeat(scores[:1], self.window), scores]), self.window

    def _of_nodes(self, errors: Tensor) -> np.ndarray:
        """Return the scores of nodes, (T, N), from their errors."""
        module: Any = self.module_
        relative = errors / module.usual
        scores = self.gamma * relative[..., -1] + relative[..., :-1].mean(-1)
        return (scores / (1 + self.gamma)).cpu().numpy().astype(np.float64)

    def _pooled(self, scores: np.ndarray) -> np.ndarray:
        return scores.max(1) if self.pooling == "max" else scores.mean(1)

    def _scores(self, data: Snapshots) -> np.ndarray:
        return self._pooled(self._node_scores(data))

    def _node_scores(self, data: Snapshots) -> np.ndarray:
        module: Any = self.module_
        return self._of_nodes(self._errors(self._tensors(data), module.past)[0])

    @fixed()
    def node_scores(self, X: Any) -> np.ndarray:
        """Return the scores of the nodes in each snapshot.

        Parameters
        ----------
        X : sequence of (adjacency, attributes)
            As in :meth:`decision_function`.

        Returns
        -------
        scores : ndarray of shape (n_snapshots, n_nodes), float64
            Their mean, or maximum (``pooling``), is the score of the snapshot.
        """
        check_is_fitted(self)
        data = self._read(X, reset=False)
        with torch.no_grad():
            return self._node_scores(data)
