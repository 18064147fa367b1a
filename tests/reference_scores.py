"""Scores of every detector under many settings, to compare two versions of the code bit for bit.

A move of code must change no score. Write the scores of the older version, and compare those of
the newer one on the same machine with the same libraries and number of threads::

    OMP_NUM_THREADS=1 python -m tests.reference_scores write scores.npz     # in the older checkout
    OMP_NUM_THREADS=1 python -m tests.reference_scores compare scores.npz   # in the newer one
"""

import sys
import tempfile
import warnings

import numpy as np
import torch

import deepod
from deepod.callbacks import EarlyStopping
from deepod.networks import MLP, LeNet, Recurrent

from .cases import NAMES, NAMES_AND_KINDS, fast, samples

SETTINGS = {
    "default": {},
    "trace": {"engine": "trace", "epochs": 3},
    "eager": {"engine": "eager", "epochs": 3},
    "held out": {"validation_fraction": 0.25, "callbacks": (EarlyStopping(patience=1),)},
    "calibrated": {"calibration_fraction": 0.25, "false_alarm_rate": 0.1},
    "clipped": {"max_grad_norm": 0.1, "optimizer": "sgd", "milestones": (1,)},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "batch_size": 16},
    "minmax": {"scaler": "minmax", "contamination": "auto"},
    "symmetric": {"scaler": "symmetric", "contamination": 0},
    "unscaled": {"scaler": None, "lr": 1e-2},
    "small batches": {"batch_size": 7, "epochs": 2},
}
OWN = {
    ("PLAD", "table"): [
        {"perturbator": "mlp", "symmetry": "mirror"},
        {"network": MLP(hidden=(8,)), "alpha": "raw"},
        {"epochs": "auto"},
    ],
    ("PLAD", "windows"): [{"network": Recurrent(hidden=(4,))}],
    ("AnoRand", "table"): [{"fusion": "paper"}, {"z0": "output", "fusion": "swapped"}],
    ("DeepSVDD", "table"): [{"objective": "soft", "warmup_epochs": 1, "epochs": 3}],
    ("IAEAD", "table"): [{"score_by": "distance"}, {"objective": "soft", "warmup_epochs": 0}],
    ("IAELSTMKL", "table"): [{"kl": "moments"}, {"use_decoder": False, "score_by": "distance"}],
    ("NSAE", "table"): [{"l0": "hard_concrete"}, {"normalize": "attached", "epochs": 3}],
    ("AutoEncoder", "images"): [{"scaler": "gcn"}, {"network": LeNet(channels=(4,), hidden=(8,))}],
    ("AutoEncoder", "table"): [
        {"epochs": "auto"},
        {"network": MLP(hidden=(6,), activation="tanh")},
    ],
}
LABELS = {"AnoRand": ["few_labels", "supervised"], "PLAD": ["drop_anomalies"]}


def _of(name, detector, X, new):
    """Everything that a fit leaves which a user may read."""
    found = {
        "training": detector.decision_scores_,
        "new": detector.decision_function(new),
        "threshold": detector.threshold_,
        "labels": detector.predict(new),
        "losses": [
            [value for key, value in entry.items() if isinstance(value, float) and key != "seconds"]
            for entry in detector.history_
        ],
        "calibration": getattr(detector, "calibration_scores_", np.zeros(0)),
        "shift": detector.shift_,
        "scale": detector.scale_,
        "baseline": detector.baseline_,
    }
    if hasattr(detector, "explain"):
        found["explained"] = detector.explain(new[:3])
    lengths = {len(row) for row in found["losses"]}
    if len(lengths) > 1:  # phases with different terms
        found["losses"] = [value for row in found["losses"] for value in row]
    return {f"{name} | {key}": np.asarray(value, float) for key, value in found.items()}


def scores():
    """All reference scores by name."""
    found = {}
    for name, kind in NAMES_AND_KINDS:
        X, new = samples(kind, n=41), samples(kind, n=9, seed=1)
        settings = [(key, dict(value)) for key, value in SETTINGS.items()]
        settings += [(repr(own), own) for own in OWN.get((name, kind), [])]
        for key, own in settings:
            detector = fast(name, **own)
            found |= _of(f"{name} | {kind} | {key}", detector.fit(X), X, new)
        gaps = X.copy()
        gaps.reshape(len(X), -1)[::5, 1] = np.nan
        detector = fast(name, missing="impute").fit(gaps)
        found |= _of(f"{name} | {kind} | gaps", detector, gaps, new)
        for supervision in LABELS.get(name, []):
            y = np.repeat([0, 1], [35, 6])
            detector = fast(name, supervision=supervision, validation_fraction=0.2).fit(X, y)
            found |= _of(f"{name} | {kind} | {supervision}", detector, X, new)
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/rows.npy"
            np.save(path, np.tile(X, (4, *[1] * (X.ndim - 1))))
            mapped = np.load(path, mmap_mode="r")
            for held_out in (0.0, 0.2):
                limit = mapped.nbytes // 2
                detector = fast(name, memory_limit=limit, validation_fraction=held_out)
                detector.fit(mapped)
                found |= _of(f"{name} | {kind} | from disk, {held_out}", detector, mapped, new)
    for name in NAMES:
        X, new = samples(n=41), samples(n=9, seed=1)
        fitted = deepod.fit_many(fast(name, epochs=4), X, seeds=range(3))
        for k, detector in enumerate(fitted):
            found |= _of(f"{name} | side by side {k}", detector, X, new)
        ensemble = deepod.SeedEnsemble(fast(name), n_members=2, random_state=0).fit(X)
        found[f"{name} | ensemble"] = ensemble.decision_function(new)
        grid = {"lr": [1e-3, 1e-2], "weight_decay": [0.0, 0.1], "contamination": [0.1, 0.2]}
        y = np.arange(41) % 10 == 0
        search = deepod.StackedSearchCV(fast(name), grid, scoring="roc_auc", cv=2).fit(X, y)
        found[f"{name} | search"] = search.cv_results_["mean_test_score"]
    return found


def main(command, path):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    found = scores()
    if command == "write":
        np.savez_compressed(path, **found)
        print(f"{len(found)} arrays written to {path}")
        return 0
    expected = np.load(path)
    different = [
        name
        for name in sorted({*found, *expected.files})
        if name not in found
        or name not in expected.files
        or not np.array_equal(found[name], expected[name], equal_nan=True)
    ]
    print(f"{len(found)} arrays compared bit for bit, {len(different)} differ")
    for name in different[:40]:
        print(" ", name)
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
