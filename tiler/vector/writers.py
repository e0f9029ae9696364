"""Features -> a file, batch by batch, without holding them all.

Every writer makes one file at the path it is given, over nothing, and returns nothing; `tiler.vector.make`
counts what is in it and gives it its name.
"""

from __future__ import annotations

import json
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tiler.errors import OutputError, TilerError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tiler.vector.features import Features, Frame

EPOCH: Final = "1970-01-01T00:00:00.000Z"
"""GeoPackage notes when it was written; here always this, so that equal runs make equal files."""
DRIVERS: Final = {"gpkg": "GPKG", "fgb": "FlatGeobuf"}
GEOPARQUET: Final = "1.1.0"
LAYER: Final = re.compile(r"(?!gpkg|sqlite_)\w", re.IGNORECASE)
"""How names of layers begin: not with a sign, nor with what is SQLite's or GeoPackage's own."""
ROLLED_BACK: Final = "cannot rollback"
"""What GDAL says when SQLite has already undone all: it does so where the disk is full or fails, or memory
runs out (https://sqlite.org/lang_transaction.html, "Response To Errors Within A Transaction")."""
GIVEN_UP: Final = (
    "SQLite undid it, as where the disk is full, a limit on the size of files is reached, or the disk fails"
)
CURE: Final = "free some space and run the same command again"


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What is written beside the features."""

    target: Path
    """What the file is going to be called, for messages."""
    frame: Frame
    unit: str
    """Of areas."""

    @property
    def name(self) -> str:
        """Of the layer in a GeoPackage, which does not allow every first letter."""
        stem = self.target.stem
        return stem if LAYER.match(stem) else f"layer {stem}"

    @property
    def area(self) -> str:
        """Name of the attribute that has the area."""
        return f"area_{self.unit}"


def write_gdal(driver: str, path: Path, layer: Layer, batches: Iterator[Features]) -> None:
    """GeoPackage and FlatGeobuf, by GDAL, with a spatial index.

    Raises
    ------
    OutputError
        if it cannot be written.
    """
    import pyarrow as pa
    import pyogrio

    failures: list[BaseException] = []

    def records() -> Iterator[pa.RecordBatch]:
        # GDAL asks for these, and what is raised here would come out of it as an error of its own.
        try:
            for batch in batches:
                yield _record(batch, layer)
        except BaseException as error:
            failures.append(error)
            raise

    reader = pa.RecordBatchReader.from_batches(_schema(layer), records())
    crs = layer.frame.crs
    try:
        with _same_date(), warnings.catch_warnings():
            # A layer without a CRS is what is meant.
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            pyogrio.write_arrow(
                reader,
                path,
                driver=driver,
                layer=layer.name,
                geometry_name="geometry",
                geometry_type="Polygon",
                crs=None if crs is None else crs.to_wkt(),
            )
    except (RuntimeError, OSError, ValueError) as error:
        if failures:
            raise failures[0] from None
        reason = GIVEN_UP if ROLLED_BACK in str(error) else one_line(error)
        raise OutputError(f"cannot write {layer.target}: {reason}; {CURE}") from None


@contextmanager
def _same_date() -> Iterator[None]:
    import pyogrio

    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": EPOCH})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _schema(layer: Layer) -> Any:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("class", pa.string()),
            pa.field("value", pa.int64()),
            pa.field(layer.area, pa.float64()),
            pa.field("geometry", pa.binary()),
        ]
    )


def _record(batch: Features, layer: Layer) -> Any:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa
    import shapely

    wkb = shapely.to_wkb(batch.shapes_P, byte_order=1)
    columns = [[c.name for c in batch.classes_P], batch.values_P, batch.areas_P, wkb]
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, _schema(layer), strict=True)],
        schema=_schema(layer),
    )


def write_parquet(path: Path, layer: Layer, batches: Iterator[Features]) -> None:
    """GeoParquet, a row group per batch.

    Raises
    ------
    OutputError
        if it cannot be written.
    """
    import pyarrow.parquet as pq
    import shapely

    boxes: list[Any] = []
    try:
        with pq.ParquetWriter(path, _schema(layer), compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(_record(batch, layer))
                boxes = [shapely.total_bounds([*batch.shapes_P, *(shapely.box(*b) for b in boxes)])]
            writer.add_key_value_metadata({"geo": json.dumps(_geo(layer, boxes))})
    except TilerError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write {layer.target}: {error.strerror or one_line(error)}; {CURE}"
        ) from None


def _geo(layer: Layer, boxes: list[Any]) -> dict[str, Any]:
    """GeoParquet's own metadata."""
    crs = layer.frame.crs
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        # Left out it would mean longitude and latitude.
        "crs": None if crs is None else crs.to_dict(projjson=True),
        "orientation": "counterclockwise",
        "edges": "planar",
    }
    if boxes:
        column["bbox"] = [float(v) for v in boxes[0]]
    return {"version": GEOPARQUET, "primary_column": "geometry", "columns": {"geometry": column}}


def write_geojson(path: Path, layer: Layer, batches: Iterator[Features]) -> None:
    """RFC 7946, a feature per line; in pixels where the raster has no CRS.

    Raises
    ------
    OutputError
        if it cannot be written.
    """

    def properties(batch: Features, i: int) -> dict[str, Any]:
        return {
            "class": batch.classes_P[i].name,
            "value": int(batch.values_P[i]),
            layer.area: round(float(batch.areas_P[i]), 3),
        }

    _write_json(path, layer, batches, properties)


def write_qupath(path: Path, layer: Layer, batches: Iterator[Features]) -> None:
    """Annotations for QuPath, in level-0 pixels.

    Raises
    ------
    OutputError
        if it cannot be written.
    """
    unit = {"um2": "µm^2", "m2": "m^2", "px": "px^2"}[layer.unit]

    def properties(batch: Features, i: int) -> dict[str, Any]:
        meaning = batch.classes_P[i]
        return {
            "objectType": "annotation",
            "classification": {"name": meaning.name, "color": list(meaning.color)},
            "isLocked": False,
            "measurements": {f"Area {unit}": round(float(batch.areas_P[i]), 3)},
        }

    _write_json(path, layer, batches, properties)


def _write_json(
    path: Path,
    layer: Layer,
    batches: Iterator[Features],
    properties: Callable[[Features, int], dict[str, Any]],
) -> None:
    import shapely

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write('{"type": "FeatureCollection", "features": [')
            between = "\n"
            for batch in batches:
                for i, geometry in enumerate(shapely.to_geojson(batch.shapes_P)):
                    text = json.dumps(properties(batch, i), ensure_ascii=False)
                    feature = f'"type": "Feature", "properties": {text}, "geometry": {geometry}'
                    file.write(f"{between}{{{feature}}}")
                    between = ",\n"
            file.write("\n]}\n")
    except TilerError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {layer.target}: {error.strerror}; {CURE}") from None


def count_features(kind: str, path: Path, layer: Layer) -> int:
    """How many features a file holds, by reading it.

    Raises
    ------
    OutputError
        if it does not read back.
    """
    try:
        if kind in DRIVERS:
            import pyogrio

            return int(pyogrio.read_info(path, force_feature_count=True)["features"])
        if kind == "parquet":
            import pyarrow.parquet as pq

            return int(pq.read_metadata(path).num_rows)
        with path.open(encoding="utf-8") as file:
            return sum(1 for line in file if line.startswith('{"type": "Feature",'))
    except (RuntimeError, OSError, ValueError) as error:
        raise OutputError(f"{layer.target} does not read back: {one_line(error)}; {CURE}") from None
