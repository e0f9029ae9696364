"""A label raster as chunks of rows, with what it says of its classes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import rasterio
from affine import Affine

from tiler.errors import InputError
from tiler.geometry import Window
from tiler.kernels import NODATA
from tiler.readers.gdal import GdalRaster
from tiler.readers.source import LABEL_DTYPES, Source
from tiler.sinks.cog import PREFIX
from tiler.spec import ClassSpec, default_classes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from tiler.ports import RasterInfo

CHUNK: Final = 1 << 20
"""Bytes of labels that are read at once, more or less."""
LEAST_ROWS: Final = 16
MOST_ROWS: Final = 512
"""Rows of a tile of our files."""
LEAST_CACHE: Final = 16_000_000
"""Bytes."""
NO_LABEL: Final = -(1 << 62)
"""Stands for nodata where labels have more than a byte."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """One raster of class numbers, or several 0/1 planes of classes that do not exclude each other."""

    path: Path
    info: RasterInfo
    classes: tuple[ClassSpec, ...]
    """By number; empty where the file does not say."""
    multilabel: bool
    wide: bool
    """Whether a label has more than a byte, or a byte has no value to spare for nodata."""
    pixels: Affine
    """From pixel corners of the labels to those of the image that they were made of, where the file says."""

    @property
    def bands(self) -> range:
        """The bands that hold labels."""
        return range(1, self.info.bands + 1)

    @property
    def nodata(self) -> int:
        """What chunks have where nothing is valid."""
        return NO_LABEL if self.wide else NODATA

    @property
    def cache(self) -> int:
        """Bytes for GDAL to keep a row of tiles in, so that each is decoded once."""
        return max(LEAST_CACHE, 2 * MOST_ROWS * self.info.width * self.info.dtype.itemsize)

    def chunks(self, band: int) -> Iterator[NDArray[np.generic]]:
        """Whole rows (rows, width) of a band, from top to bottom.

        Raises
        ------
        DamageError
            if a part of the file cannot be read.
        """
        raster = GdalRaster(Source(self.path, bands=(band,), dtypes=LABEL_DTYPES))
        height, width = self.info.height, self.info.width
        rows = min(MOST_ROWS, max(LEAST_ROWS, CHUNK // width))
        for top in range(0, height, rows):
            pixels = raster.read(Window(top, 0, min(top + rows, height), width))
            labels_HW = pixels.raw_CHW[0].astype(np.int64 if self.wide else np.uint8)
            labels_HW[~pixels.valid_HW] = self.nodata
            yield labels_HW

    def meaning(self, band: int, value: int) -> ClassSpec:
        """The class of a value; one that the file does not name is called by its number."""
        index = band - 1 if self.multilabel else value
        if 0 <= index < len(self.classes):
            return self.classes[index]
        return replace(default_classes(("background", "other"))[1], name=str(index))


def open_labels_file(path: Path, names: tuple[str, ...] | None = None) -> Labels:
    """Open a label raster: one of ours, or any of one band of integers.

    Parameters
    ----------
    names
        Of the classes, by number, over what the file says.

    Raises
    ------
    InputError
        if it is none.
    """
    info = GdalRaster(Source(path, dtypes=LABEL_DTYPES)).info
    with rasterio.open(path) as dataset:
        if dataset.scales[0] != 1:
            raise InputError(f"labels are class numbers, {path} holds probabilities; take the label file")
        classes = _classes(dataset)
        # In masks of other programs 255 is yes.
        wide = info.dtype != np.uint8 or set(dataset.nodatavals) != {NODATA}
        info, pixels = _on_source(info, dataset)
    multilabel = info.bands > 1 and info.bands == len(classes)
    if info.bands != 1 and not multilabel:
        raise InputError(f"labels have one band, or one per class, got {info.bands} in {path}")
    if names is not None:
        if multilabel and len(names) != info.bands:
            raise InputError(f"{path} has {info.bands} classes, got {len(names)} names")
        known = {i: c.color for i, c in enumerate(classes)}
        default = default_classes(names)
        classes = tuple(replace(c, color=known.get(i, c.color)) for i, c in enumerate(default))
    return Labels(path, info, classes, multilabel, wide, pixels)


def _on_source(info: RasterInfo, dataset: DatasetReader) -> tuple[RasterInfo, Affine]:
    """Where labels of ours lie on their slide, if they are of one; and on their image."""
    try:
        told = json.loads(dataset.tags().get(PREFIX + "OPTIONS", "{}"))
        if told.get("to_level0") is None or told.get("metres") is None:
            height, width = told.get("source_size", (info.height, info.width))
            return info, Affine.scale(width / info.width, height / info.height)
        step, (across, down) = Affine(*told["to_level0"]), map(float, told["metres"])
        if told["grid"] == "source":
            # A level need not have exactly the slide's extent, so this does not follow from the sizes.
            step, across, down = Affine.identity(), across / step.a, down / step.e
        return replace(info, transform=None, to_level0=step, ground=(across, down)), step
    except (ValueError, LookupError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise InputError(f"the tag {PREFIX}OPTIONS of {dataset.name} is not ours: {error}") from None


def _classes(dataset: DatasetReader) -> tuple[ClassSpec, ...]:
    """From our tag; else the colours of the file's table, by number."""
    text = dataset.tags().get(PREFIX + "CLASSES")
    if text is not None:
        try:
            return tuple(ClassSpec(c["name"], tuple(c["color"])) for c in json.loads(text))
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"the tag {PREFIX}CLASSES of {dataset.name} is not ours: {error}") from None
    try:
        table = dataset.colormap(1)
    except ValueError:
        return ()
    return tuple(ClassSpec(str(i), table.get(i, (0, 0, 0))[:3]) for i in range(min(NODATA, max(table) + 1)))
