"""The U-Net: contracting blocks, a bottom, expanding blocks with skips, and a head.

After Ronneberger, Fischer and Brox, "U-Net" (2015, arXiv:1505.04597), and what others made of it; which one
it is, `UNetOptions` says. It knows nothing of rasters.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from train.models.layers import (
    DenseBlock,
    Gate,
    ResidualBlock,
    Style,
    ToPlaces,
    double_conv,
    fitted,
    interpolation,
    joined,
    upsample,
)
from train.models.network import Network

if TYPE_CHECKING:
    from torch import Tensor

    from train.models.options import UNetOptions


class UNet(Network):
    """Bands in, one logit per class and pixel out."""

    options: UNetOptions

    def __init__(self, options: UNetOptions) -> None:
        super().__init__()
        self.options, self.style = options, Style.of(options)
        wide = [options.width * 2**level for level in range(options.depth + 1)]
        # What blocks return to an interpolation that does not halve it.
        made = [wide[0], *(c // options.halved for c in wide[1:])]
        levels = range(options.depth)
        upward = list(reversed(levels))

        self.first = self._block(options.in_channels, wide[0], wide[0], raw=True)
        self.pool = nn.ModuleList(self._halve(wide[i]) for i in levels)
        self.down = nn.ModuleList(self._block(wide[i], wide[i + 1], wide[i + 1]) for i in levels[:-1])
        bottom = self._block(wide[-2], made[-1], made[-1], options.dilation)
        self.down.append(bottom)
        self.up = nn.ModuleList(self._grow(made[i + 1], wide[i]) for i in upward)
        grown = wide if options.halving == "conv" else made[1:]
        self.merge = nn.ModuleList(self._block(wide[i] + grown[i], wide[i], made[i]) for i in upward)
        self.gate = nn.ModuleList(Gate(wide[i], self.style) for i in upward if options.attention)
        share = options.dropout[1] if options.dropout_kind == "bottom" else 0.0
        self.drop = nn.Dropout(share) if share else nn.Identity()
        scores = options.classes * options.upscale**2
        self.head = nn.Conv2d(wide[0], scores, options.head_kernel, padding=options.head_kernel // 2)
        self.places = ToPlaces(options.upscale, options.shuffle) if options.upscale > 1 else nn.Identity()

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        """Logits (N, K, H, W); with ``upscale`` r (N, K, r H, r W), with ``valid`` padding fewer."""
        self.check_size(pixels_NCHW)
        x = self.first(pixels_NCHW)

        # Down: halve the sides, double the channels, and remember what each level saw.
        skips = []
        for pool, down in zip(self.pool, self.down, strict=True):
            skips.append(x)
            x = down(pool(x))
        x = self.drop(x)

        # Up: double the sides, halve the channels, and look at the remembered detail again.
        for i, (up, merge) in enumerate(zip(self.up, self.merge, strict=True)):
            skip = self._cropped(skips.pop(), i)
            x = fitted(up(x), skip) if self.options.odd else up(x)
            if self.options.attention:
                skip = self.gate[i](skip, x)
            x = merge(joined(skip, x, skip_first=self.options.skip_first))

        logits_NKHW: Tensor = self.places(self.head(x))
        return logits_NKHW

    def _block(
        self, inside: int, middle: int, outside: int, dilation: int = 1, *, raw: bool = False
    ) -> nn.Module:
        """The convolutions of one level; ``raw`` if they read the image itself."""
        if self.options.block == "residual":
            return ResidualBlock(inside, outside, self.style, dilation, raw=raw)
        if self.options.block == "dense":
            return DenseBlock(inside, outside, self.style, dilation)
        return double_conv(inside, middle, outside, self.style, dilation)

    def _halve(self, channels: int) -> nn.Module:
        if self.options.down == "maxpool":
            return nn.MaxPool2d(2)
        style = self.style if self.options.down_norm else replace(self.style, norm="none")
        return nn.Sequential(style.conv(channels, channels, stride=2), *style.norms(channels), style.act())

    def _grow(self, inside: int, outside: int) -> nn.Module:
        if self.options.halving != "conv":
            return interpolation(self.options.up)
        return upsample(inside, outside, self.options.up, self.style, bias=self.options.up_bias)

    def _cropped(self, skip: Tensor, i: int) -> Tensor:
        """A skip to the i-th merge from the bottom, without what convolutions lost below it."""
        if self.options.padding != "valid":
            return skip
        lost = 6 * 2 ** (i + 1) - 8
        return skip[:, :, lost:-lost, lost:-lost]
