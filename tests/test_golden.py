"""Models of the first version of the file format, which every later version loads."""

from pathlib import Path

import numpy as np
import pytest

import deepod

from .cases import samples

FOLDER = Path(__file__).parent / "golden"
MODELS = sorted(FOLDER.glob("*.deepod"))
SCORES = np.load(FOLDER / "scores.npz")


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_load__written_by_the_first_version__same_scores_and_threshold(path):
    detector = deepod.load(path)
    found = detector.decision_function(samples(n=9, seed=1))
    # What another machine or version of torch may change by rounding.
    np.testing.assert_allclose(found, SCORES[path.stem], rtol=1e-5)
    np.testing.assert_allclose(detector.threshold_, SCORES[f"{path.stem} threshold"], rtol=1e-5)


def test_files__each_of_a_detector_in_the_registry_with_its_scores():
    names = {path.stem for path in MODELS}
    assert names
    assert names <= set(deepod.DETECTORS)
    assert set(SCORES.files) == names | {f"{name} threshold" for name in names}
    for path in MODELS:
        assert type(deepod.load(path)).__name__ == path.stem
    assert {path.suffix for path in FOLDER.iterdir()} == {".deepod", ".npz"}
