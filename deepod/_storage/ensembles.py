"""Conversion of fitted ensembles to descriptions and tensors of their members, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
from sklearn.base import clone
from torch import Tensor

from deepod._registry import ENSEMBLES, SERIES, detector_class
from deepod._scoring.tails import Tail
from deepod._storage import detectors, windows
from deepod._storage.detectors import PLAIN, Sparing
from deepod._storage.tensors import InvalidFileError

_MOST_MEMBERS = 500
_MOST_TIMES = 5  # as many calls of torch to build them all as are allowed for one
_TAIL = "tail."  # in front of the names of what turns a member's scores into tails
# What fit leaves on an ensemble, in the description and as tensors.
_PLAIN: dict[str, Callable[[Any], bool]] = {
    name: PLAIN[name] for name in ("given_threshold_", "given_under_", "unseen_", "_n_training")
} | {"combination_": lambda value: value in ("max", "mean", "median")}
_OF_SERIES = {"units_", "_point_scores"}  # instead of tails
_ARRAYS = ("_training_scores", "calibration_scores_", *_OF_SERIES)
# Made again of the members and the scores when an ensemble is loaded.
_DERIVED = {
    *("members_", "tails_", "n_features_in_", "feature_names_in_"),
    *("_thresholded_", "_mu", "_sigma", "_classes"),
    "_unseen_scores",  # nobody needs these of a model that was loaded
}
_UNFITTED = {"detectors", "detector", "member_params"}  # parameters that the members make up for


def described(ensemble: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the description (JSON) and the tensors of a fitted ensemble.

    Raises
    ------
    TypeError
        If a member is not a detector of deepod, or has a parameter that cannot be saved.
    """
    name = type(ensemble).__name__
    if name not in ENSEMBLES or type(ensemble) is not detector_class(name):
        raise TypeError(
            f"{name} is not one of deepod's ensembles and cannot be saved: use joblib.dump, and "
            "load only files that you trust."
        )
    ensemble._validate_params()  # or the file could not be loaded
    members = []
    tensors: dict[str, Any] = {}
    tails = getattr(ensemble, "tails_", [None] * len(ensemble.members_))
    for k, (member, tail) in enumerate(zip(ensemble.members_, tails, strict=True)):
        description, own = _described_member(member, k)
        if tail is not None:
            own |= {_TAIL + key: value for key, value in tail.state_dict().items()}
        members.append(description)
        tensors |= {f"{k}.{key}": value for key, value in own.items()}
    given = {
        k: v for k, v in ensemble.get_params(deep=False).items() if k not in _UNFITTED or v is None
    }
    state = {k: v for k, v in vars(ensemble).items() if k not in ensemble.get_params(deep=False)}
    unknown = sorted(set(state) - {*_PLAIN, *_ARRAYS, *_DERIVED})
    if unknown:
        raise TypeError(f"{name} has attributes that cannot be saved: {unknown}; delete them.")
    description = {
        "detector": name,
        "params": {key: detectors.encoded(value, key) for key, value in given.items()},
        "members": members,
        "fitted": detectors.as_plain({k: v for k, v in state.items() if k in _PLAIN}),
        "threshold": detectors.threshold_of(ensemble),
    }
    return description, tensors | {key: state[key] for key in _ARRAYS if key in state}


def _described_member(member: Any, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    kind = _kind(type(member).__name__)
    if kind is detectors and not hasattr(member, "module_"):
        raise TypeError(
            f"members_[{number}], {type(member).__name__}, is not a detector of deepod and cannot "
            "be saved: use joblib.dump for the ensemble, and load only files that you trust."
        )
    try:
        return kind.described(member)
    except TypeError as error:
        raise TypeError(f"members_[{number}], {type(member).__name__}: {error}") from error


def _kind(name: Any) -> Any:
    """Return the module that knows what is in a file of a member of this name."""
    return windows if name == "Windows" else detectors


def blank(
    description: dict[str, Any],
    tensors: Mapping[str, Tensor],
    own: Mapping[str, type],
    sparing: Sparing,
    max_bytes: float,
) -> Any:
    """Build the ensemble of a description, without the values of its tensors."""
    known = {"detector", "params", "members", "fitted", "threshold"}
    detectors.check_keys("the description", description, known)
    cls: Any = detector_class(description["detector"])
    members = description["members"]
    if not (isinstance(members, list) and 0 < len(members) <= _MOST_MEMBERS):
        raise InvalidFileError(f"it has no members, or more than {_MOST_MEMBERS}")
    parts, rest = _divided(tensors, len(members))
    sparing.most_calls = min(len(members), _MOST_TIMES) * detectors.MOST_CALLS
    built = []
    by_tails = description["detector"] != "SeriesConsensus"
    for member, (its, tail) in zip(members, parts, strict=True):
        _check_tail(tail, by_tails)
        if (member.get("detector") in SERIES) == by_tails:
            raise InvalidFileError("its members are not of the kind that it joins")
        kind = _kind(member.get("detector"))
        built.append(kind.blank(member, its, own, sparing, max_bytes))
    _check_alike(built)
    ensemble = _with_params(cls, description["params"], built)
    detectors.set_plain(ensemble, description["fitted"], _PLAIN)
    known_arrays = set(_ARRAYS) - _OF_SERIES if by_tails else _ARRAYS
    detectors.check_tensors(rest, known_arrays)
    return ensemble


def _divided(
    tensors: Mapping[str, Tensor], n: int
) -> tuple[list[tuple[dict[str, Tensor], dict[str, Tensor]]], dict[str, Tensor]]:
    """Return the tensors of each of n members and its tail, and the remaining tensors."""
    parts: dict[str, tuple[dict[str, Tensor], dict[str, Tensor]]] = {
        str(k): ({}, {}) for k in range(n)
    }
    rest = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        if number not in parts:
            rest[name] = tensor
        else:
            parts[number][key.startswith(_TAIL)][key.removeprefix(_TAIL)] = tensor
    return list(parts.values()), rest


def _check_tail(tail: Mapping[str, Tensor], by_tails: bool) -> None:
    """Check the shapes of a tail, or that there is none in an ensemble without tails."""
    known = Tail().state_dict() if by_tails else {}
    expected = {name: (t.shape, t.dtype) for name, t in known.items()}
    if expected != {name: (t.shape, t.dtype) for name, t in tail.items()}:
        raise InvalidFileError("the tails of its members are not there, or are no tails")


def _check_alike(members: list[Any]) -> None:
    """Raise InvalidFileError if not all members can score the same rows."""
    kinds = {
        (
            0 if hasattr(m, "columns_") else prod(m.input_shape_),  # each may encode in its way
            m.n_features_in_,
            tuple(getattr(m, "feature_names_in_", ())),
        )
        for m in members
    }
    if len(kinds) > 1:
        raise InvalidFileError("its members are not for the same features")


def _with_params(cls: Any, params: dict[str, Any], members: list[Any]) -> Any:
    """Return an ensemble of these members with the parameters of a description."""
    detectors.check_keys("params", params, set(cls._parameter_constraints) - {"detector"})
    if params.get("detectors") is not None:
        raise InvalidFileError("params holds detectors, which are among the members")
    given = {name: detectors.decoded(value) for name, value in params.items()}
    unfitted = {"detectors": members, "detector": members[0], "member_params": None}
    missing = set(cls._parameter_constraints) & _UNFITTED - set(given)
    ensemble = cls(**given, **{name: clone(unfitted[name], safe=False) for name in missing})
    ensemble._validate_params()
    ensemble.members_ = members
    for name in ("n_features_in_", "feature_names_in_"):
        if hasattr(members[0], name):
            setattr(ensemble, name, getattr(members[0], name))
    return ensemble


def fill(ensemble: Any, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """Fill an ensemble with the values of the tensors."""
    members = description["members"]
    parts, rest = _divided(tensors, len(members))
    tails = []
    for detector, member, (its, tail) in zip(ensemble.members_, members, parts, strict=True):
        _kind(member["detector"]).fill(detector, its, member)
        if tail:
            _check_values(tail)
            tails.append(Tail())
            tails[-1].load_state_dict(tail)
    if tails:
        ensemble.tails_ = tails
    arrays = {name: tensor.numpy() for name, tensor in rest.items()}
    units = arrays.get("units_", np.ones(len(members)))
    if units.shape != (len(members),) or not (np.isfinite(units) & (units > 0)).all():
        raise ValueError("the units of its members' scores cannot be")
    detectors.check_scores(arrays, ensemble._n_training)
    vars(ensemble).update(arrays)
    detectors.set_threshold(ensemble)


def parts(ensemble: Any) -> list[Any]:
    """Return the parts that are on a device: members, and unfitted detectors of parameters."""
    params = ensemble.get_params(deep=False)
    single = [params["detector"]] if "detector" in params else []
    members = [*ensemble.members_, *(params.get("detectors") or single)]
    return [part for member in members for part in _kind(type(member).__name__).parts(member)]


def _check_values(tail: Mapping[str, Tensor]) -> None:
    if not all(values.isfinite().all() for values in tail.values()):
        raise ValueError("the tails of its members are not finite")
    if (tail["grid"].diff() < 0).any() or tail["excess"] <= 0:
        raise ValueError("the tails of its members do not rise")
