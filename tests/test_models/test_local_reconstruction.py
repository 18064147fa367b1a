"""Locally linear reconstruction, against a reference in NumPy."""

import numpy as np
import pytest

from deepod import LocalReconstruction, load
from deepod._scoring import neighbors
from tests.cases import samples

TABLE = np.random.default_rng(0).normal(size=(90, 4)) * [1, 20, 0.1, 3] + [0, 5, 0, -2]
NEW = np.random.default_rng(1).normal(size=(30, 4)) * [2, 40, 0.2, 6] + [0, 5, 0, -2]


def reference(x, X, k=10, ridge=0.01, own=None):
    """Solve the least squares of each row as a system with rows for the penalty."""
    low, size = X.min(0), np.ptp(X, axis=0)
    x, X = (x - low) / size, (X - low) / size
    found = []
    for i, row in enumerate(x):
        others = X if own is None else np.delete(X, own[i], 0)
        near = others[np.linalg.norm(others - row, axis=1).argsort()[: min(k, len(X) - 1)]]
        mean = near.mean(0)
        spread = (near - mean).T  # (values, k)
        penalty = np.sqrt(ridge * (spread**2).sum()) * np.eye(len(near))
        system = np.vstack([spread, penalty])
        wanted = np.concatenate([row - mean, np.zeros(len(near))])
        weights = np.linalg.lstsq(system, wanted, rcond=None)[0]
        found.append(np.linalg.norm(wanted - system @ weights))
    return np.array(found)


@pytest.mark.parametrize(("k", "ridge"), [(10, 0.01), (3, 1.0), (1, 0.01), (200, 1e-4)])
def test_scores__of_new_and_training_rows__as_the_reference(k, ridge):
    detector = LocalReconstruction(n_neighbors=k, ridge=ridge).fit(TABLE)
    np.testing.assert_allclose(
        detector.decision_function(NEW), reference(NEW, TABLE, k, ridge), rtol=1e-4
    )
    own = reference(TABLE, TABLE, k, ridge, own=np.arange(90))
    np.testing.assert_allclose(detector.decision_scores_, own, rtol=1e-4)
    assert detector.unseen_


def test_scores__a_row_off_the_plane_of_its_neighbours__above_one_that_is_as_far_away_within_it():
    rng = np.random.default_rng(0)
    plane = rng.uniform(size=(400, 2))
    X = np.column_stack([plane, plane.sum(1)])
    on, off = LocalReconstruction().fit(X).decision_function([[0.5, 0.5, 1.0], [0.5, 0.5, 1.2]])
    assert off > 10 * on


def test_scores__shifted_and_scaled_columns__the_same():
    expected = LocalReconstruction().fit(TABLE).decision_function(NEW)
    found = LocalReconstruction().fit(7 * TABLE + 100).decision_function(7 * NEW + 100)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_scores__in_blocks__the_same(monkeypatch):
    expected = LocalReconstruction().fit(TABLE)
    monkeypatch.setattr(neighbors, "_BLOCK_VALUES", 90 * 7)
    found = LocalReconstruction().fit(TABLE)
    np.testing.assert_allclose(found.decision_scores_, expected.decision_scores_, rtol=1e-6)
    np.testing.assert_allclose(
        found.decision_function(NEW), expected.decision_function(NEW), rtol=1e-6
    )


def test_scores__neighbours_all_alike__the_distance_from_them():
    X = np.repeat([[0.0, 0.0], [1.0, 1.0]], 30, 0)
    detector = LocalReconstruction().fit(X)
    np.testing.assert_allclose(detector.decision_scores_, 0, atol=1e-6)
    np.testing.assert_allclose(detector.decision_function([[0, 0.25]]), 0.25, rtol=1e-6)


@pytest.mark.parametrize("n", [2, 3, 11])
def test_fit__few_rows__far_ones_score_higher(n):
    X = np.random.default_rng(0).normal(size=(n, 3))
    near, far = LocalReconstruction().fit(X).decision_function([X.mean(0), X.mean(0) + 50])
    assert far > near


def test_max_rows__of_more_rows__keeps_so_many_and_the_threshold_holds():
    rng = np.random.default_rng(0)
    detector = LocalReconstruction(max_rows=300, random_state=0).fit(rng.normal(size=(900, 3)))
    assert len(detector.module_.rows) == 300
    assert len(detector.decision_scores_) == 900
    assert detector.predict(rng.normal(size=(1000, 3))).mean() == pytest.approx(0.1, abs=0.03)


def test_save__more_room_than_rows__loads_with_the_same_scores(tmp_path):
    detector = LocalReconstruction().fit(TABLE)
    detector.save(tmp_path / "model")
    found = load(tmp_path / "model").decision_function(NEW)
    np.testing.assert_array_equal(found, detector.decision_function(NEW))


@pytest.mark.parametrize("kind", ["table", "windows", "images"])
def test_explain__sums_to_the_score_and_is_not_negative(kind):
    X, new = samples(kind), 2 * samples(kind, n=9, seed=1)
    detector = LocalReconstruction().fit(X)
    contributions = detector.explain(new)
    assert contributions.shape == new.shape
    assert (contributions >= 0).all()
    np.testing.assert_allclose(
        contributions.reshape(9, -1).sum(1), detector.decision_function(new), rtol=1e-5
    )


@pytest.mark.parametrize("wrong", [{"n_neighbors": 0}, {"ridge": 0}, {"max_rows": 1}])
def test_fit__bad_parameters__refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LocalReconstruction(**wrong).fit(TABLE)
