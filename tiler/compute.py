"""The missing blocks of a run, computed and stored; with a smaller plan where memory does not suffice."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tiler.engine import segment_blocks
from tiler.errors import DamageError, OutOfMemoryError, OutputError
from tiler.events import BlockStored, Noted
from tiler.fingerprint import check_unchanged
from tiler.planning import smaller
from tiler.seams import Seams, compare_seams
from tiler.stopwatch import TimedBackend, TimedRaster

if TYPE_CHECKING:
    from tiler.blocks import BlockSet
    from tiler.cluster.worker import Done
    from tiler.damage import Damage
    from tiler.folder import RunFolder
    from tiler.geometry import Window
    from tiler.job import Job
    from tiler.planning import Plan
    from tiler.ports import Block, Observer
    from tiler.stopwatch import Stopwatch
    from tiler.store import BlockStore


@dataclass(slots=True, eq=False)
class Work:
    """A run under way in this process."""

    job: Job
    plan: Plan
    """The run's; this process may have to do with a smaller one."""
    store: BlockStore
    folder: RunFolder
    observer: Observer
    stopwatch: Stopwatch
    backend: TimedBackend = field(init=False)
    blocks_computed: int = 0
    pixels_computed: int = 0
    workers: int = 1
    """Processes that computed."""
    seams: Seams | None = None
    """What `compare` found."""

    def __post_init__(self) -> None:
        self.backend = TimedBackend(self.job.model.backend, self.stopwatch)

    def add(self, done: Done) -> None:
        """Count what another process computed."""
        self.blocks_computed += done.blocks
        self.pixels_computed += done.pixels
        self.backend.tiles += done.tiles
        for name, seconds in done.seconds.items():
            self.stopwatch.seconds[name] += seconds


def compute(work: Work, wanted: BlockSet) -> None:
    """Store every wanted block that is not there.

    Raises
    ------
    OutOfMemoryError
        if there is too little memory for the smallest batch and tile that make the same result.
    """
    plan = work.plan
    try:
        while len(missing := wanted.without(work.store.present(wanted.members_RC))):
            try:
                work.backend.reserve(plan.reserved(work.job.model), plan.workers)
                _stream(work, plan, wanted, missing)
            except MemoryError as error:
                plan = _smaller(work, plan, str(error))
            else:
                _check_stored(work, missing)
    except DamageError:
        work.folder.keep = True
        raise
    finally:
        work.backend.release()


def compare(work: Work) -> None:
    """Compute some tiles across seams again and compare them with what is stored."""
    work.observer(Noted("comparing tiles across the seams"))
    try:
        with work.stopwatch.timing("seams"):
            work.seams = compare_seams(work.job, work.plan, work.job.model.backend, work.store)
    except MemoryError:
        # The result is complete: no reason to lose it.
        work.seams = Seams()
    finally:
        work.backend.release()
    work.observer(Noted(f"seams: {work.seams}"))


def _check_stored(work: Work, blocks: BlockSet) -> None:
    """That blocks are there which were just stored; else they would be computed for ever."""
    gone = blocks.without(work.store.present(blocks.members_RC))
    if len(gone):
        raise OutputError(
            f"{len(gone)} blocks are gone after they were stored, the first at {next(iter(gone))}"
        )


def _smaller(work: Work, plan: Plan, reason: str) -> Plan:
    """The next smaller plan; what is stored stays stored."""
    work.backend.release()
    height, width = plan.grid.tile
    reduced = smaller(plan, work.job.model)
    if reduced is None:
        fix = "smaller --tile with --overwrite" if plan.mode != "exact" else "machine with more memory"
        raise OutOfMemoryError(
            f"a batch of {plan.batch} tiles of {width} x {height} px does not fit into memory ({reason}) and "
            f"smaller ones would change the result; free some memory and run the same command again, or take "
            f"a {fix}"
        )
    height, width = reduced.grid.tile
    size = f"{reduced.batch} tiles of {width} x {height} px at once"
    work.observer(Noted(f"out of memory: going on with {size} ({reason})"))
    return reduced


def _stream(work: Work, plan: Plan, wanted: BlockSet, missing: BlockSet) -> None:
    job = work.job
    reader = replace(job.reader, raster=TimedRaster(job.raster, work.stopwatch))
    done, total = wanted.pixels - missing.pixels, wanted.pixels
    with closing(segment_blocks(reader, work.backend, job.finisher, plan, missing)) as blocks:
        for block in blocks:
            check_unchanged(job.stamps)
            with work.stopwatch.timing("store"):
                work.store.write(block, _damage(job, block))
            work.blocks_computed += 1
            work.pixels_computed += block.window.area
            done += block.window.area
            work.observer(BlockStored(str(block.window), block.window.area, done, total))


def _damage(job: Job, block: Block) -> tuple[Damage, ...]:
    """What is damaged under a block."""
    fed, native = job.raster.info, job.native.info
    window: Window = block.window.scaled((fed.height, fed.width), (native.height, native.width))
    return job.damage.within(window)
