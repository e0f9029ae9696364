"""Polygons as pixels: each pixel has the value of the polygon that its centre lies in."""

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

    from affine import Affine
    from numpy.typing import NDArray

    from tiler.geometry import Window

CELL: Final = 1024
"""Side of the squares in which polygons are burnt, whatever the window: a pixel whose centre lies on an edge
must not be in or out by where the window begins."""
CELLS_KEPT: Final = 32


@dataclass(slots=True, eq=False)
class Burnt:
    """A plane of values."""

    shapes: list[dict[str, Any]]
    """GeoJSON polygons; later ones lie on top."""
    values_P: NDArray[Any]
    """One per polygon, of the plane's dtype."""
    extent: tuple[int, int]
    """Height and width, pixels."""
    transform: Affine
    """Pixel corners to the polygons' coordinates."""
    outside: int = 0
    """Value of pixels in no polygon."""
    _bounds_P4: NDArray[np.int64] = field(init=False)
    """Of each polygon in pixels: top, left, bottom, right."""
    _cell: Callable[[int, int], NDArray[Any]] = field(init=False)

    def __post_init__(self) -> None:
        bounds = [self._pixel_bounds(shape) for shape in self.shapes]
        self._bounds_P4 = np.array(bounds, np.int64).reshape(-1, 4)
        self._cell = lru_cache(CELLS_KEPT)(self._burn)

    def _pixel_bounds(self, shape: dict[str, Any]) -> tuple[int, int, int, int]:
        west, south, east, north = rasterio.features.bounds(shape)
        corners = [~self.transform @ (x, y) for x in (west, east) for y in (south, north)]
        columns, rows = zip(*corners, strict=True)
        limit = 2**62
        low, high = np.floor([min(rows), min(columns)]), np.ceil([max(rows), max(columns)])
        top, left = np.clip(low, -limit, limit).astype(np.int64)
        bottom, right = np.clip(high, -limit, limit).astype(np.int64)
        return int(top), int(left), int(bottom), int(right)

    def near(self, window: Window) -> NDArray[np.bool_]:
        """Which polygons' boxes reach into a window."""
        top, left, bottom, right = self._bounds_P4.T
        inside = (top < window.bottom) & (bottom > window.top) & (left < window.right) & (right > window.left)
        return np.asarray(inside)

    def read(self, window: Window) -> NDArray[Any]:
        """Values of the pixels of a window."""
        values_HW = np.full(window.shape, self.outside, self.values_P.dtype)
        if not self.near(window).any():
            # Most of a large raster may be far from any polygon.
            return values_HW
        grid = BlockGrid(*self.extent, CELL)
        rows, columns = grid.blocks(window)
        for row in range(rows.start, rows.stop):
            for column in range(columns.start, columns.stop):
                cell = grid.window(row, column)
                part = cell.intersection(window)
                place = part.shifted(-window.top, -window.left).slices
                inside = part.shifted(-cell.top, -cell.left).slices
                values_HW[place] = self._cell(row, column)[inside]
        return values_HW

    def _burn(self, row: int, column: int) -> NDArray[Any]:
        cell = BlockGrid(*self.extent, CELL).window(row, column)
        shapes = [(self.shapes[i], int(self.values_P[i])) for i in np.flatnonzero(self.near(cell))]
        cell_HW = np.full(cell.shape, self.outside, self.values_P.dtype)
        if shapes:
            transform = rasterio.windows.transform(as_rasterio(cell), self.transform)
            rasterio.features.rasterize(shapes, out=cell_HW, transform=transform)
        return cell_HW
