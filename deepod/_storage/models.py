"""Saved models: fitted detectors as files of tensors and JSON that load without running code.

A file is untrusted until all of it has been checked: classes are looked up, never imported by name;
networks are built without memory first, and tensors are read only if they fit them.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import BytesIO
from math import inf, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deepod import callbacks, networks
from deepod._inputs.scaling import Scaler
from deepod._registry import DETECTORS, __version__, detector_class
from deepod._scoring.apply import chunk_rows
from deepod._storage import atomic, rebuild
from deepod._storage import tensors as _tensors
from deepod._storage.card import CARD, CONFIG, PLACE, WEIGHTS, card
from deepod._storage.tensors import Header, InvalidFileError
from deepod.params import sizes
from deepod.types import Shape

if TYPE_CHECKING:
    from deepod._base import BaseDetector

FORMAT = 1  # of the files; a newer one is refused
_SUFFIXES = (".deepod", ".safetensors")
_MODULE = "module."  # in front of the names of its tensors
_MOST_CALLS = 30_000  # of torch while a network is built: hundreds of members, in a second
_LONGEST_PARAMS = 1 << 16  # characters of JSON
# Integers that are no sizes of a network, or are at most as many as there are rows; and the largest
# size there may be in a network of few weights.
_NO_SIZES = {"epochs", "pretrain_epochs", "warmup_epochs", "k_neighbors"}
_NO_SIZES |= {"n_prototypes", "rows_per_prototype", "reach"}
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


# Attributes in the description, with what they must look like there, and attributes that are
# tensors. Whatever else fit should leave behind has to be listed here, or it cannot be saved.
PLAIN: dict[str, Callable[[Any], bool]] = {
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
    "_n_training": _count,
}
ARRAYS = (
    *("shift_", "scale_", "fill_", "baseline_"),
    *("_training_scores", "calibration_scores_"),
)
# The only ones that may be missing.
_SOMETIMES = {"feature_names_in_", "calibration_scores_", "given_under_", "unseen_"}
_OR_NONE = {"fill_": _has_type(type(None))}  # the only tensor that may be None
# Made again of the others when a model is loaded.
_DERIVED = {
    *("module_", "device_", "scaler_"),
    *("_fitted_params", "_thresholded_", "_mu", "_sigma", "_classes"),
}
# Nobody needs these of a model that was loaded.
_DERIVED |= {"_unseen_scores"}


# --- save ---------------------------------------------------------------------------------------


def save(detector: Any, path: Any) -> None:
    """Write a fitted detector; see :meth:`deepod.BaseDetector.save`."""
    path = Path(path)
    description, tensors = _described(detector)
    data = _tensors.pack(description, tensors)
    try:
        with _tensors.parsing():
            _blank(type(detector), _tensors.read_header(BytesIO(data), len(data)))
    except InvalidFileError as error:  # now, not when it is needed
        raise ValueError(f"This detector could not be loaded again: {error}.") from error
    if _is_file(path):
        _write({path: data})
        return
    check_place(path)
    contents = {
        path / WEIGHTS: data,
        path / CONFIG: json.dumps(description, indent=2).encode(),
        path / CARD: card(description, detector).encode(errors="replace"),
    }
    made = not path.exists()
    try:
        path.mkdir(exist_ok=True)
        _write(contents)
    except BaseException:
        if made:
            with suppress(OSError):  # somebody else may have put a file there
                path.rmdir()
        raise


def _write(contents: dict[Path, bytes]) -> None:
    for path in contents:
        atomic.prepare(path)
    atomic.write(contents)


def _is_file(path: Path) -> bool:
    """Whether a model of this name is a single file."""
    return path.suffix in _SUFFIXES and not path.is_dir()


def check_place(path: Path) -> None:
    """Refuse a name under which no model can be written, or which something else has.

    Raises
    ------
    OSError
        Says what is in the way.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent}.")
    for place in (path if path.is_dir() else path.parent, path):
        if place.exists() and not os.access(place, os.W_OK):
            raise PermissionError(f"{place} is write-protected; choose another name.")
    if _is_file(path) or not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(
            f"{path} is a file and no folder; give another name, or one that ends in .deepod."
        )
    if not all(atomic.is_partial(file) for file in path.iterdir()):
        try:
            _check_format(_tensors.peek(path / WEIGHTS))
        except (OSError, InvalidFileError) as error:
            raise FileExistsError(
                f"{path} is a folder with other things in it; give the name of a new or an empty "
                "folder, or of a saved model."
            ) from error


def _described(detector: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Describe a fitted detector, and list its tensors."""
    detector._validate_params()  # or the file could not be loaded
    name = type(detector).__name__
    threshold = _threshold(detector)
    given = {k: v for k, v in detector.get_params(deep=False).items() if k != PLACE}
    params = {key: _encoded(value, key) for key, value in given.items()}
    built = {key: _encoded_as_fitted(value, key) for key, value in detector._fitted_params.items()}
    state = {key: v for key, v in vars(detector).items() if _is_fitted(key) and key not in _DERIVED}
    state |= {f"{name}_": value for name, value in detector.scaler_.state().items()}
    unknown = sorted(set(state) - {*PLAIN, *ARRAYS})
    if unknown:
        raise TypeError(
            f"{name} has attributes that no file can hold: {unknown}; delete them, or keep them as "
            "buffers of the module."
        )
    if hasattr((state["given_under_"] or [None])[0], "fit"):  # a thresholder, used no longer
        state["given_threshold_"] = state["given_under_"] = None
    arrays = {key: state[key] for key in ARRAYS if key in state}
    fitted = {key: _listed(state[key]) for key in PLAIN if key in state}
    fitted |= {key: None for key, value in arrays.items() if value is None}
    versions = {"deepod": __version__, "torch": torch.__version__.partition("+")[0]}
    versions |= {"numpy": np.__version__, "scikit-learn": sklearn.__version__}
    description = {
        "library_name": "deepod",
        "format": FORMAT,
        "detector": name,
        "params": params,
        # Those that have been changed since; the network is the one of before.
        "fitted_with": {key: value for key, value in built.items() if value != params[key]},
        "fitted": fitted,
        "threshold": threshold,
        "versions": versions | {"python": platform.python_version()},
    }
    tensors = {_MODULE + k: v for k, v in detector.module_.state_dict().items()}
    return description, tensors | {k: v for k, v in arrays.items() if v is not None}


def _threshold(detector: Any) -> float | None:
    """Give the threshold, unless it waits for ``calibrate``."""
    try:
        return detector.threshold_
    except NotFittedError:
        return None


def _is_fitted(name: str) -> bool:
    return name.endswith("_") or name in PLAIN or name in ARRAYS or name in _DERIVED


def _encoded(value: Any, name: str) -> Any:
    """Turn a parameter into JSON; tuples and objects become objects with one and two keys."""
    if isinstance(value, np.generic):
        value = value.item()
    elif isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list):
        return [_encoded(v, name) for v in value]
    if isinstance(value, tuple):
        return {"tuple": [_encoded(v, name) for v in value]}
    if _OBJECTS.get(type(value).__name__) is type(value):
        params = value.get_params(deep=False) if hasattr(value, "get_params") else vars(value)
        public = {k: v for k, v in params.items() if not k.startswith("_")}
        return {
            "object": type(value).__name__,
            "params": {k: _encoded(v, f"{name}__{k}") for k, v in public.items()},
        }
    raise TypeError(
        f"{name}={value!r} cannot be saved: a file holds numbers, strings and descriptions of "
        f"networks, no other objects. Set it to something plain first, such as "
        f"set_params({name}=...), or use joblib.dump and load only files that you trust."
    )


def _encoded_as_fitted(value: Any, name: str) -> Any:
    try:
        return _encoded(value, name)
    except TypeError as error:
        raise TypeError(
            f"{name} was {value!r} in fit, which no file can hold, and the network may depend on "
            "it: fit again with something plain, or use joblib.dump."
        ) from error


def _listed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return [v.item() if isinstance(v, np.generic) else v for v in value]
    return value


# --- load ---------------------------------------------------------------------------------------


def load(
    path: str | os.PathLike[str],
    *,
    device: str | None = None,
    detectors: Iterable[type[BaseDetector]] = (),
    max_bytes: int = 1 << 30,
) -> BaseDetector:
    """Load a detector that :meth:`deepod.BaseDetector.save` has written.

    No code from the file is run and none is imported: it holds numbers and names, and a name is
    looked up among the detectors and networks of deepod. What cannot be right is refused before
    memory is taken for it.

    Parameters
    ----------
    path : str or path-like
        The folder or the file.
    device : str, optional
        Where the detector shall be, in place of its parameter ``device``. A device that this
        machine lacks becomes the CPU, if it is the one that was saved.
    detectors : iterable of type, default=()
        Classes of your own that the file may hold, besides those of ``deepod.list_detectors()``.
    max_bytes : int, default=1073741824
        Larger files are refused, and convolutions that would take more memory in scoring.

    Returns
    -------
    detector : BaseDetector
        Fitted. Its scores are bit for bit those of the saved one on the same machine with the same
        versions of the libraries.

    Raises
    ------
    deepod.InvalidFileError
        If it is no such file, has been damaged, or was written by a newer version; the message says
        which.
    OSError
        If there is nothing, or nothing that may be read.
    ValueError
        If ``device`` names none that is there.

    Examples
    --------
    >>> import tempfile, deepod
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     detector = deepod.PLAD(epochs=5, random_state=0).fit(X)
    ...     detector.save(f"{folder}/plad.deepod")
    ...     again = deepod.load(f"{folder}/plad.deepod")
    >>> bool((again.decision_function(X) == detector.decision_function(X)).all())
    True
    """
    path = Path(path)
    if path.is_dir():
        path = path / WEIGHTS
    own = {cls.__name__: cls for cls in detectors}
    found: dict[str, Any] = {}

    def check(header: Header) -> None:
        _check_format(header)
        name = header.description["detector"]
        if name not in own and name not in DETECTORS:
            raise InvalidFileError(
                f"{str(name)[:80]!r} is no detector of deepod; if the class is yours and you trust "
                "the file, give it as detectors=[...]"
            )
        cls = own[name] if name in own else detector_class(name)
        found["detector"] = _blank(cls, header, max_bytes)

    description, tensors = _tensors.read(path, max_bytes, check)
    detector = found["detector"]
    try:
        _fill(detector, tensors, description["fitted"]["contrast_"])
    except Exception as error:
        raise InvalidFileError(f"{path} holds no detector that works: {error}") from error
    if device is not None:
        detector.set_params(device=device)
    rebuild.to_device(detector, strictly=device is not None)
    return detector


def _check_format(header: Header) -> None:
    description = header.description
    if description.get("library_name") != "deepod" or type(description.get("format")) is not int:
        raise InvalidFileError("this is no detector of deepod")
    if description["format"] > FORMAT:
        raise InvalidFileError(
            f"it has format {description['format']}, and deepod {__version__} reads up to "
            f"{FORMAT}; install a newer deepod"
        )
    keys = {"library_name", "format", "detector", "params", "fitted_with", "fitted", "threshold"}
    _check_keys("the description", description, keys | {"versions"})


def _check_keys(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InvalidFileError(f"{what} holds unknown entries {[k[:80] for k in unknown[:5]]}")


def _check_all_there(needed: Iterable[str], given: Iterable[str]) -> None:
    missing = sorted(set(needed) - set(given))
    if missing:
        raise InvalidFileError(f"{', '.join(missing)} missing")


def _blank(cls: Any, header: Header, max_bytes: float = inf) -> Any:
    """Build the detector that a description describes, without contents of its tensors."""
    description = header.description
    weights = {k: t for k, t in header.tensors.items() if k.startswith(_MODULE)}
    others = {k: t for k, t in header.tensors.items() if k not in weights}
    detector = _with_params(cls, description, weights)
    _set_fitted(detector, description["fitted"])
    _check_features(detector)
    with _Sparing() as sparing:
        detector.module_ = rebuild.build_again(detector, "meta")
    plain = {name.removeprefix(_MODULE): tensor for name, tensor in weights.items()}
    expected = {name: tensor.dtype for name, tensor in detector.module_.state_dict().items()}
    detector.module_.load_state_dict(plain, assign=True)  # compares names and shapes
    if expected != {name: tensor.dtype for name, tensor in plain.items()}:
        raise InvalidFileError("its weights are of another type than the network's")
    _check_memory(detector, sparing, max_bytes)
    _check_keys("the file", others, ARRAYS)
    _check_all_there(set(ARRAYS) - _SOMETIMES, {*others, *description["fitted"]})
    for name, tensor in others.items():
        if tensor.dtype != torch.float64:
            raise InvalidFileError(f"{name} is {tensor.dtype}, and not float64")
    return detector


def _with_params(cls: Any, description: dict[str, Any], weights: dict[str, Tensor]) -> Any:
    """Make a detector with the parameters of a description, and with those it was built by."""
    known = set(cls._parameter_constraints) - {PLACE}
    for key in ("params", "fitted_with"):
        _check_keys(key, description[key], known)
        if len(json.dumps(description[key])) > _LONGEST_PARAMS:
            raise InvalidFileError(f"{key} are longer than {_LONGEST_PARAMS} characters")
    detector = cls(**{name: _decoded(value) for name, value in description["params"].items()})
    detector._validate_params()
    built = detector.get_params(deep=False)
    built |= {name: _decoded(value) for name, value in description["fitted_with"].items()}
    cls(**built)._validate_params()
    if cls.__name__ in DETECTORS:  # what others are built by, their authors know
        # Each layer and member has a value in the file: larger numbers would build more in vain.
        largest = max(_LARGEST_SIZE, sum(t.numel() for t in weights.values()))
        _check_sizes({name: built[name] for name in sizes(cls)}, largest)
    detector._fitted_params = rebuild.built_by(built)
    return detector


def _set_fitted(detector: Any, fitted: dict[str, Any]) -> None:
    _check_keys("fitted", fitted, PLAIN | _OR_NONE)
    _check_all_there(set(PLAIN) - _SOMETIMES, fitted)
    for name, value in fitted.items():
        if not (PLAIN | _OR_NONE)[name](value):
            raise InvalidFileError(f"{name} is {str(value)[:80]!r}, which cannot be")
        if name not in ("contrast_", "fill_"):  # of the scaler, which is made when its arrays are
            setattr(detector, name, value)


def _check_memory(detector: Any, sparing: _Sparing, max_bytes: float) -> None:
    """Refuse convolutions that put out far more than they have weights, and may pad."""
    if any(isinstance(part, nn.modules.conv._ConvNd) for part in detector.module_.modules()):
        shape = detector.input_shape_
        most = max_bytes / (4 * chunk_rows(shape))
        sparing.most_values = max(most, _MOST_CHANNELS * prod(shape))
        # A class of somebody else may do what cannot be done without values.
        with sparing, torch.inference_mode(), suppress(RuntimeError):
            detector._score(detector.module_, torch.empty((1, *shape), device="meta"))


def _check_features(detector: Any) -> None:
    """Turn shape and names of the features into what they were; refuse those that cannot be."""
    shape = detector.input_shape_ = tuple(detector.input_shape_)
    given = detector._fitted_params["input_shape"]
    features = shape[0] if given is None else prod(shape)
    same = given is None or prod(given) == prod(shape)
    if len(shape) > 3 or not same or detector.n_features_in_ != features:
        raise InvalidFileError("its number of features does not fit its samples")
    if hasattr(detector, "feature_names_in_"):
        names = detector.feature_names_in_ = np.array(detector.feature_names_in_, dtype=object)
        if len(names) != detector.n_features_in_:
            raise InvalidFileError("it does not have a name for each feature")


class _Sparing(TorchFunctionMode):
    """Ends the building of a network that is far larger than any in a file, or takes far more."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.most_values = inf  # that a layer puts out

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        if self.calls > _MOST_CALLS:
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
            f"{str(value)[:80]} is more than any size of the network that it holds"
        )


def _decoded(value: Any) -> Any:
    """Turn JSON into a parameter."""
    if isinstance(value, list):
        return [_decoded(v) for v in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"tuple"}:
        found = _decoded(value["tuple"])
        if not isinstance(found, list):
            raise InvalidFileError("a tuple is written as something else")
        return tuple(found)
    if set(value) != {"object", "params"} or value["object"] not in _OBJECTS:
        raise InvalidFileError(f"{str(value)[:80]!r} is no value of a parameter")
    cls = _OBJECTS[value["object"]]
    return cls(**{name: _decoded(v) for name, v in value["params"].items()})


def _fill(detector: Any, tensors: dict[str, Tensor], contrast: bool) -> None:
    """Put the tensors in their places."""
    weights = {k.removeprefix(_MODULE): t for k, t in tensors.items() if k.startswith(_MODULE)}
    rebuild.restore_module(detector, weights)
    arrays = {name: tensors[name].numpy() for name in ARRAYS if name in tensors}
    _check_arrays(arrays, detector.input_shape_, detector._n_training)
    fill = arrays.pop("fill_", None)
    detector.scaler_ = Scaler(arrays.pop("shift_"), arrays.pop("scale_"), contrast, fill)
    for name, values in arrays.items():
        setattr(detector, name, values)
    detector._keep_scores(detector._training_scores, detector._n_training)
    under = getattr(detector, "given_under_", None)
    detector.set_threshold(detector.given_threshold_)
    if under is not None:
        detector.given_under_ = tuple(under)
    _threshold(detector)  # what is wrong with it is said now


def _check_arrays(arrays: dict[str, np.ndarray], shape: Shape, n: int) -> None:
    """Refuse arrays that cannot be those of a detector of samples of ``shape`` and n rows."""
    scaling = [arrays[name] for name in ("shift_", "scale_", "fill_") if name in arrays]
    if any(np.broadcast_shapes(values.shape, shape) != shape for values in scaling):
        raise ValueError("its scaling does not fit its samples")
    if not all(np.isfinite(values).all() for values in scaling):
        raise ValueError("its scaling is not finite")
    if not (arrays["scale_"] > 0).all():
        raise ValueError("its scaling is not positive")
    if arrays["baseline_"].shape != shape or not np.isfinite(arrays["baseline_"]).all():
        raise ValueError("its baseline does not fit its samples, or is not finite")
    scores = arrays["_training_scores"]
    if scores.ndim != 1 or not 0 < len(scores) <= n:
        raise ValueError("it has no training scores, or too many")
    if not np.isfinite(scores).all():
        raise ValueError("its training scores are not finite")
    calibration = arrays.get("calibration_scores_", np.zeros(1))
    if calibration.ndim != 1 or not len(calibration) or not np.isfinite(calibration).all():
        raise ValueError("its calibration scores are not finite")
    if (np.diff(calibration) < 0).any():
        raise ValueError("its calibration scores are not in order")
