"""CLSTM: sizes, loss and weights by hand, labels of every form, anomalies that are made."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import deepod
from deepod._inputs.chunks import Chunks
from deepod.series import CLSTM
from deepod.series.c_lstm import Classifier, logit, made_abnormal
from deepod.types import Batch
from tests.cases import fast_series, fitted_series, waves

SUPERVISED = {"supervision": "supervised", "epochs": 4}


def labelled(n=400, seed=0, every=43):
    """Waves that stand still for 8 points at any phase: no value is out of range."""
    x, y = waves(n, seed=seed), np.zeros(n, int)
    for start in range(20, n - 10, every):
        x[start : start + 8] = x[start]
        y[start : start + 8] = 1
    return x, y


# --- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("flatten", "of_lstm"), [(False, 33_024), (True, 262_400)])
def test_sizes__of_the_paper(flatten, of_lstm):
    module = Classifier(60, 1, 64, 5, 64, 32, flatten)

    def count(part):
        return sum(p.numel() for p in part.parameters())

    convolutions = [count(module.convolutions[k]) for k in (0, 3)]
    assert convolutions == [384, 20_544]
    assert count(module.lstm) - 4 * 64 == of_lstm  # torch has two biases for each gate
    assert [count(module.head[k]) for k in (0, 2)] == [2_080, 66]
    assert module.convolutions(torch.zeros(2, 1, 60)).shape == (2, 64, 15)
    assert module(torch.zeros(2, 60, 1)).shape == (2, 2)


@pytest.mark.parametrize("flatten", [False, True])
def test_forward__by_hand(flatten):
    torch.manual_seed(0)
    module = Classifier(8, 2, 3, 3, 4, 5, flatten)
    x = torch.randn(1, 8, 2)

    def convolved(values, layer):  # (length, channels), zeros beyond both ends
        weight, bias = (p.detach().numpy() for p in (layer.weight, layer.bias))
        padded = np.pad(values, ((1, 1), (0, 0)))
        found = [(padded[t : t + 3].T * weight).sum((1, 2)) + bias for t in range(len(values))]
        return np.tanh(found).reshape(-1, 2, len(bias)).max(1)

    features = convolved(x[0].numpy(), module.convolutions[0])
    features = convolved(features, module.convolutions[3])
    steps = features.reshape(1, -1) if flatten else features
    h, c = np.zeros(4), np.zeros(4)
    ih, hh, b1, b2 = (p.detach().numpy() for p in module.lstm.parameters())
    for step in steps:
        i, f, g, o = np.split(ih @ step + hh @ h + b1 + b2, 4)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
    w1, b1, w2, b2 = (p.detach().numpy() for p in module.head.parameters())
    by_hand = w2 @ np.tanh(w1 @ h + b1) + b2
    np.testing.assert_allclose(module(x)[0].detach().numpy(), by_hand, rtol=1e-4, atol=1e-6)


def test_window__too_short_to_be_halved_twice():
    with pytest.raises(ValueError, match="4 points or more"):
        fast_series("CLSTM", window=3).fit(waves())


# --- the loss -------------------------------------------------------------------------------------


def test_loss__cross_entropy_of_windows__by_hand():
    detector = fast_series("CLSTM", **SUPERVISED).fit(*labelled())
    x = torch.from_numpy(waves(60, seed=5).reshape(6, 10, 2)).float()
    y = torch.zeros(6, 10)
    y[1, 9] = y[4] = 1.0  # one point of a window is enough
    with torch.no_grad():
        z = detector.module_(x).double().numpy()
        loss = detector._loss(detector.module_, Batch(x, y))["detection"].item()
    weights = detector.module_.class_weights.numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    classes = np.array([0, 1, 0, 0, 1, 0])
    by_hand = -(weights[classes] * np.log(p[np.arange(6), classes])).mean()
    assert loss == pytest.approx(by_hand, rel=1e-5)
    np.testing.assert_allclose(
        logit(detector.module_, x).detach(), np.log(p[:, 1] / p[:, 0]), rtol=1e-3, atol=1e-5
    )


def test_class_weights__windows_of_both_classes_count_alike():
    x, y = labelled()
    detector = fast_series("CLSTM", **SUPERVISED).fit(x, y)
    windows = [y[s : s + 10].any() for s in range(320 - 9)]  # but for the last fifth
    share = np.mean(windows)
    np.testing.assert_allclose(
        detector.module_.class_weights, [0.5 / (1 - share), 0.5 / share], rtol=1e-5
    )
    plain = fast_series("CLSTM", **SUPERVISED, class_weight=None).fit(x, y)
    assert plain.module_.class_weights.tolist() == [1.0, 1.0]


def test_chunks__labels_are_those_of_their_points():
    x = torch.arange(50.0)[:, None]
    rows = Chunks(x, [(0, 20), (25, 50)], 5, x[:, 0] % 3)
    for points, labels in [*rows.batches(torch.Generator().manual_seed(0), 8), rows.head(7)]:
        torch.testing.assert_close(labels, points[..., 0] % 3)


# --- anomalies that are made ----------------------------------------------------------------------


def test_made_abnormal__a_stretch_of_some_channels():
    detector = CLSTM()
    n, window, d = 2000, 12, 3
    noise = detector._noise(n, (window, d), torch.Generator().manual_seed(0))
    x = torch.zeros(n, window, d)
    found, y = made_abnormal(x, noise, 2.0)
    assert 0.45 < y.double().mean() < 0.55
    changed = (found != 0).numpy()
    assert not changed[y == 0].any()
    made = changed[y == 1]
    assert made.any((1, 2)).all()
    channels, points = made.any(1).sum(1), made.any(2)
    assert set(channels) == {1, 2, 3}
    lengths = points.sum(1)
    assert lengths.min() == 1
    assert lengths.max() >= 11
    ends = np.diff(points.astype(int), prepend=0, append=0, axis=1)
    assert (np.count_nonzero(ends, axis=1) == 2).all()  # one stretch
    sizes = found.numpy()[changed]
    assert sizes.std() == pytest.approx(2.0, rel=0.1)


def test_made_abnormal__a_constant_or_white_noise():
    detector = CLSTM()
    noise = detector._noise(500, (12, 1), torch.Generator().manual_seed(0))
    for steady in (0.0, 1.0):
        noise[0][:, 4] = steady
        noise[0][:, 2] = 0.99  # long stretches
        found, y = made_abnormal(torch.zeros(500, 12, 1), noise, 1.0)
        inner = found[y == 1][:, 3:9, 0].std(1)
        assert inner.max() < 1e-6 if steady else inner.mean() > 0.8


def test_labels__ignored_without_supervision():
    x, y = labelled()
    ignored = fast_series("CLSTM", epochs=2).fit(x, y)
    without = fast_series("CLSTM", epochs=2).fit(x)
    np.testing.assert_array_equal(ignored.decision_scores_, without.decision_scores_)


def test_without_labels__jumps_are_found():
    detector = fast_series("CLSTM", epochs=15).fit(waves(600))
    x, y = waves(600, seed=3), np.zeros(600)
    for start in range(50, 600, 100):
        x[start : start + 6, start // 100 % 2] += 3.0
        y[start : start + 6] = 1
    assert roc_auc_score(y, detector.decision_function(x)) > 0.95


# --- labels ---------------------------------------------------------------------------------------


def test_with_labels__finds_what_is_like_them():
    """Values that stand still are no jump and no noise: labels alone tell that."""
    x, y = labelled(1000)
    new, truth = labelled(400, seed=9, every=37)
    taught = fast_series("CLSTM", **SUPERVISED | {"epochs": 15}).fit(x, y)
    assert roc_auc_score(truth, taught.decision_function(new)) > 0.95
    flagged = taught.set_threshold(0.0).predict(new)  # the paper's rule
    far = np.convolve(truth, np.ones(19), "same") == 0  # no window that covers them is abnormal
    assert flagged[truth == 1].mean() > 0.8
    assert flagged[far].mean() < 0.1


def test_labels__of_the_last_part__are_not_trained_on():
    x, y = labelled()
    other = y.copy()
    other[320:] = 1 - other[320:]
    first, second = (fast_series("CLSTM", **SUPERVISED).fit(x, own) for own in (y, other))
    for a, b in zip(
        first.module_.state_dict().values(), second.module_.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert first.history_[0]["validation_detection"] != second.history_[0]["validation_detection"]


def test_labelled_anomalies__are_no_measure_of_normal_points():
    x, y = labelled()
    x[y == 1] += 50.0
    detector = fast_series("CLSTM", **SUPERVISED).fit(x, y)
    normal = x[:320][y[:320] == 0]
    np.testing.assert_allclose(detector.shift_, normal.mean(0), rtol=1e-5)
    np.testing.assert_allclose(detector.scale_, normal.std(0), rtol=1e-5)
    own = np.sort(detector.decision_scores_[320:][y[320:] == 0])
    assert len(detector.calibration_scores_) == len(own)
    lower = len(own) // 2 - 10  # windows across the border are left out, and high ones are moved up
    np.testing.assert_allclose(detector.calibration_scores_[:lower], own[:lower], atol=0.5)


@pytest.mark.parametrize("form", ["series", "list", "episodes"])
def test_labels__of_every_form(form, tmp_path):
    x, y = labelled()
    X, Y = {
        "series": (x, y),
        "list": ([x[:150], x[150:]], [y[:150], y[150:]]),
        "episodes": (x.reshape(8, 50, 2), y.reshape(8, 50)),
    }[form]
    detector = fast_series("CLSTM", **SUPERVISED, flatten_before_lstm=True).fit(X, Y)
    flat = fast_series("CLSTM", **SUPERVISED, flatten_before_lstm=True).fit(X, y)
    np.testing.assert_array_equal(detector.decision_scores_, flat.decision_scores_)
    detector.save(tmp_path / "model.deepod")
    again = deepod.load(tmp_path / "model.deepod")
    np.testing.assert_array_equal(again.decision_function(x), detector.decision_function(x))
    assert 0 <= detector.fit_predict_score(X, Y) <= 1


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (labelled()[0], None, "needs labels"),
        (labelled()[0], labelled()[1][:-1], "399 labels"),
        (labelled()[0], np.zeros(400), "both classes"),
        (labelled()[0], np.ones(400), "every row of X"),
        (labelled()[0], np.arange(400) % 5 == 0, "an anomaly in each"),
        (labelled()[0], np.full(400, 2), "0 .normal. and 1"),
        (labelled()[0], np.arange(400) >= 350, "validation_fraction=0.2"),
        ([waves(100), waves(50)], [np.zeros(50), np.zeros(100)], r"\(50, 100\) labels"),
        (waves(400).reshape(8, 50, 2), np.zeros((50, 8)), r"shape \(50, 8\)"),
    ],
)
def test_labels__refused(X, y, message):
    with pytest.raises(ValueError, match=message):
        fast_series("CLSTM", **SUPERVISED).fit(X, y)


# --- the score ------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", ["centred", "causal", None])
def test_explain__sums_up_to_the_score(smoothing):
    detector = fitted_series("CLSTM", smoothing=smoothing)
    x = waves(60, seed=2)
    x[30:35] = 3.0
    np.testing.assert_allclose(
        detector.explain(x).sum(1), detector.decision_function(x), rtol=1e-3, atol=1e-5
    )


def test_score__mean_of_logits_of_the_windows_that_cover_a_point():
    detector = fitted_series("CLSTM", smoothing=None)
    x = waves(40, seed=2)
    scaled = torch.from_numpy((x - detector.shift_) / detector.scale_).float()
    with torch.no_grad():
        logits = logit(detector.module_, scaled.unfold(0, 10, 1).mT).numpy()
    for t in (0, 5, 20, 39):
        own = logits[max(0, t - 9) : t + 1].mean()
        assert detector.decision_function(x)[t] == pytest.approx(own, rel=1e-3, abs=1e-5)
