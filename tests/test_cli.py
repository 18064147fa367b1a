"""The command line."""

import csv
import re
import subprocess
import sys

import numpy as np
import pytest

import deepod
from deepod import _data, _demo, _train, data
from deepod.cli import main

from .cases import fast

rng = np.random.default_rng(0)
TRAIN = rng.normal(size=(300, 3)).astype(np.float32)
NEW = rng.normal(scale=2, size=(10_000, 3)).astype(np.float32)
FAST = ["--detector", "AutoEncoder", "--set", "epochs=1", "--set", "random_state=0"]


def test_version__both_ways(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == f"deepod {deepod.__version__}"
    run = [sys.executable, "-m", "deepod", "--version"]
    shown = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == f"deepod {deepod.__version__}"


def test_list__names_every_detector(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(deepod.DETECTORS)
    assert any(line.startswith("PLAD") and "NeurIPS 2022" in line for line in lines)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["demo", "--nonsense"]])
def test_wrong_use__exit_code_two(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: deepod" in capsys.readouterr().err


def test_demo_help__shows_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    assert "example: deepod demo" in capsys.readouterr().out


def test_demo__table_and_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_demo, "PLAD", lambda random_state: fast("PLAD", random_state=random_state))
    assert main(["demo", "--out", str(tmp_path / "scores.png"), "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith(("PLAD", "IForest", "ECOD", "KNN"))]
    assert [row[0] for row in rows] == ["PLAD", "IForest", "ECOD", "KNN"]
    assert all(0 <= float(cell) <= 1 for row in rows for cell in row[1:3])
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_demo__folder_missing__said_before_the_work(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "missing" / "scores.png")]) == 1
    assert "missing" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["picture.nonsense", "folder"])
def test_demo__no_picture_file__said_before_the_work(name, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    assert main(["demo", "--out", str(tmp_path / name)]) == 1
    shown = capsys.readouterr()
    assert name in shown.err
    assert shown.out == ""


def test_demo_data__no_row_on_both_sides():
    data = _demo.load(seed=0)
    train = {row.tobytes() for row in data.train}
    assert not any(row.tobytes() in train for row in data.test)
    assert len(data.test) == len(data.target)


# --- deepod fit and deepod score -----------------------------------------------------------------


@pytest.fixture
def small_parts(monkeypatch):
    """The smallest parts there are, and their size: chunks of the network."""
    monkeypatch.setattr(_data, "_BLOCK_VALUES", 1)
    return _train.chunk_rows((3,))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with train.npy and new.npy."""
    monkeypatch.chdir(tmp_path)
    np.save("train.npy", TRAIN)
    np.save("new.npy", NEW)
    return tmp_path


def fit(*arguments, train="train.npy", out="model"):
    return main(["fit", train, "--out", out, *FAST, *arguments])


def score(*arguments, new="new.npy", model="model", out="scores.npy"):
    return main(["score", model, new, "--out", out, *arguments])


def fit_and_score(*arguments, new="new.npy", train="train.npy", out="scores.npy"):
    return fit(*arguments, train=train) or score(new=new, out=out)


def fitted(X=TRAIN, **params):
    return deepod.AutoEncoder(epochs=1, random_state=0, **params).fit(X)


def write_csv(name, columns, X):
    np.savetxt(name, X, "%.17g", ",", header=columns, comments="")


def test_score__npy__as_in_python(folder, small_parts, capsys):
    assert len(NEW) > 2 * small_parts
    detector = fitted()
    assert fit() == 0
    threshold = f"{detector.threshold_:.6g}"
    assert (
        capsys.readouterr().out == f"AutoEncoder fitted on 300 rows, threshold {threshold}: model\n"
    )
    assert score() == 0
    scores = np.load("scores.npy", mmap_mode="r")
    assert (scores.dtype, scores.shape) == (np.float64, (len(NEW),))
    np.testing.assert_array_equal(scores, detector.decision_function(NEW))
    shown = capsys.readouterr()
    flagged = detector.predict(NEW).sum()
    assert shown.out.count("\n") == 1
    assert f"{len(NEW):,} rows scored, {flagged:,} above the threshold" in shown.out
    assert shown.out.endswith("scores.npy\n")
    assert shown.err == ""  # no terminal, no bar
    assert {p.name for p in folder.iterdir()} == {"train.npy", "new.npy", "model", "scores.npy"}


def test_score__out_csv__scores_to_the_last_digit_and_labels(folder, small_parts):
    assert fit_and_score(out="scores.csv") == 0
    header, *rows = csv.reader((folder / "scores.csv").read_text().splitlines())
    detector = fitted()
    assert header == ["score", "label"]
    np.testing.assert_array_equal([float(r[0]) for r in rows], detector.decision_function(NEW))
    np.testing.assert_array_equal([int(r[1]) for r in rows], detector.predict(NEW))


def test_score__parquet__by_the_names_of_the_training_columns(folder, small_parts):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (folder / "train").mkdir()
    for i, part in enumerate(np.array_split(TRAIN, 2)):
        table = pa.table({name: part[:, j] for j, name in enumerate("abc")})
        pq.write_table(table, folder / "train" / f"{i}.parquet")
    # Another order and another column: of no consequence.
    table = pa.table({"more": NEW[:, 0], "c": NEW[:, 2], "a": NEW[:, 0], "b": NEW[:, 1]})
    pq.write_table(table, "new.parquet", row_group_size=999)
    assert fit_and_score(new="new.parquet", train="train") == 0
    detector = fitted(data.parquet("train"))
    expected = detector.decision_function(data.parquet("new.parquet", columns=["a", "b", "c"]))
    np.testing.assert_array_equal(np.load("scores.npy"), expected)
    assert fit_and_score("--columns", "c,a", new="new.parquet", train="train") == 0
    detector = fitted(data.parquet("train", columns=["c", "a"]))
    expected = detector.decision_function(data.parquet("new.parquet", columns=["c", "a"]))
    np.testing.assert_array_equal(np.load("scores.npy"), expected)


def test_score__csv__copied_in_parts(folder, monkeypatch):
    from deepod import _commands

    monkeypatch.setattr(_commands, "_CSV_LINES", 70)
    write_csv("train.csv", "a,b,c", TRAIN)
    write_csv("new.csv", '"c", a ,b,a b', NEW[:, [2, 0, 1, 1]])
    (folder / "new.csv").write_text((folder / "new.csv").read_text() + "\n")
    assert fit_and_score(new="new.csv", train="train.csv") == 0
    assert deepod.load("model").feature_names_in_.tolist() == ["a", "b", "c"]
    X, new = TRAIN.astype(float), NEW.astype(float)
    np.testing.assert_array_equal(np.load("scores.npy"), fitted(X).decision_function(new))
    assert fit_and_score("--columns", "c,a", new="new.csv", train="train.csv") == 0
    expected = fitted(X[:, [2, 0]]).decision_function(new[:, [2, 0]])
    np.testing.assert_array_equal(np.load("scores.npy"), expected)
    assert {p.name for p in folder.iterdir() if p.suffix == ".csv"} == {"train.csv", "new.csv"}


def test_score__gaps__refused_by_column_or_imputed(folder, capsys):
    rows = TRAIN.astype(float)
    rows[7, 1] = np.nan
    write_csv("train.csv", "a,b,c", rows)
    write_csv("new.csv", "a,b,c", NEW[:50])
    (folder / "train.csv").write_text((folder / "train.csv").read_text().replace("nan", ""))
    (folder / "new.csv").write_text((folder / "new.csv").read_text() + '1,"",\n')
    assert fit(train="train.csv") == 1
    shown = capsys.readouterr().err
    said = "on train.csv: Input X contains NaN in column 1 (counted from 0); fit with missing="
    assert said in shown
    imputing = ("--set", "missing=impute")
    assert fit_and_score(*imputing, new="new.csv", train="train.csv") == 0
    new = np.concatenate([NEW[:50].astype(float), [[1, np.nan, np.nan]]])
    expected = fitted(rows, missing="impute").decision_function(new)
    np.testing.assert_array_equal(np.load("scores.npy"), expected)


def test_score__model_fitted_on_a_frame__names_with_blanks(folder):
    pd = pytest.importorskip("pandas")
    write_csv("new.csv", "c, b,a", NEW[:100, ::-1])
    X = pd.DataFrame(TRAIN, columns=["a", " b", "c"])  # as pandas reads such a file
    detector = fitted(X)
    detector.save("model")
    assert score(new="new.csv") == 0
    expected = fitted().decision_function(NEW[:100].astype(float))
    np.testing.assert_array_equal(np.load("scores.npy"), expected)


def test_score__set__literals_and_strings(folder):
    settings = ["scaler=None", "optimizer=sgd", "lr=0.01", "network__hidden=(8,)", "batch_size=64"]
    assert fit_and_score(*(word for setting in settings for word in ("--set", setting))) == 0
    expected = deepod.AutoEncoder(epochs=1, random_state=0, scaler=None, optimizer="sgd")
    expected.set_params(lr=0.01, network__hidden=(8,), batch_size=64).fit(TRAIN)
    np.testing.assert_array_equal(np.load("scores.npy"), expected.decision_function(NEW))


def test_score__large_file__read_no_more_than_a_part_at_a_time(folder, small_parts, monkeypatch):
    read, sizes = data._Array.read, []

    def noted(self, start, stop):
        sizes.append(stop - start)
        return read(self, start, stop)

    assert fit() == 0
    monkeypatch.setattr(data._Array, "read", noted)
    assert score() == 0
    assert max(sizes) == small_parts
    assert sum(sizes) == len(NEW)


def test_score__terminal__one_bar_unless_quiet(folder, capsys, monkeypatch):
    assert fit() == 0
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert score() == 0
    assert "score: 100%" in capsys.readouterr().err
    assert score("--quiet") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("out", ["scores.npy", "scores.csv"])
def test_score__fails_on_the_way__older_file_stays(out, folder, small_parts, capsys):
    (folder / out).write_text("older")
    bad = NEW.copy()
    bad[small_parts + 5, 1] = np.nan
    np.save("new.npy", bad)
    assert fit() == 0
    assert score(out=out) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"deepod score: NEW new.npy, rows {small_parts + 1} to ")
    assert "NaN" in message
    assert message.count("\n") == 1
    assert (folder / out).read_text() == "older"
    assert {p.name for p in folder.iterdir()} == {"train.npy", "new.npy", "model", out}


def test_score__interrupted__nothing_left(folder, monkeypatch):
    def interrupted(self, batches):
        yield self.decision_function(next(batches))
        raise KeyboardInterrupt

    monkeypatch.setattr(deepod.AutoEncoder, "score_batches", interrupted)
    monkeypatch.setattr(_data, "_BLOCK_VALUES", 1)
    assert fit() == 0
    with pytest.raises(KeyboardInterrupt):
        score()
    assert {p.name for p in folder.iterdir()} == {"train.npy", "new.npy", "model"}


def test_score__disk_full__said(folder, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    assert fit() == 0
    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    assert score() == 1
    assert "--out scores.npy: [Errno 28] No space left" in capsys.readouterr().err
    assert not (folder / "scores.npy").exists()


@pytest.fixture
def bad_files(folder):
    """A working folder with a model, and files that cannot be scored."""
    np.save("objects.npy", np.array([[object()]]), allow_pickle=True)
    np.save("text.npy", np.array([["a"]]))
    np.save("flat.npy", np.zeros(4))
    np.save("none.npy", np.zeros((0, 3)))
    np.save("wide.npy", np.zeros((5, 4)))
    np.save("holes.npy", np.full((5, 3), np.nan))
    (folder / "half.npy").write_bytes((folder / "new.npy").read_bytes()[:1000])
    (folder / "rows.txt").write_text("1 2 3")
    (folder / "word.csv").write_text("a,b,c\n" + "1,2,3\n" * 11 + "1,x,3\n")
    (folder / "short.csv").write_text("a,b,c\n1,2,3\n1,2\n")
    (folder / "nameless.csv").write_text("1,2,3\n" * 3)
    (folder / "empty.csv").write_text("")
    (folder / "gap.csv").write_text("a,b,c\n1,2,3\n1,,3\n1,2,3\n")
    (folder / "header.csv").write_text("a,b,c\n")
    (folder / "broken.parquet").write_text("nonsense")
    (folder / "other").mkdir()
    (folder / "other" / "file").write_text("mine")
    assert fit() == 0
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refuse(command, said, folder, capsys):
    """Check that a command fails with one line, and changes nothing."""
    before = contents(folder)
    capsys.readouterr()
    assert main(command) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"deepod {command[0]}: ")
    assert shown.err.count("\n") == 1
    assert re.search(said, shown.err), shown.err
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"new": "missing.npy"}, "NEW missing.npy: there is no such file"),
        ({"new": "rows.txt"}, "NEW rows.txt: expected a .npy"),
        ({"new": "objects.npy"}, "NEW objects.npy: .*Python objects.* Write numbers"),
        ({"new": "half.npy"}, "NEW half.npy: "),
        ({"new": "flat.npy"}, r"NEW flat.npy: .*shape \(4,\)"),
        ({"new": "none.npy"}, "NEW none.npy: there are no rows"),
        ({"new": "wide.npy"}, r"NEW wide.npy: its rows have shape \(4,\), those of training .*3,"),
        ({"new": "word.csv"}, r"NEW word.csv: row 12: could not convert string 'x'"),
        ({"new": "short.csv"}, "NEW short.csv: row 2: 2 values for 3 columns"),
        ({"new": "nameless.csv"}, "NEW nameless.csv: expected a first line with the names"),
        ({"new": "empty.csv"}, "NEW empty.csv: "),
        ({"new": "gap.csv"}, r"NEW gap.csv, rows 1 to 3: .*NaN in column 1 .*missing='impute'"),
        ({"new": "header.csv"}, "NEW header.csv: there are no rows"),
        ({"new": "broken.parquet"}, "broken.parquet"),
        ({"model": "missing"}, "MODEL missing: .*No such file"),
        ({"model": "rows.txt"}, "MODEL rows.txt: .*not a file of deepod"),
        ({"model": "other"}, "MODEL other: .*No such file"),
        ({"out": "missing/scores.npy"}, "--out missing/scores.npy: there is no folder"),
        ({"out": "scores.txt"}, "--out scores.txt: expected the name of a .npy or .csv file"),
        ({"out": "new.npy"}, "NEW new.npy: --out would overwrite it"),
    ],
)
def test_score__bad_argument__one_line_that_names_it(options, said, bad_files, capsys):
    given = {"model": "model", "new": "new.npy", "out": "scores.npy"} | options
    command = ["score", given["model"], given["new"], "--out", given["out"]]
    refuse(command, said, bad_files, capsys)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"train": "missing.npy"}, "TRAIN missing.npy: there is no such file"),
        ({"train": "text.npy"}, "TRAIN text.npy: .*expected numbers"),
        ({"train": "holes.npy"}, "fitting PLAD on holes.npy: .*NaN"),
        ({"--set": "lr=-1"}, "--set: The 'lr' parameter"),
        ({"--set": "false_alarm_rate=0.1"}, "--set: false_alarm_rate .* calibration_fraction"),
        ({"--set": "nonsense=1"}, "--set: Invalid parameter 'nonsense'.* Valid parameters are"),
        ({"--columns": "a"}, "TRAIN train.npy: --columns is for Parquet and .csv"),
        ({"out": "missing/model"}, "--out missing/model: There is no folder missing"),
        ({"out": "other"}, "--out other: .*other things in it"),
        ({"out": "new.npy"}, "--out new.npy: .*is a file and no folder"),
    ],
)
def test_fit__bad_argument__one_line_that_names_it(options, said, bad_files, capsys):
    given = {"train": "train.npy", "out": "model"} | options
    words = [word for pair in options.items() if pair[0].startswith("--") for word in pair]
    command = ["fit", given["train"], "--out", given["out"], *words]
    refuse(command, said, bad_files, capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--detector", "Nonsense"], "AutoEncoder.*PLAD"),
        (["--set", "lr"], "expected NAME=VALUE, got 'lr'"),
        (["--columns", "a,,b"], "expected different names"),
    ],
)
def test_fit__wrong_use__exit_code_two(words, said, folder, capsys):
    with pytest.raises(SystemExit) as stop:
        fit(*words)
    assert stop.value.code == 2
    assert re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize("command", ["fit", "score"])
def test_help__shows_an_example(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"example: deepod {command}" in capsys.readouterr().out
