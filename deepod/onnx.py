"""Export of fitted detectors to ONNX files, which score without Python; needs ``deepod[onnx]``."""

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
    """Write an ONNX file that computes scores and labels from unscaled rows.

    The graph includes imputation (with ``missing="impute"``), scaling, network, score and
    threshold. It has one input, ``X``: any number of samples, in the units and the shape of the
    rows of ``fit`` (flat rows if ``input_shape`` was given). It has two outputs. ``scores``,
    float64 of shape (n,), equal those of ``decision_function`` except for float32 rounding.
    ``labels``, int64 of shape (n,), are 1 where the score is above ``threshold_``. If
    ``contamination`` is a thresholder, which is Python code, there is no output ``labels``.

    The graph does not check its input for infinite values and the like.

    Parameters
    ----------
    detector : BaseDetector, Consensus or SeedEnsemble
        A fitted detector, or an ensemble whose members are all detectors of deepod, on any device.
        It is not changed.
    path : str or path-like
        File to write. An older file of this name is replaced only when the new one is complete.
    dtype : {"float64", "float32", "uint8"}, default="float64"
        Data type of the input ``X``, on which runtimes insist. Scaling is done in float64 in any
        case. Choose float64 if columns have many significant digits: float32 cannot tell 1e9 from
        1e9 + 1.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If ``fit`` has not been called, or ``false_alarm_rate`` needs ``calibrate`` first.
    TypeError
        If ``detector``, or a member of an ensemble, is not a detector of deepod.
    ValueError
        If ``dtype`` is unknown.
    RuntimeError
        If torch cannot write the score as a graph. This holds for ``AnoGAN`` and ``ADGAN``, whose
        scores are found by gradient descent, and may hold for your own methods.
    ImportError
        If the extra ``deepod[onnx]`` is not installed.
    OSError
        If the file cannot be written.

    Notes
    -----
    In our tests, rounding changes scores by at most 1e-5, relative or (for scores near zero)
    absolute. The change is larger where a score is the difference of large numbers, such as the
    standardised score of ``IAEAD`` and ``IAELSTMKL`` if all training rows are alike, and for a row
    of an ensemble whose score many training rows share. ``Neighbors`` and ensembles compare all
    rows of a call with the training data at once: pass a few thousand rows at a time.

    The file uses opset 20, which onnxruntime supports from version 1.17 on.

    Its metadata are ``detector`` (name of the class), ``parameters`` (JSON; objects by their
    ``repr``), ``threshold``, ``version`` (of deepod) and, if X had column names, ``feature_names``
    (JSON).

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
                f"The score of {type(part).__name__} cannot be written as an ONNX graph, because "
                "it is found by gradient descent. Use detector.save instead, or "
                "detector.as_module for a torch module."
            )
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'The export needs onnx and onnxscript; install them with pip install "deepod[onnx]".'
        ) from error
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
                # torch 2.9 refuses some graphs without ``min``. They take a single sample, too.
                dynamic_shapes=({0: torch.export.Dim("n", min=2)},),
                custom_translation_table={torch.ops.aten.log_sigmoid.default: _log_sigmoid},
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__).strip().partition("\n")[0]
        raise RuntimeError(
            f"The score of {type(detector).__name__} cannot be written as an ONNX graph: {reason} "
            f"Upgrade torch, if this one ({torch.__version__}) is older than 2.13, which is tested."
        ) from error
    assert program is not None  # only the old exporter returns None
    model = program.model_proto
    _describe(model, detector, graph.threshold)
    atomic.write({Path(path): model.SerializeToString()})


class _Labelled(nn.Module):
    """A module from unscaled samples to scores and labels."""

    def __init__(self, detector: Any, scores: Any) -> None:
        super().__init__()
        self.scores = scores
        self.row_shape = self.scores.row_shape
        by_rule = detector._current().thresholder is None
        self.threshold = detector.threshold_ if by_rule else None

    def forward(self, X: Tensor) -> tuple[Tensor, ...]:
        """Return scores, and labels if there is a threshold."""
        scores = self.scores(X)
        return (scores,) if self.threshold is None else (scores, (scores > self.threshold).long())


def _with_operators(module: nn.Module) -> nn.Module:
    """Replace recurrent layers by ONNX's own operators."""
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.GRU | nn.LSTM) and _Recurrent.can_be(layer):
                setattr(parent, name, _Recurrent(layer))
    return module


class _Recurrent(nn.Module):
    """A GRU or LSTM as one ONNX operator, which torch would trace step by step, for seconds each.

    Parameters keep their names, because some modules replace them by name.
    """

    # The places of ONNX's gates among torch's.
    GATES: ClassVar[dict[str, tuple[int, ...]]] = {"GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}

    @staticmethod
    def can_be(layer: nn.RNNBase) -> bool:
        """Return whether a layer is of the kind that :class:`deepod.networks.Recurrent` builds."""
        plain = layer.num_layers == 1 and not layer.bidirectional and not layer.proj_size
        return plain and layer.batch_first

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.kind, self.size = layer.mode, layer.hidden_size
        for name, parameter in layer.named_parameters():
            self.register_parameter(name, parameter)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Map (B, T, C) to (B, T, hidden), without a last state."""
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
    """Translate torch's log_sigmoid; as log(sigmoid(x)) it would be minus infinity below -88."""
    from onnxscript import opset20 as op

    return op.Neg(op.Softplus(op.Neg(x)))


def _describe(model: Any, detector: Any, threshold: float | None) -> None:
    """Write the metadata of a file, and remove torch's, which hold paths of this machine."""
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
    """Silence torch's messages about missing packages and its own deprecations."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    # Both are settings of the whole process, so they are restored after the export.
    with warnings.catch_warnings(action="ignore"):
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
