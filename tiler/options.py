"""Everything a run can be told, checked once. The command line's options are these fields."""

from __future__ import annotations

import math
import os
import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from tiler.cluster.scheduler import Scheduler
from tiler.device import Device
from tiler.errors import UsageError
from tiler.vector.options import PolygonOptions

BLENDS: Final = ("auto", "exact", "hann", "gaussian", "linear")
GRIDS: Final = ("auto", "model", "source")
ON_ERRORS: Final = ("fail", "nodata")
OUTPUTS: Final = ("labels", "probabilities", "both")
TISSUES: Final = ("auto", "off")
TTAS: Final = ("none", "flips", "all")
CHOICES: Final = {
    "output": OUTPUTS,
    "blend": BLENDS,
    "grid": GRIDS,
    "on_error": ON_ERRORS,
    "tissue": TISSUES,
    "tta": TTAS,
}
UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of a run; None means: the model's own, or worked out."""

    output: str = "labels"
    """What is written: labels, probabilities or both."""
    blend: str = "auto"
    """exact: cores cropped from tiles with a halo; hann, gaussian, linear: overlapping tiles averaged by
    these weights; auto: exact if the model is known to allow it, else hann."""
    tile: int | None = None
    """Side of a tile in pixels, halo included."""
    overlap: int | None = None
    """Blended: pixels shared by neighbouring tiles (default: a quarter of the tile)."""
    halo: int | None = None
    """Exact: pixels around a core that it depends on."""
    tolerance: float | None = None
    """Largest error of a probability for which a smaller halo is measured and used; None: exact."""
    tta: str = "none"
    """Test-time augmentation, the mean over views of each tile: none, flips (4) or all (flips and quarter
    turns, 8); see `tiler.tta`."""
    check_seams: bool = False
    """Whether tiles across the seams are computed once more and compared."""
    stride: int | None = None
    """The network's total down-sampling."""
    batch: int | None = None
    """Tiles per call of the network."""
    memory: int | None = None
    """Budget in bytes (default: half of what is free)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N, several cards as cuda:N,M.., openvino or openvino:bf16."""
    threads: int | None = None
    """Threads of the network (default: one per core)."""
    resolution: float | str | None = None
    """Metres per pixel that the network is fed, or "native" (default: the model's own)."""
    mpp: float | None = None
    """Micrometres per pixel that the network is fed, of a slide (default: the model's own resolution)."""
    level: int | None = None
    """Pyramid level of a slide that the network is fed as it is, from 0."""
    assume_mpp: float | None = None
    """Micrometres per full-resolution pixel of a slide, or a picture, that does not say them."""
    grid: str = "auto"
    """The output's pixel grid: as the network was fed (model), or the source's own; auto: the source's of a
    picture that is resized whole, else the model's."""
    bands: tuple[int, ...] | None = None
    """Band numbers from 1, in the model's order."""
    mask: str | None = None
    """File of the polygons, or of the raster, inside which a result is wanted."""
    tissue: str = "auto"
    """Whether glass is left out: auto (of slides; of those without any nothing is) or off."""
    tissue_threshold: float | None = None
    """How much darker than glass tissue is at least, in grey levels (default: `tiler.tissue.THRESHOLD`)."""
    tissue_area: float | None = None
    """Pieces of tissue, and holes in it, have at least so many mm2 (default: `tiler.tissue.SMALLEST`)."""
    nodata: float | None = None
    """Value of invalid pixels, over what the file says."""
    allow_vrt: bool = False
    """Whether a VRT, which may name other files, is opened."""
    allow_remote: bool = False
    """Whether a raster is fetched from an http or https address."""
    scale: tuple[float, ...] | None = None
    """Raw pixels are multiplied by this: one value, or one per band."""
    mean: tuple[float, ...] | None = None
    """Subtracted after scaling: one value, or one per band."""
    std: tuple[float, ...] | None = None
    """Divided by after that: one value, or one per band."""
    activation: str | None = None
    """What the network returns: logits, softmax, sigmoid or none."""
    classes: tuple[str, ...] | None = None
    """Name of each class."""
    threshold: float | None = None
    """A sigmoid probability of at least this is the class."""
    on_error: str = "fail"
    """A damaged block of the source ends the run, or becomes nodata and is listed in the report."""
    vector: str | None = None
    """Format in which the labels are written as polygons too; see `tiler.vector.options`."""
    min_area: float = 0.0
    """Smaller polygons are left out: m2 where the raster lies on the ground, um2 on a slide, else pixels."""
    simplify: float = 0.0
    """Pixels by which polygons' boundaries may be moved."""
    background: bool = False
    """Whether class 0 becomes polygons too."""
    shard: tuple[int, int] | None = None
    """(i, n): compute the i-th of n parts, i from 1; the last to be done finishes the output."""
    scheduler: str | None = None
    """local:N, or the address of a Dask scheduler whose workers compute the blocks."""
    overwrite: bool = False
    """Whether an existing output, or a run of other options, is replaced."""

    def __post_init__(self) -> None:
        if self.mask is not None:
            object.__setattr__(self, "mask", os.fspath(self.mask))
        self._check_choices()
        self._check_scheduler()
        for name in ("tile", "batch", "stride", "threads", "memory"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is at least 1, got {value}")
        for name in ("overlap", "halo"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UsageError(f"{name} is at least 0, got {value}")
        if self.tile is not None and self.overlap is not None and self.overlap >= self.tile:
            raise UsageError(f"overlap is less than the tile {self.tile}, got {self.overlap}")
        if self.bands is not None and any(b < 1 for b in self.bands):
            raise UsageError(f"bands are numbered from 1, got {','.join(map(str, self.bands))}")
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            number, count = self.shard
            raise UsageError(f"a shard is i/n with i from 1 to n, got {number}/{count}")
        if self.tolerance is not None and not 0 < self.tolerance < 1:
            raise UsageError(f"tolerance is a probability between 0 and 1, got {self.tolerance}")
        self._check_resolution()
        self._check_slide()
        self._check_polygons()

    @property
    def lasting(self) -> dict[str, Any]:
        """The options that another process needs to make the same files."""
        return asdict(replace(self, overwrite=False, shard=None, scheduler=None))

    @property
    def polygons(self) -> PolygonOptions | None:
        """How polygons are made, if any."""
        if self.vector is None:
            return None
        return PolygonOptions(self.vector, self.min_area, self.simplify, self.background)

    def _check_polygons(self) -> None:
        if self.polygons is None and (self.min_area or self.simplify or self.background):
            raise UsageError(
                "min-area, simplify and background are of polygons; name their format by --vector"
            )
        if self.polygons is not None and self.output == "probabilities":
            raise UsageError("polygons are made of labels, got --output probabilities; take labels or both")

    def _check_choices(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise UsageError(f"{name.replace('_', '-')} is one of {', '.join(choices)}, got {value!r}")
        Device.parse(self.device)

    def _check_scheduler(self) -> None:
        if self.scheduler is None:
            return
        Scheduler.parse(self.scheduler)
        if self.shard is not None:
            raise UsageError("--scheduler and --shard are two ways to share out one run; choose one")

    def _check_resolution(self) -> None:
        value = self.resolution
        if value is None or value == "native":
            return
        if isinstance(value, str) or not value > 0:
            raise UsageError(f'resolution is metres per pixel above 0 or "native", got {value!r}')

    def _check_slide(self) -> None:
        told = [name for name in ("mpp", "level", "resolution") if getattr(self, name) is not None]
        if len(told) > 1:
            raise UsageError(f"one of --mpp, --level and --resolution is given, got --{' and --'.join(told)}")
        for name in ("mpp", "assume_mpp"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name.replace('_', '-')} is micrometres per pixel above 0, got {value}")
        if self.level is not None and self.level < 0:
            raise UsageError(f"levels are numbered from 0, got {self.level}")
        if self.tissue_threshold is not None and not 0 < self.tissue_threshold < 255:
            raise UsageError(f"tissue-threshold is between 0 and 255, got {self.tissue_threshold}")
        if self.tissue_area is not None and not 0 <= self.tissue_area < math.inf:
            raise UsageError(f"tissue-area is mm2 from 0, got {self.tissue_area}")
        if self.tissue == "off" and (self.tissue_threshold, self.tissue_area) != (None, None):
            raise UsageError("--tissue-threshold and --tissue-area are for --tissue auto, got --tissue off")


def parse_bytes(text: str) -> int:
    """A number of bytes, written as a person would.

    >>> parse_bytes("2GB"), parse_bytes("1.5 g"), parse_bytes("512MiB")
    (2000000000, 1500000000, 536870912)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    if match is None or (match[3] and not match[2]):
        raise UsageError(f"a size is written like 2GB, 1.5G or 512MiB, got {text!r}")
    unit = 1024 ** "kmgt".index(match[2]) * 1024 if match[3] else UNITS[match[2]]
    return int(float(match[1]) * unit)


def parse_shard(text: str) -> tuple[int, int]:
    """A part of a run, written i/n.

    >>> parse_shard("2/4")
    (2, 4)
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"a shard is i/n with i from 1 to n, got {text!r}")
    return int(match[1]), int(match[2])
