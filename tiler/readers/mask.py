"""Where a result is wanted: polygons, or a raster of yes and no. What lies outside is not computed.

A mask says nothing of the pixels: those outside are still seen by their neighbours' convolutions, so inside
the mask the result is the same as without one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import rasterio.features
import rasterio.windows

from tiler.blocks import BlockGrid
from tiler.readers.source import as_rasterio

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tiler.geometry import Window
    from tiler.ports import Mask, Raster, RasterInfo

CELL: Final = 1024
"""Side of the squares in which polygons are burnt, whatever the window: a pixel whose centre lies on an edge
must not be in or out by where the window begins."""
CELLS_KEPT: Final = 32


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
    _bounds_P4: NDArray[np.int64] = field(init=False)
    """Of each polygon in pixels: top, left, bottom, right."""
    _cell: Callable[[int, int], NDArray[np.bool_]] = field(init=False)

    def __post_init__(self) -> None:
        self._bounds_P4 = np.array([self._pixel_bounds(shape) for shape in self.shapes])
        self._cell = lru_cache(CELLS_KEPT)(self._burnt)

    def _pixel_bounds(self, shape: dict[str, Any]) -> tuple[int, int, int, int]:
        west, south, east, north = rasterio.features.bounds(shape)
        corners = [~self.info.transform @ (x, y) for x in (west, east) for y in (south, north)]  # type: ignore[operator]
        columns, rows = zip(*corners, strict=True)
        limit = 2**62
        low, high = np.floor([min(rows), min(columns)]), np.ceil([max(rows), max(columns)])
        top, left = np.clip(low, -limit, limit).astype(np.int64)
        bottom, right = np.clip(high, -limit, limit).astype(np.int64)
        return int(top), int(left), int(bottom), int(right)

    def read(self, window: Window) -> NDArray[np.bool_]:
        """True where wanted."""
        wanted_HW = np.zeros(window.shape, np.bool_)
        if not self._near(window).size:
            # Most of a large raster may be far from any polygon.
            return wanted_HW
        grid = BlockGrid(self.info.height, self.info.width, CELL)
        rows, columns = grid.blocks(window)
        for row in range(rows.start, rows.stop):
            for column in range(columns.start, columns.stop):
                cell = grid.window(row, column)
                part = cell.intersection(window)
                place = part.shifted(-window.top, -window.left).slices
                inside = part.shifted(-cell.top, -cell.left).slices
                wanted_HW[place] = self._cell(row, column)[inside]
        return wanted_HW

    def _near(self, window: Window) -> NDArray[np.int64]:
        """Index of each polygon whose bounds touch a window."""
        top, left, bottom, right = self._bounds_P4.T
        near_P = (top < window.bottom) & (bottom > window.top) & (left < window.right) & (right > window.left)
        return np.flatnonzero(near_P)

    def _burnt(self, row: int, column: int) -> NDArray[np.bool_]:
        cell = BlockGrid(self.info.height, self.info.width, CELL).window(row, column)
        shapes = [self.shapes[i] for i in self._near(cell)]
        if not shapes:
            return np.zeros(cell.shape, np.bool_)
        transform = rasterio.windows.transform(as_rasterio(cell), self.info.transform)
        burnt_HW = rasterio.features.rasterize(
            shapes, out_shape=cell.shape, transform=transform, dtype="uint8"
        )
        return np.asarray(burnt_HW != 0)
