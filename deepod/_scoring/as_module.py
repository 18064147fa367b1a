"""Fitted detectors as torch modules that compute scores from unscaled rows."""

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
    """Return a fitted detector or ensemble as a module in evaluation mode, on the CPU.

    Raises
    ------
    NotFittedError
        If the detector is not fitted.
    TypeError
        If it is a detector of series, or it or a member is not a detector of deepod.
    """
    name = type(detector).__name__
    if "series" in getattr(detector, "inputs", ()):
        raise TypeError(
            f"{name} is a detector of series, whose points have no score without the points around "
            "them, so that it cannot become a module or graph of rows. Use decision_function to "
            "score series, and save to store the detector."
        )
    if not isinstance(detector, PyODVocabulary):
        raise TypeError(f"detector must be a deepod detector such as PLAD(), got {name}.")
    check_is_fitted(detector)
    for part in getattr(detector, "members_", [detector]):
        if hasattr(part, "encoder_"):
            raise TypeError(
                f"{name} encodes categories or times, which a module or graph of numbers cannot "
                "do; encode them beforehand, for example with a ColumnTransformer, and fit on "
                "numbers. To store this detector, use save."
            )
    for member in getattr(detector, "members_", []):
        if not isinstance(member, Fitted):
            raise TypeError(
                f"A member of the ensemble, {type(member).__name__}, is not a detector of deepod, "
                "so that it cannot become a torch module; leave it out of the ensemble."
            )
    with torch.inference_mode(False):  # or nobody could ask it for gradients
        return (Scores if isinstance(detector, Fitted) else Joined)(detector).eval()


class Scores(nn.Module):
    """A module that computes the scores of a detector."""

    shift_: Tensor
    scale_: Tensor
    fill_: Tensor | None

    def __init__(self, detector: Any) -> None:
        super().__init__()
        # A score reads the present hyper-parameters of the detector, and nothing else.
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
        """Compute the scores of :meth:`deepod.BaseDetector.decision_function`."""
        if X.requires_grad and torch.is_grad_enabled() and not self.hooks.has_gradients:
            raise RuntimeError(
                f"The score of {type(self.hooks).__name__} has no gradients, as it is not a smooth "
                "function of the values; use explain to get the contribution of each value."
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
        """Scale samples as :meth:`deepod._inputs.scaling.Scaler.transform` does."""
        if self.fill_ is not None and x.is_floating_point():
            x = torch.where(x.isnan(), self.fill_.to(x.dtype), x)
        x = _normalized(x.double()) if self.contrast else x.double()
        x = (x - self.shift_) / self.scale_
        return x.clamp(-LARGEST, LARGEST).float()


class Joined(nn.Module):
    """A module that computes the joint scores of an ensemble."""

    def __init__(self, ensemble: Any) -> None:
        super().__init__()
        self.members = nn.ModuleList(Scores(member) for member in ensemble.members_)
        self.tails = nn.ModuleList(copy.deepcopy(tail).cpu() for tail in ensemble.tails_)
        self.combination = ensemble.combination_
        self.row_shape = ensemble.members_[0].input_shape_
        if any(member.input_shape is not None for member in ensemble.members_):
            self.row_shape = (ensemble.n_features_in_,)

    def forward(self, X: Tensor) -> Tensor:
        """Compute the scores of :meth:`deepod.Consensus.decision_function`."""
        pairs = zip(self.tails, self.members, strict=True)
        tails = torch.stack([tail(member(X)) for tail, member in pairs])
        if self.combination == "max":
            return tails.amax(0)
        if self.combination == "median":
            k = len(self.tails)
            tails = tails.sort(0).values[(k - 1) // 2 : k // 2 + 1]
        return tails.mean(0)


def _normalized(x: Tensor) -> Tensor:
    """Normalise samples as :func:`deepod._inputs.scaling._normalize` does."""
    largest = x.abs().amax((1, 2, 3), keepdim=True)
    x = x / largest.where(largest > 0, 1.0)
    x = x - x.mean((1, 2, 3), keepdim=True)
    size = x.abs().mean((1, 2, 3), keepdim=True)
    constant = size < 1e-12
    return torch.where(constant, 0.0, x / size.where(~constant, 1.0))
