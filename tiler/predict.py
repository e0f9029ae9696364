"""Tiles -> batches -> predictions."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from tiler.errors import InputError
from tiler.flow import prefetch

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from numpy.typing import NDArray

    from tiler.ports import Backend
    from tiler.tiles import Tile


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """A tile and the network's scores for it."""

    tile: Tile
    scores_KHW: NDArray[np.float32]
    """Of the whole tile, contiguous; those of ``tile.share`` begin at ``tile.inset``."""

    @property
    def share_scores(self) -> NDArray[np.float32]:
        """Of ``tile.share``: (K, H, W)."""
        share = self.tile.share
        return self.scores_KHW[:, *share.shifted(-share.top, -share.left).shifted(*self.tile.inset).slices]


def predict(tiles: Generator[Tile], backend: Backend, batch: int, depth: int) -> Iterator[Prediction]:
    """Run the network on batches of tiles, ``depth`` batches ahead of the consumer.

    More, where the network computes several at once: else the last of its workers would wait.
    """
    workers = backend.workers
    ahead = depth and max(depth, workers)
    results = prefetch(lambda group: _predict_batch(group, backend), _batched(tiles, batch), ahead, workers)
    with closing(tiles), closing(results):
        for predictions in results:
            yield from predictions


def _batched(tiles: Iterable[Tile], size: int) -> Iterator[list[Tile]]:
    iterator = iter(tiles)
    while group := list(islice(iterator, size)):
        yield group


def _predict_batch(group: list[Tile], backend: Backend) -> list[Prediction]:
    # A tile alone needs no copy.
    inputs = [tile.input_CHW for tile in group]
    batch_NCHW = inputs[0][None] if len(inputs) == 1 else np.stack(inputs)
    scores_NKHW = backend.predict(batch_NCHW)
    if scores_NKHW.shape[0] != len(group) or scores_NKHW.shape[2:] != batch_NCHW.shape[2:]:
        raise InputError(
            f"the network returns one score map of the input's size per tile, got {scores_NKHW.shape} "
            f"for {batch_NCHW.shape}; check --tile against its legal sizes"
        )
    if not np.isfinite(scores_NKHW).all():
        raise InputError(
            f"the network's scores are numbers, got NaN or infinity at {group[0].share}; check its input "
            "scaling, and its weights for float16 overflow"
        )
    return [Prediction(tile, np.ascontiguousarray(scores_NKHW[n])) for n, tile in enumerate(group)]
