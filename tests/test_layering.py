"""The structure of the package, read from its source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import deepod

PACKAGE = Path(deepod.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))

# From the ground up: a part imports parts of lower floors, and no other part of its own.
FLOORS = [
    {"types", "params", "_registry"},
    {"networks", "callbacks", "sources"},
    {"_inputs"},
    {"_scoring"},
    {"_storage"},
    {"_training", "_reporting"},
    {"_hyperparameters", "_transfer"},
    {"_base"},
    {"models"},
    {"_members"},
    {"adapter", "datasets", "distributed", "ensemble", "metrics", "onnx", "plotting", "review"},
    {"series", "graphs"},
    {"search", "continual"},
    {"bench"},
    {"cli", "data"},  # data is the older name of sources
    {"__init__", "__main__"},
]
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
# The root is a table of names that are imported late: parts may use it that no method builds on.
MAY_USE_THE_ROOT = {"onnx", "bench", "cli"}
LIBRARIES = {
    "networks": {"torch", "sklearn"},
    "callbacks": {"torch", "tqdm"},
    "_training": {"torch", "numpy", "joblib"},
    "models": {"torch", "numpy", "sklearn", "imblearn"},
}
OURS_ONLY_INSIDE_FUNCTIONS = {"matplotlib", "imblearn", "tqdm", "pandas", "safetensors"}
OURS_ONLY_INSIDE_FUNCTIONS |= {"dask", "distributed", "ray", "pyspark", "pyarrow", "datasketches"}
OURS_ONLY_INSIDE_FUNCTIONS |= {"pebble", "psutil", "scikit_posthocs"}
OURS_ONLY_INSIDE_FUNCTIONS |= {"onnx", "onnxscript", "onnxruntime"}


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


class WithoutTypes(ast.NodeTransformer):
    """Leaves out what type checkers alone import: no code runs by it."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        only_for_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return node.orelse if only_for_types else self.generic_visit(node)


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = WithoutTypes().visit(ast.parse(path.read_text()))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.module != "deepod":
                found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path) -> set[Path]:
    """Files of the package that a file imports, at any place in it."""
    found = set()
    for name in imports(path):
        if name.partition(".")[0] != "deepod":
            continue
        place = PACKAGE.joinpath(*name.split(".")[1:])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                found.add(file)
    return found


@every_file
def test_imports__go_down(path):
    part = part_of(path)
    for other in ours(path):
        inner = part_of(other)
        if inner == "__init__":
            # ``from deepod.x import y`` names the root in passing, ``import deepod`` uses it.
            used = "deepod" in imports(path) and part in FLOOR
            assert not used or part in MAY_USE_THE_ROOT, f"{path.name} imports the root"
            continue
        lower = FLOOR[inner] < FLOOR[part]
        # Families share bases, models/<family>/_base.py and the like; no method imports another.
        method = part == "models" and path.name != "__init__.py"
        beside = part == inner and (not method or other.name.startswith("_"))
        assert lower or beside, f"{path.name} imports {inner}"


@every_file
def test_libraries__few_below_the_base(path):
    allowed = LIBRARIES.get(part_of(path))
    if allowed is not None:
        tops = {name.partition(".")[0] for name in imports(path)} - {"deepod"}
        assert tops <= allowed | set(sys.stdlib_module_names), path.name


def test_imports__no_circle():
    # The root and the packages' own tables of late names aside.
    graph = {file: {o for o in ours(file) if o.name != "__init__.py"} for file in FILES}
    done: set[Path] = set()

    def visit(file: Path, way: tuple[Path, ...]) -> None:
        assert file not in way, " -> ".join(p.name for p in (*way, file))
        if file not in done:
            for other in graph[file]:
                visit(other, (*way, file))
            done.add(file)

    for file in FILES:
        visit(file, ())


@every_file
def test_optional_libraries__imported_where_used(path):
    tops = {name.split(".")[0] for name in imports(path, top_level_only=True)}
    assert not tops & OURS_ONLY_INSIDE_FUNCTIONS


def test_private_scikit_learn__imported_in_one_file():
    users = [p.name for p in FILES if "sklearn.utils._param_validation" in p.read_text()]
    assert users == ["params.py"]


def test_one_training_loop():
    assert [p.name for p in FILES if ".backward(" in p.read_text()] == ["steps.py"]


def test_global_state__not_touched():
    for path in FILES:
        # Benchmarks seed the detectors of others, and put back what was: see test_bench.py.
        # What settings.py sets is put back, or of a forked child: see test_settings.py.
        if path.name in ("runner.py", "settings.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Attribute):
                continue
            name = ast.unparse(node)
            assert name not in {
                "torch.manual_seed",
                "np.random.seed",
                "random.seed",
                "warnings.filterwarnings",
                "warnings.simplefilter",
                "torch.set_default_dtype",
                "torch.set_num_threads",
            }, f"{path.name}: {name}"


def test_library__prints_nothing():
    for path in FILES:
        if part_of(path) == "cli":
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not [c for c in calls if ast.unparse(c.func) == "print"], path.name


def test_method_files__short():
    for path in (PACKAGE / "models").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 200, path.name


def test_import__instant__loads_no_torch():
    code = "import sys, deepod; print('torch' in sys.modules, 'pyod' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


def test_public_names__resolve_and_are_documented():
    for name in deepod.__all__:
        value = getattr(deepod, name)
        assert name == "__version__" or value.__doc__
    with pytest.raises(AttributeError, match="nonsense"):
        _ = deepod.nonsense


# What a fit must not import: each takes seconds, in every process that trains.
SLOW_TO_IMPORT = {"torch._dynamo", "torch._inductor", "sympy", "imblearn", "matplotlib", "pandas"}
FIRST_FITS = """
import sys
import torch, sklearn.base, sklearn.utils.validation, pyod.models.base
before = {name.partition(".")[0] for name in sys.modules}
known = slow & set(sys.modules)  # what the libraries import themselves
from deepod import PLAD, AutoEncoder
print(sorted({name.partition(".")[0] for name in sys.modules} - before))
import numpy as np
X = np.random.default_rng(0).normal(size=(40, 3))
for engine in ("eager", "trace"):
    for optimizer in ("adam", "adamw", "sgd"):
        AutoEncoder(engine=engine, optimizer=optimizer, epochs=2, max_grad_norm=1.0).fit(X)
PLAD(epochs=2, n_members=2).fit(X).predict(X)
print(sorted(slow & set(sys.modules) - known))
"""


def test_first_fit__imports_no_compiler_and_nothing_slow():
    code = f"slow = {SLOW_TO_IMPORT}{FIRST_FITS}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["['deepod']", "[]"]


def test_submodules__reachable_from_the_root():
    names = ["onnx", "plotting", "datasets", "bench", "distributed", "data", "metrics", "review"]
    names += ["continual", "graphs", "series"]
    code = f"import deepod; print([getattr(deepod, name).__name__ for name in {names}])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str([f"deepod.{name}" for name in names])


def test_models__importable_from_their_package():
    from deepod.models import PLAD

    assert PLAD is deepod.PLAD
    from deepod.data import array  # the older name of sources

    assert array is deepod.sources.array


def test_trunk__readable():
    """Limits that keep the trunk what it is; whoever needs more divides what is there."""
    most = {"_base.py": 600, "_training/loop.py": 330, "_training/fitting.py": 450}
    for name, lines in most.items():
        assert len((PACKAGE / name).read_text().splitlines()) <= lines, name
    for part in ("_base.py", "_inputs", "_scoring", "_storage", "_training"):
        for path in [PACKAGE / part] if part.endswith(".py") else (PACKAGE / part).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef):
                    body = node.body[1:] if ast.get_docstring(node) else node.body
                    lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                    assert lines <= 50, f"{path.name}: {node.name} has {lines} lines of code"


def test_detectors__told_to_type_checkers_and_the_root():
    from deepod import models

    assert set(models.__all__) == set(deepod.DETECTORS)
    assert set(deepod.DETECTORS) <= set(deepod.__all__)
    for file in ("__init__.py", "models/__init__.py"):
        known = {  # under TYPE_CHECKING, too
            alias.name
            for node in ast.walk(ast.parse((PACKAGE / file).read_text()))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert set(deepod.DETECTORS) <= known, file
