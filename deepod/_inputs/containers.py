"""Conversion of everything that users pass as rows to an array or a table."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from deepod._inputs.frames import columns_of, in_memory, numbers_of, refuse_columns
from deepod.sources import Source


def as_rows(X: Any, name: str = "X") -> Any:
    """Return rows in memory as an array or table of numbers, and a source unchanged.

    An array of numbers is neither copied nor checked.

    Raises
    ------
    ValueError, TypeError
        If X cannot be converted, or does not hold numbers only. The message says what to do.
    """
    if isinstance(X, np.ndarray) and X.dtype.kind in "biuf":
        return X
    if isinstance(X, Source) or issparse(X):  # scikit-learn refuses sparse ones
        return X
    X = in_memory(X, name)
    _refuse_container(X, name)
    if columns_of(X) is not None:
        refuse_columns(X, name)
        if len(getattr(X, "shape", ())) != 2:
            remedy = f"pandas.DataFrame({{'value': {name}}})"
            raise ValueError(
                f"{name} is one column, a {type(X).__name__}. Reshape your data: {remedy} for a "
                f"table of that column; for one row, {name}.to_numpy()[None]."
            )
        return numbers_of(X)
    if isinstance(X, Tensor):
        X = array_of(X, name)
    elif isinstance(X, list | tuple):
        X = _stacked(X, name)
    elif not isinstance(X, np.ndarray):
        X = np.asarray(X)
        if not X.ndim and X.dtype == object:
            raise TypeError(
                f"{name} is an object of the class {type(X.item()).__name__}, which holds no rows; "
                "pass an array, a DataFrame or a tensor of shape (n, ...)."
            )
    refuse_columns(X, name)
    return X


def array_of(X: Tensor, name: str = "X") -> np.ndarray:
    """Return a tensor on any device as an array; half precision becomes float32."""
    if X.layout != torch.strided:
        raise ValueError(f"{name} is a sparse tensor; pass {name}.to_dense().")
    if X.is_meta:
        raise ValueError(
            f"{name} is a tensor on the device 'meta', which has no values; load its values first."
        )
    X = X.dequantize() if X.is_quantized else X.detach()
    if X.is_floating_point() and X.element_size() < 4:
        X = X.float()
    return X.resolve_conj().resolve_neg().cpu().numpy()


def _refuse_container(X: Any, name: str) -> None:
    """Raise an error for objects that hold no rows, or that the user has to convert."""
    if X is None:
        raise ValueError(f"{name} is None; pass an array, a DataFrame or a tensor of rows.")
    if isinstance(X, str | bytes | os.PathLike):
        raise TypeError(
            f"{name} is the name {str(X)[:60]!r}, not the rows; read the file first, with "
            "pandas.read_csv(path), deepod.sources.parquet(path) or numpy.load(path)."
        )
    if isinstance(X, TensorDataset):
        raise TypeError(f"{name} is a TensorDataset; pass its rows, {name}.tensors[0].")
    if isinstance(X, DataLoader):
        batch = "batch[0]" if _gives_tuples(X.dataset) else "batch"
        raise TypeError(
            f"{name} is a DataLoader; pass its rows, torch.cat([{batch} for batch in {name}]). "
            f"To score a batch at a time: score_batches({batch} for batch in {name})."
        )
    if isinstance(X, Dataset):
        rows = f"{name}[i][0]" if _gives_tuples(X) else f"{name}[i]"
        raise TypeError(
            f"{name} is a torch Dataset ({type(X).__name__}); pass its rows, "
            f"torch.stack([{rows} for i in range(len({name}))])."
        )
    if isinstance(X, Mapping):
        raise TypeError(f"{name} is a {type(X).__name__}; pass pandas.DataFrame({name}).")
    if isinstance(X, Iterator | map | filter) or _is_view(X):
        raise TypeError(
            f"{name} is a {type(X).__name__}, not an array; pass numpy.stack(list({name})) if it "
            f"yields rows, or numpy.concatenate(list({name})) if it yields batches of rows."
        )
    if _is_photo(X):
        raise ValueError(
            f"{name} is a single photo; pass an array of photos, (n, channels, height, width). "
            f"For one sample: numpy.moveaxis(numpy.atleast_3d({name}), -1, 0)[None]."
        )


def _is_view(X: Any) -> bool:
    return isinstance(X, set | frozenset) or type(X).__name__ in ("dict_values", "dict_keys")


def _gives_tuples(dataset: Any) -> bool:
    """Return whether the items of a dataset are tuples, as of rows with labels."""
    try:
        return isinstance(dataset[0], tuple | list)
    except Exception:  # a user's dataset may raise anything
        return False


def _is_photo(X: Any) -> bool:
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(X, pillow.Image)


def _stacked(X: Sequence[Any], name: str) -> np.ndarray:
    """Return a list of samples, which must have the same shape, as an array."""
    first = X[0] if len(X) else None
    if isinstance(first, Mapping):
        raise TypeError(f"{name} is a list of dicts; pass pandas.DataFrame({name}).")
    if isinstance(first, str | bytes | os.PathLike):
        raise TypeError(
            f"{name} is a list of {type(first).__name__}, such as {str(first)[:40]!r}, not of rows "
            "of numbers. If these are names of files, read the files first; if they are text, "
            "encode it, for example with OneHotEncoder in a Pipeline."
        )
    if isinstance(first, Tensor):
        X = [array_of(part, f"{name}[{i}]") for i, part in enumerate(X)]
    elif _is_photo(first):
        _check_photos(X, name)
    elif columns_of(first := in_memory(first, f"{name}[0]")) is not None:
        X = [in_memory(part, f"{name}[{i}]") for i, part in enumerate(X)]
        for i, part in enumerate(X):
            refuse_columns(part, f"{name}[{i}]")
    try:
        array = np.asarray(X)
    except ValueError:
        _refuse_unlike(X, name)
        raise
    if array.dtype.kind in "US":  # NumPy has turned the numbers into text too
        array = np.asarray(X, dtype=object)
    return array


def _check_photos(X: Sequence[Any], name: str) -> None:
    for i, photo in enumerate(X):
        mode = getattr(photo, "mode", "RGB")
        if mode == "P":
            raise ValueError(
                f"{name}[{i}] is a photo with a palette, whose values are numbers of colours; pass "
                f"[photo.convert('RGB') for photo in {name}]."
            )


def _refuse_unlike(X: Sequence[Any], name: str) -> None:
    """Raise an error for samples of several shapes, which NumPy cannot join to an array."""
    shapes: dict[tuple[int, ...], int] = {}
    for i, part in enumerate(X):
        try:
            shapes.setdefault(np.shape(part), i)
        except ValueError:
            raise ValueError(
                f"{name}[{i}] holds rows of several lengths; make all of them the same length."
            ) from None
    if len(shapes) < 2:
        return  # the caller raises NumPy's error
    (one, i), (other, k) = list(shapes.items())[:2]
    what = "samples"
    remedy = f"drop, cut or fill up those of another shape than {name}[0]"
    if _is_photo(X[0]):
        what, remedy = "photos", "convert and resize them, photo.convert('RGB').resize((32, 32))"
    elif len(one) == 2:
        remedy = (
            "cut them to one length, or give them to a detector of deepod.series, which takes "
            "series of several lengths as a list"
        )
    raise ValueError(
        f"{name} is a list of {what} of several shapes, {one} at index {i} and {other} at index "
        f"{k}, but all need the same shape: {remedy}."
    )
