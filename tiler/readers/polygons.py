"""Polygons from a file: GeoJSON by itself, other formats with the extra ``vector``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform

from tiler.errors import InputError, MissingError, one_line
from tiler.vector.options import check_path

if TYPE_CHECKING:
    from pathlib import Path

GEOJSON: Final = (".geojson", ".json")
VECTOR: Final = (*GEOJSON, ".gpkg", ".shp", ".fgb", ".parquet", ".gml", ".kml")
POLYGONS: Final = ("Polygon", "MultiPolygon")
Shapes = list[dict[str, Any]]
"""GeoJSON geometries."""
Features = list[tuple[dict[str, Any], Any]]
"""Geometries, each with the value of an attribute."""
STEP_DEGREES: Final = 0.01
STEP: Final = 1000.0
"""Longest pieces, in degrees or in units of the CRS, into which edges are cut before they are bent."""
MOST_PIECES: Final = 50_000
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
    return [shape for shape, _ in read_features(path, target)]


def read_features(path: Path, target: CRS, field: str | None = None) -> Features:
    """The polygons of a file in another CRS, each with what it says of an attribute; see `read_polygons`."""
    crs, features = (_geojson if path.suffix.lower() in GEOJSON else _features)(path, field)
    check_polygons([shape for shape, _ in features], path)
    try:
        placed = [(made, value) for shape, value in features if (made := _placed(shape, crs, target))]
    except (RasterioError, CPLE_BaseError, *MALFORMED) as error:
        raise InputError(f"cannot bring {path} from {crs} to {target}: {one_line(error)}") from None
    if not placed:
        raise InputError(f"a mask holds polygons, those in {path} are empty")
    return placed


def check_polygons(shapes: Shapes, path: Path) -> None:
    """Find polygons, and nothing else.

    Raises
    ------
    InputError
        if there is anything else, or nothing.
    """
    odd = sorted({str(shape["type"]) for shape in shapes} - set(POLYGONS))
    if odd or not shapes:
        raise InputError(f"a mask holds polygons, got {', '.join(odd) or 'nothing'} in {path}")


def read_attribute(properties: Any, field: str | None, path: Path) -> Any:  # noqa: ANN401 - from a file
    """What a feature says of an attribute; None if none is asked for.

    Raises
    ------
    InputError
        if it says nothing.
    """
    if field is None:
        return None
    known = properties if isinstance(properties, dict) else {}
    if known.get(field) is None:
        others = ", ".join(name for name in known if name != field) or "no other"
        raise InputError(f"every feature has the attribute {field!r}, one in {path} has not; it has {others}")
    return known[field]


def _placed(shape: dict[str, Any], crs: CRS, target: CRS) -> dict[str, Any] | None:
    """A polygon in another CRS, edges and all; None if it is empty."""
    polygons = [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]
    placed = [[_ring(ring, crs, target) for ring in polygon] for polygon in polygons if len(polygon)]
    return {"type": "MultiPolygon", "coordinates": placed} if placed else None


def _ring(ring: Any, crs: CRS, target: CRS) -> list[tuple[float, float]]:  # noqa: ANN401 - from a file
    points = np.array([point[:2] for point in ring], np.float64)
    if len(points) < 3 or not np.isfinite(points).all():
        raise ValueError("a ring is three points or more, of numbers")
    points = np.concatenate([points, points[:1]])
    if crs == target:
        return list(map(tuple, points.tolist()))
    # An edge is straight in its own CRS and bent in others.
    step = STEP_DEGREES if crs.is_geographic else STEP
    pieces = np.ceil(np.abs(np.diff(points, axis=0)).max(axis=1) / step).clip(1, MOST_PIECES).astype(int)
    edges = zip(points[:-1], points[1:], pieces, strict=True)
    dense = np.concatenate([np.linspace(a, b, n, endpoint=False) for a, b, n in edges] + [points[-1:]])
    xs, ys = transform(crs, target, *dense.T)
    if not np.isfinite([xs, ys]).all():
        raise ValueError("it reaches beyond where that CRS is defined; cut it to the raster")
    return list(zip(xs, ys, strict=True))


def _geojson(path: Path, field: str | None) -> tuple[CRS, Features]:
    """The features of a GeoJSON file, in degrees unless it names another CRS as older ones do."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        name = content.get("crs", {}).get("properties", {}).get("name", "EPSG:4326")
        crs = CRS.from_user_input(name)
        features = content.get("features", [content])
        found = [(feature.get("geometry", feature), feature.get("properties")) for feature in features]
        kept = [(shape, properties) for shape, properties in found if shape and str(shape["type"])]
    except (*MALFORMED, RecursionError) as error:
        raise InputError(f"a mask {path.suffix} is GeoJSON, got {path}: {one_line(error)}") from None
    return crs, [(shape, read_attribute(properties, field, path)) for shape, properties in kept]


def _features(path: Path, field: str | None) -> tuple[CRS, Features]:
    try:
        import pyogrio
        import shapely
        from shapely.geometry import mapping
    except ModuleNotFoundError as error:
        raise MissingError(
            f"a mask {path.suffix} needs {error.name}; pip install 'gigatiler[vector]', or write GeoJSON"
        ) from None
    check_path(path)
    try:
        layers = len(pyogrio.list_layers(path))
        meta, _, geometries, columns = pyogrio.raw.read(path, layer=0, columns=[field] if field else [])
        shapes = [mapping(shape) for shape in shapely.from_wkb(geometries) if shape is not None]
        crs = CRS.from_user_input(meta["crs"]) if meta["crs"] else None
    except (RuntimeError, IndexError, ValueError, CRSError, shapely.errors.ShapelyError) as error:
        raise InputError(f"cannot read the mask {path}: {one_line(error)}") from None
    if layers > 1:
        raise InputError(f"a mask has one layer, got {layers} in {path}; write the one to a file of its own")
    if len(shapes) < len(geometries):
        raise InputError(f"features of a mask have geometries, some of {path} have none; is it cut short?")
    if crs is None:
        raise InputError(f"a mask says its CRS, {path} does not")
    if field is None:
        return crs, [(shape, None) for shape in shapes]
    # An attribute that no feature has is no column.
    values = columns[0].tolist() if len(columns) else [None] * len(shapes)
    known = pyogrio.read_info(path, layer=0)["fields"]
    told = ({**dict.fromkeys(known), field: value} for value in values)
    return crs, [(s, read_attribute(p, field, path)) for s, p in zip(shapes, told, strict=True)]
