"""Blocks on the model's grid -> blocks on the source's own grid, by the nearest pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import rasterio

from tiler.geometry import Window
from tiler.kernels import NODATA
from tiler.open import nearest
from tiler.ports import Block
from tiler.sinks.scratch import as_rasterio

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from tiler.ports import Raster
    from tiler.sinks.scratch import ScratchTiff


def source_grid_blocks(
    blocks: Iterable[Block], scratch: ScratchTiff, source: Raster, side: int
) -> Generator[Block]:
    """Store all blocks first, then read them back under each pixel of the source.

    A source pixel that is not valid is nodata, also where the model's coarser pixel holds a valid one.
    """
    try:
        for block in blocks:
            scratch.write(block)
    finally:
        scratch.close()
    info = source.info
    with rasterio.open(scratch.path) as dataset:
        rows, columns = nearest(info.height, dataset.height), nearest(info.width, dataset.width)
        for top in range(0, info.height, side):
            for left in range(0, info.width, side):
                window = Window(top, left, min(top + side, info.height), min(left + side, info.width))
                row_H, column_W = rows[top : window.bottom], columns[left : window.right]
                around = Window(int(row_H[0]), int(column_W[0]), int(row_H[-1]) + 1, int(column_W[-1]) + 1)
                planes_QHW = dataset.read(window=as_rasterio(around))
                index = np.ix_(row_H - around.top, column_W - around.left)
                valid_HW = source.read(window).valid_HW
                yield Block(window, np.where(valid_HW, planes_QHW[:, index[0], index[1]], NODATA))
