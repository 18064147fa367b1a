"""The review page in a browser: Chromium, driven by Playwright (``pip install playwright``)."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepod import review
from deepod.cli import main

from .test_review import EVIL, Sums, data_of

pytestmark = pytest.mark.slow
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZE = {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"needs a browser: {', '.join(NAMES)}")
    with playwright.sync_playwright() as library:
        browser = library.chromium.launch(executable_path=found)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Open pages in a browser of its own; what goes wrong in them fails the test."""
    wrong, asked = [], []
    context = browser.new_context(viewport=SIZE, accept_downloads=True)

    def visit(path, **settings):
        page = context.new_page() if not settings else browser.new_page(**settings)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(Path(path).resolve().as_uri())
        return page

    yield visit
    context.close()
    assert wrong == []
    assert all(url.startswith(("file:", "blob:")) for url in asked)


def rows_in_sight(page):
    return page.eval_on_selector_all(
        "#body .row", "rows => rows.map(r => r.querySelector('.clip').textContent)"
    )


def current(page):
    return page.inner_text("#detail h2")


def downloaded(page, act):
    with page.expect_download() as found:
        act()
    assert found.value.suggested_filename == "marks.csv"
    return found.value.path().read_bytes()


def run(*words):
    assert main([str(word) for word in words]) == 0


@pytest.fixture
def cards(tmp_path, monkeypatch):
    """A folder with cards.csv: two kinds of odd rows, and many that are merely wide."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(1000, 5)), columns=["amount", "hour", "b", "c", "d"])
    frame.loc[::50, "amount"] += 12
    frame.loc[25::50, "hour"] -= 9
    frame.insert(0, "tx", [f"{i:05d}" for i in range(1000)])
    frame.to_csv("cards.csv", index=False)
    return tmp_path


def test_session__mark_download_fit_and_see_what_moved(cards, visit):
    run("fit", "cards.csv", "--id", "tx", "--detector", "Neighbors", "--out", "model")
    words = ["cards.csv", "--id", "tx", "--top", 40, "--out"]
    run("review", "model", *words, "review.html")
    page = visit("review.html")
    ids = [row[4] for row in data_of(Path("review.html"))["rows"]]
    assert current(page) == f"tx {ids[0]}"
    assert page.inner_text("#progress").startswith("0 of 40 marked")

    page.keyboard.press("a")  # goes on to the next row
    page.keyboard.press("n")
    page.keyboard.press("u")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert current(page) == f"tx {ids[4]}"
    page.locator("#body .row", has_text=ids[6]).locator("button.a").click()
    page.locator("#detail button.n").click()
    page.locator("#detail button.a").click()  # another mark in its place
    page.keyboard.press("x")  # and none
    page.locator("#body .row", has_text=ids[7]).locator("button.a").click()
    assert page.inner_text("#progress") == "4 of 40 marked: 2 anomaly, 1 normal, 1 unsure"
    assert page.inner_text("#said") == f"tx {ids[7]}: anomaly"
    page.reload()  # the browser keeps the marks
    assert page.inner_text("#progress").startswith("4 of 40 marked")
    text = downloaded(page, lambda: page.click("#download")).decode()
    found = list(csv.reader(io.StringIO(text)))
    assert found[0] == ["tx", "label", "score"]
    expected = {ids[0]: "1", ids[1]: "0", ids[2]: "", ids[7]: "1"}
    assert {row[0]: row[1] for row in found[1:]} == expected
    scores = {row[4]: row[2] for row in data_of(Path("review.html"))["rows"]}
    assert all(float(row[2]) == scores[row[0]] for row in found[1:])
    assert downloaded(page, lambda: page.keyboard.press("d")).decode() == text

    Path("marks.csv").write_text(text)
    learn = ["--detector", "AnoRand", "--set", "supervision=few_labels", "--set", "epochs=5"]
    run("fit", "cards.csv", "--labels", "marks.csv", "--id", "tx", *learn, "--out", "model2")
    run("review", "--compare", "model", "model2", *words, "moved.html")
    data = data_of(Path("moved.html"))
    new = {row[4] for row in data["rows"] if row[1] <= 40 < row[5]}
    gone = {row[4] for row in data["rows"] if row[5] <= 40 < row[1]}
    assert len(new) == len(gone) > 0
    moved = visit("moved.html")
    # Marks stay with the rows, whatever model shows them.
    assert moved.inner_text("#progress").startswith("4 of ")
    for kind, expected in (("new", new), ("gone", gone)):
        moved.select_option("#moves", kind)
        assert moved.get_attribute("#grid", "aria-rowcount") == str(len(expected) + 1)
        assert set(rows_in_sight(moved)) <= expected


def test_marks__by_row__name_the_file(cards, visit):
    run("fit", "cards.csv", "--drop", "tx", "--detector", "Neighbors", "--out", "model")
    run("review", "model", "cards.csv", "--out", "review.html")
    page = visit("review.html")
    page.keyboard.press("a")
    text = downloaded(page, lambda: page.click("#download")).decode()
    row, _, score, *_ = data_of(Path("review.html"))["rows"][0]
    assert text == f"row,label,score,file\n{row},1,{score!r},cards.csv\n"
    Path("marks.csv").write_text(text)
    few = ["--detector", "AnoRand", "--set", "supervision=few_labels", "--set", "epochs=1"]
    run("fit", "cards.csv", "--drop", "tx", "--labels", "marks.csv", *few, "--out", "model2")


def test_keys__filter_sort_and_groups(cards, visit):
    run("fit", "cards.csv", "--id", "tx", "--detector", "AutoEncoder", "--out", "model")
    run("review", "model", "cards.csv", "--id", "tx", "--top", 40, "--out", "review.html")
    data = data_of(Path("review.html"))
    ids = [row[4] for row in data["rows"]]
    assert len(data["groups"]) > 1
    page = visit("review.html")
    page.keyboard.press("/")
    page.keyboard.type(ids[5])
    page.keyboard.press("Enter")  # back to the rows
    assert rows_in_sight(page) == [ids[5]]
    page.keyboard.press("a")
    page.keyboard.press("/")
    page.keyboard.type("nonsense")  # in place of what was there
    assert page.is_visible("#nothing")
    page.keyboard.press("a")
    page.fill("#filter", "")
    page.keyboard.press("Escape")
    page.keyboard.press("s")  # by id
    assert rows_in_sight(page)[:3] == sorted(ids)[:3]
    page.keyboard.press("r")
    assert rows_in_sight(page)[:3] == sorted(ids)[::-1][:3]
    page.click("#head button:has-text('rank')")
    page.keyboard.press("End")
    assert current(page) == f"tx {ids[-1]}"
    page.keyboard.press("Home")
    page.keyboard.press("g")
    largest = data["groups"][0][1]
    assert page.get_attribute("#grid", "aria-rowcount") == str(largest + 1)
    page.select_option("#marks", "none")
    page.keyboard.press("Tab")
    page.locator("#grid").focus()
    before = int(page.get_attribute("#grid", "aria-rowcount"))
    page.keyboard.press("n")  # leaves the list of rows without marks
    assert page.get_attribute("#grid", "aria-rowcount") == str(before - 1)


def test_hostile_cells__do_not_run(tmp_path, visit):
    columns = {EVIL: [EVIL, "x", "x"], "other": [f"<b>{EVIL}", "y", "y"]}
    ids = [EVIL, '=1+1", "quoted"\nline', " b "]
    path = tmp_path / "page.html"
    review.write(path, Sums(), pd.DataFrame(columns), ids=ids, id_name=f"id {EVIL}", title=EVIL)
    page = visit(path)
    page.keyboard.press("a")
    page.keyboard.press("n")
    page.keyboard.press("u")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.inner_text("h1") == EVIL
    page.keyboard.press("Home")
    assert EVIL in page.inner_text("#detail table")
    text = downloaded(page, lambda: page.keyboard.press("d")).decode()
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert [row[0] for row in read] == [f"id {EVIL}", *ids]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """10,000 rows of 200 columns."""
    path = tmp_path_factory.mktemp("large") / "page.html"
    X = np.random.default_rng(0).lognormal(0, 2, size=(10_000, 200))
    ids = [f"tx-{i:08d}" for i in range(len(X))]
    review.write(path, Sums(), X, top=len(X), ids=ids, id_name="transaction_id")
    assert path.stat().st_size < 5 * 2**20
    return path


def test_ten_thousand_rows__only_those_in_sight_are_drawn(large, visit):
    page = visit(large)
    ids = [row[4] for row in data_of(large)["rows"]]
    for key, last in (("Home", 0), ("End", 9999), ("PageUp", None), ("Home", 0)):
        page.keyboard.press(key)
        page.wait_for_timeout(50)
        assert 5 < len(rows_in_sight(page)) < 60
        if last is not None:
            assert current(page) == f"transaction_id {ids[last]}"
    page.eval_on_selector("#grid", "grid => { grid.scrollTop = 44 * 5000; }")
    page.wait_for_selector(f"text={ids[5003]}")
    assert page.inner_text("#detail").count("above") >= 3
    assert "of 200 columns" in page.inner_text("#detail")


@pytest.mark.parametrize("width", [320, 390, 800, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_width__nothing_beside_the_page_and_text_is_readable(width, scheme, large, visit):
    size = {"width": width, "height": 800}
    page = visit(large, viewport=size, color_scheme=scheme)
    page.keyboard.press("a")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator("#body .row button.u").first.bounding_box()
    assert box["x"] + box["width"] <= width
    contrasts = page.evaluate(CONTRASTS)
    assert min(contrasts.values()) >= 4.5, contrasts
    page.close()


# Of text and what is behind it (WCAG 2.2, 1.4.3).
CONTRASTS = """() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const found = parts(getComputedStyle(e).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const found = {};
  for (const selector of ["h1", "#summary", "#progress", "#download", "#body .row .number",
    "#body .row .why", "#body .row button.a", "#body .row button.n", "#detail h2",
    "#detail button.a", "#detail thead th", "#detail td.number", "#axis span"]) {
    const element = document.querySelector(selector);
    const two = [light(parts(getComputedStyle(element).color)), light(behind(element))];
    found[selector] = (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05);
  }
  return found;
}"""
