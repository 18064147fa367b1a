"""Declaration of hyper-parameters, from which constructor, checks and documentation are made."""

from __future__ import annotations

import abc
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, dataclass_transform

# Private in scikit-learn and imported nowhere else, so that a move upstream is repaired here.
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    Options,
    StrOptions,
    make_constraint,
)

if TYPE_CHECKING:

    class Estimator:
        """scikit-learn's base class, whose source has no types.

        Without this, a type checker would accept any attribute of a subclass.
        """

        def get_params(self, deep: bool = True) -> dict[str, Any]:
            """Return the hyper-parameters; with ``deep``, also those of nested objects."""

        def set_params(self, **params: Any) -> Self:
            """Set hyper-parameters, including those of nested objects."""

        def _validate_params(self) -> None: ...
        def __sklearn_tags__(self) -> Any: ...

else:
    from sklearn.base import BaseEstimator as Estimator

__all__ = [
    "Estimator",
    "HasMethods",
    "Noted",
    "fraction",
    "integer",
    "noting_reads",
    "one_of",
    "param",
    "parameters",
    "positive",
    "real",
    "share",
    "sizes",
    "zero",
]

T = TypeVar("T")


def positive() -> Interval:
    """Return a constraint: a real number above zero."""
    return Interval(Real, 0, None, closed="neither")


def real(low: float, high: float | None = None) -> Interval:
    """Return a constraint: a real number from ``low`` to ``high``, both included."""
    return Interval(Real, low, high, closed="left" if high is None else "both")


def share() -> Interval:
    """Return a constraint: a real number above 0 and at most 0.5, the share of a minority."""
    return Interval(Real, 0, 0.5, closed="right")


def zero() -> Options:
    """Return a constraint: the number 0."""
    return Options(Real, {0})


def fraction() -> Interval:
    """Return a constraint: a real number between 0 and 1, both excluded."""
    return Interval(Real, 0, 1, closed="neither")


def integer(low: int) -> Interval:
    """Return a constraint: an integer that is at least ``low``."""
    return Interval(Integral, low, None, closed="left")


def one_of(*options: str) -> StrOptions:
    """Return a constraint: one of the given strings."""
    return StrOptions(set(options))


def param(*, default: Any, accepts: list[Any], doc: str) -> Any:
    """Declare a hyper-parameter as a class attribute of a :func:`parameters` class.

    Parameters
    ----------
    default : object
        Default value, which must be immutable.
    accepts : list
        Alternatives that ``fit`` accepts: types, None, or constraints such as ``positive()``.
    doc : str
        Description for the docstring, as one paragraph.

    Returns
    -------
    field : object
        A dataclass field; type checkers see the type of the attribute's annotation.

    Examples
    --------
    >>> from deepod.params import param, parameters, positive
    >>> @parameters
    ... class Method:
    ...     lr: float = param(default=1e-3, accepts=[positive()], doc="Learning rate.")
    >>> Method(lr=0.1).lr
    0.1
    """
    return dataclasses.field(default=default, metadata={"accepts": accepts, "doc": doc})


@dataclass_transform(kw_only_default=True, field_specifiers=(param,))
def parameters(cls: type[T]) -> type[T]:
    """Build ``__init__``, ``_parameter_constraints`` and the docstring of a class.

    This is a class decorator. The constructor only stores its keyword arguments, as scikit-learn
    requires. The ``Parameters`` section of the docstring is generated from the declarations,
    including inherited ones. To change the default of an inherited hyper-parameter, assign it in
    the class: ``lr = 1e-4``.
    """
    for old in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():  # inherited
        if old.name in vars(cls) and old.name not in cls.__annotations__:
            cls.__annotations__[old.name] = old.type
            new = dataclasses.field(default=vars(cls)[old.name], metadata=old.metadata)
            setattr(cls, old.name, new)
    cls = dataclasses.dataclass(kw_only=True, eq=False, repr=False)(cls)
    abc.update_abstractmethods(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    cls._parameter_constraints = {f.name: f.metadata["accepts"] for f in fields}  # type: ignore[attr-defined]
    cls.__doc__ = _with_parameters(inspect.getdoc(cls) or "", cls, fields)
    return cls


_reads: ContextVar[set[str] | None] = ContextVar("reads", default=None)


@contextmanager
def noting_reads() -> Iterator[set[str]]:
    """Collect the names of the hyper-parameters that are read within a ``with`` block.

    They show on which hyper-parameters a hook of a method depends, so that authors need not keep a
    list of them.
    """
    token = _reads.set(set())
    try:
        yield cast("set[str]", _reads.get())
    finally:
        _reads.reset(token)


class Noted:
    """Mixin whose reads of hyper-parameters are recorded, see :func:`noting_reads`."""

    if not TYPE_CHECKING:  # otherwise type checkers would accept every attribute

        def __getattribute__(self, name: str) -> Any:
            reads = _reads.get()
            if reads is not None and name in type(self)._parameter_constraints:
                reads.add(name)
            return super().__getattribute__(name)


def sizes(cls: type) -> set[str]:
    """Return the hyper-parameters of a method on which the shapes of its network may depend.

    These are its own hyper-parameters that are not real numbers, ``network`` and ``input_shape``.
    """
    shared = _root(cls).__dataclass_fields__
    return {
        f.name
        for f in dataclasses.fields(cls)
        if f.name in ("network", "input_shape")
        or (
            f.name not in shared
            and not any(isinstance(c, Interval) and c.type is Real for c in f.metadata["accepts"])
        )
    }


def _root(cls: type) -> Any:
    """Return the class that declares the hyper-parameters that all detectors share."""
    return [base for base in cls.__mro__ if dataclasses.is_dataclass(base)][-1]


def _with_parameters(doc: str, cls: type, fields: tuple[dataclasses.Field, ...]) -> str:
    """Return a docstring with generated Parameters and inherited Attributes after the summary."""
    root = _root(cls)
    shared = {} if root is cls else root.__dataclass_fields__
    lines = ["Parameters", "----------"]
    for f in sorted(fields, key=lambda f: f.name in shared):  # those of the method first
        accepted = " or ".join(_in_words(c) for c in f.metadata["accepts"])
        lines.append(f"{f.name} : {accepted}, default={f.default!r}")
        lines += textwrap.wrap(f.metadata["doc"], 96, initial_indent=_TAB, subsequent_indent=_TAB)
    summary, *sections = _SECTION.split(doc)
    rest = [section for section in sections if not section.startswith(_ATTRIBUTES)]
    # The Attributes section ends the docstring of a base class; methods inherit its entries.
    texts = [
        section.removeprefix(_ATTRIBUTES)
        for text in [doc, *(inspect.getdoc(base) or "" for base in cls.__bases__)]
        for section in _SECTION.split(text)
        if section.startswith(_ATTRIBUTES)
    ]
    entries = [
        entry for text in texts for entry in re.split(r"\n(?=\S)", text.strip("\n")) if entry
    ]
    if entries:  # each once, because two bases may share entries
        lines += ["", _ATTRIBUTES.rstrip("\n"), *dict.fromkeys(entries)]
    return "\n".join([summary.rstrip(), "", *lines, "", *rest])


_TAB = "    "
_ATTRIBUTES = "Attributes\n----------\n"
_SECTION = re.compile(r"\n(?=(?:Attributes|See Also|Notes|References|Examples)\n---)")


def _in_words(constraint: Any) -> str:
    if isinstance(constraint, type):
        return constraint.__name__
    if isinstance(constraint, Options):  # strings among them
        return "{" + ", ".join(repr(option) for option in sorted(constraint.options)) + "}"
    words = {"boolean": "bool", "random_state": "int or RandomState", "verbose": "int"}
    if isinstance(constraint, str):
        return words.get(constraint, constraint)
    return str(make_constraint(constraint)).replace("in the range ", "in ")
