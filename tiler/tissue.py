"""Where a slide has tissue: what is darker than glass, at the scale of a thumbnail.

Glass is the median colour of what is nowhere darker than `DARKEST_GLASS`; slides that have no such pixels,
as in fluorescence, are tissue all over. Tissue absorbs light: in one channel at least it is `THRESHOLD` grey
levels darker than glass. Gaps of `CLOSING` are closed, pieces and holes smaller than an area go, and a margin
is added. That is the usual recipe (CLAM: Lu et al., Nature Biomedical Engineering 5, 2021) but for two
things. Darkness replaces saturation, which grey tissue does not have. And the threshold is fixed: Otsu's
method parts dark tissue from pale tissue as often as tissue from glass (`tiler/DESIGN.md`).
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import rasterio.features

from tiler.blocks import BlockGrid, BlockSet
from tiler.damage import DamageLog
from tiler.geometry import Window
from tiler.open import open_raster
from tiler.overlay import outline
from tiler.readers.slide import METRES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.options import RunOptions
    from tiler.ports import Raster, RasterInfo

MPP: Final = 8.0
"""Micrometres per pixel of the thumbnail in which tissue is looked for."""
LONGEST: Final = 4096
"""Pixels of its longer side, at most."""
THRESHOLD: Final = 12.0
"""Grey levels; glass varies by 3 or 4 within a slide, the palest tissue differs by some 15."""
SMALLEST: Final = 0.0001
"""mm2: a square of 10 micrometres, so that single cells are kept, and one dark pixel is not."""
DARKEST_GLASS: Final = 220
"""Grey level, in each channel."""
CLOSING: Final = 2
"""Pixels on each side, as MARGIN."""
MARGIN: Final = 2
READ: Final = 1 << 22
"""Pixels of the slide that are read at once to make some of the thumbnail's."""
PREVIEW: Final = 1000
"""Pixels of the preview's longer side, at most."""
OUTLINE: Final = (0, 160, 0)


@dataclass(frozen=True, slots=True)
class TissueSettings:
    """How tissue is told from glass."""

    threshold: float = THRESHOLD
    """Grey levels that tissue is darker than glass, at least."""
    area: float = SMALLEST
    """mm2 of the smallest piece, and of the smallest hole."""


@dataclass(slots=True, eq=False)
class TissueMask:
    """Wanted is tissue; a `tiler.ports.Mask`. The thumbnail is read when it is first asked for."""

    thumbnail: Raster
    """Of the slide, all bands."""
    info: RasterInfo
    """Of the plane that the network is fed."""
    settings: TissueSettings
    damage: DamageLog
    """Of the thumbnail; what cannot be read may be tissue."""
    _tissue_HW: NDArray[np.bool_] | None = field(init=False, default=None)
    _preview_CHW: NDArray[np.uint8] | None = field(init=False, default=None)
    _looking: threading.Lock = field(init=False, default_factory=threading.Lock)

    def found(self) -> NDArray[np.bool_]:
        """Where tissue is in the thumbnail."""
        with self._looking:
            if self._tissue_HW is None:
                self._tissue_HW, self._preview_CHW = self._look()
        return self._tissue_HW

    def _look(self) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        small = self.thumbnail.info
        assert small.ground is not None  # noqa: S101 - a slide without mpp is refused
        raw_CHW = np.empty((small.bands, small.height, small.width), np.uint8)
        valid_HW = np.empty(raw_CHW.shape[1:], np.bool_)
        side = max(16, math.isqrt(round(READ / max(small.shrink, 1))))
        for window in BlockSet.all(BlockGrid(small.height, small.width, side)):
            pixels = self.thumbnail.read(window)
            raw_CHW[:, *window.slices], valid_HW[window.slices] = pixels.raw_CHW, pixels.valid_HW
        smallest = self.settings.area * 1e-6 / (small.ground[0] * small.ground[1])
        tissue_HW = tissue_of(raw_CHW, valid_HW, self.settings.threshold, round(smallest))
        for damaged in self.damage.found:
            tissue_HW[self._in_thumbnail(damaged.window).slices] = True
        return tissue_HW, preview(raw_CHW, tissue_HW)

    def _in_thumbnail(self, window: Window) -> Window:
        """A window of level 0, rounded outward."""
        step, small = self.thumbnail.info.to_level0, self.thumbnail.info
        assert step is not None  # noqa: S101 - it is of a slide
        part = Window(
            int(window.top / step.e),
            int(window.left / step.a),
            math.ceil(window.bottom / step.e),
            math.ceil(window.right / step.a),
        )
        return part.intersection(Window(0, 0, small.height, small.width))

    def read(self, window: Window) -> NDArray[np.bool_]:
        """True where tissue is, under the centre of each pixel."""
        fed, small = self.info.to_level0, self.thumbnail.info.to_level0
        assert fed is not None  # noqa: S101 - only slides have tissue
        assert small is not None  # noqa: S101 - as above
        tissue_HW = self.found()
        rows = _under(window.top, window.bottom, fed.e / small.e, tissue_HW.shape[0])
        columns = _under(window.left, window.right, fed.a / small.a, tissue_HW.shape[1])
        return tissue_HW[np.ix_(rows, columns)]

    def picture(self) -> NDArray[np.uint8]:
        """The thumbnail (3, H, W) with the outline of the tissue in it."""
        self.found()
        assert self._preview_CHW is not None  # noqa: S101 - it was just made
        return self._preview_CHW

    def facts(self) -> dict[str, Any]:
        """What the report says of it: the part of the slide that is tissue, and how it was found."""
        small = self.thumbnail.info
        return {
            "share": round(float(self.found().mean()), 6),
            "threshold": self.settings.threshold,
            "smallest_mm2": self.settings.area,
            "thumbnail": f"{small.width} x {small.height} px",
        }


def open_tissue(native: Raster, fed: RasterInfo, options: RunOptions) -> TissueMask | None:
    """Where the tissue of a slide is, for a plane of it; None if it is no slide, or all of it is wanted."""
    info = native.info
    if options.tissue == "off" or info.to_level0 is None or info.dtype != np.uint8:
        return None
    damage = DamageLog()
    thumbnail = open_raster(
        info.name,
        mpp=thumbnail_mpp(info),
        assume_mpp=options.assume_mpp,
        allow_vrt=options.allow_vrt,
        colours=True,
        damage=damage,
    )
    settings = TissueSettings(
        THRESHOLD if options.tissue_threshold is None else options.tissue_threshold,
        SMALLEST if options.tissue_area is None else options.tissue_area,
    )
    return TissueMask(thumbnail, fed, settings, damage)


def _under(first: int, last: int, step: float, extent: int) -> NDArray[np.int64]:
    """Index of the thumbnail's pixel under the centre of each pixel of an axis."""
    return np.minimum(((np.arange(first, last) + 0.5) * step).astype(np.int64), extent - 1)


def preview(raw_CHW: NDArray[np.uint8], tissue_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A thumbnail, or every n-th pixel of it, with the outline of the tissue."""
    step = math.ceil(max(tissue_HW.shape) / PREVIEW)
    photo_CHW = raw_CHW if len(raw_CHW) == 3 else raw_CHW[[0, 0, 0]]
    drawn_CHW = photo_CHW[:, ::step, ::step].copy()
    drawn_CHW[:, outline(tissue_HW[::step, ::step])] = np.array(OUTLINE, np.uint8)[:, None]
    return drawn_CHW


def thumbnail_mpp(info: RasterInfo) -> float:
    """Micrometres per pixel of the thumbnail of a slide whose level 0 this is."""
    assert info.ground is not None  # noqa: S101 - a slide without mpp is refused
    own = max(info.ground) / METRES
    coarse = max(MPP, own, own * max(info.height, info.width) / LONGEST)
    return min(coarse, own * min(info.height, info.width))


def tissue_of(
    raw_CHW: NDArray[np.uint8], valid_HW: NDArray[np.bool_], threshold: float, smallest: int
) -> NDArray[np.bool_]:
    """Which pixels of a thumbnail are tissue; pieces and holes have at least ``smallest`` pixels."""
    if not valid_HW.any():
        return np.zeros(valid_HW.shape, np.bool_)
    bright_HW = valid_HW & (raw_CHW.min(axis=0) >= DARKEST_GLASS)
    if not bright_HW.any():
        return np.ones(valid_HW.shape, np.bool_)
    darker_HW = np.zeros(valid_HW.shape, np.bool_)
    for raw_HW in raw_CHW:
        darker_HW |= raw_HW <= np.median(raw_HW[bright_HW]) - threshold
    found_HW = grown(valid_HW & darker_HW, CLOSING)
    found_HW = ~grown(~found_HW, CLOSING)
    if 1 < smallest < found_HW.size:
        sieved_HW = rasterio.features.sieve(found_HW.astype(np.uint8), size=smallest, connectivity=8)
        found_HW = sieved_HW != 0
    return grown(found_HW, MARGIN)


def grown(area_HW: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """With everything within a square of ``by`` pixels on each side."""
    for _ in range(by):
        padded_HW = np.pad(area_HW, 1)
        rows_HW = padded_HW[:-2] | padded_HW[1:-1] | padded_HW[2:]
        area_HW = rows_HW[:, :-2] | rows_HW[:, 1:-1] | rows_HW[:, 2:]
    return area_HW
