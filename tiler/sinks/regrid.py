"""Blocks on the model's grid -> blocks on the source's own grid, by the nearest pixel."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler.blocks import BlockGrid, BlockSet
from tiler.geometry import Window
from tiler.kernels import NODATA
from tiler.open import nearest
from tiler.ports import Block

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from tiler.ports import Raster
    from tiler.store import BlockStore

KEPT: Final = 64_000_000
"""Bytes of decoded blocks that are kept, because neighbours need them too."""


def source_grid_blocks(store: BlockStore, source: Raster) -> Generator[Block]:
    """The stored planes under each pixel of the source.

    A source pixel that is not valid is nodata, also where the model's coarser pixel holds a valid one.
    """
    info, stored = source.info, StoredPlanes(store)
    rows_H, columns_W = nearest(info.height, store.grid.height), nearest(info.width, store.grid.width)
    for window in BlockSet.all(BlockGrid(info.height, info.width, store.grid.side)):
        row_H, column_W = rows_H[window.top : window.bottom], columns_W[window.left : window.right]
        around = Window(int(row_H[0]), int(column_W[0]), int(row_H[-1]) + 1, int(column_W[-1]) + 1)
        planes_QHW = stored.read(around)
        index = np.ix_(row_H - around.top, column_W - around.left)
        valid_HW = source.read(window).valid_HW
        yield Block(window, np.where(valid_HW, planes_QHW[:, index[0], index[1]], NODATA))


class StoredPlanes:
    """Any window of a complete store."""

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._block = lru_cache(max(4, KEPT // (store.planes * store.grid.side**2)))(store.read)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """The planes (Q, H, W) of a window, put together from its blocks."""
        grid = self._store.grid
        planes_QHW = np.empty((self._store.planes, *window.shape), np.uint8)
        rows, columns = grid.blocks(window)
        for row in range(rows.start, rows.stop):
            for column in range(columns.start, columns.stop):
                whole = grid.window(row, column)
                part = whole.intersection(window)
                place = part.shifted(-window.top, -window.left).slices
                inside = part.shifted(-whole.top, -whole.left).slices
                planes_QHW[:, *place] = self._block(row, column)[:, *inside]
        return planes_QHW
