"""A picture of a result: the image on the left, the same with its classes drawn in on the right."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final

import numpy as np
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from tiler.errors import InputError
from tiler.geometry import Window, nearest
from tiler.readers.resampled import ResampledRaster, resampled_info

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tiler.ports import Raster
    from tiler.spec import ClassSpec

LONGEST: Final = 1000
"""Pixels of the longer side of each half."""
OPACITY: Final = 0.4
GAP: Final = 8


def draw_overlay(image: Raster, labels: Raster, classes: tuple[ClassSpec, ...], path: Path) -> None:
    """Write a PNG; the first class is background and stays as it is.

    Raises
    ------
    InputError
        if the image is not three bands of bytes.
    """
    info = image.info
    if info.bands != 3 or info.dtype != np.uint8:
        raise InputError(f"an overlay is drawn on three bands of uint8, got {info.bands} of {info.dtype}")
    share = min(1.0, LONGEST / max(info.height, info.width))
    height, width = max(1, round(info.height * share)), max(1, round(info.width * share))
    small = ResampledRaster(image, resampled_info(info, height, width, "overlay"))
    photo_CHW = small.read(Window(0, 0, height, width)).raw_CHW
    drawn_CHW = colored(photo_CHW, _small_labels(labels, height, width), classes)
    gap_CHW = np.full((3, height, GAP), 255, np.uint8)
    path.write_bytes(png(np.concatenate([photo_CHW, gap_CHW, drawn_CHW], axis=2)))


def colored(
    photo_CHW: NDArray[np.uint8], labels_HW: NDArray[np.uint8], classes: tuple[ClassSpec, ...]
) -> NDArray[np.uint8]:
    """Classes tinted, and outlined in full colour."""
    drawn_CHW = photo_CHW.astype(np.float32)
    for value, kind in list(enumerate(classes))[1:]:
        inside_HW = labels_HW == value
        color_C1 = np.array(kind.color, np.float32)[:, None]
        drawn_CHW[:, inside_HW] = (1 - OPACITY) * drawn_CHW[:, inside_HW] + OPACITY * color_C1
        drawn_CHW[:, outline(inside_HW)] = color_C1
    return drawn_CHW.astype(np.uint8)


def outline(inside_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of an area with a neighbour outside it."""
    padded_HW = np.pad(inside_HW, 1, mode="edge")
    core_HW = padded_HW[:-2, 1:-1] & padded_HW[2:, 1:-1] & padded_HW[1:-1, :-2] & padded_HW[1:-1, 2:]
    return inside_HW & ~core_HW


def _small_labels(labels: Raster, height: int, width: int) -> NDArray[np.uint8]:
    """The label under the centre of each pixel of the picture, read strip by strip."""
    rows, columns = nearest(height, labels.info.height), nearest(width, labels.info.width)
    small_HW = np.empty((height, width), np.uint8)
    for y, row in enumerate(rows):
        line = labels.read(Window(int(row), 0, int(row) + 1, labels.info.width))
        small_HW[y] = line.raw_CHW[0, 0, columns]
    return small_HW


def png(pixels_CHW: NDArray[np.uint8]) -> bytes:
    """A picture of one to four bands."""
    bands, height, width = pixels_CHW.shape
    with warnings.catch_warnings(), MemoryFile() as file:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with file.open(driver="PNG", count=bands, height=height, width=width, dtype="uint8") as dataset:
            dataset.write(pixels_CHW)
        return bytes(file.read())
