"""The network on every pixel of whole parts, with the tiles and the reading of `tiler`, streamed.

Tiles carry the network's halo, so what is measured here is what the finished model gives. A part is
treated as an image of its own: nothing beyond its borders is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from tiler.backends.function import FunctionBackend
from tiler.grid import Axis, TileGrid, round_up
from tiler.metrics import Confusion
from tiler.predict import predict
from tiler.tiles import TileReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray
    from torch import nn

    from tiler.geometry import Window
    from tiler.pixels import Pixels
    from tiler.ports import Raster, RasterInfo
    from tiler.spec import ModelSpec
    from train.data.labelled import Library, Part

TILE: Final = 1024
"""Side of a tile, pixels, halo included; a small part has smaller ones."""


@dataclass(frozen=True, slots=True, eq=False)
class PartRaster:
    """A rectangle of a raster as a raster of its own."""

    raster: Raster
    window: Window

    @property
    def info(self) -> RasterInfo:
        """Size and type; not georeferenced, which nobody asks for here."""
        height, width = self.window.shape
        return replace(self.raster.info, height=height, width=width, crs=None, transform=None, ground=None)

    def empty(self, window: Window) -> bool:
        """Not known."""
        del window
        return False

    def read(self, window: Window) -> Pixels:
        """The pixels of a window whose origin is this rectangle's."""
        return self.raster.read(window.shifted(self.window.top, self.window.left))


def as_function(net: nn.Module, device: torch.device) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """A network in evaluation mode, on that device, as a function of arrays: (N, C, H, W) to logits."""

    def run(batch_NCHW: NDArray[Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits_NKHW = net(torch.from_numpy(batch_NCHW).to(device))
        return np.asarray(logits_NKHW.float().cpu().numpy())

    return run


def evaluate(
    net: nn.Module, device: torch.device, parts: Iterable[Part], library: Library, spec: ModelSpec
) -> Confusion:
    """Compare with the target everywhere it is known. Leaves the network in evaluation mode."""
    net.eval()
    backend = FunctionBackend(as_function(net, device))
    confusion = Confusion(len(spec.classes))
    for part in parts:
        _add_part(confusion, backend, part, library, spec)
    return confusion


def _add_part(
    confusion: Confusion, backend: FunctionBackend, part: Part, library: Library, spec: ModelSpec
) -> None:
    labelled = library.open(part.source)
    reader = TileReader(PartRaster(labelled.raster, part.window), spec, np.dtype(np.float32))
    rows, columns = (part_axis(extent, spec) for extent in part.window.shape)
    grid = TileGrid(rows, columns)
    for strip in grid.strips(part.window.width):
        for prediction in predict(reader.tiles(strip, 0, 1), backend, batch=1, depth=0):
            share = prediction.tile.share.shifted(part.window.top, part.window.left)
            _, target_HW = labelled.read(share)
            confusion.add(target_HW, prediction.share_scores.argmax(axis=0))


def part_axis(extent: int, spec: ModelSpec) -> Axis:
    """Tiles along one side of a part: a single one if it is small."""
    stride, halo = spec.stride or 1, spec.halo or 0
    whole = round_up(extent, stride)
    if whole <= TILE:
        return Axis(extent, whole, 0, stride)
    return Axis(extent, TILE, 2 * halo, stride)
