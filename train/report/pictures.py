"""Pictures of samples: the photo, and what truth and prediction draw on it.

Shapes: bands or planes first, then rows and columns. Labels have one plane of class indices, or of
independent classes a plane of 0 and 1 each; 255 is not known or not valid.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from tiler.kernels import NODATA
from tiler.overlay import colored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.pixels import Pixels
    from tiler.spec import ClassSpec
    from train.evaluate import Examiner
    from train.evaluation import SampleScore

SPREAD: Final = (2, 98)
"""Percentiles of a band that become black and white, where it is not bytes."""
GREY: Final = 128
"""What is not valid in a photo, or not known in a mask."""
LONGEST: Final = 512
"""Pixels of the longer side of a picture; larger samples are drawn with every n-th pixel."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A sample, small enough to look at."""

    sample: SampleScore
    photo_3HW: NDArray[np.uint8]
    truth_QHW: NDArray[np.uint8]
    labels_QHW: NDArray[np.uint8]
    """What the network says, where the truth is known or not."""


def take(examiner: Examiner, sample: SampleScore) -> Picture:
    """Look at a sample again; its labels are those that were counted."""
    window = sample.window
    pixels, target = examiner.library.open(sample.part.source).read(window)
    truth_QHW = (target if target.ndim == 3 else target[None]).astype(np.uint8)
    labels_QHW = np.full_like(truth_QHW, NODATA)
    for answer in examiner.answers(sample.part, within=window):
        labels_QHW[:, *answer.window.shifted(-window.top, -window.left).slices] = answer.labels_QHW
    every = -(-max(window.shape) // LONGEST)
    small = (..., slice(None, None, every), slice(None, None, every))
    return Picture(sample, photo(pixels)[small], truth_QHW[small], labels_QHW[small])


def photo(pixels: Pixels) -> NDArray[np.uint8]:
    """The first three bands, or the first as grey; bytes as they are, other values spread over them."""
    bands = [0, 1, 2] if len(pixels.raw_CHW) >= 3 else [0, 0, 0]
    photo_3HW = np.stack([_bytes(pixels.raw_CHW[band], pixels.valid_HW) for band in bands])
    photo_3HW[:, ~pixels.valid_HW] = GREY
    return photo_3HW


def _bytes(raw_HW: NDArray[np.generic], valid_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    if raw_HW.dtype == np.uint8 or not valid_HW.any():
        return raw_HW.astype(np.uint8)
    low, high = np.percentile(raw_HW[valid_HW].astype(np.float64), SPREAD)
    known_HW = np.where(valid_HW, raw_HW, low).astype(np.float64)
    return np.asarray(255 * np.clip((known_HW - low) / max(high - low, 1e-12), 0, 1), np.uint8)


def overlay(
    photo_3HW: NDArray[np.uint8], labels_QHW: NDArray[np.uint8], classes: tuple[ClassSpec, ...]
) -> NDArray[np.uint8]:
    """The photo with classes tinted and outlined; the background of exclusive ones stays as it is."""
    if not _independent(labels_QHW, classes):
        return colored(photo_3HW, labels_QHW[0], classes)
    for kind, plane_HW in zip(classes, labels_QHW, strict=True):
        photo_3HW = colored(photo_3HW, plane_HW, (kind, kind))
    return photo_3HW


def mask(labels_QHW: NDArray[np.uint8], classes: tuple[ClassSpec, ...]) -> NDArray[np.uint8]:
    """Colours alone; of independent classes the last one that is there, on black."""
    mask_3HW = np.zeros((3, *labels_QHW.shape[1:]), np.uint8)
    mask_3HW[:, labels_QHW[0] == NODATA] = GREY
    for inside_HW, kind in _regions(labels_QHW, classes):
        mask_3HW[:, inside_HW] = np.array(kind.color, np.uint8)[:, None]
    return mask_3HW


def cut_out(
    photo_3HW: NDArray[np.uint8], labels_QHW: NDArray[np.uint8], classes: tuple[ClassSpec, ...]
) -> NDArray[np.uint8]:
    """The photo where there is a class other than the background; else black."""
    kept_HW = np.zeros(labels_QHW.shape[1:], np.bool_)
    first = 0 if _independent(labels_QHW, classes) else 1
    for inside_HW, _ in _regions(labels_QHW, classes)[first:]:
        kept_HW |= inside_HW
    return photo_3HW * kept_HW


def _regions(
    labels_QHW: NDArray[np.uint8], classes: tuple[ClassSpec, ...]
) -> list[tuple[NDArray[np.bool_], ClassSpec]]:
    if _independent(labels_QHW, classes):
        return [(plane_HW == 1, kind) for plane_HW, kind in zip(labels_QHW, classes, strict=True)]
    return [(labels_QHW[0] == index, kind) for index, kind in enumerate(classes)]


def _independent(labels_QHW: NDArray[np.uint8], classes: tuple[ClassSpec, ...]) -> bool:
    return len(labels_QHW) == len(classes)


def jpeg(pixels_3HW: NDArray[np.uint8]) -> bytes:
    """A photo as a small file."""
    _, height, width = pixels_3HW.shape
    with warnings.catch_warnings(), MemoryFile() as file:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        profile = {"driver": "JPEG", "count": 3, "height": height, "width": width, "dtype": "uint8"}
        with file.open(**profile, quality=85) as dataset:
            dataset.write(pixels_3HW)
        return bytes(file.read())
