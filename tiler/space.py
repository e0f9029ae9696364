"""Disk space: how much a run may take, and whether it is there."""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING, Final

from tiler.errors import OutputError
from tiler.memory import in_words

if TYPE_CHECKING:
    from pathlib import Path

    from tiler.finish import Finisher

WHILE_FINISHING: Final = 1 + 5 / 3
"""Copies beside the blocks: a plain GeoTIFF, and the COG with its overviews, which GDAL makes aside first."""


def copy_bytes(finisher: Finisher, pixels: int) -> int:
    """At most that many bytes take the planes of so many pixels, compressed.

    Labels of K classes and nodata hold log2(K + 1) bits of information per pixel at most; maps hold much
    less. Probabilities are taken as they are.
    """
    values = 3 if finisher.multilabel else len(finisher.spec.classes) + 1
    bits = finisher.label_planes * math.log2(values) + 8 * finisher.probability_planes
    return math.ceil(pixels * bits / 8)


def most_bytes(finisher: Finisher, missing: int, output: int) -> int:
    """At most that many bytes of disk a run takes while it finishes.

    ``missing`` pixels are still to be stored as blocks, the output has ``output`` pixels.
    """
    return copy_bytes(finisher, missing) + math.ceil(WHILE_FINISHING * copy_bytes(finisher, output))


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises
    ------
    OutputError
        if less than ``needed`` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"the run takes up to {in_words(needed)} of disk while it finishes, got {in_words(free)} free in "
            f"{folder}; free some space"
        )
