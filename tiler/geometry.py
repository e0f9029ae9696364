"""Half-open pixel rectangles. Rows before columns, integers only, no knowledge of files or tiles."""

from __future__ import annotations

from dataclasses import dataclass

from tiler.errors import UsageError


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
