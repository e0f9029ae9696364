"""A sink in memory: for tests, notebooks and small images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tiler.ports import Block


class ArraySink:
    """Collects blocks into ``planes_QHW`` and counts how often each pixel was written."""

    def __init__(self, planes: int, height: int, width: int) -> None:
        self.planes_QHW = np.zeros((planes, height, width), np.uint8)
        self.writes_HW = np.zeros((height, width), np.int64)

    def write(self, block: Block) -> None:
        """Paste the block."""
        self.planes_QHW[:, *block.window.slices] = block.planes_QHW
        self.writes_HW[block.window.slices] += 1
