"""Training rows get the scores of rows that were not trained on."""

import re

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch.utils._python_dispatch import TorchDispatchMode

from deepod import AnoRand, AutoEncoder, BaseDetector, Neighbors, fit_many
from deepod._scoring.tails import BY_HEART, Tail, as_unseen, ranked_as
from deepod._training import together
from deepod.callbacks import EarlyStopping
from deepod.networks import MLP
from deepod.params import parameters

from .cases import TRAINED, fast, samples
from .test_engines import SMOOTH, relative

X, NEW = samples(n=60), samples(n=200, seed=1)


def small(**params):
    settings = {"network": SMOOTH, "epochs": 4, "batch_size": 32, "random_state": 0}
    return AutoEncoder(**(settings | params))


def learning_by_heart(seed, **params):
    """A network that is large for its rows, fitted, and new rows like those."""
    rng = np.random.default_rng(seed)
    settings = {"network": MLP(hidden=(32,)), "latent_dim": 3, "epochs": 40, "lr": 1e-2}
    detector = AutoEncoder(batch_size=64, random_state=seed, **settings, **params)
    return detector.fit(rng.normal(size=(200, 8))), rng.normal(size=(1000, 8))


# --- thresholds that hold -------------------------------------------------------------------------


def test_contamination__new_normal_rows__about_its_share_is_flagged():
    shares = {True: [], False: []}
    for cross_fitting, found in shares.items():
        for seed in range(1 + cross_fitting):
            detector, new = learning_by_heart(seed, cross_fitting=cross_fitting)
            assert detector.unseen_ == cross_fitting
            assert detector.labels_.mean() == 0.1
            found.append(detector.predict(new).mean())
    assert np.mean(shares[True]) == pytest.approx(0.1, abs=0.04)
    assert max(shares[True]) < 0.2 < np.mean(shares[False])


def test_p_values__many_draws_without_calibration_rows__at_most_the_rate():
    rng, shares = np.random.default_rng(0), {0.05: [], 0.2: []}
    for seed in range(8):
        detector = small(random_state=seed, false_alarm_rate=0.1, epochs=5, lr=1e-2)
        detector.fit(rng.normal(size=(100, 4)))
        new = rng.normal(size=(500, 4))
        p = detector.p_values(new)
        np.testing.assert_allclose(detector.predict_proba(new, method="conformal")[:, 1], 1 - p)
        for rate, found in shares.items():
            labels = detector.set_params(false_alarm_rate=rate).predict(new)
            np.testing.assert_array_equal(labels, p <= rate)
            found.append(labels.mean())
    for rate, found in shares.items():
        # About four standard errors: of the mean of 8 thresholds, of 100 rows each.
        assert np.mean(found) == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / 800))


# --- scores of training rows ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["AutoEncoder", "DeepSVDD", "PLAD"])
def test_training_scores__rank_as_the_fit_of_all_rows__module_is_the_same(name):
    detector = fast(name, epochs=4, cross_fitting=True).fit(X)
    without = fast(name, epochs=4).fit(X)
    assert (detector.unseen_, without.unseen_) == (True, False)
    np.testing.assert_array_equal(detector.decision_function(NEW), without.decision_function(NEW))
    np.testing.assert_array_equal(
        detector.decision_scores_.argsort(kind="stable"),
        without.decision_scores_.argsort(kind="stable"),
    )
    np.testing.assert_array_equal(without.decision_scores_, without.decision_function(X))
    assert not np.array_equal(detector.decision_scores_, without.decision_scores_)
    assert detector.history_[-1]["epoch"] == without.history_[-1]["epoch"]


def test_training_scores__contamination_changes__share_of_labels_is_exact():
    detector = small().fit(X)
    for contamination in (0.05, 0.1, 0.25, 0.5):
        detector.contamination = contamination
        assert detector.labels_.mean() == pytest.approx(contamination)
    detector.contamination = 0
    assert not detector.labels_.any()


def test_training_scores__same_seed__the_same():
    one, same, other = (small(random_state=seed).fit(X).decision_scores_ for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_as_unseen__tails_of_halves__in_units_of_the_whole():
    scores = np.arange(100.0)
    tails = Tail(BY_HEART).learn(torch.from_numpy(scores)).of_array(scores)
    even, odd = np.arange(0, 98, 2), np.arange(1, 98, 2)
    kept = as_unseen(scores, [(even, tails[even]), (odd, tails[odd])])
    assert kept[98:].tolist() == [98, 99]  # in no half
    np.testing.assert_allclose(kept[:90], scores[:90], atol=3)
    higher = as_unseen(scores, [(even, tails[even] + 1), (odd, tails[odd] + 1)])
    assert (higher[:98] > kept[:98]).all()


def test_ranked_as__scores_in_the_order_of_others():
    found = ranked_as(np.array([5.0, 1.0, 3.0]), np.array([0.2, 0.3, 0.1]))
    assert found.tolist() == [3.0, 5.0, 1.0]
    ties = ranked_as(np.array([1.0, 1.0, 4.0, 1.0]), np.array([4.0, 3.0, 2.0, 1.0]))
    assert ties.tolist() == [4.0, 3.0, 2.0, 1.0]
    equal_rows = ranked_as(np.array([1.0, 2.0, 3.0]), np.array([7.0, 7.0, 5.0]))
    assert equal_rows.tolist() == [2.0, 2.0, 1.0]
    own = np.array([2.0, 2.0, 1.0, 5.0, 5.0])
    np.testing.assert_array_equal(ranked_as(own, own), own)


def test_tail__inverse__gives_scores_back():
    scores = np.random.default_rng(0).gamma(2, size=1024)
    tail = Tail().learn(torch.from_numpy(scores))
    values = torch.from_numpy(np.append(np.sort(scores)[10:900], [scores.max() * 2, 50.0]))
    np.testing.assert_allclose(tail.inverse(tail(values)), values, rtol=0.01)


# --- what it works with ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["table", "windows", "images"])
def test_fit__every_kind_of_rows__unseen(kind):
    detector = AutoEncoder(epochs=3, random_state=0).fit(samples(kind))
    assert detector.unseen_
    assert np.isfinite(detector.decision_scores_).all()
    assert detector.labels_.mean() == pytest.approx(0.1)


def test_fit__missing_values__each_half_fills_its_own():
    gaps = X.copy()
    gaps[::5, 2] = np.nan
    detector = small(missing="impute").fit(gaps)
    assert detector.unseen_
    assert np.isfinite(detector.decision_scores_).all()


def test_fit__early_stopping__halves_take_as_many_passes(monkeypatch):
    lengths = []
    train = together.train

    def counted(tasks, engine):
        members = train(tasks, engine)
        lengths.extend(len(member.history) for member in members)
        return members

    monkeypatch.setattr(together, "train", counted)
    stop = small(epochs=30, lr=0.05, validation_fraction=0.3, callbacks=[EarlyStopping(patience=2)])
    assert stop.fit(X).unseen_
    assert lengths == [len(stop.history_)] * 3
    assert 3 <= lengths[0] < 30


def test_fit__callbacks_and_progress__of_the_whole_and_one_bar_for_both_halves(capfd):
    heard = []
    small(epochs=3, callbacks=[heard.append], verbose=1).fit(X)
    assert [event.epoch for event in heard] == [0, 1, 2]
    shown = capfd.readouterr().err
    bars = re.findall(r"\r(.*fit): +0%.*\?epoch/s\](?=\r)", shown)
    assert bars == ["fit", "cross-fitting, fit"]
    assert "reconstruction" in shown


def test_fit__few_labels__known_anomalies_are_no_measure_of_normal_rows():
    rng = np.random.default_rng(0)
    rows, y = rng.normal(size=(200, 4)), np.zeros(200, int)
    rows[:40] += 5
    y[:40] = 1
    detector = AnoRand(supervision="few_labels", epochs=5, false_alarm_rate=0.1, random_state=0)
    detector.fit(rows, y)
    assert detector.unseen_
    assert len(detector.calibration_scores_) == 160
    new = rng.normal(size=(500, 4))
    assert detector.predict(new).mean() == pytest.approx(0.1, abs=0.08)
    assert detector.predict(new + 5).mean() > 0.9


def test_fit__rows_held_out_for_calibration__are_in_no_half():
    detector = small(calibration_fraction=0.25).fit(X)
    without = small(calibration_fraction=0.25, cross_fitting=False).fit(X)
    np.testing.assert_array_equal(detector.calibration_scores_, without.calibration_scores_)


def test_fit__learns_nothing_by_heart__takes_no_further_fit(stacks):
    detector = Neighbors().fit(X)
    assert detector.unseen_
    assert stacks == [1]


def test_fit_many__halves_of_all_train_side_by_side__as_alone(stacks):
    many = fit_many(small(), X, seeds=[3, 4, 5])
    assert stacks == [3, 6]
    for seed, member in zip([3, 4, 5], many, strict=True):
        alone = small(random_state=seed).fit(X)
        assert relative(member, alone) < 1e-4
        assert set(vars(member)) == set(vars(alone))
        assert member.threshold_ == pytest.approx(alone.threshold_, rel=1e-4)


def test_fit__checkpoint__goes_on_to_the_same_scores(tmp_path):
    class StoppedError(Exception):
        pass

    def stop(event):
        if event.epoch == 2:
            raise StoppedError

    path = tmp_path / "fit.ckpt"
    expected = small(epochs=5).fit(X)
    with pytest.raises(StoppedError):
        small(epochs=5, checkpoint=path, callbacks=[stop]).fit(X)
    assert path.exists()
    found = small(epochs=5, checkpoint=path).fit(X)
    np.testing.assert_array_equal(found.decision_scores_, expected.decision_scores_)
    assert found.threshold_ == expected.threshold_
    assert not path.exists()
    with pytest.raises(StoppedError):
        small(epochs=5, checkpoint=path, callbacks=[stop]).fit(X)
    with pytest.raises(ValueError, match="cross_fitting"):
        small(epochs=5, checkpoint=path, cross_fitting=False).fit(X)


# --- what it does without -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "rows"),
    [({}, X[:19]), ({"epochs": 2}, X), ({"cross_fitting": False}, X)],
    ids=["fewer than 20 rows", "two passes", "turned off"],
)
def test_fit__not_for_cross_fitting__scores_of_the_training_rows(params, rows, stacks):
    detector = small(**params).fit(rows)
    assert not detector.unseen_
    assert stacks == [1]
    np.testing.assert_array_equal(detector.decision_scores_, detector.decision_function(rows))
    with pytest.raises(NotFittedError, match="has no calibration scores"):
        detector.p_values(NEW)


def test_fit__twenty_rows__enough():
    assert small().fit(X[:20]).unseen_


def test_fit__rows_on_disk__not_cross_fitted(tmp_path):
    pytest.importorskip("datasketches")
    rows = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (600, 5))
    rows[:] = samples(n=600)
    detector = small(epochs=3, memory_limit=4000, batch_size=16).fit(rows)
    assert not detector.unseen_


@pytest.mark.filterwarnings("always")
def test_fit__a_half_fails__warning_and_scores_as_without():
    @parameters
    class Fails(AutoEncoder):
        """Its loss becomes infinite where there are few rows."""

        def _prepare(self, X, y, rng):
            return (X if len(X) == 60 else np.full_like(X, 1e30)), None

    settings = {"network": SMOOTH, "epochs": 4, "random_state": 0}
    with pytest.warns(RuntimeWarning, match=r"Cross-fitting failed \(.*threshold of Fails"):
        detector = Fails(**settings).fit(X)
    assert not detector.unseen_
    np.testing.assert_array_equal(detector.decision_scores_, detector.decision_function(X))


def test_false_alarm_rate__too_few_training_rows__waits_for_calibrate():
    for detector in (small(false_alarm_rate=0.01), Neighbors(false_alarm_rate=0.01)):
        detector.fit(X)
        with pytest.raises(ValueError, match="needs at least 99 calibration rows, got 60"):
            detector.predict(NEW)
        assert detector.calibrate(NEW).predict(NEW).mean() <= 0.01


def test_message__cross_fitting_is_on_but_was_not_done__does_not_advise_it():
    with pytest.raises(NotFittedError) as error:
        small(epochs=1).fit(X).p_values(NEW)
    assert "cross_fitting" not in str(error.value)
    assert "calibration_fraction" in str(error.value)


def test_fit__own_method_that_learns_nothing_by_heart__trusted():
    class Honest(AutoEncoder):
        learns_by_heart = False

    detector = Honest(network=SMOOTH, epochs=2, random_state=0).fit(X)
    assert detector.unseen_
    assert isinstance(detector, BaseDetector)
    assert detector.p_values(NEW).min() >= 1 / 61


class Largest(TorchDispatchMode):
    """Notes how many values the largest tensor has that is computed meanwhile."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        for part in out if isinstance(out, tuple | list) else (out,):
            if isinstance(part, torch.Tensor):
                self.found = max(self.found, part.numel())
        return out


@pytest.mark.parametrize("name", TRAINED)
def test_side_by_side__with_batch_norm__no_weights_for_each_row(name):
    """Two halves train as one stack, whose tensors are hardly larger than those of the whole."""
    found = {}
    for cross_fitting in (False, True):
        network = MLP(hidden=(32, 64), batch_norm=True)
        with Largest() as largest:
            one = fast(name, network=network, epochs=3, cross_fitting=cross_fitting)
            one.fit(samples(n=200))
        found[cross_fitting] = largest.found
    assert found[True] <= 2 * found[False]
