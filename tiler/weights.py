"""Blend windows along one axis, and how they become weights that sum to one.

Windows are sampled at half-pixel centres, ``(i + 1/2) / n``, so that none is zero at its ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

GAUSSIAN_SIGMA: Final = 0.125
"""Standard deviation of the gaussian window as a share of the tile."""


def hann(n: int) -> NDArray[np.float64]:
    """Raised cosine.

    >>> hann(4).round(3).tolist()
    [0.146, 0.854, 0.854, 0.146]
    """
    return np.sin(np.pi * _centres(n)) ** 2


def gaussian(n: int) -> NDArray[np.float64]:
    """Bell of `GAUSSIAN_SIGMA` tiles, one at its middle."""
    return np.exp(-0.5 * ((_centres(n) - 0.5) / GAUSSIAN_SIGMA) ** 2)


def linear(n: int) -> NDArray[np.float64]:
    """Triangle.

    >>> linear(4).tolist()
    [0.25, 0.75, 0.75, 0.25]
    """
    centres = _centres(n)
    return 2 * np.minimum(centres, 1 - centres)


def _centres(n: int) -> NDArray[np.float64]:
    return (np.arange(n) + 0.5) / n


WINDOWS: Final[dict[str, Callable[[int], NDArray[np.float64]]]] = {
    "hann": hann,
    "gaussian": gaussian,
    "linear": linear,
}
"""The windows of blended mode, by the name that ``--blend`` takes."""
