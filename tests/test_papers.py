"""``python -m benchmarks.papers``: what papers print, and what we get beside it."""

import json
import math
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from benchmarks.papers import __main__ as papers
from benchmarks.papers import page
from deepod.bench import detectors, find_data, protocols

ROOT = Path(papers.__file__).parents[2]
PAPERS = papers.papers()
SECTIONS = [section for paper in PAPERS for section in papers.read(paper)]
PRINTED = [section for section in SECTIONS if section.paper]
MISPRINTED = {("ns_ae.toml:mnist", "OCSVM")}  # 95.54 is printed, its ten digits make 95.13
ROW = {"n_train": 50, "n_test": 40, "max_train": None, "max_test": None}


def named(section):
    return section.detector.rpartition("/")[2]


def figures(section):
    """All tables of figures of a section."""
    yield section.name, section.paper["published"]
    yield from section.paper.get("others", {}).items()


# --- the files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", SECTIONS, ids=named)
def test_files__every_section__figures_of_a_paper_or_ours(section):
    assert set(section.spec) <= {"detector", "params", "ours", "paper"}
    assert ("ours" in section.spec) != ("paper" in section.spec)
    detectors.find(section.detector).build(0)
    assert section.paper or len(section.spec["ours"]) > 10


@pytest.mark.parametrize("section", PRINTED, ids=named)
def test_files__figures__one_shape(section):
    paper = section.paper
    needed = {"source", "protocol", "metric", "datasets", "seeds", "published"}
    assert (
        needed <= set(paper) <= needed | {"runs", "unstated", "departs", "others", "default", "why"}
    )
    assert paper["protocol"] in protocols.DIVIDED or protocols.find(paper["protocol"])
    assert paper["metric"] in papers.METRICS
    assert paper["seeds"] >= 1
    assert paper["unstated"]  # no paper says everything
    detectors.find(section.default).build(0)
    count = len(paper["datasets"])
    assert count == len(set(paper["datasets"]))
    for name, found in figures(section):
        assert found, name
        assert set(found) <= {"each", "std", "mean"}
        assert count > 1 or "mean" not in found
        for key in ("each", "std"):
            assert len(found.get(key, range(count))) == count, (name, key)
        for value in (*found.get("each", ()), found.get("mean", 50)):
            assert math.isnan(value) or 4 < value < 100, name  # percent
    small = any("cifar10_small" in name for name in paper["datasets"])
    assert small == any("10,000" in text for text in paper.get("departs", ()))


@pytest.mark.parametrize("section", PRINTED, ids=named)
def test_files__printed_means__those_of_the_printed_classes(section):
    """Figures copied wrongly do not add up; papers round, and some cut off."""
    for name, found in figures(section):
        if "each" in found and "mean" in found:
            agree = found["mean"] == pytest.approx(np.mean(found["each"]), abs=0.1)
            assert agree != ((named(section), name) in MISPRINTED), name


def test_files__what_is_printed_beside__is_somewhere_here():
    """Every method of the papers' tables has a row that says where it is."""
    for section in PRINTED:
        for name in section.paper.get("others", {}):
            method = re.sub(r" \\([hs]\\)|\\*|, Table.*| \\(Scratch\\)", "", name)
            assert any(method.startswith(row) for row in page.ROWS), name


def test_page__recipes__run():
    rng = np.random.default_rng(0)
    names = {"X_train": rng.normal(size=(50, 4)), "X_test": rng.normal(size=(5, 4))}
    (code,) = re.findall(r"```python\n(.*?)```", page.page(), re.DOTALL)
    exec(code, names)
    assert names["kde"].decision_function(names["X_test"]).shape == (5,)
    scores = names["ocsvm"].fit(names["X_train"]).decision_function(names["X_test"])
    assert np.isfinite(scores).all()


def test_page__is_what_the_files_and_results_say():
    assert (ROOT / "docs" / "papers.md").read_text(encoding="utf-8") == page.page()


# --- the command ----------------------------------------------------------------------------------

FILE = """
[tables]
detector = "pyod:KNN"
params = { n_neighbors = 3 }

[tables.paper]
source = "Table 1"
protocol = "dagmm"
metric = "f1"
datasets = ["small", "wide"]
runs = 5
seeds = 2
unstated = ["batch size: 3 here"]

[tables.paper.published]
each = [61.5, 70.0]
std = [1.5, 2.0]
mean = 65.75

[tables.paper.others]
SVM = { each = [50.0, nan] }

[digits]
detector = "pyod:KNN"
params = { n_neighbors = 2 }

[digits.paper]
source = "Table 2"
protocol = "images"
metric = "auc_roc"
datasets = ["digits:0", "digits:1", "digits:2"]
seeds = 1
default = "other"
departs = ["fewer images"]
published = { each = [91.0, 92.0, 93.0], mean = 92.0 }
others = { GAN = { mean = 50.0 }, VAE = { each = [80.0, 81.0, 82.0], mean = 81.0 } }

[other]
detector = "pyod:KNN"
ours = "other neighbours"
params = { n_neighbors = 1 }
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A paper, two tables and an image dataset."""
    rng = np.random.default_rng(0)
    for folder in ("papers", "data/tabular", "data/images"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "papers" / "paper.toml").write_text(FILE)
    for name, n in (("1_small", 60), ("2_wide", 80)):
        y = (np.arange(n) % 10 == 0).astype(np.int8)
        X = rng.normal(size=(n, 4)).astype(np.float32) + y[:, None]
        np.savez(tmp_path / "data" / "tabular" / f"{name}.npz", X=X, y=y)
    images = {f"x_{part}": rng.integers(0, 255, (30, 8, 8), np.uint8) for part in ("train", "test")}
    labels = {f"y_{part}": np.arange(30) % 3 for part in ("train", "test")}
    np.savez(tmp_path / "data" / "images" / "digits.npz", **images, **labels)
    monkeypatch.setenv("DEEPOD_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(papers, "FOLDER", tmp_path / "papers")
    return tmp_path


def call(home, capsys, *options):
    """Run the command; the lines of the first table, and all that is printed."""
    papers.main(["paper", "--quiet", "--out", str(home / "r.jsonl"), *map(str, options)])
    shown = capsys.readouterr().out
    lines = shown.partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines], shown


def test_command__tables_and_images__figures_of_the_rows(home, capsys):
    lines, shown = call(home, capsys, "--defaults", "--with", "pyod:ECOD", "--max-train", 20)
    rows = [json.loads(line) for line in (home / "r.jsonl").read_text().splitlines()]
    assert not [row["error"] for row in rows if "error" in row]
    assert len(rows) == 3 * (2 * 2 + 3)
    assert {row["protocol"] for row in rows} == {"dagmm", "images"}
    assert lines[0][4:8] == ["paper's setting", "difference", "default setting", "pyod:ECOD"]
    assert [line[1] for line in lines[2:]] == [
        *("1_small", "2_wide", "mean"),
        *("digits:0", "digits:1", "digits:2", "mean"),
    ]
    own = [row for row in rows if row["detector"].endswith("paper.toml:tables")]
    assert {row["params"]["n_neighbors"] for row in own} == {3}
    of_images = {row["detector"].rpartition("/")[2] for row in rows if row["protocol"] == "images"}
    assert of_images == {"paper.toml:digits", "paper.toml:other", "pyod:ECOD"}
    small = [100 * row["f1"] for row in own if row["dataset"] == "1_small"]
    ours = f"{np.mean(small):.1f} ± {np.std(small, ddof=1):.1f} (2)"
    assert lines[2][:6] == [
        *("tables", "1_small", "F1", "61.5 ± 1.5", ours, f"{np.mean(small) - 61.5:+.1f}")
    ]
    assert lines[2][8:] == ["20*", "33"]
    assert lines[5][8:] == ["10", "30"]
    assert "*: capped" in shown
    for text in ("- batch size: 3 here", "- fewer images", "Table 1, 5 runs", "runs not stated"):
        assert text in shown
    assert "| SVM | 50.0 |  |  |" in shown


def test_command__again__nothing_is_run_and_the_same_is_printed(home, capsys, monkeypatch):
    first = call(home, capsys)[1]
    written = (home / "r.jsonl").read_text()
    assert call(home, capsys)[1] == first
    (home / "r.jsonl").write_text("".join(written.splitlines(keepends=True)[:-2]))
    call(home, capsys)  # after a kill: the two that are missing
    again = (home / "r.jsonl").read_text().splitlines()
    key = [(row["dataset"], row["seed"], row["f1"]) for row in map(json.loads, again)]
    before = map(json.loads, written.splitlines())
    assert key == [(row["dataset"], row["seed"], row["f1"]) for row in before]


def test_command__some_sections_datasets_and_seeds(home, capsys):
    lines, _ = call(home, capsys, "--sections", "tables", "--datasets", "wide", "--seeds", 3)
    (line,) = lines[2:]  # no mean of one
    assert line[1:4] == ["2_wide", "F1", "70.0 ± 2.0"]
    assert line[4].endswith("(3)")
    lines, shown = call(home, capsys, "--datasets", "digits:1,digits:2")
    assert [line[1] for line in lines[2:]] == ["digits:1", "digits:2", "mean"]
    assert [line[3] for line in lines[2:]] == ["92.0", "93.0", ""]  # printed for three
    assert "| VAE | 81.0 | 82.0 |  |" in shown
    assert "| GAN |" not in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sections", "table"), "no section 'table'; it has tables, digits, other"),
        (("--sections", "other"), "No printed figures for other"),
        (("--datasets", "digit"), "No section has the datasets digit"),
        (("--datasets", "wide,smal"), "No section has the datasets smal; there are"),
        (("--seeds", "0"), "--seeds: expected a number above 0"),
        (("--max-train", "-5"), "--max-train: expected a number above 0"),
    ],
)
def test_command__unknown_names__refused(home, capsys, options, message):
    with pytest.raises(SystemExit):
        call(home, capsys, *options)
    assert message in capsys.readouterr().err


def test_command__without_data__says_where_they_go(home, capsys, monkeypatch):
    (home / "data" / "images" / "digits.npz").unlink()
    with pytest.raises(SystemExit):
        call(home, capsys)
    assert (
        f"{home / 'data' / 'images'} holds no file of the expected kind, .npz"
        in capsys.readouterr().err
    )
    monkeypatch.setenv("DEEPOD_DATA", str(home / "nowhere"))
    with pytest.raises(SystemExit):
        call(home, capsys)
    assert "DEEPOD_DATA" in capsys.readouterr().err
    assert not (home / "r.jsonl").exists()  # nothing ran before all was found


def test_command__needs_a_paper_and_a_file(home, capsys):
    for options in ([], ["paper"], ["--out", str(home / "r.jsonl")]):
        with pytest.raises(SystemExit):
            papers.main(options)
        assert "--list" in capsys.readouterr().err


def test_list__every_section(capsys):
    papers.main(["--list"])
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 2 + len(SECTIONS)
    assert "| plad | thyroid | dagmm | thyroid | F1 | 76.6 | Table 5 |" in shown
    assert "| plad | fashion-mnist-prototypes |  |  |  |  | none, ours: " in shown


def test_images__name_within_another_name__not_taken(home):
    folder = home / "data" / "images"
    (folder / "digits.npz").rename(folder / "more_digits.npz")
    with pytest.raises(FileNotFoundError, match="'digits'"):
        find_data(names=["digits:0"], protocol="images")


# --- the table ------------------------------------------------------------------------------------


def test_render__by_hand():
    section = papers.Section("paper.toml", "tables", tomllib.loads(FILE)["tables"])
    values = {"1_small": (0.5, 0.7), "2_wide": (0.9, None)}
    rows = [
        ROW | {"dataset": name, "detector": detector, "seed": seed, "max_test": 40}
        | ({"error": "ValueError:\nno"} if value is None else {"f1": value})
        for detector in ("paper.toml:tables", "pyod:KNN")
        for name, found in values.items()
        for seed, value in enumerate(found)
        if detector != "pyod:KNN" or name == "1_small"
    ]  # fmt: skip
    shown = papers.render([papers.Result(section, list(values), rows)], True, ["pyod:ECOD"])
    start = "| tables | {} | F1 | {} |"
    assert shown.splitlines()[2:5] == [
        start.format("1_small", "61.5 ± 1.5")
        + " 60.0 ± 14.1 (2) | -1.5 | 60.0 ± 14.1 (2) | none | 50 | 40* |",
        start.format("2_wide", "70.0 ± 2.0") + " 90.0 (1) | +20.0 | none | none | 50 | 40* |",
        # Of seed 0 alone, the one that has both datasets: (50 + 90) / 2.
        start.format("mean", "65.75") + " 70.0 (1) | +4.2 | none | none |  |  |",
    ]
    assert "- paper.toml:tables on 2_wide, seed 1: ValueError: no" in shown
