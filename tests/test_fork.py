"""Detectors in forked processes, of a parent that has computed with several threads."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")

# Scores of the parent, with one thread, are those that a child has to find.
SCRIPT = """
import multiprocessing, os, sys, tempfile
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch

import deepod
from tests.cases import fast, fast_series, waves

X = np.random.default_rng(0).normal(size=(2000, 5)).astype(np.float32)
KINDS = {
    "detector": lambda: fast("AutoEncoder", batch_size=512),
    "recurrent": lambda: fast("IAELSTMKL", batch_size=512),
    "traced": lambda: fast("DeepSVDD", engine="trace", batch_size=512),
    "cross-fitted": lambda: fast("DeepSVDD", cross_fitting=True, batch_size=512),
    "Consensus": lambda: deepod.Consensus([fast("Neighbors"), fast("PLAD")], random_state=0),
    "SeedEnsemble": lambda: deepod.SeedEnsemble(fast("DeepSVDD"), 2, random_state=0),
    "adapter": lambda: deepod.SklearnOutlierAdapter(fast("AutoEncoder", batch_size=512)),
    "LSTMAD": lambda: fast_series("LSTMAD", smoothing="causal"),
    "SeriesConsensus": lambda: fast_series("SeriesConsensus", smoothing="causal"),
}


def used(make, detector, X, file):
    found = [detector.decision_function(X[:1] if X.shape[1] == 5 else X)]
    found += [detector.decision_function(X), make().fit(X).decision_function(X)]
    if hasattr(detector, "save"):
        found += [detector.explain(X[:40]), deepod.load(file).decision_function(X)]
    if hasattr(detector, "stream"):
        found.append(detector.stream().push_many(X))
    return found


def of_kind(_=None):
    return used(make, detector, rows, file)


def forked():
    file = tempfile.mktemp()
    child = os.fork()
    if not child:
        np.savez(file, *of_kind())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with np.load(file + ".npz") as found:
        return [found[name] for name in found.files]


context = multiprocessing.get_context("fork")
for kind in sys.argv[1:]:
    make, rows = KINDS[kind], X if kind not in deepod.series.__all__ else waves()
    torch.set_num_threads(2)
    detector = make().fit(rows)
    file = tempfile.mktemp(suffix=".deepod")
    if hasattr(detector, "save"):
        detector.save(file)
    detector.decision_function(rows)
    found = {"os.fork": forked()}
    with context.Pool(1) as pool:
        (found["Pool"],) = pool.map(of_kind, [0])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        (found["ProcessPoolExecutor"],) = pool.map(of_kind, [0])
    assert torch.get_num_threads() == 2  # of the parent
    torch.set_num_threads(1)
    expected = of_kind()
    for way, values in found.items():
        for number, (own, other) in enumerate(zip(values, expected, strict=True)):
            np.testing.assert_array_equal(own, other, err_msg=f"{kind}, {way}, {number}")
    print("same", kind)
"""


@pytest.mark.parametrize(
    "kinds",
    [
        ["detector"],
        pytest.param(
            [
                *("recurrent", "traced", "cross-fitted", "Consensus", "SeedEnsemble", "adapter"),
                *("LSTMAD", "SeriesConsensus"),
            ],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["some", "others"],
)
def test_forked_child__all_it_does__as_with_one_thread(kinds):
    # Threads that wait for one another without sleeping take minutes where cores are few.
    env = os.environ | {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, *kinds]
    run = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[:-1] == [f"same {kind}" for kind in kinds]
