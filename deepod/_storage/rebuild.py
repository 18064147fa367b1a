"""Rebuilding of the modules of detectors that are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from sklearn.base import clone
from torch import Tensor, nn

from deepod._inputs.seeds import global_generator
from deepod._inputs.settings import fixed
from deepod._inputs.validation import resolve_device

# Shared hyper-parameters on which no module depends.
_BUILD_NOTHING = {
    *("calibration_fraction", "callbacks", "checkpoint", "checkpoint_every", "contamination"),
    *("cross_fitting", "false_alarm_rate", "lr", "max_grad_norm", "memory_limit", "missing"),
    *("random_state", "scaler", "suspects", "validation_fraction", "verbose", "weight_decay"),
}


def built_by(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the hyper-parameters on which a module may depend."""
    return {k: clone(v, safe=False) for k, v in params.items() if k not in _BUILD_NOTHING}


def build_again(detector: Any, device: str) -> nn.Module:
    """Build the module as ``fit`` did; on the device "meta", its tensors take no memory."""
    params = detector.get_params(deep=False)
    builder = type(detector)(**params | detector._fitted_params)
    builder.__dict__ |= {k: v for k, v in vars(detector).items() if k not in params}
    with fixed(), global_generator(), torch.device(device):
        return builder._build_module(detector.input_shape_).float().eval()


def restore_module(detector: Any, tensors: dict[str, Tensor]) -> None:
    """Rebuild the module with these parameters and buffers."""
    try:
        module = build_again(detector, "meta")
        module.load_state_dict(tensors, assign=True)
        whole = not any(t.is_meta for t in chain(module.parameters(), module.buffers()))
    except (RuntimeError, NotImplementedError):
        whole = False
    if not whole:  # a class of the user's may need values to build, or have some that are fixed
        module = build_again(detector, "cpu")
        module.load_state_dict(tensors)
    detector.module_ = module


def to_device(detector: Any, strictly: bool = False) -> None:
    """Move a detector to the device that ``device`` stands for on this machine.

    If that fails (there is no such GPU, a forked process may not use it, or its memory is full), it
    is moved to the CPU, unless ``strictly``.
    """
    try:
        detector.device_ = resolve_device(detector.device)
        detector.module_.to(detector.device_)
    except (ValueError, RuntimeError):
        if strictly:
            raise
        detector.device_ = torch.device("cpu")
        detector.module_.to(detector.device_)
