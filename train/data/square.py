"""Where a square sample lies."""

from __future__ import annotations

from tiler.geometry import Window


def square_at(inside: Window, side: int, middle: tuple[int, int]) -> Window:
    """A square around a pixel, moved inside; narrower where there is no room for it.

    A square anywhere inside would hardly ever show the pixels of a corner.
    """
    height, width = min(side, inside.height), min(side, inside.width)
    top = min(max(middle[0] - height // 2, inside.top), inside.bottom - height)
    left = min(max(middle[1] - width // 2, inside.left), inside.right - width)
    return Window(top, left, top + height, left + width)


def with_margin(square: Window, margin: int, inside: Window) -> Window:
    """A square and what is around it, as far as that lies inside.

    >>> with_margin(Window(0, 50, 10, 60), 4, Window(0, 0, 100, 100))
    Window(top=0, left=46, bottom=14, right=64)
    """
    return Window(
        max(square.top - margin, inside.top),
        max(square.left - margin, inside.left),
        min(square.bottom + margin, inside.bottom),
        min(square.right + margin, inside.right),
    )
