"""Callbacks, driven by hand."""

import pytest
import torch
from torch import nn

from deepod.callbacks import EarlyStopping, Event


def drive(callback, losses, validation=None):
    """Feed a sequence of losses; the module's weight is the epoch's number."""
    module = nn.Linear(1, 1)
    for epoch, loss in enumerate(losses):
        with torch.no_grad():
            module.weight.fill_(float(epoch))
        watched = {} if validation is None else {"a": validation[epoch]}
        event = Event("fit", epoch, len(losses), {"a": loss, "b": 1.0}, watched, 0.0, True, module)
        if callback(event):
            break
    callback.end()
    return epoch, module.weight.item()


def test_early_stopping__patience__stops_and_restores():
    assert drive(EarlyStopping(patience=2), [3, 1, 2, 2, 2, 0]) == (3, 1.0)


def test_early_stopping__plan_ends_first__restores_too():
    assert drive(EarlyStopping(patience=9), [3, 1, 2]) == (2, 1.0)


def test_early_stopping__min_delta__small_falls_do_not_count():
    assert drive(EarlyStopping(patience=2, min_delta=0.5), [3, 2.9, 2.8, 0]) == (2, 0.0)


def test_early_stopping__held_out_rows__come_first():
    assert drive(EarlyStopping(patience=1), [3, 2, 1], validation=[1, 2, 3]) == (1, 0.0)


def test_early_stopping__same_object_twice__starts_afresh():
    callback = EarlyStopping(patience=2)
    drive(callback, [0, 0, 0])
    assert drive(callback, [5, 4, 3]) == (2, 2.0)


def test_early_stopping__nan_from_the_start__keeps_going_and_survives():
    nan = float("nan")
    assert drive(EarlyStopping(patience=2), [nan, nan, nan]) == (1, 1.0)
    assert drive(EarlyStopping(patience=2), [nan, 2, 1]) == (2, 2.0)


def test_early_stopping__phase_ended_by_others__restores_and_keeps_nothing():
    stopping = EarlyStopping(patience=50)
    assert drive(stopping, [1, 2, 3]) == (2, 0.0)
    assert not [v for v in vars(stopping).values() if isinstance(v, (dict, nn.Module)) and v]


def test_early_stopping__unknown_term__named():
    with pytest.raises(ValueError, match="monitor='c'"):
        drive(EarlyStopping(monitor="c"), [1])
