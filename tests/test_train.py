"""The one training loop and the one scoring loop."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from deepod._inputs import rows as _rows
from deepod._scoring import apply
from deepod._training import loop as _loop
from deepod._training import task as _task
from deepod.types import Batch, Phase, Refresh


class Line(nn.Module):
    """y = w x, with a buffer and a second parameter that other phases may train."""

    def __init__(self):
        super().__init__()
        self.left = nn.Linear(3, 1)
        self.right = nn.Linear(3, 1)
        self.register_buffer("center", torch.zeros(3))

    def forward(self, x):
        return self.left(x) + self.right(x)


def no_noise(n, generator):
    return None


X = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))


def square(module, batch):
    return {"square": module(batch.x).square().mean()}


def run(module, phases, callbacks=(), engine="auto", **changes):
    values = {
        "noise": no_noise,
        "batch_size": 4,
        "lr": 0.1,
        "weight_decay": 0.0,
        "optimizer": "sgd",
        "order_stream": torch.Generator().manual_seed(0),
        "noise_stream": torch.Generator().manual_seed(0),
    }
    values |= changes | {"callbacks": callbacks}
    task = _task.Task(module, _rows.InMemory(X), phases, **values)
    (member,) = _loop.train([task], engine)
    return member.history


@pytest.mark.parametrize(
    ("n", "size", "expected"),
    [
        (10, 4, [4, 3, 3]),
        (9, 4, [3, 3, 3]),
        (258, 128, [86, 86, 86]),
        (1, 4, [1]),
        (4, 4, [4]),
        (5, 1, [1, 1, 1, 1, 1]),
        (3, 2, [3]),
        (5, 2, [3, 2]),
        (3, 9, [3]),
    ],
)
def test_batches__every_row_once__even__no_batch_of_one(n, size, expected):
    order = torch.randperm(n)
    parts = list(_rows.even_parts(order, size))
    assert [len(p) for p in parts] == expected
    assert torch.equal(torch.cat(parts), order)


def test_epoch__sees_every_row_once_in_a_new_order():
    seen = []

    def loss(module, batch):
        seen.append(batch.x)
        return square(module, batch)

    run(Line(), [Phase("fit", 2, loss)])
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert not torch.equal(first, second)
    for rows in (first, second):
        assert torch.equal(rows.sort(0).values, X.sort(0).values)


def test_loop__equals_plain_torch():
    torch.manual_seed(0)
    module, twin = Line(), Line()
    twin.load_state_dict(module.state_dict())
    run(module, [Phase("fit", 3, square)], optimizer="adam")

    optimizer = torch.optim.Adam(twin.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for rows in torch.randperm(10, generator=generator).tensor_split(3):
            optimizer.zero_grad()
            twin(X[rows]).square().mean().backward()
            optimizer.step()
    for ours, theirs in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_history__is_the_mean_over_rows():
    """Without steps the loss of an epoch is that of the whole set, also with a short batch."""
    module = Line()
    whole = module(X).square().mean().item()
    history = run(module, [Phase("fit", 1, square, lr=1e-30)])
    assert history[0]["square"] == pytest.approx(whole, rel=1e-5)
    assert history[0]["phase"] == "fit"
    assert history[0]["seconds"] > 0


def test_params__only_the_selected_are_trained():
    module = Line()
    right = module.right.weight.clone()
    left = module.left.weight.clone()
    run(module, [Phase("fit", 2, square, params=("left",))])
    assert torch.equal(module.right.weight, right)
    assert not torch.equal(module.left.weight, left)


def test_cycle__phases_take_turns_within_each_batch():
    turns = []

    def note(name):
        def loss(module, batch):
            turns.append((name, len(batch.x)))
            return {name: module(batch.x).square().mean()}

        return loss

    phases = [
        Phase("first", 1, note("before")),
        Phase("a", 2, note("a"), params=("left",), cycle="game"),
        Phase("b", 2, note("b"), params=("right",), cycle="game"),
    ]
    history = run(Line(), phases)
    assert turns[:3] == [("before", 4), ("before", 3), ("before", 3)]
    assert turns[3:9] == [("a", 4), ("b", 4), ("a", 3), ("b", 3), ("a", 3), ("b", 3)]
    assert [h["phase"] for h in history] == ["first", "a", "a"]
    assert {"a", "b"} <= set(history[-1])


def test_milestones__divide_the_rate_by_ten():
    module = Line()
    steps = []

    def loss(module, batch):
        steps.append(module.left.bias.detach().clone())
        return {"slope": module.left.bias.sum()}  # gradient 1: the step is lr

    run(
        module,
        [Phase("fit", 3, loss, milestones=(1, 2))],
        batch_size=10,
        optimizer="adam",
    )
    steps.append(module.left.bias.detach())
    moves = [(a - b).item() for a, b in pairwise(steps)]
    assert moves == pytest.approx([0.1, 0.01, 0.001], rel=1e-3)


def test_refresh__sets_buffers_from_all_rows():
    mean = Refresh(lambda module, x: x, lambda rows: {"center": rows.mean(0)})
    module = Line()
    run(module, [Phase("fit", 1, square, start=mean)])
    torch.testing.assert_close(module.center, X.mean(0))


def test_refresh__each_epoch__after_skip():
    calls = []

    def reduce(rows):
        calls.append(len(rows))
        return {"center": rows.mean(0)}

    each = Refresh(lambda module, x: x, reduce)
    run(Line(), [Phase("fit", 5, square, each_epoch=each, skip=2)])
    assert calls == [10, 10, 10]


def test_callback__true_ends_the_phase_not_the_training():
    events = []

    def stop(event):
        events.append((event.phase, event.epoch))
        return event.epoch == 1

    run(Line(), [Phase("one", 5, square), Phase("two", 2, square)], callbacks=[stop])
    assert events == [("one", 0), ("one", 1), ("two", 0), ("two", 1)]


def test_callbacks__all_are_told_even_when_the_first_stops():
    heard = []
    callbacks = [lambda event: True, lambda event: heard.append(event.epoch)]
    run(Line(), [Phase("fit", 5, square)], callbacks=callbacks)
    assert heard == [0]


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_callback_end__called_once_per_phase_however_it_ends(error):
    class Recorder:
        ends = 0

        def __call__(self, event):
            if error:
                raise error

        def end(self):
            self.ends += 1

    recorder = Recorder()
    phases = [Phase("one", 2, square), Phase("two", 2, square)]
    if error:
        with pytest.raises(error):
            run(Line(), phases, callbacks=[recorder])
    else:
        run(Line(), phases, callbacks=[recorder])
    assert recorder.ends == (1 if error else 2)


def test_weight_decay__shrinks_the_weights():
    def nothing(module, batch):
        return {"nothing": 0 * module(batch.x).mean()}

    for optimizer in ("adam", "adamw", "sgd"):
        module = Line()
        before = module.left.weight.abs().sum()
        run(
            module,
            [Phase("fit", 3, nothing)],
            weight_decay=0.1,
            optimizer=optimizer,
            lr=1e-2,
        )
        assert module.left.weight.abs().sum() < before


def test_held_out__is_watched_with_the_same_noise_every_epoch():
    def noisy(module, batch):
        return {"noise": batch.noise.mean() + 0 * module(batch.x).mean()}

    history = run(
        Line(),
        [Phase("fit", 3, noisy)],
        noise=lambda n, generator: torch.randn(n, generator=generator),
        held_out=Batch(X[:6]),
    )
    assert len({h["validation_noise"] for h in history}) == 1
    assert len({h["noise"] for h in history}) == 3


def test_score__pads_but_returns_only_the_rows():
    sizes = []

    def total(module, x):
        sizes.append(len(x))
        return x.sum(1)

    out = apply.score(Line(), total, X.split(7), torch.device("cpu"), len(X))
    torch.testing.assert_close(out, X.sum(1))
    assert sizes == [apply.ROW_BLOCK] * 2


def test_chunk_rows__multiple_of_the_block():
    for shape in [(1,), (32,), (3, 32, 32), (10_000_000,)]:
        rows = apply.chunk_rows(shape)
        assert rows >= apply.ROW_BLOCK
        assert rows % apply.ROW_BLOCK == 0
        assert rows * np.prod(shape) <= max(apply.CHUNK_VALUES, apply.ROW_BLOCK * np.prod(shape))
