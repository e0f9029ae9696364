"""The kernels once more in numpy: slower, obvious, and the reference that they are tested against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tiler.kernels import LEVELS, NODATA

if TYPE_CHECKING:
    from numpy.typing import NDArray


def accumulate(
    band_KHW: NDArray[np.float32],
    scores_KHW: NDArray[np.float32],
    rows_H: NDArray[np.float32],
    columns_W: NDArray[np.float32],
) -> None:
    """Add the scores, weighted by row and column, to the band in place."""
    band_KHW += scores_KHW * (rows_H[:, None] * columns_W)


def argmax(scores_KHW: NDArray[np.float32], valid_HW: NDArray[np.bool_], out_HW: NDArray[np.uint8]) -> None:
    """Index of the largest score, the first among equals."""
    out_HW[...] = np.where(valid_HW, scores_KHW.argmax(axis=0), NODATA)


def at_least(
    scores_HW: NDArray[np.float32], valid_HW: NDArray[np.bool_], limit: float, out_HW: NDArray[np.uint8]
) -> None:
    """1 where the score is ``limit`` or more, else 0."""
    out_HW[...] = np.where(valid_HW, scores_HW.astype(np.float64) >= limit, NODATA)


def softmax_bytes(
    logits_KHW: NDArray[np.float32], valid_HW: NDArray[np.bool_], out_KHW: NDArray[np.uint8]
) -> None:
    """Softmax over K, each probability as a byte."""
    raised = np.exp(logits_KHW.astype(np.float64) - logits_KHW.max(axis=0))
    _bytes(raised / raised.sum(axis=0), valid_HW, out_KHW)


def sigmoid_bytes(
    logits_KHW: NDArray[np.float32], valid_HW: NDArray[np.bool_], out_KHW: NDArray[np.uint8]
) -> None:
    """Sigmoid of each score as a byte."""
    _bytes(1 / (1 + np.exp(-logits_KHW.astype(np.float64))), valid_HW, out_KHW)


def probability_bytes(
    shares_KHW: NDArray[np.float32], valid_HW: NDArray[np.bool_], out_KHW: NDArray[np.uint8]
) -> None:
    """Probabilities as bytes; rounding may have left them a hair outside [0, 1]."""
    _bytes(np.clip(shares_KHW.astype(np.float64), 0, 1), valid_HW, out_KHW)


def _bytes(shares_KHW: NDArray[np.float64], valid_HW: NDArray[np.bool_], out_KHW: NDArray[np.uint8]) -> None:
    out_KHW[...] = np.where(valid_HW, np.floor(shares_KHW * LEVELS + 0.5), NODATA)
