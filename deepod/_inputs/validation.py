"""Checks of the user's arguments, and their error messages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn import config_context
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import column_or_1d, validate_data

from deepod import sources
from deepod._inputs.containers import as_rows
from deepod._inputs.encoding import Encoder, as_frame
from deepod._inputs.shapes import check_layout, compare_shapes, way_to
from deepod.sources import Source
from deepod.types import Shape

_NAMED = 5  # columns, at most, in a message
# Kinds of samples by their number of axes, as in ``BaseDetector.inputs``.
_KINDS = {1: "table", 2: "windows", 3: "images"}
_CALLED = {"table": "rows of a table", "windows": "windows", "images": "images"}
_SHAPES = {"windows": "(time, channels)", "images": "(channels, height, width)"}
# For the DataFrame from which the encoding of rows on disk is learned: text takes some 60 bytes a
# cell, and its analysis as much again; both together may take an eighth of ``memory_limit``.
_CELL_BYTES = 8 * 120
_FEWEST_SAMPLED = 1000


def validate_rows(detector: Any, X: Any, *, reset: bool) -> Any:
    """Return checked rows for training or scoring, as an array or a source.

    The values of a source are checked when they are read.

    Parameters
    ----------
    detector : BaseDetector
        The detector, whose hyper-parameters say what is allowed. With ``reset``, the number and the
        names of the columns are stored on it; otherwise X is compared with them.
    X : array-like or Source
    reset : bool
        True for training and False for scoring.

    Raises
    ------
    ValueError
        If X is not valid. The message says what is wrong and what to do.
    """
    if _encodes(detector, reset):
        return _encoded(detector, X, reset)
    given = X
    if sources.is_mapped(X) and X.nbytes > detector.memory_limit:
        X = sources.array(X)
    streamed = isinstance(X, Source)
    rows = sources.head(X, 2) if streamed else as_nan(as_rows(X))
    if not issparse(rows):  # scikit-learn has a sentence about those
        shape = X.shape if streamed else np.shape(rows)
        if not reset:
            compare_shapes(shape, detector, given)
        elif detector.input_shape is None:
            check_layout(
                shape, X.dtype if streamed else getattr(rows, "dtype", np.dtype(float)), given
            )
    if detector.input_shape is not None and np.ndim(rows) > 2:
        # Flat and shaped samples are then one and the same, at fit and at scoring.
        rows = np.asarray(rows)
        size = int(np.prod(sample_shape(rows, detector.input_shape, given)))
        rows = rows.reshape(len(rows), size)
    rows = validate_data(
        detector,
        rows,
        reset=reset,
        dtype="numeric",
        allow_nd=True,
        ensure_all_finite=False,  # check_finite says more
        ensure_min_samples=2 if reset else 1,
    )
    dtype = X.dtype if streamed else rows.dtype
    if dtype.kind not in "biuf":
        raise ValueError(f"X holds values of type {dtype}; convert them to numbers first.")
    if streamed:
        return X
    check_finite(rows, column_names(detector, rows), allow_nan=_allows_nan(detector, reset))
    return rows


def _encodes(detector: Any, reset: bool) -> bool:
    if not reset:
        return getattr(detector, "encoder_", None) is not None
    # Of what is made of detectors, such as Windows, those inside encode.
    given = (getattr(detector, f"{kind}_features", None) for kind in ("categorical", "datetime"))
    return any(features is not None for features in given)


def _encoded(detector: Any, X: Any, reset: bool) -> Any:
    """Return encoded rows of a mixed table; with ``reset``, learn the encoding first."""
    if reset and detector.input_shape is not None:
        raise ValueError(
            "categorical_features and datetime_features are for tables, but input_shape="
            f"{detector.input_shape!r} is for windows or images; set input_shape=None."
        )
    if hasattr(X, "encoded_by"):  # Parquet
        return _encoded_source(detector, X, reset)
    frame = as_frame(X)
    validate_data(detector, frame, reset=reset, skip_check_array=True)
    if reset:
        _learn_to_encode(detector, frame)
    if len(frame) < 1 + reset:
        raise ValueError(f"X has {len(frame)} rows; at least {1 + reset} are needed.")
    rows = detector.encoder_.transform(frame)
    check_finite(rows, column_names(detector, rows), allow_nan=_allows_nan(detector, reset))
    return rows


def _learn_to_encode(detector: Any, frame: Any) -> None:
    encoder = Encoder.fit(frame, detector.categorical_features, detector.datetime_features)
    detector.encoder_, detector.columns_ = encoder, encoder.columns


def _encoded_source(detector: Any, X: Any, reset: bool) -> Any:
    """Return a source whose rows are encoded when they are read, as learned from a sample."""
    names = as_frame(np.empty((0, X.shape[1])))
    names.columns = X.feature_names
    validate_data(detector, names, reset=reset, skip_check_array=True)
    if len(X) < 1 + reset:
        raise ValueError(f"X has {len(X)} rows; at least {1 + reset} are needed.")
    if reset:
        most = max(_FEWEST_SAMPLED, detector.memory_limit // (_CELL_BYTES * X.shape[1]))
        _learn_to_encode(
            detector, X.frame_of(sources.spread(len(X), most, np.random.default_rng(0)))
        )
    encoder = detector.encoder_
    return X.encoded_by(encoder.transform, len(encoder.source))


def _allows_nan(detector: Any, reset: bool) -> bool:
    return detector.missing == "impute" if reset else detector.fill_ is not None


def column_names(detector: Any, X: np.ndarray | Source) -> Sequence[Any] | None:
    """Return the names or numbers of the columns of a table, for errors; None for other samples."""
    if len(detector.input_shape or X.shape[1:]) != 1:
        return None
    if getattr(detector, "encoder_", None) is not None:
        return detector.encoder_.output_names()
    return getattr(detector, "feature_names_in_", range(X.shape[1]))


def validate_labels(y: Any, n: int, supervision: str | None) -> np.ndarray | None:
    """Return the checked labels of n rows if ``supervision`` uses them, and None otherwise.

    Raises
    ------
    ValueError
        If labels are needed and y is missing, has another length, or holds others than 0 and 1.
    """
    if supervision is None:
        return None
    if y is None:
        raise ValueError(
            f"supervision={supervision!r} needs labels; pass y, or set supervision=None."
        )
    y = column_or_1d(y)
    if len(y) != n:
        raise ValueError(f"y has {len(y)} labels, but X has {n} rows; give one label for each row.")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(
            f"y must hold 0 (normal) and 1 (anomaly) only, got {np.unique(y)[:5].tolist()}."
        )
    return y.astype(np.int64)


def as_nan(X: Any) -> Any:
    """Return X with NaN in place of other missing values: masked entries and pandas' NA."""
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
    """Raise an error if X holds infinity, or NaN without ``allow_nan``.

    Parameters
    ----------
    X : ndarray of shape (n, ...)
    columns : sequence or None
        Names or numbers of the columns of a table; None for windows and images.
    allow_nan : bool
    rows : str, default=""
        Description of the rows for the message, if they are not all rows of X.

    Raises
    ------
    ValueError
        If it does. The message says where in X, and what to do.
    """
    try:
        # Sums of huge values may give inf - inf. NaN is looked for even with scikit-learn's
        # assume_finite, because a row with NaN would be labelled normal.
        with np.errstate(all="ignore"), config_context(assume_finite=False):
            assert_all_finite(X, allow_nan=allow_nan)
    except ValueError:
        raise ValueError(_refusal(X, columns, allow_nan, rows)) from None


def _refusal(X: np.ndarray, columns: Sequence[Any] | None, allow_nan: bool, rows: str) -> str:
    what, bad = "NaN", np.isnan(X)
    remedy = "fit with missing='impute', or put an imputer before the detector in a Pipeline"
    if allow_nan or not bad.any():
        what, bad = f"infinity or a value too large for {X.dtype}", np.isinf(X)
        remedy = "replace it, for example by NaN with missing='impute'"
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


def resolve_device(name: str) -> torch.device:
    """Return the torch device for the parameter ``device``.

    Raises
    ------
    ValueError
        If ``device`` is not a name of a device, or this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"device={name!r} is not a device; use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'."
        ) from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise ValueError(f"device={name!r} is not available on this machine; use 'auto' or 'cpu'.")
    return device


def sample_shape(X: np.ndarray | Source, input_shape: Shape | None, given: Any = None) -> Shape:
    """Return the shape of one sample: that of the rows of X, or ``input_shape`` if these are flat.

    ``given`` is X as the user gave it, for the remedy in errors.

    Raises
    ------
    ValueError
        If ``input_shape`` does not fit the rows, or X has more than four dimensions.
    """
    rows = X.shape[1:]
    if 0 in rows:
        raise ValueError(
            f"X has 0 features: its samples have shape {rows}, but need at least one value."
        )
    if input_shape is None:
        if len(X.shape) > 4:
            raise ValueError(
                f"X has {len(X.shape)} dimensions; expected (n, features), (n, time, channels) or "
                "(n, channels, height, width)."
            )
        return rows
    shape = tuple(input_shape)
    if (
        not all(type(size) is int or isinstance(size, np.integer) for size in shape)
        or min(shape, default=0) < 1
    ):
        raise ValueError(f"input_shape must hold positive integers, got {input_shape!r}.")
    shape = tuple(int(size) for size in shape)
    if rows != shape and not (len(rows) == 1 and rows[0] == np.prod(shape)):
        raise ValueError(
            f"input_shape={input_shape!r} does not fit X, whose rows have shape {rows}: expected "
            f"rows of that shape, or flat rows of {int(np.prod(shape))} values."
            + way_to(X.shape, shape, given)
        )
    return shape


def check_kind(detector: Any) -> None:
    """Raise an error if a method does not take samples of the kind of ``input_shape_``."""
    shape, inputs = detector.input_shape_, detector.inputs
    kind = _KINDS[len(shape)]
    if "series" not in inputs and kind not in inputs:
        way = (
            "check input_shape, or choose another method: deepod.list_detectors() says what each "
            "takes"
        )
        if kind == "table":  # flat images or windows, perhaps
            shapes = [_SHAPES[name] for name in inputs if name in _SHAPES]
            way = f"give input_shape={' or '.join(shapes)} if they are flat {' or '.join(inputs)}"
        raise ValueError(
            f"{type(detector).__name__} takes {' and '.join(inputs)}, but samples of shape {shape} "
            f"are {_CALLED[kind]}; {way}."
        )
