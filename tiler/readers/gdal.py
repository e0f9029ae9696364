"""Raster files through rasterio: GeoTIFF, COG, JPEG 2000, PNG, JPEG, and VRT when asked for.

Only named drivers are tried, so that a text file called ``x.tif`` that is really VRT or WMS fetches
nothing. Each thread reads through a handle of its own. GDAL reports success for damaged JPEG tiles and
only logs it; a log record during a read therefore counts as damage.
"""

from __future__ import annotations

import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import rasterio
from rasterio._err import CPLE_OutOfMemoryError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from tiler.damage import Damage
from tiler.errors import DamageError, InputError, one_line
from tiler.geometry import Window
from tiler.pixels import Pixels, checked_pixels
from tiler.ports import RasterInfo
from tiler.readers.checksum import BlockChecksums
from tiler.readers.ground import pixel_size
from tiler.readers.watch import damage_watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tiler.damage import DamageLog

DRIVERS: Final = ("GTiff", "JP2OpenJPEG", "PNG", "JPEG")
DTYPES: Final = ("uint8", "uint16", "int16", "float32")
LABEL_DTYPES: Final = ("uint8", "uint16", "int16", "int8", "uint32", "int32")
MAX_PIXELS: Final = 10**13
"""More than this is a damaged header, not a raster."""

ONE_STRIP: Final = "one-strip TIFF"
SEQUENTIAL: Final = ("PNG", "JPEG", ONE_STRIP)
"""Drivers of files without blocks of their own: after damage nothing in them can be trusted."""
LARGEST_BLOCK: Final = 1 << 24
"""Pixels; a file of larger blocks is as good as one without."""
SETTINGS: Final = {
    # The fast way to read a whole PNG returns zeros, and success, for one that is cut short (GDAL 3.10).
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
    # Threads of GDAL's own lose the errors of damaged JPEG 2000 blocks.
    "GDAL_NUM_THREADS": "1",
    "GTIFF_IGNORE_READ_ERRORS": "NO",
}
"""So that damage is an error, whatever the environment says."""
REMOTE_SETTINGS: Final = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_LOW_SPEED_TIME": "20",
    "GDAL_HTTP_MAX_RETRY": "0",
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/",
    "VSI_CACHE": "FALSE",
}
"""No sidecars are looked for, a silent server is given up, nothing outlives its handle; it is
`tiler.readers.remote` that tries again."""

_opening = threading.Lock()


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


class UnreadableError(Exception):
    """Pixels could not be read, for whatever reason; what that means is for the caller to say."""


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
    overview: int | None = None
    """Index of an overview to read instead of the full resolution."""

    @property
    def remote(self) -> bool:
        """Whether it is fetched from an address."""
        return isinstance(self.path, str)

    @property
    def name(self) -> str:
        """For messages: an address without its query, which may hold a signature."""
        return str(self.path).partition("?")[0] if self.remote else str(self.path)

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
                return DatasetReader(self._gdal_name(), driver=list(self.drivers), **level)
        except (RasterioError, UnicodeEncodeError) as error:
            reason = one_line(error).replace(str(self.path), self.name)
            raise InputError(f"cannot open {self.name} as a raster: {reason}{self._hint()}") from None

    def settings(self) -> rasterio.Env:
        """GDAL's settings while the file is opened or read."""
        return rasterio.Env(**SETTINGS, **(REMOTE_SETTINGS if self.remote else {}))

    def _gdal_name(self) -> str:
        if isinstance(self.path, str):
            return f"/vsicurl/{self.path}"
        if not self.path.exists():
            raise InputError(f"no such file: {self.path}")
        if not self.path.is_file():
            kind = "directory" if self.path.is_dir() else "device or pipe"
            raise InputError(f"a raster is a file, got a {kind}: {self.path}")
        return str(self.path.absolute())

    def _hint(self) -> str:
        if self.name.lower().endswith(".vrt") and "VRT" not in self.drivers:
            return "; a VRT may name any file or address: pass --allow-vrt if you trust it"
        return ""


@dataclass(eq=False, slots=True)
class GdalRaster:
    """One resolution of a raster file."""

    source: Source
    damage: DamageLog | None = None
    """Where damaged blocks are noted, which then are not valid; None: damage is an error."""
    full: tuple[int, int] | None = None
    """Height and width of the full resolution, if this is an overview."""
    info: RasterInfo = field(init=False)
    bands: tuple[int, ...] = field(init=False)
    """Band numbers that are read."""
    overviews: tuple[tuple[int, int], ...] = field(init=False)
    """Height and width of each overview, finest first."""
    _alpha: int | None = field(init=False)
    _masked: bool = field(init=False)
    _nodata: tuple[float | None, ...] = field(init=False)
    """Of each band that is read; a mask of the file's own goes before it."""
    _blocks: BlockShape = field(init=False)
    _checksums: BlockChecksums | None = field(init=False)
    _bad: dict[Window, str] = field(init=False, default_factory=dict)
    """Blocks of the file that are known to be damaged, and why."""
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
        height, width = dataset.block_shapes[self.bands[0] - 1]
        self._blocks = BlockShape(height, width, ONE_STRIP if _is_split(dataset) else dataset.driver)
        used = self.bands if self._alpha is None else (*self.bands, self._alpha)
        # A handle of an overview does not say that its blocks are in another file.
        elsewhere = self.source.overview is not None and Path(f"{self.source.path}.ovr").exists()
        one_strip = self._blocks.driver == ONE_STRIP
        skipped = self.source.remote or elsewhere
        self._checksums = None if skipped else BlockChecksums.of(dataset, used, one_strip)
        self.info = self._info(dataset)
        self._local.dataset = dataset

    def _check(self, dataset: DatasetReader) -> None:
        name = self.source.name
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
            name=self.source.name,
            height=dataset.height,
            width=dataset.width,
            bands=len(self.bands),
            dtype=np.result_type(*(dataset.dtypes[b - 1] for b in self.bands)),
            crs=crs,
            transform=transform,
            ground=pixel_size(crs, transform, *middle) if crs and transform is not None else None,
            validity=f"bands {self.bands}, alpha {self._alpha}, mask {self._masked}, nodata {self._nodata}",
            files=self._files(dataset),
        )

    def _files(self, dataset: DatasetReader) -> tuple[str, ...]:
        if self.source.remote:
            return (str(self.source.path),)
        # Viewers write statistics into .aux.xml; what it says of nodata and georeferencing is in the info.
        return tuple(name for name in dataset.files if not name.endswith(".aux.xml"))

    def read(self, window: Window) -> Pixels:
        """The pixels of a window.

        Raises
        ------
        DamageError
            if a block of the file that it touches cannot be decoded, and ``damage`` is None.
        MemoryError
            if there is no memory for it.
        """
        if self._bad and any(block in self._bad for block in self._under(window)):
            return self._read_around(window)
        try:
            return self.read_once(window)
        except UnreadableError as error:
            self.forget_handle()
            if self.damage is not None and self._blocks.independent:
                return self._read_around(window)
            block, reason = next(self._damaged(window), (window, str(error)))
            raise self._error(block, reason) from None

    def read_once(self, window: Window) -> Pixels:
        """The pixels of a window, or `UnreadableError`: no second attempt, no verdict."""
        part = RasterioWindow(window.left, window.top, window.width, window.height)
        with damage_watch() as damage, self.source.settings():
            try:
                raw_CHW = self._dataset().read(list(self.bands), window=part)
                valid_HW = self._valid(raw_CHW, part)
                if self._checksums is not None:
                    wrong = self._checksums.wrong(self._dataset(), self._blocks.places(window))
                    damage.extend([wrong] if wrong else [])
            except RasterioError as error:
                if isinstance(error.__cause__, CPLE_OutOfMemoryError):
                    raise MemoryError(one_line(error.__cause__)) from None  # noqa: TRY004 - it is no damage
                damage.append(one_line(error.__cause__ or error))
        if damage:
            raise UnreadableError(damage[0].replace(str(self.source.path), self.source.name))
        return checked_pixels(raw_CHW, valid_HW)

    def _under(self, window: Window) -> Iterator[Window]:
        return self._blocks.under(window, self.info.height, self.info.width)

    def forget_handle(self) -> None:
        """Close this thread's handle: it serves a damaged block a second time without a word."""
        if hasattr(self._local, "dataset"):
            self._local.dataset.close()
            del self._local.dataset

    def _damaged(self, window: Window) -> Iterator[tuple[Window, str]]:
        """The blocks of the file under a window that cannot be decoded, each tried by itself."""
        for block in self._under(window):
            try:
                self.read_once(block)
            except UnreadableError as error:
                self.forget_handle()
                yield block, str(error)

    def _read_around(self, window: Window) -> Pixels:
        """The pixels of a window without those of damaged blocks, which are not valid.

        Blocks are read whole, so that whether one is damaged does not depend on the window.
        """
        info = self.info
        raw_CHW = np.zeros((info.bands, *window.shape), info.dtype)
        valid_HW = np.zeros(window.shape, np.bool_)
        for block in self._under(window):
            if block in self._bad:
                continue
            try:
                pixels = self.read_once(block)
            except UnreadableError as error:
                self.forget_handle()
                self._note(block, str(error))
                continue
            part = block.intersection(window)
            inside = part.shifted(-block.top, -block.left).slices
            place = part.shifted(-window.top, -window.left).slices
            raw_CHW[:, *place], valid_HW[place] = pixels.raw_CHW[:, *inside], pixels.valid_HW[inside]
        return Pixels(raw_CHW, valid_HW)

    def _note(self, block: Window, reason: str) -> None:
        here = self.info.height, self.info.width
        full = self.full or here
        assert self.damage is not None  # noqa: S101 - else damage is an error
        self._bad[block] = reason
        whole = Window(0, 0, *full)
        self.damage.add(Damage(block.scaled(here, full).intersection(whole), reason))

    def _error(self, block: Window, reason: str) -> DamageError:
        cure = "restore the file and start anew, or carry on with --on-error nodata"
        if not self._blocks.independent:
            cure = f"restore the file: beyond damage a {self._blocks.driver} cannot be read"
        return DamageError(f"{self.info.name} is damaged at {block}: {reason}; {cure}")

    def _dataset(self) -> DatasetReader:
        if not hasattr(self._local, "dataset"):
            try:
                self._local.dataset = self.source.open()
            except InputError as error:
                if self.source.remote:
                    raise UnreadableError(str(error)) from None
                # Not to be taken for damaged pixels: a disk that is gone may come back.
                raise DamageError(f"{error}; bring it back and run the same command again") from None
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


def _is_split(dataset: DatasetReader) -> bool:
    """Whether GDAL makes rows out of one tall strip, which is decoded from its top to any of them."""
    first, second = (dataset.get_tag_item(f"BLOCK_OFFSET_0_{row}", "TIFF", bidx=1) for row in (0, 1))
    rows = dataset.driver == "GTiff" and dataset.block_shapes[0][0] == 1 and dataset.height > 1
    return bool(rows and first is not None and second is None)


def _equals(raw_HW: NDArray[Any], value: float | None) -> NDArray[np.bool_]:
    if value is None:
        return np.zeros(raw_HW.shape, np.bool_)
    return np.asarray(np.isnan(raw_HW) if np.isnan(value) else raw_HW == value)
