"""Images and masks as files become rasters: how training looks at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tiler.errors import InputError, UsageError
from tiler.open import Resolution, on_grid, open_raster
from tiler.readers.gdal import GdalRaster
from tiler.readers.source import DRIVERS, DTYPES, LABEL_DTYPES
from tiler.readers.source import Source as File
from train.data.array import SUFFIXES, open_array

if TYPE_CHECKING:
    from pathlib import Path

    from tiler.ports import Raster, RasterInfo
    from tiler.resize import Resize

MASK_DRIVERS: Final = (*DRIVERS, "GIF", "BMP")


@dataclass(frozen=True, slots=True)
class View:
    """How images are looked at: the same for all of a run."""

    bands: tuple[int, ...] | None = None
    """Band numbers from 1, in the order that the network sees them; None: all but alpha."""
    rgb: bool = False
    """Grey images become three equal bands, others are their first three."""
    nodata: float | None = None
    """Value of invalid pixels, over what the files say."""
    resolution: float | None = None
    """Metres per pixel; None: the raster's own."""
    mpp: float | None = None
    """Micrometres per pixel of a slide; None: level 0."""
    resize: Resize | None = None
    """How pictures are brought to another size; None: not."""

    def __post_init__(self) -> None:
        if self.rgb and self.bands is not None:
            raise UsageError("--rgb and --bands both choose bands, got both; give one")
        given = [name for name in ("resolution", "mpp", "resize") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"pixels are resampled once, got --{' and --'.join(given)}; give one")
        for name in ("resolution", "mpp"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"--{name} is above 0, got {value}")


def open_image(path: Path, view: View) -> Raster:
    """The pixels of an image, not resized yet.

    Raises
    ------
    InputError
        if it cannot be used.
    """
    raster = _opened(path, view, view.bands)
    if not view.rgb or raster.info.bands == 3:
        return raster
    if raster.info.bands == 2:
        raise InputError(f"--rgb is of grey or coloured images, got 2 bands in {path}; use --bands")
    return _opened(path, view, (1, 1, 1) if raster.info.bands == 1 else (1, 2, 3))


def _opened(path: Path, view: View, bands: tuple[int, ...] | None) -> Raster:
    if path.suffix.lower() not in SUFFIXES:
        resolution: Resolution = "native" if view.resolution is None else view.resolution
        told: dict[str, Any] = {"nodata": view.nodata, "resolution": resolution, "mpp": view.mpp}
        return open_raster(path, bands=bands, **told, colours=True)
    if view.nodata is not None or view.resolution is not None or view.mpp is not None:
        raise InputError(f"--nodata, --resolution and --mpp are not of arrays, got {path}; use a GeoTIFF")
    return open_array(path, DTYPES, bands)


def open_mask_file(path: Path, like: RasterInfo) -> Raster:
    """A mask as stored, palette indices as numbers, on the grid of its image.

    Raises
    ------
    InputError
        if it cannot be used, or has another size.
    """
    return on_grid(raw_mask(path), like)


def raw_mask(path: Path) -> Raster:
    """A mask as stored."""
    if path.suffix.lower() in SUFFIXES:
        return open_array(path, (*LABEL_DTYPES, "int64", "bool"))
    return GdalRaster(File(path, MASK_DRIVERS, dtypes=LABEL_DTYPES))
