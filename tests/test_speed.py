"""The speed benchmark: turns, ratios, restarts, the table of targets. No test looks at a time."""

import json
import mmap
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pyod.models import auto_encoder
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import deepod
from benchmarks import memory, side_by_side, speed, speed_report, speed_sections
from benchmarks.side_by_side import Cell, Comparison, Contender, Ratio
from deepod.bench import rows
from deepod.params import one_of, param, parameters


@pytest.fixture(autouse=True)
def _no_care_for_the_clock(monkeypatch):
    """What makes times worth something, and takes long: here nobody looks at them."""
    monkeypatch.setattr(side_by_side.gc, "collect", lambda: 0)
    # Which Numba would compile.
    monkeypatch.setattr(auto_encoder, "pairwise_distances_no_broadcast", distances)


def distances(X, Y):
    return np.sqrt(np.square(X - Y).sum(1))


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def contender(name, calls, values=(), facts=None):
    """Takes the given times, one after another, the first for the untimed round."""
    left = iter(values)

    def measure():
        calls.append(name)
        return {"fit": next(left, 1.0)}

    return lambda: Contender(measure, facts or {})


def comparison(a=(9, 1, 2, 6), b=(9, 4, 4, 3), calls=None, **more):
    calls = [] if calls is None else calls
    sides = {"A": contender("A", calls, a), "B": contender("B", calls, b)}
    settings = {"ratios": [Ratio("B", "A", "fit", "fit_128")]} | more
    return Comparison("fit", "a setting", {"fit": "s"}, sides, **settings)


def call(out, *more, sections="fit"):
    speed.main(["--out", str(out), "--sections", sections, "--repeats", "1", *more])
    return rows.read(out, Cell)


# --- side by side ---------------------------------------------------------------------------------


def test_run__contenders_take_turns_after_an_untimed_round():
    calls = []
    found = side_by_side.run(comparison(calls=calls), repeats=3)
    assert "".join(calls) == "AB" + "ABABAB"
    assert [row["values"] for row in found] == [[1, 2, 6], [4, 4, 3], [4, 2, 0.5]]
    assert [row.get("median") for row in found] == [2, 4, None]
    assert found[2]["ratio"] == 2  # of the medians
    assert (found[2]["contender"], found[2]["figure"]) == ("B / A", "fit_128")
    assert [rows.cell_of(row, Cell) for row in found] == comparison().cells(quick=False)


def test_run__fewer_rounds_and_less_warm_up_where_the_work_is_long():
    calls = []
    side_by_side.run(comparison(calls=calls, warm_up=1, repeats=2), repeats=3)
    assert "".join(calls) == "A" + "ABAB"


def test_run__failure_is_a_row_and_stops_nobody_else():
    def broken():
        raise RuntimeError("out of order")

    found = side_by_side.run(
        Comparison(
            "fit",
            "a setting",
            {"fit": "s"},
            {"A": broken, "B": contender("B", [])},
            [Ratio("B", "A", "fit")],
        ),
        repeats=2,
    )
    assert [row.get("error") for row in found] == [
        "RuntimeError: out of order",
        None,
        "A: RuntimeError: out of order",
    ]
    assert found[1]["values"] == [1, 1]


def test_run__different_work__not_compared():
    sides = {name: contender(name, [], facts={"parameters": len(name)}) for name in ("A", "BB")}
    found = side_by_side.run(
        Comparison("fit", "", {"fit": "s"}, sides, [Ratio("BB", "A", "fit")], equal="parameters"),
        repeats=1,
    )
    assert all("parameters differ" in row["error"] for row in found)


def test_ratio__time_of_zero__error_not_infinity():
    found = side_by_side.run(comparison(a=(1, 0)), repeats=1)
    assert "too short" in found[2]["error"]


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def sections(monkeypatch):
    """Two comparisons, of which the second may be missing; calls are counted."""

    state = SimpleNamespace(calls=[], missing=None)

    def fit(work):
        yield comparison(calls=state.calls)
        yield Comparison(
            "fit",
            "another",
            {"fit": "s"},
            {"C": contender("C", state.calls)},
            missing=state.missing,
        )

    monkeypatch.setattr(speed, "SECTIONS", {"fit": fit})
    return state


def test_rows_say_where_they_are_from(sections, tmp_path):
    found = call(tmp_path / "new folder" / "r.jsonl")
    assert len(found) == 4
    about = {"versions", "commit", "cpu", "cores", "threads", "load"}
    assert all(about - {"load"} <= set(row) for row in found)
    assert len(found[0]["load"]) == 2  # at the start and at the end


@pytest.mark.parametrize("keep", [0, 1, 3, 4])
def test_killed__measures_the_comparison_again_that_was_not_complete(sections, tmp_path, keep):
    out = tmp_path / "r.jsonl"
    call(out)
    lines = out.read_bytes().splitlines(keepends=True)
    rest = lines[keep][:30] if keep < 4 else b""  # cut in the middle of a line
    out.write_bytes(b"".join(lines[:keep]) + rest)
    sections.calls.clear()
    found = call(out)
    assert "".join(sections.calls) == {0: "ABABCC", 1: "ABABCC", 3: "CC", 4: ""}[keep]
    assert [rows.cell_of(row, Cell) for row in found] == [
        rows.cell_of(json.loads(line), Cell) for line in lines
    ]
    content = out.read_bytes()
    call(out)
    assert out.read_bytes() == content


def test_missing__recorded_once_and_measured_when_it_is_there(sections, tmp_path):
    out = tmp_path / "r.jsonl"
    sections.missing = "deepod.thing is not available"
    assert call(out)[3]["skipped"] == sections.missing
    content = out.read_bytes()
    call(out)
    assert out.read_bytes() == content
    sections.missing = None
    sections.calls.clear()
    assert call(out)[3]["values"] == [1]
    assert "".join(sections.calls) == "CC"


def test_errors_are_retried_only_on_request(tmp_path, monkeypatch):
    out, failing = tmp_path / "r.jsonl", [True]

    def set_up():
        if failing:
            raise RuntimeError("out of order")
        return contender("A", [])()

    def fit(work):
        yield Comparison("fit", "a setting", {"fit": "s"}, {"A": set_up})

    monkeypatch.setattr(speed, "SECTIONS", {"fit": fit})
    call(out)
    failing.clear()
    assert "error" in call(out)[0]
    assert call(out, "--retry-errors")[0]["values"] == [1]


def test_trials_are_rows_of_their_own(sections, tmp_path):
    out = tmp_path / "r.jsonl"
    call(out)
    assert [row["quick"] for row in call(out, "--quick")] == [False] * 4 + [True] * 4


def test_unknown_section(tmp_path):
    with pytest.raises(SystemExit):
        call(tmp_path / "r", sections="fit,fitt")
    assert not (tmp_path / "r").exists()


# --- sections -------------------------------------------------------------------------------------


def test_quick__valid_rows_and_no_cuda(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "r.jsonl"
    found = call(out, "--quick", sections="fit,score,gpu")
    assert not [row["error"] for row in found if "too short" not in row.get("error", "too short")]
    gpu = [row for row in found if row["section"] == "gpu"]
    assert gpu
    assert {row["skipped"] for row in gpu} == {"no CUDA"}
    counts = {
        row["contender"]: row["parameters"]
        for row in found
        if row["setting"].startswith("autoencoder 32-64-32-64-32, 500") and "parameters" in row
    }
    assert counts == {"deepod": 8384, "PyOD": 8384}
    for row in found:
        if row["section"] != "gpu" and "error" not in row:
            assert len(row["values"]) == 1
            assert np.isfinite(row.get("median", row.get("ratio")))
    content = out.read_bytes()
    call(out, "--quick", sections="fit,score,gpu")
    assert out.read_bytes() == content


def test_members__skipped_until_there(tmp_path, monkeypatch):
    for name in ("fit_many", "StackedSearchCV"):
        monkeypatch.delitem(deepod._CLASSES_AND_FUNCTIONS, name, raising=False)
        monkeypatch.delattr(deepod, name, raising=False)
    out = tmp_path / "r.jsonl"
    found = call(out, "--quick", sections="members")
    assert {row["skipped"] for row in found} == {
        "deepod.fit_many is not available",
        "deepod.StackedSearchCV is not available",
    }

    def fit_many(detector, X, y=None, *, seeds):
        return [clone(detector).set_params(random_state=seed).fit(X) for seed in seeds]

    monkeypatch.setattr(deepod, "fit_many", fit_many, raising=False)
    monkeypatch.setattr(deepod, "StackedSearchCV", GridSearchCV, raising=False)
    found = call(out, "--quick", sections="members")
    assert all("values" in row for row in found)
    assert {row["figure"] for row in found if row.get("figure")} == {"members", "search"}
    assert [row["members"] for row in found if "members" in row] == [1, 10, 1, 2, 4]


@pytest.mark.slow  # fresh processes import torch, and all methods train
def test_quick__everything(tmp_path):
    found = call(tmp_path / "r.jsonl", "--quick", sections=",".join(speed.SECTIONS))
    assert {row["section"] for row in found} == set(speed.SECTIONS)
    assert not [row["error"] for row in found if "too short" not in row.get("error", "too short")]
    steps = {row["contender"] for row in found if row["setting"].startswith("PLAD")}
    assert steps  # one per engine
    (peak,) = [row for row in found if row.get("figure") == "rows_memory"]
    assert (peak["unit"], peak["quantity"]) == ("MiB", "beyond")


def test_largest__no_table_has_more_rows():
    work = speed_sections.Work(largest=50_000)
    with work.resources:
        found = [c for c in speed_sections.rows(work) if "memory map" in c.setting]
        assert list(found[0].contenders) == ["10,000 rows", "50,000 rows"]
        assert "50,000 x 32" in found[0].setting
        X = np.load(work.mapped(1000), mmap_mode="r")
        assert (X.shape, X.dtype) == ((1000, 32), np.float32)
        folder = work.folder
    assert not folder.exists()


def test_engines__those_that_the_detector_takes():
    @parameters
    class Three(deepod.AutoEncoder):
        """Has an engine."""

        engine: str = param(
            default="auto", accepts=[one_of("auto", "eager", "cuda_graph")], doc="How to run."
        )

    assert speed_sections.engines(Three()) == ["auto", "eager"]
    assert speed_sections.engines(Three(), "cuda") == ["auto", "eager", "cuda_graph"]
    assert speed_sections.with_engine(Three(), "eager").engine == "eager"
    assert speed_sections.with_engine(Three(), "default").engine == "auto"


def test_steps_are_counted():
    X = speed_sections.rows_of(256)
    ready = speed_sections._steps(speed_sections.ours, X, (1, 2), batch_size=32)
    assert ready.facts["steps_per_epoch"] == 8
    # Four layers: forward and weights, and three gradients of what is between them.
    assert speed_sections._products(32, 1).facts["products"] == 11


def test_peak_of__memory_beyond_what_was_there():
    # Of its own: what earlier tests gave back could otherwise serve for it.
    fresh = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    found = memory.peak_of(lambda: np.frombuffer(fresh, np.uint8).fill(1))
    assert found["peak"] - found["before"] >= 60  # of 64 MiB
    assert found["how"] in ("RssAnon", "ru_maxrss")


# --- report ---------------------------------------------------------------------------------------


def row(figure, value, values=(), quick=False, **more):
    about = {"section": "fit", "setting": f"setting {value}", "contender": "B / A"}
    found = about | {"quantity": figure, "quick": quick, "figure": figure}
    return found | {"ratio": value, "values": [*values] or [value]} | more


def line(found, text):
    return next(x for x in speed_report.table(found).splitlines() if text in x)


@pytest.mark.parametrize(
    ("value", "verdict"), [(2.9, "missed"), (3, "reached"), (6, "aim reached"), (7, "aim reached")]
)
def test_table__more_is_better(value, verdict):
    shown = line([row("fit_128", value)], "fit, batch 128")
    assert f"| ≥ 3 | 6 | {value}, {verdict}: setting {value} |" in shown


@pytest.mark.parametrize(
    ("value", "verdict"), [(1.4, "missed"), (1.3, "reached"), (1.1, "aim reached")]
)
def test_table__less_is_better(value, verdict):
    shown = line([row("score_module", value)], "bare module")
    assert f"| ≤ 1.3 | 1.1 | {value}, {verdict}: " in shown


def test_table__ratio_of_hand_made_rows():
    sides = [
        dict(zip(Cell._fields, ("fit", "a setting", name, "fit", False), strict=True))
        | {"values": values, "median": sorted(values)[1], "unit": "s"}
        for name, values in {"A": [1.0, 2.0, 4.0], "B": [6.0, 8.0, 12.0]}.items()
    ]
    found = side_by_side.ratios(comparison(), sides)
    assert "| 4 (3 to 6), reached: a setting |" in line(sides + found, "fit, batch 128")
    listed = speed_report.listing(sides + found)
    assert "| A | fit | 2 s | 1 s | 4 s |" in listed
    assert "| B / A | fit | 4 | 3 | 6 |" in listed


def test_table__worst_counts_and_trials_only_alone():
    found = [row("rows_time", 1.2), row("rows_time", 1.5), row("rows_time", 9.0, quick=True)]
    assert "| 1.5, missed:" in line(found, "time per row")
    assert "| 9, a trial:" in line(found[2:], "time per row")


def test_table__memory_is_no_ratio():
    found = row("rows_memory", 0, unit="MiB", median=299.6, values=[299.6])
    del found["ratio"]
    assert "| ≤ 1024 MiB | 300 MiB | 300 MiB, aim reached:" in line([found], "memory")


def test_table__what_was_not_measured():
    skipped = row("members", 0) | {"skipped": "not available"}
    failed = row("step", 0) | {"error": "A: RuntimeError: no"}
    assert "| not available |" in line([skipped, failed], "10 members")
    assert "| error: A: RuntimeError: no |" in line([skipped, failed], "one step")
    assert "| not run |" in line([skipped, failed], "12 candidates")


def test_listing__units_that_read_well():
    times = [2.0, 2e-3, 2e-6, 2e-9]
    shown = [speed_report._scale(time, "s") for time in times]
    assert [name for _, name in shown] == [" s", " ms", " µs", " ns"]
    assert [time * factor for time, (factor, _) in zip(times, shown, strict=True)] == [2] * 4


def test_report_command_and_pictures(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    about = {"versions": {"python": "3"}, "commit": "abc", "cpu": "a model", "cores": 2}
    measured = {"unit": "s", "values": [1.0, 2.0], "median": 1.5, "quick": False, "figure": None}
    growth = [
        about | measured | {"section": s, "setting": f"growth {t}", "contender": f"{n}", fact: n}
        for s, t, fact in (
            ("rows", "of a memory map", "rows"),
            ("rows", "with features", "features"),
            ("members", "of members", "members"),
        )
        for n in (1, 10)
    ]
    out = tmp_path / "r.jsonl"
    growth.append(about | row("rows_time", 1.1))
    for found in [*growth, about | row("fit_128", 4.0, load=[0.5, 1.5])]:
        rows.append(out, {"quantity": "row"} | found, Cell)
    speed.main(["--report", str(out), "--all", "--plots", str(tmp_path / "plots")])
    shown = capsys.readouterr().out
    assert "| 4, reached: setting 4.0 |" in shown
    assert "Commit: abc; machine: a model, 2 cores; versions: python 3" in shown
    assert "load average: 0.5 to 1.5" in shown
    written = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert written == {"rows", "features", "members", "ratios"}
