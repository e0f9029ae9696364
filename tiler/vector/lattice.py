"""The boundaries of a label raster on the lattice of its pixel corners, in one pass from top to bottom.

A component is a largest set of pixels of one value that are connected by their sides. Of each one, the
*nodes* of its boundary are kept: the corners where it turns. A boundary runs with its component on the right
(east along the top of a pixel, south along its right side), so every node has one successor, and following
successors gives the rings. While rows go by, nodes are linked along rows and columns: nothing is sorted, and
component numbers are held of two rows only. A component that does not reach the last row any more is closed:
its rings are complete, are given out, and are forgotten.

Where two pixels of a component touch at a corner only, both turns through that corner are possible. It is the
one that joins their outsides: then no ring touches itself, only a hole its shell, which is a valid polygon.

Serial numba without the GIL, as in `tiler.kernels`. A strip holds ``margin`` more rows and columns of nodata
on each side than are scanned; its rows and columns are numbered by i and x. N nodes, I component numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numba import njit

from tiler.vector.corners import NORTH_EAST, SOUTH_EAST, WAYS
from tiler.vector.simplify import ring_kept, vertex_flags

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELL: Final = 1024
"""Side of the squares within which all pixels are taken to be equally large."""
PAIR: Final = 128
"""Flag of a node that shares its corner with the next one, of a pixel of the same value across the corner."""
NODES_PER_CORNER: Final = 4
NO_NODE: Final = -1
HEADINGS: Final = (1, 3, 0, 2)
"""South, north, east, west: those that may be a `PAIR` follow each other. 0 to 3 go clockwise from east."""
FORWARD: Final = 2
"""Headings below it lead where the scan goes, so that their first node is known before their last."""


class Nodes(NamedTuple):
    """Corners of boundaries that are not given out yet."""

    place_N2: NDArray[np.int32]
    """x and y in pixels from the raster's upper left corner."""
    next_N: NDArray[np.int32]
    """The successor along the ring."""
    owner_N: NDArray[np.int32]
    """A number of the component."""
    flags_N: NDArray[np.uint8]
    """Of `tiler.vector.simplify`, and `PAIR`."""


class Numbers(NamedTuple):
    """Component numbers; several may stand for one component, of which one is its own parent."""

    parent_I: NDArray[np.int32]
    value_I: NDArray[np.int64]
    """Label."""
    pixels_I: NDArray[np.int64]
    area_I: NDArray[np.float64]


@njit(nogil=True, cache=True)
def find(parent_I: NDArray[np.int32], i: int) -> int:
    """The number that stands for a component; the path to it is halved."""
    while parent_I[i] != i:
        parent_I[i] = parent_I[parent_I[i]]
        i = parent_I[i]
    return i


@njit(nogil=True, cache=True)
def number_row(
    strip_HW: NDArray[np.generic],
    i: int,
    margin: int,
    excluded: tuple[int, int],
    areas_C: NDArray[np.float64],
    above_X: NDArray[np.int32],
    ids_X: NDArray[np.int32],
    numbers: Numbers,
    count: int,
) -> int:
    """Give the pixels of a row their component numbers, -1 where excluded; how many numbers there are then.

    ``areas_C``: the area of a pixel in each cell of this row of cells.
    """
    x, end = margin, strip_HW.shape[1] - margin
    while x < end:
        value, start, own, last = np.int64(strip_HW[i, x]), x, -1, -1
        wanted = value not in excluded
        while x < end and strip_HW[i, x] == value:
            if wanted and strip_HW[i - 1, x] == value and above_X[x] != last:
                last = above_X[x]
                root = find(numbers.parent_I, last)
                if own < 0:
                    own = root
                own, other = min(own, root), max(own, root)
                numbers.parent_I[other] = own
            x += 1
        if wanted and own < 0:
            own = count
            numbers.parent_I[own], numbers.value_I[own] = own, value
            numbers.pixels_I[own], numbers.area_I[own] = 0, 0.0
            count += 1
        ids_X[start:x] = own
        if wanted:
            numbers.pixels_I[own] += x - start
            numbers.area_I[own] += run_area(areas_C, start - margin, x - margin)
    return count


@njit(nogil=True, cache=True)
def run_area(areas_C: NDArray[np.float64], left: int, right: int) -> float:
    """The area of the pixels of a row from ``left`` to before ``right``."""
    area = 0.0
    while left < right:
        stop = min(right, (left // CELL + 1) * CELL)
        area += (stop - left) * areas_C[left // CELL]
        left = stop
    return area


@njit(nogil=True, cache=True)
def link_row(
    corners_HW: NDArray[np.uint8],
    i: int,
    y: int,
    margin: int,
    simplify: bool,
    above_X: NDArray[np.int32],
    ids_X: NDArray[np.int32],
    open_X2: NDArray[np.int32],
    nodes: Nodes,
    count: int,
) -> int:
    """Make and link the nodes on the line between a row of pixels and the one above; how many there are then.

    ``open_X2``: the upper node of the boundary that goes on down from each column, of the component to its
    west (heading south) and of the one to its east (heading north).
    """
    # By heading: the node at the left or upper end of the boundary that leads here, and of that which leaves.
    old, new = np.full(4, NO_NODE, np.int32), np.full(4, NO_NODE, np.int32)
    owners = np.empty(4, np.int32)
    for x in range(margin, corners_HW.shape[1] - margin + 1):
        corner = corners_HW[i, x]
        if corner == 0:
            continue
        flags = vertex_flags(corners_HW, i, x, margin) if simplify else 0
        old[1], old[3] = open_X2[x]
        new[:] = old
        owners[0], owners[1], owners[2], owners[3] = ids_X[x - 1], above_X[x - 1], above_X[x], ids_X[x]
        for heading in HEADINGS:
            if not corner >> ((heading + 2) % 4) & 1 or owners[heading] < 0:
                continue
            leaving = leaves(corner & WAYS, heading)
            if leaving == heading and not flags:
                continue
            nodes.place_N2[count, 0], nodes.place_N2[count, 1] = x - margin, y
            nodes.next_N[count], nodes.owner_N[count] = NO_NODE, owners[heading]
            nodes.flags_N[count] = flags | (PAIR if has_twin(corner, heading) else 0)
            if heading < FORWARD:
                nodes.next_N[old[heading]] = count
            else:
                new[heading] = count
            if leaving < FORWARD:
                new[leaving] = count
            else:
                nodes.next_N[count] = old[leaving]
            count += 1
        open_X2[x, 0], open_X2[x, 1] = new[1], new[3]
        old[:] = new
    return count


@njit(nogil=True, cache=True)
def leaves(way: int, heading: int) -> int:
    """How the boundary that comes with a heading leaves: by the first to be met turning through its right."""
    for turn in (1, 0):
        if way >> ((heading + turn) % 4) & 1:
            return (heading + turn) % 4
    return (heading + 3) % 4


@njit(nogil=True, cache=True)
def has_twin(corner: int, heading: int) -> bool:
    """Whether the node of a pixel of the same value across the corner comes next."""
    return bool((heading == 1 and corner & SOUTH_EAST) or (heading == 0 and corner & NORTH_EAST))


@njit(nogil=True, cache=True)
def mark_closed(frontier_X: NDArray[np.int32], numbers: Numbers) -> NDArray[np.bool_]:
    """Which numbers are of components that do not reach the last row; each then leads to its first at once.

    Sizes are added up under the first number.
    """
    closed_I = np.ones(len(numbers.parent_I), np.bool_)
    for i in frontier_X:
        if i >= 0:
            closed_I[find(numbers.parent_I, i)] = False
    for i in range(len(closed_I)):
        first = find(numbers.parent_I, i)
        if first != i:
            numbers.parent_I[i], closed_I[i] = first, closed_I[first]
            numbers.pixels_I[first] += numbers.pixels_I[i]
            numbers.area_I[first] += numbers.area_I[i]
    return closed_I


@njit(nogil=True, cache=True)
def trace(
    wanted_I: NDArray[np.bool_],
    tolerance: float,
    reach: int,
    parent_I: NDArray[np.int32],
    nodes: Nodes,
    points_P2: NDArray[np.int32],
    ring_ends_G: NDArray[np.int64],
    ring_owners_G: NDArray[np.int32],
) -> tuple[int, int]:
    """Follow the rings of wanted components, which are closed; how many points and rings there are.

    A ring ends with the point it began with. Nodes come from top to bottom, so that the first ring of a
    component is its shell.
    """
    join_outsides(wanted_I, parent_I, nodes)
    visited_N = np.zeros(len(nodes.next_N), np.bool_)
    ring_M = np.empty(len(nodes.next_N), np.int32)
    points = rings = 0
    for first in range(len(visited_N)):
        if visited_N[first] or not wanted_I[nodes.owner_N[first]]:
            continue
        size, n = 0, first
        while not visited_N[n]:
            visited_N[n] = True
            ring_M[size] = n
            size += 1
            n = nodes.next_N[n]
        start = points
        kept_M = ring_kept(nodes.place_N2, nodes.flags_N, ring_M[:size], tolerance, reach)
        for k in range(size):
            if kept_M[k]:
                points_P2[points] = nodes.place_N2[ring_M[k]]
                points += 1
        points_P2[points] = points_P2[start]
        points += 1
        ring_ends_G[rings], ring_owners_G[rings] = points, parent_I[nodes.owner_N[first]]
        rings += 1
    return points, rings


@njit(nogil=True, cache=True)
def join_outsides(wanted_I: NDArray[np.bool_], parent_I: NDArray[np.int32], nodes: Nodes) -> None:
    """Turn the other way where pixels that touch at a corner turned out to be of one component."""
    for n in range(len(nodes.next_N)):
        owner = nodes.owner_N[n]
        if not wanted_I[owner] or not nodes.flags_N[n] & PAIR:
            continue
        if parent_I[owner] == parent_I[nodes.owner_N[n + 1]]:
            nodes.next_N[n], nodes.next_N[n + 1] = nodes.next_N[n + 1], nodes.next_N[n]


@njit(nogil=True, cache=True)
def forget(
    closed_I: NDArray[np.bool_],
    frontier_X: NDArray[np.int32],
    open_X2: NDArray[np.int32],
    numbers: Numbers,
    nodes: Nodes,
) -> tuple[int, int]:
    """Drop what is closed and move the rest together; how many nodes and numbers are left."""
    number_I = moved(~closed_I & (numbers.parent_I == np.arange(len(closed_I))))
    place_N = moved(~closed_I[nodes.owner_N])
    for n in range(len(place_N)):
        place = place_N[n]
        if place < 0:
            continue
        alone = nodes.flags_N[n] & PAIR and place_N[n + 1] < 0
        nodes.place_N2[place] = nodes.place_N2[n]
        nodes.next_N[place] = place_N[nodes.next_N[n]] if nodes.next_N[n] != NO_NODE else NO_NODE
        nodes.owner_N[place] = number_I[numbers.parent_I[nodes.owner_N[n]]]
        nodes.flags_N[place] = nodes.flags_N[n] & ~np.uint8(PAIR) if alone else nodes.flags_N[n]
    for x in range(len(open_X2)):
        for side in range(2):
            # A boundary that has ended has left its last number behind.
            n = open_X2[x, side]
            open_X2[x, side] = place_N[n] if 0 <= n < len(place_N) else NO_NODE
    for x in range(len(frontier_X)):
        if frontier_X[x] >= 0:
            frontier_X[x] = number_I[numbers.parent_I[frontier_X[x]]]
    for i in range(len(number_I)):
        k = number_I[i]
        if k >= 0:
            numbers.value_I[k] = numbers.value_I[i]
            numbers.pixels_I[k], numbers.area_I[k] = numbers.pixels_I[i], numbers.area_I[i]
    kept = number_I.max() + 1 if len(number_I) else 0
    numbers.parent_I[:kept] = np.arange(kept)
    return place_N.max() + 1 if len(place_N) else 0, kept


@njit(nogil=True, cache=True)
def moved(kept_K: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The new index of each entry when only some are kept, -1 for the others."""
    places_K = np.full(len(kept_K), -1, np.int32)
    count = 0
    for k in range(len(kept_K)):
        if kept_K[k]:
            places_K[k] = count
            count += 1
    return places_K
