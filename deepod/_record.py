"""Run a function of tensors again and again without Python, autograd or dispatch by module."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

Function = Callable[..., tuple[Tensor, ...]]  # of tensors; a tuple of tensors


def record(function: Function, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """Write down the operations of ``function`` on ``inputs``, those of its gradients included.

    Parameters
    ----------
    function : callable
        Must do the same whatever the values of the tensors: no branch on them.
    inputs : sequence of Tensor
        Those that ``function`` changes in place are changed.

    Returns
    -------
    graph : torch.fx.GraphModule
        Takes tensors of the same shapes, and changes the same ones in place.
    """
    # Of torch's tracers the one that sees through autograd and vmap.
    from torch.fx.experimental.proxy_tensor import make_fx

    module = make_fx(function)(*inputs)
    for node in list(module.graph.nodes):  # gradients are already part of the graph
        if node.op == "call_function" and node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def interpreted(module: fx.GraphModule) -> Function:
    """Turn a recorded graph into TorchScript, whose interpreter runs it in C++."""
    names, lines, constants = [], [], []
    for node in module.graph.nodes:
        if node.op == "placeholder":
            names.append(node.name)
        elif node.op == "get_attr":  # a tensor that the function made of a number
            constants.append((node.name, getattr(module, node.target)))
        elif node.op == "output":
            lines.append(f"return ({', '.join(_literal(value) for value in node.args[0])},)")
        else:
            lines.append(f"{node.name} = {_call(node)}")
    arguments = ", ".join(f"{name}: Tensor" for name in [*names, *(name for name, _ in constants)])
    source = f"def run({arguments}):\n    " + "\n    ".join([*lines, ""])
    run = torch.jit.CompilationUnit(source).run
    values = [value for _, value in constants]
    return run if not values else lambda *inputs: run(*inputs, *values)


def _call(node: fx.Node) -> str:
    if node.target is operator.getitem:
        return f"{_literal(node.args[0])}[{node.args[1]}]"
    assert isinstance(node.target, torch._ops.OpOverload)
    schema = node.target._schema
    namespace, _, name = schema.name.partition("::")
    arguments = []
    for value, declared in zip(node.args, schema.arguments, strict=False):
        # A number that vmap took for a tensor; of no dimensions, it does not change other types.
        number = isinstance(value, bool | int | float) and isinstance(
            declared.type, torch.TensorType
        )
        literal = _literal(value)
        arguments.append(f"torch.tensor({literal})" if number else literal)
    arguments += [f"{key}={_literal(value)}" for key, value in node.kwargs.items()]
    return f"torch.ops.{namespace}.{name}({', '.join(arguments)})"


def _literal(value: Any) -> str:
    if isinstance(value, fx.Node):
        return value.name
    if isinstance(value, list | tuple):
        return f"[{', '.join(_literal(part) for part in value)}]"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if isinstance(value, torch.device):
        return f"torch.device('{value}')"
    return repr(value)
