"""Cross entropy plus soft Dice, under the old name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from train.data.target import IGNORE
from train.losses.make import make_loss
from train.losses.options import LossOptions

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["IGNORE", "segmentation_loss"]


def segmentation_loss(logits_NKHW: Tensor, target_NHW: Tensor) -> Tensor:
    """The sum of both; 0, with zero gradients, when no pixel is known."""
    ones_N11 = torch.ones(len(logits_NKHW), 1, 1, device=logits_NKHW.device)
    return make_loss(LossOptions())(logits_NKHW, target_NHW, ones_N11)
