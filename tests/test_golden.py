"""What each release promised to those after it: its models load, its public names remain."""

from pathlib import Path

import numpy as np
import pytest

import deepod

from . import release

RELEASES = sorted(path.name for path in release.GOLDEN.iterdir())
MODELS = [path for version in RELEASES for path in release.GOLDEN.glob(f"{version}/*.deepod")]
ROWS = {name: rows for name, _, rows in release.models()}
# Public names that went after FutureWarnings in two minor versions: name -> the first of these.
GONE: dict[str, str] = {}


def scores_of(path):
    return np.load(path.parent / "scores.npz")


@pytest.mark.parametrize("path", sorted(MODELS), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_load__written_by_a_release__same_scores_and_threshold(path):
    detector = deepod.load(path)
    expected = scores_of(path)
    found = detector.decision_function(ROWS[path.stem](n=9, seed=1))
    # What another machine or version of torch may change by rounding.
    np.testing.assert_allclose(found, expected[path.stem], rtol=1e-5, atol=1e-6)
    threshold = expected[f"{path.stem} threshold"]
    np.testing.assert_allclose(detector.threshold_, threshold, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("version", RELEASES)
def test_files__as_many_as_scores(version):
    folder: Path = release.GOLDEN / version
    names = {path.stem for path in folder.glob("*.deepod")}
    assert names
    assert set(np.load(folder / "scores.npz").files) == names | {f"{n} threshold" for n in names}


@pytest.mark.parametrize(
    "version", [v for v in RELEASES if (release.GOLDEN / v / "names.txt").exists()]
)
def test_public_names__of_a_release__still_there_with_their_parameters(version):
    lines = (release.GOLDEN / version / "names.txt").read_text().splitlines()
    promised = {
        name: set(filter(None, rest[:-1].split(", ")))
        for name, _, rest in (line.partition("(") for line in lines)
    }
    assert len(promised) > 1000
    there = release.names()
    lost = [name for name in promised if name not in there]
    lost += [
        f"{name}({parameter})"
        for name, given in promised.items()
        for parameter in sorted(given - set(there.get(name, given)))
    ]
    assert [name for name in lost if name not in GONE] == []


def test_this_version__released__has_written_its_promises():
    if "dev" in deepod.__version__:
        pytest.skip("no release: python -m tests.release writes them for one")
    newest = release.GOLDEN / deepod.__version__
    assert {path.stem for path in newest.glob("*.deepod")} == set(ROWS)
    assert (newest / "names.txt").exists()
