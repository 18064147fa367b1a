"""The examples and the README's code run as they stand, with few epochs."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils.estimator_checks import check_estimator

ROOT = Path(__file__).parents[1]
README_BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_example__runs(path):
    assert runpy.run_path(str(path))["main"](epochs=1) is not None


def test_new_method__in_thirty_lines__passes_scikit_learns_checks():
    namespace = runpy.run_path(str(ROOT / "examples" / "new_method.py"))
    detector = namespace["DAE"](epochs=2, random_state=0)
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


def test_readme__has_code():
    assert len(README_BLOCKS) >= 4
