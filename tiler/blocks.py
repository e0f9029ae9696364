"""The fixed grid of blocks in which a result is stored, and sets of them. Pure: no knowledge of files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tiler.geometry import Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """Squares of ``side`` pixels over a raster; those at its right and bottom border are cut there.

    >>> grid = BlockGrid(height=100, width=150, side=64)
    >>> grid.shape, str(grid.window(1, 2))
    ((2, 3), 'rows 64:100, columns 128:150')
    """

    height: int
    width: int
    side: int

    @property
    def shape(self) -> tuple[int, int]:
        """R and C, the numbers of block rows and block columns."""
        return -(-self.height // self.side), -(-self.width // self.side)

    def window(self, row: int, column: int) -> Window:
        """The pixels of a block."""
        top, left = row * self.side, column * self.side
        return Window(top, left, min(top + self.side, self.height), min(left + self.side, self.width))

    def place(self, window: Window) -> tuple[int, int]:
        """Row and column of the block that begins where the window does."""
        return window.top // self.side, window.left // self.side

    def blocks(self, window: Window) -> tuple[slice, slice]:
        """Index of the blocks that a window touches, in an array over the grid."""
        rows = slice(window.top // self.side, -(-window.bottom // self.side))
        return rows, slice(window.left // self.side, -(-window.right // self.side))


@dataclass(frozen=True, slots=True, eq=False)
class BlockSet:
    """Some blocks of a grid."""

    grid: BlockGrid
    members_RC: NDArray[np.bool_]

    @classmethod
    def all(cls, grid: BlockGrid) -> BlockSet:
        """Every block."""
        return cls(grid, np.ones(grid.shape, np.bool_))

    def __len__(self) -> int:
        return int(np.count_nonzero(self.members_RC))

    def __contains__(self, window: Window) -> bool:
        return bool(self.members_RC[self.grid.place(window)])

    def __iter__(self) -> Iterator[Window]:
        return (self.grid.window(int(row), int(column)) for row, column in np.argwhere(self.members_RC))

    def without(self, other_RC: NDArray[np.bool_]) -> BlockSet:
        """The members that are not among the others."""
        return replace(self, members_RC=self.members_RC & ~other_RC)

    def inside(self, window: Window) -> BlockSet:
        """The members that touch a window."""
        members_RC = np.zeros_like(self.members_RC)
        place = self.grid.blocks(window)
        members_RC[place] = self.members_RC[place]
        return replace(self, members_RC=members_RC)

    @property
    def pixels(self) -> int:
        """Number of pixels in all members."""
        heights_R = np.diff(np.minimum(np.arange(self.grid.shape[0] + 1) * self.grid.side, self.grid.height))
        widths_C = np.diff(np.minimum(np.arange(self.grid.shape[1] + 1) * self.grid.side, self.grid.width))
        return int(heights_R @ self.members_RC.astype(np.int64) @ widths_C)

    def touches(self, window: Window) -> bool:
        """Whether any member holds a pixel of the window."""
        return bool(self.members_RC[self.grid.blocks(window)].any())

    def rows(self, left: int, right: int) -> tuple[int, int] | None:
        """The pixel rows from the first to the last member between two columns; None if there is none."""
        whole = Window(0, left, self.grid.height, right)
        present = np.flatnonzero(self.members_RC[self.grid.blocks(whole)].any(axis=1))
        if not present.size:
            return None
        side = self.grid.side
        return int(present[0]) * side, min((int(present[-1]) + 1) * side, self.grid.height)

    def shard(self, number: int, count: int, strip_width: int) -> BlockSet:
        """Part ``number`` (from 1) of ``count`` equal parts, cut in the order in which blocks are made.

        That order is strip by strip, so that the parts share as few tiles as can be.
        """
        return replace(self, members_RC=self.members_RC & (self._shards(count, strip_width) == number))

    def by_shard(self, count: int, strip_width: int) -> dict[int, int]:
        """How many members each of ``count`` shards has, where it has any."""
        numbers, sizes = np.unique(self._shards(count, strip_width)[self.members_RC], return_counts=True)
        return dict(zip(numbers.tolist(), sizes.tolist(), strict=True))

    def _shards(self, count: int, strip_width: int) -> NDArray[np.int64]:
        """Number of the shard of every block of the grid."""
        rows, columns = np.indices(self.grid.shape)
        order = np.lexsort((columns.ravel(), rows.ravel(), (columns * self.grid.side // strip_width).ravel()))
        shards_RC = np.empty(self.grid.shape, np.int64)
        shards_RC.ravel()[order] = ((np.arange(order.size) + 1) * count - 1) // order.size + 1
        return shards_RC
