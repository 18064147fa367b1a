"""The training loop of every method. Functions over torch modules only."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from deepod._inputs.rows import even_parts
from deepod._scoring.apply import chunk_rows, score
from deepod._scoring.memory import AtOnce, explained
from deepod._training.checkpoint import require
from deepod._training.engines import steppers, too_large
from deepod._training.interrupt import Interrupt, at_end_of_step
from deepod._training.processes import ALONE, Ranks
from deepod._training.stacked import detach
from deepod._training.task import Member, Task, turns
from deepod.types import Batch, Event, Phase, Refresh

STEPS_AT_ONCE = 256  # whose losses are read together, because reading waits for the device


def train(tasks: Sequence[Task], engine: str = "auto") -> list[Member]:
    """Train the module of one task in place, or those of several tasks together.

    Parameters
    ----------
    tasks : sequence of Task
        Several must have modules of one architecture, as many rows, and the same phases except for
        learning rates. The results are those of each task alone, except for rounding.
    engine : str, default="auto"
        How steps are executed; "auto" records them if that is possible and saves time.

    Returns
    -------
    members : list of Member
        The history of each task, and its error if it failed; the others then continue.

    Raises
    ------
    NotRecordableError
        If the losses do not allow the given ``engine``, or several members cannot train together.
    KeyboardInterrupt
        After a step in which Ctrl-C was pressed.
    """
    at_once = AtOnce()
    members = [Member(task, at_once) for task in tasks]
    with at_end_of_step(lambda: _how_far(members)) as interrupt:
        for numbers in turns(tasks[0].phases):
            going = [m for m in members if m.error is None and m.turn <= numbers[0]]
            if not going:
                continue
            _Turn(going, numbers, interrupt).train(engine)
            for member in going:
                member.turn = numbers[-1] + 1
                if member.error is None:
                    member.save()
    for task in tasks:
        task.module.eval()
    return members


def _how_far(members: Sequence[Member]) -> str:
    """Return a message that says how far training was when it was interrupted."""
    history = max((member.history for member in members), key=len)
    text = "Training was interrupted in the first epoch"
    if history:
        last = history[-1]
        text = f"Training was interrupted after epoch {last['epoch']} of phase {last['phase']!r}"
    text += "; the detector is as it was before."
    checkpoint = members[0].task.checkpoint
    if checkpoint.epochs:
        text += (
            f" The next fit goes on from checkpoint={checkpoint.name!r}, written when "
            f"{checkpoint.epochs} of {len(history)} epochs were over."
        )
    return text


class _Turn:
    """One phase of all members, or several phases that take turns within each batch."""

    def __init__(
        self, members: Sequence[Member], numbers: Sequence[int], interrupt: Interrupt
    ) -> None:
        self.members, self.numbers, self.interrupt = list(members), numbers, interrupt
        task = members[0].task  # members have all of this in common
        self.epochs = task.phases[numbers[0]].epochs
        self.ranks, self.device = task.ranks, task.rows.device

    def train(self, engine: str) -> None:
        """Train all epochs, or until every member has stopped."""
        everybody = list(self.members)
        try:
            for member in everybody:
                member.stopped, member.in_phase = False, True
                for phase in self._phases(member):
                    if phase.start is not None and not member.resumed:
                        _refresh_all(member, phase.start)
            for member in everybody:
                member.task.module.train()  # for the recording
            with everybody[0].resuming():
                first = self._set_up(engine)
            for epoch in range(first, self.epochs):
                self._train_epoch(epoch)
                if not self.members:
                    break
        finally:
            for member in everybody:
                _end(member)

    def _phases(self, member: Member) -> list[Phase]:
        return [member.task.phases[i] for i in self.numbers]

    def _set_up(self, engine: str) -> int:
        """Choose the engine, and return the number of the first epoch to train."""
        leader = self.members[0]
        resumed, leader.resumed = leader.resumed, {}
        if resumed:
            require(leader.engine in (("eager", "trace") if engine == "auto" else (engine,)),
                    "engine")  # fmt: skip
            engine = leader.engine
        way, self.steppers = steppers([m.task for m in self.members], self.numbers, engine)
        for member in self.members:
            member.engine = way
        if not resumed:
            return 0
        parts = resumed["parts"]
        require(isinstance(parts, list) and len(parts) == len(self.steppers), "parts")
        for stepper, state in zip(self.steppers, parts, strict=True):
            stepper.load_state_dict(state)
            for epoch in range(resumed["epochs"]):
                stepper.optimizer.end_epoch(epoch)  # for the learning rate
        return int(resumed["epochs"])

    def _train_epoch(self, epoch: int) -> None:
        for member in self.members:
            if not member.stopped:
                member.begin_epoch(self._phases(member)[0].name, epoch, self.epochs)
        start = time.perf_counter()
        losses = self._steps_of(epoch)
        training = sum(not member.stopped for member in self.members)
        seconds = (time.perf_counter() - start) / training
        for stepper in self.steppers:
            stepper.optimizer.end_epoch(epoch)
        for member, own in zip(self.members, losses, strict=True):
            try:
                if member.error is None and not member.stopped:
                    self._close_epoch(member, epoch, own, seconds)
            except Exception as error:  # its own, of a callback perhaps: the others go on
                member.error = error
            if member.stopped or member.error is not None:
                member.stopped = True
                _end(member)
        going = [k for k, member in enumerate(self.members) if not member.stopped]
        # Rows of stopped members are trained for nothing, until it pays to record anew.
        if 2 * len(going) <= len(self.members):
            for k in going:  # watching or a refresh has left them in the mode of evaluation
                self.members[k].task.module.train()
            if going:
                for stepper in self.steppers:
                    stepper.keep(going)
            self.members = [self.members[k] for k in going]

    # --- one pass over the rows ------------------------------------------------------------------

    def _steps_of(self, epoch: int) -> list[dict[str, float]]:
        """Take all steps of an epoch, and return the mean loss terms of every member.

        A loss that is not finite sets an error on its member. If all have one, the epoch ends.
        """
        going = [k for k, member in enumerate(self.members) if not member.stopped]
        steps, totals = 0, [torch.zeros((), device="cpu")] * 2
        for rows, terms in self._steps(going):
            sums = [rows.sum(), (rows.view(-1, 1, 1) * terms).sum(0)]
            sums = self.ranks.total(sums, self.device)
            for k in going:
                if self.members[k].error is None and not sums[1][k].isfinite().all():
                    self.members[k].error = self._not_finite(terms[:, k], steps, epoch)
            if all(self.members[k].error is not None for k in going):
                return [{} for _ in self.members]
            steps += len(rows)
            totals = [total + part for total, part in zip(totals, sums, strict=True)]
        # BatchNorm's statistics, each of a rank's own batches: their mean.
        buffers = self.members[0].task.module.buffers()
        self.ranks.average([buffer for buffer in buffers if buffer.is_floating_point()])
        means = totals[1] / totals[0]  # (members, terms)
        return [self._by_name(own) for own in means.tolist()]

    def _steps(self, going: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Take all steps, and yield the results of several steps at a time.

        They are the numbers of rows, (steps,), and the loss terms of all phases, (steps, members,
        terms), in float64 on the CPU.
        """
        for member in self.members:
            member.task.module.train()
        # Those that stopped are fed with the batches of another, and what they learn is not used.
        source = [going.index(k) if k in going else 0 for k in range(len(self.members))]
        epochs = [self.members[k].task.draw() for k in going]
        rows: list[int] = []
        terms: list[list[Tensor]] = []
        with explained(too_large([member.task for member in self.members])):
            for drawn in zip(*epochs, strict=True):
                batch: list[Batch] = [drawn[position] for position in source]
                rows.append(len(batch[0].x))
                terms.append([stepper.step(batch) for stepper in self.steppers])
                if self.interrupt.asked:
                    raise self.interrupt.error()
                if len(rows) == STEPS_AT_ONCE:
                    yield _read(rows, terms)
                    rows, terms = [], []
            if rows:
                yield _read(rows, terms)

    def _terms_in_order(self) -> list[tuple[str, str]]:
        """Return the phase and the name of each loss term, in order."""
        phases = zip(self._phases(self.members[0]), self.steppers, strict=True)
        return [(phase.name, name) for phase, stepper in phases for name in stepper.names]

    def _by_name(self, values: Sequence[float]) -> dict[str, float]:
        """Return loss terms by name; terms of several phases with the same name are added."""
        found: dict[str, float] = {}
        for (_, name), value in zip(self._terms_in_order(), values, strict=True):
            found[name] = found.get(name, 0.0) + value
        return found

    def _not_finite(self, terms: Tensor, steps: int, epoch: int) -> FloatingPointError | None:
        """Return an error that names the first loss term, (steps, terms), that is not finite."""
        first = (~terms.isfinite()).nonzero()[:1].tolist()
        spots = [(step, column, float(terms[step, column])) for step, column in first]
        spots = [*chain(*self.ranks.gather(spots))]
        if not spots:  # only their sum is too large
            return None
        step, column, value = min(spots)
        phase, name = self._terms_in_order()[column]
        return FloatingPointError(
            f"The loss term {name!r} became {value} in step {steps + step} of epoch {epoch} of "
            f"phase {phase!r}, both counted from 0. Lower lr, bound gradients by max_grad_norm, or "
            "set scaler='standard' if the columns of X differ much in size."
        )

    # --- after a pass ----------------------------------------------------------------------------

    def _close_epoch(
        self, member: Member, epoch: int, losses: dict[str, float], seconds: float
    ) -> None:
        """Do the refresh, validate, record the history, call callbacks, write the checkpoint."""
        start = time.perf_counter()
        task, phases = member.task, self._phases(member)
        for phase in phases:
            if phase.each_epoch is not None and epoch >= phase.skip:
                _refresh_all(member, phase.each_epoch)
        with explained(too_large([task])):
            watched = _watch(task, phases)
        seconds += time.perf_counter() - start
        name, last = phases[0].name, phases[-1] is task.phases[-1]
        entry: dict[str, Any] = {"phase": name, "epoch": epoch, "seconds": seconds}
        prefixed = {f"validation_{key}": loss for key, loss in watched.items()}
        member.history.append(entry | losses | prefixed)
        event = Event(name, epoch, self.epochs, losses, watched, seconds, last, task.module)
        # A list, not a generator: every callback hears of every epoch.
        member.stopped = any([callback(event) for callback in task.callbacks])
        over = member.stopped or epoch + 1 == self.epochs  # it is written then, anyway
        if not over and task.checkpoint.is_due(len(member.history)):
            parts = [stepper.state_dict() for stepper in self.steppers]
            member.save({"epochs": epoch + 1, "parts": parts})


def _read(rows: Sequence[int], terms: Sequence[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the results of several steps: their numbers of rows, and the terms of all phases."""
    of_phases = [torch.stack(of_phase) for of_phase in zip(*terms, strict=True)]
    count = torch.tensor(rows, dtype=torch.float64, device="cpu")
    return count, torch.cat(of_phases, 2).cpu().double()


def _end(member: Member) -> None:
    """End a phase of one member, once."""
    if not member.in_phase:
        return
    member.in_phase = False
    for callback in member.task.callbacks:
        getattr(callback, "end", lambda: None)()
    detach(member.task.module)


@torch.no_grad()
def _watch(task: Task, phases: Sequence[Phase]) -> dict[str, float]:
    """Return the loss terms of the validation rows, with the same noise in every epoch."""
    if task.held_out is None:
        return {}
    task.module.eval()
    x, y, _ = task.held_out
    generator = torch.Generator(x.device).manual_seed(task.held_out_seed)
    totals: dict[str, Tensor] = {}
    for rows in even_parts(torch.arange(len(x), device=x.device), task.batch_size):
        noise = task.noise(len(rows), generator)
        batch = Batch(x[rows], None if y is None else y[rows], noise)
        for phase in phases:
            for name, value in phase.loss(task.module, batch).items():
                totals[name] = totals.get(name, 0.0) + value * len(rows)
    sums = torch.stack([*totals.values(), torch.tensor(float(len(x)), device=x.device)])
    task.ranks.add([sums])
    values = (sums[:-1] / sums[-1]).tolist()
    return dict(zip(totals, values, strict=True))


def _refresh_all(member: Member, how: Refresh) -> None:
    """Carry out a refresh from all training rows."""
    task = member.task
    chunks = task.rows.chunks(chunk_rows(task.rows.shape))
    refresh(task.module, how, chunks, task.rows.device, task.ranks, member.at_once)


def refresh(
    module: nn.Module,
    how: Refresh,
    chunks: Iterable[Tensor],
    device: torch.device,
    ranks: Ranks = ALONE,
    at_once: AtOnce | None = None,
) -> None:
    """Set buffers of ``module`` from statistics of the rows in ``chunks``, and of other ranks'."""
    statistics = score(module, how.collect, chunks, device, at_once=at_once).clone()
    for name, value in how.reduce(ranks.gather_rows(statistics)).items():
        module.get_buffer(name).copy_(value)
