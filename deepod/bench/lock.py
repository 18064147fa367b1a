"""A lock that allows one run at a time on a file of results."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FAR = 1 << 20  # the byte that is locked on Windows, where what is locked cannot be read
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


@contextmanager
def only_one(path: str | Path) -> Iterator[None]:
    """Lock a file of results for the ``with`` block, so that no other run can use it.

    The operating system locks a file beside it whose name ends in ``.lock``. It unlocks that file
    when the process ends in any way, so the lock of a killed run blocks nobody.

    Raises
    ------
    ValueError
        If another run has locked it; the message has the number of its process.
    """
    path = Path(path).resolve()  # a link and what it leads to are one file
    place = path.with_name(path.name + ".lock")
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = _locked(place, path)
    except PermissionError:  # the file may be written, its folder not
        yield
        return
    try:
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        yield
    finally:
        if sys.platform != "win32":  # which deletes no open file
            place.unlink(missing_ok=True)
        os.close(file)


def _locked(place: Path, path: Path) -> int:
    """Open and lock the file, which the previous run may be deleting."""
    while True:
        file = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(file)
        except OSError as error:
            if error.errno not in _TAKEN:  # a file system that knows no locks
                return file
            os.lseek(file, 0, os.SEEK_SET)
            number = os.read(file, 32).decode(errors="replace").strip()
            os.close(file)
            raise ValueError(
                f"{path} is in use by another run, process {number or 'unknown'}: wait until it "
                "has ended, or write to another file."
            ) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), place.stat()):
                return file
        os.close(file)


def _lock(file: int) -> None:
    """Lock an open file, or raise OSError at once."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
