"""The training loop of every method. Functions over torch modules only."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, groupby, islice
from typing import Any

import torch
from torch import Tensor, nn

from deepod._inputs.rows import even_parts
from deepod._scoring.apply import chunk_rows, score
from deepod._scoring.memory import AtOnce, explained, ran_out, too_little
from deepod._training.checkpoint import is_count, require
from deepod._training.interrupt import Interrupt, at_end_of_step
from deepod._training.processes import Ranks
from deepod._training.stacked import Functional, NotRecordableError, Stack, detach
from deepod._training.steps import ENGINES, Eager, Stepper
from deepod._training.task import Task
from deepod.types import Batch, Event, Phase, Refresh

# Fewer steps than this do not repay the time that recording takes. What it saves of each is in
# benchmarks/README.md, more when members are stacked.
STEPS_WORTH_RECORDING = 200
STACKED_STEPS_WORTH_RECORDING = 100

STEPS_AT_ONCE = 256  # whose losses are read together, because reading waits for the device


def train(tasks: Sequence[Task], engine: str = "auto") -> list[Member]:
    """Train the modules of ``tasks`` in place: one, or several side by side.

    Parameters
    ----------
    tasks : sequence of Task
        Several must have modules of one architecture, as many rows and the same phases but for
        learning rates; each ends with what it would have alone, rounding aside.
    engine : str, default="auto"
        How steps are carried out; "auto" records them where that pays and is possible.

    Returns
    -------
    members : list of Member
        Their history, and their error if they failed: the others then go on.

    Raises
    ------
    NotRecordableError
        If ``engine`` names a way that the losses do not allow, or if several members do not train
        side by side.
    KeyboardInterrupt
        After a step in which Ctrl-C was pressed.
    """
    at_once = AtOnce()
    members = [Member(task, at_once) for task in tasks]
    with at_end_of_step(lambda: _how_far(members)) as interrupt:
        for turn in _turns(tasks[0].phases):
            going = [m for m in members if m.error is None and m.turn <= turn[0]]
            _train_turn(going, turn, engine, interrupt)
            for member in going:
                member.turn = turn[-1] + 1
                if member.error is None:
                    member.save()
    for task in tasks:
        task.module.eval()
    return members


def _turns(phases: Sequence[Phase]) -> list[list[int]]:
    """Group phases: neighbours that name the same cycle, any other phase by itself."""
    groups = groupby(enumerate(phases), key=lambda p: p[1].cycle or p[0])
    return [[i for i, _ in group] for _, group in groups]


class Member:
    """A task on its way through training.

    Attributes
    ----------
    history : list of dict
        One entry per epoch: phase, epoch, seconds, and every weighted loss term; terms of the
        held-out rows are prefixed ``validation_``.
    error : Exception or None
    engine : str
        What the last phase ran on.
    at_once : AtOnce
        Rows that are scored at once, in training and after it.
    turn : int
        First phase that is not over.
    begun : dict
        Of a fit that goes on from a checkpoint, how far it was within that phase.
    """

    def __init__(self, task: Task, at_once: AtOnce | None = None) -> None:
        self.task = task
        self.at_once = at_once or AtOnce()
        self.history: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.engine = "eager"
        self.stopped = False  # in this phase
        self.busy = False  # inside a phase
        self.turn = 0
        self.begun: dict[str, Any] = {}
        if task.checkpoint is not None and (state := task.checkpoint.take()) is not None:
            with task.checkpoint.reading():
                self._load(state)

    def _load(self, state: Mapping[str, Any]) -> None:
        """Be where another fit was when it called :meth:`save`."""
        task = self.task
        self.turn, self.engine = state["turn"], state["engine"]
        self.history, self.begun = state["history"], state["begun"]
        require(self.engine in ENGINES, "engine")
        self._check_how_far()
        task.module.load_state_dict(state["module"])
        task.rows.load_state_dict(state["rows"])
        task.order_stream.set_state(state["order_stream"])
        task.noise_stream.set_state(state["noise_stream"])
        callbacks: list[Any] = [*filter(remembers, task.callbacks)]
        for callback, own in zip(callbacks, state["callbacks"], strict=True):
            callback.load_state_dict(own)

    def _check_how_far(self) -> None:
        """Refuse a file whose history does not lead to where it says that training is."""
        phases, turns = self.task.phases, _turns(self.task.phases)
        starts = [*(turn[0] for turn in turns), len(phases)]
        require(type(self.turn) is int and self.turn in starts, "turn")
        begun = 0
        if self.begun:
            require(self.begun.keys() == {"epochs", "parts"} and self.turn < len(phases), "begun")
            begun = self.begun["epochs"]
            # After the last one the phase is over, and this no longer its state.
            require(is_count(begun, phases[self.turn].epochs - 1) and begun, "epochs")
        told = [(entry["phase"], entry.get("epoch")) for entry in self.history]
        for first in starts:
            if first < len(phases) and first <= self.turn:
                name, epochs = phases[first].name, phases[first].epochs
                n = 0
                while n < len(told) and n < epochs and told[n] == (name, n):
                    n += 1
                told = told[n:]
                # Callbacks may have ended an earlier phase, but not before its first epoch.
                require(n == begun if first == self.turn else n or not epochs, "history")
        require(not told, "history")

    def save(self, begun: Mapping[str, Any] | None = None) -> None:
        """Write the checkpoint, if there is one; between phases, or in one that has ``begun``."""
        task = self.task
        if task.checkpoint is None:
            return
        callbacks: list[Any] = [*filter(remembers, task.callbacks)]
        state = {
            "turn": self.turn,
            "engine": self.engine,
            "begun": begun or {},
            "module": task.module.state_dict(),
            "rows": task.rows.state_dict(),
            "order_stream": task.order_stream.get_state(),
            "noise_stream": task.noise_stream.get_state(),
            "callbacks": [callback.state_dict() for callback in callbacks],
        }
        task.checkpoint.write(state, self.history)


def remembers(callback: Any) -> bool:
    """Whether a callback has a state that a checkpoint has to hold."""
    return hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict")


def _how_far(members: Sequence[Member]) -> str:
    """Say how far training was when it was interrupted."""
    history = max((member.history for member in members), key=len)
    text = "Training was interrupted in the first epoch"
    if history:
        last = history[-1]
        text = f"Training was interrupted after epoch {last['epoch']} of phase {last['phase']!r}"
    text += "; the detector is as it was before."
    checkpoint = members[0].task.checkpoint
    if checkpoint is not None and checkpoint.epochs:
        text += (
            f" The next fit goes on from checkpoint={checkpoint.name!r}, written when "
            f"{checkpoint.epochs} of {len(history)} epochs were over."
        )
    return text


def _train_turn(
    members: Sequence[Member], turn: Sequence[int], engine: str, interrupt: Interrupt
) -> None:
    """Train one phase, or several that take turns within each batch, epoch by epoch."""
    if not members:
        return
    try:
        for member in members:
            member.stopped, member.busy = False, True
            for phase in _phases(member, turn):
                if phase.start is not None and not member.begun:
                    _refresh_all(member, phase.start)
        _train_epochs(list(members), turn, engine, interrupt)
    finally:
        for member in members:
            _end(member)


def _train_epochs(
    members: list[Member], turn: Sequence[int], engine: str, interrupt: Interrupt
) -> None:
    for member in members:
        member.task.module.train()  # for the recording
    with _reading(members[0]):
        if members[0].begun:
            possible = ("eager", "trace") if engine == "auto" else (engine,)
            require(members[0].engine in possible, "engine")
            engine = members[0].engine
        steppers = _steppers(members, turn, engine)
    schedules = [
        torch.optim.lr_scheduler.MultiStepLR(
            stepper.optimizer, _phases(members[0], [i])[0].milestones
        )
        for i, stepper in zip(turn, steppers, strict=True)
    ]
    first = members[0].task.phases[turn[0]]
    with _reading(members[0]):
        begin = _begin(members[0], steppers, schedules)
    for epoch in range(begin, first.epochs):
        began = time.perf_counter()
        losses = _epoch(members, turn, steppers, epoch, interrupt)
        shared = (time.perf_counter() - began) / sum(not m.stopped for m in members)
        for schedule in schedules:
            schedule.step()
        for k, member in enumerate(members):
            if member.stopped:
                continue
            try:
                if member.error is None:
                    _close_epoch(member, turn, epoch, losses[k], shared)
                    _save(member, epoch, steppers, schedules)
            except Exception as error:  # its own, of a callback perhaps: the others go on
                member.error = error
            if member.stopped or member.error is not None:
                member.stopped = True
                _end(member)
        going = [k for k, member in enumerate(members) if not member.stopped]
        if not going:
            break
        # Rows of stopped members are trained for nothing, until it pays to record anew.
        if 2 * len(going) <= len(members):
            for stepper in steppers:
                stepper.keep(going)
            members = [members[k] for k in going]


def _begin(member: Member, steppers: Sequence[Stepper], schedules: Sequence[Any]) -> int:
    """Go on where a checkpoint was written in this phase; the first epoch to train."""
    begun, member.begun = member.begun, {}
    if not begun:
        return 0
    epochs = int(begun["epochs"])
    n = len(steppers)
    require(isinstance(begun["parts"], list) and len(begun["parts"]) == n + len(schedules), "parts")
    for stepper, state in zip(steppers, begun["parts"][:n], strict=True):
        stepper.load_state_dict(state)
    for schedule, state in zip(schedules, begun["parts"][n:], strict=True):
        rates = [group["lr"] for group in schedule.optimizer.param_groups]
        steps = {"last_epoch": epochs, "_step_count": epochs + 1, "_last_lr": rates}
        require(state == _state(schedule) | steps, "schedule")
        schedule.load_state_dict(state)
    return epochs


def _reading(member: Member) -> AbstractContextManager[None]:
    """Blame the file for errors, as long as a fit takes up from it what it will go on with."""
    checkpoint = member.task.checkpoint
    return checkpoint.reading() if checkpoint is not None and member.begun else nullcontext()


def _state(part: Any) -> dict[str, Any]:
    """Give what a stepper or a schedule remembers; not the milestones, which are no JSON."""
    return {key: value for key, value in part.state_dict().items() if key != "milestones"}


def _save(
    member: Member, epoch: int, steppers: Sequence[Stepper], schedules: Sequence[Any]
) -> None:
    """Write the checkpoint, if there is one and it is time for it."""
    task = member.task
    over = member.stopped or epoch + 1 == task.phases[member.turn].epochs  # written then, anyway
    if task.checkpoint is None or over or len(member.history) % task.checkpoint.every:
        return
    states = [_state(part) for part in (*steppers, *schedules)]
    member.save({"epochs": epoch + 1, "parts": states})


def _phases(member: Member, turn: Sequence[int]) -> list[Phase]:
    return [member.task.phases[i] for i in turn]


def _steppers(members: Sequence[Member], turn: Sequence[int], engine: str) -> list[Stepper]:
    """Choose how the phases of a turn are trained, on the first of ``_ways`` that works."""
    tasks = [member.task for member in members]
    reason: Exception | None = None
    for way in _ways(tasks, turn, engine):
        for member in members:
            member.engine = way
        if way == "eager" and len(tasks) == 1:
            return [Eager(tasks[0], tasks[0].phases[i]) for i in turn]
        try:
            stack = Stack([task.module for task in tasks])
            return [Functional(stack, tasks, i, way) for i in turn]
        except Exception as error:  # a mistake in the loss comes up again in plain torch
            reason = error
            for task in tasks:
                detach(task.module)
    if reason is not None and ran_out(reason) and len(tasks) == 1:
        raise MemoryError(_too_large(tasks)) from reason
    raise NotRecordableError(
        f"engine={engine!r} cannot run this loss ({reason}); use engine='auto'."
    ) from reason


def _ways(tasks: Sequence[Task], turn: Sequence[int], engine: str) -> list[str]:
    """Engines to try, best first."""
    if engine != "auto":
        return [engine]
    task = tasks[0]
    steps = task.phases[turn[0]].epochs * -(-len(task.rows) // task.batch_size)
    worth = STEPS_WORTH_RECORDING if len(tasks) == 1 else STACKED_STEPS_WORTH_RECORDING
    # torch's recurrent layers would be unrolled, step of time by step of time.
    recurrent = any(isinstance(part, nn.RNNBase) for part in task.module.modules())
    if task.rows.device.type != "cpu" or steps < worth or recurrent:
        return ["eager"]
    return ["trace", "eager"]


def _epoch(
    members: Sequence[Member],
    turn: Sequence[int],
    steppers: Sequence[Stepper],
    epoch: int,
    interrupt: Interrupt,
) -> list[dict[str, float]]:
    """One pass over the rows in a new order; mean loss terms of every member.

    A member with a loss that is not finite gets its error; once all have one, the pass ends.
    """
    for member in members:
        member.task.module.train()
    going = [k for k, member in enumerate(members) if not member.stopped]
    # Those that stopped are fed with the batches of another, and what they learn is not used.
    source = [going.index(k) if k in going else 0 for k in range(len(members))]
    epochs = [members[k].task.draw() for k in going]
    batches = ([drawn[position] for position in source] for drawn in zip(*epochs, strict=True))
    ranks, device = members[0].task.ranks, members[0].task.rows.device
    losses: list[dict[str, float]] = [{} for _ in members]
    steps, totals = 0, [torch.zeros((), device="cpu")] * 2
    too_large = _too_large([member.task for member in members])
    for rows, terms in _steps(steppers, batches, too_large, interrupt):
        sums = [rows.sum(), (rows.view(-1, 1, 1) * terms).sum(0)]
        if ranks is not None:
            sums = [part.to(device) for part in sums]
            ranks.add(sums)
            sums = [part.cpu() for part in sums]
        for k in going:
            if members[k].error is None and not sums[1][k].isfinite().all():
                columns = _columns(members[k], turn, steppers)
                members[k].error = _not_finite(terms[:, k], columns, steps, epoch, ranks)
        if all(members[k].error is not None for k in going):
            return losses
        steps += len(rows)
        totals = [total + part for total, part in zip(totals, sums, strict=True)]
    if ranks is not None:
        statistics = [b for b in members[0].task.module.buffers() if b.is_floating_point()]
        ranks.add(statistics)  # BatchNorm's, each of a rank's own batches: their mean
        for statistic in statistics:
            statistic.div_(ranks.size)
    n, values = totals
    names = [name for _, name in _columns(members[0], turn, steppers)]
    for found, row in zip(losses, (values / n).tolist(), strict=True):
        for name, value in zip(names, row, strict=True):
            found[name] = found.get(name, 0.0) + value
    return losses


def _steps(
    steppers: Sequence[Stepper],
    batches: Iterator[Sequence[Batch]],
    too_large: str,
    interrupt: Interrupt,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Take all steps. After some: the rows in each, and its loss terms in all phases.

    Of shape (steps,) and (steps, members, terms), in float64 on the CPU.
    """

    def steps() -> Iterator[tuple[int, list[Tensor]]]:
        for batch in batches:
            yield len(batch[0].x), [stepper.step(batch) for stepper in steppers]
            if interrupt.asked:
                raise interrupt.error()

    going = steps()
    while True:
        with explained(too_large):
            taken = list(islice(going, STEPS_AT_ONCE))
        if not taken:
            return
        rows, terms = zip(*taken, strict=True)
        of_phases = [torch.stack(of_phase) for of_phase in zip(*terms, strict=True)]
        yield (
            torch.tensor(rows, dtype=torch.float64, device="cpu"),
            torch.cat(of_phases, 2).cpu().double(),
        )


def _too_large(tasks: Sequence[Task]) -> str:
    """Say that a step does not fit into memory."""
    rows, several = tasks[0].rows, len(tasks) > 1
    return too_little(
        rows.device,
        f"training on batch_size={tasks[0].batch_size} rows of shape {rows.shape} at once"
        + f", {len(tasks)} detectors side by side" * several,
        *["fewer detectors in one call"] * several,
        "a smaller batch_size, which trains differently",
        "a smaller network",
        "a smaller memory_limit, if rows are read from disk",
    )


def _columns(
    member: Member, turn: Sequence[int], steppers: Sequence[Stepper]
) -> list[tuple[str, str]]:
    """Phase and name of all loss terms."""
    phases = zip(_phases(member, turn), steppers, strict=True)
    return [(phase.name, name) for phase, stepper in phases for name in stepper.names]


def _not_finite(
    terms: Tensor, columns: Sequence[tuple[str, str]], steps: int, epoch: int, ranks: Ranks | None
) -> FloatingPointError | None:
    """Name the first loss term of some steps, (steps, terms), that is not finite on some rank."""
    first = (~terms.isfinite()).nonzero()[:1].tolist()
    spots = [(step, column, float(terms[step, column])) for step, column in first]
    if ranks is not None:
        spots = [*chain(*ranks.gather(spots))]
    if not spots:  # only their sum is too large
        return None
    step, column, value = min(spots)
    phase, name = columns[column]
    return FloatingPointError(
        f"The loss term {name!r} became {value} in step {steps + step} of epoch {epoch} of phase "
        f"{phase!r}, both counted from 0. Lower lr, bound gradients by max_grad_norm, or set "
        "scaler='standard' if the columns of X differ much in size."
    )


def _close_epoch(
    member: Member, turn: Sequence[int], epoch: int, losses: dict[str, float], seconds: float
) -> None:
    """Refresh, watch, note, tell the callbacks."""
    began = time.perf_counter()
    task, phases = member.task, _phases(member, turn)
    name = phases[0].name
    for phase in phases:
        if phase.each_epoch is not None and epoch >= phase.skip:
            _refresh_all(member, phase.each_epoch)
    with explained(_too_large([task])):
        watched = _watch(task, phases)
    seconds += time.perf_counter() - began
    entry = {"phase": name, "epoch": epoch, "seconds": seconds}
    prefixed = {f"validation_{key}": loss for key, loss in watched.items()}
    member.history.append(entry | losses | prefixed)
    last = phases[-1] is task.phases[-1]
    event = Event(name, epoch, phases[0].epochs, losses, watched, seconds, last, task.module)
    # A list, not a generator: every callback hears of every epoch.
    member.stopped = any([callback(event) for callback in task.callbacks])


def _end(member: Member) -> None:
    """Close a phase of one member, once."""
    if not member.busy:
        return
    member.busy = False
    for callback in member.task.callbacks:
        getattr(callback, "end", lambda: None)()
    detach(member.task.module)


@torch.no_grad()
def _watch(task: Task, phases: Sequence[Phase]) -> dict[str, float]:
    """Loss terms of the held-out rows, with the same noise every epoch so that they compare."""
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
    if task.ranks is not None:
        task.ranks.add([sums])
    values = (sums[:-1] / sums[-1]).tolist()
    return dict(zip(totals, values, strict=True))


def _refresh_all(member: Member, how: Refresh) -> None:
    """Refresh from all rows that are trained on."""
    task = member.task
    chunks = task.rows.chunks(chunk_rows(task.rows.shape))
    refresh(task.module, how, chunks, task.rows.device, task.ranks, member.at_once)


def refresh(
    module: nn.Module,
    how: Refresh,
    chunks: Iterable[Tensor],
    device: torch.device,
    ranks: Ranks | None = None,
    at_once: AtOnce | None = None,
) -> None:
    """Set buffers of ``module`` from statistics of the rows in ``chunks``, and of other ranks'."""
    statistics = score(module, how.collect, chunks, device, at_once=at_once).clone()
    values = how.reduce(statistics if ranks is None else ranks.gather_rows(statistics))
    for name, value in values.items():
        module.get_buffer(name).copy_(value)
