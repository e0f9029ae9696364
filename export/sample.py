"""Windows of real pixels: some to calibrate on, others to judge by, and never one pixel for both.

A raster is cut into cells, coloured as a chessboard is. Whoever calibrates takes black ones and the gate
white ones, whatever the rasters are, so that nobody has to find out whether two of them are the same.
Which cells are taken follows from the raster's size and from where it holds data, and from nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from tiler.errors import InputError
from tiler.geometry import Window, spread
from tiler.tiles import read_mirrored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiler.model import Model
    from tiler.pixels import Pixels
    from tiler.ports import Raster

SIDE: Final = 256
"""Largest side of a cell in pixels, where the network leaves it open."""
BLACK: Final = 0
"""Cells to calibrate on."""
WHITE: Final = 1
"""Cells to judge by."""
TRIES: Final = 4096
"""Places that are thought of before a raster counts as empty."""


@dataclass(frozen=True, slots=True)
class Board:
    """The cells of a raster; what is left over at its right and bottom is in none."""

    extent: tuple[int, int]
    """Height and width of the raster."""
    cell: tuple[int, int]
    """Height and width of a cell, a size that the network takes."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells; at least one, which is then partly mirrored."""
        return max(1, self.extent[0] // self.cell[0]), max(1, self.extent[1] // self.cell[1])

    def windows(self, colour: int) -> Iterator[Window]:
        """The cells of a colour, each once, spread over the whole from the first on."""
        height, width = self.cell
        for row, column in dict.fromkeys(self._places(colour)):
            if column < self.shape[1]:
                yield Window(0, 0, height, width).shifted(row * height, column * width)

    def _places(self, colour: int) -> Iterator[tuple[int, int]]:
        """Rows and columns, repeatedly; a column is drawn from half of them, and the row settles which."""
        rows, pairs = self.shape[0], -(-self.shape[1] // 2)
        for down, across in spread(TRIES):
            row, pair = int(rows * down), int(pairs * across)
            yield row, 2 * pair + (row + colour) % 2


def board(raster: Raster, model: Model) -> Board:
    """Cut a raster into cells that the network takes, at least one of each colour.

    Raises
    ------
    InputError
        if the raster is too small for two cells.
    """
    extent = raster.info.height, raster.info.width
    stride = model.spec.stride or 1
    height, width = (
        fixed or _side(size, stride) for fixed, size in zip(model.shape[1:], extent, strict=True)
    )
    found = Board(extent, (height, width))
    if found.shape == (1, 1):
        raise InputError(
            f"a raster to calibrate on or to judge by has room for two tiles of {height} x {width} px, got "
            f"{extent[0]} x {extent[1]} px in {raster.info.name}; name a larger one"
        )
    return found


def _side(extent: int, stride: int) -> int:
    """Of at least two cells that leave little of the extent over, in whole strides; one stride at least."""
    return max(stride, extent // max(2, -(-extent // SIDE)) // stride * stride)


def sample(raster: Raster, model: Model, colour: int, count: int) -> Iterator[tuple[Window, Pixels]]:
    """At most ``count`` cells of a colour that hold data.

    Raises
    ------
    InputError
        if the raster is too small, or none of its cells of that colour holds data.
    """
    read = ((window, read_mirrored(raster, window)) for window in board(raster, model).windows(colour))
    cells = islice((cell for cell in read if cell[1].valid_HW.any()), count)
    first = next(cells, None)
    if first is None:
        raise InputError(
            "a raster to calibrate on or to judge by holds data in both halves of a chessboard laid over "
            f"it, got none in {raster.info.name}; name another"
        )
    yield first
    yield from cells
