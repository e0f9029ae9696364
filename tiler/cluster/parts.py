"""A run's blocks in squares, each a task of seconds. Pure: no knowledge of files or schedulers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler.geometry import Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiler.blocks import BlockGrid, BlockSet

SECONDS: Final = 10.0
"""That a task should take: long against what a scheduler does for it, short against what a kill loses."""
PER_WORKER: Final = 4
"""Tasks for each worker at least, where there are so many blocks: the last ones are then soon done."""


@dataclass(frozen=True, slots=True)
class Part:
    """The blocks ``[top, bottom)`` x ``[left, right)`` of a grid, in blocks."""

    top: int
    left: int
    bottom: int
    right: int

    def window(self, grid: BlockGrid) -> Window:
        """Their pixels."""
        first, last = grid.window(self.top, self.left), grid.window(self.bottom - 1, self.right - 1)
        return Window(first.top, first.left, last.bottom, last.right)

    def of(self, blocks: BlockSet) -> BlockSet:
        """The members that lie here."""
        return blocks.inside(self.window(blocks.grid))


def part_side(grid: BlockGrid, pixels_per_second: float, workers: int) -> int:
    """Blocks along the side of a part that one worker computes in about `SECONDS`.

    >>> from tiler.blocks import BlockGrid
    >>> part_side(BlockGrid(100_000, 100_000, 1024), pixels_per_second=1e6, workers=2)
    3
    """
    rows, columns = grid.shape
    fits = math.sqrt(pixels_per_second * SECONDS) / grid.side
    shared_out = math.sqrt(rows * columns / (PER_WORKER * max(1, workers)))
    return max(1, round(min(fits, shared_out)))


def parts(missing: BlockSet, side: int) -> Iterator[Part]:
    """The squares of ``side`` x ``side`` blocks that miss one, row by row."""
    rows, columns = missing.grid.shape
    for top in range(0, rows, side):
        bottom = min(top + side, rows)
        lacking_C = np.atleast_1d(np.any(missing.members_RC[top:bottom], axis=0))
        for left in range(0, columns, side):
            right = min(left + side, columns)
            if lacking_C[left:right].any():
                yield Part(top, left, bottom, right)
