"""Fitted detectors as torch modules: from rows in the units of the user to their scores."""

from __future__ import annotations

import copy
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from deepod._inputs.scaling import LARGEST
from deepod._scoring.apply import LARGEST_SCORE
from deepod._scoring.fitted import Fitted
from deepod._scoring.vocabulary import PyODVocabulary


def as_module(detector: Any) -> Joined | Scores:
    """Make a module of a fitted detector or ensemble, in the mode of evaluation, on the CPU.

    Raises
    ------
    NotFittedError
        If there is nothing to make it of yet.
    TypeError
        If it is for series, or it or a member is no detector of deepod.
    """
    name = type(detector).__name__
    if "series" in getattr(detector, "inputs", ()):
        raise TypeError(
            f"{name} is for series, whose points have no score each on its own: no module or graph "
            "of rows can hold it. decision_function scores series, and save keeps the detector."
        )
    if not isinstance(detector, PyODVocabulary):
        raise TypeError(f"detector must be a deepod detector such as PLAD(), got {name}.")
    check_is_fitted(detector)
    for part in getattr(detector, "members_", [detector]):
        if hasattr(part, "encoder_"):
            raise TypeError(
                f"{name} encodes categories or times, which no module or graph of numbers can do; "
                "encode them before, by a ColumnTransformer, say, and fit on numbers. save keeps "
                "the detector as it is."
            )
    for member in getattr(detector, "members_", []):
        if not isinstance(member, Fitted):
            raise TypeError(
                f"A member of the ensemble, {type(member).__name__}, is no detector of deepod and "
                "has no torch module."
            )
    with torch.inference_mode(False):  # or nobody could ask it for gradients
        return (Scores if isinstance(detector, Fitted) else Joined)(detector).eval()


class Scores(nn.Module):
    """The scores of a detector."""

    shift_: Tensor
    scale_: Tensor
    fill_: Tensor | None

    def __init__(self, detector: Any) -> None:
        super().__init__()
        # A score reads hyper-parameters, as they are now, and nothing else of a detector.
        self.hooks = type(detector)(**detector.get_params(deep=False))
        self.network = copy.deepcopy(detector.module_).cpu()
        self.row_shape = self.sample_shape = tuple(detector.input_shape_)
        self.contrast = bool(detector.scaler_.contrast)
        if detector.input_shape is not None:
            self.row_shape = (detector.n_features_in_,)
        for name in ("shift_", "scale_", "fill_"):
            values = getattr(detector, name)
            known = None if values is None else torch.tensor(values, device="cpu")
            self.register_buffer(name, known)

    def forward(self, X: Tensor) -> Tensor:
        """Do what :meth:`deepod.BaseDetector.decision_function` does."""
        if X.requires_grad and torch.is_grad_enabled() and not self.hooks.has_gradients:
            raise RuntimeError(
                f"The scores of {type(self.hooks).__name__} are ranks or of rounded values, and "
                "have no gradients; explain says what each value adds to them."
            )
        if tuple(X.shape[1:]) not in (self.sample_shape, self.row_shape):
            raise ValueError(
                f"X must have the shape (n, {', '.join(map(str, self.row_shape))}), "
                f"got {tuple(X.shape)}."
            )
        x = X.unflatten(1, self.sample_shape) if X.dim() == 2 else X  # flat, or a table
        scores = self.hooks._score(self.network, self._scaled(x)).double()
        return scores.clamp(max=LARGEST_SCORE)

    def _scaled(self, x: Tensor) -> Tensor:
        """Do what :meth:`deepod._inputs.scaling.Scaler.transform` does."""
        if self.fill_ is not None and x.is_floating_point():
            x = torch.where(x.isnan(), self.fill_.to(x.dtype), x)
        x = _normalized(x.double()) if self.contrast else x.double()
        x = (x - self.shift_) / self.scale_
        return x.clamp(-LARGEST, LARGEST).float()


class Joined(nn.Module):
    """The scores of an ensemble."""

    def __init__(self, ensemble: Any) -> None:
        super().__init__()
        self.members = nn.ModuleList(Scores(member) for member in ensemble.members_)
        self.tails = nn.ModuleList(copy.deepcopy(tail).cpu() for tail in ensemble.tails_)
        self.combination = ensemble.combination_
        self.row_shape = ensemble.members_[0].input_shape_
        if any(member.input_shape is not None for member in ensemble.members_):
            self.row_shape = (ensemble.n_features_in_,)

    def forward(self, X: Tensor) -> Tensor:
        """Do what :meth:`deepod.Consensus.decision_function` does."""
        pairs = zip(self.tails, self.members, strict=True)
        tails = torch.stack([tail(member(X)) for tail, member in pairs])
        if self.combination == "max":
            return tails.amax(0)
        if self.combination == "median":
            k = len(self.tails)
            tails = tails.sort(0).values[(k - 1) // 2 : k // 2 + 1]
        return tails.mean(0)


def _normalized(x: Tensor) -> Tensor:
    """Do what :func:`deepod._inputs.scaling._normalize` does."""
    largest = x.abs().amax((1, 2, 3), keepdim=True)
    x = x / largest.where(largest > 0, 1.0)
    x = x - x.mean((1, 2, 3), keepdim=True)
    size = x.abs().mean((1, 2, 3), keepdim=True)
    constant = size < 1e-12
    return torch.where(constant, 0.0, x / size.where(~constant, 1.0))
