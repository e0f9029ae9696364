"""Raster -> tiles: read, fill, pad by mirroring, normalise. Tiles with nothing to say are left out.

Padding happens here and nowhere else. It is the periodic mirror of ``np.pad(mode="reflect")`` over the
whole raster, worked out per tile by index, so that it does not depend on where the tiles lie.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tiler import kernels
from tiler.errors import InputError
from tiler.flow import prefetch
from tiler.geometry import Window
from tiler.pixels import Pixels, factors, fill_invalid, fill_values

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from tiler.blocks import BlockSet
    from tiler.grid import Strip, TileGrid
    from tiler.ports import Mask, Raster
    from tiler.spec import ModelSpec


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """What the network is fed for one place of the grid."""

    row: int
    column: int
    share: Window
    """The pixels of the raster that this tile contributes to."""
    inset: tuple[int, int]
    """Where ``share`` begins inside the tile: (rows, columns)."""
    input_CHW: NDArray[Any]
    valid_HW: NDArray[np.bool_]
    """Of ``share``, contiguous."""


@dataclass(frozen=True, slots=True, eq=False)
class TileReader:
    """Reads the tiles of one raster for one network."""

    raster: Raster
    spec: ModelSpec
    dtype: np.dtype[Any]
    """What the network takes: an integer dtype is fed raw values, a float one normalised values."""
    mask: Mask | None = None
    """Pixels outside are nodata in the result; None: all are wanted."""

    def __post_init__(self) -> None:
        stored = self.raster.info.dtype
        if self.dtype.kind == "u" and not np.can_cast(stored, self.dtype, "safe"):
            raise InputError(
                f"the network takes raw {self.dtype} pixels, got {stored} in {self.raster.info.name}; "
                "convert the raster"
            )

    def tiles(
        self, strip: Strip, depth: int, threads: int, wanted: BlockSet | None = None
    ) -> Generator[Tile]:
        """The tiles of a strip that contribute a valid pixel (to a wanted block), row by row."""
        places = (
            (row, column)
            for row in strip.rows
            for column in strip.columns
            if wanted is None or wanted.touches(strip.share(row, column))
        )
        read = prefetch(lambda place: self.read(strip, *place), places, depth, threads, give_way=True)
        with closing(read) as tiles:
            yield from (tile for tile in tiles if tile is not None)

    def read(self, strip: Strip, row: int, column: int) -> Tile | None:
        """One tile, or None if none of the pixels it contributes to is valid."""
        share = strip.share(row, column)
        wanted_HW = self._wanted(share)
        if self._skips(share, wanted_HW):
            return None
        top, left = strip.grid.rows.start(row), strip.grid.columns.start(column)
        pixels = read_mirrored(self.raster, _tile_window(strip.grid, top, left))
        inset = share.top - top, share.left - left
        valid_HW = pixels.valid_HW[inset[0] :, inset[1] :][: share.height, : share.width]
        if wanted_HW is not None:
            valid_HW = valid_HW & wanted_HW
        if not valid_HW.any():
            return None
        input_CHW = network_input(pixels, self.spec, self.dtype)
        return Tile(row, column, share, inset, input_CHW, np.ascontiguousarray(valid_HW))

    def skips(self, share: Window) -> bool:
        """Whether a tile is known to contribute no valid pixel before it is read."""
        return self._skips(share, self._wanted(share))

    def _wanted(self, share: Window) -> NDArray[np.bool_] | None:
        return None if self.mask is None else self.mask.read(share)

    def _skips(self, share: Window, wanted_HW: NDArray[np.bool_] | None) -> bool:
        return (wanted_HW is not None and not wanted_HW.any()) or self.raster.empty(share)


def _tile_window(grid: TileGrid, top: int, left: int) -> Window:
    height, width = grid.tile
    return Window(top, left, top + height, left + width)


def network_input(pixels: Pixels, spec: ModelSpec, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Filled pixels as the network wants them: raw in its integer dtype, or as `tiler.pixels.normalise` says.

    Filling and normalising are one pass over the pixels.
    """
    fill_C = fill_values(spec, pixels.raw_CHW.dtype)
    if dtype.kind == "u":
        return fill_invalid(pixels, fill_C).astype(dtype, casting="safe", copy=False)
    out_CHW = np.empty(pixels.raw_CHW.shape, np.float32)
    kernels.feed(pixels.raw_CHW, pixels.valid_HW, fill_C, factors(spec), out_CHW)
    return out_CHW.astype(dtype, copy=False)


def read_mirrored(raster: Raster, window: Window) -> Pixels:
    """The pixels of a window that may reach beyond the raster, where they are mirrored."""
    rows = mirrored(np.arange(window.top, window.bottom), raster.info.height)
    columns = mirrored(np.arange(window.left, window.right), raster.info.width)
    inside = Window(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
    pixels = raster.read(inside)
    if inside == window:
        return pixels
    index = np.ix_(rows - inside.top, columns - inside.left)
    return Pixels(pixels.raw_CHW[:, index[0], index[1]], pixels.valid_HW[index])


def mirrored(index: NDArray[np.int64], extent: int) -> NDArray[np.int64]:
    """Fold indices back into ``[0, extent)`` as ``np.pad(mode="reflect")`` does.

    >>> mirrored(np.arange(-2, 6), 3).tolist()
    [2, 1, 0, 1, 2, 1, 0, 1]
    """
    if extent == 1:
        return np.zeros_like(index)
    period = 2 * (extent - 1)
    folded = np.abs(index) % period
    return np.asarray(np.minimum(folded, period - folded))
