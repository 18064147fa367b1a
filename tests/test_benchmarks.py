"""What benchmarks/ adds to the runner: tables, thresholds, contributions, ONNX files."""

import argparse
import ast
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pandas")
from benchmarks import _common, explain, side_by_side, survey, thresholds, trust
from deepod import bench
from deepod.bench import detectors, rows, runner

from .test_bench import home  # noqa: F401  # pytest finds the fixture here

FOLDER = Path(_common.__file__).parent


def test_imports__nothing_of_the_tests():
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert "tests" not in [name.partition(".")[0] for name in names], path


# --- the loop that goes on ------------------------------------------------------------------------

CELLS = [side_by_side.Cell("fit", "", name, "time") for name in "ABC"]


def test_measure_missing__stopped_and_cut__goes_on_with_what_is_not_there(tmp_path):
    out, calls = tmp_path / "new folder" / "r.jsonl", []

    def measure(cell):
        calls.append(cell.contender)
        if calls == ["A", "B"]:
            raise RuntimeError("stopped")
        return {"values": len(calls)}

    def go_on():
        return _common.measure_missing(out, side_by_side.Cell, CELLS, measure, {"cores": 2})

    with pytest.raises(RuntimeError, match="stopped"):
        go_on()
    kept = out.read_bytes()
    out.write_bytes(kept + kept[:20])  # killed in the middle of a line
    found = go_on()
    assert "".join(calls) == "AB" + "BC"
    assert [rows.cell_of(row, side_by_side.Cell) for row in found] == CELLS
    assert [(row["values"], row["cores"]) for row in found] == [(1, 2), (3, 2), (4, 2)]
    content = out.read_bytes()
    assert content.startswith(kept)
    assert go_on() == found
    assert "".join(calls) == "AB" + "BC"
    assert out.read_bytes() == content


def test_measure_missing__row_with_an_error_or_of_another_cell__stays(tmp_path):
    out, other = tmp_path / "r.jsonl", CELLS[0]._replace(quick=True)
    for cell in (other, CELLS[0]):
        rows.append(out, cell._asdict() | {"error": "no"}, side_by_side.Cell)
    found = _common.measure_missing(
        out, side_by_side.Cell, CELLS[:2], lambda cell: {"values": 1}, {}
    )
    assert [row.get("error") for row in found] == ["no", "no", None]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("explain", explain.Cell),
        ("papers", rows.Cell),
        ("speed", side_by_side.Cell),
        ("thresholds", rows.Cell),
        ("trust", trust.Cell),
    ],
)
def test_committed_results__read_and_gone_on_with(name, kind, tmp_path):
    results = FOLDER / "results" / f"{name}.jsonl"
    if not results.exists():
        pytest.skip("a source distribution has no results")
    out = Path(shutil.copy(results, tmp_path))
    there = list(rows.resume(out, kind))
    assert out.read_bytes() == results.read_bytes()
    assert len(there) == len(out.read_text().splitlines())
    assert len(_common.measure_missing(out, kind, there, None, {})) == len(there)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("no such paper"), 2, "error: no such paper"),
        (KeyboardInterrupt("the same command goes on"), 130, "a command: the same command goes on"),
        (KeyboardInterrupt(), 130, "a command: stopped by Ctrl-C."),
    ],
)
def test_explained__one_line_and_a_status(error, code, message, capsys):
    with pytest.raises(SystemExit) as end, _common.explained(argparse.ArgumentParser("a command")):
        raise error
    assert end.value.code == code
    assert capsys.readouterr().err.endswith(f"{message}\n")


# --- thresholds -----------------------------------------------------------------------------------


def test_thresholds__row_by_hand__table_and_going_on(home, capsys, monkeypatch):  # noqa: F811
    (home / "fast.toml").write_text('[ours]\ndetector = "AutoEncoder"\nparams = {epochs = 2}')
    for number in (3, 4):  # enough rows to calibrate
        y = (np.arange(140) % 10 == 0).astype(np.int8)
        X = np.random.default_rng(number).normal(size=(140, 4)) + 3 * y[:, None]
        np.savez(home / "data" / "tabular" / f"{number}_more{number}.npz", X=X, y=y)
    out, name = home / "results" / "t.jsonl", f"{home}/fast.toml:ours"
    command = f"--datasets more3,more4 --detectors {name} --seeds 1 --max-test 30 --out {out}"
    thresholds.main(command.split())
    shown = capsys.readouterr().out
    assert "## one-class: 2 datasets, 1 seeds, percent" in shown
    assert "| contamination='auto' |" in shown
    assert "| worst dataset |" in shown
    found = rows.read(out)
    assert len(found) == 4

    row = next(row for row in found if row["protocol"] == "one-class")
    split = runner.load(rows.cell_of(row), bench.find_data(names=[row["dataset"]])[0])
    detector = detectors.find(name).build(0)[0].fit(split.X_train)
    labels, y = detector.predict(split.X_test), split.y_test
    f1, recall, alarms, flagged = row["rules"]["contamination=0.1"]
    hits = (labels & y).sum()
    assert f1 == pytest.approx(2 * hits / (labels.sum() + y.sum()), abs=1e-4)
    assert recall == pytest.approx(hits / y.sum(), abs=1e-4)
    assert alarms == pytest.approx(labels[y == 0].mean(), abs=1e-4)
    assert flagged == pytest.approx(detector.labels_.mean(), abs=1e-4)
    detector.set_params(calibration_fraction=0.2, false_alarm_rate=0.1)
    by_p = detector.fit(split.X_train).p_values(split.X_test) <= 0.1
    assert row["rules"][thresholds.CALIBRATED][2] == pytest.approx(by_p[y == 0].mean(), abs=1e-4)

    monkeypatch.setattr(thresholds, "run_cell", None)  # nothing left to run
    thresholds.main(command.split())
    assert capsys.readouterr().out == shown


def test_threshold_rules__by_hand():
    scores = np.array([2.0, 1, 4, 3, 9])
    assert thresholds.mad(scores) == pytest.approx(3 + 3.5 * 1 / 0.6745)
    assert thresholds.semi_interquartile(scores) == 4 + 3 * 1
    assert thresholds.log_tukey(np.exp(scores)) == pytest.approx(np.exp(4 + 1.5 * 2))
    assert np.isnan(thresholds.log_tukey(scores - 1))
    assert thresholds.three_sigma(scores) == pytest.approx(3.8 + 3 * np.std(scores))
    # Distances to the median, 3, from above and from below.
    kernel = [(u + w) / (u - w) if u > w else 0 for u in (0, 1, 6) for w in (0, -1, -2)]
    assert thresholds.medcouple(scores) == pytest.approx(np.median(kernel))
    assert thresholds.medcouple(np.arange(10_001.0)) == pytest.approx(0, abs=1e-9)
    assert thresholds.medcouple(-scores) == -thresholds.medcouple(scores)
    skew = thresholds.medcouple(scores)
    assert thresholds.adjusted_boxplot(scores) == pytest.approx(4 + 1.5 * np.exp(3 * skew) * 2)


# --- contributions and ONNX files -----------------------------------------------------------------


def test_explain__shifted__one_value_of_each_row():
    X = np.zeros((50, 4))
    moved, places = explain.shifted(X, np.array([1.0, 0.0, 2.0, 3.0]), seed=0)
    assert (X == 0).all()
    assert np.count_nonzero(moved) == 50
    assert set(places) == {0, 2, 3}  # the second does not vary
    sizes = explain.SHIFT * np.array([1.0, 0.0, 2.0, 3.0])[places]
    np.testing.assert_array_equal(np.abs(moved[np.arange(50), places]), sizes)


def test_explain__rows_and_tables(home, capsys):  # noqa: F811
    out = home / "explain.jsonl"
    args = f"--datasets small --detectors AutoEncoder,DeepSVDD --seeds 1 --out {out}".split()
    explain.main(args)
    first = out.read_text()
    explain.main(args)
    assert out.read_text() == first  # nothing is measured twice
    for row in map(json.loads, first.splitlines()):
        gaps = row["gaps"]
        assert set(gaps) == set(map(str, explain.NODES))
        assert 0 <= gaps["256"]["median"] <= gaps["256"]["max"] < 0.2
        assert all(0 <= share <= 1 for share in row["blamed"].values())
        assert row["chance"] == 0.25
    assert "| DeepSVDD |" in capsys.readouterr().out


def test_onnx__rows_and_table(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    from benchmarks import onnx

    out = tmp_path / "onnx.jsonl"
    args = f"--kinds table --detectors DeepSVDD --largest 300 --out {out}".split()
    onnx.main(args)
    (row,) = map(json.loads, out.read_text().splitlines())
    assert row["deviation"] < 1e-5
    assert row["rows"] == 300
    assert min(row["export"], *row["one"].values(), *row["all"].values()) > 0
    assert "| DeepSVDD | table |" in capsys.readouterr().out


# --- the survey's table ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flagged", "beta", "tolerance", "expected"),
    [
        ([2, 3, 6], 1.0, None, 2 / 3),  # two of three are right, two of three are found
        ([2, 3, 4], 1.0, None, 1.0),
        ([2], 0.1, None, 1.01 / 3 / (0.01 + 1 / 3)),  # precision 1, recall 1/3
        ([2], 1.0, 0, 1.0),  # any point of the event
        ([1], 1.0, 0, 0.0),
        ([1], 1.0, 1, 1.0),
        ([0, 4], 1.0, 1, 2 * 0.5 / 1.5),  # precision 1/2, recall 1
        ([], 1.0, 1, 0.0),
    ],
)
def test_f_score__points_and_events__by_hand(flagged, beta, tolerance, expected):
    y, found = np.zeros(10, bool), np.zeros(10, bool)
    y[2:5] = True
    found[flagged] = True
    assert survey.f_score(y, found, beta, tolerance) == pytest.approx(expected)
