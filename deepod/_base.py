"""The base class of every detector: what a method does not have to write."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from deepod._hyperparameters import Hyperparameters
from deepod._inputs.containers import as_rows
from deepod._inputs.encoding import restore_encoder
from deepod._inputs.scaling import Scaler
from deepod._inputs.seeds import spawn_seeds
from deepod._inputs.settings import fixed
from deepod._inputs.validation import validate_labels, validate_rows
from deepod._reporting import CallbackSupport, reported
from deepod._scoring.apply import Function, apply, finite, rows_at_once
from deepod._scoring.as_module import as_module
from deepod._scoring.explain import integrated_gradients
from deepod._scoring.memory import AtOnce
from deepod._storage import rebuild
from deepod._storage.saved import Saved
from deepod._training.fitting import Fit
from deepod._training.together import fit_all
from deepod._transfer import Continues
from deepod.networks import Network, family_with, resolve
from deepod.params import parameters
from deepod.types import Batch, Losses, Phase, Refresh, Shape


@parameters
class BaseDetector(Continues, Saved, CallbackSupport, Hyperparameters):
    """Base class of all deep anomaly detectors of rows, windows and images.

    It checks and scales the data, trains the network, computes scores and sets the threshold. A
    subclass declares its own hyper-parameters with :func:`deepod.params.param` and defines three
    methods:

    - ``_build_module(shape)`` returns the torch module for samples of ``shape``;
    - ``_loss(module, batch)`` returns a dict of weighted loss terms, which training adds up;
    - ``_score(module, x)`` returns one score per sample, higher = more anomalous.

    It may also define ``_prepare`` (which rows to train on), ``_noise`` (the random numbers of the
    loss), ``_phases`` (several stages of training) and ``_after_training`` (quantities that the
    score takes from the training rows). Everything that is learned is stored in the module's
    parameters and buffers. ``_loss`` and ``_score`` may read only hyper-parameters and their
    arguments, and the score of a sample may depend only on that sample.

    Attributes
    ----------
    decision_scores_ : ndarray of shape (n_samples,), float64
        Scores of the training rows, in the order of X. With ``cross_fitting``, each row is scored
        by a network that was not trained on it. Absent if the scores of all rows take more memory
        than ``memory_limit``.
    unseen_ : bool
        Whether ``decision_scores_`` come from networks that were not trained on the scored rows.
        If so, ``p_values`` need no separate calibration rows.
    threshold_ : float
        Rows with a score above it are labelled 1. It follows ``contamination``,
        ``false_alarm_rate`` and ``set_threshold``, also when these are changed after ``fit``.
    labels_ : ndarray of shape (n_samples,), int
        Labels of the training rows: 0 = normal, 1 = anomaly. Absent if ``decision_scores_`` is.
    calibration_scores_ : ndarray, float64
        Scores of the calibration rows in ascending order: of the rows that
        ``calibration_fraction`` held out or that were given to ``calibrate``. With neither, but
        with ``supervision`` and ``cross_fitting``, the scores of the training rows that are not
        labelled 1. Absent if there are no such rows.
    given_threshold_ : float or None
        The argument of the last ``set_threshold``. It is used while ``contamination`` and
        ``false_alarm_rate`` have the values in ``given_under_``.
    given_under_ : tuple or None
        Values of ``contamination`` and ``false_alarm_rate`` when ``set_threshold`` was called.
    history_ : list of dict
        One entry per epoch: phase, epoch, seconds and each weighted loss term.
    module_ : torch.nn.Module
        The trained module, on ``device_``.
    device_ : torch.device
        The device that the module is on.
    baseline_ : ndarray of shape input_shape_, float64
        A typical row in scaled units, which :meth:`explain` compares rows with: the median of each
        value over at most 1024 evenly spaced training rows that are not labelled 1.
    epochs_ : int
        The number of epochs used: ``epochs``, or the number that was chosen for "auto".
    engine_ : str
        The engine used in the last phase of training, see ``engine``.
    input_shape_ : tuple of int
        Shape of one sample.
    scaler_ : object
        The fitted scaler, which has learned ``shift_``, ``scale_`` and ``fill_``.
    fill_ : ndarray or None
        Medians that replace NaN, in the units of X: of shape (d,) for tables, (channels,) for
        windows and (channels, 1, 1) for images. None if ``missing="refuse"``.
    encoder_ : object
        The fitted encoder of mixed tables. Absent without ``categorical_features`` and
        ``datetime_features``.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Absent if X had none.
    """

    # For list_detectors(); every method sets its own.
    family: ClassVar[str] = ""
    inputs: ClassVar[tuple[str, ...]] = ("table", "windows", "images")
    paper: ClassVar[str] = ""
    # epochs="auto" aims at so many optimiser steps, and takes at most so many epochs.
    auto_steps: ClassVar[int] = 2000
    auto_epochs: ClassVar[int] = 1000
    # Whether training on a row lowers its score, so that cross_fitting is needed.
    learns_by_heart: ClassVar[bool] = True
    # Whether scores are differentiable, for explain(rule="gradients"). Ranks are not.
    has_gradients: ClassVar[bool] = True
    # Whether ONNX can hold the score. It cannot if scoring itself computes gradients.
    has_graph: ClassVar[bool] = True
    # The class that carries out a fit, where it is not Fit.
    _fit_kind: ClassVar[type[Fit] | None] = None
    # What network="auto" chooses for images, if it is not what it chooses elsewhere.
    auto_of_images: ClassVar[str] = "auto"
    # Whether network="auto" chooses a network with BatchNorm.
    auto_batch_norm: ClassVar[bool] = False

    # --- What a method defines -----------------------------------------------------------------

    @abc.abstractmethod
    def _build_module(self, shape: Shape) -> nn.Module:
        """Build the module for samples of ``shape``, on the CPU."""

    @abc.abstractmethod
    def _loss(self, module: nn.Module, batch: Batch) -> Losses:
        """Return the weighted loss terms of a batch by name, each a scalar tensor."""

    @abc.abstractmethod
    def _score(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return one score per sample, shape (B,), higher = more anomalous."""

    def _score_trained(self, module: nn.Module, x: Tensor) -> Tensor:
        """Score training samples as if they had not been trained on, if the method can.

        The default returns their ordinary scores.
        """
        return self._score(module, x)

    def _prepare(
        self, X: np.ndarray, y: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the rows to train on and their labels, given scaled rows.

        X is read-only. y is None without ``supervision``. Rows on disk are passed one buffer at a
        time.
        """
        return X, None

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Any:
        """Draw every random number that the loss of n samples uses: a tensor or several."""
        return None

    def _phases(self) -> list[Phase]:
        """Return the stages of training, in their order."""
        return [Phase("fit", self.epochs_, self._loss, milestones=tuple(self.milestones))]

    def _after_training(self) -> Refresh | None:
        """Return how to set buffers after training from the scaled rows of X, if any are.

        The rows are those before ``_prepare``, without those that ``calibration_fraction`` holds
        out; a sample of them if they are on disk.
        """
        return None

    def _contributions(self, module: nn.Module, x: Tensor) -> Tensor | None:
        """Return what each value adds to the score, (B, *shape); None if it is no such sum."""
        return None

    def _network(self, shape: Shape) -> Network:
        """Return the description of the network that ``network`` stands for."""
        images = self.network == "auto" and len(shape) == 3
        network = resolve(self.auto_of_images if images else self.network, shape)
        if self.auto_batch_norm and self.network == "auto" and "batch_norm" in network.get_params():
            network.set_params(batch_norm=True)
        return network

    # --- fit ------------------------------------------------------------------------------------

    @reported
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the detector to the rows of X and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, time, channels) or (n, channels, height, width)
            Training samples, at least two. Infinite values are refused, and so is NaN unless
            ``missing="impute"``. Memory maps larger than ``memory_limit`` and sources of
            :mod:`deepod.sources` are read from disk as needed.
        y : array-like of shape (n,), optional
            Labels. Ignored unless the method has a ``supervision`` parameter that uses them.

        Returns
        -------
        self : object
            The fitted detector. If the fit fails or is interrupted, self is left unchanged.

        Raises
        ------
        ValueError
            If a parameter or X is not valid, or if the file of ``checkpoint`` is damaged or belongs
            to another fit. The message names the problem.
        FloatingPointError
            If a loss becomes NaN or infinite; the message names the term and the step.
        MemoryError
            If the rows or a step do not fit into memory; the message says what to make smaller.
        KeyboardInterrupt
            If Ctrl-C is pressed: at the end of the current optimiser step, or at once when it is
            pressed twice. This needs the main thread and Python's own handler of Ctrl-C.

        Notes
        -----
        A fit with ``checkpoint`` that was killed, failed or was interrupted continues after the
        last saved epoch when it is started again with the same data and parameters. It ends with
        the same scores, module and ``history_`` (except for the seconds) as a fit that was never
        stopped: bit for bit on the same machine with the same number of threads, also with
        ``random_state=None``, because the file holds the seeds.

        The file holds safetensors and JSON. Each new version replaces the old one as a whole, and
        ``fit`` deletes the file when it succeeds. A file that is damaged or was written by another
        class, with other data, other parameters, another device or other versions of torch or
        deepod is refused and left unchanged. Exempt are ``contamination``, ``false_alarm_rate``,
        ``verbose``, ``checkpoint_every`` and callbacks without a state, which may differ. Arrays
        are compared by a hash of all values; rows on disk by their shape, their type and the first
        and last 64 rows. If the file cannot be written once training has begun, for example because
        the disk is full, there is one warning and training continues. A checkpoint file serves one
        fit at a time, so neither a search nor several detectors that are fitted together can share
        one. See :mod:`deepod.callbacks` for callbacks that keep a state.

        Examples
        --------
        >>> import numpy as np
        >>> from deepod import AutoEncoder
        >>> X = np.random.default_rng(0).normal(size=(200, 3))
        >>> detector = AutoEncoder(epochs=5, random_state=0).fit(X)
        >>> detector.decision_scores_.shape, detector.labels_.sum()
        ((200,), np.int64(20))
        """
        (error,) = fit_all([self], [X], [y])
        if error is not None:
            raise error
        return self

    def _scores_as_unseen(self) -> bool:
        return self.cross_fitting or not self.learns_by_heart

    def _validate_y(self, y: Any, n: int) -> np.ndarray | None:
        """Return the checked labels of n rows if ``supervision`` uses them, and None otherwise."""
        return validate_labels(y, n, getattr(self, "supervision", None))

    # --- scores and labels ----------------------------------------------------------------------

    def decision_function(self, X: Any, batch_size: int | None = None) -> np.ndarray:
        """Return anomaly scores; higher = more anomalous.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, time, channels) or (n, channels, height, width)
            Samples shaped like those of ``fit``, or a source of :mod:`deepod.sources`. NaN is
            allowed after a fit with ``missing="impute"``.
        batch_size : int, optional
            Number of rows to score at once; by default it is chosen automatically. Reduce it if
            memory is short. It does not change the scores.

        Returns
        -------
        scores : ndarray of shape (n,), float64
            Scores in the order of X.

        Warns
        -----
        RuntimeWarning
            If memory ran out, so that fewer than ``batch_size`` rows were scored at once.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called.
        ValueError
            If X has another number of features or another shape than in ``fit``, or holds values
            that are not allowed.
        MemoryError
            If memory does not even suffice for 32 rows at once.

        Examples
        --------
        >>> import numpy as np
        >>> from deepod import AutoEncoder
        >>> X = np.random.default_rng(0).normal(size=(200, 3))
        >>> detector = AutoEncoder(epochs=5, random_state=0).fit(X)
        >>> normal, odd = detector.decision_function([[0, 0, 0], [9, 9, 9]])
        >>> bool(odd > normal)
        True
        """
        check_is_fitted(self)
        return finite(self._apply(X, self._score, batch_size))

    def score_batches(self, batches: Iterable[Any]) -> Iterator[np.ndarray]:
        """Return an iterator over the scores of batches, each computed when it is asked for.

        The scores are those of :meth:`decision_function`.

        Parameters
        ----------
        batches : iterable of array-like
            Batches of samples shaped like those of ``fit``, each with at least one sample.

        Yields
        ------
        scores : ndarray of shape (n,), float64
            Scores of one batch of n samples; higher = more anomalous.

        Examples
        --------
        >>> import numpy as np
        >>> from deepod import AutoEncoder
        >>> rng = np.random.default_rng(0)
        >>> detector = AutoEncoder(epochs=5, random_state=0).fit(rng.normal(size=(200, 3)))
        >>> [len(scores) for scores in detector.score_batches([X[:2] for X in [np.eye(3)] * 3])]
        [2, 2, 2]
        """
        check_is_fitted(self)
        at_once = AtOnce()
        for X in batches:
            yield finite(self._apply(X, self._score, at_once=at_once))

    @fixed()
    def explain(
        self, X: Any, batch_size: int | None = None, rule: Literal["auto", "gradients"] = "auto"
    ) -> np.ndarray:
        """Return how much each value of a row contributes to its score.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, time, channels) or (n, channels, height, width)
            Samples shaped like those of ``fit``, or a source of :mod:`deepod.sources`.
        batch_size : int, optional
            As in :meth:`decision_function`.
        rule : {"auto", "gradients"}, default="auto"
            How to compute the contributions. "auto" returns the terms of the score if the score is
            a sum over the values of the row, and integrated gradients otherwise. "gradients" always
            returns integrated gradients.

        Returns
        -------
        contributions : ndarray shaped like X, float64
            Contributions in units of the score. Those of a row depend on that row alone. An imputed
            value contributes as if it had been given. The contribution of a category or a time is
            the sum over the columns that it was encoded as.

        Raises
        ------
        ValueError
            If ``rule`` is unknown, or is "gradients" and the score has no gradients.

        Notes
        -----
        **Terms of the score** add up to the score. These detectors have them: ``AutoEncoder``,
        ``DAE``, ``MemAE``, ``E2EAE``, ``OCGAN``, ``ADGAN``, ``GaussianAD``, ``PixelCNN``,
        ``Neighbors``, ``LocalReconstruction`` and ``IsolationForest``; ``VAE`` and ``SCADN`` by
        default; ``DCN``, ``DSEBM``, ``IAEAD``, ``IAELSTMKL``, ``IGD`` and ``LSA`` with
        ``score_by="reconstruction"``; ``AnoRand`` with ``fusion="reconstruction"``, its default
        without labels (each squared error is divided by the norm); and
        ``NSAE(novelty_weight=0, normalize=None)``.

        **Integrated gradients** (Sundararajan, Taly and Yan, ICML 2017, equation 1) from
        ``baseline_`` to the row serve all other methods and settings. They add up to the score of
        the row minus that of the baseline, except for the error of a quadrature with 128 nodes
        (about 0.5 % of the sum of the absolute contributions for networks with kinks; see
        ``benchmarks/README.md``). Negative contributions make a row look more normal. They take as
        long as 100 to 400 scorings. The scores of ``Neighbors``, ``LocalReconstruction``,
        ``IsolationForest`` and ``PixelCNN`` have no gradients.

        Terms of the score show where a reconstruction fails, which need not be where the row is
        odd: on tables with few columns, an autoencoder may copy the odd value and reconstruct its
        neighbours badly. There, gradients find the odd value more often.

        Examples
        --------
        >>> import numpy as np
        >>> from deepod import AutoEncoder
        >>> X = np.random.default_rng(0).normal(size=(200, 1)) @ np.ones((1, 5))
        >>> detector = AutoEncoder(random_state=0).fit(X)
        >>> contributions = detector.explain([[1, 1, 9, 1, 1]])
        >>> contributions.shape, contributions.argmax()
        ((1, 5), np.int64(2))
        """
        check_is_fitted(self)
        if rule not in ("auto", "gradients"):
            raise ValueError(f"rule must be 'auto' or 'gradients', got {rule!r}.")
        if rule == "gradients" and not self.has_gradients:
            raise ValueError(
                f"rule='gradients' is not for {type(self).__name__}, whose score has no "
                "gradients: use rule='auto'."
            )
        start = torch.as_tensor(self.baseline_, dtype=torch.float32, device=self.device_)
        at_once = AtOnce()

        def contributions(module: nn.Module, x: Tensor) -> Tensor:
            terms = self._contributions(module, x) if rule == "auto" else None
            if terms is not None:
                return terms
            most = at_once.most or rows_at_once(self.input_shape_, batch_size)
            return integrated_gradients(module, self._score, x, start, most)

        if self._encodes():
            return self.encoder_.joined(self._apply(X, contributions, batch_size, at_once))
        X = as_rows(X)
        return self._apply(X, contributions, batch_size, at_once).reshape(np.shape(X))

    def as_module(self) -> nn.Module:
        """Return a torch module that computes the scores of unscaled rows.

        It includes imputation (with ``missing="impute"``), scaling, network and score. Use it for
        gradient-based explainers, ``torch.export`` and the like.

        Returns
        -------
        module : torch.nn.Module
            ``module(X)`` maps a tensor of n rows, in the units and the shape of the rows of
            ``fit``, to a float64 tensor of shape (n,). Its values equal those of
            :meth:`decision_function` except for float32 rounding. The module is a copy on the CPU
            in evaluation mode; later changes of the detector do not affect it. It does not check
            its input for infinite values and the like.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called.

        Notes
        -----
        The module is differentiable with respect to X, except for ``Neighbors``,
        ``LocalReconstruction``, ``IsolationForest`` and ``PixelCNN``, whose modules raise a
        RuntimeError if X requires gradients.

        Examples
        --------
        >>> import numpy as np, torch
        >>> from deepod import AutoEncoder
        >>> X = np.random.default_rng(0).normal(size=(200, 3))
        >>> module = AutoEncoder(epochs=5, random_state=0).fit(X).as_module()
        >>> x = torch.tensor([[0.0, 0.0, 9.0]], requires_grad=True)
        >>> torch.autograd.grad(module(x).sum(), x)[0].abs().argmax()
        tensor(2)
        """
        return as_module(self)

    def _apply(
        self,
        X: Any,
        function: Function,
        batch_size: int | None = None,
        at_once: AtOnce | None = None,
    ) -> np.ndarray:
        """Apply ``function(module, x)``, a row of results for each sample, to new rows."""
        return apply(self, validate_rows(self, X, reset=False), function, batch_size, at_once)

    def _generator(self, random_state: Any) -> torch.Generator:
        """Return a generator of random numbers on the device, seeded by ``random_state``."""
        return torch.Generator(self.device_).manual_seed(spawn_seeds(random_state, 1)[0])

    # --- scikit-learn's estimator API -----------------------------------------------------------

    def set_params(self, **params: Any) -> Self:
        """Set hyper-parameters, including those of the network such as ``network__hidden``.

        If ``network`` is a name such as "mlp" and one of the network's own parameters is set, the
        name is replaced by the network object that it stands for.

        Parameters
        ----------
        **params
            Hyper-parameters by name.

        Returns
        -------
        self : object
            The same detector.

        Examples
        --------
        >>> from deepod import AutoEncoder
        >>> AutoEncoder(network="mlp").set_params(network__hidden=(32,)).network.hidden
        (32,)
        """
        nested = [name.partition("__")[2] for name in params if name.startswith("network__")]
        network = params.get("network", self.network)
        if nested and isinstance(network, str):
            params = params | {"network": family_with(network, nested)}
        BaseEstimator.set_params(self, **params)
        return self

    def _encodes(self) -> bool:
        return "encoder_" in self.__dict__

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "impute"
        tags.input_tags.categorical = self.categorical_features is not None
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Return the state as plain arrays, for machines without a GPU and for skops."""
        state = dict(BaseEstimator.__getstate__(self))
        if "module_" in state:
            tensors = self.module_.state_dict()
            state["module_"] = {name: t.numpy(force=True) for name, t in tensors.items()}
            state["scaler_"] = self.scaler_.state()
            del state["device_"]
            state.pop("encoder_", None)  # made of columns_
        return state

    @fixed()
    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state, on the device that ``device`` stands for if this machine has it."""
        BaseEstimator.__setstate__(self, state)
        if "module_" in state:
            tensors = {name: torch.tensor(array) for name, array in state["module_"].items()}
            self.scaler_ = Scaler(**state["scaler_"])
            restore_encoder(self)
            rebuild.restore_module(self, tensors)
            rebuild.to_device(self)
