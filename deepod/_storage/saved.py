"""The methods ``save`` and ``load`` of detectors and ensembles."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Self, cast

from sklearn.utils.validation import check_is_fitted

from deepod._registry import DETECTORS, ENSEMBLES, GRAPHS, SERIES
from deepod._storage import models


class Saved:
    """Mixin of detectors and ensembles that can be saved and loaded."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the fitted detector to a folder or a file that :func:`deepod.load` reads.

        The format is safetensors and JSON, without pickle. If saving fails or is killed, an older
        model of the same name is kept.

        Parameters
        ----------
        path : str or path-like
            A name that ends in ".deepod" or ".safetensors" makes a single file. Any other name
            makes a folder in the layout of the Hugging Face hub: ``model.safetensors`` holds
            everything, ``config.json`` and the card ``README.md`` are for readers.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called.
        TypeError
            If a parameter is an object of a class that files cannot hold, such as a thresholder or
            a function among ``callbacks``; or if something inside is no detector of deepod. The
            message names it.
        OSError
            If the file cannot be written, or the folder exists and holds something else.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from deepod import AutoEncoder, load
        >>> X = np.random.default_rng(0).normal(size=(100, 3))
        >>> detector = AutoEncoder(epochs=5, random_state=0).fit(X)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     detector.save(f"{folder}/model")
        ...     again = load(f"{folder}/model")
        >>> bool((again.decision_function(X) == detector.decision_function(X)).all())
        True
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
        """Load a saved detector of this class; :func:`deepod.load` loads one of any class.

        Parameters
        ----------
        path : str or path-like
            The folder or the file that ``save`` has written.
        device : str, optional
            Device to load to, as in :func:`deepod.load`.
        detectors : iterable of type, default=()
            Your own classes that the file may hold besides this one.
        max_bytes : int, default=1073741824
            Limit on the size of the file, as in :func:`deepod.load`.

        Returns
        -------
        detector : object
            A fitted detector of this class or a subclass of it.

        Raises
        ------
        TypeError
            If the file holds a detector of another class.
        deepod.InvalidFileError, OSError, ValueError
            In the same cases as :func:`deepod.load`.
        """
        known = {*DETECTORS, *SERIES, *GRAPHS, *ENSEMBLES}
        own = [*detectors] if cls.__name__ in known else [*detectors, cls]
        found = models.load(path, device=device, detectors=own, max_bytes=max_bytes)
        if not isinstance(found, cls):
            name = type(found).__name__
            raise TypeError(
                f"{os.fspath(path)} holds a detector of the class {name}, not of "
                f"{cls.__name__}: load it with {name}.load or deepod.load."
            )
        return cast(Self, found)
