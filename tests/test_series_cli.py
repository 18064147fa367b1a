"""Series on the command line: fit, score and plot."""

import csv
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import deepod
from deepod import plotting
from deepod.cli import main

pd = pytest.importorskip("pandas")
pytest.importorskip("deepod.series")

from deepod.series import RidgeAR  # noqa: E402

rng = np.random.default_rng(0)
X = np.sin(np.arange(700)[:, None] / [5, 7]) + 0.1 * rng.normal(size=(700, 2))
X[600:610, 1] += 4
TIMES = pd.date_range("2024-03-01", periods=700, freq="min")
FRAME = pd.DataFrame(X, columns=["a", "b"]).assign(when=TIMES)[["when", "a", "b"]]
TRAIN, NEW = FRAME[:500], FRAME[500:]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with train.csv and new.csv; nothing is warned of, all is said."""
    monkeypatch.chdir(tmp_path)
    TRAIN.to_csv("train.csv", index=False)
    NEW.assign(bad=0)[["b", "bad", "when", "a"]].to_csv("new.csv", index=False)
    with warnings.catch_warnings(action="error"):
        yield tmp_path


@pytest.fixture(scope="module")
def detector():
    return RidgeAR(window=10).fit(X[:500])


def fit(*words, train="train.csv", time=("--time", "when")):
    settings = ["--detector", "RidgeAR", "--set", "window=10", "--out", "model"]
    return main(["fit", train, *settings, *time, *words])


def score(*words, new="new.csv", out="scores.csv", time=("--time", "when")):
    return main(["score", "model", new, "--out", out, *time, *words])


def read(name="scores.csv"):
    header, *rows = csv.reader(Path(name).read_text().splitlines())
    return header, rows


def test_fit_and_score__csv__a_score_beside_each_time(detector, capsys):
    assert fit() == 0
    assert f"RidgeAR fitted on 500 points, threshold {detector.threshold_:.6g}" in (
        capsys.readouterr().out
    )
    assert deepod.load("model").feature_names_in_.tolist() == ["a", "b"]
    assert score() == 0
    header, rows = read()
    expected = detector.decision_function(X[500:])
    assert header == ["when", "score", "label"]
    assert [row[0] for row in rows] == [str(time) for time in TIMES[500:]]
    np.testing.assert_array_equal([float(row[1]) for row in rows], expected)
    np.testing.assert_array_equal([int(row[2]) for row in rows], detector.predict(X[500:]))
    shown = capsys.readouterr()
    flagged = detector.predict(X[500:]).sum()
    assert f"200 points scored, {flagged} above the threshold" in shown.out
    assert shown.err == ""


def test_score__without_time__rows_in_order_and_no_times(detector):
    assert fit() == score(time=()) == 0
    header, rows = read()
    assert header == ["score", "label"]
    expected = detector.decision_function(X[500:])
    np.testing.assert_array_equal([float(row[0]) for row in rows], expected)


def test_score__context__the_last_points_before(detector):
    assert fit() == score("--context", "train.csv", out="scores.npy") == 0
    expected = detector.decision_function(X[500:], context=X[:500])
    np.testing.assert_array_equal(np.load("scores.npy"), expected)
    assert (expected != detector.decision_function(X[500:])).any()


def test_fit_and_score__npy__series_and_episodes(detector):
    np.save("train.npy", X[:500])
    np.save("new.npy", X[500:])
    assert fit(train="train.npy", time=()) == 0
    assert score(new="new.npy", out="scores.npy", time=()) == 0
    np.testing.assert_array_equal(np.load("scores.npy"), detector.decision_function(X[500:]))
    np.save("new.npy", X[510:513])  # with the points before, few are enough
    np.save("before.npy", X[:510])
    assert score("--context", "before.npy", new="new.npy", out="scores.npy", time=()) == 0
    expected = detector.decision_function(X[510:513], context=X[:510])
    np.testing.assert_array_equal(np.load("scores.npy"), expected)
    episodes = X[500:].reshape(4, 50, 2)
    np.save("new.npy", episodes)
    assert score(new="new.npy", out="scores.npy", time=()) == 0
    np.testing.assert_array_equal(np.load("scores.npy"), detector.decision_function(episodes))
    np.save("one.npy", X[:500, 0])
    assert fit(train="one.npy", time=()) == score(new="one.npy", out="s.npy", time=()) == 0
    assert np.load("s.npy").shape == (500,)


def test_fit_and_score__parquet__like_csv(detector, capsys):
    pytest.importorskip("pyarrow")
    TRAIN.to_parquet("train.parquet")
    NEW.to_parquet("new.parquet")
    assert fit(train="train.parquet") == score(new="new.parquet") == 0
    header, rows = read()
    assert header == ["when", "score", "label"]
    assert [row[0] for row in rows] == [str(time) for time in TIMES[500:]]
    expected = detector.decision_function(X[500:])
    np.testing.assert_allclose([float(row[1]) for row in rows], expected)


@pytest.mark.parametrize("times", ["seconds", "text"])
def test_time__numbers_or_text_of_another_form__kept_as_it_is(times, detector):
    for name, part in (("train", TRAIN), ("new", NEW)):
        seconds = part["when"].astype("int64") // 10**6
        cells = seconds if times == "seconds" else part["when"].dt.strftime("%m/%d/%Y, %H:%M")
        part.assign(when=cells).to_csv(f"{name}.csv", index=False)
    assert fit() == score() == 0
    _, rows = read()
    assert [row[0] for row in rows] == cells.astype(str).tolist()


def test_gaps__said_or_split(detector, capsys):
    NEW.drop(index=range(550, 560)).to_csv("new.csv", index=False)
    kept = np.delete(X, np.arange(550, 560), axis=0)[500:]
    assert fit() == 0
    capsys.readouterr()
    assert score(out="scores.npy") == 0
    shown = capsys.readouterr()
    assert "deepod score: new.csv has 1 gap in time" in shown.err
    assert "0 days 00:11:00 after 2024-03-01 09:09:00" in shown.err
    assert "--split-at-gaps keeps them from it" in shown.err
    assert "190 points scored" in shown.out
    np.testing.assert_array_equal(np.load("scores.npy"), detector.decision_function(kept))
    assert score("--split-at-gaps") == 0
    shown = capsys.readouterr()
    assert ("190 points in 2 parts scored" in shown.out, shown.err) == (True, "")
    _, rows = read()
    expected = np.concatenate(detector.decision_function([kept[:50], kept[50:]]))
    np.testing.assert_array_equal([float(row[1]) for row in rows], expected)
    FRAME.drop(index=range(200, 210)).to_csv("train.csv", index=False)
    assert fit("--split-at-gaps") == 0
    assert "fitted on 690 points in 2 parts" in capsys.readouterr().out


def without(column):
    return FRAME.drop(columns=column)


REFUSED = {
    "no time given": (
        FRAME,
        [],
        "column 'when': expected a number.*If this is the column of times, name it as --t",
    ),
    "no such column": (
        FRAME,
        ["--time", "at"],
        "there is no column 'at'; the columns are when, a, b",
    ),
    "not sorted": (
        FRAME[::-1],
        ["--time", "when"],
        "column 'when' is not in the order of time: row 2 .* sort the rows of the file by it",
    ),
    "twice": (
        FRAME.iloc[[0, 1, 1, 2]],
        ["--time", "when"],
        "column 'when' has 1 points at the same time as another, the first in row 3 .* keep one",
    ),
    "no time": (
        FRAME.assign(when=["", *FRAME["when"].astype(str)[1:]]),
        ["--time", "when"],
        "column 'when' has 1 points without a time, the first in row 1",
    ),
    "no times": (
        FRAME.assign(when="soon"),
        ["--time", "when"],
        "column 'when' holds times that cannot be read, such as 'soon' in row 1",
    ),
    "gap in values": (
        FRAME.assign(a=[*X[:5, 0], np.nan, *X[6:, 0]]),
        ["--time", "when"],
        "row 6, column 'a' has no value",
    ),
    "to split without": (without("when"), ["--split-at-gaps"], "--split-at-gaps needs --time"),
    "too short": (FRAME[:5], ["--time", "when"], "fitting RidgeAR on x.csv: "),
}


@pytest.mark.parametrize(("frame", "words", "said"), REFUSED.values(), ids=REFUSED)
def test_fit__bad_series__refused_in_one_line(frame, words, said, folder, capsys):
    frame.to_csv("x.csv", index=False)
    before = sorted(folder.iterdir())
    assert fit(*words, train="x.csv", time=()) == 1
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert re.search(said, shown.err), shown.err
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--context", "new.csv"], "--context new.csv: it ends at .*, but NEW begins at"),
        (["--context", "train.csv", "--split-at-gaps"], "leave out one of both"),
        (["--context", "missing.csv"], "--context missing.csv: there is no such file"),
        (["--time", "a"], "--time a: model was fitted on this column"),
        (["--time", "at"], "NEW new.csv: there is no column 'at'"),
    ],
)
def test_score__bad_option__named(words, said, capsys):
    TRAIN.to_csv("train.csv", index=False)
    NEW.drop(index=550).to_csv("new.csv", index=False)
    assert fit() == 0
    capsys.readouterr()
    assert score(*words) == 1
    assert re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--time", "when"], "--time is for detectors of series .* leave the column out: --drop"),
        (["--split-at-gaps"], "--split-at-gaps is for detectors of series"),
    ],
)
def test_detector_of_rows__options_of_series__refused(words, said, folder, capsys):
    np.save("rows.npy", X)
    rows = ["--detector", "AutoEncoder", "--set", "epochs=1", "--out", "model"]
    assert main(["fit", "rows.npy", *rows, *words]) == 1
    assert re.search(said, capsys.readouterr().err)
    assert main(["fit", "rows.npy", *rows]) == 0
    assert score(*words, "--context", "rows.npy", new="rows.npy", time=()) == 1
    assert "is for detectors of series" in capsys.readouterr().err


# --- deepod plot ----------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    """Arguments of the pictures of series that are drawn, which are drawn all the same."""
    pytest.importorskip("matplotlib")
    calls = []

    def plot_series(detector, X, y, **options):
        calls.append((X, y, options))
        return original(detector, X, y, **options)

    original = plotting.plot_series
    monkeypatch.setattr(plotting, "plot_series", plot_series)
    return calls


@pytest.mark.parametrize("out", ["p.png", "p.svg"])
def test_plot__series__channels_by_name_in_time(out, folder, detector, drawn, capsys):
    assert fit() == 0
    assert main(["plot", "model", "new.csv", "--time", "when", "--out", out]) == 0
    assert (folder / out).stat().st_size > 1000
    ((series, y, options),) = drawn
    assert y is None
    assert series.index.tolist() == TIMES[500:].tolist()
    assert options["feature_names"] == ["a", "b"]
    np.testing.assert_array_equal(options["scores"], detector.decision_function(X[500:]))
    assert "200 points scored" in capsys.readouterr().out


def test_plot__label_context_and_parts(folder, detector, drawn):
    NEW.drop(index=range(550, 560)).assign(bad=NEW.index[10:] > 600).to_csv("new.csv", index=False)
    assert fit() == 0
    command = ["plot", "model", "new.csv", "--time", "when", "--out", "p.png"]
    assert main([*command, "--label", "bad", "--context", "train.csv"]) == 0
    assert main([*command, "--split-at-gaps"]) == 0
    (series, y, options), (parts, _, _) = drawn
    assert (len(y), series.lengths, parts.lengths) == (190, (190,), (50, 140))
    assert len(options["context"]) == 500


def test_plot__row__what_the_channels_add(detector, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    calls = []
    original = plotting.plot_contributions

    def plot_contributions(*arguments, ax):
        calls.append(arguments)
        return original(*arguments, ax=ax)

    monkeypatch.setattr(plotting, "plot_contributions", plot_contributions)
    assert fit() == 0
    command = ["plot", "model", "new.csv", "--time", "when", "--out", "p.png", "--row"]
    assert main([*command, "106"]) == 0
    ((contributions, names),) = calls
    np.testing.assert_allclose(contributions, detector.explain(X[500:])[105])
    assert names == ["a", "b"]
    assert "row 106 has the score" in capsys.readouterr().out
    assert main([*command, "201"]) == 1
    assert "--row 201: expected a number from 1 to 200" in capsys.readouterr().err


def test_plot__model_without_loss__said(capsys):
    pytest.importorskip("matplotlib")
    assert fit() == 0
    capsys.readouterr()
    assert main(["plot", "model", "--out", "p.png"]) == 1
    assert "RidgeAR has no loss to draw; name a file of rows as NEW" in capsys.readouterr().err
    assert main(["plot", "model", "--time", "when", "--out", "p.png"]) == 1
    assert "--time needs a file of rows" in capsys.readouterr().err
