"""The examples and the code of the README and of docs/ run as they stand, with few epochs."""

import ast
import importlib.util
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils.estimator_checks import check_estimator

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
README_BLOCKS = BLOCK.findall((ROOT / "README.md").read_text())
# The blocks of a page build on one another.
TEXTS = {str(p.relative_to(ROOT / "docs")): p.read_text() for p in (ROOT / "docs").rglob("*.md")}
PAGES = {name: "\n".join(BLOCK.findall(text)) for name, text in TEXTS.items()}
PAGES = {name: code for name, code in PAGES.items() if code}


# More than deepod itself does.
NEEDS = {
    "story_fraud": ("onnxscript", "onnxruntime", "pandas", "matplotlib"),
    "story_sensors": ("pandas", "matplotlib"),
    "story_images": ("matplotlib",),
    "pyod_combination": ("combo",),
    "benchmark_own_data": ("pandas",),
}
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SLOW = {"story_fraud": pytest.mark.slow}  # 14 seconds, half of them for ONNX
STORIES = [path for path in EXAMPLES if path.stem.startswith("story_")]


def skip_without_needed(path: Path) -> None:
    for library in NEEDS.get(path.stem, ()):
        pytest.importorskip(library)


def example(path: Path, monkeypatch):
    """Import an example as a module, so that its classes can be pickled."""
    skip_without_needed(path)
    monkeypatch.setenv("MPLBACKEND", "Agg")  # no example waits for a window to be closed
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@pytest.mark.parametrize("path", sorted({*EXAMPLES} - {*STORIES}), ids=lambda p: p.stem)
def test_example__runs(path, monkeypatch, tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.close("all")
    monkeypatch.chdir(tmp_path)
    assert example(path, monkeypatch).main(epochs=1) is not None
    assert pyplot.get_fignums()  # each has a picture for the gallery
    pyplot.close("all")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=SLOW.get(p.stem, ())) for p in STORIES]
)
def test_story__from_top_to_bottom__runs(path, monkeypatch, tmp_path):
    skip_without_needed(path)
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.close("all")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEEPOD_DATA", raising=False)
    monkeypatch.setattr(pyplot, "show", lambda: None)
    runpy.run_path(str(path), run_name="__main__")
    assert pyplot.get_fignums()
    pyplot.close("all")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_story_of_frauds__few_epochs_and_no_onnx__runs(monkeypatch, tmp_path):
    path = ROOT / "examples" / "story_fraud.py"
    skip_without_needed(path)
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pyplot, "show", lambda: None)
    told, _, left_out = path.read_text().partition("# Score without Python")
    shorter = told.replace("mixed = {", 'mixed = {"epochs": 3,')
    assert shorter != told
    assert left_out
    namespace = {"__name__": "__main__"}
    exec(compile(shorter, path.name, "exec"), namespace)
    assert len(namespace["bars"]) == 3
    namespace["temporary"].cleanup()
    pyplot.close("all")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example__has_a_title_for_the_gallery(path):
    title, line, empty, *_ = ast.get_docstring(ast.parse(path.read_text())).splitlines()
    assert line == "=" * len(title)
    assert not empty


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pyod_combination", "pip install suod"),
        ("thresholds_pythresh", "pip install pythresh"),
        ("model_selection", "pip install matplotlib"),
        ("few_labels", "cardio is left out"),
    ],
)
def test_example__optional_things_absent__said(name, said, monkeypatch, tmp_path, capsys):
    find = importlib.util.find_spec

    def without_optional(library):
        return None if library in ("suod", "pythresh", "matplotlib") else find(library)

    monkeypatch.setattr(importlib.util, "find_spec", without_optional)
    monkeypatch.setenv("DEEPOD_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    module = example(ROOT / "examples" / f"{name}.py", monkeypatch)
    assert module.main(epochs=1) is not None
    assert said in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:Skipping check")
def test_new_method__in_thirty_lines__passes_scikit_learns_checks(monkeypatch):
    module = example(ROOT / "examples" / "new_method.py", monkeypatch)
    detector = module.DAE(epochs=2, random_state=0)
    reason = "PyOD's labels are 0 and 1"
    expected = dict.fromkeys(("check_outliers_train", "check_outliers_fit_predict"), reason)
    results = check_estimator(detector, expected_failed_checks=expected, on_fail=None)
    assert not [r["check_name"] for r in results if r["status"] == "failed"]
    # Images and windows need nothing more.
    for shape in [(12, 1, 8, 8), (12, 6, 3)]:
        X = np.random.default_rng(0).normal(size=shape)
        assert detector.fit(X).decision_function(X).shape == (12,)


@pytest.mark.parametrize("block", README_BLOCKS, ids=range(len(README_BLOCKS)))
def test_readme__code_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("page", PAGES)
def test_docs__code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).normal(size=(2, 100, 8))
    given = dict(zip(("X_train", "X_test"), rows, strict=True)) if page == "papers.md" else {}
    exec(compile(PAGES[page], page, "exec"), given)


def test_promises__every_test_is_there():
    table = [line for line in TEXTS["guide/promises.md"].splitlines() if line.startswith("|")][2:]
    assert len(table) > 30
    for line in table:
        files = re.findall(r"`(test_\w+\.py)`", line)
        assert files, line
        known = "".join((ROOT / "tests" / file).read_text() for file in files)
        for name in re.findall(r"`(test_\w+)`", line):
            assert f"def {name}(" in known, name


def test_texts__have_code():
    assert README_BLOCKS
    assert len(PAGES) >= 10
    assert sum(text.count("```python") for text in TEXTS.values()) >= 25
