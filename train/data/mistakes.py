"""What the masks of a data set hold as stored, and which of the classic mistakes that looks like.

Nothing is refused here: it is for people to look at before they train.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler.geometry import Window
from train.data.image import open_image, raw_mask
from train.data.legend import Instances, Threshold, packed
from train.data.maskfile import MaskFile
from train.data.polygons import LabelmeFile, VectorFile
from train.data.survey import squares
from train.data.target import IGNORE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from numpy.typing import NDArray

    from tiler.ports import Raster
    from train.data.labelled import Source
    from train.data.labels import LabelSource
    from train.data.legend import Legend

KEPT: Final = 4096
"""Different values that are counted; no drawing has so many."""
MANY: Final = 40
"""Different values, or colours, that a drawing of classes hardly has."""
SHOWN: Final = 12
LOSSY: Final = (".jpg", ".jpeg")


@dataclass(slots=True, eq=False)
class MaskValues:
    """Values of all masks that are rasters, or colours as 0xRRGGBB."""

    bands: int
    coding: str = ""
    """Of these masks, over that of the run."""
    pixels: Counter[int] = field(default_factory=Counter, init=False)
    """Per value."""
    masks: int = field(default=0, init=False)
    black: list[Path] = field(default_factory=list, init=False)
    """Masks that hold nothing but 0."""
    lossy: list[Path] = field(default_factory=list, init=False)
    more: bool = field(default=False, init=False)
    """Whether there are values that were not counted."""

    def add(self, path: Path, raster: Raster) -> None:
        """Count a mask's pixels."""
        self.masks += 1
        if path.suffix.lower() in LOSSY:
            self.lossy.append(path)
        black = True
        for window in squares(Window(0, 0, raster.info.height, raster.info.width)):
            pixels = raster.read(window)
            raw_CN = pixels.raw_CHW[:, pixels.valid_HW]
            values_N = packed(raw_CN) if self.bands == 3 else raw_CN[0].astype(np.int64)
            black &= not values_N.any()
            self._count(values_N)
        if black:
            self.black.append(path)

    def _count(self, values_N: NDArray[np.int64]) -> None:
        values, counts = np.unique(values_N, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            if value in self.pixels or len(self.pixels) < KEPT:
                self.pixels[value] += count
            else:
                self.more = True

    def line(self) -> str:
        """The commonest values and their shares, in one line."""
        total = max(self.pixels.total(), 1)
        shown = sorted(self.pixels.most_common(SHOWN))
        told = (f"{self.name(value)} {count / total:.2%}" for value, count in shown)
        rest = "" if len(self.pixels) <= SHOWN else f", ... {self.different} different ones"
        return f"values in {self.masks} mask{'s' * (self.masks > 1)}: {', '.join(told)}{rest}"

    def name(self, value: int) -> str:
        """As `--coding` has it."""
        return f"#{value:06x}" if self.bands == 3 else str(value)

    @property
    def different(self) -> str:
        """How many values there are."""
        return f"{len(self.pixels)}{' or more' if self.more else ''}"


def count_names(sources: Iterable[Source]) -> Counter[str]:
    """Polygons by what they are called; those that are called nothing are left out."""
    names: Counter[str] = Counter()
    for source in sources:
        if isinstance(source.labels, VectorFile | LabelmeFile):
            named = source.labels.named(open_image(source.image, source.view).info)
            names.update(name for _, name in named if name is not None)
    return names


def look(sources: Iterable[LabelSource]) -> list[MaskValues]:
    """What the masks hold, by their bands and coding; labels of other kinds have no values."""
    found: dict[tuple[int, str], MaskValues] = {}
    for source in sources:
        if isinstance(source, MaskFile):
            raster = raw_mask(source.path)
            key = raster.info.bands, source.coding
            found.setdefault(key, MaskValues(*key)).add(source.path, raster)
    return list(found.values())


def warnings(found: MaskValues, legend: Legend) -> list[str]:
    """What is probably not meant, a line each."""
    legend = replace(legend, coding=found.coding) if found.coding else legend
    coding, values = legend.raster, found.pixels.keys()
    lines = []
    if found.lossy:
        lines.append(
            f"JPEG changes values, {len(found.lossy)} of {found.masks} masks are: {found.lossy[0]}; "
            "save masks as PNG"
        )
    if len(values) > MANY and not isinstance(coding, Threshold | Instances):
        what = "colours" if found.bands == 3 else "values"
        lines.append(
            f"masks hold {found.different} {what}: JPEG, smoothing or resizing makes new ones; save masks as "
            "PNG, resize them by the nearest; --coding '>127' parts two classes, instances is for objects"
        )
    if found.bands == 1 and legend.coding == "index":
        lines += _index_warnings(values, legend)
    if found.bands == 1 and values == {0}:
        lines.append("masks hold 0 alone: there is one class; are these the masks, and are they drawn?")
    elif found.black:
        lines.append(f"{len(found.black)} of {found.masks} masks hold 0 alone, such as {found.black[0]}")
    if len(values) <= MANY and found.bands != coding.bands:
        lines.append(
            f"masks have {found.bands} bands, --coding {legend.coding} is of {coding.bands}; "
            f"try --coding '{_example(found, legend)}'"
        )
    return lines


def _index_warnings(values: AbstractSet[int], legend: Legend) -> list[str]:
    if values == {0, IGNORE}:
        told = f"0={legend.classes[0]},255={legend.classes[1]}"
        return [f"masks hold 0 and 255 alone, and 255 means not known; for a class say --coding '{told}'"]
    strange = sorted(values - {*range(len(legend.classes)), IGNORE})
    if not strange:
        return []
    shown = ", ".join(map(str, strange[:SHOWN])) + (", ..." if len(strange) > SHOWN else "")
    return [f"masks hold {shown}, which are no classes (0 to {len(legend.classes) - 1}); see --coding"]


def _example(found: MaskValues, legend: Legend) -> str:
    """A coding of the commonest values."""
    common = [found.name(value) for value, _ in found.pixels.most_common(len(legend.classes))]
    return ",".join(f"{value}={name}" for value, name in zip(common, legend.classes, strict=False))
