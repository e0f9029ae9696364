"""Which boundaries meet at each pixel corner: one byte, of its four pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import njit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EAST, SOUTH, WEST, NORTH = 1, 2, 4, 8
"""A boundary leaves in this direction; the bits have the numbers of headings, clockwise from east."""
WAYS = 15
LINE = 16
"""Two boundaries leave, so that one passes."""
SOUTH_EAST, NORTH_EAST = 32, 64
"""Four leave, and the pixels in the north-west and the south-east, or in the other two corners, are alike."""


@njit(nogil=True, cache=True)
def corners_of(strip_HW: NDArray[np.generic], corners_HW: NDArray[np.uint8]) -> None:
    """The upper left corner of every pixel but those of the first row and column."""
    for i in range(1, strip_HW.shape[0]):
        above, here, out = strip_HW[i - 1], strip_HW[i], corners_HW[i]
        for x in range(1, strip_HW.shape[1]):
            east, south = above[x] != here[x], here[x - 1] != here[x]
            west, north = above[x - 1] != here[x - 1], above[x - 1] != above[x]
            count = east + south + west + north
            across = (count == 4) & (above[x - 1] == here[x])
            other = (count == 4) & (above[x] == here[x - 1])
            out[x] = (
                EAST * east
                | SOUTH * south
                | WEST * west
                | NORTH * north
                | LINE * (count == 2)
                | SOUTH_EAST * across
                | NORTH_EAST * other
            )
