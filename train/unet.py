"""The U-Net: contracting blocks, a bottom, expanding blocks with skips, and a 1x1 head.

After Ronneberger, Fischer and Brox, "U-Net" (2015, arXiv:1505.04597), with "same" padding and batch
normalisation. Every layer is shift-equivariant by multiples of `UNet.stride`, so tiles that carry
`UNet.halo` more pixels on each side give exactly what the whole image gives. It knows nothing of rasters.

Shapes: N images, C bands, K classes, H rows, W columns; H and W are multiples of the stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from tiler.errors import UsageError
from tiler.grid import round_up

if TYPE_CHECKING:
    from torch import Tensor

UPS: Final = ("transposed", "nearest", "bilinear")
CONV_REACH: Final = 2
"""Pixels on each side that two 3x3 convolutions see."""


@dataclass(frozen=True, slots=True)
class UNetOptions:
    """What determines the network but for its weights."""

    in_channels: int
    """Bands, C."""
    classes: int
    """K."""
    depth: int = 4
    """Number of poolings, 1 to 6. Each doubles the context and the channels."""
    width: int = 8
    """Channels of the first block; 8 suits a laptop, 32 a GPU."""
    up: str = "transposed"
    """How the expanding path grows: a 2x2 ``transposed`` convolution, or a 1x1 one and ``nearest`` or
    ``bilinear`` interpolation."""

    def __post_init__(self) -> None:
        for name in ("in_channels", "classes", "width"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is at least 1, got {getattr(self, name)}")
        if not 1 <= self.depth <= 6:
            raise UsageError(f"depth is 1 to 6, got {self.depth}")
        if self.up not in UPS:
            raise UsageError(f"up is one of {', '.join(UPS)}, got {self.up!r}")


class UNet(nn.Module):
    """Bands in, one logit per class and pixel out."""

    def __init__(self, options: UNetOptions) -> None:
        super().__init__()
        self.options = options
        channels = [options.width * 2**level for level in range(options.depth + 1)]

        self.first = double_conv(options.in_channels, channels[0])
        self.pool = nn.MaxPool2d(2)
        self.down = nn.ModuleList(double_conv(c, 2 * c) for c in channels[:-1])
        self.up = nn.ModuleList(upsample(2 * c, c, options.up) for c in reversed(channels[:-1]))
        self.merge = nn.ModuleList(double_conv(2 * c, c) for c in reversed(channels[:-1]))
        self.head = nn.Conv2d(channels[0], options.classes, 1)

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        """Logits (N, K, H, W)."""
        x = self.first(pixels_NCHW)

        # Down: halve the sides, double the channels, and remember what each level saw.
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(self.pool(x))

        # Up: double the sides, halve the channels, and look at the remembered detail again.
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], dim=1))

        logits_NKHW: Tensor = self.head(x)
        return logits_NKHW

    @property
    def stride(self) -> int:
        """Total down-sampling: H, W and tile origins are multiples of it."""
        return int(2**self.options.depth)

    @property
    def reach(self) -> int:
        """How far outside a cell of ``stride`` aligned pixels its logits depend on the input, in pixels."""
        first, last = 0, self.stride - 1  # of the cell; walk from the head back to the input
        blur = 1 if self.options.up == "bilinear" else 0  # interpolation reads one coarse neighbour too
        for _ in self.merge:
            first, last = (first - CONV_REACH - blur) // 2, (last + CONV_REACH + blur) // 2
        first, last = first - CONV_REACH, last + CONV_REACH  # the bottom
        for _ in self.down:
            first, last = 2 * first - CONV_REACH, 2 * last + 1 + CONV_REACH
        return max(-first, last - (self.stride - 1))

    @property
    def halo(self) -> int:
        """Pixels that a tile carries on each side of its core: `reach`, up to a multiple of the stride."""
        return round_up(self.reach, self.stride)

    @property
    def exact(self) -> bool:
        """Whether tiles with `halo` equal the whole image: always, whatever the options."""
        return True


def double_conv(inside: int, outside: int) -> nn.Sequential:
    """Twice: 3x3 convolution, batch normalisation (which has the bias), ReLU."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
        nn.Conv2d(outside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


def upsample(inside: int, outside: int, up: str) -> nn.Module:
    """Double the sides."""
    if up == "transposed":
        return nn.ConvTranspose2d(inside, outside, 2, stride=2)
    # A 1x1 convolution commutes with interpolation, and before it costs a quarter.
    grow = (
        nn.UpsamplingNearest2d(scale_factor=2)
        if up == "nearest"
        else nn.Upsample(scale_factor=2, mode="bilinear")
    )
    return nn.Sequential(nn.Conv2d(inside, outside, 1), grow)


def parameters(net: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in net.parameters())
