"""PixelCNN: the likelihood of an image, each value given those before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn.functional import conv2d

from deepod._base import BaseDetector
from deepod.networks import StartsFromRows
from deepod.params import integer, param, parameters
from deepod.types import Batch, Losses, Shape


class _MaskedConv(nn.Conv2d):
    """Convolution that sees the pixels before one, in the order of reading.

    Of the pixel itself it sees the channels before one, and its own unless ``strictly``. Features
    belong to channels in equal parts, in their order.
    """

    mask: Tensor

    def __init__(self, inp: int, out: int, size: int, channels: int, strictly: bool) -> None:
        super().__init__(inp, out, size, padding=size // 2)
        mask = torch.zeros(out, inp, size, size)
        mask[:, :, : size // 2] = 1  # rows above
        mask[:, :, size // 2, : size // 2] = 1  # to the left
        own, seen = (torch.arange(n) * channels // n for n in (out, inp))
        before = seen < own[:, None] if strictly else seen <= own[:, None]
        mask[:, :, size // 2, size // 2] = before.float()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        return conv2d(input, self.weight * self.mask, self.bias, padding=self.padding)


class _Net(StartsFromRows):
    """Network from levels to logits of levels: (B, C, H, W) -> (B, C, levels, H, W)."""

    low: Tensor
    span: Tensor

    def __init__(self, channels: int, width: int, blocks: int, levels: int) -> None:
        super().__init__()
        self.levels = levels

        def conv(inp: int, out: int, size: int, strictly: bool = False) -> nn.Module:
            return _MaskedConv(inp, out, size, channels, strictly)

        self.first = conv(channels, width, 7, strictly=True)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), conv(width, width, 3), nn.ReLU(), conv(width, width, 1))
            for _ in range(blocks)
        )
        out = conv(width, channels * levels, 1)
        self.last = nn.Sequential(nn.ReLU(), conv(width, width, 1), nn.ReLU(), out)
        self.register_buffer("low", torch.zeros(channels, 1, 1))
        self.register_buffer("span", torch.ones(channels, 1, 1))

    def start_from_rows(self, x: Tensor) -> None:
        """Let the levels cover the range of each channel."""
        low, high = x.amin((0, 2, 3)), x.amax((0, 2, 3))
        self.low.copy_(low[:, None, None])
        self.span.copy_(torch.where(high > low, high - low, 1.0)[:, None, None])

    def quantize(self, x: Tensor) -> Tensor:
        """Return the level of each value, from 0, as a float; out of range, the nearest."""
        return ((x - self.low) / self.span * self.levels).floor().clamp(0, self.levels - 1)

    def forward(self, level: Tensor) -> Tensor:
        """Return the logits of the level of each value, given the values before it."""
        x = self.first((2 * level + 1) / self.levels - 1)  # in (-1, 1)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x).unflatten(1, (-1, self.levels))

    def nll(self, x: Tensor) -> Tensor:
        """Return the negative log-likelihood of each value, (B, C, H, W)."""
        level = self.quantize(x)
        known = self(level).log_softmax(2).gather(2, level.long().unsqueeze(2))
        return -known.squeeze(2)


@parameters
class PixelCNN(BaseDetector):
    """PixelCNN: a network that predicts each pixel of an image from those before it.

    Values are rounded to a few levels. For each pixel the network gives the probabilities of its
    levels from the pixels above it and to its left, and for a channel also from the channels before
    it. The score is the negative log-likelihood of the image, per value, in nats.

    Notes
    -----
    **When to use it.** To compare with published figures. Most training images have to be normal.

    **When it fails.** A likelihood is a sum over all pixels, most of them simple: images that are
    smoother than the training images, an empty one above all, are likelier than these and are not
    found. Table 1 of the NS-AE paper, after OCGAN's, has it at 61.8 on MNIST, where a denoising
    autoencoder has 87.7.

    **Network.** The layers are those of the paper, smaller: a 7x7 convolution that does not see the
    value itself (mask A), residual blocks with a 3x3 one that does (mask B), and two 1x1 ones
    before a softmax. ``n_levels`` is 16, not 256, and nothing is gated. As in the paper, some
    pixels above and to the right are not seen, a blind spot that later work has removed.

    **Limits.** Images only: for flat rows give ``input_shape``. ``network`` has no effect. Scores
    have no gradients, because values are rounded; :meth:`explain` gives the term of each value.

    References
    ----------
    A. van den Oord, N. Kalchbrenner and K. Kavukcuoglu. Pixel Recurrent Neural Networks. ICML 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import PixelCNN
    >>> generator = np.random.default_rng(0)
    >>> stripes = np.tile([0.0, 1.0], (100, 1, 8, 4)) + 0.1 * generator.normal(size=(100, 1, 8, 8))
    >>> detector = PixelCNN(epochs=20, lr=1e-2, random_state=0).fit(stripes)
    >>> odd = stripes[:1].copy()
    >>> odd[0, 0, 4] = odd[0, 0, 4, ::-1]
    >>> detector.predict(np.concatenate([stripes[:1], odd]))
    array([0, 1])
    >>> detector.score_map(odd).sum(2).argmax()
    np.int64(4)
    """

    width: int = param(default=16, accepts=[integer(1)], doc="Features of the hidden layers.")
    n_blocks: int = param(default=3, accepts=[integer(0)], doc="Blocks with 3x3 convolutions.")
    n_levels: int = param(
        default=16,
        accepts=[integer(2)],
        doc="Levels that values are rounded to, equal parts of the range of the training images.",
    )
    family = "density"
    inputs = ("images",)
    auto_steps, auto_epochs = 250, 40
    has_gradients = False
    paper = "van den Oord et al., Pixel Recurrent Neural Networks, ICML 2016"

    def _build_module(self, shape: Shape) -> nn.Module:
        return _Net(shape[0], self.width, self.n_blocks, self.n_levels)

    def _loss(self, module: Any, batch: Batch) -> Losses:
        return {"nll": module.nll(batch.x).mean()}

    def _score(self, module: Any, x: Tensor) -> Tensor:
        return module.nll(x).flatten(1).mean(1)

    def _contributions(self, module: Any, x: Tensor) -> Tensor:
        return module.nll(x) / x[0].numel()

    def score_map(self, X: Any, batch_size: int | None = None) -> np.ndarray:
        """Return how unlikely each pixel is, given those before it.

        Parameters
        ----------
        X : array-like
            Images shaped like those of ``fit``.
        batch_size : int, optional
            As in ``decision_function``.

        Returns
        -------
        nll : ndarray of shape (n, height, width), float64
            Negative log-likelihood of every pixel, in nats, mean over the channels.
        """
        check_is_fitted(self)

        def mean_nll(module: Any, x: Tensor) -> Tensor:
            return module.nll(x).mean(1)

        return self._apply(X, mean_nll, batch_size)
