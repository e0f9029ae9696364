"""Pictures brought to one size, or to a share of their own: by a scale, stretched, or letterboxed.

A letterbox keeps the proportions and leaves bars, whose pixels are not valid: they are filled like any
nodata, never learnt from and never counted. Pixels are averaged or interpolated, labels are the nearest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler.errors import UsageError
from tiler.geometry import Window
from tiler.open import nearest
from tiler.pixels import Pixels
from tiler.readers.resampled import NearestRaster, ResampledRaster, resampled_info

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.ports import Raster, RasterInfo

SIZES: Final = re.compile(r"(letterbox|stretch):(\d+)(?:x(\d+))?")
FORMS: Final = "0.5 (a scale), stretch:96 or stretch:640x480 (width x height), or letterbox:512"


@dataclass(frozen=True, slots=True)
class Resize:
    """How a picture of any size becomes what is fed."""

    kind: str
    """``scale``, ``stretch`` or ``letterbox``."""
    factor: float = 1.0
    """Of a scale: new pixels per pixel along a side."""
    height: int = 0
    width: int = 0
    """Of the others: pixels of the result."""

    @classmethod
    def parse(cls, text: str) -> Resize:
        """As on the command line.

        >>> Resize.parse("letterbox:512")
        Resize(kind='letterbox', factor=1.0, height=512, width=512)
        """
        if match := SIZES.fullmatch(text):
            kind, width, height = match.groups()
            made = cls(kind, 1.0, int(height or width), int(width))
            if made.height and made.width:
                return made
        elif re.fullmatch(r"\d*\.?\d+", text) and float(text) > 0:
            return cls("scale", float(text))
        raise UsageError(f"--resize is {FORMS}; got {text!r}")

    def place(self, height: int, width: int) -> Place:
        """Where a picture of that size goes.

        >>> Resize.parse("letterbox:100").place(50, 200).inner
        Window(top=37, left=0, bottom=62, right=100)
        """
        if self.kind == "scale":
            size = max(1, int(height * self.factor)), max(1, int(width * self.factor))
            return Place((height, width), size, Window(0, 0, *size))
        if self.kind == "stretch":
            return Place((height, width), (self.height, self.width), Window(0, 0, self.height, self.width))
        factor = min(self.height / height, self.width / width)
        inner = max(1, round(height * factor)), max(1, round(width * factor))
        top, left = (self.height - inner[0]) // 2, (self.width - inner[1]) // 2
        return Place((height, width), (self.height, self.width), Window(0, 0, *inner).shifted(top, left))


@dataclass(frozen=True, slots=True)
class Place:
    """A picture within what is fed."""

    before: tuple[int, int]
    """Height and width of the picture."""
    after: tuple[int, int]
    """Height and width of what is fed."""
    inner: Window
    """The picture's place in it; around are bars."""

    def pixels(self, raster: Raster) -> Raster:
        """The resized picture."""
        small = ResampledRaster(raster, resampled_info(raster.info, *self.inner.shape, "resized"))
        return small if self.inner.shape == self.after else Letterboxed(small, self)

    def labels(self, raster: Raster) -> Raster:
        """Labels of the picture, resized by the nearest; bars are not valid."""
        rows = _indices(self.before[0], self.inner.top, self.inner.bottom, self.after[0])
        columns = _indices(self.before[1], self.inner.left, self.inner.right, self.after[1])
        return NearestRaster(raster, rows, columns, self.info(raster.info))

    def info(self, info: RasterInfo) -> RasterInfo:
        """Of what is fed; it lies nowhere on the ground any more."""
        height, width = self.after
        sized = replace(info, height=height, width=width, note="resized")
        return replace(sized, crs=None, transform=None, ground=None, to_level0=None)

    def back(self, fed_CHW: NDArray[np.generic]) -> NDArray[np.generic]:
        """What is said of the fed pixels, for the pixels of the picture: bars cut off, the nearest taken."""
        inner_CHW = fed_CHW[..., *self.inner.slices]
        rows, columns = (nearest(*sides) for sides in zip(self.before, self.inner.shape, strict=True))
        return inner_CHW[..., rows[:, None], columns]


def _indices(before: int, start: int, stop: int, after: int) -> NDArray[np.int64]:
    """Source index of each position, -1 in bars."""
    indices = np.full(after, -1)
    indices[start:stop] = nearest(stop - start, before)
    return indices


@dataclass(frozen=True, slots=True, eq=False)
class Letterboxed:
    """A picture with bars around it."""

    raster: Raster
    """Of the size of the inner window."""
    place: Place

    @property
    def info(self) -> RasterInfo:
        """Of the whole."""
        return replace(self.place.info(self.raster.info), gaps=True)

    def empty(self, window: Window) -> bool:
        """Whether nothing but bars is there."""
        return not window.touches(self.place.inner)

    def read(self, window: Window) -> Pixels:
        """Zeros that are not valid in the bars."""
        raw_CHW = np.zeros((self.raster.info.bands, *window.shape), self.raster.info.dtype)
        valid_HW = np.zeros(window.shape, np.bool_)
        inner = self.place.inner
        if window.touches(inner):
            both = window.intersection(inner)
            pixels = self.raster.read(both.shifted(-inner.top, -inner.left))
            into = both.shifted(-window.top, -window.left).slices
            raw_CHW[:, *into], valid_HW[into] = pixels.raw_CHW, pixels.valid_HW
        return Pixels(raw_CHW, valid_HW)
