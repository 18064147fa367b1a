"""Loaders of datasets with known anomalies: tables, images and time series.

They return a ``Bunch`` of scikit-learn. The package holds no data: loaders look for files in the
folder of :func:`get_data_home`, and download only if told to.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.utils import Bunch

from deepod._inputs.tables import Dialect, is_table, number, open_table, stem
from deepod._storage.atomic import write

ADBENCH = "https://github.com/Minqi824/ADBench"
# A fixed commit, so that files match the checksums below.
ADBENCH_FILES = (
    "https://raw.githubusercontent.com/Minqi824/ADBench/f7fed68dea6901fe9a81ed51b251b1d2456790cd/"
    "adbench/datasets/Classical/"
)
# Rows, columns, anomalies, and the first half of the SHA-256 of X (as little-endian float32) and y
# (as int8). It is of the values, so it does not depend on the compression of the file.
ADBENCH_TABLES: dict[str, tuple[int, int, int, str]] = {
    "1_ALOI": (49534, 27, 1508, "073c15f1171d859bb35da64b6eac8ce5"),
    "2_annthyroid": (7200, 6, 534, "5ac334c2355c3322ff024fac90c9044b"),
    "4_breastw": (683, 9, 239, "67dd3625a2916394206d4fb06aa34c00"),
    "5_campaign": (41188, 62, 4640, "8d0e719be8110d9a9f4c8f681a45b771"),
    "6_cardio": (1831, 21, 176, "0dc7e75b1e2e2ec591652f0f84ff3283"),
    "7_Cardiotocography": (2114, 21, 466, "8725dbfc56cd3f027d3db14eda7d987f"),
    "11_donors": (619326, 10, 36710, "933d468e85c8c8753f0a9c2cd4cea287"),
    "12_fault": (1941, 27, 673, "a68d9dc1c7e16f0e97a0b59ddf66b10d"),
    "14_glass": (214, 7, 9, "294135c59e6f42ef6804f02e6e6db39e"),
    "16_http": (567498, 3, 2211, "51a22049b70429ac9087485666ae1ea7"),
    "18_Ionosphere": (351, 32, 126, "ffc37d1bcd25c618633110fb34ab0488"),
    "19_landsat": (6435, 36, 1333, "561f0b3c748089e9adb87191dab949b0"),
    "20_letter": (1600, 32, 100, "a743ae7a36f2cc34a8d0eec32c934e78"),
    "21_Lymphography": (148, 18, 6, "0d48ffa30351bf4b060ce689eaace4ad"),
    "23_mammography": (11183, 6, 260, "d3b8f1440f253da0e680587c974aa588"),
    "24_mnist": (7603, 100, 700, "b08543a468e002938912684c70b2a597"),
    "26_optdigits": (5216, 64, 150, "40a4f2bcbcc7f623288a6766ff1c360b"),
    "29_Pima": (768, 8, 268, "76560843bddc27599615fd82f8e3dd81"),
    "30_satellite": (6435, 36, 2036, "203d3f5aa28e7a9ccbfac4f756f44e96"),
    "31_satimage-2": (5803, 36, 71, "918cb5bbd29560e7be49c33a92c1603e"),
    "32_shuttle": (49097, 9, 3511, "b8fc12c4dbffc78fdb97e9369c63f14c"),
    "33_skin": (245057, 3, 50859, "04e948f0af095e80dbf76194c809d5c2"),
    "34_smtp": (95156, 3, 30, "8185c183064af3692fabec228652c3e5"),
    "35_SpamBase": (4207, 57, 1679, "6491d687c4390094866e9c652df48d36"),
    "37_Stamps": (340, 9, 31, "8031e5936f3aac86b2e36a8345f03bd5"),
    "38_thyroid": (3772, 6, 93, "e1c2f0869ff93d387d6faf88057f7c14"),
    "39_vertebral": (240, 6, 30, "b1f307af6de28f0dbc0fe7df3d383de3"),
    "41_Waveform": (3443, 21, 100, "38677bd7be654e2ee230094358ba820b"),
    "42_WBC": (223, 9, 10, "b9a1ea7e0afdfeba64bdb2ff67aa2958"),
    "43_WDBC": (367, 30, 10, "f1ac105c522d4172d43cb2a0f63e8c04"),
    "46_WPBC": (198, 33, 47, "286ff5bf634ca7b043fe88a6e7ee3abb"),
}
# Datasets that scikit-learn ships, and the class that is the anomaly by default.
BUNDLED = {
    "breast_cancer": (load_breast_cancer, 0),  # malignant
    "digits": (load_digits, 8),
    "iris": (load_iris, 2),  # virginica
    "wine": (load_wine, 2),
}
_TIMEOUT = 60  # seconds without an answer


def get_data_home(data_home: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the datasets: the argument, ``$DEEPOD_DATA``, or ``~/deepod_data``.

    Put datasets there as ``tabular/*.npz`` (arrays X and y, as in ADBench), ``images/*.npz`` (see
    :func:`load_images`) and ``timeseries/*/*.npz`` (see :func:`load_series`).

    Parameters
    ----------
    data_home : path-like, optional
        The folder. By default, the environment variable ``DEEPOD_DATA`` or ``~/deepod_data``.

    Returns
    -------
    folder : Path
        The folder, which need not exist.

    Examples
    --------
    >>> from deepod.datasets import get_data_home
    >>> get_data_home("my_data").name
    'my_data'
    """
    given = data_home or os.environ.get("DEEPOD_DATA") or "~/deepod_data"
    return Path(given).expanduser()


def load_adbench(
    name: str,
    data_home: str | os.PathLike[str] | None = None,
    download: bool = False,
    return_X_y: bool = False,
) -> Any:
    """Load a table of the benchmark ADBench (Han et al., NeurIPS 2022).

    Parameters
    ----------
    name : str
        Name of the dataset with or without ADBench's number: "38_thyroid" or "thyroid".
    data_home : path-like, optional
        Folder of the datasets, see :func:`get_data_home`.
    download : bool, default=False
        Whether to download the file from ADBench's repository to ``tabular/`` of the folder if it
        is not there. It is kept only if its checksum is the one in this module.
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    dataset : Bunch
        ``data`` float32 (n, d), ``target`` int (n,) with 1 = anomaly, ``target_names``,
        ``feature_names``, ``name``, ``filename`` and ``DESCR``.

    Raises
    ------
    FileNotFoundError
        If there is no such file. The message says where to get it and where to put it.
    ValueError
        If the name stands for several files, or a download has another checksum.
    OSError
        If the file cannot be downloaded or written.

    Examples
    --------
    >>> from deepod.datasets import load_adbench
    >>> thyroid = load_adbench("thyroid")  # doctest: +SKIP
    >>> thyroid.data.shape, thyroid.target.sum()  # doctest: +SKIP
    ((3772, 6), np.int64(93))
    """
    folder = get_data_home(data_home) / "tabular"
    found = [p for p in sorted(folder.glob("*.npz")) if name in _names(p.stem)]
    if len(found) > 1:
        raise ValueError(
            f"name={name!r} stands for several datasets in {folder}; give the whole name of one: "
            f"{', '.join(p.stem for p in found)}."
        )
    if not found:
        known = [key for key in ADBENCH_TABLES if name in _names(key)]
        if not (download and known):
            raise FileNotFoundError(_missing(name, folder, known, download))
        found = [_download(known[0], folder)]
    bunch = load_table(found[0])
    return (bunch.data, bunch.target) if return_X_y else bunch


def load_table(
    path: str | os.PathLike[str],
    label: str = "label",
    anomaly: Any = None,
    return_X_y: bool = False,
    *,
    normal: Any = None,
    drop: Sequence[str] = (),
    sep: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
) -> Any:
    r"""Load a table with a column of labels from your own file.

    Parameters
    ----------
    path : path-like
        A ``.csv`` or ``.parquet`` file with column names, a folder of such files, or an ``.npz``
        file with arrays X and y. Empty cells become NaN. Tables are read as by ``deepod fit``.
    label : str, default="label"
        Name of the column of labels; in ``.npz`` files it is always y. Labels become numbers if all
        of them can be converted. Otherwise they are text, including "None" and "NA".
    anomaly : object or list of them, optional
        Labels of anomalies, such as "fraud"; rows with other labels are normal. The default is 1
        if all labels are 0 or 1.
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.
    normal : object or list of them, optional
        Labels of normal rows, instead of ``anomaly``; rows with other labels are anomalies.
    drop : sequence of str, default=()
        Names of columns to leave out.
    sep, decimal, encoding : str, optional
        Separator of cells, decimal point and encoding of a .csv file. By default they are inferred
        from the first lines; a ValueError is raised if these are ambiguous.

    Returns
    -------
    dataset : Bunch
        As from :func:`load_adbench`. ``data`` is float64 where float32 would lose digits, and
        ``DESCR`` says how many rows are anomalies.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the column of labels is missing, has empty cells or never holds ``anomaly``; if labels
        are not 0 and 1 and neither ``anomaly`` nor ``normal`` is given; if a column is not numeric,
        or has no name of its own; or if a row has another number of cells than the first line.
    ImportError
        If pyarrow is not installed: ``pip install "deepod[data]"``.

    Warns
    -----
    UserWarning
        If there are more anomalies than normal rows.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from deepod.datasets import load_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "cards.csv"
    ...     _ = path.write_text("amount,hour,kind\n9.5,12,fine\n2e4,3,fraud\n")
    ...     cards = load_table(path, label="kind", anomaly="fraud")
    >>> cards.data.shape, cards.target.tolist(), cards.feature_names
    ((2, 2), [0, 1], ['amount', 'hour'])
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no file or folder of this name.")
    try:
        X, values, names = _read(path, label, drop, Dialect(sep, decimal, encoding))
        target = _targets(values, anomaly, normal)
    except (KeyError, ValueError, BadZipFile) as error:
        raise ValueError(f"{path}: {' '.join(map(str, error.args))}") from error
    said = f"{target.sum():,} of {len(target):,} rows are anomalies ({target.mean():.1%})"
    if target.mean() > 0.5:
        warnings.warn(
            f"{path}: {said}. If the other rows are the anomalies, give their label as anomaly=...",
            stacklevel=2,
        )
    if return_X_y:
        return X, target
    about = f"{path.name}: a table from disk; {said}."
    return _bunch(X, target, names, stem(path), about, str(path))


def load_bundled(name: str, anomaly: int | None = None, return_X_y: bool = False) -> Any:
    """Load a dataset of scikit-learn, with one of its classes as the anomaly.

    Parameters
    ----------
    name : {"breast_cancer", "digits", "iris", "wine"}
        Name of the dataset.
    anomaly : int, optional
        Number of the class of anomalies. By default malignant tumours (0), the digit 8, virginica
        (2) and the third wine (2).
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    dataset : Bunch
        As from :func:`load_adbench`.

    Raises
    ------
    ValueError
        If there is no such dataset or class.

    Examples
    --------
    >>> from deepod.datasets import load_bundled
    >>> tumours = load_bundled("breast_cancer")
    >>> tumours.data.shape, int(tumours.target.sum()), str(tumours.target_names[1])
    ((569, 30), 212, 'malignant')
    """
    if name not in BUNDLED:
        raise ValueError(f"name must be one of {sorted(BUNDLED)}, got {name!r}.")
    load, usual = BUNDLED[name]
    number = usual if anomaly is None else anomaly
    full = load()
    if number not in full.target:
        raise ValueError(f"anomaly must be one of {np.unique(full.target).tolist()}, got {number}.")
    X, y = full.data.astype(np.float32), (full.target == number).astype(int)
    if return_X_y:
        return X, y
    bunch = _bunch(X, y, list(full.feature_names), name, full.DESCR, None)
    bunch.target_names = np.array(["normal", str(full.target_names[number])])
    return bunch


def load_images(
    name: str, normal: int | None = None, data_home: str | os.PathLike[str] | None = None
) -> Bunch:
    """Load images with class labels, for example with one class as the normal one.

    Parameters
    ----------
    name : str
        Path of an ``.npz`` file, or the NAME of a file ``images/NAME.npz`` in the folder of the
        datasets. It must hold the arrays x_train and x_test, uint8 of shape (n, height, width) or
        (n, height, width, channels), and the class numbers y_train and y_test of shape (n,).
    normal : int, optional
        Number of the normal class. If it is given, ``data`` holds only the training images of this
        class, and test images of all other classes are anomalies.
    data_home : path-like, optional
        Folder of the datasets, see :func:`get_data_home`.

    Returns
    -------
    dataset : Bunch
        ``data`` and ``test``, uint8 of shape (n, channels, height, width); ``target`` and
        ``test_target``, int of shape (n,), which are class numbers, or with ``normal`` 0 = normal
        and 1 = anomaly; and ``name``.

    Raises
    ------
    FileNotFoundError
        If there is no such file. The message says where to put it.
    ValueError
        If the file does not hold these arrays, or there is no class ``normal``.

    Examples
    --------
    >>> from deepod.datasets import load_images
    >>> fashion = load_images("fashion-mnist", normal=0)  # doctest: +SKIP
    """
    path = Path(name)
    if path.suffix != ".npz":
        path = get_data_home(data_home) / "images" / f"{name}.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"name={name!r}: there is no file {path}. Put an .npz file with the arrays x_train, "
            "y_train, x_test and y_test there, or set the environment variable DEEPOD_DATA to the "
            "folder of the datasets."
        )
    try:
        with _archive(path) as archive:
            arrays = {key: archive[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    except (KeyError, ValueError, BadZipFile) as error:
        raise ValueError(f"{path}: {' '.join(map(str, error.args))}") from error

    def channels_first(x: np.ndarray) -> np.ndarray:
        return x[:, None] if x.ndim == 3 else np.moveaxis(x, -1, 1)

    target, test_target = (arrays[key].astype(int).ravel() for key in ("y_train", "y_test"))
    data = channels_first(arrays["x_train"])
    if normal is not None:
        if normal not in target:
            raise ValueError(f"normal must be one of {np.unique(target).tolist()}, got {normal}.")
        data = data[target == normal]
        target, test_target = np.zeros(len(data), int), (test_target != normal).astype(int)
    test = channels_first(arrays["x_test"])
    return Bunch(data=data, target=target, test=test, test_target=test_target, name=path.stem)


def load_series(path: str | os.PathLike[str]) -> Bunch:
    """Load a time series with a training part and a labelled test part.

    Parameters
    ----------
    path : path-like
        An ``.npz`` file with the arrays ``train`` (n, d) and ``test`` (m, d), whose rows are points
        in the order of time, and ``test_labels`` (m,), 1 = anomaly. Other arrays are ignored.

    Returns
    -------
    dataset : Bunch
        ``data`` (n, d) and ``test`` (m, d), float32, or float64 where float32 would lose digits;
        ``test_target``, int of shape (m,); ``name``, the names of folder and file such as
        "SMD/machine-1-6"; and ``filename``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file does not hold these arrays.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from deepod.datasets import load_series
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "pump.npz"
    ...     np.savez(path, train=np.zeros((9, 2)), test=np.ones((3, 2)), test_labels=[0, 1, 1])
    ...     pump = load_series(path)
    >>> pump.data.shape, pump.test.shape, pump.test_target.tolist()
    ((9, 2), (3, 2), [0, 1, 1])
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no file of this name.")
    try:
        train, test, labels = _read_series(path)
    except (KeyError, ValueError, BadZipFile) as error:
        raise ValueError(f"{path}: {' '.join(map(str, error.args))}") from error
    name = f"{path.absolute().parent.name}/{path.stem}"
    return Bunch(data=train, test=test, test_target=labels, name=name, filename=str(path))


def holds_images(path: Path) -> bool:
    """Return whether a file holds images that :func:`load_images` can load."""
    if path.suffix != ".npz" or not is_zipfile(path):
        return False
    with np.load(path) as archive:
        return "x_train" in archive


def _archive(path: Path) -> Any:
    if not is_zipfile(path):
        raise BadZipFile("this is not an .npz file, or it is damaged.")
    return np.load(path)


def _arrays(path: Path, *names: str) -> list[np.ndarray]:
    with _archive(path) as archive:
        absent = set(names) - set(archive)
        if absent:
            raise KeyError(f"the file lacks the array {' and the array '.join(sorted(absent))}.")
        return [archive[name] for name in names]


def checksum(X: np.ndarray, y: np.ndarray) -> str:
    """Return the checksum of a table, in the form of :data:`ADBENCH_TABLES`."""
    digest = hashlib.sha256(np.ascontiguousarray(X, dtype="<f4").tobytes())
    digest.update(np.ascontiguousarray(y, dtype="i1").tobytes())
    return digest.hexdigest()[:32]


def _names(stem: str) -> Sequence[str]:
    return stem, stem.partition("_")[2] if stem[0].isdigit() else stem


def _read(
    path: Path, label: str, drop: Sequence[str], dialect: Dialect
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the values, the labels and the names of the columns."""
    if path.suffix == ".npz":
        return _read_npz(path)
    if not path.is_dir() and not is_table(path):
        raise ValueError("expected a .csv, .parquet or .npz file.")
    table = open_table(path, drop=drop, dialect=dialect)
    if label not in table.header:
        raise KeyError(
            f"there is no column label={label!r}; the columns are {', '.join(table.header)}."
        )
    names = [name for name in table.names if name != label]
    X = np.concatenate(list(table.numbers(names)))
    return _narrow(X), _labels(table.values(label), label), names


def _labels(cells: list[Any], label: str) -> np.ndarray:
    """Return labels as numbers if all of them can be converted, and unchanged otherwise."""
    gaps = [cell is None or (isinstance(cell, str) and not cell.strip()) for cell in cells]
    _check_no_gaps(f"column {label!r}", np.array(gaps))
    values: np.ndarray
    try:
        values = np.array([number(c) if isinstance(c, str) else float(c) for c in cells])
    except (TypeError, ValueError):
        values = np.empty(len(cells), dtype=object)
        values[:] = cells
    else:
        _check_no_gaps(f"column {label!r}", np.isnan(values))
    return values


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    X, values = _arrays(path, "X", "y")
    values = values.ravel()
    if values.dtype.kind == "f":
        _check_no_gaps("y", np.isnan(values))
    if X.ndim != 2 or X.dtype.kind not in "biuf":
        raise ValueError(f"X must be a table of numbers, got shape {X.shape} of {X.dtype}.")
    if not 0 < len(X) == len(values):
        raise ValueError(
            f"X has {len(X)} rows and y has {len(values)} labels; expected the same number, at "
            "least one."
        )
    return _narrow(X), values, [str(i) for i in range(X.shape[1])]


def _read_series(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the training part, the test part and the labels of the test part."""
    train, test, labels = _arrays(path, "train", "test", "test_labels")
    for name, part in (("train", train), ("test", test)):
        if part.ndim != 2 or part.dtype.kind not in "biuf" or not part.size:
            raise ValueError(
                f"{name} must be an array of numbers with a row for each point in time and a "
                f"column for each channel, got shape {part.shape} of {part.dtype}."
            )
        wrong = ~np.isfinite(part)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ValueError(
                f"{name} has {np.count_nonzero(wrong)} values that are NaN or infinite, the first "
                f"in row {row + 1}, column {column + 1}; replace them by finite numbers."
            )
    if train.shape[1] != test.shape[1]:
        raise ValueError(
            f"train has {train.shape[1]} channels and test has {test.shape[1]}; expected the same "
            "number."
        )
    if labels.shape != (len(test),) or not np.isin(labels, (0, 1)).all():
        raise ValueError(
            f"test_labels must be 0 or 1 for each of the {len(test)} rows of test, got shape "
            f"{labels.shape} of {labels.dtype} with {np.unique(labels)[:5].tolist()}."
        )
    return _narrow(train), _narrow(test), labels.astype(int)


def _targets(values: np.ndarray, anomaly: Any, normal: Any) -> np.ndarray:
    """Return 1 for each label of an anomaly, and 0 for the others."""
    if anomaly is not None and normal is not None:
        raise ValueError("anomaly and normal are both given; give only one of them.")
    seen = list(dict.fromkeys(values.tolist()))
    found = f"{', '.join(map(repr, seen[:5]))}{' and more' if len(seen) > 5 else ''}"
    if anomaly is None and normal is None:
        if 1 in seen and not all(value in (0, 1) for value in seen):
            way = "anomaly=-1 if they are as in scikit-learn" if -1 in seen else "anomaly=... "
            raise ValueError(
                f"the labels are {found}, and it is not clear which of them stand for anomalies; "
                f"give {way.strip()}, or normal=..."
            )
        anomaly = 1
    given = anomaly if normal is None else normal
    chosen = list(given) if isinstance(given, list | tuple | set) else [given]
    for value in chosen:
        if value not in seen:
            raise ValueError(
                f"no row has the label {value!r} ({type(value).__name__}); the labels are {found} "
                f"({values.dtype}). Give those of anomalies as anomaly=..., or of normal rows as "
                "normal=..."
            )
    is_chosen = np.array([value in chosen for value in values.tolist()])
    return (is_chosen if normal is None else ~is_chosen).astype(int)


def _check_no_gaps(what: str, gaps: np.ndarray) -> None:
    if gaps.any():
        raise ValueError(
            f"{what} has {np.count_nonzero(gaps)} missing labels, the first in row "
            f"{np.argmax(gaps) + 1}; fill them in, or leave these rows out."
        )


def _narrow(X: np.ndarray) -> np.ndarray:
    """Return X as float32 if the error is below 1e-4 of each column's spread, else as float64."""
    narrow = X.astype(np.float32)
    if X.dtype.itemsize <= 4 and X.dtype.kind == "f":
        return narrow
    with np.errstate(invalid="ignore", over="ignore"):
        lost = np.abs(narrow - X.astype(np.float64))
        varies = np.nanstd(X.astype(np.float64), axis=0) if len(X) else 0
        fits = (~np.isfinite(X) | (lost <= 1e-4 * varies) | (lost == 0)).all()
    return narrow if fits else X.astype(np.float64)


def _bunch(
    X: np.ndarray, y: np.ndarray, names: list[str], name: str, about: str, path: str | None
) -> Bunch:
    return Bunch(
        data=X,
        target=y,
        feature_names=names,
        target_names=np.array(["normal", "anomaly"]),
        name=name,
        filename=path,
        DESCR=about,
    )


def _missing(name: str, folder: Path, known: Sequence[str], download: bool) -> str:
    """Return a message that says where to get a dataset and where to put it."""
    text = f"There is no dataset {name!r} in {folder}"
    if known:
        text += (
            f". Call load_adbench({name!r}, download=True), or download "
            f"{ADBENCH_FILES}{known[0]}.npz to that folder"
        )
    else:
        text += (
            f". Download its .npz file to that folder; ADBench's datasets are at {ADBENCH}, in "
            "adbench/datasets/Classical"
        )
        if download:
            text += ". download=True does not do it, because this package has no checksum of it"
    return text + ". Set the environment variable DEEPOD_DATA to use another folder."


def _download(name: str, folder: Path) -> Path:
    from urllib.request import urlopen

    url = f"{ADBENCH_FILES}{name}.npz"
    with urlopen(url, timeout=_TIMEOUT) as answer:
        contents = answer.read()
    try:
        with np.load(BytesIO(contents)) as archive:
            X, y = archive["X"], archive["y"]
        found = checksum(X, y)
    except (ValueError, KeyError, OSError, BadZipFile) as error:
        raise ValueError(
            f"The download of {url} failed, because it is not a dataset ({error}); no file was "
            "written."
        ) from error
    if found != ADBENCH_TABLES[name][-1]:
        raise ValueError(
            f"The download of {url} has another checksum than expected, so the file may have been "
            "changed; no file was written."
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npz"
    write({path: contents})
    return path
