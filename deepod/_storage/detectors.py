"""Conversion of fitted detectors to descriptions and tensors and back, with all checks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from math import inf, prod
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deepod import callbacks, networks
from deepod._inputs.encoding import is_columns, restore_encoder
from deepod._inputs.scaling import Scaler
from deepod._registry import DETECTORS, GRAPHS, SERIES, detector_class
from deepod._scoring.apply import chunk_rows
from deepod._storage import rebuild
from deepod._storage import tensors as _tensors
from deepod._storage.card import PLACE
from deepod._storage.tensors import InvalidFileError, divided
from deepod.params import sizes
from deepod.types import Shape

_MODULE = "module."  # in front of the names of its tensors
MOST_CALLS = 30_000  # of torch while a network is built: hundreds of members, in a second
_LONGEST_PARAMS = 1 << 16  # characters of JSON
_DEEPEST = 100  # lists within lists in a parameter
# Integers that are no sizes of a network, or are at most as many as there are rows; and the largest
# size there may be in a network of few weights.
_NO_SIZES = {"epochs", "pretrain_epochs", "warmup_epochs", "k_neighbors"}
_NO_SIZES |= {"n_prototypes", "rows_per_prototype", "reach", "max_rows", "n_neighbors"}
_LARGEST_SIZE = 1 << 17
_MOST_CHANNELS = 1024  # what a layer puts out for each value of a large image, at most
# Parameters of detectors that are objects may be of these classes.
_OBJECTS: dict[str, type] = {cls.__name__: cls for cls in networks.FAMILIES.values()}
_OBJECTS |= {cls.__name__: cls for cls in (callbacks.EarlyStopping, callbacks.Progress)}


# --- what fit leaves on a detector besides the module -------------------------------------------


def _has_type(*types: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in types


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(_count(v) and v > 0 for v in value)


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is str for v in value)


def _rule(value: Any) -> bool:
    return value is None or (
        isinstance(value, list)
        and len(value) == 2
        and all(v is None or type(v) in (bool, int, float, str) for v in value)
    )


# Attributes in the description, with checks of their values, and attributes that are tensors. An
# attribute that fit sets must be listed here, or the detector cannot be saved.
PLAIN: dict[str, Callable[[Any], bool]] = {
    "columns_": is_columns,
    "contrast_": _has_type(bool),
    "engine_": _has_type(str),
    "epochs_": _count,
    "feature_names_in_": _names,
    "given_threshold_": _has_type(float, type(None)),
    "given_under_": _rule,
    "history_": _tensors.is_history,
    "input_shape_": _sizes,
    "n_features_in_": _count,
    "unseen_": _has_type(bool),
    "window_": _count,
    "_n_training": _count,
}
ARRAYS = (
    *("shift_", "scale_", "fill_", "baseline_"),
    *("_training_scores", "_point_scores", "calibration_scores_"),
)
# The only ones that may be missing.
_SOMETIMES = {
    "window_",
    "columns_",
    "feature_names_in_",
    "_point_scores",
    "calibration_scores_",
    "given_under_",
    "unseen_",
}
_OR_NONE = {"fill_": _has_type(type(None))}  # the only tensor that may be None
# Made again of the others when a model is loaded.
_DERIVED = {
    *("module_", "device_", "scaler_", "encoder_"),
    *("_fitted_params", "_thresholded_", "_mu", "_sigma", "_classes"),
}
# Nobody needs these of a model that was loaded.
_DERIVED |= {"_unseen_scores"}


# --- save ---------------------------------------------------------------------------------------


def described(detector: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the description (JSON) and the tensors of a fitted detector."""
    detector._validate_params()  # or the file could not be loaded
    name = type(detector).__name__
    threshold = threshold_of(detector)
    given = {k: v for k, v in detector.get_params(deep=False).items() if k != PLACE}
    params = {key: encoded(value, key) for key, value in given.items()}
    built = {key: _encoded_as_fitted(value, key) for key, value in detector._fitted_params.items()}
    state = {key: v for key, v in vars(detector).items() if _is_fitted(key) and key not in _DERIVED}
    state |= {f"{part}_": value for part, value in detector.scaler_.state().items()}
    unknown = sorted(set(state) - {*PLAIN, *ARRAYS})
    if unknown:
        raise TypeError(
            f"{name} has attributes that cannot be saved: {unknown}; delete them, or store them as "
            "buffers of the module."
        )
    arrays = {key: state[key] for key in ARRAYS if key in state}
    fitted = as_plain({key: state[key] for key in PLAIN if key in state})
    fitted |= {key: None for key, value in arrays.items() if value is None}
    description = {
        "detector": name,
        "params": params,
        # Parameters that were changed after fit; the network was built with the old values.
        "fitted_with": {key: value for key, value in built.items() if value != params[key]},
        "fitted": fitted,
        "threshold": threshold,
    }
    tensors = {_MODULE + k: v for k, v in detector.module_.state_dict().items()}
    return description, tensors | {k: v for k, v in arrays.items() if v is not None}


def as_plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes, such as those of ``PLAIN``, as plain values for the description."""
    plain = {key: _listed(value) for key, value in state.items()}
    if hasattr((plain["given_under_"] or [None])[0], "fit"):  # a thresholder, used no longer
        plain["given_threshold_"] = plain["given_under_"] = None
    return plain


def threshold_of(detector: Any) -> float | None:
    """Return the threshold, or None if it needs ``calibrate`` first."""
    try:
        return detector.threshold_
    except NotFittedError:
        return None


def _is_fitted(name: str) -> bool:
    return name.endswith("_") or name in PLAIN or name in ARRAYS or name in _DERIVED


def encoded(value: Any, name: str) -> Any:
    """Return a parameter as JSON; tuples and objects become JSON objects with one and two keys."""
    if isinstance(value, np.generic):
        value = value.item()
    elif isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list):
        return [encoded(v, name) for v in value]
    if isinstance(value, tuple):
        return {"tuple": [encoded(v, name) for v in value]}
    if _OBJECTS.get(type(value).__name__) is type(value):
        params = value.get_params(deep=False) if hasattr(value, "get_params") else vars(value)
        public = {k: v for k, v in params.items() if not k.startswith("_")}
        return {
            "object": type(value).__name__,
            "params": {k: encoded(v, f"{name}__{k}") for k, v in public.items()},
        }
    raise TypeError(
        f"{name}={value!r} cannot be saved, because files hold only numbers, strings and "
        f"descriptions of networks. Call set_params({name}=...) with such a value first, or use "
        "joblib.dump and load only files that you trust."
    )


def _encoded_as_fitted(value: Any, name: str) -> Any:
    try:
        return encoded(value, name)
    except TypeError as error:
        raise TypeError(
            f"{name} was {value!r} in fit, which cannot be saved, and the network may depend on "
            "it: fit again with a number, a string or a network, or use joblib.dump."
        ) from error


def _listed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return [v.item() if isinstance(v, np.generic) else v for v in value]
    return value


# --- load ---------------------------------------------------------------------------------------


def _class_of(name: Any, own: Mapping[str, type]) -> Any:
    """Return the class that a description names."""
    if name not in own and name not in DETECTORS | SERIES:
        raise InvalidFileError(
            f"{str(name)[:80]!r} is not a detector of deepod; if the class is yours and you trust "
            "the file, pass the class in detectors=[...]"
        )
    return own[name] if name in own else detector_class(name)


def check_keys(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise InvalidFileError for entries that are not known."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InvalidFileError(f"{what} holds unknown entries {[k[:80] for k in unknown[:5]]}")


def check_all_there(needed: Iterable[str], given: Iterable[str]) -> None:
    """Raise InvalidFileError if an entry is missing."""
    missing = sorted(set(needed) - set(given))
    if missing:
        raise InvalidFileError(f"it lacks the entries {', '.join(missing)}")


def blank(
    description: dict[str, Any],
    tensors: Mapping[str, Tensor],
    own: Mapping[str, type],
    sparing: Sparing,
    max_bytes: float,
) -> Any:
    """Build the detector of a description, without the values of its tensors.

    Parameters
    ----------
    description : dict
        A description by :func:`described`.
    tensors : mapping of Tensor
        The tensors of the file, on the device "meta".
    own : mapping of type
        The user's own classes that the file may name, by their names.
    sparing : Sparing
    max_bytes : float
        Limit on the memory that convolutions take in scoring.
    """
    known = {"detector", "params", "fitted_with", "fitted", "threshold"}
    check_keys("the description", description, known)
    cls = _class_of(description["detector"], own)
    weights, others = divided(tensors, _MODULE)
    detector = with_params(cls, description, weights)
    set_plain(detector, description["fitted"], PLAIN | _OR_NONE)
    check_features(detector, detector._fitted_params["input_shape"])
    sparing.most_values = inf
    with sparing:
        detector.module_ = rebuild.build_again(detector, "meta")
    expected = {name: tensor.dtype for name, tensor in detector.module_.state_dict().items()}
    detector.module_.load_state_dict(weights, assign=True)  # compares names and shapes
    if expected != {name: tensor.dtype for name, tensor in weights.items()}:
        raise InvalidFileError("its weights are of another type than the network's")
    _check_memory(detector, sparing, max_bytes)
    check_tensors(others, ARRAYS, description["fitted"])
    if cls.__name__ in SERIES:
        check_all_there(["_point_scores"], others)
        check_all_there(["window_"], description["fitted"])
    return detector


def check_tensors(
    tensors: Mapping[str, Tensor], known: Iterable[str], none: Iterable[str] = ()
) -> None:
    """Check tensors against the ``known`` ones of ``ARRAYS``, of which some may be ``none``."""
    check_keys("the file", tensors, known)
    check_all_there(set(known) - _SOMETIMES, {*tensors, *none})
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float64:
            raise InvalidFileError(f"{name} is {tensor.dtype} instead of float64")


def with_params(cls: Any, description: dict[str, Any], weights: dict[str, Tensor]) -> Any:
    """Return a detector with the parameters of a description, and those of its network's build."""
    known = set(cls._parameter_constraints) - {PLACE}
    for key in ("params", "fitted_with"):
        check_keys(key, description[key], known)
        if len(json.dumps(description[key])) > _LONGEST_PARAMS:
            raise InvalidFileError(f"{key} are longer than {_LONGEST_PARAMS} characters")
    detector = cls(**{name: decoded(value) for name, value in description["params"].items()})
    detector._validate_params()
    built = detector.get_params(deep=False)
    built |= {name: decoded(value) for name, value in description["fitted_with"].items()}
    cls(**built)._validate_params()
    if cls.__name__ in DETECTORS | SERIES | GRAPHS:  # what others are built by, their authors know
        # Each layer and member has a value in the file: larger numbers would build more in vain.
        largest = max(_LARGEST_SIZE, sum(t.numel() for t in weights.values()))
        _check_sizes({name: built[name] for name in sizes(cls)}, largest)
    detector._fitted_params = rebuild.built_by(built)
    return detector


def set_plain(
    detector: Any, fitted: dict[str, Any], checks: Mapping[str, Callable[[Any], bool]]
) -> None:
    """Set the attributes of a description that pass their ``checks``."""
    check_keys("fitted", fitted, checks)
    check_all_there(set(checks) - _SOMETIMES - set(_OR_NONE), fitted)
    for name, value in fitted.items():
        if not checks[name](value):
            raise InvalidFileError(f"{name} has the impossible value {str(value)[:80]!r}")
        if name not in ("contrast_", "fill_"):  # of the scaler, which is made when its arrays are
            setattr(detector, name, value)


def _check_memory(detector: Any, sparing: Sparing, max_bytes: float) -> None:
    """Raise InvalidFileError for convolutions whose outputs would exceed ``max_bytes``."""
    if any(isinstance(part, nn.modules.conv._ConvNd) for part in detector.module_.modules()):
        shape = detector.input_shape_
        most = max_bytes / (4 * chunk_rows(shape))
        sparing.most_values = max(most, _MOST_CHANNELS * prod(shape))
        # A class of somebody else may do what cannot be done without values.
        with sparing, torch.inference_mode(), suppress(RuntimeError):
            detector._score(detector.module_, torch.empty((1, *shape), device="meta"))


def check_features(detector: Any, given: Any) -> None:
    """Restore the shape and the names of the features, after a check.

    ``given`` is the parameter ``input_shape``.
    """
    shape = detector.input_shape_ = tuple(detector.input_shape_)
    features = shape[0] if given is None else prod(shape)
    restore_encoder(detector)
    if "encoder_" in detector.__dict__:
        encoder = detector.encoder_
        features = len(encoder.columns) if shape == (len(encoder.source),) else -1
    same = given is None or prod(given) == prod(shape)
    if len(shape) > 3 or not same or detector.n_features_in_ != features:
        raise InvalidFileError("its number of features does not fit its samples")
    if hasattr(detector, "feature_names_in_"):
        names = detector.feature_names_in_ = np.array(detector.feature_names_in_, dtype=object)
        if len(names) != detector.n_features_in_:
            raise InvalidFileError("it does not have a name for each feature")


class Sparing(TorchFunctionMode):
    """A guard that stops the building of a network that is too large for any honest file."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.most_calls = 0, MOST_CALLS
        self.most_values = inf  # that a layer puts out

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        if self.calls > self.most_calls:
            raise InvalidFileError("its parameters describe a network with too many layers")
        kwargs = kwargs or {}
        if func is nn.init.kaiming_uniform_:  # there are no values to set
            return kwargs["tensor"]
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and result.numel() > self.most_values:
            raise InvalidFileError(
                "scoring would take more memory than max_bytes; raise it if you trust the file"
            )
        return result


def _check_sizes(value: Any, largest: int) -> None:
    if isinstance(value, networks.Network):
        value = value.get_params(deep=False)
    if isinstance(value, dict):
        value = [v for name, v in value.items() if name not in _NO_SIZES]
    if isinstance(value, list | tuple):
        for v in value:
            _check_sizes(v, largest)
    elif isinstance(value, int) and abs(value) > largest:
        raise InvalidFileError(
            f"the parameter value {str(value)[:80]} is larger than its network can be"
        )


def decoded(value: Any, depth: int = 0) -> Any:
    """Return the parameter that JSON stands for; ``depth`` counts the lists around the value."""
    if depth > _DEEPEST:  # Python versions differ in how deep they can go
        raise InvalidFileError(f"a parameter has more than {_DEEPEST} lists within lists")
    if isinstance(value, list):
        return [decoded(v, depth + 1) for v in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"tuple"}:
        found = decoded(value["tuple"], depth + 1)
        if not isinstance(found, list):
            raise InvalidFileError("a tuple is not written as a list")
        return tuple(found)
    if set(value) != {"object", "params"} or value["object"] not in _OBJECTS:
        raise InvalidFileError(f"{str(value)[:80]!r} is not a value that a parameter can have")
    cls = _OBJECTS[value["object"]]
    return cls(**{name: decoded(v, depth + 1) for name, v in value["params"].items()})


def fill(detector: Any, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """Fill a detector with the values of the tensors."""
    rebuild.restore_module(detector, divided(tensors, _MODULE)[0])
    arrays = {name: tensors[name].numpy() for name in ARRAYS if name in tensors}
    _check_arrays(arrays, detector.input_shape_, detector._n_training)
    known = arrays.pop("fill_", None)
    contrast = description["fitted"]["contrast_"]
    detector.scaler_ = Scaler(arrays.pop("shift_"), arrays.pop("scale_"), contrast, known)
    for name, values in arrays.items():
        setattr(detector, name, values)
    set_threshold(detector)


def parts(detector: Any) -> list[Any]:
    """Return the parts that are on a device."""
    return [detector]


def set_threshold(detector: Any) -> None:
    """Compute the threshold from the training scores and the attributes of a file."""
    detector._keep_scores(detector._training_scores, detector._n_training)
    under = getattr(detector, "given_under_", None)
    detector.set_threshold(detector.given_threshold_)
    if under is not None:
        detector.given_under_ = tuple(under)
    threshold_of(detector)  # what is wrong with it is said now


def _check_arrays(arrays: dict[str, np.ndarray], shape: Shape, n: int) -> None:
    """Raise ValueError for arrays that a detector of samples of ``shape`` cannot have."""
    scaling = [arrays[name] for name in ("shift_", "scale_", "fill_") if name in arrays]
    if any(np.broadcast_shapes(values.shape, shape) != shape for values in scaling):
        raise ValueError("its scaling does not fit its samples")
    if not all(np.isfinite(values).all() for values in scaling):
        raise ValueError("its scaling is not finite")
    if not (arrays["scale_"] > 0).all():
        raise ValueError("its scaling is not positive")
    if arrays["baseline_"].shape != shape or not np.isfinite(arrays["baseline_"]).all():
        raise ValueError("its baseline does not fit its samples, or is not finite")
    check_scores(arrays, n)


def check_scores(arrays: Mapping[str, np.ndarray], n: int) -> None:
    """Raise ValueError for scores that n training rows, or calibration rows, cannot have."""
    scores = arrays["_training_scores"]
    if scores.ndim != 1 or not 0 < len(scores) <= n:
        raise ValueError("it has no training scores, or too many")
    if not np.isfinite(scores).all():
        raise ValueError("its training scores are not finite")
    points = arrays.get("_point_scores", np.zeros(1))
    if points.ndim != 1 or not len(points) or not np.isfinite(points).all():
        raise ValueError("the scores of its training points are not finite")
    calibration = arrays.get("calibration_scores_", np.zeros(1))
    if calibration.ndim != 1 or not len(calibration) or not np.isfinite(calibration).all():
        raise ValueError("its calibration scores are not finite")
    if (np.diff(calibration) < 0).any():
        raise ValueError("its calibration scores are not in order")
