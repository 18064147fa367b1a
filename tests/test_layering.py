"""The structure of the package, read from its source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import deepod

PACKAGE = Path(deepod.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# What a part of the package may import of the rest, and which libraries.
MAY_IMPORT = {
    "types": set(),
    "params": set(),
    "callbacks": {"types"},
    "networks": {"types", "params", "networks"},
    "data": {"types"},
    "_missing": set(),
    "_data": {"types", "data", "_missing"},
    "_stream": {"types", "data", "_data"},
    "_record": set(),
    "_files": set(),
    "_persistence": {"", "_files", "_together", "callbacks", "networks"},
    "_checkpoint": {"", "data", "_files"},
    "_interrupt": set(),
    "_ranks": set(),
    "_memory": set(),
    "_explain": set(),
    "_engines": {"types", "_record", "_ranks", "_checkpoint"},
    "_train": {"types", "_checkpoint", "_data", "_engines", "_interrupt", "_memory", "_ranks"},
    "_together": {"params", "_engines", "_train"},
    "_threshold": {"params"},
    "_labels": {"_threshold"},
    "_base": {
        *("types", "params", "data", "_data", "_stream", "_engines", "_train", "_together"),
        *("_labels", "_memory", "_missing", "_ranks", "_checkpoint", "_persistence"),
        *("_explain", "_threshold", "callbacks", "networks"),
    },
    "models": {"types", "params", "_base", "networks"},
    "ensemble": {"", "data", "_base", "_labels", "_threshold", "_together", "params"},
    "search": {"ensemble"},
    "adapter": set(),
    "plotting": set(),
    "distributed": {"_ranks"},
    "onnx": {"", "_data", "_files"},
    "datasets": {"_files"},
    "bench": {"", "bench", "datasets", "ensemble", "plotting", "_files"},
    "_demo": {"", "plotting"},
    "_commands": {"", "_data", "_files", "_persistence", "data", "datasets", "plotting"},
    "cli": {"", "bench", "_demo", "_commands"},
    "__init__": {"_base", "_files", "_persistence", "adapter", "ensemble", "models", "search"},
    "__main__": {"cli"},
}
LIBRARIES = {
    "networks": {"torch", "sklearn"},
    "callbacks": {"torch", "tqdm"},
    "_record": {"torch"},
    "_memory": {"torch"},
    "_engines": {"torch"},
    "_explain": {"torch", "numpy"},
    "_train": {"torch"},
    "models": {"torch", "numpy", "sklearn", "imblearn"},
}
OURS_ONLY_INSIDE_FUNCTIONS = {"matplotlib", "imblearn", "tqdm", "pandas", "safetensors"}
OURS_ONLY_INSIDE_FUNCTIONS |= {"dask", "distributed", "ray", "pyspark", "pyarrow", "datasketches"}
OURS_ONLY_INSIDE_FUNCTIONS |= {"pebble", "psutil", "scikit_posthocs"}
OURS_ONLY_INSIDE_FUNCTIONS |= {"onnx", "onnxscript", "onnxruntime"}


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
            if node.module == "deepod":
                found |= {f"deepod.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports__follow_the_layers(path):
    part = part_of(path)
    names = imports(path)
    for name in names:
        top, _, inner = name.partition(".")
        if top == "deepod":
            inner, _, rest = inner.partition(".")
            # Families share a base, models/_family.py; no method imports another.
            if part == inner == "models" and rest.startswith("_"):
                continue
            public = inner in {"PLAD", "BaseDetector"}
            assert public or inner == "" or inner in MAY_IMPORT[part], f"{path.name} imports {name}"
        elif part in LIBRARIES:
            known = LIBRARIES[part] | set(sys.stdlib_module_names)
            assert top in known, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_optional_libraries__imported_where_used(path):
    tops = {name.split(".")[0] for name in imports(path, top_level_only=True)}
    assert not tops & OURS_ONLY_INSIDE_FUNCTIONS


def test_private_scikit_learn__imported_in_one_file():
    users = [p.name for p in FILES if "sklearn.utils._param_validation" in p.read_text()]
    assert users == ["params.py"]


def test_one_training_loop():
    assert [p.name for p in FILES if ".backward(" in p.read_text()] == ["_engines.py"]


def test_global_state__not_touched():
    for path in FILES:
        # Benchmarks seed the detectors of others, and put back what was: see test_bench.py.
        if path.name == "runner.py":
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
        if path.name == "cli.py":
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not [c for c in calls if ast.unparse(c.func) == "print"], path.name


def test_method_files__short():
    for path in (PACKAGE / "models").glob("*.py"):
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
