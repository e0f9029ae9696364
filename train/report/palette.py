"""Colours of classes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tiler.errors import UsageError
from tiler.spec import default_classes

if TYPE_CHECKING:
    from tiler.spec import ClassSpec

PALETTES: Final = ("own", "voc", "wheel")
VOC_CLASSES: Final = 21
"""With more classes neighbours in the VOC palette are hard to tell apart."""


def voc_color(index: int) -> tuple[int, int, int]:
    """Colour of a value, 0 to 255, in the masks of PASCAL VOC: its bits are dealt out to the bands in turn.

    >>> voc_color(1), voc_color(15), voc_color(255)
    ((128, 0, 0), (192, 128, 128), (224, 224, 192))
    """
    red, green, blue = (
        sum(((index >> (3 * bit + band)) & 1) << (7 - bit) for bit in range(3)) for band in range(3)
    )
    return red, green, blue


def colored(classes: tuple[ClassSpec, ...], palette: str = "own") -> tuple[ClassSpec, ...]:
    """The classes in their own colours, those of VOC, or round the wheel of hues.

    Above `VOC_CLASSES` classes, ``voc`` is the wheel too.

    Raises
    ------
    UsageError
        if there is no such palette.
    """
    if palette not in PALETTES:
        raise UsageError(f"a palette is one of {', '.join(PALETTES)}, got {palette!r}")
    if palette == "own":
        return classes
    if palette == "voc" and len(classes) <= VOC_CLASSES:
        return tuple(replace(kind, color=voc_color(index)) for index, kind in enumerate(classes))
    return default_classes(tuple(kind.name for kind in classes))
