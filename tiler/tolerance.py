"""How much of a proven halo this network needs on this raster: measured, where a little error is allowed.

A trained network hardly looks at the far ends of its receptive field. On sample tiles the smallest halo is
sought with which every label is that of the proven halo and every probability within the tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
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
    from tiler.ports import Raster

CORE: Final = 256
"""Side of a sample's core, pixels."""
SHARE: Final = 0.05
"""Samples are at most this part of the raster's pixels, halos included."""
FEWEST: Final = 4
MOST: Final = 32
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
            return f"halo {self.halo} px, too few places to measure a smaller one"
        return (
            f"halo {self.halo} px instead of {self.proven}: in {self.samples} sample tiles no label differs, "
            f"probabilities by at most {self.worst:.1e}"
        )


def measure_halo(raster: Raster, model: Model, finisher: Finisher, tolerance: float) -> EffectiveHalo:
    """The smallest halo that keeps all labels, and all probabilities within the tolerance, in samples.

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
    halos = [*range(0, proven, stride), proven]
    worst, samples = 0.0, 0
    for input_CHW, valid_HW in _samples(raster, model, proven, stride):
        expected_KHW = _core(model, input_CHW, proven, proven)
        samples += 1
        while halos[0] < proven:
            found_KHW = _core(model, input_CHW, proven, halos[0])
            off = _difference(finisher, expected_KHW, found_KHW, valid_HW)
            if off <= tolerance:
                worst = max(worst, off)
                break
            worst = 0.0
            halos.pop(0)
    return EffectiveHalo(halos[0] if samples else proven, proven, samples, worst)


def _samples(
    raster: Raster, model: Model, halo: int, stride: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Inputs of tiles spread evenly over the raster, and which pixels of their cores are valid."""
    side = round_up(CORE, stride) + 2 * halo
    rooms = [(extent - side) // stride for extent in (raster.info.height, raster.info.width)]
    if min(rooms) < 0:
        return
    pixels = raster.info.height * raster.info.width
    count = int(np.clip(SHARE * pixels / side**2, FEWEST, MOST))
    yield from islice(_valid(raster, model, _places(rooms, stride, side, count * TRIES), halo), count)


def _places(rooms: list[int], stride: int, side: int, count: int) -> Iterator[Window]:
    for down, across in spread(count):
        top, left = int(down * (rooms[0] + 1)) * stride, int(across * (rooms[1] + 1)) * stride
        yield Window(top, left, top + side, left + side)


def _valid(
    raster: Raster, model: Model, windows: Iterator[Window], halo: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    for window in windows:
        if raster.empty(window):
            continue
        pixels = read_mirrored(raster, window)
        valid_HW = pixels.valid_HW[halo : window.height - halo, halo : window.width - halo]
        if valid_HW.any():
            yield network_input(pixels, model.spec, model.dtype), valid_HW


def _core(model: Model, input_CHW: NDArray[np.float32], proven: int, halo: int) -> NDArray[np.float32]:
    """Scores of the core by a tile with a smaller halo."""
    cut = proven - halo
    height, width = input_CHW.shape[1:]
    tile_CHW = np.ascontiguousarray(input_CHW[:, cut : height - cut, cut : width - cut])
    scores_KHW: NDArray[np.float32] = model.backend.predict(tile_CHW[None])[0]
    return scores_KHW[:, halo : scores_KHW.shape[1] - halo, halo : scores_KHW.shape[2] - halo]


def _difference(
    finisher: Finisher,
    expected_KHW: NDArray[np.float32],
    found_KHW: NDArray[np.float32],
    valid_HW: NDArray[np.bool_],
) -> float:
    """Largest difference of a valid probability; infinite if any label differs."""
    expected, found = finisher.probabilities(expected_KHW), finisher.probabilities(found_KHW)
    if (finisher.decided(expected) != finisher.decided(found))[..., valid_HW].any():
        return float("inf")
    return float(np.abs(expected - found)[:, valid_HW].max())
