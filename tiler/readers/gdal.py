"""Raster files through rasterio: GeoTIFF, COG, JPEG 2000, PNG, JPEG, and VRT when asked for.

Each thread reads through a handle of its own. GDAL reports success for damaged JPEG tiles and
only logs it; a log record during a read therefore counts as damage (`tiler.readers.watch`).
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError  # no public name, and no RasterioError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError

from tiler.errors import DamageError, InputError, one_line
from tiler.pixels import Pixels, checked_pixels
from tiler.ports import RasterInfo
from tiler.readers.blockwise import Blockwise, UnreadableError
from tiler.readers.checksum import BlockChecksums
from tiler.readers.ground import pixel_size
from tiler.readers.layout import ONE_STRIP, BlockShape, is_split
from tiler.readers.palette import Palette
from tiler.readers.source import Source, as_rasterio, structure
from tiler.readers.watch import damage_watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from tiler.damage import DamageLog
    from tiler.geometry import Window

MAX_PIXELS: Final = 10**13
"""More than this is a damaged header, not a raster."""

MAX_BLOCK: Final = 1 << 30
"""Bytes; GDAL decodes a block at once, and a damaged header may ask for any number of them."""
MEMORY: Final = re.compile(r"out of memory|cannot allocate|insufficient memory", re.IGNORECASE)


@dataclass(eq=False, slots=True)
class GdalRaster(Blockwise):
    """One resolution of a raster file."""

    source: Source
    damage: DamageLog | None = None
    """Where damaged blocks are noted, which then are not valid; None: damage is an error."""
    full: tuple[int, int] | None = None
    """Height and width of the full resolution, if this is an overview."""
    info: RasterInfo = field(init=False)
    bands: tuple[int, ...] = field(init=False)
    """Band numbers of the file that are read."""
    overviews: tuple[tuple[int, int], ...] = field(init=False)
    """Height and width of each overview, finest first."""
    _palette: Palette | None = field(init=False)
    """None: pixels are fed as they are stored."""
    _alpha: int | None = field(init=False)
    _masked: bool = field(init=False)
    _nodata: tuple[float | None, ...] = field(init=False)
    """Of each band that is read; a mask of the file's own goes before it."""
    _blocks: BlockShape = field(init=False)
    _sparse: bool = field(init=False)
    """Whether blocks that were never written are known to be nodata."""
    _checksums: BlockChecksums | None = field(init=False)
    _bad: dict[Window, str] = field(init=False, default_factory=dict)
    """Blocks of the file that are known to be damaged, and why."""
    _structure: object = field(init=False)
    """What all handles have in common."""
    _local: threading.local = field(init=False, default_factory=threading.local)

    def __post_init__(self) -> None:
        # Else GDAL writes what it has to say on the terminal.
        with self.source.settings():
            dataset = self._opened()
            self._describe(dataset)
        self._local.dataset = dataset

    def _opened(self) -> DatasetReader:
        """A handle; of a remote file one that agrees with another.

        If a request fails while GDAL looks for masks and overviews, they are missing without a word.
        """
        dataset = self.source.open()
        self._structure = structure(dataset)
        if self.source.remote:
            with self.source.open() as other:
                if structure(other) != self._structure:
                    raise UnreadableError("it did not open twice alike")
        return dataset

    def _describe(self, dataset: DatasetReader) -> None:
        self._alpha = next((i for i, c in enumerate(dataset.colorinterp, 1) if c is ColorInterp.alpha), None)
        self._masked = any(MaskFlags.per_dataset in flags for flags in dataset.mask_flag_enums)
        told = self.source.bands
        self._palette = Palette.of(dataset, told, self.source.name) if self.source.colours else None
        others = tuple(i for i in dataset.indexes if i != self._alpha)
        self.bands = (self._palette.index,) if self._palette else told or others
        self.overviews = tuple(
            (-(-dataset.height // d), -(-dataset.width // d)) for d in dataset.overviews(1)
        )
        self._check(dataset)
        nodata = self.source.nodata
        self._nodata = tuple(dataset.nodatavals[b - 1] if nodata is None else nodata for b in self.bands)
        height, width = dataset.block_shapes[self.bands[0] - 1]
        self._blocks = BlockShape(height, width, ONE_STRIP if is_split(dataset) else dataset.driver)
        self._sparse = self._reads_unwritten_as_nodata(dataset)
        used = self.bands if self._alpha is None else (*self.bands, self._alpha)
        # A handle of an overview does not say that its blocks are in another file.
        elsewhere = self.source.overview is not None and Path(f"{self.source.path}.ovr").exists()
        one_strip = self._blocks.driver == ONE_STRIP
        skipped = self.source.remote or elsewhere
        self._checksums = None if skipped else BlockChecksums.of(dataset, used, one_strip)
        self.info = self._info(dataset)

    def _reads_unwritten_as_nodata(self, dataset: DatasetReader) -> bool:
        """What was never written reads as the file's own nodata value, which must be the one that counts."""
        stored = tuple(dataset.nodatavals[b - 1] for b in self.bands)
        plain = self._blocks.driver == "GTiff" and not self._masked and self._alpha is None
        return plain and not self.source.remote and None not in stored and self._nodata == stored

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
        height, width = dataset.block_shapes[0]
        if height * width * dataset.count * np.dtype(dataset.dtypes[0]).itemsize > MAX_BLOCK:
            raise InputError(
                f"a block of a file has at most {MAX_BLOCK:.0e} bytes, got {width} x {height} px in {name}; "
                "write it in tiles, unless its header is damaged"
            )
        if isinstance(self.source.path, Path):
            self._check_mask(self.source.path)

    def _check_mask(self, path: Path) -> None:
        mask = path.with_name(path.name + ".msk")
        if mask.exists() and not self._masked:
            raise InputError(f"a mask beside a raster opens as one, {mask} does not; restore or remove it")

    def _info(self, dataset: DatasetReader) -> RasterInfo:
        placed = not dataset.transform.is_identity
        crs, transform = (dataset.crs or None), (dataset.transform if placed else None)
        middle = dataset.height / 2, dataset.width / 2
        bands, dtypes = len(self.bands), {dataset.dtypes[b - 1] for b in self.bands}
        if self._palette is not None:
            bands, dtypes = len(self._palette.colours_CN), {"uint8"}
        return RasterInfo(
            name=self.source.name,
            height=dataset.height,
            width=dataset.width,
            bands=bands,
            dtype=np.result_type(*dtypes),
            crs=crs,
            transform=transform,
            ground=pixel_size(crs, transform, *middle) if crs and transform is not None else None,
            gaps=(self._palette is not None and self._palette.gaps)
            or self._alpha is not None
            or self._masked
            or any(v is not None for v in self._nodata)
            or any(dataset.dtypes[b - 1].startswith("float") for b in self.bands),
            colours=self._palette is not None,
            validity=f"bands {self.bands}, alpha {self._alpha}, mask {self._masked}, nodata {self._nodata}"
            + (", colours" if self._palette is not None else ""),
            files=self._files(dataset),
            reader=f"GDAL {rasterio.__gdal_version__} ({dataset.driver})",
        )

    def _files(self, dataset: DatasetReader) -> tuple[str, ...]:
        if self.source.remote:
            return (str(self.source.path),)
        # Viewers write statistics into .aux.xml; what it says of nodata and georeferencing is in the info.
        return tuple(name for name in dataset.files if not name.endswith(".aux.xml"))

    def empty(self, window: Window) -> bool:
        """Whether the file holds no block under a window, so that all of it is nodata."""
        if not self._sparse:
            return False
        dataset = self._dataset()
        names = (f"BLOCK_OFFSET_{column}_{row}" for row, column in self._blocks.places(window))
        try:
            return not any(
                dataset.get_tag_item(name, "TIFF", bidx=band) for name in names for band in self.bands
            )
        except CPLE_BaseError:
            return False  # the table of blocks is damaged, as a read will tell

    def read_once(self, window: Window) -> Pixels:
        """The pixels of a window, or `UnreadableError`: no second attempt, no verdict."""
        dataset = self._dataset()
        with self.source.settings(), damage_watch() as damage:
            try:
                pixels = self._fetched(dataset, window)
                if self._checksums is not None:
                    wrong = self._checksums.wrong(dataset, self._blocks.places(window))
                    damage.extend([wrong] if wrong else [])
            except (RasterioError, CPLE_BaseError) as error:
                damage.extend(map(one_line, _chain(error)))
        if damage:
            _check_memory(damage)
            raise UnreadableError(self.source.cleaned(damage[0]))
        return pixels

    def _fetched(self, dataset: DatasetReader, window: Window) -> Pixels:
        # A VRT's blocks are not its files', nor are a mask's the raster's. Where damage makes blocks invalid
        # both are read in whole blocks, else whether one is damaged would depend on the window.
        virtual = self._blocks.driver == "VRT"
        around = window
        if self.damage is not None and (virtual or self._masked):
            around = self._blocks.around(window, self.info.height, self.info.width)
        seen = around if virtual else window
        raw_CHW = dataset.read(list(self.bands), window=as_rasterio(seen))[:, *_within(window, seen)]
        valid_HW = self._valid(dataset, raw_CHW, window, around)
        if self._palette is None:
            return checked_pixels(raw_CHW, valid_HW)
        indices_HW = raw_CHW[0]
        if self.source.nodata is None:
            valid_HW &= self._palette.shown(indices_HW)
        return Pixels(self._palette.colours(indices_HW), valid_HW)

    def forget_handle(self) -> None:
        """Close this thread's handle: it serves a damaged block a second time without a word."""
        if hasattr(self._local, "dataset"):
            self._local.dataset.close()
            del self._local.dataset

    def _dataset(self) -> DatasetReader:
        if not hasattr(self._local, "dataset"):
            try:
                with self.source.settings():
                    dataset = self.source.open()
                    same = structure(dataset) == self._structure
            except InputError as error:
                if self.source.remote:
                    raise UnreadableError(str(error)) from None
                # Not to be taken for damaged pixels: a disk that is gone may come back.
                raise DamageError(f"{error}; bring it back and run the same command again") from None
            if not same and self.source.remote:
                raise UnreadableError("it did not open as it did before")
            if not same:
                raise DamageError(f"{self.info.name} is not what it was; start anew with --overwrite")
            self._local.dataset = dataset
        return self._local.dataset

    def _valid(
        self, dataset: DatasetReader, raw_CHW: NDArray[Any], window: Window, around: Window
    ) -> NDArray[np.bool_]:
        if self._alpha is not None and self.source.nodata is None:
            return np.asarray(dataset.read(self._alpha, window=as_rasterio(window)) != 0)
        if self._masked and self.source.nodata is None:
            mask_HW = dataset.dataset_mask(window=as_rasterio(around))
            return np.asarray(mask_HW[_within(window, around)] != 0)
        if all(value is None for value in self._nodata):
            return np.ones(raw_CHW.shape[1:], np.bool_)
        missing_CHW = np.stack([_equals(raw, v) for raw, v in zip(raw_CHW, self._nodata, strict=True)])
        # 0 or 255 in one band of three is a colour; -9999 in one band is no measurement.
        unsigned = raw_CHW.dtype.kind == "u"
        return np.asarray(~(missing_CHW.all(axis=0) if unsigned else missing_CHW.any(axis=0)))


def _within(window: Window, outer: Window) -> tuple[slice, slice]:
    return window.shifted(-outer.top, -outer.left).slices


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it: that GDAL lacked memory is the last of several."""
    while True:
        yield error
        if error.__cause__ is None:
            return
        error = error.__cause__


def _check_memory(complaints: list[str]) -> None:
    for text in complaints:
        if MEMORY.search(text):
            raise MemoryError(f"GDAL: {text}")


def _equals(raw_HW: NDArray[Any], value: float | None) -> NDArray[np.bool_]:
    if value is None:
        return np.zeros(raw_HW.shape, np.bool_)
    return np.asarray(np.isnan(raw_HW) if np.isnan(value) else raw_HW == value)
