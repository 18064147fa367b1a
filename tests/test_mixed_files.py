"""The command line on tables with text, times, gaps and keys."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import deepod
from deepod.cli import main

from .test_mixed_tables import cards

FAST = ["--detector", "AutoEncoder", "--set", "epochs=2", "--set", "random_state=0"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, frame in (("train", cards(300)), ("new", cards(50, seed=1))):
        frame.insert(0, "key", [f"{i:07d}" for i in range(7, 7 + len(frame))])
        frame.to_csv(f"{name}.csv", index=False)
        frame.to_parquet(f"{name}.parquet")
        frame.to_csv(f"{name}-german.csv", index=False, sep=";", decimal=",")
    return tmp_path


def fit(train, *more):
    return main(["fit", train, "--out", "model", *FAST, *more])


def scores(new, *more):
    assert main(["score", "model", new, "--out", "scores.csv", "--quiet", *more]) == 0
    return list(csv.reader(Path("scores.csv").read_text(encoding="utf-8").splitlines()))


def test_fit_and_score__mixed_table__as_in_python_and_says_how(folder, capsys):
    assert fit("train.csv", "--id", "key") == 0
    said = capsys.readouterr()
    assert "AutoEncoder fitted on 300 rows" in said.out
    assert "numbers: amount (15 gaps filled by the median)" in said.err
    assert "categories: kind (3 values), abroad (2 values), shop (4 values)" in said.err
    assert "times: when (time of day, day of week, day of year)" in said.err
    assert (
        "left out: id (every value is different; if it names the rows, fit with --id id)"
        in said.err
    )
    head, *rows = scores("new.csv", "--id", "key")
    assert head == ["key", "score", "label"]
    assert [row[0] for row in rows[:2]] == ["0000007", "0000008"]
    detector = deepod.AutoEncoder(
        epochs=2,
        random_state=0,
        categorical_features="from_dtype",
        datetime_features="from_dtype",
        missing="impute",
    ).fit(cards(300))
    expected = detector.decision_function(cards(50, seed=1))
    np.testing.assert_array_equal([float(row[1]) for row in rows], expected)
    assert [int(row[2]) for row in rows] == detector.predict(cards(50, seed=1)).tolist()


def test_score__other_formats_and_orders__same_scores(folder):
    assert fit("train.csv", "--id", "key") == 0
    expected = scores("new.csv")
    assert scores("new.parquet") == expected
    assert scores("new-german.csv") == expected
    new = pd.read_csv("new.csv", dtype=str, keep_default_na=False)
    new[new.columns[::-1]].assign(more="x").to_csv("other.csv", index=False)
    assert scores("other.csv") == expected


def test_score__codes_that_look_like_numbers__are_read_as_text(folder):
    codes = ["007", "12", "x1"] * 40
    table = pd.DataFrame({"code": codes, "amount": np.arange(120.0)})
    table.to_csv("codes.csv", index=False)
    assert fit("codes.csv") == 1  # most are numbers, and the others may be slips
    assert fit("codes.csv", "--set", "categorical_features=['code']") == 0
    both = scores("codes.csv")
    table[table["code"] != "x1"].to_csv("digits.csv", index=False)
    kept = [row for row, code in zip(both[1:], codes, strict=True) if code != "x1"]
    assert scores("digits.csv")[1:] == kept


def test_consensus__default__fits_mixed_tables_and_draws_rows(folder, capsys):
    settings = ["--set", "random_state=0", "--set", "epochs=2"]
    assert main(["fit", "train.parquet", "--id", "key", "--out", "model", *settings]) == 0
    assert len(scores("new.csv")) == 51
    pytest.importorskip("matplotlib")
    assert main(["plot", "model", "new.csv", "--row", "3", "--out", "row.png"]) == 0
    assert main(["plot", "model", "new.csv", "--out", "all.png"]) == 0
    assert (
        main(["review", "model", "new.csv", "--id", "key", "--out", "page.html", "--top", "50"])
        == 0
    )
    assert "0000056" in (folder / "page.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amount": "12,x"}, "row 4, column 'amount': .*'12,x'"),
        ({"when": "never"}, "'when'.*'never'"),
    ],
)
def test_score__slip_in_a_cell__named(folder, capsys, change, message):
    import re

    assert fit("train.csv", "--id", "key") == 0
    new = pd.read_csv("new.csv", dtype=str, keep_default_na=False)
    for name, cell in change.items():
        new.loc[3, name] = cell
    new.to_csv("slip.csv", index=False)
    capsys.readouterr()
    assert main(["score", "model", "slip.csv", "--out", "scores.csv", "--quiet"]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (folder / "scores.csv").exists()


def test_fit__slip_in_a_column_of_numbers__is_no_category(folder, capsys):
    train = pd.read_csv("train.csv", dtype=str, keep_default_na=False)
    train.loc[10, "amount"] = "12,x"
    train.to_csv("slip.csv", index=False)
    assert fit("slip.csv", "--id", "key") == 1
    assert "column" in (said := capsys.readouterr().err)
    assert not (folder / "model").exists(), said


def test_fit__gaps_to_be_refused__are(folder, capsys):
    assert fit("train.csv", "--id", "key", "--set", "missing=refuse") == 1
    assert "amount" in capsys.readouterr().err


def test_score__id_and_numbers_alone__refused(folder, capsys):
    assert fit("train.csv", "--id", "key") == 0
    assert main(["score", "model", "new.csv", "--id", "key", "--out", "scores.npy"]) == 1
    assert (
        "--id key: scores.npy is a .npy file, which holds scores only; write a .csv"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("cell", ["NA", "None", "n/a"])
def test_fit__numbers_most_of_which_are_missing__are_no_category(cell, folder, capsys):
    amounts = [cell if i % 4 else str(i * 1.5) for i in range(100)]
    pd.DataFrame({"amount": amounts, "kind": ["a", "b"] * 50}).to_csv("gaps.csv", index=False)
    assert fit("gaps.csv") == 1
    assert "--drop" in capsys.readouterr().err
