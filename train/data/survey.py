"""One streamed look at all data before training: that it can be used, and how its values are distributed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler.errors import InputError
from tiler.geometry import Window
from train.data.balance import ClassMap, cell_side
from train.data.item import PARTS
from train.data.target import IGNORE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tiler.pixels import Pixels
    from train.data.labelled import Library
    from train.data.split import Split

SIDE: Final = 1024
"""Of the squares that are read at a time, pixels."""


@dataclass(slots=True, eq=False)
class Moments:
    """Mean and standard deviation per band of pixels that stream by, without ever squaring a large number."""

    bands: int
    count: int = field(default=0, init=False)
    mean_C: NDArray[np.float64] = field(init=False)
    squares_C: NDArray[np.float64] = field(init=False)
    """Sum of squared distances from the mean."""

    def __post_init__(self) -> None:
        self.mean_C, self.squares_C = np.zeros(self.bands), np.zeros(self.bands)

    def add(self, pixels: Pixels, wanted_HW: NDArray[np.bool_] | None = None) -> None:
        """Pool the valid pixels (that are wanted), after Chan, Golub and LeVeque (1979)."""
        counted_HW = pixels.valid_HW if wanted_HW is None else pixels.valid_HW & wanted_HW
        values_CN = pixels.raw_CHW[:, counted_HW].astype(np.float64)
        count = values_CN.shape[1]
        if not count:
            return
        mean_C = values_CN.mean(axis=1)
        apart_C = mean_C - self.mean_C
        self.squares_C += ((values_CN - mean_C[:, None]) ** 2).sum(axis=1)
        self.squares_C += apart_C**2 * (self.count * count / (self.count + count))
        self.mean_C += apart_C * (count / (self.count + count))
        self.count += count

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation, population form."""
        return np.asarray(np.sqrt(self.squares_C / max(self.count, 1)))


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What the look found."""

    moments: Moments
    """Of the training part, raw units: of all valid pixels in the region of interest, labelled or not."""
    pixels: dict[str, NDArray[np.int64]]
    """Per part (train, val, test): labelled pixels of each class."""
    classes: ClassMap
    """Where they are in the training part."""
    labels: dict[str, str]
    """Per part, a digest of its labels as they are learnt from: other ones have another."""


def survey(split: Split, library: Library, names: tuple[str, ...]) -> Survey:
    """Read everything once.

    Raises
    ------
    InputError
        if a mask holds an unknown value, the training part has fewer than two classes, a part has no labelled
        pixel, or a band is constant.
    """
    found = count(split, library)
    _check(found, names, 1 if library.legend.independent else 2, has_test=bool(split.test))
    return found


def count(split: Split, library: Library) -> Survey:
    """Read everything once, and refuse nothing but unknown values."""
    moments = Moments(library.info(split.train[0].source).bands)
    side = cell_side([part.window.area for part in split.all], library.classes)
    maps = {name: ClassMap(side, library.classes) for name in PARTS}
    digests = {name: hashlib.blake2b(digest_size=16) for name in PARTS}
    for name, classes in maps.items():
        for part in getattr(split, name):
            labelled = library.open(part.source)
            classes.begin(part.window)
            digests[name].update(repr(part.window).encode())
            for window in squares(part.window):
                raw, target_HW = labelled.read(window)
                classes.add(part.window, window, target_HW)
                digests[name].update(target_HW.astype(np.uint8).tobytes())
                if labelled.objects is not None:
                    digests[name].update(labelled.objects.read(window).raw_CHW.tobytes())
                if name == "train":
                    moments.add(raw, labelled.inside(window))
    pixels = {name: classes.pixels for name, classes in maps.items()}
    labels = {name: digest.hexdigest() for name, digest in digests.items()}
    return Survey(moments, pixels, maps["train"], labels)


def squares(window: Window) -> Iterator[Window]:
    """Cut a window into squares, smaller at its right and bottom."""
    for top in range(window.top, window.bottom, SIDE):
        for left in range(window.left, window.right, SIDE):
            yield Window(top, left, min(top + SIDE, window.bottom), min(left + SIDE, window.right))


def _check(found: Survey, names: tuple[str, ...], least: int, *, has_test: bool) -> None:
    present = [name for name, count in zip(names, found.pixels["train"], strict=True) if count]
    if len(present) < least:
        wanted = "one class" if least == 1 else "two classes"
        raise InputError(
            f"{wanted} or more occur in the training part, got {' '.join(present) or 'none'}; mask values "
            f"that are nodata or {IGNORE} are not counted: check --classes, and --coding, "
            "which is '>127' for masks of 0 and 255"
        )
    for name in ("val", "test") if has_test else ("val",):
        if not found.pixels[name].any():
            raise InputError(f"the {name} part has labelled pixels, got none; give it more with --{name}")
    flat = np.flatnonzero(found.moments.deviation == 0)
    if flat.size:
        raise InputError(f"every band varies, band {flat[0] + 1} is constant; leave it out with --bands")
