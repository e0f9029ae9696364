"""A U-Net on an encoder: whose weights may come from elsewhere, and be frozen at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from train.models.encoders import VGG, ResNet
from train.models.layers import Style, double_conv, fitted, interpolation, joined
from train.models.network import Network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from train.models.options import EncodedOptions


class EncodedUNet(Network):
    """Bands in, one logit per class and pixel out."""

    options: EncodedOptions

    def __init__(self, options: EncodedOptions) -> None:
        super().__init__()
        self.options = options
        style = Style.of(options)
        self.encoder: VGG | ResNet = (
            ResNet(options)
            if options.residual
            else VGG(options.in_channels, options.width, norm=options.encoder == "vgg16-bn")
        )
        channels = self.encoder.channels
        self.grow = interpolation(options.up)
        self.merge = nn.ModuleList()
        grown = channels[-1]
        for i, skip in reversed(list(enumerate(channels[:-1]))):
            inside, outside = skip + grown, options.width * min(2**i, 8)
            middle = inside // 2 if options.narrow_first else outside
            self.merge.append(double_conv(inside, middle, outside, style))
            grown = outside
        # A ResNet's finest map is of half the size.
        self.last = double_conv(grown, grown, grown, style) if options.residual else nn.Identity()
        self.head = nn.Conv2d(grown, options.classes, 1)

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        """Logits (N, K, H, W)."""
        self.check_size(pixels_NCHW)
        *skips, x = self.encoder(pixels_NCHW)
        for merge in self.merge:
            skip, grown = skips.pop(), self.grow(x)
            x = merge(joined(skip, fitted(grown, skip) if self.options.odd else grown))
        x = self.last(self.grow(x)) if self.options.residual else x
        logits_NKHW: Tensor = self.head(x)
        return logits_NKHW

    def encoder_modules(self) -> Iterator[nn.Module]:
        """The encoder."""
        yield self.encoder
