"""How much of a proven halo this network needs on this raster: measured, where a little error is allowed.

A trained network hardly looks at the far ends of its receptive field. On sample tiles the smallest halo is
sought with which every label is that of the proven halo and every probability within the tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler.errors import UsageError
from tiler.geometry import Window, spread
from tiler.grid import round_up
from tiler.tiles import network_input, read_mirrored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tiler.finish import Finisher
    from tiler.model import Model
    from tiler.ports import Mask, Raster

CORE: Final = 192
"""Side of a sample's core, pixels."""
SHARE: Final = 0.04
"""Samples are at most this part of the raster's pixels, halos included."""
FEWEST: Final = 4
MOST: Final = 32
KEPT: Final = 100_000_000
"""Bytes of samples that are kept."""
TRIES: Final = 16
"""Places that are looked at per sample, where most of a raster is nodata."""


@dataclass(frozen=True, slots=True)
class EffectiveHalo:
    """What was measured."""

    halo: int
    """Pixels, a multiple of the stride."""
    proven: int
    """The halo with which the result is exact."""
    samples: int
    """Tiles that were compared; 0: the raster is too small to gain anything."""
    worst: float
    """Largest difference of a probability in the samples at this halo."""

    def __str__(self) -> str:
        if not self.samples:
            return f"halo {self.halo} px, no place to measure a smaller one"
        if self.halo == self.proven:
            return f"halo {self.halo} px: none smaller would do"
        return (
            f"halo {self.halo} px instead of {self.proven}: in {self.samples} sample tiles no label differs, "
            f"probabilities by at most {self.worst:.1e}"
        )


def measure_halo(
    raster: Raster, model: Model, finisher: Finisher, tolerance: float, mask: Mask | None = None
) -> EffectiveHalo:
    """The smallest halo that keeps all labels, and all probabilities within the tolerance, in samples.

    Only pixels inside the mask count.

    Raises
    ------
    UsageError
        if the network has no probabilities, or takes tiles of one size only.
    """
    if model.spec.activation == "none":
        raise UsageError("--tolerance is of probabilities, the model returns none (--activation none)")
    if None in (model.spec.halo, model.spec.stride) or any(model.shape[1:]):
        raise UsageError("--tolerance needs a network of any tile size with a known halo")
    stride = model.spec.stride or 1
    proven = round_up(model.spec.halo or 0, stride)
    source, drawn = _samples(raster, model, proven, stride, mask), list[Sample]()
    for halo in range(0, proven, stride):
        worst = 0.0
        # Those that refused a smaller halo come first; later ones are drawn when they are needed.
        for sample in chain(drawn, _kept(source, drawn)):
            worst = max(worst, sample.error(model, finisher, halo))
            if worst > tolerance:
                break
        else:
            return EffectiveHalo(halo if drawn else proven, proven, len(drawn), worst)
    return EffectiveHalo(proven, proven, len(drawn), 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A tile with the proven halo, and the scores of its core."""

    input_CHW: NDArray[np.float32]
    valid_HW: NDArray[np.bool_]
    """Of the core."""
    halo: int
    expected_KHW: NDArray[np.float32]
    """Of the core."""

    def error(self, model: Model, finisher: Finisher, halo: int) -> float:
        """Largest difference of a valid probability by a smaller halo; infinite if any label differs."""
        cut = self.halo - halo
        height, width = self.input_CHW.shape[1:]
        found_KHW = _core(model, self.input_CHW[:, cut : height - cut, cut : width - cut], halo)
        expected, found = finisher.probabilities(self.expected_KHW), finisher.probabilities(found_KHW)
        if (finisher.decided(expected) != finisher.decided(found))[..., self.valid_HW].any():
            return float("inf")
        return float(np.abs(expected - found)[:, self.valid_HW].max())


def _kept(source: Iterator[Sample], drawn: list[Sample]) -> Iterator[Sample]:
    """Further samples, which are then kept for the next halo."""
    for sample in source:
        drawn.append(sample)
        yield sample


def _samples(raster: Raster, model: Model, halo: int, stride: int, mask: Mask | None) -> Iterator[Sample]:
    """Tiles spread evenly over the raster whose cores hold data."""
    side = round_up(CORE, stride) + 2 * halo
    rooms = [(extent - side) // stride for extent in (raster.info.height, raster.info.width)]
    if min(rooms) < 0:
        return
    pixels = raster.info.height * raster.info.width
    kept = KEPT // (side**2 * raster.info.bands * model.dtype.itemsize)
    count = int(np.clip(SHARE * pixels / side**2, FEWEST, max(FEWEST, min(MOST, kept))))
    places = dict.fromkeys(_places(rooms, stride, side, count * TRIES))
    yield from islice(_valid(raster, model, iter(places), halo, mask), count)


def _places(rooms: list[int], stride: int, side: int, count: int) -> Iterator[Window]:
    for down, across in spread(count):
        top, left = int(down * (rooms[0] + 1)) * stride, int(across * (rooms[1] + 1)) * stride
        yield Window(top, left, top + side, left + side)


def _valid(
    raster: Raster, model: Model, windows: Iterator[Window], halo: int, mask: Mask | None
) -> Iterator[Sample]:
    for window in windows:
        core = Window(window.top + halo, window.left + halo, window.bottom - halo, window.right - halo)
        wanted_HW = True if mask is None else mask.read(core)
        if raster.empty(core) or not np.any(wanted_HW):
            continue
        pixels = read_mirrored(raster, window)
        valid_HW = pixels.valid_HW[halo : window.height - halo, halo : window.width - halo] & wanted_HW
        if valid_HW.any():
            input_CHW = network_input(pixels, model.spec, model.dtype)
            yield Sample(input_CHW, valid_HW, halo, _core(model, input_CHW, halo))


def _core(model: Model, tile_CHW: NDArray[np.float32], halo: int) -> NDArray[np.float32]:
    """Scores of a tile without its halo."""
    scores_KHW: NDArray[np.float32] = model.backend.predict(np.ascontiguousarray(tile_CHW)[None])[0]
    return scores_KHW[:, halo : scores_KHW.shape[1] - halo, halo : scores_KHW.shape[2] - halo].copy()
