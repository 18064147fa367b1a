"""The command line."""

import subprocess
import sys

import pytest

import deepod
from deepod import _demo
from deepod.cli import main

from .cases import fast


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
