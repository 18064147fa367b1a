"""How one optimiser step is carried out: for one module, or for several side by side."""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate, chain, groupby, pairwise
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.adam import adam

from deepod._checkpoint import Checkpoint, is_count, require
from deepod._ranks import Ranks
from deepod._record import Function, record
from deepod.types import Batch, Callback, Phase, Rows

MOST_RECORDINGS = 8  # of as many sizes of batches; steps of any other size are not recorded
# One at a time draws from torch's global generator, which is set or put back: whoever builds a
# module, or tries a loss.
building = threading.RLock()
ENGINES = ("eager", "trace", "compile", "cuda_graph")
# What an optimiser remembers of each parameter.
_MOMENTS = {
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.SGD: ("momentum_buffer",),
}


@dataclass(frozen=True)
class Task:
    """One member: what to train, on what, and how."""

    module: nn.Module
    rows: Rows
    phases: Sequence[Phase]
    noise: Callable[[int, torch.Generator], Any]  # the random numbers of a batch of n rows
    batch_size: int
    lr: float
    weight_decay: float
    optimizer: str
    order_stream: torch.Generator  # on the CPU, so that every device sees the same permutations
    noise_stream: torch.Generator  # on the device of the rows
    callbacks: Sequence[Callback] = ()
    held_out: Batch | None = None  # rows that are only watched
    held_out_seed: int = 0
    ranks: Ranks | None = None  # other processes, each with rows of its own
    max_grad_norm: float | None = None
    checkpoint: Checkpoint | None = None  # of a task that is trained alone
    # Hyper-parameters in which members side by side differ, and the phases whose losses take them
    # from here, as tensors.
    values: dict[str, float] = field(default_factory=dict)
    phases_with: Callable[[dict[str, Tensor]], Sequence[Phase]] | None = None

    def draw(self) -> Iterator[Batch]:
        """Batches of one epoch, in a new order."""
        for x, y in self.rows.batches(self.order_stream, self.batch_size):
            yield Batch(x, y, self.noise(len(x), self.noise_stream))

    def example(self, size: int) -> Batch:
        """Return some batch of ``size`` rows; no stream notices."""
        x, y = self.rows.head(size)
        return Batch(x, y, self.noise(size, torch.Generator(x.device).manual_seed(0)))


class NotRecordableError(ValueError):
    """The loss cannot be written down, or not for several members at once."""


class Stack:
    """Several modules of one architecture as one: what they hold becomes rows of shared tensors.

    Attributes
    ----------
    flat : Tensor of shape (members, values)
        All parameters of each module, side by side.
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
        """Make the modules view rows of the tensors."""
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
        """Go on with these rows alone."""
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


class Stepper(abc.ABC):
    """One optimiser step after the other on the losses of one phase.

    Attributes
    ----------
    names : tuple of str
        Loss terms; known after the first step.
    optimizer : torch.optim.Optimizer
    """

    names: tuple[str, ...]
    optimizer: torch.optim.Optimizer

    @abc.abstractmethod
    def step(self, batches: Sequence[Batch]) -> Tensor:
        """Train every member on its batch; its weighted loss terms, (members, terms)."""

    def keep(self, members: Sequence[int]) -> None:  # noqa: B027
        """Go on with these members alone."""

    def state_dict(self) -> dict[str, Any]:
        """Give what the next step takes from those before it, apart from the module."""
        state = self.optimizer.state_dict()
        moments = {str(number): values for number, values in state["state"].items()}
        return {"optimizer": {"state": moments, "param_groups": state["param_groups"]}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        Raises
        ------
        InvalidFileError
            If that cannot be the state of this optimiser after some steps.
        """
        groups = state["optimizer"]["param_groups"]
        moments = {int(number): values for number, values in state["optimizer"]["state"].items()}
        ours = self.optimizer.state_dict()["param_groups"]
        require(len(groups) == len(ours), "optimizer")
        for group, own in zip(groups, ours, strict=True):
            # A schedule changes it; all else is as it was built, but for tuples that are lists now.
            rate = group["lr"]
            require(type(rate) in (int, float) and 0 < rate < inf, "learning rate")
            require(_plain(group) == _plain(own | {"lr": rate}), "optimizer")
        trained = list(
            chain.from_iterable(group["params"] for group in self.optimizer.param_groups)
        )
        require(moments, "optimizer")  # it has taken steps
        for number, values in moments.items():
            require(number in range(len(trained)), "optimizer")
            shapes = {name: tuple(trained[number].shape) for name in _MOMENTS[type(self.optimizer)]}
            if "step" in shapes:
                shapes["step"] = ()
            found = {name: tuple(value.shape) for name, value in values.items()}
            require(found == shapes, "optimizer")
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _plain(group: Mapping[str, Any]) -> dict[str, Any]:
    """Turn tuples into lists, as in a file."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in group.items()}


class Eager(Stepper):
    """Plain autograd on one module: the reference for all others."""

    def __init__(self, task: Task, phase: Phase) -> None:
        self.module, self.loss, self.ranks = task.module, phase.loss, task.ranks
        self.trained = list(_selected(task.module, phase).values())
        self.max_grad_norm = task.max_grad_norm
        self.optimizer = optimizer([task], [phase], [self.trained])

    def step(self, batches: Sequence[Batch]) -> Tensor:
        """Train the module on its batch."""
        self.optimizer.zero_grad()
        terms = self.loss(self.module, batches[0])
        sum(terms.values()).backward()  # type: ignore[union-attr]
        _share_gradients(self.optimizer, len(batches[0].x), self.ranks)
        if self.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.trained, self.max_grad_norm)
        self.optimizer.step()
        self.names = tuple(terms)
        return torch.stack([term.detach() for term in terms.values()]).unsqueeze(0)


class Functional(Stepper):
    """The step as one function of tensors: recorded, and for several members at once.

    Parameters
    ----------
    stack : Stack
        Holds the members' modules; phases that take turns share it.
    tasks : sequence of Task
        One per member.
    number : int
        Which of their phases.
    how : str
        An engine. With "eager" the function is called as it is.

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
        settings = {_settings(task, task.phases[number]) for task in tasks}
        # Then one tensor holds all that is trained, and one call updates it.
        self.jointly = len(settings) == len(self.parts) == 1
        self.trained = self._trained()
        self.optimizer = optimizer(tasks, [task.phases[number] for task in tasks], self.trained)
        self._prepare()

    def _cut(self) -> list[tuple[bool, list[str]]]:
        """Neighbouring parameters that are trained, or not, in as few parts as possible."""
        task, phase = self.tasks[0], self.tasks[0].phases[self.number]
        parameters = {name: p.detach() for name, p in task.module.named_parameters()}
        selected = {n: parameters[n].requires_grad_() for n in _selected(task.module, phase)}
        buffers = {name: b.clone() for name, b in task.module.named_buffers()}
        batch = _tensors(task.example(task.rows.sizes(task.batch_size)[0]))
        with building, torch.random.fork_rng(devices=[]):
            total, _ = self._losses(parameters, buffers, {}, batch)
        # torch's optimisers leave alone what the loss does not reach.
        gradients = torch.autograd.grad(total, list(selected.values()), allow_unused=True)
        reached = {n for n, g in zip(selected, gradients, strict=True) if g is not None}
        names = groupby(self.stack.columns, key=reached.__contains__)
        return [(trained, list(part)) for trained, part in names]

    def _columns(self, part: Sequence[str]) -> slice:
        return slice(self.stack.columns[part[0]][0], self.stack.columns[part[-1]][1])

    def _trained(self) -> list[list[Tensor]]:
        """List what the optimiser updates: all at once, or the trained parts of every member."""
        if self.jointly:
            return [[self.stack.flat]]
        columns = [self._columns(part) for trained, part in self.parts if trained]
        return [[row[part] for part in columns] for row in self.stack.flat]

    def _prepare(self) -> None:
        """Record the step for every size of batch to come, and forget older recordings."""
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
        """Go on with these members alone."""
        if len(self.stack.modules) > len(members):  # the first of the steppers that share it
            self.stack.keep(members)
        self.tasks = [self.tasks[k] for k in members]
        before = self.trained if self.jointly else [self.trained[k] for k in members]
        self.trained = self._trained()
        now = dict(zip(chain(*before), chain(*self.trained), strict=True))
        state = self.optimizer.state
        for group in self.optimizer.param_groups:
            kept = [tensor for tensor in group["params"] if tensor in now]
            group["params"] = [now[tensor] for tensor in kept]
            for tensor in kept:
                moments = state.pop(tensor)
                if self.jointly:
                    moments = {k: m[list(members)] if m.dim() else m for k, m in moments.items()}
                state[now[tensor]] = moments
        self._prepare()

    # --- the function ---------------------------------------------------------------------------

    def _losses(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        values: dict[str, Tensor],
        batch: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Loss of one member, and its terms, (terms,)."""
        task = self.tasks[0]
        phases = task.phases_with(values) if values and task.phases_with else task.phases
        tensors = {f"module.{name}": t for name, t in (parameters | buffers).items()}
        call = _Call(task.module, phases[self.number].loss)
        terms = functional_call(call, tensors, (_batch(batch, self.like),))
        self.names = tuple(terms)
        # Added up as the reference does, so that gradients add up in the same order too.
        return sum(terms.values()), torch.stack(list(terms.values()))

    def _function(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """From parameters, buffers, values and batch to loss terms and gradients."""
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
        state = [self.stack.flat[:, self._columns(part)] for _, part in self.parts]
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
        _share_gradients(self.optimizer, len(batches[0].x), self.tasks[0].ranks)
        if self.largest is not None:
            _clip([gradient.view(len(batches), -1) for gradient in gradients], self.largest)
        _update(self.optimizer)
        return terms.unsqueeze(0) if self.alone else terms

    def state_dict(self) -> dict[str, Any]:
        """Give also the sizes of batches; late ones may not have been recorded."""
        return super().state_dict() | {"sizes": list(self.runs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there, with steps that round as they did."""
        super().load_state_dict(state)
        most = max(2, self.tasks[0].batch_size + 1)  # see even_parts
        require(all(is_count(size, most) and size for size in state["sizes"]), "sizes of batches")
        known, self.runs = self.runs, {}
        for size in state["sizes"]:
            self.runs[size] = known[size] if size in known else self._late(size)

    # --- recording ------------------------------------------------------------------------------

    def _late(self, size: int) -> Function:
        """Build what ``step`` calls for a size that was not known beforehand."""
        if len(self.runs) < MOST_RECORDINGS:
            with suppress(Exception):
                return self._recorded(size)
        return _with_gradients(self._function)

    def _recorded(self, size: int) -> Function:
        """Build what ``step`` calls, after a check against the function itself."""
        with building, torch.random.fork_rng(devices=[]):  # dropout draws from it
            return self._tried(size)

    def _tried(self, size: int) -> Function:
        inputs = self._inputs([task.example(size) for task in self.tasks])
        plain, before = _copies(inputs), _copies(inputs)
        expected = _with_gradients(self._function)(*plain)
        if self.how == "eager":
            return _with_gradients(self._function)
        run = _RUNNERS[self.how](self._function, inputs)
        try:
            with torch.no_grad():
                found = _copies([*run(*inputs), *inputs])
        finally:  # where the members have their state
            for tensor, old in zip(inputs, before, strict=True):
                tensor.copy_(old)
        # What was changed in place counts too.
        for one, other in zip((*expected, *plain), found, strict=True):
            if not torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True):
                raise NotRecordableError("the recording computes something else")
        return run


class _Call(nn.Module):
    """A loss on a module, as a module: ``functional_call`` then puts tensors into it."""

    def __init__(self, module: nn.Module, loss: Callable[[nn.Module, Batch], Any]) -> None:
        super().__init__()
        self.module = module
        self.loss = loss

    def forward(self, batch: Batch) -> Any:
        """Compute the loss terms."""
        buffers = dict(self.module.named_buffers())
        terms = self.loss(self.module, batch)
        if any(b is not buffers[name] for name, b in self.module.named_buffers()):
            raise NotRecordableError("the loss puts new tensors in the place of buffers")
        return terms


def _with_gradients(function: Function) -> Function:
    return torch.enable_grad()(function)


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


def _tensors(batch: Batch) -> list[Tensor]:
    noise = batch.noise if isinstance(batch.noise, tuple) else (batch.noise,)
    return [tensor for tensor in (batch.x, batch.y, *noise) if tensor is not None]


def _batch(tensors: Sequence[Tensor], like: Batch) -> Batch:
    """Put the tensors of a batch in their places again."""
    rest = iter(tensors)
    x = next(rest)
    y = None if like.y is None else next(rest)
    if isinstance(like.noise, tuple):
        return Batch(x, y, tuple(rest))
    return Batch(x, y, None if like.noise is None else next(rest))


@torch.no_grad()
def _update(optimizer: torch.optim.Optimizer) -> None:
    """Step; past the first one of Adam, without the hooks and checks that outlast the update."""
    state = optimizer.state
    if type(optimizer) is not torch.optim.Adam or not state:
        optimizer.step()
        return
    for group in optimizer.param_groups:
        known = [state[p] for p in group["params"]]
        adam(
            group["params"],
            [p.grad for p in group["params"]],
            [s["exp_avg"] for s in known],
            [s["exp_avg_sq"] for s in known],
            [],
            [s["step"] for s in known],
            fused=group["fused"],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _share_gradients(optimizer: torch.optim.Optimizer, n: int, ranks: Ranks | None) -> None:
    """Replace gradients of the mean over n rows by those of the mean over the rows of all ranks.

    Not torch's DistributedDataParallel, which acts on a module's ``forward``: losses call the parts
    of a module. One sum over all gradients at once costs less too, for networks of this size.
    """
    if ranks is None:
        return
    groups = optimizer.param_groups
    gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    count = torch.full((1,), float(n), device=gradients[0].device)
    for gradient in gradients:
        gradient.mul_(n)
    ranks.add([*gradients, count])
    for gradient in gradients:
        gradient.div_(count)


def _clip(gradients: Sequence[Tensor], largest: Tensor) -> None:
    """Do what ``clip_grad_norm_`` does, for every member; gradients are (members, values)."""
    norms = [torch.linalg.vector_norm(gradient, dim=1) for gradient in gradients]
    norm = torch.linalg.vector_norm(torch.stack(norms), dim=0).unsqueeze(1)
    # No bound is infinite; over an infinite norm it would be NaN.
    scale = (largest / (norm + 1e-6)).clamp(max=1.0).nan_to_num(1.0)
    for gradient in gradients:
        gradient.mul_(scale)


def _selected(module: nn.Module, phase: Phase) -> dict[str, nn.Parameter]:
    """Parameters that the phase trains."""
    return {
        name: p
        for name, p in module.named_parameters()
        if p.requires_grad and (phase.params is None or name.startswith(phase.params))
    }


def _settings(task: Task, phase: Phase) -> tuple[float, float]:
    """Learning rate and weight decay."""
    return task.lr if phase.lr is None else phase.lr, task.weight_decay


def optimizer(
    tasks: Sequence[Task], phases: Sequence[Phase], trained: Sequence[Sequence[Tensor]]
) -> torch.optim.Optimizer:
    """One optimiser, with a group of parameters for members of the same settings.

    ``trained`` has one list per member, or one for all.
    """
    by_settings: dict[tuple[float, float], list[Tensor]] = {}
    for task, phase, tensors in zip(tasks, phases, trained, strict=False):
        by_settings.setdefault(_settings(task, phase), []).extend(tensors)
    groups: list[Any] = [
        {"params": tensors, "lr": lr, "weight_decay": weight_decay}
        for (lr, weight_decay), tensors in by_settings.items()
    ]
    options: Any = {"fused": tasks[0].rows.device.type in ("cpu", "cuda")}
    if tasks[0].optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, **options)
    adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[tasks[0].optimizer]
    return adam(groups, **options)


# --- ways to run a recorded graph ---------------------------------------------------------------


def _traced(function: Function, inputs: Sequence[Tensor]) -> Function:
    # On other values: one that is taken for a constant is then found out by the check.
    return record(function, [t * 0.9 if t.is_floating_point() else t.clone() for t in inputs])


def _compiled(function: Function, inputs: Sequence[Tensor]) -> Function:
    # Of torch's tracers the one that sees through autograd and vmap.
    from torch.fx.experimental.proxy_tensor import make_fx

    return torch.compile(make_fx(function)(*_copies(inputs)), dynamic=False)


def _captured(function: Function, inputs: Sequence[Tensor]) -> Function:
    """Capture the step in a CUDA graph: one launch instead of hundreds.

    State is at the same place in every step, so the graph works on it where it lies; what changes
    from batch to batch is copied to where the graph looks for it.
    """
    step = _traced(function, inputs)
    static = list(inputs)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(3):  # kernels choose their algorithms and take their memory
            step(*_copies(static))
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured, stream=stream):
            outputs = step(*static)
    torch.cuda.current_stream().wait_stream(stream)

    def run(*now: Tensor) -> tuple[Tensor, ...]:
        for place, tensor in zip(static, now, strict=True):
            if place.data_ptr() != tensor.data_ptr():
                place.copy_(tensor)
        captured.replay()
        terms, *gradients = outputs
        return terms.clone(), *gradients  # losses are kept; the next replay overwrites them

    return run


_RUNNERS: dict[str, Callable[[Function, Sequence[Tensor]], Function]] = {
    "trace": _traced,
    "compile": _compiled,
    "cuda_graph": _captured,
}
