"""Images with their labels, opened when they are needed and read through one cache.

Here labels become targets: classes, and `IGNORE` wherever the pixel or its class is not known.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tiler.readers.resized import resized, resized_labels
from train.data.cache import BlockCache, CachedRaster
from train.data.image import View, open_image, open_mask_file
from train.data.target import IGNORE
from train.data.weightmap import GapRaster

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tiler.geometry import Window
    from tiler.pixels import Pixels
    from tiler.ports import Raster, RasterInfo
    from train.data.gaps import Gaps
    from train.data.labels import LabelSource
    from train.data.legend import Legend

CACHE_BYTES: Final = 2**30
"""Memory for decoded blocks, of a process or of all that read samples for it."""
OPEN_AT_ONCE: Final = 32
"""Images kept open; folders may hold more than a process may open files."""


@dataclass(frozen=True, slots=True)
class Source:
    """An image, its labels, and how to look at it."""

    image: Path
    labels: LabelSource
    view: View = field(default_factory=View)
    region: Path | None = None
    """A mask of the image's size: where it is 0, the class is not known, whatever the labels say."""


@dataclass(frozen=True, slots=True)
class Part:
    """The rectangle of a source that is trained, validated or tested on."""

    source: Source
    window: Window


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """An opened source."""

    raster: Raster
    labels: Raster
    """As `OpenLabels.target`, on the raster's grid."""
    region: Raster | None = None
    """One band on the raster's grid: 0 outside the region of interest."""
    gaps: Raster | None = None
    """As `GapRaster`."""
    objects: Raster | None = None
    """As `OpenLabels.objects`, where gaps depend on them."""

    def read(self, window: Window) -> tuple[Pixels, NDArray[np.int64]]:
        """Raw pixels, and target (H, W), or (K, H, W) of independent classes; `IGNORE` where not valid.

        Raises
        ------
        InputError
            if a label there is not known to the legend.
        """
        pixels = self.raster.read(window)
        labels = self.labels.read(window)
        target_CHW = labels.raw_CHW.astype(np.int64)
        known_HW = pixels.valid_HW & labels.valid_HW
        if self.region is not None:
            known_HW &= self.inside(window)
        if not known_HW.all():
            target_CHW[:, ~known_HW] = IGNORE
        return pixels, target_CHW if len(target_CHW) > 1 else target_CHW[0]

    def inside(self, window: Window) -> NDArray[np.bool_]:
        """Where the region of interest is: everywhere if there is none."""
        if self.region is None:
            return np.ones(window.shape, np.bool_)
        pixels = self.region.read(window)
        return np.asarray(pixels.valid_HW & (pixels.raw_CHW[0] != 0))


@dataclass(slots=True, eq=False)
class Library:
    """Opens sources. Sent to another process, it begins empty there."""

    legend: Legend
    gaps: Gaps | None = None
    """How much more pixels between objects count; None: no more."""
    cache: BlockCache = field(default_factory=lambda: BlockCache(CACHE_BYTES), init=False)
    known: dict[Source, Labelled] = field(default_factory=dict, init=False)
    """All sources that were asked for."""
    opened: OrderedDict[Source, dict[str, Raster]] = field(default_factory=OrderedDict, init=False)
    """The planes of those used last, with their files."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Library, (self.legend, self.gaps)

    @property
    def classes(self) -> int:
        """K."""
        return len(self.legend.classes)

    def open(self, source: Source) -> Labelled:
        """The source; its files are opened now, a while ago, or when pixels are read that are not kept."""
        if source not in self.known:
            self.known[source] = self._labelled(source)
        return self.known[source]

    def info(self, source: Source) -> RasterInfo:
        """What is known of the source's raster."""
        return self.open(source).raster.info

    def planes(self, source: Source) -> dict[str, Raster]:
        """Image, labels, and where there are any objects and region, with their files open."""
        if source not in self.opened:
            self.opened[source] = opened_planes(source, self.legend)
        self.opened.move_to_end(source)
        if len(self.opened) > OPEN_AT_ONCE:
            self.opened.popitem(last=False)
        return self.opened[source]

    def _labelled(self, source: Source) -> Labelled:
        planes = {
            name: CachedRaster(Plane(self, source, name, plane.info), self.cache, (source, name))
            for name, plane in self.planes(source).items()
        }
        image, labels, region = planes["image"], planes["labels"], planes.get("region")
        if self.gaps is None:
            return Labelled(image, labels, region)
        objects = planes.get("objects")
        weights = GapRaster.of(labels, objects, self.gaps)
        return Labelled(image, labels, region, CachedRaster(weights, self.cache, (source, "gaps")), objects)


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """A raster of a source whose file need not be open."""

    library: Library
    source: Source
    name: str
    info: RasterInfo

    def empty(self, window: Window) -> bool:
        """Not known."""
        del window
        return False

    def read(self, window: Window) -> Pixels:
        """The pixels, from the file."""
        return self.library.planes(self.source)[self.name].read(window)


def opened_planes(source: Source, legend: Legend) -> dict[str, Raster]:
    """Everything of a source on one grid, by name."""
    image = open_image(source.image, source.view)
    labels = source.labels.open(image.info, legend)
    planes = {"labels": labels.target}
    if labels.objects is not None:
        planes["objects"] = labels.objects
    if source.region is not None:
        planes["region"] = open_mask_file(source.region, image.info)
    if source.view.resize is None:
        return {"image": image, **planes}
    place = source.view.resize.place(image.info.height, image.info.width)
    return {
        "image": resized(image, source.view.resize),
        **{name: resized_labels(p, place) for name, p in planes.items()},
    }
