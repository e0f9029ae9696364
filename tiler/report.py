"""What a run found and what it took: printed at its end, and stored as JSON beside the output."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from tiler import kernels
from tiler.kernels import NODATA
from tiler.readers.ground import pixel_area

if TYPE_CHECKING:
    from tiler.finish import Finisher
    from tiler.ports import Block, RasterInfo


@dataclass(frozen=True, slots=True)
class ClassTally:
    """How much of the result is of one class."""

    name: str
    pixels: int
    area_m2: float | None
    """On the ellipsoid; None if the raster is not georeferenced."""
    area_um2: float | None = None
    """On a slide; None of everything else."""


@dataclass(frozen=True, slots=True)
class DamagedWindow:
    """A block of the source that cannot be decoded."""

    window: str
    """In full-resolution pixels of the source."""
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a run."""

    outputs: tuple[str, ...]
    pixels: int
    """Of the raster that the network was fed."""
    valid_pixels: int
    """Of the output; the rest is nodata."""
    classes: tuple[ClassTally, ...]
    """Empty when no labels were written."""
    seconds: float
    """From the call until the outputs were verified."""
    startup_seconds: float
    """Of these, until the first pixel was read: opening, loading, planning."""
    bottleneck: str
    """The stage that the others waited for, with its share of the time after that."""
    megapixels_per_second: float
    """Of the raster that the network was fed, everything counted."""
    stage_seconds: dict[str, float]
    """Time spent in each stage; stages overlap, so the sum may exceed ``seconds``."""
    tiles_computed: int
    """By the process that finished the run; a resumed run had others computed before."""
    blocks_computed: int
    """Likewise."""
    blocks: int
    """Of the whole result."""
    damaged: tuple[DamagedWindow, ...]
    """Windows of the source that could not be read and are nodata in the output."""
    tissue: dict[str, Any] | None
    """Of a slide: the part of it that is tissue, and how that was found; None if all of it was wanted."""
    seams: dict[str, Any] | None
    """What ``check_seams`` found; see `tiler.seams.Seams`."""
    peak_memory: int
    """Bytes that the process has held at most so far."""
    plan: dict[str, Any]
    model: dict[str, Any]
    source: dict[str, Any]
    output: dict[str, Any]
    fingerprint: dict[str, Any]
    """What the result depends on; a run with the same one makes the same files."""
    polygons: dict[str, Any] = field(default_factory=dict)
    """By format: the file, its options, how many there are."""

    def to_json(self) -> str:
        """Indented JSON."""
        # Shallow: a report holds large tables that need no copy.
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return json.dumps(values, default=asdict, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The inverse of `to_json`.

        Raises
        ------
        ValueError, TypeError, LookupError
            if the text is no report of this version.
        """
        values = json.loads(text)
        if not isinstance(values["fingerprint"], dict):
            raise TypeError("a fingerprint is a table")
        values["classes"] = tuple(ClassTally(**entry) for entry in values["classes"])
        values["damaged"] = tuple(DamagedWindow(**entry) for entry in values["damaged"])
        values["outputs"] = tuple(values["outputs"])
        return cls(**values)


def tissue_in_words(share: float) -> str:
    """How much of a slide is tissue, for people."""
    return "all of the slide: no glass was found" if share == 1 else f"{share:.1%}, the rest is not computed"


class Tally:
    """Counts pixels and areas per class as blocks go by."""

    def __init__(self, info: RasterInfo, finisher: Finisher) -> None:
        self._info = info
        self._finisher = finisher
        self._counts_QV = np.zeros((finisher.label_planes, 256), np.int64)
        self._areas_QV = np.zeros((finisher.label_planes, 256))
        self.valid_pixels = 0

    def add(self, block: Block) -> None:
        """Count a block."""
        planes_QHW = block.planes_QHW
        self.valid_pixels += int(np.count_nonzero(planes_QHW[0] != NODATA))
        counts_QV = np.zeros_like(self._counts_QV)
        for plane_HW, counts_V in zip(planes_QHW, counts_QV, strict=False):
            kernels.count_values(np.ravel(plane_HW), counts_V)
        if not counts_QV.size:
            return
        self._counts_QV += counts_QV
        if self._info.crs and self._info.transform is not None:
            area = pixel_area(self._info.crs, self._info.transform, block.window)
            self._areas_QV += counts_QV * (np.nan if area is None else area)

    def classes(self) -> tuple[ClassTally, ...]:
        """The counts: of each value of the one label plane, or of the ones of each."""
        if self._finisher.multilabel:
            places = [(q, 1) for q in range(self._finisher.label_planes)]
        else:
            places = [
                (q, v)
                for q in range(self._finisher.label_planes)
                for v in range(len(self._finisher.spec.classes))
            ]
        return tuple(
            ClassTally(c.name, int(self._counts_QV[place]), self._area(place), self._slide_area(place))
            for c, place in zip(self._finisher.spec.classes, places, strict=False)
        )

    def _area(self, place: tuple[int, int]) -> float | None:
        area = float(self._areas_QV[place])
        placed = self._info.crs and self._info.transform is not None
        return area if placed and np.isfinite(area) else None

    def _slide_area(self, place: tuple[int, int]) -> float | None:
        if self._info.to_level0 is None or self._info.ground is None:
            return None
        across, down = self._info.ground
        return float(self._counts_QV[place] * (across * 1e6) * (down * 1e6))
