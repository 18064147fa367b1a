"""LSTM-VAE: a code for each point, and how likely the point is given the codes up to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from deepod._scoring.points import Span
from deepod.networks.layers import drawn_by
from deepod.params import integer, one_of, param, parameters, positive, real
from deepod.series._base import SeriesDetector
from deepod.series._errors import Errors
from deepod.types import Batch, Losses, Shape

_MOST_VECTORS = 2000  # points that the regression learns from: its time grows with their square
_AT_ONCE = 4096  # points whose expected scores are found at once
_LARGEST_LOG_VARIANCE = 10.0  # of a code


class ExpectedScore(nn.Module):
    """Score to be expected at a code: support vector regression with Gaussian kernels.

    Attributes
    ----------
    vectors : Tensor of shape (m, latent_dim)
    coefficients : Tensor of shape (m,)
        Those of vectors that are not there are 0.
    gamma, offset : Tensor of shape ()
    """

    vectors: Tensor
    coefficients: Tensor
    gamma: Tensor
    offset: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(_MOST_VECTORS, latent_dim))
        self.register_buffer("coefficients", torch.zeros(_MOST_VECTORS))
        self.register_buffer("gamma", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, codes: Tensor) -> Tensor:  # (..., latent_dim) -> (...)
        """Give the score to be expected at each code."""
        parts = codes.reshape(-1, codes.shape[-1]).split(_AT_ONCE)
        found = [
            torch.exp(-self.gamma * torch.cdist(part, self.vectors).square()) @ self.coefficients
            for part in parts
        ]
        return torch.cat(found).reshape(codes.shape[:-1]) + self.offset

    def learn(self, codes: np.ndarray, scores: np.ndarray) -> None:
        """Learn from at most 2000 points, spread evenly; scores of any size."""
        from sklearn.svm import SVR

        chosen = np.linspace(0, len(codes) - 1, min(len(codes), _MOST_VECTORS)).astype(int)
        codes, scores = codes[chosen], scores[chosen]
        mean, size = scores.mean(), max(scores.std(), 1e-12)
        gamma = 1 / (codes.shape[1] * max(codes.var(), 1e-12))  # scikit-learn's "scale"
        found = SVR(gamma=gamma).fit(codes, (scores - mean) / size)
        n = len(found.support_vectors_)
        self.vectors[:n] = torch.from_numpy(found.support_vectors_)
        self.coefficients[:n] = torch.from_numpy(found.dual_coef_[0] * size)
        self.gamma.fill_(gamma)
        self.offset.fill_(float(found.intercept_[0] * size + mean))


class Variational(nn.Module):
    """Encoder and decoder of an LSTM each: a code for each point, its distribution from the codes.

    Parameters
    ----------
    channels, hidden, latent_dim : int
    min_sigma : float
        Added to standard deviations.
    progress : bool
        Whether the codes' prior moves along a line that is learned.
    expects : bool
        Whether the score to be expected at a code is learned.
    scale : str or None
        Of :class:`Errors`.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        latent_dim: int,
        min_sigma: float,
        progress: bool,
        expects: bool,
        scale: str | None,
    ) -> None:
        super().__init__()
        self.min_sigma = min_sigma
        self.encoder = nn.LSTM(channels, hidden, batch_first=True)
        self.to_code = nn.Linear(hidden, 2 * latent_dim)
        self.decoder = nn.LSTM(latent_dim, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 2 * channels)
        self.ends = nn.Parameter(torch.zeros(2, latent_dim)) if progress else None
        self.expected = ExpectedScore(latent_dim) if expects else None
        self.errors = Errors(channels, 1, scale)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the code of each point."""
        states, _ = self.encoder(x * self.errors.varies)
        mean, log_variance = self.to_code(states).chunk(2, -1)
        return mean, log_variance.clamp(-_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE)

    def decode(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each value; 0 and 1 for channels that do not vary."""
        varies = self.errors.varies
        states, _ = self.decoder(codes)
        mean, raw = self.head(states).chunk(2, -1)
        sigma = softplus(raw) + self.min_sigma
        return mean * varies, sigma * varies + (1 - varies)

    def prior(self, length: int) -> Tensor | float:
        """Mean of the codes' prior at each point, (length, latent_dim)."""
        if self.ends is None:
            return 0.0
        done = torch.linspace(0, 1, length, device=self.ends.device)[:, None]
        return self.ends[0] + done * (self.ends[1] - self.ends[0])


@parameters
class LSTMVAE(SeriesDetector):
    """Variational autoencoder of LSTMs: a point is abnormal if it is unlikely given its code.

    An LSTM gives each point a Gaussian code, a second one reads the codes and gives mean and
    standard deviation of each value. The score is the negative log-likelihood, the sum of its
    channels' terms, at the mean of the codes: it may be negative, and the same rows have the same
    scores.

    Notes
    -----
    **The equations.** Of the point x(t), the encoder's LSTM makes a code z(t) with the distribution
    N(m(t), s(t)^2), the decoder's LSTM the distribution N(a(t), b(t)^2) of x(t) from z(1), ...,
    z(t). The loss is the mean over points of -log N(x(t); a(t), b(t)^2) plus ``kl_weight`` times
    KL(N(m(t), s(t)^2) || N(p(t), 1)), both divided by the number of channels; p(t) is 0, or the
    progress-based mean. The score is f(t) = -log N(x(t); a(t), b(t)^2) at z = m; with
    ``state_threshold`` less the regression's value at m(t).

    Assumes (nearly) clean training series. A point's own code knows the point: what keeps it from
    being copied are ``kl_weight``, ``noise_std`` and a small ``latent_dim``. Whether the codes say
    anything is not checked: with too large a ``kl_weight`` they equal their prior. Channels that do
    not vary in training are neither seen nor likely: half the square of what they are off adds to
    the score.

    Standard deviations come from training points. With ``error_scale="validation"`` each channel's
    are then corrected by how large standardised errors are on points that were not trained on: a
    constant factor, whose logarithm is left out of the score.

    **What the paper has**: one code for each step, of a state that goes on through the execution;
    noise on what is seen and not on what is to be reconstructed; the progress-based prior, whose
    mean moves from the first point of an episode to its last; the score; and the expected score as
    a function of the code, by support vector regression. Its setting, for episodes (n, T,
    channels): ``LSTMVAE(hidden=60, latent_dim=20, prior="progress", state_threshold=True,
    error_scale=None, smoothing=None, lr=1e-3)``.

    **What it leaves open.** The likelihood's bound: ``min_sigma`` is added to the softplus of the
    decoder's output. Draws at scoring: none. Progress of streams without an end: that prior is
    refused but for episodes, which are then trained on and held out as a whole. Scores do not
    depend on it. The state: chunks are trained on from a state of zeros, and scored after
    ``window`` points that lead up to them. The regression is on at most 2000 points, standardised,
    with scikit-learn's defaults, and kept as vectors and coefficients.

    References
    ----------
    D. Park, Y. Hoshi and C. C. Kemp. A Multimodal Anomaly Detector for Robot-Assisted Feeding Using
    an LSTM-Based Variational Autoencoder. IEEE Robotics and Automation Letters 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.series import LSTMVAE
    >>> x = np.sin(np.arange(2000) / 5)
    >>> detector = LSTMVAE(epochs=20, random_state=0).fit(x[:1500])
    >>> test = x[1500:].copy()
    >>> test[250:260] = 0.0
    >>> abs(int(detector.decision_function(test).argmax()) - 255) < 40
    True
    """

    hidden: int = param(
        default=32, accepts=[integer(1)], doc="Units of the encoder's and the decoder's LSTM."
    )
    latent_dim: int = param(default=8, accepts=[integer(1)], doc="Values of the code of a point.")
    kl_weight: float = param(
        default=1.0,
        accepts=[real(0)],
        doc="Weight of the divergence of the codes from their prior.",
    )
    noise_std: float = param(
        default=0.1,
        accepts=[real(0)],
        doc="Standard deviation of the Gaussian noise that is added in training to what the "
        "encoder sees, for channels of standard deviation 1.",
    )
    min_sigma: float = param(
        default=0.1,
        accepts=[positive()],
        doc="The least standard deviation of a value, for channels of standard deviation 1: "
        "likelihoods have no bound without it.",
    )
    prior: Literal["standard", "progress"] = param(
        default="standard",
        accepts=[one_of("standard", "progress")],
        doc="Prior of the codes: the standard normal distribution, or, of episodes (n, T, "
        "channels), one whose mean moves from the first point to the last along a line that is "
        "learned.",
    )
    state_threshold: bool = param(
        default=False,
        accepts=["boolean"],
        doc="Whether the score to be expected at a code is subtracted: a support vector "
        "regression learns it from at most 2000 points that were not trained on.",
    )
    lr = 5e-3
    max_grad_norm = 1.0
    family = "reconstruction"
    paper = "Park et al., A Multimodal Anomaly Detector Using an LSTM-Based VAE, RA-L 2018"

    def _whole_episodes(self) -> bool:
        return self.prior == "progress"

    def _build_module(self, shape: Shape) -> nn.Module:
        return Variational(
            shape[0],
            self.hidden,
            self.latent_dim,
            self.min_sigma,
            self.prior == "progress",
            self.state_threshold,
            self.error_scale,
        )

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        seen = torch.randn(n, *shape, **drawn_by(generator))
        return seen, torch.randn(n, shape[0], self.latent_dim, **drawn_by(generator))

    def _loss(self, module: Any, batch: Batch) -> Losses:
        x, (seen, drawn) = batch.x, batch.noise
        mean, log_variance = module.encode(x + self.noise_std * seen)
        location, sigma = module.decode(mean + (log_variance / 2).exp() * drawn)
        likelihood = _minus_log_likelihood((x - location) / sigma, sigma) * module.errors.varies
        off = mean - module.prior(x.shape[1])
        divergence = (off.square() + log_variance.exp() - log_variance - 1).sum(-1).mean() / 2
        # Both per value of a point, so that gradients are as long with few channels as with many.
        return {
            "likelihood": likelihood.mean(),
            "divergence": self.kl_weight * divergence / x.shape[2],
        }

    def _errors(self, module: Any, x: Tensor) -> Tensor:
        return self._standardised(module, x)[0]

    def _standardised(self, module: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Errors over their standard deviations, these, and the codes' means."""
        codes, _ = module.encode(x)
        location, sigma = module.decode(codes)
        return (x - location) / sigma, sigma, codes

    def _terms(self, module: Any, x: Tensor) -> Tensor:
        terms, codes = self._likelihood(module, x)
        if module.expected is not None:
            terms = terms - module.expected(codes)[..., None] / x.shape[-1]
        return terms

    def _likelihood(self, module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log-likelihoods of values, and the codes."""
        errors, sigma, codes = self._standardised(module, x)
        squares = module.errors(errors)
        constant = module.errors.varies * _LOG_2PI / 2
        return squares / 2 + sigma.log() + constant, codes

    def _contributions_of(self, terms: np.ndarray) -> np.ndarray:
        return terms  # log-likelihoods add up as they are

    def _learn_errors(self, module: Any, x: Tensor, spans: Sequence[Span]) -> None:
        super()._learn_errors(module, x, spans)
        if module.expected is None:
            return

        def codes_and_scores(module: Any, chunk: Tensor) -> Tensor:
            terms, codes = self._likelihood(module, chunk)
            return torch.cat([codes, terms.sum(-1, keepdim=True)], -1)

        found = self._of_points(module, x, spans, codes_and_scores)
        found = found[~np.isnan(found).any(1)]
        module.expected.learn(found[:, :-1], found[:, -1])


_LOG_2PI = math.log(2 * math.pi)


def _minus_log_likelihood(errors: Tensor, sigma: Tensor) -> Tensor:
    """Of values of a normal distribution, by their standardised errors."""
    return errors.square() / 2 + sigma.log() + _LOG_2PI / 2
