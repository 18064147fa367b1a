"""Isolation forests: the trees, their paths, and what they agree with."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import IsolationForest as Reference
from sklearn.metrics import roc_auc_score

from deepod import IsolationForest
from tests.cases import samples


def paths(detector, row):
    """Walk through the trees one node at a time; return the lengths and the numbers of splits."""
    module = detector.module_
    found = []
    for feature, border, length in zip(module.feature, module.border, module.length, strict=True):
        node, splits = 0, 0
        for _ in range(module.depth):
            splits += bool(torch.isfinite(border[node]))
            node = 2 * node + 1 + bool(row[feature[node]] > border[node])
        found.append((length[node].item(), splits))
    return np.array(found).T


def scaled(detector, x):
    return ((x - detector.shift_) / detector.scale_).astype(np.float32)


def test_scores__are_those_of_equation_2_along_each_path():
    X, new = samples("table"), samples("table", n=5, seed=1)
    detector = IsolationForest(n_trees=20, random_state=0).fit(X)
    expected = [2 ** -paths(detector, row)[0].mean() for row in scaled(detector, new)]
    np.testing.assert_allclose(detector.decision_function(new), expected, rtol=1e-6)


def test_trees__two_rows__one_split_that_sets_them_apart():
    detector = IsolationForest(n_trees=5, random_state=0).fit([[0.0, 1.0], [1.0, 1.0]])
    assert (detector.module_.feature[:, 0] == 0).all()  # the other one is constant
    lengths, splits = paths(detector, scaled(detector, np.array([0.0, 1.0])))
    assert (splits == 1).all()
    np.testing.assert_allclose(lengths, 1)  # as long as for a row like the others: score 0.5
    np.testing.assert_allclose(detector.decision_scores_, 0.5)


def test_trees__every_training_row_reaches_a_node_of_its_own_or_the_greatest_depth():
    X = np.random.default_rng(0).normal(size=(60, 3))
    detector = IsolationForest(n_trees=8, rows_per_tree=64, random_state=0).fit(X)
    for row in scaled(detector, X[:10]):
        lengths, splits = paths(detector, row)
        assert (splits <= 6).all()  # the logarithm of 60, rounded up
        assert (lengths > 0).all()


def test_trees__all_rows_alike__no_split():
    detector = IsolationForest(n_trees=3, random_state=0).fit(np.ones((30, 2)))
    assert torch.isinf(detector.module_.border[:, 0]).all()
    assert np.ptp(detector.decision_function([[1, 1], [5, 5]])) == 0


def test_scores__of_the_same_rows__as_good_as_scikit_learns():
    rng = np.random.default_rng(0)
    X, normal = rng.normal(size=(500, 5)), rng.normal(size=(500, 5))
    odd = rng.normal(size=(100, 5)) * 2
    y, new = np.repeat([0, 1], [500, 100]), np.vstack([normal, odd])
    ours = IsolationForest(n_trees=400, random_state=0).fit(X).decision_function(new)
    theirs = -Reference(n_estimators=400, random_state=0).fit(X).score_samples(new)
    # The same quantity, up to the randomness of the trees.
    np.testing.assert_allclose(ours.mean(), theirs.mean(), atol=0.003)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99
    assert roc_auc_score(y, ours) > roc_auc_score(y, theirs) - 0.01


def test_scores__any_increasing_change_of_units__the_same_trees():
    X, new = samples("table"), samples("table", n=7, seed=1)
    detector = IsolationForest(random_state=0).fit(X)
    found = IsolationForest(random_state=0).fit(1000 * X + 5)
    np.testing.assert_allclose(
        found.decision_function(1000 * new + 5), detector.decision_function(new), rtol=1e-2
    )


def test_predict__new_normal_rows__about_a_tenth_is_flagged():
    rng = np.random.default_rng(0)
    detector = IsolationForest(random_state=0).fit(rng.normal(size=(1000, 4)))
    assert detector.predict(rng.normal(size=(2000, 4))).mean() == pytest.approx(0.1, abs=0.04)


@pytest.mark.parametrize("kind", ["table", "windows", "images"])
def test_explain__sums_to_the_score_and_is_not_negative(kind):
    X, new = samples(kind), 2 * samples(kind, n=9, seed=1)
    detector = IsolationForest(n_trees=20, random_state=0).fit(X)
    contributions = detector.explain(new)
    assert contributions.shape == new.shape
    assert (contributions >= 0).all()
    np.testing.assert_allclose(
        contributions.reshape(9, -1).sum(1), detector.decision_function(new), rtol=1e-6
    )


def test_explain__one_odd_value__its_feature():
    X = np.random.default_rng(0).normal(size=(300, 4))
    detector = IsolationForest(random_state=0).fit(X)
    np.testing.assert_array_equal(detector.explain(8 * np.eye(4)).argmax(1), range(4))


@pytest.mark.parametrize("wrong", [{"n_trees": 0}, {"rows_per_tree": 1}])
def test_fit__bad_parameters__refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        IsolationForest(**wrong).fit(samples("table"))
