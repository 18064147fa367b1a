"""The benchmark of saved models, memory, damaged files and kills."""

import sys

import pytest

from benchmarks import trust
from deepod.bench import rows

from .test_bench import home  # noqa: F401

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def test_saved__small_table__one_row_per_detector_and_once(home, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(trust, "DATASET", "small")
    monkeypatch.setattr(trust, "ROUNDS", 2)
    out = home / "trust.jsonl"
    args = ["--out", str(out), "--sections", "saved", "--detectors", "AutoEncoder,DAE"]
    trust.main(args)
    found = rows.read(out, trust.Cell)
    assert [row["detector"] for row in found] == ["AutoEncoder", "DAE"]
    for row in found:
        assert 0 < row["weights_bytes"] < row["bytes"]
        assert set(row["seconds"]) == {"save", "load", "joblib.dump", "joblib.load"}
        assert min(row["seconds"].values()) > 0
    content = out.read_bytes()
    trust.main(args)  # nothing is left to do
    assert out.read_bytes() == content
    assert "| AutoEncoder | 27 |" in capsys.readouterr().out


@pytest.mark.slow
def test_everything_else__few__counted_and_no_failures(home, capsys):  # noqa: F811
    out = home / "trust.jsonl"
    few = ["--fits", "20", "--files", "40", "--kills", "4"]
    trust.main(["--out", str(out), "--sections", "fits,damaged,killed", *few])
    fits, damaged, killed = rows.read(out, trust.Cell)
    assert fits["fits"] == 20
    assert damaged["failures"] == []
    assert damaged["counts"]["files"] > 500  # those made on purpose too
    assert killed["counts"]["old"] + killed["counts"].get("new", 0) == 4
    assert "0 failures" in capsys.readouterr().out
