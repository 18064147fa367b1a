"""Checkpoint files, from which an interrupted fit continues."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import hash as joblib_hash
from torch import Tensor

from deepod._registry import __version__
from deepod._storage import atomic
from deepod._storage import tensors as _tensors
from deepod.sources import Source, cut

FORMAT = 2  # raised when older files can no longer be read
_TENSOR = "tensor of this file"  # stands in the description for a tensor
_EDGE = 64  # rows at both ends that rows on disk are told by
_HASHED_AT_ONCE = 1 << 20  # bytes


class Checkpoint:
    """A checkpoint file and its contents.

    Parameters
    ----------
    path : str or PathLike
    every : int
        Number of epochs between two writes.
    identity : dict
        Description of the fit, in JSON's types. A fit continues only from a file with the same
        description; the versions of torch and deepod are added to it.
    seeds : dict of int
        Seeds of all random numbers of the fit.

    Attributes
    ----------
    seeds : dict of int
        The seeds in the file if there is one, and otherwise the given ones.
    epochs : int
        Number of epochs when the file was last written.

    Raises
    ------
    InvalidFileError
        If the file is damaged, or belongs to another fit.
    ValueError
        If the file cannot be written.
    """

    def __init__(
        self, path: str | os.PathLike[str], every: int, identity: Mapping[str, Any], seeds: Any
    ) -> None:
        self.name, self.every = os.fspath(path), every
        versions = {"torch": str(torch.__version__), "deepod": __version__}
        self.identity, self.seeds = {**identity, **versions}, seeds
        self._state: dict[str, Any] | None = None
        self.epochs = 0
        self._path = Path(path).resolve()
        self._head = b""  # how the file begins that this fit has read or written
        self._warned = False
        self._is_checkpoint = False  # what is there, by its own account
        try:
            if self._path.exists():
                self._read()
            atomic.prepare(self._path)
        except OSError as error:
            raise ValueError(
                f"checkpoint={self.name!r} cannot be written ({error.strerror}); give the name of "
                "a file in an existing folder to which you may write."
            ) from error

    # --- reading --------------------------------------------------------------------------------

    def _read(self) -> None:
        with self.reading():
            description, tensors = _tensors.read(self._path, check=self._check)
            seeds, history = description["seeds"], description["history"]
            require(
                isinstance(seeds, dict)
                and seeds.keys() == self.seeds.keys()
                and all(is_count(seed, (1 << 32) - 1) for seed in seeds.values()),
                "seeds",
            )
            require(_tensors.is_history(history), "history")
            self.seeds = seeds
            self._state = _unpacked(description["state"], tensors) | {"history": history}
            self.epochs = len(history)
            with self._path.open("rb") as file:
                self._head = _head(file.read(8 + _tensors.LARGEST_HEADER))

    def take(self) -> dict[str, Any] | None:
        """Return the state of an earlier fit with its history, once, and None if there is none."""
        state, self._state = self._state, None
        return state

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Convert errors in a ``with`` block to InvalidFileError that names this file."""
        try:
            yield
        except (OSError, MemoryError):
            raise
        except Exception as error:
            reason = (str(error) if isinstance(error, ValueError) else repr(error))[:800]
            advice = "Delete the file to train anew, or give" if self._is_checkpoint else "Give"
            raise _tensors.InvalidFileError(
                f"checkpoint={self.name!r} cannot be continued by this fit: {reason.rstrip('.')}. "
                f"{advice} another name."
            ) from error

    def _check(self, header: _tensors.Header) -> None:
        there = header.description
        self._is_checkpoint = "checkpoint" in there
        if there.get("checkpoint") != FORMAT:
            raise _tensors.InvalidFileError(
                "it was written by another version of deepod."
                if self._is_checkpoint
                else "it is another kind of file."
            )
        other = there["identity"]
        different = [
            f"{name} is {_shortened(self.identity.get(name))} here "
            f"and {_shortened(other.get(name))} there"
            for name in {**self.identity, **other}
            if self.identity.get(name) != other.get(name)
        ]
        if different:
            raise _tensors.InvalidFileError(f"it belongs to another fit: {'; '.join(different)}.")

    # --- writing --------------------------------------------------------------------------------

    def is_due(self, epochs: int) -> bool:
        """Return whether to write the file within a phase, after that many epochs in all."""
        return epochs % self.every == 0

    def write(
        self, state: Callable[[], Mapping[str, Any]], history: Sequence[Mapping[str, Any]]
    ) -> None:
        """Replace the state in the file by a new one.

        If that fails, for example because the disk is full, the older state is kept, there is a
        warning, and training continues.

        Parameters
        ----------
        state : callable
            Function that returns the state: tensors, numbers, strings and None, and lists and dicts
            of these.
        history : list of dict
            One entry per epoch so far, of numbers and strings.

        Raises
        ------
        ValueError
            If another fit has written the file meanwhile.
        TypeError
            If the state holds other values.
        """
        tensors: dict[str, Tensor] = {}
        description = {
            "checkpoint": FORMAT,
            "identity": self.identity,
            "seeds": self.seeds,
            "history": history,
            "state": _packed(state(), tensors),
        }
        try:
            ours = self._is_ours()
            if ours:
                contents = _tensors.pack(description, tensors)
                atomic.write({self._path: contents})
        except (OSError, ValueError) as error:  # the latter of a history that is too long
            self._warn(
                f"could not be written after {len(history)} epochs, but training continues: {error}"
            )
            return
        if not ours:
            raise ValueError(
                f"checkpoint={self.name!r} was written by another fit meanwhile; give each fit its "
                "own file."
            )
        self._head, self.epochs = _head(contents), len(history)

    def remove(self) -> None:
        """Delete the file, so that the next fit starts anew."""
        try:
            if self._head and self._is_ours():
                self._path.unlink(missing_ok=True)
        except OSError as error:
            self._warn(
                f"could not be deleted ({error}); delete it, or the next fit will continue from it."
            )

    def _is_ours(self) -> bool:
        """Return whether the file is the one that this fit has read or written, or is absent.

        Otherwise two fits with the same file would overwrite each other's states.
        """
        try:
            with self._path.open("rb") as file:
                return file.read(max(1, len(self._head))) == self._head
        except FileNotFoundError:
            return True

    def _warn(self, text: str) -> None:
        if not self._warned:
            warnings.warn(f"checkpoint={self.name!r} {text}", RuntimeWarning, stacklevel=2)
        self._warned = True


class NoCheckpoint:
    """The checkpoint of a fit without a file: it is empty, and never written."""

    name = ""
    epochs = 0

    def take(self) -> None:
        """Return None, as there is no state."""

    def reading(self) -> AbstractContextManager[None]:
        """Do not change errors."""
        return nullcontext()

    def is_due(self, epochs: int) -> bool:
        """Return False, as nothing is ever written."""
        return False

    def write(
        self, state: Callable[[], Mapping[str, Any]], history: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write nothing."""

    def remove(self) -> None:
        """Delete nothing."""


def _head(contents: bytes) -> bytes:
    """Return the header of a file, which holds a checksum of everything."""
    return contents[: 8 + int.from_bytes(contents[:8], "little")]


def require(fits: Any, what: str) -> None:
    """Raise InvalidFileError if a part of the file cannot have been written by a fit."""
    if not fits:
        raise _tensors.InvalidFileError(f"its {what} cannot have been written by a fit.")


def is_count(value: Any, largest: int) -> bool:
    """Return whether a value of a file is an integer from 0 to ``largest``."""
    return type(value) is int and 0 <= value <= largest


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a state with tensors replaced by names, under which they are put into ``tensors``."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(
                    f"checkpoint can hold only dicts whose keys are strings, but a state_dict() "
                    f"has the key {key!r}; use str(key), and convert it back in load_state_dict."
                )
        return {key: _packed(part, tensors) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(part, tensors) for part in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(
        "checkpoint can hold tensors, numbers, strings, None, and lists and dicts of these, but a "
        f"state_dict() holds {type(value).__name__}; convert it to one of them."
    )


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return a state with its tensors; tuples have become lists."""
    if isinstance(value, list):
        return [_unpacked(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_TENSOR}:
        return tensors[value[_TENSOR]]
    return {key: _unpacked(part, tensors) for key, part in value.items()}


# --- what identifies a fit ----------------------------------------------------------------------


def describe(name: str, value: Any) -> Any:
    """Return a description of a hyper-parameter for JSON, which is equal for equal ones.

    Raises
    ------
    ValueError
        If there is none, for example of a lambda.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [describe(name, part) for part in value]
    if hasattr(value, "get_params"):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        params = value.get_params(deep=False)
        return {"class": kind} | {key: describe(key, part) for key, part in params.items()}
    if isinstance(value, np.ndarray) and value.dtype != object:
        return describe_data(value)
    try:
        return joblib_hash(value)
    except Exception as error:
        raise ValueError(
            f"checkpoint cannot compare {name}={value!r} with that of a later fit, because it "
            "cannot be pickled; define it in a module, or leave checkpoint=None."
        ) from error


def describe_data(X: np.ndarray | Source | None) -> str | None:
    """Return shape, type and a hash of all values, or of both ends of rows on disk."""
    if X is None:
        return None
    n = len(X)
    if isinstance(X, np.ndarray):
        parts = [X]
    else:
        parts = [X.read(0, min(n, _EDGE)), X.read(max(0, n - _EDGE), n)]
    return f"{X.dtype} {tuple(X.shape)} {_hash(parts)}"


def _hash(arrays: Iterable[np.ndarray]) -> str:
    """Return a hash of values that does not depend on their memory layout; copy only parts."""
    found = hashlib.sha256()
    for array in arrays:
        rows = max(1, _HASHED_AT_ONCE * len(array) // max(1, array.nbytes))
        for start, stop in cut(0, len(array), rows):
            found.update(np.ascontiguousarray(array[start:stop]).view(np.uint8).data)
    return found.hexdigest()


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 100 else text[:100] + "..."
