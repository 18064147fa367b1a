"""Protocol x dataset x detector x seed, one row of results each; a run that was killed goes on."""

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
    """A dataset of a run: what it is called, and where it is or what it holds."""

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
        """Read it, or what this process has read last."""
        if self.path is None:
            return self.bunch
        files = [self.path, *(self.path.rglob("*") if self.path.is_dir() else ())]
        return _read_dataset(self, max(path.stat().st_mtime_ns for path in files))

    def checksum(self) -> str:
        """Identify its values and labels."""
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
    """What a worker does at once: all seeds of a detector on a dataset."""

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
        """Name what is run."""
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
    """Run detectors on datasets and append a row of results for each seed.

    A run that was stopped or killed goes on where it was when it is started again. What goes wrong
    with a detector is a row with an ``error``, and the run goes on. A row that is there is known by
    the protocol, the names of dataset and detector, the seed and the caps: for a class that has
    changed, write to another ``out``.

    Parameters
    ----------
    data : mapping or list of Dataset
        Names of datasets to ``(X, y)`` with 1 = anomaly, or what :func:`find_data` finds.
    detectors : iterable of str
        Names, see :func:`deepod.bench.detectors.find`: "PLAD", "pyod:IForest", "module:Class",
        "file.toml:section".
    out : path-like
        File of JSON lines to append to.
    protocol : str, default="one-class"
        See :data:`deepod.bench.protocols.PROTOCOLS`; or one of those of datasets that come divided,
        "images" and "series".
    seeds : int, default=5
        How many, from 0 on. A seed is that of the division of the rows and of the detector.
    jobs : int, default=1
        Pairs of dataset and detector at a time, as joblib's ``n_jobs``.
    max_train, max_test : int, optional
        At most so many rows, for every detector alike: drawn at random, but of a time series the
        last ones of the training part and the first ones of the test part.
    stack : bool, default=True
        Whether to train all seeds of a detector of ours side by side; each is then given its share
        of the time, and ``stacked`` in its row says how many there were.
    time_limit : float, optional
        Seconds that a detector may take on a dataset for one seed, to fit and to score. Those that
        are run together may take it together. Needs the extra ``deepod[bench]``, and a script that
        starts its work below ``if __name__ == "__main__":``.
    memory_limit : float, optional
        GiB of memory that the process of a detector may take, some 0.4 of it by the libraries.
        Needs the extra ``deepod[bench]``.
    keep_scores : bool, default=False
        Whether to keep labels and scores of the test rows, for curves and histograms, in a folder
        beside ``out`` with ``.scores`` at the end of its name. What was run without is run again.
    retry_errors : bool, default=False
        Whether to run again what ended in an error.
    progress : bool, default=True
        Whether to show a progress bar with the time left.
    note : mapping, optional
        More facts for every row, such as a name of the machine.

    Returns
    -------
    rows : list of dict
        Those asked for, from this run and from earlier ones.

    Raises
    ------
    ValueError
        If an argument is not acceptable, ``out`` is no file of results or in use by another run,
        or its rows are of a detector of one of the names with other parameters, or of a dataset
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
            raise ValueError(f"{limit} must be above 0, got {value}.")

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
    """Run one unit; within limits, in a process of its own.

    Returns
    -------
    rows : list of dict
        One per seed: the cell and its result; what goes wrong is its ``error``.
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
                    # Not an attempt: a disk that is full is no failure of the detector.
                    _keep(unit.scores, trial.cell, trial.split.y_test, trial.scores)
    return [trial.row for trial in trials]


class _Trial:
    """One cell on its way to a row."""

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
        """Do a step unless an earlier one has failed; an error becomes part of the row."""
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
                f"Expected {len(y)} finite scores, got shape {scores.shape} with "
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
    """Return the metrics of a series, in which an anomaly is a stretch of points."""
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
    """Fit on the training rows; detectors of ours side by side.

    Scaling counts into the times, whether the detector does it or ``scaling="standard"`` asks for
    it to be done here.
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
        raise ValueError(f"{dataset.name} is {what}, and the protocol is {cell.protocol}.")
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
    """Return where the scores of a cell are kept."""
    return folder / f"{joblib.hash(tuple(cell))}.npz"


def _keep(folder: Path, cell: Cell, y: np.ndarray, scores: np.ndarray) -> None:
    from io import BytesIO

    contents = BytesIO()
    np.savez_compressed(contents, y=y.astype(np.int8), scores=scores)
    folder.mkdir(parents=True, exist_ok=True)
    write({scores_file(folder, cell): contents.getvalue()})


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Run on one thread, and give all of them back."""
    before = torch.get_num_threads()
    with threadpool_limits(THREADS):
        torch.set_num_threads(THREADS)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, for detectors that have no other, and put them back."""
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            np.random.seed(seed)  # noqa: NPY002
            torch.random.manual_seed(seed)
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


def _warm_up(found: detectors.Found, split: protocols.Split) -> None:
    """Fit once per worker on a few rows: no imports or compilation in the times."""
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
        raise ValueError("detectors: expected at least one name.")
    for name, f in found.items():
        try:
            json.dumps(f.params, allow_nan=False)
        except ValueError as error:  # rows of results could not say which it was
            raise ValueError(f"{name}: inf and NaN are no parameters, got {f.params}.") from error
    return found


def _check_kind(name: str, found: detectors.Found, protocol: str) -> None:
    """Refuse a detector of deepod on what it is not for; of others nobody knows."""
    if found.of_series and protocol != "series":
        raise ValueError(f"{name} takes time series: protocol series.")
    if found.own and not found.of_series and protocol == "series":
        raise ValueError(
            f"{name} takes rows in any order, not time series. Put it on windows of a series by a "
            f'section of a TOML file: detector = "Windows", params = {{window = 50, detector = '
            f'{{name = "{found.name}"}}}}.'
        )


def _check_same(
    name: str, found: detectors.Found, there: Iterable[dict[str, Any]], out: Path
) -> None:
    """Refuse to go on where a name has stood for other parameters."""
    now = json.loads(json.dumps(found.params))
    for row in there:
        if row["detector"] == name and row.get("params", now) != now:
            raise ValueError(
                f"{out} has rows of {name!r} with the parameters {row['params']}, which now are "
                f"{now}; give the section another name, or write to another file."
            )


def _check_same_data(dataset: Dataset, there: Iterable[dict[str, Any]], out: Path) -> None:
    """Refuse to go on where a name has stood for other rows or labels."""
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
            f"{out} has rows of a dataset {dataset.name!r} with other values or labels; give the "
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
    """Find datasets on disk.

    Parameters
    ----------
    paths : iterable of path-like
        Files, or folders of files: .npz with arrays X and y, or .csv and .parquet with a column of
        labels. A folder that is called like a file, "cards.parquet", is one table.
        For the protocol "series", .npz for :func:`deepod.datasets.load_series`, in folders
        of folders, too. Without any, those in :func:`deepod.datasets.get_data_home`.
    names : iterable of str
        Only these, in this order, with or without ADBench's number: "38_thyroid" or "thyroid". For
        the protocol "images", "mnist" (every class in turn is normal), "mnist:3", or "mnist:2+3"
        (both are normal); for "blended-images" "mnist". Series are called by their folder and
        file, "SMD/machine-1-6"; "SMD" is all that are in it.
    protocol : str, default="one-class"
    label, anomaly, normal, drop
        As in :func:`deepod.datasets.load_table`.
    dialect : Dialect
        How .csv is written; what is None is found out.

    Returns
    -------
    list of Dataset

    Raises
    ------
    FileNotFoundError
        If a path does not exist, or there is no dataset of a name.
    ValueError
        If there is no file of such a kind, or two have one name.
    """
    kind = _FOLDERS.get(protocol, "tabular")
    places = [Path(p) for p in paths] or [datasets.get_data_home() / kind]
    files = []
    for place in places:
        if not place.exists():
            raise FileNotFoundError(
                f"There is no {place}. Name a folder of .npz files (arrays X and y, as ADBench "
                "ships them; of series, train, test and test_labels), or set the environment "
                "variable DEEPOD_DATA to one that holds tabular/*.npz, images/*.npz and "
                "timeseries/*/*.npz."
            )
        # Not what file managers leave, such as ._thyroid.npz.
        if not place.is_dir() or is_table(place):
            inside = [place]
        elif protocol == "series":
            inside = sorted(place.rglob("[!.]*"))
        else:
            inside = sorted(place.glob("[!.]*"), key=_order)
        usable = [path for path in inside if _is_dataset(path, protocol)]
        if not usable:
            expected = ".npz" if protocol == "series" else ".npz, .csv, .parquet"
            raise ValueError(f"{place}: expected {expected}; there is no such file.")
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
            raise ValueError(f"{other} and {path} would both be called {stem(path)!r}; rename one.")
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
    """Return the normal classes, as "2+3", of those that there are."""
    numbers = {int(part) if part.strip().isdigit() else -1 for part in normal.split("+")}
    if not numbers < set(there):
        raise ValueError(
            f"normal classes {normal!r}: expected one or more of {', '.join(map(str, there))}, not "
            "all, with + between them."
        )
    return "+".join(map(str, sorted(numbers)))


def _series(files: Sequence[Path], names: Sequence[str]) -> list[Dataset]:
    """Find series by "FOLDER/FILE" or "FOLDER"; without names, all, a folder after the other."""
    of_name: dict[str, Path] = {}
    for path in map(Path.absolute, files):
        other = of_name.setdefault(f"{path.parent.name}/{path.stem}", path)
        if other != path:
            raise ValueError(f"{other} and {path} would have one name; rename a file or folder.")
    chosen = []
    for wanted in names or dict.fromkeys(path.parent.name for path in of_name.values()):
        found = [name for name in of_name if wanted in (name, name.partition("/")[0])]
        if not found:
            known = ", ".join(list(of_name)[:5])
            raise FileNotFoundError(f"There is no series {wanted!r}; there are {known} and so on.")
        chosen += found
    return [Dataset(name, of_name[name], series=True) for name in dict.fromkeys(chosen)]


def _one(files: Sequence[Path], name: str, places: Sequence[Path]) -> Path:
    # With or without a number in front; "mnist" is not "fashion_mnist".
    found = [p for p in files if name in (stem(p), stem(p).lstrip("0123456789").removeprefix("_"))]
    exact = [path for path in found if stem(path) == name]
    if len(exact or found) != 1:
        raise FileNotFoundError(
            f"{len(found)} files for dataset {name!r} in {', '.join(map(str, places))}; expected 1."
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
            raise ValueError(f"data[{name!r}]: expected as many labels, 0 or 1, as rows.")
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
