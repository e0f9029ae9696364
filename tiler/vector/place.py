"""Where a label raster lies, and how large its pixels are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from affine import Affine

from tiler.blocks import BlockGrid
from tiler.readers.ground import pixel_area
from tiler.vector.lattice import CELL

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.crs import CRS

    from tiler.ports import RasterInfo
    from tiler.vector.options import PolygonOptions

MICROMETRES: Final = 1e6
"""In a metre."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """The coordinates of polygons, and the unit of their areas."""

    crs: CRS | None
    """None: coordinates are pixels, y downward."""
    transform: Affine
    """From pixel corners of the label raster to coordinates."""
    pixels: Affine
    """From pixel corners of the label raster to pixels of the image at its finest."""
    unit: str
    """m2 on the ellipsoid, um2 on a slide; px where nothing is known of the ground."""
    areas_RC: NDArray[np.float64]
    """Area of a pixel at the middle of each square of `tiler.vector.lattice.CELL` pixels."""

    def note(self, options: PolygonOptions) -> str:
        """What whoever asked for a smallest area in m2 should know; empty: nothing."""
        if not options.min_area or self.crs is None or self.unit != "px":
            return ""
        return (
            f"areas, and --min-area {options.min_area:g}, are in pixels: the CRS of the raster does not say "
            "everywhere how large they are on the ground"
        )


def place_of(info: RasterInfo, pixels: Affine | None = None) -> Place:
    """The place of a raster: in its CRS; on its slide; or nowhere, with pixels for coordinates."""
    pixels = info.to_level0 or pixels or Affine.identity()
    grid = BlockGrid(info.height, info.width, CELL)
    ones_RC = np.ones(grid.shape)
    if info.to_level0 is not None and info.ground is not None:
        across, down = (side * MICROMETRES for side in info.ground)
        return Place(None, pixels, pixels, "um2", ones_RC * (across * down))
    if info.crs is None or info.transform is None:
        return Place(None, pixels, pixels, "px", ones_RC)
    rows, columns = grid.shape
    areas = [
        [pixel_area(info.crs, info.transform, grid.window(row, column)) for column in range(columns)]
        for row in range(rows)
    ]
    areas_RC = np.array(areas, np.float64)
    # Beyond where a CRS is defined there is no ground.
    unit, areas_RC = ("m2", areas_RC) if np.isfinite(areas_RC).all() else ("px", ones_RC)
    return Place(info.crs, info.transform, pixels, unit, areas_RC)
