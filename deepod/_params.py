"""Hyper-parameters as data: one declaration gives constructor, validation and documentation."""

from __future__ import annotations

import abc
import dataclasses
import inspect
from numbers import Integral, Real
from typing import Any, TypeVar, dataclass_transform

# Private in scikit-learn and imported nowhere else, so that a move upstream is repaired here.
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions, make_constraint

__all__ = ["HasMethods", "integer", "one_of", "param", "parameters", "real"]

T = TypeVar("T")


def real(low: float | None, high: float | None, closed: Any = "both") -> Interval:
    """Any real number between two bounds."""
    return Interval(Real, low, high, closed=closed)


def integer(low: int | None, high: int | None = None) -> Interval:
    """Any integer between two bounds, both included."""
    return Interval(Integral, low, high, closed="left" if high is None else "both")


def one_of(*options: str) -> StrOptions:
    """One of the given strings."""
    return StrOptions(set(options))


def param(*, default: Any, accepts: list[Any], doc: str) -> Any:
    """Declare a hyper-parameter as a class attribute of a :func:`parameters` class.

    Parameters
    ----------
    default : object
        Immutable default value.
    accepts : list
        Alternatives accepted by ``fit``: types, None, or the helpers of this module.
    doc : str
        What it does, as one paragraph.
    """
    return dataclasses.field(default=default, metadata={"accepts": accepts, "doc": doc})


@dataclass_transform(kw_only_default=True, field_specifiers=(param,))
def parameters(cls: type[T]) -> type[T]:
    """Class decorator: build ``__init__``, ``_parameter_constraints`` and the docstring.

    The constructor only stores its keyword arguments, as scikit-learn asks. The ``Parameters``
    section of the docstring is generated from the declarations, inherited ones included.
    """
    cls = dataclasses.dataclass(kw_only=True, eq=False, repr=False)(cls)
    abc.update_abstractmethods(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    cls._parameter_constraints = {f.name: f.metadata["accepts"] for f in fields}  # type: ignore[attr-defined]
    cls.__doc__ = _with_parameters(inspect.getdoc(cls) or "", cls, fields)
    return cls


def _with_parameters(doc: str, cls: type, fields: tuple[dataclasses.Field, ...]) -> str:
    own = [f for f in fields if f.name in vars(cls).get("__annotations__", {})]
    shared = [f for f in fields if f not in own]
    lines = ["Parameters", "----------"]
    for f in own + shared:
        accepted = " or ".join(str(make_constraint(c)) for c in f.metadata["accepts"])
        lines += [f"{f.name} : {accepted}, default={f.default!r}"]
        lines += [f"    {line}" for line in inspect.cleandoc(f.metadata["doc"]).splitlines()]
    summary, marker, rest = doc.partition("\nAttributes\n")
    if not marker:
        summary, marker, rest = doc.partition("\nNotes\n")
    return summary.rstrip() + "\n\n" + "\n".join(lines) + "\n" + marker + rest
