"""Many fits, threads, processes and copies: memory that comes back, and scores that stay."""

import copy
import json
import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch

import deepod
from benchmarks.stress.churn import churn
from deepod import SeedEnsemble

from . import children
from .cases import IN_TURNS, NAMES_AND_KINDS, REPRESENTATIVES, fast, samples

in_turns = pytest.mark.parametrize(("name", "kind"), IN_TURNS)
X = samples()
NEW = samples(n=300, seed=1)


def answers(detector, X):
    """What users ask a detector, as bytes."""
    found = [
        detector.decision_function(X),
        detector.predict(X),
        detector.predict_proba(X),
        detector.predict_confidence(X),
        detector.predict_with_rejection(X),
        detector.explain(X[:3]),
    ]
    return [(array.dtype, array.shape, array.tobytes()) for array in found]


# --- memory ---------------------------------------------------------------------------------------

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def assert_nothing_stays(found, capsys):
    with capsys.disabled():
        mib = found["process"]
        print(f"\n{found['fits']} fits, {found['traced']} of them traced: {mib[0]:.1f} MiB before,")
        print(f"{mib[1]:.1f} after a fifth, {mib[-1]:.1f} in the end")
    # After a fifth every kind has been fitted: what is imported or kept once is there.
    growth = {name: found[name][-1] - found[name][1] for name in ("objects", "modules", "tensors")}
    assert growth["objects"] < found["fits"] / 10
    assert growth["modules"] == growth["tensors"] == 0
    # The smallest model takes 30 KiB: the allocator may keep a page here and there, but no models.
    assert mib[-1] - mib[1] < 2 + found["fits"] / 200


@on_linux
def test_forty_fits__dropped__nothing_stays(tmp_path, capsys):
    found = churn(40, tmp_path, turns=[(name, "table") for name in REPRESENTATIVES])
    assert found["traced"] >= 5
    assert_nothing_stays(found, capsys)


@pytest.mark.slow
@on_linux
def test_thousand_fits__dropped__nothing_stays(tmp_path, capsys):
    found = churn(1000, tmp_path)
    assert found["traced"] >= 30
    assert_nothing_stays(found, capsys)


@pytest.mark.slow
@on_linux
def test_python__after_two_hundred_fits__a_few_bytes_each(tmp_path):
    found = churn(200, tmp_path, python=True)
    assert found["python"][-1] - found["python"][1] < 0.1  # MiB: half a kilobyte per fit


# --- threads --------------------------------------------------------------------------------------


@in_turns
def test_scoring__from_eight_threads__as_alone(name, kind):
    detector, rows = fast(name).fit(samples(kind)), samples(kind, n=40, seed=1)
    alone = answers(detector, rows)
    again = copy.deepcopy(detector)  # whose threshold has not been asked for
    with ThreadPoolExecutor(8) as threads:
        for found in threads.map(lambda _: answers(again, rows), range(8)):
            assert found == alone


def test_scoring__ensemble_from_threads__as_alone():
    ensemble = SeedEnsemble(fast("PLAD"), n_members=3, random_state=0).fit(X)
    alone = ensemble.decision_function(NEW)
    with ThreadPoolExecutor(8) as threads:
        for found in threads.map(ensemble.decision_function, [NEW] * 16):
            np.testing.assert_array_equal(found, alone)


def works():
    """Detectors of all kinds, two of them traced."""
    made = [(fast(name), samples(kind)) for name, kind in IN_TURNS]
    for name in ("AutoEncoder", "PLAD"):
        traced = fast(name, network="mlp", epochs=70, batch_size=16, callbacks=())
        made.append((traced, X))
    return made


def test_fit__different_detectors_from_threads__as_alone():
    alone = [detector.fit(rows).decision_scores_ for detector, rows in works()]
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(lambda work: work[0].fit(work[1]), works()))
    assert together[-1].engine_ == "trace"
    for detector, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(detector.decision_scores_, expected, err_msg=repr(detector))


def test_fit_and_load__from_threads__global_generator_untouched(tmp_path):
    detector = fast("PLAD", network="mlp").fit(X)
    detector.save(tmp_path / "m")

    def work(number):
        fast("AutoEncoder", random_state=number).fit(X)
        return deepod.load(tmp_path / "m").decision_function(X)

    before = torch.random.get_rng_state()
    with ThreadPoolExecutor(6) as threads:
        for found in threads.map(work, range(24)):
            np.testing.assert_array_equal(found, detector.decision_scores_)
    assert torch.equal(torch.random.get_rng_state(), before)


# --- processes ------------------------------------------------------------------------------------


def fitted(name, kind="table"):
    torch.set_num_threads(1)
    return fast(name).fit(samples(kind))


def assert_all_as_here(found):
    for (name, kind), detector in zip(NAMES_AND_KINDS, found, strict=True):
        here = fitted(name, kind)
        np.testing.assert_array_equal(detector.decision_scores_, here.decision_scores_)
        assert answers(detector, samples(kind)) == answers(here, samples(kind))


@pytest.mark.slow  # workers import torch
def test_fit__in_joblib_workers__as_here():
    jobs = joblib.Parallel(2, backend="loky")
    assert_all_as_here(jobs(joblib.delayed(fitted)(*case) for case in NAMES_AND_KINDS))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["spawn", "forkserver"])
def test_fit__in_multiprocessing__as_here(how):
    with multiprocessing.get_context(how).Pool(1) as pool:
        assert_all_as_here(pool.starmap(fitted, NAMES_AND_KINDS))


def score_saved(folder):
    """In another process: what saved models answer."""
    for name, kind in IN_TURNS:
        found = answers(deepod.load(folder / f"{name}_{kind}"), samples(kind))
        (folder / f"{name}_{kind}.pickle").write_bytes(pickle.dumps(found))


def test_load__every_detector_in_another_process__same_answers(tmp_path):
    models = {case: fast(case[0]).fit(samples(case[1])) for case in IN_TURNS}
    for (name, kind), detector in models.items():
        detector.save(tmp_path / f"{name}_{kind}")
    process = children.start(score_saved, tmp_path)
    process.join()
    assert process.exitcode == 0
    for (name, kind), detector in models.items():
        found = pickle.loads((tmp_path / f"{name}_{kind}.pickle").read_bytes())
        assert found == answers(detector, samples(kind)), (name, kind)


@pytest.mark.slow  # a new interpreter imports torch
def test_load__every_detector_in_a_new_interpreter__same_scores(tmp_path):
    models = {case: fast(case[0]).fit(samples(case[1])) for case in NAMES_AND_KINDS}
    for (name, kind), detector in models.items():
        detector.save(tmp_path / f"{name}_{kind}.deepod")
        np.save(tmp_path / f"{name}_{kind}.npy", samples(kind))
    code = (
        "import sys, json, pathlib, numpy as np, deepod\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "print(json.dumps({path.stem: deepod.load(path).decision_function(\n"
        "    np.load(path.with_suffix('.npy'))).tolist() for path in folder.glob('*.deepod')}))"
    )
    run = [sys.executable, "-c", code, str(tmp_path)]
    found = json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    for (name, kind), detector in models.items():
        assert found[f"{name}_{kind}"] == detector.decision_scores_.tolist(), (name, kind)


# --- copies ---------------------------------------------------------------------------------------


def copied(detector, how, folder):
    if how == "deepcopy":
        return copy.deepcopy(detector)
    if how == "pickle":
        return pickle.loads(pickle.dumps(detector))
    if how == "joblib":
        joblib.dump(detector, folder / "model.joblib")
        return joblib.load(folder / "model.joblib")
    detector.save(folder / "model")
    return deepod.load(folder / "model")


def assert_equal(one, other, where):
    """Everything that fit has left, to the last bit and type."""
    assert type(one) is type(other), where
    if isinstance(one, torch.nn.Module):
        assert_equal(dict(one.state_dict()), dict(other.state_dict()), where)
    elif isinstance(one, torch.Tensor):
        assert (one.dtype, one.device) == (other.dtype, other.device), where
        assert torch.equal(one, other), where
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, where
        np.testing.assert_array_equal(one, other, err_msg=where)
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}.{number}")
    elif hasattr(one, "state"):  # of a scaler
        assert_equal(one.state(), other.state(), where)
    elif hasattr(one, "get_params"):
        assert_equal(one.get_params(), other.get_params(), where)
    elif type(one).__module__.startswith("deepod."):
        assert_equal(vars(one), vars(other), where)
    else:
        assert one == other, where


@in_turns
def test_copy__every_attribute_and_answer__kept(name, kind, tmp_path):
    detector = fast(name, validation_fraction=0.2).fit(samples(kind))
    copies = [copied(detector, how, tmp_path) for how in ("deepcopy", "pickle", "joblib", "save")]
    expected = answers(detector, samples(kind, seed=1))
    for again in copies:
        assert vars(again).keys() == vars(detector).keys()
        for key, value in vars(detector).items():
            assert_equal(vars(again)[key], value, key)
        assert answers(again, samples(kind, seed=1)) == expected
    rows = X if "table" in detector.inputs else samples(kind, n=30, seed=2)
    refitted = detector.fit(rows).decision_scores_
    for again in copies:
        assert_equal(again.fit(rows).decision_scores_, refitted, "refit")
