"""LeNet-style convolutional networks, as Deep SVDD (Ruff et al., ICML 2018) uses them."""

from __future__ import annotations

from torch import Tensor, nn

from deepod.networks._spec import ACTIVATIONS, Activation, Network
from deepod.networks.mlp import MLP
from deepod.params import integer, one_of, param, parameters
from deepod.types import Shape


@parameters
class LeNet(Network):
    """Convolutional network for images: blocks of convolution and 2x2 max-pooling, then a head.

    Its layers are those of Deep SVDD (Ruff et al., ICML 2018); its decoder enlarges images instead
    of pooling. On a processor it trains far longer than :class:`MLP`. In four detectors that were
    compared with both on small images, it was no better on the mean, though better on some
    classes (``benchmarks/README.md``, "Images").

    With ``channels=None`` an image gets one block per halving of its smaller side while at least
    4 pixels are left (at least one block, at most four), with 16, 32, ... channels for grey images
    and 32, 64, ... for others. That gives the networks of Deep SVDD: (16, 32) for 28x28 grey
    images and (32, 64, 128) for 32x32 colour images.

    An odd side is rounded up where it is halved; ``pad_to`` puts zeros around the image instead, as
    papers do that halve three times (28x28 becomes 32x32), and takes them off what is decoded.

    Examples
    --------
    >>> import torch
    >>> from deepod.networks import LeNet
    >>> LeNet().encoder((1, 28, 28), 3)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 3])
    """

    channels: tuple[int, ...] | list[int] | None = param(
        default=None,
        accepts=[tuple, list, None],
        doc="Channels of the convolutions; None chooses by the image's size.",
    )
    hidden: tuple[int, ...] | list[int] = param(
        default=(128,),
        accepts=[tuple, list],
        doc="Widths of the fully connected hidden layers after the convolutions.",
    )
    kernel_size: int = param(
        default=5, accepts=[integer(1)], doc="Side of the convolution kernels, odd, in pixels."
    )
    activation: Activation = param(
        default="leaky_relu",
        accepts=[one_of(*ACTIVATIONS)],
        doc="Non-linearity between the layers.",
    )
    bias: bool = param(default=False, accepts=["boolean"], doc="Whether the layers add a bias.")
    batch_norm: bool = param(
        default=False,
        accepts=["boolean"],
        doc="Whether BatchNorm, without scale and shift of its own, follows every convolution.",
    )
    pad_to: int = param(
        default=1,
        accepts=[integer(1)],
        doc="Zeros are put around an image until its sides are multiples of this.",
    )

    def _features(self, shape: Shape) -> tuple[nn.Sequential, int]:
        channels, sides = self._plan(shape)
        layers: list[nn.Module] = []
        if sides[0] != shape[1:]:
            layers.append(nn.ZeroPad2d(_margins(shape, sides[0])))
        for inp, width in zip((shape[0], *channels[:-1]), channels, strict=True):
            conv = self._conv(inp, width, self.batch_norm)
            layers += [conv, *self._after(width), nn.MaxPool2d(2, ceil_mode=True)]
        head, width = self._head().features((channels[-1], *sides[-1]))
        return nn.Sequential(*layers, head), width

    def _decoder(self, inp: int, shape: Shape) -> nn.Module:
        channels, sides = self._plan(shape)
        low = (channels[-1], *sides[-1])
        layers: list[nn.Module] = [
            self._head().decoder(inp, low),
            ACTIVATIONS[self.activation](),
        ]
        # Resize then convolve: the shape of the encoder backwards, without checkerboards.
        for i in reversed(range(len(channels))):
            width = channels[i - 1] if i else shape[0]
            conv = self._conv(channels[i], width, self.batch_norm and i > 0)
            layers += [_Resize(sides[i]), conv]
            layers += self._after(width) if i else []
        if sides[0] != shape[1:]:
            left, right, top, bottom = _margins(shape, sides[0])
            layers.append(nn.ZeroPad2d((-left, -right, -top, -bottom)))
        return nn.Sequential(*layers)

    def _plan(self, shape: Shape) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
        """Return channels per block, and the padded sides before each block and after the last."""
        if len(shape) != 3:
            raise ValueError(
                f"LeNet needs images of shape (channels, height, width), got samples of shape "
                f"{shape}; give input_shape=(channels, height, width) for flat images."
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"LeNet(kernel_size={self.kernel_size}): expected an odd number.")
        if self.channels is None:
            halvings = max(1, min(4, min(shape[1:]).bit_length() - 3))
            first = 16 if shape[0] == 1 else 32
            channels = tuple(first << i for i in range(halvings))
        else:
            channels = tuple(int(width) for width in self.channels)
            if not channels:
                raise ValueError("LeNet(channels=()): expected at least one width, or None.")
        height, width = (-(-side // self.pad_to) * self.pad_to for side in shape[1:])
        sides = [(height, width)]
        for _ in channels:
            height, width = sides[-1]
            sides.append(((height + 1) // 2, (width + 1) // 2))
        return channels, sides

    def _conv(self, inp: int, out: int, normed: bool) -> nn.Module:
        # BatchNorm takes away the mean, and any bias with it.
        bias = self.bias and not normed
        return nn.Conv2d(inp, out, self.kernel_size, padding="same", bias=bias)

    def _after(self, width: int) -> list[nn.Module]:
        norm = [nn.BatchNorm2d(width, eps=1e-4, affine=False)] if self.batch_norm else []
        return [*norm, ACTIVATIONS[self.activation]()]

    def _head(self) -> MLP:
        return MLP(hidden=self.hidden, activation=self.activation, bias=self.bias)


def _margins(shape: Shape, padded: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return how many pixels to add left, right, above and below."""
    height, width = padded[0] - shape[1], padded[1] - shape[2]
    return width // 2, width - width // 2, height // 2, height - height // 2


class _Resize(nn.Module):
    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, size=self.size)
