"""Models and checkpoints that are wrong in many ways, and a process under guard to read them."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import os
import pickle
import socket
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import numpy as np

from benchmarks.memory import kib

from . import children

with contextlib.suppress(ImportError):  # not on Windows, where nothing of this runs
    import resource

SECONDS = 20.0  # of the processor, for one file: usual are hundredths
HANGS = 600  # seconds without an end: the machine may have other work
MIB = 300  # beyond what the process has before a file
MAX_BYTES = 1 << 25  # for deepod.load: larger files than this are not among the models

# --- the models -----------------------------------------------------------------------------------


def make_models(folder: Path) -> None:
    """Save small models of every family, kind of samples and layer; single files."""
    import pandas as pd

    from deepod import Consensus, SeedEnsemble
    from deepod.callbacks import EarlyStopping
    from deepod.networks import MLP, LeNet

    from .cases import fast, samples

    table = samples()
    models = {
        "plad": fast("PLAD").fit(table),
        "plad_mlp": fast("PLAD", network=MLP(hidden=(4,)), reach=[0.5, 2]).fit(table),
        "autoencoder": fast("AutoEncoder", callbacks=(EarlyStopping(patience=3),)).fit(
            pd.DataFrame(table, columns=list("abcde"))
        ),
        "ns_ae": fast("NSAE", l0="hard_concrete", novelty_layers=3).fit(table),
        "anorand": fast("AnoRand", fusion="paper").fit(table),
        "soft": fast("DeepSVDD", objective="soft", milestones=[1]).fit(samples("windows")),
        "gates": fast("IAELSTMKL").fit(samples("windows")),
        "lenet": fast("DAE", network=LeNet(channels=(2, 3), hidden=(4,), pad_to=3)).fit(
            samples("images")
        ),
        "flat": fast("IAEAD", input_shape=(1, 8, 8), scaler="gcn").fit(
            samples("images").reshape(40, -1)
        ),
        "plad_images": fast("PLAD").fit(samples("images")),
        "neighbors": fast("Neighbors", max_rows=30).fit(table),
        "consensus": Consensus(
            [fast("Neighbors"), fast("AutoEncoder", callbacks=(EarlyStopping(patience=3),))],
            random_state=0,
        ).fit(pd.DataFrame(table, columns=list("abcde"))),
        "seeds": SeedEnsemble(fast("PLAD"), 2, random_state=0).fit(table),
    }
    for name, detector in models.items():
        detector.save(folder / f"{name}.deepod")


FITS: dict[str, dict[str, Any]] = {
    "AutoEncoder": {},
    "DeepSVDD": {"objective": "soft"},
    "NSAE": {"validation_fraction": 0.2, "optimizer": "sgd", "lr": 1e-4},
    "PLAD": {"network": "mlp", "engine": "trace"},
}


def fit_from(path: Path, name: str, *callbacks: Any) -> Any:
    """Fit a detector that goes on from a checkpoint, if there is one."""
    from deepod.callbacks import EarlyStopping

    from .cases import fast, samples

    settings = {"epochs": 4, "batch_size": 16, "callbacks": [EarlyStopping(), *callbacks]}
    return fast(name, checkpoint=str(path), **settings, **FITS[name]).fit(samples())


def make_checkpoints(folder: Path) -> None:
    """Leave checkpoints of fits that were interrupted."""

    def interrupt(event: Any) -> None:
        if event.epoch == 2 and event.last:
            raise RuntimeError("interrupted")

    for name in FITS:
        with contextlib.suppress(RuntimeError):
            fit_from(folder / f"{name}.ckpt", name, interrupt)


class Model(NamedTuple):
    """A file taken apart."""

    name: str
    data: bytes
    description: dict[str, Any]
    tensors: dict[str, np.ndarray]

    @classmethod
    def read(cls, path: Path) -> Model:
        """Take a file apart."""
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        entries = json.loads(data[8:start])
        text = entries.pop("__metadata__")["deepod"].partition(" ")[2]
        tensors = {}
        for name, entry in entries.items():
            begin, end = entry["data_offsets"]
            raw = np.frombuffer(data[start + begin : start + end], DTYPES[entry["dtype"]])
            tensors[name] = raw.reshape(entry["shape"]).copy()
        return cls(path.stem, data, json.loads(text), tensors)


DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}
CODES = {np.dtype(kind): code for code, kind in DTYPES.items()} | {np.dtype(bool): "BOOL"}
TORCH = {"F64": "float64", "F32": "float32", "F16": "float16", "I64": "int64", "I32": "int32"}
TORCH |= {"U8": "uint8", "BOOL": "bool"}


def assemble(
    text: str, tensors: dict[str, np.ndarray], edit: Callable[[dict], Any] | None = None
) -> bytes:
    """Put a file together with the right offsets and the right checksum of what it holds.

    ``edit`` may change the header, or return the text to take for it.
    """
    found = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    for name, array in sorted(tensors.items()):
        kind = f"torch.{TORCH[CODES[array.dtype]]}"
        found.update(f"{name} {kind} {array.shape}".encode("utf-8", "surrogatepass"))
        found.update(array.tobytes())
    header: dict[str, Any] = {"__metadata__": {"deepod": f"{found.hexdigest()} {text}"}}
    place = 0
    for name, array in tensors.items():
        ends = [place, place + array.nbytes]
        place = ends[1]
        header[name] = {
            "dtype": CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": ends,
        }
    raw = (edit(header) if edit else None) or json.dumps(header)
    raw = raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass")
    contents = b"".join(array.tobytes() for array in tensors.values())
    return len(raw).to_bytes(8, "little") + raw + contents


# --- what may be wrong ----------------------------------------------------------------------------

NUMBERS = [
    *(0, 1, -1, 2, 3, 7, 255, 4096, 20_001, 131_072, 131_073, 10**6, 10**9, 10**12, 10**19),
    *(2**31 - 1, 2**31, 2**32, 2**47, 2**62, 2**63 - 1, 2**63, 2**64, 10**300, 10**4000, -(2**63)),
    *(0.0, -0.0, 0.5, 0.1, 1e-320, 1e-30, 1e30, 1e308, -1e308),
    *(float("nan"), float("inf"), float("-inf")),
]
STRINGS = [
    *("", "x", "os.system", "__class__", "__init__", "BaseDetector", "load", "SeedEnsemble"),
    *("PLAD", "AutoEncoder", "MLP", "LeNet", "auto", "cuda", "cuda:99999999999", "meta", "cpu:7"),
    *("\0", "\ud800", "\x1b[2J", "../../etc/passwd", "/etc/passwd", "a" * 100_000, "é" * 300),
    *("nan", "1e999", "{}", "%s%n", "${HOME}", "builtins.eval", "file:///etc/passwd"),
]


def nested(depth: int) -> Any:
    """Build lists within lists."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def values() -> list[Any]:
    """Everything that might stand where something else should."""
    networks = [
        {"object": "MLP", "params": {"hidden": {"tuple": [3]}}},
        {"object": "MLP", "params": {"hidden": {"tuple": [10**9]}}},
        {"object": "MLP", "params": {"hidden": {"tuple": [2**62, 2**62]}}},
        {"object": "MLP", "params": {"hidden": [1] * 5000}},
        {"object": "MLP", "params": {"hidden": "abc", "activation": ["relu"]}},
        {"object": "MLP", "params": {"hidden": [], "bias": 3}},
        {"object": "MLP", "params": {"__class__": "os"}},
        {"object": "MLP", "params": []},
        {"object": "LeNet", "params": {"channels": [1] * 20, "pad_to": 2**20, "hidden": []}},
        {"object": "LeNet", "params": {"channels": [10**6], "kernel_size": 10**6 + 1}},
        {"object": "LeNet", "params": {"pad_to": 2**62}},
        {"object": "Recurrent", "params": {"hidden": {"tuple": [1] * 3000}, "cell": "gru"}},
        {"object": "Prototypes", "params": {"n_prototypes": 10**9}},
        {"object": "Prototypes", "params": {"n_prototypes": 2**62, "rows_per_prototype": 1}},
        {"object": "EarlyStopping", "params": {"patience": "x", "monitor": [1]}},
        {"object": "Progress", "params": {}},
        {"object": "Progress", "params": {"x": 1}},
        {"object": "os.system", "params": {"command": "touch /tmp/pwned"}},
        {"object": ["MLP"], "params": {}},
        {"object": "MLP"},
        {"object": "MLP", "params": {}, "more": 1},
    ]
    lists = [
        *([], [[]], [None], [1, 2], [0], [-1], [1.5], ["input", "output"], [10**9], [2**62] * 3),
        *([1] * 1000, [1] * 20_000, [{}] * 1000, nested(50), nested(400), nested(900)),
        *({}, {"tuple": []}, {"tuple": [1, 2]}, {"tuple": 5}, {"tuple": {"tuple": [1]}}),
        *({"tuple": "abc"}, {"tuple": [{"tuple": [{"tuple": [1]}]}]}, {"a": {"b": {}}}),
        *({"phase": "fit"}, [{"phase": 3}], [{"epoch": [1]}], [{}]),
    ]
    return [None, True, False, *NUMBERS, *STRINGS, *lists, *networks]


VALUES = values()
NAMES = [
    *("../../etc/passwd", "/etc/passwd", "a\0b", "x" * 10_000, "", "module.", "module.x", "shift_"),
    *("__metadata__", "\ud800", "module_", "decision_scores_", "module.__class__"),
]


class Wrong(NamedTuple):
    """A file to load, and what may come of it."""

    label: str
    data: bytes
    may_differ: bool = True  # in scores, if it loads
    may_be_infinite: bool = False  # its weights are


def _bytes(model: Model, rng: np.random.Generator) -> Wrong:
    """Contents cut, changed, added or moved: what loads must be the model itself."""
    data = model.data
    start = 8 + int.from_bytes(data[:8], "little")
    edges = [0, 1, 7, 8, 9, start - 1, start, start + 1, len(data) - 1]
    place = int(rng.choice([*edges, *rng.integers(len(data), size=12)]))
    size = int(rng.choice([1, 2, 8, 100, 1000]))
    junk = rng.bytes(size)
    kind = int(rng.integers(9))
    flipped = bytearray(data)
    if kind == 0:
        return Wrong(f"cut at {place}", data[:place], False)
    if kind == 1:
        for _ in range(int(rng.choice([1, 1, 1, 2, 8]))):
            flipped[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        return Wrong("bits flipped", bytes(flipped), False)
    if kind == 2:  # in the header, where more depends on them
        for _ in range(int(rng.choice([1, 1, 1, 2, 8]))):
            flipped[int(rng.integers(start))] = int(rng.integers(256))
        return Wrong("bytes of the header changed", bytes(flipped), False)
    if kind == 3:
        return Wrong(f"{size} bytes put in at {place}", data[:place] + junk + data[place:], False)
    if kind == 4:
        return Wrong(f"{size} bytes out at {place}", data[:place] + data[place + size :], False)
    if kind == 5:
        return Wrong(f"{size} bytes twice at {place}", data[: place + size] + data[place:], False)
    if kind == 6:
        zeros = bytes(min(size, len(data) - place))
        return Wrong(f"zeros at {place}", data[:place] + zeros + data[place + size :], False)
    if kind == 7:
        length = int(rng.choice([0, 1, 2, start, start - 9, len(data), len(data) - 8, 1 << 24]))
        return Wrong(f"header of {length}", length.to_bytes(8, "little") + data[8:], False)
    length = rng.bytes(8) if rng.integers(2) else b"\xff" * 8
    return Wrong("header of any length", length + data[8:], False)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything within a JSON value."""
    if path:
        yield path
    if isinstance(value, dict | list) and len(path) < 20:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(inner, (*path, key))


def _changed(tree: Any, rng: np.random.Generator) -> str:
    """Change one place of a JSON value."""
    places = [p for p in _places(tree) if p[0] != "versions" or rng.integers(10) == 0]
    # Entries of the history are many and alike.
    places = [p for p in places if p[:2] != ("fitted", "history_") or rng.integers(10) == 0]
    *path, key = places[int(rng.integers(len(places)))]
    parent = tree
    for step in path:
        parent = parent[step]
    where = ".".join(map(str, (*path, key)))[:200]
    kind = int(rng.integers(10))
    if kind == 0:
        del parent[key]
        return f"{where} missing"
    if kind == 1:
        name = NAMES[int(rng.integers(len(NAMES)))]
        if isinstance(parent, dict):
            parent[name] = parent.pop(key)
        else:
            parent.append(name)
        return f"{where} called {name[:20]!r}"
    if kind == 2 and isinstance(parent[key], list | dict):
        inner = parent[key]
        if isinstance(inner, list):
            inner *= int(rng.choice([0, 2, 300]))
        else:
            inner["another"] = VALUES[int(rng.integers(len(VALUES)))]
        return f"{where} longer"
    if kind == 3 and isinstance(parent[key], int | float):
        parent[key] = type(parent[key])(parent[key] + int(rng.choice([-1, 1, 2, 100])))
        return f"{where} = {parent[key]}"
    parent[key] = json.loads(json.dumps(VALUES[int(rng.integers(len(VALUES)))]))
    return f"{where} = {str(parent[key])[:60] if not isinstance(parent[key], int) else 'number'}"


def _description(model: Model, rng: np.random.Generator) -> Wrong:
    """Another description, with the right checksum."""
    description = json.loads(json.dumps(model.description))
    labels = [_changed(description, rng) for _ in range(int(rng.choice([1, 1, 1, 2, 3])))]
    text = json.dumps(description)
    if rng.integers(20) == 0:
        text = text.replace('"params": {', '"params": {"lr": 1, "lr": 2, ', 1)
        labels.append("a key twice")
    return Wrong("; ".join(labels), assemble(text, model.tensors))


def _header(model: Model, rng: np.random.Generator) -> Wrong:
    """Entries of tensors changed, without moving any."""
    label = ""

    def edit(header: dict[str, Any]) -> str | None:
        nonlocal label
        metadata = header.pop("__metadata__")
        label = _changed(header, rng)
        order = [{"__metadata__": metadata} | header, header | {"__metadata__": metadata}]
        text = json.dumps(order[int(rng.integers(2))])
        if rng.integers(10) == 0:
            text = text[:-1] + f', "{next(iter(header), "x")}": 1}}'
            label += ", a tensor twice"
        return text

    return Wrong("", assemble(json.dumps(model.description), model.tensors, edit), False)._replace(
        label=label
    )


def _tensors(model: Model, rng: np.random.Generator) -> Wrong:
    """Other tensors, with the right checksum."""
    tensors = dict(model.tensors)
    name = str(rng.choice(list(tensors)))
    array = tensors[name]
    kind = int(rng.integers(9))
    label = ["missing", "another", "renamed", "type", "shape", "values", "swapped", "longer", "cut"]
    if kind == 0:
        del tensors[name]
    elif kind == 1:
        other = NAMES[int(rng.integers(len(NAMES)))]
        tensors[other if rng.integers(2) else name + ".x"] = array
    elif kind == 2:
        tensors[NAMES[int(rng.integers(len(NAMES)))]] = tensors.pop(name)
    elif kind == 3:
        dtype = str(rng.choice(["<f8", "<f4", "<f2", "<i8", "<i4", "u1", "bool"]))
        with np.errstate(all="ignore"):
            tensors[name] = array.astype(dtype)
    elif kind == 4:
        shapes = [(array.size,), (1, *array.shape), (*array.shape, 1), array.shape[::-1], (0,), ()]
        shape = shapes[int(rng.integers(len(shapes)))]
        tensors[name] = np.resize(array, shape) if array.size else array
    elif kind == 5:
        strange = [np.nan, np.inf, -np.inf, 0.0, -1.0, 1e30, 1e300, -1e300, 1e-320]
        value = strange[int(rng.integers(len(strange)))]
        with np.errstate(all="ignore"):
            if rng.integers(2):
                changed = np.full_like(array, 0) + np.array(value).astype(array.dtype)
            else:
                changed = array.copy()
                changed.reshape(-1)[: 1 + array.size // 7] = np.array(value).astype(array.dtype)
        tensors[name] = changed.astype(array.dtype)
    elif kind == 6:
        other = str(rng.choice(list(tensors)))
        tensors[name], tensors[other] = tensors[other], tensors[name]
    elif array.ndim:
        axis = int(rng.integers(array.ndim))
        size = 2 * array.shape[axis] if kind == 7 else int(rng.integers(array.shape[axis] + 1))
        tensors[name] = np.take(array, np.arange(size) % max(1, array.shape[axis]), axis)
    text = json.dumps(model.description)
    return Wrong(f"{name} {label[kind]}", assemble(text, tensors), may_be_infinite=True)


WAYS: list[Callable[[Model, np.random.Generator], Wrong]] = [_bytes, _description, _header]
WAYS += [_tensors, _description]


def wrong(models: list[Model], number: int) -> Wrong:
    """Wrong file of that number."""
    rng = np.random.default_rng([number, 20])
    model = models[number % len(models)]
    way = WAYS[number // len(models) % len(WAYS)]
    found = way(model, rng)
    label = f"{number} {model.name}{way.__name__}: {found.label}"
    return found._replace(label=label[:200])


# --- what somebody would do on purpose ------------------------------------------------------------


def attacks(models: list[Model]) -> Iterator[Wrong]:
    """Files made by hand."""
    by_name = {model.name: model for model in models}
    model = by_name["plad_mlp"]
    text = json.dumps(model.description)

    def with_text(label: str, text: str | bytes, **more: Any) -> Wrong:
        return Wrong(label, assemble("", model.tensors, lambda header: text), **more)

    def with_description(label: str, text: str) -> Wrong:
        return Wrong(label, assemble(text, model.tensors))

    def with_values(label: str, name: str, **changes: Any) -> Wrong:
        description = json.loads(json.dumps(by_name[name].description))
        for key, value in changes.items():
            *path, last = key.split("__")
            place = description
            for step in path:
                place = place[step]
            place[last] = value
        return Wrong(label, assemble(json.dumps(description), by_name[name].tensors))

    yield Wrong("unchanged", model.data, False)
    yield Wrong("put together again", assemble(text, model.tensors), False)
    # Other files.
    yield Wrong("empty", b"")
    yield Wrong("seven bytes", b"1234567")
    yield Wrong("zeros", bytes(100_000))
    yield Wrong("an empty header", bytes(8))
    yield Wrong("an empty object", b"\x02" + bytes(7) + b"{}")
    yield Wrong("pickle", pickle.dumps({"a": os.system}))
    yield Wrong("pickle that acts", b"cos\nsystem\n(S'touch /tmp/pwned'\ntR.")
    yield Wrong("torch's file of that pickle", _zipped(b"cos\nsystem\n(S'true'\ntR."))
    yield Wrong("elf", b"\x7fELF" + bytes(1000))
    yield Wrong("text", b"import os; os.system('touch /tmp/pwned')\n" * 100)
    # Headers that are long, deep or have very many values.
    most = (1 << 24) - 8
    for label, piece in {
        "lists": "[],", "objects": "{},", "numbers": "1e9,", "long numbers": "123456789,",
        "strings": '"ab",', "strings of two bytes": '"ā",', "pairs": '{"a":1},',
        "zeros": "0,", "nulls": "null,",
    }.items():  # fmt: skip
        many = "[" + piece * (most // len(piece.encode()) - 2) + "0]"
        yield with_text(f"header of {label}", '{"__metadata__":' + many + "}")
        yield with_description(f"description of {label}", '{"x":' + many[: most // 3] + "0]}")
        some = "[" + piece * min(380_000, most // len(piece.encode()) - 9) + "0]"
        yield with_text(f"header of some {label}", '{"__metadata__":' + some + "}")
        yield with_description(f"description of some {label}", '{"x":' + some + "}")
    keys = ",".join(f'"{i:06x}":0' for i in range(most // 12))
    yield with_text("header of keys", f"{{{keys}}}")
    escaped = json.dumps("[" + "[],".replace(",", "\\u002c").replace("[", "\\u005b") * 900_000)
    yield with_text("values that are escaped", '{"__metadata__":{"deepod":' + escaped + "}}")
    one = '"%d":{"dtype":"F32","shape":[],"data_offsets":[0,0]}'
    many = ",".join(one % i for i in range(most // 60))
    yield with_text("header of tensors", f"{{{many}}}")
    for depth in (500, 1000, 5000, 100_000, 5_000_000):
        yield with_text(f"depth {depth}", "[" * depth)
        yield with_text(f"closed depth {depth}", '{"a":' * depth + "1" + "}" * depth)
        yield with_description(f"description of depth {depth}", "[" * depth + "]" * depth)
    yield with_description("number of a million digits", '{"x": ' + "9" * 10**6 + "}")
    yield with_description("exponent of a million", '{"x": 1e999999999}')
    yield with_text(
        "header of one string", '{"__metadata__":{"deepod":"' + "a" * (most - 40) + '"}}'
    )
    emoji = "a" * (most // 2) + "\U0001f600"
    yield with_text("a wide character", '{"__metadata__":{"deepod":"' + emoji + '"}}')
    yield with_text("not unicode", b'{"__metadata__":{"deepod":"\xff\xfe"}}')
    yield with_text("byte order mark", b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode())
    yield Wrong("longest header", (1 << 24).to_bytes(8, "little") + b" " * (1 << 24))
    yield Wrong("header beyond the longest", (1 << 25).to_bytes(8, "little") + b" " * (1 << 25))
    for metadata in (None, [], {}, {"deepod": None}, {"deepod": ["a"]}, {"deepod": "x"}, "deepod"):
        yield with_text(f"metadata {metadata}", json.dumps({"__metadata__": metadata}))
    for top in ("null", "3", '"x"', "[]", "[1]", "true", "NaN"):
        yield with_text(f"header {top}", top)
        yield with_description(f"description {top}", top)
    # Offsets.
    names = list(model.tensors)
    for label, ends in {
        "negative": [-8, 0], "backwards": [8, 0], "beyond": [0, 10**15], "one number": [0],
        "true": [False, True], "floats": [0.0, 4.0], "huge": [2**63, 2**64], "words": ["0", "4"],
        "both": {"0": 0, "1": 4},
    }.items():  # fmt: skip
        for name in (names[0], names[-1]):

            def edit(header: dict[str, Any], name: str = name, ends: Any = ends) -> None:
                header[name]["data_offsets"] = ends

            yield Wrong(f"offsets {label} of {name}", assemble(text, model.tensors, edit), False)
    for label, shape in {
        "huge": [2**40, 2**40], "product beyond": [2**32, 2**32], "zero": [0], "negative": [-1, -5],
        "many": [1] * 64, "zeros and huge": [2**62, 0], "million": [1] * 10**6, "words": "12",
    }.items():  # fmt: skip

        def edit_shape(header: dict[str, Any], shape: Any = shape) -> None:
            header[names[0]]["shape"] = shape

        yield Wrong(f"shape {label}", assemble(text, model.tensors, edit_shape), False)
    for dtype in ("F8_E4M3", "C64", "U16", "f32", None, [], "F64 ", "x" * 10**6):

        def edit_dtype(header: dict[str, Any], dtype: Any = dtype) -> None:
            header[names[0]]["dtype"] = dtype

        yield Wrong(f"type {str(dtype)[:9]}", assemble(text, model.tensors, edit_dtype), False)

    def all_the_same_place(header: dict[str, Any]) -> None:
        for name in names:
            size = np.prod(header[name]["shape"], dtype=int) * 4
            header[name]["data_offsets"] = [0, int(size)]

    yield Wrong("one place for all", assemble(text, model.tensors, all_the_same_place), False)
    yield Wrong("a tensor of a gigabyte", _gigabyte(text, model), True)
    # Detectors, parameters and attributes.
    for name in ("os.system", "__class__", "BaseDetector", "load", "SeedEnsemble", "fit_many"):
        yield with_values(f"detector {name}", "plad", detector=name)
    for value in ("AutoEncoder", "DeepSVDD", ["PLAD"], {"a": 1}, 3, None, "PLAD\0", "x" * 10**6):
        yield with_values(f"detector {str(value)[:20]}", "plad", detector=value)
    for size in (19_000, 39_000, 131_072, 10**6, 10**9, 10**12, 2**62, 2**63, 10**400):
        for name, key in (
            ("plad", "n_members"), ("plad_mlp", "n_members"), ("plad", "latent_dim"),
            ("ns_ae", "novelty_layers"), ("ns_ae", "latent_dim"), ("soft", "latent_dim"),
            ("soft", "pretrain_epochs"), ("soft", "warmup_epochs"), ("anorand", "k_neighbors"),
            ("plad", "memory_limit"), ("plad", "batch_size"), ("plad", "epochs"),
        ):  # fmt: skip
            yield with_values(f"{key}={str(size)[:15]}", name, **{f"params__{key}": size})
            yield with_values(f"with {key}={str(size)[:15]}", name, **{f"fitted_with__{key}": size})
        for name, key in (("plad", "_n_training"), ("soft", "epochs_"), ("plad", "n_features_in_")):
            yield with_values(f"{key}={str(size)[:15]}", name, **{f"fitted__{key}": size})
        yield with_values(f"shape {str(size)[:15]}", "plad", fitted__input_shape_=[size])
        yield with_values(f"pad {str(size)[:15]}", "lenet", params__network__params__pad_to=size)
    ones = {"tuple": [1] * 10**6}
    for name, key in (
        ("plad", "params__milestones"), ("plad_mlp", "params__network__params__hidden"),
        ("plad", "params__perturbator_hidden"), ("plad", "params__callbacks"),
        ("lenet", "params__network__params__channels"), ("plad", "params__reach"),
        ("gates", "params__gates"), ("flat", "params__input_shape"), ("plad", "params__lr"),
        ("plad", "fitted_with"), ("plad", "versions"), ("plad", "threshold"),
    ):  # fmt: skip
        yield with_values(f"a million ones in {key}", name, **{key: ones})
        yield with_values(f"four thousand in {key}", name, **{key: {"tuple": [1] * 4000}})
    network = {"object": "MLP", "params": {"hidden": {"tuple": [2]}}}
    yield with_values("ten thousand networks", "plad", params__callbacks=[network] * 10_000)
    yield with_values("a thousand networks", "plad", params__callbacks=[network] * 1000)
    for side in (8, 64, 1024, 2**15, 2**20):
        yield _padding(by_name["lenet"], side)
    yield _prototypes(by_name["plad"], 0)
    yield _prototypes(by_name["plad"], 3, "centers")
    yield _prototypes(by_name["plad"], 3, "weights")
    history = [{"phase": "fit", "epoch": 1, "seconds": 0.1, "loss": 0.2}] * 60_000
    yield with_values("a very long history", "plad", fitted__history_=history)
    for name in NAMES:
        tensors = {name if old == names[0] else old: t for old, t in model.tensors.items()}
        yield Wrong(f"tensor called {name[:20]!r}", assemble(text, tensors))
    # Tensors that are far more than the others.
    scores = dict(model.tensors, _training_scores=np.zeros(3_000_000))
    yield Wrong("three million scores", assemble(text, scores))
    tensors = dict(model.tensors, shift_=np.full(5, 1e300), scale_=np.full(5, 1e-320))
    yield Wrong("scaling to nowhere", assemble(text, tensors), may_be_infinite=True)


def _zipped(data: bytes) -> bytes:
    file = BytesIO()
    with ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return file.getvalue()


def _gigabyte(text: str, model: Model) -> bytes:
    def edit(header: dict[str, Any]) -> None:
        header["module.x"] = {"dtype": "F32", "shape": [2**28], "data_offsets": [0, 2**30]}

    return assemble(text, model.tensors, edit)


def _padding(model: Model, side: int) -> Wrong:
    """Choose a few weights that would turn a small image into one of side ``side``."""
    description = json.loads(json.dumps(model.description))
    blocks = side.bit_length() - 1
    params = description["params"]["network"]["params"]
    params |= {"channels": {"tuple": [1] * blocks}, "hidden": [], "pad_to": side}
    tensors = {k: t for k, t in model.tensors.items() if not k.startswith("module.")}
    code = description["params"]["latent_dim"]
    first = "module.encoder."
    for i in range(blocks):
        place = 3 * i + 1  # convolution, activation, pooling; the first layer pads
        tensors[f"{first}{place}.weight"] = np.zeros((1, 1, 5, 5), np.float32)
        tensors[f"module.decoder.{3 * i + 3}.weight"] = np.zeros((1, 1, 5, 5), np.float32)
    tensors[f"{first}{3 * blocks + 1}.1.weight"] = np.zeros((code, 1), np.float32)
    return Wrong(f"padded to {side}", assemble(json.dumps(description), tensors))


def _prototypes(model: Model, p: int, alone: str | None = None) -> Wrong:
    """Another number of centres, in all tensors or in one of them."""
    tensors = dict(model.tensors)
    for name, axis in (("centers", 1), ("log_widths", 2), ("weights", 3), ("picks", 1)):
        key = f"module.classifier.{name}"
        if alone in (None, name):
            tensors[key] = np.take(tensors[key], np.zeros(p, int), axis)
    label = f"{p} prototypes in {alone or 'all'}"
    return Wrong(label, assemble(json.dumps(model.description), tensors))


# --- what is no file ------------------------------------------------------------------------------


@contextlib.contextmanager
def strange_places(folder: Path, model: Model) -> Iterator[dict[str, tuple[Path, bool]]]:
    """Paths that are no plain file, and whether the model is there to be loaded."""
    here = folder / "strange"
    here.mkdir()
    good = here / "good.deepod"
    good.write_bytes(model.data)
    (here / "empty").mkdir()
    (here / "folder/model.safetensors").mkdir(parents=True)
    (here / "whole").mkdir()
    (here / "whole/model.safetensors").write_bytes(model.data)
    (here / "to_model").symlink_to(good)
    (here / "to_folder").symlink_to(here / "whole")
    (here / "to_nothing").symlink_to(here / "nothing")
    (here / "to_itself").symlink_to(here / "to_itself")
    (here / "linked").mkdir()
    (here / "linked/model.safetensors").symlink_to("/etc/passwd")
    os.mkfifo(here / "pipe")
    (here / "piped").mkdir()
    os.mkfifo(here / "piped/model.safetensors")
    sparse = here / "sparse"
    for name, start in (("sparse", b""), ("sparse_model", model.data)):
        sparse = here / name
        sparse.write_bytes(start)
        os.truncate(sparse, 1 << 40)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(here / "socket"))
        good_ones = ("good.deepod", "whole", "to_model", "to_folder")
        names = [*good_ones, "empty", "folder", "to_nothing", "to_itself", "linked", "pipe"]
        names += ["piped", "sparse", "sparse_model", "socket", "nothing", "good.deepod/x"]
        places = {name: (here / name, name in good_ones) for name in names}
        for device in ("/dev/null", "/dev/zero", "/dev/full", "/proc/self/mem", "/proc/version"):
            places[device] = Path(device), False
        places["a long name"] = here / ("x" * 5000), False
        yield places


# --- the process under guard ----------------------------------------------------------------------

_watched: set[str] | None = None  # paths that may be read; None: everything may happen
_writes: tuple[str, ...] = ()  # how paths begin that may be written
_seen: list[str] = []
# What an honest load does too.
_HARMLESS = {"builtins.id", "object.__getattr__", "sys._getframe"}
# What a fit does to its checkpoint.
_WRITING = {"open", "os.rename", "os.remove", "os.chmod", "os.link", "os.scandir", "os.listdir"}
_WRITING |= {"pathlib.Path.glob"}
_BESIDES = {"fcntl.flock", "object.__setattr__"}


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _watched is None or threading.current_thread() is not threading.main_thread():
        return
    if event == "open" and (not isinstance(args[0], str) or args[0] in _watched):
        return
    inside = event in _WRITING and str(args[0]).startswith(_writes)
    if _writes and (inside or event in _BESIDES):
        return
    if event == "open" or event not in _HARMLESS:
        _seen.append(f"{event} {str(args)[:200]}")


def load_and_use(path: Path, name: str = "") -> np.ndarray:
    """Load a detector, and do with it what people do; scores of a few rows."""
    import deepod

    detector = deepod.load(path, max_bytes=MAX_BYTES)
    shape = detector.input_shape_
    if np.prod(shape, dtype=float) > 1e6:
        return np.zeros(1)  # nobody has such samples
    rows = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    rows = rows if getattr(detector, "input_shape", None) is None else rows.reshape(4, -1)
    scores = detector.decision_function(rows)
    detector.predict_proba(rows)
    if detector.false_alarm_rate is None or hasattr(detector, "calibration_scores_"):
        detector.predict(rows)
        detector.predict_confidence(rows)
    repr(detector)
    return scores


def go_on(path: Path, name: str) -> np.ndarray:
    """Fit from a checkpoint; scores of the training rows."""
    return fit_from(path, name).decision_scores_


class Guard:
    """Judges what was done with a file: the result, time, memory, and whatever else happened."""

    def __init__(self, models: list[Model], folder: Path, use: Callable[..., np.ndarray]) -> None:
        import deepod

        self.refused, self.folder, self.use = deepod.InvalidFileError, folder, use
        self.failures: list[str] = []
        self.counts: Counter[str] = Counter()
        self.slowest, self.largest = (0.0, ""), (0.0, "")
        self.expected: dict[str, Any] = {}
        self.path = folder / "wrong.deepod"
        (folder / "wrong").mkdir()
        self.inside = folder / "wrong/model.safetensors"
        for model in models:  # all that is imported once, is imported now
            for _ in range(2):
                self.path.write_bytes(model.data)
                self.expected[model.name] = use(self.path, model.name)
        sys.addaudithook(_audit)

    def judge(self, case: Wrong, name: str) -> None:
        """Load a wrong file, alone or in a folder by turns."""
        self.counts["files"] += 1
        alone = self.use is go_on or self.counts["files"] % 2 == 0
        written = self.path if alone else self.inside
        written.write_bytes(case.data)
        self.watch(case.label, written if alone else written.parent, case, name)

    def watch(
        self, label: str, path: Path, case: Wrong | None = None, name: str = "", good: bool = True
    ) -> None:
        """Load under guard."""
        global _watched, _writes
        failed = len(self.failures)
        before = _reset_peak()
        faulthandler.dump_traceback_later(HANGS, exit=True)
        (self.folder / "last").write_text(ascii(label))
        limit = kib("VmSize") * 1024 + (MIB << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        start = time.process_time()
        _writes = (str(self.folder),) if self.use is go_on else ()
        _watched = {str(path), str(path / "model.safetensors")}
        try:
            scores = self.use(path, name)
            outcome = "loaded"
        except self.refused as error:
            outcome, scores = "refused", None
            if "allocate memory" in str(error) or len(str(error)) > 1000 + len(str(path)):
                self.failures.append(f"{label}: {str(error)[:300]}")
        except FloatingPointError as error:  # a fit from weights that are not finite
            outcome, scores = "diverged", None
            # Weights that are NaN score so, which is refused when labels are asked for.
            if self.use is not go_on and "are NaN" not in str(error):
                self.failures.append(f"{label}: {error!r}"[:500])
        except OSError as error:
            outcome, scores = "no file", None
            if case is not None:
                self.failures.append(f"{label}: {error!r}"[:500])
        except BaseException as error:
            _watched = None  # tracebacks are made of files
            outcome, scores = "failed", None
            self.failures.append(
                f"{label}: {traceback.format_exc(limit=-4)[-1500:]} {error!r:.200}"
            )
        finally:
            _watched = None
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        seconds = time.process_time() - start
        faulthandler.cancel_dump_traceback_later()
        if _seen:
            self.failures.append(f"{label}: did {_seen[:3]}")
            _seen.clear()
        mib = (kib("VmHWM") - before) / 1024
        self.slowest = max(self.slowest, (seconds, label))
        self.largest = max(self.largest, (mib, label))
        if seconds > SECONDS:
            self.failures.append(f"{label}: {outcome} after {seconds:.1f} s")
        if mib > MIB:
            self.failures.append(f"{label}: {outcome} with {mib:.0f} MiB")
        if scores is not None:
            same = np.array_equal(scores, self.expected[name])
            outcome = "loaded, same scores" if same else "loaded, other scores"
            if not same and case is not None and not case.may_differ:
                self.failures.append(f"{label}: loaded with other scores")
            if case is None and not good:
                self.failures.append(f"{label}: loaded")
            strange = case is not None and case.may_be_infinite
            if not np.isfinite(scores).all() and not strange:
                self.failures.append(f"{label}: scores {scores}")
        elif good and case is None:
            self.failures.append(f"{label}: {outcome}")
        if len(self.failures) == failed:
            self.counts[outcome] += 1

    def report(self) -> dict[str, Any]:
        """Return what was found, for JSON."""
        return {
            "counts": dict(self.counts),
            "failures": self.failures,
            "slowest": self.slowest,
            "largest": self.largest,
        }


def _reset_peak() -> int:
    """Forget the peak of memory; KiB that the process has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return kib("VmRSS")


def _changing(guard: Guard, model: Model) -> None:
    """Load a file whose size changes all the time."""
    over = threading.Event()
    path = guard.folder / "changing.deepod"
    path.write_bytes(model.data)

    def change() -> None:
        rng = np.random.default_rng(0)
        while not over.is_set():
            size = int(rng.integers(2 * len(model.data)))
            os.truncate(path, size)
            if rng.integers(3) == 0:
                path.write_bytes(model.data)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for i in range(100):
            guard.counts["files"] += 1
            case = Wrong(f"changing size, time {i}", b"", False)
            guard.watch(case.label, path, case, model.name)
    finally:
        over.set()
        thread.join()


def _judge_all(folder: Path, kind: str, first: int, stop: int) -> None:
    """Load under guard, and leave a report."""
    warnings.simplefilter("ignore")  # of overflow in tensors that are meant to overflow
    work = folder / f"{kind}_{first}"
    ending, use = ("ckpt", go_on) if kind == "checkpoints" else ("deepod", load_and_use)
    models = [Model.read(path) for path in sorted(folder.glob(f"*.{ending}"))]
    guard = Guard(models, work, use)
    if kind in ("random", "checkpoints"):
        for number in range(first, stop):
            guard.judge(wrong(models, number), models[number % len(models)].name)
    else:
        model = next(model for model in models if model.name == "plad_mlp")
        for case in attacks(models) if kind == "attacks" else ():
            guard.judge(case, model.name)
        if kind == "places":
            with strange_places(work, model) as places:
                for label, (path, good) in places.items():
                    guard.counts["files"] += 1
                    guard.watch(label, path, None, model.name, good)
            _changing(guard, model)
    (work / "report.json").write_text(json.dumps(guard.report()))


def survive(folder: Path, kind: str, first: int = 0, stop: int = 0) -> dict[str, Any]:
    """Load wrong files in a process of their own.

    Parameters
    ----------
    folder : Path
        Where :func:`make_models` has been, or :func:`make_checkpoints`.
    kind : {"random", "attacks", "places", "checkpoints"}
    first, stop : int
        Numbers of the random files: ``wrong(models, number)`` makes the same file in every run.

    Returns
    -------
    report : dict
        ``counts`` by outcome, ``failures``, and the ``slowest`` (seconds of the processor) and
        ``largest`` (MiB) load with its label.
    """
    work = folder / f"{kind}_{first}"
    work.mkdir()
    process = children.start(_judge_all, folder, kind, first, stop)
    process.join()
    if process.exitcode:
        last = work / "last"
        where = last.read_text() if last.exists() else "the beginning"
        raise RuntimeError(f"The process ended with status {process.exitcode} at {where}.")
    return json.loads((work / "report.json").read_text())
