"""A raster in memory: for tests, notebooks and small images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tiler.errors import InputError
from tiler.pixels import Pixels, checked_pixels
from tiler.ports import RasterInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.geometry import Window


@dataclass(frozen=True, slots=True, eq=False)
class ArrayRaster:
    """Pixels that are already an array.

    >>> from tiler.geometry import Window
    >>> ArrayRaster(np.zeros((3, 4, 5), np.uint8)).read(Window(0, 0, 2, 2)).raw_CHW.shape
    (3, 2, 2)
    """

    raw_CHW: NDArray[Any]
    valid_HW: NDArray[np.bool_] | None = None
    """None: all valid (but for non-finite pixels)."""

    def __post_init__(self) -> None:
        if self.raw_CHW.ndim != 3:
            raise InputError(f"an array raster has the axes (band, row, column), got {self.raw_CHW.shape}")

    @property
    def info(self) -> RasterInfo:
        """Size and dtype; no georeferencing."""
        bands, height, width = self.raw_CHW.shape
        return RasterInfo("array", height, width, bands, self.raw_CHW.dtype)

    def empty(self, window: Window) -> bool:
        """Not known."""
        del window
        return False

    def read(self, window: Window) -> Pixels:
        """A view of the window."""
        raw_CHW = self.raw_CHW[:, *window.slices]
        whole_HW = np.ones(self.raw_CHW.shape[1:], np.bool_) if self.valid_HW is None else self.valid_HW
        return checked_pixels(raw_CHW, whole_HW[window.slices])
