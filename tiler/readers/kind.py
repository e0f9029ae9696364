"""Who reads a file: OpenSlide if it is a slide, else GDAL. A tiled TIFF opens in both."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from rasterio.enums import ColorInterp, MaskFlags

from tiler.errors import InputError
from tiler.readers.slide import LARGEST_MPP, import_openslide
from tiler.readers.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

GENERIC: Final = "generic-tiff"
"""What OpenSlide calls any tiled TIFF."""
SUFFIXES: Final = frozenset(
    (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi", ".dcm")
)
"""Names of files that are slides or nothing."""
PER_UNIT: Final = {"2": 25_400.0, "3": 10_000.0}
"""Micrometres in TIFF's units of resolution."""


def is_slide(path: Path, told: bool) -> bool:
    """Whether OpenSlide is to read it: every slide, and of tiled TIFFs those that can be nothing else.

    Raises
    ------
    InputError
        if it is called a slide and is none: GDAL might make something of what is left of it.
    """
    if not os.path.isfile(path):  # noqa: PTH113 - which takes a name that is too long for no file
        return False
    kind = import_openslide().OpenSlide.detect_format(path)
    if not kind and path.suffix.lower() in SUFFIXES:
        raise InputError(
            f"a {path.suffix} is a slide that OpenSlide can open, got {path}; it is damaged or cut short"
        )
    return _is_pyramid_of_colours(path, told) if kind == GENERIC else bool(kind)


def _is_pyramid_of_colours(path: Path, told: bool) -> bool:
    """Whether a TIFF is a pyramid of colours that says a slide's resolution, unless that was told.

    And has nothing that only GDAL understands: a place on the ground, a mask, other bands or depths.
    """
    with Source(path).open() as dataset:
        placed = dataset.crs or dataset.gcps[0] or dataset.rpcs or not dataset.transform.is_identity
        masked = any(MaskFlags.per_dataset in flags for flags in dataset.mask_flag_enums)
        coloured = dataset.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        plain = coloured and set(dataset.dtypes) == {"uint8"} and dataset.nodata is None
        picture = plain and not placed and not masked and bool(dataset.overviews(1))
        return picture and (told or 0 < _tiff_mpp(dataset.tags()) <= LARGEST_MPP)


def _tiff_mpp(tags: Mapping[str, str]) -> float:
    """Micrometres per pixel that a TIFF says, by its tags as GDAL shows them; 0 if it does not.

    >>> _tiff_mpp({"TIFFTAG_XRESOLUTION": "20000", "TIFFTAG_RESOLUTIONUNIT": "3 (pixels/cm)"})
    0.5
    """
    unit = PER_UNIT.get(tags.get("TIFFTAG_RESOLUTIONUNIT", "")[:1], 0.0)
    pixels = float(tags.get("TIFFTAG_XRESOLUTION", 0))
    return unit / pixels if pixels > 0 else 0.0
