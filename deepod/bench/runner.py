"""The runner of benchmarks: one row of results per protocol, dataset, detector and seed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Bunch
from threadpoolctl import threadpool_limits

from deepod import datasets, metrics
from deepod._inputs.tables import UNKNOWN, Dialect, is_table, stem
from deepod._storage.atomic import write
from deepod.bench import detectors, environment, limits, protocols, rows
from deepod.bench.lock import only_one
from deepod.bench.rows import Cell
from deepod.ensemble import fit_in_jobs

THREADS = 1  # per worker, for every detector alike
_warm: set[tuple[str, ...]] = set()  # classes that this process has run


class Dataset(NamedTuple):
    """A dataset of a benchmark, with its name and its file or contents."""

    name: str
    path: Path | None = None
    label: str = "label"
    anomaly: Any = None
    bunch: Bunch | None = None
    series: bool = False
    normal: Any = None
    drop: Sequence[str] = ()
    dialect: Dialect = UNKNOWN

    def load(self) -> Bunch:
        """Return the contents of the dataset; the one that was read last is kept in memory."""
        if self.path is None:
            return self.bunch
        files = [self.path, *(self.path.rglob("*") if self.path.is_dir() else ())]
        return _read_dataset(self, max(path.stat().st_mtime_ns for path in files))

    def checksum(self) -> str:
        """Return a checksum of the values and labels."""
        digest, bunch = hashlib.sha256(), self.load()
        if "checksum" in bunch:
            return str(bunch["checksum"])
        for part in ("data", "target", "test", "test_target"):
            values = np.asarray(bunch.get(part, ()))
            digest.update(f"{values.dtype}{values.shape}".encode())
            digest.update(
                repr(values.tolist()).encode() if values.dtype == object else values.tobytes()
            )
        bunch["checksum"] = digest.hexdigest()[:16]
        return str(bunch["checksum"])


class Unit(NamedTuple):
    """The work of a worker at a time: all seeds of a detector on a dataset."""

    protocol: str
    dataset: Dataset
    detector: str
    found: detectors.Found
    seeds: tuple[int, ...]
    max_train: int | None
    max_test: int | None
    stack: bool
    scores: Path | None  # folder to keep the scores in

    def cells(self) -> list[Cell]:
        """Return the cells of all seeds."""
        where = self.protocol, self.dataset.name, self.detector
        return [Cell(*where, seed, self.max_train, self.max_test) for seed in self.seeds]


def run(
    data: Any,
    detectors: Iterable[str],
    out: str | os.PathLike[str],
    *,
    protocol: str = "one-class",
    seeds: int = 5,
    jobs: int = 1,
    max_train: int | None = None,
    max_test: int | None = None,
    stack: bool = True,
    time_limit: float | None = None,
    memory_limit: float | None = None,
    keep_scores: bool = False,
    retry_errors: bool = False,
    progress: bool = True,
    note: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Run detectors on datasets and append a row of results to a file for each seed.

    If a run was stopped or killed, the same call continues it. If a detector fails, its row has an
    ``error`` and the run continues. Existing rows are recognised by protocol, names of dataset and
    detector, seed and caps, and are not computed again. After a change of a detector's code, use
    another ``out``.

    Parameters
    ----------
    data : mapping or list of Dataset
        A mapping from names of datasets to pairs ``(X, y)`` with 1 = anomaly, or the result of
        :func:`find_data`.
    detectors : iterable of str
        Names of detectors: "PLAD", "pyod:IForest", "module:Class" or "file.toml:section", see
        :func:`deepod.bench.detectors.find`.
    out : path-like
        File of JSON lines to append to.
    protocol : str, default="one-class"
        A key of :data:`deepod.bench.protocols.PROTOCOLS`, or "images" or "series" for datasets
        that are divided into training and test data already.
    seeds : int, default=5
        Number of seeds, from 0 on. A seed determines the division of the rows and the detector.
    jobs : int, default=1
        Number of pairs of dataset and detector to run at a time, as joblib's ``n_jobs``.
    max_train, max_test : int, optional
        Largest numbers of training and test rows, for all detectors. Rows are drawn at random; of
        time series, the last training points and the first test points are used.
    stack : bool, default=True
        Whether to train all seeds of a detector of deepod together. Each then gets its share of
        the time, and ``stacked`` in its row is the number of seeds.
    time_limit : float, optional
        Limit, in seconds, on fitting and scoring of a detector on a dataset for one seed. Seeds
        that are trained together share the sum of their limits. It needs the extra
        ``deepod[bench]``, and scripts need ``if __name__ == "__main__":``.
    memory_limit : float, optional
        Limit, in GiB, on the memory of the process of a detector, of which the libraries take some
        0.4. It needs the extra ``deepod[bench]``.
    keep_scores : bool, default=False
        Whether to keep the labels and scores of the test rows, for curves and histograms. They are
        written to a folder beside ``out`` whose name ends in ``.scores``. Earlier runs without
        scores are repeated.
    retry_errors : bool, default=False
        Whether to repeat runs that ended in an error.
    progress : bool, default=True
        Whether to show a progress bar with the remaining time.
    note : mapping, optional
        Additional entries for every row, such as the name of the machine.

    Returns
    -------
    rows : list of dict
        The requested rows, from this run and earlier ones.

    Raises
    ------
    ValueError
        If an argument is not valid; if ``out`` is not a file of results or is in use by another
        run; or if it holds rows of the same name for a detector with other parameters or a dataset
        with other contents.

    Examples
    --------
    >>> import tempfile
    >>> from deepod import bench, datasets
    >>> data = {"wine": datasets.load_bundled("wine", return_X_y=True)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = bench.run(data, ["pyod:KNN"], f"{folder}/r.jsonl", seeds=2, progress=False)
    >>> [row["seed"] for row in rows], rows[0]["n_train"], min(row["auc_roc"] for row in rows) > 0.8
    ([0, 1], 65, True)
    """
    from tqdm.auto import tqdm

    for limit, value in (("time_limit", time_limit), ("memory_limit", memory_limit)):
        if value is not None and not value > 0:
            raise ValueError(f"{limit} must be a number above 0, got {value}.")

    out, found = Path(out), _found(detectors)
    wanted = _datasets(data)
    if protocol not in protocols.DIVIDED:
        protocols.find(protocol)
    for name, f in found.items():
        _check_kind(name, f, protocol)
    stack = stack and protocol != "series"  # series are fitted one by one
    scores = out.with_name(out.name + ".scores") if keep_scores else None
    units = [
        Unit(protocol, dataset, name, f, group, max_train, max_test, stack, scores)
        for dataset in wanted
        for name, f in found.items()
        for group in _groups(f, seeds, stack)
    ]
    with only_one(out):
        there = rows.resume(out)
        for name, f in found.items():
            _check_same(name, f, there.values(), out)
        for dataset in wanted:
            _check_same_data(dataset, there.values(), out)
        missing = set()
        for cell in (cell for unit in units for cell in unit.cells()):
            row = there.get(cell)
            if row is not None and "error" in row:
                done = not retry_errors
            else:
                done = row is not None and (scores is None or scores_file(scores, cell).exists())
            if not done:
                missing.add(cell)
        todo = [unit for unit in units if not missing.isdisjoint(unit.cells())]
        about = environment.describe() | dict(note or {})
        work = partial(run_unit, time_limit=time_limit, memory_limit=memory_limit)
        parallel = Parallel(jobs, batch_size=1, return_as="generator_unordered")
        results = parallel(delayed(work)(unit) for unit in todo)
        with tqdm(total=len(missing), unit="cell", disable=not progress) as bar:
            for part in results:
                for row in part:
                    # Of a unit that a kill has left a part of, all is run, as it would have been.
                    if rows.cell_of(row) in missing:
                        rows.append(out, row | about)
                        bar.update()
                bar.set_postfix_str(f"{part[0]['detector']} on {part[0]['dataset']}")
        asked = {cell for unit in units for cell in unit.cells()}
        return [row for row in rows.read(out) if rows.cell_of(row) in asked] if asked else []


def run_unit(
    unit: Unit, time_limit: float | None = None, memory_limit: float | None = None
) -> list[dict[str, Any]]:
    """Run one unit, in a separate process if there are limits.

    Returns
    -------
    rows : list of dict
        One row per seed with its cell and its result, or its ``error``.
    """
    if time_limit is None and memory_limit is None:
        return _run_unit(unit)
    seconds = None if time_limit is None else time_limit * len(unit.seeds)
    try:
        return limits.call(_run_unit, unit, seconds=seconds, gib=memory_limit)
    except limits.LimitError as error:
        return [c._asdict() | {"error": f"{type(error).__name__}: {error}"} for c in unit.cells()]


def _run_unit(unit: Unit) -> list[dict[str, Any]]:
    trials = [_Trial(cell, unit) for cell in unit.cells()]
    able = [trial for trial in trials if trial.attempt(trial.prepare)]
    if able:
        with _alone():
            _warm_up(unit.found, able[0].split)
            _fit(able)
            for trial in able:
                if trial.attempt(trial.judge) and unit.scores is not None:
                    # Outside of attempt, because a full disk is not a failure of the detector.
                    _keep(unit.scores, trial.cell, trial.split.y_test, trial.scores)
    return [trial.row for trial in trials]


class _Trial:
    """The run of one cell, whose result is a row."""

    split: protocols.Split
    detector: Any
    shown: tuple[np.ndarray, np.ndarray | None]
    scores: np.ndarray

    def __init__(self, cell: Cell, unit: Unit) -> None:
        self.cell, self.unit = cell, unit
        self.series = cell.protocol == "series"
        self.row: dict[str, Any] = cell._asdict()
        self.scaler: StandardScaler | None = None

    def attempt(self, step: Callable[[], Any]) -> bool:
        """Do a step unless an earlier one has failed; write an error to the row."""
        if "error" not in self.row:
            try:
                step()
            except Exception as error:
                self.row["error"] = f"{type(error).__name__}: {error}"
        return "error" not in self.row

    def prepare(self) -> None:
        """Load and divide the rows, and build the detector."""
        self.row["unread"] = True
        self.split = split = load(self.cell, self.unit.dataset)
        del self.row["unread"]
        divided = self.cell.protocol in protocols.DIVIDED
        protocol = None if divided else protocols.find(self.cell.protocol)[0]
        self.row |= {
            "n_train": len(split.X_train),
            "n_test": len(split.y_test),
            "n_features": split.X_train[0].size,
            "anomaly_share": float(split.y_test.mean()),
            # Of series neither is a fact: nobody has labelled the training part, and points repeat.
            "train_anomaly_share": None if self.series else float(split.y_train.mean()),
            "copies": None if self.series else protocols.copies(split),
            "clean": protocol is None or not protocol.shared_rows,
            "data": self.unit.dataset.checksum(),
        }
        n_features = self.row["n_features"]
        self.detector, facts = self.unit.found.build(self.cell.seed, n_features=n_features)
        self.row |= facts
        if protocol is not None and protocol.standardised:
            self.row["scaling"] = "standard"
        if split.given is not None and hasattr(self.detector, "supervision"):
            self.row["uses_labels"] = self.detector.supervision is not None

    def scale(self) -> None:
        """Prepare the rows and labels that the detector is shown: scaled by these rows alone."""
        X = self.split.X_train
        if self.row["scaling"] == "standard":
            self.scaler = StandardScaler()
            X = self.scaler.fit_transform(X.reshape(len(X), -1))
        self.shown = X, self.split.given

    def fit(self) -> None:
        """Fit the detector by itself."""
        with _seeded(self.cell.seed):
            began = perf_counter()
            self.scale()
            X, y = self.shown
            self.detector.fit(X) if y is None else self.detector.fit(X, y)
            self.row |= {"fit_seconds": perf_counter() - began, "stacked": 1}

    def score(self) -> np.ndarray:
        """Score the test rows."""
        with _seeded(self.cell.seed):
            began = perf_counter()
            X = self.split.X_test
            if self.scaler is not None:
                X = self.scaler.transform(X.reshape(len(X), -1))
            scores = np.asarray(self.detector.decision_function(X))
            self.row["score_seconds"] = perf_counter() - began
        return scores

    def judge(self) -> None:
        """Score the test rows, and compare with their labels."""
        scores, y = self.score(), self.split.y_test
        (first, *_) = getattr(self.detector, "members_", [self.detector])
        self.row |= {"device": environment.device_name(first), "threads": THREADS}
        if scores.shape != y.shape or not np.isfinite(scores).all():
            raise ValueError(
                f"The detector must return {len(y)} finite scores, got shape {scores.shape} with "
                f"{np.count_nonzero(~np.isfinite(scores))} that are NaN or infinite."
            )
        flagged = scores > self.detector.threshold_
        self.row |= {
            "auc_roc": float(roc_auc_score(y, scores)),
            "auc_pr": float(average_precision_score(y, scores)),
            # Share of normal test rows above the threshold that fit set; contamination is 0.1.
            "false_alarms": float(flagged[y == 0].mean()),
        }
        if self.series:
            self.row |= _of_series(self.split, scores, flagged)
        else:
            self.row["f1"] = protocols.f1_at_true_count(y, scores)
        self.scores = scores


def _of_series(split: protocols.Split, scores: np.ndarray, flagged: np.ndarray) -> dict[str, Any]:
    """Return the metrics of a series, whose anomalies are stretches of points."""
    y, length = split.y_test, metrics.period(split.X_test[:, 0], most=100)
    volumes = metrics.vus(y, scores, length=length)
    return {
        "vus_pr": volumes.pr,
        "vus_roc": volumes.roc,
        "vus_length": length,
        "range_f1": metrics.range_f1(y, flagged.astype(int)),
        "flagged": float(flagged.mean()),
    }


def _fit(trials: Sequence[_Trial]) -> None:
    """Fit on the training rows; the seeds of a detector of deepod train together.

    The times include scaling, by the detector or, with ``scaling="standard"``, here.
    """
    if not trials[0].unit.found.stacks or len(trials) == 1:
        for trial in trials:
            trial.attempt(trial.fit)
        return
    began = perf_counter()
    trials = [trial for trial in trials if trial.attempt(trial.scale)]
    if not trials:
        return
    Xs, ys = zip(*(trial.shown for trial in trials), strict=True)
    fitted, errors = fit_in_jobs([trial.detector for trial in trials], Xs, ys, None)
    seconds = (perf_counter() - began) / len(trials)
    for trial, detector, error in zip(trials, fitted, errors, strict=True):
        trial.detector = detector
        trial.row |= {"fit_seconds": seconds, "stacked": len(trials)}
        trial.attempt(partial(_raise, error))


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error


def load(cell: Cell, dataset: Dataset) -> protocols.Split:
    """Load a dataset and divide it as a cell says."""
    if dataset.series != (cell.protocol == "series"):
        what = "a time series" if dataset.series else "no time series"
        raise ValueError(
            f"dataset {dataset.name!r} is {what}, which the protocol {cell.protocol!r} cannot "
            "divide; choose another protocol."
        )
    caps = cell.seed, cell.max_train, cell.max_test
    if cell.protocol == "images":
        normal = cell.dataset.rpartition(":")[2].split("+")
        return protocols.split_images(dataset.load(), [*map(int, normal)], *caps)
    if cell.protocol == "blended-images":
        return protocols.blend_images(dataset.load(), *caps)
    if cell.protocol == "series":
        return protocols.split_series(dataset.load(), cell.max_train, cell.max_test)
    table = dataset.load()
    return protocols.split_table(cell.protocol, table.data, table.target, *caps)


def scores_file(folder: Path, cell: Cell) -> Path:
    """Return the file for the scores of a cell."""
    return folder / f"{joblib.hash(tuple(cell))}.npz"


def _keep(folder: Path, cell: Cell, y: np.ndarray, scores: np.ndarray) -> None:
    from io import BytesIO

    contents = BytesIO()
    np.savez_compressed(contents, y=y.astype(np.int8), scores=scores)
    folder.mkdir(parents=True, exist_ok=True)
    write({scores_file(folder, cell): contents.getvalue()})


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Use one thread in a ``with`` block."""
    before = torch.get_num_threads()
    with threadpool_limits(THREADS):
        torch.set_num_threads(THREADS)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators in a ``with`` block, for detectors that use them."""
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            np.random.seed(seed)  # noqa: NPY002
            torch.random.manual_seed(seed)
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


def _warm_up(found: detectors.Found, split: protocols.Split) -> None:
    """Fit once per worker on a few rows, so that the times include no imports or compilation."""
    few = 500 if found.of_series else 64  # windows have to fit in
    # Windows of another detector run other code.
    kind = (*found[:2], str(found.params)) if found.of_series else found[:2]
    if kind not in _warm:
        _warm.add(kind)
        X, y = split.X_train[:few], None if split.given is None else split.given[:few]
        with contextlib.suppress(Exception):  # should it matter, it happens again
            detector, _ = found.build(0, epochs=1, n_features=X[0].size)
            with _seeded(0):
                detector.fit(X) if y is None else detector.fit(X, y)
                detector.decision_function(split.X_test[:few])


def _groups(found: detectors.Found, seeds: int, stack: bool) -> list[tuple[int, ...]]:
    numbers = tuple(range(seeds))
    return [numbers] if stack and found.stacks and seeds else [(seed,) for seed in numbers]


def _found(names: Iterable[str]) -> dict[str, detectors.Found]:
    found = {name: detectors.find(name) for name in names}
    if not found:
        raise ValueError("detectors is empty; name at least one, such as PLAD or pyod:KNN.")
    for name, f in found.items():
        try:
            json.dumps(f.params, allow_nan=False)
        except ValueError as error:  # rows of results could not say which it was
            raise ValueError(
                f"{name}: parameters must not be infinite or NaN, which results cannot hold, got "
                f"{f.params}."
            ) from error
    return found


def _check_kind(name: str, found: detectors.Found, protocol: str) -> None:
    """Raise ValueError if a detector of deepod does not take the data of a protocol."""
    if found.of_series and protocol != "series":
        raise ValueError(f"{name} takes time series only; use the protocol 'series'.")
    if found.own and not found.of_series and protocol == "series":
        raise ValueError(
            f"{name} takes rows in any order, not time series. To use it on windows of series, "
            f'write a section of a TOML file: detector = "Windows", params = {{window = 50, '
            f'detector = {{name = "{found.name}"}}}}.'
        )


def _check_same(
    name: str, found: detectors.Found, there: Iterable[dict[str, Any]], out: Path
) -> None:
    """Raise ValueError if a file has rows of a detector of this name with other parameters."""
    now = json.loads(json.dumps(found.params))
    for row in there:
        if row["detector"] == name and row.get("params", now) != now:
            raise ValueError(
                f"{out} has rows of {name!r} with the parameters {row['params']}, but now they are "
                f"{now}; give the section another name, or write to another file."
            )


def _check_same_data(dataset: Dataset, there: Iterable[dict[str, Any]], out: Path) -> None:
    """Raise ValueError if a file has rows of a dataset of this name with other contents."""
    # What ended in an error may have been mended since.
    known = {
        row["data"]
        for row in there
        if row["dataset"] == dataset.name and "data" in row and "error" not in row
    }
    if not known:
        return
    try:
        now = dataset.checksum()
    except (OSError, ValueError, ImportError):  # an error of each of its rows
        return
    if known != {now}:
        raise ValueError(
            f"{out} has rows of a dataset {dataset.name!r} with other values or labels; give this "
            "dataset another name, or write to another file."
        )


# --- datasets -------------------------------------------------------------------------------------


# Where datasets of a protocol lie in the folder of all; tables for the others.
_FOLDERS = {"images": "images", "blended-images": "images", "series": "timeseries"}


def find_data(
    paths: Iterable[str | os.PathLike[str]] = (),
    names: Iterable[str] = (),
    *,
    protocol: str = "one-class",
    label: str = "label",
    anomaly: Any = None,
    normal: Any = None,
    drop: Sequence[str] = (),
    dialect: Dialect = UNKNOWN,
) -> list[Dataset]:
    """Return the datasets in files and folders.

    Parameters
    ----------
    paths : iterable of path-like
        Files, or folders of files: .npz with arrays X and y, or .csv and .parquet with a column of
        labels. A folder with the name of a file, such as "cards.parquet", is one table. For the
        protocol "series", they are .npz files for :func:`deepod.datasets.load_series`, also in
        nested folders. By default, the folder of :func:`deepod.datasets.get_data_home` is used.
    names : iterable of str
        Names of the datasets to return, in this order; by default all. ADBench's number may be left
        out: "38_thyroid" or "thyroid". For the protocol "images", "mnist" takes each class in turn
        as the normal one, "mnist:3" takes class 3, and "mnist:2+3" both classes; for
        "blended-images", use "mnist". Series have the names of folder and file,
        "SMD/machine-1-6"; "SMD" stands for all series in the folder.
    protocol : str, default="one-class"
        Protocol for which the datasets are, as in :func:`run`.
    label, anomaly, normal, drop
        As in :func:`deepod.datasets.load_table`.
    dialect : Dialect
        Format of .csv files. What is None is detected.

    Returns
    -------
    datasets : list of Dataset
        The datasets, which are not read yet.

    Raises
    ------
    FileNotFoundError
        If a path does not exist, or there is no dataset of a name.
    ValueError
        If there is no file of such a kind, or two files have the same name.
    """
    kind = _FOLDERS.get(protocol, "tabular")
    places = [Path(p) for p in paths] or [datasets.get_data_home() / kind]
    files = []
    for place in places:
        if not place.exists():
            raise FileNotFoundError(
                f"There is no {place}. Name a folder of .npz files (with arrays X and y, as in "
                "ADBench; for series with arrays train, test and test_labels), or set the "
                "environment variable DEEPOD_DATA to a folder that holds tabular/*.npz, "
                "images/*.npz and timeseries/*/*.npz."
            )
        # Without the files of file managers, such as ._thyroid.npz.
        if not place.is_dir() or is_table(place):
            inside = [place]
        elif protocol == "series":
            inside = sorted(place.rglob("[!.]*"))
        else:
            inside = sorted(place.glob("[!.]*"), key=_order)
        usable = [path for path in inside if _is_dataset(path, protocol)]
        if not usable:
            expected = ".npz" if protocol == "series" else ".npz, .csv, .parquet"
            raise ValueError(f"{place} holds no file of the expected kind, {expected}.")
        files += usable
    if protocol == "images":
        return _image_classes(files, list(names))
    if protocol == "series":
        return _series(files, list(names))
    chosen = files
    if names := list(names):
        chosen = [_one(files, name, places) for name in dict.fromkeys(names)]
    of_stem: dict[str, Path] = {}
    for path in chosen:
        other = of_stem.setdefault(stem(path), path)
        if other != path:
            raise ValueError(
                f"{other} and {path} would both have the name {stem(path)!r}; rename one of them."
            )
    anomaly, normal = (tuple(v) if isinstance(v, list) else v for v in (anomaly, normal))
    return [
        Dataset(name, path.absolute(), label, anomaly, None, False, normal, tuple(drop), dialect)
        for name, path in of_stem.items()
    ]


def _is_dataset(path: Path, protocol: str) -> bool:
    return (path.suffix == ".npz" and path.is_file()) or (protocol != "series" and is_table(path))


def _image_classes(files: Sequence[Path], names: Sequence[str]) -> list[Dataset]:
    found = []
    for wanted in names or [path.stem for path in files]:
        name, _, normal = wanted.partition(":")
        path = _one(files, name, sorted({p.parent for p in files})).absolute()
        there = np.unique(Dataset(name, path).load().target).tolist()
        classes = [_classes(normal, there)] if normal else there
        found += [Dataset(f"{name}:{number}", path) for number in classes]
    return list(dict.fromkeys(found))


def _classes(normal: str, there: Sequence[int]) -> str:
    """Return the normal classes, such as "2+3", after a check against those of the dataset."""
    numbers = {int(part) if part.strip().isdigit() else -1 for part in normal.split("+")}
    if not numbers < set(there):
        raise ValueError(
            f"the normal classes must be one or more of {', '.join(map(str, there))} with + "
            f"between them, but not all, got {normal!r}."
        )
    return "+".join(map(str, sorted(numbers)))


def _series(files: Sequence[Path], names: Sequence[str]) -> list[Dataset]:
    """Return series by names, "FOLDER/FILE" or "FOLDER"; without names, all of them."""
    of_name: dict[str, Path] = {}
    for path in map(Path.absolute, files):
        other = of_name.setdefault(f"{path.parent.name}/{path.stem}", path)
        if other != path:
            raise ValueError(
                f"{other} and {path} would have the same name; rename a file or a folder."
            )
    chosen = []
    for wanted in names or dict.fromkeys(path.parent.name for path in of_name.values()):
        found = [name for name in of_name if wanted in (name, name.partition("/")[0])]
        if not found:
            known = ", ".join(list(of_name)[:5])
            raise FileNotFoundError(
                f"There is no series {wanted!r}; the names are {known} and so on."
            )
        chosen += found
    return [Dataset(name, of_name[name], series=True) for name in dict.fromkeys(chosen)]


def _one(files: Sequence[Path], name: str, places: Sequence[Path]) -> Path:
    # With or without a number in front; "mnist" is not "fashion_mnist".
    found = [p for p in files if name in (stem(p), stem(p).lstrip("0123456789").removeprefix("_"))]
    exact = [path for path in found if stem(path) == name]
    if len(exact or found) != 1:
        raise FileNotFoundError(
            f"There are {len(found)} files for dataset {name!r} in {', '.join(map(str, places))}; "
            "there must be exactly one."
        )
    return (exact or found)[0]


def _order(path: Path) -> tuple[bool, int, str]:
    number = path.stem.partition("_")[0]
    return not number.isdigit(), int(number) if number.isdigit() else 0, path.name


def _datasets(data: Any) -> list[Dataset]:
    if not isinstance(data, Mapping):
        return list(data)
    found = []
    for name, given in data.items():
        X, y = (given.data, given.target) if isinstance(given, Bunch) else given
        X, y = np.asarray(X), np.asarray(y)
        if len(X) != len(y) or not np.isin(y, (0, 1)).all():
            raise ValueError(f"data[{name!r}] must be (X, y) with a label of 0 or 1 for each row.")
        found.append(Dataset(name, bunch=Bunch(data=X, target=y.astype(int))))
    return found


@lru_cache(maxsize=1)
def _read_dataset(dataset: Dataset, changed: int) -> Bunch:
    path = dataset.path
    assert path is not None
    if dataset.series:
        return datasets.load_series(path)
    if datasets.holds_images(path):
        return datasets.load_images(str(path))
    return datasets.load_table(
        path,
        label=dataset.label,
        anomaly=dataset.anomaly,
        normal=dataset.normal,
        drop=dataset.drop,
        **vars(dataset.dialect),
    )
