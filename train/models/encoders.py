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
        outside = planes * 4 if bottleneck else planes
        sides = (1, 3, 1) if bottleneck else (3, 3)
        ends = (inside, *(planes,) * (len(sides) - 1), outside)
        at = sides.index(3)  # the first 3x3 convolution is the one with the stride
        for i, side in enumerate(sides):
            step = stride if i == at else 1
            conv = nn.Conv2d(ends[i], ends[i + 1], side, step, side // 2, bias=False)
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(ends[i + 1]))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential()
        if stride != 1 or inside != outside:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )
        self.count, self.outside = len(sides), outside

    def forward(self, x: Tensor) -> Tensor:
        """(N, outside, H / stride, W / stride)."""
        y = x
        for i in range(1, self.count + 1):
            y = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(y))
            y = self.relu(y) if i < self.count else y
        total: Tensor = self.relu(y + self.downsample(x))
        return total


class ResNet(nn.Module):
    """A ResNet without its classifier; maps of 1/2, 1/4, 1/8, 1/16 and 1/32 of the size."""

    def __init__(self, options: EncodedOptions) -> None:
        super().__init__()
        width, bottleneck = options.width, options.encoder == "resnet50"
        self.conv1 = nn.Conv2d(options.in_channels, width, 7, 2, 3, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        ceil = options.ceil_pool
        self.maxpool = nn.MaxPool2d(3, 2, 0 if ceil else 1, ceil_mode=ceil)
        self.channels = [width]
        for stage, count in enumerate(UNITS[options.encoder]):
            units: list[Unit] = []
            for i in range(count):
                inside = self.channels[-1] if i == 0 else units[-1].outside
                stride = 2 if stage and i == 0 else 1
                units.append(Unit(inside, width * 2**stage, stride, bottleneck=bottleneck))
            self.add_module(f"layer{stage + 1}", nn.Sequential(*units))
            self.channels.append(units[-1].outside)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Finest first."""
        x = self.relu(self.bn1(self.conv1(x)))
        maps = [x]
        x = self.maxpool(x)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
            maps.append(x)
        return maps
