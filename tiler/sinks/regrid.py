"""Blocks on the model's grid -> blocks on the source's own grid, by the nearest pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tiler.blocks import BlockGrid, BlockSet
from tiler.geometry import Window, nearest
from tiler.kernels import NODATA
from tiler.ports import Block
from tiler.stored import StoredPlanes

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from tiler.ports import Raster, RasterInfo
    from tiler.store import BlockStore


def source_grid_blocks(store: BlockStore, source: Raster, fed: RasterInfo) -> Generator[Block]:
    """The stored planes under each pixel of the source.

    A source pixel that is not valid is nodata, also where the model's coarser pixel holds a valid one.
    """
    info, stored = source.info, StoredPlanes(store)
    rows_H, columns_W = _stored_under(info, fed)
    for window in BlockSet.all(BlockGrid(info.height, info.width, store.grid.side)):
        part = rows_H[window.top : window.bottom], columns_W[window.left : window.right]
        planes_QHW = stored.pick(*part)
        found = _bounds(planes_QHW[0] != NODATA)
        if found is not None:
            # Beside what is mapped nothing is read: it may be outside a mask, or damaged.
            valid_HW = source.read(found.shifted(window.top, window.left)).valid_HW
            inside_QHW = planes_QHW[:, *found.slices]
            inside_QHW[:, ~valid_HW] = NODATA
        yield Block(window, planes_QHW)


def _stored_under(info: RasterInfo, fed: RasterInfo) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of what is stored under the centre of each pixel of the source."""
    if fed.picture is not None:
        return fed.picture.under()
    if fed.to_level0 is None:
        return nearest(info.height, fed.height), nearest(info.width, fed.width)
    # A level of a slide need not have exactly the slide's extent.
    rows_H = ((np.arange(info.height) + 0.5) / fed.to_level0.e).astype(np.int64)
    columns_W = ((np.arange(info.width) + 0.5) / fed.to_level0.a).astype(np.int64)
    return np.minimum(rows_H, fed.height - 1), np.minimum(columns_W, fed.width - 1)


def _bounds(mapped_HW: NDArray[np.bool_]) -> Window | None:
    """The smallest rectangle around what is true."""
    rows, columns = np.flatnonzero(mapped_HW.any(axis=1)), np.flatnonzero(mapped_HW.any(axis=0))
    if not rows.size:
        return None
    return Window(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
