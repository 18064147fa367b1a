"""The fit of a detector of series: training on chunks, calibration on the last part of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from deepod._inputs.chunks import Chunks, take
from deepod._inputs.division import NO_NORMAL_ROW
from deepod._inputs.rows import InMemory
from deepod._inputs.scaling import Scaler, medians
from deepod._inputs.series import as_series
from deepod._scoring.points import Span, spans_of
from deepod._training.fitting import Fit
from deepod._training.task import Member, Task
from deepod.sources import Source
from deepod.types import Batch

# Parameters of rows without an order: the only value that they may have here, and what to do.
_OF_ROWS: dict[str, tuple[Any, str]] = {
    "suspects": (
        0.0,
        "a stretch that is left out is missing in the past of the points after it. Give the parts "
        "before and after what you suspect as a list of series, or use deepod.series.Windows("
        "deepod.AutoEncoder(suspects=...)), which leaves windows out",
    ),
    "cross_fitting": (
        False,
        "neighbouring points show each other. The last part of each series is held out instead: "
        "see validation_fraction",
    ),
    "network": (
        "auto",
        "the method has a network of its own, with sizes such as hidden. Other networks are for "
        "deepod.series.Windows(deepod.AutoEncoder(network=...))",
    ),
    "input_shape": (None, "a point has the channels of X"),
    "categorical_features": (None, "channels are numbers. Turn categories into numbers first"),
    "datetime_features": (None, "the time of a series is its index, or the order of its rows"),
}
# Channels are divided by at least this part of the median standard deviation. A channel that was
# constant in training is thus kept, and a change of it is strong evidence of an anomaly.
SCALE_FLOOR = 0.01
_FEWEST_HELD_OUT = 10  # points, of a series whose last part is held out


class SeriesFit(Fit):
    """The fit of one detector of series; X is a ``Series``."""

    def __init__(self, number: int, detector: Any, X: Any, y: Any) -> None:
        self.series = as_series(X)
        if y is not None and getattr(detector, "supervision", None) is not None:
            y = self.series.labels(y)
        super().__init__(number, detector, self.series.rows, y)
        self.given = X

    def _validate(self) -> None:
        detector, lengths = self.trained, self.series.lengths
        detector._validate_params()
        refuse_parameters_of_rows(detector)
        name, least = type(detector).__name__, detector._smallest_window()
        window = self.start.known.get("window_", detector.window)
        check_length(name, window, lengths, least, detector._needed_points)
        super()._validate()
        if self.ranks.size > 1:
            raise ValueError(
                f"{name} cannot train in several processes; call fit in a single process."
            )
        if isinstance(self.rows, Source):  # a large memory map: points take little memory
            self.rows = self.rows.read(0, len(self.rows))
        if detector._whole_episodes() and self.series.form != "episodes":
            raise ValueError(
                f"{name} with these parameters needs episodes of equal length: give X as an array "
                "(n, T, channels)."
            )
        most = detector._longest_window(detector.input_shape_)
        window = resolve_window(window, most, lengths, least.points)
        detector.window_ = detector._possible_window(window)

    def _divide(self) -> None:
        """Hold out the last points of each series, or the last episodes."""
        detector, spans = self.trained, spans_of(self.series.lengths)
        least = detector._needed_points(detector.window_)
        if detector._whole_episodes():
            least = self.series.lengths[0]  # none is left to divide
        rest, self.calibrate = last_parts(spans, detector.calibration_fraction, least)
        self.train_on, self.watched = last_parts(rest, detector.validation_fraction, least)

    def _load(self, shared: dict[Any, Any]) -> tuple[Any, Batch | None]:
        """Scale all points, and set up chunks of those to train on."""
        detector, X, shape = self.trained, self.rows, self.trained.input_shape_
        ranges = [X[part][self._normal(part)] for part in self._parts(self.train_on)]
        ranges = [part for part in ranges if len(part)]
        if not ranges:
            raise ValueError(NO_NORMAL_ROW)
        fill = None
        if detector.missing == "impute":
            fill = medians(np.concatenate(ranges), shape)
        scaler = self.start.scaler
        if scaler is None:
            scaler = Scaler.fit(ranges, shape, detector.scaler, fill=fill, floor=SCALE_FLOOR)
        detector.scaler_ = scaler
        scaled = scaler.copy().transform(X)
        self.points = torch.from_numpy(scaled).to(detector.device_)
        length = min(span.stop - span.start for span in self.train_on)
        if not detector._whole_episodes():
            length = min(detector._chunk_length(), length)
        spans = [(span.start, span.stop) for span in self.train_on]
        y = None
        if self.labels is not None:
            y = torch.as_tensor(self.labels, dtype=torch.float32, device=detector.device_)
        rows = Chunks(self.points, spans, length, y)
        if not self.watched:
            return rows, None
        starts = [
            max(span.begin, at - max(0, at + length - span.stop))
            for span in self.watched
            for at in range(span.start, span.stop, length)
        ]
        watched = torch.tensor(starts)
        labels = None if y is None else take(y, watched, length)
        return rows, Batch(take(self.points, watched, length), labels)

    def _parts(self, spans: Sequence[Span]) -> list[slice]:
        return [slice(span.start, span.stop) for span in spans]

    def _normal(self, part: slice) -> Any:
        """Return which points of a part are not labelled as anomalies."""
        return slice(None) if self.labels is None else self.labels[part] == 0

    def _build(self, rows: InMemory) -> None:
        super()._build(rows)
        module, spans = self.trained.module_, [(a, b) for _, a, b in self.train_on]
        if self.start.scaler is None:  # else it is known, too
            module.errors.find_constant(self.points, spans)
        generator = torch.Generator("cpu").manual_seed(self.seeds.prepare)
        if rows.y is not None:
            self.trained._learn_labels(module, rows.y, spans)
        self.trained._solve(module, self.points, spans, generator)

    def _task(self, rows: Any, held_out: Batch | None) -> Task:
        task = super()._task(rows, held_out)
        return replace(task, noise=lambda n, stream: self.hooks._noise(n, rows.shape, stream))

    def _refresh_after_training(self, member: Member) -> None:
        """Learn the distribution of errors, from held-out points if there are any."""
        spans = self.watched or self.calibrate or self.train_on
        self.trained._learn_errors(self.trained.module_, self.points, spans)

    def _score_training_rows(self, member: Member) -> None:
        detector, spans = self.trained, spans_of(self.series.lengths)
        scores = detector._score_trained_points(self.points, spans)
        unseen = self._unseen(scores)
        # Known anomalies are no measure of normal points.
        normal = self.calibrate or (self.watched if self.labels is not None else [])
        if unseen is not None and normal:
            parts = [unseen[part][self._normal(part)] for part in self._parts(normal)]
            if sum(map(len, parts)):
                detector.calibration_scores_ = np.sort(detector._as_new(parts))
        detector._remember_points(scores, self.series.lengths, unseen)

    def _unseen(self, scores: np.ndarray) -> np.ndarray | None:
        """Return the scores of points that were not trained on, NaN for others; None if all were.

        Nothing that was trained on has a part in them, but for what leads up to the points.
        """
        if not self.trained.learns_by_heart:
            return scores
        spans = sorted(self.watched + self.calibrate)
        if not spans:
            return None
        unseen = np.full(len(scores), np.nan)
        found = self.trained._score_points(self.points, spans, apart=True)
        unseen[np.concatenate([np.arange(start, stop) for _, start, stop in spans])] = found
        return unseen


def refuse_parameters_of_rows(detector: Any) -> None:
    """Refuse what has no meaning for series, with the reason."""
    for parameter, (only, reason) in _OF_ROWS.items():
        given = getattr(detector, parameter)
        if given is not only and (np.ndim(given) or given != only):
            raise ValueError(
                f"{parameter}={given!r} is for rows without an order, not for series: {reason}; "
                f"leave {parameter}={only!r}."
            )


class Smallest(NamedTuple):
    """The smallest window that a detector takes, and what to say of how it takes a smaller one."""

    points: int = 2
    remedy: str = ""


def check_length(
    name: str,
    window: int | Literal["auto"],
    lengths: Sequence[int],
    least: Smallest,
    needed: Callable[[int], int],
) -> None:
    """Refuse series that are too short for the window, or for any that "auto" may stand for.

    Parameters
    ----------
    name : str
        Of the detector.
    window : int or "auto"
    lengths : sequence of int
        Of the series.
    least : Smallest
        Window that "auto" stands for, at least.
    needed : callable
        Gives the number of points that a window needs.

    Raises
    ------
    ValueError
        With the number of points that it takes.
    """
    shortest = min(lengths)
    smallest = least.points if window == "auto" else window
    if shortest >= needed(smallest):
        return
    which = "X" if len(lengths) == 1 else f"series {list(lengths).index(shortest)} of X"
    count = f"{shortest} point{'s' * (shortest != 1)}"
    if window == "auto":
        said = f"{name} needs {needed(smallest)} or more, for windows of {smallest}"
        raise ValueError(f"{which} has {count}, and {said}: give longer series{least.remedy}.")
    raise ValueError(
        f"{which} has {count}, and {name} with window={window} needs {needed(smallest)}: give "
        "longer series or a smaller window."
    )


def resolve_window(
    window: int | Literal["auto"], most: int, lengths: Sequence[int], least: int = 2
) -> int:
    """Return what "auto" stands for: ``most``, or a third of the shortest series if that is less.

    But no less than ``least``.
    """
    return max(least, min(most, min(lengths) // 3)) if window == "auto" else int(window)


def last_parts(spans: list[Span], fraction: float, least: int) -> tuple[list[Span], list[Span]]:
    """Divide each series into a part to train on and a last part that is held out.

    If the series are too short for that, the last ones are held out as a whole.

    Parameters
    ----------
    spans : list of Span
    fraction : float
        Share of the points to hold out.
    least : int
        Smallest number of points of a part.

    Returns
    -------
    kept, held_out : list of Span
        The context of held-out points is the part of their series before them.
    """
    if not fraction:
        return spans, []
    kept, held_out = [], []
    for begin, start, stop in spans:
        cut = stop - round((stop - start) * fraction)
        if stop - cut >= _FEWEST_HELD_OUT and cut - start >= least:
            kept.append(Span(begin, start, cut))
            held_out.append(Span(begin, cut, stop))
        else:
            kept.append(Span(begin, start, stop))
    if not held_out and len(spans) > 1:
        whole = max(1, round(len(spans) * fraction))
        return spans[:-whole], spans[-whole:]
    return kept, held_out
