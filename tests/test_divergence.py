"""Losses that become NaN or infinite, and the gradients that are kept from getting there."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deepod import AutoEncoder, data, fit_many
from deepod._inputs import rows as _rows
from deepod._training import loop, stacked
from deepod._training import task as _task
from deepod.networks import MLP
from deepod.types import Phase

from .cases import samples
from .test_engines import SETTINGS, StopAfter, agree, task
from .test_train import no_noise

ENGINES = ("eager", "trace")
X = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))


class Counts(nn.Module):
    """Counts the steps: a loss can then change at one of them, recorded or not."""

    def __init__(self, when):
        super().__init__()
        self.line = nn.Linear(3, 1)
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("when", torch.tensor(when))


def loss(module, batch, value=float("nan")):
    """One term is ``value`` in step ``when``; no weight changes by it."""
    broken = torch.where(module.steps == module.when, value, 0.0)
    module.steps += 1
    return {"square": module.line(batch.x).square().mean(), "broken": broken}


def counting(when, phases, batch_size=4):
    """Three batches in an epoch."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Counts(when)
    return _task.Task(
        module,
        _rows.InMemory(X),
        phases,
        noise=no_noise,
        batch_size=batch_size,
        lr=0.01,
        weight_decay=0.0,
        optimizer="adam",
        order_stream=torch.Generator().manual_seed(0),
        noise_stream=torch.Generator().manual_seed(0),
    )


def in_step(step, epoch, phase="fit", term="broken", value="nan"):
    return (
        f"The loss term '{term}' became {value} in step {step} of epoch {epoch} of phase '{phase}'"
    )


# --- losses that are not finite -------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_loss__not_finite_in_one_step__error_names_term_step_epoch_and_phase(engine, value):
    def one(module, batch):
        return loss(module, batch, value)

    phases = [Phase("before", 1, one), Phase("fit", 9, one)]
    (member,) = loop.train([counting(3 + 7, phases)], engine)
    assert isinstance(member.error, FloatingPointError)
    assert str(member.error).startswith(in_step(1, 2, value=value))
    for advice in ("lr", "max_grad_norm", "scaler"):
        assert advice in str(member.error)
    assert [entry["epoch"] for entry in member.history] == [0, 0, 1]


@settings(max_examples=30)
@given(when=st.integers(0, 19), at_once=st.integers(1, 12))
def test_loss__not_finite__found_however_many_steps_are_looked_at_together(when, at_once):
    """Also: training stops there, not at the end of the epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "STEPS_AT_ONCE", at_once)
        (member,) = loop.train([counting(when, [Phase("fit", 3, loss)], batch_size=1)], "eager")
    epoch, step = divmod(when, 10)
    assert str(member.error).startswith(in_step(step, epoch))
    last_look = min(10, (step // at_once + 1) * at_once)
    assert int(member.task.module.steps) == 10 * epoch + last_look


@pytest.mark.parametrize("engine", ENGINES)
def test_loss__nan_for_some_members__each_its_own_error_and_the_others_as_alone(engine):
    phases, never = [Phase("fit", 4, loss), Phase("last", 2, loss)], 1000
    steps = [5, never, 0, 16, never]
    members = loop.train([counting(when, phases) for when in steps], engine)
    starts = {5: in_step(2, 1), 0: in_step(0, 0), 16: in_step(1, 1, "last")}
    for when, member in zip(steps, members, strict=True):
        if when == never:
            agree(member, loop.train([counting(never, phases)], "eager")[0])
        else:
            assert str(member.error).startswith(starts[when])


@pytest.mark.parametrize("engine", ENGINES)
def test_loss__nan_in_the_second_of_phases_that_take_turns__named(engine):
    """Each counts: the first at even numbers, the second at odd ones."""
    phases = [Phase(name, 3, loss, cycle="game") for name in ("first", "second")]
    (member,) = loop.train([counting(2 * 4 + 1, phases)], engine)
    assert str(member.error).startswith(in_step(1, 1, "second"))


def test_losses__finite__history_has_their_mean_over_rows(monkeypatch):
    (expected,) = loop.train([counting(-1, [Phase("fit", 2, loss)])], "eager")
    monkeypatch.setattr(loop, "STEPS_AT_ONCE", 2)
    (member,) = loop.train([counting(-1, [Phase("fit", 2, loss)])], "eager")
    agree(member, expected, rtol=0, atol=0)
    # Of the module as it was: without steps the mean of three uneven batches is that of all rows.
    still = [Phase("fit", 1, loss, lr=1e-30)]
    (member,) = loop.train([counting(-1, still)], "eager")
    whole = member.task.module.line(X).square().mean().item()
    assert member.history[0]["square"] == pytest.approx(whole, rel=1e-6)


class Breaks(AutoEncoder):
    """An autoencoder whose loss is NaN in step 7."""

    def _build_module(self, shape):
        module = super()._build_module(shape)
        module.register_buffer("steps", torch.tensor(0))
        return module

    def _loss(self, module, batch):
        module.steps += 1
        terms = super()._loss(module, batch)
        return {name: torch.where(module.steps == 8, torch.nan, v) for name, v in terms.items()}


SMALL = {"network": MLP(hidden=(4,)), "batch_size": 10, "random_state": 0}


def test_fit__loss_turns_nan__detector_is_as_before():
    detector = Breaks(epochs=1, **SMALL).fit(samples())
    scores = detector.decision_scores_
    with pytest.raises(FloatingPointError, match="'reconstruction' became nan in step 3 of epoch "):
        detector.set_params(epochs=5).fit(samples())
    assert detector.decision_scores_ is scores
    with pytest.raises(FloatingPointError, match="in step 3 of epoch 1 of phase 'fit'"):
        fit_many(detector, samples(), seeds=[0, 1])


def test_fit__rows_from_disk__error_names_the_step():
    rows = data.array(samples(n=400))
    detector = Breaks(epochs=5, memory_limit=1 << 12, **SMALL)
    with pytest.raises(FloatingPointError, match="in step 7 of epoch 0 of phase 'fit'"):
        detector.fit(rows)


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["trace", "cuda_graph"])
def test_cuda__history_and_error__as_in_plain_torch(engine):
    """A graph writes every step's losses to the same place."""

    def fit(engine, **changes):
        return AutoEncoder(**(SMALL | changes), epochs=5, device="cuda", engine=engine).fit(rows)

    rows = samples()
    for changes in ({}, {"max_grad_norm": 0.1}):
        for ours, theirs in zip(
            fit(engine, **changes).history_, fit("eager", **changes).history_, strict=True
        ):
            assert ours["reconstruction"] == pytest.approx(theirs["reconstruction"], rel=1e-4)
    with pytest.raises(FloatingPointError, match="in step 3 of epoch 1 of phase 'fit'"):
        Breaks(epochs=5, device="cuda", engine=engine, **SMALL).fit(rows)


# --- gradients that are too long ------------------------------------------------------------------


def test_max_grad_norm__one_step__as_by_hand():
    """Plain gradient descent on a loss whose gradient is known."""
    for bound, length in ((0.5, 0.5), (1e3, None)):
        one = counting(-1, [Phase("fit", 1, loss)], batch_size=10)
        line = one.module.line
        w, b = line.weight.detach().numpy().copy(), line.bias.detach().numpy().copy()
        x = X.numpy()
        z = x @ w.T + b
        gradient = np.append(2 * (z * x).mean(0), 2 * z.mean())
        norm = np.linalg.norm(gradient)
        assert 0.5 < norm < 1e3
        scale = 1 if length is None else length / norm
        one = replace(one, optimizer="sgd", lr=0.1, max_grad_norm=bound)
        loop.train([one], "eager")
        found = np.append(line.weight.detach().numpy(), line.bias.item())
        np.testing.assert_allclose(found, np.append(w, b) - 0.1 * scale * gradient, rtol=1e-5)


def clipped(norm, **setting):
    return task(0, **(setting | {"max_grad_norm": norm}))


@pytest.mark.parametrize("setting", SETTINGS)
def test_max_grad_norm__trace__equals_eager(setting):
    (eager,) = loop.train([clipped(0.05, **SETTINGS[setting])], "eager")
    (traced,) = loop.train([clipped(0.05, **SETTINGS[setting])], "trace")
    agree(traced, eager)
    (other,) = loop.train([clipped(None, **SETTINGS[setting])], "eager")
    assert other.history[-1]["distance"] != pytest.approx(eager.history[-1]["distance"], rel=1e-3)


NORMS = (0.05, None, 0.5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("setting", ["sgd", "adam", "one part", "in turns"])
def test_max_grad_norm__side_by_side__each_by_its_own_norm(setting, engine):
    build = [partial(task, k, **SETTINGS[setting], max_grad_norm=n) for k, n in enumerate(NORMS)]
    members = loop.train([make() for make in build], engine)
    for member, make in zip(members, build, strict=True):
        agree(member, loop.train([make()], "eager")[0])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_max_grad_norm__all_in_one_tensor__each_by_its_own_norm(optimizer, engine, monkeypatch):
    """Some stop early: bounds stay with their members."""
    alone, shapes = [], []

    def make(k):
        return replace(
            counting(-1, [Phase("fit", 4, loss)]),
            optimizer=optimizer,
            max_grad_norm=(None, 0.5, 1.0, 0.05)[k],
            callbacks=[StopAfter((1, 2, 2, 4)[k])],
        )

    clip = stacked._clip
    monkeypatch.setattr(
        stacked, "_clip", lambda g, largest: (shapes.append(g[0].shape), clip(g, largest))
    )
    members = loop.train([make(k) for k in range(4)], engine)
    assert shapes == [(4, 4)] * 6 + [(1, 4)] * 6  # three parameters and a bias
    alone = [loop.train([make(k)], "eager")[0] for k in range(4)]
    for member, other in zip(members, alone, strict=True):
        agree(member, other)
    assert len({m.task.module.line.bias.item() for m in alone}) == 4


@settings(max_examples=30)
@given(
    norms=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=4),
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    size=st.floats(1e-6, 1e6),
    seed=st.integers(0, 99),
)
def test_clip__members_side_by_side__as_torch_clips_one(norms, widths, size, seed):
    generator = torch.Generator().manual_seed(seed)
    ours = [size * torch.randn(len(norms), width, generator=generator) for width in widths]
    before = [gradient.clone() for gradient in ours]
    stacked._clip(ours, torch.tensor(norms)[:, None])
    for k, norm in enumerate(norms):
        alone = [nn.Parameter(gradient[k]) for gradient in before]
        for parameter, gradient in zip(alone, before, strict=True):
            parameter.grad = gradient[k].clone()
        nn.utils.clip_grad_norm_(alone, norm)
        for parameter, gradient in zip(alone, ours, strict=True):
            torch.testing.assert_close(gradient[k], parameter.grad, rtol=1e-5, atol=0)
        assert torch.cat([gradient[k] for gradient in ours]).norm() <= norm * (1 + 1e-5)


def test_clip__infinite_gradient_of_a_member_without_bound__unchanged():
    gradient = torch.tensor([[1.0, torch.inf], [3.0, 4.0]])
    stacked._clip([gradient], torch.tensor([[torch.inf], [1.0]]))
    assert gradient[0].tolist() == [1.0, torch.inf]
    assert gradient[1].tolist() == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("engine", ENGINES)
def test_max_grad_norm__loss_that_explodes_without__falls(engine):
    X = samples(n=200)
    X[::50] *= 100  # unscaled outliers
    detector = AutoEncoder(
        error="mse", scaler=None, optimizer="sgd", lr=0.1, epochs=30, engine=engine, **SMALL
    )
    with pytest.raises(FloatingPointError, match="became"):
        detector.fit(X)
    history = detector.set_params(max_grad_norm=0.1).fit(X).history_
    assert history[-1]["reconstruction"] < 0.1 * history[0]["reconstruction"]
