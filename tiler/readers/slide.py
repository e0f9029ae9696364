"""Whole-slide images through OpenSlide: one pyramid level of one slide.

What a slide says of its tissue's bounds is respected: the raster is the region within them, as QuPath shows
it, and level-0 coordinates are counted from its corner. Pixels are composited on white; where the scanner
has none (alpha 0) they are not valid. Colours are as stored, an ICC profile is not applied.

A handle of OpenSlide is dead after its first error, so each thread has its own, opened anew after an error;
what they decode is kept in one cache for all.
"""

from __future__ import annotations

import math
import re
import threading
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from affine import Affine

from tiler.errors import DamageError, InputError, MissingError, one_line
from tiler.geometry import Window
from tiler.pixels import Pixels
from tiler.ports import RasterInfo
from tiler.readers.blockwise import Blockwise, UnreadableError
from tiler.readers.layout import LARGEST_BLOCK, BlockShape
from tiler.readers.source import NoSuchBandError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    from numpy.typing import NDArray

    from tiler.damage import DamageLog

CACHE: Final = 32_000_000
"""Bytes of decoded tiles that are kept, of all slides in this process."""
BLOCK: Final = 256
"""Side of the squares that stand in for a slide's own tiles where these are not known."""
LARGEST_MPP: Final = 20.0
"""Slides are scanned at 0.1 to 10; a TIFF of 300 dots per inch says 85, and is no slide."""
SMALL: Final = 1 << 22
"""Pixels; a level that is no larger, and whose scale is no whole number, is read at once and kept."""
DRAWN: Final = 1 << 19
"""Pixels that are drawn at once."""
METRES: Final = 1e-6
"""Per micrometre."""
MEMORY: Final = re.compile(r"out of memory|cannot allocate", re.IGNORECASE)
SERIES_BYTES: Final = 1 << 16
"""So far into a DICOM file its series is looked for."""


def import_openslide() -> ModuleType:
    """OpenSlide's Python interface.

    Raises
    ------
    MissingError
        if it, or the library below it, is not there.
    """
    try:
        import openslide
    except ImportError as error:
        raise MissingError(
            f"slides need OpenSlide ({one_line(error)}); pip install openslide-python openslide-bin"
        ) from None
    return openslide


@lru_cache(1)
def _tile_cache() -> Any:  # noqa: ANN401 - an openslide.OpenSlideCache
    """Of all handles."""
    return import_openslide().OpenSlideCache(CACHE)


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a slide's pyramid, bounds not considered."""

    width: int
    height: int
    downsample: float
    """As OpenSlide counts: positions in this level times this are positions in level 0."""
    tile: tuple[int, int] | None
    """Height and width of the tiles in which it is compressed; None: not known."""

    def steps(self, full: Level) -> tuple[float, float]:
        """Level-0 pixels per pixel, along a row and along a column.

        A whole number where the sizes allow it, because that is how pyramids are made: an odd pixel at the
        end is dropped or padded, and does not stretch the others.
        """
        return _step(full.width, self.width), _step(full.height, self.height)


def _step(full: int, size: int) -> float:
    """Source pixels per pixel of an axis.

    >>> _step(2967, 741), _step(2967, 742), _step(900, 300), _step(1000, 300)
    (4, 4, 3, 3.3333333333333335)
    """
    steps = 2 ** round(math.log2(full / size)), round(full / size)
    return next((n for n in steps if full // n <= size <= -(-full // n)), full / size)


@dataclass(frozen=True, slots=True)
class SlideFacts:
    """What a slide says of itself: the same for every handle on it."""

    vendor: str
    hash: str
    """OpenSlide's, of the smallest level and of what is written of the slide."""
    levels: tuple[Level, ...]
    bounds: Window
    """The part of level 0 that is shown."""
    mpp: tuple[float, float] | None
    """Micrometres per pixel along a row and along a column."""
    series: str
    """UID of a DICOM series, of which each file is a part."""

    @classmethod
    def of(cls, slide: Any, name: str) -> SlideFacts:  # noqa: ANN401 - an openslide.OpenSlide
        """Of an open slide.

        Raises
        ------
        InputError
            if its bounds lie outside of it.
        """
        properties = slide.properties
        sizes = zip(slide.level_dimensions, slide.level_downsamples, strict=True)
        levels = tuple(
            Level(width, height, downsample, _tile(properties, number))
            for number, ((width, height), downsample) in enumerate(sizes)
        )
        return cls(
            vendor=properties.get("openslide.vendor", ""),
            hash=properties.get("openslide.quickhash-1", ""),
            levels=levels,
            bounds=_bounds(properties, levels[0], name),
            mpp=_mpp(properties),
            series=properties.get("dicom.SeriesInstanceUID", ""),
        )

    @property
    def cropped(self) -> bool:
        """Whether the bounds leave something out."""
        return self.bounds.shape != (self.levels[0].height, self.levels[0].width)

    def size(self, number: int) -> tuple[int, int]:
        """Height and width of a level within the bounds."""
        level = self.levels[number]
        if not self.cropped:
            return level.height, level.width
        across, down = level.steps(self.levels[0])
        return max(1, int(self.bounds.height / down)), max(1, int(self.bounds.width / across))


def _tile(properties: Mapping[str, str], number: int) -> tuple[int, int] | None:
    try:
        height, width = (
            int(properties[f"openslide.level[{number}].tile-{side}"]) for side in ("height", "width")
        )
    except (KeyError, ValueError):
        return None
    return (height, width) if height > 0 and width > 0 and height * width <= LARGEST_BLOCK else None


def _bounds(properties: Mapping[str, str], full: Level, name: str) -> Window:
    whole = Window(0, 0, full.height, full.width)
    try:
        left, top, width, height = (
            int(properties[f"openslide.bounds-{side}"]) for side in ("x", "y", "width", "height")
        )
    except (KeyError, ValueError):
        return whole
    if width < 1 or height < 1 or not whole.contains(told := Window(top, left, top + height, left + width)):
        raise InputError(
            f"bounds of a slide lie within its {full.width} x {full.height} px, got {width} x {height} px at "
            f"column {left}, row {top} in {name}; its header is damaged"
        )
    return told


def _mpp(properties: Mapping[str, str]) -> tuple[float, float] | None:
    """What is said, if a slide can have it."""
    try:
        across, down = (float(properties[f"openslide.mpp-{axis}"]) for axis in "xy")
    except (KeyError, ValueError):
        return None
    return (across, down) if all(0 < value <= LARGEST_MPP for value in (across, down)) else None


@dataclass(eq=False, slots=True)
class SlideRaster(Blockwise):
    """One level of a slide."""

    path: Path
    number: int = 0
    """The level's, 0 is the finest."""
    told: tuple[int, ...] | None = None
    """Bands from 1, red, green and blue, in the order that they are wanted; None: all."""
    nodata: float | None = None
    """A pixel with this value in all bands is not valid either."""
    assume_mpp: float | None = None
    """Micrometres per level-0 pixel, where the slide does not say."""
    damage: DamageLog | None = None
    opened: SlideRaster | None = None
    """Another level of the same slide, of which this one knows what it would find out."""
    info: RasterInfo = field(init=False)
    full: tuple[int, int] | None = field(init=False)
    facts: SlideFacts = field(init=False)
    overviews: tuple[tuple[int, int], ...] = field(init=False)
    """Height and width of each coarser level."""
    _bands: tuple[int, ...] = field(init=False)
    _blocks: BlockShape = field(init=False)
    _bad: dict[Window, str] = field(init=False, default_factory=dict)
    _kept: Pixels | None = field(init=False, default=None)
    """All of a small level; None: it is not small, or damaged, or not yet read."""
    _keep: bool = field(init=False)
    _reading: threading.Lock = field(init=False, default_factory=threading.Lock)
    _local: threading.local = field(init=False, default_factory=threading.local)

    def __post_init__(self) -> None:
        openslide = import_openslide()
        self.facts = self._first_facts(openslide) if self.opened is None else self.opened.facts
        self._bands = self.told or (1, 2, 3)
        if not set(self._bands) <= {1, 2, 3}:
            raise NoSuchBandError(f"{self.path} has bands 1 to 3, got {self._bands}; see --bands")
        self.full = self.facts.size(0)
        self.overviews = tuple(map(self.facts.size, range(self.number + 1, len(self.facts.levels))))
        # A slide that is cropped, or stitched, begins anywhere in its tiles.
        tile = None if self.facts.cropped else self._level.tile
        self._blocks = BlockShape(*(tile or (BLOCK, BLOCK)), "slide")
        self.info = self._described(openslide)
        self._keep = not self._exact and self.info.height * self.info.width <= SMALL

    def _first_facts(self, openslide: ModuleType) -> SlideFacts:
        try:
            self._local.slide = self._opened()
        except openslide.OpenSlideError as error:
            raise InputError(
                f"cannot open the slide {self.path}: {one_line(error)}; it is damaged, or a part is missing"
            ) from None
        return SlideFacts.of(self._local.slide, str(self.path))

    @property
    def _exact(self) -> bool:
        """Whether its pixels lie at whole positions of level 0; between those OpenSlide interpolates."""
        return self._level.downsample.is_integer()

    @property
    def _level(self) -> Level:
        return self.facts.levels[self.number]

    def _described(self, openslide: ModuleType) -> RasterInfo:
        height, width = self.facts.size(self.number)
        across, down = self._level.steps(self.facts.levels[0])
        mpp = self.facts.mpp or (self.assume_mpp and (self.assume_mpp, self.assume_mpp))
        level = f", level {self.number}" if self.number else ""
        return RasterInfo(
            name=str(self.path),
            height=height,
            width=width,
            bands=len(self._bands),
            dtype=np.dtype(np.uint8),
            ground=(mpp[0] * METRES * across, mpp[1] * METRES * down) if mpp else None,
            to_level0=Affine.scale(across, down),
            gaps=self.facts.cropped or self.nodata is not None,
            validity=f"bands {self._bands}, alpha, nodata {self.nodata}, bounds {self.facts.bounds}",
            files=(str(self.path), *_companions(self.path, self.facts)),
            reader=f"OpenSlide {openslide.__library_version__} ({self.facts.vendor}{level})",
        )

    def level(self, number: int) -> SlideRaster:
        """Another level of the same slide."""
        return replace(self, number=number, opened=self)

    def empty(self, window: Window) -> bool:
        """Not known."""
        del window
        return False

    def read_once(self, window: Window) -> Pixels:
        """The pixels of a window, or `UnreadableError`: no second attempt, no verdict."""
        if self._keep:
            self._keep_whole()
        if self._kept is not None:
            return Pixels(self._kept.raw_CHW[:, *window.slices], self._kept.valid_HW[window.slices])
        raw_CHW = np.empty((self.info.bands, *window.shape), np.uint8)
        valid_HW = np.empty(window.shape, np.bool_)
        for part, begin in self._parts(window):
            pixels, place = self._drawn(part, begin), part.shifted(-window.top, -window.left).slices
            raw_CHW[:, *place], valid_HW[place] = pixels.raw_CHW, pixels.valid_HW
        return Pixels(raw_CHW, valid_HW)

    def _parts(self, window: Window) -> Iterator[tuple[Window, Window]]:
        """What is drawn at once, which takes 16 bytes per pixel, and what its drawing begins with."""
        if self._exact:
            rows = max(1, DRAWN // window.width)
            for top in range(window.top, window.bottom, rows):
                part = Window(top, window.left, min(top + rows, window.bottom), window.right)
                yield part, part
        else:
            # Each block is drawn from its own corner, whatever the window, so that it is always the same.
            for block in self._under(window):
                yield block.intersection(window), block

    def _keep_whole(self) -> None:
        """Read a small level from its corner, from where nothing is interpolated, unless it is damaged."""
        whole = Window(0, 0, self.info.height, self.info.width)
        with self._reading:
            if self._keep:
                try:
                    self._kept = self._drawn(whole, whole)
                except UnreadableError:
                    self.forget_handle()
                self._keep = False

    def _drawn(self, window: Window, begin: Window) -> Pixels:
        """A window as OpenSlide draws it, in a drawing whose corner is that of ``begin``."""
        from openslide import OpenSlideError

        scale, bounds = self._level.downsample, self.facts.bounds
        corner = bounds.left + round(begin.left * scale), bounds.top + round(begin.top * scale)
        size = window.right - begin.left, window.bottom - begin.top
        try:
            drawn = self._slide().read_region(corner, self.number, size)
        except OpenSlideError as error:
            if MEMORY.search(str(error)):
                raise MemoryError(f"OpenSlide: {error}") from None
            raise UnreadableError(one_line(error)) from None
        return self._composited(np.asarray(drawn)[*window.shifted(-begin.top, -begin.left).slices])

    def _composited(self, rgba_HWC: NDArray[np.uint8]) -> Pixels:
        alpha_HW = rgba_HWC[..., 3]
        raw_CHW = np.stack([rgba_HWC[..., band - 1] for band in self._bands])
        valid_HW = alpha_HW != 0
        if not (alpha_HW == 255).all():
            weight_HW = alpha_HW.astype(np.uint16)
            mixed_CHW = (raw_CHW * weight_HW + 255 * (255 - weight_HW) + 127) // 255
            raw_CHW = mixed_CHW.astype(np.uint8)
        if self.nodata is not None:
            valid_HW &= (raw_CHW != self.nodata).any(axis=0)
        return Pixels(raw_CHW, valid_HW)

    def forget_handle(self) -> None:
        """Close this thread's handle, which is dead after an error."""
        if hasattr(self._local, "slide"):
            self._local.slide.close()
            del self._local.slide

    def _opened(self) -> Any:  # noqa: ANN401 - an openslide.OpenSlide
        slide = import_openslide().OpenSlide(self.path)
        slide.set_cache(_tile_cache())
        return slide

    def _slide(self) -> Any:  # noqa: ANN401 - an openslide.OpenSlide
        if not hasattr(self._local, "slide"):
            from openslide import OpenSlideError

            try:
                slide = self._opened()
            except OpenSlideError as error:
                # Not to be taken for damaged pixels: a disk that is gone may come back.
                raise DamageError(
                    f"cannot open the slide {self.path} any more: {one_line(error)}; bring it back and run "
                    "the same command again"
                ) from None
            if SlideFacts.of(slide, str(self.path)) != self.facts:
                raise DamageError(f"{self.path} is not what it was; start anew with --overwrite")
            self._local.slide = slide
        return self._local.slide


def _companions(path: Path, facts: SlideFacts) -> tuple[str, ...]:
    """The other files of slides that are several."""
    if facts.vendor == "mirax":
        found = (p for p in path.with_suffix("").glob("*") if p.is_file())
    elif facts.vendor == "hamamatsu" and path.suffix.lower() in {".vms", ".vmu"}:
        found = (p for p in map(path.with_name, _ini_values(path)) if p.is_file())
    elif facts.series:
        found = (p for p in path.parent.iterdir() if p != path and _in_series(p, facts.series))
    else:
        return ()
    return tuple(sorted(map(str, found)))


def _ini_values(path: Path) -> list[str]:
    """The values of an INI file that may be names of files beside it."""
    parser = ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(path.read_text(encoding="latin-1"))
    except ConfigError:
        return []
    values = (value for section in parser.sections() for value in parser[section].values())
    return [value for value in dict.fromkeys(values) if value and Path(value).name == value]


def _in_series(path: Path, series: str) -> bool:
    try:
        with path.open("rb") as file:
            return series.encode() in file.read(SERIES_BYTES)
    except OSError:
        return False
