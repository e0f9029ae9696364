"""Targets: a class index per pixel, or one plane of yes and no per class; `IGNORE` where it is not known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

IGNORE: Final = 255
"""Not known: neither learnt from nor counted."""


def one_plane_per_class(target_HW: NDArray[np.uint8], classes: int) -> NDArray[np.uint8]:
    """Classes that exclude each other as classes that need not: (K, H, W) of 0, 1 and `IGNORE`.

    >>> one_plane_per_class(np.array([[0, 1, 255]], np.uint8), 2).tolist()
    [[[1, 0, 255]], [[0, 1, 255]]]
    """
    numbers_K11 = np.arange(classes, dtype=np.uint8)[:, None, None]
    planes_KHW = np.asarray(target_HW == numbers_K11, np.uint8)
    planes_KHW[:, target_HW == IGNORE] = IGNORE
    return planes_KHW
