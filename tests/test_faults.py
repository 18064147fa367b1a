"""Saves and benchmarks that are killed, interrupted, or find the disk full."""

import errno
import json
import os
import random
import signal
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import deepod
from benchmarks.stress import faults
from benchmarks.stress.faults import tree
from deepod._storage import atomic
from deepod._storage import card as _card
from deepod._storage import detectors as detectors_module
from deepod.networks import MLP

from . import children
from .cases import fast, samples
from .test_bench import NORM, home  # noqa: F401

resource = pytest.importorskip("resource", reason="limits of POSIX; its signals and pipes")

X = samples()
KINDS = ["model", "model.deepod"]  # a folder, a file
every_kind = pytest.mark.parametrize("name", KINDS)


@pytest.fixture(scope="module")
def models():
    """Two that are told apart by their scores; the second is larger."""
    return [
        fast("AutoEncoder", network=MLP(hidden=(width,)), random_state=width).fit(X)
        for width in (5, 50)
    ]


def scores(path):
    return deepod.load(path).decision_function(X)


# --- killed ---------------------------------------------------------------------------------------


@every_kind
def test_save__killed__old_or_new_model(name, tmp_path):
    counts = faults.kill_saves(tmp_path, name, 3)
    assert counts["old"] + counts["new"] == 3


@every_kind
def test_first_save__killed__none_or_whole_and_not_in_the_way(name, tmp_path):
    assert faults.kill_first_saves(tmp_path, name, 2).total() == 2


@pytest.mark.slow
@every_kind
def test_save__killed_thirty_times__old_or_new_model(name, tmp_path, capsys):
    counts = faults.kill_saves(tmp_path, name, 30)
    first = faults.kill_first_saves(tmp_path, name, 30)
    with capsys.disabled():
        print(f"\n{name}: 60 kills survived, {dict(counts)}, {dict(first)}")
    assert counts["old"] + counts["new"] == first.total() == 30
    assert min(counts["old"], counts["new"]) > 3
    assert counts["left"]  # kills in the middle of writing


def test_save__partial_files_of_killed_ones__deleted_but_no_others(models, tmp_path):
    mine = tmp_path / ".model.deepod.1-1.part"
    others = [tmp_path / ".other.deepod.1-1.part", tmp_path / "model.deepod.part"]
    for path in (mine, *others):
        path.write_bytes(b"half")
    os.mkfifo(tmp_path / ".model.deepod.2-1.part")  # would be waited for
    models[0].save(tmp_path / "model.deepod")
    assert not mine.exists()
    assert all(path.read_bytes() == b"half" for path in others)


def test_save__partial_file_that_another_process_is_writing__left(models, tmp_path):
    place = tmp_path / "model.deepod"
    with atomic._new(tmp_path / "model.deepod") as (partial, _):
        other = partial.rename(tmp_path / ".model.deepod.1-1.part")
        models[0].save(place)
        assert other.exists()
    models[0].save(place)
    assert not other.exists()


@every_kind
def test_save__from_several_threads__one_of_the_models(name, models, tmp_path):
    path, errors = tmp_path / name, []

    def work(model):
        try:
            for _ in range(5):
                model.save(path)
        except Exception as error:
            errors.append(error)

    models[0].save(path)
    threads = [threading.Thread(target=work, args=(models[i % 2],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        found = scores(path)
        assert any(np.array_equal(found, model.decision_function(X)) for model in models)
    for thread in threads:
        thread.join()
    assert not errors
    assert not faults.partials(tmp_path)


@every_kind
def test_save__from_several_threads_at_first__all_succeed(name, models, tmp_path):
    path, errors = tmp_path / name, []
    together = threading.Barrier(4)

    def work(model):
        together.wait()
        for _ in range(10):
            try:
                model.save(path)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=work, args=(models[i % 2],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert any(np.array_equal(scores(path), m.decision_function(X)) for m in models)
    assert not faults.partials(tmp_path)


def test_save__another_one_took_long_to_look__not_disturbed(models, tmp_path, monkeypatch):
    """It found a partial file, was held up, and goes on while the same thread saves again."""
    path, locked = tmp_path / "model.deepod", atomic._locked
    models[0].save(path)

    def held_up(file, **kwargs):
        if not kwargs:  # looks whether the file was left
            monkeypatch.setattr(atomic, "_locked", locked)
            first.close()  # that save is over, and the next one begins
            partial, _ = second.enter_context(atomic._new(path))
            assert locked(file)
            begun.append(partial)
        return locked(file, **kwargs)

    begun = []
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(atomic._new(path))
        monkeypatch.setattr(atomic, "_locked", held_up)
        atomic.prepare(path)
        assert begun[0].exists()


def test_save__older_model_is_kept_meanwhile__no_other_save_deletes_it(
    models, tmp_path, monkeypatch
):
    path, replace, seen = tmp_path / "model.deepod", Path.replace, []
    models[0].save(path)

    def look(self, target):
        if not seen:
            (old,) = tmp_path.glob(".*.old.part")
            atomic.prepare(path)
            seen.append(old.exists())
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", look)
    models[1].save(path)
    assert seen == [True]


# --- the disk is full -----------------------------------------------------------------------------

CALLS = [(Path, "open"), (Path, "write_bytes"), (Path, "chmod"), (Path, "replace"), (Path, "mkdir")]
CALLS += [(os, "fsync"), (os, "link")]


class Fails:
    """Makes the n-th call that changes the disk fail, before or after it has done its work."""

    def __init__(self, monkeypatch, n, error, late=False):
        self.calls, self.n, self.error, self.late = [], n, error, late
        for owner, name in CALLS:
            monkeypatch.setattr(owner, name, self.failing(name, getattr(owner, name)))

    def failing(self, name, function):
        def call(*args, **kwargs):
            if name == "open" and args[1:2] != ("xb",):
                return function(*args, **kwargs)
            self.calls.append(name)
            if len(self.calls) != self.n:
                return function(*args, **kwargs)
            if name == "write_bytes":
                function(args[0], args[1][: len(args[1]) // 2])
            elif self.late:
                function(*args, **kwargs)
            if self.error is OSError:
                raise OSError(errno.ENOSPC, "No space left", str(args[0]))
            raise self.error

        return call


@pytest.mark.parametrize("there", [False, True], ids=["first", "again"])
@pytest.mark.parametrize(
    ("error", "late"),
    [(OSError, False), (KeyboardInterrupt, False), (KeyboardInterrupt, True)],
    ids=["disk full", "interrupted before", "interrupted after"],
)
@every_kind
def test_save__any_call_fails__all_as_before(name, error, late, there, models, tmp_path):
    path = tmp_path / name
    if there:
        models[0].save(path)
        path.chmod(0o755 if path.is_dir() else 0o640)
    before = tree(tmp_path)
    new = models[1].decision_function(X)
    for n in range(1, 100):
        with pytest.MonkeyPatch.context() as monkeypatch:
            fails = Fails(monkeypatch, n, error, late)
            try:
                models[1].save(path)
                failed = ""
            except (OSError, KeyboardInterrupt) as raised:
                failed = f"{type(raised).__name__}: {raised}"
        if len(fails.calls) < n:
            break
        if fails.calls[n - 1] == "link" and not failed:  # there is no way back, but no need either
            assert np.array_equal(scores(path), new)
            models[0].save(path)
            continue
        assert failed.startswith(error.__name__)
        assert error is KeyboardInterrupt or str(path) in failed
        assert tree(tmp_path) == before, fails.calls
    assert n > (12 if name == "model" else 4)
    assert not failed
    assert np.array_equal(scores(path), new)
    assert not faults.partials(tmp_path)
    if there and name == "model.deepod":
        assert path.stat().st_mode & 0o777 == 0o640


class EndsNothing(ExitStack):
    """What a kill leaves of an ExitStack."""

    def __exit__(self, *args):
        pass


# Nothing closes files after this kill, which is no real one.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_save__killed_before_the_last_file__model_is_the_new_one(models, tmp_path):
    # No more than this can be promised of three files: a card of the older model.
    models[0].save(tmp_path / "model")
    for n in range(1, 100):
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(atomic, "ExitStack", EndsNothing)
            fails = Fails(monkeypatch, n, KeyboardInterrupt)
            try:
                models[1].save(tmp_path / "model")
                break
            except KeyboardInterrupt:
                pass
        found = scores(tmp_path / "model")
        replaced = fails.calls.count("replace") - (fails.calls[-1] == "replace")
        assert np.array_equal(found, models[min(1, replaced)].decision_function(X))
        models[0].save(tmp_path / "model")
        assert not faults.partials(tmp_path)
    assert n > 12


def _save_on_a_small_disk(path: Path, size: int, result: Path) -> None:
    model = fast("AutoEncoder", network=MLP(hidden=(200,)), random_state=1).fit(X)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    found = {}
    try:
        model.save(path)
    except OSError as error:
        found = {
            "errno": error.errno,
            "text": str(error),
            "left": len(faults.partials(path.parent)),
        }
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    result.write_text(json.dumps(found))


@pytest.mark.parametrize("size", [0, 4096, 20_000])
@every_kind
def test_save__file_size_is_limited__old_model_stays(name, size, models, tmp_path):
    path, result = tmp_path / "in" / name, tmp_path / "result"
    path.parent.mkdir()
    models[0].save(path)
    before = tree(path.parent)
    process = children.start(_save_on_a_small_disk, path, size, result)
    process.join()
    found = json.loads(result.read_text())
    assert found["errno"] == errno.EFBIG
    assert str(path) in found["text"]
    assert not found["left"]
    assert tree(path.parent) == before


# --- things that are in the way -------------------------------------------------------------------


@contextmanager
def protected(path):
    """Write-protect a path; root may write anywhere, and is only told that it may not."""
    mode = path.stat().st_mode
    path.chmod(mode & ~0o222)
    with pytest.MonkeyPatch.context() as monkeypatch:
        if os.geteuid() == 0:
            access = os.access

            def as_others(place, how):
                return access(place, how) and os.path.realpath(place) != os.path.realpath(path)

            monkeypatch.setattr(os, "access", as_others)
        try:
            yield
        finally:
            path.chmod(mode)


def assert_refused(model, path, error, folder):
    """The save fails, names the path, and changes nothing."""
    before = tree(folder)
    with pytest.raises(error) as raised:
        model.save(path)
    assert path.name in str(raised.value) or str(path.parent) in str(raised.value)
    assert tree(folder) == before


@every_kind
def test_save__write_protected__refused(name, models, tmp_path):
    path = tmp_path / name
    models[0].save(path)
    files = [path, *([path / "config.json"] if path.is_dir() else [])]
    for file in files:
        with protected(file):
            assert_refused(models[1], path, PermissionError, tmp_path)


def test_save__write_protected_folder__refused(models, tmp_path):
    (tmp_path / "in").mkdir()
    with protected(tmp_path / "in"):
        before = tree(tmp_path)
        with pytest.raises(PermissionError, match="in"):
            models[0].save(tmp_path / "in" / "model")
        if os.geteuid():
            with pytest.raises(PermissionError, match="in"):
                models[0].save(tmp_path / "in" / "model.deepod")
        assert tree(tmp_path) == before


def test_save__no_folder_or_no_file_there__refused(models, tmp_path):
    (tmp_path / "file").write_text("a file")
    os.mkfifo(tmp_path / "pipe.deepod")
    (tmp_path / "notes.deepod").mkdir()
    (tmp_path / "notes.deepod" / "mine.txt").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, error in (
        ("file/model", OSError), ("file/model.deepod", NotADirectoryError),
        ("file", FileExistsError), ("missing/model", FileNotFoundError),
        ("missing/model.deepod", FileNotFoundError),
        ("pipe.deepod", FileExistsError), ("notes.deepod", FileExistsError), ("loop", OSError),
        ("x" * 300 + ".deepod", OSError), ("x" * 300, OSError),
    ):  # fmt: skip
        assert_refused(models[0], tmp_path / name, error, tmp_path)


@pytest.mark.parametrize("file", [_card.WEIGHTS, _card.CONFIG, _card.CARD])
def test_save__a_folder_in_the_place_of_a_file__refused(file, models, tmp_path):
    models[0].save(tmp_path / "model")
    (tmp_path / "model" / file).unlink()
    (tmp_path / "model" / file).mkdir()
    assert_refused(models[1], tmp_path / "model", OSError, tmp_path)


def test_save__other_things_beside_the_model__stay(models, tmp_path):
    models[0].save(tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    (tmp_path / "model" / "older").mkdir()
    (tmp_path / "beside").write_text("mine")
    before = tree(tmp_path)
    models[1].save(tmp_path / "model")
    changed = {key for key, value in tree(tmp_path).items() if before[key] != value}
    files = (_card.WEIGHTS, _card.CONFIG, _card.CARD)
    assert changed == {f"model/{name}" for name in files}


class Thresholder:
    def fit(self, scores):
        self.labels_, self.thresh_ = (scores > 1).astype(int), 1.0
        return self

    def predict(self, scores):
        return (scores > 1).astype(int)


@every_kind
def test_save__what_cannot_be_saved__older_model_stays(name, models, tmp_path):
    path = tmp_path / name
    models[0].save(path)
    before = tree(tmp_path)
    cases = [
        (fast("AutoEncoder"), NotFittedError, "not fitted"),
        (fast("AutoEncoder", contamination=Thresholder()).fit(X), TypeError, "contamination="),
        (fast("AutoEncoder", callbacks=[lambda event: False]).fit(X), TypeError, "callbacks="),
    ]
    for model, error, message in cases:
        with pytest.raises(error, match=message):
            model.save(path)
        assert tree(tmp_path) == before


def test_save__network_that_load_would_refuse__said_at_once(models, tmp_path, monkeypatch):
    monkeypatch.setattr(detectors_module, "MOST_CALLS", 10)
    with pytest.raises(ValueError, match=r"could not be loaded again: .*too many layers"):
        models[0].save(tmp_path / "model.deepod")
    assert not list(tmp_path.iterdir())


def test_save__history_that_no_file_can_hold__said_at_once(models, tmp_path):
    model = fast("AutoEncoder").fit(X)
    model.history_ = [{"phase": "fit", "epoch": i, "seconds": 0.1} for i in range(200_000)]
    with pytest.raises(ValueError, match="shorten history_"):
        model.save(tmp_path / "model.deepod")
    assert not list(tmp_path.iterdir())


# --- the runner of benchmarks ---------------------------------------------------------------------


@pytest.mark.slow
def test_benchmark__killed_many_times__rows_as_if_it_never_was(home, capsys):  # noqa: F811
    args = f"--protocol one-class --datasets small,2_wide --detectors {NORM},pyod:ECOD --seeds 100"
    data, killed, whole = home / "data", home / "killed", home / "whole"
    kills = faults.kill_benchmarks(data, killed, args.split(), longest=0.05)
    with capsys.disabled():
        print(f"\n{kills} kills of a benchmark survived")
    assert kills >= 20
    faults.kill_benchmarks(data, whole, args.split(), longest=600)
    assert faults.untimed(killed) == faults.untimed(whole)
    assert len(faults.untimed(whole)) == 400


def test_results_file__cut_at_any_byte__goes_on(tmp_path):
    from deepod.bench import rows

    path, cells = tmp_path / "rows", [rows.Cell("p", f"d{i}", "é", i)._asdict() for i in range(3)]
    for cell in cells:
        rows.append(path, cell | {"x": "a\nb"})
    whole = path.read_bytes()
    moments = random.Random(0)
    for size in [0, len(whole), *(moments.randrange(len(whole)) for _ in range(50))]:
        path.write_bytes(whole[:size])
        there = rows.read_and_repair(path)
        for cell in cells[len(there) :]:
            rows.append(path, cell | {"x": "a\nb"})
        assert path.read_bytes() == whole
