"""ADGAN: search a generator for a row like this one, and let the generator give way too."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from deepod.models.adversarial._gan import GAN
from deepod.networks.layers import error_norm, error_terms
from deepod.params import integer, param, parameters, real

_MOST_WEIGHTS = 1 << 22  # in the copies of the generator that are searched at once


@parameters
class ADGAN(GAN):
    """GAN with a search in which the generator of normal rows may also change its weights.

    A generator G, which makes rows of normal z, and a discriminator are trained against each other.
    For a row x, gradient descent brings G(z) nearer to x, both by z and by the weights of a copy of
    G; the squared error that is left is the score.

    Notes
    -----
    **When to use it.** Only normal rows to train on, and time: for each row to score there are
    several searches.

    **When it fails.** Training comes out badly, and nothing shows it: the two losses say little,
    and another seed or a few more epochs may give another ranking. The generator may make a part of
    the normal rows alone, so that others score high (mode collapse). Run several seeds
    (:class:`deepod.SeedEnsemble`) before you trust one. With many or long steps in the weights G
    comes near to any row.

    **Score** (algorithm 1). For a row x and each of ``n_starts`` points z, ``search_steps`` steps
    in z and in a copy of the weights of its own; the squared error that is left, mean over the
    values of the row and over the starts.

    **Departures.** The starts are drawn once in ``fit``, the same for all rows, so that scores are
    repeatable; the paper draws 64 for each row. Steps follow the gradient of the Euclidean norm of
    the error, not of its square, whose steps would throw a far row out of reach. G and the
    discriminator have the usual losses.

    **Cost.** A score takes ``n_starts`` times ``search_steps`` passes through G, forth and back,
    with weights of its own for every row. Memory holds some copies of G at a time; gradients of the
    score, as in ``explain(rule="gradients")``, hold all of them. There is no ONNX file of a search.

    **Setting.** The paper's text was not available: for 32x32 images, from memory, DCGAN's
    networks, ``n_starts=64``, ``latent_dim=256``, ``search_steps=5``, ``search_lr=0.25``,
    ``weight_lr=5e-5``, ``lr=2e-4``.

    References
    ----------
    L. Deecke, R. Vandermeulen, L. Ruff, S. Mandt and M. Kloft. Image Anomaly Detection with
    Generative Adversarial Networks. ECML PKDD 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import ADGAN
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) @ np.ones((2, 6))
    >>> detector = ADGAN(random_state=0).fit(X)
    >>> detector.predict([[0] * 6, [9, -9] * 3])
    array([0, 1])
    """

    search_steps: int = param(
        default=5, accepts=[integer(0)], doc="Steps from every start, for every row to score (k)."
    )
    search_lr: float = param(default=0.25, accepts=[real(0)], doc="Step size in z.")
    weight_lr: float = param(
        default=5e-3, accepts=[real(0)], doc="Step size in the weights of the generator."
    )
    n_starts = 8
    paper = "Deecke et al., Image Anomaly Detection with GANs, ECML PKDD 2018"

    def _found(self, module: Any, x: Tensor) -> Tensor:
        """Return the generated row nearest to x that each start leads to, (B, n_starts, *shape)."""
        # Weights are put into a module that is not shared with other threads; they are not copied.
        tensors = [*module["generator"].parameters(), *module["generator"].buffers()]
        generator = copy.deepcopy(module["generator"], {id(t): t for t in tensors})
        weights = dict(generator.named_parameters())

        def make(z: Tensor, weights: dict[str, Tensor]) -> Tensor:
            return torch.func.functional_call(generator, weights, (z.unsqueeze(0),))

        def error(z: Tensor, weights: dict[str, Tensor], row: Tensor) -> Tensor:
            return error_norm(make(z, weights), row.unsqueeze(0)).sum()

        def descend(row: Tensor, z: Tensor) -> Tensor:
            own = weights
            for _ in range(self.search_steps):
                of_z, of_weights = torch.func.grad(error, (0, 1))(z, own, row)
                z = z - self.search_lr * of_z
                own = {name: w - self.weight_lr * of_weights[name] for name, w in own.items()}
            return make(z, own).squeeze(0)

        at_once = max(1, _MOST_WEIGHTS // sum(w.numel() for w in weights.values()))
        rows, starts = x.repeat_interleave(self.n_starts, 0), module.starts.repeat(len(x), 1)
        found = torch.func.vmap(descend, chunk_size=at_once)(rows, starts)
        return found.view(len(x), self.n_starts, *x.shape[1:])

    def _contributions(self, module: Any, x: Tensor) -> Tensor:
        found = self._found(module, x).unbind(1)
        return torch.stack([error_terms("mse", one, x) for one in found]).mean(0)

    def _score(self, module: Any, x: Tensor) -> Tensor:
        return self._contributions(module, x).flatten(1).sum(1)
