"""Six samples with their labels, to see at a glance whether they lie where they should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tiler.errors import InputError
from tiler.overlay import colored, png
from tiler.spec import ClassSpec, default_classes
from train.data.square import square_at
from train.data.target import IGNORE
from train.writing import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tiler.geometry import Window
    from train.data.labelled import Library, Part
    from train.data.split import Split
    from train.data.survey import Survey

SAMPLES: Final = 6
SIDE: Final = 256
"""Of a sample, pixels."""
GAP: Final = 6
UNKNOWN: Final = 0.35
"""Brightness that is left where the class is not known."""


def draw_samples(path: Path, split: Split, found: Survey, library: Library, seed: int) -> None:
    """Write a PNG: above the pixels, below the same with the classes drawn in, dark where not known.

    Samples show the classes evenly, those of the training part.

    Raises
    ------
    InputError
        if nothing is labelled there.
    """
    if not found.pixels["train"].any():
        raise InputError("a picture shows labels of the training part, got no labelled pixel; see --coding")
    rng = np.random.default_rng(seed)
    classes = default_classes(library.legend.classes)
    columns = []
    for _ in range(SAMPLES):
        part, middle = found.classes.draw_class(split.train, library, rng)
        photo_CHW, drawn_CHW = _pair(part, square_at(part.window, SIDE, middle), library, classes)
        columns += [np.concatenate([_framed(photo_CHW), _framed(drawn_CHW)], axis=1)]
    write_whole(path, png(np.concatenate(columns, axis=2)))


def _pair(
    part: Part, window: Window, library: Library, classes: tuple[ClassSpec, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    pixels, target_HW = library.open(part.source).read(window)
    photo_CHW = as_photo(pixels.raw_CHW, pixels.valid_HW)
    planes = [target_HW] if target_HW.ndim == 2 else [_numbered(p, k) for k, p in enumerate(target_HW)]
    drawn_CHW = photo_CHW
    for plane_HW in planes:
        drawn_CHW = colored(drawn_CHW, plane_HW.astype(np.uint8), classes)
    unknown_HW = np.all([plane_HW == IGNORE for plane_HW in planes], axis=0)
    return photo_CHW, np.where(unknown_HW, drawn_CHW * UNKNOWN, drawn_CHW).astype(np.uint8)


def _numbered(plane_HW: NDArray[np.int64], value: int) -> NDArray[np.int64]:
    return np.where(plane_HW == IGNORE, IGNORE, plane_HW * value)


def as_photo(raw_CHW: NDArray[Any], valid_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Three bands of bytes to look at: the first three, or the first thrice; stretched unless bytes."""
    shown_CHW = raw_CHW[:3] if len(raw_CHW) >= 3 else np.repeat(raw_CHW[:1], 3, axis=0)
    if shown_CHW.dtype == np.uint8 or not valid_HW.any():
        return shown_CHW.astype(np.uint8)
    low_C, high_C = np.percentile(shown_CHW[:, valid_HW].astype(np.float64), (2, 98), axis=1)
    share_CHW = (shown_CHW - low_C[:, None, None]) / np.maximum(high_C - low_C, 1e-9)[:, None, None]
    return np.asarray(np.nan_to_num(share_CHW.clip(0, 1)) * 255).astype(np.uint8)


def _framed(photo_CHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """On white, of one size."""
    _, height, width = photo_CHW.shape
    missing = ((0, 0), (0, SIDE + GAP - height), (0, SIDE + GAP - width))
    return np.pad(photo_CHW, missing, constant_values=255)
