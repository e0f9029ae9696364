"""The network on every pixel of whole parts, with the tiles and the reading of `tiler`, streamed.

Tiles carry the network's halo, or are blended where the network is not exact, and labels are made by the
tiler's own `Finisher`, so what is measured here is what the finished model gives. A part is treated as an
image of its own: nothing beyond its borders is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from tiler.backends.function import FunctionBackend
from tiler.blend import blend
from tiler.errors import InputError
from tiler.finish import Finisher
from tiler.geometry import Window
from tiler.grid import Axis, TileGrid, round_up
from tiler.metrics import Sums
from tiler.planning import BLENDED_TILE
from tiler.predict import predict
from tiler.readers.ground import pixel_area
from tiler.tiles import TileReader
from train.evaluation import Evaluation, SampleScore, empty_confusion
from train.models.same_size import same_size, same_size_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from tiler.metrics import Counts
    from tiler.pixels import Pixels
    from tiler.ports import Raster, RasterInfo
    from tiler.spec import ModelSpec
    from train.data.labelled import Library, Part
    from train.models.network import Network

TILE: Final = 1024
"""Side of a tile, pixels, halo included; smaller in small parts, larger where the halo is."""
WHOLE: Final = 1024
"""A part with no longer side is one sample."""
SQUARE: Final = 512
"""Side of the samples that a larger part is cut into."""
STRIP: Final = 8192
"""Width of what is streamed at once, pixels."""


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


def as_function(
    net: Callable[[Tensor], Tensor], device: torch.device
) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """A network in evaluation mode, on that device, as a function of arrays: (N, C, H, W) to (N, K, H, W)."""

    def run(batch_NCHW: NDArray[Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            scores_NKHW = net(torch.from_numpy(batch_NCHW).to(device))
        return np.asarray(scores_NKHW.float().cpu().numpy())

    return run


def shares_of(logits_NKHW: Tensor, *, independent: bool) -> Tensor:
    """Probabilities: of classes that are independent, or of the one class of a single channel, by sigmoid."""
    if independent or logits_NKHW.shape[1] == 1:
        return logits_NKHW.float().sigmoid()
    return logits_NKHW.float().softmax(dim=1)


def turned(shares: Callable[[Tensor], Tensor], pixels_NCHW: Tensor) -> Tensor:
    """The mean over the eight flips and quarter turns of the pixels, each turned back."""
    total = torch.zeros(())
    for flipped_NCHW, flip in ((pixels_NCHW, False), (pixels_NCHW.flip(3), True)):
        for quarters in range(4):
            view_NKHW = shares(torch.rot90(flipped_NCHW, quarters, (2, 3)))
            back_NKHW = torch.rot90(view_NKHW, -quarters, (2, 3))
            total = total.to(back_NKHW) + (back_NKHW.flip(3) if flip else back_NKHW)
    return total / 8


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the network says of a rectangle, beside what is known."""

    window: Window
    """In pixels of the raster."""
    labels_QHW: NDArray[np.uint8]
    """One plane of class indices; or of independent classes a plane of 0 and 1 each. 255 where not valid."""
    target: NDArray[np.int64]
    """(H, W), or (K, H, W) of independent classes."""


@dataclass(frozen=True, slots=True, eq=False)
class Examiner:
    """A network in evaluation mode, asked about labelled rasters."""

    net: Network
    device: torch.device
    library: Library
    spec: ModelSpec
    """What ``net`` is trained on. ``sigmoid`` says that the classes are independent; ``net`` still returns
    logits."""
    tta: bool = False
    """Average the probabilities over flips and quarter turns."""

    def answers(self, part: Part, within: Window | None = None) -> Iterator[Answer]:
        """Of all of a part, or of a rectangle of it, some rows at a time; the labels are the same in both."""
        labelled, spec = self.library.open(part.source), self._told()
        reader = TileReader(PartRaster(labelled.raster, part.window), spec, np.dtype(np.float32))
        inner = (within or part.window).shifted(-part.window.top, -part.window.left)
        grid, backend = part_grid(part.window, inner, spec), FunctionBackend(self._function())
        for strip in grid.strips(STRIP):
            predictions = predict(reader.tiles(strip, 0, 1), backend, batch=1, depth=0)
            for rows in blend(predictions, strip, Finisher(spec, self.net.classes)):
                if rows.bottom > rows.top:
                    window = replace(strip.window, top=rows.top, bottom=rows.bottom)
                    window = window.shifted(part.window.top, part.window.left)
                    yield Answer(window, rows.planes_QHW, labelled.read(window)[1])

    def _function(self) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
        net = same_size(self.net)
        if not self._by_probability:
            return as_function(net, self.device)
        independent = self.spec.activation == "sigmoid"

        def shares(pixels_NCHW: Tensor) -> Tensor:
            return shares_of(net(pixels_NCHW), independent=independent)

        return as_function((lambda x: turned(shares, x)) if self.tta else shares, self.device)

    def _told(self) -> ModelSpec:
        """The spec of `_function`."""
        spec = same_size_spec(self.spec, self.net)
        exclusive = self._by_probability and spec.activation == "logits"
        return replace(spec, activation="softmax") if exclusive else spec

    @property
    def _by_probability(self) -> bool:
        return self.tta or self.spec.activation == "sigmoid"


def check_parts(net: Network, parts: Iterable[Part]) -> None:
    """Refuse parts that are too small for the network even when they are mirrored up to the stride.

    Raises
    ------
    InputError
        naming the least side, as segmenting does.
    """
    whole = same_size(net)
    for part in parts:
        height, width = part.window.shape
        if round_up(min(height, width), whole.stride) < whole.geometry.least:
            raise InputError(
                f"the network takes sides of at least {whole.geometry.least} px, got {width} x {height} in "
                f"{part.source.image}; leave it out, or make a mosaic of it and its neighbours"
            )


def evaluate(
    net: Network,
    device: torch.device,
    parts: Iterable[Part],
    library: Library,
    spec: ModelSpec,
    *,
    tta: bool = False,
) -> Evaluation:
    """Compare with the target everywhere it is known. Leaves the network in evaluation mode.

    Parameters
    ----------
    net
        Returns logits; on ``device``.
    device
        Where to compute.
    parts
        What to look at; samples are these, or `SQUARE` pixels of those that are larger than `WHOLE`.
    library
        Opens them.
    spec
        How pixels are fed and what follows from the scores: classes, activation, threshold.
    tta
        Average the probabilities over flips and quarter turns.
    """
    net.eval()
    examiner = Examiner(net, device, library, spec, tta)
    total = empty_confusion(spec)
    samples = [sample for part in parts for sample in _samples(examiner, part, total)]
    return Evaluation(total, [sample for sample in samples if sample.sums.pixels])


def _samples(examiner: Examiner, part: Part, total: Counts) -> list[SampleScore]:
    """The samples of a part; what is counted is added to the total, too."""
    found: dict[Window, Sums] = {}
    for answer in examiner.answers(part):
        for cell in cells(part.window, answer.window):
            confusion = empty_confusion(examiner.spec)
            inside = cell.intersection(answer.window).shifted(-answer.window.top, -answer.window.left)
            target, labels_QHW = answer.target[..., *inside.slices], answer.labels_QHW[:, *inside.slices]
            confusion.add(target, labels_QHW if target.ndim == 3 else labels_QHW[0])
            total.counts[...] += confusion.counts
            found.setdefault(cell, Sums.empty(total)).add(confusion)
    info = examiner.library.info(part.source)
    return [
        SampleScore(part, cell, sums, _pixel_m2(info, cell))
        for cell, sums in sorted(found.items(), key=lambda item: item[0])
    ]


def cells(part: Window, touched: Window) -> Iterator[Window]:
    """The samples of a part that have a pixel in ``touched``."""
    height, width = (side if side <= WHOLE else SQUARE for side in part.shape)
    first = touched.top - (touched.top - part.top) % height
    for top in range(first, touched.bottom, height):
        for left in range(touched.left - (touched.left - part.left) % width, touched.right, width):
            yield Window(top, left, min(top + height, part.bottom), min(left + width, part.right))


def _pixel_m2(info: RasterInfo, window: Window) -> float | None:
    if info.crs and info.transform is not None:
        return pixel_area(info.crs, info.transform, window)
    return info.ground[0] * info.ground[1] if info.ground else None


def part_grid(part: Window, wanted: Window, spec: ModelSpec) -> TileGrid:
    """Tiles of a part, for what is wanted of it, with the part's origin."""
    rows, columns = (part_axis(extent, spec) for extent in part.shape)
    return TileGrid(rows, columns, wanted)


def part_axis(extent: int, spec: ModelSpec) -> Axis:
    """Tiles along one side of a part: a single one if it is small; else blended, unless they are exact."""
    stride, halo = spec.stride or 1, spec.halo or 0
    if spec.exact:
        tile, overlap, window = max(TILE // stride * stride, 3 * halo), 2 * halo, None
    else:  # as `tiler` blends by itself
        tile = round_up(BLENDED_TILE, stride)
        overlap, window = tile // 4 // stride * stride, "hann"
    whole = round_up(extent, stride)
    return (
        Axis(extent, whole, 0, stride, window)
        if whole <= tile
        else Axis(extent, tile, overlap, stride, window)
    )
