"""Files from strangers: every one is refused, or loads to a detector that works."""

import sys

import pytest

from benchmarks.stress import fuzzing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="guards memory by /proc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    fuzzing.make_models(folder)
    fuzzing.make_checkpoints(folder)
    return folder


def assert_survived(report, capsys, files):
    with capsys.disabled():
        counts = ", ".join(f"{n} {what}" for what, n in report["counts"].items())
        slowest, largest = report["slowest"], report["largest"]
        print(f"\n{counts}; {slowest[0]:.2f} s at most, {largest[0]:.0f} MiB at most")
    assert not report["failures"], "\n".join(report["failures"][:20])
    assert report["counts"]["files"] >= files
    # Whatever was loaded or refused has been judged.
    assert sum(report["counts"].values()) == 2 * report["counts"]["files"]


def test_load__few_random_files__refused_or_works(folder, capsys):
    report = fuzzing.survive(folder, "random", 0, 300)
    assert_survived(report, capsys, 300)
    assert report["counts"]["loaded, same scores"] > 10  # not all is refused
    assert report["counts"]["refused"] > 200


def test_load__what_is_no_file_or_changes_meanwhile__refused(folder, capsys):
    report = fuzzing.survive(folder, "places")
    assert_survived(report, capsys, 100)
    assert report["counts"]["no file"] >= 5


def test_checkpoint__few_random_files__refused_or_trained(folder, capsys):
    report = fuzzing.survive(folder, "checkpoints", 0, 60)
    assert_survived(report, capsys, 60)
    assert report["counts"]["refused"] > 40


@pytest.mark.slow
def test_checkpoint__two_thousand_random_files__refused_or_trained(folder, capsys):
    report = fuzzing.survive(folder, "checkpoints", 100, 2100)
    assert_survived(report, capsys, 2000)
    assert report["counts"]["loaded, same scores"] > 50


@pytest.mark.slow
def test_load__files_made_on_purpose__refused_or_works(folder, capsys):
    report = fuzzing.survive(folder, "attacks")
    assert_survived(report, capsys, 400)
    assert report["counts"]["loaded, same scores"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_load__ten_thousand_random_files__refused_or_works(part, folder, capsys):
    first = 1000 + 2500 * part
    assert_survived(fuzzing.survive(folder, "random", first, first + 2500), capsys, 2500)
