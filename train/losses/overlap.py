"""Soft Dice losses: one minus twice the overlap over the sum of sizes, of probabilities and truth.

Unknown pixels are in neither overlap nor size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from train.losses.across import divided, ratio, summed

if TYPE_CHECKING:
    from torch import Tensor

    from train.losses.comparison import Comparison
    from train.losses.options import LossOptions


def dice(both: Comparison, options: LossOptions) -> Tensor:
    """Mean over classes, each pooled over the batch: a class that is rare in one image is not in all."""
    dice_K, counts_K = _dice(summed(_sums(both, (0, 2, 3))), options)
    return divided(((1 - dice_K) * counts_K).sum(), counts_K.sum())


def dice_image(both: Comparison, options: LossOptions) -> Tensor:
    """Mean over images and classes, each pair on its own."""
    dice_NK, counts_NK = _dice(_sums(both, (2, 3)), options)
    return ratio(((1 - dice_NK) * counts_NK).sum(), counts_NK.sum())


def dice_micro(both: Comparison, options: LossOptions) -> Tensor:
    """All classes and images in one sum; it hardly notices a rare class."""
    dice_, counts = _dice(summed(_sums(both, (0, 1, 2, 3))), options)
    return (1 - dice_) * counts


def _sums(both: Comparison, over: tuple[int, ...]) -> Tensor:
    """Overlap, both sizes, size of the truth, and number of known pixels, stacked."""
    shares_NKHW = both.shares * both.known
    truth = both.truth_NKHW.sum(over)
    return torch.stack(
        [
            (shares_NKHW * both.truth_NKHW).sum(over),
            shares_NKHW.sum(over) + truth,
            truth,
            both.known.expand_as(shares_NKHW).sum(over),
        ]
    )


def _dice(sums: Tensor, options: LossOptions) -> tuple[Tensor, Tensor]:
    """Dice, and 1 where it counts."""
    overlap, sizes, truth, known = sums
    counts = (known if options.dice_absent else truth) > 0
    return divided(2 * overlap + options.dice_smooth, sizes + options.dice_smooth), counts.float()
