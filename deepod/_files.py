"""Files of tensors and a description: safetensors and JSON, whole or not there at all.

Nothing in a file is ever run or imported, and nothing is allocated before it is known to fit.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

# Names of tensors and the description: far more than a model needs, parsed in about a second.
LARGEST_HEADER = 1 << 24
# In the metadata of safetensors: a checksum of description and tensors, a space, the description.
# As one entry, because safetensors writes several in random order.
_KEY = "deepod"
_DTYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8},
    **{"U8": torch.uint8, "BOOL": torch.bool},
}


class InvalidFileError(ValueError):
    """The file is no model (or no checkpoint) of deepod, is damaged, or is of a newer version."""


class Header(NamedTuple):
    """What a file says of itself.

    Attributes
    ----------
    description : dict
        Decoded JSON.
    tensors : dict of Tensor
        As they will be, on the device "meta": without contents.
    text, checksum : str
        JSON of the description, and what :func:`_checksum` made of it and the tensors.
    """

    description: dict[str, Any]
    tensors: dict[str, Tensor]
    text: str
    checksum: str


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a file to write, which takes the place of ``path`` when all went well.

    Whatever happens meanwhile, an older file stays as it was until then.
    """
    path = Path(os.path.realpath(path))  # of a link, what it points to
    partial = _partial(path)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name without its contents
        if path.exists():
            partial.chmod(stat.S_IMODE(path.stat().st_mode))
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


def _partial(path: Path) -> Path:
    """Name of a file that is being written; each process has its own."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def prepare(path: Path) -> None:
    """See to it that a file can be written, and delete what processes that were killed left of it.

    Raises
    ------
    OSError
        If it cannot: there is no such folder, or it is read-only, or the path is one.
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    _partial(path).touch()
    left_over = re.compile(rf"\.{re.escape(path.name)}\.\d+\.part")
    for other in path.parent.iterdir():
        if left_over.fullmatch(other.name):
            other.unlink(missing_ok=True)


def write(contents: Mapping[Path, bytes]) -> None:
    """Write files, all of them or, if one cannot be written, none: older ones then stay.

    Killed in the last moment, it may leave the first of them new and others old.

    Raises
    ------
    OSError
        If a file cannot be written; the error names it.
    """
    path = None
    try:
        with ExitStack() as stack:  # gives the names in reverse order
            for path, data in reversed(list(contents.items())):
                stack.enter_context(replacing(path)).write_bytes(data)
    except OSError as error:
        text = f"{error.strerror}; nothing was written"
        raise OSError(error.errno, text, str(path)) from error


def pack(description: Mapping[str, Any], tensors: Mapping[str, np.ndarray | Tensor]) -> bytes:
    """Turn a description, which JSON must be able to hold, and tensors into a file's contents.

    Raises
    ------
    ValueError
        If the description is longer than can be read again.
    """
    from safetensors.torch import save

    text = json.dumps(description)
    if len(text) > LARGEST_HEADER // 2:
        raise ValueError(
            f"the description is {len(text)} characters long, too many for a file; "
            "a shorter history_ may help."
        )
    own = {name: _tensor(value) for name, value in tensors.items()}
    return save(own, {_KEY: f"{_checksum(text, own)} {text}"})


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _tensor(value: np.ndarray | Tensor) -> Tensor:
    # Each with memory of its own, which safetensors insists on.
    if isinstance(value, Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return torch.from_numpy(np.array(value, order="C"))


def read(
    path: Path, max_bytes: int | None = None, check: Callable[[Header], None] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read description and tensors.

    Parameters
    ----------
    path : Path
    max_bytes : int, optional
        Larger files are refused.
    check : callable, optional
        Sees the header before any tensor is read, and may raise.

    Raises
    ------
    OSError
        If there is no such file, or none that may be read.
    InvalidFileError
        If the file is not what :func:`pack` has made.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
        raise InvalidFileError(f"{path} is not a file.")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if max_bytes is not None and size > max_bytes:
            raise InvalidFileError(
                f"{path} has {size} bytes, more than max_bytes={max_bytes}; raise it if you trust "
                "the file."
            )
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(LARGEST_HEADER, size - 8):
            raise InvalidFileError(f"{path} is not a file of deepod, or only a part of one.")
        raw = file.read(length)
        try:
            header = _header(raw, size - 8 - length)
            if check is not None:
                check(header)
            from safetensors.torch import load

            # Clones lie where torch would have put them: BLAS rounds by alignment, too.
            loaded = load(start + raw + file.read(size - 8 - length))
            tensors = {name: tensor.clone() for name, tensor in loaded.items()}
            if _checksum(header.text, tensors) != header.checksum:
                raise InvalidFileError("the checksum is wrong: bytes of it have changed")
            return header.description, tensors
        except MemoryError:
            raise
        except InvalidFileError as error:
            raise InvalidFileError(f"{path}: {error}") from error
        except Exception as error:  # of parsers that were given nonsense
            raise InvalidFileError(
                f"{path} is not a file of deepod, or is damaged: {_short(error)}"
            ) from error


def _header(raw: bytes, size: int) -> Header:
    """Parse the header of a file that has ``size`` bytes of tensors."""
    entries = json.loads(raw.decode(), object_pairs_hook=_unique)
    metadata = entries.pop("__metadata__")
    checksum, _, text = metadata[_KEY].partition(" ")
    description = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(description, dict):
        raise InvalidFileError("the description is not a JSON object")
    tensors, ends = {}, [0]
    for name, entry in entries.items():
        shape, (begin, end) = entry["shape"], entry["data_offsets"]
        dtype = _DTYPES[entry["dtype"]]
        numbers = (*shape, begin, end)
        if len(shape) > 8 or not all(type(n) is int and 0 <= n < 1 << 48 for n in numbers):
            raise InvalidFileError(f"tensor {name[:80]!r} has an impossible shape or place")
        if end - begin != prod(shape) * dtype.itemsize:
            raise InvalidFileError(f"tensor {name[:80]!r} has another size than its shape says")
        tensors[name] = torch.empty(shape, dtype=dtype, device="meta")
        ends.append(end)
    if max(ends) != size:
        raise InvalidFileError("there are fewer or more bytes than the tensors need")
    return Header(description, tensors, text, checksum)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidFileError("a key is there twice")
    return found


def _short(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    return text if len(text) < 200 else text[:200] + "..."
