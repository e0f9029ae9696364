"""The engine: one line from raster to blocks. This is the specification; the stages are its words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiler.blend import blend, cut_blocks
from tiler.predict import predict

if TYPE_CHECKING:
    from collections.abc import Generator

    from tiler.blocks import BlockSet
    from tiler.finish import Finisher
    from tiler.planning import Plan
    from tiler.ports import Backend, Block
    from tiler.tiles import TileReader


def segment_blocks(
    reader: TileReader, backend: Backend, finisher: Finisher, plan: Plan, wanted: BlockSet
) -> Generator[Block]:
    """The wanted blocks of the result, each once, strip by strip from top to bottom.

    Tiles of the next batches are read and predicted while the consumer stores a block.
    """
    for whole in plan.strips():
        rows = wanted.rows(whole.window.left, whole.window.right)
        if rows is None:
            continue
        strip = whole.between(*rows)
        tiles = reader.tiles(strip, plan.read_ahead, plan.reader_threads, wanted)
        predictions = predict(tiles, backend, plan.batch, plan.batches_ahead)
        for block in cut_blocks(blend(predictions, strip, finisher), strip, plan.block):
            if block.window in wanted:
                yield block
