"""The kernels once more in numpy: slower, obvious, and the reference that they are tested against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tiler.kernels import LEVELS, NODATA

if TYPE_CHECKING:
    from numpy.typing import NDArray


def feed(
    raw_CHW: NDArray[Any],
    valid_HW: NDArray[np.bool_],
    fill_C: NDArray[Any],
    factors_2C: NDArray[np.float32],
    out_CHW: NDArray[np.float32],
) -> None:
    """Raw pixels, or the fill where they are not valid, times the first factor, minus the second."""
    filled_CHW = np.where(valid_HW, raw_CHW, fill_C[:, None, None])
    out_CHW[...] = filled_CHW.astype(np.float32)
    out_CHW *= factors_2C[0][:, None, None]
    out_CHW -= factors_2C[1][:, None, None]


def accumulate(
    band_KHW: NDArray[np.float32],
    to: tuple[int, int],
    scores_KHW: NDArray[np.float32],
    at: tuple[int, int],
    rows_H: NDArray[np.float32],
    columns_W: NDArray[np.float32],
) -> None:
    """Add the scores from ``at`` on, weighted by row and column, to the band from ``to`` on, in place."""
    weights_HW = rows_H[:, None] * columns_W
    part(band_KHW, to, weights_HW)[...] += part(scores_KHW, at, weights_HW) * weights_HW


def argmax(
    scores_KHW: NDArray[np.float32],
    at: tuple[int, int],
    valid_HW: NDArray[np.bool_],
    out_HW: NDArray[np.uint8],
) -> None:
    """Index of the largest score, the first among equals."""
    out_HW[...] = np.where(valid_HW, part(scores_KHW, at, valid_HW).argmax(axis=0), NODATA)


def at_least(
    scores_HW: NDArray[np.float32],
    at: tuple[int, int],
    valid_HW: NDArray[np.bool_],
    limit: float,
    out_HW: NDArray[np.uint8],
) -> None:
    """1 where the score is ``limit`` or more, else 0."""
    out_HW[...] = np.where(valid_HW, part(scores_HW, at, valid_HW).astype(np.float64) >= limit, NODATA)


def softmax_bytes(
    logits_KHW: NDArray[np.float32],
    at: tuple[int, int],
    valid_HW: NDArray[np.bool_],
    out_KHW: NDArray[np.uint8],
) -> None:
    """Softmax over K, each probability as a byte."""
    part_KHW = part(logits_KHW, at, valid_HW)
    raised = np.exp(part_KHW.astype(np.float64) - part_KHW.max(axis=0))
    _bytes(raised / raised.sum(axis=0), valid_HW, out_KHW)


def sigmoid_bytes(
    logits_KHW: NDArray[np.float32],
    at: tuple[int, int],
    valid_HW: NDArray[np.bool_],
    out_KHW: NDArray[np.uint8],
) -> None:
    """Sigmoid of each score as a byte."""
    part_KHW = part(logits_KHW, at, valid_HW)
    _bytes(1 / (1 + np.exp(-part_KHW.astype(np.float64))), valid_HW, out_KHW)


def probability_bytes(
    shares_KHW: NDArray[np.float32],
    at: tuple[int, int],
    valid_HW: NDArray[np.bool_],
    out_KHW: NDArray[np.uint8],
) -> None:
    """Probabilities as bytes; rounding may have left them a hair outside [0, 1]."""
    _bytes(np.clip(part(shares_KHW, at, valid_HW).astype(np.float64), 0, 1), valid_HW, out_KHW)


def count_values(values: NDArray[np.uint8], counts_V: NDArray[np.int64]) -> None:
    """Add how often each byte occurs in a flat array."""
    counts_V += np.bincount(values, minlength=256)


def part(whole: NDArray[Any], at: tuple[int, int], like: NDArray[Any]) -> NDArray[Any]:
    """The rows and columns from ``at`` on, as many as ``like`` has."""
    height, width = like.shape
    return whole[..., at[0] : at[0] + height, at[1] : at[1] + width]


def _bytes(shares_KHW: NDArray[np.float64], valid_HW: NDArray[np.bool_], out_KHW: NDArray[np.uint8]) -> None:
    out_KHW[...] = np.where(valid_HW, np.floor(shares_KHW * LEVELS + 0.5), NODATA)
