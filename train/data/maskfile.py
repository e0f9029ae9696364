"""Labels in a raster of their own: one mask per image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tiler.errors import InputError
from train.data.image import open_mask_file
from train.data.labels import CodedRaster, OpenLabels
from train.data.legend import Instances

if TYPE_CHECKING:
    from pathlib import Path

    from tiler.ports import RasterInfo
    from train.data.legend import Legend


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A raster whose values or colours are classes, or whose values are objects."""

    path: Path
    coding: str = ""
    """Over the legend's own; empty: as that says."""

    def open(self, like: RasterInfo, legend: Legend) -> OpenLabels:
        """On the image's grid, by its legend."""
        if self.coding:
            legend = replace(legend, coding=self.coding)
        raster = open_mask_file(self.path, like)
        wanted = legend.raster.bands
        if raster.info.bands != wanted:
            fix = "read colours with --coding '#RRGGBB=CLASS,...'" if wanted == 1 else "see --coding"
            raise InputError(
                f"a mask has {wanted} band{'s' * (wanted > 1)} for --coding {legend.coding}, "
                f"got {raster.info.bands} in {self.path}; {fix}"
            )
        objects = raster if isinstance(legend.raster, Instances) else None
        return OpenLabels(CodedRaster(raster, legend), objects)
