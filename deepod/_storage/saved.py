"""Detectors and ensembles as files: what all of them have of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Self, cast

from sklearn.utils.validation import check_is_fitted

from deepod._registry import DETECTORS, ENSEMBLES, GRAPHS, SERIES
from deepod._storage import models


class Saved:
    """Something fitted that can be written to a file and loaded from one."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what was fitted to a folder or a file, for :func:`deepod.load`.

        Safetensors and JSON, no pickle. A failed or killed save leaves an older model as it was.

        Parameters
        ----------
        path : str or path-like
            A name that ends in ".deepod" or ".safetensors" becomes a single file. Any other becomes
            a folder as the Hugging Face hub has them: ``model.safetensors``, which holds
            everything, and to read ``config.json`` and a card, ``README.md``.

        Raises
        ------
        NotFittedError
            If there is nothing to save yet.
        TypeError
            If a parameter is an object of a class that files cannot hold, such as a thresholder or
            a function among ``callbacks``; or if something inside is no detector of deepod. The
            message names it.
        OSError
            If the file cannot be written, or a folder of this name holds other things.
        """
        check_is_fitted(self)
        models.save(self, path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str | None = None,
        detectors: Iterable[type[Any]] = (),
        max_bytes: int = 1 << 30,
    ) -> Self:
        """Return what :func:`deepod.load` returns, if that is of this class.

        Parameters
        ----------
        path : str or path-like
            The folder or the file.
        device : str, optional
            As in :func:`deepod.load`.
        detectors : iterable of type, default=()
            Classes of your own that the file may hold, besides this one.
        max_bytes : int, default=1073741824
            As in :func:`deepod.load`.

        Returns
        -------
        detector : object
            Fitted, of this class or one derived from it: ``SeedEnsemble`` is a ``Consensus``.

        Raises
        ------
        TypeError
            If the file holds a detector of another class.
        deepod.InvalidFileError, OSError, ValueError
            As :func:`deepod.load`.
        """
        known = {*DETECTORS, *SERIES, *GRAPHS, *ENSEMBLES}
        own = [*detectors] if cls.__name__ in known else [*detectors, cls]
        found = models.load(path, device=device, detectors=own, max_bytes=max_bytes)
        if not isinstance(found, cls):
            name = type(found).__name__
            raise TypeError(
                f"{os.fspath(path)} holds a detector of the class {name}, which is no "
                f"{cls.__name__}: load it by {name}.load or deepod.load."
            )
        return cast(Self, found)
