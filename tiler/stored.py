"""Pixels of a complete block store, by row and column."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.store import BlockStore

KEPT: Final = 64_000_000
"""Bytes of decoded blocks that are kept, because neighbours need them too."""


class StoredPlanes:
    """Pixels of a complete store by row and column, a block at a time."""

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._block = lru_cache(max(4, KEPT // (store.planes * store.grid.side**2)))(store.read)

    def pick(self, rows_H: NDArray[np.int64], columns_W: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The planes (Q, H, W) at these rows and columns."""
        planes_QHW = np.empty((self._store.planes, len(rows_H), len(columns_W)), np.uint8)
        side = self._store.grid.side
        for row in np.unique(rows_H // side):
            y = np.flatnonzero(rows_H // side == row)
            for column in np.unique(columns_W // side):
                x = np.flatnonzero(columns_W // side == column)
                inside = np.ix_(rows_H[y] - row * side, columns_W[x] - column * side)
                planes_QHW[:, y[:, None], x] = self._block(int(row), int(column))[:, *inside]
        return planes_QHW
