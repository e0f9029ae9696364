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

    @property
    def bottom(self) -> int:
        """One past the last row."""
        return self.top + len(self.planes_QHW[0])

    def between(self, top: int, bottom: int) -> NDArray[np.uint8]:
        """The planes of those of its rows that lie in ``[top, bottom)``, which may be none."""
        return self.planes_QHW[:, max(top - self.top, 0) : max(bottom - self.top, 0)]


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
        tile = prediction.tile
        planes_QHW = self._finisher(prediction.scores_KHW, tile.valid_HW, tile.inset)
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
            self._scores_KHW,
            (place.top, place.left),
            prediction.scores_KHW,
            tile.inset,
            grid.rows.weights(tile.row)[rows : rows + tile.share.height],
            grid.columns.weights(tile.column)[columns : columns + tile.share.width],
        )
        self._valid_HW[place.slices] = tile.valid_HW

    def leave(self, bottom: int) -> Rows:
        """Finish the rows and move what is below them up."""
        count = bottom - self.top
        rows = Rows(self.top, self._finisher(self._scores_KHW, self._valid_HW[:count]))
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


def cut_blocks(row_pieces: Iterable[Rows], strip: Strip, side: int) -> Iterator[Block]:
    """Cut rows into the blocks of a fixed grid of ``side`` pixels, independent of the tiles.

    The strip begins on that grid.
    """
    held: list[Rows] = []
    top = strip.window.top
    for rows in row_pieces:
        held.append(rows)
        while held and (bottom := min(top + side, strip.window.bottom)) <= held[-1].bottom:
            yield from _block_row(held, top, bottom, strip, side)
            held = [piece for piece in held if piece.bottom > bottom]
            top = bottom


def _block_row(held: list[Rows], top: int, bottom: int, strip: Strip, side: int) -> Iterator[Block]:
    for left in range(strip.window.left, strip.window.right, side):
        window = Window(top, left, bottom, min(left + side, strip.window.right))
        columns = slice(left - strip.window.left, window.right - strip.window.left)
        parts = [piece.between(top, bottom)[..., columns] for piece in held]
        yield Block(window, np.concatenate(parts, axis=1))
