"""Keeps blocks of rasters in memory, up to a limit, so that random crops do not decode them again.

Not for several threads at once: each training worker has its own.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler.geometry import Window
from tiler.pixels import Pixels

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from tiler.ports import Raster, RasterInfo

BLOCK: Final = 512
"""Side of a cached block, pixels."""


@dataclass(slots=True, eq=False)
class BlockCache:
    """The blocks used last, of any number of rasters."""

    limit: int
    """Bytes; the block used longest ago leaves first."""
    used: int = field(default=0, init=False)
    blocks: OrderedDict[Hashable, Pixels] = field(default_factory=OrderedDict, init=False)

    def get(self, key: Hashable, raster: Raster, window: Window) -> Pixels:
        """The pixels of a block, read now if they are not here."""
        if key in self.blocks:
            self.blocks.move_to_end(key)
            return self.blocks[key]
        pixels = raster.read(window)
        self._keep(key, pixels)
        return pixels

    def _keep(self, key: Hashable, pixels: Pixels) -> None:
        self.blocks[key] = pixels
        self.used += _size(pixels)
        while self.used > self.limit and self.blocks:
            _, dropped = self.blocks.popitem(last=False)
            self.used -= _size(dropped)


def _size(pixels: Pixels) -> int:
    return pixels.raw_CHW.nbytes + pixels.valid_HW.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class CachedRaster:
    """A raster that is read through a cache."""

    raster: Raster
    cache: BlockCache
    key: Hashable
    """Tells this raster's blocks from others'."""
    info: RasterInfo = field(init=False)
    """The raster's own."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "info", self.raster.info)

    def empty(self, window: Window) -> bool:
        """Not known."""
        del window
        return False

    def read(self, window: Window) -> Pixels:
        """A new array, put together from blocks."""
        raw_CHW = np.empty((self.info.bands, *window.shape), self.info.dtype)
        valid_HW = np.empty(window.shape, np.bool_)
        for block in self._blocks(window):
            pixels = self.cache.get((self.key, block), self.raster, block)
            both = _intersection(block, window)
            into = both.shifted(-window.top, -window.left).slices
            out_of = both.shifted(-block.top, -block.left).slices
            raw_CHW[:, *into] = pixels.raw_CHW[:, *out_of]
            valid_HW[into] = pixels.valid_HW[out_of]
        return Pixels(raw_CHW, valid_HW)

    def _blocks(self, window: Window) -> Iterator[Window]:
        whole = Window(0, 0, self.info.height, self.info.width)
        for top in range(window.top // BLOCK * BLOCK, window.bottom, BLOCK):
            for left in range(window.left // BLOCK * BLOCK, window.right, BLOCK):
                yield _intersection(Window(top, left, top + BLOCK, left + BLOCK), whole)


def _intersection(a: Window, b: Window) -> Window:
    return Window(max(a.top, b.top), max(a.left, b.left), min(a.bottom, b.bottom), min(a.right, b.right))
