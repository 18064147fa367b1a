"""The review page, and the marks that come back from it."""

import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import deepod
from deepod import Neighbors, review, sources
from deepod.cli import main, marks
from deepod.review.groups import alike
from deepod.series import RidgeAR

from .cases import samples

QUICK = ["--detector", "AnoRand", "--set", "epochs=1", "--set", "random_state=0"]
FEW = [*QUICK, "--set", "supervision=few_labels"]
EVIL = '</script><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


class Sums:
    """A detector whose scores are sums of the sizes of numbers, and 1 for every text."""

    threshold_ = 5.0

    def explain(self, X):
        if not hasattr(X, "dtypes"):
            return np.abs(np.asarray(X, dtype=float))
        numbers = [pd.api.types.is_numeric_dtype(kind) for kind in X.dtypes]
        columns = [
            X.iloc[:, j].abs().fillna(0) if number else np.ones(len(X))
            for j, number in enumerate(numbers)
        ]
        return np.column_stack(columns).astype(float)

    def decision_function(self, X):
        return self.explain(X).sum(1)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def data_of(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def cells_of(data, rank=1):
    """Column, contribution, value and place of a row, as the page has them."""
    cells = data["rows"][rank - 1][6]
    names = [name for name, _, _ in data["columns"]]
    return [(names[cells[i]], *cells[i + 1 : i + 4]) for i in range(0, len(cells), 4)]


@pytest.fixture
def page(tmp_path):
    return tmp_path / "page.html"


# --- what is on the page --------------------------------------------------------------------------


def test_write__numbers__reasons_beside_typical_values_and_places(page):
    X = np.tile([[1.0], [2.0], [3.0]], (1, 3)) * [1, 10, 100]
    written = review.write(page, Sums(), X, top=2, feature_names=["a", "b", "c"])
    assert written[:4] == (3, 3, 2, 0)
    data = data_of(page)
    assert [row[:3] for row in data["rows"]] == [[3, 1, 333.0], [2, 2, 222.0]]
    assert cells_of(data) == [("c", 300, 300, 833), ("b", 30, 30, 833), ("a", 3, 3, 833)]
    assert data["columns"] == [["a", 2, False], ["b", 20, False], ["c", 200, False]]
    assert (data["threshold"], data["n"], data["flagged"]) == (5.0, 3, 3)
    assert sum(data["bins"]["counts"]) == 3
    assert data["bins"]["edges"][0] <= 5 <= 333 <= data["bins"]["edges"][-1]


def test_write__reference__places_are_among_its_rows(page):
    X, known = np.array([[5.0, 0.5], [-7.0, 0.5]]), np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.5]])
    review.write(page, Sums(), X, reference=known)
    data = data_of(page)
    assert [typical for _, typical, _ in data["columns"]] == [1, 0.5]
    assert [cell[3] for cell in cells_of(data, 1)] == [0, 500]  # -7 is below all
    assert [cell[3] for cell in cells_of(data, 2)] == [1000, 500]  # 5 is above all


def test_write__frame__texts_gaps_and_truths_have_typical_values_too(page):
    frame = pd.DataFrame(
        {
            "city": ["Ulm", "Ulm", "Bonn", None],
            "key": list("abcd"),
            "paid": [True, True, True, False],
            "amount": pd.array([1, 2, None, 90], dtype="Int64"),
            "code": [2.5, 20_240_101.0, 2.5, 1234.56789],
            "empty": [np.nan] * 4,
        }
    )
    review.write(page, Sums(), frame, scores=[1, 2, 3, 4])
    data = data_of(page)
    assert data["columns"] == [
        ["city", "Ulm", True],
        ["key", None, True],  # all different: none is typical
        ["paid", "True", True],
        ["amount", 2, False],
        ["code", 618.534, False],
        ["empty", None, False],
    ]
    first, third = ({c[0]: c[2:] for c in cells_of(data, rank)} for rank in (1, 3))
    assert first["city"] == (None, None)
    assert third["city"] == ("Ulm", 667)
    assert first["paid"] == ("False", 250)
    assert first["amount"] == (90, 833)
    assert first["code"] == (1234.57, 625)
    assert third["code"] == (20_240_101, 875)
    assert first["empty"] == (None, None)


def test_write__text_that_the_reference_lacks__in_no_row_of_it(page):
    review.write(
        page, Sums(), pd.DataFrame({"a": ["x"]}), reference=pd.DataFrame({"a": ["y", "y"]})
    )
    assert cells_of(data_of(page)) == [("a", 1, "x", 0)]


TABLE = samples(n=60, seed=1).astype(np.float64)
NAMES = list("abcde")
KINDS = {
    "array": lambda tmp: TABLE,
    "list": lambda tmp: TABLE.tolist(),
    "pandas": lambda tmp: pd.DataFrame(TABLE, columns=NAMES, index=range(100, 160)),
    "polars": lambda tmp: pytest.importorskip("polars").DataFrame(TABLE, schema=NAMES),
    "pyarrow": lambda tmp: pa.table(dict(zip(NAMES, TABLE.T, strict=True))),
    "source of an array": lambda tmp: sources.array(TABLE),
    "Parquet": lambda tmp: parquet(tmp),
}


def parquet(folder):
    table = pa.table(dict(zip(NAMES, TABLE.T, strict=True)))
    pq.write_table(table, folder / "rows.parquet", row_group_size=7)
    return sources.parquet(folder / "rows.parquet")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_write__every_kind_of_table__one_page(kind, page, tmp_path):
    plain = tmp_path / "plain.html"
    scores = Sums().decision_function(TABLE)
    review.write(plain, Sums(), TABLE, top=9, feature_names=NAMES)
    # Sums knows arrays and pandas alone; a detector of deepod takes all of them.
    X = KINDS[kind](tmp_path)
    detector = Neighbors().fit(X)
    review.write(page, detector, X, top=9, feature_names=NAMES, scores=scores)
    left, right = data_of(plain), data_of(page)
    assert [row[:3] for row in left["rows"]] == [row[:3] for row in right["rows"]]
    assert left["columns"] == right["columns"]
    for rank in range(1, 10):
        values = [{c[0]: c[2:] for c in cells_of(data, rank)} for data in (left, right)]
        assert values[0] == values[1]
    assert left["key"] == right["key"]


def test_write__names__of_the_frame_or_the_detector_or_numbers(page):
    detector = Neighbors().fit(pd.DataFrame(TABLE, columns=NAMES))
    review.write(page, detector, pd.DataFrame(TABLE, columns=NAMES))
    assert [column[0] for column in data_of(page)["columns"]] == NAMES
    review.write(page, Neighbors().fit(TABLE), TABLE)
    assert data_of(page)["columns"][2][0] == "feature 2"


def test_write__values__shown_in_place_of_those_that_are_scored(page):
    raw = pd.DataFrame({"city": ["Ulm", "Bonn"], "amount": [10, 2000]})
    review.write(page, Sums(), np.array([[0.0, 1.0], [0.0, 3.0]]), values=raw)
    assert cells_of(data_of(page)) == [("amount", 3, 2000, 750), ("city", 0, "Bonn", 500)]


@pytest.mark.parametrize("name", ["Consensus", "SeedEnsemble", "PLAD"])
def test_write__ensembles_and_gradients__explained(name, page):
    from .test_cli import quick

    detector = deepod.SeedEnsemble(quick("PLAD"), n_members=2) if name == "SeedEnsemble" else None
    detector = (detector or quick(name)).fit(TABLE)
    review.write(page, detector, TABLE, top=3)
    rows = np.argsort(-detector.decision_function(TABLE), kind="stable")[:3]
    expected = np.sort(detector.explain(TABLE[rows]))[:, ::-1]
    for rank in range(3):
        found = [cell[1] for cell in cells_of(data_of(page), rank + 1)]
        np.testing.assert_allclose(found, expected[rank], rtol=1e-3)


def test_write__only_shown_rows_are_explained(page, monkeypatch):
    asked = []
    explain = Sums.explain
    monkeypatch.setattr(Sums, "explain", lambda self, X: asked.append(len(X)) or explain(self, X))
    review.write(page, Sums(), TABLE, scores=TABLE[:, 0], top=7)
    assert asked == [7]


@pytest.mark.parametrize("place", ["cell", "id", "name", "id_name", "title", "file"])
def test_write__hostile_text__stays_text(place, page):
    frame = pd.DataFrame({EVIL if place == "name" else "a": [EVIL if place == "cell" else "x"]})
    review.write(
        page,
        Sums(),
        frame,
        ids=[EVIL] if place == "id" else ["7"],
        id_name=EVIL if place == "id_name" else "id",
        title=EVIL if place == "title" else None,
        file=EVIL if place == "file" else None,
    )
    tags = Tags()
    tags.feed(page.read_text(encoding="utf-8"))
    names = [tag for tag, _ in tags.found]
    assert names.count("script") == 2
    assert "img" not in names
    assert EVIL in json.dumps(data_of(page), ensure_ascii=False).replace("\\", "") or (
        place == "title"
    )


def test_page__needs_no_network_and_runs_no_other_script(page):
    review.write(page, Sums(), TABLE)
    tags = Tags()
    tags.feed(page.read_text(encoding="utf-8"))
    assert not [a for _, a in tags.found if "src" in a or "href" in a]
    policy = next(a["content"] for _, a in tags.found if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    script = (files("deepod.review") / "page.js").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)


@pytest.mark.parametrize("cell", ["numbers", "long texts"])
def test_page__ten_thousand_rows__less_than_five_mebibytes(cell, page):
    n, d = (10_000, 200) if cell == "numbers" else (6000, 10)
    rng = np.random.default_rng(0)
    X = rng.lognormal(0, 3, size=(n, d))
    values = None
    if cell == "long texts":
        values = pd.DataFrame({j: [f"{i:x<90}{j}" for i in range(n)] for j in range(d)})
    review.write(page, Sums(), X, top=n, values=values, ids=[f"tx-{i:012}" for i in range(n)])
    assert page.stat().st_size < 5 * 2**20
    data = data_of(page)
    assert len(data["rows"]) == n
    best = np.argsort(-X, kind="stable")[int(data["rows"][0][0]) - 1, :3]
    assert [data["columns"][j][0] for j in best] == [name for name, *_ in cells_of(data)][:3]


def test_alike__two_kinds_of_reasons__two_groups_named_by_them():
    rng = np.random.default_rng(0)
    parts = np.abs(rng.normal(0, 0.05, size=(60, 4)))
    parts[:40, 1] += rng.uniform(1, 50, 40)
    parts[40:, [0, 3]] += 2
    parts[:, 2] -= 9  # what makes a row look normal groups nothing
    labels, groups = alike(parts, ["a", "b", "c", "d"])
    assert labels.tolist() == [0] * 40 + [1] * 20
    assert [tuple(group) for group in groups] == [("b", 40), ("a, d", 20)] or [
        tuple(group) for group in groups
    ] == [("b", 40), ("d, a", 20)]


@pytest.mark.parametrize(
    "parts",
    [np.ones((50, 3)), np.zeros((50, 3)), np.ones((1, 3)), np.eye(3), -np.ones((9, 2))],
    ids=["the same", "none", "one row", "three rows", "negative"],
)
@pytest.mark.filterwarnings("error")
def test_alike__nothing_to_tell_apart__no_groups(parts):
    labels, groups = alike(parts, ["a", "b", "c"])
    assert groups == []
    assert not labels.any()


def test_write__compare__union_of_both_tops_with_ranks_before(page):
    X = np.array([[9.0], [8.0], [7.0], [1.0], [0.5]])
    before = [5.0, 1.0, 2.0, 3.0, 4.0]
    review.write(page, Sums(), X, top=2, compare=before)
    data = data_of(page)
    assert [(row[0], row[1], row[5]) for row in data["rows"]] == [(1, 1, 1), (2, 2, 5), (5, 5, 2)]
    assert data["compare"] == "another"
    review.write(page, Sums(), X, top=2, compare=Sums())
    assert data_of(page)["compare"] == "Sums"


BAD = {
    "top": ({"top": 0}, "top must be"),
    "top, a float": ({"top": 2.5}, "top must be"),
    "scores, too few": ({"scores": [1.0]}, "scores must be 60 finite"),
    "scores, NaN": ({"scores": [np.nan] * 60}, "scores must be 60 finite"),
    "compare": ({"compare": [1.0]}, "compare must be 60 finite"),
    "ids, too few": ({"ids": ["a"]}, "1 ids for 60 rows"),
    "ids, twice": ({"ids": ["a", "b", "a", *map(str, range(57))]}, r"'a' \(rows 1 and 3\)"),
    "ids, blank": ({"ids": ["a", " ", None, *map(str, range(57))]}, "no id in row 2, 3"),
    "id_name": ({"ids": list(map(str, range(60))), "id_name": "label"}, "another column"),
    "names": ({"feature_names": ["a"]}, "1 names for 5 columns"),
    "values": ({"values": TABLE[:5]}, "values must have as many rows"),
    "reference": ({"reference": TABLE[:, :2]}, "2 columns"),
    "shape": ({"reference": np.zeros((3, 4, 5))}, "reference must be rows of a table"),
}


@pytest.mark.parametrize(("arguments", "said"), BAD.values(), ids=BAD)
def test_write__bad_argument__named_and_nothing_written(arguments, said, page):
    with pytest.raises(ValueError, match=said):
        review.write(page, Sums(), TABLE, **arguments)
    assert not page.exists()


def test_write__series_windows_images__refused(page):
    with pytest.raises(ValueError, match="RidgeAR is a detector of series"):
        review.write(page, RidgeAR().fit(np.random.default_rng(0).normal(size=(300, 2))), TABLE)
    with pytest.raises(ValueError, match="windows, images and series"):
        review.write(page, Sums(), np.zeros((4, 10, 2)))


# --- from file to file ----------------------------------------------------------------------------


@pytest.fixture
def cards(tmp_path, monkeypatch):
    """A folder with cards.csv and cards.parquet, of which rows 1 to 5 are odd; ids begin with 0."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(120, 3)), columns=["a", "b", "c"])
    frame.loc[:4, "b"] += 9
    frame.insert(1, "tx", [f"{i:04d}" for i in range(120)])
    frame.insert(0, "fraud", ["1"] * 2 + ["0"] + [""] * 117)
    frame.to_csv("cards.csv", index=False)
    frame[5:].to_csv("normal.csv", index=False)
    frame.to_parquet("cards.parquet", index=False)
    return tmp_path


def run(capsys, *words):
    code = main([str(word) for word in words])
    shown = capsys.readouterr()
    return code, shown.out, " ".join(shown.err.split())


@pytest.fixture
def model(cards, capsys):
    words = ["fit", "normal.csv", "--drop", "fraud", "--id", "tx", "--detector", "Neighbors"]
    assert run(capsys, *words, "--out", "model")[0] == 0
    return "model"


@pytest.mark.parametrize("name", ["cards.csv", "cards.parquet"])
def test_review__ids_as_written__in_the_page(name, model, capsys):
    words = ["review", model, name, "--id", "tx", "--top", "5", "--out", "page.html"]
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert out.startswith("120 rows scored, ")
    assert "5 explained in " in out
    data = data_of(Path("page.html"))
    assert {row[4] for row in data["rows"]} == {"0000", "0001", "0002", "0003", "0004"}
    assert [data["id"], data["file"]] == ["tx", name]
    assert [column[0] for column in data["columns"]] == ["a", "b", "c"]
    assert cells_of(data)[0][0] == "b"


def test_review__is_decision_function_and_explain(model, cards, capsys):
    assert run(capsys, "review", model, "cards.csv", "--top", "3", "--out", "page.html")[0] == 0
    data = data_of(cards / "page.html")
    X = pd.read_csv("cards.csv")[["a", "b", "c"]]
    scores = deepod.load(model).decision_function(X)
    assert [row[2] for row in data["rows"]] == sorted(scores)[::-1][:3]
    assert [row[4] for row in data["rows"]] == [None] * 3


def test_review__compare_and_reference__as_in_write(model, cards, capsys):
    more = ["--labels", "fraud", "--id", "tx", "--out", "model2"]
    code, _, err = run(capsys, "fit", "cards.csv", *FEW, *more)
    assert (code, err) == (
        0,
        "deepod fit: labels: 2 rows are known anomalies, 1 known to be normal, 117 without a label",
    )
    words = ["review", "--compare", model, "model2", "cards.csv", "--top", "4"]
    more = ["--reference", "cards.parquet", "--out", "page.html"]
    assert run(capsys, *words, *more)[0] == 0
    data = data_of(cards / "page.html")
    X = pd.read_csv("cards.csv")[["a", "b", "c"]]
    before = np.argsort(-deepod.load(model).decision_function(X), kind="stable")[:4] + 1
    found = {row[5]: row[0] for row in data["rows"]}
    assert [found[rank] for rank in range(1, 5)] == before.tolist()


REFUSED = {
    "not .html": (["--out", "page.txt"], "expected the name of a .html file"),
    "top": (["--top", "0"], "--top 0"),
    "id": (["--id", "nonsense"], "--id nonsense: there is no column 'nonsense'"),
    "id that was trained on": (["--id", "a"], "fit a model without it: deepod fit --id a"),
    "id that repeats": (["--id", "fraud"], "each row needs an id of its own"),
    "compare": (["--compare", "nonsense"], "MODEL nonsense: there is no such"),
    "reference": (["--reference", "nonsense.csv"], "--reference nonsense.csv: there is no such"),
}


@pytest.mark.parametrize(("words", "said"), REFUSED.values(), ids=REFUSED)
def test_review__bad_option__named_and_nothing_written(words, said, model, cards, capsys):
    frame = pd.read_csv("cards.csv").assign(fraud=1)
    frame.to_csv("cards.csv", index=False)
    code, out, err = run(capsys, "review", model, "cards.csv", "--out", "page.html", *words)
    assert (code, out) == (1, "")
    assert said in err
    assert not (cards / "page.html").exists()


def test_review__series_windows_images__refused(cards, capsys):
    RidgeAR().fit(np.random.default_rng(0).normal(size=(300, 3))).save("series")
    assert (
        "use deepod plot to draw a series"
        in run(capsys, "review", "series", "cards.csv", "--out", "page.html")[2]
    )
    np.save("windows.npy", np.zeros((40, 6, 2)) + np.arange(40)[:, None, None])
    assert run(capsys, "fit", "windows.npy", "--detector", "Neighbors", "--out", "w")[0] == 0
    err = run(capsys, "review", "w", "windows.npy", "--out", "page.html")[2]
    assert "not windows or images" in err


# --- marks ----------------------------------------------------------------------------------------


def labels_given(monkeypatch):
    """Have fits of AnoRand note their y."""
    given = []
    fit = deepod.AnoRand.fit
    monkeypatch.setattr(
        deepod.AnoRand, "fit", lambda self, X, y=None: given.append(y) or fit(self, X, y)
    )
    return given


@pytest.mark.parametrize("train", ["cards.csv", "cards.parquet"])
def test_fit__marks_by_id__joined_as_written(train, cards, capsys, monkeypatch):
    (cards / "marks.csv").write_text("tx,label,score\n0007,1,3.5\n0003,0,2.5\n0119,,1\n0010,1,1\n")
    given = labels_given(monkeypatch)
    words = ["--drop", "fraud", "--labels", "marks.csv", "--id", "tx", "--out", "model2"]
    code, _, err = run(capsys, "fit", train, *FEW, *words)
    assert code == 0, err
    assert "2 rows are known anomalies, 1 known to be normal, 117 without a label" in err
    assert np.flatnonzero(given[0]).tolist() == [7, 10]
    assert deepod.load("model2").feature_names_in_.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("train", ["cards.csv", "cards.parquet", "cards.npy"])
def test_fit__marks_by_row__counted_from_one(train, cards, capsys, monkeypatch):
    np.save("cards.npy", pd.read_csv("cards.csv")[["a", "b", "c"]].to_numpy())
    marked = f"row,label,score,file\n120,1,3.5,{train}\n1,1,3,{train}\n2,0,2.5,{train}\n"
    (cards / "marks.csv").write_text(marked)
    given = labels_given(monkeypatch)
    drop = [] if train.endswith("npy") else ["--drop", "fraud,tx"]
    words = [*drop, "--labels", "marks.csv", "--out", "model2"]
    code, _, err = run(capsys, "fit", train, *FEW, *words)
    assert code == 0, err
    assert np.flatnonzero(given[0]).tolist() == [0, 119]


@pytest.mark.parametrize("train", ["cards.csv", "cards.parquet"])
def test_fit__column_of_labels__is_no_feature(train, cards, capsys, monkeypatch):
    given = labels_given(monkeypatch)
    words = ["--labels", "fraud", "--id", "tx", "--out", "model2"]
    code, _, err = run(capsys, "fit", train, *FEW, *words)
    assert code == 0, err
    assert np.flatnonzero(given[0]).tolist() == [0, 1]
    assert deepod.load("model2").feature_names_in_.tolist() == ["a", "b", "c"]


ID, ROW = ["--id", "tx"], []
BAD_MARKS = {
    "id, another form": ("tx,label\n12,1\n", ID, "no row with the tx '12'"),
    "ids, many": (
        "tx,label\n" + "".join(f"x{i},1\n" for i in range(7)),
        ID,
        "'x0', 'x1', 'x2', 'x3', 'x4' and 2 more",
    ),
    "id twice": ("tx,label\n0001,1\n0001,0\n", ID, "some occur twice: '0001' (rows 1 and 2)"),
    "id missing": ("tx,label\n0001,1\n,0\n", ID, "there is no id in row 2"),
    "no ids": ("who,label\n0001,1\n", ID, "there is no column 'tx'"),
    "by row": ("row,label\n1,1\n", ID, "use --drop tx instead of --id tx"),
    "by id": ("tx,label\n0001,1\n", ROW, "Name the one that holds ids"),
    "row 0": ("row,label\n0,1\n", ROW, "numbers of rows must be from 1 to 120"),
    "row beyond": ("row,label\n121,1\n", ROW, "got 121"),
    "row, text": ("row,label\n1.5,1\n", ROW, "got 1.5"),
    "row twice": ("row,label\n1,1\n1,1\n", ROW, "some occur twice: '1'"),
    "of another file": ("row,label,file\n1,1,new.csv\n", ROW, "rows of new.csv"),
    "label, a word": ("tx,label\n0001,yes\n", ID, "row 1: expected the label 1 (anomaly)"),
    "label, -1": ("tx,label\n0001,1\n0002,-1\n", ID, "row 2: expected the label 1 (anomaly)"),
    "no labels": ("tx,score\n0001,1\n", ID, "there is no column 'label'"),
    "no anomaly": ("tx,label\n0001,0\n0002,\n", ID, "no row is labelled 1"),
    "a short line": ("tx,label\n0001,1\n0002\n", ID, "row 2 has 1 values, but there are 2"),
    "nothing": ("", ID, "the file is empty"),
}


@pytest.mark.parametrize(("text", "words", "said"), BAD_MARKS.values(), ids=BAD_MARKS)
def test_fit__bad_marks__refused_by_name(text, words, said, cards, capsys):
    (cards / "marks.csv").write_text(text)
    drop = ["--drop", "fraud" if words else "fraud,tx"]
    words = [*words, *drop, "--labels", "marks.csv", "--out", "model2"]
    code, out, err = run(capsys, "fit", "cards.csv", *FEW, *words)
    assert (code, out) == (1, "")
    assert "--labels marks.csv: " in err
    assert said in err
    assert not (cards / "model2").exists()


def test_fit__ids_of_the_table_twice__refused(cards, capsys):
    pd.read_csv("cards.csv", dtype=str).assign(tx=["7"] * 120).to_csv("cards.csv", index=False)
    (cards / "marks.csv").write_text("tx,label\n7,1\n")
    words = ["--id", "tx", "--drop", "fraud", "--labels", "marks.csv", "--out", "model2"]
    code, _, err = run(capsys, "fit", "cards.csv", *FEW, *words)
    assert code == 1
    assert (
        "cards.csv, column 'tx': each row needs an id of its own, but some occur twice: '7'" in err
    )


UNUSED = {
    "Consensus": ([], "Consensus would not use the labels"),
    "AutoEncoder": (["--detector", "AutoEncoder"], "AutoEncoder would not use the labels"),
    "AnoRand": (["--detector", "AnoRand"], "--set supervision=few_labels"),
    "of series": (["--detector", "RidgeAR"], "RidgeAR would not use the labels"),
}


@pytest.mark.parametrize(("words", "said"), UNUSED.values(), ids=UNUSED)
def test_fit__labels_that_nobody_reads__refused_with_a_remedy_that_works(
    words, said, cards, capsys
):
    rest = ["--id", "tx", "--labels", "fraud", "--out", "model2"]
    code, _, err = run(capsys, "fit", "cards.csv", *words, *rest)
    assert code == 1
    assert said in err
    remedy = re.search("add (--detector AnoRand --set supervision=few_labels)", err)[1].split()
    assert run(capsys, "fit", "cards.csv", *remedy, "--set", "epochs=1", *rest)[0] == 0


@pytest.mark.parametrize("words", [["--labels", "fraud"], ["--labels", "m.csv", "--id", "tx"]])
def test_fit__names_of_columns_for_npy__refused(words, cards, capsys):
    np.save("cards.npy", TABLE)
    (cards / "m.csv").write_text("tx,label\n1,1\n")
    code, _, err = run(capsys, "fit", "cards.npy", *FEW, *words, "--out", "model2")
    assert code == 1
    assert f"deepod fit: {' '.join(words[-2:])}: a .npy file has no column names" in err
    (cards / "m.csv").write_text("row,label\n1,1\n")  # what the error says instead
    words = ["--labels", "m.csv", "--out", "model2"]
    assert run(capsys, "fit", "cards.npy", *FEW, *words)[0] == 0


def test_fit__supervision_without_labels_or_with_too_few__refused(cards, capsys):
    words = ["fit", "cards.csv", "--drop", "fraud", "--id", "tx", "--out", "model2"]
    assert "needs labels: add --labels" in run(capsys, *words, *FEW)[2]
    supervised = [*QUICK, "--set", "supervision=supervised", "--labels", "fraud"]
    words = ["fit", "cards.csv", "--id", "tx", "--out", "model2"]
    err = run(capsys, *words, *supervised)[2]
    assert "117 have none; use --set supervision=few_labels" in err


def test_marks__quotes_and_breaks_in_ids__as_written(tmp_path):
    ids = ['a "b", c', "two\nlines", " blank ", "0012", "é"]
    pd.DataFrame({"id": ids}).to_csv(tmp_path / "ids.csv", index=False)
    assert marks.read_text(tmp_path / "ids.csv", ["id"])["id"] == ids
