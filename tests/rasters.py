"""Small rasters made at test time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rasterio

if TYPE_CHECKING:
    from pathlib import Path


def write_raster(path: Path, raw_CHW, **profile) -> Path:
    """A GeoTIFF; georeferenced if the profile has a transform and CRS."""
    bands, height, width = raw_CHW.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": raw_CHW.dtype}
    with rasterio.open(path, "w", **{"driver": "GTiff", **shape, **profile}) as dataset:
        dataset.write(raw_CHW)
    return path
