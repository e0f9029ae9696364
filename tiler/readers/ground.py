"""Sizes on the ground. EPSG:3857 metres and degrees are not metres: everything goes through the ellipsoid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from rasterio._err import CPLE_BaseError  # no public name, and no RasterioError
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_points

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.crs import CRS

    from tiler.geometry import Window

WGS84: Final = "EPSG:4326"
SEMI_MAJOR: Final = 6_378_137.0
"""Metres, WGS 84."""
ECCENTRICITY_SQUARED: Final = 6.694379990141e-3
"""Of the WGS 84 ellipsoid."""

Vector = tuple[float, float]


def pixel_vectors(crs: CRS, transform: Affine, row: float, column: float) -> tuple[Vector, Vector] | None:
    """The steps of one column and of one row, as (east, north) metres on the ground at a pixel position.

    None where the position has no place on the Earth's ellipsoid and the CRS is not in metres either.
    A CRS of another body is taken at its own linear units.
    """
    # A step is cut short so that a pixel of kilometres still gives the local scale.
    points = [transform @ (column + dx, row + dy) for dx, dy in ((0, 0), (0.01, 0), (0, 0.01))]
    lonlat = _lonlat(crs, points)
    if lonlat is None:
        return _linear_vectors(crs, transform)
    (lon, lat), *others = lonlat
    sine = math.sin(math.radians(lat))
    bend = 1 - ECCENTRICITY_SQUARED * sine * sine
    east_per_degree = math.radians(SEMI_MAJOR / math.sqrt(bend)) * math.cos(math.radians(lat))
    north_per_degree = math.radians(SEMI_MAJOR * (1 - ECCENTRICITY_SQUARED) / bend**1.5)
    along, down = (
        (100 * _turn(x - lon) * east_per_degree, 100 * (y - lat) * north_per_degree) for x, y in others
    )
    return along, down


def _lonlat(crs: CRS, points: list[tuple[float, float]]) -> list[tuple[float, float]] | None:
    try:
        longitudes, latitudes = transform_points(crs, WGS84, [p[0] for p in points], [p[1] for p in points])
    except (CPLE_BaseError, RasterioError):
        return None
    if not all(map(math.isfinite, [*longitudes, *latitudes])):
        return None
    return list(zip(longitudes, latitudes, strict=True))


def _turn(degrees: float) -> float:
    """A difference of longitudes, brought back across the date line."""
    return (degrees + 180) % 360 - 180


def _linear_vectors(crs: CRS, transform: Affine) -> tuple[Vector, Vector] | None:
    if not crs.is_projected:
        return None
    metres = crs.linear_units_factor[1]
    return (transform.a * metres, transform.d * metres), (transform.b * metres, transform.e * metres)


def pixel_size(crs: CRS, transform: Affine, row: float, column: float) -> tuple[float, float] | None:
    """Metres on the ground of a step along a row and of a step down a column."""
    vectors = pixel_vectors(crs, transform, row, column)
    return None if vectors is None else (math.hypot(*vectors[0]), math.hypot(*vectors[1]))


def pixel_area(crs: CRS, transform: Affine, window: Window) -> float | None:
    """Square metres on the ground of the pixel in the middle of a window."""
    middle = (window.top + window.bottom) / 2, (window.left + window.right) / 2
    vectors = pixel_vectors(crs, transform, *middle)
    if vectors is None:
        return None
    (a, b), (c, d) = vectors
    return abs(a * d - b * c)
