"""The inner loops, in numba: serial and ``nogil``, so that they run beside a network in another thread.

``parallel=True`` would abort the process when two Python threads enter it. `tiler.twins` has the same
functions in numpy, for the tests and as the plain statement of what these compute.
Shapes: K scores per pixel, C bands, H rows, W columns. 255 is nodata in every uint8 result.

Only contiguous rows are vectorised (7 times faster), and of a part of a tile the compiler does not know that
its rows are: so kernels take whole arrays and where to begin in them, ``at`` (row, column), and cut the rows
themselves. The size is that of the smallest array.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

NODATA = 255
LEVELS = 254
"""A probability p is stored as ``round(p * 254)``."""


@njit(nogil=True, cache=True)
def feed(
    raw_CHW: NDArray[Any],
    valid_HW: NDArray[np.bool_],
    fill_C: NDArray[Any],
    factors_2C: NDArray[np.float32],
    out_CHW: NDArray[np.float32],
) -> None:
    """Raw pixels, or the fill where they are not valid, times the first factor, minus the second."""
    for c in range(raw_CHW.shape[0]):
        fill, scale, shift = fill_C[c], factors_2C[0, c], factors_2C[1, c]
        for y in range(raw_CHW.shape[1]):
            raw, valid, out = raw_CHW[c, y], valid_HW[y], out_CHW[c, y]
            for x in range(raw_CHW.shape[2]):
                value = raw[x] if valid[x] else fill
                out[x] = np.float32(value) * scale - shift


@njit(nogil=True, cache=True)
def accumulate(
    band_KHW: NDArray[np.float32],
    to: tuple[int, int],
    scores_KHW: NDArray[np.float32],
    at: tuple[int, int],
    rows_H: NDArray[np.float32],
    columns_W: NDArray[np.float32],
) -> None:
    """Add the scores from ``at`` on, weighted by row and column, to the band from ``to`` on, in place."""
    width = columns_W.size
    for k in range(scores_KHW.shape[0]):
        for y in range(rows_H.size):
            band = band_KHW[k, to[0] + y, to[1] : to[1] + width]
            scores, weight = scores_KHW[k, at[0] + y, at[1] : at[1] + width], rows_H[y]
            for x in range(width):
                band[x] += scores[x] * (weight * columns_W[x])


@njit(nogil=True, cache=True)
def argmax(
    scores_KHW: NDArray[np.float32],
    at: tuple[int, int],
    valid_HW: NDArray[np.bool_],
    out_HW: NDArray[np.uint8],
) -> None:
    """Index of the largest score, the first among equals."""
    width = valid_HW.shape[1]
    best = np.empty(width, np.float32)
    for y in range(valid_HW.shape[0]):
        out, valid = out_HW[y], valid_HW[y]
        first = scores_KHW[0, at[0] + y, at[1] : at[1] + width]
        for x in range(width):
            best[x] = first[x]
            out[x] = 0
        for k in range(1, scores_KHW.shape[0]):
            scores = scores_KHW[k, at[0] + y, at[1] : at[1] + width]
            for x in range(width):
                larger = scores[x] > best[x]
                out[x] = np.uint8(k) if larger else out[x]
                best[x] = scores[x] if larger else best[x]
        for x in range(width):
            out[x] = out[x] if valid[x] else np.uint8(NODATA)


@njit(nogil=True, cache=True)
def at_least(
    scores_HW: NDArray[np.float32],
    at: tuple[int, int],
    valid_HW: NDArray[np.bool_],
    limit: float,
    out_HW: NDArray[np.uint8],
) -> None:
    """1 where the score is ``limit`` or more, else 0."""
    width = valid_HW.shape[1]
    for y in range(valid_HW.shape[0]):
        out, valid, scores = out_HW[y], valid_HW[y], scores_HW[at[0] + y, at[1] : at[1] + width]
        for x in range(width):
            above = np.uint8(1) if np.float64(scores[x]) >= limit else np.uint8(0)
            out[x] = above if valid[x] else np.uint8(NODATA)


@njit(inline="always")
def _exp(x: Any) -> Any:  # noqa: ANN401 - a scalar of numba's
    """E to the power of x <= 0 in single precision, off by 8e-8 of itself; the compiler vectorises it.

    By Cody and Waite's reduction and the polynomial of Cephes (S. Moshier, ``expf``).
    """
    x = max(x, np.float32(-87.0))
    # Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    n = (x * np.float32(1.44269504) + np.float32(12582912.0)) - np.float32(12582912.0)
    f = (x - n * np.float32(0.693359375)) - n * np.float32(-2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * f + np.float32(1.3981999507e-3)
    p = p * f + np.float32(8.3334519073e-3)
    p = p * f + np.float32(4.1665795894e-2)
    p = p * f + np.float32(1.6666665459e-1)
    p = p * f + np.float32(5.0000001201e-1)
    p = p * (f * f) + f + np.float32(1.0)
    bits = np.int32((np.int32(n) + np.int32(127)) << np.int32(23))
    return p * bits.view(np.float32)


@njit(nogil=True, cache=True)
def softmax_bytes(
    logits_KHW: NDArray[np.float32],
    at: tuple[int, int],
    valid_HW: NDArray[np.bool_],
    out_KHW: NDArray[np.uint8],
) -> None:
    """Softmax over K, each probability as a byte."""
    channels, width = logits_KHW.shape[0], valid_HW.shape[1]
    top, total = np.empty(width, np.float32), np.empty(width, np.float32)
    raised_KW = np.empty((channels, width), np.float32)
    for y in range(valid_HW.shape[0]):
        row = at[0] + y
        top[:] = logits_KHW[0, row, at[1] : at[1] + width]
        for k in range(1, channels):
            logits = logits_KHW[k, row, at[1] : at[1] + width]
            for x in range(width):
                top[x] = max(top[x], logits[x])
        total[:] = 0.0
        for k in range(channels):
            logits, raised = logits_KHW[k, row, at[1] : at[1] + width], raised_KW[k]
            for x in range(width):
                raised[x] = _exp(logits[x] - top[x])
                total[x] += raised[x]
        valid = valid_HW[y]
        for k in range(channels):
            out, raised = out_KHW[k, y], raised_KW[k]
            for x in range(width):
                share = np.uint8(raised[x] / total[x] * np.float32(LEVELS) + np.float32(0.5))
                out[x] = share if valid[x] else np.uint8(NODATA)


@njit(nogil=True, cache=True)
def sigmoid_bytes(
    logits_KHW: NDArray[np.float32],
    at: tuple[int, int],
    valid_HW: NDArray[np.bool_],
    out_KHW: NDArray[np.uint8],
) -> None:
    """Sigmoid of each score as a byte."""
    width = valid_HW.shape[1]
    for k in range(out_KHW.shape[0]):
        for y in range(out_KHW.shape[1]):
            out, valid = out_KHW[k, y], valid_HW[y]
            logits = logits_KHW[k, at[0] + y, at[1] : at[1] + width]
            for x in range(width):
                small = _exp(-abs(logits[x]))
                share = (np.float32(1.0) if logits[x] >= 0 else small) / (np.float32(1.0) + small)
                byte = np.uint8(share * np.float32(LEVELS) + np.float32(0.5))
                out[x] = byte if valid[x] else np.uint8(NODATA)


@njit(nogil=True, cache=True)
def probability_bytes(
    shares_KHW: NDArray[np.float32],
    at: tuple[int, int],
    valid_HW: NDArray[np.bool_],
    out_KHW: NDArray[np.uint8],
) -> None:
    """Probabilities as bytes; rounding may have left them a hair outside [0, 1]."""
    width = valid_HW.shape[1]
    for k in range(out_KHW.shape[0]):
        for y in range(out_KHW.shape[1]):
            out, valid = out_KHW[k, y], valid_HW[y]
            shares = shares_KHW[k, at[0] + y, at[1] : at[1] + width]
            for x in range(width):
                share = min(max(np.float64(shares[x]), 0.0), 1.0)
                out[x] = np.uint8(share * LEVELS + 0.5) if valid[x] else np.uint8(NODATA)


@njit(nogil=True, cache=True)
def count_values(values: NDArray[np.uint8], counts_V: NDArray[np.int64]) -> None:
    """Add how often each byte occurs in a flat array; four tables, so that equal neighbours do not wait."""
    tables = np.zeros((4, 256), np.int64)
    whole = values.size // 4 * 4
    for i in range(0, whole, 4):
        tables[0, values[i]] += 1
        tables[1, values[i + 1]] += 1
        tables[2, values[i + 2]] += 1
        tables[3, values[i + 3]] += 1
    for i in range(whole, values.size):
        tables[0, values[i]] += 1
    counts_V += tables.sum(axis=0)


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


@njit(nogil=True, cache=True)
def box_mean(raw_CHW: NDArray[np.integer], side: int, out_CHW: NDArray[np.integer]) -> None:
    """Mean of the ``side`` x ``side`` pixels around each, rounded down; at the borders, of those that exist.

    An even side reaches one pixel further down and right than up and left. Sums are in 64 bits: in its own
    type, nine pixels of 200 in uint8 would sum to 8. The time does not depend on the side.
    """
    before, after = (side - 1) // 2, side // 2
    channels, height, width = raw_CHW.shape
    sums = np.empty(width, np.int64)
    for c in range(channels):
        sums[:] = 0
        for y in range(-after, height):
            # Of the rows around row y, column by column: one row comes, one goes.
            if y + after < height:
                sums += raw_CHW[c, y + after]
            if y > before:
                sums -= raw_CHW[c, y - before - 1]
            if y < 0:
                continue
            rows = min(y + after, height - 1) - max(y - before, 0) + 1
            total = np.int64(0)
            for x in range(-after, width):
                total += sums[x + after] if x + after < width else 0
                total -= sums[x - before - 1] if x > before else 0
                if x >= 0:
                    columns = min(x + after, width - 1) - max(x - before, 0) + 1
                    out_CHW[c, y, x] = total // (rows * columns)
