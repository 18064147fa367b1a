"""Fitted detectors as ONNX files, which score without Python; needs ``deepod[onnx]``."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

import deepod
from deepod._inputs.settings import fixed
from deepod._scoring.as_module import as_module
from deepod._storage import atomic

__all__ = ["export"]

OPSET = 20  # of ONNX, from 2023: onnxruntime reads it from 1.17 on
_DTYPES = {"float64": torch.float64, "float32": torch.float32, "uint8": torch.uint8}


def export(detector: Any, path: Any, dtype: str = "float64") -> None:
    """Write all that turns rows into scores and labels to an ONNX file.

    Of a detector, or of a :class:`deepod.Consensus` or :class:`deepod.SeedEnsemble` whose members
    are detectors of deepod.

    The graph has one input, ``X``: any number of samples in the units of ``fit`` and of the shape
    of its rows, which is that of flat rows if ``input_shape`` was given. Scaling, network, score
    and threshold are inside, and what takes the place of NaN if ``missing="impute"``. Its outputs
    are ``scores``, float64 of shape (n,), equal to ``decision_function`` but for float32 rounding,
    and ``labels``, int64 of shape (n,), 1 where a score is above ``threshold_``; a thresholder as
    ``contamination`` is Python code, and its graph has no labels.

    Values that ``decision_function`` refuses, such as infinity, the graph does not check.

    Parameters
    ----------
    detector : BaseDetector, Consensus or SeedEnsemble
        Fitted, on any device; it is not changed.
    path : str or path-like
        File to write. An older file of this name is replaced when the new one is complete, not
        before.
    dtype : {"float64", "float32", "uint8"}, default="float64"
        Type of ``X``, which runtimes insist on. Scaling is done in float64 all the same; float32
        cannot hold a column of 1e9 plus or minus 1.

    Raises
    ------
    NotFittedError
        If there is nothing to export yet, or ``false_alarm_rate`` waits for ``calibrate``.
    TypeError
        If it, or a member of an ensemble, is no detector of deepod.
    ValueError
        If there is no such ``dtype``.
    RuntimeError
        If the score does what torch cannot write as a graph: searches along gradients, as that of
        ``AnoGAN`` and ``ADGAN``, or what a method of your own does.
    ImportError
        If the extra ``deepod[onnx]`` is not installed.
    OSError
        If the file cannot be written.

    Notes
    -----
    Rounding moves scores by 1e-5 at most, relative, and absolute for scores near zero, in all our
    tests; by more where a score is the difference of larger numbers, as the standardised score of
    ``IAEAD`` and ``IAELSTMKL`` is if training rows were all alike. ``Neighbors`` and ensembles
    compare all rows of a call with training rows and scores at once: give them a few thousand rows
    at a time. Where many training rows have the same score, a row with that score, but for
    rounding, may move by more.

    The operators are those of opset 20; onnxruntime has them from version 1.17 on.

    The metadata of the file say where it is from: ``detector`` (name of the class), ``parameters``
    (JSON; objects by their ``repr``), ``threshold``, ``version`` (of deepod) and, if X had column
    names, ``feature_names`` (JSON).

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import onnxruntime
    >>> from deepod import PLAD, onnx
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = PLAD(epochs=5, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     onnx.export(detector, f"{folder}/plad.onnx")
    ...     session = onnxruntime.InferenceSession(f"{folder}/plad.onnx")
    >>> scores, labels = session.run(None, {"X": X})
    >>> bool(np.allclose(scores, detector.decision_function(X), rtol=1e-5, atol=1e-5))
    True
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {sorted(_DTYPES)}, got {dtype!r}.")
    scores = as_module(detector)
    for part in getattr(detector, "members_", [detector]):
        if not part.has_graph:
            raise RuntimeError(
                f"The score of {type(part).__name__} cannot be written as an ONNX graph: it is "
                "found along gradients, which no operator gives. save keeps the detector, and "
                "as_module makes a torch module of it."
            )
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError('An ONNX file needs pip install "deepod[onnx]".') from error
    atomic.prepare(Path(path))
    try:
        # Whatever mode the caller is in.
        with fixed(), _quietly(), torch.no_grad():
            graph = _Labelled(detector, _with_operators(scores)).eval()
            X = torch.zeros(2, *graph.row_shape, dtype=_DTYPES[dtype], device="cpu")
            program = torch.onnx.export(
                graph,
                (X,),
                dynamo=True,
                input_names=["X"],
                output_names=["scores"] if graph.threshold is None else ["scores", "labels"],
                dynamic_shapes=({0: torch.export.Dim("n")},),
                custom_translation_table={torch.ops.aten.log_sigmoid.default: _log_sigmoid},
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__).strip().partition("\n")[0]
        raise RuntimeError(
            f"The score of {type(detector).__name__} cannot be written as an ONNX graph: {reason}"
        ) from error
    assert program is not None  # None is for the exporter of old
    model = program.model_proto
    _describe(model, detector, graph.threshold)
    atomic.write({Path(path): model.SerializeToString()})


class _Labelled(nn.Module):
    """From samples in the units of the user to scores and labels."""

    def __init__(self, detector: Any, scores: Any) -> None:
        super().__init__()
        self.scores = scores
        self.row_shape = self.scores.row_shape
        by_rule = detector._current().thresholder is None
        self.threshold = detector.threshold_ if by_rule else None

    def forward(self, X: Tensor) -> tuple[Tensor, ...]:
        """Score and label."""
        scores = self.scores(X)
        return (scores,) if self.threshold is None else (scores, (scores > self.threshold).long())


def _with_operators(module: nn.Module) -> nn.Module:
    """Put ONNX's own operators in the place of recurrent layers."""
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.GRU | nn.LSTM) and _Recurrent.can_be(layer):
                setattr(parent, name, _Recurrent(layer))
    return module


class _Recurrent(nn.Module):
    """A GRU or LSTM as one operator: torch would trace it step by step, for seconds each.

    Parameters keep their names, by which some modules put others in their place.
    """

    # The order of ONNX among torch's gates.
    GATES: ClassVar[dict[str, tuple[int, ...]]] = {"GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}

    @staticmethod
    def can_be(layer: nn.RNNBase) -> bool:
        """Tell whether it is of the kind that :class:`deepod.networks.Recurrent` builds."""
        plain = layer.num_layers == 1 and not layer.bidirectional and not layer.proj_size
        return plain and layer.batch_first

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.kind, self.size = layer.mode, layer.hidden_size
        for name, parameter in layer.named_parameters():
            self.register_parameter(name, parameter)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """(B, T, C) -> (B, T, hidden), and no last state."""
        weights = {name: self._in_order(p) for name, p in self.named_parameters()}
        biases = [weights[name] for name in ("bias_ih_l0", "bias_hh_l0") if name in weights]
        inputs = [x.transpose(0, 1), weights["weight_ih_l0"], weights["weight_hh_l0"]]
        inputs += [torch.cat(biases, 1)] if biases else []
        attributes: dict[str, Any] = {"hidden_size": self.size}
        if self.kind == "GRU":
            attributes["linear_before_reset"] = 1
        shape = (x.shape[1], 1, x.shape[0], self.size)
        states = torch.onnx.ops.symbolic(self.kind, inputs, attributes, dtype=x.dtype, shape=shape)
        return states.squeeze(1).transpose(0, 1), None

    def _in_order(self, parameter: Tensor) -> Tensor:
        starts = [i * self.size for i in self.GATES[self.kind]]
        return torch.cat([parameter[i : i + self.size] for i in starts]).unsqueeze(0)


def _log_sigmoid(x: Any) -> Any:
    """Replace torch's log(sigmoid(x)), which is minus infinity below -88."""
    from onnxscript import opset20 as op

    return op.Neg(op.Softplus(op.Neg(x)))


def _describe(model: Any, detector: Any, threshold: float | None) -> None:
    """Say in a file where it is from, and not in which folders the code has been."""
    graph = model.graph
    parts = (graph.node, graph.input, graph.output, graph.value_info, graph.initializer)
    for part in (graph, *chain.from_iterable(parts)):
        del part.metadata_props[:]
    params = detector.get_params(deep=False)
    properties = {
        "detector": type(detector).__name__,
        "parameters": json.dumps(params, default=_in_json),
        "version": deepod.__version__,
    }
    if threshold is not None:
        properties["threshold"] = repr(threshold)
    if hasattr(detector, "feature_names_in_"):
        properties["feature_names"] = json.dumps(detector.feature_names_in_.tolist())
    for key, value in properties.items():
        model.metadata_props.add(key=key, value=value)


def _in_json(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else repr(value)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep torch from telling users of packages they lack and of its own deprecations."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    # Both belong to the whole process, so for as long as the export takes, and no longer.
    with warnings.catch_warnings(action="ignore"):
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
