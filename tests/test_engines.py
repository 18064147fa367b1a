"""Every engine, and members side by side, against plain torch on one module."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deepod._inputs import rows as _rows
from deepod._training import engines, loop, recording, steps
from deepod._training import stacked as _stacked
from deepod._training import task as _task
from deepod.networks import MLP
from deepod.types import Phase, Refresh

from .cases import NAMES, REPRESENTATIVES, TRAINED, fast, samples

PARTS = ("left", "right")


class Net(nn.Module):
    """Two parts, a parameter that no loss reaches, BatchNorm, and a centre that is refreshed."""

    def __init__(self, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            # No bias: behind BatchNorm its gradient is nothing but rounding.
            hidden = nn.Linear(3, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh()
            self.left = nn.Sequential(*hidden, nn.Linear(8, 2))
            self.unused = nn.Linear(3, 3)
            self.right = nn.Linear(3, 2)
        self.register_buffer("center", torch.zeros(2))


def loss(module, batch):
    z = module.left(batch.x + 0.1 * batch.noise[0]) + batch.noise[1] * module.right(batch.x)
    weight = 1.0 if batch.y is None else 1 + batch.y
    distance = (z - module.center).square().sum(1)
    return {"distance": (weight * distance).mean(), "size": 0.1 * z.abs().mean()}


def noise(n, generator):
    return torch.randn(n, 3, generator=generator), torch.rand(n, 1, generator=generator)


def task(seed, n=50, labels=False, phases=None, **changes):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator)
    y = (torch.rand(n, generator=generator) > 0.5).float() if labels else None
    center = Refresh(lambda module, x: module.left(x), lambda z: {"center": z.mean(0)})
    values = {
        "noise": noise,
        "batch_size": 16,
        "lr": 0.01,
        "weight_decay": 0.01,
        "optimizer": "adam",
        "order_stream": torch.Generator().manual_seed(seed),
        "noise_stream": torch.Generator().manual_seed(seed + 1),
    }
    phases = phases or [Phase("fit", 4, loss, start=center, each_epoch=center, milestones=(2,))]
    return _task.Task(Net(seed), _rows.InMemory(x, y), phases, **(values | changes))


def agree(ours, theirs, **tolerance):
    for (name, a), b in zip(
        ours.task.module.state_dict().items(),
        theirs.task.module.state_dict().values(),
        strict=True,
    ):
        torch.testing.assert_close(a, b, msg=name, **({"rtol": 1e-4, "atol": 1e-5} | tolerance))
    assert [h.keys() for h in ours.history] == [h.keys() for h in theirs.history]
    for mine, other in zip(ours.history, theirs.history, strict=True):
        assert mine.pop("phase") == other.pop("phase")
        mine["seconds"] = other["seconds"]
        assert mine == pytest.approx(other, rel=1e-3, abs=1e-5)


CYCLE = [
    Phase("a", 3, loss, params=("left",), cycle="game"),
    Phase("b", 3, loss, params=("right",), cycle="game", lr=0.1),
    Phase("last", 2, loss),
]
SETTINGS = {
    "adam": {},
    "adamw": {"optimizer": "adamw"},
    "sgd": {"optimizer": "sgd"},
    "labels": {"labels": True},
    "one part": {"phases": [Phase("fit", 3, loss, params=("right",))]},
    "in turns": {"phases": CYCLE},
    "uneven batches": {"n": 53},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_trace__equals_eager(setting):
    (eager,) = loop.train([task(0, **SETTINGS[setting])], "eager")
    (traced,) = loop.train([task(0, **SETTINGS[setting])], "trace")
    assert (eager.engine, traced.engine) == ("eager", "trace")
    agree(traced, eager)


@pytest.mark.slow
def test_compile__equals_eager():
    (eager,) = loop.train([task(0)], "eager")
    (compiled,) = loop.train([task(0)], "compile")
    agree(compiled, eager)


@pytest.mark.parametrize("engine", ["eager", "trace"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_side_by_side__equals_one_after_the_other(setting, engine):
    # Also where members differ in what the optimiser is told.
    own = [{"lr": 0.01}, {"lr": 0.03}, {"weight_decay": 0.0}]
    alone = [
        loop.train([task(seed, **(SETTINGS[setting] | change))], "eager")[0]
        for seed, change in enumerate(own)
    ]
    members = loop.train(
        [task(seed, **(SETTINGS[setting] | change)) for seed, change in enumerate(own)], engine
    )
    for member, other in zip(members, alone, strict=True):
        agree(member, other)


def test_side_by_side__modules_share_nothing_afterwards():
    first, second = loop.train([task(0), task(1)], "eager")
    before = [p.clone() for p in second.task.module.parameters()]
    with torch.no_grad():
        for p in first.task.module.parameters():
            p.add_(1)
            assert p.untyped_storage().nbytes() == p.numel() * p.element_size()
    assert all(map(torch.equal, before, second.task.module.parameters()))


class StopAfter:
    def __init__(self, epochs):
        self.epochs, self.ends = epochs, 0

    def __call__(self, event):
        return event.epoch + 1 == self.epochs

    def end(self):
        self.ends += 1


@pytest.mark.parametrize("engine", ["eager", "trace"])
def test_side_by_side__members_stop_for_themselves(engine):
    """Also when so many stop that the others are stacked anew; their streams go on unharmed."""
    stops, phases = (1, 2, 2, 4), [Phase("one", 4, loss), Phase("two", 2, loss)]
    alone = [
        loop.train([task(k, phases=phases, callbacks=[StopAfter(stop)])], "eager")[0]
        for k, stop in enumerate(stops)
    ]
    callbacks = [StopAfter(stop) for stop in stops]
    members = loop.train(
        [task(k, phases=phases, callbacks=[c]) for k, c in enumerate(callbacks)], engine
    )
    for member, other in zip(members, alone, strict=True):
        agree(member, other)
    assert [c.ends for c in callbacks] == [2] * 4


def test_side_by_side__one_that_diverges_does_not_stop_the_others():
    tasks = [task(0), task(1, lr=1e30), task(2)]
    members = loop.train(tasks, "eager")
    assert [m.error is None for m in members] == [True, False, True]
    for k in (0, 2):
        agree(members[k], loop.train([task(k)], "eager")[0])


def test_values__differ_from_member_to_member():
    def phases(weight):
        def weighted(module, batch):
            return {"distance": weight * loss(module, batch)["distance"]}

        return [Phase("fit", 3, weighted)]

    def member(seed, weight):
        return task(
            seed,
            phases=phases(weight),
            values={"weight": weight},
            phases_with=lambda values: phases(values["weight"]),
        )

    weights = (0.5, 2.0)
    found = loop.train([member(k, w) for k, w in enumerate(weights)], "trace")
    for k, weight in enumerate(weights):
        agree(found[k], loop.train([task(k, phases=phases(weight))], "eager")[0])


def branching(module, batch):
    terms = loss(module, batch)
    return terms if terms["size"] > 0.5 else {**terms, "size": 2 * terms["size"]}


def test_loss_that_branches_on_a_value__auto_is_eager__forced_is_refused(monkeypatch):
    phases = [Phase("fit", 2, branching)]
    monkeypatch.setattr(engines, "STEPS_WORTH_RECORDING", 0)
    (member,) = loop.train([task(0, phases=phases)], "auto")
    assert member.engine == "eager"
    agree(member, loop.train([task(0, phases=phases)], "eager")[0], rtol=0, atol=0)
    with pytest.raises(
        ValueError, match=r"engine='trace' cannot run this loss(.|\n)*use engine='auto'"
    ):
        loop.train([task(0, phases=phases)], "trace")
    with pytest.raises(_stacked.NotRecordableError):
        loop.train([task(0, phases=phases), task(1, phases=phases)], "auto")


def by_numpy(module, batch):
    error = module.right(batch.x).square().sum(1)
    return {"trimmed": error.clamp(max=float(np.quantile(error.detach().numpy(), 0.8))).mean()}


def by_mask(module, batch):
    error = module.right(batch.x).square().sum(1)
    return {"normal": error[batch.y == 0].mean()}


class Rebinds(nn.Module):
    def __init__(self):
        super().__init__()
        self.right = nn.Linear(3, 2)
        self.register_buffer("mean", torch.zeros(3))


def rebinding(module, batch):
    module.mean = 0.9 * module.mean + 0.1 * batch.x.mean(0)
    return {"loss": module.right(batch.x - module.mean).square().mean()}


@pytest.mark.parametrize("function", [by_numpy, by_mask, rebinding])
def test_loss_whose_recording_would_differ__plain_torch(function, monkeypatch):
    monkeypatch.setattr(engines, "STEPS_WORTH_RECORDING", 0)

    def made():
        made = task(0, labels=True, phases=[Phase("fit", 5, function)])
        torch.manual_seed(0)
        return replace(made, module=Rebinds()) if function is rebinding else made

    with torch.random.fork_rng():
        (auto,), (eager,) = loop.train([made()], "auto"), loop.train([made()], "eager")
    assert auto.engine == "eager"
    agree(auto, eager, rtol=0, atol=0)


def test_threads_that_fit_at_the_same_time__same_scores():
    X = samples(n=100)

    def scores(engine):
        return fast("AutoEncoder", network=SMOOTH, engine=engine).fit(X).decision_scores_

    alone = scores("trace")
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(scores, ["trace", "eager"] * 10):
            np.testing.assert_allclose(found, alone, rtol=1e-4)


def test_dropout__is_not_recorded(monkeypatch):
    def dropped(module, batch):
        return {"loss": nn.functional.dropout(module.right(batch.x)).square().mean()}

    monkeypatch.setattr(engines, "STEPS_WORTH_RECORDING", 0)
    before = torch.get_rng_state()
    way, steppers = engines.steppers([task(0, phases=[Phase("fit", 1, dropped)])], [0], "auto")
    assert way == "eager"
    assert isinstance(steppers[0], steps.Eager)
    assert torch.equal(torch.get_rng_state(), before)  # trying it has drawn nothing


def test_auto__torchscript_is_gone__plain_torch_in_its_place(monkeypatch):
    def gone(source):
        raise RuntimeError("TorchScript is no longer there")

    monkeypatch.setattr(recording, "_compiled", gone)
    monkeypatch.setattr(engines, "STEPS_WORTH_RECORDING", 0)
    detector = fast("AutoEncoder").fit(samples())
    assert detector.engine_ == "eager"
    plain = fast("AutoEncoder", engine="eager").fit(samples())
    np.testing.assert_array_equal(detector.decision_scores_, plain.decision_scores_)


def test_auto__records_long_trainings_only(monkeypatch):
    monkeypatch.setattr(engines, "STEPS_WORTH_RECORDING", 16)  # 4 epochs of 4 batches
    assert loop.train([task(0)])[0].engine == "trace"
    assert loop.train([task(0, n=40)])[0].engine == "eager"


@settings(max_examples=8)
@given(n=st.integers(2, 40), batch_size=st.integers(2, 20), seed=st.integers(0, 5))
def test_trace__any_size_of_batch(n, batch_size, seed):
    changes = {"n": n, "batch_size": batch_size, "phases": [Phase("fit", 2, loss)]}
    (eager,) = loop.train([task(seed, **changes)], "eager")
    (traced,) = loop.train([task(seed, **changes)], "trace")
    agree(traced, eager, rtol=1e-2, atol=1e-3)  # BatchNorm of two rows amplifies rounding


def test_recorded__numbers_lists_and_in_place_changes():
    def function(a, b):
        leaf = a.detach().requires_grad_()
        scaled = torch.where(leaf > 0, leaf, float("inf")).clamp(max=3.0)
        total = torch.cat([scaled, leaf.new_full((2,), 0.5)]).sum() * torch.tensor(2.0)
        b += 1
        (gradient,) = torch.autograd.grad(total, leaf)
        return gradient, total.detach().double()

    a, b = torch.randn(5), torch.zeros(2)
    run = recording.record(function, [0.9 * a, b.clone()])
    ours, theirs = b.clone(), b.clone()
    for mine, other in zip(run(a, ours), function(a, theirs), strict=True):
        torch.testing.assert_close(mine, other)
    assert torch.equal(ours, theirs)


def test_recordings_of_one_kind__compiled_once():
    fit = fast("AutoEncoder", network=SMOOTH, engine="trace").fit
    fit(samples(n=30))
    before = recording._compiled.cache_info().misses
    fit(samples(n=30, seed=1))
    assert recording._compiled.cache_info().misses == before


# --- the detectors --------------------------------------------------------------------------------

SMOOTH = MLP(hidden=(6,), activation="tanh")  # no kinks and no BatchNorm: rounding stays rounding


def relative(ours, theirs):
    scale = np.abs(theirs.decision_scores_).max()
    return np.abs(ours.decision_scores_ - theirs.decision_scores_).max() / scale


@pytest.mark.parametrize("name", TRAINED)
def test_detector__traced_equals_eager(name):
    X = samples(n=100)
    eager = fast(name, network=SMOOTH, epochs=5, batch_size=32, engine="eager").fit(X)
    traced = fast(name, network=SMOOTH, epochs=5, batch_size=32, engine="trace").fit(X)
    assert (eager.engine_, traced.engine_) == ("eager", "trace")
    assert relative(traced, eager) < 1e-5


def test_detector__hard_concrete_gates__traced_equals_eager():
    settings = {"l0": "hard_concrete", "network": SMOOTH, "epochs": 5}
    eager, traced = (
        fast("NSAE", **settings, engine=engine).fit(samples(n=100)) for engine in ("eager", "trace")
    )
    assert relative(traced, eager) < 1e-5


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_detector__default_network__traced_equals_eager(name):
    X = samples(n=100)
    eager, traced = (fast(name, epochs=1, engine=engine).fit(X) for engine in ("eager", "trace"))
    assert relative(traced, eager) < 1e-4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("engine", ["trace", "cuda_graph"])
@pytest.mark.parametrize("name", NAMES)
def test_detector__on_a_gpu__equals_eager(name, engine):
    X = samples(n=100)
    eager = fast(name, network=SMOOTH, epochs=10, device="cuda", engine="eager").fit(X)
    other = fast(name, network=SMOOTH, epochs=10, device="cuda", engine=engine).fit(X)
    assert relative(other, eager) < 1e-4
