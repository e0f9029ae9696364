"""A raster file, or an address, and how GDAL opens it.

Only named drivers are tried, so that a text file called ``x.tif`` that is really VRT or WMS fetches nothing.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import rasterio
from rasterio._err import CPLE_BaseError  # no public name, and no RasterioError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from tiler.errors import InputError
from tiler.readers.address import shown

if TYPE_CHECKING:
    from pathlib import Path

    from tiler.geometry import Window

DRIVERS: Final = ("GTiff", "JP2OpenJPEG", "PNG", "JPEG")
DTYPES: Final = ("uint8", "uint16", "int16", "float32")
LABEL_DTYPES: Final = ("uint8", "uint16", "int16", "int8", "uint32", "int32")
SETTINGS: Final = {
    # The fast way to read a whole PNG returns zeros, and success, for one that is cut short (GDAL 3.10).
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
    # Threads of GDAL's own lose the errors of damaged JPEG 2000 blocks.
    "GDAL_NUM_THREADS": "1",
    "GTIFF_IGNORE_READ_ERRORS": "NO",
    # Else handles on a VRT share their sources, and what is cached of them.
    "VRT_SHARED_SOURCE": "YES",
}
"""So that damage is an error, whatever the environment says."""
REMOTE_SETTINGS: Final = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "VSI_CACHE": "FALSE"}
"""No sidecars are looked for."""
FETCHING: Final = {
    # A signed address is good for GET only, so HEAD is not asked.
    "use_head": "no",
    "list_dir": "no",
    "empty_dir": "yes",
    # It is `tiler.readers.remote` that tries again.
    "max_retry": "0",
    "connecttimeout": "10",
    # A server slower than 100 bytes a second for 20 seconds is given up.
    "low_speed_limit": "100",
    "low_speed_time": "20",
}
"""How GDAL fetches: part of the name, because settings of the main thread reach the others."""

_serial = count(1)
_opening = threading.Lock()


class UnopenedError(InputError):
    """No driver can open it; of an address, perhaps for lack of an answer."""


@dataclass(frozen=True, slots=True)
class Source:
    """Which pixels of a file are meant."""

    path: Path | str
    """A file, or an http(s) address."""
    drivers: tuple[str, ...] = DRIVERS
    bands: tuple[int, ...] | None = None
    """Band numbers from 1; None: all but alpha."""
    nodata: float | None = None
    """Overrides what the file says."""
    dtypes: tuple[str, ...] = DTYPES
    """Types of pixels that are understood."""
    colours: bool = False
    """Whether indices into a colour table are their colours, three bands: as an image, not as labels."""
    overview: int | None = None
    """Index of an overview to read instead of the full resolution."""

    @property
    def remote(self) -> bool:
        """Whether it is fetched from an address."""
        return isinstance(self.path, str)

    @property
    def name(self) -> str:
        """For messages: an address without its query, which may hold a signature."""
        return shown(self.path) if isinstance(self.path, str) else str(self.path)

    def open(self) -> DatasetReader:
        """A new handle.

        Raises
        ------
        InputError
            if there is no such file, or none of the drivers can open it.
        """
        level = {} if self.overview is None else {"overview_level": self.overview}
        try:
            # Python's warning filters are shared by all threads, hence the lock.
            with nullcontext() if self.remote else _opening, warnings.catch_warnings(), self.settings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                dataset = DatasetReader(self._gdal_name(), driver=list(self.drivers), **level)
                # Masks and overviews are looked for when they are asked for: now, and what fails now raises.
                structure(dataset)
                return dataset
        except (RasterioError, CPLE_BaseError, UnicodeEncodeError) as error:
            reason = self.cleaned(str(error))
            raise UnopenedError(f"cannot open {self.name} as a raster: {reason}{self._hint()}") from None

    def settings(self) -> rasterio.Env:
        """GDAL's settings while the file is opened or read."""
        return rasterio.Env(**SETTINGS, **(REMOTE_SETTINGS if self.remote else {}))

    def cleaned(self, text: str) -> str:
        """A message of GDAL's on one line, without signatures and its own names for an address."""
        if self.remote:
            text = re.sub(r"/?vsicurl\?[\w.~%&=+-]*", self.name, text)
            text = re.sub(re.escape(str(self.path)) + r"(#\d+)?", self.name, text)
        return " ".join(text.split())[:300]

    def _gdal_name(self) -> str:
        if isinstance(self.path, str):
            # GDAL's caches outlive handles and keep what failed; what follows # is not sent, but their key.
            return "/vsicurl?" + urlencode({**FETCHING, "url": f"{self.path}#{next(_serial)}"})
        if not os.path.exists(self.path):  # noqa: PTH110 - also where the name is too long
            raise InputError(f"no such file: {self.path}")
        if not self.path.is_file():
            kind = "directory" if self.path.is_dir() else "device or pipe"
            raise InputError(f"a raster is a file, got a {kind}: {self.path}")
        return str(self.path.absolute())

    def _hint(self) -> str:
        if self.name.lower().endswith(".vrt") and "VRT" not in self.drivers:
            return "; a VRT may name any file or address: pass --allow-vrt if you trust it"
        return ""


def structure(dataset: DatasetReader) -> object:
    """What every handle on a file has in common."""
    return (
        dataset.shape,
        dataset.dtypes,
        dataset.block_shapes,
        repr(dataset.nodatavals),  # NaN is not equal to itself
        dataset.mask_flag_enums,
        dataset.colorinterp,
        dataset.overviews(1),
        # Of an overview without georeferencing GDAL makes it up (3.10).
        dataset.transform if dataset.crs else None,
        dataset.crs,
    )


def as_rasterio(window: Window) -> RasterioWindow:
    """The same window in rasterio's terms."""
    return RasterioWindow(window.left, window.top, window.width, window.height)
