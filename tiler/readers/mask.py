"""Where a result is wanted: polygons, or a raster of yes and no. What lies outside is not computed.

A mask says nothing of the pixels: those outside are still seen by their neighbours' convolutions, so inside
the mask the result is the same as without one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tiler.readers.burnt import Burnt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.geometry import Window
    from tiler.ports import Mask, Raster, RasterInfo


@dataclass(frozen=True, slots=True, eq=False)
class RasterMask:
    """Wanted is what is neither 0 nor nodata."""

    raster: Raster
    """One band, on the grid of the raster that is segmented."""

    def read(self, window: Window) -> NDArray[np.bool_]:
        """True where wanted."""
        pixels = self.raster.read(window)
        values_HW = pixels.raw_CHW[0]
        return np.asarray(pixels.valid_HW & (values_HW != 0))


@dataclass(frozen=True, slots=True, eq=False)
class BothMasks:
    """Wanted is what both want."""

    first: Mask
    second: Mask

    def read(self, window: Window) -> NDArray[np.bool_]:
        """True where wanted."""
        wanted_HW = self.first.read(window)
        return wanted_HW & self.second.read(window) if wanted_HW.any() else wanted_HW


@dataclass(slots=True, eq=False)
class VectorMask:
    """Wanted are the pixels whose centres lie in a polygon."""

    shapes: list[dict[str, Any]]
    """GeoJSON polygons in the CRS of the raster that is segmented."""
    info: RasterInfo
    _burnt: Burnt = field(init=False)

    def __post_init__(self) -> None:
        assert self.info.transform is not None  # noqa: S101 - else it has no CRS for polygons to lie in
        inside_P = np.ones(len(self.shapes), np.uint8)
        extent = self.info.height, self.info.width
        self._burnt = Burnt(self.shapes, inside_P, extent, self.info.transform)

    def read(self, window: Window) -> NDArray[np.bool_]:
        """True where wanted."""
        return np.asarray(self._burnt.read(window) != 0)
