"""The description of a fit, by which a checkpoint recognises it."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from deepod._training.checkpoint import describe, describe_data
from deepod._training.task import remembers

# Hyper-parameters that do not affect training, or that a checkpoint stores in another form.
_NOT_IN_TRAINING = {
    *("contamination", "false_alarm_rate", "verbose", "checkpoint", "checkpoint_every"),
    *("random_state", "callbacks", "device"),
}


def identity_of(fit: Any) -> dict[str, Any]:
    """Return a description of the class, the parameters, the data and the start of a fit."""
    detector = fit.trained
    identity: dict[str, Any] = {
        "class": f"{type(detector).__module__}.{type(detector).__qualname__}"
    }
    identity |= {
        name: describe(name, value)
        for name, value in detector.get_params(deep=False).items()
        if name not in _NOT_IN_TRAINING
    }
    # The seeds in the file are what an unseeded fit has drawn.
    seeded = isinstance(detector.random_state, Integral)
    state = describe("random_state", detector.random_state) if seeded else None
    identity |= {
        "random_state": state,
        "callbacks": [type(c).__qualname__ for c in detector.callbacks if remembers(c)],
        "device": str(detector.device_),
        "X": describe_data(fit.rows),
        "y": describe_data(fit.labels),
    }
    return identity | fit.start.identity()
