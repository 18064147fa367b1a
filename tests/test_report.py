"""Reports: numbers by hand, tables read back, a page that is whole and needs no network."""

import json
import re
import shutil
import subprocess
import sys
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("scikit_posthocs")
matplotlib = pytest.importorskip("matplotlib")
from sklearn.metrics import roc_auc_score  # noqa: E402

from deepod import bench  # noqa: E402
from deepod.bench import rows, runner  # noqa: E402
from deepod.bench.reporting import figures, tables  # noqa: E402
from deepod.cli import main  # noqa: E402

VOID = {"meta", "wbr", "br", "img", "link", "input"}
HOSTILE = '<script>alert("1")</script>'
NAMES = ["PLAD", "AutoEncoder", "pyod:KNN", "pyod:IForest"]


def cell(dataset, detector, seed, protocol="one-class"):
    return rows.Cell(protocol, dataset, detector, seed)._asdict() | {
        "commit": "abc",
        "device": "cpu",
    }


def failed(dataset, detector, seed, error="ValueError: no"):
    return cell(dataset, detector, seed) | {"error": error, "device": None}


def tiny(*extra):
    """Two detectors, two datasets, two seeds."""
    values = {"a": {"x": (0.5, 0.7), "y": (0.9, 0.9)}, "b": {"x": (0.8, 0.8), "y": (0.8, 0.6)}}
    found = [
        cell(data, name, seed) | {
            "auc_roc": value, "auc_pr": 0.1, "f1": 0.2, "false_alarms": 1 - value,
            "fit_seconds": 1.0 + seed, "score_seconds": 0.5,
        }
        for name, of_name in values.items()
        for data, of_data in of_name.items()
        for seed, value in enumerate(of_data)
    ]  # fmt: skip
    return found + list(extra)


def test_series__per_data_set_by_hand():
    values = {"A/one": 0.2, "A/two": 0.4, "B/one": 0.9}
    found = [
        cell(name, detector, seed, "series") | {"vus_pr": value + seed / 10 - lower}
        for name, value in values.items()
        for detector, lower in (("b", 0.1), ("a", 0.0))
        for seed in (0, 1)
    ]
    table = tables.per_data_set(tables.frame(found), "vus_pr")
    assert list(table.index) == ["a", "b"]
    assert table.loc["a"].to_dict() == pytest.approx({"A": 0.35, "B": 0.95, "mean": 0.65})
    summary = tables.summary(tables.frame(found), "vus_pr")
    assert summary.loc["a", "mean"] == pytest.approx(0.55)  # over the series


def test_report__one_name_for_two_datasets__refused():
    first, *others = tiny()
    known = [first | {"data": "one"}, *(row | {"data": "one"} for row in others[:3]), *others[3:]]
    assert bench.report(known)  # rows of older versions do not say
    with pytest.raises(ValueError, match="dataset 'x' come from different"):
        bench.report([first | {"data": "two"}, *known[1:]])


def study(detectors=NAMES, datasets=6, seeds=2, protocol="one-class", **more):
    """Results in which the first detector is the best on every dataset, and so on."""
    rng = np.random.default_rng(0)
    names = [f"{i}_set{i}" for i in range(datasets)] if isinstance(datasets, int) else datasets
    return [
        cell(data, name, seed, protocol) | {
            "auc_roc": 0.65 - 0.6 * i / len(detectors) + rng.uniform(0, 0.3 / len(detectors)),
            "auc_pr": 0.5, "f1": 0.5, "false_alarms": 0.1, "fit_seconds": 0.1 * 2.0**i,
            "score_seconds": 0.01, "n_train": 100, "n_test": 80, "n_features": 3,
            "anomaly_share": 0.1, "train_anomaly_share": 0.0, "copies": 0.0, "clean": True,
            "stacked": 1, "versions": {"torch": "2.0"},
        } | more
        for data in names
        for i, name in enumerate(detectors)
        for seed in range(seeds)
    ]  # fmt: skip


def save(path, found):
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def keep_scores(path, found):
    """As ``--keep-scores`` does."""
    rng = np.random.default_rng(0)
    for row in found:
        y = (np.arange(60) % 6 == 0).astype(np.int8)
        file = runner.scores_file(path.with_name(path.name + ".scores"), rows.cell_of(row))
        file.parent.mkdir(exist_ok=True)
        np.savez(file, y=y, scores=rng.normal(size=60) + y)


class Page(HTMLParser):
    """Tags, texts and attributes of a page; tags that are not closed in order are an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.values, self.ids, self.texts = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.values += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "title"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def written(results, tmp_path, **options):
    bench.report(results, tmp_path / "out", **options)
    return Page((tmp_path / "out" / "index.html").read_text())


# --- numbers --------------------------------------------------------------------------------------


def test_summary__by_hand():
    common, missing = tables.split_common(tables.frame(tiny()))
    assert not len(missing)
    table = tables.summary(common, "auc_roc")
    # a: x 0.6, y 0.9; b: x 0.8, y 0.7. Over seeds a: 0.7, 0.8; b: 0.8, 0.7.
    assert table["mean"].to_dict() == pytest.approx({"a": 0.75, "b": 0.75})
    assert table["std"].to_dict() == pytest.approx({"a": 0.005**0.5, "b": 0.005**0.5})
    assert table["rank"].to_dict() == pytest.approx({"a": 1.5, "b": 1.5})
    assert table.loc["a", ["datasets", "seeds", "fit_seconds", "score_seconds"]].tolist() == [
        2, 2, 1.5, 0.5,
    ]  # fmt: skip
    assert tables.per_dataset(common, "auc_roc").loc["x"].to_dict() == pytest.approx(
        {"a": 0.6, "b": 0.8}
    )


def test_summary__false_alarms__fewer_are_better():
    results = [row | {"false_alarms": 0.1 if row["detector"] == "b" else 0.3} for row in tiny()]
    table = tables.summary(tables.frame(results), "false_alarms")
    assert table["rank"].to_dict() == {"b": 1.0, "a": 2.0}
    assert list(table.index) == ["b", "a"]


def test_report__what_not_all_have__left_out():
    # c fails on y and has not run x, seed 1: only x, seed 0 is left.
    c = tiny()[0] | {"detector": "c", "auc_roc": 0.65}
    extra = [c, failed("y", "c", 0), failed("y", "c", 1)]
    text = bench.report(tiny(*extra), per_dataset=True)
    assert "| b | 0.800 | nan | 1.000 | 1 | 1 | 1.000 | 0.500 |" in text
    assert "| c | 0.650 | nan | 2.000 | 1 | 1 | 1.000 | 0.500 |" in text
    assert "| x | 0.500 | 0.800 | 0.650 |" in text
    assert "Left out: 3 of 4 pairs" in text
    assert "- c, ValueError: no (y 0, 1)" in text
    assert "- c, not run (x 1)" in text


def test_report__several_lack_the_same__one_line():
    extra = [failed("y", "c", 0), failed("y", "d", 0), failed("y", "e", 0, error="other")]
    text = bench.report(tiny(*extra))
    assert "- c, d, ValueError: no (y 0)" in text
    assert "- e, other (y 0)" in text
    assert "- c, d, e, not run (x 0, 1; y 1)" in text


def test_report__nothing_in_common__said(tmp_path):
    text = bench.report([failed("x", "a", 0)], tmp_path / "out")
    assert "Left out: 1 of 1" in text
    assert "mean" not in text
    assert "ValueError: no (x 0)" in (tmp_path / "out" / "index.html").read_text()


def test_report__metric_that_older_rows_lack__left_out(tmp_path):
    older = [{k: v for k, v in row.items() if k != "false_alarms"} for row in tiny()]
    page = written(older, tmp_path)
    assert "nan" not in page.text
    text = bench.report([*older[:4], *tiny()[4:]], metric="false_alarms")
    assert "Left out: 4 of 4 pairs" in text
    assert "- a, no false_alarms recorded (x 0, 1; y 0, 1)" in text


def test_report__protocols_and_caps__never_mixed():
    others = [row | {"protocol": "unsupervised"} for row in tiny()]
    capped = [row | {"max_train": 20} for row in tiny()]
    text = bench.report([*tiny(), *others, *capped])
    assert re.findall("^## .*$", text, re.MULTILINE) == [
        "## one-class: auc_roc",
        "## unsupervised: auc_roc",
        "## one-class: auc_roc, at most 20 training rows",
    ]
    assert text.count("Left out: 0 of 4") == 3


def test_report__groups_of_datasets__never_mixed(tmp_path):
    others = [row | {"dataset": f"odd/{row['dataset']}", "auc_roc": 0.25} for row in tiny()]
    text = bench.report([*tiny(), *others])
    assert re.findall("^## .*$", text, re.MULTILINE) == [
        "## one-class: auc_roc",
        "## one-class, odd: auc_roc",
    ]
    assert "| a | 0.750 |" in text
    assert "| a | 0.250 |" in text
    page = written([*tiny(), *others], tmp_path)
    assert "one-class, odd" in page.text
    assert (tmp_path / "out" / "2-one-class-odd-summary.csv").is_file()


def test_report__same_cell_in_two_files__the_last_counts(tmp_path):
    old, new = save(tmp_path / "old", tiny()), save(tmp_path / "new", tiny())
    save(new, [row | {"auc_roc": 0.25} for row in tiny()])
    assert "| a | 0.250 |" in bench.report([old, new])
    assert "| a | 0.750 |" in bench.report([new, old])


def test_ranks__order_of_rows__does_not_break_ties():
    # The same five values, in another order: their means are equal, though not their sums.
    values = [0.6, 0.3, 0.0, 0.0, 0.8]
    rows = [
        tiny()[0] | {"detector": name, "seed": seed, "auc_roc": value}
        for name, of_name in {"a": values, "b": sorted(values), "c": values[::-1]}.items()
        for seed, value in enumerate(of_name)
    ]
    for found in (rows, rows[::-1]):
        assert set(tables.summary(tables.frame(found), "auc_roc")["rank"]) == {2.0}


def test_overview__metric_that_some_rows_of_a_detector_lack__not_compared():
    found = [*tiny(), *({**row, "detector": "c"} for row in tiny()[:4])]
    del found[-1]["false_alarms"]
    table = tables.overview(tables.frame(found), "auc_roc")
    assert table["false_alarms_mean"].isna().to_dict() == {"a": False, "b": False, "c": True}
    assert table["auc_roc_mean"].notna().all()
    assert table["false_alarms_rank"].dropna().to_dict() == pytest.approx({"a": 1.5, "b": 1.5})


def test_differences__by_hand():
    table = tables.differences(tables.frame(tiny()), "a")
    # a - b in AUC-ROC: x -0.2, y +0.2; in AUC-PR they are equal.
    columns = ["metric", "difference", "low", "high", "wins", "losses", "datasets"]
    assert list(table.columns) == columns
    assert table.index.tolist() == ["b", "b"]
    assert table.iloc[0].tolist() == [
        "AUC-ROC",
        0,
        pytest.approx(-0.2),
        pytest.approx(0.2),
        1,
        1,
        2,
    ]
    assert table.iloc[1].tolist() == ["AUC-PR", 0, 0, 0, 0, 0, 2]


def test_differences__many_datasets__interval_as_the_normal_one():
    rng, n = np.random.default_rng(0), 200
    ahead = rng.normal(0.02, 0.1, n)
    found = [
        cell(f"set{i}", name, 0) | {"auc_roc": 0.5 + (name == "a") * ahead[i], "auc_pr": 0.5}
        for name in "ab"
        for i in range(n)
    ]
    row = tables.differences(tables.frame(found), "a").iloc[0]
    assert row["difference"] == pytest.approx(ahead.mean())
    half = 1.96 * ahead.std() / n**0.5
    assert row["low"] == pytest.approx(ahead.mean() - half, abs=0.05 * half)
    assert row["high"] == pytest.approx(ahead.mean() + half, abs=0.05 * half)
    assert row["wins"] == (ahead > 0).sum()
    back = tables.differences(tables.frame(found), "b").iloc[0]
    assert back[["low", "high"]].tolist() == pytest.approx([-row["high"], -row["low"]])


def test_differences__one_dataset__no_interval():
    table = tables.differences(tables.frame([r for r in tiny() if r["dataset"] == "x"]), "b")
    assert table["difference"].tolist() == pytest.approx([0.2, 0])
    assert table[["low", "high"]].isna().all(axis=None)
    text = bench.report([r for r in tiny() if r["dataset"] == "x"], differences_of="b")
    assert "| a | AUC-ROC | +0.200 | nan | nan | 1 | 0 | 1 |" in text


def test_differences__metric_that_one_lacks__no_line():
    found = [*tiny(), *({**row, "detector": "c"} for row in tiny()[:4])]
    del found[-1]["auc_pr"]
    table = tables.differences(tables.frame(found), "a")
    assert [*zip(table.index, table["metric"], strict=True)] == [
        ("b", "AUC-ROC"), ("c", "AUC-ROC"), ("b", "AUC-PR"),
    ]  # fmt: skip


def test_report__differences__in_markdown_and_page(tmp_path):
    found = [*tiny(), *(row | {"dataset": f"odd/{row['dataset']}"} for row in tiny()[:4])]
    options = {"rename": {"a": "<A>"}, "differences_of": "<A>"}
    text = bench.report(found, tmp_path / "out", **options)
    assert r"| \<A> minus | metric | difference | low | high | wins | losses | datasets |" in text
    assert "| b | AUC-ROC | +0.000 | -0.200 | +0.200 | 1 | 1 | 2 |" in text
    assert text.count(tables.NO_DIFFERENCES) == 1  # in the group where it is alone
    page = Page((tmp_path / "out" / "index.html").read_text())
    check_whole(page, tmp_path / "out")
    assert "AUC-ROC +0.0 -20.0 +20.0 1 1 2" in page.text
    back = pd.read_csv(tmp_path / "out" / "1-one-class-differences.csv")
    assert back["high"].tolist() == pytest.approx([0.2, 0])


def test_compare__clear_order__friedman_and_nemenyi():
    scores = tables.per_dataset(tables.frame(study(datasets=8)), "auc_roc")
    found = tables.compare(scores, "auc_roc")
    assert found.ranks.to_dict() == {name: i + 1 for i, name in enumerate(NAMES)}
    # Friedman by hand: 12 n / (k (k + 1)) * sum of squares of (rank - 2.5) = 24, 3 degrees.
    assert found.friedman == pytest.approx(2.4977e-5, rel=1e-3)
    # Demsar's table: q = 2.569 for 4 detectors, times sqrt(4 * 5 / (6 * 8)).
    assert found.difference == pytest.approx(2.569 * (20 / 48) ** 0.5, rel=1e-3)
    assert found.pairs.loc["PLAD", "pyod:IForest"] < tables.ALPHA < found.pairs.loc[*NAMES[:2]]


def test_compare__wilcoxon_holm__by_scipy():
    from scipy.stats import wilcoxon

    names = NAMES[:3]
    scores = tables.per_dataset(tables.frame(study(names, datasets=8)), "auc_roc")
    found = tables.compare(scores, "auc_roc", "wilcoxon-holm")
    raw = wilcoxon(scores["PLAD"], scores["pyod:KNN"]).pvalue  # 2 / 2**8, for all three pairs
    assert found.pairs.loc["PLAD", "pyod:KNN"] == pytest.approx(3 * raw)
    assert found.difference is None


def test_compare__no_clear_order__no_pair_is_tested():
    values = np.random.default_rng(0).random((6, 3))
    found = tables.compare(pd.DataFrame(values, columns=list("abc")), "auc_roc")
    assert found.friedman > tables.ALPHA
    assert (found.pairs == 1).all(axis=None)
    assert found.difference is None


def test_compare__equal_detectors__no_ranks_to_draw():
    scores = pd.DataFrame(0.5, index=list("uvwxyz"), columns=list("abc"))
    found = tables.compare(scores, "auc_roc")
    assert found.ranks is None
    assert "same mean rank" in found.reason


@pytest.mark.parametrize(("k", "n"), [(2, 6), (3, 4)])
def test_report__too_few_for_ranks__says_why(k, n, tmp_path):
    page = written(study(NAMES[:k], datasets=n), tmp_path)
    assert f"needs 3 detectors and 5 datasets or more, and these are {k} and {n}" in page.text


def test_pareto__ties_and_beaten():
    assert tables.pareto([1, 2, 3, 3, 1], [0.5, 0.4, 0.9, 0.8, 0.5]).tolist() == [
        True, False, True, False, True,
    ]  # fmt: skip


# --- names ----------------------------------------------------------------------------------------


def test_rename__short_name_everywhere(tmp_path):
    found = study(NAMES[1:3], datasets=2)
    text = bench.report(found, tmp_path / "out", rename={"pyod:KNN": "KNN"})
    assert "| KNN |" in text
    shown = (tmp_path / "out" / "index.html").read_text()
    assert "pyod:KNN" not in shown.replace("<wbr>", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rename": {"c": "d"}}, "rename: the results have no 'c'; they have a, b"),
        ({"rename": {"a": "b"}}, "same name"),
        ({"detectors": ["c"]}, "detectors: the results have no 'c'"),
        ({"detectors": []}, "there are no results of these"),
        ({"detectors": "a"}, "detectors: expected a list of names, got 'a'"),
        ({"datasets": ["z"]}, "datasets: the results have no 'z'"),
        ({"dataset": "z"}, "datasets: the results have no 'z'"),
        ({"differences_of": "z"}, "detectors: the results have no 'z'"),
        ({"metric": "auc"}, "metric must be one of auc_roc"),
        ({"test": "t"}, "test must be one of nemenyi"),
        ({"reference": "some.csv"}, "got none"),
        ({"reference": {"published-semi": "some.csv"}}, "no results of the protocol"),
    ],
)
def test_report__bad_argument__named(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        bench.report(tiny(), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_report__detector_and_dataset_that_never_met__refused():
    with pytest.raises(ValueError, match="there are no results of these"):
        bench.report([*tiny(), failed("z", "c", 0)], detectors=["a"], datasets=["z"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"auc_roc": 75.0}, "b on y, seed 1: auc_roc must be from 0 to 1, got 75.0"),
        ({"auc_pr": float("inf")}, "auc_pr must be from 0 to 1"),
        ({"f1": "0.5"}, "f1 must be a number, got '0.5'"),
        ({"fit_seconds": "1 s"}, "fit_seconds must be a number"),
        ({"dataset": 5}, "dataset must be text, got 5"),
        ({"seed": "0"}, "seed must be a whole number"),
        ({"max_train": True}, "max_train must be a whole number"),
    ],
)
def test_report__row_of_another_make__refused(change, message, tmp_path):
    found = [*tiny()[:-1], tiny()[-1] | change]
    path = tmp_path / "r.jsonl"
    for results in (found, save(path, found)):
        with pytest.raises(ValueError, match=message):
            bench.report(results)


def test_report__share_above_one_by_rounding__accepted():
    found = [row | {"auc_pr": np.nextafter(1, 2)} for row in tiny()]
    assert "| a | 0.750 |" in bench.report(found)


def test_report__rows_of_another_benchmark__refused():
    with pytest.raises(ValueError, match="a row has no 'protocol'"):
        bench.report([{"section": "fit", "seconds": 1.0}])


def test_report__last_line_whole_but_not_ended__counts(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(map(json.dumps, tiny())))
    assert bench.report(path) == bench.report(tiny())
    path.write_text(path.read_text()[:-1])
    assert "Left out: 1 of 4" in bench.report(path)


def test_report__no_rows__refused(tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        bench.report(save(tmp_path / "empty", []))


# --- the page -------------------------------------------------------------------------------------


def check_whole(page, folder):
    """No network, no id twice, every link to something that is there."""
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids))
    for _tag, name, value in page.values:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "action"):
            found = value[1:] in page.ids if value[0] == "#" else (folder / value).is_file()
            assert found, value
        for target in re.findall(r"url\(([^)]*)\)", value):
            assert target[1:] in page.ids
        if name == "aria-labelledby":
            assert value in page.ids


def test_page__all_parts(tmp_path):
    path = save(tmp_path / "r.jsonl", study())
    keep_scores(path, study())
    page = written(path, tmp_path)
    check_whole(page, tmp_path / "out")
    assert page.tags.count("svg") == 5  # ranks, heat map, time, curves, histograms
    headings = ["Summary", "Ranks", "Datasets", "Time and quality", "Curves and scores", "Left out"]
    assert all(heading in page.text for heading in headings)
    assert "Half of the normal rows train." in page.text
    assert "4 detectors, 6 datasets, 2 seeds" in page.text
    assert "Friedman's test that all rank alike: p = 0.0004" in page.text
    assert "torch 2.0" in page.text
    assert "Warning" not in page.text
    for name in NAMES:  # as text in every figure
        assert sum(text.strip().startswith(name) for text in page.texts) >= 4


def test_page__hostile_names__escaped(tmp_path):
    names = [HOSTILE, "$\\frac{$", "{rank}", "_x|y"]
    datasets = [HOSTILE, '"><img src=x onerror=alert(1)>', "$\\frac{$", "--><b>", "../../etc"]
    found = study(names, datasets, seeds=1, commit=HOSTILE, device=HOSTILE)
    found = [row | {"versions": {HOSTILE: HOSTILE}, "stacked": 2} for row in found]
    found += [row | {"protocol": f"../{HOSTILE}"} for row in found[:4]]
    found += [failed(HOSTILE, HOSTILE, 7, error=HOSTILE)]
    path = save(tmp_path / "r.jsonl", found)
    keep_scores(path, found[:4])
    page = written(path, tmp_path)
    check_whole(page, tmp_path / "out")
    assert "b" not in page.tags
    assert page.text.count(HOSTILE) > 10
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "r.jsonl", "r.jsonl.scores"]
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "| \\<script>" in markdown
    assert "| _x\\|y |" in markdown


def test_tables__read_back(tmp_path):
    written(tiny(), tmp_path)
    folder = tmp_path / "out"
    summary = pd.read_csv(folder / "1-one-class-summary.csv", index_col="detector")
    assert summary["auc_roc_mean"].to_dict() == pytest.approx({"a": 0.75, "b": 0.75})
    assert summary["false_alarms_rank"].to_dict() == pytest.approx({"a": 1.5, "b": 1.5})
    assert summary.loc["b", ["auc_pr_mean", "fit_seconds", "seeds"]].tolist() == [0.1, 1.5, 2]
    scores = pd.read_csv(folder / "1-one-class-auc_roc-per-dataset.csv", index_col="dataset")
    assert scores.loc["y"].to_dict() == pytest.approx({"a": 0.9, "b": 0.7})
    assert (folder / "report.md").read_text() == bench.report(tiny()) + "\n"


def test_page__rows_that_are_not_clean__warning(tmp_path):
    found = study(NAMES[:2], 2, clean=False, protocol="transductive", stacked=5)
    page = written(found, tmp_path)
    assert "8 of 8 rows are not clean" in page.text
    assert ("p", "class", "box warning") in page.values
    assert "5 seeds of AutoEncoder, PLAD" in page.text
    assert "Not clean" in (tmp_path / "out" / "report.md").read_text()


def test_page__older_rows__unknown(tmp_path):
    page = written(tiny(), tmp_path)
    assert "8 rows are from an older version" in page.text
    assert "not clean" not in page.text


def test_page__scores_of_one_dataset(tmp_path):
    found = study(NAMES[:2], datasets=3)
    path = save(tmp_path / "r.jsonl", found)
    keep_scores(path, [row for row in found if row["dataset"] != "0_set0"])
    page = written(path, tmp_path)
    differ = tables.per_dataset(tables.frame(found), "auc_roc").loc[["1_set1", "2_set2"]]
    most = (differ.max(axis=1) - differ.min(axis=1)).idxmax()
    assert f"{most}, seed 0. Of the datasets with kept scores" in page.text
    less = differ.index.drop(most)[0]
    assert f"{less}, seed 0. Grey" in written(path, tmp_path, dataset=less).text
    without = written(path, tmp_path, dataset="0_set0")
    assert "On 0_set0: No scores are kept" in without.text
    assert "--keep-scores" in without.text


@pytest.mark.parametrize("damage", ["half", "other", "nan"])
def test_page__damaged_scores__said(damage, tmp_path):
    found = study(NAMES[:3], datasets=1, seeds=1)
    path = save(tmp_path / "r.jsonl", found)
    keep_scores(path, found)
    files = [runner.scores_file(tmp_path / "r.jsonl.scores", rows.cell_of(row)) for row in found]
    y, scores = np.arange(60) % 2, np.arange(60.0)
    ways = {
        "half": lambda file: file.write_bytes(file.read_bytes()[:200]),
        "other": lambda file: np.savez(file, a=y),
        "nan": lambda file: np.savez(file, y=y, scores=scores * np.nan),
    }
    ways[damage](files[0])
    page = written(path, tmp_path)
    assert "No readable scores are kept for PLAD." in page.text
    assert page.tags.count("svg") == 4  # curves and histograms of the two others
    for file in files:
        ways[damage](file)
    assert "The scores kept for 0_set0 cannot be read" in written(path, tmp_path).text


def test_page__scores_of_an_earlier_run__said(tmp_path):
    found = study(NAMES[:2], datasets=1, seeds=1)
    y, scores = np.arange(60) % 2, np.r_[1.0, 0, np.arange(58)]
    path = tmp_path / "r.jsonl"
    for row in found:
        keep_scores(path, [row])
        np.savez(
            runner.scores_file(tmp_path / "r.jsonl.scores", rows.cell_of(row)), y=y, scores=scores
        )
    areas = {"PLAD": 0.25, NAMES[1]: roc_auc_score(y, scores)}
    save(path, [row | {"auc_roc": areas[row["detector"]]} for row in found])
    assert "scores kept for PLAD are of another run than the tables" in written(path, tmp_path).text


def test_page__letters_that_no_font_here_has__no_warnings(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = written(study(["検出器", "b", "c"], datasets=5, seeds=1), tmp_path)
    assert page.text.count("検出器") >= 4


@pytest.mark.parametrize("name", ["index.html", "report.md"])
def test_out__page_of_the_user__stays(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match=f"out: .*{name} exists and is not of a report"):
        bench.report(tiny(), tmp_path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "mine")]


def test_out__older_report__replaced_and_other_files_stay(tmp_path):
    bench.report(tiny()[:4], tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    text = bench.report(tiny(), tmp_path)
    assert (tmp_path / "report.md").read_text() == text + "\n"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_curves__areas_are_those_of_the_scores():
    y = np.array([0, 0, 0, 1, 1])
    kept = {"a": (y, np.array([1.0, 2, 4, 3, 5])), "b": (y, np.array([1.0, 2, 3, 4, 5]))}
    figure, order = figures.curves(kept, figures.looks({"a": True, "b": False}))
    assert order == ["b", "a"]
    (legend,) = [ax.get_legend() for ax in figure.axes if ax.get_legend()]
    # a: 5 of 6 pairs in order; precision 1 at recall 1/2, and 2/3 at recall 1.
    assert [text.get_text() for text in legend.get_texts()] == [
        "b  100.0 / 100.0",
        "a  83.3 / 83.3",
    ]


def many(k=15, n=33):
    names = [f"Detector{i}" for i in range(k // 2)]
    names += [f"folder/of/many/words/settings.toml:a-section-{i}" for i in range(k - k // 2)]
    return study(names, datasets=n, seeds=1)


def test_time_against_quality__crowded__labels_do_not_overlap():
    # Several detectors at each of a few points.
    found = [row | {"fit_seconds": 1.0, "auc_roc": round(row["auc_roc"], 1)} for row in many(25, 1)]
    table = tables.summary(tables.frame(found), "auc_roc")
    look = figures.looks(dict.fromkeys(table.index, True))
    figure = figures.time_against_quality(table, "AUC-ROC", look, False)
    (ax,) = figure.axes
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text()]
    assert len(boxes) == 25
    overlaps = [box.count_overlaps([b for b in boxes if b is not box]) for box in boxes]
    assert not any(overlaps)


def test_heat_map__sorted__best_is_bold():
    scores = pd.DataFrame({"a": [0.5, 0.9], "b": [0.7, 0.95]}, index=["hard", "easy"])
    figure = figures.heat_map(scores, figures.looks({"a": True, "b": False}), False)
    (ax,) = figure.axes
    shown = [(text.get_text(), text.get_fontweight()) for text in ax.texts]
    assert shown == [("95.0", "bold"), ("90.0", "normal"), ("70.0", "bold"), ("50.0", "normal")]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["easy", "hard"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["b", "a"]


def test_looks__differ__and_ours_stand_out():
    names = {f"ours{i}": True for i in range(20)} | {f"peer{i}": False for i in range(20)}
    look = figures.looks(names)
    assert len({(of.color, of.marker) for of in look.values()}) == 40
    assert {of.weight for name, of in look.items() if name.startswith("ours")} == {"bold"}
    assert look["ours0"].line == "-" != look["peer0"].line


def test_labels__long_names__short_and_still_different():
    one, two = "a/very/long/way/to/settings.toml:plad", "b/very/long/way/to/settings.toml:plad"
    look = figures.looks(dict.fromkeys([one, two, "papers/d.toml:x", "module" * 9], True))
    assert look["papers/d.toml:x"].label == "d.toml:x"
    assert look[one].label != look[two].label
    assert look["module" * 9].label == "…" + "module" * 4


def test_labels__name_of_two_lines__one():
    look = figures.looks({"a\nb": True})
    assert look["a\nb"].label == "a b"


@pytest.mark.parametrize("longest", [1.5, 30.0, 1e9])
def test_time_against_quality__any_range__seconds_can_be_read(longest):
    found = [
        row | {"fit_seconds": 1.0 if row["detector"] == "PLAD" else longest} for row in study()
    ]
    table = tables.summary(tables.frame(found), "auc_roc")
    look = figures.looks(dict.fromkeys(table.index, True))
    figure = figures.time_against_quality(table, "AUC-ROC", look, False)
    figure.draw_without_rendering()
    (ax,) = figure.axes
    low, high = ax.get_xlim()
    places = [tick.get_loc() for tick in ax.xaxis.get_major_ticks()]
    assert sum(low <= place <= high for place in places) >= 2


def test_page__again_under_other_settings_of_the_user__same_bytes(tmp_path):
    found = study(NAMES[:3], seeds=1)
    bench.report(found, tmp_path / "plain")
    with matplotlib.rc_context({"text.usetex": True, "figure.facecolor": "black"}):
        before = dict(matplotlib.rcParams)
        bench.report(found, tmp_path / "own")
        assert dict(matplotlib.rcParams) == before
    for file in (tmp_path / "plain").iterdir():
        assert file.read_bytes() == (tmp_path / "own" / file.name).read_bytes()


def test_report__no_warnings(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = study(NAMES[:3], seeds=1)
        bench.report(found, tmp_path / "one", test="wilcoxon-holm")
        needed = {*rows.Cell._fields, *tables.METRICS, "fit_seconds", "score_seconds"}
        bare = [{k: v for k, v in row.items() if k in needed} for row in found[:3]]
        bench.report(bare, tmp_path / "two", metric="false_alarms")


# --- published figures ----------------------------------------------------------------------------


PUBLISHED = "dataset,KNN,New\nset0,99,10\nSet1,98,10\nset2,97,10\nelsewhere,1,99\n"


def test_reference__by_hand(tmp_path):
    file = tmp_path / "known.csv"
    file.write_text(PUBLISHED)
    found = study(["PLAD"], datasets=3, protocol="published-semi", clean=False, auc_roc=0.8)
    scores, means = tables.with_published(tables.frame(found), file)
    assert list(scores.index) == ["set0", "set1", "set2"]
    assert means["mean"].to_dict() == pytest.approx(
        {"KNN (published)": 98, "PLAD": 80, "New (published)": 10}
    )
    assert means["rank"].tolist() == [1, 2, 3]
    assert means["here"].tolist() == [False, True, False]
    page = written(found, tmp_path, reference=file)
    check_whole(page, tmp_path / "out")
    assert "KNN (published) 98.00 1.00 PLAD 80.00 2.00 this run" in page.text
    back = pd.read_csv(tmp_path / "out" / "1-published-semi-published.csv", index_col="dataset")
    assert back.loc["set1", "KNN (published)"] == 98


def test_reference__both_protocols__has_to_be_named(tmp_path):
    file = tmp_path / "known.csv"
    file.write_text(PUBLISHED)
    both = [
        *study(["PLAD"], datasets=3, protocol="published-semi"),
        *study(["PLAD"], datasets=3, protocol="published-unsupervised"),
    ]
    with pytest.raises(ValueError, match="say which one the file is for: published-semi=FILE"):
        bench.report(both, reference=file)
    page = written(both, tmp_path, reference={"published-unsupervised": file})
    assert page.text.count("this run") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,KNN\na,1\n", "There should be a column 'dataset'"),
        ("dataset,KNN\nset0,high\n", "row 1, column 'KNN': expected a number, got 'high'"),
        ("dataset,KNN,New\nset0,99,10,\n", "row 1 has 4 values, but there are 3 columns"),
        ("dataset,KNN\nset0,100.5\n", "column 'KNN' must hold AUC-ROC in percent"),
        ("dataset,KNN\nset0,1\nset0,2\n", "dataset 'set0' is there twice"),
        ("dataset,KNN\nset0,0.9\nset1,0.8\n", "in percent"),
        ("dataset,n,KNN\nset0,1000,90\n", "column 'n' must hold"),
        ("dataset\nset0\n", "one per detector"),
        ("dataset,PLAD\nset0,inf\n", "from 0 to 100"),
        ("", "the file is empty"),
    ],
)
def test_reference__another_kind_of_file__refused(text, message, tmp_path):
    file = tmp_path / "known.csv"
    file.write_text(text)
    found = study(["PLAD"], datasets=3, protocol="published-semi")
    with pytest.raises(ValueError, match=message):
        bench.report(found, tmp_path / "out", reference=file)


def test_reference__gaps__said(tmp_path):
    file = tmp_path / "known.csv"
    file.write_text("dataset,KNN,New\nset0,99,10\nset1,,20\n")
    found = study(["PLAD"], datasets=2, protocol="published-semi")
    page = written(found, tmp_path, reference=file)
    assert "Left out, as they lack some of these: KNN (published)." in page.text
    assert "New (published) 15.00" in page.text


def test_reference__no_page__refused(tmp_path):
    file = tmp_path / "known.csv"
    file.write_text(PUBLISHED)
    found = study(["PLAD"], datasets=3, protocol="published-semi")
    with pytest.raises(ValueError, match="published figures appear only on the page"):
        bench.report(found, reference=file)


def test_reference__nothing_in_common__said(tmp_path):
    file = tmp_path / "known.csv"
    file.write_text("dataset,KNN\nelsewhere,91\n")
    found = study(["PLAD"], datasets=3, protocol="published-semi")
    assert "No dataset is in both" in written(found, tmp_path, reference=file).text


# --- command line ---------------------------------------------------------------------------------


def test_pipe_table__columns_of_text_and_cells_that_are_no_table():
    lines = [["name", "n", "why"], ["a|b", 3, "<i>\n\\"]]
    assert tables.pipe_table(lines, text=(0, 2)).splitlines() == [
        "| name | n | why |",
        "| --- | --: | --- |",
        r"| a\|b | 3 | \<i> \\ |",
    ]


def test_command__markdown_and_page(tmp_path, capsys):
    path = save(tmp_path / "r.jsonl", study())
    out = tmp_path / "out"
    options = ["--metric", "f1", "--per-dataset", "--detectors", "PLAD,pyod:KNN"]
    options += ["--datasets", "0_set0,1_set1", "--rename", "pyod:KNN=KNN", "--out", str(out)]
    assert main(["report", str(path), *options]) == 0
    shown = capsys.readouterr().out
    assert "## one-class: f1\n" in shown
    assert "| KNN |" in shown
    assert "| 1_set1 |" in shown
    assert "2_set2" not in shown
    assert "IForest" not in shown
    assert shown.endswith(f"Page: {out / 'index.html'}\n")
    assert (out / "index.html").is_file()


def test_benchmarks_report__one_group_of_datasets(tmp_path, capsys):
    from benchmarks import report

    path = save(tmp_path / "r.jsonl", study(["PLAD"], ["1_ALOI", "6_cardio"]))
    report.main([str(path), "--datasets", "confirmation", "--per-dataset"])
    shown = capsys.readouterr().out
    assert "1_ALOI" in shown
    assert "6_cardio" not in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["missing.jsonl"], "missing.jsonl"),
        (["r.jsonl", "--detectors", "no"], "detectors: the results have no 'no'"),
        (["r.jsonl", "--out", "r.jsonl"], "r.jsonl"),
        (["broken.jsonl"], "line 1 is not a row"),
        (["r.jsonl", "--reference", "a", "--reference", "b"], "PROTOCOL=FILE"),
    ],
)
def test_command__failure__one_line_and_exit_code_one(
    options, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "r.jsonl", tiny())
    (tmp_path / "broken.jsonl").write_text("{}\n")
    assert main(["report", *options]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("deepod report: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_command__help__example_without_torch():
    code = "import sys; from deepod.cli import main\ntry: main(['report', '--help'])\n"
    code += "except SystemExit: print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "example: deepod report" in run.stdout
    assert run.stdout.endswith("False\n")


# --- in a browser ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_page__in_a_browser(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium or Chrome")
    path = save(tmp_path / "r.jsonl", many())
    keep_scores(path, [row for row in many() if row["dataset"] == "0_set0"])
    bench.report(path, tmp_path / "out")
    address = (tmp_path / "out" / "index.html").as_uri()
    picture = tmp_path / "page.png"
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    flags += "--hide-scrollbars "
    flags += "--disable-background-networking --disable-component-update --window-size=1280,4000"

    def look(*more):
        command = [browser, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}"]
        return subprocess.run(
            [*command, *more, address], capture_output=True, text=True, check=True, timeout=600
        ).stdout

    dom = Page(look("--dump-dom"))
    assert dom.tags.count("svg") == 5
    assert dom.tags.count("figure") == 5
    assert dom.tags.count("tr") == 2 + 15 + 1 + 33
    look(f"--screenshot={picture}")
    from matplotlib.image import imread

    pixels = imread(picture)[..., :3]
    assert pixels.shape[:2] == (4000, 1280)
    inked = (pixels.min(axis=2) < 0.9).mean(axis=1)
    # Something in every sixth of it, and white margins.
    assert all(part.max() > 0.05 for part in np.array_split(inked[:3600], 6))
    assert (pixels[:, :30] > 0.98).all()
    assert (pixels[:, -30:] > 0.98).all()  # nothing sticks out at the right
