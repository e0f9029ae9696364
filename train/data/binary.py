"""Labels in many files of yes and no: one per object, or one per class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler.errors import InputError
from tiler.geometry import Window
from tiler.pixels import Pixels
from tiler.readers.array import ArrayRaster
from train.data.array import NamedRaster
from train.data.image import open_mask_file
from train.data.labels import OpenLabels, as_bands
from train.data.legend import Table, Threshold
from train.data.target import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.ports import Raster, RasterInfo
    from train.data.legend import Legend

YES_OR_NO: Final = Table((0, 1, 255), (0, 1, 1), 1, "0 and 1, or 0 and 255, in a file of one class")
CLASS: Final = "{class}"
"""In a path: the name of each class."""
NUMBER: Final = "{number}"
"""In a path: the number of each class, from 0."""


@dataclass(frozen=True, slots=True)
class ObjectFolder:
    """A folder with a mask per object, as in DSB2018; they are merged."""

    path: Path

    def open(self, like: RasterInfo, legend: Legend) -> OpenLabels:
        """Where objects overlap, the last by name is on top."""
        if len(legend.classes) != 2:
            raise InputError(
                f"a folder of objects tells 2 classes apart, got {len(legend.classes)} for {self.path}; "
                "see --classes"
            )
        files = sorted(path for path in self.path.iterdir() if not path.name.startswith("."))
        objects_HW = np.zeros((like.height, like.width), np.int32)
        for number, path in enumerate(files, 1):
            plane_HW = PlaneFile.of(path, like, legend).read(Window(0, 0, like.height, like.width))
            objects_HW[plane_HW == 1] = number
        bands = as_bands((objects_HW != 0).astype(np.uint8), legend)
        return OpenLabels(_named(bands.raw_CHW, self.path), _named(objects_HW[None], self.path))


@dataclass(frozen=True, slots=True)
class ClassFiles:
    """A mask per class; a class that does not occur needs none."""

    pattern: str
    """Path with `CLASS` or `NUMBER` in it."""

    def open(self, like: RasterInfo, legend: Legend) -> OpenLabels:
        """Classes of which a pixel may have several, or none."""
        if not legend.independent:
            raise InputError(
                f"classes of a file each may overlap, got {self.pattern} and classes that do not; "
                "use --independent"
            )
        paths = self.paths(legend)
        planes = [PlaneFile.of(path, like, legend) if path.exists() else None for path in paths]
        info = replace(like, bands=len(planes), dtype=np.dtype(np.uint8))
        return OpenLabels(StackedRaster(tuple(planes), info))

    def paths(self, legend: Legend) -> list[Path]:
        """Of each class, whether it is there or not."""
        names = enumerate(legend.classes)
        return [Path(self.pattern.replace(CLASS, name).replace(NUMBER, str(i))) for i, name in names]


@dataclass(frozen=True, slots=True, eq=False)
class PlaneFile:
    """A mask of yes and no."""

    raster: Raster
    coding: Table | Threshold

    @classmethod
    def of(cls, path: Path, like: RasterInfo, legend: Legend) -> PlaneFile:
        """On the grid of an image; of the legend's codings only a threshold counts."""
        raster = open_mask_file(path, like)
        if raster.info.bands != 1:
            raise InputError(f"a mask of one object or class has one band, got {raster.info.bands} in {path}")
        return cls(raster, legend.raster if isinstance(legend.raster, Threshold) else YES_OR_NO)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """0, 1, or `IGNORE` where the mask is nodata."""
        pixels = self.raster.read(window)
        plane_HW = np.full(window.shape, IGNORE, np.uint8)
        raw_CN = pixels.raw_CHW[:, pixels.valid_HW]
        plane_HW[pixels.valid_HW] = self.coding.code(raw_CN, self.raster.info.name)
        return plane_HW


@dataclass(frozen=True, slots=True, eq=False)
class StackedRaster:
    """Masks as the bands of a raster; one that is not there is 0."""

    planes: tuple[PlaneFile | None, ...]
    info: RasterInfo

    def empty(self, window: Window) -> bool:
        """Never."""
        del window
        return False

    def read(self, window: Window) -> Pixels:
        """A band per class."""
        none_HW = np.zeros(window.shape, np.uint8)
        raw_CHW = np.stack([none_HW if plane is None else plane.read(window) for plane in self.planes])
        return Pixels(raw_CHW, np.ones(window.shape, np.bool_))


def _named(raw_CHW: NDArray[np.generic], path: Path) -> NamedRaster:
    return NamedRaster(ArrayRaster(raw_CHW), str(path))
