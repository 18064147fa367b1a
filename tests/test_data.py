"""Scaling: from the user's units to those of the networks."""

import numpy as np
import pytest

from deepod import AutoEncoder
from deepod._inputs.rows import chunks
from deepod.networks import LeNet

from .cases import samples

NET = LeNet(channels=(2,), hidden=())


def scaled(detector, X):
    """What the networks get to see of X."""
    parts = chunks(X, detector.input_shape_, detector.scaler_, 1000)
    return np.concatenate([part.numpy() for part in parts])


def fit(X, scaler):
    return AutoEncoder(network=NET, scaler=scaler, epochs=0, random_state=0).fit(X)


def test_gcn__by_hand():
    images = np.random.default_rng(0).integers(0, 256, (20, 2, 8, 8), dtype=np.uint8)
    x = images.astype(float)
    x -= x.mean((1, 2, 3), keepdims=True)
    x /= np.abs(x).mean((1, 2, 3), keepdims=True)
    low, high = (f(x, axis=(0, 2, 3), keepdims=True) for f in (np.min, np.max))
    expected = (x - low) / (high - low)
    np.testing.assert_allclose(scaled(fit(images, "gcn"), images), expected, rtol=1e-5, atol=1e-6)


def test_gcn__brightness_and_contrast_of_an_image__do_not_matter():
    images = samples("images").astype(np.float64)
    detector = fit(images, "gcn")
    scores = detector.decision_function(images)
    other = 3 * images + np.arange(40).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(detector.decision_function(other), scores, rtol=1e-4)


@pytest.mark.filterwarnings("error")
def test_gcn__flat_image__finite():
    images = samples("images").astype(np.float64)
    images[3] = 0.1
    detector = fit(images, "gcn")
    assert np.isfinite(detector.decision_scores_).all()
    brightness = np.array([0, 0.1, 0.2, 0.3, 0.37, 0.9, 7, -1e5]).reshape(-1, 1, 1, 1)
    flat = detector.decision_function(np.broadcast_to(brightness, (8, 1, 8, 8)))
    np.testing.assert_array_equal(flat, flat[0])
    huge = detector.decision_function(1e308 * np.sign(images))
    assert np.isfinite(huge).all()


@pytest.mark.parametrize("kind", ["table", "windows"])
def test_gcn__no_images__refused(kind):
    with pytest.raises(ValueError, match="scaler='gcn'"):
        AutoEncoder(scaler="gcn", epochs=0).fit(samples(kind))


def test_gcn__changed_after_fit__scores_stay():
    images = samples("images")
    detector = fit(images, "gcn")
    detector.scaler = "standard"
    np.testing.assert_array_equal(detector.decision_function(images), detector.decision_scores_)
