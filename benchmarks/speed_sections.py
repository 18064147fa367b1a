"""What ``benchmarks.speed`` measures: one function per section, giving its comparisons."""

from __future__ import annotations

import functools
import itertools
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedKFold
from torch.optim.optimizer import register_optimizer_step_post_hook

import deepod
from benchmarks import memory
from benchmarks.side_by_side import Comparison, Contender, Ratio, timed
from deepod.networks import MLP

FEATURES, HIDDEN, CODE, LR = 32, 64, 32, 1e-3
NETWORK = "autoencoder 32-64-32-64-32"
OURS, PYOD = "deepod", "PyOD"
EXTRA_RELU = "PyOD has a ReLU on the code, ours none"
DROPS = "PyOD drops the last batch of an epoch if it is short, ours makes all batches even"


@dataclass
class Work:
    """Sizes of a run, and a folder for its memory map that goes with it."""

    quick: bool = False
    largest: int = 10_000_000
    resources: ExitStack = field(default_factory=ExitStack)

    def size(self, full: int, quick: int) -> int:
        """Choose between the size of the run and that of the trial; never above ``largest``."""
        return min(quick if self.quick else full, self.largest)

    @functools.cached_property
    def folder(self) -> Path:
        """A temporary folder."""
        return Path(self.resources.enter_context(TemporaryDirectory()))

    def mapped(self, n: int) -> Path:
        """Write a ``.npy`` file of n rows, once."""
        path = self.folder / f"{n}.npy"
        if not path.exists():
            X = np.lib.format.open_memmap(path, "w+", np.float32, (n, FEATURES))
            for number, start in enumerate(range(0, n, 1 << 17)):
                part = X[start : start + (1 << 17)]
                part[:] = rows_of(len(part), seed=number)
            X.flush()
        return path


def rows_of(n: int, features: int = FEATURES, seed: int = 0) -> np.ndarray:
    """Draw a table: float32, standard normal."""
    return np.random.default_rng(seed).standard_normal((n, features), np.float32)


# --- the two sides: the same network, loss and optimiser ------------------------------------------


def ours(*, epochs: int, batch_size: int, **more: Any) -> Any:
    """Our autoencoder d-64-32-64-d: ReLU, mean squared error, Adam."""
    settings: dict[str, Any] = {
        "network": MLP(hidden=(HIDDEN,), activation="relu"),
        "latent_dim": CODE,
        "error": "mse",
        "lr": LR,
        "device": "cpu",
        "random_state": 0,
        "cross_fitting": False,  # the other side has no such thing
    }
    return deepod.AutoEncoder(epochs=epochs, batch_size=batch_size, **settings | more)


def pyod_autoencoder(*, epochs: int, batch_size: int, **more: Any) -> Any:
    """PyOD's autoencoder of the same widths, without what ours lacks."""
    from pyod.models.auto_encoder import AutoEncoder  # here: our side does not need its memory

    plain: dict[str, Any] = {
        "hidden_neuron_list": [HIDDEN, CODE],
        "batch_norm": False,
        "dropout_rate": 0.0,
        "optimizer_params": {},
        "lr": LR,
        "device": "cpu",
        "verbose": 0,
    }
    return AutoEncoder(epoch_num=epochs, batch_size=batch_size, **plain | more)


def pyod_vae(*, epochs: int, batch_size: int) -> Any:
    """PyOD's variational autoencoder of those widths."""
    from pyod.models.vae import VAE

    return VAE(
        encoder_neuron_list=[HIDDEN], decoder_neuron_list=[HIDDEN], latent_dim=CODE,
        dropout_rate=0.0, optimizer_params={}, lr=LR, device="cpu", verbose=0,
        epoch_num=epochs, batch_size=batch_size,
    )  # fmt: skip


def our_svdd(*, epochs: int, batch_size: int) -> Any:
    """Our Deep SVDD d-64-32 without biases and without pre-training."""
    return deepod.DeepSVDD(
        cross_fitting=False,
        network=MLP(hidden=(HIDDEN,), activation="relu"), latent_dim=CODE, pretrain_epochs=0,
        lr=LR, device="cpu", random_state=0, epochs=epochs, batch_size=batch_size,
    )  # fmt: skip


def pyod_svdd(*, epochs: int, batch_size: int) -> Any:
    """PyOD's Deep SVDD of the same widths, which has no pre-training."""
    from pyod.models.deep_svdd import DeepSVDD

    return DeepSVDD(
        FEATURES, hidden_neurons=[HIDDEN, CODE], dropout_rate=0.0, l2_regularizer=0.0,
        learning_rate=LR, verbose=0, random_state=0, epochs=epochs, batch_size=batch_size,
    )  # fmt: skip


SIDES: dict[str, Callable[..., Any]] = {OURS: ours, PYOD: pyod_autoencoder}


def n_parameters(detector: Any) -> int:
    """Count the weights of a fitted detector, ours or PyOD's."""
    names = ("module_", "model_", "model")
    module = next(found for name in names if (found := getattr(detector, name, None)) is not None)
    return sum(parameter.numel() for parameter in module.parameters())


def engines(detector: Any, device: str = "cpu") -> list[str]:
    """List the values that the detector's ``engine`` takes; "default" where it has none."""
    if "engine" not in detector.get_params(deep=False):
        return ["default"]
    known = ["auto", "eager", "trace", "compile"]
    if device != "cpu":
        known = ["auto", "eager", "compile", "cuda_graph"]
    return [engine for engine in known if _accepts(detector, engine)]


def with_engine(detector: Any, engine: str) -> Any:
    """Set ``engine``, unless it is "default"."""
    return detector if engine == "default" else detector.set_params(engine=engine)


def _accepts(detector: Any, engine: str) -> bool:
    try:
        type(detector)(engine=engine)._validate_params()
    except ValueError:
        return False
    return True


def fitting(
    make: Callable[..., Any],
    X: np.ndarray,
    epochs: tuple[int, int],
    more: Callable[[Any], dict[str, float]] = lambda detector: {},
    **settings: Any,
) -> Contender:
    """Set up fits of few and of many epochs.

    "fit" is the whole time of the longer one; "epoch" is their difference per epoch, which holds
    neither validation and scaling nor the scores of the training rows. ``more`` finds further
    quantities in the fitted detector.
    """
    few, many = epochs
    facts: dict[str, Any] = {}

    def measure() -> dict[str, float]:
        short, long = (make(epochs=n, **settings) for n in epochs)
        seconds = timed(lambda: short.fit(X)), timed(lambda: long.fit(X))
        facts["parameters"] = n_parameters(long)
        epoch = (seconds[1] - seconds[0]) / (many - few)
        return {"fit": seconds[1], "epoch": epoch} | more(long)

    return Contender(measure, facts)


# --- sections -------------------------------------------------------------------------------------


def fit(work: Work) -> Iterator[Comparison]:
    """Fit the same network on the same rows: PyOD's time over ours."""
    n, epochs = work.size(20_000, 500), (1, 3) if work.quick else (2, 10)
    X = rows_of(n)

    def compare(
        what: str,
        make: dict[str, Callable[..., Any]],
        batch: int,
        differs: str,
        figure: str | None = None,
        equal: str | None = "parameters",
    ) -> Comparison:
        under, over = make
        return Comparison(
            "fit",
            f"{what}, {n:,} x {FEATURES}, batch {batch}, {epochs[1]} epochs",
            {"fit": "s", "epoch": "s"},
            {
                name: functools.partial(fitting, side, X, epochs, batch_size=batch)
                for name, side in make.items()
            },
            [Ratio(over, under, "fit", figure), Ratio(over, under, "epoch")],
            {"rows": n, "features": FEATURES, "batch_size": batch, "differs": differs},
            equal=equal,
        )

    for batch in (128, 32):
        yield compare(
            NETWORK,
            SIDES,
            batch,
            f"{EXTRA_RELU}; {DROPS}; PyOD standardises each row whenever it is read",
            f"fit_{batch}",
        )
    unscaled = {
        OURS: functools.partial(ours, scaler=None),
        PYOD: functools.partial(pyod_autoencoder, preprocessing=False),
    }
    yield compare(f"{NETWORK} without scaling", unscaled, 128, f"{EXTRA_RELU}; {DROPS}")
    yield compare(
        f"{NETWORK} and VAE of these widths",
        {OURS: ours, "PyOD VAE": pyod_vae},
        128,
        "PyOD's has a second head for the variance, samples the code and adds a KL term; ours has "
        f"no variational method; {DROPS}",
        equal=None,
    )
    yield compare(
        "Deep SVDD 32-64-32 without biases",
        {OURS: our_svdd, "PyOD DeepSVDD": pyod_svdd},
        128,
        f"{EXTRA_RELU}; PyOD adds the norms of the weights to the loss, copies the best weights "
        "of all epochs and scores all rows at once",
    )


def step(work: Work) -> Iterator[Comparison]:
    """Time one optimiser step, over its matrix products alone and method by method."""
    for batch in (128, 32):
        n, epochs = work.size(16_384, 512), (1, 3) if work.quick else (2, 12)
        X = rows_of(n)
        yield Comparison(
            "step",
            f"{NETWORK}, batch {batch}",
            {"step": "s"},
            {
                OURS: functools.partial(_steps, ours, X, epochs, batch_size=batch),
                "matrix products": functools.partial(_products, batch, work.size(2000, 20)),
            },
            [Ratio(OURS, "matrix products", "step", "step" if batch == 128 else None)],
            {"batch_size": batch, "rows": n, "features": FEATURES, "differs": "the products write "
             "to memory that is already there, and there is nothing but them"},
        )  # fmt: skip
    n, epochs = work.size(8192, 256), (1, 2) if work.quick else (1, 5)
    X = rows_of(n)
    for name in deepod.DETECTORS:
        default = functools.partial(getattr(deepod, name), random_state=0, device="cpu")
        found = [e for e in engines(default()) if e != "auto"]
        if name != "AutoEncoder":  # half a minute for each of its fits
            found = [e for e in found if e != "compile"]
        yield Comparison(
            "step",
            f"{name}() on {FEATURES} columns",
            {"step": "s", "inside": "s"},
            {
                f"{OURS}, engine {engine}": functools.partial(_steps, default, X, epochs, engine)
                for engine in (found[:2] if work.quick else found)
            },
            facts={"rows": n, "features": FEATURES, "batch_size": default().batch_size},
        )


def _steps(
    make: Callable[..., Any],
    X: np.ndarray,
    epochs: tuple[int, int],
    engine: str = "default",
    **settings: Any,
) -> Contender:
    """Set up fits whose difference is divided by the optimiser steps that it holds.

    "inside" is a step by the detector's own ``history_``: of each phase, the median of its epochs
    without the first. Compilation, which takes longer than many epochs, is in none of them.
    """

    def made(**more: Any) -> Any:
        return with_engine(make(**settings, **more), engine)

    def count(n_epochs: int) -> int:
        detector, steps = make(epochs=n_epochs, **settings), 0

        def one_more(*_: Any) -> None:
            nonlocal steps
            steps += 1

        # Engines that replay a step would pass the hook by; they make as many.
        detector = with_engine(detector, "eager" if "eager" in engines(detector) else "default")
        hook = register_optimizer_step_post_hook(one_more)
        try:
            detector.fit(X)
        finally:
            hook.remove()
        return steps or len(detector.history_) * -(-len(X) // detector.batch_size)

    def inside(detector: Any) -> dict[str, float]:
        phases: dict[str, list[float]] = {}
        for entry in detector.history_:
            phases.setdefault(entry["phase"], []).append(entry["seconds"])
        return {"inside": sum(statistics.median(s[1:]) for s in phases.values())}

    whole = fitting(made, X, epochs, inside)
    whole.facts["steps_per_epoch"] = steps = count(2) - count(1)

    def measure() -> dict[str, float]:
        found = whole.measure()
        return {"step": found["epoch"] / steps, "inside": found["inside"] / steps}

    return Contender(measure, whole.facts)


def _products(batch: int, steps: int) -> Contender:
    """Set up the products of one step: forward, weights' gradients, inputs' gradients."""
    widths = [FEATURES, HIDDEN, CODE, HIDDEN, FEATURES]
    generator = torch.Generator().manual_seed(0)
    calls = []
    for layer, (inp, out) in enumerate(itertools.pairwise(widths)):
        x, weight, gradient = (
            torch.randn(shape, generator=generator)
            for shape in ((batch, inp), (out, inp), (batch, out))
        )
        calls += [
            (x, weight.t(), torch.empty(batch, out)),
            (gradient.t(), x, torch.empty(out, inp)),
        ]
        if layer:  # nothing needs the gradient of the rows themselves
            calls.append((gradient, weight, torch.empty(batch, inp)))

    @torch.inference_mode()
    def work() -> None:
        for _ in range(steps):
            for a, b, out in calls:
                torch.mm(a, b, out=out)

    return Contender(lambda: {"step": timed(work) / steps}, {"products": len(calls)})


def score(work: Work) -> Iterator[Comparison]:
    """Score many rows and one row: PyOD's time over ours, ours over the bare module's."""
    n, peer_n = work.size(1_000_000, 2000), work.size(200_000, 500)
    batches = "PyOD, batch 32", "PyOD, batch 4096"

    @functools.cache
    def fitted(side: str) -> Any:
        return SIDES[side](epochs=1, batch_size=32).fit(rows_of(min(n, 20_000)))

    @functools.cache
    def all_rows() -> np.ndarray:
        return rows_of(n)

    def whole(side: str, rows: int, *more: int) -> Contender:
        detector, part = fitted(side), all_rows()[:rows]

        def measure() -> dict[str, float]:
            return {"row": timed(lambda: detector.decision_function(part, *more)) / rows}

        return Contender(measure, {"rows": rows, "parameters": n_parameters(detector)})

    def bare() -> Contender:
        module, x = fitted(OURS).module_.eval(), _standardised(all_rows())
        sizes = [size for size in (1024, 4096, 16_384, 65_536) if size <= n] or [n]

        @torch.inference_mode()
        def pass_through(size: int) -> None:
            for chunk in x.split(size):
                module(chunk)

        took = {
            size: min(timed(lambda s=size: pass_through(s)) for _ in range(2)) for size in sizes
        }
        best = min(took, key=took.__getitem__)
        return Contender(lambda: {"row": timed(lambda: pass_through(best)) / n},
                         {"rows": n, "chunk": best})  # fmt: skip

    yield Comparison(
        "score",
        f"{NETWORK}, {n:,} x {FEATURES}",
        {"row": "s"},
        {
            OURS: lambda: whole(OURS, n),
            batches[0]: lambda: whole(PYOD, peer_n),
            batches[1]: lambda: whole(PYOD, peer_n, 4096),
            "module": bare,
        },
        [
            Ratio(batches[0], OURS, "row", "score_default"),
            Ratio(batches[1], OURS, "row", "score_4096"),
            Ratio(OURS, "module", "row", "score_module"),
        ],
        {"features": FEATURES, "differs": f"PyOD scores {peer_n:,} rows, for time, and counts per "
         f"row; {EXTRA_RELU}; the module gets scaled tensors and stops at the reconstruction"},
    )  # fmt: skip
    calls = work.size(200, 10)

    def single(function: Callable[[], Any]) -> Contender:
        def measure() -> dict[str, float]:
            seconds = []
            for _ in range(calls):
                start = perf_counter()
                function()
                seconds.append(perf_counter() - start)
            return {"call": statistics.median(seconds)}

        return Contender(measure, {"calls": calls, "rows": 1})

    def single_bare() -> Contender:
        module, x = fitted(OURS).module_.eval(), _standardised(all_rows())[:1]
        return single(torch.inference_mode()(lambda: module(x)))

    row = rows_of(1)
    yield Comparison(
        "score",
        f"{NETWORK}, one row, median of {calls} calls",
        {"call": "s"},
        {
            OURS: lambda: single(lambda: fitted(OURS).decision_function(row)),
            PYOD: lambda: single(lambda: fitted(PYOD).decision_function(row)),
            "module": single_bare,
        },
        [Ratio(PYOD, OURS, "call"), Ratio(OURS, "module", "call")],
        {"features": FEATURES},
    )


def _standardised(X: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((X - X.mean(0)) / X.std(0))


def members(work: Work) -> Iterator[Comparison]:
    """Fit several members at once, and search over candidates at once."""
    n, epochs = work.size(20_000, 300), 2 if work.quick else 5
    X = rows_of(n)
    fit_many = getattr(deepod, "fit_many", None)
    absent = None if fit_many else "deepod.fit_many is not available"
    detector = functools.partial(ours, epochs=epochs, batch_size=128)

    def one() -> Contender:
        return Contender(lambda: {"fit": timed(lambda: detector().fit(X))}, {"members": 1})

    def many(k: int) -> Contender:
        def measure() -> dict[str, float]:
            return {"fit": timed(lambda: fit_many(detector(), X, seeds=range(k)))}

        return Contender(measure, {"members": k})

    setting = f"{NETWORK}, {n:,} x {FEATURES}, batch 128, {epochs} epochs"
    facts = {"rows": n, "features": FEATURES, "batch_size": 128, "epochs": epochs}
    yield Comparison(
        "members",
        f"10 members against one fit, {setting}",
        {"fit": "s"},
        {"fit": one, "fit_many of 10": lambda: many(10)},
        [Ratio("fit_many of 10", "fit", "fit", "members")],
        facts,
        missing=absent,
    )
    counts = (1, 2, 4) if work.quick else (1, 2, 4, 8, 16, 32, 64)
    yield Comparison(
        "members",
        f"growth, {setting}",
        {"fit": "s"},
        {f"fit_many of {k}": functools.partial(many, k) for k in counts},
        [Ratio(f"fit_many of {k}", "fit_many of 1", "fit") for k in counts[1:]],
        facts,
        missing=absent,
    )
    yield _search(work)


def _search(work: Work) -> Comparison:
    n, epochs = work.size(6000, 300), 2 if work.quick else 10
    stacked = getattr(deepod, "StackedSearchCV", None)
    rates, decays = [1e-4, 3e-4, 1e-3, 3e-3], [0.0, 1e-5, 1e-4]
    grid = {"lr": rates[: work.size(4, 2)], "weight_decay": decays[: work.size(3, 1)]}
    candidates = len(ParameterGrid(grid))
    X = rows_of(n)
    y = (np.arange(n) % 20 == 0).astype(int)
    X[y == 1] *= 2

    def search(cls: Any) -> Contender:
        def measure() -> dict[str, float]:
            folds = StratifiedKFold(3, shuffle=True, random_state=0)
            searching = cls(ours(epochs=epochs, batch_size=128), grid, scoring="roc_auc", cv=folds)
            return {"search": timed(lambda: searching.fit(X, y))}

        return Contender(measure, {"candidates": candidates, "folds": 3})

    return Comparison(
        "members",
        f"{candidates} candidates x 3 folds, {NETWORK}, {n:,} x {FEATURES}, batch 128, "
        f"{epochs} epochs",
        {"search": "s"},
        {"GridSearchCV": lambda: search(GridSearchCV), "StackedSearchCV": lambda: search(stacked)},
        [Ratio("StackedSearchCV", "GridSearchCV", "search", "search")],
        {"rows": n, "features": FEATURES, "grid": grid,
         "differs": "nothing: both refit the best candidate, one job"},
        missing=None if stacked else "deepod.StackedSearchCV is not available",
    )  # fmt: skip


def rows(work: Work) -> Iterator[Comparison]:
    """Grow the number of rows, from a memory map, and of features."""
    full = (1000, 2000) if work.quick else (10_000, 100_000, 1_000_000, 10_000_000)
    sizes = sorted({min(n, work.largest) for n in full})
    most = sizes[-1]

    def mapped(n: int) -> Contender:
        X = np.load(work.mapped(most), mmap_mode="r")[:n]
        return _one_epoch(X, fits=max(1, min(100_000, most) // n))

    names = {n: f"{n:,} rows" for n in sizes}
    facts: dict[str, Any] = {"features": FEATURES, "batch_size": 128, "epochs": 1}
    yield Comparison(
        "rows",
        f"growth to {most:,} x {FEATURES} of a memory map, batch 128, one epoch",
        {"row": "s"},
        {names[n]: functools.partial(mapped, n) for n in sizes},
        [Ratio(names[n], names[sizes[0]], "row", "rows_time") for n in sizes[1:]],
        facts,
        warm_up=1,
    )

    def peak(n: int) -> Contender:
        return _memory({"rows": n}, "fit", OURS, n, work.mapped(most))

    yield Comparison(
        "rows",
        f"memory of a fit to {most:,} x {FEATURES} of a memory map, batch 128, one epoch",
        {"beyond": "MiB", "peak": "MiB"},
        {names[n]: functools.partial(peak, n) for n in sizes[len(sizes) // 2 :]},
        facts=facts,
        figures={(names[most], "beyond"): "rows_memory"},
        repeats=1 if work.quick else 3,
        warm_up=0,
    )
    n = work.size(20_000, 300)
    widths = (8, 32) if work.quick else (8, 32, 128, 512, 1000)

    def wide(d: int) -> Contender:
        ready = _one_epoch(rows_of(n, d), fits=1)
        ready.facts["features"] = d
        return ready

    yield Comparison(
        "rows",
        f"growth with features, {n:,} rows, batch 128, one epoch",
        {"row": "s"},
        {f"{d} features": functools.partial(wide, d) for d in widths},
        [Ratio(f"{d} features", f"{widths[0]} features", "row") for d in widths[1:]],
        {"batch_size": 128, "epochs": 1},
    )


def _one_epoch(X: np.ndarray, fits: int) -> Contender:
    """Set up fits of one epoch, scores of the training rows included, per row."""

    def work() -> None:
        for _ in range(fits):
            ours(epochs=1, batch_size=128).fit(X)

    def measure() -> dict[str, float]:
        return {"row": timed(work) / fits / len(X)}

    return Contender(measure, {"rows": len(X), "fits": fits})


def _memory(
    facts: dict[str, Any], work: str, side: str, n: int, mapped: Path | None = None
) -> Contender:
    def measure() -> dict[str, float]:
        found = memory.in_fresh_process(work, side, n, FEATURES, mapped)
        facts["how"] = found["how"]
        return {"beyond": found["peak"] - found["before"], "peak": found["peak"]}

    return Contender(measure, facts)


def peak_memory(work: Work) -> Iterator[Comparison]:
    """Memory of a fit and of scoring, beyond the rows in memory, each in a fresh process."""
    n = work.size(1_000_000, 2000)
    for what in ("fit", "score"):
        yield Comparison(
            "memory",
            f"{what}, {NETWORK}, {n:,} x {FEATURES}, batch 128",
            {"beyond": "MiB", "peak": "MiB"},
            {
                side: functools.partial(lambda s, w: _memory({"rows": n}, w, s, n), side, what)
                for side in SIDES
            },
            [Ratio(PYOD, OURS, "beyond")],
            {"features": FEATURES, "batch_size": 128, "epochs": 1,
             "differs": f"{EXTRA_RELU}; {DROPS}"},
            repeats=1 if work.quick else 3,
            warm_up=0,
        )  # fmt: skip


def gpu(work: Work) -> Iterator[Comparison]:
    """Fit and score on CUDA, per engine, beside one CPU thread."""
    absent = None if torch.cuda.is_available() else "no CUDA"
    n, epochs = work.size(100_000, 500), (1, 2) if work.quick else (2, 6)
    made = functools.partial(ours, device="cpu" if absent else "cuda")
    found = engines(made(epochs=1, batch_size=128), "cuda")
    for batch in (128, 4096):
        X = rows_of(n)

        def engine_fits(engine: str, X: np.ndarray = X, batch: int = batch) -> Contender:
            def make(**settings: Any) -> Any:
                return with_engine(made(**settings), engine)

            return fitting(make, X, epochs, batch_size=batch)

        on_cpu = functools.partial(fitting, ours, X, epochs, batch_size=batch)
        names = {engine: f"CUDA, engine {engine}" for engine in found}
        yield Comparison(
            "gpu",
            f"fit, {NETWORK}, {n:,} x {FEATURES}, batch {batch}",
            {"fit": "s", "epoch": "s"},
            {names[e]: functools.partial(engine_fits, e) for e in found} | {"CPU": on_cpu},
            [Ratio("CPU", names[e], "epoch") for e in found],
            _gpu_facts(n, absent) | {"batch_size": batch},
            missing=absent,
        )
    n_scored = work.size(1_000_000, 2000)

    def scoring(device: str) -> Contender:
        X = rows_of(n_scored)
        detector = ours(epochs=1, batch_size=4096, device=device).fit(X[:20_000])

        def measure() -> dict[str, float]:
            return {"row": timed(lambda: detector.decision_function(X)) / n_scored}

        return Contender(measure, {})

    yield Comparison(
        "gpu",
        f"score, {NETWORK}, {n_scored:,} x {FEATURES}",
        {"row": "s"},
        {"CUDA": lambda: scoring("cuda"), "CPU": lambda: scoring("cpu")},
        [Ratio("CPU", "CUDA", "row")],
        _gpu_facts(n_scored, absent),
        missing=absent,
    )


def _gpu_facts(n: int, absent: str | None) -> dict[str, Any]:
    name = None if absent else torch.cuda.get_device_name()
    return {"rows": n, "features": FEATURES, "gpu": name}


# What is imported, from what nobody can do without to what a user writes.
IMPORTS = {
    "torch": "import torch",
    "torch, scikit-learn": "import torch, sklearn.base, sklearn.utils.validation",
    "torch, scikit-learn, PyOD": "import torch, sklearn.base, pyod.models.base",
    "deepod": "from deepod import PLAD",
}


def imports(work: Work) -> Iterator[Comparison]:
    """Import a detector in a fresh process, beside the libraries whose classes it is built on."""

    def contender(code: str) -> Contender:
        def load() -> None:
            subprocess.run([sys.executable, "-c", code], check=True)

        return Contender(lambda: {"import": timed(load)}, {"code": code})

    *_, built_on, whole = IMPORTS
    yield Comparison(
        "imports",
        "a fresh process, files in the cache of the operating system",
        {"import": "s"},
        {name: functools.partial(contender, code) for name, code in IMPORTS.items()},
        [
            Ratio(whole, built_on, "import", "imports"),
            Ratio(whole, "torch", "import", "imports_torch"),
        ],
    )


SECTIONS: dict[str, Callable[[Work], Iterator[Comparison]]] = {
    "fit": fit,
    "step": step,
    "score": score,
    "members": members,
    "rows": rows,
    "memory": peak_memory,
    "imports": imports,
    "gpu": gpu,
}
