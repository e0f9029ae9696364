"""All blocks of a run -> its output files, verified, under working names."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final

from tiler.blocks import BlockSet
from tiler.events import Finishing
from tiler.flow import prefetch
from tiler.ports import Block
from tiler.report import Tally
from tiler.sinks.cog import build_cog
from tiler.sinks.regrid import source_grid_blocks
from tiler.sinks.scratch import ScratchTiff

if TYPE_CHECKING:
    from collections.abc import Generator

    from tiler.compute import Work
    from tiler.geometry import Window
    from tiler.outputs import Outputs
    from tiler.store import BlockStore

DECODED_AHEAD: Final = 4
"""Blocks that are read while one is written."""


def assemble(work: Work, outputs: Outputs) -> Tally:
    """Build every output file in the run directory.

    Raises
    ------
    TornBlockError
        if a block does not read back as it was stored.
    OutputError
        if a file cannot be written, or does not read back as it was computed.
    """
    job, info = work.job, work.job.output_info
    products = job.products(outputs)
    tally = Tally(info, job.finisher)
    work.observer(Finishing(str(outputs.main)))
    with work.stopwatch.timing("finish"), ExitStack() as stack:
        scratches = []
        for product in products:
            path = work.folder.path / f"{product.kind}.tif"
            scratches.append(ScratchTiff(path, info, product.planes, work.plan.block))
            stack.callback(scratches[-1].close)
        with closing(_blocks(work)) as blocks:
            for block in blocks:
                tally.add(block)
                for scratch in scratches:
                    scratch.write(block)
        for scratch, product in zip(scratches, products, strict=True):
            build_cog(scratch, product, work.folder.place(product.path))
            scratch.path.unlink()
    return tally


def _blocks(work: Work) -> Generator[Block]:
    """The blocks of the output's grid."""
    if work.job.grid == "source":
        return source_grid_blocks(work.store, work.job.native, work.job.raster.info)
    return _stored(work.store)


def _stored(store: BlockStore) -> Generator[Block]:
    """Every block, decoded ahead of the writer."""

    def read(window: Window) -> Block:
        return Block(window, store.read(*store.grid.place(window)))

    blocks = BlockSet.all(store.grid)
    return prefetch(read, blocks, DECODED_AHEAD if len(blocks) > 1 else 0)
