"""Whether a result shows where its tiles meet.

A sample of it is computed again on a grid that is shifted by half a tile, so that the old seams lie in the
middle of the new tiles, and compared. Near a seam and far from it the two grids differ alike if there is no
seam to see. A network that is not shift-equivariant differs everywhere; what counts is how much more it
differs near the seams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler.errors import DamageError
from tiler.geometry import Window, spread
from tiler.grid import round_up
from tiler.kernels import NODATA
from tiler.stored import StoredPlanes
from tiler.tiles import network_input, read_mirrored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tiler.grid import Axis, TileGrid
    from tiler.job import Job
    from tiler.planning import Plan
    from tiler.ports import Backend
    from tiler.store import BlockStore

NEAR: Final = 16
"""Pixels on each side of a seam that are near it."""
SHARE: Final = 0.05
"""Part of a run's tiles that is computed again, at most..."""
FEWEST: Final = 4
"""...but this many, if there are as many seams."""
MOST: Final = 64
CORE: Final = 512
"""Side of what is compared by one exact tile: any tile with its halo will do, so small ones are taken."""


@dataclass(frozen=True, slots=True)
class Seams:
    """Labels by two grids."""

    tiles: int = 0
    """Shifted tiles that were computed."""
    near: int = 0
    """Valid pixels near seams that were compared."""
    near_different: int = 0
    far: int = 0
    far_different: int = 0

    @property
    def excess(self) -> float | None:
        """The one number: by how much the share of labels that differ is larger near seams; 0: no seam.

        None if there was nothing to compare.
        """
        if not (self.near and self.far):
            return None
        return self.near_different / max(self.near, 1) - self.far_different / max(self.far, 1)

    def __str__(self) -> str:
        if self.excess is None:
            return "not known: no valid pixels near and far from any were compared"
        near, far = (100 * d / max(n, 1) for d, n in self._pairs)
        return (
            f"labels differ by {100 * self.excess:+.4f} points more near seams ({near:.4f} %) than far "
            f"({far:.4f} %), in {self.tiles} tiles"
        )

    @property
    def _pairs(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (self.near_different, self.near), (self.far_different, self.far)

    def plus(
        self, different_HW: NDArray[np.bool_], near_HW: NDArray[np.bool_], valid_HW: NDArray[np.bool_]
    ) -> Seams:
        """With one more tile counted."""
        near_HW, far_HW = near_HW & valid_HW, ~near_HW & valid_HW
        return Seams(
            self.tiles + 1,
            self.near + int(near_HW.sum()),
            self.near_different + int((near_HW & different_HW).sum()),
            self.far + int(far_HW.sum()),
            self.far_different + int((far_HW & different_HW).sum()),
        )


def compare_seams(job: Job, plan: Plan, backend: Backend, store: BlockStore) -> Seams:
    """Compute tiles across the seams of a complete result again, and compare their labels with it.

    Raises
    ------
    TornBlockError
        if a block does not read back.
    """
    stored, found = StoredPlanes(store), Seams()
    fixed = any(job.model.shape[1:])
    for tile, compared in _places(plan.grid, None if plan.blended else plan.halo, fixed):
        rows, columns = np.arange(compared.top, compared.bottom), np.arange(compared.left, compared.right)
        before_QHW = stored.pick(rows, columns)
        if (before_QHW[0] == NODATA).all():
            continue
        try:
            again_QHW = _computed(job, backend, tile, compared)
        except DamageError:
            continue  # outside a mask, or noted already
        valid_HW = (before_QHW[0] != NODATA) & (again_QHW[0] != NODATA)
        different = job.finisher.labels_of(before_QHW) != job.finisher.labels_of(again_QHW)
        different_HW = different.reshape(-1, *valid_HW.shape).any(axis=0)
        near_HW = _near(plan.grid.rows, rows)[:, None] | _near(plan.grid.columns, columns)
        found = found.plus(different_HW, near_HW, valid_HW)
    return found


def _computed(job: Job, backend: Backend, tile: Window, part: Window) -> NDArray[np.uint8]:
    """The planes of a part of a tile."""
    pixels = read_mirrored(job.raster, tile)
    inside = part.shifted(-tile.top, -tile.left)
    valid_HW = np.ascontiguousarray(pixels.valid_HW[inside.slices])
    input_CHW = network_input(pixels, job.reader.spec, job.reader.dtype)
    scores_KHW = np.ascontiguousarray(backend.predict(input_CHW[None])[0])
    return job.finisher(scores_KHW, valid_HW, (inside.top, inside.left))


def _places(grid: TileGrid, halo: int | None, fixed: bool) -> Iterator[tuple[Window, Window]]:
    """Tiles in whose middle seams cross, and the part of each that is compared."""
    spans = [_spans(axis, halo, fixed) for axis in (grid.rows, grid.columns)]
    if grid.count == 1:
        return
    crossings = len(spans[0]) * len(spans[1])
    count = int(np.clip(SHARE * grid.count, FEWEST, min(MOST, crossings)))
    places = ((int(u * len(spans[0])), int(v * len(spans[1]))) for u, v in spread(8 * count))
    for row, column in list(dict.fromkeys(places))[:count]:
        (top, bottom, first, last), (left, right, begin, end) = spans[0][row], spans[1][column]
        yield Window(top, left, bottom, right), Window(first, begin, last, end)


def _spans(axis: Axis, halo: int | None, fixed: bool) -> list[tuple[int, int, int, int]]:
    """For each seam: start and stop of a tile that has it in its middle, and of the pixels compared there.

    They are those that the tile knows as well as any: beyond its halo, or the middle half of a blended one.
    """
    margin = axis.tile // 4 if halo is None else halo
    tile = axis.tile if halo is None or fixed else min(axis.tile, 2 * halo + round_up(CORE, axis.stride))
    if axis.count == 1:
        # No seam along this axis: what is compared lies anywhere on it.
        return [_span(axis, axis.extent // 2, tile, margin)]
    return [_span(axis, cut, tile, margin) for cut in _cuts(axis)]


def _span(axis: Axis, middle: int, tile: int, margin: int) -> tuple[int, int, int, int]:
    start = (middle - tile // 2) // axis.stride * axis.stride
    start = min(max(start, 0), axis.padded - tile)
    # At the raster's own edge a tile has nothing to know beyond it.
    first = 0 if start == 0 else start + margin
    last = start + tile if start + tile == axis.padded else start + tile - margin
    return start, start + tile, first, min(last, axis.extent)


def _cuts(axis: Axis) -> list[int]:
    """Where one tile's core ends and the next begins; of blended tiles the middles of their overlaps."""
    return [axis.core(i)[1] for i in range(axis.count - 1)]


def _near(axis: Axis, pixels: NDArray[np.int64]) -> NDArray[np.bool_]:
    cuts = _cuts(axis)
    if not cuts:
        return np.zeros(pixels.shape, np.bool_)
    return np.asarray((np.abs(pixels[:, None] + 0.5 - np.array(cuts)) < NEAR).any(axis=1))
