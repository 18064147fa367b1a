"""AddGraph: edges of a stream that are unlike what the past of their nodes leads to expect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from deepod._inputs.rows import InMemory
from deepod.graphs._base import GraphDetector, vectors
from deepod.graphs._edges import Edges, Others, normalised, read_edges, starts
from deepod.params import integer, one_of, param, parameters, positive, real
from deepod.types import Batch, Losses, Phase, Shape

_SNAPSHOTS = 10  # that snapshot_size="auto" aims at
_LARGEST_SNAPSHOT = 1000
_NEW = 0  # the row of the state that stands for nodes without an edge so far


class Stream(NamedTuple):
    """Stream as the module reads it; tensors are on its device."""

    rows: Tensor  # (n_edges, 2), of the states
    weights: Tensor  # (n_edges,)
    start: Tensor  # (n_nodes, k), of nodes in the order of their rows, from row 1 on
    entered: Tensor  # (n_nodes + 1,), the first snapshot with an edge of each; -1 before all
    cuts: list[tuple[int, int]]  # first and last edge of the snapshots

    def snapshot(self, cut: tuple[int, int]) -> Tensor:
        """Return the normalised matrix of a snapshot."""
        edges = slice(*cut)
        return normalised(self.rows[edges], self.weights[edges], len(self.entered))


class TemporalGCN(nn.Module):
    """Graph convolutions of each snapshot, attention over the last states, and a gated unit."""

    def __init__(self, n_nodes: int, size: int, layers: int, context: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(size, size, bias=False) for _ in range(layers))
        self.n_past = context
        self.query = nn.Linear(size, size, bias=False)  # Q
        self.mixed = nn.Linear(size, 1, bias=False)  # r
        self.gates = nn.Linear(2 * size, 2 * size)  # U_p, W_p and U_r, W_r
        self.current = nn.Linear(size, size)  # U_c
        self.short = nn.Linear(size, size, bias=False)  # W_c
        self.new = vectors(1, size)
        self.ends = vectors(2, size)  # a and b
        # What later edges need to know: numbers of the nodes, in ascending order, and their states.
        self.register_buffer("nodes", torch.zeros(n_nodes, dtype=torch.int64))
        self.register_buffer("past", torch.zeros(context, 1 + n_nodes, size))
        self.register_buffer("key", torch.zeros((), dtype=torch.int64))
        self.register_buffer("n_snapshots", torch.zeros((), dtype=torch.int64))
        self.register_buffer("unit", torch.ones(()))

    def begin(self, start: Tensor) -> list[Tensor]:
        """Return the states before the first snapshot, of ``context`` snapshots."""
        return [torch.cat([self.new, start])] * self.n_past

    def forward(self, matrix: Tensor, past: Sequence[Tensor]) -> Tensor:  # H^t, (n, k)
        """Return the states after a snapshot, (n, k)."""
        current = past[-1]
        for layer in self.layers:
            current = torch.relu(torch.sparse.mm(matrix, layer(current)))
        states = torch.stack([*past])  # C, (context, n, k)
        weights = torch.softmax(self.mixed(torch.tanh(self.query(states))), 0)
        short = (weights * states).sum(0)
        update, reset = torch.sigmoid(self.gates(torch.cat([current, short], 1))).chunk(2, 1)
        candidate = torch.tanh(self.current(current) + self.short(reset * short))
        return (1 - update) * short + update * candidate

    def states(self, matrices: Iterable[Tensor], past: list[Tensor]) -> Iterator[list[Tensor]]:
        """Yield the last states before each snapshot, and those at the end."""
        yield past
        for matrix in matrices:
            past = [*past[1:], self(matrix, past)]
            yield past

    def distances(self, state: Tensor, rows: Tensor, known: Tensor) -> Tensor:
        """Return ||a * h_i + b * h_j||^2 of pairs of rows, some of which are not ``known`` yet."""
        h = state[torch.where(known[rows], rows, _NEW)]  # (n, 2, k)
        return (h * self.ends).sum(1).square().sum(1)


@parameters
class AddGraph(GraphDetector):
    """Detector of abnormal edges in a stream, by graph convolutions and a recurrent unit.

    It carries a state for each node from snapshot to snapshot. An edge is abnormal if the states of
    its two ends do not go together, which is learned by comparison with pairs of nodes that are
    drawn at random. Each edge gets a score.

    X is an array of edges, (n_edges, 2), (n_edges, 3) or (n_edges, 4), in the order of time:
    source, target, and, if there are such columns, weight and time. Nodes are integers, any ones.

    Notes
    -----
    **When to use it.** Nodes are active in different ways or in groups, and anomalies are edges
    between nodes that have had nothing to do with each other.

    **When it fails.** New nodes are normal and have normal edges: nothing is known about them. On
    one of two public streams the degrees of the ends alone find as much (``docs/graphs.md``).

    **Method.** The stream is cut into snapshots of ``snapshot_size`` edges. With the states H of
    the nodes and A_hat = D^-1/2 (A + I) D^-1/2 of a snapshot, edges without direction::

        Cur   = GCN(A_hat, H^(t-1)),  each layer relu(A_hat H W)
        Short = sum_u softmax_u(r tanh(Q H^(t-u))) H^(t-u),  u = 1 .. context
        P, R  = sigmoid(U Cur + W Short + b)
        H^t   = (1 - P) * Short + P * tanh(U_c Cur + W_c (R * Short) + b_c)
        f     = w * sigmoid(beta (||a * h_i + b * h_j||^2 - mu))

    f is the score of an edge of weight w, in units of the mean weight of training. For each edge of
    training, one end is replaced by another node, i with probability d_i / (d_i + d_j), so that the
    pair is no edge. The loss is the mean of max(0, margin + f(edge) - f(pair)), the weight left
    out. ``selective`` leaves out pairs that score below their edge, as the paper does.

    **New nodes.** H^0 is a random vector for each node, made of its number and the seed, and is not
    trained: a node that training has not seen starts as it would have in training. Before its first
    edge, a node is scored by a state that is learned, one for all new nodes.

    **Time.** An edge is scored by the states before its snapshot. Its score depends on the training
    stream, which X is taken to follow, and on earlier snapshots of X, but not on its own nor later
    ones. The edges of the first snapshot of training are all between new nodes, and the threshold
    does not follow their scores.

    **Departures.** The paper's text was not available. Each figure is the AUC when this alone is
    changed, in a trial version with 100 epochs, on edges injected into the first half of the UCI
    stream (mean of 3 seeds, which differ by 0.04); without a change it is 0.79. Edges are scored by
    the states before their snapshot, not by those after it, which know which edges are there, the
    injected ones too (0.67). Gradients flow through all snapshots, with one step for each pass, not
    within one snapshot alone (0.76). Vectors of nodes are not trained (0.75). ``selective`` is off
    by default, as pairs that are ranked wrongly would teach nothing (0.60). There is no dropout
    (0.79).

    **Setting.** That of reimplementations is ``AddGraph(hidden=100, margin=0.6, selective=True,
    snapshot_size=1000, lr=5e-4, weight_decay=5e-7)``.

    References
    ----------
    L. Zheng, Z. Li, J. Li, Z. Li and J. Gao. AddGraph: Anomaly Detection in Dynamic Graph Using
    Attention-based Temporal GCN. IJCAI 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.graphs import AddGraph
    >>> rng = np.random.default_rng(0)
    >>> active = rng.integers(0, 20, size=(600, 2))  # 20 of 100 nodes have nearly all edges
    >>> others = rng.integers(0, 100, size=(60, 2))
    >>> X = rng.permutation(np.concatenate([active, others]))
    >>> detector = AddGraph(epochs=60, random_state=0).fit(X)
    >>> detector.predict([[3, 7], [12, 5], [71, 93]])
    array([0, 0, 1])
    """

    snapshot_size: int | Literal["auto"] = param(
        default="auto",
        accepts=[integer(1), one_of("auto")],
        doc="Edges in a snapshot; the last one may have fewer. 'auto' is a tenth of the training "
        "edges, at most 1000.",
    )
    hidden: int = param(default=16, accepts=[integer(1)], doc="Size of the states.")
    n_layers: int = param(default=2, accepts=[integer(1)], doc="Graph convolutions.")
    context: int = param(
        default=2, accepts=[integer(1)], doc="Last states that the attention looks at."
    )
    beta: float = param(
        default=1.0,
        accepts=[positive()],
        doc="How steeply the score rises with that value; see ``mu``.",
    )
    mu: float = param(
        default=0.3,
        accepts=[real(0)],
        doc="Value of ||a * h_i + b * h_j||^2 at which an edge of weight w scores w / 2.",
    )
    margin: float = param(
        default=0.3,
        accepts=[positive()],
        doc="By how much pairs that are no edges have to score above edges in training.",
    )
    selective: bool = param(
        default=False,
        accepts=["boolean"],
        doc="Whether only pairs that score above their edge are learned from.",
    )
    lr = 1e-2
    weight_decay = 0.0
    family = "temporal graph convolution"
    inputs = ("edges",)
    paper = "Zheng et al., AddGraph: Anomaly Detection in Dynamic Graph, IJCAI 2019"

    # --- what is read ---------------------------------------------------------------------------

    def _read(self, X: Any, reset: bool) -> Edges:
        edges = read_edges(X)
        if not reset:
            if edges.columns != self.n_features_in_:
                raise ValueError(
                    f"X has {edges.columns} columns, and the edges of fit had "
                    f"{self.n_features_in_}."
                )
            return edges
        n = len(edges.pairs)
        size = min(_LARGEST_SNAPSHOT, -(-n // _SNAPSHOTS))
        if self.snapshot_size != "auto":
            size = int(self.snapshot_size)
        if n <= size:
            raise ValueError(
                f"X has {n} edges, and a snapshot {size}: at least two snapshots are needed; give "
                "more edges or a smaller snapshot_size."
            )
        self.snapshot_size_ = size
        self.n_features_in_ = edges.columns
        self.n_nodes_ = len(np.unique(edges.pairs))
        self.input_shape_ = (edges.columns,)
        return edges

    def _build_module(self, shape: Shape) -> nn.Module:
        return TemporalGCN(self.n_nodes_, self.hidden, self.n_layers, self.context)

    def _stream(self, edges: Edges) -> tuple[Stream, int]:
        """Return edges with the rows of their states, and how many nodes training has seen."""
        module: Any = self.module_
        nodes, device = module.nodes.cpu().numpy(), self.device_
        new = np.setdiff1d(edges.pairs, nodes)
        every = np.concatenate([nodes, new])
        order = np.argsort(every)
        rows = 1 + order[np.searchsorted(every[order], edges.pairs)]
        n, size = len(edges.pairs), self.snapshot_size_
        cuts = [(start, min(start + size, n)) for start in range(0, n, size)]
        entered = np.full(1 + len(every), len(cuts))
        np.minimum.at(entered, rows, (np.arange(n) // size)[:, None])
        start = starts(every, int(module.key), self.hidden)
        stream = Stream(
            torch.from_numpy(rows).to(device),
            torch.from_numpy((edges.weights / float(module.unit)).astype(np.float32)).to(device),
            start.to(device),
            torch.from_numpy(entered).to(device),
            cuts,
        )
        return stream, len(nodes)

    # --- training -------------------------------------------------------------------------------

    def _rows(self, data: Edges) -> InMemory:
        """Return the whole stream as one row, along which states are carried."""
        module: Any = self.module_
        module.nodes.copy_(torch.from_numpy(np.unique(data.pairs)))
        module.key.fill_(self._seeds.prepare)
        module.unit.fill_(data.weights.mean())
        self._training, _ = stream, _ = self._stream(data)
        self._matrices = [stream.snapshot(cut) for cut in stream.cuts]
        self._others = Others(stream.rows, len(stream.entered), first=_NEW + 1)
        return InMemory(stream.rows[None])

    def _phases(self, data: Edges) -> list[Phase]:
        return [Phase("fit", self.epochs, self._loss)]

    def _noise(self, data: Edges, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self._others.draw(self._training.rows, generator)

    def _loss(self, module: Any, batch: Batch) -> Losses:
        stream, (others, good) = self._training, batch.noise
        states = [*module.states(self._matrices[:-1], module.begin(stream.start))]
        edges, pairs = [], []
        for number, cut in enumerate(stream.cuts[1:], start=1):
            part, state, known = slice(*cut), states[number][-1], stream.entered < number
            edges.append(module.distances(state, stream.rows[part], known))
            pairs.append(module.distances(state, others[part], known))
        real, drawn = self._rated(torch.cat(edges)), self._rated(torch.cat(pairs))
        counts = good[stream.cuts[0][1] :].float()
        if self.selective:
            counts = counts * (drawn > real)
        hinge = (self.margin + real - drawn).clamp(min=0)
        return {"margin": (counts * hinge).sum() / counts.sum().clamp(min=1)}

    def _rated(self, distances: Tensor) -> Tensor:
        return torch.sigmoid(self.beta * (distances - self.mu))

    # --- scores ---------------------------------------------------------------------------------

    def _score_training(self, data: Edges) -> tuple[np.ndarray, int]:
        module: Any = self.module_
        stream = self._training
        scores, past = self._along(stream, module.begin(stream.start))
        module.past.copy_(torch.stack(past))
        module.n_snapshots.fill_(len(stream.cuts))
        del self._training, self._matrices, self._others
        return scores, stream.cuts[0][1]

    def _scores(self, data: Edges) -> np.ndarray:
        module: Any = self.module_
        stream, n = self._stream(data)
        stream.entered[1 : n + 1] = -1  # training has seen them
        # New nodes have been there all the time, without an edge.
        alone = [stream.start[n:]] * self.context
        none = stream.rows[:0]
        matrix = normalised(none, none[:, 0].float(), len(alone[0]))
        for _ in range(int(module.n_snapshots)):
            alone = [*alone[1:], module(matrix, alone)]
        past = [torch.cat(parts) for parts in zip(module.past, alone, strict=True)]
        return self._along(stream, past)[0]

    def _along(self, stream: Stream, past: list[Tensor]) -> tuple[np.ndarray, list[Tensor]]:
        """Score edges by the states before their snapshots; return the states at the end, too."""
        module: Any = self.module_
        scores = []
        every = module.states(map(stream.snapshot, stream.cuts), past)
        for number, (cut, past) in enumerate(zip(stream.cuts, every, strict=False)):
            part = slice(*cut)
            distances = module.distances(past[-1], stream.rows[part], stream.entered < number)
            scores.append(stream.weights[part] * self._rated(distances))
        return torch.cat(scores).cpu().numpy().astype(np.float64), next(every)
