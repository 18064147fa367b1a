"""Two runs on one file of results."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from deepod import bench
from deepod.bench.lock import only_one

HOLD = """
import sys
from deepod.bench.lock import only_one
with only_one(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has the file."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "r.jsonl")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def run(tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 2))
    data = {"made": (X, np.arange(60) % 10 == 0)}
    return bench.run(data, ["pyod:KNN"], tmp_path / "r.jsonl", seeds=1, progress=False)


def test_lock__another_run__named(other, tmp_path):
    with pytest.raises(ValueError, match=f"in use by another run, process {other.pid}:"):
        run(tmp_path)
    assert not (tmp_path / "r.jsonl").exists()


def test_lock__same_process__refused_too(tmp_path):
    with only_one(tmp_path / "r.jsonl"):
        with pytest.raises(ValueError, match=f"process {os.getpid()}:"):
            run(tmp_path)
        with only_one(tmp_path / "another.jsonl"):
            pass


def test_lock__other_run_ended_or_killed__not_in_the_way(other, tmp_path):
    os.kill(other.pid, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
    other.wait()
    assert (tmp_path / "r.jsonl.lock").exists()  # which a killed run leaves behind
    assert len(run(tmp_path)) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.jsonl"]
    assert len(run(tmp_path)) == 1


def test_lock__failed_run__let_go(tmp_path):
    with pytest.raises(ZeroDivisionError), only_one(tmp_path / "r.jsonl"):
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_lock__command_line__says_so(other, tmp_path, capsys):
    from deepod.cli import main

    table = tmp_path / "made.csv"
    table.write_text("a,label\n" + "".join(f"{i % 7},{int(i % 10 == 0)}\n" for i in range(60)))
    out = str(tmp_path / "r.jsonl")
    command = ["bench", "--data", str(table), "--detectors", "pyod:KNN", "--out", out]
    assert main([*command, "--seeds", "1"])
    assert f"in use by another run, process {other.pid}" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_lock__a_link_to_the_file__is_the_file(other, tmp_path):
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "r.jsonl")
    with (
        pytest.raises(ValueError, match="in use by another run"),
        only_one(tmp_path / "link.jsonl"),
    ):
        pass


def test_lock__folder_that_cannot_be_written__runs_without(tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError("read-only folder")

    monkeypatch.setattr("deepod.bench.lock._locked", refused)
    with only_one(tmp_path / "r.jsonl"):
        pass
    assert not list(tmp_path.iterdir())
