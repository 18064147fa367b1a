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


# --- while another thread computes ----------------------------------------------------------------

HEAD = """
import os, pickle, threading
import numpy as np
import torch
from deepod._inputs.seeds import global_generator
from deepod._inputs.settings import fixed
from tests.cases import fast, samples

def in_child(work):
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            with open(writing, "wb") as pipe:
                pickle.dump(work(), pipe)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return pickle.loads(data)
"""

# Another thread draws weights, and holds the lock on torch's random numbers, until the fork begins.
HELD = """
X = samples()
begins, held = threading.Event(), threading.Event()
os.register_at_fork(before=begins.set)

def draws():
    with global_generator():
        held.set()
        begins.wait()

thread = threading.Thread(target=draws, daemon=True)
thread.start()
held.wait()
found = in_child(lambda: fast("PLAD").fit(X).decision_function(X))
thread.join()
torch.set_num_threads(1)
print("same" if np.array_equal(found, fast("PLAD").fit(X).decision_function(X)) else "another")
"""

# The default dtype is not that of torch while another thread scores: the child has its own again.
OTHER_DTYPE = """
X, torch_default = samples(), torch.set_default_dtype(torch.float64)
entered, ends = threading.Event(), threading.Event()

def scores():
    with fixed():
        entered.set()
        ends.wait()

thread = threading.Thread(target=scores, daemon=True)
thread.start()
entered.wait()

def work():
    scores = fast("PLAD").fit(X).decision_function(X)
    return scores, str(torch.get_default_dtype())

found, dtype = in_child(work)
ends.set()
thread.join()
assert torch.get_default_dtype() == torch.float64
torch.set_num_threads(1)
assert dtype == "torch.float64", dtype
print("same" if np.array_equal(found, fast("PLAD").fit(X).decision_function(X)) else "another")
"""


@pytest.mark.parametrize("work", [HELD, OTHER_DTYPE], ids=["weights are drawn", "default dtype"])
@pytest.mark.slow  # new interpreters import torch
def test_forked_child__while_another_thread_computes__same_scores(work):
    run = [sys.executable, "-W", "ignore", "-c", HEAD + work]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(run, capture_output=True, text=True, env=env, timeout=600)
    assert done.stdout == "same\n", done.stderr
