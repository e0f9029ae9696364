"""Images with their labels, opened when they are needed and read through one cache.

Here labels become targets: classes, and `IGNORE` wherever the pixel or its class is not known.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

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
"""Memory for decoded blocks, in each process that reads samples."""
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
        target_CHW[:, ~(pixels.valid_HW & labels.valid_HW & self.inside(window))] = IGNORE
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
    opened: OrderedDict[Source, Labelled] = field(default_factory=OrderedDict, init=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Library, (self.legend, self.gaps)

    @property
    def classes(self) -> int:
        """K."""
        return len(self.legend.classes)

    def open(self, source: Source) -> Labelled:
        """The source, opened now or a while ago."""
        if source not in self.opened:
            self.opened[source] = self._open(source)
        self.opened.move_to_end(source)
        if len(self.opened) > OPEN_AT_ONCE:
            self.opened.popitem(last=False)
        return self.opened[source]

    def _open(self, source: Source) -> Labelled:
        image = open_image(source.image, source.view)
        labels = source.labels.open(image.info, self.legend)
        region = None if source.region is None else open_mask_file(source.region, image.info)
        resize = source.view.resize
        place = None if resize is None else resize.place(image.info.height, image.info.width)

        def ready(name: str, plane: Raster) -> Raster:
            if place is not None:
                plane = place.pixels(plane) if name == "image" else place.labels(plane)
            return CachedRaster(plane, self.cache, (source, name))

        target = ready("labels", labels.target)
        gaps = None
        if self.gaps is not None:
            objects = None if labels.objects is None else ready("objects", labels.objects)
            weights = GapRaster.of(target, objects, self.gaps)
            gaps = CachedRaster(weights, self.cache, (source, "gaps"))
        return Labelled(
            ready("image", image), target, None if region is None else ready("region", region), gaps
        )

    def info(self, source: Source) -> RasterInfo:
        """What is known of the source's raster."""
        return self.open(source).raster.info
