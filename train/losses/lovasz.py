"""The Lovasz extension of the Jaccard loss (Berman, Triki and Blaschko 2018, arXiv:1705.08790).

Per image: which error weighs how much follows from sorting all of them, and what lies in another process
cannot be sorted in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from train.losses.across import ratio

if TYPE_CHECKING:
    from torch import Tensor

    from train.losses.comparison import Comparison
    from train.losses.options import LossOptions


def lovasz(both: Comparison, options: LossOptions) -> Tensor:
    """Mean over images and classes: of probabilities if the classes exclude each other, else of hinges."""
    truth_NKP, known_NKP = (x.expand_as(both.logits_NKHW).flatten(2) for x in (both.truth_NKHW, both.known))
    if both.exclusive:
        errors_NKP = (truth_NKP - both.shares.flatten(2)).abs()
    else:
        errors_NKP = (1 - both.logits_NKHW.flatten(2) * (2 * truth_NKP - 1)).relu()
    losses_NK = _weighed(errors_NKP, truth_NKP, known_NKP)
    # An independent class may well be nowhere; among exclusive ones an absent class is left out.
    counted = known_NKP if options.dice_absent or not both.exclusive else truth_NKP
    counts_NK = (counted.amax(dim=2) > 0).float()
    return ratio((losses_NK * counts_NK).sum(), counts_NK.sum())


def _weighed(errors_NKP: Tensor, truth_NKP: Tensor, known_NKP: Tensor) -> Tensor:
    """Errors times `jaccard_weights`, summed over pixels; unknown ones are sorted behind all others."""
    order_NKP = torch.where(known_NKP > 0, errors_NKP.detach(), -1).argsort(dim=2, descending=True)
    weights_NKP = jaccard_weights(truth_NKP.gather(2, order_NKP))
    return ((errors_NKP * known_NKP).gather(2, order_NKP) * weights_NKP).sum(dim=2)


def jaccard_weights(truth_NKP: Tensor) -> Tensor:
    """By how much the Jaccard loss grows with each further pixel that is wrong, in this order; sums to 1.

    >>> jaccard_weights(torch.tensor([[[0.0, 1.0]]])).tolist()
    [[[0.5, 0.5]]]
    """
    total = truth_NKP.sum(dim=2, keepdim=True)
    intersection = total - truth_NKP.cumsum(dim=2)
    union = total + (1 - truth_NKP).cumsum(dim=2)
    loss = 1 - intersection / union
    return loss.diff(dim=2, prepend=torch.zeros_like(total))
