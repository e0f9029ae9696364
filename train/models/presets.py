"""Named networks: ours, and those of well-known repositories, layer by layer as published.

Each preset gives options other than their defaults; who makes a network of it may change any of them. The
table needs no PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from tiler.errors import UsageError
from train.models.options import UNTOLD, EncodedOptions, NestedOptions, Options, UNetOptions, typed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from train.models.network import Network


@dataclass(frozen=True, slots=True)
class Preset:
    """One named network."""

    name: str
    source: str
    """The paper, repository or listing that it is of."""
    description: str
    """What is particular of it, in a line."""
    kind: type[Options]
    defaults: Mapping[str, Any]
    """Options that differ from the defaults of their kind."""

    def options(self, in_channels: int, classes: int, **changes: Any) -> Options:  # noqa: ANN401 - of any type
        """Its options for so many bands and classes; what is None is not changed.

        Raises
        ------
        UsageError
            if it has no such option, or not that value.
        """
        told = {name: value for name, value in changes.items() if value is not None}
        known = [f.name for f in fields(self.kind) if f.name not in ("in_channels", "classes")]
        if unknown := sorted(told.keys() - set(known)):
            has = ", ".join(typed(name) for name in known if name not in UNTOLD)
            raise UsageError(f"--preset {self.name} has {has}, and no {typed(unknown[0])}; leave it out")
        return self.kind(in_channels, classes, **{**self.defaults, **told})


def _preset(
    name: str,
    source: str,
    description: str,
    kind: type[Options] = UNetOptions,
    **defaults: Any,  # noqa: ANN401 - of any type
) -> Preset:
    return Preset(name, source, description, kind, MappingProxyType(defaults))


WZM: Final = "WZMIAOMIAO/deep-learning-for-image-processing, pytorch_segmentation/unet"
MILESIAL: Final = "milesial/Pytorch-UNet"
BUBBLIIIING: Final = "bubbliiiing/unet-pytorch"
NESTED: Final = "4uiiurz1/pytorch-nested-unet"
LEE: Final = "LeeJunHyun/Image_Segmentation"
TF: Final = "TensorFlow-slim listing after cchen156/Learning-to-See-in-the-Dark"

_ALIGNED: Final[dict[str, Any]] = {"up": "bilinear-aligned", "halving": "block", "odd": True}
_MILU: Final[dict[str, Any]] = {
    "width": 64,
    "down": "conv",
    "up": "nearest1",
    "activation": "leaky",
    "skip_first": False,
    "head_kernel": 3,
}
_LEE: Final[dict[str, Any]] = {"width": 64, "up": "nearest3", "bias": True}
_TF: Final[dict[str, Any]] = {
    "width": 32,
    "norm": "none",
    "activation": "leaky",
    "slope": 0.2,
    "up_bias": False,
    "skip_first": False,
}
_RESNET: Final = "He et al., arXiv:1512.03385, as an encoder"

_ALL: Final = (
    _preset("unet", "this project", "the default: batch normalisation, transposed convolutions, any width"),
    _preset(
        "paper",
        "Ronneberger, Fischer and Brox, arXiv:1505.04597",
        "no padding (572 px in, 388 out), no normalisation",
        width=64,
        padding="valid",
        norm="none",
        dropout=(0.0, 0.5),
        dropout_kind="bottom",
    ),
    _preset("milesial", MILESIAL, "transposed convolutions, any size", width=64, odd=True),
    _preset("milesial-bilinear", MILESIAL, "aligned interpolation: not exact", width=64, **_ALIGNED),
    _preset(
        "wzm", WZM, "that of the DRIVE run, base 32; aligned interpolation: not exact", width=32, **_ALIGNED
    ),
    _preset("wzm-64", WZM, "base 64; aligned interpolation: not exact", width=64, **_ALIGNED),
    _preset("wzm-transposed", WZM, "base 32, transposed convolutions", width=32, odd=True),
    _preset(
        "wzm-vgg16-bn",
        WZM,
        "VGG-16 encoder with batch normalisation; aligned interpolation: not exact",
        EncodedOptions,
        encoder="vgg16-bn",
        up="bilinear-aligned",
        narrow_first=True,
        odd=True,
    ),
    _preset(
        "bubbliiiing-vgg",
        BUBBLIIIING,
        "VGG-16 encoder, no normalisation; aligned interpolation: not exact",
        EncodedOptions,
        encoder="vgg16",
        up="bilinear-aligned",
        norm="none",
    ),
    _preset(
        "bubbliiiing-resnet50",
        BUBBLIIIING,
        "ResNet-50 encoder; aligned interpolation: not exact",
        EncodedOptions,
        encoder="resnet50",
        up="bilinear-aligned",
        norm="none",
        ceil_pool=True,
    ),
    _preset(
        "milu",
        "qiaofengsheng/pytorch-UNet",
        "reflecting, strided convolutions, dropout of channels",
        padding="reflect",
        dropout=(0.3, 0.3),
        **_MILU,
    ),
    _preset(
        "milu-listing",
        "PyTorch listing after qiaofengsheng/pytorch-UNet V1",
        "as milu with zero padding, strided convolutions without norm, dropout of elements",
        bias=True,
        down_norm=False,
        dropout=(0.3, 0.4),
        dropout_kind="element",
        **_MILU,
    ),
    _preset(
        "nested-unet",
        NESTED,
        "its plain U-Net; aligned interpolation: not exact",
        width=32,
        up="bilinear-aligned",
        halving="none",
        bias=True,
    ),
    _preset(
        "nested",
        NESTED,
        "its UNet++ with one head; aligned interpolation: not exact",
        NestedOptions,
        width=32,
        up="bilinear-aligned",
        supervision=False,
    ),
    _preset(
        "nested-supervised",
        NESTED,
        "its UNet++ with four heads; aligned interpolation: not exact",
        NestedOptions,
        width=32,
        up="bilinear-aligned",
    ),
    _preset("leejunhyun", LEE, "repetition and 3x3 convolutions on the way up", **_LEE),
    _preset("leejunhyun-attention", LEE, "its AttU_Net: gated skips", attention=True, **_LEE),
    _preset(
        "cropland",
        "listing of a two-class cropland study",
        "reflecting convolutions, dropout of channels, leaky",
        width=64,
        padding="reflect",
        activation="leaky",
        bias=True,
        dropout=(0.3, 0.3),
    ),
    _preset(
        "keras",
        "Keras listing after jocicmarko/ultrasound-nerve-segmentation",
        "base 32, no normalisation",
        width=32,
        norm="none",
        skip_first=False,
    ),
    _preset("tf-1x", TF, "base 32, no normalisation, leaky 0.2", **_TF),
    _preset("tf-3x", TF, "as tf-1x with scores three times as fine", upscale=3, shuffle="dcr", **_TF),
    _preset(
        "unet++",
        "Zhou et al., arXiv:1807.10165",
        "four heads, interpolation of which tiles are exact",
        NestedOptions,
    ),
    _preset("attention", "Oktay et al., arXiv:1804.03999", "ours with gated skips", attention=True),
    _preset(
        "resunet",
        "Zhang et al., arXiv:1711.10684, with the dilated centre of D-ResUNet",
        "residual blocks, strided convolutions",
        down="conv",
        up="bilinear",
        block="residual",
        dilation=2,
    ),
    _preset("denseunet", "after Huang et al., arXiv:1608.06993", "densely connected blocks", block="dense"),
    _preset(
        "vgg16",
        "Simonyan and Zisserman, arXiv:1409.1556, as an encoder",
        "exact tiles",
        EncodedOptions,
        encoder="vgg16",
    ),
    _preset(
        "vgg16-bn", "the same with batch normalisation", "exact tiles", EncodedOptions, encoder="vgg16-bn"
    ),
    _preset("resnet18", _RESNET, "exact tiles", EncodedOptions, encoder="resnet18"),
    _preset("resnet34", _RESNET, "exact tiles", EncodedOptions, encoder="resnet34"),
    _preset("resnet50", _RESNET, "exact tiles", EncodedOptions, encoder="resnet50"),
)

PRESETS: Final[Mapping[str, Preset]] = MappingProxyType({preset.name: preset for preset in _ALL})
"""All, by name."""


def preset_of(name: str) -> Preset:
    """One of `PRESETS`.

    Raises
    ------
    UsageError
        naming all, if there is none of that name.
    """
    if name not in PRESETS:
        raise UsageError(f"--preset is one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]


def make(preset: str, in_channels: int, classes: int, **changes: Any) -> Network:  # noqa: ANN401 - of any type
    """A network with random weights, in training mode.

    Parameters
    ----------
    preset
        A name of `PRESETS`.
    in_channels
        Bands, C.
    classes
        K.
    changes
        Options of its kind (`train.models.options`) with other values; None leaves the preset's own.

    Raises
    ------
    UsageError
        if there is no such preset, or it has no such option.
    """
    from train.models.build import build

    return build(preset_of(preset).options(in_channels, classes, **changes))


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """The network that a training run is told; None leaves the preset's own value."""

    preset: str = "unet"
    """A name of `PRESETS`."""
    width: int | None = None
    """Channels of the first block."""
    depth: int | None = None
    """How often the sides are halved."""
    up: str | None = None
    padding: str | None = None
    down: str | None = None
    norm: str | None = None
    activation: str | None = None
    slope: float | None = None
    dropout: float | None = None
    """Share, after each convolution."""
    dropout_kind: str | None = None
    bias: bool | None = None
    halving: str | None = None
    skip_first: bool | None = None
    head_kernel: int | None = None
    odd: bool | None = None
    block: str | None = None
    dilation: int | None = None
    attention: bool | None = None
    upscale: int | None = None
    shuffle: str | None = None
    supervision: bool | None = None

    def __post_init__(self) -> None:
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise UsageError(f"--dropout is a share from 0 to less than 1, got {self.dropout}")
        self.options(1, 2)

    def options(self, in_channels: int, classes: int) -> Options:
        """Those of the network: they know its sizes, without PyTorch.

        Raises
        ------
        UsageError
            if the preset has no such option, or not that value.
        """
        names = (f.name for f in fields(self) if f.name not in ("preset", "dropout"))
        changes = {name: getattr(self, name) for name in names}
        shares = None if self.dropout is None else (self.dropout, self.dropout)
        return preset_of(self.preset).options(in_channels, classes, dropout=shares, **changes)
