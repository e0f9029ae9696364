"""How a file is cut into blocks, which are what can be damaged."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

from rasterio._err import CPLE_BaseError  # no public name, and no RasterioError

from tiler.geometry import Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rasterio.io import DatasetReader

ONE_STRIP: Final = "one-strip TIFF"
SEQUENTIAL: Final = ("PNG", "JPEG", ONE_STRIP)
"""Drivers of files without blocks of their own: after damage nothing in them can be trusted."""
LARGEST_BLOCK: Final = 1 << 24
"""Pixels; a file of larger blocks is as good as one without."""


@dataclass(frozen=True, slots=True)
class BlockShape:
    """The blocks in which a file is compressed."""

    height: int
    width: int
    driver: str

    @property
    def independent(self) -> bool:
        """Whether a damaged block leaves the others readable."""
        return self.driver not in SEQUENTIAL and self.height * self.width <= LARGEST_BLOCK

    def places(self, window: Window) -> Iterator[tuple[int, int]]:
        """Row and column of every block that a window touches."""
        rows = range(window.top // self.height, -(-window.bottom // self.height))
        columns = range(window.left // self.width, -(-window.right // self.width))
        return product(rows, columns)

    def under(self, window: Window, height: int, width: int) -> Iterator[Window]:
        """The blocks that a window of a raster of this size touches, row by row."""
        for row, column in self.places(window):
            top, left = row * self.height, column * self.width
            yield Window(top, left, min(top + self.height, height), min(left + self.width, width))

    def around(self, window: Window, height: int, width: int) -> Window:
        """A window rounded outward to whole blocks."""
        top, left = window.top // self.height * self.height, window.left // self.width * self.width
        bottom = -(-window.bottom // self.height) * self.height
        right = -(-window.right // self.width) * self.width
        return Window(top, left, min(bottom, height), min(right, width))


def is_split(dataset: DatasetReader) -> bool:
    """Whether GDAL makes rows out of one tall strip, which is decoded from its top to any of them."""
    if dataset.driver != "GTiff" or dataset.block_shapes[0][0] > 1 or dataset.height == 1:
        return False
    rows = (0, 1, dataset.height // 2, dataset.height - 1)
    try:
        first, *others = (dataset.get_tag_item(f"BLOCK_OFFSET_0_{row}", "TIFF", bidx=1) for row in rows)
    except CPLE_BaseError:
        return False  # the table of blocks is damaged, as every read will tell
    return first is not None and not any(others)
