"""A small picture of a result: its classes on the raster they were found in."""

from __future__ import annotations

import json
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError  # no public name, and no RasterioError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from tiler.durable import write_whole
from tiler.errors import TilerError
from tiler.finish import SCALE
from tiler.geometry import Window, nearest
from tiler.kernels import NODATA
from tiler.open import open_coarse
from tiler.overlay import colored
from tiler.readers.address import is_remote
from tiler.sinks.cog import PREFIX
from tiler.spec import ClassSpec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from tiler.outputs import Outputs

LONGEST: Final = 192
"""Pixels of the longer side."""
MOST_READ: Final = 1 << 24
"""Pixels that are read for a picture; larger rasters without overviews are left white."""
DARK, BRIGHT = 2, 98
"""Percentiles that become black and white where pixels are not bytes."""
NOWHERE: Final = ClassSpec("none", (0, 0, 0))
"""In the place of the background, which is not drawn."""


def is_current(path: Path, output: Path) -> bool:
    """Whether a picture was drawn after its output was made."""
    try:
        return path.stat().st_mtime_ns >= output.stat().st_mtime_ns
    except OSError:
        return False


def draw_thumbnail(source: str, outputs: Outputs, path: Path) -> None:
    """Write a JPEG; a source that cannot be shown is left white, an output that cannot be is not drawn.

    It is for looking at: what goes wrong here costs the picture and nothing else.
    """
    with suppress(RasterioError, CPLE_BaseError, OSError, ValueError), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(outputs.main) as dataset:
            share = min(1.0, LONGEST / max(dataset.shape))
            size = max(1, round(dataset.height * share)), max(1, round(dataset.width * share))
            labels_HW, classes = _labels(dataset, size)
        photo_CHW = np.full((3, *size), 255, np.uint8)
        if not is_remote(source):
            with suppress(RasterioError, CPLE_BaseError, TilerError):
                photo_CHW = _photo(source, size)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _jpeg(colored(photo_CHW, labels_HW, classes)), sync=False)


def _labels(dataset: DatasetReader, size: tuple[int, int]) -> tuple[NDArray[np.uint8], tuple[ClassSpec, ...]]:
    """One class per pixel; where each class has a band, the first that is certain, or likeliest."""
    planes_QHW = dataset.read(out_shape=(dataset.count, *size))
    told = json.loads(dataset.tags()[PREFIX + "CLASSES"])
    classes = tuple(ClassSpec(c["name"], tuple(c["color"])) for c in told)
    probable = dataset.scales[0] == SCALE
    if dataset.count == 1 and not probable:
        return planes_QHW[0], classes
    least = 0.5 / SCALE if probable else 1
    shown_QHW = np.where(planes_QHW == NODATA, 0, planes_QHW)
    labels_HW = np.where(shown_QHW.max(axis=0) >= least, 1 + shown_QHW.argmax(axis=0), 0)
    return labels_HW.astype(np.uint8), (NOWHERE, *classes[-dataset.count :])


def _photo(source: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The first three bands, or the first, as bytes (3, H, W)."""
    raster = open_coarse(source, *size, allow_vrt=True, colours=True)
    info = raster.info
    if info.height * info.width > MOST_READ:
        return np.full((3, *size), 255, np.uint8)
    pixels = raster.read(Window(0, 0, info.height, info.width))
    rows, columns = nearest(size[0], info.height), nearest(size[1], info.width)
    raw_CHW = pixels.raw_CHW[: 3 if info.bands >= 3 else 1, rows][:, :, columns]
    valid_HW = pixels.valid_HW[rows][:, columns]
    bytes_CHW = raw_CHW if raw_CHW.dtype == np.uint8 else _stretched(raw_CHW, valid_HW)
    return np.broadcast_to(np.where(valid_HW, bytes_CHW, 255), (3, *size)).astype(np.uint8)


def _stretched(raw_CHW: NDArray[Any], valid_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Between the dark and the bright of each band."""
    values_CN = raw_CHW[:, valid_HW & np.isfinite(raw_CHW).all(axis=0)].astype(np.float32)
    if not values_CN.size:
        return np.zeros(raw_CHW.shape, np.uint8)
    low_C11, high_C11 = np.percentile(values_CN, (DARK, BRIGHT), axis=1)[:, :, None, None]
    share_CHW = (raw_CHW - low_C11) / np.maximum(high_C11 - low_C11, 1e-9)
    return np.asarray(255 * np.clip(np.nan_to_num(share_CHW), 0, 1), np.uint8)


def _jpeg(pixels_CHW: NDArray[np.uint8]) -> bytes:
    bands, height, width = pixels_CHW.shape
    profile = {"driver": "JPEG", "count": bands, "height": height, "width": width, "dtype": "uint8"}
    with MemoryFile() as file:
        with file.open(**profile, quality=80) as dataset:
            dataset.write(pixels_CHW)
        return bytes(file.read())
