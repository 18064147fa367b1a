"""Detectors as torch modules: rows in, scores out, and gradients on the way back."""

import copy
import io

import numpy as np
import pytest
import torch
from pyod.models.iforest import IForest
from sklearn.exceptions import NotFittedError

import deepod

from .cases import IN_TURNS, SERIES_NAMES, SHAPES, fast, fast_series, fitted, fitted_series, samples


def assert_scores_alike(module, detector, X):
    found = module(torch.from_numpy(X))
    assert found.dtype == torch.float64
    assert found.shape == (len(X),)
    expected = detector.decision_function(X)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-5)


def in_units(kind, n=40, seed=0):
    """Rows whose values are far from what a network sees, in float64."""
    return 1000 + 50 * samples(kind, n, seed).astype(np.float64)


@pytest.mark.parametrize(("name", "kind"), IN_TURNS)
def test_as_module__every_detector__scores_and_gradients(name, kind):
    detector = fast(name).fit(in_units(kind))
    X, module = in_units(kind, 9, seed=1), detector.as_module()
    assert_scores_alike(module, detector, X)
    assert_scores_alike(module, detector, X.astype(np.float32))
    x = torch.from_numpy(X)
    x.requires_grad_()
    if not detector.has_gradients:
        with pytest.raises(RuntimeError, match=f"score of {name} has no gradients"):
            module(x)
        with torch.no_grad():
            module(x)
        return
    (gradient,) = torch.autograd.grad(module(x).sum(), x)
    assert gradient.isfinite().all()
    # Along the gradient the score rises by what it says: in the units of X, to and fro.
    step = 1e-2 * gradient / gradient.flatten(1).norm(dim=1).max()
    with torch.no_grad():
        rise = (module(x + step) - module(x - step)).sum()
    torch.testing.assert_close(rise, 2 * (gradient * step).sum(), rtol=0.1, atol=1e-5)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", ["AutoEncoder", pytest.param("Neighbors", marks=pytest.mark.slow)])
def test_as_module__torch_export__a_program_for_any_number_of_rows(name):
    module, x = fast(name).fit(samples()).as_module(), torch.from_numpy(samples(n=9, seed=1))
    rows = {0: torch.export.Dim("n", min=2)}
    program = torch.export.export(module, (x,), dynamic_shapes=(rows,)).module()
    torch.testing.assert_close(program(x[:3]), module(x[:3]))


def test_as_module__gradients__integrate_to_the_difference_of_scores():
    """What SHAP's explainers and integrated gradients build on, without scaling by hand."""
    detector = fast("DeepSVDD", epochs=5).fit(in_units("table"))
    module, start = detector.as_module(), torch.full((5,), 1000.0, dtype=torch.float64)
    end = torch.from_numpy(in_units("table", 1, seed=3)[0])
    way = torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None]
    x = (start + way * (end - start)).requires_grad_()
    (gradient,) = torch.autograd.grad(module(x).sum(), x)
    total = gradient[1:-1].mean(0) @ (end - start)
    scores = module(torch.stack([start, end]))
    torch.testing.assert_close(total, scores[1] - scores[0], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("combination", ["max", "mean", "median"])
def test_as_module__ensemble__joint_scores_and_gradients(combination):
    members = [fast("AutoEncoder"), fast("PLAD")]
    one = deepod.Consensus(members, combination=combination, random_state=0).fit(in_units("table"))
    X, module = in_units("table", 9, seed=1), one.as_module()
    assert_scores_alike(module, one, X)
    x = torch.from_numpy(X).requires_grad_()
    (gradient,) = torch.autograd.grad(module(x).sum(), x)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_as_module__ensemble_with_ranks__scores_and_refuses_gradients():
    one = deepod.Consensus([fast("Neighbors"), fast("AutoEncoder")], random_state=0)
    one.fit(in_units("table"))
    X, module = in_units("table", 9, seed=1), one.as_module()
    assert_scores_alike(module, one, X)
    with pytest.raises(RuntimeError, match="score of Neighbors has no gradients"):
        module(torch.from_numpy(X).requires_grad_())


def test_as_module__gaps_and_flat_rows__as_fit_takes_them():
    X = in_units("windows").reshape(40, -1)
    X[::3, 2] = np.nan
    detector = fast("AutoEncoder", missing="impute", input_shape=SHAPES["windows"]).fit(X)
    module = detector.as_module()
    assert_scores_alike(module, detector, X)
    assert_scores_alike(module, detector, X.reshape(40, *SHAPES["windows"]))


def test_as_module__a_copy__that_follows_nothing_and_can_be_kept():
    detector = fast("AnoRand").fit(samples())
    module, x = detector.as_module(), torch.from_numpy(samples(n=9, seed=1))
    before = module(x)
    detector.set_params(fusion="paper")
    detector.fit(2 * samples())
    torch.testing.assert_close(module(x), before)
    file = io.BytesIO()
    torch.save(copy.deepcopy(module), file)
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=False)(x), before)
    other = fast("AnoRand", random_state=1).fit(3 * samples()).as_module()
    other.load_state_dict(module.state_dict())
    torch.testing.assert_close(other(x), before)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.zero_()
    assert np.isfinite(detector.decision_function(samples())).all()
    assert any(p.any() for p in detector.module_.parameters())


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_as_module__made_in_any_mode__has_gradients(mode):
    detector = fitted("PLAD")
    with mode():
        module = detector.as_module()
    assert not any(tensor.is_inference() for tensor in module.state_dict().values())
    x = torch.from_numpy(samples(n=9, seed=1)).requires_grad_()
    (gradient,) = torch.autograd.grad(module(x).sum(), x)
    assert gradient.abs().max() > 0


def test_as_module__unflattened__a_column_of_scores_for_explainers():
    detector = fitted("AutoEncoder")
    column = torch.nn.Sequential(detector.as_module(), torch.nn.Unflatten(0, (-1, 1)))
    x = torch.from_numpy(samples(n=9, seed=1))
    assert column(x).shape == (9, 1)
    torch.testing.assert_close(column(x)[:, 0], detector.as_module()(x))


@pytest.mark.parametrize("name", SERIES_NAMES)
def test_as_module__series__refused(name):
    with pytest.raises(TypeError, match="cannot become a module or graph"):
        fitted_series(name).as_module()
    with pytest.raises(TypeError, match="cannot become a module or graph"):
        fast_series(name).as_module()


def test_as_module__unfitted_or_of_others__refused():
    with pytest.raises(NotFittedError):
        fast("PLAD").as_module()
    with pytest.raises(NotFittedError):
        deepod.Consensus().as_module()
    with pytest.raises(TypeError, match="IForest"):
        deepod.Consensus([IForest()]).fit(samples()).as_module()


@pytest.mark.parametrize("shape", [(3, 4), (5,), (3, 5, 1)])
def test_as_module__other_shape__refused(shape):
    with pytest.raises(ValueError, match=r"\(n, 5\)"):
        fitted("AutoEncoder").as_module()(torch.zeros(shape))
