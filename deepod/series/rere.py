"""ReRe: two small networks that are trained again whenever a series surprises them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from deepod._inputs.rows import InMemory
from deepod._inputs.settings import fixed
from deepod._scoring.points import Span
from deepod._training.loop import train
from deepod._training.task import Task
from deepod.params import integer, param, parameters, positive
from deepod.series._base import WithoutSteps
from deepod.series._cells import Stack
from deepod.series._errors import Errors
from deepod.series._running import Arrays, Running, Values, checked
from deepod.series.lstm_ad import Forecaster
from deepod.types import Batch, Event, Losses, Phase, Shape

_STEPS = 5  # between two looks at the loss
_ENOUGH = 1e-3  # a loss, in squared standard deviations, at which training ends
_TINY = 1e-12  # a threshold, at least: a series may stand still


class Online(nn.Module):
    """The network as training begins from it, always anew, and what was kept of the points."""

    def __init__(self, hidden: int, blank: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.errors = Errors(1)  # which channels vary
        self.net = Forecaster(1, (hidden,), 1, None)
        for name, value in blank.items():
            self.register_buffer(name, torch.tensor(value))
        weights = parameters_to_vector(self.net.parameters()).detach()
        self.register_buffer("weights", weights.repeat(2, 1))

    def state(self, names: Iterable[str]) -> Arrays:
        """Return a copy of what was kept."""
        parts = {name: self.get_buffer(name).cpu().numpy().copy() for name in names}
        return {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in parts.items()}


@parameters
class ReRe(WithoutSteps):
    """Two online LSTM networks that are trained again whenever a series of one channel surprises.

    Each point is forecast from the ``window`` before it. Its error is the mean, over the last
    ``window`` points, of the absolute errors over the absolute values; the usual error is the mean
    of past ones plus three standard deviations. Where a point has more, a new network is trained on
    the last ``window`` points: if that one forecasts it well, the series has changed, and the new
    network is kept; if not, the point is abnormal, and the old one stays. Two such detectors differ
    in the past errors: of all points, or of those that it found normal. A point's score is the
    smaller one of the two quotients of error and usual error, so that it is above 1 where both
    raise the alarm.

    Notes
    -----
    **The equations.** The error at point t is AARE(t) = mean over y = t - b + 1, ..., t of
    |v(y) - f(y)| / |v(y)|, of values v, forecasts f and b = ``window``. The usual error is
    the mean of the past AARE plus three of their standard deviations, from t = 2 b - 1 on (points
    are counted from 0). The score is the smaller quotient AARE(t) / usual error of the two
    detectors.

    It learns as it goes. ``fit`` goes over a series point by point, and each of
    ``decision_scores_`` was made before the point was learned from. ``decision_function`` goes on
    from there with a copy, so that the same X always gets the same scores; it takes X for what
    follows on the training series, or on ``context``. :meth:`partial_fit` moves the detector itself
    on, a stream its own copy.

    The second detector never learns errors that it found too large. Where the first few are tiny,
    because a series stands still at its start, it trains a network at almost every point from then
    on: alarms are few, but a point takes as long as a training, about 0.1 s.

    ``threshold_`` is 1, the paper's rule, after each ``fit``; ``set_threshold(None)`` has it follow
    ``contamination``. With ``false_alarm_rate`` it follows that.

    What the paper leaves open: values are divided by ``max(|v|, floor)``, of values that were
    standardised on the training series, because a value may be 0; training begins from the same
    random weights each time; it is Adam, and ends before ``epochs`` steps once the mean squared
    error is below 0.001; as many errors as ``window`` are gathered before a point is judged.
    Of the shared parameters, ``batch_size``, ``validation_fraction`` and the like have no effect.

    References
    ----------
    M.-C. Lee, J.-C. Lin and E. G. Gran. ReRe: A Lightweight Real-time Ready-to-Go Anomaly Detection
    Approach for Time Series. COMPSAC 2020. RePAD (AINA 2020) is one such detector, RePAD2 (2023)
    one with a bounded history.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.series import ReRe
    >>> x = 2 + 0.1 * np.random.default_rng(0).normal(size=300)
    >>> x[250] = 5.0
    >>> detector = ReRe(epochs=10, random_state=0).fit(x[:200])
    >>> scores = detector.decision_function(x[200:])
    >>> abs(int(scores.argmax()) - 50) < 3, bool(scores.max() > detector.threshold_)
    (True, True)
    """

    hidden: int = param(default=10, accepts=[integer(1)], doc="Units of the LSTM layer.")
    history: int | None = param(
        default=None,
        accepts=[integer(2), None],
        doc="Past errors that the usual error follows: so many of the last, as in RePAD2; or all.",
    )
    floor: float = param(
        default=1.0,
        accepts=[positive()],
        doc="What errors are divided by at least, in standard deviations of the training series.",
    )
    relative: bool = param(
        default=True,
        accepts=["boolean"],
        doc="Whether errors are divided by the absolute values, as in the paper: for series that "
        "keep away from 0. False divides all by the standard deviation.",
    )
    window = 3
    epochs = 50
    lr = 0.15
    smoothing = None
    validation_fraction = 0.0
    learns_by_heart = False
    family = "forecasting"
    paper = "Lee, Lin and Gran, ReRe: Real-time Ready-to-Go Anomaly Detection, COMPSAC 2020"
    auto_window = 3
    auto_epochs = 50

    def _build_module(self, shape: Shape) -> nn.Module:
        if shape != (1,):
            raise ValueError(
                f"ReRe is for series of one channel, and X has {shape[0]}: fit one for each "
                "channel and take the largest score, or use LSTMAD or RidgeAR."
            )
        return Online(self.hidden, blank(self.window_, self.history))

    def _needed_points(self, window: int) -> int:
        return 3 * window  # before it judges one

    def _errors(self, module: nn.Module, x: Tensor) -> Tensor:
        raise NotImplementedError  # they depend on all that was before

    def _learn_errors(self, module: Any, x: Tensor, spans: Sequence[Span]) -> None:
        pass

    def _solve(
        self,
        module: Any,
        x: Tensor,
        spans: Sequence[tuple[int, int]],
        generator: torch.Generator,
    ) -> None:
        runner = Runner(self)
        module.found = [(span, runner.begin()(numbers(x, *span))) for span in spans]
        self._keep(runner)

    def _keep(self, runner: Runner) -> None:
        for name, value in runner.state().items():
            self.module_.get_buffer(name).copy_(torch.from_numpy(value))

    def _score_trained_points(self, points: Tensor, spans: Sequence[Span]) -> np.ndarray:
        """Score each point as it was before it was learned from."""
        found = dict(self.module_.__dict__.pop("found"))
        if [*found] != [(start, stop) for _, start, stop in spans]:  # some were held out
            runner = Runner(self, fresh=True)
            found = {
                (start, stop): runner.begin()(numbers(points, start, stop))
                for _, start, stop in spans
            }
        return self._over_time(lambda _: np.concatenate([*found.values()]), spans)

    def _remember_points(
        self, scores: np.ndarray, lengths: Sequence[int], unseen: np.ndarray | None
    ) -> None:
        super()._remember_points(scores, lengths, unseen)
        if self.false_alarm_rate is None:
            self.set_threshold(1.0)

    @property
    def warm_up_(self) -> int:
        """The number of first points that have no score of their own: 0 after ``fit``."""
        return 0

    def _reach(self) -> int:
        return 1 << 62  # all past points have a part in what error is usual

    def _of_points(
        self,
        module: nn.Module,
        points: Tensor,
        spans: Sequence[Span],
        function: Any,
        batch_size: int | None = None,
    ) -> np.ndarray:
        parts = [
            Runner(self)(numbers(points, begin, stop))[start - begin :]
            for begin, start, stop in spans
        ]
        return np.concatenate(parts)[:, None]

    def _contributions_of(self, terms: np.ndarray) -> np.ndarray:
        return terms

    def _running(self) -> tuple[Running, Values]:
        return _Running(Runner(self)), self._finish

    @fixed()
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Learn from the points that follow, or from the first ones if there were none before.

        Parameters
        ----------
        X : array-like or list of series
            As in ``fit``. The first of several is taken for what follows on the last points.
        y : object, optional
            Ignored.

        Returns
        -------
        self : object
            With the scaling and the threshold of ``fit``. If it fails, self is as it was before.
        """
        if not self.__sklearn_is_fitted__():
            return self.fit(X, y)
        points, spans = self._points(self._series(X), None)
        runner = Runner(self)
        for number, (_, start, stop) in enumerate(spans):
            (runner.begin() if number else runner)(numbers(points, start, stop))
        self._keep(runner)
        return self

    def score_batches(self, batches: Iterable[Any]) -> Iterator[np.ndarray]:
        """Score blocks of one series that follow on one another as they come.

        Parameters
        ----------
        batches : iterable of array-like of shape (T,) or (T, 1)

        Yields
        ------
        scores : ndarray of shape (T,), float64
            Of one block.
        """
        stream = self.stream()
        for X in batches:
            yield stream.push_many(X)


def numbers(points: Tensor, start: int, stop: int) -> np.ndarray:
    """Return some points of one channel as float64, (n,)."""
    return points[start:stop, 0].cpu().numpy().astype(np.float64)


def blank(window: int, history: int | None) -> Arrays:
    """Return what is kept of points, before the first one; weights are added to it."""
    return {
        "points": np.zeros(window),  # the last ones
        "relative": np.zeros((2, window)),  # their relative errors, of both detectors
        "forecasts": np.zeros(2),  # of the next point
        "moments": np.zeros((2, 2)),  # of past errors: mean, and mean squared deviation
        "past": np.zeros((2, history or 0)),  # the last ones, each at its number modulo the length
        "counts": np.zeros(2, np.int64),  # of past errors
        "since": np.zeros(1, np.int64),  # points since the series began
        "retrained": np.zeros(1, np.int64),  # networks that were trained
    }


class Runner:
    """A pair of detectors on its way along a series.

    Parameters
    ----------
    detector : ReRe
    fresh : bool, default=False
        Whether to begin before the first point, and not after the last one that was learned from.
    """

    def __init__(self, detector: ReRe, fresh: bool = False) -> None:
        module: Any = detector.module_
        self.window, self.history = detector.window_, detector.history
        self.floor, self.lr, self.most = detector.floor, detector.lr, detector.epochs_
        self.relative = detector.relative
        self.level = float((detector.scaler_.shift / detector.scaler_.scale).item())
        self.net = copy.deepcopy(module.net).cpu()
        start = blank(self.window, self.history)
        names = [*start, "weights"]
        kept = module.state(names)
        self._take(kept | start if fresh else kept)

    def _take(self, state: Arrays) -> None:
        self.kept = state
        self.stacks = [self._stack(weights) for weights in state["weights"]]

    def state(self) -> Arrays:
        """Return everything that the next scores depend on."""
        return {name: value.copy() for name, value in self.kept.items()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Take on the state of another one."""
        self._take(checked(state, self.kept))

    def begin(self) -> Self:
        """Begin another series, of which no points are known."""
        self.kept["since"][0] = 0
        return self

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Go along points, (n,), and return their scores; NaN for those that are not judged."""
        return np.array([self.push(float(value)) for value in values])

    def push(self, value: float) -> float:
        """Judge and learn the next point; return its score."""
        kept, b, t = self.kept, self.window, int(self.kept["since"][0])
        relative = self._relative(value, kept["forecasts"])
        judged = t >= 2 * b - 1 and min(kept["counts"]) >= b
        score = np.nan
        if judged:
            score = self._judge(value, relative)
        kept["relative"] = np.column_stack([kept["relative"][:, 1:], relative])
        if t >= 2 * b - 1 and not judged:
            self._record([0, 1], kept["relative"].mean(1))
        kept["points"] = np.append(kept["points"][1:], value)
        if t >= b - 1:
            if not judged:
                self._adopt([0, 1], self._trained())
            first, second = self.stacks
            kept["forecasts"][0] = self._forecast(first)
            kept["forecasts"][1] = (
                kept["forecasts"][0] if second is first else self._forecast(second)
            )
        kept["since"][0] += 1
        return float(score)

    def _relative(self, value: float, forecast: Any) -> Any:
        """Return errors of scaled values over the value in units of X, which the scale cancels."""
        size = abs(value + self.level) if self.relative else 1.0
        return np.abs(value - forecast) / max(size, self.floor)

    def _judge(self, value: float, relative: np.ndarray) -> float:
        """Return the score of a point, and change ``relative`` where a new network forecasts it."""
        trained, ratios = None, []
        for i in range(2):
            usual = max(self._usual(i), _TINY)
            before = self.kept["relative"][i, 1:].sum()
            error = (before + relative[i]) / self.window
            if error > usual:
                if trained is None:
                    trained = self._trained()
                    forecast = self._forecast(self._stack(trained))
                relative[i] = self._relative(value, forecast)
                error = (before + relative[i]) / self.window
                if error <= usual:
                    self._adopt([i], trained)
            if i == 0 or error <= usual:
                self._record([i], [error])
            ratios.append(error / usual)
        return min(ratios)

    # --- what error is usual --------------------------------------------------------------------

    def _usual(self, i: int) -> float:
        if self.history is None:
            mean, square = self.kept["moments"][i]
            return float(mean + 3 * np.sqrt(square))
        past = self.kept["past"][i, : min(self.history, self.kept["counts"][i])]
        return float(past.mean() + 3 * past.std())

    def _record(self, which: Sequence[int], errors: Any) -> None:
        for i, error in zip(which, errors, strict=True):
            n = self.kept["counts"][i]
            if self.history is not None:
                self.kept["past"][i, n % self.history] = error
            mean, square = self.kept["moments"][i]
            off = error - mean
            mean += off / (n + 1)
            self.kept["moments"][i] = mean, square + (off * (error - mean) - square) / (n + 1)
            self.kept["counts"][i] += 1

    # --- the networks ---------------------------------------------------------------------------

    @fixed()
    def _trained(self) -> np.ndarray:
        """Train a network on the last points, and return its weights."""
        points = torch.tensor(self.kept["points"], dtype=torch.float32)[None, :, None]
        steps = min(_STEPS, self.most)

        def loss(module: nn.Module, batch: Batch) -> Losses:
            return {"forecast": (module(batch.x[:, :-1]) - batch.x[:, 1:]).square().mean()}

        def enough(event: Event) -> bool:
            return event.losses["forecast"] < _ENOUGH

        task = Task(
            copy.deepcopy(self.net),
            InMemory(points.expand(steps, -1, -1)),  # an epoch of several steps
            [Phase("online", -(-self.most // steps), loss)],
            lambda n, generator: None,
            batch_size=1,
            lr=self.lr,
            weight_decay=0.0,
            optimizer="adam",
            order_stream=torch.Generator("cpu"),
            noise_stream=torch.Generator("cpu"),
            callbacks=[enough],
            max_grad_norm=1.0,
        )
        with torch.enable_grad():
            (member,) = train([task], engine="eager")
        if member.error is not None:
            raise member.error
        self.kept["retrained"][0] += 1
        return parameters_to_vector(task.module.parameters()).detach().double().numpy()

    def _adopt(self, which: Sequence[int], weights: np.ndarray) -> None:
        stack = self._stack(weights)
        for i in which:
            self.kept["weights"][i], self.stacks[i] = weights, stack

    def _stack(self, weights: np.ndarray) -> Stack:
        vector_to_parameters(torch.from_numpy(weights).float(), self._spare().parameters())
        return Stack(self._spare().layers, self._spare().head, np.ones(1, np.float32))

    def _spare(self) -> Any:
        if not hasattr(self, "_other"):
            self._other = copy.deepcopy(self.net)
        return self._other

    def _forecast(self, stack: Stack) -> float:
        """Forecast the next point from the last ones."""
        points = self.kept["points"][:, None].astype(np.float32)
        return float(stack.pass_over(stack.begin(), points)[-1, 0, 0])


class _Running:
    """A runner, as streams take it: :class:`deepod.series._running.Running`."""

    at_once = 1024

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    @fixed()
    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.runner(x[:, 0].astype(np.float64))[:, None]

    def state(self) -> Arrays:
        return self.runner.state()

    def load(self, state: Mapping[str, np.ndarray], seen: int) -> None:
        self.runner.load(state)
