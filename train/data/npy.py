"""Arrays saved by NumPy as rasters: (H, W), or (H, W, C) with the bands last."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler.errors import InputError, one_line
from tiler.readers.array import ArrayRaster

if TYPE_CHECKING:
    from pathlib import Path

    from tiler.geometry import Window
    from tiler.pixels import Pixels
    from tiler.ports import Raster, RasterInfo

SUFFIX: Final = ".npy"


@dataclass(frozen=True, slots=True, eq=False)
class NamedRaster:
    """A raster with a name for messages."""

    raster: Raster
    name: str

    @property
    def info(self) -> RasterInfo:
        """The raster's own, but for the name."""
        return replace(self.raster.info, name=self.name)

    def empty(self, window: Window) -> bool:
        """As the raster knows it."""
        return self.raster.empty(window)

    def read(self, window: Window) -> Pixels:
        """The raster's own pixels."""
        return self.raster.read(window)


def open_npy(path: Path, dtypes: tuple[str, ...], bands: tuple[int, ...] | None = None) -> NamedRaster:
    """Map an array into memory; ``bands`` are chosen by numbers from 1. Float pixels that are NaN are nodata.

    Raises
    ------
    InputError
        if the file is no such array, or of another type.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"cannot open {path} as an array: {one_line(error)}") from None
    if not isinstance(array, np.ndarray) or array.ndim not in {2, 3} or not array.size:
        raise InputError(f"an array has the axes (H, W) or (H, W, C), got {np.shape(array)} in {path}")
    if array.dtype.name not in dtypes:
        raise InputError(
            f"pixels are {', '.join(dtypes)}, got {array.dtype} in {path}; save it as one of these"
        )
    raw_CHW = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    missing = [band for band in bands or () if not 1 <= band <= len(raw_CHW)]
    if missing:
        raise InputError(f"{path} has bands 1 to {len(raw_CHW)}, got {missing}; see --bands")
    chosen_CHW = raw_CHW if bands is None else raw_CHW[[band - 1 for band in bands]]
    return NamedRaster(ArrayRaster(chosen_CHW), str(path))
