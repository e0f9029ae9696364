"""Predictions -> finished rows.

A band one tile row high slides down a strip; rows that can no longer change leave it. Exact mode has
nothing to add up: cores are finished as they come and kept as bytes (`CoreBand`). Blended mode adds
weighted scores and finishes rows when they leave (`BlendBand`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tiler import kernels
from tiler.geometry import Window
from tiler.kernels import NODATA
from tiler.ports import Block

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from tiler.finish import Finisher
    from tiler.grid import Strip
    from tiler.predict import Prediction


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Finished rows over the full width of a strip."""

    top: int
    planes_QHW: NDArray[np.uint8]


class Band(Protocol):
    """Rows in the making; ``top`` is the first that has not left."""

    top: int

    def add(self, prediction: Prediction) -> None:
        """Take a tile's contribution."""

    def leave(self, bottom: int) -> Rows:
        """The finished rows ``[top, bottom)``, which the band then forgets."""


class CoreBand:
    """Exact mode: each pixel comes once, from the tile that owns it."""

    def __init__(self, strip: Strip, finisher: Finisher) -> None:
        self.top = strip.window.top
        self._left = strip.window.left
        self._finisher = finisher
        height = max(last - first for first, last in map(strip.grid.rows.core, strip.rows))
        self._planes_QHW = np.full((finisher.planes, height, strip.window.width), NODATA, np.uint8)

    def add(self, prediction: Prediction) -> None:
        """Finish the core and put it in its place."""
        place = prediction.tile.share.shifted(-self.top, -self._left)
        planes_QHW = self._finisher(prediction.scores_KHW, prediction.tile.valid_HW)
        self._planes_QHW[:, *place.slices] = planes_QHW

    def leave(self, bottom: int) -> Rows:
        """Copy the rows out and blank their place."""
        rows = Rows(self.top, self._planes_QHW[:, : bottom - self.top].copy())
        self._planes_QHW[:] = NODATA
        self.top = bottom
        return rows


class BlendBand:
    """Blended mode: a running weighted sum of scores. The weights sum to one, so there is no division."""

    def __init__(self, strip: Strip, finisher: Finisher) -> None:
        self.top = strip.window.top
        self._strip = strip
        self._finisher = finisher
        shape = strip.grid.rows.tile, strip.window.width
        self._scores_KHW = np.zeros((finisher.channels, *shape), np.float32)
        self._valid_HW = np.zeros(shape, np.bool_)

    def add(self, prediction: Prediction) -> None:
        """Add the weighted scores. All tiles agree on which pixels are valid."""
        tile, grid = prediction.tile, self._strip.grid
        place = tile.share.shifted(-self.top, -self._strip.window.left)
        rows, columns = tile.inset
        kernels.accumulate(
            self._scores_KHW[:, *place.slices],
            prediction.scores_KHW,
            grid.rows.weights(tile.row)[rows : rows + tile.share.height],
            grid.columns.weights(tile.column)[columns : columns + tile.share.width],
        )
        self._valid_HW[place.slices] = tile.valid_HW

    def leave(self, bottom: int) -> Rows:
        """Finish the rows and move what is below them up."""
        count = bottom - self.top
        rows = Rows(self.top, self._finisher(self._scores_KHW[:, :count], self._valid_HW[:count]))
        for array, blank in ((self._scores_KHW, 0.0), (self._valid_HW, False)):
            kept = array.shape[-2] - count
            array[..., :kept, :] = array[..., count:, :].copy()
            array[..., kept:, :] = blank
        self.top = bottom
        return rows


def blend(predictions: Iterable[Prediction], strip: Strip, finisher: Finisher) -> Iterator[Rows]:
    """Finished rows from top to bottom, all of them, also where no tile was computed."""
    exact = strip.grid.rows.window is None
    band: Band = CoreBand(strip, finisher) if exact else BlendBand(strip, finisher)
    current = strip.rows.start
    for prediction in predictions:
        for row in range(current, prediction.tile.row):
            yield band.leave(strip.done(row))
        current = prediction.tile.row
        band.add(prediction)
    for row in range(current, strip.rows.stop):
        yield band.leave(strip.done(row))


def cut_blocks(rows: Iterable[Rows], strip: Strip, side: int) -> Iterator[Block]:
    """Cut rows into the blocks of a fixed grid of ``side`` pixels, independent of the tiles.

    The strip begins on that grid.
    """
    waiting: list[NDArray[np.uint8]] = []
    top = strip.window.top
    for piece in rows:
        waiting.append(piece.planes_QHW)
        held_QHW = np.concatenate(waiting, axis=1) if len(waiting) > 1 else waiting[0]
        bottom = top + held_QHW.shape[1]
        end = bottom == strip.window.bottom
        whole = bottom if end else top + (bottom - top) // side * side
        yield from _block_rows(held_QHW[:, : whole - top], top, strip, side)
        waiting = [held_QHW[:, whole - top :]]
        top = whole


def _block_rows(planes_QHW: NDArray[np.uint8], top: int, strip: Strip, side: int) -> Iterator[Block]:
    for row in range(0, planes_QHW.shape[1], side):
        for column in range(0, strip.window.width, side):
            part_QHW = planes_QHW[:, row : row + side, column : column + side]
            height, width = part_QHW.shape[1:]
            left = strip.window.left + column
            yield Block(Window(top + row, left, top + row + height, left + width), part_QHW.copy())
