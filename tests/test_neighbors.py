"""Distances to training rows, against a reference in NumPy."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import norm

from deepod import Neighbors
from deepod._scoring import neighbors as module_under_test
from deepod._scoring.neighbors import References
from deepod.networks import MLP

from .cases import samples

LEVEL = 0.9  # of the training scores, above which a tail is exponential


def scalings(X):
    """By what columns are multiplied: 1 over their range, and over their robust deviation."""
    X = X.astype(np.float64)
    robust = (np.quantile(X, 0.75, axis=0) - np.quantile(X, 0.25, axis=0)) / 1.349
    robust = np.where(robust > 0, robust, X.std(0))
    sizes = np.stack([np.ptp(X, axis=0), robust])
    return 1 / np.where(sizes > 0, sizes, 1)


def normal_scores(x, rows):
    """Normal quantiles of ranks among 512 of the rows' values, half of those that are equal."""
    grid = np.sort(rows, 0)[np.linspace(0, len(rows) - 1, 512).round().astype(int)]
    shares = (x[:, None] > grid).mean(1) / 2 + (x[:, None] >= grid).mean(1) / 2
    return norm.ppf(shares.clip(0.5 / 512, 1 - 0.5 / 512))


def six_distances(x, rows, scales, near, far, own=None):
    """Near and far in each scaling, all pairs compared; row i leaves out row own[i]."""
    found = []
    n = len(rows) if own is None else len(rows) - 1
    views = [(x * scale, rows * scale) for scale in scales]
    views.append((normal_scores(x, rows), normal_scores(rows, rows)))
    for ours, theirs in views:
        pairs = np.sqrt(((ours[:, None] - theirs[None]) ** 2).sum(-1))
        if own is not None:
            pairs[np.arange(len(x)), own] = np.inf
        pairs = np.sort(pairs, 1)
        place = min(max(1, round(far * len(rows))), n)
        found += [pairs[:, : min(near, n)].mean(1), pairs[:, place - 1]]
    return np.stack(found, 1)


def tail(scores, known):
    """Minus the log of the share of known scores as high; exponential above the quantile."""
    start = np.quantile(known, LEVEL)
    grid = np.sort(known)[np.linspace(0, len(known) - 1, 1024).round().astype(int)]
    values, counts = np.unique(grid, return_counts=True)
    share = np.interp(scores, values, (counts.cumsum() - counts / 2) / 1024)
    beyond = (scores - start) / (known[known > start].mean() - start) - np.log(1 - LEVEL)
    return np.where(scores > start, beyond, -np.log(1 - np.minimum(share, LEVEL)))


def reference(x, X, near=5, far=0.05, own=None):
    """Score rows as Neighbors does that was fitted on X."""
    scales = scalings(X)
    known = six_distances(X, X, scales, near, far, np.arange(len(X)))
    distances = six_distances(x, X, scales, near, far, own)
    return np.max([tail(*pair) for pair in zip(distances.T, known.T, strict=True)], 0)


TABLE = np.random.default_rng(0).normal(size=(90, 4)) * [1, 20, 0.1, 3] + [0, 5, 0, -2]
NEW = np.random.default_rng(1).normal(size=(30, 4)) * [2, 40, 0.2, 6] + [0, 5, 0, -2]


@pytest.mark.parametrize(("near", "far"), [(5, 0.05), (1, 0.5), (12, 0.01)])
def test_scores__of_new_and_training_rows__as_the_reference(near, far):
    detector = Neighbors(n_neighbors=near, far=far).fit(TABLE)
    np.testing.assert_allclose(
        detector.decision_function(NEW), reference(NEW, TABLE, near, far), rtol=1e-4
    )
    own = reference(TABLE, TABLE, near, far, own=np.arange(90))
    np.testing.assert_allclose(detector.decision_scores_, own, rtol=1e-4, atol=1e-6)
    assert detector.unseen_
    # A row that was trained on is its own nearest when it comes as a new one.
    assert (detector.decision_function(TABLE) <= detector.decision_scores_ + 1e-6).all()


def test_distances__as_the_reference_with_and_without_the_row_itself():
    X = TABLE.astype(np.float32)
    references = References((4,), near=3, far=0.1, most=200)
    references.start_from_rows(torch.from_numpy(X))
    for own, leave_out in ((None, False), (np.arange(90), True)):
        expected = six_distances(X, X, scalings(X), 3, 0.1, own)
        found = references.distances(torch.from_numpy(X), leave_out)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def test_training_scores__exact_copies__each_leaves_out_one_of_them_only():
    X = np.concatenate([TABLE, TABLE[:20], TABLE[:1], TABLE[:1]])
    own = reference(X, X, own=np.arange(len(X)))
    detector = Neighbors().fit(X)
    np.testing.assert_allclose(detector.decision_scores_, own, rtol=1e-4, atol=1e-6)
    copies = detector.decision_scores_[[0, 90, 110, 111]]
    np.testing.assert_allclose(copies, copies[0], rtol=1e-5)
    references = References((4,), near=1, far=0.01, most=200)
    x = torch.from_numpy(X.astype(np.float32))
    references.start_from_rows(x)
    nearest = references.distances(x, leave_out=True)[:, 0]
    assert (nearest[:20] == 0).all()  # the copy stays
    assert (nearest[20:90] > 0).all()


def test_scores__all_rows_alike__a_new_one_that_differs_is_higher():
    detector = Neighbors().fit(np.ones((30, 3)))
    assert np.ptp(detector.decision_scores_) == 0
    same, other = detector.decision_function([[1, 1, 1], [1, 1, 2]])
    assert same == pytest.approx(detector.decision_scores_[0])
    assert other > same


def test_scores__in_blocks__the_same(monkeypatch):
    expected = Neighbors().fit(TABLE)
    monkeypatch.setattr(module_under_test, "_BLOCK_VALUES", 90 * 7)
    found = Neighbors().fit(TABLE)
    np.testing.assert_allclose(found.decision_scores_, expected.decision_scores_, rtol=1e-5)
    np.testing.assert_allclose(
        found.decision_function(NEW), expected.decision_function(NEW), rtol=1e-5
    )


# --- max_rows -------------------------------------------------------------------------------------


def test_max_rows__keeps_a_spread_subset_that_the_seed_chooses():
    X = np.sort(np.random.default_rng(0).normal(size=(400, 1)), 0)
    kept = []
    for seed in (0, 0, 1):
        detector = Neighbors(max_rows=40, random_state=seed).fit(X)
        rows = detector.module_.rows.numpy() * detector.scale_ + detector.shift_
        numbers = np.abs(X - rows.T).argmin(0)
        np.testing.assert_allclose(X[numbers], rows, atol=1e-5)
        assert (numbers // 10 == np.arange(40)).all()  # one of each tenth row's block
        kept.append(numbers.tolist())
    assert kept[0] == kept[1] != kept[2]


def test_max_rows__of_more_rows__scores_rank_alike_and_threshold_holds():
    X = np.random.default_rng(0).normal(size=(900, 3))
    new = np.random.default_rng(1).normal(size=(500, 3)) * 1.3
    few, all_rows = Neighbors(max_rows=300, random_state=0).fit(X), Neighbors().fit(X)
    assert len(few.module_.rows) == 300
    assert len(few.decision_scores_) == 900
    ours, theirs = few.decision_function(new), all_rows.decision_function(new)
    assert np.corrcoef(ours.argsort().argsort(), theirs.argsort().argsort())[0, 1] > 0.93
    new = np.random.default_rng(2).normal(size=(500, 3))
    assert few.predict(new).mean() == pytest.approx(0.1, abs=0.03)


def test_max_rows__more_than_there_are__no_room_is_kept():
    detector = Neighbors(max_rows=5000).fit(TABLE)
    assert detector.module_.rows.shape == (90, 4)


# --- explain --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["table", "windows", "images"])
def test_explain__sums_to_the_score_and_is_not_negative(kind):
    X, new = samples(kind), 2 * samples(kind, n=9, seed=1)
    detector = Neighbors().fit(X)
    contributions = detector.explain(new)
    assert contributions.shape == new.shape
    assert (contributions >= 0).all()
    np.testing.assert_allclose(
        contributions.reshape(9, -1).sum(1), detector.decision_function(new), rtol=1e-5
    )


def test_explain__one_odd_value__its_column():
    new = np.tile(np.median(TABLE, 0), (4, 1)) + np.diag([9, 180, 0.9, 27])
    np.testing.assert_array_equal(Neighbors().fit(TABLE).explain(new).argmax(1), range(4))


def test_explain__a_copy_of_every_row__shares_its_score_out_evenly():
    X = np.ones((30, 4))
    detector = Neighbors().fit(X)
    contributions = detector.explain(X[:2])
    np.testing.assert_allclose(contributions.sum(1), detector.decision_function(X[:2]))
    np.testing.assert_allclose(contributions, contributions[:, :1].repeat(4, 1))


# --- kinds of samples -----------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "channel"), [("windows", 2), ("images", 0)])
def test_scalings__of_windows_and_images__one_for_each_channel(kind, channel):
    X = samples(kind, n=50).astype(np.float64)
    if kind == "images":
        X = np.concatenate([X, 30 * samples(kind, n=50, seed=2)], 1)  # two channels
    else:
        X[..., 2] *= 30
    detector = Neighbors(scaler=None).fit(X)
    flat = X.reshape(len(X), -1)
    expected = np.empty((2, *X.shape[1:]))
    for c in range(X.shape[-1] if kind == "windows" else 2):
        where = np.s_[..., c] if kind == "windows" else np.s_[:, c]
        for scale, own in zip(expected, scalings(X[where].reshape(-1, 1)), strict=True):
            scale[where if kind == "windows" else c] = own
    np.testing.assert_allclose(detector.module_.scales, expected.reshape(2, -1), rtol=1e-5)
    new = X[:5] * 1.5
    distances = detector.module_.distances(
        torch.from_numpy(new.reshape(5, -1).astype(np.float32)), leave_out=False
    )
    direct = six_distances(new.reshape(5, -1), flat, expected.reshape(2, -1), 5, 0.05)
    np.testing.assert_allclose(distances, direct, rtol=1e-4)


# --- corners --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 6, 7])
def test_fit__few_rows__far_ones_score_higher(n):
    X = np.random.default_rng(0).normal(size=(n, 2))
    detector = Neighbors().fit(X)
    scores = detector.decision_function(np.concatenate([X, X + 100]))
    assert np.isfinite(detector.decision_scores_).all()
    assert scores[:n].max() < scores[n:].min()


def test_fit__columns_that_are_constant__do_not_count_until_they_change():
    X = np.column_stack([TABLE, np.full(90, 7.0)])
    with_it, without = Neighbors().fit(X), Neighbors().fit(TABLE)
    np.testing.assert_allclose(with_it.decision_scores_, without.decision_scores_, rtol=1e-4)
    row = X[:1].copy()
    assert with_it.predict(row) == [0]
    row[0, -1] = 90.0
    assert with_it.predict(row) == [1]
    assert with_it.explain(row).argmax() == 4


def test_fit__most_values_of_a_column_alike__scaled_by_its_deviation():
    X = TABLE.copy()
    X[:80, 0] = 0.0  # quartiles are equal
    detector = Neighbors().fit(X)
    np.testing.assert_allclose(detector.decision_function(NEW), reference(NEW, X), rtol=1e-4)


def test_fit__one_column():
    X = TABLE[:, :1]
    detector = Neighbors().fit(X)
    # Ranks along one column are at few distances from each other: which of them are equal, and
    # share a place among the training scores, is a matter of rounding.
    np.testing.assert_allclose(
        detector.decision_function(NEW[:, :1]), reference(NEW[:, :1], X), rtol=1e-4, atol=0.02
    )


def test_scores__columns_with_a_large_offset__as_without():
    expected = Neighbors().fit(TABLE)
    offset = np.array([1e7, -1e8, 1e5, 1e9])
    detector = Neighbors().fit(TABLE + offset)
    np.testing.assert_allclose(
        detector.decision_function(NEW + offset), expected.decision_function(NEW), rtol=1e-3
    )
    np.testing.assert_allclose(
        detector.decision_scores_, expected.decision_scores_, rtol=1e-3, atol=1e-4
    )


def test_distances__two_clusters_far_apart__to_the_nearest_in_float32():
    """One product of matrices only says which rows are nearest, not how near they are."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 3)).astype(np.float32)
    X[50:] += 100
    x = torch.from_numpy(X)
    references = References((3,), near=1, far=0.01, most=200)
    references.start_from_rows(x)
    expected = six_distances(
        X.astype(np.float64), X.astype(np.float64), scalings(X), 1, 0.01, np.arange(100)
    )
    # The product may pick another one of those that are about as near.
    np.testing.assert_allclose(references.distances(x, True), expected, rtol=0.1)
    assert (references.distances(x, False)[:, 0] == 0).all()


@pytest.mark.parametrize("far", [1e10, 1e25, 1e300])
def test_scores__rows_very_far_away__finite_and_flagged(far):
    detector = Neighbors().fit(TABLE)
    rows = np.zeros((2, 4))
    rows[0, 1], rows[1] = far, -far
    assert np.isfinite(detector.decision_function(rows)).all()
    assert detector.predict(rows).tolist() == [1, 1]


def test_fit__the_further_the_higher():
    steps = np.linspace(4, 1000, 50)[:, None] * np.ones(4)
    assert (np.diff(Neighbors().fit(TABLE / TABLE.std(0)).decision_function(steps)) > 0).all()


def test_fit__missing_values__imputed_by_medians():
    X = TABLE.copy()
    X[::7, 1] = np.nan
    filled = np.where(np.isnan(X), np.nanmedian(X, 0), X)
    detector = Neighbors(missing="impute").fit(X)
    expected = Neighbors().fit(filled)
    np.testing.assert_allclose(detector.decision_scores_, expected.decision_scores_, rtol=1e-5)


def test_fit__what_steers_training__has_no_effect_and_leaves_no_history():
    expected = Neighbors().fit(TABLE)
    settings = {"epochs": 9, "lr": 1.0, "batch_size": 3, "network": MLP(hidden=(2,))}
    detector = Neighbors(**settings).fit(TABLE)
    assert detector.history_ == expected.history_ == []
    np.testing.assert_array_equal(detector.decision_scores_, expected.decision_scores_)


def test_fit__names_of_columns__n_features():
    frame = pd.DataFrame(TABLE, columns=list("abcd"))
    detector = Neighbors().fit(frame)
    assert detector.feature_names_in_.tolist() == list("abcd")
    np.testing.assert_array_equal(
        detector.decision_function(frame.iloc[:3]),
        Neighbors().fit(TABLE).decision_function(TABLE[:3]),
    )


def test_p_values__without_calibration_rows__new_normal_rows_at_most_the_rate():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(10):
        detector = Neighbors(false_alarm_rate=0.1).fit(rng.normal(size=(150, 3)))
        shares.append(detector.predict(rng.normal(size=(300, 3))).mean())
    assert np.mean(shares) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("wrong", [{"n_neighbors": 0}, {"far": 0.0}, {"far": 1.5}, {"max_rows": 1}])
def test_fit__bad_parameters__refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Neighbors(**wrong).fit(TABLE)


def test_neighbors__one_row_far_out__hides_no_neighbours():
    X = np.random.default_rng(0).normal(size=(400, 3))
    far = np.concatenate([X, [[1e7, 0, 0]]])
    new = np.random.default_rng(1).normal(size=(50, 3))
    detector = Neighbors().fit(far)
    x = torch.from_numpy(detector.scaler_.transform(new))
    found = detector.module_.distances(x, leave_out=False)[:, 2]  # near, by interquartile ranges
    spread = np.subtract(*np.quantile(far, [0.75, 0.25], axis=0)) / 1.349
    exact = np.sort(cdist(new / spread, far / spread), 1)[:, :5].mean(1)
    # What is left is the rounding of the scaled column to float32.
    np.testing.assert_allclose(found, exact, rtol=0.05, atol=0.05)
