"""The inner loops, in numba: serial and ``nogil``, so that they run beside a network in another thread.

``parallel=True`` would abort the process when two Python threads enter it. `tiler.twins` has the same
functions in numpy, for the tests and as the plain statement of what these compute.
Shapes: K scores per pixel, C bands, H rows, W columns. 255 is nodata in every uint8 result.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

NODATA = 255
LEVELS = 254
"""A probability p is stored as ``round(p * 254)``."""


@njit(nogil=True, cache=True)
def accumulate(
    band_KHW: NDArray[np.float32],
    scores_KHW: NDArray[np.float32],
    rows_H: NDArray[np.float32],
    columns_W: NDArray[np.float32],
) -> None:
    """Add the scores, weighted by row and column, to the band in place."""
    for k in range(scores_KHW.shape[0]):
        for y in range(scores_KHW.shape[1]):
            for x in range(scores_KHW.shape[2]):
                band_KHW[k, y, x] += scores_KHW[k, y, x] * (rows_H[y] * columns_W[x])


@njit(nogil=True, cache=True)
def argmax(scores_KHW: NDArray[np.float32], valid_HW: NDArray[np.bool_], out_HW: NDArray[np.uint8]) -> None:
    """Index of the largest score, the first among equals."""
    for y in range(out_HW.shape[0]):
        for x in range(out_HW.shape[1]):
            best = 0
            for k in range(1, scores_KHW.shape[0]):
                if scores_KHW[k, y, x] > scores_KHW[best, y, x]:
                    best = k
            out_HW[y, x] = best if valid_HW[y, x] else NODATA


@njit(nogil=True, cache=True)
def at_least(
    scores_HW: NDArray[np.float32], valid_HW: NDArray[np.bool_], limit: float, out_HW: NDArray[np.uint8]
) -> None:
    """1 where the score is ``limit`` or more, else 0."""
    for y in range(out_HW.shape[0]):
        for x in range(out_HW.shape[1]):
            out_HW[y, x] = (1 if scores_HW[y, x] >= limit else 0) if valid_HW[y, x] else NODATA


@njit(nogil=True, cache=True)
def softmax_bytes(
    logits_KHW: NDArray[np.float32], valid_HW: NDArray[np.bool_], out_KHW: NDArray[np.uint8]
) -> None:
    """Softmax over K, each probability as a byte."""
    for y in range(out_KHW.shape[1]):
        for x in range(out_KHW.shape[2]):
            top = logits_KHW[0, y, x]
            for k in range(1, logits_KHW.shape[0]):
                top = max(top, logits_KHW[k, y, x])
            total = 0.0
            for k in range(logits_KHW.shape[0]):
                total += math.exp(np.float64(logits_KHW[k, y, x]) - top)
            for k in range(logits_KHW.shape[0]):
                share = math.exp(np.float64(logits_KHW[k, y, x]) - top) / total
                out_KHW[k, y, x] = np.uint8(share * LEVELS + 0.5) if valid_HW[y, x] else NODATA


@njit(nogil=True, cache=True)
def sigmoid_bytes(
    logits_KHW: NDArray[np.float32], valid_HW: NDArray[np.bool_], out_KHW: NDArray[np.uint8]
) -> None:
    """Sigmoid of each score as a byte."""
    for k in range(out_KHW.shape[0]):
        for y in range(out_KHW.shape[1]):
            for x in range(out_KHW.shape[2]):
                share = 1.0 / (1.0 + math.exp(-np.float64(logits_KHW[k, y, x])))
                out_KHW[k, y, x] = np.uint8(share * LEVELS + 0.5) if valid_HW[y, x] else NODATA


@njit(nogil=True, cache=True)
def probability_bytes(
    shares_KHW: NDArray[np.float32], valid_HW: NDArray[np.bool_], out_KHW: NDArray[np.uint8]
) -> None:
    """Probabilities as bytes; rounding may have left them a hair outside [0, 1]."""
    for k in range(out_KHW.shape[0]):
        for y in range(out_KHW.shape[1]):
            for x in range(out_KHW.shape[2]):
                share = min(max(np.float64(shares_KHW[k, y, x]), 0.0), 1.0)
                out_KHW[k, y, x] = np.uint8(share * LEVELS + 0.5) if valid_HW[y, x] else NODATA


@njit(nogil=True, cache=True)
def resample(
    raw_CHW: NDArray[Any],
    valid_HW: NDArray[np.bool_],
    row_taps: tuple[NDArray[np.int64], NDArray[np.float64]],
    column_taps: tuple[NDArray[np.int64], NDArray[np.float64]],
    out_CHW: NDArray[np.float64],
    out_valid_HW: NDArray[np.bool_],
) -> None:
    """Weighted mean of the valid pixels under each target pixel; not valid where there is none.

    A tap table is (first source index, weights) per target pixel. Every sum runs in the same order
    whatever the window, so that a pixel's value does not depend on the window it is read in.
    """
    first_row, row_weights = row_taps
    first_column, column_weights = column_taps
    for y in range(out_valid_HW.shape[0]):
        for x in range(out_valid_HW.shape[1]):
            total = 0.0
            out_CHW[:, y, x] = 0.0
            for i in range(row_weights.shape[1]):
                for j in range(column_weights.shape[1]):
                    weight = row_weights[y, i] * column_weights[x, j]
                    row, column = first_row[y] + i, first_column[x] + j
                    if weight > 0.0 and valid_HW[row, column]:
                        total += weight
                        for c in range(raw_CHW.shape[0]):
                            out_CHW[c, y, x] += weight * raw_CHW[c, row, column]
            out_valid_HW[y, x] = total > 0.0
            if total > 0.0:
                out_CHW[:, y, x] /= total
