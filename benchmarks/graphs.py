"""How detectors of dynamic graphs find injected edges and shifted snapshots: ``--help``.

Streams of edges are those that AddGraph and its followers use, in ``graphs/`` of $DEEPOD_DATA:
without loops, the first edge of each pair, in the order of time. The first half trains; edges that
are not there are injected into the second half, as NetWalk does. Detectors and baselines read the
second half in snapshots, and know of the past what was before a snapshot.

Snapshots with attributes are drawn here, from stochastic block models: no public data exist.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.metrics import roc_auc_score
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from benchmarks import _common
from deepod.bench import environment
from deepod.bench.reporting.tables import markdown
from deepod.datasets import get_data_home
from deepod.graphs import AddAGAE, AddGraph

STREAMS = {"uci_messages": 1000, "digg_reply": 6000}  # and edges in a snapshot
SHARES = (0.01, 0.05, 0.1)
PRINTED = {  # by Zheng et al., IJCAI 2019
    "uci_messages": (0.8083, 0.8090, 0.7688),
    "digg_reply": (0.8341, 0.8470, 0.8369),
}
SHIFTS = ("all", "structure", "attributes", "few")
_CLUSTERS = 42  # of NetWalk
_TRAIN, _TEST, _SHIFTED = 60, 60, 10  # snapshots
_NODES, _GROUPS, _ATTRIBUTES = 60, 3, 4


class Cell(NamedTuple):
    """One AUC: a stream and the share of injected edges, or a shift of snapshots and 0."""

    data: str
    share: float
    detector: str
    seed: int


# --- streams of edges -----------------------------------------------------------------------------


@cache
def load_edges(name: str) -> np.ndarray:
    """Read a stream, (n_edges, 2): no loops, the first edge of each pair, nodes from 0 on."""
    with np.load(get_data_home() / "graphs" / f"{name}.npz") as file:
        edges = np.column_stack([file["src"], file["dst"]]).astype(np.int64)
        edges = edges[np.argsort(file["timestamp"], kind="stable")]
    edges = edges[edges[:, 0] != edges[:, 1]]
    _, first = np.unique(np.sort(edges, 1), axis=0, return_index=True)
    edges = edges[np.sort(first)]
    _, numbers = np.unique(edges, return_inverse=True)
    return numbers.reshape(edges.shape)


def clusters_of(edges: np.ndarray, n: int, k: int, seed: int) -> np.ndarray:
    """Cluster nodes by the leading eigenvectors of D^-1/2 A D^-1/2."""
    links = _links(edges, n)
    scale = sp.diags(1 / np.sqrt(np.maximum(links.sum(1).A1, 1)))
    vectors, _, _ = randomized_svd(scale @ links @ scale + sp.eye(n), k, random_state=seed)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return KMeans(k, n_init=1, random_state=seed).fit_predict(vectors)


def inject(edges: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide a stream in halves, and inject edges into the second one.

    Parameters
    ----------
    edges : ndarray of shape (n_edges, 2)
        In the order of time; nodes are numbers from 0 on.
    share : float
        Injected edges, as a share of those of the second half.
    seed : int

    Returns
    -------
    train, test : ndarray
        Injected pairs of nodes are no edges anywhere, and of different clusters of the training
        half; nodes without an edge in it make a cluster of their own or are spread over others.
        Their places are drawn uniformly.
    y : ndarray of int
        1 for those of ``test`` that were injected.
    """
    rng, n = np.random.default_rng(seed), int(edges.max()) + 1
    train, rest = edges[: len(edges) // 2], edges[len(edges) // 2 :]
    cluster = clusters_of(train, n, min(_CLUSTERS, n // 2), seed)
    known, injected = set(map(tuple, np.sort(edges, 1).tolist())), []
    wanted = int(share * len(rest))
    for _ in range(1000 * wanted):  # no endless search where nearly all pairs are edges
        if len(injected) == wanted:
            break
        i, j = rng.integers(n, size=2).tolist()
        pair = min(i, j), max(i, j)
        if i != j and cluster[i] != cluster[j] and pair not in known:
            known.add(pair)
            injected.append((i, j))
    if len(injected) < wanted:
        raise ValueError(f"{wanted} pairs of nodes that are no edges were not found.")
    y = np.zeros(len(rest) + wanted, np.int64)
    y[rng.choice(len(y), wanted, replace=False)] = 1
    test = np.empty((len(y), 2), np.int64)
    test[y == 1], test[y == 0] = injected, rest
    return train, test, y


def _links(edges: np.ndarray, n: int) -> sp.csr_matrix:
    links = sp.csr_matrix((np.ones(len(edges)), edges.T), (n, n))
    return ((links + links.T) > 0).astype(float)


def _by_snapshot(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    train: np.ndarray,
    test: np.ndarray,
    size: int,
) -> np.ndarray:
    """Score each snapshot by all edges before it."""
    return np.concatenate(
        [
            score(np.concatenate([train, test[:at]]), test[at : at + size])
            for at in range(0, len(test), size)
        ]
    )


def seen_before(past: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Score 1 for pairs that had no edge so far: all are alike where pairs occur once."""
    known = set(map(tuple, np.sort(past, 1).tolist()))
    return np.array([tuple(pair) not in known for pair in np.sort(edges, 1).tolist()], float)


def preferential_attachment(past: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Score by the product of the degrees so far, each plus one: the smaller, the higher."""
    n = int(max(past.max(), edges.max())) + 1
    return -np.log1p(np.bincount(past.ravel(), minlength=n))[edges].sum(1)


def common_neighbours(past: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Score by the number of common neighbours so far: the fewer, the higher."""
    links = _links(past, int(max(past.max(), edges.max())) + 1)
    return -links[edges[:, 0]].multiply(links[edges[:, 1]]).sum(1).A1


BASELINES = {
    "seen before": seen_before,
    "preferential attachment": preferential_attachment,
    "common neighbours": common_neighbours,
}


@cache
def _fitted(name: str, seed: int) -> tuple[AddGraph, float]:
    edges = load_edges(name)
    start = time.perf_counter()
    detector = AddGraph(snapshot_size=STREAMS[name], device="cpu", random_state=seed)
    detector.fit(edges[: len(edges) // 2])
    return detector, time.perf_counter() - start


def of_edges(cell: Cell) -> dict[str, Any]:
    """Score a stream with injected edges."""
    train, test, y = inject(load_edges(cell.data), cell.share, cell.seed)
    if cell.detector in BASELINES:
        score = BASELINES[cell.detector]
        scores, seconds = _by_snapshot(score, train, test, STREAMS[cell.data]), 0.0
    else:
        detector, seconds = _fitted(cell.data, cell.seed)
        scores = detector.decision_function(test)
    seen = np.isin(test, train).all(1)
    known = {"auc_seen_nodes": float(roc_auc_score(y[seen], scores[seen]))}
    return {"auc": float(roc_auc_score(y, scores)), "seconds": round(seconds, 1)} | known


# --- snapshots with attributes --------------------------------------------------------------------


def snapshots(shift: str, seed: int) -> tuple[list[Any], list[Any], np.ndarray]:
    """Draw snapshots of a stochastic block model, to train on and to test; some of the test shift.

    A third of the nodes ("few": a twelfth) are of another group in a shifted snapshot: by their
    edges and their attributes, or by one of these alone.
    """
    rng = np.random.default_rng(seed)
    usual = np.arange(_NODES) % _GROUPS
    centres = rng.normal(size=(_GROUPS, _ATTRIBUTES))

    def snapshot(by_links: np.ndarray, by_attributes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chance = np.where(by_links[:, None] == by_links, 0.3, 0.05)
        links = np.triu(rng.random((_NODES, _NODES)) < chance, 1)
        noise = 0.5 * rng.normal(size=(_NODES, _ATTRIBUTES))
        return (links | links.T).astype(float), centres[by_attributes] + noise

    train = [snapshot(usual, usual) for _ in range(_TRAIN)]
    y = np.zeros(_TEST, np.int64)
    y[rng.choice(_TEST, _SHIFTED, replace=False)] = 1
    test = []
    for shifted in y:
        moved = usual.copy()
        if shifted:
            who = rng.choice(_NODES, _NODES // (12 if shift == "few" else 3), replace=False)
            moved[who] = (moved[who] + rng.integers(1, _GROUPS, len(who))) % _GROUPS
        by_links = usual if shift == "attributes" else moved
        by_attributes = usual if shift == "structure" else moved
        test.append(snapshot(by_links, by_attributes))
    return train, test, y


def _flat(parts: Sequence[Any]) -> np.ndarray:
    return np.array([np.concatenate([a.ravel(), x.ravel()]) for a, x in parts])


def far_from_mean(train: Sequence[Any], test: Sequence[Any]) -> np.ndarray:
    """Score by the mean squared z-score of all entries, by mean and deviation of training."""
    known, new = _flat(train), _flat(test)
    return (((new - known.mean(0)) / (known.std(0) + 0.1)) ** 2).mean(1)


def far_from_last(train: Sequence[Any], test: Sequence[Any]) -> np.ndarray:
    """Score by the mean squared difference to the snapshot before, each entry standardised."""
    known, new = _flat(train), _flat(test)
    before = np.concatenate([known[-1:], new[:-1]])
    return (((new - before) / (known.std(0) + 0.1)) ** 2).mean(1)


def edge_count(train: Sequence[Any], test: Sequence[Any]) -> np.ndarray:
    """Score by how unusual the number of edges is."""
    usual = np.mean([a.sum() for a, _ in train])
    return np.array([abs(a.sum() - usual) for a, _ in test])


OF_SNAPSHOTS = {
    "far from mean": far_from_mean,
    "far from last": far_from_last,
    "edge count": edge_count,
}


@cache
def _snapshots_scored(shift: str, seed: int) -> tuple[AddAGAE, float, Any]:
    train, test, y = snapshots(shift, seed)
    start = time.perf_counter()
    detector = AddAGAE(device="cpu", random_state=seed).fit(train)
    return detector, time.perf_counter() - start, (train, test, y)


def of_snapshots(cell: Cell) -> dict[str, Any]:
    """Score snapshots of which some are shifted."""
    detector, seconds, (train, test, y) = _snapshots_scored(cell.data, cell.seed)
    if cell.detector in OF_SNAPSHOTS:
        scores, seconds = OF_SNAPSHOTS[cell.detector](train, test), 0.0
    else:
        scores = detector.decision_function(test)
        if cell.detector.endswith("max"):
            scores = detector.node_scores(test).max(1)
    return {"auc": float(roc_auc_score(y, scores)), "seconds": round(seconds, 1)}


# --- the command ----------------------------------------------------------------------------------


def measure(cell: Cell) -> dict[str, Any]:
    """Give the AUC of a cell, in one thread."""
    with threadpool_limits(1):
        return of_edges(cell) if cell.data in STREAMS else of_snapshots(cell)


def cells_of(data: Sequence[str], seeds: int) -> list[Cell]:
    """List what is to be measured."""
    found = []
    for name in data:
        shares = SHARES if name in STREAMS else (0.0,)
        own = ["AddGraph", *BASELINES]
        if name not in STREAMS:
            own = ["AddAGAE", "AddAGAE, max", *OF_SNAPSHOTS]
        found += [Cell(name, s, d, k) for k in range(seeds) for s in shares for d in own]
    return found


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Make a table of mean AUC over seeds, with the printed ones beside it."""
    table = pd.DataFrame(rows)
    table["what"] = [
        f"{d} {s:.0%}" if s else d for d, s in zip(table.data, table.share, strict=True)
    ]
    parts = []
    for kind in (True, False):
        part = table[table.data.isin(STREAMS) == kind]
        if len(part):
            means = part.groupby(["detector", "what"], sort=False)["auc"].mean().unstack("what")
            for name, values in PRINTED.items() if kind else ():
                for share, value in zip(SHARES, values, strict=True):
                    if f"{name} {share:.0%}" in means:
                        means.loc["AddGraph, printed", f"{name} {share:.0%}"] = value
            parts.append(markdown(means, lambda value: f"{value:.3f}"))
    return "\n\n".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.graphs",
        description=__doc__,
        epilog="The same command again goes on where a run was stopped, and prints the tables.",
    )
    every = ",".join([*STREAMS, *SHIFTS])
    parser.add_argument("--data", default=every, help=f"with commas; default {every}")
    parser.add_argument("--seeds", type=int, default=3, help="from 0 on (default 3)")
    parser.add_argument("--out", required=True, type=Path, help="file of JSON lines to append to")
    args = parser.parse_args(argv)
    cells = cells_of(args.data.split(","), args.seeds)
    with _common.explained(parser):
        about = environment.describe() | environment.machine()
        found = _common.measure_missing(args.out, Cell, cells, measure, about)
    wanted = set(cells)
    print(report([row for row in found if tuple(row[key] for key in Cell._fields) in wanted]))


if __name__ == "__main__":
    main()
