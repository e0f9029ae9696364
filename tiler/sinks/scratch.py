"""Blocks on disk until all are there: a tiled GeoTIFF in the run folder, with a checksum per block.

A GeoTIFF that is being written is no result: it becomes one in `tiler.sinks.cog`, under another name.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from tiler.errors import OutputError
from tiler.kernels import NODATA

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tiler.geometry import Window
    from tiler.ports import Block, RasterInfo

TILE = 512


class ScratchTiff:
    """A uint8 raster of Q planes, written block by block."""

    def __init__(self, path: Path, info: RasterInfo, planes: slice) -> None:
        self.path = path
        self.checksums: dict[Window, int] = {}
        """CRC-32 of every block, to compare the finished file with."""
        self._planes = planes
        profile: dict[str, Any] = {
            "driver": "GTiff",
            "height": info.height,
            "width": info.width,
            "count": planes.stop - planes.start,
            "dtype": "uint8",
            "nodata": NODATA,
            "crs": info.crs,
            "tiled": True,
            "blockxsize": TILE,
            "blockysize": TILE,
            "compress": "zstd",
            "zstd_level": 1,
            "sparse_ok": True,
            "bigtiff": "IF_SAFER",
        }
        if info.transform is not None:
            profile["transform"] = info.transform
        try:
            self.dataset = rasterio.open(path, "w", **profile)
        except RasterioError as error:
            raise OutputError(f"cannot write {path}: {error}") from None

    def write(self, block: Block) -> None:
        """Store this file's planes of a block."""
        part_QHW = block.planes_QHW[self._planes]
        try:
            self.dataset.write(part_QHW, window=as_rasterio(block.window))
        except RasterioError as error:
            raise OutputError(
                f"cannot write {self.path}: {error.__cause__ or error}; is the disk full?"
            ) from None
        self.checksums[block.window] = checksum(part_QHW)

    def close(self) -> None:
        """Flush and close the file."""
        self.dataset.close()


def checksum(planes_QHW: NDArray[np.uint8]) -> int:
    """CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(planes_QHW).data)


def as_rasterio(window: Window) -> RasterioWindow:
    """The same window in rasterio's terms."""
    return RasterioWindow(window.left, window.top, window.width, window.height)
