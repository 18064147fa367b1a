"""The command line."""

import csv
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import deepod
from deepod import data, sources
from deepod._inputs import rows, tables
from deepod._registry import SERIES
from deepod._scoring import apply
from deepod.cli import demo as _demo_module
from deepod.cli import main
from deepod.ensemble import default_members

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


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_list__nobody_reads__ends_without_a_word():
    reader, writer = os.pipe()
    os.close(reader)
    run = [sys.executable, "-m", "deepod", "list"]
    ended = subprocess.run(run, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_list__another_pipe_broke__explained(capsys, monkeypatch):
    def broken():
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(deepod, "list_detectors", broken)
    assert main(["list"]) == 1
    assert capsys.readouterr().err == "deepod list: [Errno 32] Broken pipe\n"


@pytest.mark.skipif(os.name != "posix", reason="sh")
def test_list__no_standard_output__ends():
    run = ["sh", "-c", '"$0" -m deepod list >&-', sys.executable]
    ended = subprocess.run(run, stderr=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_list__names_every_detector(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [*deepod.DETECTORS, *SERIES]
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


def quick(name):
    if name == "Consensus":
        return deepod.Consensus([fast("Neighbors"), fast("AutoEncoder")], random_state=0)
    return fast(name)


def test_demo__table_and_picture(tmp_path, capsys, monkeypatch):
    for name in ("PLAD", "Consensus"):
        monkeypatch.setattr(_demo_module, name, lambda random_state, name=name: quick(name))
    assert main(["demo", "--out", str(tmp_path / "scores.png"), "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["Consensus", "PLAD", "IForest", "ECOD", "KNN"]
    rows = [line.split() for line in lines if line.startswith(tuple(names))]
    assert [row[0] for row in rows] == names
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
    data = _demo_module.load(seed=0)
    train = {row.tobytes() for row in data.train}
    assert not any(row.tobytes() in train for row in data.test)
    assert len(data.test) == len(data.target)


# --- deepod fit and deepod score -----------------------------------------------------------------


@pytest.fixture
def small_parts(monkeypatch):
    """The smallest parts there are, and their size: chunks of the network."""
    monkeypatch.setattr(rows, "_BLOCK_VALUES", 1)
    return apply.chunk_rows((3,))


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
    monkeypatch.setattr(tables, "_CELLS", 210)
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
    assert "TRAIN train.csv: row 8, column 'b' has no value; fill the gaps" in shown
    imputing = ("--set", "missing=impute")
    assert fit_and_score(*imputing, new="new.csv", train="train.csv") == 0
    new = np.concatenate([NEW[:50].astype(float), [[1, np.nan, np.nan]]])
    expected = fitted(rows, missing="impute").decision_function(new)
    np.testing.assert_array_equal(np.load("scores.npy"), expected)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_fit_drop__text_and_labels__scored_without_them(suffix, folder):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(TRAIN.astype(float), columns=["a", "b", "c"]).assign(
        city="Ulm, B", fraud=0
    )
    new = pd.DataFrame(NEW[:50, ::-1].astype(float), columns=["c", "b", "a"]).assign(fraud=1)
    for name, table in (("train", frame), ("new", new)):
        if suffix == ".csv":
            table.to_csv(name + suffix, index=False)
        else:
            pytest.importorskip("pyarrow")
            table.to_parquet(name + suffix)
    assert fit_and_score("--drop", "city, fraud", train="train" + suffix, new="new" + suffix) == 0
    assert deepod.load("model").feature_names_in_.tolist() == ["a", "b", "c"]
    X, rows = TRAIN.astype(float), NEW[:50].astype(float)
    if suffix == ".parquet":
        X = data.parquet("train.parquet", columns=["a", "b", "c"])
        rows = data.parquet("new.parquet", columns=["a", "b", "c"])
    expected = fitted(X).decision_function(rows)
    np.testing.assert_array_equal(np.load("scores.npy"), expected)


def test_gaps__named_by_the_columns_of_the_file(folder, capsys):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = np.array(TRAIN)
    write_csv("train.csv", "a,b,c", rows)
    rows[7, 1] = np.nan
    pq.write_table(pa.table({name: rows[:, j] for j, name in enumerate("abc")}), "gaps.parquet")
    assert fit(train="gaps.parquet") == 1
    assert "on gaps.parquet: Input X contains NaN in column 'b'" in capsys.readouterr().err
    assert fit_and_score(train="train.csv", new="gaps.parquet") == 1
    assert "NEW gaps.parquet, rows 1 to 300: row 8, column 'b'" in capsys.readouterr().err


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
    settings += ["cross_fitting=false", "network__batch_norm=true"]
    assert fit_and_score(*(word for setting in settings for word in ("--set", setting))) == 0
    expected = deepod.AutoEncoder(epochs=1, random_state=0, scaler=None, optimizer="sgd")
    expected.set_params(lr=0.01, network__hidden=(8,), network__batch_norm=True, batch_size=64)
    expected.set_params(cross_fitting=False).fit(TRAIN)
    np.testing.assert_array_equal(np.load("scores.npy"), expected.decision_function(NEW))


def test_consensus__default__gaps_filled_by_all_members_scored_and_drawn(folder, drawn, capsys):
    X, new = TRAIN[:60].astype(float), NEW[:40].astype(float)
    X[7, 1] = new[3, 0] = np.nan
    write_csv("train.csv", "a,b,c", X)
    write_csv("new.csv", "c,a,b", new[:, [2, 0, 1]])
    settings = ("random_state=0", "missing=impute", "epochs=1", "combination=max")
    words = [word for setting in settings for word in ("--set", setting)]
    assert main(["fit", "train.csv", "--out", "model", *words]) == 0
    assert capsys.readouterr().out.startswith("Consensus fitted on 60 rows, threshold ")
    assert score(new="new.csv") == 0
    members = [member.set_params(missing="impute", epochs=1) for member in default_members(False)]
    expected = deepod.Consensus(members, combination="max", random_state=0).fit(X)
    np.testing.assert_array_equal(np.load("scores.npy"), expected.decision_function(new))
    assert main(["plot", "model", "new.csv", "--row", "4", "--out", "p.png"]) == 0
    np.testing.assert_allclose(drawn[0][1], expected.explain(new[3:4])[0])
    assert drawn[0][2] == ["a", "b", "c"]
    loaded = deepod.load("model")
    assert [m.feature_names_in_.tolist() for m in loaded.members_] == [["a", "b", "c"]] * len(
        members
    )
    refuse(
        ["plot", "model", "--out", "p.png"], "MODEL model: .*has no loss to draw", folder, capsys
    )


def test_score__large_file__read_no_more_than_a_part_at_a_time(folder, small_parts, monkeypatch):
    read, sizes = sources._Array.read, []

    def noted(self, start, stop):
        sizes.append(stop - start)
        return read(self, start, stop)

    assert fit() == 0
    monkeypatch.setattr(sources._Array, "read", noted)
    assert score() == 0
    assert max(sizes) == small_parts
    assert sum(sizes) == len(NEW)


@pytest.mark.parametrize("detector", ["AutoEncoder", "Consensus"])
def test_fit__terminal__bars_unless_quiet_and_the_same_model(detector, folder, capsys, monkeypatch):
    settings = ["--detector", detector, "--set", "cross_fitting=True", "--set", "epochs=3"]
    assert fit(*settings, out="silent") == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert fit(*settings, "--quiet", out="quiet") == 0
    assert fit(*settings, "--set", "verbose=0", out="zero") == 0
    assert capsys.readouterr().err == ""
    assert fit(*settings, out="shown") == 0
    shown = capsys.readouterr().err
    assert f"deepod fit: fitting {detector} on {len(TRAIN)} rows\n" in shown
    assert "\rfit: 100%" in shown
    assert shown.count("cross-fitting, fit: 100%") == shown.count("\rfit: 100%")
    silent, other = deepod.load("silent"), deepod.load("shown")
    assert repr(silent.get_params()) == repr(other.get_params())
    for member, same in zip(*(getattr(d, "members_", [d]) for d in (silent, other)), strict=True):
        assert member.get_params() == same.get_params()
    np.testing.assert_array_equal(silent.decision_function(NEW), other.decision_function(NEW))


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


def test_score__interrupted__said_and_nothing_left(folder, monkeypatch, capsys):
    def interrupted(self, batches):
        yield self.decision_function(next(batches))
        raise KeyboardInterrupt

    monkeypatch.setattr(deepod.AutoEncoder, "score_batches", interrupted)
    monkeypatch.setattr(rows, "_BLOCK_VALUES", 1)
    assert fit() == 0
    assert score() == 130
    assert capsys.readouterr().err == "deepod score: stopped by Ctrl-C.\n"
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
    (folder / "index.csv").write_text(",a,b,c\n0,1,2,3\n1,1,2,3\n")
    (folder / "empty.csv").write_text("")
    (folder / "gap.csv").write_text("a,b,c\n1,2,3\n1,,3\n1,2,3\n")
    (folder / "header.csv").write_text("a,b,c\n")
    (folder / "twice.csv").write_text("a,b,b\n1,2,3\n")
    (folder / "long.csv").write_text("a,b,c\n1,2,3\n1,2,3,4\n")
    (folder / "broken.csv").write_text('a,b,c\n1,2,3\n1,2,"x\n1,2,3\n')
    (folder / "latin.csv").write_bytes("größe,b,c\n1,2,3\n".encode("latin1"))
    (folder / "far.csv").write_text("a,b,c\n1,2,inf\n1,-inf,3\n")
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
        ({"new": "objects.npy"}, "NEW objects.npy: .*Python objects.* Save an array of numbers"),
        ({"new": "half.npy"}, "NEW half.npy: "),
        ({"new": "flat.npy"}, r"NEW flat.npy: .*shape \(4,\)"),
        ({"new": "none.npy"}, "NEW none.npy: there are no rows"),
        (
            {"new": "wide.npy"},
            r"NEW wide.npy: its rows have shape \(4,\), but those of training .*3,",
        ),
        ({"new": "word.csv"}, "NEW word.csv: row 12, column 'b': expected a number, got 'x'"),
        ({"new": "short.csv"}, "NEW short.csv: row 2 has 2 values, but there are 3"),
        ({"new": "nameless.csv"}, "NEW nameless.csv: the first line must hold the names"),
        ({"new": "empty.csv"}, "NEW empty.csv: the file is empty"),
        ({"new": "gap.csv"}, "NEW gap.csv, rows 1 to 3: .*NaN in column 1 .*--set missing=impute"),
        ({"new": "header.csv"}, "NEW header.csv: there are no rows"),
        ({"new": "broken.parquet"}, "broken.parquet"),
        ({"model": "missing"}, "MODEL missing: there is no such file or folder"),
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
        ({"train": "text.npy"}, "TRAIN text.npy: .*must be numbers"),
        ({"train": "holes.npy"}, "fitting Consensus on holes.npy: .*NaN"),
        ({"--set": "detectors=3"}, "--set: detectors cannot be set .*in Python"),
        ({"--set": "combination=best"}, "--set: The 'combination' parameter"),
        ({"--set": "lr=-1"}, "--set: The 'lr' parameter"),
        (
            {"--set=cross_fitting=False": "--set=false_alarm_rate=0.1"},
            "--set: false_alarm_rate .* cross_fitting=True",
        ),
        ({"--set": "nonsense=1"}, "--set: Invalid parameter 'nonsense'.* Valid parameters are"),
        ({"--columns": "a"}, "TRAIN train.npy: --columns is for Parquet and .csv"),
        ({"--drop": "a"}, "TRAIN train.npy: --drop is for Parquet and .csv"),
        ({"train": "word.csv", "--drop": "b,x"}, "TRAIN word.csv: there is no column 'x'; .* a, b"),
        ({"train": "word.csv", "--drop": "a,b,c"}, "TRAIN word.csv: no column is left"),
        ({"train": "twice.csv"}, "TRAIN twice.csv: 2 columns have the name 'b'"),
        ({"train": "index.csv"}, r"TRAIN index.csv: a column has no name.*to_csv\(index=False\)"),
        (
            {"train": "long.csv", "--drop": "a"},
            "TRAIN long.csv: row 2 has 4 values, but there are 3",
        ),
        (
            {"train": "broken.csv", "--drop": "c"},
            "TRAIN broken.csv: .*the file ends within quotes",
        ),
        ({"train": "latin.csv"}, "TRAIN latin.csv: it is not in UTF-8"),
        ({"train": "gap.csv"}, "row 2, column 'b' has no value; fill the gaps.*missing=impute"),
        ({"train": "far.csv"}, "row 1, column 'c' is infinite; columns with such cells: 'b', 'c'"),
        ({"out": "missing/model"}, "--out missing/model: There is no folder missing"),
        ({"out": "other"}, "--out other: .*holds something other than a model"),
        ({"out": "new.npy"}, "--out new.npy: .*is a file, but a model would be"),
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


@pytest.mark.parametrize("command", ["fit", "score", "plot"])
def test_help__shows_an_example(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"example: deepod {command}" in capsys.readouterr().out


# --- deepod plot ---------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    """Arguments of the pictures that are drawn, which are drawn all the same."""
    pytest.importorskip("matplotlib")
    from deepod import plotting

    calls = []

    def noted(function):
        def wrapper(*args, ax):
            calls.append((function.__name__, *args))
            return function(*args, ax=ax)

        return wrapper

    for name in ("plot_history", "plot_scores", "plot_contributions"):
        monkeypatch.setattr(plotting, name, noted(getattr(plotting, name)))
    return calls


@pytest.fixture
def labelled(folder):
    """A model of the columns a, b and c, and a file with a label and another order."""
    write_csv("train.csv", "a,b,c", TRAIN)
    y = np.arange(len(NEW)) % 2
    write_csv("new.csv", "c,fraud,a,b", np.column_stack([NEW[:, 2], y, NEW[:, 0], NEW[:, 1]])[:100])
    assert fit(train="train.csv") == 0
    return folder


@pytest.mark.parametrize(
    ("out", "start"), [("p.png", b"\x89PNG"), ("p.pdf", b"%PDF"), ("p.svg", b"<?xml")]
)
def test_plot__model_alone__history(out, start, labelled, drawn, capsys):
    assert main(["plot", "model", "--out", out]) == 0
    assert (labelled / out).read_bytes().startswith(start)
    ((name, detector),) = drawn
    assert (name, len(detector.history_)) == ("plot_history", 1)
    assert capsys.readouterr().out.endswith(f"loss over the epochs: {out}\n")


def test_plot__new_rows__scores_split_by_label(labelled, drawn, capsys):
    detector = fitted(TRAIN.astype(float))
    scores = detector.decision_function(NEW[:100].astype(float))
    assert main(["plot", "model", "new.csv", "--label", "fraud", "--out", "p.png"]) == 0
    assert main(["plot", "model", "new.csv", "--out", "p.png"]) == 0
    (_, split, y, threshold), (_, whole, none, _) = drawn
    np.testing.assert_array_equal(split, scores)
    np.testing.assert_array_equal(whole, scores)
    np.testing.assert_array_equal(y, np.arange(100) % 2)
    assert (threshold, none) == (detector.threshold_, None)
    flagged = int((scores > threshold).sum())
    assert f"100 rows scored, {flagged} above the threshold" in capsys.readouterr().out
    assert not list(labelled.glob(".*"))


def test_plot__nameless_model__label_is_no_value(labelled, drawn):
    write_csv("last.csv", "x,y,z,fraud", np.column_stack([NEW, np.zeros(len(NEW))])[:100])
    assert fit() == 0  # on train.npy
    assert main(["plot", "model", "last.csv", "--label", "fraud", "--out", "p.png"]) == 0
    expected = fitted().decision_function(NEW[:100].astype(float))
    np.testing.assert_array_equal(drawn[0][1], expected)


def test_plot__nameless_model__ids_are_no_value(labelled, drawn):
    ids = np.arange(100)[:, None]
    write_csv("keyed.csv", "key,x,y,z", np.column_stack([ids, NEW[:100]]))
    assert fit() == 0  # on train.npy
    assert main(["plot", "model", "keyed.csv", "--id", "key", "--out", "p.png"]) == 0
    expected = fitted().decision_function(NEW[:100].astype(float))
    np.testing.assert_array_equal(drawn[0][1], expected)
    assert main(["plot", "model", "keyed.csv", "--id", "key", "--row", "3", "--out", "p.png"]) == 0
    assert main(["plot", "model", "--id", "key", "--out", "p.png"]) == 1


def test_plot__row__contributions_by_the_names_of_the_columns(labelled, drawn):
    assert main(["plot", "model", "new.csv", "--row", "3", "--out", "p.png"]) == 0
    ((name, contributions, names),) = drawn
    expected = fitted(TRAIN.astype(float)).explain(NEW[2:3].astype(float))[0]
    np.testing.assert_allclose(contributions, expected)
    assert (name, names) == ("plot_contributions", ["a", "b", "c"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing", "--out", "p.png"], "MODEL missing: there is no such file or folder"),
        (["model", "missing.csv", "--out", "p.png"], "NEW missing.csv: there is no such file"),
        (["model", "--out", "p.jpg"], "--out p.jpg: expected the name of a .png, .pdf or .svg"),
        (["model", "--out", "no/p.png"], "--out no/p.png: there is no folder no"),
        (["model", "--row", "1", "--out", "p.png"], "--row needs a file of rows"),
        (["model", "--label", "fraud", "--out", "p.png"], "--label needs a file of rows"),
        (["model", "new.csv", "--row", "0", "--out", "p.png"], "--row 0: .* from 1 to 100"),
        (["model", "new.csv", "--row", "101", "--out", "p.png"], "--row 101: .* from 1 to 100"),
        (
            ["model", "new.csv", "--label", "x", "--out", "p.png"],
            "no column 'x'; the columns are c, fr",
        ),
        (["model", "new.csv", "--label", "a", "--out", "p.png"], "--label a: model was fitted on"),
        (["model", "odd.csv", "--label", "kind", "--out", "p.png"], "expected 0 .* are 2, 5"),
        (["model", "new.npy", "--label", "x", "--out", "p.png"], "new.npy has no names"),
        (["model", "gap.csv", "--row", "1", "--out", "p.png"], "row 1, column 'b' has no value"),
    ],
)
def test_plot__bad_argument__one_line_that_names_it(words, said, labelled, capsys):
    pytest.importorskip("matplotlib")
    (labelled / "odd.csv").write_text("a,b,c,kind\n1,2,3,5\n1,2,3,2\n")
    (labelled / "gap.csv").write_text("a,b,c\n1,,3\n")
    refuse(["plot", *words], said, labelled, capsys)


def test_plot__row_of_windows__refused(folder, capsys):
    pytest.importorskip("matplotlib")
    np.save("windows.npy", np.random.default_rng(0).normal(size=(40, 6, 3)))
    assert fit(train="windows.npy") == 0
    command = ["plot", "model", "windows.npy", "--row", "1", "--out", "p.png"]
    refuse(command, "--row 1: only rows of tables", folder, capsys)


def test_plot__fails_on_the_way__older_picture_stays(labelled, capsys, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    (labelled / "p.png").write_text("older")
    monkeypatch.setattr(figure.Figure, "savefig", full)
    refuse(["plot", "model", "--out", "p.png"], "--out p.png: .*No space left", labelled, capsys)
