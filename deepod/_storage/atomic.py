"""Atomic writing of files: completely or not at all."""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the name of a temporary file that replaces ``path`` if the ``with`` block succeeds.

    Until then, an older file is left unchanged.
    """
    with _replacing([path]) as (partial,):
        yield partial


def prepare(path: Path) -> None:
    """Check that a file can be written, and delete temporary files of killed processes.

    Raises
    ------
    OSError
        If the folder does not exist or is read-only, or the path is a folder.
    """
    place = _place(path)
    for partial in place.parent.glob(f".{glob.escape(place.name)}.*.part"):
        with suppress(OSError):
            if stat.S_ISREG(partial.lstat().st_mode):
                with partial.open("rb") as file:
                    if _locked(file):  # nobody is writing it
                        partial.unlink()
    with _named(path), _new(place):
        pass


def write(contents: Mapping[Path, bytes]) -> None:
    """Write all files, or none and keep the older ones if one cannot be written.

    If the process is killed at the last moment, some files may be new and others old.

    Raises
    ------
    OSError
        If a file cannot be written; the error names it.
    """
    with _replacing(list(contents)) as partials:
        for (path, data), partial in zip(contents.items(), partials, strict=True):
            with _named(path):
                partial.write_bytes(data)


def is_partial(path: Path) -> bool:
    """Return whether a file is a temporary one, of this or of a killed process."""
    return path.name.startswith(".") and path.name.endswith(".part")


@contextmanager
def _replacing(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield the names of temporary files that replace ``paths`` together at the end."""
    partials, files = [], []
    with ExitStack() as stack:
        for path in paths:
            with _named(path):
                partial, file = stack.enter_context(_new(_place(path)))
                partials.append(partial)
                files.append(file)
        yield partials
        for path, file in zip(paths, files, strict=True):
            with _named(path):
                os.fsync(file.fileno())  # or a power cut could leave the name without its contents
                if os.name == "nt":  # where open files keep their names; elsewhere, locked still
                    file.close()
        _put(dict(zip(paths, partials, strict=True)))


@contextmanager
def _new(place: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a new file beside ``place``, which is gone in the end if it still has its name."""
    partial = _beside(place)
    try:
        # Never an existing file, which might be a link that somebody else has made.
        file = partial.open("xb")
        while _locked(file, wait=True) and not partial.exists():
            file.close()  # another save took it for one that was left
            partial = _beside(place)
            file = partial.open("xb")
        with file:
            yield partial, file
    finally:
        _remove(partial)


def _put(partials: Mapping[Path, Path]) -> None:
    """Rename files that are complete, all of them or none."""
    with ExitStack() as kept, ExitStack() as undo:
        for path, partial in partials.items():
            with _named(path):
                place = _place(path)
                if not place.exists():
                    undo.callback(_remove, place)
                else:
                    partial.chmod(stat.S_IMODE(place.stat().st_mode))
                    old = _beside(place, "old.")
                    kept.callback(_remove, old)
                    _hold(place, kept)
                    with suppress(OSError):  # not every file system has such links
                        os.link(place, old)
                        undo.callback(old.replace, place)
                partial.replace(place)
        undo.pop_all()


def _place(path: Path) -> Path:
    """Return the path, or the target of a link; raise OSError if it cannot be replaced."""
    path = Path(os.path.realpath(path))
    if path.exists():
        code = 0 if path.is_file() else errno.EISDIR if path.is_dir() else errno.EEXIST
        if not code and not os.access(path, os.W_OK):  # the folder would allow to replace it
            code = errno.EACCES
        if code:
            raise OSError(code, os.strerror(code), str(path))
    return path


def _beside(place: Path, kind: str = "") -> Path:
    # A name that has never been used, because another process may delete an older file by its name.
    return place.with_name(f".{place.name}.{token_hex(8)}.{kind}part")


def _hold(place: Path, stack: ExitStack) -> None:
    """Lock an older file, so that no other process deletes its second name as a leftover."""
    if os.name != "nt":  # where open files cannot be replaced
        with suppress(OSError):
            _locked(stack.enter_context(place.open("rb")), shared=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"{error.strerror}; nothing was written"
        raise OSError(error.errno, text, str(path)) from error


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _locked(file: BinaryIO, wait: bool = False, shared: bool = False) -> bool:
    """Lock a file to mark it as in use, and return whether that worked."""
    try:
        import fcntl  # not on Windows

        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True
