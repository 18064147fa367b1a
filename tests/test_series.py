"""What all detectors of time series have in common."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit

import deepod
from deepod._registry import SERIES
from deepod._scoring.points import (
    Span,
    as_new,
    covered,
    kernel,
    passed_over,
    smoothed,
    spans_of,
)
from deepod._scoring.threshold import of_events
from deepod._storage import tensors
from deepod.series import LSTMAD, RidgeAR, WindowNeighbors, Windows, ridge_ar
from deepod.series._errors import Errors
from tests.cases import FAST_SERIES, SERIES_NAMES, fast_series, fitted_series, waves

every = pytest.mark.parametrize("name", SERIES_NAMES)
NEW = waves(120, seed=1)


def with_anomaly(n=200, start=120, stop=130):
    x = waves(n, seed=2)
    x[start:stop] = 3.0
    return x


def test_every_detector_of_series__has_a_case():
    # ReRe learns as it goes, and has tests of its own.
    assert {*FAST_SERIES, "ReRe"} == set(SERIES)
    assert {*SERIES, "split_at_gaps"} == set(deepod.series.__all__)


# --- forms ----------------------------------------------------------------------------------------


@every
def test_scores__one_for_each_point__in_their_form(name):
    detector = fitted_series(name)
    assert detector.decision_function(NEW).shape == (120,)
    assert detector.decision_function(NEW).dtype == np.float64
    assert detector.predict(NEW).shape == (120,)
    assert set(np.unique(detector.predict(with_anomaly()))) == {0, 1}
    assert detector.decision_scores_.shape == detector.labels_.shape == (300,)
    several = [NEW, NEW[:50]]
    assert [len(s) for s in detector.decision_function(several)] == [120, 50]
    assert [len(s) for s in detector.predict(several)] == [120, 50]
    assert [s.shape for s in detector.predict_proba(several)] == [(120, 2), (50, 2)]
    episodes = NEW.reshape(3, 40, 2)
    assert detector.decision_function(episodes).shape == (3, 40)
    assert detector.predict_confidence(episodes).shape == (3, 40)
    assert detector.p_values(episodes).shape == (3, 40)


@every
def test_scores__univariate(name):
    x = waves(200, None)
    detector = fast_series(name).fit(x)
    assert detector.n_features_in_ == 1
    np.testing.assert_array_equal(
        detector.decision_function(x), detector.decision_function(x[:, None])
    )
    assert detector.explain(x).shape == (200,)


@every
def test_scores__of_series_in_a_list__those_of_each_alone(name):
    detector = fitted_series(name)
    a, b = detector.decision_function([NEW, with_anomaly()])
    np.testing.assert_allclose(a, detector.decision_function(NEW), rtol=1e-4)
    np.testing.assert_allclose(b, detector.decision_function(with_anomaly()), rtol=1e-4)


@every
def test_fit__list_of_series__none_crosses_a_border(name):
    """A jump between two series is none within them."""
    low, high = waves(150), waves(150, seed=3) + 100.0
    longer = {"epochs": 20} if "epochs" in FAST_SERIES[name] else {}
    apart = fast_series(name, **longer).fit([low, high])
    together = fast_series(name, **longer).fit(np.concatenate([low, high]))
    assert len(apart.decision_scores_) == len(together.decision_scores_) == 300
    border = slice(140, 160)
    assert together.decision_scores_[border].max() > 1.5 * apart.decision_scores_[border].max()


@every
def test_fit__episodes(name):
    detector = fast_series(name).fit(waves(400).reshape(10, 40, 2))
    assert detector.decision_scores_.shape == (400,)
    assert detector.fit_predict(waves(400).reshape(10, 40, 2)).shape == (10, 40)


@every
def test_frames__names_and_times(name):
    index = pd.date_range("2024-01-01", periods=300, freq="min")
    frame = pd.DataFrame(waves(), columns=["a", "b"], index=index)
    detector = fast_series(name).fit(frame)
    assert detector.feature_names_in_.tolist() == ["a", "b"]
    assert np.isfinite(detector.decision_function(frame)).all()
    with pytest.raises(ValueError, match="feature names"):
        detector.decision_function(frame.rename(columns={"b": "c"}))


@every
def test_anomaly__found_where_it_is(name):
    detector = fitted_series(name)
    x = with_anomaly()
    assert 105 <= detector.decision_function(x).argmax() < 145
    terms = detector.explain(x)
    assert terms.shape == x.shape
    x = waves(200, seed=2)
    x[120:130, 1] += 4.0
    assert detector.explain(x)[115:135].sum(0).argmax() == 1


@pytest.mark.parametrize("name", ["LSTMAD", "RidgeAR", "WindowNeighbors"])
@pytest.mark.parametrize("smoothing", ["centred", "causal", None])
def test_explain__sums_up_to_the_score(name, smoothing):
    detector = fast_series(name, smoothing=smoothing).fit(waves())
    x = with_anomaly()
    np.testing.assert_allclose(
        detector.explain(x).sum(1), detector.decision_function(x), rtol=1e-3, atol=1e-5
    )


# --- time -----------------------------------------------------------------------------------------


@every
def test_causal__nothing_that_comes_later(name):
    """The scores of a series that ends earlier are the same as far as it goes."""
    detector = fast_series(name, smoothing="causal").fit(waves())
    whole, part = detector.decision_function(NEW), detector.decision_function(NEW[:77])
    np.testing.assert_allclose(part, whole[:77], rtol=1e-4, atol=1e-6)
    changed = NEW.copy()
    changed[77:] = 50.0
    np.testing.assert_allclose(
        detector.decision_function(changed)[:77], whole[:77], rtol=1e-4, atol=1e-6
    )


@every
@pytest.mark.parametrize("smoothing", ["centred", "causal", None])
def test_far_points__change_nothing(name, smoothing):
    detector = fast_series(name, smoothing=smoothing).fit(waves())
    x, changed = waves(300, seed=4), waves(300, seed=4)
    changed[:20] = 1e6
    scores, others = detector.decision_function(x), detector.decision_function(changed)
    np.testing.assert_allclose(others[100:], scores[100:], rtol=1e-3, atol=1e-6)


@every
def test_context__gives_the_first_points_a_past(name):
    """Those of the whole series, where chunks of 4 windows begin at the same points."""
    detector = fast_series(name, smoothing="causal").fit(waves())
    x = waves(200, seed=5)
    whole = detector.decision_function(x)
    block = detector.decision_function(x[120:], context=x[:120])
    assert block.shape == (80,)
    np.testing.assert_allclose(block, whole[120:], rtol=1e-3, atol=1e-5)
    short = detector.decision_function(x[120:125], context=x[:120])
    np.testing.assert_allclose(short, block[:5], rtol=1e-3, atol=1e-5)
    several = detector.decision_function([x[120:], x[100:]], context=[x[:120], x[:100]])
    np.testing.assert_allclose(several[0], block, rtol=1e-3, atol=1e-5)


@every
def test_score_batches__of_whole_chunks__scores_of_the_series(name):
    detector = fast_series(name, smoothing="causal").fit(waves())
    x = waves(320, seed=6)
    blocks = list(detector.score_batches(x[i : i + 80] for i in range(0, 320, 80)))
    assert [len(block) for block in blocks] == [80] * 4
    whole = detector.decision_function(x)
    np.testing.assert_allclose(np.concatenate(blocks), whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("n", [7, 33, 100])
def test_score_batches__of_any_length(n):
    """Each point has a score of its own; frames keep their names, so that nothing warns."""
    frame = pd.DataFrame(waves(300), columns=["a", "b"])
    detector = RidgeAR(window=10, smoothing="causal", smoothing_length=5).fit(frame)
    parts = [frame[:50], *(frame[i : i + n] for i in range(50, 300, n))]
    blocks = list(detector.score_batches(parts))
    assert [len(block) for block in blocks] == [len(part) for part in parts]
    np.testing.assert_allclose(
        np.concatenate(blocks), detector.decision_function(frame), rtol=1e-3, atol=1e-5
    )


@every
def test_warm_up__the_first_known_score(name):
    detector = fast_series(name, smoothing="causal").fit(waves())
    scores = detector.decision_function(NEW)
    if name == "SeriesConsensus":  # the largest of the members' scores
        members = [
            m.decision_function(NEW) / u
            for m, u in zip(detector.members_, detector.units_, strict=True)
        ]
        np.testing.assert_allclose(scores, np.max(members, 0), rtol=1e-5)
        return
    assert (scores[: detector.warm_up_] == scores[detector.warm_up_]).all()
    assert len(np.unique(scores[detector.warm_up_ :])) > 50


@pytest.mark.parametrize("horizon", [1, 3])
def test_forecast_errors__are_of_the_point__not_from_it(horizon):
    """An error of horizon h at a point is what the forecast made h points before missed."""
    module = torch.nn.Module()
    module.forward = lambda x: x  # the forecast, at any horizon, is the last point
    detector = LSTMAD(horizons=(horizon,))
    x = torch.arange(10.0).square().reshape(1, 10, 1)
    errors = detector._errors(module.forward, x)[0, :, 0]
    expected = torch.zeros(10)
    expected[horizon:] = x[0, horizon:, 0] - x[0, :-horizon, 0]
    torch.testing.assert_close(errors, expected)


def test_a_jump__at_its_own_time():
    """Scores that are not smoothed are highest at the very point that is off."""
    for detector in (RidgeAR(window=10, smoothing=None), fast_series("LSTMAD", smoothing=None)):
        detector.fit(waves())
        x = waves(200, seed=7)
        x[150] += 8.0
        assert detector.decision_function(x).argmax() == 150


# --- what is known of points that were not trained on ---------------------------------------------


@every
def test_threshold__follows_points_that_were_not_trained_on(name):
    detector = fast_series(name).fit(waves(1000))
    flagged = detector.predict(waves(1000, seed=9)).mean()
    assert 0.02 < flagged < 0.3
    assert detector.set_params(contamination=0.0).predict(waves(400, seed=9)).mean() < 0.1


@pytest.mark.parametrize("name", ["LSTMAD", "RidgeAR", "SeriesConsensus", "WindowNeighbors"])
def test_threshold__new_part_of_a_stationary_series__about_the_share_that_is_asked_for(name):
    """On average: points of a series are alike, so that one series shows little."""
    shares = []
    for seed in range(6):
        x = waves(7000, seed=seed)
        detector = fast_series(name, window=20).fit(x[:3000])
        shares.append(detector.predict(x[3000:]).mean())
    assert 0.08 < np.mean(shares) < 0.12


@pytest.mark.parametrize("n", [200, 500])
def test_threshold__short_series__few_new_points_flagged(n):
    """Held-out points lean on those before them, which were learned by heart: not in threshold."""
    shares = []
    for seed in range(4):
        x = waves(1500, seed=seed)
        detector = LSTMAD(hidden=(8,), random_state=0).fit(x[:n])
        shares.append(detector.predict(x[n:]).mean())
    assert np.mean(shares) < 0.15


@pytest.mark.parametrize("name", ["LSTMAD", "RidgeAR", "SeriesConsensus"])
def test_calibrate__series_has_drifted__recent_points_set_the_threshold(name):
    before, after = [], []
    for seed in range(4):
        x = waves(6000, seed=seed)
        x[1500:] += 0.5 * np.random.default_rng(seed).normal(size=(4500, 2))
        detector = fast_series(name, window=20).fit(x[:1500])
        before.append(detector.predict(x[3000:]).mean())
        detector.set_params(false_alarm_rate=0.1).calibrate(x[1500:3000])
        after.append(detector.predict(x[3000:]).mean())
    assert np.mean(before) > 0.5
    assert 0.07 < np.mean(after) < 0.13


def test_held_out_scores__smoothed_without_points_that_were_trained_on():
    x = waves(400)
    x[:320] += 0.01 * np.random.default_rng(1).normal(size=(320, 2))
    detector = RidgeAR(window=10, smoothing_length=51).fit(x)
    own = detector.decision_function(x[320:], context=x[:320])
    unseen = detector._unseen_scores
    assert np.isnan(unseen[:320]).all()
    module = detector.module_
    points = torch.from_numpy(detector.scaler_.transform(x))
    terms = detector._of_points(module, points, [Span(0, 0, 400)], detector._totals)[320:]
    smooth = smoothed(terms, spans_of([80]), "centred", 51)
    np.testing.assert_allclose(unseen[320:], np.sqrt(smooth).mean(1), rtol=1e-6)
    assert (own != unseen[320:]).any()


@settings(max_examples=30)
@given(n=st.integers(1, 60), least=st.floats(1, 200), parts=st.integers(1, 3))
def test_as_new__higher_scores_further_away__lower_ones_as_they_are(n, least, parts):
    scores = [np.random.default_rng(k).normal(size=n) for k in range(parts)]
    joint = np.concatenate(scores)
    found = as_new(scores, least)
    middle = np.median(joint)
    np.testing.assert_array_equal(found[joint <= middle], joint[joint <= middle])
    assert (found[joint > middle] > joint[joint > middle]).all()
    assert (found - middle <= 2.0001 * np.sqrt(1 + max(least, n) / n) * (joint - middle) + 1e-9)[
        joint > middle
    ].all()


def test_as_new__factor__by_hand():
    scores = np.repeat(np.random.default_rng(0).normal(size=2000), 10)  # 10 in a row are alike
    found = as_new([scores], 1.0)
    middle = np.median(scores)
    top = scores.argmax()
    factor = (found[top] - middle) / (scores[top] - middle)
    share = 10 / 20_000
    assert factor == pytest.approx(np.sqrt((1 + share) / (1 - share)), rel=3e-4)
    np.testing.assert_array_equal(as_new([np.ones(5)], 1.0), np.ones(5))


def test_last_part__is_held_out():
    x = waves(500)
    x[400:] *= 10.0  # nothing of it may be known to the scaler or the network
    detector = RidgeAR(window=10, validation_fraction=0.2).fit(x)
    np.testing.assert_allclose(detector.scale_, x[:400].std(0), rtol=1e-6)
    assert len(detector._training_scores) == 100
    assert detector.unseen_


def test_channels_that_stand_still__are_evidence_when_they_move():
    for name in ("LSTMAD", "RidgeAR", "WindowNeighbors"):
        x = np.column_stack([waves(400, 1), np.full(400, 7.0)])
        detector = fast_series(name).fit(x)
        new = np.column_stack([waves(200, 1, seed=3), np.full(200, 7.0)])
        usual = detector.decision_function(new).max()
        new[100:110, 1] += 0.5
        scores = detector.decision_function(new)
        assert 90 <= scores.argmax() < 120
        assert scores.max() > 3 * usual
        assert detector.explain(new)[100:110].sum(0).argmax() == 1


def test_events__stretches_that_are_flagged():
    detector = RidgeAR(window=10, smoothing_length=5).fit(waves(600))
    detector.set_threshold(3 * detector.decision_scores_.max())
    x = waves(300, seed=3)
    x[100:110] = x[200] = 9.0
    found = detector.events(x, gap=20)
    assert (found[:, 0] <= [100, 200]).all()
    assert (found[:, 1] >= [110, 201]).all()
    assert (found[:, 1] - found[:, 0] < 60).all()
    assert [len(e) for e in detector.events([x, waves(100, seed=3)], gap=20)] == [2, 0]
    labels = detector.predict(x)
    assert sum(stop - start for start, stop in detector.events(x)) == labels.sum()
    with pytest.raises(ValueError, match="rate must be"):
        detector.set_event_rate(-1)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(0, 4))
def test_event_threshold__lowest_with_few_events_from_there_on(values, most):
    scores = np.array(values, float)

    def count(threshold):
        above = np.concatenate([[False], scores > threshold])
        return np.count_nonzero(above[1:] & ~above[:-1])

    found = of_events(scores, most)
    assert all(count(level) <= most for level in np.unique(scores) if level >= found)
    lower = [level for level in np.unique(scores) if level < found]
    assert not lower or count(lower[-1]) > most


@every
def test_event_rate__held_on_normal_series(name):
    detector = fitted_series(name).set_event_rate(10.0)
    scores = detector._training_scores
    flagged = (scores > detector.threshold_).astype(int)
    assert len(deepod.metrics.events(flagged)) <= len(scores) / 100
    detector.set_threshold(None)


def test_windows__of_training__not_compared_with_themselves():
    detector = WindowNeighbors(window=10, smoothing=None).fit(waves(400))
    new = detector.decision_function(waves(400, seed=8))
    assert 0.7 < np.median(detector.decision_scores_) / np.median(new) < 1.4


def test_windows__of_any_detector():
    from pyod.models.knn import KNN
    from sklearn.ensemble import IsolationForest

    for inner in (KNN(), IsolationForest(random_state=0), deepod.PLAD(epochs=2)):
        detector = Windows(inner, window=10).fit(waves())
        assert np.isfinite(detector.decision_function(NEW)).all()
    with pytest.raises(TypeError, match="explains no scores"):
        Windows(KNN(), window=10).fit(waves()).explain(NEW)
    with pytest.raises(TypeError, match="must be detectors"):
        Windows("KNN").fit(waves())
    deep = Windows(deepod.AutoEncoder(epochs=1), window=10, flatten=False).fit(waves())
    assert deep.detector_.input_shape_ == (10, 2)
    assert deep.explain(NEW).shape == NEW.shape


@pytest.mark.parametrize("name", ["LSTMAD", "SeriesConsensus", "Windows"])
def test_what_is_for_rows__refuses_detectors_of_series(name, tmp_path):
    inner = fast_series(name)
    for outer in (Windows(inner), deepod.Consensus([inner])):
        with pytest.raises(TypeError, match="is a detector of time series"):
            outer.fit(waves())
    # SeedEnsemble is for one of deepod's detectors, which the others are not.
    message = "is a detector of time series" if name == "LSTMAD" else "must be an instance"
    with pytest.raises((TypeError, ValueError), match=message):
        deepod.SeedEnsemble(inner).fit(waves())
    with pytest.raises(TypeError, match="is a detector of series"):
        deepod.onnx.export(fitted_series(name), tmp_path / "m.onnx")


def test_ridge__many_channels__shorter_window(monkeypatch):
    monkeypatch.setattr(ridge_ar, "_MOST_COEFFICIENTS", 500)
    x = np.random.default_rng(0).normal(size=(300, 25))
    assert RidgeAR(max_points=100).fit(x).window_ == 20


def test_windows_of_errors__each_value_has_its_own():
    detector = Windows(deepod.AutoEncoder(epochs=5), window=10, random_state=0).fit(waves(400))
    assert detector.error_weights_.shape == (2,)
    x = with_anomaly()
    np.testing.assert_allclose(detector.explain(x).sum(1), detector.decision_function(x), rtol=1e-6)


@pytest.mark.slow
def test_errors_of_very_long_series__learned():
    errors = Errors(1)
    errors.learn(torch.full((17_000_000, 1), 2.0))
    assert errors.weight.item() == pytest.approx(0.25)


# --- scikit-learn ---------------------------------------------------------------------------------


@every
def test_same_seed__same_scores(name):
    again = fast_series(name).fit(waves())
    np.testing.assert_array_equal(
        again.decision_function(NEW), fitted_series(name).decision_function(NEW)
    )


@every
def test_clone_and_pickle(name):
    detector = fitted_series(name)
    assert not hasattr(clone(detector), "n_features_in_")
    again = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(again.decision_function(NEW), detector.decision_function(NEW))
    np.testing.assert_array_equal(again.labels_, detector.labels_)


@pytest.mark.parametrize("name", ["SeriesConsensus", "Windows"])
def test_load__members_of_the_other_kind__refused(name, tmp_path):
    """A file whose members could not score what they are given."""
    file = tmp_path / "model.deepod"
    fitted_series(name).save(file)
    description, found = tensors.read(file)
    key = "members" if name == "SeriesConsensus" else "member"
    member = description[key][0] if key == "members" else description[key]
    member["detector"] = "PLAD" if name == "SeriesConsensus" else "RidgeAR"
    file.write_bytes(tensors.pack(description, found))
    with pytest.raises(
        deepod.InvalidFileError, match="of the kind" if key == "members" else "one of series"
    ):
        deepod.load(file)


@pytest.mark.parametrize("place", ["model.deepod", "folder"])
@pytest.mark.parametrize("smoothing", ["centred", "causal"])
def test_save_and_load__windows_among_the_members(place, smoothing, tmp_path):
    given = {"window": 10, "smoothing": smoothing, "smoothing_length": 5}
    members = [
        Windows(deepod.Neighbors(max_rows=50), **given),
        RidgeAR(**given),
        Windows(deepod.AutoEncoder(epochs=2), **given),
    ]
    detector = deepod.series.SeriesConsensus(members, random_state=0).fit(waves())
    detector.save(tmp_path / place)
    again = deepod.load(tmp_path / place, device="cpu")
    assert [type(m) for m in again.members_] == [type(m) for m in detector.members_]
    np.testing.assert_array_equal(again.decision_function(NEW), detector.decision_function(NEW))
    np.testing.assert_array_equal(again.decision_scores_, detector.decision_scores_)
    assert again.threshold_ == detector.threshold_
    if smoothing == "causal":
        found, wanted = again.stream().push_many(NEW), detector.stream().push_many(NEW)
        np.testing.assert_array_equal(found, wanted)
    if place == "folder":
        card = (tmp_path / place / "README.md").read_text()
        assert "Holds training rows" in card  # of Neighbors
        assert "Windows(" in card
    np.testing.assert_array_equal(again.fit(waves()).decision_scores_, detector.decision_scores_)


def test_save__windows_among_the_members__of_what_no_file_can_hold__refused(tmp_path):
    from sklearn.ensemble import IsolationForest

    members = [Windows(IsolationForest(), window=10), RidgeAR(window=10)]
    detector = deepod.series.SeriesConsensus(members).fit(waves())
    with pytest.raises(
        TypeError, match=r"members_\[0\], Windows: IsolationForest in Windows is no"
    ):
        detector.save(tmp_path / "m")


@every
@pytest.mark.parametrize("place", ["model.deepod", "folder"])
def test_save_and_load(name, place, tmp_path):
    detector = fitted_series(name)
    detector.save(tmp_path / place)
    again = deepod.load(tmp_path / place)
    assert type(again) is type(detector)
    np.testing.assert_array_equal(again.decision_function(NEW), detector.decision_function(NEW))
    np.testing.assert_array_equal(again.decision_scores_, detector.decision_scores_)
    assert again.threshold_ == detector.threshold_


def test_grid_search__in_the_order_of_time():
    x, y = with_anomaly(400, 350, 370), np.zeros(400)
    y[350:370] = y[100:110] = y[180:190] = y[250:260] = 1
    for start in (100, 180, 250):
        x[start : start + 10] = 3.0
    search = GridSearchCV(
        RidgeAR(window=10), {"alpha": [0.1, 10.0]}, scoring="roc_auc", cv=TimeSeriesSplit(3)
    )
    assert search.fit(x, y).best_score_ > 0.6


@every
def test_failed_fit__changes_nothing(name):
    detector = fast_series(name).fit(waves())
    before = detector.decision_function(NEW)
    with pytest.raises(ValueError, match="NaN"):
        detector.fit(np.full((300, 2), np.nan))
    np.testing.assert_array_equal(detector.decision_function(NEW), before)


def shortest_of(name):
    """A detector as it is by itself, but for how long it trains; it may find any window."""
    cls = getattr(deepod.series, name)
    needed = {"Windows": {"detector": deepod.Neighbors(n_neighbors=3)}}.get(name, {})
    epochs = {"epochs": 1} if "epochs" in cls._parameter_constraints else {}
    return cls(**needed, **epochs, random_state=0)


@pytest.mark.parametrize("name", sorted(SERIES))
def test_fit__shortest_series__works__and_one_point_fewer_is_refused_with_the_number(name):
    x = waves(40, None)
    with pytest.raises(ValueError, match=r"X has 3 points, and .* longer series") as error:
        shortest_of(name).fit(x[:3])
    least = int(re.search(r"needs (\d+)", str(error.value))[1])
    assert least <= 9
    with pytest.raises(ValueError, match=rf"X has {least - 1} points, and .* needs {least}"):
        shortest_of(name).fit(x[: least - 1])
    for n in (least, least + 1, 2 * least):
        detector = shortest_of(name).fit(x[:n])
        assert np.isfinite(detector.decision_scores_).all()
        assert np.isfinite(detector.decision_function(x)).all()
    episodes = shortest_of(name).fit(x[: 3 * least].reshape(3, least, 1))
    assert len(episodes.decision_scores_) == 3 * least


def test_fit__short_series__remedies_work():
    x = waves(7, None)
    with pytest.raises(ValueError, match="smaller horizons"):
        LSTMAD(epochs=1).fit(x)
    LSTMAD(epochs=1, horizons=(1, 2)).fit(x)
    with pytest.raises(ValueError, match=r"window=6 needs 8: .* smaller window"):
        RidgeAR(window=6).fit(x)
    RidgeAR(window=5).fit(x)
    with pytest.raises(ValueError, match="series 1 of X has 7 points"):
        RidgeAR(window=6).fit([waves(20, None), x])


@pytest.mark.parametrize("make", [lambda: WindowNeighbors(window=3), lambda: windows_apart()])
def test_stride__longer_than_the_window__every_point_is_covered(make):
    detector = make().fit(waves(60))
    assert np.isfinite(detector.decision_scores_).all()
    assert np.isfinite(detector.decision_function(NEW)).all()


def windows_apart():
    return Windows(deepod.Neighbors(n_neighbors=3), window=3, stride=7)


@every
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (waves(8), "window"),
        (np.full((300, 2), np.inf), "infinity"),
        (waves(300).T, "transpose"),
        (waves(300).astype(str), "."),
    ],
)
def test_fit__refuses(name, X, message):
    with pytest.raises(ValueError, match=message):
        fast_series(name).fit(X)


@every
def test_scores__refuse(name):
    detector = fitted_series(name)
    with pytest.raises(ValueError, match="context="):
        detector.decision_function(waves(5))
    with pytest.raises(ValueError, match="features"):
        detector.decision_function(waves(50, 3))
    with pytest.raises(ValueError, match="context holds 1 series"):
        detector.decision_function([NEW, NEW], context=NEW)


@pytest.mark.parametrize(
    "params",
    [
        {"suspects": 0.1},
        {"cross_fitting": True},
        {"network": "mlp"},
        {"input_shape": (2,)},
        {"categorical_features": [0]},
        {"datetime_features": [0]},
    ],
)
def test_parameters_of_rows__refused_with_the_reason(params):
    (name,) = params
    with pytest.raises(ValueError, match=f"^{name}=.*not for series: .*; leave {name}="):
        fast_series("LSTMAD", **params).fit(waves())


def test_suspects__remedies_work():
    x = with_anomaly(300)
    fast_series("LSTMAD").fit([x[:120], x[130:]])
    Windows(deepod.AutoEncoder(suspects=0.1, network="mlp", epochs=1), window=10).fit(x)


def test_missing_values__imputed():
    x = waves()
    x[50:60, 0] = np.nan
    for name in ("LSTMAD", "RidgeAR", "WindowNeighbors"):
        detector = fast_series(name, missing="impute").fit(x)
        assert np.isfinite(detector.decision_function(x)).all()


def test_callbacks_and_checkpoint(tmp_path):
    events = []
    file = tmp_path / "fit.checkpoint"
    detector = fast_series("LSTMAD", epochs=3, callbacks=[events.append], checkpoint=file)
    detector.fit(waves())
    assert len(events) == 3
    assert "validation_forecast" in detector.history_[0]
    assert not file.exists()


@pytest.mark.gpu
@every
def test_gpu__same_scores(name):
    cpu = fitted_series(name)
    if name == "Windows":
        pytest.skip("the detector inside has tests of its own")
    gpu = fast_series(name, device="cuda").fit(waves())
    assert np.corrcoef(gpu.decision_function(NEW), cpu.decision_function(NEW))[0, 1] > 0.9


# --- the parts ------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    n=st.integers(11, 90),
    context=st.integers(0, 30),
    window=st.integers(2, 10),
    seed=st.integers(0, 5),
)
def test_passed_over__each_point_once__at_its_place(n, context, window, seed):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(n + context, 1))).float()
    spans = [Span(0, context, n + context)]
    found = passed_over(torch.nn.Identity(), lambda m, rows: rows, x, spans, window)
    known = ~np.isnan(found[:, 0])
    first = max(0, window - context)
    assert known.sum() == max(0, n - first)
    np.testing.assert_array_equal(found[known, 0], x[context + first :, 0].double())


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(10, 40), min_size=1, max_size=3),
    window=st.integers(2, 10),
    stride=st.integers(1, 12),
    causal=st.booleans(),
)
def test_covered__mean_over_the_windows_that_cover_a_point(lengths, window, stride, causal):
    stride = min(stride, window)
    x = np.random.default_rng(0).normal(size=sum(lengths))

    def of_windows(starts):
        return np.stack([x[s : s + window] for s in starts.tolist()])

    found = covered(of_windows, spans_of(lengths), window, stride, causal, window)
    if causal:
        for _, start, stop in spans_of(lengths):
            assert np.isnan(found[start : start + window - 1]).all()
            for t in range(start + window - 1, stop):
                np.testing.assert_allclose(found[t], x[t - window + 1 : t + 1].mean())
    else:
        np.testing.assert_allclose(found, x)


@settings(max_examples=30)
@given(n=st.integers(1, 60), length=st.integers(1, 30), known=st.integers(0, 59))
def test_smoothed__means_around_and_up_to(n, length, known):
    x = np.random.default_rng(n).normal(size=n)
    first = min(known, n - 1)
    x[:first] = np.nan
    weights = kernel(length)

    def mean(values):  # nearest last
        own = weights[: len(values)][::-1]
        return (own * values[-len(own) :]).sum() / own.sum()

    for kind in ("centred", "causal"):
        found = smoothed(x.copy(), spans_of([n]), kind, length)
        for t in range(n):
            at = max(t, first)
            before, after = mean(x[first : at + 1]), mean(x[at:][::-1])
            expected = before if kind == "causal" else (before + after) / 2
            np.testing.assert_allclose(found[t], expected, atol=1e-12)
    np.testing.assert_array_equal(
        smoothed(x.copy(), spans_of([n]), None, length)[first:], x[first:]
    )


def test_smoothed__an_outlier_is_over_some_time():
    x = np.zeros(300)
    x[100] = 1e18
    found = smoothed(x, spans_of([300]), "centred", 10)
    assert found[100] > 1e16
    assert (found[121:] == 0).all()
