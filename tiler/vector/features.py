"""Polygons -> features: coordinates, class, area."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rasterio._err import CPLE_BaseError  # no public name, and no RasterioError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_points

from tiler.errors import InputError, one_line
from tiler.readers.ground import WGS84

if TYPE_CHECKING:
    from affine import Affine
    from numpy.typing import NDArray

    from tiler.spec import ClassSpec
    from tiler.vector.polygonise import Polygons

STEP: Final = 256
"""Pixels; an edge that is to be bent is cut into pieces of no more."""
DECIMALS: Final = 9
"""Of degrees: a tenth of a millimetre."""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """P polygons with attributes."""

    shapes_P: NDArray[Any]
    """Shapely polygons, exterior rings counter-clockwise where y goes up."""
    values_P: NDArray[np.int64]
    """Class numbers."""
    classes_P: list[ClassSpec]
    areas_P: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values_P)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The coordinates in which features are written."""

    transform: Affine
    """From pixels of the label raster."""
    crs: CRS | None
    """None: pixels."""
    source: CRS | None = None
    """The CRS that ``transform`` leads to, where that is another one."""

    @classmethod
    def degrees(cls, transform: Affine, source: CRS) -> Frame:
        """Longitude and latitude."""
        return cls(transform, CRS.from_string(WGS84), source)

    def shapes(self, polygons: Polygons) -> NDArray[Any]:
        """Shapely polygons in these coordinates.

        Raises
        ------
        InputError
            if the raster reaches beyond where its CRS is defined.
        """
        import shapely

        if self.source is not None:
            polygons = _dense(polygons)
        x, y = polygons.points_N2.T
        t = self.transform
        points_N2 = np.column_stack([t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f])
        if self.source is not None:
            points_N2 = _degrees(points_N2, self.source)
        if t.determinant < 0:
            points_N2 = points_N2[_backward(polygons.ring_ends_G)]
        ends = (_offsets(polygons.ring_ends_G), _offsets(polygons.polygon_ends_P))
        return np.asarray(shapely.from_ragged_array(shapely.GeometryType.POLYGON, points_N2, ends))


def _offsets(ends: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], ends])


def _backward(ends_G: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of every point with each ring the other way round."""
    starts_G = _offsets(ends_G)[:-1]
    return np.repeat(starts_G + ends_G - 1, ends_G - starts_G) - np.arange(ends_G[-1])


def _dense(polygons: Polygons) -> Polygons:
    """The same outlines with points on long edges: straight lines of one CRS are bent in another."""
    points_N2 = polygons.points_N2.astype(np.float64)
    steps_N2 = np.diff(points_N2, axis=0, append=points_N2[-1:])
    # From the end of a ring there is no edge to the next one.
    steps_N2[polygons.ring_ends_G - 1] = 0
    pieces_N = np.ceil(np.abs(steps_N2).max(axis=1) / STEP).clip(1).astype(np.int64)
    ends_N = np.cumsum(pieces_N)
    edge_M = np.repeat(np.arange(len(pieces_N)), pieces_N)
    share_M = (np.arange(ends_N[-1]) - (ends_N - pieces_N)[edge_M]) / pieces_N[edge_M]
    dense_M2 = points_N2[edge_M] + share_M[:, None] * steps_N2[edge_M]
    return replace(polygons, points_N2=dense_M2, ring_ends_G=ends_N[polygons.ring_ends_G - 1])


def _degrees(points_N2: NDArray[np.float64], source: CRS) -> NDArray[np.float64]:
    try:
        placed_N2 = np.column_stack(transform_points(source, WGS84, *points_N2.T))
    except (CPLE_BaseError, RasterioError) as error:
        raise InputError(
            f"GeoJSON is in degrees, and {source} does not lead there ({one_line(error)}); take --vector gpkg"
        ) from None
    if not np.isfinite(placed_N2).all():
        raise InputError(f"GeoJSON is in degrees, and the raster reaches beyond {source}; take --vector gpkg")
    return np.round(placed_N2, DECIMALS)
