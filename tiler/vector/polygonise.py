"""Strips of labels -> batches of polygons, in bounded memory: what is closed is given out and forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tiler.vector import lattice
from tiler.vector.corners import corners_of
from tiler.vector.simplify import reach

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from numpy.typing import NDArray

NODES: Final = 1 << 18
"""Room for nodes at first: about a batch's points."""


@dataclass(frozen=True, slots=True, eq=False)
class Polygons:
    """Some polygons, each the outline of a component, exterior first, clockwise on the screen.

    P polygons of G rings of N points; every ring ends with the point it began with.
    """

    points_N2: NDArray[np.int32]
    """x and y in pixels from the raster's upper left corner."""
    ring_ends_G: NDArray[np.int64]
    """One past the last point of each ring."""
    polygon_ends_P: NDArray[np.int64]
    """One past the last ring of each polygon."""
    values_P: NDArray[np.int64]
    """Label of each."""
    pixels_P: NDArray[np.int64]
    areas_P: NDArray[np.float64]
    """Sum of the areas of its pixels."""

    def __len__(self) -> int:
        return len(self.values_P)


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """What of a label raster becomes polygons, and how."""

    width: int
    """Pixels per row."""
    areas_RC: NDArray[np.float64]
    """Area of a pixel in each square of `lattice.CELL` pixels."""
    excluded: tuple[int, int]
    """Two values that make no polygons: nodata, and the background; or nodata twice."""
    min_area: float = 0.0
    """Smaller polygons are left out. In the unit of ``areas_RC``."""
    tolerance: float = 0.0
    """Of simplification, pixels; 0: none."""

    @property
    def nodata(self) -> int:
        """The value outside the raster."""
        return self.excluded[0]


class Polygoniser:
    """A scan under way; rows come from top to bottom."""

    def __init__(self, plan: Lattice, room: int = NODES) -> None:
        self._plan = plan
        self.margin = reach(plan.tolerance)
        """Rows of context that `scan` wants above and below, and columns on each side."""
        columns = plan.width + 2 * self.margin
        self._row = lattice.NODES_PER_CORNER * columns
        self._above_X = np.full(columns, -1, np.int32)
        self._ids_X = np.full(columns, -1, np.int32)
        self._open_X2 = np.full((columns, 2), lattice.NO_NODE, np.int32)
        self._y = -self.margin
        self._nodes = lattice.Nodes(
            np.empty((0, 2), np.int32), np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.uint8)
        )
        self._numbers = lattice.Numbers(
            np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
        )
        self._node_count = self._number_count = 0
        self._room = max(room, 2 * self._row)
        self._make_room()

    def scan(self, strip_HW: NDArray[Any]) -> Generator[Polygons]:
        """Scan the rows of a strip but for the margins above and below, which the next strip repeats."""
        plan, margin = self._plan, self.margin
        corners_HW = np.zeros(strip_HW.shape, np.uint8)
        corners_of(strip_HW, corners_HW)
        for i in range(margin, len(strip_HW) - margin):
            if max(self._node_count, self._number_count) + self._row > self._room:
                yield from self.flush()
            above_X, ids_X = self._above_X, self._ids_X
            areas_C = plan.areas_RC[min(max(self._y, 0) // lattice.CELL, len(plan.areas_RC) - 1)]
            self._number_count = lattice.number_row(
                strip_HW, i, margin, plan.excluded, areas_C, above_X, ids_X, self._numbers, self._number_count
            )
            self._node_count = lattice.link_row(
                corners_HW,
                i,
                self._y,
                margin,
                plan.tolerance > 0,
                above_X,
                ids_X,
                self._open_X2,
                self._nodes,
                self._node_count,
            )
            self._above_X, self._ids_X = ids_X, above_X
            self._y += 1

    def flush(self) -> Generator[Polygons]:
        """Give out what is closed, and make room."""
        nodes = lattice.Nodes._make(array[: self._node_count] for array in self._nodes)
        numbers = lattice.Numbers._make(array[: self._number_count] for array in self._numbers)
        closed_I = lattice.mark_closed(self._above_X, numbers)
        made = self._traced(closed_I, nodes, numbers)
        self._node_count, self._number_count = lattice.forget(
            closed_I, self._above_X, self._open_X2, numbers, nodes
        )
        self._make_room()
        if len(made):
            yield made

    def _traced(
        self, closed_I: NDArray[np.bool_], nodes: lattice.Nodes, numbers: lattice.Numbers
    ) -> Polygons:
        """The polygons of closed components that are large enough."""
        count = self._node_count
        # A ring has four corners or more, and ends with its first.
        points_P2 = np.empty((count + count // 4, 2), np.int32)
        ring_ends_G = np.empty(count // 4, np.int64)
        owners_G = np.empty(count // 4, np.int32)
        points, rings = lattice.trace(
            closed_I & (numbers.area_I[numbers.parent_I] >= self._plan.min_area),
            self._plan.tolerance,
            self.margin,
            numbers.parent_I,
            nodes,
            points_P2,
            ring_ends_G,
            owners_G,
        )
        return _grouped(points_P2[:points], ring_ends_G[:rings], owners_G[:rings], numbers)

    def _make_room(self) -> None:
        """Arrays of ``_room`` entries; of twice as many if little of it is free."""
        if max(self._node_count, self._number_count) > self._room // 2:
            self._room *= 2
        if len(self._nodes.next_N) < self._room:
            self._nodes = lattice.Nodes._make(_grown(array, self._room) for array in self._nodes)
            self._numbers = lattice.Numbers._make(_grown(array, self._room) for array in self._numbers)


def _grown(array: NDArray[Any], room: int) -> NDArray[Any]:
    new = np.empty((room, *array.shape[1:]), array.dtype)
    new[: len(array)] = array
    return new


def _grouped(
    points_P2: NDArray[np.int32],
    ends_G: NDArray[np.int64],
    owners_G: NDArray[np.int32],
    numbers: lattice.Numbers,
) -> Polygons:
    """Rings in the order of their first points -> polygons in the order of theirs, each with its holes."""
    owners_P, first_P, polygon_G = np.unique(owners_G, return_index=True, return_inverse=True)
    order_P = np.argsort(first_P)
    rank_G = np.argsort(order_P)[polygon_G]
    order_G = np.argsort(rank_G, kind="stable")
    starts_G = np.append(0, ends_G)[:-1]
    sizes_G = (ends_G - starts_G)[order_G]
    moved_ends_G = np.cumsum(sizes_G)
    shift_G = starts_G[order_G] - (moved_ends_G - sizes_G)
    owners_P = owners_P[order_P]
    return Polygons(
        points_P2[np.arange(len(points_P2)) + np.repeat(shift_G, sizes_G)],
        moved_ends_G,
        np.cumsum(np.bincount(rank_G, minlength=len(order_P))),
        numbers.value_I[owners_P],
        numbers.pixels_I[owners_P],
        numbers.area_I[owners_P],
    )


def polygonise(chunks: Iterable[NDArray[Any]], plan: Lattice, room: int = NODES) -> Generator[Polygons]:
    """The polygons of a label raster that comes as chunks of whole rows, from top to bottom.

    ``chunks`` are (rows, width) integers. The result does not depend on how they are cut, but for the way in
    which it is cut into batches.
    """
    scan = Polygoniser(plan, room)
    margin = scan.margin
    tail_HW = None
    for chunk_HW in chunks:
        strip_HW = np.pad(chunk_HW, ((0, 0), (margin, margin)), constant_values=plan.nodata)
        if tail_HW is None:
            tail_HW = np.full((2 * margin, strip_HW.shape[1]), plan.nodata, strip_HW.dtype)
        strip_HW = np.concatenate([tail_HW, strip_HW])
        yield from scan.scan(strip_HW)
        tail_HW = strip_HW[-2 * margin :].copy()
    if tail_HW is not None:
        # The margin below the last row, and one more to close what reaches it.
        end_HW = np.full((margin + 1, tail_HW.shape[1]), plan.nodata, tail_HW.dtype)
        yield from scan.scan(np.concatenate([tail_HW, end_HW]))
        yield from scan.flush()
