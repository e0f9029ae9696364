"""Six samples with their labels, to see at a glance whether they lie where they should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tiler.errors import InputError
from tiler.overlay import png
from tiler.spec import ClassSpec, default_classes
from train.data.square import square_at
from train.data.target import IGNORE
from train.report.pictures import overlay, photo
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
        photo_CHW, drawn_CHW = pair(part, square_at(part.window, SIDE, middle), library, classes)
        columns += [np.concatenate([_framed(photo_CHW), _framed(drawn_CHW)], axis=1)]
    write_whole(path, png(np.concatenate(columns, axis=2)))


def pair(
    part: Part, window: Window, library: Library, classes: tuple[ClassSpec, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The pixels of a window, and the same with the classes drawn in; (3, H, W) each."""
    pixels, target_HW = library.open(part.source).read(window)
    photo_CHW = photo(pixels)
    labels_QHW = (target_HW if target_HW.ndim == 3 else target_HW[None]).astype(np.uint8)
    drawn_CHW = overlay(photo_CHW, labels_QHW, classes)
    unknown_HW = (labels_QHW == IGNORE).all(axis=0)
    return photo_CHW, np.where(unknown_HW, drawn_CHW * UNKNOWN, drawn_CHW).astype(np.uint8)


def _framed(photo_CHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """On white, of one size."""
    _, height, width = photo_CHW.shape
    missing = ((0, 0), (0, SIDE + GAP - height), (0, SIDE + GAP - width))
    return np.pad(photo_CHW, missing, constant_values=255)
