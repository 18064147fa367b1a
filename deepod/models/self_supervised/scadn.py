"""SCADN: what stripes hide of a normal image can be filled in from what they leave."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, softplus

from deepod.models.reconstruction._reconstruction import ErrorMaps
from deepod.networks import Network
from deepod.networks.layers import EncoderDecoder
from deepod.params import integer, one_of, param, parameters, real
from deepod.types import Batch, Losses, Phase, Refresh, Shape


def _stripes(shape: Shape, widths: list[int]) -> Tensor:
    """Return masks, 1 where stripes hide a value, (widths * axes * 2, *shape) of one channel."""
    sides = shape[1:] if len(shape) == 3 else shape[:1]
    grid = torch.stack(torch.meshgrid(*map(torch.arange, sides), indexing="ij"))  # (axes, *sides)
    stripes = torch.stack([grid // width % 2 for width in widths])
    both = torch.stack([stripes, 1 - stripes], 2)  # (widths, axes, 2, *sides)
    return both.flatten(0, 2).float().unsqueeze(1 if len(shape) == 3 else 2)


class _Net(nn.Module):
    """The autoencoder that fills in, and the discriminator."""

    masks: Tensor
    usual: Tensor  # mean errors of the training rows, by width

    def __init__(self, network: Network, shape: Shape, code: int, judged: bool) -> None:
        super().__init__()
        encoder, decoder = network.encoder(shape, code), network.decoder(code, shape)
        self.autoencoder = EncoderDecoder(encoder, decoder)
        self.judge = network.encoder(shape, 1) if judged else None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Rebuild whole rows from what their masks leave, (B, *shape)."""
        return self.autoencoder(x * (1 - mask) + mask)


@parameters
class SCADN(ErrorMaps):
    """Inpainting of stripes: an autoencoder that fills in hidden halves of an image.

    Stripes of several widths hide half of an image, upright or lying. An autoencoder learns to fill
    them in from the other half, and a discriminator to tell its images from given ones. In an
    abnormal image the one half does not follow from the other: the score is the error in what was
    hidden.

    Notes
    -----
    **When to use it.** (Nearly) all images are normal, and things have their places in them. Of
    windows, stretches of time are hidden.

    **When it fails.** A code of a few numbers cannot hold textures and small marks. Simple images,
    an empty one above all, are easily filled in and are not found. The discriminator may win at
    once: then it has little to say, and an inpainting autoencoder is left. A score takes a pass for
    each mask, 12 for most images.

    **Loss.** A mask M, 1 where a value is hidden, leaves (1 - M) * x + M of x, of which the
    autoencoder makes x'. In training each row of a batch has one of the masks, drawn anew. The
    autoencoder minimises ``hidden_weight`` times the mean squared error of hidden values, plus that
    of the others, plus ``adversarial_weight`` times -log D(x'). In turns with it the discriminator
    D minimises -(log D(x) + log(1 - D(x'))) / 2, with a tenth of the learning rate.

    **Score.** All masks are put on a row, half of which hide a given value: the squared error, mean
    over these masks and over the values. ``score_by="worst"`` is the rule of the authors' code: per
    width the largest error of each pixel under any mask, mean over the pixels, less the mean of
    that over the training rows; then the largest over the widths.

    **Departures.** The paper's text was not available: weights, learning rates and rules are those
    of its authors' code. That has convolutions and residual blocks throughout, here all goes
    through a code of ``latent_dim`` numbers; its D judges patches, here whole images; its errors
    are sums over the number of hidden values, here means over their own values; its Adam has no
    momentum.

    **Setting.** For MVTec, 512x512 pixels, three widths: ``SCADN(scaler="minmax", lr=1e-4,
    batch_size=4, epochs=200, score_by="worst")``.

    References
    ----------
    X. Yan, H. Zhang, X. Xu, X. Hu and P.-A. Heng. Learning Semantic Context from Normal Samples
    for Unsupervised Anomaly Detection. AAAI 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import SCADN
    >>> ramp = np.linspace(-3, 3, 64).reshape(1, 8, 8)
    >>> X = ramp + np.random.default_rng(0).normal(size=(100, 1, 8, 8))
    >>> SCADN(epochs=20, random_state=0).fit(X).predict([ramp, -ramp])
    array([0, 1])
    """

    widths: tuple[int, ...] | list[int] | None = param(
        default=None,
        accepts=[tuple, list, None],
        doc="Widths of the stripes, in pixels or time steps; None: a sixteenth, an eighth and a "
        "quarter of the shorter side.",
    )
    latent_dim: int = param(default=32, accepts=[integer(1)], doc="Length of the code.")
    hidden_weight: float = param(
        default=4.0, accepts=[real(0)], doc="Weight of the error of hidden values; others have 1."
    )
    adversarial_weight: float = param(
        default=1e-3, accepts=[real(0)], doc="Weight of -log D; 0: there is no discriminator."
    )
    score_by: Literal["mean", "worst"] = param(
        default="mean",
        accepts=[one_of("mean", "worst")],
        doc="How errors under the masks are put together, see the notes.",
    )
    family, inputs = "self-supervised", ("windows", "images")
    paper = "Yan et al., Learning Semantic Context from Normal Samples, AAAI 2021"
    auto_steps, auto_epochs = 300, 60
    auto_batch_norm = True
    auto_of_images = "lenet"

    def _widths(self, shape: Shape) -> list[int]:
        side = min(shape[1:]) if len(shape) == 3 else shape[0]
        usual = sorted({max(1, round(side / part)) for part in (16, 8, 4)})
        widths = usual if self.widths is None else [int(width) for width in self.widths]
        if not widths or min(widths) < 1 or max(widths) >= side:
            raise ValueError(
                f"SCADN(widths={self.widths!r}): expected widths of at least 1 and below {side}, "
                f"the shorter side of samples of shape {shape}."
            )
        return widths

    def _build_module(self, shape: Shape) -> nn.Module:
        widths, judged = self._widths(shape), self.adversarial_weight > 0
        module = _Net(self._network(shape), shape, self.latent_dim, judged)
        module.register_buffer("masks", _stripes(shape, widths))
        module.register_buffer("usual", torch.zeros(len(widths)))
        return module

    def _phases(self) -> list[Phase]:
        if not self.adversarial_weight:
            return super()._phases()
        same: dict[str, Any] = {"milestones": tuple(self.milestones), "cycle": "game"}
        n, lr = self.epochs_, self.lr / 10  # as in the authors' code
        judge = Phase("fit", n, self._judge_loss, lr=lr, params=("judge.",), **same)
        return [judge, Phase("fit", n, self._loss, params=("autoencoder.",), **same)]

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Tensor:
        masks = 2 * (len(shape) - 1) * len(self._widths(shape))
        return torch.randint(masks, (n,), generator=generator, device=generator.device)

    def _judge_loss(self, module: Any, batch: Batch) -> Losses:
        made = module(batch.x, module.masks.index_select(0, batch.noise)).detach()
        real, fake = softplus(-module.judge(batch.x)), softplus(module.judge(made))
        return {"real": real.mean() / 2, "fake": fake.mean() / 2}

    def _loss(self, module: Any, batch: Batch) -> Losses:
        mask = module.masks.index_select(0, batch.noise)
        made = module(batch.x, mask)
        squares = mse_loss(made, batch.x, reduction="none")
        hidden, visible = (
            ((squares * part).flatten(1).mean(1) / part.flatten(1).mean(1)).mean()
            for part in (mask, 1 - mask)
        )
        losses = {"hidden": self.hidden_weight * hidden, "visible": visible}
        if self.adversarial_weight:
            fooled = softplus(-module.judge(made)).mean()
            losses["adversarial"] = self.adversarial_weight * fooled
        return losses

    def _hidden(self, module: Any, x: Tensor) -> Tensor:
        """Return squared errors of hidden values by mask, 0 elsewhere, (masks, B, *shape)."""
        n, masks = len(module.masks), module.masks.unsqueeze(1)
        rows = x.expand(n, *x.shape).flatten(0, 1)
        masks = masks.expand(-1, x.shape[0], *masks.shape[2:]).flatten(0, 1)
        squares = mse_loss(module(rows, masks), rows, reduction="none") * masks
        return squares.unflatten(0, (n, -1))

    def _by_width(self, module: Any, x: Tensor) -> Tensor:
        """Return the largest error of a pixel by width of masks, mean over pixels, (B, widths)."""
        errors = self._hidden(module, x).mean(2 if x.dim() == 4 else 3)
        return errors.unflatten(0, (len(module.usual), -1)).amax(1).flatten(2).mean(2).T

    def _after_training(self) -> Refresh:
        return Refresh(self._by_width, lambda errors: {"usual": errors.mean(0)})

    def _squares(self, module: Any, x: Tensor) -> Tensor:
        return 2 * self._hidden(module, x).mean(0)

    def _scored_error(self) -> str | None:
        return "mse" if self.score_by == "mean" else None

    def _contributions(self, module: Any, x: Tensor) -> Tensor | None:
        return self._squares(module, x) / x[0].numel() if self._scored_error() else None

    def _score(self, module: Any, x: Tensor) -> Tensor:
        if self.score_by == "mean":
            return self._squares(module, x).flatten(1).mean(1)
        return (self._by_width(module, x) - module.usual).amax(1)
