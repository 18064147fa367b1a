"""ICL, GOAD, NeuTraL, GEOM and SCADN: losses by hand, invariants, easy problems."""

import numpy as np
import pytest
import torch
from scipy.special import digamma, logsumexp
from sklearn.metrics import roc_auc_score

from deepod import GEOM, GOAD, ICL, SCADN, NeuTraL
from deepod.networks import MLP, Recurrent
from deepod.types import Batch
from tests.cases import fast, samples

X = samples(n=64)
FAMILY = [ICL, GOAD, NeuTraL]
every_class = pytest.mark.parametrize("cls", FAMILY)


def small(cls, **params):
    settings = {"network": MLP(hidden=(8,)), "latent_dim": 3, "random_state": 0}
    return cls(**(settings | {"cross_fitting": False, "epochs": 2} | params))


def scaled(detector, rows=X):
    return torch.from_numpy((rows - detector.shift_) / detector.scale_).float()


def codes_of(network, x):
    with torch.no_grad():
        return network(torch.as_tensor(x, dtype=torch.float32)).double().numpy()


def unit(z, axis):
    return z / np.linalg.norm(z, axis=axis, keepdims=True)


def terms(detector, x):
    detector.module_.eval()
    return {k: v.item() for k, v in detector._loss(detector.module_, Batch(x)).items()}


# --- ICL ------------------------------------------------------------------------------------------


def icl_by_hand(detector, x):
    """Loss of each row, window by window."""
    losses = []
    for pair in detector.module_.eval():
        q, p = [], []
        with torch.no_grad():
            q = pair.of_rest(x[:, pair.outside]).double().numpy()
            p = pair.of_window(x[:, pair.inside]).double().numpy()
        q, p = (unit(unit(z, 1), 2) for z in (q, p))
        for row in range(len(x)):
            for i in range(q.shape[1]):
                cosines = [q[row, i] @ p[row, j] for j in range(p.shape[1])]
                logits = np.array(cosines) / detector.temperature
                losses.append(logsumexp(logits) - logits[i])
    return np.reshape(losses, (len(detector.module_), len(x), -1)).mean((0, 2))


@pytest.mark.parametrize("batch_norm", [True, False])
def test_icl__loss_and_score__by_hand(batch_norm):
    network = MLP(hidden=(8, 8), batch_norm=batch_norm)
    detector = small(ICL, network=network, n_members=2, temperature=0.3).fit(X)
    x = scaled(detector)
    expected = icl_by_hand(detector, x)
    np.testing.assert_allclose(detector.decision_scores_, expected, rtol=1e-3)
    assert terms(detector, x) == pytest.approx({"contrast": expected.mean()}, rel=1e-4)


def test_icl__one_layer__f_and_g_are_the_linear_maps_they_should_be():
    detector = small(ICL, network=MLP(hidden=()), n_members=1, temperature=1.0).fit(X)
    x = scaled(detector).double().numpy()
    pair = detector.module_[0]
    (w, b), (v, c) = (
        [p.detach().double().numpy() for p in net.parameters()]
        for net in (pair.of_rest, pair.of_window)
    )
    q = np.stack([np.tanh(np.delete(x, [j, j + 1], 1) @ w.T + b) for j in range(4)], 1)
    raw = np.stack([x[:, j : j + 2] @ v.T + c for j in range(4)], 1)
    p = np.where(raw > 0, raw, 0.01 * raw)
    cosines = unit(unit(q, 1), 2) @ unit(unit(p, 1), 2).transpose(0, 2, 1)
    expected = (logsumexp(cosines, 2) - np.einsum("bii->bi", cosines)).mean(1)
    np.testing.assert_allclose(detector.decision_scores_, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "window", "windows"),
    [(1, 1, 2), (2, 1, 2), (5, 2, 4), (40, 2, 16), (41, 10, 16), (160, 10, 16), (200, 50, 16)],
)
def test_icl__windows__the_rule_of_the_paper(size, window, windows):
    for pair in ICL()._build_module((size,)):
        assert pair.inside.shape == (windows, window)
        assert pair.outside.shape == (windows, max(2, size) - window)


@pytest.mark.parametrize("max_windows", [3, None])
def test_icl__windows__neighbours_from_the_first_to_the_last(max_windows):
    (pair,) = ICL(n_members=1, window=4, max_windows=max_windows)._build_module((13,))
    starts = [0, 4, 9] if max_windows else list(range(10))
    assert pair.inside.tolist() == [list(range(s, s + 4)) for s in starts]
    both = torch.cat([pair.inside, pair.outside], 1).sort(1).values
    assert (both == torch.arange(13)).all()


def test_icl__temperature__infinite_makes_all_windows_alike():
    detector = small(ICL, temperature=1e9).fit(X)
    np.testing.assert_allclose(detector.decision_scores_, np.log(4), rtol=1e-5)


def test_icl__another_network__refused():
    with pytest.raises(ValueError, match="network must be an MLP for ICL"):
        ICL(network=Recurrent()).fit(X)


# --- GOAD -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_goad__loss_and_score__by_hand(eps):
    detector = small(GOAD, n_transforms=4, transform_dim=2, margin=0.7, eps=eps).fit(X)
    x, module = scaled(detector), detector.module_
    maps = zip(module.maps.double().numpy(), module.offsets.double().numpy(), strict=True)
    z = np.stack([codes_of(module.encoder, x.double().numpy() @ w + b) for w, b in maps], 1)
    np.testing.assert_allclose(module.centers.numpy(), z.mean(0), atol=1e-5)

    def distances(m):
        return ((z[:, m, None] - z.mean(0)) ** 2).sum(2)

    triplet, score = [], 0
    for m in range(4):
        d = distances(m)
        triplet.append(np.maximum(d[:, m] + 0.7 - np.delete(d, m, 1).min(1), 0))
        likeness = np.exp(-d) + eps
        score = score - np.log(likeness[:, m] / likeness.sum(1))
    np.testing.assert_allclose(detector.decision_scores_, score, rtol=1e-4)
    weight, bias = (p.detach().double().numpy() for p in module.classifier.parameters())
    logits = np.where(z > 0, z, 0.2 * z) @ weight.T + bias
    entropy = logsumexp(logits, 2) - np.einsum("bmm->bm", logits)
    expected = {"triplet": 0.1 * np.mean(triplet), "classification": entropy.mean()}
    assert terms(detector, x) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_goad__far_outside__the_highest_score(eps):
    detector = GOAD(eps=eps, random_state=0, cross_fitting=False).fit(X)
    far = detector.decision_function(1e3 * X[:5])
    assert far.min() > detector.decision_scores_.max()
    if eps:
        np.testing.assert_allclose(far, 32 * np.log(32), rtol=1e-4)
    else:  # still told apart
        assert len(set(far)) == 5


def test_goad__maps__neither_trained_nor_shared_by_seeds():
    maps = [small(GOAD, epochs=k, random_state=k // 2).fit(X).module_.maps for k in (0, 1, 2)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[1], maps[2])


# --- NeuTraL --------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["residual", "multiplicative", "forward"])
def test_neutral__loss_and_score__by_hand(view):
    detector = small(NeuTraL, n_transforms=3, view=view, temperature=0.4).fit(X)
    x, module = scaled(detector), detector.module_
    assert detector.offset == 0.1
    row = x.double().numpy() + 0.1
    made = codes_of(module["transforms"], row)
    views = {
        "residual": row + made,
        "multiplicative": row / (1 + np.exp(-made)),
        "forward": made,
    }[view]
    z = unit(codes_of(module["encoder"], row), 1)
    zs = [unit(codes_of(module["encoder"], view), 1) for view in views]

    def h(a, b):
        return np.exp((a * b).sum(1) / 0.4)

    expected = 0
    for k in range(3):
        others = sum(h(zs[k], zs[other]) for other in range(3) if other != k)
        expected = expected - np.log(h(zs[k], z) / (h(zs[k], z) + others))
    np.testing.assert_allclose(detector.decision_scores_, expected, rtol=1e-4)
    assert terms(detector, x) == pytest.approx({"contrast": expected.mean()}, rel=1e-4)


def test_neutral__views__of_nothing_are_nothing():
    """No biases: a transformation cannot put the same into every row."""
    module = NeuTraL()._build_module((5,))
    assert not NeuTraL()._views(module, torch.zeros(2, 5)).any()


def test_neutral__row_of_all_minima__not_the_highest_score():
    """It would be 0, which has no angle; in tables of counts it may be the most common row."""
    counts = np.random.default_rng(0).poisson(0.3, size=(200, 5)).astype(np.float32)
    detector = small(NeuTraL, epochs=20).fit(counts)
    assert detector.decision_function(np.zeros((1, 5))) < detector.threshold_
    without = small(NeuTraL, epochs=20, offset=0).fit(counts)
    assert without.decision_function(np.zeros((1, 5))) == without.decision_scores_.max()


# --- GEOM -----------------------------------------------------------------------------------------


def ramps(n, seed=0):
    """Images that grow darker from corner to corner, with noise."""
    noise = 0.5 * np.random.default_rng(seed).normal(size=(n, 1, 8, 8))
    return (np.linspace(-3, 3, 64).reshape(8, 8) + noise).astype(np.float32)


@pytest.mark.parametrize("likelihood", ["dirichlet", "softmax"])
def test_geom__loss_and_score__by_hand(likelihood):
    images = ramps(20)
    detector = GEOM(likelihood=likelihood, scaler=None, epochs=10, random_state=0, lr=1e-2)
    detector.set_params(cross_fitting=False).fit(images)
    turned = [np.rot90(x, k, (2, 3)) for x in (images, images[..., ::-1]) for k in range(4)]
    module = detector.module_
    logits = np.stack([codes_of(module.classifier, view.copy()) for view in turned], 1)
    logs = logits - logsumexp(logits, 2, keepdims=True)
    right = np.einsum("btt->bt", logs)
    expected = -np.exp(right).mean(1)
    if likelihood == "dirichlet":
        # At the maximum of the likelihood its gradient is 0 for every transformation.
        alpha = module.alpha.double().numpy()
        slope = digamma(alpha.sum(1, keepdims=True)) - digamma(alpha) + logs.mean(0)
        np.testing.assert_allclose(slope, 0, atol=1e-3)
        expected = -((alpha - 1) * logs).sum((1, 2))
    np.testing.assert_allclose(detector.decision_scores_, expected, rtol=1e-4, atol=1e-4)
    found = terms(detector, torch.from_numpy(images))
    assert found == pytest.approx({"classification": -right.mean()}, rel=1e-4)


def test_geom__shift__seventy_two_different_ways():
    places = GEOM(shift=0.25)._places((2, 8, 8))
    assert len({tuple(way) for way in places.tolist()}) == 72
    # Moved down by two rows, with what is mirrored above; channels stay apart.
    moved = torch.arange(128).view(2, 8, 8)[:, [2, 1, 0, 1, 2, 3, 4, 5]].flatten()
    assert moved.tolist() in places.tolist()


@pytest.mark.parametrize(("shape", "ways"), [((3, 4, 6), 4), ((6, 3), 2), ((5,), 8)])
def test_geom__other_shapes__ways_that_keep_the_shape(shape, ways):
    places = GEOM()._places(shape)
    assert len(places) == ways
    assert (places.sort(1).values == torch.arange(places.shape[1])).all()


def test_geom__images_upside_down__found():
    detector = GEOM(random_state=0, cross_fitting=False).fit(ramps(80))
    test = np.concatenate([ramps(50, 1), ramps(50, 2)[:, :, ::-1]])
    scores = detector.decision_function(test)
    assert roc_auc_score(np.repeat([0, 1], 50), scores) > 0.95


# --- SCADN ----------------------------------------------------------------------------------------


def stripes_by_hand(shape, widths):
    """Masks one by one, pixel by pixel: rows first, then columns, each with its complement."""
    masks = []
    for width in widths:
        for axis in range(len(shape)):
            mask = np.zeros(shape)
            for place in np.ndindex(*shape):
                mask[place] = place[axis] // width % 2
            masks += [mask, 1 - mask]
    return np.stack(masks)


@pytest.mark.parametrize(
    ("shape", "widths", "expected"),
    [
        ((1, 8, 8), None, [1, 2]),
        ((3, 32, 32), None, [2, 4, 8]),
        ((1, 5, 9), (4, 3), [4, 3]),
        ((6, 3), (1, 2), [1, 2]),
    ],
)
def test_scadn__masks__stripes_and_what_is_between_them(shape, widths, expected):
    masks = SCADN(widths=widths, network=MLP(hidden=()))._build_module(shape).masks
    sides = shape[1:] if len(shape) == 3 else shape[:1]
    assert masks.shape == (len(expected) * len(sides) * 2, *((1, *sides) if sides[1:] else (6, 1)))
    np.testing.assert_array_equal(masks.squeeze(), stripes_by_hand(sides, expected))
    # Every value is hidden by half of the masks, and no two masks are the same.
    assert (masks.mean(0) == 0.5).all()
    assert len(masks.flatten(1).unique(dim=0)) == len(masks)


@pytest.mark.parametrize(
    ("shape", "widths"), [((1, 8, 8), (8,)), ((1, 8, 8), ()), ((1, 9, 4), (0,)), ((1, 1, 5), None)]
)
def test_scadn__widths_that_hide_nothing_or_all__refused(shape, widths):
    with pytest.raises(ValueError, match=r"widths=.*expected widths"):
        SCADN(widths=widths).fit(np.zeros((3, *shape)))


def small_scadn(**params):
    settings = {"network": MLP(hidden=(8,)), "latent_dim": 3, "widths": (1, 3), "epochs": 2}
    return SCADN(cross_fitting=False, random_state=0, **(settings | params))


def filled(detector, x, masks):
    """What is made of rows, of which each has a mask of its own."""
    return codes_of(detector.module_.autoencoder, np.where(masks == 1, 1, x))


@pytest.mark.parametrize("shape", [(2, 5, 7), (7, 2)])
def test_scadn__losses__by_hand(shape):
    rows = np.random.default_rng(0).normal(size=(20, *shape))
    detector = small_scadn(hidden_weight=3.0, adversarial_weight=0.2).fit(rows)
    module, x = detector.module_.eval(), scaled(detector, rows)
    noise = torch.arange(20) % len(module.masks)
    masks = np.broadcast_to(module.masks.numpy()[noise.numpy()], rows.shape)
    made = filled(detector, x.double().numpy(), masks)
    squares = (made - x.double().numpy()) ** 2
    hidden = np.mean([e[m == 1].mean() for e, m in zip(squares, masks, strict=True)])
    visible = np.mean([e[m == 0].mean() for e, m in zip(squares, masks, strict=True)])
    real, fake = (1 / (1 + np.exp(-codes_of(module.judge, rows))) for rows in (x, made))
    batch = Batch(x, noise=noise)
    found = {k: v.item() for k, v in detector._loss(module, batch).items()}
    expected = {"hidden": 3 * hidden, "visible": visible, "adversarial": -0.2 * np.log(fake).mean()}
    assert found == pytest.approx(expected, rel=1e-4)
    judged = {k: v.item() for k, v in detector._judge_loss(module, batch).items()}
    expected = {"real": -np.log(real).mean() / 2, "fake": -np.log(1 - fake).mean() / 2}
    assert judged == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", [(2, 5, 7), (7, 2)])
def test_scadn__scores__by_hand(shape):
    rows = np.random.default_rng(0).normal(size=(20, *shape))
    detector = small_scadn().fit(rows)
    x = scaled(detector, rows).double().numpy()
    errors = []
    for mask in detector.module_.masks.numpy():
        masks = np.broadcast_to(mask, x.shape)
        errors.append(masks * (filled(detector, x, masks) - x) ** 2)
    terms = np.sum(errors, 0) / (len(errors) / 2)
    np.testing.assert_allclose(detector.decision_scores_, terms.reshape(20, -1).mean(1), rtol=1e-4)
    each = detector.explain(rows)
    np.testing.assert_allclose(each, terms / rows[0].size, rtol=1e-3, atol=1e-6)
    if len(shape) == 3:
        np.testing.assert_allclose(detector.score_map(rows), terms.mean(1), rtol=1e-3, atol=1e-6)
    detector.set_params(score_by="worst")
    halves = np.split(np.stack(errors), 2)  # width 1, width 3
    pixels = [half.mean(2 if len(shape) == 3 else 3).max(0) for half in halves]
    by_width = np.stack([e.reshape(20, -1).mean(1) for e in pixels], 1)
    expected = (by_width - by_width.mean(0)).max(1)
    np.testing.assert_allclose(detector.decision_function(rows), expected, rtol=1e-3, atol=1e-5)


def test_scadn__what_is_hidden__does_not_leak_into_what_is_filled_in():
    module = SCADN()._build_module((1, 8, 8))
    x, other = torch.from_numpy(samples("images", n=2)).split(1)
    for mask in module.masks.split(1):
        with torch.no_grad():
            made, same, changed = (
                module(row, mask)
                for row in (x, torch.where(mask == 1, other, x), torch.where(mask == 0, other, x))
            )
        assert torch.equal(made, same)
        assert not torch.equal(made, changed)


def test_scadn__noise__every_mask_of_the_module():
    for shape in ((1, 8, 8), (3, 32, 32), (12, 2)):
        drawn = SCADN()._noise(500, shape, torch.Generator().manual_seed(0))
        masks = SCADN()._build_module(shape).masks
        assert sorted(set(drawn.tolist())) == list(range(len(masks)))


def test_scadn__no_adversarial_weight__no_discriminator():
    detector = small_scadn(adversarial_weight=0).fit(samples("images"))
    assert detector.module_.judge is None
    assert set(detector.history_[-1]) >= {"hidden", "visible"}
    assert not {"real", "adversarial"} & set(detector.history_[-1])


def test_scadn__halves_that_do_not_go_together__found():
    """Each pixel is as it always was; the left half of one image stands beside that of another."""
    rng = np.random.default_rng(0)

    def images(n):
        slopes = rng.normal(size=(n, 2, 1, 1))
        grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 8)] * 2, indexing="ij"))
        return (slopes * grid).sum(1, keepdims=True) + 0.05 * rng.normal(size=(n, 1, 8, 8))

    normal, broken = images(100), images(100)
    broken[..., 4:] = broken[::-1, ..., 4:]
    network = MLP(hidden=(32,))
    detector = SCADN(network=network, random_state=0, cross_fitting=False, epochs=100, lr=1e-2)
    detector.fit(images(200))
    scores = detector.decision_function(np.concatenate([normal, broken]))
    assert roc_auc_score(np.repeat([0, 1], 100), scores) > 0.9


# --- all ------------------------------------------------------------------------------------------


@every_class
def test_columns_that_no_longer_go_together__found(cls):
    """Each column is as it always was; what is broken is how they go together."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 2)) @ rng.normal(size=(2, 8)) + 0.1 * rng.normal(size=(500, 8))
    broken = rng.permuted(rows[400:], axis=0)
    detector = cls(random_state=0, cross_fitting=False).fit(rows[:300])
    scores = detector.decision_function(np.concatenate([rows[300:400], broken]))
    assert roc_auc_score(np.repeat([0, 1], 100), scores) > (0.8 if cls is GOAD else 0.9)


@every_class
def test_windows__scored_like_their_values_in_a_row(cls):
    windows = samples("windows")
    scores = fast(cls.__name__, scaler=None).fit(windows).decision_scores_
    rows = fast(cls.__name__, scaler=None).fit(windows.reshape(40, -1)).decision_scores_
    np.testing.assert_allclose(scores, rows, rtol=1e-4)
