"""How much each pixel counts: more in narrow gaps between objects, after Ronneberger et al. (2015).

``w = w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2))``, with d1 and d2 the distances to the borders of the nearest
and of the second nearest object, and w_c a weight of the pixel's class. The second term is of background
pixels alone, and distances are measured to the edges of pixels, so that halfway across a straight gap of g
pixels, as anywhere across it, d1 + d2 = g.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler.errors import InputError, UsageError
from tiler.geometry import Window
from train.data.target import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from train.data.labelled import Labelled

REACH: Final = 5.0
"""Gaps wider than so many sigmas add less than 4e-6 of w0, and nothing is added for them."""


@dataclass(frozen=True, slots=True)
class Weighting:
    """What a pixel's weight is made of."""

    border: float = 0.0
    """w0: added in a gap of no width."""
    sigma: float = 5.0
    """Pixels."""
    classes: tuple[float, ...] = ()
    """w_c per class; empty: 1."""

    def __post_init__(self) -> None:
        if not self.border >= 0:
            raise UsageError(f"--border-weight is at least 0, got {self.border}; 0 is off")
        if not 0 < self.sigma <= 100:
            raise UsageError(f"--border-sigma is pixels, above 0 and at most 100, got {self.sigma}")

    def read(self, labelled: Labelled, window: Window, target_HW: NDArray[np.int64]) -> NDArray[np.float32]:
        """Weights (H, W) of a window; objects just outside of it are seen, too."""
        if target_HW.ndim == 3:
            raise UsageError("weights of pixels are for classes that exclude each other; leave them out")
        weight_HW = np.ones(window.shape, np.float32)
        if self.classes:
            table = np.ones(IGNORE + 1, np.float32)
            table[: len(self.classes)] = self.classes
            weight_HW = table[target_HW]
        if self.border:
            weight_HW += self._gaps(labelled, window)
        return weight_HW

    def _gaps(self, labelled: Labelled, window: Window) -> NDArray[np.float32]:
        info, margin = labelled.raster.info, int(np.ceil(REACH * self.sigma))
        around = Window(
            max(window.top - margin, 0),
            max(window.left - margin, 0),
            min(window.bottom + margin, info.height),
            min(window.right + margin, info.width),
        )
        place = window.shifted(-around.top, -around.left)
        return gap_weights(objects(labelled, around), self.border, self.sigma)[place.slices]


def objects(labelled: Labelled, window: Window) -> NDArray[np.int64]:
    """The number of the object of each pixel, 0 where there is none.

    Where labels do not tell objects apart, they are the connected pixels of any class but the first.
    """
    from scipy import ndimage

    if labelled.objects is not None:
        pixels = labelled.objects.read(window)
        return np.where(pixels.valid_HW, pixels.raw_CHW[0], 0).astype(np.int64)
    labels_HW = labelled.labels.read(window).raw_CHW[0]
    return np.asarray(ndimage.label((labels_HW != 0) & (labels_HW != IGNORE))[0], np.int64)


def gap_weights(objects_HW: NDArray[np.int64], border: float, sigma: float) -> NDArray[np.float32]:
    """The second term of the weight.

    Parameters
    ----------
    objects_HW
        0, or the number of the object there.
    border
        w0.
    sigma
        In pixels.
    """
    from scipy import ndimage

    _, numbered_HW = np.unique(np.append(objects_HW.ravel(), 0), return_inverse=True)
    numbered_HW = numbered_HW[:-1].reshape(objects_HW.shape)
    reach = int(np.ceil(REACH * sigma))
    first_HW = np.full(objects_HW.shape, np.inf, np.float32)
    second_HW = first_HW.copy()
    for number, box in enumerate(ndimage.find_objects(numbered_HW), 1):
        # No pixel further from the object's box than the reach has a weight by it.
        near = tuple(slice(max(side.start - reach, 0), side.stop + reach) for side in box)
        away_HW = ndimage.distance_transform_edt(numbered_HW[near] != number).astype(np.float32) - 0.5
        second_HW[near] = np.minimum(second_HW[near], np.maximum(first_HW[near], away_HW))
        first_HW[near] = np.minimum(first_HW[near], away_HW)
    weight_HW = border * np.exp(-((first_HW + second_HW) ** 2) / (2 * sigma**2))
    return np.where(numbered_HW == 0, weight_HW, 0).astype(np.float32)


def class_weights(pixels_K: NDArray[np.int64]) -> tuple[float, ...]:
    """Weights by which all classes that occur count alike, and a pixel counts 1 in the mean.

    Raises
    ------
    InputError
        if none occurs.

    >>> class_weights(np.array([30, 10, 0]))
    (0.6666666666666666, 2.0, 1.0)
    """
    present = np.count_nonzero(pixels_K)
    if not present:
        raise InputError("weights of classes need labelled pixels, got none")
    total = int(pixels_K.sum())
    return tuple(total / (present * int(n)) if n else 1.0 for n in pixels_K)
