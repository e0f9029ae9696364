"""Half-open pixel rectangles. Rows before columns, integers only, no knowledge of files or tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

GOLDEN: Final = (0.7548776662466927, 0.5698402909980532)
"""One over the plastic number, and its square."""


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """The pixels ``[top, bottom)`` x ``[left, right)``; never empty.

    >>> Window(0, 2, 3, 7).shape
    (3, 5)
    """

    top: int
    """First row."""
    left: int
    """First column."""
    bottom: int
    """One past the last row."""
    right: int
    """One past the last column."""

    def __post_init__(self) -> None:
        if self.bottom <= self.top or self.right <= self.left:
            raise UsageError(f"a window holds at least one pixel, got {self}")

    def __str__(self) -> str:
        return f"rows {self.top}:{self.bottom}, columns {self.left}:{self.right}"

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.right - self.left

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        return self.height, self.width

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of this window in the last two axes of an array: ``array[..., *w.slices]``."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def shifted(self, rows: int, columns: int) -> Window:
        """The same rectangle moved by ``rows`` and ``columns``.

        >>> Window(0, 0, 2, 2).shifted(1, -1)
        Window(top=1, left=-1, bottom=3, right=1)
        """
        return Window(self.top + rows, self.left + columns, self.bottom + rows, self.right + columns)

    def contains(self, other: Window) -> bool:
        """Whether every pixel of ``other`` is inside."""
        return (
            self.top <= other.top
            and self.left <= other.left
            and other.bottom <= self.bottom
            and other.right <= self.right
        )

    def touches(self, other: Window) -> bool:
        """Whether any pixel is in both."""
        return (
            self.top < other.bottom
            and other.top < self.bottom
            and self.left < other.right
            and other.left < self.right
        )

    def intersection(self, other: Window) -> Window:
        """The pixels in both.

        Raises
        ------
        UsageError
            if there is none.
        """
        return Window(
            max(self.top, other.top),
            max(self.left, other.left),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )

    def scaled(self, before: tuple[int, int], after: tuple[int, int]) -> Window:
        """The same rectangle, rounded outward, where ``before`` (height, width) pixels become ``after``.

        >>> Window(1, 1, 2, 3).scaled((10, 10), (5, 20))
        Window(top=0, left=2, bottom=1, right=6)
        """
        (height, width), (new_height, new_width) = before, after
        return Window(
            self.top * new_height // height,
            self.left * new_width // width,
            -(-self.bottom * new_height // height),
            -(-self.right * new_width // width),
        )


def spread(count: int) -> Iterator[tuple[float, float]]:
    """Points in [0, 1) x [0, 1) that fill the square evenly from the first on.

    Roberts, "The unreasonable effectiveness of quasirandom sequences" (2018).
    """
    for i in range(1, count + 1):
        yield i * GOLDEN[0] % 1, i * GOLDEN[1] % 1


def nearest(target: int, source: int) -> NDArray[np.int64]:
    """Index of the source pixel under the centre of each target pixel, for axes of the same extent.

    >>> nearest(4, 2).tolist()
    [0, 0, 1, 1]
    """
    return (2 * np.arange(target) + 1) * source // (2 * target)
