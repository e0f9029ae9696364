"""Whole pictures brought to another size, as `tiler.resize` places them.

Pixels are averaged or interpolated, labels are the nearest. The bars of a letterbox are not valid: they are
filled like any nodata, never learnt from and never counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine

from tiler.geometry import nearest
from tiler.pixels import Pixels
from tiler.readers.resampled import NearestRaster, ResampledRaster, resampled_info

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.geometry import Window
    from tiler.ports import Raster, RasterInfo
    from tiler.resize import Place, Resize


def resized(raster: Raster, resize: Resize) -> Raster:
    """A picture as it is fed; where all become of one size, that of a pixel on the ground says nothing."""
    place = resize.place(raster.info.height, raster.info.width)
    note = f"resized whole ({resize.kind}) from {place.before[1]} x {place.before[0]} px"
    info = replace(resampled_info(raster.info, *place.inner.shape, note), picture=place)
    if not resize.keeps_scale:
        info = replace(info, ground=None)
    small = ResampledRaster(raster, info)
    return Letterboxed(small, place.inner, _with_bars(info, place)) if place.bars else small


def resized_labels(labels: Raster, place: Place) -> Raster:
    """Labels of a picture, on its pixels, for what is fed: the nearest, and not valid in bars."""
    height, width = place.after
    sized = replace(labels.info, height=height, width=width, note="resized")
    info = replace(sized, crs=None, transform=None, ground=None, to_level0=None)
    rows = _indices(place.before[0], place.inner.top, place.inner.bottom, height)
    columns = _indices(place.before[1], place.inner.left, place.inner.right, width)
    return NearestRaster(labels, rows, columns, info)


def _indices(before: int, start: int, stop: int, after: int) -> NDArray[np.int64]:
    """Source index of each position, -1 in bars."""
    indices = np.full(after, -1)
    indices[start:stop] = nearest(stop - start, before)
    return indices


def _with_bars(info: RasterInfo, place: Place) -> RasterInfo:
    corner = Affine.translation(-place.inner.left, -place.inner.top)
    transform = None if info.transform is None else info.transform @ corner
    height, width = place.after
    return replace(info, height=height, width=width, transform=transform, to_level0=None, gaps=True)


@dataclass(frozen=True, slots=True, eq=False)
class Letterboxed:
    """A picture with bars around it."""

    raster: Raster
    """Of the size of the inner window."""
    inner: Window
    """Its place in the whole."""
    info: RasterInfo
    """Of the whole."""

    def empty(self, window: Window) -> bool:
        """Whether nothing but bars is there."""
        return not window.touches(self.inner)

    def read(self, window: Window) -> Pixels:
        """Zeros that are not valid in the bars."""
        raw_CHW = np.zeros((self.info.bands, *window.shape), self.info.dtype)
        valid_HW = np.zeros(window.shape, np.bool_)
        if window.touches(self.inner):
            both = window.intersection(self.inner)
            pixels = self.raster.read(both.shifted(-self.inner.top, -self.inner.left))
            into = both.shifted(-window.top, -window.left).slices
            raw_CHW[:, *into], valid_HW[into] = pixels.raw_CHW, pixels.valid_HW
        return Pixels(raw_CHW, valid_HW)
