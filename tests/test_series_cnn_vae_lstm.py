"""CNNVAELSTM: shapes of every length, both losses by hand, what is trained when."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import deepod
from deepod.series import CNNVAELSTM
from deepod.series.cnn_vae_lstm import CodedWindows, CodeForecaster, Coder
from deepod.types import Batch
from tests.cases import FAST_SERIES, fast_series, fitted_series, waves

PAPER = {"filters": (16, 8, 4), "hidden": (8, 4), "smoothing": None, "error_scale": None}


def batch_of(detector, n=6):
    length = detector.window_
    x = torch.from_numpy(waves(n * length, seed=5).reshape(n, length, 2)).float()
    return Batch(x, None, detector._noise(n, (length, 2), torch.Generator().manual_seed(0)))


# --- the networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 13, 48])
@pytest.mark.parametrize("filters", [(4,), (8, 6, 4)])
def test_coder__windows_of_any_length(length, filters):
    coder = Coder(length, 2, filters, 3)
    mean, log_variance = coder.encode(torch.randn(5, length, 2))
    assert mean.shape == log_variance.shape == (5, 3)
    assert coder.decode(mean).shape == (5, length, 2)


def test_sizes__of_the_paper():
    """Encoder 128, 64, 32 filters of 3 points; decoder in reverse; LSTMs 128, 64, 64, 128."""
    module = CodedWindows(384, 8, 1, 6, (128, 64, 32), (128, 64), None)

    def weights(part):
        return [tuple(p.shape) for name, p in part.named_parameters() if p.dim() > 1]

    assert weights(module.coder.encoder) == [
        (128, 1, 3), (64, 128, 3), (32, 64, 3), (6, 32 * 6), (12, 6)
    ]  # fmt: skip
    assert weights(module.coder.decoder) == [
        (32 * 6, 6), (32, 64, 3), (64, 128, 3), (128, 128, 3), (128, 1, 3)
    ]  # fmt: skip
    forecaster = module.forecaster
    sizes = [(p.input_size, p.hidden_size) for p in [*forecaster.encoder, *forecaster.decoder]]
    assert sizes == [(6, 128), (128, 64), (64, 64), (64, 128)]


def test_forecaster__all_of_one_vector():
    """What is made depends on the last state of the encoder alone."""
    torch.manual_seed(0)
    forecaster = CodeForecaster(3, (5, 4))
    z = torch.randn(2, 6, 3)
    states = z
    for layer in forecaster.encoder:
        states, _ = layer(states)
    repeated = states[:, 5:6].repeat(1, 6, 1)
    for layer in forecaster.decoder:
        repeated, _ = layer(repeated)
    torch.testing.assert_close(forecaster(z), forecaster.head(repeated))


def test_windows__cut_and_joined_in_the_order_of_time():
    module = CodedWindows(12, 3, 2, 4, (4,), (4,), None)
    x = torch.randn(5, 12, 2)
    parts = module.cut(x)
    torch.testing.assert_close(parts[4], x[1, 4:8])  # the second part of the second window
    torch.testing.assert_close(module.joined(parts).flatten(1, 2), x)


def test_forecast__of_a_sub_window__knows_nothing_of_the_last_one():
    torch.manual_seed(0)
    module = CodedWindows(12, 3, 2, 4, (4,), (4,), None)
    x = torch.randn(1, 12, 2)
    changed = x.clone()
    changed[:, 8:] = 9.0
    torch.testing.assert_close(module(changed), module(x))
    first = module.coder.decode(module.coder.encode(x[:, :4])[0])
    torch.testing.assert_close(module(x)[:, :4], first)  # of its own code
    changed = x.clone()
    changed[:, 4:8] = 9.0
    assert (module(changed) - module(x))[:, 8:].abs().max() > 1e-5


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kl_weight", [0.0, 0.5])
def test_loss_of_the_vae__by_hand(kl_weight):
    detector = fast_series("CNNVAELSTM", kl_weight=kl_weight, epochs=1).fit(waves())
    batch = batch_of(detector)
    coder = detector.module_.coder
    parts = batch.x.reshape(12, 5, 2)
    with torch.no_grad():
        mean, log_variance = (p.double().numpy() for p in coder.encode(parts))
        z = mean + np.exp(log_variance / 2) * batch.noise.numpy()
        found = coder.decode(torch.from_numpy(z).float()).numpy()
        loss = detector._loss(detector.module_, batch)
    errors = ((parts.numpy() - found) ** 2).sum((1, 2))
    divergence = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(1)
    assert loss["reconstruction"].item() == pytest.approx(errors.mean() / 10, rel=1e-4)
    assert loss["divergence"].item() == pytest.approx(
        kl_weight * divergence.mean() / 10, rel=1e-3, abs=1e-7
    )


def test_loss_of_codes__by_hand():
    detector = fast_series("CNNVAELSTM", n_windows=5, epochs=1).fit(waves())
    batch = batch_of(detector)
    module = detector.module_
    with torch.no_grad():
        mean, log_variance = module.coder.encode(batch.x.reshape(30, 2, 2))
        drawn = (mean + (log_variance / 2).exp() * batch.noise).reshape(6, 5, 4)
        made = module.forecaster(drawn[:, :4]).numpy()
    by_hand = ((made - mean.reshape(6, 5, 4)[:, 1:].numpy()) ** 2).mean()
    loss = detector._loss_of_codes(module, batch)["forecast"]
    assert loss.item() == pytest.approx(by_hand, rel=1e-4)
    loss.backward()
    assert all(p.grad is None for p in module.coder.parameters())
    assert all(p.grad is not None for p in module.forecaster.parameters())


def test_training__the_vae_first__then_the_forecaster_alone():
    seen = []

    def watch(event):
        state = {k: v.clone() for k, v in event.module.state_dict().items()}
        seen.append((event.phase, event.losses, state))

    fast_series("CNNVAELSTM", n_windows=5, epochs=6, callbacks=[watch]).fit(waves())
    assert [phase for phase, *_ in seen] == ["coder"] * 6 + ["forecaster"] * 6
    assert seen[5][1]["reconstruction"] < seen[0][1]["reconstruction"]
    assert seen[11][1]["forecast"] < seen[6][1]["forecast"]
    for name, value in seen[5][2].items():
        frozen = name.startswith("coder.")
        assert frozen == torch.equal(value, seen[11][2][name]) or name.startswith("errors.")


def test_scores__without_random_numbers():
    detector, x = fitted_series("CNNVAELSTM"), waves(90, seed=1)
    np.testing.assert_array_equal(detector.decision_function(x), detector.decision_function(x))


# --- the score ------------------------------------------------------------------------------------


def test_paper__setting_reached__and_saved(tmp_path):
    given = PAPER | {"contamination": 0, "validation_fraction": 0, "window": 16}
    detector = fast_series("CNNVAELSTM", **given).fit([waves(100), waves(80, seed=1)])
    assert detector.threshold_ == pytest.approx(detector.decision_scores_.max(), rel=1e-4)
    detector.save(tmp_path / "model.deepod")
    again = deepod.load(tmp_path / "model.deepod")
    x = waves(90, seed=2)
    np.testing.assert_array_equal(again.decision_function(x), detector.decision_function(x))
    one = waves(16, seed=7)  # a single window: its errors are the points'
    scaled = torch.from_numpy((one - detector.shift_) / detector.scale_).float()[None]
    with torch.no_grad():
        by_hand = (scaled - detector.module_(scaled)).abs().mean(-1)[0].numpy()
    np.testing.assert_allclose(detector.decision_function(one), by_hand, rtol=1e-3)


def test_window__a_multiple_of_the_sub_windows():
    settings = {**FAST_SERIES["CNNVAELSTM"], "n_windows": 4, "epochs": 1}
    assert CNNVAELSTM(**settings).fit(waves(100)).window_ == 32  # a third is 33
    assert CNNVAELSTM(**settings).fit(waves(400)).window_ == 64
    for window, n_windows in ((10, 4), (3, 4)):
        with pytest.raises(ValueError, match="a multiple of n_windows=4"):
            fast_series("CNNVAELSTM", window=window, n_windows=n_windows).fit(waves())


@pytest.mark.parametrize("name", ["filters", "hidden"])
@pytest.mark.parametrize("value", [(), (0,), (2.5,)])
def test_sizes__refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must hold positive integers"):
        fast_series("CNNVAELSTM", **{name: value}).fit(waves())


def test_channel_that_stands_still__not_seen__and_evidence_if_it_moves():
    x = np.column_stack([waves(300, 1), np.full(300, 7.0)])
    detector = fast_series("CNNVAELSTM", smoothing=None).fit(x)
    new = np.column_stack([waves(100, 1, seed=3), np.full(100, 7.0)])
    before = detector.explain(new)
    new[50, 1] += 3 * detector.scale_[1]
    np.testing.assert_allclose(detector.explain(new)[:, 0], before[:, 0], rtol=1e-4)
    assert detector.explain(new)[50, 1] > before[:, 1].max() + 0.5


def test_pattern_that_changes__found():
    """A wave of twice the frequency: no value is out of range."""
    detector = fast_series("CNNVAELSTM", epochs=30, latent_dim=6).fit(waves(500))
    x, y = waves(500, seed=3), np.zeros(500)
    fast = waves(1000, seed=4)[::2]
    for start in (110, 260, 410):
        x[start : start + 30], y[start : start + 30] = fast[start : start + 30], 1
    assert roc_auc_score(y, detector.decision_function(x)) > 0.9
