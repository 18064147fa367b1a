"""Files of tensors and a description, in the formats safetensors and JSON.

Nothing from a file is executed or imported, and memory is allocated only after the sizes in the
file have been checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

# Names of tensors and the description: far more than a model needs. Parsed in about a second, into
# less than 200 MiB.
LARGEST_HEADER = 1 << 24
MOST_VALUES = 400_000  # in it; a parsed one may take 50 times the memory of its text
# In the metadata of safetensors: a checksum of description and tensors, a space, the description.
_KEY = "deepod"
# What else stands there: loaders of the Hugging Face hub read no file without it. Older files of
# ours have none.
_MARK = {"format": "pt"}
_DTYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8},
    **{"U8": torch.uint8, "BOOL": torch.bool},
}


class InvalidFileError(ValueError):
    """Error raised for a file that is not a model of deepod, is damaged, or is too new.

    It is also raised for files of ``checkpoint``. It is a ValueError.
    """


def divided(
    tensors: Mapping[str, Tensor], prefix: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Divide tensors into those whose names begin with ``prefix``, without it, and the others."""
    inner = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
    return inner, {k: t for k, t in tensors.items() if not k.startswith(prefix)}


class Header(NamedTuple):
    """The header of a file.

    Attributes
    ----------
    description : dict
        Decoded JSON.
    tensors : dict of Tensor
        Tensors in the order of the file, on the device "meta" and thus without values.
    text, checksum : str
        JSON of the description, and the :func:`_checksum` of it and the tensors.
    """

    description: dict[str, Any]
    tensors: dict[str, Tensor]
    text: str
    checksum: str


def is_history(value: Any) -> bool:
    """Return whether decoded JSON can be a ``history_``."""
    return isinstance(value, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("phase"), str)
        and all(type(v) in (int, float, str) for v in entry.values())
        for entry in value
    )


def pack(description: Mapping[str, Any], tensors: Mapping[str, np.ndarray | Tensor]) -> bytes:
    """Return the contents of a file with a description, in JSON's types, and tensors.

    Raises
    ------
    ValueError
        If the description is too long to be read again.
    """
    from safetensors.torch import save

    text = json.dumps(description)
    own = {name: _tensor(value) for name, value in tensors.items()}
    data = save(own)
    start = 8 + int.from_bytes(data[:8], "little")
    # Not by safetensors, which writes several entries in random order.
    metadata = _MARK | {_KEY: f"{_checksum(text, own)} {text}"}
    entries = {"__metadata__": metadata, **json.loads(data[8:start])}
    head = json.dumps(entries, separators=(",", ":"))
    head += " " * (-len(head) % 8)
    if len(head) > LARGEST_HEADER or _count_values(head) > MOST_VALUES:
        raise ValueError(
            f"the description has {len(text)} characters, which is more than a file may hold; "
            "shorten history_ first."
        )
    return b"".join([len(head).to_bytes(8, "little"), head.encode(), memoryview(data)[start:]])


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(_bytes(tensor))
    return found.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _tensor(value: np.ndarray | Tensor) -> Tensor:
    # Each with memory of its own, which safetensors insists on.
    if isinstance(value, Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return torch.from_numpy(np.array(value, order="C"))


def read(
    path: Path, max_bytes: int | None = None, check: Callable[[Header], None] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the description and the tensors of a file.

    Parameters
    ----------
    path : Path
    max_bytes : int, optional
        Limit on the size of the file.
    check : callable, optional
        Called with the header before any tensor is read; it may raise an error.

    Raises
    ------
    OSError
        If the file does not exist or cannot be read.
    InvalidFileError
        If the file was not made by :func:`pack`, or is damaged.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise InvalidFileError(f"{path} is not a file.")
    with open(path, "rb", opener=_at_once) as file:
        size = os.fstat(file.fileno()).st_size
        if max_bytes is not None and size > max_bytes:
            raise InvalidFileError(
                f"{path} has {size} bytes, more than max_bytes={max_bytes}; pass a larger "
                "max_bytes if you trust the file."
            )
        try:
            header = read_header(file, size)
            if check is not None:
                with parsing():
                    check(header)
            tensors = {}
            for name, tensor in header.tensors.items():
                tensors[name] = torch.empty_like(tensor, device="cpu")
                data = _bytes(tensors[name])
                if file.readinto(data) < len(data):
                    raise InvalidFileError("it became shorter while it was read")
            if _checksum(header.text, tensors) != header.checksum:
                raise InvalidFileError("the checksum is wrong: bytes of it have changed")
            return header.description, tensors
        except InvalidFileError as error:
            raise InvalidFileError(f"{path}: {error}") from error


def peek(path: Path) -> Header:
    """Return the header of a file, without checking the rest.

    Raises
    ------
    OSError, InvalidFileError
        In the same cases as :func:`read`.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise InvalidFileError(f"{path} is not a file.")
    with open(path, "rb", opener=_at_once) as file:
        return read_header(file, os.fstat(file.fileno()).st_size)


def _at_once(path: str, flags: int) -> int:
    # The file may have become a pipe meanwhile, on which a plain open would wait.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_header(file: BinaryIO, size: int) -> Header:
    """Return the header at the beginning of a file of ``size`` bytes.

    Raises
    ------
    InvalidFileError
        If there is no valid header.
    """
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8:
        raise InvalidFileError("it is not a file of deepod, or only a part of one")
    if length > LARGEST_HEADER:
        raise InvalidFileError(f"its header has {length} bytes, more than {LARGEST_HEADER}")
    with parsing():
        return _header(file.read(length), size - 8 - length)


@contextmanager
def parsing() -> Iterator[None]:
    """Convert the errors of parsers in a ``with`` block to InvalidFileError."""
    try:
        yield
    except (InvalidFileError, MemoryError, OSError):
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        text = "".join(c if c.isprintable() else " " for c in text[:200])
        raise InvalidFileError(f"it is not a file of deepod, or is damaged: {text}") from error


def _header(raw: bytes, size: int) -> Header:
    """Parse the header of a file that has ``size`` bytes of tensors."""
    entries = _parsed(raw.decode())
    metadata = entries.pop("__metadata__")
    checksum, _, text = metadata.pop(_KEY).partition(" ")
    if metadata and metadata != _MARK:
        raise InvalidFileError("its metadata is not that of deepod")
    description = _parsed(text)
    if not isinstance(description, dict):
        raise InvalidFileError("the description is not a JSON object")
    tensors, place = {}, 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        shape, (begin, end) = entry["shape"], entry["data_offsets"]
        dtype = _DTYPES[entry["dtype"]]
        numbers = (*shape, begin, end)
        if len(shape) > 8 or not all(type(n) is int and 0 <= n < 1 << 48 for n in numbers):
            raise InvalidFileError(f"tensor {name[:80]!r} has an impossible shape or position")
        if end - begin != prod(shape) * dtype.itemsize:
            raise InvalidFileError(
                f"the size of tensor {name[:80]!r} does not agree with its shape"
            )
        if begin != place:
            raise InvalidFileError("its tensors overlap, or have gaps between them")
        tensors[name] = torch.empty(shape, dtype=dtype, device="meta")
        place = end
    if place != size:
        raise InvalidFileError("there are fewer or more bytes than the tensors need")
    return Header(description, tensors, text, checksum)


def _parsed(text: str) -> Any:
    if _count_values(text) > MOST_VALUES:
        raise InvalidFileError(f"its header holds more than {MOST_VALUES} values")
    return json.loads(text, object_pairs_hook=_unique)


def _count_values(text: str) -> int:
    """Return an upper bound on the number of values in JSON text."""
    return sum(map(text.count, ",[{"))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidFileError("a key occurs twice")
    return found
