"""Losses that are a mean over pixels: cross entropy, its two-class form, and focal.

A pixel's weight in a mean is its weight in the map times, but for focal, the weight of its class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from train.data.target import IGNORE
from train.losses.across import ratio

if TYPE_CHECKING:
    from torch import Tensor

    from train.losses.comparison import Comparison
    from train.losses.options import LossOptions


def cross_entropy(both: Comparison, options: LossOptions) -> Tensor:
    """Weighted sum over known pixels, divided by the sum of weights (as PyTorch's; 0 if nothing is known)."""
    return _weighted_mean(_cost(both), both.weight_N1HW * _class_weights(both, options))


def focal(both: Comparison, options: LossOptions) -> Tensor:
    """Cross entropy times ``(1 - p)**gamma``, p the probability of what is true (Lin et al. 2017).

    Class weights stand outside p and are factors: the mean is over known pixels.
    """
    cost = _cost(both)
    forgotten = (1 - torch.exp(-cost)) ** options.focal_gamma
    return _weighted_mean(cost * forgotten * _class_weights(both, options), both.weight_N1HW * both.known)


def _cost(both: Comparison) -> Tensor:
    """Cross entropy of each pixel: (N, 1, H, W), or (N, K, H, W) where classes are independent."""
    if both.exclusive:
        return functional.cross_entropy(both.logits_NKHW, both.target, ignore_index=IGNORE, reduction="none")[
            :, None
        ]
    return functional.binary_cross_entropy_with_logits(both.logits_NKHW, both.truth_NKHW, reduction="none")


def _class_weights(both: Comparison, options: LossOptions) -> Tensor:
    """Shaped as `_cost`, 0 where it is not known."""
    if not options.class_weights:
        return both.known
    weights_K11 = torch.tensor(options.class_weights, device=both.known.device)[:, None, None]
    if both.exclusive:
        return (both.truth_NKHW * weights_K11).sum(dim=1, keepdim=True)
    return both.known * (1 + (weights_K11 - 1) * both.truth_NKHW)


def _weighted_mean(cost: Tensor, weight: Tensor) -> Tensor:
    # Where nothing is known the cost is any number: left out before it is multiplied.
    kept = torch.where(weight > 0, cost, 0)
    return ratio((kept * weight).sum(), weight.sum())
