"""How much each pixel counts: more in narrow gaps between objects, after Ronneberger et al. (2015).

``w = w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2))``, with d1 and d2 the distances to the borders of the nearest
and of the second nearest object, and w_c a weight of the pixel's class. The second term is of background
pixels alone, and distances are measured to the edges of pixels, so that halfway across a straight gap of g
pixels, as anywhere across it, d1 + d2 = g.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tiler.errors import InputError, MissingError, UsageError
from tiler.geometry import Window
from tiler.pixels import Pixels
from train.data.target import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.ports import Raster, RasterInfo
    from train.data.gaps import Gaps


@dataclass(frozen=True, slots=True, eq=False)
class GapRaster:
    """The second term of the weight as a raster, a value per pixel wherever it is read from."""

    labels: Raster
    """As `OpenLabels.target`, of classes that exclude each other."""
    objects: Raster | None
    """As `OpenLabels.objects`; without, objects are the connected pixels of any class but the first."""
    gaps: Gaps
    info: RasterInfo
    """Of one band of float32."""

    @classmethod
    def of(cls, labels: Raster, objects: Raster | None, gaps: Gaps) -> GapRaster:
        """Of opened labels."""
        if labels.info.bands > 1:
            raise UsageError("--border-weight is for classes that exclude each other, not --independent")
        return cls(labels, objects, gaps, replace(labels.info, bands=1, dtype=np.dtype(np.float32)))

    def empty(self, window: Window) -> bool:
        """Not known."""
        del window
        return False

    def read(self, window: Window) -> Pixels:
        """Weights; objects just outside of the window are seen, too."""
        reach = self.gaps.reach
        around = Window(
            max(window.top - reach, 0),
            max(window.left - reach, 0),
            min(window.bottom + reach, self.info.height),
            min(window.right + reach, self.info.width),
        )
        weight_HW = gap_weights(self._objects(around), self.gaps)
        place = window.shifted(-around.top, -around.left)
        return Pixels(weight_HW[None, *place.slices], np.ones(window.shape, np.bool_))

    def _objects(self, window: Window) -> NDArray[np.int64]:
        if self.objects is not None:
            pixels = self.objects.read(window)
            return np.where(pixels.valid_HW, pixels.raw_CHW[0], 0).astype(np.int64)
        labels_HW = self.labels.read(window).raw_CHW[0]
        return np.asarray(_ndimage().label((labels_HW != 0) & (labels_HW != IGNORE))[0], np.int64)


def gap_weights(objects_HW: NDArray[np.int64], gaps: Gaps) -> NDArray[np.float32]:
    """The second term of the weight, where each object has a number and the rest is 0."""
    ndimage = _ndimage()
    _, numbered_HW = np.unique(np.append(objects_HW.ravel(), 0), return_inverse=True)
    numbered_HW = numbered_HW[:-1].reshape(objects_HW.shape)
    first_HW = np.full(objects_HW.shape, np.inf, np.float32)
    second_HW = first_HW.copy()
    for number, box in enumerate(ndimage.find_objects(numbered_HW), 1):
        # No pixel further from the object's box than the reach has a weight by it.
        near = tuple(slice(max(side.start - gaps.reach, 0), side.stop + gaps.reach) for side in box)
        away_HW = ndimage.distance_transform_edt(numbered_HW[near] != number).astype(np.float32) - 0.5
        second_HW[near] = np.minimum(second_HW[near], np.maximum(first_HW[near], away_HW))
        first_HW[near] = np.minimum(first_HW[near], away_HW)
    weight_HW = gaps.border * np.exp(-((first_HW + second_HW) ** 2) / (2 * gaps.sigma**2))
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
    present = int(np.count_nonzero(pixels_K))
    if not present:
        raise InputError("weights of classes need labelled pixels, got none")
    total = int(pixels_K.sum())
    return tuple(total / (present * int(n)) if n else 1.0 for n in pixels_K)


def _ndimage() -> Any:  # noqa: ANN401 - a module without types
    try:
        from scipy import ndimage
    except ModuleNotFoundError:
        raise MissingError("weights of gaps need scipy; pip install 'gigatiler[train]'") from None
    return ndimage
