"""The pages of the API reference, made from the registry and from what modules name as public.

``docs/conf.py`` calls it. A new detector, module or function needs no line here: detectors come
from ``deepod._registry``, everything else from the public modules of the package and ``__all__``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deepod
from deepod import _registry

ROOT = Path(__file__).parents[1]
# Modules that nobody imports from, and other names of what has a page.
NOT_SHOWN = {"data", "models"}
# Public modules beside those of the package's own list: for authors of methods.
FOR_AUTHORS = {"params", "types"}
# Hooks in which a method's equations stand, and what to call them.
HOOKS = {
    "_loss": "The loss",
    "_score": "The score",
    "_errors": "The errors of points",
    "_solve": "What is solved for, without steps",
    "_noise": "The random numbers of the loss",
}


def modules() -> list[str]:
    """Return the names of the public modules."""
    return sorted((deepod._MODULES | FOR_AUTHORS) - NOT_SHOWN)


# What the tables of the registry hold, by their names; another one is shown under its name.
KINDS = {
    "DETECTORS": "Rows, windows and images",
    "SERIES": "Time series",
    "GRAPHS": "Dynamic graphs",
}


def kinds() -> dict[str, dict[str, Any]]:
    """Return the detectors of the registry, by what they are for."""
    found = {}
    for name, table in vars(_registry).items():
        if name.isupper() and not name.startswith("_") and isinstance(table, dict):
            if name == "ENSEMBLES":  # what joins detectors
                continue
            classes = {n: getattr(importlib.import_module(m), n) for n, m in table.items()}
            found[KINDS.get(name, name.capitalize())] = classes
    return found


def detectors() -> dict[str, Any]:
    """Return all detectors of the registry by name."""
    return {name: cls for classes in kinds().values() for name, cls in classes.items()}


def public(module: Any) -> dict[str, Any]:
    """Return the classes and functions that a module names as public."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    values = {name: getattr(module, name) for name in names}
    return {n: v for n, v in values.items() if inspect.isclass(v) or inspect.isfunction(v)}


def is_estimator(value: Any) -> bool:
    """Say whether a class gets a page of its own: it fits."""
    return inspect.isclass(value) and hasattr(value, "fit")


def root_of(cls: type) -> type | None:
    """Return the class that declares what all detectors of a kind have in common."""
    for base in cls.__mro__:
        if base.__name__.endswith("Detector") and base.__module__.startswith("deepod."):
            return base
    return None


def members(cls: type) -> dict[str, type]:
    """Return the public methods and properties that deepod's classes give to one, by name."""
    found: dict[str, type] = {}
    for base in cls.__mro__:
        for name, value in vars(base).items():
            is_member = callable(value) or isinstance(value, (property, classmethod, staticmethod))
            if not name.startswith("_") and is_member and not inspect.isclass(value):
                found.setdefault(name, base)
    return {n: b for n, b in found.items() if b.__module__.split(".")[0] == "deepod"}


def first_line(value: Any) -> str:
    """Return the first paragraph of a docstring on one line."""
    value = value.fget if isinstance(value, property) else value
    return " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())


def estimators() -> dict[str, type]:
    """Return every class that fits, by its public name, with the classes that they are built on."""
    found = {f"deepod.{n}": v for n, v in public(deepod).items() if is_estimator(v)}
    for module in modules():
        for name, value in public(importlib.import_module(f"deepod.{module}")).items():
            if is_estimator(value) and value not in found.values():
                found[f"deepod.{module}.{name}"] = value
    for cls in list(found.values()):
        root = root_of(cls)
        if root is not None and root not in found.values():
            found[f"{root.__module__}.{root.__qualname__}"] = root
    return found


def pages_of_files() -> dict[Path, str]:
    """Return the page of each detector by the file that its class is written in."""
    pages = {}
    for name, cls in estimators().items():
        if cls in detectors().values():
            pages[Path(inspect.getfile(cls)).resolve()] = f"api/{name}.rst"
    return pages


def underlined(text: str, with_: str = "=") -> str:
    """Make a heading."""
    return f"{text}\n{with_ * len(text)}\n"


def equations(cls: type) -> Iterator[str]:
    """Show the lines of the hooks that a method, or its family, defines."""
    root = root_of(cls)
    for hook, title in HOOKS.items():
        owner = next((base for base in cls.__mro__ if hook in vars(base)), None)
        if owner is None or owner is root or (root and owner in root.__mro__):
            continue
        file = Path(inspect.getfile(owner)).resolve()
        if not file.is_relative_to(ROOT):
            continue
        path = file.relative_to(ROOT)
        yield f".. literalinclude:: ../../{path}\n   :pyobject: {owner.__name__}.{hook}"
        yield f"   :lineno-match:\n   :dedent:\n   :caption: {title}: {path}\n"


def estimator_page(name: str, cls: type, names: dict[type, str]) -> str:
    """Write the page of one class that fits."""
    parts = [underlined(cls.__name__)]
    family, paper = getattr(cls, "family", ""), getattr(cls, "paper", "")
    inputs = getattr(cls, "inputs", ())
    if cls in detectors().values():
        facts = [("Family", family), ("Takes", ", ".join(inputs)), ("Paper", paper)]
        parts += [f":{label}: {value}" for label, value in facts if value] + [""]
    root = root_of(cls)
    mine = members(cls)
    shared = {}
    if root is not None and root is not cls:
        shared = {n: b for n, b in mine.items() if b in root.__mro__}
    own = [n for n in mine if n not in shared]
    parts += [f".. autoclass:: {name}"]
    if own:
        parts += [f"   :members: {', '.join(own)}"]
    lines = list(equations(cls))
    if lines:
        parts += ["", underlined("The lines that implement it", "-"), *lines]
    if shared and root is not None:
        of = names[root]
        parts += ["", underlined("Methods that it shares with all detectors of its kind", "-")]
        parts += [".. list-table::", "   :widths: 30 70", ""]
        for n in sorted(shared):
            text = first_line(getattr(cls, n, None))
            parts += [f"   * - :obj:`~{of}.{n}`", f"     - {text}"]
    return "\n".join(parts) + "\n"


def module_page(name: str, names: dict[type, str]) -> str:
    """Write the page of a module: its functions and plain classes, links to what fits."""
    module = importlib.import_module(name)
    parts = [underlined(name)]
    there = public(module)
    fitting = {n: v for n, v in there.items() if v in names}
    if name != "deepod":
        parts += [f".. automodule:: {name}", ""]
    if fitting:
        parts += [".. list-table::", "   :widths: 30 70", ""]
        for v in fitting.values():
            parts += [f"   * - :class:`~{names[v]}`", f"     - {first_line(v)}"]
        parts += [""]
    for n, v in there.items():
        home = v.__module__ if v.__module__.removeprefix("deepod.") in modules() else name
        if v in names or home != name:  # on another page
            continue
        kind = "autoclass" if inspect.isclass(v) else "autofunction"
        parts += [f".. {kind}:: {name}.{n}"]
        own = list(members(v)) if inspect.isclass(v) else []
        parts += [f"   :members: {', '.join(own)}", ""] if own else [""]
    return "\n".join(parts) + "\n"


def index_page(names: dict[type, str]) -> str:
    """Write the first page: detectors by family, then modules."""
    parts = [underlined("API reference")]
    parts += ["Everything here is made from the docstrings. A name leads to its page.\n"]
    for title, classes in kinds().items():
        parts += [underlined(f"Detectors: {title.lower()}", "-"), ".. list-table::"]
        parts += ["   :header-rows: 1", "   :widths: 20 35 45", ""]
        parts += ["   * - detector", "     - family", "     - paper"]
        for cls in classes.values():
            parts += [f"   * - :class:`~{names[cls]}`", f"     - {getattr(cls, 'family', '')}"]
            parts += [f"     - {getattr(cls, 'paper', '')}"]
        parts += [""]
    listed = set(detectors().values())
    rest = {name: cls for cls, name in names.items() if cls not in listed}
    parts += [underlined("Ensembles, searches, adapters, and what detectors are made of", "-")]
    parts += [".. list-table::", "   :widths: 30 70", ""]
    for name, cls in sorted(rest.items()):
        parts += [f"   * - :class:`~{name}`", f"     - {first_line(cls)}"]
    parts += ["", underlined("Modules", "-"), ".. list-table::", "   :widths: 30 70", ""]
    parts += ["   * - :doc:`deepod </api/deepod>`", "     - Functions of the package itself."]
    for module in modules():
        text = first_line(importlib.import_module(f"deepod.{module}"))
        parts += [f"   * - :mod:`deepod.{module}`", f"     - {text}"]
    of_modules = ["deepod", *(f"deepod.{module}" for module in modules())]
    groups = {title: [names[c] for c in classes.values()] for title, classes in kinds().items()}
    groups |= {"Ensembles, searches, bases": list(rest), "Modules": of_modules}
    for title, files in groups.items():
        parts += ["", ".. toctree::", "   :hidden:", f"   :caption: {title}", ""]
        parts += [f"   {file}" for file in sorted(files)]
    return "\n".join(parts) + "\n"


def write(folder: Path) -> None:
    """Write all pages; those that say what they said before are left alone."""
    folder.mkdir(exist_ok=True)
    found = estimators()
    names = {cls: name for name, cls in found.items()}
    texts = {f"{name}.rst": estimator_page(name, cls, names) for name, cls in found.items()}
    for name in ["deepod", *(f"deepod.{module}" for module in modules())]:
        texts[f"{name}.rst"] = module_page(name, names)
    texts["index.rst"] = index_page(names)
    for old in folder.glob("*.rst"):
        if old.name not in texts:
            old.unlink()
    for file, text in texts.items():
        path = folder / file
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
