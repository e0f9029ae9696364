"""Where the classes are, coarsely, so that rare ones can be shown as often as frequent ones.

A map of cells, with the number of pixels of each class in each: within bounds of memory, whatever the
rasters' sizes. A cell is drawn by its count and a pixel within it evenly, so every pixel of a class is as
likely as any other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler.geometry import Window
from train.data.target import IGNORE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from train.data.labelled import Library, Part

MOST: Final = 1 << 22
"""Counts that are kept, of all classes."""
FINEST: Final = 64
"""Smallest side of a cell, pixels."""


def cell_side(areas: Sequence[int], classes: int) -> int:
    """Side of the cells, a power of two: as fine as memory allows.

    >>> cell_side([4096 * 4096], 2), cell_side([10**12], 2)
    (64, 1024)
    """
    side = FINEST
    while sum(areas) * classes > MOST * side**2:
        side *= 2
    return side


@dataclass(slots=True, eq=False)
class ClassMap:
    """Pixels of each class per cell of each part."""

    side: int
    """Of a cell, pixels."""
    classes: int
    counts: list[NDArray[np.int64]] = field(default_factory=list, init=False)
    """Per part, (cells, K); cells row by row."""
    _summed: tuple[NDArray[np.int64], NDArray[np.int64]] | None = field(default=None, init=False)

    def begin(self, window: Window) -> None:
        """The next part."""
        rows, columns = (-(-n // self.side) for n in window.shape)
        self.counts.append(np.zeros((rows * columns, self.classes), np.int64))

    def add(self, part: Window, window: Window, target_HW: NDArray[np.int64]) -> None:
        """Count the pixels of a window of the part that was begun last."""
        rows = (np.arange(window.top, window.bottom) - part.top) // self.side
        columns = (np.arange(window.left, window.right) - part.left) // self.side
        cell_HW = rows[:, None] * -(-part.width // self.side) + columns
        planes_KHW = target_HW if target_HW.ndim == 3 else None
        if planes_KHW is None:
            known_HW = target_HW != IGNORE
            where_N = cell_HW[known_HW] * self.classes + target_HW[known_HW]
            self._count(where_N)
            return
        for value, plane_HW in enumerate(planes_KHW):
            self._count(cell_HW[plane_HW == 1] * self.classes + value)

    def _count(self, where_N: NDArray[np.int64]) -> None:
        counts_MK = self.counts[-1]
        counts_MK += np.bincount(where_N, minlength=counts_MK.size).reshape(counts_MK.shape)

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Labelled pixels of each class."""
        return sum((counts_MK.sum(axis=0) for counts_MK in self.counts), np.zeros(self.classes, np.int64))

    def draw_class(
        self, parts: Sequence[Part], library: Library, rng: np.random.Generator
    ) -> tuple[Part, tuple[int, int]]:
        """A pixel of a class drawn evenly from those that occur, and the part where it is."""
        until_SM, _ = self._sums()
        value = int(rng.choice(np.flatnonzero(until_SM[: self.classes, -1])))
        part, window, target_HW = self._cell(value, parts, library, rng)
        of_class_HW = target_HW == value if target_HW.ndim == 2 else target_HW[value] == 1
        return part, _pixel(of_class_HW, window, rng)

    def draw_known(
        self, parts: Sequence[Part], library: Library, rng: np.random.Generator
    ) -> tuple[Part, tuple[int, int]]:
        """A pixel of any class, and the part where it is."""
        part, window, target_HW = self._cell(self.classes, parts, library, rng)
        of_any_HW = target_HW != IGNORE if target_HW.ndim == 2 else (target_HW == 1).any(axis=0)
        return part, _pixel(of_any_HW, window, rng)

    def _cell(
        self, row: int, parts: Sequence[Part], library: Library, rng: np.random.Generator
    ) -> tuple[Part, Window, NDArray[np.int64]]:
        """A cell drawn by its count of a class, the number K standing for any: part, window and target."""
        until_SM, until_P = self._sums()
        cell = int(np.searchsorted(until_SM[row], rng.integers(until_SM[row, -1]), side="right"))
        number = int(np.searchsorted(until_P, cell, side="right"))
        part = parts[number]
        window = self._window(part.window, cell - int(until_P[number]) + len(self.counts[number]))
        return part, window, library.open(part.source).read(window)[1]

    def _sums(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Up to and including each: pixels by cell, of each class and then of all; and cells by part."""
        if self._summed is None:
            counts_MK = np.concatenate(self.counts)
            counts_MS = np.append(counts_MK, counts_MK.sum(axis=1, keepdims=True), axis=1)
            cells_P = [len(counts) for counts in self.counts]
            self._summed = np.cumsum(counts_MS, axis=0).T.copy(), np.cumsum(cells_P)
        return self._summed

    def _window(self, part: Window, cell: int) -> Window:
        row, column = divmod(cell, -(-part.width // self.side))
        top, left = part.top + row * self.side, part.left + column * self.side
        return Window(top, left, top + self.side, left + self.side).intersection(part)


def _pixel(wanted_HW: NDArray[np.bool_], window: Window, rng: np.random.Generator) -> tuple[int, int]:
    row, column = rng.choice(np.argwhere(wanted_HW)).tolist()
    return window.top + row, window.left + column
