"""Contracting paths that were made to classify images. Their keys are those of torchvision's weights.

VGG: Simonyan and Zisserman, arXiv:1409.1556. ResNet: He et al., arXiv:1512.03385.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from torch import nn

from train.models.options import UNITS

if TYPE_CHECKING:
    from torch import Tensor

    from train.models.options import EncodedOptions

VGG16: Final = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))
"""Channels of each convolution in widths, by level."""


class VGG(nn.Module):
    """VGG-16 without its last pooling and its classifier; maps of 1, 1/2, 1/4, 1/8 and 1/16 of the size."""

    def __init__(self, in_channels: int, width: int, *, norm: bool) -> None:
        super().__init__()
        self.channels = [level[-1] * width for level in VGG16]
        layers: list[nn.Module] = []
        inside = in_channels
        for level in VGG16:
            layers += [nn.MaxPool2d(2)] if layers else []
            for c in level:
                outside = c * width
                layers += [nn.Conv2d(inside, outside, 3, padding=1)]
                layers += [nn.BatchNorm2d(outside)] if norm else []
                layers += [nn.ReLU(inplace=True)]
                inside = outside
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Finest first."""
        maps = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
            x = layer(x)
        return [*maps, x]


class Unit(nn.Module):
    """A residual unit of two 3x3 convolutions, or of three of 1x1, 3x3 and 1x1 (a bottleneck)."""

    def __init__(self, inside: int, planes: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        self.outside, self.bottleneck = planes * 4 if bottleneck else planes, bottleneck
        # The first 3x3 convolution is the one with the stride.
        first, second = (1, stride) if bottleneck else (stride, 1)
        self.conv1 = _conv(inside, planes, 1 if bottleneck else 3, first)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, second)
        self.bn2 = nn.BatchNorm2d(planes)
        if bottleneck:
            self.conv3 = _conv(planes, self.outside, 1)
            self.bn3 = nn.BatchNorm2d(self.outside)
        self.relu = nn.ReLU(inplace=True)
        changes = stride != 1 or inside != self.outside
        short = [_conv(inside, self.outside, 1, stride), nn.BatchNorm2d(self.outside)] if changes else []
        self.downsample = nn.Sequential(*short)

    def forward(self, x: Tensor) -> Tensor:
        """(N, outside, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.bottleneck:
            y = self.bn3(self.conv3(self.relu(y)))
        total: Tensor = self.relu(y + self.downsample(x))
        return total


class ResNet(nn.Module):
    """A ResNet without its classifier; maps of 1/2, 1/4, 1/8, 1/16 and 1/32 of the size."""

    def __init__(self, options: EncodedOptions) -> None:
        super().__init__()
        width, ceil = options.width, options.ceil_pool
        self.conv1 = _conv(options.in_channels, width, 7, 2)
        self.bn1, self.relu = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 0 if ceil else 1, ceil_mode=ceil)
        self.channels = [width]
        counts, bottleneck = UNITS[options.encoder], options.encoder == "resnet50"
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            self._stage(width * 2**i, count, 2 if i else 1, bottleneck=bottleneck)
            for i, count in enumerate(counts)
        )

    def _stage(self, planes: int, count: int, stride: int, *, bottleneck: bool) -> nn.Sequential:
        first = Unit(self.channels[-1], planes, stride, bottleneck=bottleneck)
        self.channels.append(first.outside)
        others = (Unit(first.outside, planes, 1, bottleneck=bottleneck) for _ in range(count - 1))
        return nn.Sequential(first, *others)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Finest first."""
        maps = [self.relu(self.bn1(self.conv1(x)))]
        x = self.maxpool(maps[0])
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps


def _conv(inside: int, outside: int, side: int, stride: int = 1) -> nn.Conv2d:
    """Of a ResNet: batch normalisation after it has the bias."""
    return nn.Conv2d(inside, outside, side, stride, side // 2, bias=False)
