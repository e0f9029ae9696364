"""Raster files through rasterio: GeoTIFF, COG, JPEG 2000, PNG, JPEG, and VRT when asked for.

Only named drivers are tried, so that a text file called ``x.tif`` that is really VRT or WMS fetches
nothing. Each thread reads through a handle of its own. GDAL reports success for damaged JPEG tiles and
only logs it; a log record during a read therefore counts as damage.
"""

from __future__ import annotations

import logging
import threading
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from tiler.errors import DamageError, InputError, one_line
from tiler.pixels import Pixels, checked_pixels
from tiler.ports import RasterInfo
from tiler.readers.ground import pixel_size

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tiler.geometry import Window

DRIVERS: Final = ("GTiff", "JP2OpenJPEG", "PNG", "JPEG")
DTYPES: Final = ("uint8", "uint16", "int16", "float32")
LABEL_DTYPES: Final = ("uint8", "uint16", "int16", "int8", "uint32", "int32")
MAX_PIXELS: Final = 10**13
"""More than this is a damaged header, not a raster."""

_opening = threading.Lock()


@dataclass(frozen=True, slots=True)
class Source:
    """Which pixels of a file are meant."""

    path: Path
    drivers: tuple[str, ...] = DRIVERS
    bands: tuple[int, ...] | None = None
    """Band numbers from 1; None: all but alpha."""
    nodata: float | None = None
    """Overrides what the file says."""
    dtypes: tuple[str, ...] = DTYPES
    """Types of pixels that are understood."""
    overview: int | None = None
    """Index of an overview to read instead of the full resolution."""

    def open(self) -> DatasetReader:
        """A new handle.

        Raises
        ------
        InputError
            if there is no such file, or none of the drivers can open it.
        """
        if not self.path.exists():
            raise InputError(f"no such file: {self.path}")
        if not self.path.is_file():
            kind = "directory" if self.path.is_dir() else "device or pipe"
            raise InputError(f"a raster is a file, got a {kind}: {self.path}")
        level = {} if self.overview is None else {"overview_level": self.overview}
        try:
            # Python's warning filters are shared by all threads, hence the lock.
            with _opening, warnings.catch_warnings(), rasterio.Env():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                return DatasetReader(str(self.path.absolute()), driver=list(self.drivers), **level)
        except (RasterioError, UnicodeEncodeError) as error:
            raise InputError(
                f"cannot open {self.path} as a raster: {one_line(error)}{self._hint()}"
            ) from None

    def _hint(self) -> str:
        if self.path.suffix.lower() == ".vrt" and "VRT" not in self.drivers:
            return "; a VRT may name any file or address: pass --allow-vrt if you trust it"
        return ""


@dataclass(eq=False, slots=True)
class GdalRaster:
    """One resolution of a raster file."""

    source: Source
    info: RasterInfo = field(init=False)
    bands: tuple[int, ...] = field(init=False)
    """Band numbers that are read."""
    overviews: tuple[tuple[int, int], ...] = field(init=False)
    """Height and width of each overview, finest first."""
    _alpha: int | None = field(init=False)
    _masked: bool = field(init=False)
    _nodata: tuple[float | None, ...] = field(init=False)
    """Of each band that is read; a mask of the file's own goes before it."""
    _local: threading.local = field(init=False, default_factory=threading.local)

    def __post_init__(self) -> None:
        dataset = self.source.open()
        self._alpha = next((i for i, c in enumerate(dataset.colorinterp, 1) if c is ColorInterp.alpha), None)
        self._masked = any(MaskFlags.per_dataset in flags for flags in dataset.mask_flag_enums)
        self.bands = self.source.bands or tuple(i for i in dataset.indexes if i != self._alpha)
        self.overviews = tuple(
            (-(-dataset.height // d), -(-dataset.width // d)) for d in dataset.overviews(1)
        )
        self._check(dataset)
        told = self.source.nodata
        self._nodata = tuple(dataset.nodatavals[b - 1] if told is None else told for b in self.bands)
        self.info = self._info(dataset)
        self._local.dataset = dataset

    def _check(self, dataset: DatasetReader) -> None:
        name = self.source.path
        missing = [b for b in self.bands if b not in dataset.indexes]
        if missing or not self.bands:
            raise InputError(f"{name} has bands 1 to {dataset.count}, got {missing or 'none'}; see --bands")
        odd = sorted({dataset.dtypes[b - 1] for b in self.bands} - set(self.source.dtypes))
        if odd:
            raise InputError(f"pixels are {', '.join(self.source.dtypes)}, got {', '.join(odd)} in {name}")
        if dataset.height * dataset.width > MAX_PIXELS:
            raise InputError(
                f"a raster has at most {MAX_PIXELS:.0e} pixels, got {dataset.width} x {dataset.height} "
                f"in {name}; its header is probably damaged"
            )

    def _info(self, dataset: DatasetReader) -> RasterInfo:
        placed = not dataset.transform.is_identity
        crs, transform = (dataset.crs or None), (dataset.transform if placed else None)
        middle = dataset.height / 2, dataset.width / 2
        return RasterInfo(
            name=str(self.source.path),
            height=dataset.height,
            width=dataset.width,
            bands=len(self.bands),
            dtype=np.result_type(*(dataset.dtypes[b - 1] for b in self.bands)),
            crs=crs,
            transform=transform,
            ground=pixel_size(crs, transform, *middle) if crs and transform is not None else None,
        )

    def read(self, window: Window) -> Pixels:
        """The pixels of a window."""
        part = RasterioWindow(window.left, window.top, window.width, window.height)
        with damage_watch() as damage, rasterio.Env():
            try:
                raw_CHW = self._dataset().read(list(self.bands), window=part)
                valid_HW = self._valid(raw_CHW, part)
            except RasterioError as error:
                damage.append(one_line(error.__cause__ or error))
        if damage:
            raise DamageError(f"{self.info.name} is damaged at {window}: {damage[0]}; restore the file")
        return checked_pixels(raw_CHW, valid_HW)

    def _dataset(self) -> DatasetReader:
        if not hasattr(self._local, "dataset"):
            self._local.dataset = self.source.open()
        return self._local.dataset

    def _valid(self, raw_CHW: NDArray[Any], part: RasterioWindow) -> NDArray[np.bool_]:
        if self._alpha is not None and self.source.nodata is None:
            return np.asarray(self._dataset().read(self._alpha, window=part) != 0)
        if self._masked and self.source.nodata is None:
            return np.asarray(self._dataset().dataset_mask(window=part) != 0)
        if all(value is None for value in self._nodata):
            return np.ones(raw_CHW.shape[1:], np.bool_)
        missing_CHW = np.stack([_equals(raw, v) for raw, v in zip(raw_CHW, self._nodata, strict=True)])
        # 0 or 255 in one band of three is a colour; -9999 in one band is no measurement.
        unsigned = raw_CHW.dtype.kind == "u"
        return np.asarray(~(missing_CHW.all(axis=0) if unsigned else missing_CHW.any(axis=0)))


def _equals(raw_HW: NDArray[Any], value: float | None) -> NDArray[np.bool_]:
    if value is None:
        return np.zeros(raw_HW.shape, np.bool_)
    return np.asarray(np.isnan(raw_HW) if np.isnan(value) else raw_HW == value)


class damage_watch(logging.Handler):  # noqa: N801 - used as a context manager
    """Collects what GDAL logs at warning level or above in this thread while the block runs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self._seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message if it comes from the watched thread."""
        if record.thread == self._thread:
            self._seen.append(" ".join(record.getMessage().split()))

    def __enter__(self) -> list[str]:
        log = logging.getLogger("rasterio._err")
        if not log.isEnabledFor(logging.WARNING):
            # Else a program that only wants to hear of errors would not hear of damage.
            log.setLevel(logging.WARNING)
        log.addHandler(self)
        return self._seen

    def __exit__(self, *_: object) -> None:
        logging.getLogger("rasterio._err").removeHandler(self)
