"""A raster brought to another resolution, or labels brought onto another grid.

Every target pixel is worked out from its own global index, in one order of summation, so that its value
does not depend on the window it is read in. (GDAL's warper differs by a grey level between windows:
`tiler/DESIGN.md`.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler import kernels
from tiler.geometry import Window
from tiler.pixels import Pixels, checked_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.ports import Raster, RasterInfo

MOST_AT_ONCE: Final = 1 << 24
"""Source pixels that are read at once for nearest ones, unless a row of the target has more."""
Taps = tuple["NDArray[np.int64]", "NDArray[np.float64]"]
"""Per target pixel: the first source pixel, and the weights of it and those after it."""


def taps(first: int, last: int, source: int, target: int) -> Taps:
    """Which source pixels make up the target pixels ``[first, last)`` of an axis, and how much.

    Shrinking averages by covered area, growing interpolates linearly between centres.

    >>> index, weights = taps(0, 2, source=3, target=2)
    >>> index.tolist(), weights.tolist()
    ([0, 1], [[2.0, 1.0], [1.0, 2.0]])
    """
    return (
        _area_taps(first, last, source, target)
        if source >= target
        else _linear_taps(first, last, source, target)
    )


def _area_taps(first: int, last: int, source: int, target: int) -> Taps:
    # In units of 1/target source pixels everything is an integer, so the weights are exact.
    index = np.arange(first, last)
    begin, end = index * source, (index + 1) * source
    start = begin // target
    count = int((-(-end // target) - start).max())
    places = start[:, None] + np.arange(count)
    cover = np.minimum(end[:, None], (places + 1) * target) - np.maximum(begin[:, None], places * target)
    return start, np.maximum(cover, 0).astype(np.float64)


def _linear_taps(first: int, last: int, source: int, target: int) -> Taps:
    centre = (np.arange(first, last) + 0.5) * source / target - 0.5
    start = np.clip(np.floor(centre), 0, max(source - 2, 0)).astype(np.int64)
    share = np.clip(centre - start, 0, 1)
    if source == 1:
        return start, np.ones((last - first, 1))
    return start, np.stack([1 - share, share], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class ResampledRaster:
    """A raster at another resolution: means over valid pixels."""

    source: Raster
    info: RasterInfo
    """Of the target: its height and width span exactly the source's extent."""

    def empty(self, window: Window) -> bool:
        """Whether the source knows it of the pixels that are averaged."""
        return self.source.empty(self._around(*self._taps(window)))

    def _taps(self, window: Window) -> tuple[Taps, Taps]:
        whole = self.source.info
        rows = taps(window.top, window.bottom, whole.height, self.info.height)
        return rows, taps(window.left, window.right, whole.width, self.info.width)

    def _around(self, rows: Taps, columns: Taps) -> Window:
        """The source pixels that are needed."""
        whole = self.source.info
        return Window(
            int(rows[0][0]),
            int(columns[0][0]),
            min(int(rows[0][-1]) + rows[1].shape[1], whole.height),
            min(int(columns[0][-1]) + columns[1].shape[1], whole.width),
        )

    def read(self, window: Window) -> Pixels:
        """The target pixels of a window."""
        rows, columns = self._taps(window)
        around = self._around(rows, columns)
        pixels = self.source.read(around)
        mean_CHW = np.empty((self.info.bands, *window.shape))
        valid_HW = np.empty(window.shape, np.bool_)
        kernels.resample(
            pixels.raw_CHW,
            pixels.valid_HW,
            (rows[0] - around.top, rows[1]),
            (columns[0] - around.left, columns[1]),
            mean_CHW,
            valid_HW,
        )
        if self.info.dtype.kind in "iu":
            mean_CHW = np.rint(mean_CHW)
        return checked_pixels(mean_CHW.astype(self.info.dtype), valid_HW)


@dataclass(frozen=True, slots=True, eq=False)
class NearestRaster:
    """A raster read through a table of nearest rows and columns, as labels are brought onto a grid."""

    source: Raster
    rows: NDArray[np.int64]
    """Source row of each target row; outside the source: not valid."""
    columns: NDArray[np.int64]
    """Source column of each target column."""
    info: RasterInfo
    """Of the target."""

    def empty(self, window: Window) -> bool:
        """Not known."""
        del window
        return False

    def read(self, window: Window) -> Pixels:
        """The nearest source pixels of a window, a few rows at a time where the source is much finer."""
        rows, columns = self.rows[window.top : window.bottom], self.columns[window.left : window.right]
        pieces = -(-int(np.ptp(rows) + 1) * int(np.ptp(columns) + 1) // MOST_AT_ONCE)
        step = -(-window.height // pieces)
        tops = range(window.top, window.bottom, step)
        parts = [
            self._read(Window(top, window.left, min(top + step, window.bottom), window.right)) for top in tops
        ]
        if len(parts) == 1:
            return parts[0]
        raw_CHW = np.concatenate([part.raw_CHW for part in parts], axis=1)
        return Pixels(raw_CHW, np.concatenate([part.valid_HW for part in parts]))

    def _read(self, window: Window) -> Pixels:
        rows, columns = self.rows[window.top : window.bottom], self.columns[window.left : window.right]
        height, width = self.source.info.height, self.source.info.width
        inside_HW = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
        rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
        around = Window(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
        pixels = self.source.read(around)
        index = np.ix_(rows - around.top, columns - around.left)
        return Pixels(pixels.raw_CHW[:, index[0], index[1]], pixels.valid_HW[index] & inside_HW)


def resampled_info(info: RasterInfo, height: int, width: int, note: str) -> RasterInfo:
    """The info of a plane that spans the same extent with another number of pixels."""
    down, across = info.height / height, info.width / width
    transform, to_level0 = (
        None if known is None else known @ type(known).scale(across, down)
        for known in (info.transform, info.to_level0)
    )
    ground = None if info.ground is None else (info.ground[0] * across, info.ground[1] * down)
    size = replace(info, height=height, width=width, shrink=info.shrink * down * across)
    return replace(size, transform=transform, to_level0=to_level0, ground=ground, note=note)
