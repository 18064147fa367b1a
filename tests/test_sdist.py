"""What a source distribution holds; `.ci/run` builds one and runs the README's commands in it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXTS = ["README.md", "CONTRIBUTING.md", "SECURITY.md", ".ci/run", "pyproject.toml"]
TEXTS += ["benchmarks/README.md"]
TEXTS += [str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md"))]
MADE = {"__pycache__", "api", "gallery"}  # the last two by the build of the documentation


@pytest.fixture(scope="module")
def packed() -> set[str]:
    sdist = pytest.importorskip("hatchling.builders.sdist")
    builder = sdist.SdistBuilder(str(ROOT))
    files = {file.distribution_path for file in builder.recurse_included_files()}
    return {"pyproject.toml"} | {str(Path(file)) for file in files}  # it is put in at the end


def named_in(text: str) -> set[str]:
    """Paths of the project that a text names, in commands, links or by the way."""
    words = set(re.findall(r"[\w.-]*[/.][\w./-]*\w", (ROOT / text).read_text())) | {"LICENSE"}
    bases = {ROOT, (ROOT / text).parent}
    found = [(base / word).resolve() for base in bases for word in words if (base / word).is_file()]
    names = {str(place.relative_to(ROOT)) for place in found if place.is_relative_to(ROOT)}
    # What the commands themselves make.
    return {name for name in names if not name.startswith(".venv") and name != "demo.png"}


@pytest.mark.parametrize("text", TEXTS)
def test_sdist__holds_what_its_texts_name(text, packed):
    named = named_in(text)
    missing = {name for name in named if not name.startswith("benchmarks/results/")} - packed
    assert not missing
    assert text in packed


def test_sdist__holds_what_the_commands_of_the_readme_need(packed):
    assert "constraints.txt" in named_in("README.md")
    wanted = {str(p.relative_to(ROOT)) for folder in ("deepod", "tests", "docs", "examples")
              for p in (ROOT / folder).rglob("*.*")
              if p.is_file() and not MADE & set(p.parts)}  # fmt: skip
    assert wanted <= packed


def test_sdist__leaves_out_what_only_the_repository_needs(packed):
    assert not [name for name in packed if name.startswith("benchmarks/results/")]


def test_build_tool__pinned_as_in_the_constraints():
    (pinned,) = re.findall(r'requires = \["(.*)"\]', (ROOT / "pyproject.toml").read_text())
    assert pinned in (ROOT / "constraints.txt").read_text().splitlines()
