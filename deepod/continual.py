"""Continual learning: one detector that learns tasks one after another without forgetting.

See ``docs/transfer.md`` for results of the methods on series and tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.utils import check_random_state
from torch import Tensor, nn

from deepod._base import BaseDetector
from deepod._inputs.containers import as_rows
from deepod._inputs.series import as_series
from deepod._training.starts import Start
from deepod._training.steps import selected
from deepod.series._base import SeriesDetector
from deepod.types import Batch, Losses

__all__ = ["ContinualTrainer"]

METHODS = ("naive", "joint", "replay", "ewc", "online_ewc", "si")
# The values for strength=None, chosen on synthetic signals of other seeds, see docs/transfer.md.
STRENGTHS = {"ewc": 1e3, "online_ewc": 1e3, "si": 10.0}
_METRICS: dict[str, Callable[[Any, Any], float]] = {
    "roc_auc": roc_auc_score,
    "average_precision": average_precision_score,
}
_AT_ONCE = 64  # rows per batch for the Fisher information


class ContinualTrainer:
    """Trainer that teaches one detector several tasks, one after another, and measures forgetting.

    Parameters
    ----------
    detector : BaseDetector
        A detector of rows or series whose weights are trained by gradients. It is cloned.
    method : {"naive", "joint", "replay", "ewc", "online_ewc", "si"}, default="replay"
        How to prevent forgetting. "naive" does nothing. "joint" trains anew on the rows of all
        tasks, which are kept in memory. "replay" keeps some rows of earlier tasks and trains on
        them together with the new ones. "ewc", "online_ewc" and "si" add a quadratic loss term that
        penalises changes of the weights that earlier tasks need; see the notes.
    strength : float, optional
        Weight of this loss term. The default is 1000 for "ewc" and "online_ewc" and 10 for "si".
        The best value may differ by orders of magnitude; tune it on the first two tasks.
    gamma : float, default=0.9
        For "online_ewc": factor, from 0 to 1, by which the importance of the weights for earlier
        tasks is multiplied at each new task.
    damping : float, default=0.1
        For "si": the constant xi, which limits the importance of weights that hardly changed.
    buffer_size : int, default=500
        For "replay": number of rows of earlier tasks to keep, drawn uniformly from all of them. Of
        series, it is the number of points, divided equally among the tasks.
    fisher_rows : int, default=200
        For "ewc" and "online_ewc": largest number of rows used to estimate the Fisher information.
    metric : {"roc_auc", "average_precision"} or callable, default="roc_auc"
        Metric in ``results_``; a callable gets labels and scores and returns a float.
    random_state : int, RandomState or None, default=None
        Seed for drawing the rows to keep and the rows for the Fisher information.

    Attributes
    ----------
    detector_ : BaseDetector
        The detector, fitted to all tasks so far. Use its ``decision_function`` and ``predict``.
    results_ : ndarray of shape (n_tasks, n_tasks)
        R[i, j] is the metric on the held-out rows of task j after learning task i. It is NaN if
        task j has no held-out rows or j > i.
    average_ : float
        Mean of the last row of ``results_``.
    forgetting_ : float
        Mean over earlier tasks of their best result minus their last result (Chaudhry et al.,
        2018).
    backward_transfer_ : float
        Mean over earlier tasks of their last result minus their first result (Lopez-Paz and
        Ranzato, 2017); negative if they were forgotten.

    Notes
    -----
    The scaling is that of the first task and the threshold is that of the latest one, as with
    :meth:`deepod.BaseDetector.partial_fit`; with "joint", both are those of all rows. The running
    statistics of BatchNorm follow the latest task, and no loss term protects them. Networks without
    BatchNorm (``network=MLP()``) therefore forget less.

    **EWC** (Kirkpatrick et al., PNAS 2017) adds ``strength / 2 * sum_k sum_i F_ki (w_i - w_ki)^2``
    to the loss, where k runs over earlier tasks, i over weights, and w_k are the weights after task
    k. F is the diagonal of the Fisher information: the mean over rows of the squared gradient of
    the log-likelihood. Detectors have no likelihood, but a squared error divided by twice its
    variance is the negative log-likelihood of a Gaussian. With the mean loss as the variance, and
    in units of the loss, ``F = mean(g^2) / (2 |mean loss|)``, where g is the gradient of the loss
    of one row. ``strength`` is therefore independent of the unit of the loss. A loss that compares
    rows with one another is computed for one row alone, with the module in evaluation mode.

    **Online EWC** (Schwarz et al., ICML 2018) keeps a single sum around the latest weights, with
    ``F = gamma F + F_k``. **SI** (Zenke et al., ICML 2017) adds ``strength * sum_i W_i (w_i -
    w*_i)^2`` around the latest weights w*. Each task adds ``omega_i / (D_i^2 + damping)`` to W,
    where D is the change of the weights during the task. omega is the sum over steps of minus the
    gradient (of the loss without this term) times the step; negative sums, which are due to noise,
    count as 0. SI uses ``engine="eager"``.

    B. Maschler et al. (Regularization-based continual learning for anomaly detection in discrete
    manufacturing, Procedia CIRP 2021) compare EWC, online EWC and SI on a stacked LSTM.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import AutoEncoder
    >>> from deepod.continual import ContinualTrainer
    >>> rng = np.random.default_rng(0)
    >>> trainer = ContinualTrainer(AutoEncoder(epochs=10, random_state=0), "replay", random_state=0)
    >>> for W in rng.normal(size=(2, 2, 6)):
    ...     X = rng.normal(size=(300, 2)) @ W
    ...     held_out = np.concatenate([X[:50], 2 * rng.normal(size=(50, 6))])
    ...     trainer = trainer.learn_task(X[50:], held_out=(held_out, np.repeat([0, 1], 50)))
    >>> trainer.results_.shape, trainer.average_ > 0.8
    ((2, 2), True)
    """

    detector_: BaseDetector

    def __init__(
        self,
        detector: Any,
        method: Literal["naive", "joint", "replay", "ewc", "online_ewc", "si"] = "replay",
        *,
        strength: float | None = None,
        gamma: float = 0.9,
        damping: float = 0.1,
        buffer_size: int = 500,
        fisher_rows: int = 200,
        metric: str | Callable[[Any, Any], float] = "roc_auc",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
        if not (isinstance(detector, BaseDetector) and detector._in_steps and detector.auto_epochs):
            raise TypeError(
                "detector must be a detector of deepod that trains its weights by gradients, such "
                f"as AutoEncoder(), got {detector!r}."
            )
        encodes = (detector.categorical_features, detector.datetime_features) != (None, None)
        if encodes and method in ("joint", "replay"):
            raise ValueError(
                f"method={method!r} keeps rows as arrays of numbers and cannot be used with "
                "categorical_features or datetime_features: encode such columns beforehand."
            )
        if strength is not None and not strength >= 0:
            raise ValueError(f"strength must be 0 or more, got {strength!r}.")
        for name, value in (("buffer_size", buffer_size), ("fisher_rows", fisher_rows)):
            if not value >= 1:
                raise ValueError(f"{name} must be 1 or more, got {value!r}.")
        if not 0 <= gamma <= 1 or not damping > 0:
            raise ValueError(
                f"gamma must be from 0 to 1 and damping above 0, got {gamma!r} and {damping!r}."
            )
        if not (callable(metric) or metric in _METRICS):
            raise ValueError(f"metric must be callable or one of {list(_METRICS)}, got {metric!r}.")
        self.detector, self.method = detector, method
        self.strength = STRENGTHS.get(method, 0.0) if strength is None else strength
        self.gamma, self.damping = gamma, damping
        self.buffer_size, self.fisher_rows = buffer_size, fisher_rows
        self.metric, self.random_state = metric, random_state
        self._random = check_random_state(random_state)
        self._held_out: list[tuple[Any, np.ndarray] | None] = []
        self._table: list[list[float]] = []
        self._kept = _Kept(isinstance(detector, SeriesDetector), self._random)
        self._anchors: list[Anchor] = []

    def learn_task(self, X: Any, y: Any = None, held_out: tuple[Any, Any] | None = None) -> Self:
        """Train the detector on a new task, and evaluate it on all tasks so far.

        Parameters
        ----------
        X, y : array-like
            Training rows and labels of the task as in the detector's ``fit``, shaped like those of
            the first task. "joint" and "replay" need them as arrays in memory.
        held_out : tuple of array-like, optional
            A pair (rows, labels) of the task that is not trained on, with labels 0 = normal and
            1 = anomaly. ``results_`` is computed from it.

        Returns
        -------
        self : object
            The same trainer. If training fails, it is left unchanged.

        Raises
        ------
        ValueError
            If ``held_out`` does not have both labels, or X is not shaped like that of the earlier
            tasks. Other errors are those of the detector's ``fit``.
        """
        pair = None
        if held_out is not None:
            pair = held_out[0], _flat(held_out[1])
            if not callable(self.metric) and set(np.unique(pair[1])) != {0, 1}:
                raise ValueError(
                    "held_out must be a pair (rows, labels) whose labels contain both 0 and 1, got "
                    f"the labels {np.unique(pair[1])[:5].tolist()}."
                )
        detector, anchors = self._learned(X, y)
        metric = _METRICS[self.metric] if isinstance(self.metric, str) else self.metric
        measured = [
            np.nan if one is None else metric(one[1], _flat(detector.decision_function(one[0])))
            for one in (*self._held_out, pair)
        ]
        self.detector_, self._anchors = detector, anchors
        self._held_out.append(pair)
        self._table.append([float(value) for value in measured])
        if self.method in ("joint", "replay"):
            most = None if self.method == "joint" else self.buffer_size
            self._kept.add(X, y, most)
        return self

    def _learned(self, X: Any, y: Any) -> tuple[BaseDetector, list[Anchor]]:
        """Return a detector that has learned one more task, and the new anchors."""
        first = not self._table
        anew = first or self.method == "joint"
        detector = clone(self.detector) if anew else self._copy()
        if self.method == "si":
            detector.set_params(engine="eager")
        if self.method in ("joint", "replay") and not first:
            X, y = self._kept.with_new(X, y)
        watcher: _Fisher | _Path | None = None
        if self.method in ("ewc", "online_ewc"):
            watcher = _Fisher(self.fisher_rows, self._random.randint(1 << 31))
        elif self.method == "si":
            watcher = _Path(self._anchors, self.strength)
        terms = Penalty(self.method, self.strength, tuple(self._anchors)) if self._anchors else None
        if anew:
            start = replace(detector._start or Start(), watcher=watcher)
            detector._fit_from(start, X, y)
        else:
            detector._go_on(X, y, terms=terms, watcher=watcher)
        return detector, self._next_anchors(detector, watcher)

    def _copy(self) -> BaseDetector:
        """Return a shallow copy of the detector, whose attributes training replaces."""
        copy = clone(self.detector_)
        copy.__dict__ |= vars(self.detector_)
        return copy

    def _next_anchors(
        self, detector: BaseDetector, watcher: _Fisher | _Path | None
    ) -> list[Anchor]:
        """Return the anchors after a task: earlier ones and that of the task."""
        if watcher is None:
            return []
        centers = {n: p.detach().clone() for n, p in detector.module_.named_parameters()}
        if isinstance(watcher, _Fisher):
            found, half = watcher.found, 0.5
        else:
            found, half = watcher.importance(centers, self.damping), 1.0
        new = {name: half * weight for name, weight in found.items()}
        if self.method == "ewc":
            return [*self._anchors, Anchor(new, centers)]
        kept = self.gamma if self.method == "online_ewc" else 1.0
        for anchor in self._anchors:
            old = anchor.weights
            new = {name: kept * old.get(name, 0.0) + weight for name, weight in new.items()}
        return [Anchor(new, centers)]

    # --- what was measured ----------------------------------------------------------------------

    @property
    def results_(self) -> np.ndarray:
        """The matrix R[i, j] of the metric on task j after learning task i."""
        if not self._table:
            raise NotFittedError("No task has been learned yet; call learn_task first.")
        n = len(self._table)
        return np.array([row + [np.nan] * (n - len(row)) for row in self._table])

    @property
    def average_(self) -> float:
        """The mean over all tasks of their last results."""
        return _mean(self.results_[-1])

    @property
    def forgetting_(self) -> float:
        """The mean over earlier tasks of their best result minus their last result."""
        results = self.results_
        n = len(results)
        best = [np.fmax.reduce(results[j : n - 1, j], initial=np.nan) for j in range(n - 1)]
        return _mean(np.array(best) - results[-1, :-1])

    @property
    def backward_transfer_(self) -> float:
        """The mean over earlier tasks of their last result minus their first result."""
        results = self.results_
        return _mean(results[-1, :-1] - results.diagonal()[:-1])


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _flat(values: Any) -> np.ndarray:
    """Return labels or scores of several series as one array."""
    if isinstance(values, list | tuple) and len(values) and np.ndim(values[0]):
        return np.concatenate([np.ravel(part) for part in values])
    return np.ravel(values)


# --- terms of the loss ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Anchor:
    """The weights at the end of a task (centers), and the cost of changing each (weights)."""

    weights: Mapping[str, Tensor]
    centers: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Penalty:
    """A loss term: the weighted squared distances of the parameters from anchors."""

    name: str
    strength: float
    anchors: tuple[Anchor, ...]

    def __call__(self, module: nn.Module) -> Losses:
        """Return the term for the parameters of a module."""
        terms = [
            (anchor.weights[name] * (p - anchor.centers[name]).square()).sum()
            for name, p in module.named_parameters()
            for anchor in self.anchors
            if name in anchor.weights
        ]
        return {self.name: self.strength * torch.stack(terms).sum()}


class _Fisher:
    """An estimator of the Fisher information at the end of a fit, see ``ContinualTrainer``.

    Attributes
    ----------
    found : dict of Tensor
        The Fisher information of each parameter that affects a loss.
    """

    def __init__(self, rows: int, seed: int) -> None:
        self.rows, self.seed = rows, seed
        self.found: dict[str, Tensor] = {}

    def begin(self, module: nn.Module) -> None:
        """Do nothing at the beginning of a fit."""

    def end(self, fit: Any) -> None:
        """Compute the Fisher information; for parameters of several phases, that of the last."""
        module, task = fit.trained.module_, fit.task
        self.found = {n: torch.zeros_like(p) for n, p in module.named_parameters()}
        order = torch.Generator("cpu").manual_seed(self.seed)
        noise = torch.Generator(task.rows.device).manual_seed(self.seed)
        batches = []
        for x, y in task.rows.batches(order, _AT_ONCE):
            rows = zip(x.split(1), [None] * len(x) if y is None else y.split(1), strict=True)
            batches += [Batch(*row, task.noise(1, noise)) for row in rows]
            if len(batches) >= self.rows:
                break
        for phase in fit.hooks._phases():  # without a term of earlier tasks
            parameters = selected(module, phase)
            squares, total = _squares(module, phase.loss, parameters, islice(batches, self.rows))
            n = min(self.rows, len(batches))
            scale = 2 * n * max(abs(total) / n, 1e-12)
            self.found |= {name: square / scale for name, square in squares.items()}
        if not any(bool(weight.any()) for weight in self.found.values()):
            raise ValueError(
                f"The loss of {type(fit.detector).__name__} has no gradient for a single row, from "
                "which the Fisher information is computed: use method='si' or 'replay'."
            )


def _squares(
    module: nn.Module, loss: Any, parameters: dict[str, nn.Parameter], batches: Any
) -> tuple[dict[str, Tensor], float]:
    """Return the sums over rows of squared gradients, by parameter, and of the losses."""
    squares: dict[str, Tensor] = {}
    total = 0.0
    for batch in batches:
        # cuDNN computes gradients of recurrent layers in training mode only.
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            value = sum(loss(module, batch).values())
            gradients = torch.autograd.grad(value, [*parameters.values()], allow_unused=True)
        total += float(value.detach())
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                known = squares.setdefault(name, torch.zeros_like(gradient))
                known += gradient.square()
    return squares, total


class _Path:
    """An integrator of minus the gradient along the path of the weights in a fit.

    A hook on each parameter sees its gradient before a step. The step itself is known at the next
    call of the hook, or at the end of the fit.
    """

    def __init__(self, anchors: Sequence[Anchor], strength: float) -> None:
        # The anchors of the loss term, whose gradient is not part of the integral.
        self.anchors, self.strength = anchors, strength
        self.integral: dict[str, Tensor] = {}
        self.first: dict[str, Tensor] = {}
        self._last: dict[str, tuple[Tensor, Tensor]] = {}  # place and gradient
        self._hooks: list[Any] = []

    def begin(self, module: nn.Module) -> None:
        """Register a hook on each parameter."""
        for name, p in module.named_parameters():
            if not p.requires_grad:
                continue
            self.first[name] = p.detach().clone()
            self.integral[name] = torch.zeros_like(p)
            self._hooks.append(p.register_post_accumulate_grad_hook(self._hook(name)))

    def _hook(self, name: str) -> Callable[[Tensor], None]:
        def seen(p: Tensor) -> None:
            now = p.detach().clone()
            self._close(name, now)
            gradient = p.grad.detach().clone()  # type: ignore[union-attr]
            for anchor in self.anchors:
                if name in anchor.weights:
                    weight = 2 * self.strength * anchor.weights[name]
                    gradient -= weight * (now - anchor.centers[name])
            self._last[name] = now, gradient

        return seen

    def _close(self, name: str, now: Tensor) -> None:
        """Add the last step to the integral."""
        if name in self._last:
            before, gradient = self._last[name]
            self.integral[name] -= gradient * (now - before)

    def end(self, fit: Any) -> None:
        """Add the last step to the integral, and remove the hooks."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for name, p in fit.trained.module_.named_parameters():
            self._close(name, p.detach())
        self._last = {}

    def importance(self, last: Mapping[str, Tensor], damping: float) -> dict[str, Tensor]:
        """Return the integral divided by the squared change plus ``damping``."""
        return {
            name: integral.clamp_min(0) / ((last[name] - self.first[name]).square() + damping)
            for name, integral in self.integral.items()
        }


# --- rows of earlier tasks ------------------------------------------------------------------------


class _Kept:
    """The rows, or points of series, that are kept of earlier tasks."""

    def __init__(self, series: bool, random: np.random.RandomState) -> None:
        self.series, self.random = series, random
        self.seen = 0
        self.rows: Any = None
        self.labels: Any = None
        self.parts: list[list[np.ndarray]] = []  # of each task, its series

    def with_new(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Return the kept rows and labels, followed by the new ones."""
        if not self.series and (y is None) != (self.labels is None):
            known = "no labels" if self.labels is None else "labels"
            raise ValueError(
                f"y must be given for all tasks or for none, and earlier tasks have {known}."
            )
        if self.series:
            kept = [part for parts in self.parts for part in parts]
            return kept + self._listed(X), None
        labels = None if y is None else np.concatenate([self.labels, np.asarray(y)])
        new = np.asarray(as_rows(X))
        if new.shape[1:] != self.rows.shape[1:]:
            raise ValueError(
                f"X has samples of shape {new.shape[1:]}, but those of earlier tasks have shape "
                f"{self.rows.shape[1:]}; all tasks need the same features."
            )
        return np.concatenate([self.rows, new]), labels

    @staticmethod
    def _listed(X: Any) -> list[np.ndarray]:
        series = as_series(X)
        ends = np.cumsum(series.lengths)[:-1]
        return np.split(np.asarray(series.rows), ends)

    def add(self, X: Any, y: Any, most: int | None) -> None:
        """Keep the rows of a task; with ``most``, at most so many rows of all tasks."""
        if self.series:
            self.parts.append(self._listed(X))
            share = None if most is None else most // len(self.parts)
            self.parts = [self._shortened(parts, share) for parts in self.parts]
            return
        rows = np.asarray(as_rows(X))
        labels = None if y is None else np.asarray(y)
        n, kept = len(rows), 0 if self.rows is None else len(self.rows)
        self.seen += n
        if most is not None and kept + n > most:
            # Every row seen so far is kept with the same probability.
            own = min(n, self.random.binomial(most, n / self.seen))
            own = max(own, most - kept)
            chosen = self.random.choice(n, own, replace=False)
            rows, labels = rows[chosen], None if labels is None else labels[chosen]
            if kept:
                stay = self.random.choice(kept, most - own, replace=False)
                self.rows = self.rows[stay]
                self.labels = None if self.labels is None else self.labels[stay]
        if self.rows is not None:
            rows = np.concatenate([self.rows, rows])
            labels = None if labels is None else np.concatenate([self.labels, labels])
        self.rows, self.labels = rows, labels

    def _shortened(self, parts: list[np.ndarray], most: int | None) -> list[np.ndarray]:
        """Return one random stretch of the longest series of a task, of at most ``most`` points."""
        longest = max(parts, key=len)
        if most is None or (len(parts) == 1 and len(longest) <= most):
            return parts
        begin = self.random.randint(max(1, len(longest) - most + 1))
        return [longest[begin : begin + most]]
