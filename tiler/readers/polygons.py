"""Polygons from a file: GeoJSON by itself, other formats with the extra ``vector``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform_geom

from tiler.errors import InputError, MissingError, one_line

if TYPE_CHECKING:
    from pathlib import Path

GEOJSON: Final = (".geojson", ".json")
VECTOR: Final = (*GEOJSON, ".gpkg", ".shp", ".fgb", ".parquet", ".gml", ".kml")
POLYGONS: Final = ("Polygon", "MultiPolygon")
Shapes = list[dict[str, Any]]
"""GeoJSON geometries."""
MALFORMED: Final = (OSError, ValueError, LookupError, AttributeError, TypeError, CRSError)


def read_polygons(path: Path, target: CRS) -> Shapes:
    """The polygons of a file in another CRS.

    Raises
    ------
    InputError
        if it holds anything else, or nothing.
    MissingError
        if its format needs the extra ``vector``.
    """
    crs, shapes = _geojson(path) if path.suffix.lower() in GEOJSON else _features(path)
    odd = sorted({shape["type"] for shape in shapes} - set(POLYGONS))
    if odd or not shapes:
        raise InputError(f"a mask holds polygons, got {', '.join(odd) or 'nothing'} in {path}")
    try:
        return list(transform_geom(crs, target, shapes)) if crs != target else shapes
    except (RasterioError, ValueError) as error:
        raise InputError(f"cannot bring {path} from {crs} to {target}: {one_line(error)}") from None


def _geojson(path: Path) -> tuple[CRS, Shapes]:
    """The geometries of a GeoJSON file, in degrees unless it names another CRS as older ones do."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        name = content.get("crs", {}).get("properties", {}).get("name", "EPSG:4326")
        crs = CRS.from_user_input(name)
        features = content.get("features", [content])
        shapes = [feature.get("geometry", feature) for feature in features]
        return crs, [shape for shape in shapes if shape and shape["type"]]
    except (
        OSError,
        UnicodeDecodeError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        CRSError,
    ) as error:
        raise InputError(f"a mask {path.suffix} is GeoJSON, got {path}: {one_line(error)}") from None


def _features(path: Path) -> tuple[CRS, Shapes]:
    try:
        import pyogrio
        import shapely
        from shapely.geometry import mapping
    except ModuleNotFoundError as error:
        raise MissingError(
            f"a mask {path.suffix} needs {error.name}; pip install 'gigatiler[vector]', or write GeoJSON"
        ) from None
    try:
        meta, _, geometries, _ = pyogrio.raw.read(path, columns=[])
        if not meta["crs"]:
            raise InputError(f"a mask says its CRS, {path} does not")
        known = [wkb for wkb in geometries if wkb is not None]
        return CRS.from_user_input(meta["crs"]), [mapping(shape) for shape in shapely.from_wkb(known)]
    except (pyogrio.errors.DataSourceError, CRSError, shapely.errors.ShapelyError) as error:
        raise InputError(f"cannot read the mask {path}: {one_line(error)}") from None
