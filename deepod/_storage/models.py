"""Saved models: fitted detectors as files of tensors and JSON that load without running code.

A file is untrusted until all of it has been checked: classes are looked up, never imported by name;
networks are built without memory first, and tensors are read only if they fit them.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from io import BytesIO
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
import torch

from deepod._inputs.settings import fixed
from deepod._registry import ENSEMBLES, __version__
from deepod._storage import atomic, rebuild
from deepod._storage import detectors as _detectors
from deepod._storage import ensembles as _ensembles
from deepod._storage import graphs as _graphs
from deepod._storage import tensors as _tensors
from deepod._storage import windows as _windows
from deepod._storage.card import CARD, CONFIG, WEIGHTS, card
from deepod._storage.detectors import Sparing
from deepod._storage.tensors import Header, InvalidFileError

if TYPE_CHECKING:
    from deepod._base import BaseDetector

FORMAT = 1  # of the files; a newer one is refused
_SUFFIXES = (".deepod", ".safetensors")
_HEAD = ("library_name", "format", "versions")  # of a description: what all have


# --- save ---------------------------------------------------------------------------------------


@fixed()
def save(detector: Any, path: Any) -> None:
    """Write a fitted detector or ensemble; see :meth:`deepod.BaseDetector.save`."""
    path = Path(path)
    description, tensors = _described(detector)
    data = _tensors.pack(description, tensors)
    own = {
        type(part).__name__: type(part) for part in _kind(description["detector"]).parts(detector)
    }
    try:
        with _tensors.parsing():
            _blank(_tensors.read_header(BytesIO(data), len(data)), own)
    except InvalidFileError as error:  # now, not when it is needed
        raise ValueError(
            f"This detector was not saved, because it could not be loaded again: {error}."
        ) from error
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
    """Return whether a model of this name is a single file."""
    return path.suffix in _SUFFIXES and not path.is_dir()


def check_place(path: Path) -> None:
    """Raise an error if no model can be written under this name.

    Raises
    ------
    OSError
        If the folder does not exist or is write-protected, or the name belongs to something that is
        not a model. The message says which.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"There is no folder {path.parent}; create it first, or choose another name."
        )
    for place in (path if path.is_dir() else path.parent, path):
        if place.exists() and not os.access(place, os.W_OK):
            raise PermissionError(f"{place} is write-protected; choose another name.")
    if _is_file(path) or not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(
            f"{path} is a file, but a model would be a folder of this name; choose another name, "
            "or one that ends in .deepod to save a single file."
        )
    if not all(atomic.is_partial(file) for file in path.iterdir()):
        try:
            _check_format(_tensors.peek(path / WEIGHTS))
        except (OSError, InvalidFileError) as error:
            raise FileExistsError(
                f"{path} is a folder that holds something other than a model; give the name of a "
                "new folder, of an empty folder or of a saved model."
            ) from error


def _described(detector: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the description (JSON) and the tensors of what is to be saved."""
    kind: Any = _windows if hasattr(detector, "detector_") else _detectors
    kind = _ensembles if hasattr(detector, "members_") else kind
    kind = _graphs if hasattr(detector, "n_nodes_") else kind
    description, tensors = kind.described(detector)
    versions = {"deepod": __version__, "torch": torch.__version__.partition("+")[0]}
    versions |= {"numpy": np.__version__, "scikit-learn": sklearn.__version__}
    head = {"library_name": "deepod", "format": FORMAT}
    versions |= {"python": platform.python_version()}
    return head | description | {"versions": versions}, tensors


# --- load ---------------------------------------------------------------------------------------


@fixed()
def load(
    path: str | os.PathLike[str],
    *,
    device: str | None = None,
    detectors: Iterable[type[BaseDetector]] = (),
    max_bytes: int = 1 << 30,
) -> BaseDetector:
    """Load a detector or an ensemble that was saved with its ``save`` method.

    Loading runs no code from the file and imports none. The file holds numbers and names, and names
    are looked up among the detectors and networks of deepod. An invalid file is refused before
    memory is allocated for its contents.

    Parameters
    ----------
    path : str or path-like
        The folder or the file that ``save`` has written.
    device : str, optional
        Device for the detector, or for the members of an ensemble. By default it is the saved
        parameter ``device``, or the CPU if this machine does not have that device.
    detectors : iterable of type, default=()
        Your own classes that the file may hold besides those of ``deepod.list_detectors()``.
    max_bytes : int, default=1073741824
        Limit, in bytes, on the size of the file and on the memory that its convolutions take in
        scoring. A file that exceeds it is refused.

    Returns
    -------
    detector : BaseDetector, Consensus, SeedEnsemble, Windows or detector of graphs
        The fitted detector. On the same machine with the same versions of the libraries, its scores
        equal those of the saved detector bit for bit.

    Raises
    ------
    deepod.InvalidFileError
        If the file is not a saved model, is damaged, or was written by a newer version of deepod;
        the message says which.
    OSError
        If the file does not exist or cannot be read.
    ValueError
        If this machine does not have the given ``device``.

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
        found["detector"] = _blank(header, own, max_bytes)

    description, tensors = _tensors.read(path, max_bytes, check)
    detector = found["detector"]
    kind = _kind(description["detector"])
    try:
        kind.fill(detector, tensors, description)
    except Exception as error:
        raise InvalidFileError(
            f"{path} is damaged, or was not written by save: its detector cannot be restored "
            f"({error})"
        ) from error
    for part in kind.parts(detector):
        if device is not None:
            part.set_params(device=device)
        if hasattr(part, "module_"):
            rebuild.to_device(part, strictly=device is not None)
    return detector


def _kind(name: Any) -> Any:
    """Return the module that reads the files of the class of this name."""
    if name in ENSEMBLES:
        return _ensembles
    if _graphs.holds(name):
        return _graphs
    return _windows if name == "Windows" else _detectors


def _blank(header: Header, own: dict[str, Any], max_bytes: float = inf) -> Any:
    """Build the detector that a file describes, without the values of its tensors."""
    described = {k: v for k, v in header.description.items() if k not in _HEAD}
    return _kind(described["detector"]).blank(described, header.tensors, own, Sparing(), max_bytes)


def _check_format(header: Header) -> None:
    description = header.description
    if description.get("library_name") != "deepod" or type(description.get("format")) is not int:
        raise InvalidFileError("this is not a detector of deepod")
    if description["format"] > FORMAT:
        raise InvalidFileError(
            f"it has format {description['format']}, and deepod {__version__} reads up to "
            f"{FORMAT}; install a newer deepod"
        )
