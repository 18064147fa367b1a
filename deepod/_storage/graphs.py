"""Conversion of fitted detectors of dynamic graphs to descriptions and tensors, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from deepod._inputs.scaling import Scaler
from deepod._registry import GRAPHS, detector_class
from deepod._storage import detectors, rebuild
from deepod._storage.detectors import PLAIN, Sparing
from deepod._storage.tensors import InvalidFileError, divided

_MODULE = "module."  # in front of the names of its tensors
# What fit leaves, in the description and as tensors. Of detectors with attributes, their scaling.
_PLAIN: dict[str, Callable[[Any], bool]] = {
    name: PLAIN[name]
    for name in (
        *("given_threshold_", "given_under_", "history_", "input_shape_"),
        *("n_features_in_", "_n_training"),
    )
}
_PLAIN |= {"n_nodes_": PLAIN["_n_training"], "snapshot_size_": PLAIN["_n_training"]}
_ARRAYS = (*("shift_", "scale_"), *("_point_scores", "_training_scores", "calibration_scores_"))
_SOMETIMES = ("shift_", "scale_", "calibration_scores_")
_DERIVED = {"module_", "device_", "scaler_", "_fitted_params"}
_DERIVED |= {"_thresholded_", "_mu", "_sigma", "_classes"}


def described(detector: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the description (JSON) and the tensors of a fitted detector of graphs.

    Raises
    ------
    TypeError
        If it is of a user's own class, or has a parameter that cannot be saved.
    """
    name = type(detector).__name__
    if type(detector) is not detector_class(name):
        raise TypeError(
            f"{name} is not one of deepod's detectors of graphs and cannot be saved: use "
            "joblib.dump, and load only files that you trust."
        )
    detector._validate_params()  # or the file could not be loaded
    given = detector.get_params(deep=False)
    params = {key: detectors.encoded(value, key) for key, value in given.items()}
    built = {key: detectors.encoded(value, key) for key, value in detector._fitted_params.items()}
    state = {k: v for k, v in vars(detector).items() if k not in given and k not in _DERIVED}
    if hasattr(detector, "scaler_"):
        state |= {"shift_": detector.scaler_.shift, "scale_": detector.scaler_.scale}
    if set(state) - {*_PLAIN, *_ARRAYS}:
        unknown = sorted(set(state) - {*_PLAIN, *_ARRAYS})
        raise TypeError(f"{name} has attributes that cannot be saved: {unknown}; delete them.")
    description = {
        "detector": name,
        "params": params,
        "fitted_with": {key: value for key, value in built.items() if value != params[key]},
        "fitted": detectors.as_plain({k: v for k, v in state.items() if k in _PLAIN}),
        "threshold": detectors.threshold_of(detector),
    }
    tensors = {_MODULE + key: value for key, value in detector.module_.state_dict().items()}
    return description, tensors | {key: state[key] for key in _ARRAYS if key in state}


def blank(
    description: dict[str, Any],
    tensors: Mapping[str, Tensor],
    own: Mapping[str, type],
    sparing: Sparing,
    max_bytes: float,
) -> Any:
    """Build the detector of a description, without the values of its tensors."""
    known = {"detector", "params", "fitted_with", "fitted", "threshold"}
    detectors.check_keys("the description", description, known)
    weights, rest = divided(tensors, _MODULE)
    cls = detector_class(description["detector"])
    detector = detectors.with_params(cls, description, weights)
    of_edges = "snapshot_size" in cls._parameter_constraints
    plain = {k: v for k, v in _PLAIN.items() if of_edges or k != "snapshot_size_"}
    detectors.set_plain(detector, description["fitted"], plain)
    detector.input_shape_ = tuple(detector.input_shape_)
    # Each node has a row among the buffers: more would be built in vain.
    if detector.n_nodes_ > sum(tensor.numel() for tensor in weights.values()):
        raise InvalidFileError("it has more nodes than there are values in the file")
    with sparing:
        detector.module_ = rebuild.build_again(detector, "meta")
    expected = {name: tensor.dtype for name, tensor in detector.module_.state_dict().items()}
    detector.module_.load_state_dict(weights, assign=True)  # compares names and shapes
    if expected != {name: tensor.dtype for name, tensor in weights.items()}:
        raise InvalidFileError("its weights are of another type than the network's")
    detectors.check_tensors(rest, _ARRAYS, _SOMETIMES)
    return detector


def fill(detector: Any, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """Fill a detector with the values of the tensors."""
    weights, rest = divided(tensors, _MODULE)
    rebuild.restore_module(detector, weights)
    arrays = {name: tensor.numpy() for name, tensor in rest.items()}
    if "scale_" in arrays:
        shift, scale = arrays.pop("shift_"), arrays.pop("scale_")
        shape = detector.input_shape_[-1:]
        if shift.shape != shape or scale.shape != shape or not np.isfinite(shift).all():
            raise ValueError("its scaling does not fit its attributes, or is not finite")
        if not (np.isfinite(scale) & (scale > 0)).all():
            raise ValueError("its scaling is not positive")
        detector.scaler_ = Scaler(shift, scale)
    detectors.check_scores(arrays, detector._n_training)
    vars(detector).update(arrays)
    detectors.set_threshold(detector)


def parts(detector: Any) -> list[Any]:
    """Return the parts that are on a device."""
    return [detector]


def holds(name: Any) -> bool:
    """Return whether the class of this name is a detector of graphs."""
    return name in GRAPHS
