"""Score on Dask, Ray Data and Spark; train in several processes under ``torchrun``.

Each engine is imported by the function that needs it.

A fitted detector travels to the workers as bytes and is loaded once in each worker process,
whatever the number of batches. ``deepod`` must be installed there. An engine installs with its
extra: ``pip install "deepod[dask]"``, ``"deepod[ray]"``, ``"deepod[spark]"``.

Threads are left to the engine. Unless told otherwise, all three start their worker processes with
``OMP_NUM_THREADS=1``, which torch keeps to, and run as many tasks as there are cores. Dask's
threads in the user's own process are no such workers: there, set it before Python starts.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

import numpy as np
from pyod.models.base import BaseDetector
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from deepod._training.processes import Ranks, together

try:
    import cloudpickle
except ImportError:  # joblib had a copy of its own before 1.6
    from joblib.externals import cloudpickle

__all__ = ["Scorer", "across_processes", "score_dask", "score_ray", "score_spark"]


@contextmanager
def across_processes(backend: str | None = None) -> Iterator[Ranks]:
    """Let ``fit`` train one model together with the same call in other processes.

    Start a script with ``torchrun`` (without it there is one process), give every process its own
    part of the rows, and fit inside this context in all of them: scaling, losses, centres, early
    stopping and threshold are those of all rows, and every process ends with the same detector.
    ``batch_size`` counts the rows of all processes. Let one of them save it.

    Parameters
    ----------
    backend : str, optional
        Of ``torch.distributed``, if there is no process group yet; default "nccl" with CUDA, else
        "gloo". A group that is there is used as it is.

    Yields
    ------
    ranks : object
        With ``rank``, the number of this process from 0, and ``size``, how many there are.

    Raises
    ------
    ValueError
        By ``fit``, on all processes, if they do not fit the same model, if X is read from disk, or
        if ``checkpoint`` is set.
    RuntimeError
        By ``fit``, if it failed in another process before training. One that ends later, or does
        not call ``fit``, leaves the others waiting until ``torch.distributed`` gives up.

    Notes
    -----
    ``decision_scores_`` and ``labels_`` hold the training rows of all processes, in the order of
    ranks. ``_prepare`` of a method, such as AnoRand's noise and SMOTE, sees the rows of its process
    alone (with labels, each process needs a known anomaly); so does BatchNorm in training, and its
    running statistics are averaged after every epoch.
    Gradients are summed by one call per step. Several detectors (:func:`deepod.fit_many`) train in
    turn. With as few processes as batches have rows the result is that of one process up to
    rounding if a batch is all rows; otherwise batches are put together differently.

    Examples
    --------
    In a file ``train.py``, started by ``torchrun --nproc-per-node 2 train.py``::

        with across_processes() as ranks:
            detector = PLAD(random_state=0).fit(X[ranks.rank :: ranks.size])
        if ranks.rank == 0:
            joblib.dump(detector, "plad.joblib")
    """
    import torch

    if not torch.distributed.is_initialized() and "RANK" not in os.environ:
        yield Ranks(0, 1)  # not started by torchrun: an ordinary fit
        return
    with ExitStack() as stack:
        cuda = torch.cuda.is_available()
        if cuda:  # "cuda" then means this process's own
            stack.enter_context(torch.cuda.device(int(os.environ.get("LOCAL_RANK", 0))))
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group(backend or ("nccl" if cuda else "gloo"))
            stack.callback(torch.distributed.destroy_process_group)
        yield stack.enter_context(together())


# Detectors that this process has loaded, the latest last.
_loaded: dict[str, Any] = {}
_loading = threading.Lock()
_KEPT = 4


class Scorer:
    """Batch in, scores out: a fitted detector in a form made for sending.

    It holds the bytes of the detector as it was when the scorer was made. A process that calls
    scorers of the same bytes, however often they were sent to it, loads the detector once, on the
    device that its ``device`` stands for there; it keeps the four that were loaded last.

    Parameters
    ----------
    detector : object
        Fitted, with a ``decision_function`` that scores each row on its own: a detector of this
        package, a pipeline that ends in one, or most of PyOD's. Not PyOD's ECOD and COPOD, which
        rank a row among those of its batch. A class of ``__main__`` may be sent too.
    columns : str or sequence of str, optional
        Columns to score, for data that has named ones. Default: those that the detector was
        fitted on; all of them, if it was fitted on data without names.

    Raises
    ------
    TypeError
        If detector has no ``decision_function``.
    sklearn.exceptions.NotFittedError
        If detector is not fitted.
    ValueError
        If columns are not those that the detector was fitted on.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import PLAD
    >>> from deepod.distributed import Scorer
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> detector = PLAD(epochs=5, random_state=0).fit(X)
    >>> score = Scorer(detector)
    >>> parts = [score(X[:70]), score(X[70:70]), score(X[70:])]
    >>> np.allclose(np.concatenate(parts), detector.decision_function(X))
    True
    """

    def __init__(self, detector: Any, columns: Sequence[str] | None = None) -> None:
        name = type(detector).__name__
        if not hasattr(detector, "decision_function"):
            raise TypeError(f"detector must have a decision_function, which {name} has not.")
        if not _is_fitted(detector):
            raise NotFittedError(f"detector is a {name} that is not fitted; call its fit first.")
        columns = [columns] if isinstance(columns, str) else columns
        self.columns = None if columns is None else list(columns)
        names = getattr(detector, "feature_names_in_", None)
        self.named = names is not None
        if names is not None:
            if self.columns is not None and sorted(self.columns) != sorted(names):
                raise ValueError(
                    f"columns={self.columns} are not those that detector was fitted on, "
                    f"{list(names)}; leave columns out."
                )
            self.columns = list(names)
        self.n_features = getattr(detector, "n_features_in_", None)
        self.payload = cloudpickle.dumps(detector)
        self.digest = hashlib.sha256(self.payload).hexdigest()

    def __repr__(self) -> str:
        return f"Scorer({self.digest[:8]}, {len(self.payload)} bytes)"

    def __dask_tokenize__(self) -> tuple[str, Any]:
        return self.digest, self.columns

    @property
    def detector(self) -> Any:
        """The detector, loaded at the first use in this process."""
        with _loading:
            detector = _loaded.pop(self.digest, None)
            if detector is None:
                detector = pickle.loads(self.payload)
            _loaded[self.digest] = detector
            while len(_loaded) > _KEPT:
                del _loaded[next(iter(_loaded))]
            return detector

    def __call__(self, X: Any) -> np.ndarray:
        """Score a batch.

        Parameters
        ----------
        X : array or pandas DataFrame
            Rows as ``decision_function`` takes them, or none. Of a DataFrame, ``columns`` are
            scored, in their order; a single one may hold an array per row.

        Returns
        -------
        scores : ndarray of shape (n,), float64
        """
        if not len(X):
            return np.empty(0)
        if hasattr(X, "columns"):
            X = X[self.pick(X.columns)]
            if X.shape[1] == 1 and np.ndim(X.iloc[0, 0]):
                X = np.stack(X.iloc[:, 0])
            elif not self.named:
                X = X.to_numpy()
        return np.asarray(self.detector.decision_function(X), dtype=np.float64)

    def pick(self, present: Sequence[str]) -> list[str]:
        """Return the names of the columns to score, of those that are present.

        Raises
        ------
        ValueError
            If one is missing, or there are not as many as the detector has features.
        """
        present = list(present)
        missing = [name for name in self.columns or () if name not in present]
        if missing:
            raise ValueError(f"columns {missing} are missing; the data has {present}.")
        chosen = self.columns or present
        # A single column may hold whole samples.
        if self.n_features not in (None, len(chosen)) and len(chosen) > 1:
            raise ValueError(
                f"columns={chosen} are {len(chosen)}, but detector was fitted on "
                f"{self.n_features} features; pass their names as columns."
            )
        return chosen


def score_dask(detector: Any, X: Any, columns: Sequence[str] | None = None) -> Any:
    """Score a Dask array or DataFrame, chunk by chunk.

    The detector is one key of the graph, which each worker fetches once.

    Parameters
    ----------
    detector : object
        As in :class:`Scorer`.
    X : dask.array.Array or dask.dataframe.DataFrame
        Rows to score. An array that is divided along other axes than the first is rechunked.
    columns : str or sequence of str, optional
        As in :class:`Scorer`; for a DataFrame.

    Returns
    -------
    scores : dask.array.Array or dask.dataframe.Series
        Lazy, float64, divided as X is; a Series is called "score" and has the index of X.
    """
    dask = _engine("dask", "dask")
    scorer = Scorer(detector, columns)
    send = dask.delayed(scorer, pure=True, traverse=False)
    if hasattr(X, "map_partitions"):
        scorer.pick(X.columns)
        return X.map_partitions(_score_frame, send, meta=("score", "f8"))
    if not hasattr(X, "map_blocks"):
        raise TypeError(
            f"X must be a Dask array or DataFrame, got {type(X).__name__}; what fits in memory "
            "goes to detector.decision_function."
        )
    if columns is not None:
        raise ValueError("columns are for a DataFrame, and X is an array; leave them out.")
    if any(n > 1 for n in X.numblocks[1:]):
        X = X.rechunk(dict.fromkeys(range(1, X.ndim), -1))
    return X.map_blocks(
        _score_block, send, dtype="f8", drop_axis=list(range(1, X.ndim)), meta=np.empty(0)
    )


def _score_block(block: np.ndarray, scorer: Scorer) -> np.ndarray:
    return scorer(block)


def _score_frame(frame: Any, scorer: Scorer) -> Any:
    import pandas

    return pandas.Series(scorer(frame), frame.index, name="score")


def score_ray(
    detector: Any,
    dataset: Any,
    columns: Sequence[str] | None = None,
    *,
    score: str = "score",
    **options: Any,
) -> Any:
    """Add a column of scores to a Ray Dataset.

    Each actor of the pool loads the detector when it starts.

    Parameters
    ----------
    detector : object
        As in :class:`Scorer`.
    dataset : ray.data.Dataset
        Rows to score. A single column may hold tensors: windows, images, or flat rows.
    columns : str or sequence of str, optional
        As in :class:`Scorer`.
    score : str, default="score"
        Name of the new column.
    **options
        Passed on to ``dataset.map_batches``: ``batch_size``, ``compute``, ``num_gpus``. A pool
        of fixed size must leave a CPU to the tasks that read the data, or Ray waits for ever.

    Returns
    -------
    dataset : ray.data.Dataset
        Lazy, with the columns of the given one and the scores as float64.
    """
    _engine("ray.data", "ray")
    scorer = Scorer(detector, columns)
    known = dataset.columns(fetch_if_missing=False)  # costs no execution
    if known is not None:
        scorer.pick(known)
    arguments = {"fn_constructor_args": (scorer, score), "batch_format": "numpy"}
    return dataset.map_batches(_RayActor, **arguments, **options)


class _RayActor:
    def __init__(self, scorer: Scorer, score: str) -> None:
        scorer.detector  # noqa: B018
        self.scorer, self.score = scorer, score

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        columns = self.scorer.pick(list(batch))
        if len(columns) == 1 and batch[columns[0]].ndim > 1:
            X: Any = batch[columns[0]]
        else:
            import pandas

            X = pandas.DataFrame({name: batch[name] for name in columns})
        return batch | {self.score: self.scorer(X)}


def score_spark(
    detector: Any, frame: Any, columns: Sequence[str] | None = None, *, score: str = "score"
) -> Any:
    """Add a column of scores to a Spark DataFrame.

    The detector is part of a pandas UDF, which Spark broadcasts when it is larger than 1 MB; a
    Python worker loads it once and keeps it for its later tasks.

    Parameters
    ----------
    detector : object
        As in :class:`Scorer`.
    frame : pyspark.sql.DataFrame
        Rows to score. A single column may hold arrays: the features, or with ``input_shape`` a
        flat window or image.
    columns : str or sequence of str, optional
        As in :class:`Scorer`.
    score : str, default="score"
        Name of the new column.

    Returns
    -------
    frame : pyspark.sql.DataFrame
        Lazy, with the columns of the given one and the scores as double.
    """
    functions = _engine("pyspark.sql.functions", "spark")
    pandas = _engine("pandas", "spark")
    scorer = Scorer(detector, columns)
    chosen = scorer.pick(frame.columns)

    def score_rows(rows):
        return pandas.Series(scorer(rows))

    # What kind of UDF it is, Spark reads from types, not from their names.
    score_rows.__annotations__ = {"rows": pandas.DataFrame, "return": pandas.Series}
    udf = functions.pandas_udf(score_rows, "double")
    quoted = [functions.col("`" + name.replace("`", "``") + "`") for name in chosen]
    return frame.withColumn(score, udf(functions.struct(*quoted)))


def _engine(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{module} does not import: {error}. Install it with pip install "deepod[{extra}]".'
        ) from error


def _is_fitted(detector: Any) -> bool:
    if hasattr(detector, "__sklearn_is_fitted__"):
        return detector.__sklearn_is_fitted__()
    if isinstance(detector, BaseDetector):  # PyOD's, some of which have a neigh_ before fit
        return getattr(detector, "decision_scores_", None) is not None
    if isinstance(detector, BaseEstimator):
        try:
            check_is_fitted(detector)
        except NotFittedError:
            return False
    return True  # of anything else, nobody can tell
