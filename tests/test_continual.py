"""Tasks one after another."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn

from deepod import AutoEncoder, Neighbors
from deepod.continual import (
    METHODS,
    Anchor,
    ContinualTrainer,
    Penalty,
    _Fisher,
    _Kept,
    _Path,
)
from deepod.networks import MLP
from deepod.series import LSTMAD, Windows

from .cases import waves

BASES = np.random.default_rng(0).normal(size=(3, 2, 8))


def rows(task, n=150, seed=0, noise=0.05):
    """Rows near the plane of a task."""
    rng = np.random.default_rng([task, seed])
    return rng.normal(size=(n, 2)) @ BASES[task] + noise * rng.normal(size=(n, 8))


def held_out(task, n=100):
    normal, odd = rows(task, n, 1), rows(task, n, 2, noise=0.7)
    return np.concatenate([normal, odd]), np.repeat([0, 1], n)


def detector(**params):
    known = {"network": MLP(hidden=()), "latent_dim": 4, "error": "mse", "epochs": 20, "lr": 2e-2}
    return AutoEncoder(**known | {"cross_fitting": False, "random_state": 0} | params)


def trained(method, tasks=2, strength=None, **params):
    known = {"strength": strength, "fisher_rows": 30, "random_state": 0}
    trainer = ContinualTrainer(detector(**params), method, **known)
    for task in range(tasks):
        trainer.learn_task(rows(task), held_out=held_out(task))
    return trainer


def far(trainer, task=0):
    """Squared way of the weights from where the first task has left them."""
    first = detector().fit(rows(0)).module_.state_dict()
    now = trainer.detector_.module_.state_dict()
    return float(sum((now[name] - value).square().sum() for name, value in first.items()))


# --- what is computed -----------------------------------------------------------------------------


def test_fisher__linear_autoencoder__mean_squared_gradients_over_twice_the_mean_loss():
    X = rows(0, 40)
    found = detector()
    watcher = _Fisher(rows=1000, seed=0)
    from deepod._training.starts import Start

    found._fit_from(Start(watcher=watcher), X)
    W1, b1, W2, b2 = (p.detach().double().numpy() for p in found.module_.parameters())
    x = found.scaler_.transform(X).astype(float)
    z = x @ W1.T + b1
    e = z @ W2.T + b2 - x
    back = 2 / 8 * e  # the gradient of the mean of squares by the reconstruction
    gradients = {
        "encoder.1.weight": (back @ W2)[:, :, None] * x[:, None],
        "encoder.1.bias": back @ W2,
        "decoder.0.weight": back[:, :, None] * z[:, None],
        "decoder.0.bias": back,
    }
    assert watcher.found.keys() == gradients.keys()
    loss = (e**2).mean()
    for name, g in gradients.items():
        expected = (g**2).mean(0) / (2 * loss)
        np.testing.assert_allclose(watcher.found[name].numpy(), expected, rtol=1e-3, err_msg=name)
    few = _Fisher(rows=10, seed=0)
    clone(found)._fit_from(Start(watcher=few), X)
    assert not torch.equal(few.found["decoder.0.bias"], watcher.found["decoder.0.bias"])


def test_penalty__two_anchors__sum_of_weighted_squares():
    module = nn.Linear(2, 1)
    W, b = module.weight.detach().numpy(), module.bias.detach().numpy()
    anchors = [
        Anchor({"weight": torch.full((1, 2), 2.0)}, {"weight": torch.ones(1, 2)}),
        Anchor({"weight": torch.ones(1, 2), "bias": torch.ones(1)},
               {"weight": torch.zeros(1, 2), "bias": torch.ones(1)}),
    ]  # fmt: skip
    expected = 3 * ((2 * (W - 1) ** 2).sum() + (W**2).sum() + ((b - 1) ** 2).sum())
    found = Penalty("ewc", 3.0, tuple(anchors))(module)
    assert found.keys() == {"ewc"}
    assert float(found["ewc"].detach()) == pytest.approx(float(expected), rel=1e-6)


def test_path__steps_by_hand__minus_gradient_times_step_without_that_of_the_term():
    module = nn.Linear(1, 1, bias=False)
    anchor = Anchor({"weight": torch.full((1, 1), 0.5)}, {"weight": torch.zeros(1, 1)})
    path = _Path([anchor], strength=2.0)
    path.begin(module)
    places, expected = [float(module.weight.detach())], 0.0
    for step in (0.3, -0.1):
        module.weight.grad = None
        loss = 3 * module.weight.sum() + Penalty("si", 2.0, (anchor,))(module)["si"]
        loss.backward()
        with torch.no_grad():
            module.weight += step
        places.append(float(module.weight.detach()))
        expected -= 3 * step
    fit = type("", (), {"trained": type("", (), {"module_": module})})
    path.end(fit)
    assert float(path.integral["weight"]) == pytest.approx(expected, rel=1e-5)
    found = path.importance({"weight": module.weight.detach()}, 0.1)["weight"]
    assert float(found) == max(expected, 0.0) == 0.0  # uphill
    path.integral["weight"] *= -1
    found = path.importance({"weight": module.weight.detach()}, 0.1)["weight"]
    assert float(found) == pytest.approx(0.6 / (0.2**2 + 0.1), rel=1e-4)


def test_path__small_steps_on_all_rows__sums_up_to_the_fall_of_the_loss():
    from deepod._training.starts import Start

    path = _Path([], 0.0)
    found = detector(epochs=60, lr=1e-3, batch_size=1000, engine="eager")
    found._fit_from(Start(watcher=path), rows(0))
    losses = [entry["reconstruction"] for entry in found.history_]
    total = sum(float(integral.sum()) for integral in path.integral.values())
    assert losses[0] - losses[-1] > 0.05
    assert total == pytest.approx(losses[0] - losses[-1], rel=0.1)


# --- methods --------------------------------------------------------------------------------------


def test_first_task__every_method__as_a_plain_fit():
    expected = detector(engine="eager").fit(rows(0)).decision_function(rows(1))
    for method in METHODS:
        found = trained(method, tasks=1, engine="eager").detector_.decision_function(rows(1))
        np.testing.assert_array_equal(found, expected, err_msg=method)


def test_naive__as_partial_fit():
    by_hand = detector().fit(rows(0)).partial_fit(rows(1))
    found = trained("naive").detector_
    np.testing.assert_array_equal(found.decision_scores_, by_hand.decision_scores_)


def test_joint__as_a_fit_on_all_rows():
    by_hand = detector().fit(np.concatenate([rows(0), rows(1)]))
    np.testing.assert_array_equal(trained("joint").detector_.decision_scores_,
                                  by_hand.decision_scores_)  # fmt: skip


@pytest.mark.parametrize("method", ["ewc", "online_ewc", "si"])
def test_term__in_the_losses_from_the_second_task_on__and_stronger_holds_more(method):
    ways = []
    for strength in (0.0, 10.0, 1e5):
        trainer = trained(method, strength=strength)
        assert method in trainer.detector_.history_[0]
        ways.append(far(trainer))
    naive = far(trained("naive", engine="eager"))
    assert ways[0] == pytest.approx(naive, rel=1e-3)
    assert ways[0] > ways[1] > ways[2]
    assert method not in trained(method, tasks=1).detector_.history_[0]


def test_term__recorded_steps__as_plain_ones():
    one, other = (trained("ewc", strength=10.0, engine=engine) for engine in ("eager", "trace"))
    assert other.detector_.engine_ == "trace"
    np.testing.assert_allclose(
        one.detector_.decision_scores_, other.detector_.decision_scores_, rtol=1e-3
    )


def test_anchors__ewc_keeps_each_task_and_the_others_one_sum(monkeypatch):
    watchers = []
    end = _Fisher.end
    monkeypatch.setattr(_Fisher, "end", lambda self, fit: watchers.append(self) or end(self, fit))
    single = trained("ewc", tasks=3)
    for anchor, watcher in zip(single._anchors, watchers, strict=True):
        assert all(torch.equal(anchor.weights[n], 0.5 * F) for n, F in watcher.found.items())
    del watchers[:]
    online = trained("online_ewc")
    (anchor,), (first, second) = online._anchors, watchers
    for name, p in online.detector_.module_.named_parameters():
        assert torch.equal(anchor.centers[name], p.detach())
        expected = 0.5 * (0.9 * first.found[name] + second.found[name])
        torch.testing.assert_close(anchor.weights[name], expected)
    assert len(trained("si", tasks=3)._anchors) == 1


def test_forgetting__naive_forgets_and_each_remedy_helps():
    forgotten = {method: trained(method).forgetting_ for method in METHODS}
    assert forgotten["naive"] > 0.15
    for method in ("joint", "replay"):
        assert forgotten[method] < 0.05, method
    for method in ("ewc", "online_ewc", "si"):
        assert forgotten[method] < forgotten["naive"] / 2, method


# --- results --------------------------------------------------------------------------------------


def test_results__by_hand():
    trainer = ContinualTrainer(detector())
    with pytest.raises(NotFittedError):
        _ = trainer.results_
    trainer._table = [[0.9], [0.7, 0.8], [0.6, 0.9, 0.8]]
    np.testing.assert_array_equal(
        trainer.results_, [[0.9, np.nan, np.nan], [0.7, 0.8, np.nan], [0.6, 0.9, 0.8]]
    )
    assert trainer.average_ == pytest.approx((0.6 + 0.9 + 0.8) / 3)
    assert trainer.forgetting_ == pytest.approx(((0.9 - 0.6) + (0.8 - 0.9)) / 2)
    assert trainer.backward_transfer_ == pytest.approx(((0.6 - 0.9) + (0.9 - 0.8)) / 2)


def test_results__no_rows_held_out__nan_and_no_mean():
    trainer = ContinualTrainer(detector(epochs=1), "naive", metric=lambda y, s: float(len(y)))
    trainer.learn_task(rows(0)).learn_task(rows(1), held_out=held_out(1))
    np.testing.assert_array_equal(trainer.results_, [[np.nan, np.nan], [np.nan, 200.0]])
    assert trainer.average_ == 200.0
    assert np.isnan(trainer.forgetting_)
    assert np.isnan(trainer.backward_transfer_)


def test_task_that_fails__trainer_is_as_before():
    trainer = trained("replay", tasks=1)
    scores = trainer.detector_.decision_function(rows(1))
    with pytest.raises(ValueError, match=r"samples of shape \(3,\)"):
        trainer.learn_task(rows(1)[:, :3])
    with pytest.raises(ValueError, match="both 0 and 1"):
        trainer.learn_task(rows(1), held_out=(rows(1), np.zeros(150)))
    with pytest.raises(ValueError, match="inconsistent numbers"):
        trainer.learn_task(rows(1), held_out=(rows(1), [0, 1]))
    assert trainer.results_.shape == (1, 1)
    assert trainer._kept.seen == 150
    np.testing.assert_array_equal(trainer.detector_.decision_function(rows(1)), scores)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "lwf"}, "one of naive, joint, replay, ewc, online_ewc, si"),
        ({"strength": -1.0}, "strength must be 0 or more"),
        ({"buffer_size": 0}, "buffer_size must be 1 or more"),
        ({"fisher_rows": 0}, "fisher_rows must be 1 or more"),
        ({"gamma": 2.0}, "gamma must be from 0 to 1"),
        ({"damping": 0.0}, "damping above 0"),
        ({"metric": "f1"}, "metric must be callable or one of"),
    ],
)
def test_bad_arguments__refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        ContinualTrainer(detector(), **arguments)


def test_what_has_no_weights__refused():
    for bad in (Neighbors(), Windows(Neighbors())):
        with pytest.raises(TypeError, match="trains its weights by gradients"):
            ContinualTrainer(bad)
    with pytest.raises(ValueError, match="encode such columns beforehand"):
        ContinualTrainer(detector(categorical_features=[0]), "replay")


def test_fisher__loss_that_compares_rows__refused(monkeypatch):
    def spread(self, module, batch):
        codes = module(batch.x)
        return {"spread": (codes - codes.mean(0)).square().mean()}

    monkeypatch.setattr(AutoEncoder, "_loss", spread)
    with pytest.raises(ValueError, match="use method='si' or 'replay'"):
        trained("ewc", tasks=1)


# --- rows of earlier tasks ------------------------------------------------------------------------


def test_kept__few_of_many__each_row_as_likely():
    counts = np.zeros(60)
    for seed in range(400):
        kept = _Kept(False, np.random.RandomState(seed))
        for start, stop in ((0, 10), (10, 40), (40, 60)):
            kept.add(np.arange(start, stop)[:, None], np.arange(start, stop), 12)
        assert len(kept.rows) == 12
        np.testing.assert_array_equal(kept.rows[:, 0], kept.labels)
        assert len(set(kept.labels)) == 12
        counts[kept.labels] += 1
    means = [counts[:10].mean(), counts[10:40].mean(), counts[40:].mean()]
    np.testing.assert_allclose(means, 400 * 12 / 60, rtol=0.1)


def test_kept__series__a_stretch_of_each_task():
    kept = _Kept(True, np.random.RandomState(0))
    for task in range(3):
        kept.add([np.arange(40) + 100 * task, np.arange(30)], None, 60)
    assert [len(parts) for parts in kept.parts] == [1, 1, 1]
    for task, (part,) in enumerate(kept.parts):
        assert part.shape == (20, 1)
        np.testing.assert_array_equal(np.diff(part[:, 0]), 1)
        assert part[0, 0] // 100 == task
    rows_, labels = kept.with_new(np.arange(50), None)
    assert labels is None
    assert [len(part) for part in rows_] == [20, 20, 20, 50]


@pytest.mark.parametrize("method", METHODS)
def test_series__every_method__learns_tasks(method):
    forecaster = LSTMAD(hidden=(4,), window=10, epochs=2, random_state=0)
    trainer = ContinualTrainer(forecaster, method, buffer_size=80, fisher_rows=5, random_state=0)
    y = np.arange(60) >= 50
    for task in range(2):
        x = waves(60, seed=task)
        x[50:] += 3
        trainer.learn_task(waves(120, seed=task) * (1 + task), held_out=(x, y))
    assert trainer.results_.shape == (2, 2)
    assert trainer.average_ > 0.7
