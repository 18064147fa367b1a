"""Choice of the engine that executes the steps of a phase."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from deepod._scoring.memory import ran_out, too_little
from deepod._training.stacked import Functional, NotRecordableError, Stack, detach
from deepod._training.steps import Eager, Stepper
from deepod._training.task import Task

# Fewer steps than this do not repay the time that recording takes. benchmarks/README.md says what
# it saves per step; it saves more when members are stacked.
STEPS_WORTH_RECORDING = 200
STACKED_STEPS_WORTH_RECORDING = 100


def steppers(
    tasks: Sequence[Task], turn: Sequence[int], engine: str
) -> tuple[str, Sequence[Stepper]]:
    """Return the first engine that works for the phases of a turn, and its steppers.

    Raises
    ------
    NotRecordableError
        If no engine works.
    MemoryError
        If memory ran out when a step was tried.
    """
    reason: Exception | None = None
    for way in _ways(tasks, turn, engine):
        if way == "eager" and len(tasks) == 1:
            return way, [Eager(tasks[0], tasks[0].phases[i]) for i in turn]
        try:
            stack = Stack([task.module for task in tasks])
            return way, [Functional(stack, tasks, i, way) for i in turn]
        except Exception as error:  # a mistake in the loss comes up again in plain torch
            reason = error
            for task in tasks:
                detach(task.module)
    if reason is not None and ran_out(reason) and len(tasks) == 1:
        raise MemoryError(too_large(tasks)) from reason
    raise NotRecordableError(
        f"engine={engine!r} cannot run this loss ({reason}); use engine='auto'."
    ) from reason


def _ways(tasks: Sequence[Task], turn: Sequence[int], engine: str) -> list[str]:
    """Return the engines to try, the best first."""
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


def too_large(tasks: Sequence[Task]) -> str:
    """Return the message that a step does not fit into memory."""
    rows, several = tasks[0].rows, len(tasks) > 1
    return too_little(
        rows.device,
        f"training on batch_size={tasks[0].batch_size} rows of shape {rows.shape} at once"
        + f", {len(tasks)} detectors side by side" * several,
        *["fewer detectors in one call"] * several,
        "a smaller batch_size (which trains differently)",
        "a smaller network",
        "a smaller memory_limit, if rows are read from disk",
    )
