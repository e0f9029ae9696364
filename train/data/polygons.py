"""Labels that are polygons, burnt onto the grid of their image: georeferenced, QuPath's, labelme's.

A pixel is of the class of the polygon that its centre lies in, and where several overlap, of the one on
top: the smallest, since that is how things lie inside others; in labelme's files the last, as labelme
draws them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from affine import Affine

from tiler.errors import InputError, one_line
from tiler.geometry import Window
from tiler.pixels import Pixels
from tiler.readers.burnt import Burnt
from tiler.readers.polygons import MALFORMED, check_polygons, read_attribute, read_features
from train.data.labels import OpenLabels
from train.data.legend import NOT_KNOWN
from train.data.target import IGNORE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from tiler.ports import RasterInfo
    from train.data.legend import Legend

Named = list[tuple[dict[str, Any], str | None]]
"""Polygons, each with what it is called; None: nothing, so that it is of the second class."""
CIRCLE: Final = 64
"""Corners that stand for a circle; its area is then 0.2 % too small."""


@dataclass(frozen=True, slots=True)
class VectorFile:
    """Polygons in a CRS, for an image that has one; else in pixels of the full resolution, as QuPath's."""

    path: Path
    field: str | None = None
    """Attribute that tells the class; None: QuPath's classification, or nothing for georeferenced ones."""

    def open(self, like: RasterInfo, legend: Legend) -> OpenLabels:
        """Burnt onto the image's grid."""
        placed = like.transform if like.crs is not None else like.to_level0
        named = sorted(self.named(like), key=lambda item: -_area(item[0]))
        return burnt(named, legend, like, placed or Affine.identity(), str(self.path))

    def named(self, like: RasterInfo) -> Named:
        """The polygons in the image's CRS, or in pixels of its full resolution."""
        if like.crs is None or like.transform is None:
            return read_qupath(self.path, self.field)
        features = read_features(self.path, like.crs, self.field)
        return [(shape, None if value is None else as_name(value)) for shape, value in features]


@dataclass(frozen=True, slots=True)
class LabelmeFile:
    """What labelme wrote of an image: polygons, rectangles and circles in its pixels."""

    path: Path

    def open(self, like: RasterInfo, legend: Legend) -> OpenLabels:
        """Burnt onto the image's grid."""
        return burnt(self.named(like), legend, like, Affine.identity(), str(self.path))

    def named(self, like: RasterInfo) -> Named:
        """The shapes as polygons, in their order."""
        content = read_json(self.path)
        try:
            size = content["imageHeight"], content["imageWidth"]
            named: Named = [(_drawn(shape, self.path), str(shape["label"])) for shape in content["shapes"]]
        except MALFORMED as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"labels are labelme's JSON, got {self.path}: {one_line(error)}") from None
        if size != (like.height, like.width):
            raise InputError(
                f"labels have the size of their image ({like.width} x {like.height} px), "
                f"got {size[1]} x {size[0]} in {self.path}"
            )
        return named


def read_json(path: Path) -> Any:  # noqa: ANN401 - as it was written
    """What a JSON file holds.

    Raises
    ------
    InputError
        if it is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"labels are JSON, got {path}: {one_line(error)}") from None


def as_name(value: object) -> str:
    """What an attribute says, as text: 3.0 is called 3.

    >>> as_name(3.0), as_name("road")
    ('3', 'road')
    """
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def read_qupath(path: Path, field: str | None = None) -> Named:
    """Polygons in pixels of the full resolution, with the name of their classification, or of an attribute.

    Raises
    ------
    InputError
        if the file holds anything else, or a polygon without a class.
    """
    content = read_json(path)
    try:
        features = content if isinstance(content, list) else content.get("features", [content])
        shapes = [feature["geometry"] for feature in features]
        check_polygons(shapes, path)
        told = [feature.get("properties") or {} for feature in features]
        for shape in shapes:
            _check_rings(shape)
        names = [
            read_attribute(properties, field, path) if field else properties["classification"]["name"]
            for properties in told
        ]
    except KeyError as error:
        raise InputError(
            f"every polygon has a classification, as QuPath exports them, got one without {error} in {path}; "
            "give it a class, or tell the attribute with --field"
        ) from None
    except MALFORMED as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"labels are GeoJSON, got {path}: {one_line(error)}") from None
    return [(shape, as_name(name)) for shape, name in zip(shapes, names, strict=True)]


def _check_rings(shape: dict[str, Any]) -> None:
    polygons = [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]
    rings = [ring for polygon in polygons for ring in polygon]
    if not rings:
        raise ValueError("a polygon has rings")
    for ring in rings:
        points = np.array([point[:2] for point in ring], np.float64)
        if len(points) < 3 or not np.isfinite(points).all():
            raise ValueError("a ring is three points or more, of numbers")


def _area(shape: dict[str, Any]) -> float:
    """Of a polygon's first rings, in squares of its unit."""
    polygons = [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]
    return sum(_ring_area(polygon[0]) for polygon in polygons if len(polygon))


def _ring_area(ring: list[list[float]]) -> float:
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise([*ring, ring[0]]))) / 2


def _drawn(shape: dict[str, Any], path: Path) -> dict[str, Any]:
    """A shape of labelme's as a polygon."""
    points = np.array(shape["points"], np.float64).reshape(-1, 2)
    kind = shape.get("shape_type") or "polygon"
    if kind == "circle" and len(points) == 2:
        turn = np.linspace(0, 2 * np.pi, CIRCLE, endpoint=False)
        radius = np.hypot(*(points[1] - points[0]))
        points = points[0] + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    elif kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    elif kind not in {"polygon", "rectangle"} or len(points) < 3:
        raise InputError(
            f"labelme's shapes are polygons, rectangles and circles, got a {kind} of {len(points)} points "
            f"called {shape['label']!r} in {path}; draw it as a polygon, or remove it"
        )
    if not np.isfinite(points).all():
        raise ValueError("a point is two numbers")
    return {"type": "Polygon", "coordinates": [[*points.tolist(), points[0].tolist()]]}


def burnt(named: Named, legend: Legend, like: RasterInfo, transform: Affine, name: str) -> OpenLabels:
    """Polygons as classes, and as objects of any class but the first.

    Raises
    ------
    InputError
        if a name is no class, or none of the polygons lies on the image.
    """
    if len(legend.classes) > 2 and any(called is None for _, called in named):
        raise InputError(
            f"without --field all polygons are of one class, got {len(legend.classes)} classes for {name}; "
            "name the attribute that tells them"
        )
    values_P = np.array([1 if called is None else legend.named(called, name) for _, called in named], int)
    shapes, extent = [shape for shape, _ in named], (like.height, like.width)
    objects_P = np.where((values_P == 0) | (values_P == IGNORE), 0, np.arange(1, len(shapes) + 1))
    objects = Burnt(shapes, objects_P.astype(np.int32), extent, transform)
    if like.crs is None and shapes and not objects.near(Window(0, 0, *extent)).any():
        raise InputError(
            f"labels lie on their image, none of the {len(shapes)} polygons in {name} touches "
            f"{like.name} ({like.width} x {like.height} px); QuPath's are in pixels of the full resolution"
        )
    if legend.independent:
        layers = _layers(shapes, values_P, legend, partial(Burnt, extent=extent, transform=transform))
    else:
        outside = legend.number(legend.outside or legend.classes[0])
        layers = (Burnt(shapes, values_P.astype(np.uint8), extent, transform, outside),)
    target = replace(like, name=name, gaps=False, bands=len(layers), dtype=np.dtype(np.uint8))
    told_apart = replace(target, bands=1, dtype=np.dtype(np.int32))
    return OpenLabels(BurntRaster(layers, target), BurntRaster((objects,), told_apart))


def _layers(
    shapes: list[dict[str, Any]], values_P: NDArray[np.int64], legend: Legend, plane: Callable[..., Burnt]
) -> tuple[Burnt, ...]:
    """A plane for each class by itself: polygons of others are not in its way. Outside of all is no class."""
    layers = []
    for value, name in enumerate(legend.classes):
        mine = np.flatnonzero((values_P == value) | (values_P == IGNORE))
        marks = np.where(values_P[mine] == IGNORE, IGNORE, 1).astype(np.uint8)
        outside = IGNORE if legend.outside == NOT_KNOWN else int(legend.outside == name)
        layers.append(plane([shapes[i] for i in mine], marks, outside=outside))
    return tuple(layers)


@dataclass(frozen=True, slots=True, eq=False)
class BurntRaster:
    """Planes of polygons as the bands of a raster, all of it valid."""

    layers: tuple[Burnt, ...]
    info: RasterInfo

    def empty(self, window: Window) -> bool:
        """Never: outside of polygons is a class, too."""
        del window
        return False

    def read(self, window: Window) -> Pixels:
        """Values of the pixels of a window."""
        raw_CHW = np.stack([layer.read(window) for layer in self.layers])
        return Pixels(raw_CHW, np.ones(window.shape, np.bool_))
