"""A label raster -> a file of its polygons: read, polygonised, written and counted, in one stream."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import rasterio

from tiler.errors import OutputError
from tiler.vector.features import Features, Frame
from tiler.vector.polygonise import Lattice, polygonise
from tiler.vector.writers import (
    CURE,
    DRIVERS,
    Layer,
    count_features,
    write_gdal,
    write_geojson,
    write_parquet,
    write_qupath,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tiler.vector.labels import Labels
    from tiler.vector.options import PolygonOptions
    from tiler.vector.place import Place

CACHE: Final = 16_000_000
"""Bytes of GDAL's cache: rows of tiles are read once, from top to bottom."""
WRITERS: Final[dict[str, Callable[..., None]]] = {
    **{kind: functools.partial(write_gdal, driver) for kind, driver in DRIVERS.items()},
    "parquet": write_parquet,
    "geojson": write_geojson,
    "qupath": write_qupath,
}


@dataclass(slots=True)
class Made:
    """What is in a file of polygons."""

    polygons: int = 0
    points: int = 0
    """Of all rings; each ends with the one it began with."""


def make_polygons(labels: Labels, place: Place, working: Path, target: Path, options: PolygonOptions) -> Made:
    """Write the polygons of a label raster to ``working``, to become ``target``, and count them.

    Raises
    ------
    DamageError
        if the raster cannot be read.
    OutputError
        if the file cannot be written, or does not hold what was written.
    """
    made = Made()
    layer = Layer(target, _frame(place, options), place.unit)
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        WRITERS[options.format](working, layer, _features(labels, place, layer.frame, options, made))
    found = count_features(options.format, working, layer)
    if found != made.polygons:
        raise OutputError(f"{target} holds {found} of {made.polygons} polygons; {CURE}")
    return made


def _frame(place: Place, options: PolygonOptions) -> Frame:
    """GeoJSON is in degrees (RFC 7946), QuPath's in pixels of the image; the others keep the CRS."""
    if options.format == "qupath":
        return Frame(place.pixels, None)
    if options.format == "geojson" and place.crs is not None:
        return Frame.degrees(place.transform, place.crs)
    return Frame(place.transform, place.crs)


def _features(
    labels: Labels, place: Place, frame: Frame, options: PolygonOptions, made: Made
) -> Iterator[Features]:
    """Every polygon, plane by plane; they are counted in ``made``."""
    for band in labels.bands:
        # In a plane of 0 and 1, 0 is no class.
        background = options.background and not labels.multilabel
        excluded = (labels.nodata, labels.nodata if background else 0)
        plan = Lattice(labels.info.width, place.areas_RC, excluded, options.min_area, options.simplify)
        for batch in polygonise(labels.chunks(band), plan):
            made.polygons += len(batch)
            made.points += len(batch.points_N2)
            classes = [labels.meaning(band, int(value)) for value in batch.values_P]
            values_P = np.full_like(batch.values_P, band - 1) if labels.multilabel else batch.values_P
            yield Features(frame.shapes(batch), values_P, classes, batch.areas_P)
