"""Label rasters against each other and against ground truth, streamed block by block."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tiler.errors import InputError
from tiler.geometry import Window
from tiler.kernels import NODATA
from tiler.metrics import Confusion
from tiler.open import open_labels, open_raster
from tiler.sinks.cog import read_classes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tiler.ports import Raster, RasterInfo

SIDE = 1024


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two label rasters agree."""

    pixels: int
    different: int
    """Pixels whose labels differ, nodata counted as a label."""
    nodata_differs: int
    """Of these, pixels that are nodata in one only."""
    first: str
    """Where the first difference is, empty if there is none."""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


def compare(a: Path | str, b: Path | str) -> Agreement:
    """Compare two rasters of the same size, pixel by pixel, all bands.

    Raises
    ------
    InputError
        if their sizes or band counts differ.
    """
    first, second = open_raster(a), open_raster(b)
    if _shape(first.info) != _shape(second.info):
        raise InputError(
            f"rasters to compare have one size (bands, rows, columns), got {_shape(first.info)} and "
            f"{_shape(second.info)}"
        )
    if None not in (first.info.transform, second.info.transform) and _place(first.info) != _place(
        second.info
    ):
        raise InputError(f"rasters to compare lie on one grid, got another CRS or transform in {b}")
    different = nodata_differs = 0
    where = ""
    for window in windows(first.info):
        a_CHW, b_CHW = _labels(first, window), _labels(second, window)
        wrong_HW = (a_CHW != b_CHW).any(axis=0)
        different += int(wrong_HW.sum())
        nodata_differs += int(((a_CHW == NODATA) != (b_CHW == NODATA)).any(axis=0).sum())
        if wrong_HW.any() and not where:
            row, column = np.argwhere(wrong_HW)[0]
            where = f"row {window.top + row}, column {window.left + column}"
    return Agreement(first.info.height * first.info.width, different, nodata_differs, where)


def _place(info: RasterInfo) -> tuple[object, object]:
    return info.crs, info.transform


def _shape(info: RasterInfo) -> tuple[int, int, int]:
    return info.bands, info.height, info.width


def evaluate(
    prediction: Path | str, truth: Path | str, classes: tuple[str, ...] | None = None
) -> tuple[Confusion, tuple[str, ...]]:
    """Confusion of a prediction with the truth on the prediction's grid, and the class names.

    Raises
    ------
    InputError
        if either is no label raster, or they do not lie on each other.
    """
    predicted = open_raster(prediction)
    if predicted.info.bands != 1:
        raise InputError(f"a prediction has one band of labels, got {predicted.info.bands} in {prediction}")
    expected = open_labels(truth, predicted.info)
    names = classes or tuple(read_classes(Path(prediction)) or ())
    if not names:
        raise InputError(
            f"{prediction} does not name its classes; pass --classes, e.g. --classes other,building"
        )
    confusion = Confusion(len(names))
    for window in windows(predicted.info):
        confusion.add(_labels(expected, window), _labels(predicted, window))
    if not confusion.pixels:
        raise InputError(f"{prediction} and {truth} have no valid pixel in common")
    return confusion, names


def windows(info: RasterInfo, side: int = SIDE) -> Iterator[Window]:
    """The raster cut into squares, row by row."""
    for top in range(0, info.height, side):
        for left in range(0, info.width, side):
            yield Window(top, left, min(top + side, info.height), min(left + side, info.width))


def _labels(raster: Raster, window: Window) -> NDArray[np.generic]:
    """Label values with 255 where not valid."""
    pixels = raster.read(window)
    return np.where(pixels.valid_HW, pixels.raw_CHW, NODATA)
