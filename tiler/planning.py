"""What will be done, before it is done: tiles, batches, strips, and memory as a sum of named terms.

A plan is data: made from the raster's size, the model and the options, printable, carried out by the
engine. In exact mode the tile is as large as memory allows, because larger tiles waste less on their
halos. In blended mode tile and overlap change the result, so they come from the options or the model
alone, never from free memory.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Final

from tiler import memory
from tiler.blocks import BlockGrid
from tiler.cluster.scheduler import Scheduler
from tiler.errors import InputError, UsageError
from tiler.grid import Axis, Strip, TileGrid, round_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiler.finish import Finisher
    from tiler.geometry import Window
    from tiler.model import Model
    from tiler.options import RunOptions
    from tiler.ports import RasterInfo
    from tiler.tolerance import EffectiveHalo

BLOCK: Final = 1024
"""Side of a block of the result, pixels: the unit that is stored, whatever the tile."""
GAIN: Final = 1.05
"""How much faster a call per thread is than one call on all threads, at least: 1.02 measured on U-Nets of
width 32, 1.09 to 1.28 on the demo's."""
LARGEST_TILE: Final = 6400
"""No side is longer: beyond it the halo's waste hardly shrinks and a lost tile costs much."""
LARGEST_WITH_GAPS: Final = 2304
"""No side is longer where pixels may be invalid: a tile is left out only if all of it is.
Wide halos need more."""
STRIP_SHARE: Final = 0.15
"""Of the budget that a strip may take; wider ones save little: at a seam one column of tiles is computed
twice."""
BLENDED_TILE: Final = 512
PIXELS_PER_BATCH: Final = 1 << 20
LARGEST_BATCH: Final = 16
SMALLEST_CORE: Final = 16
SMALL_RASTER: Final = 512 * 512
"""Pixels; a raster that is one such tile needs no threads, which take longer to start than it takes."""
READER_THREADS: Final = 2
BATCHES_AHEAD: Final = 1
CACHE: Final = 256_000_000
"""Bytes of decoded blocks that GDAL may keep."""
NETWORK_SLACK: Final = 1.42
"""ONNX Runtime's peak out of a reserved region, over the sum of the tensors alive at once: 1.06 to 1.41
measured on U-Nets of width 32, in fp32 and int8, and on three networks made elsewhere; less on the demo's.
The rest is workspaces, and gaps between blocks."""
RESERVED: Final = 2.1
"""The region over the sum of the tensors alive at once: so large that nothing has to lie outside of it."""
FIXED: Final = 150_000_000
"""Bytes that come on top while running: thread stacks, compiled kernels, the COG driver, fragmentation."""


CROPPED: Final = ("exact", "tolerance", "told")
"""Modes in which each pixel comes from the core of one tile."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a raster is cut and streamed."""

    grid: TileGrid
    mode: str
    """exact, tolerance or told (cores, but with a halo that was measured, or asked for, and is smaller than
    the network's), or the name of a blend window."""
    reason: str
    """Why this mode."""
    batch: int
    """Tiles per call of the network."""
    strip_width: int
    """Pixel columns per strip, a multiple of ``block`` or the whole width."""
    budget: int
    """Bytes that may be used."""
    terms: dict[str, int]
    """Bytes by part; their sum is the planned peak."""
    cache: int
    """Bytes for GDAL's block cache, one of the terms."""
    block: int
    halo: int = 0
    """Pixels on each side of a core, a multiple of the stride; of blended tiles 0."""
    workers: int = 1
    """Calls of the network at once, where it can be prepared for several."""
    batches_ahead: int = BATCHES_AHEAD
    reader_threads: int = READER_THREADS
    """0: none, tiles are read when they are wanted."""

    @property
    def blended(self) -> bool:
        """Whether tiles are averaged, not cropped to their cores."""
        return self.grid.rows.window is not None

    @property
    def read_ahead(self) -> int:
        """Tiles read or being read ahead of the network."""
        return self.workers * self.batch + self.reader_threads if self.reader_threads else 0

    @property
    def peak(self) -> int:
        """Planned peak memory in bytes."""
        return sum(self.terms.values())

    def strips(self) -> Iterator[Strip]:
        """The column strips, left to right."""
        return self.grid.strips(self.strip_width)

    @property
    def tiles(self) -> int:
        """Tiles to compute if none is skipped; those at a strip's seam count for both."""
        return sum(len(strip.columns) for strip in self.strips()) * self.grid.rows.count

    def reserved(self, model: Model) -> int:
        """Bytes of the region that the network works in."""
        height, width = self.grid.tile
        return round(self.workers * self.batch * height * width * model.bytes_per_pixel * RESERVED)

    @property
    def blocks(self) -> BlockGrid:
        """The grid in which the result is stored."""
        return BlockGrid(self.grid.rows.extent, self.grid.columns.extent, self.block)


@dataclass(frozen=True, slots=True)
class _Cost:
    """Memory of a run by part, as a function of tile, batch and strip."""

    info: RasterInfo
    model: Model
    finisher: Finisher
    blended: bool
    base: int
    cache: int
    augmented: bool
    """Whether several views of each tile are computed, one after the other."""
    workers: int = 1

    def terms(self, tile: tuple[int, int], batch: int, strip_width: int) -> dict[str, int]:
        """Bytes by part."""
        area = tile[0] * tile[1]
        raw = self.info.bands * self.info.dtype.itemsize
        fed = self.info.bands * max(self.model.dtype.itemsize, 4)
        scores = 4 * self.finisher.channels
        readers = reader_threads(tile)
        at_once = batch * self.workers
        waiting = at_once + 2 * readers + 1
        return {
            "program and network": self.base + FIXED,
            "decoded blocks": self.cache,
            "tiles read ahead": area * waiting * (raw + fed + 1),
            "resampling": self._resampling(area, readers),
            "batches": area * batch * (max(BATCHES_AHEAD, self.workers) + 1) * (fed + scores),
            "network": round(area * at_once * self.model.bytes_per_pixel * NETWORK_SLACK),
            "views": self._views(area * batch, fed, scores),
            **self.strip_terms(tile, strip_width),
        }

    def _views(self, pixels: int, fed: int, scores: int) -> int:
        """In each call: a copy of the batch, turned; its probabilities, with two planes; the sum so far."""
        return pixels * self.model.backend.workers * (fed + 2 * scores + 8) if self.augmented else 0

    def _resampling(self, area: int, readers: int) -> int:
        """What the readers hold while they bring a tile to another resolution: source pixels, and means."""
        if not self.info.note:
            return 0
        stored = max(self.info.shrink, 1.0) * (self.info.bands * self.info.dtype.itemsize + 1)
        return round(readers * area * (stored + 8 * self.info.bands))

    def strip_terms(self, tile: tuple[int, int], strip_width: int) -> dict[str, int]:
        """Bytes that grow with the width of a strip."""
        band = 2 * (4 * self.finisher.channels + 1) if self.blended else self.finisher.planes
        rows = 3 * self.finisher.planes * (tile[0] + BLOCK)
        return {"band": tile[0] * strip_width * band, "finished rows": rows * strip_width}


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a plan changes the result, and so never follows from free memory."""

    mode: str
    """exact, tolerance, told, or the name of a blend window."""
    reason: str
    grid: TileGrid | None
    """Of blended tiles; exact ones may be cut in any way."""


def make_cut(info: RasterInfo, model: Model, options: RunOptions) -> Cut:
    """Exact or blended, and where blended tiles lie.

    Raises
    ------
    UsageError
        if options contradict each other or the model.
    """
    mode, reason = _mode(model, options)
    return Cut(mode, reason, None if mode in CROPPED else _blended_grid(info, model, options, mode))


def make_plan(
    info: RasterInfo,
    model: Model,
    finisher: Finisher,
    options: RunOptions,
    measured: EffectiveHalo | None = None,
) -> Plan:
    """Settle everything about a run; ``measured`` is the halo to go by instead of the proven one.

    Raises
    ------
    UsageError
        if options contradict each other, the model, or the memory budget.
    """
    cut = make_cut(info, model, options)
    own = Scheduler.parse(options.scheduler).workers if options.scheduler else 0
    budget = options.memory or memory.resident() + memory.available() // 2 // max(1, own)
    halo = 0 if cut.grid else measured.halo if measured else halo_on_stride(model)
    cache = min(CACHE, budget // 8)
    cost = _Cost(info, model, finisher, cut.grid is not None, memory.resident(), cache, options.tta != "none")
    grids = _exact_grids(info, model, options, halo) if cut.grid is None else [cut.grid]
    # A graph of fixed batch is fed whole batches, whatever is asked for.
    smallest = round_up(options.batch or 1, model.shape[0] or 1)
    told = options.batch is not None or model.shape[0] is not None
    # What always makes several calls at once, as cards do, leaves no choice, and has memory of its own.
    workers = {1, model.backend.most_workers} if model.backend.workers == 1 else {1}
    found = [_best(replace(cost, workers=n), grids, smallest, told, budget) for n in sorted(workers)]
    made = [plan for plan in found if plan is not None]
    if not made:
        least = min(_peak(cost, g, smallest) for g in grids)
        raise UsageError(
            f"the memory budget is {memory.in_words(budget)}, the smallest plan needs "
            f"{memory.in_words(least)}; raise --memory" + _smaller_ways(cut, options)
        )
    plan = replace(
        min(made, key=_turns), mode=cut.mode, reason=str(measured) if measured else cut.reason, halo=halo
    )
    if plan.grid.count == 1 and plan.grid.tile[0] * plan.grid.tile[1] <= SMALL_RASTER:
        return replace(plan, batches_ahead=0, reader_threads=0)
    return replace(plan, reader_threads=reader_threads(plan.grid.tile))


def _best(cost: _Cost, grids: list[TileGrid], smallest: int, told: bool, budget: int) -> Plan | None:
    """The fastest plan within the budget, but for its mode; None if there is none."""
    fitting = [g for g in grids if _peak(cost, g, smallest) <= budget]
    if not fitting:
        return None
    grid = min(fitting, key=lambda g: _cost_of_time(g, _strip_width(cost, g, smallest, budget)))
    batch = smallest if told else _batch(cost, grid, budget)
    width = _strip_width(cost, grid, batch, budget)
    terms = cost.terms(grid.tile, batch, width)
    return Plan(grid, "", "", batch, width, budget, terms, cost.cache, BLOCK, workers=cost.workers)


def _turns(plan: Plan) -> float:
    """Pixels that workers compute or wait for, in comparable units."""
    pixels = plan.tiles * plan.grid.tile[0] * plan.grid.tile[1]
    calls = -(-plan.tiles // plan.batch)
    turns = -(-calls // plan.workers) * plan.workers
    return pixels * turns / calls / (GAIN if plan.workers > 1 else 1)


def _smaller_ways(cut: Cut, options: RunOptions) -> str:
    if options.tile is not None:
        return " or lower --tile"
    return " or use --blend hann, whose tiles need no halo" if cut.grid is None else ""


def _cost_of_time(grid: TileGrid, strip_width: int) -> tuple[float, float, float]:
    """What the best grid has least of: waste, and where that is alike, distance from a handy, square tile.

    A column of tiles at the seam of two strips is computed for both. Larger arrays fall out of the caches.
    """
    height, width = grid.tile
    columns = _covered(grid.columns) + width * ((grid.columns.extent - 1) // strip_width)
    waste = _covered(grid.rows) * columns / (grid.rows.extent * grid.columns.extent)
    return (
        round(waste, 2),
        abs(math.log(height * width / PIXELS_PER_BATCH)),
        abs(math.log(height / width)),
    )


@functools.lru_cache(maxsize=1024)
def _covered(axis: Axis) -> int:
    """Pixels of all tiles of an axis. Few axes make many grids, so it is worked out once."""
    return axis.count * axis.tile


def reader_threads(tile: tuple[int, int]) -> int:
    """Threads that read tiles of this size; large tiles are for slow networks, which one keeps busy."""
    return 1 if tile[0] * tile[1] > PIXELS_PER_BATCH else READER_THREADS


def smaller(plan: Plan, model: Model) -> Plan | None:
    """A plan of the same result that needs about half the memory in the network; None if there is none.

    First one call is made at a time; then the batch is halved; then, in exact mode, the tile's longer side.
    """
    least = model.shape[0] or 1
    if plan.workers > 1:
        return replace(plan, workers=1)
    if plan.batch > least:
        return replace(plan, batch=round_up(plan.batch // 2, least))
    if plan.mode != "exact":  # else another tile would be another result
        return None
    halo, stride = plan.halo, model.spec.stride or 1
    rows, columns = plan.grid.rows, plan.grid.columns
    axis, fixed = (rows, model.shape[1]) if rows.tile >= columns.tile else (columns, model.shape[2])
    side = round_up(axis.tile // 2, stride)
    if fixed is not None or side >= axis.tile or side < 2 * halo + max(stride, SMALLEST_CORE):
        return None
    half = replace(_exact_axis(axis.extent, side, halo, model, fixed=False), part=axis.part)
    grid = replace(plan.grid, rows=half) if axis is rows else replace(plan.grid, columns=half)
    return replace(plan, grid=grid)


def within(plan: Plan, window: Window, model: Model) -> Plan:
    """The same result for one window of whole blocks alone.

    Where another tile makes no other result, tiles are fitted to the window, so that a raster in parts takes
    no more of them than the raster at once; else they are the plan's own that touch it.
    """
    rows, columns = plan.grid.rows, plan.grid.columns
    if plan.mode == "exact":
        rows = rows.within(window.top, window.bottom, fixed=model.shape[1] is not None)
        columns = columns.within(window.left, window.right, fixed=model.shape[2] is not None)
    return replace(plan, grid=TileGrid(rows, columns, window))


def fitted(plan: Plan, info: RasterInfo, model: Model, finisher: Finisher, options: RunOptions) -> Plan:
    """A run's plan for a process that was given a batch or a budget of its own; the result is the same.

    Raises
    ------
    UsageError
        if not even the smallest such plan fits the budget.
    """
    if options.batch is None and options.memory is None:
        return plan
    cache = min(plan.cache, (options.memory or plan.budget) // 8)
    cost = _Cost(info, model, finisher, plan.blended, memory.resident(), cache, options.tta != "none")
    batch = round_up(options.batch or plan.batch, model.shape[0] or 1)
    reduced: Plan | None = replace(plan, batch=batch, budget=options.memory or plan.budget, cache=cache)
    while reduced is not None:
        of_these = replace(cost, workers=reduced.workers)
        plan = replace(reduced, terms=of_these.terms(reduced.grid.tile, reduced.batch, plan.strip_width))
        if plan.peak <= plan.budget:
            return plan
        reduced = smaller(plan, model)
    raise UsageError(
        f"the memory budget is {memory.in_words(plan.budget)}, the smallest plan of this run needs "
        f"{memory.in_words(plan.peak)}; raise --memory"
    )


def _mode(model: Model, options: RunOptions) -> tuple[str, str]:
    spec = model.spec
    proven = spec.halo is not None and (spec.exact or options.halo is not None)
    side = min((n for n in model.shape[1:] if n is not None), default=LARGEST_TILE)
    if options.blend == "auto" and options.halo is None and proven and side <= 2 * halo_on_stride(model):
        return "hann", f"tiles of {side} px have no core inside a halo of {spec.halo} px on each side"
    if options.blend == "exact" or (options.blend == "auto" and proven):
        if spec.halo is None:
            raise InputError("exact mode needs the network's halo, the model does not say it: pass --halo")
        if options.overlap is not None:
            raise UsageError("--overlap is for blended modes; exact mode overlaps by twice the --halo")
        short = model.needs is not None and spec.halo < model.needs
        if options.tolerance is not None and short:
            raise UsageError(
                f"--tolerance measures against the proven halo of {model.needs} px, got {spec.halo}; "
                "leave one of --halo and --tolerance out"
            )
        if options.tolerance is not None:
            return "tolerance", f"probabilities within {options.tolerance:g}"
        if short:
            return "told", f"the halo of {spec.halo} px as told; {model.needs} px would be exact"
        told = options.halo is not None or not spec.exact
        return "exact", "as told" if told else "the network is shift-equivariant, as its graph shows"
    if options.tolerance is not None:
        raise UsageError(
            "--tolerance shortens the halo of exact mode, and these tiles are blended: "
            + ("as told" if options.blend != "auto" else _inexact(model))
        )
    if options.blend == "auto":
        return "hann", _inexact(model)
    return options.blend, "as told"


def _inexact(model: Model) -> str:
    return next(iter(model.inexact), "the network is not known to be shift-equivariant")


def halo_on_stride(model: Model) -> int:
    """The halo rounded up so that cores, too, begin on multiples of the stride."""
    return round_up(model.spec.halo or 0, model.spec.stride or 1)


def _exact_grids(info: RasterInfo, model: Model, options: RunOptions, halo: int) -> list[TileGrid]:
    axes = [
        [
            _exact_axis(extent, side, halo, model, fixed is not None)
            for side in _told_sides(options.tile, fixed)
            or _sides(extent, halo, model, _largest(info, options, halo))
        ]
        for extent, fixed in zip((info.height, info.width), model.shape[1:], strict=True)
    ]
    return [TileGrid(rows, columns) for rows, columns in product(*axes)]


def _largest(info: RasterInfo, options: RunOptions, halo: int) -> int:
    """Side of a tile, at most; half of one with gaps may be halo."""
    glass = info.to_level0 is not None and options.tissue != "off"
    if info.gaps or glass or options.mask is not None:
        return min(max(LARGEST_WITH_GAPS, 4 * halo), LARGEST_TILE)
    return LARGEST_TILE


def _told_sides(told: int | None, fixed: int | None) -> list[int]:
    if fixed is not None and told not in {None, fixed}:
        raise UsageError(f"the model takes tiles of {fixed} px only, got --tile {told}")
    return [side for side in (fixed, told) if side is not None][:1]


def _sides(extent: int, halo: int, model: Model, largest: int) -> list[int]:
    """Tile sides worth considering: for each number of tiles, the smallest that covers the extent."""
    stride = model.spec.stride or 1
    inner = round_up(extent, stride) - 2 * halo
    least = max(stride, SMALLEST_CORE)
    sides = {round_up(extent, stride)} if round_up(extent, stride) <= largest else set()
    count = 2
    while inner // count >= least:
        side = round_up(-(-inner // count), stride) + 2 * halo
        if side <= largest:
            sides.add(side)
        # Large rasters have thousands of possible counts; steps of a tenth miss little.
        count += max(1, count // 10)
    return sorted(sides) or [round_up(extent, stride)]


def _exact_axis(extent: int, side: int, halo: int, model: Model, fixed: bool) -> Axis:
    stride = model.spec.stride or 1
    whole = round_up(extent, stride)
    if side >= whole:
        # One tile: padded as the whole image is, unless the graph fixes its size.
        return Axis(extent, side if fixed else whole, 0, stride)
    if side <= 2 * halo:
        raise UsageError(f"a tile is larger than twice the halo of {halo} px, got --tile {side}")
    return Axis(extent, side, 2 * halo, stride)


def _blended_grid(info: RasterInfo, model: Model, options: RunOptions, mode: str) -> TileGrid:
    rows, columns = (
        _blended_axis(extent, fixed, model, options, mode)
        for extent, fixed in zip((info.height, info.width), model.shape[1:], strict=True)
    )
    return TileGrid(rows, columns)


def _blended_axis(extent: int, fixed: int | None, model: Model, options: RunOptions, mode: str) -> Axis:
    stride = model.spec.stride or 1
    if fixed is not None and options.tile not in {None, fixed}:
        raise UsageError(f"the model takes tiles of {fixed} px only, got --tile {options.tile}")
    tile = fixed or options.tile or round_up(BLENDED_TILE, stride)
    whole = round_up(extent, stride)
    if tile >= whole and fixed is None:
        return Axis(extent, whole, 0, stride, mode)
    overlap = tile // 4 // stride * stride if options.overlap is None else options.overlap
    return Axis(extent, tile, overlap, stride, mode)


def _peak(cost: _Cost, grid: TileGrid, batch: int) -> int:
    """Planned peak with the narrowest strips."""
    return sum(cost.terms(grid.tile, batch, min(BLOCK, grid.columns.extent)).values())


def _batch(cost: _Cost, grid: TileGrid, budget: int) -> int:
    """Enough small tiles at once to keep the processor busy; large tiles do that alone."""
    area = grid.tile[0] * grid.tile[1]
    wanted = max(1, min(PIXELS_PER_BATCH // area, LARGEST_BATCH, grid.count))
    return next(n for n in range(wanted, 0, -1) if n == 1 or _peak(cost, grid, n) <= budget)


def _strip_width(cost: _Cost, grid: TileGrid, batch: int, budget: int) -> int:
    """The whole width if it fits, else as few strips as do, of equal width."""
    width = grid.columns.extent
    left = budget - sum(cost.terms(grid.tile, batch, 0).values())
    affordable = int(min(left, STRIP_SHARE * budget) / sum(cost.strip_terms(grid.tile, 1).values()))
    if affordable >= width:
        return width
    widest = max(BLOCK, affordable // BLOCK * BLOCK)
    return min(widest, round_up(-(-width // -(-width // widest)), BLOCK))
