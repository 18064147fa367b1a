"""Conversion of fitted ``Windows``, with their detector, to descriptions and tensors, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
from sklearn.base import clone
from torch import Tensor

from deepod._inputs.scaling import Scaler
from deepod._registry import SERIES, detector_class
from deepod._storage import detectors
from deepod._storage.detectors import PLAIN, Sparing
from deepod._storage.tensors import InvalidFileError, divided

_MEMBER = "detector."  # in front of the names of its tensors
# What fit leaves, in the description and as tensors.
_PLAIN: dict[str, Callable[[Any], bool]] = {
    name: PLAIN[name]
    for name in (
        *("feature_names_in_", "given_threshold_", "given_under_", "input_shape_"),
        *("n_features_in_", "unseen_", "window_", "_n_training"),
    )
}
_ARRAYS = (
    *("shift_", "scale_", "error_weights_"),
    *("_point_scores", "_training_scores", "calibration_scores_"),
)
_SOMETIMES = ("error_weights_", "calibration_scores_")
_DERIVED = {
    *("detector_", "scaler_", "_thresholded_", "_mu", "_sigma", "_classes"),
    "_unseen_scores",  # nobody needs these of a model that was loaded
}


def described(windows: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the description (JSON) and the tensors of a fitted ``Windows``.

    Raises
    ------
    TypeError
        If its detector is not one of deepod, or has a parameter that cannot be saved.
    """
    name, member = type(windows).__name__, windows.detector_
    if type(windows) is not detector_class("Windows") or not hasattr(member, "module_"):
        raise TypeError(
            f"{type(member).__name__} in {name} is not a detector of deepod and cannot be saved: "
            "use joblib.dump, and load only files that you trust."
        )
    windows._validate_params()  # or the file could not be loaded
    description, tensors = detectors.described(member)
    params = windows.get_params(deep=False)
    state = {k: v for k, v in vars(windows).items() if k not in params and k not in _DERIVED}
    state |= {f"{part}_": value for part, value in windows.scaler_.state().items()}
    known = {*_PLAIN, *_ARRAYS, "contrast_", "fill_"}
    if set(state) - known:
        raise TypeError(
            f"{name} has attributes that cannot be saved: {sorted(set(state) - known)}; delete "
            "them."
        )
    found = {
        "detector": name,
        "params": {k: detectors.encoded(v, k) for k, v in params.items() if k != "detector"},
        "member": description,
        "fitted": detectors.as_plain({k: v for k, v in state.items() if k in _PLAIN}),
        "threshold": detectors.threshold_of(windows),
    }
    arrays = {key: state[key] for key in _ARRAYS if state.get(key) is not None}
    return found, {_MEMBER + key: value for key, value in tensors.items()} | arrays


def blank(
    description: dict[str, Any],
    tensors: Mapping[str, Tensor],
    own: Mapping[str, type],
    sparing: Sparing,
    max_bytes: float,
) -> Any:
    """Build the ``Windows`` of a description, without the values of its tensors."""
    known = {"detector", "params", "member", "fitted", "threshold"}
    detectors.check_keys("the description", description, known)
    inner, rest = divided(tensors, _MEMBER)
    if description["member"].get("detector") in SERIES:
        raise InvalidFileError("its detector is one of series instead of windows")
    member = detectors.blank(description["member"], inner, own, sparing, max_bytes)
    cls = detector_class("Windows")
    allowed = set(cls._parameter_constraints) - {"detector"}
    detectors.check_keys("params", description["params"], allowed)
    given = {name: detectors.decoded(value) for name, value in description["params"].items()}
    windows = cls(clone(member), **given)
    windows._validate_params()
    detectors.set_plain(windows, description["fitted"], _PLAIN)
    detectors.check_features(windows, None)
    windows.detector_ = member
    if prod(member.input_shape_) != windows.window_ * windows.n_features_in_:
        raise InvalidFileError("its windows are not those of its detector")
    detectors.check_tensors(rest, _ARRAYS, _SOMETIMES)
    return windows


def fill(windows: Any, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """Fill ``Windows`` with the values of the tensors."""
    inner, rest = divided(tensors, _MEMBER)
    detectors.fill(windows.detector_, inner, description["member"])
    arrays = {name: tensor.numpy() for name, tensor in rest.items()}
    shift, scale = arrays.pop("shift_"), arrays.pop("scale_")
    weights = arrays.pop("error_weights_", None)
    shape = windows.input_shape_
    for values in (shift, scale, *([] if weights is None else [weights])):
        if values.shape != shape or not np.isfinite(values).all():
            raise ValueError("its scaling does not fit its channels, or is not finite")
    if not (scale > 0).all():
        raise ValueError("its scaling is not positive")
    windows.scaler_, windows.error_weights_ = Scaler(shift, scale), weights
    detectors.check_scores(arrays, windows._n_training)
    vars(windows).update(arrays)
    detectors.set_threshold(windows)


def parts(windows: Any) -> list[Any]:
    """List what is on a device: the fitted detector, and what another fit would start from."""
    fitted = [windows.detector_] if hasattr(windows, "detector_") else []
    return [*fitted, windows.detector]
