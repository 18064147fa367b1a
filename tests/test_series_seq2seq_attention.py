"""Seq2SeqAttention: attention by hand, which points a forecast knows, tracks and neighbours."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import deepod
from deepod.series import Seq2SeqAttention
from deepod.series.seq2seq_attention import Attentive
from deepod.types import Batch
from tests.cases import fast_series, fitted_series, waves

PAPER = {"track_size": 2, "window": 10, "horizon": 10, "smoothing": None, "error_scale": None}


def numbers(layer):
    return [p.detach().double().numpy() for p in layer.parameters()]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_step(layer, x, h, c):
    ih, hh, b1, b2 = numbers(layer)
    i, f, g, o = np.split(ih @ x + hh @ h + b1 + b2, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def by_hand(module, scenes, steps):
    """Forecasts of positions, (tracks, steps, size), of one scene (W, tracks, size)."""
    n, (window, hidden) = scenes.shape[1], (len(scenes), module.head.in_features)
    memory, states = np.zeros((n, window, hidden)), []
    for k in range(n):
        h, c = np.zeros(hidden), np.zeros(hidden)
        for j in range(window):
            h, c = lstm_step(module.encoder, scenes[j, k], h, c)
            memory[k, j] = h
        states.append((h, c))
    (w_state, b_state), (w_memory,), (v,) = map(
        numbers, (module.of_state, module.of_memory, module.alignment)
    )
    (w_merge, b_merge), (w_head, b_head) = map(numbers, (module.merge, module.head))
    found = np.zeros((n, steps, scenes.shape[2]))
    for k in range(n):
        wired = np.zeros(hidden)
        for other in set(range(n)) - {k}:
            for j in range(window):
                distance = np.linalg.norm(scenes[j, k] - scenes[j, other])
                wired += memory[other, j] / max(distance, 0.1)
        wired /= max(1, n - 1) * window
        (h, c), last = states[k], scenes[-1, k]
        for t in range(steps):
            match = np.array(
                [v @ np.tanh(w_state @ h + b_state + w_memory @ m) for m in memory[k]]
            )[:, 0]
            weights = np.exp(match) / np.exp(match).sum()
            context = weights @ memory[k]
            joined = context if n == 1 else np.concatenate([context, wired])
            merged = np.tanh(w_merge @ joined + b_merge)
            h, c = lstm_step(module.decoder, np.concatenate([last, merged]), h, c)
            last = found[k, t] = w_head @ h + b_head
    return found


# --- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("tracks", "size"), [(1, 2), (1, 3), (3, 2)])
def test_forecast__by_hand(tracks, size):
    torch.manual_seed(0)
    module = Attentive(tracks, size, 5, None)
    x = torch.randn(2, 6, tracks * size)
    module.gain.copy_(torch.rand(tracks * size) + 0.5)
    module.offset.copy_(torch.randn(tracks * size))
    found = module(x, 4).detach() * module.gain + module.offset
    for k in range(2):
        scene = (x[k] * module.gain + module.offset).double().numpy().reshape(6, tracks, size)
        wanted = by_hand(module, scene, 4).transpose(1, 0, 2).reshape(4, -1)
        np.testing.assert_allclose(found[k], wanted, rtol=1e-3, atol=1e-5)


def test_hard_wired__nearer_neighbours_count_more():
    torch.manual_seed(0)
    module = Attentive(3, 2, 4, None)
    positions = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]], [[0.0, 1.0]]])[None]  # one point each
    memory = torch.randn(3, 1, 4)
    (context,) = module.hard_wired(positions, memory)
    torch.testing.assert_close(context[0], (memory[1, 0] / 5 + memory[2, 0] / 1) / 2)
    together = torch.zeros(1, 3, 1, 2)
    (context,) = module.hard_wired(together, memory)
    torch.testing.assert_close(context[0], (memory[1, 0] + memory[2, 0]) * 10 / 2)


def test_tracks__in_another_order__forecasts_in_that_order():
    torch.manual_seed(0)
    module = Attentive(3, 2, 5, None)
    x = torch.randn(4, 6, 3, 2)
    order = [2, 0, 1]
    found = module(x.flatten(2), 3).unflatten(-1, (3, 2))
    other = module(x[:, :, order].flatten(2), 3).unflatten(-1, (3, 2))
    torch.testing.assert_close(other, found[:, :, order])


def test_one_track__has_no_neighbours():
    module = Attentive(1, 4, 5, None)
    assert module.merge.in_features == 5
    assert module.hard_wired(torch.zeros(1, 1, 3, 4), torch.zeros(1, 3, 5)) == []


# --- errors and losses ----------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [1, 3, 10, None])
def test_errors__of_forecasts_from_the_window_before(horizon):
    detector = fast_series("Seq2SeqAttention", horizon=horizon, epochs=1).fit(waves())
    x = torch.from_numpy(waves(37, seed=5)).float()[None]
    steps = horizon or 10
    with torch.no_grad():
        errors = detector._errors(detector.module_, x)
        assert (errors[:, :10] == 0).all()
        for start in range(10, 37, steps):
            ahead = detector.module_(x[:, start - 10 : start], steps)[:, : 37 - start]
            wanted = x[:, start : start + steps] - ahead
            torch.testing.assert_close(
                errors[:, start : start + steps], wanted, rtol=1e-3, atol=1e-5
            )
        assert detector._errors(detector.module_, x[:, :7]).abs().sum() == 0


def test_loss__by_hand():
    X = waves(300, 4)
    X[:, 2:] *= 5.0  # another spread, in the same frame
    detector = fast_series("Seq2SeqAttention", track_size=2, epochs=1).fit(X)
    x = torch.from_numpy(waves(60, 4, seed=5).reshape(3, 20, 4)).float()
    with torch.no_grad():
        ahead = detector.module_(x[:, :10], 10)
        loss = detector._loss(detector.module_, Batch(x))["forecast"].item()
    scale = np.reshape(detector.scale_, (2, 2))
    unit = scale.mean(0)  # of x and of y
    off = (x[:, 10:] - ahead).numpy().reshape(3, 10, 2, 2) * scale / unit
    assert loss == pytest.approx(np.square(off).mean(), rel=1e-4)


def test_positions__those_of_the_user_in_one_frame():
    """What tracks have to do with one another is not lost by scaling each by itself."""
    X = waves(300, 4) * [1, 1, 3, 2] + [1e5, -4, 1e5 + 7, 2]
    module = fast_series("Seq2SeqAttention", track_size=2, epochs=1).fit(X).module_
    detector = fitted_series("Seq2SeqAttention")
    assert detector.module_.gain.tolist() == [1, 1]
    detector = fast_series("Seq2SeqAttention", track_size=2, epochs=1).fit(X)
    scaled = (X - detector.shift_) / detector.scale_
    positions = (scaled * module.gain.numpy() + module.offset.numpy()).reshape(-1, 2, 2)
    apart = (X.reshape(-1, 2, 2)[:, 1] - X.reshape(-1, 2, 2)[:, 0]) / np.reshape(
        detector.scale_, (2, 2)
    ).mean(0)
    np.testing.assert_allclose(positions[:, 1] - positions[:, 0], apart, rtol=1e-3, atol=1e-3)


def test_training__lowers_the_loss():
    history = fast_series("Seq2SeqAttention", epochs=5).fit(waves()).history_
    assert history[-1]["forecast"] < 0.8 * history[0]["forecast"]


# --- what comes out -------------------------------------------------------------------------------


def tracks(n, seed=0):
    """Two tracks side by side."""
    rng = np.random.default_rng(seed)
    time = np.arange(n) / 4
    phase = np.cumsum(0.3 * rng.normal(size=n))  # turns that the past does not tell
    first = np.stack([np.sin(time + phase), np.cos(time + phase)], 1)
    return np.concatenate([first, first + 0.5], 1) + 0.05 * rng.normal(size=(n, 4))


def test_neighbours__have_a_part_in_the_forecast():
    detector = fast_series("Seq2SeqAttention", track_size=2).fit(tracks(300))
    x = torch.from_numpy(tracks(20, seed=1)).float()[None]
    changed = x.clone()
    changed[..., 2:] += 1.0
    with torch.no_grad():
        off = detector.module_(changed, 5) - detector.module_(x, 5)
    assert off[..., :2].abs().max() > 1e-4


def test_track_that_leaves_its_way__found_and_blamed():
    detector = fast_series("Seq2SeqAttention", track_size=2, epochs=20).fit(waves(500, 4))
    x, y = waves(300, 4, seed=3), np.zeros(300)
    x[150:160, 2:] += 3.0
    y[150:160] = 1
    assert roc_auc_score(y, detector.decision_function(x)) > 0.95
    blamed = detector.explain(x)[150:160].sum(0)
    assert blamed[2:].sum() > 2 * blamed[:2].sum()


def test_paper__setting_reached__of_episodes__and_saved(tmp_path):
    X = waves(480, 4).reshape(12, 40, 4)
    detector = fast_series("Seq2SeqAttention", epochs=2, **PAPER).fit(X)
    scores = detector.decision_function(X)
    assert scores.shape == (12, 40)
    detector.save(tmp_path / "model.deepod")
    again = deepod.load(tmp_path / "model.deepod")
    np.testing.assert_array_equal(again.decision_function(X), scores)
    scaled = torch.from_numpy((X[0] - detector.shift_) / detector.scale_).float()[None]
    with torch.no_grad():
        off = (scaled[:, 10:20] - detector.module_(scaled[:, :10], 10))[0].abs().mean(-1)
    np.testing.assert_allclose(scores[0, 10:20], off, rtol=1e-3)


def test_series__shorter_than_window_and_horizon():
    detector = Seq2SeqAttention(window=20, hidden=4, epochs=1, validation_fraction=0)
    assert np.isfinite(detector.fit(waves(25)).decision_scores_).all()


def test_channels__that_are_no_tracks__refused():
    with pytest.raises(ValueError, match="no tracks of track_size=2"):
        fast_series("Seq2SeqAttention", track_size=2).fit(waves(300, 3))
