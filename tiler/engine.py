"""The engine: one line from raster to blocks. This is the specification; the stages are its words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiler.blend import blend, cut_blocks
from tiler.predict import predict

if TYPE_CHECKING:
    from collections.abc import Generator

    from tiler.finish import Finisher
    from tiler.planning import Plan
    from tiler.ports import Backend, Block
    from tiler.tiles import TileReader


def segment_blocks(reader: TileReader, backend: Backend, finisher: Finisher, plan: Plan) -> Generator[Block]:
    """Every block of the result, once, strip by strip from top to bottom.

    Tiles of the next batches are read and predicted while the consumer stores a block.
    """
    for strip in plan.strips():
        tiles = reader.tiles(strip, plan.read_ahead, plan.reader_threads)
        predictions = predict(tiles, backend, plan.batch, plan.batches_ahead)
        rows = blend(predictions, strip, finisher)
        yield from cut_blocks(rows, strip, plan.block)
