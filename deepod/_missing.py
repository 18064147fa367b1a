"""Values that are missing from X: told apart from bad ones, and named in errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import assert_all_finite

_NAMED = 5  # columns, at most, in a message


def as_nan(X: Any) -> Any:
    """Put NaN where X says otherwise that a value is missing, which NumPy would not see.

    That is what a masked array masks, and pandas' NA among Python objects.
    """
    X = np.asarray(X) if isinstance(X, list | tuple) else X
    if isinstance(X, np.ma.MaskedArray):
        return np.ma.filled(X.astype(np.result_type(X.dtype, np.float16)), np.nan)
    pandas = sys.modules.get("pandas")  # while it is not loaded, there is no NA
    if pandas is None:
        return X
    if isinstance(X, np.ndarray) and X.dtype == object:
        return np.where(pandas.isna(X), np.nan, X)
    if isinstance(X, pandas.DataFrame) and any(dtype.kind == "O" for dtype in X.dtypes):
        values = X.to_numpy(dtype=object, na_value=np.nan)
        return pandas.DataFrame(values, index=X.index, columns=X.columns)
    return X


def check_finite(
    X: np.ndarray, columns: Sequence[Any] | None, *, allow_nan: bool, rows: str = ""
) -> None:
    """Refuse infinity, and NaN unless ``allow_nan``.

    Parameters
    ----------
    X : ndarray of shape (n, ...)
    columns : sequence or None
        Names or numbers of the columns of a table; None for windows and images.
    allow_nan : bool
    rows : str, default=""
        Which rows of the user's X these are, if not all.

    Raises
    ------
    ValueError
        Says where in X, and what to do.
    """
    try:
        with np.errstate(invalid="ignore"):  # it sums, and huge values may give inf - inf
            assert_all_finite(X, allow_nan=allow_nan)
    except ValueError:
        raise ValueError(_refusal(X, columns, allow_nan, rows)) from None


def _refusal(X: np.ndarray, columns: Sequence[Any] | None, allow_nan: bool, rows: str) -> str:
    what, bad = "NaN", np.isnan(X)
    remedy = "fit with missing='impute', or put an imputer in front, in a Pipeline"
    if allow_nan or not bad.any():
        what, bad = f"infinity or a value too large for {X.dtype}", np.isinf(X)
        remedy = "replace it, by NaN with missing='impute' if the value is not known"
    if columns is None:
        count = np.count_nonzero(bad.reshape(len(X), -1).any(1))
        where = f": {np.count_nonzero(bad)} values in {count} of {len(X)} rows"
    else:
        found = [columns[i] for i in np.flatnonzero(bad.any(0)).tolist()]
        names = ", ".join(repr(name) for name in found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        counted = " (counted from 0)" if isinstance(columns, range) else ""
        where = f" in column{'s' * (len(found) > 1)} {names}{more}{counted}"
    return f"Input X contains {what}{where}{rows}; {remedy}."
