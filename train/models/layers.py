"""What all networks are put together from. Shapes: N images, C channels, H rows, W columns."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everyone calls it

if TYPE_CHECKING:
    from torch import Tensor

    from train.models.options import Options

GROUPS = 8
"""Of group normalisation; fewer where the channels do not divide."""


@dataclass(frozen=True, slots=True)
class Style:
    """What accompanies a 3x3 convolution: see the fields of that name in `train.models.options`."""

    padding: str = "zero"
    norm: str = "batch"
    activation: str = "relu"
    slope: float = 0.01
    bias: bool = False
    dropout: tuple[float, float] = (0.0, 0.0)
    dropout_kind: str = "channel"

    @classmethod
    def of(cls, options: Options) -> Style:
        """What a network's options say of it."""
        names = (f.name for f in fields(cls) if hasattr(options, f.name))
        return cls(**{name: getattr(options, name) for name in names})

    def conv(self, inside: int, outside: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
        """A 3x3 convolution that keeps the size, or halves it, or is ``valid``."""
        pad = 0 if self.padding == "valid" else dilation
        mode: Literal["reflect", "zeros"] = "reflect" if self.padding == "reflect" else "zeros"
        bias = self.bias or self.norm == "none"
        return nn.Conv2d(inside, outside, 3, stride, pad, dilation, bias=bias, padding_mode=mode)

    def norms(self, channels: int) -> list[nn.Module]:
        """The norm, or nothing."""
        if self.norm == "none":
            return []
        if self.norm == "group":
            return [nn.GroupNorm(math.gcd(GROUPS, channels), channels)]
        kind = nn.BatchNorm2d if self.norm == "batch" else nn.InstanceNorm2d
        return [kind(channels, affine=True)]

    def act(self, *, inplace: bool = True) -> nn.Module:
        """The activation."""
        if self.activation == "leaky":
            return nn.LeakyReLU(self.slope, inplace)
        return nn.ReLU(inplace)

    def drops(self, which: int) -> list[nn.Module]:
        """Dropout after the first (0) or second (1) convolution of a block, or nothing."""
        share = self.dropout[which]
        if not share or self.dropout_kind == "bottom":
            return []
        return [nn.Dropout2d(share) if self.dropout_kind == "channel" else nn.Dropout(share)]


def double_conv(inside: int, middle: int, outside: int, style: Style, dilation: int = 1) -> nn.Sequential:
    """Twice: 3x3 convolution, norm, dropout, activation."""
    layers: list[nn.Module] = []
    for which, (a, b) in enumerate(((inside, middle), (middle, outside))):
        conv = style.conv(a, b, dilation=dilation)
        layers += [conv, *style.norms(b), *style.drops(which), style.act()]
    return nn.Sequential(*layers)


class ResidualBlock(nn.Module):
    """Norm and activation before each of two convolutions; their sum with a 1x1 convolution of the input.

    The unit of Zhang et al., "Road extraction by deep residual U-Net" (2018, arXiv:1711.10684).
    """

    def __init__(
        self, inside: int, outside: int, style: Style, dilation: int = 1, *, raw: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for which, a in enumerate((inside, outside)):
            if which or not raw:  # pixels are neither normed nor cut off at zero
                # The input is a skip too: an activation in place would change it.
                layers += [*style.norms(a), style.act(inplace=False)]
            layers += [style.conv(a, outside, dilation=dilation), *style.drops(which)]
        self.unit = nn.Sequential(*layers)
        self.short = nn.Conv2d(inside, outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The sum, (N, outside, H, W)."""
        total: Tensor = self.unit(x) + self.short(x)
        return total


class DenseBlock(nn.Module):
    """Two convolutions that see all before them, joined by a 1x1 one (after Huang et al., 1608.06993)."""

    def __init__(self, inside: int, outside: int, style: Style, dilation: int = 1) -> None:
        super().__init__()
        grow = max(1, outside // 2)
        self.layers = nn.ModuleList(
            nn.Sequential(
                style.conv(inside + which * grow, grow, dilation=dilation),
                *style.norms(grow),
                *style.drops(which),
                style.act(),
            )
            for which in range(2)
        )
        self.join = nn.Sequential(
            nn.Conv2d(inside + 2 * grow, outside, 1), *style.norms(outside), style.act()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Of all that was made, (N, outside, H, W)."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        joined: Tensor = self.join(x)
        return joined


class Gate(nn.Module):
    """Weighs a skip, pixel by pixel, by what is grown: additive attention (Oktay et al., 1804.03999)."""

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        middle = max(1, channels // 2)
        self.grown, self.skip = (
            nn.Sequential(nn.Conv2d(channels, middle, 1), *style.norms(middle)) for _ in range(2)
        )
        self.weigh = nn.Sequential(nn.Conv2d(middle, 1, 1), *style.norms(1), nn.Sigmoid())

    def forward(self, skip: Tensor, grown: Tensor) -> Tensor:
        """The weighed skip, (N, C, H, W)."""
        weighed: Tensor = skip * self.weigh(F.relu(self.grown(grown) + self.skip(skip)))
        return weighed


class ToPlaces(nn.Module):
    """Channels to places: of r x r of them a block of r x r scores.

    ``crd`` takes the channels class by class, as PyTorch's PixelShuffle does; ``dcr`` place by place, as
    TensorFlow's depth_to_space does. Of r = 3 and three classes, the first class is channels 0 to 8, or 0, 3,
    6 to 24.
    """

    def __init__(self, r: int, order: str) -> None:
        super().__init__()
        self.r, self.order = r, order

    def forward(self, x: Tensor) -> Tensor:
        """(N, K r r, H, W) to (N, K, r H, r W)."""
        if self.order == "dcr":
            n, channels, height, width = x.shape
            parts = x.reshape(n, self.r**2, channels // self.r**2, height, width)
            x = parts.transpose(1, 2).reshape(n, channels, height, width)
        return F.pixel_shuffle(x, self.r)


def interpolation(up: str) -> nn.Module:
    """Twice the sides, without weights."""
    if up.startswith("bilinear"):
        return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=up == "bilinear-aligned")
    return nn.UpsamplingNearest2d(scale_factor=2)


def upsample(inside: int, outside: int, up: str, style: Style, *, bias: bool = True) -> nn.Module:
    """Twice the sides, ``outside`` channels."""
    if up == "transposed":
        return nn.ConvTranspose2d(inside, outside, 2, stride=2, bias=bias)
    if up == "nearest3":
        conv = style.conv(inside, outside)
        return nn.Sequential(interpolation(up), conv, *style.norms(outside), style.act())
    # A 1x1 convolution commutes with interpolation, and before it costs a quarter.
    return nn.Sequential(nn.Conv2d(inside, outside, 1), interpolation(up))


def fitted(x: Tensor, like: Tensor) -> Tensor:
    """Padded with zeros at the bottom and right to the size of another map, or cut there.

    A pooling drops the last row of an odd number, a strided convolution makes one more of it.
    """
    rows, columns = (like.shape[i] - x.shape[i] for i in (2, 3))
    return F.pad(x, [0, columns, 0, rows])


def joined(skip: Tensor, grown: Tensor, *, skip_first: bool = True) -> Tensor:
    """Two maps, one after the other along the channels."""
    return torch.cat([skip, grown] if skip_first else [grown, skip], dim=1)
