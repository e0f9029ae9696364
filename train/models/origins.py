"""Which weight of ours a weight of a public repository is, by its name.

The names are facts about published files: what their layers are called. A map is from the beginning of a
name there to the beginning of the name here; what none of them begins is not ours.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS: Final = range(4)
"""All these networks halve the sides four times; expanding blocks are counted from the bottom."""

_PAIR: Final = {"conv1.": "0.", "bn1.": "1.", "conv2.": "3.", "bn2.": "4."}
"""Within a block of two convolutions with batch normalisation."""

_MILESIAL: Final = {
    "inc.double_conv.": "first.",
    **{f"down{i + 1}.maxpool_conv.1.double_conv.": f"down.{i}." for i in LEVELS},
    **{f"up{i + 1}.up.": f"up.{i}." for i in LEVELS},
    **{f"up{i + 1}.conv.double_conv.": f"merge.{i}." for i in LEVELS},
    "outc.conv.": "head.",
}
_WZM: Final = {
    "in_conv.": "first.",
    **{f"down{i + 1}.1.": f"down.{i}." for i in LEVELS},
    **{f"up{i + 1}.up.": f"up.{i}." for i in LEVELS},
    **{f"up{i + 1}.conv.": f"merge.{i}." for i in LEVELS},
    "out_conv.0.": "head.",
}
_WZM_VGG: Final = {
    "backbone.": "encoder.features.",
    **{f"up{i + 1}.conv.": f"merge.{i}." for i in LEVELS},
    "conv.0.": "head.",
}
_BUBBLIIIING: Final = {
    "vgg.": "encoder.",
    "resnet.": "encoder.",
    **{f"up_concat{4 - i}.conv1.": f"merge.{i}.0." for i in LEVELS},
    **{f"up_concat{4 - i}.conv2.": f"merge.{i}.2." for i in LEVELS},
    "up_conv.1.": "last.0.",
    "up_conv.3.": "last.2.",
    "final.": "head.",
}
_MILU: Final = {
    "c1.layer.": "first.",
    **{f"c{i + 2}.layer.": f"down.{i}." for i in LEVELS},
    **{f"d{i + 1}.layer.": f"pool.{i}." for i in LEVELS},
    **{f"u{i + 1}.layer.": f"up.{i}.0." for i in LEVELS},
    **{f"c{i + 6}.layer.": f"merge.{i}." for i in LEVELS},
    "out.": "head.",
}
_MILU_LISTING: Final = {
    "C1.layer.": "first.",
    **{f"C{i + 2}.layer.": f"down.{i}." for i in LEVELS},
    **{f"D{i + 1}.Down.": f"pool.{i}." for i in LEVELS},
    **{f"U{i + 1}.Up.": f"up.{i}.0." for i in LEVELS},
    **{f"C{i + 6}.layer.": f"merge.{i}." for i in LEVELS},
    "pred.": "head.",
}
_NESTED_UNET: Final = {
    **{f"conv0_0.{a}": f"first.{b}" for a, b in _PAIR.items()},
    **{f"conv{i + 1}_0.{a}": f"down.{i}.{b}" for i in LEVELS for a, b in _PAIR.items()},
    **{f"conv{3 - i}_{i + 1}.{a}": f"merge.{i}.{b}" for i in LEVELS for a, b in _PAIR.items()},
    "final.": "head.",
}
_NESTED: Final = {
    **{
        f"conv{i}_{j}.{a}": f"node.{i}_{j}.{b}"
        for i in range(5)
        for j in range(5 - i)
        for a, b in _PAIR.items()
    },
    "final.": "head.0.",
    **{f"final{i + 1}.": f"head.{i}." for i in LEVELS},
}
_LEE: Final = {
    "Conv1.conv.": "first.",
    **{f"Conv{i + 2}.conv.": f"down.{i}." for i in LEVELS},
    **{f"Up{5 - i}.up.": f"up.{i}." for i in LEVELS},
    **{f"Up_conv{5 - i}.conv.": f"merge.{i}." for i in LEVELS},
    **{f"Att{5 - i}.W_g.": f"gate.{i}.grown." for i in LEVELS},
    **{f"Att{5 - i}.W_x.": f"gate.{i}.skip." for i in LEVELS},
    **{f"Att{5 - i}.psi.": f"gate.{i}.weigh." for i in LEVELS},
    "Conv_1x1.": "head.",
}
_TORCHVISION: Final = {
    name: f"encoder.{name}" for name in ("features.", "conv1.", "bn1.", *(f"layer{i + 1}." for i in LEVELS))
}

ORIGINS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "gigatiler": {"": ""},
        "milesial": _MILESIAL,
        "wzm": _WZM,
        "wzm-vgg16-bn": _WZM_VGG,
        "bubbliiiing": _BUBBLIIIING,
        "milu": _MILU,
        "milu-listing": _MILU_LISTING,
        "nested-unet": _NESTED_UNET,
        "nested": _NESTED,
        "leejunhyun": _LEE,
        "torchvision": _TORCHVISION,
    }
)
"""By where the file comes from; milesial's are those of the cropland listing too."""


def renamed(name: str, origin: str) -> str | None:
    """The name here of a weight there, None if it is not ours.

    >>> renamed("down1.maxpool_conv.1.double_conv.0.weight", "milesial")
    'down.0.0.weight'
    """
    for there, here in ORIGINS[origin].items():
        if name.startswith(there):
            return here + name[len(there) :]
    return None
