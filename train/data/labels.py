"""Where the labels of an image are, and how they are opened on its grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tiler.pixels import Pixels
from train.data.target import IGNORE, one_plane_per_class

if TYPE_CHECKING:
    from tiler.geometry import Window
    from tiler.ports import Raster, RasterInfo
    from train.data.legend import Legend


@dataclass(frozen=True, slots=True, eq=False)
class OpenLabels:
    """Labels on the grid of their image."""

    target: Raster
    """uint8: one band of classes and `IGNORE`, or a band of 0, 1 and `IGNORE` per independent class."""
    objects: Raster | None = None
    """One band: 0, or the number of the object there; None: objects are not told apart."""


class LabelSource(Protocol):
    """Frozen and hashable; can be sent to another process."""

    def open(self, like: RasterInfo, legend: Legend) -> OpenLabels:
        """The labels on the grid of an image.

        Raises
        ------
        InputError
            if they cannot be used, or are not this image's.
        """


@dataclass(frozen=True, slots=True, eq=False)
class CodedRaster:
    """A raster of labels as its legend reads it."""

    raster: Raster
    legend: Legend

    @property
    def info(self) -> RasterInfo:
        """Of the target."""
        bands = len(self.legend.classes) if self.legend.independent else 1
        return replace(self.raster.info, bands=bands, dtype=np.dtype(np.uint8))

    def empty(self, window: Window) -> bool:
        """Not known."""
        del window
        return False

    def read(self, window: Window) -> Pixels:
        """Classes; `IGNORE` where the labels are nodata."""
        pixels = self.raster.read(window)
        target_HW = np.full(window.shape, IGNORE, np.uint8)
        raw_CN = pixels.raw_CHW[:, pixels.valid_HW]
        target_HW[pixels.valid_HW] = self.legend.raster.code(raw_CN, self.raster.info.name)
        return as_bands(target_HW, self.legend)


def as_bands(target_HW: np.ndarray, legend: Legend) -> Pixels:
    """A target of exclusive classes as `OpenLabels.target` has it."""
    bands_CHW = one_plane_per_class(target_HW, len(legend.classes)) if legend.independent else target_HW[None]
    return Pixels(bands_CHW, np.ones(target_HW.shape, np.bool_))
