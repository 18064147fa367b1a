"""Scoring on Dask, Ray Data and Spark, and training in several processes under ``torchrun``.

Each engine has an extra that installs it: ``pip install "deepod[dask]"``, ``"deepod[ray]"``,
``"deepod[spark]"``. deepod must be installed on the workers too. A fitted detector is sent to the
workers as bytes, and each worker process loads it once, whatever the number of batches.

The engines control the threads: by default, all three start worker processes with
``OMP_NUM_THREADS=1``, which torch respects, and run one task per core. Dask's threaded scheduler
runs in your own process instead; set ``OMP_NUM_THREADS=1`` there before Python starts.
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
    """Make ``fit`` train one model in several processes, each with its part of the rows.

    This is a context manager. Start your script with ``torchrun``, pass each process its own part
    of the rows, and call ``fit`` inside the context in all of them. Scaling, losses, centres, early
    stopping and threshold are computed from all rows, and every process ends with the same
    detector, which one of them should save. ``batch_size`` is the number of rows of all processes
    together. Without ``torchrun``, there is one process and ``fit`` works as usual.

    Parameters
    ----------
    backend : str, optional
        Backend of ``torch.distributed``; by default "nccl" with CUDA and "gloo" otherwise. It is
        ignored if a process group exists already, which is then used.

    Yields
    ------
    ranks : object
        Has the attributes ``rank``, the number of this process from 0, and ``size``, the number of
        processes.

    Raises
    ------
    ValueError
        Raised by ``fit`` in all processes if they do not fit the same model, if X is read from
        disk, or if ``checkpoint`` is set.
    RuntimeError
        Raised by ``fit`` if it failed in another process before training. If a process ends later
        or does not call ``fit``, the others wait until the timeout of ``torch.distributed``.

    Notes
    -----
    ``decision_scores_`` and ``labels_`` hold the training rows of all processes, in the order of
    ranks. The following see only the rows of their own process: ``_prepare`` of a method, such as
    AnoRand's noise and SMOTE (with labels, each process needs a known anomaly), and BatchNorm in
    training, whose running statistics are averaged after every epoch. Gradients are summed in one
    call per step. Several detectors (:func:`deepod.fit_many`) train one after the other. If one
    batch holds all rows, the result equals that of a single process except for rounding. Otherwise
    the batches are composed differently.

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


# The detectors that this process has loaded, in the order of their last use.
_loaded: dict[str, Any] = {}
_loading = threading.Lock()
_KEPT = 4


class Scorer:
    """Picklable function from batches to scores, for use with other engines.

    It holds the detector as bytes, as it was when the scorer was made. Each process loads the
    detector once, on the device that the parameter ``device`` stands for there, however often
    scorers with the same bytes are sent to it. It keeps the four detectors that were used last.

    Parameters
    ----------
    detector : object
        A fitted detector whose ``decision_function`` scores each row independently: a detector of
        this package, a pipeline that ends in one, or most detectors of PyOD (but not ECOD and
        COPOD, which rank a row within its batch). Its class may be defined in ``__main__``.
    columns : str or sequence of str, optional
        Names of the columns to score, if the data has names. By default those that the detector was
        fitted on, or all columns if it was fitted without names.

    Raises
    ------
    TypeError
        If ``detector`` has no ``decision_function``.
    sklearn.exceptions.NotFittedError
        If ``detector`` is not fitted.
    ValueError
        If ``columns`` are not those that the detector was fitted on.

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
            raise TypeError(f"detector must have a decision_function, which {name} does not.")
        if not _is_fitted(detector):
            raise NotFittedError(f"detector is a {name} that is not fitted; call its fit first.")
        columns = [columns] if isinstance(columns, str) else columns
        self.columns = None if columns is None else list(columns)
        names = getattr(detector, "feature_names_in_", None)
        self.named = names is not None
        if names is not None:
            if self.columns is not None and sorted(self.columns) != sorted(names):
                raise ValueError(
                    f"columns={self.columns} differ from those that detector was fitted on, "
                    f"{list(names)}; leave the argument columns out to use these."
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
        """The detector, which is loaded at its first use in a process."""
        with _loading:
            detector = _loaded.pop(self.digest, None)
            if detector is None:
                detector = pickle.loads(self.payload)
            _loaded[self.digest] = detector
            while len(_loaded) > _KEPT:
                del _loaded[next(iter(_loaded))]
            return detector

    def __call__(self, X: Any) -> np.ndarray:
        """Return the scores of a batch.

        Parameters
        ----------
        X : array or pandas DataFrame
            Rows as in ``decision_function``; there may be none. Of a DataFrame, ``columns`` are
            scored in their order. A single column may hold an array per row.

        Returns
        -------
        scores : ndarray of shape (n,), float64
            Scores in the order of X.
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
        """Return the names of the columns to score, given the names of all columns.

        Parameters
        ----------
        present : sequence of str
            Names of the columns of the data.

        Returns
        -------
        columns : list of str
            Names of the columns to score.

        Raises
        ------
        ValueError
            If a column is missing, or the number of columns is not that of the detector's features.
        """
        present = list(present)
        missing = [name for name in self.columns or () if name not in present]
        if missing:
            raise ValueError(f"columns {missing} are missing; the data has {present}.")
        chosen = self.columns or present
        # A single column may hold whole samples.
        if self.n_features not in (None, len(chosen)) and len(chosen) > 1:
            raise ValueError(
                f"columns={chosen} are {len(chosen)} columns, but detector was fitted on "
                f"{self.n_features} features; pass the names of these as columns."
            )
        return chosen


def score_dask(detector: Any, X: Any, columns: Sequence[str] | None = None) -> Any:
    """Return the scores of a Dask array or DataFrame, computed lazily chunk by chunk.

    The detector is one key of the graph, so that each worker fetches it once.

    Parameters
    ----------
    detector : object
        A fitted detector, as in :class:`Scorer`.
    X : dask.array.Array or dask.dataframe.DataFrame
        Rows to score. An array is rechunked if it is divided along other axes than the first.
    columns : str or sequence of str, optional
        Columns of a DataFrame to score, as in :class:`Scorer`.

    Returns
    -------
    scores : dask.array.Array or dask.dataframe.Series
        Lazy float64 scores with the chunks or partitions of X. A Series has the name "score" and
        the index of X.

    Raises
    ------
    TypeError
        If X is neither a Dask array nor a Dask DataFrame.
    ValueError
        If ``columns`` do not fit the detector or X, or X is an array.
    ImportError
        If Dask is not installed.

    Examples
    --------
    >>> import dask.array as da  # doctest: +SKIP
    >>> X = da.random.normal(size=(10**7, 3), chunks=(10**5, 3))  # doctest: +SKIP
    >>> score_dask(detector, X).max().compute()  # doctest: +SKIP
    """
    dask = _engine("dask", "dask")
    scorer = Scorer(detector, columns)
    send = dask.delayed(scorer, pure=True, traverse=False)
    if hasattr(X, "map_partitions"):
        scorer.pick(X.columns)
        return X.map_partitions(_score_frame, send, meta=("score", "f8"))
    if not hasattr(X, "map_blocks"):
        raise TypeError(
            f"X must be a Dask array or DataFrame, got {type(X).__name__}; use "
            "detector.decision_function for data in memory."
        )
    if columns is not None:
        raise ValueError(
            f"columns={columns!r} can be chosen from a DataFrame only, and X is an array; leave "
            "the argument out."
        )
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
    """Return a Ray Dataset with an additional column of scores.

    Each actor of the pool loads the detector when it starts.

    Parameters
    ----------
    detector : object
        A fitted detector, as in :class:`Scorer`.
    dataset : ray.data.Dataset
        Rows to score. A single column may hold tensors: windows, images, or flat rows.
    columns : str or sequence of str, optional
        Columns to score, as in :class:`Scorer`.
    score : str, default="score"
        Name of the new column.
    **options
        Arguments for ``dataset.map_batches``, such as ``batch_size``, ``compute`` and
        ``num_gpus``. A pool of fixed size must leave a CPU for the tasks that read the data;
        otherwise Ray waits forever.

    Returns
    -------
    dataset : ray.data.Dataset
        Lazy dataset with the given columns and the scores as float64.

    Raises
    ------
    ValueError
        If ``columns`` do not fit the detector or the dataset.
    ImportError
        If Ray is not installed.

    Examples
    --------
    >>> import ray  # doctest: +SKIP
    >>> rows = ray.data.read_parquet("transactions/")  # doctest: +SKIP
    >>> score_ray(detector, rows, num_cpus=1).write_parquet("scores/")  # doctest: +SKIP
    """
    _engine("ray.data", "ray")
    scorer = Scorer(detector, columns)
    known = dataset.columns(fetch_if_missing=False)  # executes nothing
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
    """Return a Spark DataFrame with an additional column of scores.

    The detector is part of a pandas UDF, which Spark broadcasts if it is larger than 1 MB. Each
    Python worker loads it once and keeps it for later tasks.

    Parameters
    ----------
    detector : object
        A fitted detector, as in :class:`Scorer`.
    frame : pyspark.sql.DataFrame
        Rows to score. A single column may hold arrays: the features, or with ``input_shape`` a
        flat window or image.
    columns : str or sequence of str, optional
        Columns to score, as in :class:`Scorer`.
    score : str, default="score"
        Name of the new column.

    Returns
    -------
    frame : pyspark.sql.DataFrame
        Lazy DataFrame with the given columns and the scores as double.

    Raises
    ------
    ValueError
        If ``columns`` do not fit the detector or the DataFrame.
    ImportError
        If PySpark or pandas is not installed.

    Examples
    --------
    >>> rows = spark.read.parquet("transactions/")  # doctest: +SKIP
    >>> score_spark(detector, rows).write.parquet("scores/")  # doctest: +SKIP
    """
    functions = _engine("pyspark.sql.functions", "spark")
    pandas = _engine("pandas", "spark")
    scorer = Scorer(detector, columns)
    chosen = scorer.pick(frame.columns)

    def score_rows(rows):
        return pandas.Series(scorer(rows))

    # Spark reads the kind of a UDF from annotations that are types, not names of types.
    score_rows.__annotations__ = {"rows": pandas.DataFrame, "return": pandas.Series}
    udf = functions.pandas_udf(score_rows, "double")
    quoted = [functions.col("`" + name.replace("`", "``") + "`") for name in chosen]
    return frame.withColumn(score, udf(functions.struct(*quoted)))


def _engine(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{module} cannot be imported ({error}); install it with pip install "deepod[{extra}]".'
        ) from error


def _is_fitted(detector: Any) -> bool:
    if hasattr(detector, "__sklearn_is_fitted__"):
        return detector.__sklearn_is_fitted__()
    if isinstance(detector, BaseDetector):  # PyOD's; some have a fitted attribute before fit
        return getattr(detector, "decision_scores_", None) is not None
    if isinstance(detector, BaseEstimator):
        try:
            check_is_fitted(detector)
        except NotFittedError:
            return False
    return True  # there is no way to find out
