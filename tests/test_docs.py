"""The texts: sizes, tables that are made from the registry and from results, links, the reference.

The build of the site itself is a step of ``.ci/run``; here is what can be checked without Sphinx.
"""

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

from docs import check, reference, tables

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
TEXTS += [ROOT / "benchmarks/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MADE = [(place, name) for place in tables.PLACES for name in tables.names_in(place.read_text())]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
OTHER_SITES = {"https://github.com/TheDatumOrg/TSB-AD"}


def name_of(value):
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else value


# --- the front page -------------------------------------------------------------------------------


def test_readme__short_and_narrow():
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) <= 9000
    assert [line for line in text.splitlines() if len(line) > 100] == []
    assert (ROOT / "docs/_static/overview.png").stat().st_size < 100_000


# --- tables that are made -------------------------------------------------------------------------


def test_tables__each_stands_somewhere_and_the_front_page_has_its_three():
    assert {name for _, name in MADE} == set(tables.TABLES)
    front = {name for place, name in MADE if place == ROOT / "README.md"}
    assert front == {"detectors in short", "oddbench in short", "speed"}


@pytest.mark.parametrize(("place", "name"), MADE, ids=name_of)
def test_tables__as_written_from_the_registry_and_the_results(place, name):
    pytest.importorskip("pandas")
    if name not in tables.WITHOUT_RESULTS and not tables.RESULTS.is_dir():
        pytest.skip("a source distribution holds no results")
    (stands,) = [m[3] for m in tables.BLOCK.finditer(place.read_text()) if m[2] == name]
    assert stands.strip() == tables.TABLES[name](), "run python docs/tables.py"


def test_tables__every_detector_is_listed():
    short, full = tables.detectors_in_short(), tables.detectors_in_full()
    for name in reference.detectors():
        assert f"`{name}`" in short
        assert f"[`{name}`](../" in full
    assert max(map(len, short.splitlines())) <= 100
    for file in re.findall(r"\]\(\.\./(.+?)\)", full):
        assert (ROOT / file).is_file()


def test_written__a_number_was_changed__mended(tmp_path):
    text = "a\n\n<!-- table: detectors in short -->\n\n| 99.9 |\n\n<!-- end of table -->\n\nb\n"
    new = tables.written(text)
    assert "99.9" not in new
    assert tables.detectors_in_short() in new
    assert (new[:2], new[-2:]) == ("a\n", "b\n")
    assert tables.written(new) == new


# Tables of results from runs that are not committed, as the texts above them say, by their heads.
NOT_COMMITTED = {
    "| | clean | anomalies in training | flagged, clean |",
    "| | ADBench development: clean | anomalies | ADBench confirmation: clean | anomalies | "
    "OddBench development: clean | anomalies |",
    "| `AutoEncoder` | ADBench development: clean | anomalies | "
    "OddBench development: clean | anomalies |",
}


def results_by_hand(text):
    """Return the heads of tables that hold numbers with a point and are not made."""
    by_hand = re.findall(r"(?:^\|.*\n)+", tables.BLOCK.sub("", text), re.MULTILINE)
    return {table.splitlines()[0] for table in by_hand if re.search(r"\d\.\d", CODE.sub("", table))}


def test_tables__of_results__made_or_listed():
    # A test of its own compares docs/papers.md with results.
    places = [place for place in tables.PLACES if place.name != "papers.md"]
    assert {head for p in places for head in results_by_hand(p.read_text())} == NOT_COMMITTED


def test_results_by_hand__one_typed__found():
    typed = "a\n\n| a | b |\n|---|--:|\n| `0.1` | 99.9 |\n\nb\n"
    assert results_by_hand(typed) == {"| a | b |"}
    assert results_by_hand(typed.replace("99.9", "99")) == set()
    assert results_by_hand(tables.written(
        "<!-- table: oddbench in short -->\n\n<!-- end of table -->\n"
    )) == set()  # fmt: skip


def test_benchmarks__results_stand_in_tables_alone():
    text = CODE.sub("", (ROOT / "docs/benchmarks.md").read_text())
    sentences = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    # The rule for defaults, and the least divisor of a category: settings, not results.
    assert set(re.findall(r"\d+\.\d+", sentences)) == {"0.5", "0.2"}


# --- links ----------------------------------------------------------------------------------------


def anchors(path):
    """Return the anchors of the headings of a page."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.S),
                              re.MULTILINE):  # fmt: skip
        found.add(tables.anchor(re.sub(r"[`*]", "", heading)))
    return found


@pytest.mark.parametrize("text", TEXTS, ids=name_of)
def test_links__lead_to_files_and_headings(text):
    for target in LINK.findall(CODE.sub("", text.read_text())):
        if "://" in target:
            assert target in OTHER_SITES
            continue
        file, _, place = target.partition("#")
        there = (text.parent / file).resolve() if file else text
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        if place and there.suffix == ".md":
            assert place in anchors(there), target


# --- the reference --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "api"
    reference.write(folder)
    return {path.stem: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("name", reference.detectors())
def test_reference__every_detector__a_page_with_its_lines(name, pages):
    (full,) = [page for page in pages if page.rpartition(".")[2] == name]
    page = pages[full]
    assert f".. autoclass:: {full}\n" in page
    assert f"`~{full}`" in pages["index"]
    own = vars(reference.detectors()[name])
    for hook in reference.HOOKS:
        if hook in own:
            assert f":pyobject: {name}.{hook}\n" in page


def test_reference__every_public_function_and_class__once(pages):
    text = "\n".join(pages.values())
    documented = re.findall(r"^\.\. auto(?:class|function):: (\S+)", text, re.MULTILINE)
    assert len(documented) == len(set(documented))
    last = {name.rpartition(".")[2] for name in documented}
    for module in reference.modules():
        public = reference.public(importlib.import_module(f"deepod.{module}"))
        assert set(public) <= last, module
    assert reference.public(sys.modules["deepod"]).keys() <= last


# --- docstrings -----------------------------------------------------------------------------------

# First words of the docstrings of functions and methods: verbs in the imperative, and no others.
VERBS = {
    *("Build", "Close", "Collect", "Declare", "Draw", "Find", "Fit", "Label", "Learn", "Load"),
    *("Make", "Perturb", "Raise", "Restore", "Return", "Run", "Save", "Score", "Set", "Take"),
    *("Train", "Turn", "Use", "Write", "Yield"),
}


def documented():
    """Return the kind and the docstring of each object of the reference by its full name."""
    found = {}
    modules = [importlib.import_module(f"deepod.{name}") for name in reference.modules()]
    for module in (sys.modules["deepod"], *modules):
        for value in reference.public(module).values():
            found[f"{value.__module__}.{value.__qualname__}"] = value
    for cls in (*reference.detectors().values(), *reference.estimators().values()):
        found[f"{cls.__module__}.{cls.__qualname__}"] = cls
    for cls in filter(inspect.isclass, tuple(found.values())):
        for name, owner in reference.members(cls).items():
            found[f"{owner.__module__}.{owner.__qualname__}.{name}"] = vars(owner)[name]
    described = {}
    for name, value in found.items():
        kind = "class" if inspect.isclass(value) else "function"
        if isinstance(value, property):
            kind, value = "property", value.fget
        value = getattr(value, "__func__", value)
        if value.__module__.startswith("deepod"):  # not scikit-learn's own
            described[name] = kind, inspect.getdoc(value) or ""
    return described


def problem_of(kind, docstring):
    """Return what is wrong with the first line of a docstring, or None."""
    line = docstring.partition("\n")[0]
    if not line:
        return "there is no docstring"
    if not line.endswith("."):
        return "the first line does not end in a full stop"
    if len(line) > 100:
        return "the first line is longer than 100 characters"
    word = line.split()[0].strip(",:")
    if kind == "function" and word not in VERBS:
        return f"the first line begins with {word!r}, not with a verb of VERBS"
    if kind == "property" and not line.startswith(("The ", "Whether ")):
        return "the first line does not begin with 'The' or 'Whether'"
    return None


def test_docstrings__first_lines__sentences_that_say_what_is_done_or_returned():
    described = documented()
    assert len(described) > 200
    wrong = {name: problem_of(*described[name]) for name in described}
    assert {name: problem for name, problem in wrong.items() if problem} == {}


@pytest.mark.parametrize(
    ("kind", "docstring", "problem"),
    [
        ("function", "Return it.", None),
        ("function", "Fit, and return it.\n\nMore.", None),
        ("class", "A thing.", None),
        ("property", "The size.", None),
        ("property", "Size.", "begin with 'The'"),
        ("function", "", "no docstring"),
        ("function", "Return it", "full stop"),
        ("function", f"Return {'it ' * 40}.", "100 characters"),
        ("function", "The thing.", "'The', not with a verb"),
    ],
)
def test_problem_of__one_docstring__told(kind, docstring, problem):
    found = problem_of(kind, docstring)
    assert found is None if problem is None else problem in found


# --- the check of the built site ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no notebook"),
        ('{"nbformat": 3, "cells": [{"cell_type": "code", "source": ["a"]}]}', "its format is 3"),
        ('{"nbformat": 4, "cells": [{"cell_type": "markdown", "source": ["x"]}]}', "no code"),
        ('{"nbformat": 4, "cells": [{"cell_type": "code", "source": ["%pip x"]}]}', "no Python"),
        ('{"nbformat": 4, "cells": [{"cell_type": "code", "source": ["a = 1"]}]}', None),
    ],
)
def test_check__notebooks_that_do_not_open_or_run__told(text, said, tmp_path):
    (tmp_path / "story.ipynb").write_text(text)
    wrong, _ = check.problems(tmp_path)
    assert len(wrong) == (said is not None)
    assert said is None or said in wrong[0]


def test_check__dead_links_and_foreign_scripts__told(tmp_path):
    (tmp_path / "index.html").write_text(
        '<p id="a"><a href="#a">x</a><a href="b.html#c">x</a><a href="no.html">x</a>'
        '<a href="https://x.org">x</a><script src="https://cdn.org/x.js"></script>'
    )
    (tmp_path / "b.html").write_text('<img src="no.png"><a href="index.html#a">x</a>')
    wrong, outside = check.problems(tmp_path)
    assert wrong == [
        "b.html: no file no.png",
        "index.html loads https://cdn.org/x.js",
        "index.html: no file no.html",
        "index.html: no place b.html#c",
    ]
    assert outside == {"https://x.org", "https://cdn.org/x.js"}
