"""Detectors of dynamic graphs: edges of a stream, and snapshots with attributes."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.special import expit
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

import deepod
from benchmarks import graphs as benchmark
from deepod._registry import GRAPHS
from deepod._storage.tensors import InvalidFileError
from deepod.cli import main
from deepod.graphs import AddAGAE, AddGraph
from deepod.graphs._edges import Others, normalised, read_edges, starts
from deepod.types import Batch

FAST = {
    "AddAGAE": {"epochs": 2, "window": 2, "latent_dim": 4, "heads": 2, "hidden": 4},
    "AddGraph": {"epochs": 2, "hidden": 4, "snapshot_size": 20},
}
NAMES = sorted(FAST)
every = pytest.mark.parametrize("name", NAMES)


def stream(n=120, nodes=15, seed=0):
    """Edges whose ends have very unequal degrees."""
    rng = np.random.default_rng(seed)
    chance = 1 / np.arange(1, nodes + 1)
    return rng.choice(nodes, size=(n, 2), p=chance / chance.sum())


def snapshot(rng, groups):
    links = rng.random((len(groups),) * 2) < np.where(groups[:, None] == groups, 0.6, 0.05)
    return links | links.T, groups[:, None] + 0.3 * rng.normal(size=(len(groups), 3))


def snapshots(n=12, nodes=10, seed=0):
    rng = np.random.default_rng(seed)
    return [snapshot(rng, np.arange(nodes) % 2) for _ in range(n)]


def data(name, seed=0):
    return stream(seed=seed) if name == "AddGraph" else snapshots(seed=seed)


def fast(name, **params):
    return getattr(deepod.graphs, name)(**{"random_state": 0} | FAST[name] | params)


@pytest.fixture(scope="module")
def fitted():
    return {name: fast(name).fit(data(name)) for name in NAMES}


# --- both -----------------------------------------------------------------------------------------


def test_every_detector_of_graphs__has_a_case():
    assert set(FAST) == set(GRAPHS) == set(deepod.graphs.__all__)
    described = deepod.list_detectors(graphs=True)
    assert [d["name"] for d in described] == NAMES
    assert all(d["family"] and d["paper"] and d["inputs"] for d in described)


@every
def test_scores__one_each__threshold_and_labels(name, fitted):
    detector, X = fitted[name], data(name)
    new = data(name, seed=1)
    scores = detector.decision_function(new)
    assert scores.shape == (len(new),)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(detector.predict(new), scores > detector.threshold_)
    assert detector.decision_scores_.shape == detector.labels_.shape == (len(X),)
    again = clone(detector).set_params(contamination=0.4).fit(X)
    assert again.threshold_ < detector.threshold_
    early = 20 if name == "AddGraph" else 2  # have too little before them
    assert again.labels_[early:].mean() == pytest.approx(0.4, abs=0.06)


@every
def test_scores__nothing_that_comes_later__nothing_changed(name, fitted):
    detector, new = fitted[name], data(name, seed=1)
    scores = detector.decision_function(new)
    first = 40 if name == "AddGraph" else 5  # whole snapshots
    np.testing.assert_allclose(detector.decision_function(new[:first]), scores[:first], rtol=1e-5)
    np.testing.assert_array_equal(detector.decision_function(new), scores)
    other = new[::-1]  # what comes before has a part in it
    assert not np.allclose(detector.decision_function(other)[::-1], scores, rtol=1e-3)


@every
def test_fit__same_seed__same_scores(name, fitted):
    new = data(name, seed=1)
    scores = fitted[name].decision_function(new)
    before = torch.random.get_rng_state()
    again = fast(name).fit(data(name))
    assert (torch.random.get_rng_state() == before).all()
    np.testing.assert_array_equal(again.decision_function(new), scores)
    other = fast(name, random_state=1).fit(data(name))
    assert not np.allclose(other.decision_function(new), scores)


def test_commands__model_of_graphs__refused_with_the_way(fitted, tmp_path, capsys):
    fitted["AddGraph"].save(tmp_path / "model")
    np.savetxt(tmp_path / "edges.csv", stream(), fmt="%d", delimiter=",")
    model, edges, out = (str(tmp_path / name) for name in ("model", "edges.csv", "scores.csv"))
    for command in (["score", model, edges, "--out", out], ["watch", model]):
        assert main(command) == 1
        assert "it is an AddGraph, and no command takes" in capsys.readouterr().err


@every
@pytest.mark.parametrize("place", ["model.deepod", "folder"])
def test_save_and_load(name, place, fitted, tmp_path):
    detector, new = fitted[name], data(name, seed=1)
    detector.save(tmp_path / place)
    for again in (deepod.load(tmp_path / place), type(detector).load(tmp_path / place)):
        np.testing.assert_array_equal(again.decision_function(new), detector.decision_function(new))
        assert again.threshold_ == detector.threshold_
        assert again.get_params() == detector.get_params()
        np.testing.assert_array_equal(again.labels_, detector.labels_)
    with pytest.raises(TypeError, match="not of PLAD"):
        deepod.PLAD.load(tmp_path / place)


def test_load__impossible__refused(fitted, tmp_path):
    from deepod._storage import models, tensors

    description, weights = models._described(fitted["AddGraph"])
    for change in ({"n_nodes_": 1 << 40}, {"n_nodes_": 14}, {"input_shape_": "x"}):
        described = description | {"fitted": description["fitted"] | change}
        (tmp_path / "bad.deepod").write_bytes(tensors.pack(described, weights))
        with pytest.raises(InvalidFileError):
            deepod.load(tmp_path / "bad.deepod")


@every
def test_save__subclass__refused(name, fitted, tmp_path):
    class Own(type(fitted[name])):
        pass

    Own.__name__ = name
    own = Own()
    own.__dict__ |= fitted[name].__dict__
    with pytest.raises(TypeError, match="joblib"):
        own.save(tmp_path / "own.deepod")


@every
def test_failed_fit__changes_nothing(name, fitted):
    detector = clone(fitted[name]).fit(data(name))
    known = dict(detector.__dict__)
    with pytest.raises(ValueError, match="X "):
        detector.fit(data(name)[:1])
    assert detector.__dict__ == known
    with pytest.raises(ValueError, match="epochs"):
        detector.set_params(epochs=-1).fit(data(name))
    with pytest.raises(NotFittedError):
        clone(detector).decision_function(data(name))


@every
def test_callbacks__told_of_epochs__end_training(name):
    told = []
    detector = fast(name, epochs=9, callbacks=[lambda event: told.append(event) or len(told) == 3])
    assert len(detector.fit(data(name)).history_) == len(told) == 3


@every
def test_calibrate__false_alarms(name, fitted):
    detector = clone(fitted[name]).set_params(false_alarm_rate=0.2).fit(data(name))
    new = data(name, seed=1)
    detector.calibrate(new)
    assert detector.predict(new).mean() <= 0.2
    assert (detector.p_values(new) > 0).all()


# --- AddGraph: what is read -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros(5), "shape"),
        (np.zeros((5, 5)), "shape"),
        (np.array([["a", "b"]] * 50), "integers"),
        (np.full((50, 2), 0.5), "integers"),
        (np.full((50, 2), np.nan), "NaN"),
        (np.column_stack([stream(50), np.zeros(50)]), "positive"),
        (np.column_stack([stream(50), np.ones(50), np.arange(50)[::-1]]), "order of time"),
        (stream(20), "two snapshots"),
    ],
)
def test_edges__bad__refused(X, message):
    with pytest.raises(ValueError, match=message):
        fast("AddGraph").fit(X)


def test_edges__other_columns__refused(fitted):
    with pytest.raises(ValueError, match="3 columns"):
        fitted["AddGraph"].decision_function(np.column_stack([stream(5), np.ones(5)]))


def test_edges__numbers_of_nodes_do_not_matter_but_for_their_vectors():
    """Frames, floats, negative and huge numbers; time alone changes nothing."""
    pandas = pytest.importorskip("pandas")
    X = stream() * 10**9 - 5
    first = fast("AddGraph").fit(X).decision_scores_
    np.testing.assert_array_equal(fast("AddGraph").fit(X.astype(float)).decision_scores_, first)
    np.testing.assert_array_equal(fast("AddGraph").fit(pandas.DataFrame(X)).decision_scores_, first)
    timed = np.column_stack([X, np.ones(len(X)), np.arange(len(X))])
    np.testing.assert_array_equal(fast("AddGraph").fit(timed).decision_scores_, first)


def test_starts__of_number_and_key__normal():
    nodes = np.arange(-3, 2000)
    found = starts(nodes, 7, 8)
    np.testing.assert_array_equal(starts(nodes[5:9], 7, 8), found[5:9])
    assert not np.allclose(starts(nodes, 8, 8), found)
    assert len(np.unique(found.numpy())) > 0.99 * found.numel()
    assert float(found.mean()) == pytest.approx(0, abs=0.02)
    assert float(found.std()) == pytest.approx(1 / np.sqrt(8), rel=0.05)


def test_others__no_edges__one_end_kept__by_degree():
    rows = torch.tensor([[1, 2], [1, 3], [1, 4], [1, 5], [4, 5]])
    others = Others(rows, 30, first=1)
    generator = torch.Generator().manual_seed(0)
    edges = rows[:1].expand(4000, -1)  # degrees 4 and 1
    pairs, good = others.draw(edges, generator)
    assert good.all()
    known = {tuple(pair) for pair in rows.tolist()}
    assert not known & {(min(p), max(p)) for p in pairs.tolist()}
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert pairs.min() >= 1
    assert ((pairs == edges).sum(1) == 1).all()
    assert float((pairs[:, 0] != 1).float().mean()) == pytest.approx(4 / 5, abs=0.03)


def test_others__every_pair_is_an_edge__ends_and_says_so():
    rows = torch.combinations(torch.arange(1, 6))
    _, good = Others(rows, 6, first=1).draw(rows, torch.Generator().manual_seed(0))
    assert not good.any()
    X = np.concatenate([rows.numpy()] * 5)  # no pair to learn from, and no endless search
    detector = AddGraph(epochs=2, random_state=0).fit(X)
    assert detector.history_[-1]["margin"] == 0


# --- AddGraph: the equations ----------------------------------------------------------------------


def test_loss__by_hand():
    """States, attention, gates, scores and margin in NumPy, in two snapshots and a half."""
    X = np.column_stack([stream(50), np.linspace(0.5, 2, 50)])
    detector = fast("AddGraph", epochs=0, context=3, selective=True, beta=1.3, mu=0.2)
    found = {}

    class Keeping(AddGraph):
        def _score_training(self, data):
            found["noise"] = self._noise(data, 1, torch.Generator().manual_seed(3))
            batch = Batch(None, None, found["noise"])
            found["loss"] = float(self._loss(self.module_, batch)["margin"])
            return super()._score_training(data)

    kept = Keeping(**detector.get_params()).fit(X)
    w = {k: v.double().numpy() for k, v in kept.module_.state_dict().items()}
    nodes = np.unique(X[:, :2]).astype(int)
    rows = 1 + np.searchsorted(nodes, X[:, :2].astype(int))
    weights = X[:, 2] / X[:, 2].mean()
    start = np.concatenate([w["new"], starts(nodes, int(w["key"]), 4).double().numpy()])
    past, hinges, counted, scores = [start] * 3, [], [], []
    pairs, good = (part.numpy() for part in found["noise"])
    known = np.zeros(len(start), bool)
    for at in (0, 20, 40):
        part = slice(at, at + 20)

        def rated(ends, at_first=known, h=past[-1]):
            h = h[np.where(at_first[ends], ends, 0)]
            return expit(1.3 * (((h * w["ends"]).sum(1) ** 2).sum(1) - 0.2))

        real, drawn = rated(rows[part]), rated(pairs[part])
        scores.append(weights[part] * real)
        if at:
            counted.append(good[part] & (drawn > real))
            hinges.append(np.maximum(0, 0.3 + real - drawn))
        known = known | np.isin(np.arange(len(start)), rows[part])
        matrix = np.eye(len(start))
        np.add.at(matrix, tuple(rows[part].T), weights[part])
        np.add.at(matrix, tuple(rows[part].T[::-1]), weights[part])
        matrix /= np.sqrt(np.outer(matrix.sum(1), matrix.sum(1)))
        current = past[-1]
        for layer in range(2):
            current = np.maximum(matrix @ current @ w[f"layers.{layer}.weight"].T, 0)
        states = np.stack(past)
        e = np.tanh(states @ w["query.weight"].T) @ w["mixed.weight"].T
        short = (np.exp(e) / np.exp(e).sum(0) * states).sum(0)
        gates = np.concatenate([current, short], 1) @ w["gates.weight"].T + w["gates.bias"]
        update, reset = expit(gates[:, :4]), expit(gates[:, 4:])
        candidate = current @ w["current.weight"].T + w["current.bias"]
        candidate = np.tanh(candidate + (reset * short) @ w["short.weight"].T)
        past = [*past[1:], (1 - update) * short + update * candidate]
    counted = np.concatenate(counted)
    assert 0 < counted.sum() < len(counted)
    expected = (np.concatenate(hinges) * counted).sum() / counted.sum()
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(kept.decision_scores_, np.concatenate(scores), rtol=1e-4)


def test_matrix__symmetric__no_row_larger_than_one():
    rows = torch.from_numpy(stream()) + 1
    matrix = normalised(rows, torch.ones(len(rows)), 20).to_dense()
    torch.testing.assert_close(matrix, matrix.T)
    assert np.abs(np.linalg.eigvalsh(matrix.numpy())).max() == pytest.approx(1, abs=1e-5)
    assert matrix[19, 19] == 1  # without an edge


def test_scores__of_what_follows__those_of_one_long_stream(fitted):
    """What is kept of training, and how new nodes begin, are what a longer stream would give."""
    detector, new = fitted["AddGraph"], stream(60, nodes=30, seed=1)
    assert set(np.unique(new)) - set(np.unique(stream()))
    module = detector.module_
    edges = read_edges(np.concatenate([stream(), new]))
    whole, _ = detector._stream(edges)
    with torch.no_grad():
        scores, _ = detector._along(whole, module.begin(whole.start))
    np.testing.assert_allclose(scores[120:], detector.decision_function(new), rtol=1e-4)
    np.testing.assert_allclose(scores[:120], detector.decision_scores_, rtol=1e-4)


def test_new_nodes__scored_alike__until_their_first_edge(fitted):
    scores = fitted["AddGraph"].decision_function([[0, 100], [0, 200], [300, 400], [500, 600]])
    assert scores[0] == scores[1]
    assert scores[2] == scores[3]
    X = np.concatenate([[[0, 100]], stream(19), [[0, 100], [0, 200]]])
    later = fitted["AddGraph"].decision_function(X)[-2:]
    assert later[0] != later[1]


def test_direction__of_an_edge__of_no_weight_in_the_states(fitted):
    """The score knows source and target; what comes later does not."""
    X = stream(40, seed=1)
    turned = np.concatenate([X[:20, ::-1], X[20:]])
    detector = fitted["AddGraph"]
    np.testing.assert_allclose(
        detector.decision_function(turned)[20:], detector.decision_function(X)[20:], rtol=1e-4
    )


def test_rare_nodes__score_higher():
    X = stream(900, nodes=200)
    detector = AddGraph(epochs=40, hidden=8, snapshot_size=150, random_state=0).fit(X[:600])
    rng = np.random.default_rng(1)
    new = np.concatenate([X[600:], rng.integers(0, 200, size=(100, 2))])
    order = rng.permutation(len(new))
    scores = detector.decision_function(new[order])
    assert roc_auc_score(order >= 300, scores) > 0.8


# --- AddAGAE --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([], "no snapshot"),
        ([np.zeros((3, 3))] * 9, "no pair"),
        ([(np.zeros((3, 4)), np.zeros((3, 2)))] * 9, r"\(3, 4\)"),
        ([(np.zeros((3, 3)), np.zeros((2, 2)))] * 9, r"\(2, 2\)"),
        ([*snapshots(8), *snapshots(1, nodes=4)], "snapshot 8"),
        ([(-np.ones((3, 3)), np.zeros((3, 2)))] * 9, "negative"),
        ([(np.ones((3, 3)), np.full((3, 2), np.nan))] * 9, "NaN"),
        (snapshots(3), "needs 4"),
    ],
)
def test_snapshots__bad__refused(X, message):
    with pytest.raises(ValueError, match=message):
        fast("AddAGAE").fit(X)


def test_snapshots__of_other_nodes__refused(fitted):
    with pytest.raises(ValueError, match="4 nodes"):
        fitted["AddAGAE"].decision_function(snapshots(3, nodes=4))


def test_snapshots__sparse_or_not__the_same(fitted):
    X = snapshots(4, seed=1)
    sparse = [(sp.csr_array(a.astype(float)), sp.csr_array(x)) for a, x in X]
    detector = fitted["AddAGAE"]
    np.testing.assert_allclose(
        detector.decision_function(sparse), detector.decision_function(X), rtol=1e-6
    )


def test_nodes__in_another_order__their_latent_vectors_too(fitted):
    module = fitted["AddAGAE"].module_
    a, x = (torch.from_numpy(np.asarray(part, np.float32)) for part in snapshots(1)[0])
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = module.latent(a[None], x[None])
        turned = module.latent(a[order][:, order][None], x[order][None])
    torch.testing.assert_close(turned, z[:, order])


def test_attention__by_hand__neighbours_and_oneself_alone():
    layer = fast("AddAGAE").fit(snapshots(5)).module_.first
    rng = np.random.default_rng(0)
    x, linked = rng.normal(size=(4, 3)), np.eye(4, dtype=bool)
    linked[0, 1] = linked[1, 0] = True
    with torch.no_grad():
        found = layer(torch.tensor(x, dtype=torch.float32)[None], torch.from_numpy(linked)[None])
    values = (x @ layer.values.weight.detach().double().numpy().T).reshape(4, 2, 4)
    ends = layer.ends.detach().double().numpy()
    source, target = ((values * end).sum(-1) for end in ends)
    e = source[0] + target[:2]  # (2 neighbours, heads)
    e = np.exp(np.where(e > 0, e, 0.2 * e))
    expected = ((e / e.sum(0))[..., None] * values[:2]).sum(0)
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[0, 3], values[3], rtol=1e-4, atol=1e-6)


def test_errors_and_scores__by_hand(fitted):
    detector, X = fitted["AddAGAE"], snapshots(3, seed=1)
    module: torch.nn.Module = detector.module_
    a, x = (part.double() for part in detector._tensors(detector._read(X, False)))
    with torch.no_grad():
        double = module.double()
        z = double.latent(a, x)
        v = double.attributes(x.transpose(1, 2)).numpy()
        path = torch.cat([double.past, z])  # the last two of training, and these
        usual, offset = double.usual.numpy(), float(double.offset)
        forecasts = [
            double.forecast(double.predictor(path[t : t + 2].transpose(0, 1))[0][:, -1])
            for t in range(3)
        ]
    a, x, z = a.numpy(), x.numpy(), z.numpy()
    p = expit(z @ z.transpose(0, 2, 1) + offset)
    structure = -(a * np.log(p) + (1 - a) * np.log(1 - p)).mean(2)
    attributes = ((z @ v.transpose(0, 2, 1) - x) ** 2).mean(2)
    ahead = np.stack(
        [((f.numpy() - own) ** 2).mean(1) for f, own in zip(forecasts, z, strict=True)]
    )
    with torch.no_grad():
        windows = torch.stack([path[t : t + 3] for t in range(3)])
        again = double.over_time(windows)[0].numpy()
    module.float()
    relative = np.stack([structure, attributes, again, ahead], -1) / usual
    expected = (relative[..., 3] + relative[..., :3].mean(-1)) / 2
    found = detector.node_scores(X)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    np.testing.assert_allclose(detector.decision_function(X), found.mean(1), rtol=1e-6)
    largest = clone(detector).set_params(pooling="max").fit(snapshots())
    np.testing.assert_allclose(largest.decision_function(X), found.max(1), rtol=1e-6)


def test_usual_snapshots__score_about_one__shifted_ones_more():
    rng = np.random.default_rng(0)
    usual = np.arange(16) % 2
    detector = AddAGAE(window=3, epochs=12, hidden=16, heads=2, random_state=0)
    detector.fit([snapshot(rng, usual) for _ in range(30)])
    assert detector.decision_scores_[3:].mean() == pytest.approx(1, rel=1e-4)
    moved = usual.copy()
    moved[:5] = 1 - moved[:5]
    X = [snapshot(rng, moved if t in (4, 9) else usual) for t in range(14)]
    scores = detector.decision_function(X)
    assert sorted(np.argsort(scores)[-2:]) == [4, 9]
    assert detector.node_scores(X)[[4, 9], :5].mean() > detector.node_scores(X)[[4, 9], 5:].mean()


# --- the benchmark --------------------------------------------------------------------------------


def test_inject__no_edges__of_different_clusters__in_the_second_half():
    X = np.unique(np.sort(stream(900, nodes=60), 1), axis=0)
    X = np.random.default_rng(0).permutation(X[X[:, 0] != X[:, 1]])
    train, test, y = benchmark.inject(X, 0.1, 0)
    half = len(X) // 2
    np.testing.assert_array_equal(train, X[:half])
    np.testing.assert_array_equal(test[y == 0], X[half:])
    assert y.sum() == int(0.1 * (len(X) - half))
    known = {tuple(pair) for pair in X.tolist()}
    assert not known & {tuple(pair) for pair in np.sort(test[y == 1], 1).tolist()}
    again = benchmark.inject(X, 0.1, 0)
    np.testing.assert_array_equal(again[1], test)


def test_baselines__by_hand__of_the_past():
    past, edges = np.array([[0, 1], [1, 2], [0, 3]]), np.array([[0, 2], [1, 0], [3, 4]])
    np.testing.assert_array_equal(benchmark.seen_before(past, edges), [1, 0, 1])
    np.testing.assert_array_equal(benchmark.common_neighbours(past, edges), [-1, 0, 0])
    np.testing.assert_allclose(
        benchmark.preferential_attachment(past, edges), -np.log([3 * 2, 3 * 3, 2 * 1])
    )
    by_snapshot = benchmark._by_snapshot(benchmark.seen_before, past, np.array([[3, 4]] * 3), 2)
    np.testing.assert_array_equal(by_snapshot, [1, 1, 0])
