"""When memory runs out: scoring goes on with fewer rows, training says what to make smaller."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deepod import AutoEncoder, data, fit_many
from deepod._scoring import apply
from deepod._scoring import memory as _memory_module
from deepod.networks import MLP

from .cases import REPRESENTATIVES, fast, samples
from .test_contract import TOLERANCE
from .test_engines import SMOOTH

ON_CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"
ERRORS = {
    "device": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."),
    "CPU": RuntimeError(f"{ON_CPU}: you tried to allocate 8 bytes. Error code 12"),
    "recorded": RuntimeError(
        "The operation failed in TorchScript.\nRuntimeError: CUDA out of memory"
    ),
    "NumPy": MemoryError("Unable to allocate 8 EiB for an array"),
}


class Memory:
    """Says how many rows a module may be given."""

    def __init__(self):
        self.scoring = self.training = 10**9
        self.error = ERRORS["device"]
        self.too_many = []  # rows that were

    def check(self, module, inputs):
        rows = len(inputs[0])
        if rows > (self.training if module.training else self.scoring):
            self.too_many.append(rows)
            raise self.error


@pytest.fixture
def memory():
    memory = Memory()
    with nn.modules.module.register_module_forward_pre_hook(memory.check):
        yield memory


@pytest.fixture
def told():
    """Warnings about memory, each time they are given."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


# --- what counts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ERRORS)
def test_ran_out__errors_for_want_of_memory(name):
    assert _memory_module.ran_out(ERRORS[name])


def test_ran_out__what_torch_raises_on_this_cpu():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert _memory_module.ran_out(caught.value)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory")],
)
def test_ran_out__other_errors__not(error):
    assert not _memory_module.ran_out(error)


# --- scoring --------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    n=st.integers(1, 400),
    most=st.integers(32, 300),
    chunk=st.integers(1, 300),
    known=st.booleans(),
)
def test_score__any_number_of_rows__results_in_order_and_no_more_at_once(n, most, chunk, known):
    sizes = []

    def total(module, x):
        sizes.append(len(x))
        if len(x) > most:
            raise ERRORS["device"]
        return x.sum(1)

    X = torch.arange(2.0 * n).view(n, 2)
    arguments = nn.Identity(), total, X.split(chunk), torch.device("cpu"), n if known else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert torch.equal(apply.score(*arguments), X.sum(1))
    tried = [size for size in sizes if size > most]
    assert len(caught) == bool(tried)
    assert all(size % apply.ROW_BLOCK == 0 for size in sizes)
    # No attempt that is known to fail; and none is given up that half the rows would do for.
    assert tried == sorted(set(tried), reverse=True)
    assert max(size for size in sizes if size <= most) >= min(most // 64 * 32, min(n, chunk))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("AutoEncoder", kind) for kind in ERRORS] + [(name, "device") for name in REPRESENTATIVES],
)
def test_decision_function__memory_runs_out__same_scores_and_told_once(name, kind, memory, told):
    X = samples(n=5000, seed=1)
    detector = fast(name, network=SMOOTH).fit(samples())
    expected = detector.decision_function(X)
    in_parts = detector.decision_function(X, batch_size=512)
    memory.scoring, memory.error = 600, ERRORS[kind]
    found = detector.decision_function(X)
    np.testing.assert_array_equal(found, in_parts)
    np.testing.assert_allclose(found, expected, **TOLERANCE)
    assert len(told) == 1
    assert told[0].category is RuntimeWarning
    assert "4096 rows at once, so 512 are scored at once from here on." in str(told[0].message)
    assert "batch_size=512" in str(told[0].message)
    detector.predict(X)
    assert len(told) == 2  # another call


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_fit__memory_runs_out_in_scoring__same_detector_and_told_once(name, memory, told):
    """At the beginning of phases, after epochs, in calibration and for the training scores."""
    X = samples(n=300)
    detector = fast(name, network=SMOOTH)
    expected = detector.fit(X).decision_scores_
    memory.scoring = 64
    found = detector.fit(X)
    np.testing.assert_allclose(found.decision_scores_, expected, **TOLERANCE)
    assert found.threshold_ == np.quantile(found.decision_scores_, 0.9)
    assert len(told) == 1


def test_source__in_parts__told_once_and_no_part_tries_again(memory, told, monkeypatch):
    X = samples(n=3000)
    detector = fast("AutoEncoder", network=SMOOTH).fit(X)
    expected = detector.decision_function(X)
    monkeypatch.setattr("deepod._inputs.rows._BLOCK_VALUES", 5 * 1024)
    monkeypatch.setattr(apply, "MOST_ROWS", 512)  # two chunks in a part
    memory.scoring = 64
    for call in (
        lambda: detector.decision_function(data.array(X)),
        lambda: np.concatenate([*detector.score_batches(X[i : i + 1000] for i in (0, 1000, 2000))]),
    ):
        told.clear(), memory.too_many.clear()
        np.testing.assert_array_equal(call(), expected)
        assert len(told) == 1
        assert memory.too_many == [512, 256, 128]


def test_score_map__memory_runs_out__same_map(memory, told):
    images = samples("images", n=200)
    detector = fast("AutoEncoder", network=SMOOTH).fit(images)
    expected = detector.score_map(images)
    memory.scoring = 32
    np.testing.assert_array_equal(detector.score_map(images), expected)
    assert len(told) == 1


def test_decision_function__not_enough_for_a_block__says_what_to_do(memory, told):
    detector = fast("AutoEncoder", network=SMOOTH).fit(samples())
    memory.scoring = 31
    with pytest.raises(MemoryError, match=r"scoring 32 rows of shape \(5,\).*smaller network") as e:
        detector.decision_function(samples(n=100))
    assert e.value.__cause__ is memory.error
    assert not told


def test_decision_function__another_error__not_tried_again(memory):
    detector = fast("AutoEncoder", network=SMOOTH).fit(samples())
    memory.scoring, memory.error = 0, RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else"):
        detector.decision_function(samples(n=100))
    assert memory.too_many == [128]


def test_results__do_not_fit__says_so(monkeypatch):
    class Huge:  # as torch does where memory is short
        shape = (32,)

        def __getitem__(self, rows):
            return self

        def new_empty(self, shape):
            raise ERRORS["CPU"]

    with pytest.raises(MemoryError, match=r"results of all rows.*fewer rows in one call"):
        apply.score(
            nn.Identity(), lambda m, x: Huge(), [torch.zeros(32, 1)], torch.device("cpu"), 32
        )


LIMITED = """
import resource, sys, warnings
import numpy as np, torch
torch.set_num_threads(1)
from deepod import AutoEncoder
from deepod.networks import MLP
X = np.random.default_rng(0).normal(size=(5000, 5)).astype(np.float32)
settings = {"network": MLP(hidden=(4000,)), "latent_dim": 2, "epochs": 0, "random_state": 0}
detector = AutoEncoder(**settings).fit(X[:64])
expected = detector.decision_function(X[:4096], batch_size=64)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (40 << 20),) * 2)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = detector.decision_function(X[:4096])  # 64 MB for one layer
assert [w.category for w in caught] == [RuntimeWarning], caught
assert abs(found - expected).max() < 1e-6 * abs(expected).max()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space by /proc")
def test_decision_function__process_whose_memory_is_limited__goes_on():
    run = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.gpu
def test_cuda__memory_is_limited__scores_go_on():
    X = samples(n=4096)
    wide = MLP(hidden=(8192,))  # 128 MiB for the values of one layer
    detector = fast("AutoEncoder", network=wide, device="cuda").fit(X[:64])
    expected = detector.decision_function(X, batch_size=64)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    bound = (torch.cuda.memory_reserved() + (100 << 20)) / total
    torch.cuda.set_per_process_memory_fraction(bound)
    try:
        with pytest.warns(RuntimeWarning, match="batch_size"):
            found = detector.decision_function(X)
        with pytest.raises(MemoryError, match="batch_size=4096 rows") as caught:
            fast("AutoEncoder", network=wide, device="cuda", batch_size=4096).fit(X)
        assert isinstance(caught.value.__cause__, torch.cuda.OutOfMemoryError)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "engine"),
    [*((kind, "auto") for kind in ERRORS), ("device", "eager"), ("recorded", "trace")],
)
def test_fit__a_step_does_not_fit__says_what_to_make_smaller(kind, engine, memory):
    detector = fast("AutoEncoder", network=SMOOTH, engine=engine).fit(samples())
    scores = detector.decision_scores_
    memory.training, memory.error = 24, ERRORS[kind]
    with pytest.raises(
        MemoryError, match=r"training on batch_size=25 rows of shape \(5,\).*memory_limit"
    ) as caught:
        detector.set_params(batch_size=25, epochs=300).fit(samples(n=50))
    assert caught.value.__cause__ is memory.error
    assert detector.decision_scores_ is scores
    assert detector.set_params(batch_size=24).fit(samples(n=48)).decision_scores_.shape == (48,)


def test_fit__held_out_rows_do_not_fit__says_what_to_make_smaller(memory):
    """They are scored by the loss, batch by batch: not by what halves."""
    memory.scoring = 9
    detector = fast("AutoEncoder", network=SMOOTH, validation_fraction=0.25, batch_size=10)
    with pytest.raises(MemoryError, match="batch_size=10"):
        detector.fit(samples())


def test_fit__rows_from_disk__a_step_does_not_fit(memory):
    memory.training = 8
    detector = fast("AutoEncoder", network=SMOOTH, memory_limit=1 << 12)
    with pytest.raises(MemoryError, match=r"training on batch_size.*smaller memory_limit"):
        detector.fit(data.array(samples(n=400)))


@pytest.mark.parametrize("from_disk", [False, True])
def test_fit__rows_do_not_fit__says_how_many_bytes(from_disk):
    class Large(AutoEncoder):
        def _prepare(self, X, y, rng):
            raise ERRORS["device"]

    X = samples(n=400)
    with pytest.raises(
        MemoryError, match=r"400 of shape \(5,\), 8000 bytes.*memory_limit.*4096"
    ) as caught:
        Large(memory_limit=1 << 12).fit(data.array(X) if from_disk else X)
    assert caught.value.__cause__ is ERRORS["device"]
    assert ("deepod.sources.array(X)" in str(caught.value)) is not from_disk


def test_fit_many__too_many_side_by_side__in_turn_or_an_error(memory, monkeypatch):
    detector = fast("AutoEncoder", network=SMOOTH, epochs=3)
    alone = fit_many(detector, samples(), seeds=[0])[0].decision_scores_
    forward = nn.Linear.forward

    def stacked(layer, x):
        if torch._C._functorch.is_batchedtensor(x):
            raise ERRORS["device"]
        return forward(layer, x)

    monkeypatch.setattr(nn.Linear, "forward", stacked)
    many = fit_many(detector, samples(), seeds=[0, 1])
    np.testing.assert_array_equal(many[0].decision_scores_, alone)
    memory.training = 9
    with pytest.raises(MemoryError, match="batch_size"):
        fit_many(detector, samples(), seeds=[0, 1])


def test_step__does_not_fit_later__names_the_detectors_side_by_side(monkeypatch):
    def step(self, batches):
        raise ERRORS["device"]

    monkeypatch.setattr("deepod._training.stacked.Functional.step", step)
    detector = fast("AutoEncoder", network=SMOOTH)
    with pytest.raises(MemoryError, match=r"2 detectors side by side.*fewer detectors in one call"):
        fit_many(detector, samples(), seeds=[0, 1])


def test_command__too_little_memory__one_line(memory, tmp_path, capsys):
    from deepod.cli import main

    np.save(tmp_path / "x.npy", samples())
    memory.training = 3
    arguments = ["fit", str(tmp_path / "x.npy"), "--out", str(tmp_path / "m"), "--set", "epochs=1"]
    assert main(arguments) == 1
    assert "too little memory on cpu for training on batch_size" in capsys.readouterr().err
