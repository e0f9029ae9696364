"""Boundaries with fewer points, that neither cross nor part from each other.

Douglas and Peucker's algorithm, on arcs: pieces of boundary between two fixed points. How far a lattice
vertex may be moved is told by the pixels around it alone, and an arc is walked in the direction that its own
coordinates choose, so the components on its two sides simplify it alike, without knowing of each other, and
whatever the strips.

The *room* of a vertex is the largest window around it, of so many pixels to each side, whose boundaries are
one single line that never turns back both in x and in y. It is moved by less than (room - 1.5) / 2 pixels.
Two vertices of other lines at a distance d have at most d pixels of room each, vertices beside them at most
d + 1, points between vertices are at least d - 1 from each other: so lines that give way do not meet.
Junctions, where boundaries of three or more components or the raster's edge meet, have no room and stay.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from numba import njit

from tiler.vector.corners import EAST, LINE, NORTH, SOUTH, WAYS, WEST

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIGHT: Final = 63
"""Of a node's flags: pixels of room that it lacks to be moved as far as the tolerance allows."""
JUNCTION: Final = 64


def reach(tolerance: float) -> int:
    """The room that a vertex needs to be moved by the tolerance.

    >>> reach(0), reach(1)
    (1, 4)
    """
    return math.ceil(2 * tolerance + 1.5) if tolerance else 1


@njit(nogil=True, cache=True)
def turns_back(mask: int) -> bool:
    """Whether steps in these directions go to and fro along both axes."""
    return mask == EAST | SOUTH | WEST | NORTH


@njit(nogil=True, cache=True)
def opposite(way: int) -> int:
    """The way back."""
    return way >> 2 if way >= WEST else way << 2


@njit(nogil=True, cache=True)
def vertex_flags(corners_HW: NDArray[np.uint8], i: int, x: int, reach: int) -> int:
    """0 if a vertex may be moved as far as the tolerance allows; else what it lacks, or `JUNCTION`."""
    if not corners_HW[i, x] & LINE:
        return reach | JUNCTION
    if is_clear(corners_HW, i, x, reach):
        return 0
    room = 1
    while is_clear(corners_HW, i, x, room + 1):
        room += 1
    return reach - room


@njit(nogil=True, cache=True)
def is_clear(corners_HW: NDArray[np.uint8], i: int, x: int, radius: int) -> bool:
    """Whether the boundaries in a window are one line, through its middle, that does not turn back."""
    boundaries = 0
    for row in range(i - radius + 1, i + radius):
        for column in range(x - radius + 1, x + radius):
            if corners_HW[row, column]:
                if not corners_HW[row, column] & LINE:
                    return False
                boundaries += 1
    here = corners_HW[i, x] & WAYS
    walked, mask = 1, 0
    for forward in range(2):
        # The first way out, then the other one, whose steps count as if they were made the other way round.
        first = here & -here
        step = first if forward == 0 else here ^ first
        row, column = i, x
        while True:
            mask |= step if forward == 0 else opposite(step)
            row += (step == SOUTH) - (step == NORTH)
            column += (step == EAST) - (step == WEST)
            if abs(row - i) >= radius or abs(column - x) >= radius:
                break
            if row == i and column == x:
                return False
            walked += 1
            step = corners_HW[row, column] & WAYS ^ opposite(step)
    return walked == boundaries and not turns_back(mask)


@njit(nogil=True, cache=True)
def ring_kept(
    node_N2: NDArray[np.int32],
    flags_N: NDArray[np.uint8],
    ring_M: NDArray[np.int32],
    tolerance: float,
    reach: int,
) -> NDArray[np.bool_]:
    """Which nodes of a ring are kept."""
    size = len(ring_M)
    if tolerance == 0.0:
        return np.ones(size, np.bool_)
    points_M2 = np.empty((size, 2), np.int64)
    limit_M, fixed_M = np.empty(size), np.zeros(size, np.bool_)
    for k in range(size):
        points_M2[k, 0], points_M2[k, 1] = node_N2[ring_M[k], 0], node_N2[ring_M[k], 1]
        room = reach - (flags_N[ring_M[k]] & TIGHT)
        limit_M[k] = min(tolerance, max(0.0, (room - 1.5) / 2))
        fixed_M[k] = limit_M[k] == 0.0
    if not fixed_M.any():
        anchor(points_M2, fixed_M)
    kept_M = fixed_M.copy()
    first = int(np.argmax(fixed_M))
    start = first
    while True:
        end = start + 1
        while not fixed_M[end % size]:
            end += 1
        keep_arc(points_M2, start, end, limit_M, kept_M)
        start = end
        if start == first + size:
            break
    drop_straight(points_M2, flags_N, ring_M, kept_M)
    return kept_M


@njit(nogil=True, cache=True)
def before(points_M2: NDArray[np.int64], a: int, b: int) -> bool:
    """Whether a point comes before another, by x and then y."""
    ax, ay = points_M2[a, 0], points_M2[a, 1]
    bx, by = points_M2[b, 0], points_M2[b, 1]
    return bool(ax < bx or (ax == bx and ay < by))


@njit(nogil=True, cache=True)
def anchor(points_M2: NDArray[np.int64], fixed_M: NDArray[np.bool_]) -> None:
    """Fix two points of a ring that has none: the first by its coordinates, and the farthest from it."""
    size, low = len(points_M2), 0
    for k in range(size):
        if before(points_M2, k, low):
            low = k
    far, most = low, -1
    for k in range(size):
        dx, dy = points_M2[k, 0] - points_M2[low, 0], points_M2[k, 1] - points_M2[low, 1]
        distance = dx * dx + dy * dy
        if distance > most or (distance == most and before(points_M2, k, far)):
            far, most = k, distance
    fixed_M[low] = fixed_M[far] = True


@njit(nogil=True, cache=True)
def keep_arc(
    points_M2: NDArray[np.int64],
    start: int,
    end: int,
    limit_M: NDArray[np.float64],
    kept_M: NDArray[np.bool_],
) -> None:
    """Keep what an arc needs, so that every point is off by less than its limit.

    Its ends are numbers along the ring, which goes round.
    """
    if end - start < 2:
        return
    path_A = np.arange(start, end + 1) % len(points_M2)
    inner = 1 if path_A[0] == path_A[-1] else 0
    if before(points_M2, path_A[-1 - inner], path_A[inner]):
        path_A = path_A[::-1].copy()
    stack = [(0, len(path_A) - 1)]
    while stack:
        low, high = stack.pop()
        far, most, mask = low, -1.0, 0
        for step in range(low + 1, high + 1):
            k, last = path_A[step], path_A[step - 1]
            dx, dy = points_M2[k, 0] - points_M2[last, 0], points_M2[k, 1] - points_M2[last, 1]
            mask |= (EAST if dx > 0 else WEST) if dx else (SOUTH if dy > 0 else NORTH)
            if step < high:
                excess = from_segment(points_M2, k, path_A[low], path_A[high]) / limit_M[k]
                if excess > most:
                    far, most = step, excess
        if far > low and (most >= 1.0 or turns_back(mask)):
            kept_M[path_A[far]] = True
            stack.append((low, far))
            stack.append((far, high))


@njit(nogil=True, cache=True)
def from_segment(points_M2: NDArray[np.int64], k: int, p: int, q: int) -> float:
    """Distance of a point from the segment between two others."""
    px, py = points_M2[p, 0], points_M2[p, 1]
    dx, dy = points_M2[q, 0] - px, points_M2[q, 1] - py
    x, y = points_M2[k, 0] - px, points_M2[k, 1] - py
    length = dx * dx + dy * dy
    share = 0.0 if length == 0 else min(1.0, max(0.0, (x * dx + y * dy) / length))
    return math.hypot(x - share * dx, y - share * dy)


@njit(nogil=True, cache=True)
def drop_straight(
    points_M2: NDArray[np.int64],
    flags_N: NDArray[np.uint8],
    ring_M: NDArray[np.int32],
    kept_M: NDArray[np.bool_],
) -> None:
    """Drop points that lie on the way between their neighbours, but for junctions."""
    kept = np.flatnonzero(kept_M)
    for j in range(len(kept)):
        k = kept[j]
        if flags_N[ring_M[k]] & JUNCTION:
            continue
        # Whether a point is on a line does not depend on its neighbours' being dropped from the line.
        p, q = kept[j - 1], kept[(j + 1) % len(kept)]
        ax, ay = points_M2[k, 0] - points_M2[p, 0], points_M2[k, 1] - points_M2[p, 1]
        bx, by = points_M2[q, 0] - points_M2[k, 0], points_M2[q, 1] - points_M2[k, 1]
        if ax * by == ay * bx and ax * bx + ay * by > 0:
            kept_M[k] = False
