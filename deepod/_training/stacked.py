"""An optimiser step as a function of tensors, to record it and to stack several modules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate, chain, groupby, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from deepod._inputs.seeds import global_generator
from deepod._training.checkpoint import is_count, require
from deepod._training.recording import RUNNERS, Function, copies
from deepod._training.steps import Stepper, optimizer, selected, settings
from deepod._training.task import Task
from deepod.types import Batch

MOST_RECORDINGS = 8  # of as many sizes of batches; steps of any other size are not recorded


class NotRecordableError(ValueError):
    """Error raised if a loss cannot be recorded, or not for several members at once."""


class Stack:
    """Several modules of one architecture, whose tensors become rows of shared tensors.

    Attributes
    ----------
    flat : Tensor of shape (members, values)
        All parameters of each module, one after the other.
    buffers : dict of Tensor of shape (members, ...)
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        parameters = dict(modules[0].named_parameters())
        ends = list(accumulate((p.numel() for p in parameters.values()), initial=0))
        self.shapes = {name: p.shape for name, p in parameters.items()}
        self.columns = dict(zip(parameters, pairwise(ends), strict=True))
        self._attach(
            list(modules),
            [
                torch.stack(
                    [torch.cat([p.detach().reshape(-1) for p in m.parameters()]) for m in modules]
                ),
                *[
                    torch.stack([m.get_buffer(n) for m in modules])
                    for n, _ in modules[0].named_buffers()
                ],
            ],
        )

    def _attach(self, modules: list[nn.Module], tensors: list[Tensor]) -> None:
        """Make the tensors of the modules views of rows of the shared tensors."""
        self.modules = modules
        self.flat, *buffers = tensors
        names = [name for name, _ in modules[0].named_buffers()]
        self.buffers = dict(zip(names, buffers, strict=True))
        for k, module in enumerate(modules):
            for name, p in module.named_parameters():
                p.data = self.flat[k, slice(*self.columns[name])].view(p.shape)
            for name, buffer in module.named_buffers():
                buffer.data = self.buffers[name][k]

    def keep(self, members: Sequence[int]) -> None:
        """Keep only these rows."""
        kept = torch.tensor(members, device=self.flat.device)
        modules = [self.modules[k] for k in members]
        self._attach(
            modules, [t.index_select(0, kept) for t in (self.flat, *self.buffers.values())]
        )


def detach(module: nn.Module) -> None:
    """Give a module tensors of its own again."""
    module.zero_grad()
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.data = tensor.detach().clone()


class Functional(Stepper):
    """A stepper whose step is one function of tensors, recorded and for all members at once.

    Parameters
    ----------
    stack : Stack
        The members' modules; phases that take turns share it.
    tasks : sequence of Task
        One task per member.
    number : int
        Number of the phase.
    how : str
        The engine; with "eager", the function is not recorded.

    Raises
    ------
    NotRecordableError
        If the loss does not allow it.
    """

    def __init__(self, stack: Stack, tasks: Sequence[Task], number: int, how: str) -> None:
        self.stack, self.tasks, self.number, self.how = stack, list(tasks), number, how
        self.alone = len(tasks) == 1
        self.like = tasks[0].example(2)
        self.parts = self._cut()
        different = {settings(task, task.phases[number]) for task in tasks}
        # Then one tensor holds all that is trained, and one call updates it.
        self.jointly = len(different) == len(self.parts) == 1
        self.trained = self._trained()
        self.optimizer = optimizer(tasks, [task.phases[number] for task in tasks], self.trained)
        self._prepare()

    def _cut(self) -> list[tuple[bool, list[str]]]:
        """Return the parameters as few runs of neighbours that are all trained or all frozen."""
        task, phase = self.tasks[0], self.tasks[0].phases[self.number]
        parameters = {name: p.detach() for name, p in task.module.named_parameters()}
        trained = {n: parameters[n].requires_grad_() for n in selected(task.module, phase)}
        buffers = {name: b.clone() for name, b in task.module.named_buffers()}
        batch = _tensors(task.example(task.rows.sizes(task.batch_size)[0]))
        with global_generator():
            total, _ = self._losses(parameters, buffers, {}, batch)
        # torch's optimisers leave alone what the loss does not reach.
        gradients = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
        reached = {n for n, g in zip(trained, gradients, strict=True) if g is not None}
        names = groupby(self.stack.columns, key=reached.__contains__)
        return [(trained, list(part)) for trained, part in names]

    def _place(self, part: Sequence[str]) -> slice:
        return slice(self.stack.columns[part[0]][0], self.stack.columns[part[-1]][1])

    def _trained(self) -> list[list[Tensor]]:
        """Return the tensors to update: one for everything, or the trained parts of each member."""
        if self.jointly:
            return [[self.stack.flat]]
        columns = [self._place(part) for trained, part in self.parts if trained]
        return [[row[part] for part in columns] for row in self.stack.flat]

    def _prepare(self) -> None:
        """Record the step for every size of batch, and drop older recordings."""
        values = {name: [task.values[name] for task in self.tasks] for name in self.tasks[0].values}
        like = self.stack.flat
        self.values = [
            torch.tensor(v, dtype=like.dtype, device=like.device) for v in values.values()
        ]
        norms = [task.max_grad_norm for task in self.tasks]
        self.largest = None  # that the gradients may be, (members, 1)
        if any(norm is not None for norm in norms):
            rows = [[float("inf") if norm is None else norm] for norm in norms]
            self.largest = torch.tensor(rows, dtype=like.dtype, device=like.device)
        task = self.tasks[0]
        sizes = task.rows.sizes(task.batch_size)
        self.runs = {size: self._recorded(size) for size in sizes}

    def keep(self, members: Sequence[int]) -> None:
        """Keep only these members."""
        if len(self.stack.modules) > len(members):  # the first of the steppers that share it
            self.stack.keep(members)
        self.tasks = [self.tasks[k] for k in members]
        before = self.trained if self.jointly else [self.trained[k] for k in members]
        self.trained = self._trained()
        now = dict(zip(chain(*before), chain(*self.trained), strict=True))
        self.optimizer.replace(now, members if self.jointly else None)
        self._prepare()

    # --- the function ---------------------------------------------------------------------------

    def _losses(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        values: dict[str, Tensor],
        batch: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of one member, and its terms, (terms,)."""
        task = self.tasks[0]
        phases = task.phases_with(values) if values and task.phases_with else task.phases
        tensors = {f"module.{name}": t for name, t in (parameters | buffers).items()}
        call = _Call(task.module, phases[self.number].loss)
        terms = functional_call(call, tensors, (_batch(batch, self.like),))
        self.names = tuple(terms)
        # Added up as the reference does, so that gradients add up in the same order too.
        return sum(terms.values()), torch.stack(list(terms.values()))

    def _function(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Map parameters, buffers, values and a batch to loss terms and gradients."""
        rest = iter(inputs)
        parameters, trained = {}, []
        for is_trained, part in self.parts:
            flat = next(rest).detach()
            if is_trained:
                trained.append(flat.requires_grad_())
            shapes = [self.stack.shapes[name] for name in part]
            pieces = flat.split([shape.numel() for shape in shapes], -1)
            for name, piece, shape in zip(part, pieces, shapes, strict=True):
                parameters[name] = piece.view(*flat.shape[:-1], *shape)
        buffers = {name: next(rest) for name in self.stack.buffers}
        values = {name: next(rest) for name in self.tasks[0].values}
        losses = self._losses if self.alone else torch.func.vmap(self._losses)
        total, terms = losses(parameters, buffers, values, list(rest))
        return terms.detach(), *torch.autograd.grad(total.sum(), trained)

    def _inputs(self, batches: Sequence[Batch]) -> list[Tensor]:
        state = [self.stack.flat[:, self._place(part)] for _, part in self.parts]
        state += self.stack.buffers.values()
        leaves = [_tensors(batch) for batch in batches]
        if self.alone:
            return [*(tensor[0] for tensor in state), *leaves[0]]
        stacked = [torch.stack(same) for same in zip(*leaves, strict=True)]
        return [*state, *self.values, *stacked]

    def step(self, batches: Sequence[Batch]) -> Tensor:
        """Train every member on its batch."""
        size = len(batches[0].x)
        if size not in self.runs:  # rows that are read from disk cannot tell all sizes beforehand
            self.runs[size] = self._late(size)
        inputs = self._inputs(batches)
        with torch.no_grad():
            terms, *gradients = self.runs[size](*inputs)
        if self.jointly:
            self.stack.flat.grad = gradients[0].view_as(self.stack.flat)
        else:
            for k, rows in enumerate(self.trained):
                for row, gradient in zip(rows, gradients, strict=True):
                    row.grad = gradient if self.alone else gradient[k]
        self.tasks[0].ranks.average_gradients(self.optimizer.gradients, size)
        if self.largest is not None:
            _clip([gradient.view(len(batches), -1) for gradient in gradients], self.largest)
        self.optimizer.step()
        return terms.unsqueeze(0) if self.alone else terms

    def state_dict(self) -> dict[str, Any]:
        """Return the state with the sizes of batches, of which late ones may not be recorded."""
        return super().state_dict() | {"sizes": list(self.runs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state, so that later steps round in the same way."""
        super().load_state_dict(state)
        most = max(2, self.tasks[0].batch_size + 1)  # see even_parts
        require(all(is_count(size, most) and size for size in state["sizes"]), "sizes of batches")
        known, self.runs = self.runs, {}
        for size in state["sizes"]:
            self.runs[size] = known[size] if size in known else self._late(size)

    # --- recording ------------------------------------------------------------------------------

    def _late(self, size: int) -> Function:
        """Return the function of ``step`` for a size of batch that was not known beforehand."""
        if len(self.runs) < MOST_RECORDINGS:
            with suppress(Exception):
                return self._recorded(size)
        return _with_gradients(self._function)

    def _recorded(self, size: int) -> Function:
        """Return the recorded function of ``step``, checked against the function itself."""
        with global_generator():  # dropout draws from it
            return self._tried(size)

    def _tried(self, size: int) -> Function:
        batches = [task.example(size) for task in self.tasks]
        inputs = self._inputs(batches)
        plain, before = copies(inputs), copies(inputs)
        expected = _with_gradients(self._function)(*plain)
        if not self.alone:
            self._check_members(batches, expected[0])
        if self.how == "eager":
            return _with_gradients(self._function)
        run = RUNNERS[self.how](self._function, inputs)
        try:
            with torch.no_grad():
                found = copies([*run(*inputs), *inputs])
        finally:  # where the members have their state
            for tensor, old in zip(inputs, before, strict=True):
                tensor.copy_(old)
        # What was changed in place counts too.
        for one, other in zip((*expected, *plain), found, strict=True):
            if not _agree(one, other):
                raise NotRecordableError("the recording computes something else")
        return run

    def _check_members(self, batches: Sequence[Batch], terms: Tensor) -> None:
        """Compare the terms, (members, terms), with those of each member alone."""
        for task, batch, together in zip(self.tasks, batches, terms, strict=True):
            with torch.enable_grad():
                own = task.phases[self.number].loss(copy.deepcopy(task.module), batch)
            if not _agree(torch.stack([t.detach() for t in own.values()]), together):
                raise NotRecordableError("side by side, a loss is another one than alone")


class _Call(nn.Module):
    """A module whose forward computes a loss, for use with ``functional_call``."""

    def __init__(self, module: nn.Module, loss: Callable[[nn.Module, Batch], Any]) -> None:
        super().__init__()
        self.module = module
        self.loss = loss

    def forward(self, batch: Batch) -> Any:
        """Return the loss terms."""
        buffers = dict(self.module.named_buffers())
        terms = self.loss(self.module, batch)
        if any(b is not buffers[name] for name, b in self.module.named_buffers()):
            raise NotRecordableError("the loss puts new tensors in the place of buffers")
        return terms


def _agree(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)


def _with_gradients(function: Function) -> Function:
    return torch.enable_grad()(function)


def _tensors(batch: Batch) -> list[Tensor]:
    noise = batch.noise if isinstance(batch.noise, tuple) else (batch.noise,)
    return [tensor for tensor in (batch.x, batch.y, *noise) if tensor is not None]


def _batch(tensors: Sequence[Tensor], like: Batch) -> Batch:
    """Return a batch from its tensors."""
    rest = iter(tensors)
    x = next(rest)
    y = None if like.y is None else next(rest)
    if isinstance(like.noise, tuple):
        return Batch(x, y, tuple(rest))
    return Batch(x, y, None if like.noise is None else next(rest))


def _clip(gradients: Sequence[Tensor], largest: Tensor) -> None:
    """Clip gradients, (members, values), of every member as ``clip_grad_norm_`` does."""
    norms = [torch.linalg.vector_norm(gradient, dim=1) for gradient in gradients]
    norm = torch.linalg.vector_norm(torch.stack(norms), dim=0).unsqueeze(1)
    # No bound is infinite; over an infinite norm it would be NaN.
    scale = (largest / (norm + 1e-6)).clamp(max=1.0).nan_to_num(1.0)
    for gradient in gradients:
        gradient.mul_(scale)
