"""What every later version keeps of a release: its models load, its public names remain.

Once for each release, with the pinned versions of the libraries::

    OMP_NUM_THREADS=1 python -m tests.release

writes ``tests/golden/VERSION``: a small model of every detector with the scores of a few rows,
and ``names.txt``, the public names with their parameters. ``test_golden.py`` holds later versions
to them. What is there is never written again.
"""

import inspect
import sys
import warnings
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import deepod
from deepod._registry import GRAPHS
from deepod.cli import _parser
from deepod.networks import MLP, LeNet, Recurrent
from docs import reference

from . import test_graphs as graphs
from .cases import EVERY_NAME, SERIES_NAMES, fast, fast_series, samples, waves

GOLDEN = Path(__file__).parent / "golden"


def mixed(n=40, seed=0):
    """Return a table of numbers, categories and times."""
    rng = np.random.default_rng(seed)
    days = pd.to_timedelta(rng.integers(0, 365 * 24, n), unit="h")
    return pd.DataFrame(
        {
            "amount": rng.normal(size=n),
            "kind": rng.choice(["card", "cash", "wire"], n),
            "when": pd.Timestamp("2026-01-01") + days,
        }
    )


def models():
    """Yield the name of a model, the unfitted detector, and a function that makes its rows."""
    for name in EVERY_NAME:
        detector = fast(name, calibration_fraction=0.2)
        kind = detector.inputs[0]
        if kind == "table" and "network" in detector.get_params():
            detector.set_params(network=MLP(hidden=(6,)))
        yield name, detector, partial(samples, kind)
    encoded = {"categorical_features": "from_dtype", "datetime_features": "from_dtype"}
    yield "mixed table", fast("AutoEncoder", network=MLP(hidden=(6,)), **encoded), mixed
    lenet, recurrent = LeNet(channels=(2,), hidden=(4,)), Recurrent(hidden=(4,))
    yield "images", fast("AutoEncoder", network=lenet), partial(samples, "images")
    yield "windows", fast("AutoEncoder", network=recurrent), partial(samples, "windows")
    members = [fast("AutoEncoder", network=MLP(hidden=(6,))), fast("Neighbors")]
    yield "Consensus", deepod.Consensus(members, random_state=0), samples
    yield "SeedEnsemble", deepod.SeedEnsemble(members[0], n_members=2, random_state=0), samples
    for name in SERIES_NAMES:
        yield name, fast_series(name), lambda n=300, seed=0: waves(max(n, 60), seed=seed)
    one_channel = lambda n=120, seed=0: waves(max(n, 60), None, seed)  # noqa: E731
    yield "ReRe", deepod.series.ReRe(window=10, random_state=0), one_channel
    for name in sorted(GRAPHS):
        yield name, graphs.fast(name), lambda n=0, seed=0, name=name: graphs.data(name, seed)


def save_models(folder):
    """Save a model of every kind, and its scores of rows that it was not fitted on."""
    expected = {}
    for name, detector, rows in models():
        detector.fit(rows()).save(folder / f"{name}.deepod")
        expected[name] = detector.decision_function(rows(n=9, seed=1))
        expected[f"{name} threshold"] = np.asarray(detector.threshold_)
    np.savez_compressed(folder / "scores.npz", **expected)


def names():
    """Return the public names of the library and of the command line, with their parameters."""
    found = {}
    for module in ["deepod", *(f"deepod.{name}" for name in reference.modules())]:
        for name, value in reference.public(import_module(module)).items():
            found[f"{module}.{name}"] = parameters(value)
            if inspect.isclass(value):
                for member in reference.members(value):
                    found[f"{module}.{name}.{member}"] = parameters(getattr(value, member))
    commands = _parser()._subparsers._group_actions[0].choices
    for name, parser in commands.items():
        options = [o for a in parser._actions for o in a.option_strings or [a.dest]]
        found[f"$ deepod {name}"] = sorted(options)
    return found


def parameters(value):
    """Return the names of the parameters of a function or class, none of an attribute."""
    if not callable(value) or (inspect.isclass(value) and issubclass(value, Exception)):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = inspect.signature(value).parameters.values()
    return sorted(p.name for p in known if p.name != "self" and p.kind not in kinds)


def main():
    """Write what this version promises to those after it."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    folder = GOLDEN / deepod.__version__
    folder.mkdir()  # what is there is never written again
    save_models(folder)
    lines = [f"{name}({', '.join(given)})\n" for name, given in sorted(names().items())]
    (folder / "names.txt").write_text("".join(lines))
    print(f"{len(list(folder.glob('*.deepod')))} models and {len(lines)} names: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
