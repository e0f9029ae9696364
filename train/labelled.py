"""Rasters with their label masks, opened when they are needed and read through one cache.

Here labels become targets: class indices, and `IGNORE` wherever the pixel or its class is not known.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tiler.errors import InputError
from tiler.open import Resolution, open_labels, open_raster
from train.cache import BlockCache, CachedRaster
from train.loss import IGNORE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tiler.geometry import Window
    from tiler.pixels import Pixels
    from tiler.ports import Raster, RasterInfo

CACHE_BYTES: Final = 2**30
"""Memory for decoded blocks, in each process that reads crops."""
OPEN_AT_ONCE: Final = 32
"""Rasters kept open; folders may hold more images than a process may open files."""


@dataclass(frozen=True, slots=True)
class Source:
    """A raster, its mask, and how to look at them."""

    image: Path
    mask: Path
    bands: tuple[int, ...] | None = None
    """Band numbers from 1; None: all but alpha."""
    resolution: float | None = None
    """Metres per pixel; None: the raster's own."""


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
    """One band, on the raster's grid."""
    classes: int
    """K: labels are 0 to K-1, or `IGNORE`."""

    def target(self, window: Window) -> NDArray[np.int64]:
        """Labels (H, W) as the mask has them; pixels without data are not yet ignored.

        Raises
        ------
        InputError
            if a label is neither a class nor `IGNORE`.
        """
        labels = self.labels.read(window)
        raw_HW = np.where(labels.valid_HW, labels.raw_CHW[0], IGNORE)
        unknown = (raw_HW != IGNORE) & ~np.isin(raw_HW, np.arange(self.classes))
        if unknown.any():
            raise InputError(
                f"mask values are the classes 0 to {self.classes - 1}, or {IGNORE} for not known, "
                f"got {raw_HW[unknown][0]:g} in {self.labels.info.name}; see --classes"
            )
        return raw_HW.astype(np.int64)

    def read(self, window: Window) -> tuple[Pixels, NDArray[np.int64]]:
        """Raw pixels, and target (H, W) with `IGNORE` where they are not valid."""
        pixels = self.raster.read(window)
        return pixels, np.where(pixels.valid_HW, self.target(window), IGNORE)


@dataclass(slots=True, eq=False)
class Library:
    """Opens sources. Sent to another process, it begins empty there."""

    classes: int
    cache: BlockCache = field(default_factory=lambda: BlockCache(CACHE_BYTES), init=False)
    opened: OrderedDict[Source, Labelled] = field(default_factory=OrderedDict, init=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Library, (self.classes,)

    def open(self, source: Source) -> Labelled:
        """The source, opened now or a while ago."""
        if source not in self.opened:
            self.opened[source] = self._open(source)
        self.opened.move_to_end(source)
        if len(self.opened) > OPEN_AT_ONCE:
            self.opened.popitem(last=False)
        return self.opened[source]

    def _open(self, source: Source) -> Labelled:
        resolution: Resolution = "native" if source.resolution is None else source.resolution
        raster = open_raster(source.image, bands=source.bands, resolution=resolution)
        labels = open_labels(source.mask, raster.info)
        return Labelled(
            CachedRaster(raster, self.cache, source.image),
            CachedRaster(labels, self.cache, source.mask),
            self.classes,
        )

    def info(self, source: Source) -> RasterInfo:
        """What is known of the source's raster."""
        return self.open(source).raster.info
