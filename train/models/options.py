"""What determines each kind of network but for its weights: plain values, checked, without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from tiler.analysis.interval import Repeated, Sampled, Window
from tiler.errors import UsageError
from train.models.geometry import Geometry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiler.analysis.interval import IndexMap

PADDINGS: Final = ("zero", "reflect", "valid")
DOWNS: Final = ("maxpool", "conv")
UPS: Final = ("transposed", "nearest1", "nearest3", "bilinear", "bilinear-aligned")
HALVINGS: Final = ("conv", "block", "none")
NORMS: Final = ("none", "batch", "group", "instance")
ACTIVATIONS: Final = ("relu", "leaky")
BLOCKS: Final = ("plain", "residual", "dense")
DROPOUTS: Final = ("channel", "element", "bottom")
SHUFFLES: Final = ("crd", "dcr")
ANSWERS: Final = ("last", "average")
ENCODERS: Final = ("vgg16", "vgg16-bn", "resnet18", "resnet34", "resnet50")
ALIGNED: Final = (
    "bilinear interpolation with align_corners=True depends on the size of the tile (up=bilinear-aligned)"
)


OTHER_NAMES: Final = {"activation": "--nonlinearity"}
"""What training calls otherwise, because it has an option of that name for something else."""
UNTOLD: Final = (
    "in_channels",
    "classes",
    "encoder",
    "up_bias",
    "down_norm",
    "answer",
    "narrow_first",
    "ceil_pool",
)
"""What is no option of the command line."""


def typed(name: str) -> str:
    """An option as it is typed.

    >>> typed("activation"), typed("dropout_kind"), typed("encoder")
    ('--nonlinearity', '--dropout-kind', 'encoder')
    """
    if name in UNTOLD:
        return name
    return OTHER_NAMES.get(name, f"--{name.replace('_', '-')}")


@dataclass(frozen=True, slots=True)
class UNetOptions:
    """A U-Net: contracting blocks, a bottom, expanding blocks with skips, and a head."""

    in_channels: int
    """Bands, C."""
    classes: int
    """K."""
    depth: int = 4
    """How often the sides are halved, 1 to 6. Each doubles the context and the channels."""
    width: int = 8
    """Channels of the first block; 8 suits a laptop, 32 to 64 a GPU."""
    up: str = "transposed"
    """How the expanding path grows: a 2x2 ``transposed`` convolution; ``nearest1``, a 1x1 convolution and
    repetition; ``nearest3``, repetition and a 3x3 convolution with norm and activation; ``bilinear``; or
    ``bilinear-aligned``, with align_corners=True, of which no tile is exact."""
    padding: str = "zero"
    """Of 3x3 convolutions: ``zero``, ``reflect``, or ``valid``, which is none: the skips are cropped."""
    down: str = "maxpool"
    """How the sides are halved: ``maxpool``, or a 3x3 ``conv`` of stride 2."""
    norm: str = "batch"
    """After each 3x3 convolution; statistics of ``group`` and ``instance`` are those of the tile."""
    activation: str = "relu"
    slope: float = 0.01
    """Of ``leaky`` below zero."""
    bias: bool = False
    """Whether convolutions that a norm follows have a bias too; those without a norm always do."""
    up_bias: bool = True
    """Whether transposed convolutions have a bias."""
    down_norm: bool = True
    """Whether strided convolutions are followed by the norm."""
    halving: str = "conv"
    """Where channels are halved on the way up, of bilinear interpolation: a 1x1 ``conv`` before it, the
    ``block`` before it, or ``none``: the next block takes all."""
    skip_first: bool = True
    """Order of the joined channels: skip, grown; or the reverse."""
    head_kernel: int = 1
    """Side of the last convolution, 1 or 3; it pads with zeros."""
    dropout: tuple[float, float] = (0.0, 0.0)
    """After the first and the second convolution of a block, shares in [0, 1)."""
    dropout_kind: str = "channel"
    """Whole channels, each ``element``, or elements at the ``bottom`` alone (the second share counts)."""
    odd: bool = False
    """Take any size: what is grown is padded with zeros to its skip."""
    block: str = "plain"
    """Two convolutions; ``residual``: norm and activation before each, plus a 1x1 of the input; ``dense``:
    each sees all before it, and a 1x1 joins them."""
    dilation: int = 1
    """Of the bottom's convolutions."""
    attention: bool = False
    """Whether skips pass a gate that what is grown opens (Oktay et al., arXiv:1804.03999)."""
    upscale: int = 1
    """r: the head makes r x r scores of a pixel, by moving channels to places."""
    shuffle: str = "crd"
    """Which channels: ``crd``, class by class (PyTorch), or ``dcr``, place by place (TensorFlow)."""

    def __post_init__(self) -> None:
        _positive(self, "in_channels", "classes", "width", "dilation", "upscale")
        _between(self, "depth", 1, 6)
        _one_of(self, up=UPS, padding=PADDINGS, down=DOWNS, norm=NORMS, activation=ACTIVATIONS, block=BLOCKS)
        _one_of(self, halving=HALVINGS, dropout_kind=DROPOUTS, shuffle=SHUFFLES, head_kernel=(1, 3))
        if [0 <= share < 1 for share in self.dropout] != [True, True]:
            raise UsageError(f"--dropout is two shares from 0 to less than 1, got {self.dropout}")
        if self.halving != "conv" and not self.up.startswith("bilinear"):
            raise UsageError(
                f"--halving {self.halving} is for bilinear interpolation, got --up {self.up}; "
                "use --halving conv"
            )
        self._check_valid()

    def _check_valid(self) -> None:
        """Without padding, only what keeps skips and grown maps on one grid."""
        fine = {
            "down": ("maxpool",),
            "up": ("transposed", "nearest1"),
            "head_kernel": (1,),
            "block": ("plain",),
        }
        wrong = [name for name, values in fine.items() if getattr(self, name) not in values]
        wrong += ["dilation"] * (self.dilation > 1) + ["odd"] * self.odd
        if self.padding == "valid" and wrong:
            value = getattr(self, wrong[0])
            raise UsageError(
                "--padding valid goes with --down maxpool, --up transposed or nearest1, --block plain, "
                "--head-kernel 1, --dilation 1 and --no-odd, got "
                + (typed(wrong[0]) if value is True else f"{typed(wrong[0])} {value}")
            )

    @property
    def halved(self) -> int:
        """What deeper channels are divided by: 2 if the block before an interpolation halves them."""
        return 2 if self.halving == "block" else 1

    @property
    def inexact(self) -> tuple[str, ...]:
        """Why tiles do not equal the whole image; empty if they do."""
        return _aligned(self.up) + _over_tile(self.norm)

    @property
    def geometry(self) -> Geometry:
        """Its sizes and its halo."""
        stride, path = 2**self.depth, tuple(self._path())
        if self.padding == "valid":
            # A bottom of 8 pixels is the smallest that leaves any score; of depth 1, of 7.
            least = (12 if self.depth > 1 else 11) * stride - 4
            return Geometry(path, stride, self.upscale, 6 * stride - 4, -4 % stride, least)
        # Reflection needs a second pixel to reflect, a dilated one more.
        least = stride * (1 + self.dilation) if self.padding == "reflect" else stride
        return Geometry(path, stride, self.upscale, least=least, any_size=self.odd)

    def _path(self) -> Iterator[IndexMap]:
        pad = 0 if self.padding == "valid" else 1
        pair = (Window(3, 1, pad),) * 2
        yield Repeated(self.upscale)
        yield Window(self.head_kernel, 1, self.head_kernel // 2)
        for _ in range(self.depth):
            yield from (*pair, *grown_path(self.up))
        yield from (Window(2 * self.dilation + 1, 1, pad * self.dilation),) * 2
        for _ in range(self.depth):
            yield Window(2, 2) if self.down == "maxpool" else Window(3, 2, 1)
            yield from pair


@dataclass(frozen=True, slots=True)
class NestedOptions:
    """UNet++: between each skip and where it goes, blocks that see all before them and what is below."""

    in_channels: int
    """Bands, C."""
    classes: int
    """K."""
    depth: int = 4
    """How often the sides are halved, 1 to 6; 1 to 4 are the pruned forms L1 to L4."""
    width: int = 8
    """Channels of the first row."""
    up: str = "bilinear"
    """``bilinear``, or ``bilinear-aligned``, with align_corners=True, of which no tile is exact."""
    norm: str = "batch"
    activation: str = "relu"
    slope: float = 0.01
    """Of ``leaky`` below zero."""
    bias: bool = True
    """Whether convolutions that a norm follows have a bias too."""
    supervision: bool = True
    """Whether every node of the first row has a head, all of which are trained."""
    answer: str = "last"
    """With supervision, what is returned in evaluation mode: the ``last`` head, or the ``average`` of all."""

    def __post_init__(self) -> None:
        _positive(self, "in_channels", "classes", "width")
        _between(self, "depth", 1, 6)
        _one_of(self, up=UPS[3:], norm=NORMS, activation=ACTIVATIONS, answer=ANSWERS)
        if self.answer == "average" and not self.supervision:
            raise UsageError("answer=average is of several heads, got --no-supervision")

    @property
    def inexact(self) -> tuple[str, ...]:
        """Why tiles do not equal the whole image; empty if they do."""
        return _aligned(self.up) + _over_tile(self.norm)

    @property
    def geometry(self) -> Geometry:
        """Its sizes and its halo; the way down to the bottom and up again sees farthest."""
        stride = 2**self.depth
        pair = (Window(3, 1, 1),) * 2
        up = (*pair, *grown_path(self.up)) * self.depth
        down = (Window(2, 2), *pair) * self.depth
        return Geometry((*up, *pair, *down), stride, least=stride)


@dataclass(frozen=True, slots=True)
class EncodedOptions:
    """A U-Net whose contracting path is a network made to classify images."""

    in_channels: int
    """Bands, C."""
    classes: int
    """K."""
    encoder: str = "resnet18"
    """``vgg16``, ``vgg16-bn``, ``resnet18``, ``resnet34`` or ``resnet50``."""
    width: int = 64
    """Channels of the encoder's first layer; published weights are of 64."""
    up: str = "bilinear"
    """``bilinear``, or ``bilinear-aligned``, with align_corners=True, of which no tile is exact."""
    norm: str = "batch"
    """Of the expanding path."""
    narrow_first: bool = False
    """Whether the first of two convolutions has half the channels that come in, not those that go out."""
    ceil_pool: bool = False
    """Whether a ResNet's pooling pads at its end only, as Bubbliiiing's does; others pad on both sides."""
    odd: bool = False
    """VGG: take any size: what is grown is padded with zeros to its skip."""

    def __post_init__(self) -> None:
        _positive(self, "in_channels", "classes", "width")
        _one_of(self, encoder=ENCODERS, up=UPS[3:], norm=NORMS)
        if self.odd and self.residual:
            raise UsageError(f"--odd is for VGG encoders, got encoder={self.encoder}")

    @property
    def residual(self) -> bool:
        """Whether the encoder is a ResNet."""
        return self.encoder.startswith("resnet")

    @property
    def inexact(self) -> tuple[str, ...]:
        """Why tiles do not equal the whole image; empty if they do."""
        return _aligned(self.up) + _over_tile(self.norm)

    @property
    def geometry(self) -> Geometry:
        """Its sizes and its halo."""
        stride = 32 if self.residual else 16
        merge = (Window(3, 1, 1), Window(3, 1, 1), *grown_path(self.up))
        up = merge * (5 if self.residual else 4)
        return Geometry((*up, *self._encoder_path()), stride, least=stride, any_size=self.odd)

    def _encoder_path(self) -> Iterator[IndexMap]:
        """From the coarsest map back to the pixels."""
        conv = Window(3, 1, 1)
        if not self.residual:
            yield from (conv,) * 3
            for convolutions in (3, 3, 2, 2):
                yield from (Window(2, 2), *(conv,) * convolutions)
            return
        for stage, units in reversed(list(enumerate(UNITS[self.encoder]))):
            each = 1 if self.encoder == "resnet50" else 2
            for unit in reversed(range(units)):
                yield from (conv,) * (each - 1)
                yield Window(3, 2, 1) if stage and not unit else conv
        yield Window(3, 2, 0 if self.ceil_pool else 1)
        yield Window(7, 2, 3)


UNITS: Final = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
"""Residual units per stage (He et al., arXiv:1512.03385)."""

Options = UNetOptions | NestedOptions | EncodedOptions
KINDS: Final[dict[str, type[Options]]] = {
    "unet": UNetOptions,
    "nested": NestedOptions,
    "encoded": EncodedOptions,
}
"""By the name under which they are saved."""


def grown_path(up: str) -> tuple[IndexMap, ...]:
    """How a map of twice the size reads the coarser one."""
    if up.startswith("bilinear"):
        return (Sampled(Fraction(2), Fraction(-1, 4), "linear"),)
    return (Window(3, 1, 1), Repeated(2)) if up == "nearest3" else (Repeated(2),)


def _aligned(up: str) -> tuple[str, ...]:
    return (ALIGNED,) if up == "bilinear-aligned" else ()


def _over_tile(norm: str) -> tuple[str, ...]:
    if norm not in ("group", "instance"):
        return ()
    return (f"{norm} normalisation takes its mean and deviation over the whole tile (norm={norm})",)


def _positive(options: Options, *names: str) -> None:
    for name in names:
        if getattr(options, name) < 1:
            raise UsageError(f"{typed(name)} is at least 1, got {getattr(options, name)}")


def _between(options: Options, name: str, low: int, high: int) -> None:
    if not low <= getattr(options, name) <= high:
        raise UsageError(f"{typed(name)} is {low} to {high}, got {getattr(options, name)}")


def _one_of(options: Options, **allowed: tuple[object, ...]) -> None:
    for name, values in allowed.items():
        if getattr(options, name) not in values:
            known = ", ".join(map(str, values))
            raise UsageError(f"{typed(name)} is one of {known}, got {getattr(options, name)!r}")
