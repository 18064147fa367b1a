"""A file in which a fit says how far it is, so that another can go on from there."""

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
    """The file, and what it says.

    Parameters
    ----------
    path : str or PathLike
    every : int
        Epochs from one time of writing to the next.
    identity : dict
        What a fit must have in common with the one that goes on from its file, in values that JSON
        can hold; the versions of torch and deepod are added.
    seeds : dict of int
        Of all that is random.

    Attributes
    ----------
    seeds : dict of int
        Those in the file, if there is one.
    epochs : int
        How many had been trained when the file was last written.

    Raises
    ------
    InvalidFileError
        If the file is damaged, or of another fit.
    ValueError
        If no file can be written there.
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
                "a file in a folder that is there and may be written to."
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
        """Give, once, what an earlier fit has written, if any: the state, with its history."""
        state, self._state = self._state, None
        return state

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Have every error inside say that the file is to blame."""
        try:
            yield
        except (OSError, MemoryError):
            raise
        except Exception as error:
            reason = (str(error) if isinstance(error, ValueError) else repr(error))[:800]
            advice = "Delete the file to train anew, or give" if self._is_checkpoint else "Give"
            raise _tensors.InvalidFileError(
                f"checkpoint={self.name!r} is not one to go on from: {reason.rstrip('.')}. "
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
            raise _tensors.InvalidFileError(f"another fit has written it: {'; '.join(different)}.")

    # --- writing --------------------------------------------------------------------------------

    def is_due(self, epochs: int) -> bool:
        """Whether it is to be written within a phase, after that many epochs in all."""
        return epochs % self.every == 0

    def write(
        self, state: Callable[[], Mapping[str, Any]], history: Sequence[Mapping[str, Any]]
    ) -> None:
        """Put a new state in the place of the older one.

        A disk that is full, or gone, is no reason to end a training: the older state then stays.

        Parameters
        ----------
        state : callable
            Gives tensors, numbers, strings and None, and lists and dicts of them.
        history : list of dict
            One entry per epoch so far, of numbers and strings.

        Raises
        ------
        ValueError
            If somebody else has written the file meanwhile.
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
                f"could not be written after {len(history)} epochs; training goes on: {error}"
            )
            return
        if not ours:
            raise ValueError(
                f"checkpoint={self.name!r} was written by another fit meanwhile; give every fit a "
                "file of its own."
            )
        self._head, self.epochs = _head(contents), len(history)

    def remove(self) -> None:
        """Delete the file: the next fit is a new one."""
        try:
            if self._head and self._is_ours():
                self._path.unlink(missing_ok=True)
        except OSError as error:
            self._warn(f"could not be deleted; do so, or the next fit goes on from it: {error}")

    def _is_ours(self) -> bool:
        """Whether there is the file that this fit has read or written, or none.

        Two fits with one file would else take turns in it.
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
    """What a fit without a file has in its place: it holds nothing, and is never written."""

    name = ""
    epochs = 0

    def take(self) -> None:
        """Give no state."""

    def reading(self) -> AbstractContextManager[None]:
        """Leave errors as they are."""
        return nullcontext()

    def is_due(self, epochs: int) -> bool:
        """Never."""
        return False

    def write(
        self, state: Callable[[], Mapping[str, Any]], history: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write nothing."""

    def remove(self) -> None:
        """Delete nothing."""


def _head(contents: bytes) -> bytes:
    """Take the header, which holds a checksum of everything."""
    return contents[: 8 + int.from_bytes(contents[:8], "little")]


def require(fits: Any, what: str) -> None:
    """Refuse a file of which some part is not what a fit writes."""
    if not fits:
        raise _tensors.InvalidFileError(f"its {what} cannot be what a fit has written.")


def is_count(value: Any, largest: int) -> bool:
    """Whether a value of a file is an integer from 0 to ``largest``."""
    return type(value) is int and 0 <= value <= largest


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Replace tensors by their names, under which they go to ``tensors``."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(
                    f"checkpoint holds dicts with keys of text, but a state_dict() has the key "
                    f"{key!r}; write str(key), and convert it back in load_state_dict."
                )
        return {key: _packed(part, tensors) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(part, tensors) for part in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(
        f"checkpoint holds tensors, numbers, strings, None, and lists and dicts of them, but a "
        f"state_dict() holds {type(value).__name__}."
    )


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put the tensors back; tuples are lists now."""
    if isinstance(value, list):
        return [_unpacked(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_TENSOR}:
        return tensors[value[_TENSOR]]
    return {key: _unpacked(part, tensors) for key, part in value.items()}


# --- what identifies a fit ----------------------------------------------------------------------


def describe(name: str, value: Any) -> Any:
    """Turn a hyper-parameter into what JSON can hold, the same for two if they are equal.

    Raises
    ------
    ValueError
        If nothing can: of a function written in place, for example.
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
            f"checkpoint cannot tell {name}={value!r} from others, because it cannot be pickled; "
            "leave checkpoint=None, or define it in a module."
        ) from error


def describe_data(X: np.ndarray | Source | None) -> str | None:
    """Shape, type and a hash of all values; of rows on disk, of those at both ends."""
    if X is None:
        return None
    n = len(X)
    if isinstance(X, np.ndarray):
        parts = [X]
    else:
        parts = [X.read(0, min(n, _EDGE)), X.read(max(0, n - _EDGE), n)]
    return f"{X.dtype} {tuple(X.shape)} {_hash(parts)}"


def _hash(arrays: Iterable[np.ndarray]) -> str:
    """Hash values row by row, however they lie in memory; no more than a part is ever copied."""
    found = hashlib.sha256()
    for array in arrays:
        rows = max(1, _HASHED_AT_ONCE * len(array) // max(1, array.nbytes))
        for start, stop in cut(0, len(array), rows):
            found.update(np.ascontiguousarray(array[start:stop]).view(np.uint8).data)
    return found.hexdigest()


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 100 else text[:100] + "..."
