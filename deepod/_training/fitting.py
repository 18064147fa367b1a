"""The steps of a fit, from the user's rows to a trained detector."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from deepod._inputs.division import (
    NO_NORMAL_ROW,
    Division,
    count_calibration,
    count_held_out,
    divide,
)
from deepod._inputs.rows import InMemory, blocks, chunks
from deepod._inputs.scaling import Scaler, medians
from deepod._inputs.seeds import Seeds, draw_seeds, global_generator
from deepod._inputs.stream import Stream, Streamed
from deepod._inputs.validation import (
    check_kind,
    column_names,
    resolve_device,
    sample_shape,
    validate_rows,
)
from deepod._scoring import explain
from deepod._scoring.apply import apply_in_parts, chunk_rows
from deepod._scoring.memory import explained, too_little
from deepod._scoring.sketch import Scores
from deepod._scoring.tails import as_unseen, ranked_as
from deepod._scoring.threshold import check_enough
from deepod._storage.rebuild import built_by
from deepod._training.checkpoint import Checkpoint, NoCheckpoint
from deepod._training.identity import identity_of
from deepod._training.loop import refresh
from deepod._training.processes import current
from deepod._training.reports import reporters
from deepod._training.starts import Start
from deepod._training.suspects import Suspects
from deepod._training.task import Member, Task
from deepod.callbacks import Progress
from deepod.networks import StartsFromRows
from deepod.params import noting_reads
from deepod.types import Batch, Losses, Phase, Refresh, Shape

# Rows that each of several processes shares, for medians and for layers that start from rows.
_SHOWN_ROWS = 4096


class Hooks(Protocol):
    """The methods of a detector that a fit calls, see :class:`deepod.BaseDetector`."""

    def _build_module(self, shape: Shape) -> nn.Module: ...
    def _loss(self, module: nn.Module, batch: Batch) -> Losses: ...
    def _score(self, module: nn.Module, x: Tensor) -> Tensor: ...
    def _score_trained(self, module: nn.Module, x: Tensor) -> Tensor: ...
    def _prepare(self, X: np.ndarray, y: np.ndarray | None, rng: np.random.Generator) -> Any: ...
    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Any: ...
    def _phases(self) -> list[Phase]: ...
    def _after_training(self) -> Refresh | None: ...


class Fit:
    """The fit of one detector.

    Everything that is learned is stored on a copy, ``trained``, whose attributes the detector takes
    over in one step at the end. A fit that fails or is interrupted therefore changes nothing.

    Parameters
    ----------
    number : int
        Number of the detector among those that are fitted together.
    detector : BaseDetector
    X, y : array-like
        As in ``detector.fit``.

    Attributes
    ----------
    trained : BaseDetector
        The copy of the detector.
    task : Task
        The task for the training loop.
    read_by_build : set of str
        Hyper-parameters that were read when the module was built.
    numbers_in_loss : set of str
        Hyper-parameters that are numbers and are read by the losses, as found by
        :func:`deepod._training.together.fit_all` if detectors are fitted together.
    """

    task: Task
    start: Start  # what it begins with
    title = ""  # of its progress bars

    def __init__(self, number: int, detector: Any, X: Any, y: Any) -> None:
        self.number, self.detector, self.X, self.y = number, detector, X, y
        self.given = X  # as callbacks are told
        self.ranks = current()
        self.numbers_in_loss: set[str] = set()
        self.drawn: Seeds | None = None
        self.suspects: Suspects | None = None  # of a source: they are told buffer by buffer
        self.encoder: Any = None  # of a mixed table
        self.halves: list[Any] = []  # of cross-fitting, once they are trained
        self.start = detector._start or Start()

    def set_up(self, shared: dict[Any, Any]) -> None:
        """Do everything that comes before training.

        ``shared`` holds the objects that detectors fitted together have in common.
        """
        self.params = self.detector.get_params(deep=False)
        # NumPy's scalars, as searches draw them, become Python's, which torch insists on.
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in self.params.items()}
        self.trained = type(self.detector)(**plain)
        self.hooks: Hooks = self.trained
        try:
            self._validate()
        except Exception as error:  # other processes would wait for this one
            self.ranks.agree(error, None)
            raise
        self._draw_seeds()
        trained = self.trained
        self._divide()
        with explained(self._too_many()):
            in_memory = isinstance(self.rows, np.ndarray)
            rows, held_out = self._load(shared) if in_memory else self._read_from_disk()
        if held_out is not None and not len(held_out.x):
            raise ValueError(
                f"validation_fraction={trained.validation_fraction} holds out none of the rows "
                "that the method learns from; use a larger share, or 0."
            )
        lengths = self.ranks.gather(len(rows))
        trained.epochs_ = self._resolve_epochs(sum(lengths))
        if self.ranks.size > 1:  # as many batches on all of them, of two rows or more
            parts = -(-sum(lengths) // trained.batch_size)
            rows.parts = min(parts, max(1, min(lengths) // 2))
        self._build(rows)
        self.task = self.start.adapted(self._task(rows, held_out))

    # --- what is trained ------------------------------------------------------------------------

    def _validate(self) -> None:
        """Check parameters and data, and set rows, labels, device and the shape of samples."""
        detector, X = self.trained, self.X
        detector._validate_params()
        for callback in detector.callbacks:
            if not callable(callback):
                raise ValueError(f"callbacks must hold callables only, got {callback!r}.")
        for epoch in detector.milestones:
            if not (isinstance(epoch, Integral) and int(epoch) > 0):
                raise ValueError(f"milestones must hold positive integers, got {epoch!r}.")
        detector.device_ = resolve_device(detector.device)
        detector.__dict__ |= (known := self.start.known)
        self.rows = X = validate_rows(detector, X, reset=not known)
        self.encoder = getattr(detector, "encoder_", None)
        in_memory = isinstance(X, np.ndarray)
        if known and (not in_memory or len(X) < 2):
            raise ValueError("X needs at least two rows in memory for partial_fit; collect more.")
        if self.ranks.size > 1 and not in_memory:
            raise ValueError("X is on disk; give each of several processes its part as an array.")
        if self.ranks.size > 1 and detector.checkpoint is not None:
            raise ValueError("Several processes cannot write a checkpoint; set checkpoint=None.")
        detector.input_shape_ = sample_shape(X, detector.input_shape)
        check_kind(detector)
        self.start.check(detector.input_shape_)
        if detector.scaler == "gcn" and len(detector.input_shape_) != 3:
            shape = detector.input_shape_
            raise ValueError(f"scaler='gcn' is for images, not for shape {shape}; use another.")
        if detector.calibration_fraction and not in_memory:
            raise ValueError(
                "calibration_fraction needs rows in memory, but X is read from disk: set it to 0, "
                "keep some rows out of X, and pass them to calibrate(X) after fit."
            )
        self.labels = detector._validate_y(self.y, len(X))
        # An error here is told to other processes.
        count = count_calibration(len(X), self.labels, detector.calibration_fraction)
        count_held_out("validation_fraction", detector.validation_fraction, len(X) - count)

    def _draw_seeds(self) -> None:
        """Draw all seeds, or use those of a checkpoint; weights are the same on all ranks."""
        detector, ranks = self.trained, self.ranks
        # Only once, because a generator given as random_state would advance at each setup.
        seeds = self.drawn = self.drawn or draw_seeds(detector.random_state)
        self.checkpoint = self._open_checkpoint(seeds)
        if isinstance(self.checkpoint, Checkpoint):
            seeds = Seeds(**self.checkpoint.seeds)
        alike = (detector.input_shape_, detector.epochs, detector.batch_size, detector.missing)
        held_out = (detector.calibration_fraction, detector.false_alarm_rate)
        ranks.agree(None, (type(detector).__name__, *alike, *held_out))
        first = Seeds(*ranks.gather(seeds)[0])
        self.seeds = Seeds(first.weights, *(seed + 2 * ranks.rank for seed in first[1:]))

    def _open_checkpoint(self, seeds: Seeds) -> Checkpoint | NoCheckpoint:
        """Open the checkpoint, which may hold the state of an earlier fit."""
        detector = self.trained
        if detector.checkpoint is None:
            return NoCheckpoint()
        every = detector.checkpoint_every
        return Checkpoint(detector.checkpoint, every, identity_of(self), seeds._asdict())

    def _divide(self) -> None:
        """Divide rows in memory; those of a source are chosen by its stream."""
        if not isinstance(self.rows, np.ndarray):
            return
        detector = self.trained
        self.division = divide(
            len(self.rows),
            self.labels,
            validation_fraction=detector.validation_fraction,
            calibration_fraction=detector.calibration_fraction,
            seeds=self.seeds,
        )
        if detector.calibration_fraction and detector.false_alarm_rate is not None:
            n = sum(self.ranks.gather(len(self.division.calibrate)))
            check_enough(n, detector.false_alarm_rate)

    def _too_many(self) -> str:
        """Return the message that the training rows do not fit into memory."""
        detector, X = self.trained, self.rows
        size = 4 * len(X) * int(np.prod(detector.input_shape_))
        way = f"a memory_limit below {detector.memory_limit}"
        if isinstance(X, np.ndarray):
            limit = f"memory_limit={detector.memory_limit}"
            way = f"deepod.sources.array(X), of which fit holds {limit} bytes"
        purpose = f"the rows to train on, {len(X)} of shape {detector.input_shape_}, {size} bytes"
        return too_little(detector.device_, purpose, way)

    def _load(self, shared: dict[Any, Any]) -> tuple[InMemory, Batch | None]:
        """Scale all training and validation rows in memory."""
        detector, X, y = self.trained, self.rows, self.labels
        shape = detector.input_shape_
        samples = X.reshape(len(X), *shape)
        if detector.suspects:
            self.division = self._without_suspects(samples)
        training, held_out, _ = self.division
        learned_from = training if y is None else training[y[training] != 1]
        if not len(learned_from):
            raise ValueError(NO_NORMAL_ROW)
        everything = len(learned_from) == len(X)
        alike = everything and self.encoder is None and self.start.scaler is None
        key = (id(self.X), detector.scaler, detector.missing, shape) if alike else None
        scaler, scaled = shared.get(key, (None, None))
        if scaler is None:
            rows = samples if everything else samples[learned_from]
            fill = None
            if detector.missing == "impute":
                fill = medians(self.ranks.some_rows(rows, _SHOWN_ROWS), shape)
            scaler = self._fit_scaler(rows, fill, self.ranks.gather)
        detector.scaler_ = scaler.copy()  # without what this one keeps to be fast

        def batch(rows: np.ndarray, seed: int) -> Batch:
            part, whole = scaled, len(rows) == len(X)
            if part is None or not whole:
                part = scaler.transform(samples if whole else samples[rows])
            if key is not None and whole:
                shared[key] = scaler, part
            return self._prepared(part, None if y is None else y[rows], seed)

        data = batch(training, self.seeds.prepare)
        watched = batch(held_out, self.seeds.prepare + 1) if len(held_out) else None
        return InMemory(data.x, data.y), watched

    def _fit_scaler(
        self, rows: np.ndarray, fill: np.ndarray | None, gather: Any = lambda found: [found]
    ) -> Scaler:
        if self.start.scaler is not None:
            return self.start.scaler.copy()
        shape, how = self.trained.input_shape_, self.trained.scaler
        least = None if self.encoder is None else self.encoder.least_scale
        return Scaler.fit(blocks(rows), shape, how, gather, fill=fill, least=least)

    def _without_suspects(self, samples: np.ndarray) -> Division:
        """Remove suspected anomalies from the training rows, except for labelled rows."""
        detector, y, training = self.trained, self.labels, self.division.train
        judged = training if y is None else training[y[training] != 1]
        rows, shape = samples[judged], detector.input_shape_
        fill = medians(rows, shape) if detector.missing == "impute" else None
        scaler = self._fit_scaler(rows, fill)
        x = torch.from_numpy(scaler.transform(rows))
        suspects = Suspects(detector.suspects, x, detector.device_, self.seeds.prepare)
        left_out = np.delete(judged, suspects.others(x))
        return self.division._replace(train=np.setdiff1d(training, left_out))

    def _read_from_disk(self) -> tuple[Streamed, Batch | None]:
        """Set up training rows that stay on disk, and load the validation rows."""
        detector, X, y = self.trained, self.rows, self.labels
        Scores(len(X), detector.memory_limit)  # if a library is missing for them, say so now
        stream = Stream(
            X,
            detector.input_shape_,
            detector.memory_limit,
            np.random.default_rng(self.seeds.split),
            y=y,
            held_out=detector.validation_fraction,
            columns=column_names(detector, X),
            impute=detector.missing == "impute",
        )
        if y is not None and np.count_nonzero(y == 0) == np.count_nonzero(y[stream.held_out] == 0):
            raise ValueError(NO_NORMAL_ROW)
        scaler, sample, held_out = stream.survey(detector.scaler)
        detector.scaler_ = scaler.copy()
        if detector.suspects:
            judged = sample if y is None else sample[y[stream.sampled] != 1]
            x, share = torch.from_numpy(judged), detector.suspects
            self.suspects = Suspects(share, x, detector.device_, self.seeds.prepare)
        rows = Streamed(stream, scaler, sample, self._prepared, self.seeds.prepare)
        if not len(rows.x):
            raise ValueError(
                f"A sample of {len(sample)} rows of X holds no row that the method learns from; "
                "raise memory_limit, or leave out rows that it does not learn from."
            )
        if not len(held_out):
            return rows, None
        labels = None if y is None else y[stream.held_out]
        return rows, self._prepared(held_out, labels, self.seeds.prepare + 1)

    def _prepared(self, x: np.ndarray, y: np.ndarray | None, seed: Any) -> Batch:
        """Return scaled samples, prepared by the method and on the device."""
        if self.suspects is not None:
            kept = self.suspects.others(torch.from_numpy(x))
            kept = kept if y is None else np.union1d(kept, np.flatnonzero(y == 1))
            x, y = x[kept], None if y is None else y[kept]
        whole, given = x, x.view()
        given.flags.writeable = False  # other detectors may train on the same rows
        x, y = self.hooks._prepare(given, y, np.random.default_rng(seed))
        to: Any = {"dtype": torch.float32, "device": self.trained.device_}
        target = None if y is None else torch.as_tensor(y, **to)
        x = whole if x is given else np.ascontiguousarray(x)
        x = x if x.flags.writeable else x.copy()  # torch has no read-only tensors
        return Batch(torch.as_tensor(x, **to), target)

    def _resolve_epochs(self, n: int) -> int:
        detector = self.trained
        if detector.epochs != "auto":
            return int(detector.epochs)
        steps = -(-n // detector.batch_size)
        most = detector.auto_epochs if self.start.passes is None else self.start.passes
        return min(most, -(-detector.auto_steps // steps))

    # --- the module -----------------------------------------------------------------------------

    def _build(self, rows: InMemory) -> None:
        """Build the module, start it from rows, and note which hyper-parameters it read."""
        detector, ranks = self.trained, self.ranks
        with global_generator(self.seeds.weights), torch.device("cpu"), noting_reads() as read:
            module = self.hooks._build_module(detector.input_shape_).float()
        self.read_by_build = set(read)
        detector.module_ = module.to(detector.device_)
        detector._fitted_params = built_by(detector.get_params(deep=False))
        typical = ranks.gather_rows(explain.spread(rows.x, rows.y))
        detector.baseline_ = explain.typical(typical)
        for part in detector.module_.modules():
            if isinstance(part, StartsFromRows) and not self.start.weights:
                part.start_from_rows(ranks.some_rows(rows.x, _SHOWN_ROWS))
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and detector.batch_size == 1:
                raise ValueError(
                    "batch_size=1 cannot be used with BatchNorm, which needs several rows; use 2 "
                    "or more."
                )
        self.start.put_into(detector.module_)

    def _task(self, rows: InMemory, held_out: Batch | None) -> Task:
        detector = self.trained
        bars = [Progress(self.title)] if detector.verbose and not self.ranks.rank else []
        return Task(
            detector.module_,
            rows,
            self.hooks._phases(),
            lambda n, generator: self.hooks._noise(n, detector.input_shape_, generator),
            batch_size=detector.batch_size,
            lr=detector.lr,
            weight_decay=detector.weight_decay,
            optimizer=detector.optimizer,
            max_grad_norm=detector.max_grad_norm,
            order_stream=torch.Generator("cpu").manual_seed(self.seeds.order),
            noise_stream=torch.Generator(detector.device_).manual_seed(self.seeds.noise),
            callbacks=[*detector.callbacks, *reporters(self), *bars],
            held_out=held_out,
            held_out_seed=self.seeds.split,
            ranks=self.ranks,
            checkpoint=self.checkpoint,
            phases_with=self._phases_with,
        )

    def _phases_with(self, values: dict[str, Tensor]) -> list[Phase]:
        """Return phases whose losses read these hyper-parameters instead of the detector's."""
        other = object.__new__(type(self.trained))
        other.__dict__ = self.trained.__dict__ | values
        return other._phases()

    # --- after training -------------------------------------------------------------------------

    def complete(self, member: Member) -> None:
        """Do everything that comes after training, and copy the results to the detector."""
        if member.error is not None:
            raise member.error
        trained = self.trained
        trained.history_, trained.engine_ = member.history, member.engine
        self._refresh_after_training(member)
        self.start.finish(self)
        self._score_training_rows(member)
        # Only now and in one step, so that a failed or interrupted fit changes nothing.
        kept = {k: v for k, v in self.detector.__dict__.items() if not k.endswith("_")}
        self.detector.__dict__ = kept | trained.__dict__ | self.params
        self.task.checkpoint.remove()

    def _refresh_after_training(self, member: Member) -> None:
        """Set buffers that the score needs, from all rows except calibration rows."""
        detector, rows = self.trained, self.task.rows
        how = self.hooks._after_training()
        if how is None:
            return
        size = chunk_rows(detector.input_shape_)
        if isinstance(rows, Streamed):  # from the sample
            parts: Iterable[Tensor] = rows.given.split(size)
        else:
            X = self.rows
            if len(self.division.calibrate):
                X = np.delete(X, self.division.calibrate, axis=0)
            parts = chunks(X, detector.input_shape_, detector.scaler_, size)
        refresh(detector.module_, how, parts, detector.device_, self.ranks, member.at_once)

    def _score_training_rows(self, member: Member) -> None:
        """Score all rows, and set the threshold and the calibration scores."""
        detector, X = self.trained, self.rows
        limit = None if isinstance(X, np.ndarray) else detector.memory_limit
        scores = Scores(sum(self.ranks.gather(len(X))), limit)
        for part in apply_in_parts(detector, X, self.hooks._score_trained, at_once=member.at_once):
            if detector.calibration_fraction:  # an array, all of whose rows are one part
                calibrating = self.ranks.gather(part[self.division.calibrate])
                detector.calibration_scores_ = np.sort(np.concatenate(calibrating))
            if self.halves:  # of an array, too
                unseen = as_unseen(part, [(half.left_out, half.tails) for half in self.halves])
                detector._unseen_scores, part = unseen, ranked_as(unseen, part)
                if self.labels is not None and not detector.calibration_fraction:
                    # Known anomalies do not measure how normal rows score.
                    detector.calibration_scores_ = np.sort(part[self.labels != 1])
            part = np.concatenate(self.ranks.gather(part))
            if not np.isfinite(part).all():
                raise FloatingPointError(
                    "Some scores of training rows are NaN or infinite. Reduce lr, or set "
                    "scaler='standard' if the columns of X differ much in size."
                )
            scores.add(part)
        detector.unseen_ = bool(self.halves) or not detector.learns_by_heart
        detector._remember_scores(scores.result(), scores.n)
