"""Where tiles lie. One axis is solved alone; a grid is rows x columns of it.

Along an axis of ``extent`` pixels, tiles of one size start at multiples of the network's stride. The
extent is padded at its end to a multiple of the stride (by `tiler.tiles`, mirrored); the last tile is
shifted back to end there. A tile either owns its *core* (exact mode) or shares its pixels with its
neighbours by weights that sum to one (blended mode).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tiler.errors import UsageError
from tiler.geometry import Window
from tiler.weights import WINDOWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Axis:
    """The tiles along one dimension.

    >>> axis = Axis(extent=100, tile=48, overlap=16, stride=16)
    >>> axis.starts
    (0, 32, 64)
    >>> [axis.core(i) for i in range(axis.count)]
    [(0, 40), (40, 72), (72, 100)]
    """

    extent: int
    """Pixels of the raster."""
    tile: int
    """Pixels of a tile, a multiple of ``stride``."""
    overlap: int = 0
    """Pixels shared by neighbouring tiles: twice the halo in exact mode. The step between tiles, ``tile -
    overlap``, is a multiple of ``stride``."""
    stride: int = 1
    """Tile starts are multiples of this."""
    window: str | None = None
    """Name of a blend window, or None for cores (exact mode)."""
    part: tuple[int, int] | None = None
    """The only pixels ``[first, last)`` that tiles are made for; None: all. See `within`."""

    def __post_init__(self) -> None:
        if self.extent < 1:
            raise UsageError(f"an axis has at least one pixel, got {self.extent}")
        if self.stride < 1:
            raise UsageError(f"stride is at least 1, got {self.stride}")
        if self.tile < 1 or self.tile % self.stride:
            raise UsageError(f"tile is a positive multiple of the stride {self.stride}, got {self.tile}")
        if not 0 <= self.overlap < self.tile:
            raise UsageError(
                f"overlap is at least 0 and less than the tile {self.tile}, got {self.overlap}; "
                "make the tile larger or the overlap (twice the halo) smaller"
            )
        if self.step % self.stride:
            raise UsageError(
                f"tile - overlap is a multiple of the stride {self.stride}, got {self.tile} - {self.overlap}"
            )
        if self.window is not None and self.window not in WINDOWS:
            raise UsageError(f"a blend window is one of {', '.join(WINDOWS)}, got {self.window!r}")
        if self.part is not None and not 0 <= self.part[0] < self.part[1] <= self.extent:
            raise UsageError(f"a part of an axis lies within its {self.extent} pixels, got {self.part}")
        if self.part is not None and self.window is not None:
            raise UsageError("only cores are made for a part of an axis: blended tiles lie where they lie")

    @property
    def first(self) -> int:
        """The first pixel that tiles are made for."""
        return self.part[0] if self.part else 0

    @property
    def last(self) -> int:
        """One past the last pixel that tiles are made for."""
        return self.part[1] if self.part else self.extent

    @property
    def step(self) -> int:
        """Distance between the starts of neighbouring tiles."""
        return self.tile - self.overlap

    @property
    def padded(self) -> int:
        """Extent rounded up to a multiple of the stride, and to one tile at least."""
        return max(self.tile, round_up(self.extent, self.stride))

    @property
    def begin(self) -> int:
        """Start of the first tile: on the stride, half an overlap before `first` where there is room."""
        before = max(0, self.first - self.overlap // 2) // self.stride * self.stride
        return min(before, self.padded - self.tile)

    @property
    def end(self) -> int:
        """End of the last tile, likewise."""
        after = self.padded if self.part is None else round_up(self.last + self.overlap // 2, self.stride)
        return max(min(after, self.padded), self.begin + self.tile)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return -(-(self.end - self.begin - self.tile) // self.step) + 1

    @property
    def starts(self) -> tuple[int, ...]:
        """First pixel of every tile, ascending."""
        return tuple(self.start(i) for i in range(self.count))

    def start(self, i: int) -> int:
        """First pixel of tile ``i``."""
        return min(self.begin + i * self.step, self.end - self.tile)

    def stop(self, i: int) -> int:
        """One past the last pixel of tile ``i`` that is in the raster."""
        return min(self.start(i) + self.tile, self.extent)

    def core(self, i: int) -> tuple[int, int]:
        """The pixels ``[first, last)`` that tile ``i`` owns in exact mode; cores meet and cover the axis."""
        return self._cut(i), self._cut(i + 1)

    def _cut(self, i: int) -> int:
        """Where tile ``i`` takes over from the one before it."""
        if i == 0:
            return self.first
        if i == self.count:
            return self.last
        return self.start(i - 1) + self.tile - self.overlap // 2

    def share(self, i: int) -> tuple[int, int]:
        """The pixels ``[first, last)`` to which tile ``i`` contributes: its core, or all of it if blended."""
        return self.core(i) if self.window is None else (self.start(i), self.stop(i))

    def done(self, i: int) -> int:
        """One past the last pixel that no tile after ``i`` contributes to."""
        return self.last if i + 1 == self.count else self.share(i + 1)[0]

    def within(self, first: int, last: int, *, fixed: bool = False) -> Axis:
        """Tiles for the pixels ``[first, last)`` alone, with the halo of this axis around them.

        They are as few as this axis' tile allows, and no larger than that takes, unless their size is fixed.

        >>> axis = Axis(extent=1000, tile=128, overlap=32, stride=16).within(400, 600)
        >>> axis.tile, axis.starts, [axis.core(i) for i in range(axis.count)]
        (112, (384, 464, 512), [(400, 480), (480, 560), (560, 600)])
        """
        part = replace(self, part=(first, last))
        # One tile over all of the axis has no overlap that tells its halo.
        if fixed or self.count == 1:
            return part
        before, after = first - self.overlap // 2, last + self.overlap // 2
        span = min(round_up(after, self.stride), self.padded) - max(0, before) // self.stride * self.stride
        core = round_up(-(-max(span - self.overlap, 1) // part.count), self.stride)
        return replace(part, tile=min(self.tile, core + self.overlap))

    def weights(self, i: int) -> NDArray[np.float32]:
        """Weight of tile ``i`` at each pixel of its `share`; over all tiles they sum to one everywhere."""
        first, last = self.share(i)
        if self.window is None:
            return np.ones(last - first, np.float32)
        window = WINDOWS[self.window](self.tile)
        total = np.zeros(last - first)
        for j in self.touching(first, last):
            begin, end = max(first, self.start(j)), min(last, self.stop(j))
            total[begin - first : end - first] += window[begin - self.start(j) : end - self.start(j)]
        return (window[: last - first] / total).astype(np.float32)

    def touching(self, first: int, last: int) -> range:
        """The tiles that contribute to any pixel of ``[first, last)``."""
        tiles = [i for i in self._near(first, last) if self.share(i)[0] < last and self.share(i)[1] > first]
        return range(tiles[0], tiles[-1] + 1)

    def _near(self, first: int, last: int) -> range:
        before, after = (first - self.begin - self.tile) // self.step, (last - self.begin) // self.step + 2
        return range(max(0, before), min(self.count, after))


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Rows and columns of tiles over a raster."""

    rows: Axis
    columns: Axis
    part: Window | None = None
    """The only pixels that are wanted; None: all of the raster."""

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of every tile, halo included."""
        return self.rows.tile, self.columns.tile

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self.rows.count * self.columns.count

    @property
    def waste(self) -> float:
        """Pixels computed per pixel of the raster, at least 1."""
        return self.count * self.rows.tile * self.columns.tile / (self.rows.extent * self.columns.extent)

    def share(self, row: int, column: int) -> Window:
        """The pixels to which a tile contributes."""
        top, bottom = self.rows.share(row)
        left, right = self.columns.share(column)
        return Window(top, left, bottom, right)

    def strips(self, width: int) -> Iterator[Strip]:
        """Cut what is wanted into column strips ``width`` pixels wide, each to be streamed top to bottom."""
        whole = self.part or Window(0, 0, self.rows.extent, self.columns.extent)
        for left in range(whole.left, whole.right, width):
            yield Strip(self, replace(whole, left=left, right=min(left + width, whole.right)))


@dataclass(frozen=True, slots=True)
class Strip:
    """A part of the raster that is streamed top to bottom, and the tiles that contribute to it."""

    grid: TileGrid
    window: Window

    @property
    def rows(self) -> range:
        """Tile rows; the outermost may reach beyond the strip."""
        return self.grid.rows.touching(self.window.top, self.window.bottom)

    @property
    def columns(self) -> range:
        """Tile columns; the outermost may reach beyond the strip and serve its neighbour too."""
        return self.grid.columns.touching(self.window.left, self.window.right)

    def between(self, top: int, bottom: int) -> Strip:
        """Only these pixel rows of the strip."""
        return replace(self, window=replace(self.window, top=top, bottom=bottom))

    def share(self, row: int, column: int) -> Window:
        """The pixels inside the strip to which a tile contributes."""
        return self.grid.share(row, column).intersection(self.window)

    def done(self, row: int) -> int:
        """One past the last pixel row of the strip that no tile below ``row`` contributes to."""
        return min(max(self.grid.rows.done(row), self.window.top), self.window.bottom)


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``value``.

    >>> round_up(17, 16)
    32
    """
    return -(-value // multiple) * multiple
