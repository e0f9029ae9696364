"""All blocks of one output file as a plain tiled GeoTIFF, from which GDAL makes the COG.

It lies in the run directory and is made anew by every attempt to finish: a GeoTIFF that is being written is
no checkpoint. A checksum of every block is kept, to compare the finished file with.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from tiler.blocks import BlockGrid
from tiler.errors import OutputError, one_line
from tiler.kernels import NODATA
from tiler.readers.source import as_rasterio

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tiler.geometry import Window
    from tiler.ports import Block, RasterInfo

TILE: Final = 512
CURE: Final = "the computed blocks are kept: free some space and run the same command again"


class ScratchTiff:
    """A uint8 raster of Q planes, written block by block."""

    def __init__(self, path: Path, info: RasterInfo, planes: slice, side: int) -> None:
        self.path = path
        self.grid = BlockGrid(info.height, info.width, side)
        self._checksums_RC = np.zeros(self.grid.shape, np.uint32)
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
            raise OutputError(f"cannot write {path}: {one_line(error)}; {CURE}") from None

    def write(self, block: Block) -> None:
        """Store this file's planes of a block."""
        part_QHW = block.planes_QHW[self._planes]
        try:
            self.dataset.write(part_QHW, window=as_rasterio(block.window))
        except RasterioError as error:
            reason = one_line(error.__cause__ or error)
            raise OutputError(f"cannot write {self.path}: {reason}; {CURE}") from None
        self._checksums_RC[self.grid.place(block.window)] = checksum(part_QHW)

    def checksum(self, window: Window) -> int:
        """CRC-32 of this file's planes of a block."""
        return int(self._checksums_RC[self.grid.place(window)])

    def close(self) -> None:
        """Flush and close the file."""
        self.dataset.close()


def checksum(planes_QHW: NDArray[np.uint8]) -> int:
    """CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(planes_QHW).data)
