"""Recording of functions of tensors, which are then run without Python, autograd and modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Function = Callable[..., tuple[Tensor, ...]]  # of tensors; a tuple of tensors


def record(function: Function, inputs: Sequence[Tensor]) -> Function:
    """Record the operations of ``function`` on ``inputs``, including those of its gradients.

    They become a TorchScript function, which is run in C++. torch's ``make_fx`` is not used,
    because it imports torch's compiler.

    Parameters
    ----------
    function : callable
        A function whose operations do not depend on the values of the tensors.
    inputs : sequence of Tensor
        Tensors to call it with; it may change them in place.

    Returns
    -------
    run : callable
        The recording, for tensors of the same shapes; it changes the same ones in place.

    Raises
    ------
    RuntimeError
        If ``function`` reads the value of a tensor.
    """
    with _Recorder(inputs) as recorder:
        outputs = function(*inputs)
    names = ", ".join(recorder.name(tensor) for tensor in outputs)
    arguments = [f"x{i}" for i in range(len(inputs))] + [f"c{i}" for i in recorder.numbers]
    source = "\n    ".join(
        [
            f"def run({', '.join(f'{name}: Tensor' for name in arguments)}):",
            *recorder.lines,
            f"return ({names},)\n",
        ]
    )
    run = _compiled(source)
    constants = recorder.constants
    return run if not constants else lambda *inputs: run(*inputs, *constants)


@lru_cache(maxsize=256)
def _compiled(source: str) -> Function:
    """Compile a source, cached because torch never frees all memory of a compilation."""
    return torch.jit.CompilationUnit(source).run


class _Recorder(TorchDispatchMode):
    """A dispatch mode that sees every operation below autograd and vmap."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return True, without which torch would import its compiler."""
        return False

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.constants: list[Tensor] = []  # tensors that were there before
        self._names = {id(tensor): f"x{i}" for i, tensor in enumerate(inputs)}
        self._alive: list[Any] = list(inputs)  # or their ids would be given to others

    @property
    def numbers(self) -> range:
        return range(len(self.constants))

    def name(self, tensor: Tensor) -> str:
        """Return the name of a tensor in the source."""
        if id(tensor) not in self._names:
            self._names[id(tensor)] = f"c{len(self.constants)}"
            self.constants.append(tensor)
        return self._names[id(tensor)]

    def _keep(self, tensor: Tensor, name: str) -> None:
        self._names[id(tensor)] = name
        self._alive.append(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        if func is torch.ops.aten.detach.default:  # gradients are among the operations
            self._keep(results, self.name(args[0]))
            return results
        several = isinstance(results, tuple | list)
        tensors = results if several else (results,)
        masks = [t for t in _flat(args) if isinstance(t, Tensor) and t.dtype == torch.bool]
        if (
            not all(t is None or isinstance(t, Tensor) for t in tensors)
            or torch.Tag.dynamic_output_shape in func.tags
            or (masks and func.name().startswith("aten::index"))  # as many rows as are true
        ):
            raise RuntimeError(f"{func} reads the value of a tensor")
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {self._call(func, args, kwargs)}")
        for i, tensor in enumerate(tensors):
            if several:
                self.lines.append(f"{name}_{i} = {name}[{i}]")
            # What works in place returns what it was given.
            if tensor is not None and id(tensor) not in self._names:
                self._keep(tensor, f"{name}_{i}" if several else name)
        return results

    def _call(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
        namespace, _, name = func._schema.name.partition("::")
        parts = []
        for value, declared in zip(args, func._schema.arguments, strict=False):
            # A number that vmap took for a tensor; of no dimensions, it does not change types.
            number = isinstance(value, bool | int | float) and isinstance(
                declared.type, torch.TensorType
            )
            literal = self._literal(value)
            parts.append(f"torch.tensor({literal})" if number else literal)
        parts += [f"{key}={self._literal(value)}" for key, value in kwargs.items()]
        return f"torch.ops.{namespace}.{name}({', '.join(parts)})"

    def _literal(self, value: Any) -> str:
        if isinstance(value, Tensor):
            return self.name(value)
        if isinstance(value, list | tuple):
            return f"[{', '.join(self._literal(part) for part in value)}]"
        if isinstance(value, float) and not math.isfinite(value):
            return f"float('{value}')"
        if isinstance(value, torch.device):
            return f"torch.device('{value}')"
        return repr(value)


def _flat(values: Any) -> list[Any]:
    if not isinstance(values, list | tuple):
        return [values]
    return [part for value in values for part in _flat(value)]


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return a copy of every tensor."""
    return [tensor.clone() for tensor in tensors]


# --- ways to run a recorded graph ---------------------------------------------------------------


def _by_trace(function: Function, inputs: Sequence[Tensor]) -> Function:
    # On other values: one that is taken for a constant is then found out by the check.
    return record(function, [t * 0.9 if t.is_floating_point() else t.clone() for t in inputs])


def _by_compiler(function: Function, inputs: Sequence[Tensor]) -> Function:
    # Of torch's tracers the one that sees through autograd and vmap.
    from torch.fx.experimental.proxy_tensor import make_fx

    return torch.compile(make_fx(function)(*copies(inputs)), dynamic=False)


def _by_cuda_graph(function: Function, inputs: Sequence[Tensor]) -> Function:
    """Capture the step in a CUDA graph, which takes one launch instead of hundreds.

    The state stays at the same addresses, so that the graph works on it in place. What changes from
    batch to batch is copied to the addresses that the graph reads.
    """
    step = _by_trace(function, inputs)
    static = list(inputs)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(3):  # kernels choose their algorithms and take their memory
            step(*copies(static))
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


RUNNERS: dict[str, Callable[[Function, Sequence[Tensor]], Function]] = {
    "trace": _by_trace,
    "compile": _by_compiler,
    "cuda_graph": _by_cuda_graph,
}
