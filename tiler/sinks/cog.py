"""Finished blocks -> a cloud-optimised GeoTIFF, read back and compared before it gets its name."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError

from tiler.blocks import BlockGrid, BlockSet
from tiler.errors import OutputError, one_line
from tiler.finish import SCALE
from tiler.flow import prefetch
from tiler.kernels import NODATA
from tiler.readers.source import as_rasterio
from tiler.readers.watch import damage_watch
from tiler.sinks.scratch import CURE, TILE, ScratchTiff, checksum

if TYPE_CHECKING:
    from pathlib import Path

    from rasterio.io import DatasetReader

    from tiler.spec import ClassSpec

PREFIX = "TILER_"
"""Of our tags."""
CENTIMETRES: Final = 3
"""How TIFF counts them among units."""


@dataclass(frozen=True, slots=True)
class Product:
    """One output file."""

    path: Path
    kind: str
    """labels or probabilities."""
    planes: slice
    """Which planes of a block it holds."""
    names: tuple[str, ...]
    """Description of each band."""
    classes: tuple[ClassSpec, ...]
    tags: dict[str, str]
    """Provenance: what the result depends on, and nothing else."""
    density: tuple[float, float] | None = None
    """Pixels per centimetre of a slide along a row and down a column, for viewers of slides."""

    @property
    def colored(self) -> bool:
        """Whether values are class numbers, so that a colour table says how to draw them."""
        return self.kind == "labels" and len(self.names) == 1


def build_cog(scratch: ScratchTiff, product: Product, target: Path) -> None:
    """Turn a complete scratch file into a COG at ``target`` and verify it.

    Raises
    ------
    OutputError
        if it cannot be written, or does not read back as it was computed.
    """
    _describe(scratch, product)
    scratch.close()
    labels = product.kind == "labels"
    options = {
        "driver": "COG",
        "compress": "DEFLATE",
        "blocksize": TILE,
        # In-between labels do not exist; in-between probabilities do.
        "overview_resampling": "NEAREST" if labels else "AVERAGE",
        "bigtiff": "IF_SAFER",
        "num_threads": "ALL_CPUS",
    }
    try:
        # In another thread, so that this one can be interrupted.
        copy = functools.partial(rasterio.shutil.copy, scratch.path, **options)
        for _ in prefetch(copy, [target], depth=1):
            pass
    except RasterioError as error:
        raise OutputError(f"cannot write {product.path}: {one_line(error)}; {CURE}") from None
    _verify(target, scratch)


def _describe(scratch: ScratchTiff, product: Product) -> None:
    dataset = scratch.dataset
    for band, name in enumerate(product.names, 1):
        dataset.set_band_description(band, name)
    if product.colored:
        table = {value: (*c.color, 255) for value, c in enumerate(product.classes)}
        # Viewers of slides know no nodata, and show the colour.
        nothing = (0, 0, 0, 0) if product.density is None else (255, 255, 255, 0)
        dataset.write_colormap(1, {**table, NODATA: nothing})
    if product.kind == "probabilities":
        dataset.scales = (SCALE,) * len(product.names)
        dataset.offsets = (0.0,) * len(product.names)
    classes = [{"value": i, "name": c.name, "color": c.color} for i, c in enumerate(product.classes)]
    if product.density is not None:
        across, down = product.density
        dataset.update_tags(
            TIFFTAG_XRESOLUTION=across, TIFFTAG_YRESOLUTION=down, TIFFTAG_RESOLUTIONUNIT=CENTIMETRES
        )
    dataset.update_tags(**{PREFIX + "CLASSES": json.dumps(classes)}, **product.tags)


def _verify(path: Path, scratch: ScratchTiff) -> None:
    """Read every block back and compare it; overviews must at least decode."""
    try:
        with damage_watch() as damage:
            with rasterio.open(path) as dataset:
                _check_layout(dataset, path)
                levels = len(dataset.overviews(1))
                for window in BlockSet.all(scratch.grid):
                    if checksum(dataset.read(window=as_rasterio(window))) != scratch.checksum(window):
                        raise OutputError(f"{path} does not read back as written at {window}; {CURE}")
            for level in range(levels):
                with rasterio.open(path, overview_level=level) as overview:
                    for window in BlockSet.all(BlockGrid(overview.height, overview.width, scratch.grid.side)):
                        overview.read(window=as_rasterio(window))
    except RasterioError as error:
        damage.append(one_line(error.__cause__ or error))
    if damage:
        raise OutputError(f"{path} does not read back: {damage[0]}; {CURE}")


def _check_layout(dataset: DatasetReader, path: Path) -> None:
    if dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") != "COG":
        raise OutputError(f"{path} did not become a COG; report this with the GDAL version")
    if max(dataset.shape) > TILE and not dataset.overviews(1):
        raise OutputError(f"{path} has no overviews; report this with the GDAL version")


def read_classes(path: Path) -> list[str] | None:
    """Class names from a label file of ours, None for another's."""
    with rasterio.open(path) as dataset:
        text = dataset.tags().get(PREFIX + "CLASSES")
    return None if text is None else [c["name"] for c in json.loads(text)]
