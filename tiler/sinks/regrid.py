"""Blocks on the model's grid -> blocks on the source's own grid, by the nearest pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tiler.blocks import BlockGrid, BlockSet
from tiler.kernels import NODATA
from tiler.open import nearest
from tiler.ports import Block
from tiler.stored import StoredPlanes

if TYPE_CHECKING:
    from collections.abc import Generator

    from tiler.ports import Raster
    from tiler.store import BlockStore


def source_grid_blocks(store: BlockStore, source: Raster) -> Generator[Block]:
    """The stored planes under each pixel of the source.

    A source pixel that is not valid is nodata, also where the model's coarser pixel holds a valid one.
    """
    info, stored = source.info, StoredPlanes(store)
    rows_H, columns_W = nearest(info.height, store.grid.height), nearest(info.width, store.grid.width)
    for window in BlockSet.all(BlockGrid(info.height, info.width, store.grid.side)):
        part = rows_H[window.top : window.bottom], columns_W[window.left : window.right]
        valid_HW = source.read(window).valid_HW
        yield Block(window, np.where(valid_HW, stored.pick(*part), NODATA))
