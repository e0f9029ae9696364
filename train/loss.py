"""Cross entropy plus soft Dice, over the pixels whose class is known.

Cross entropy teaches every pixel; Dice keeps a rare class from drowning in a frequent one.
Shapes: N images, K classes, H rows, W columns. Targets are class indices, `IGNORE` where not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

IGNORE: Final = 255


def segmentation_loss(logits_NKHW: Tensor, target_NHW: Tensor) -> Tensor:
    """The sum of both; 0, with zero gradients, when no pixel is known."""
    return cross_entropy(logits_NKHW, target_NHW) + dice_loss(logits_NKHW, target_NHW)


def cross_entropy(logits_NKHW: Tensor, target_NHW: Tensor) -> Tensor:
    """Mean over known pixels."""
    total = functional.cross_entropy(logits_NKHW.float(), target_NHW, ignore_index=IGNORE, reduction="sum")
    return total / (target_NHW != IGNORE).sum().clamp(min=1)


def dice_loss(logits_NKHW: Tensor, target_NHW: Tensor) -> Tensor:
    """One minus the mean soft Dice of the classes that occur, each pooled over the batch."""
    known_NHW = target_NHW != IGNORE
    truth_NHWK = functional.one_hot(target_NHW * known_NHW, logits_NKHW.shape[1])
    truth_NKHW = (truth_NHWK * known_NHW[..., None]).movedim(-1, 1)
    share_NKHW = logits_NKHW.float().softmax(dim=1) * known_NHW[:, None]

    overlap_K = (share_NKHW * truth_NKHW).sum(dim=(0, 2, 3))
    truth_K = truth_NKHW.sum(dim=(0, 2, 3))
    dice_K = 2 * overlap_K / (share_NKHW.sum(dim=(0, 2, 3)) + truth_K).clamp(min=1e-6)

    present_K = truth_K > 0
    return ((1 - dice_K) * present_K).sum() / present_K.sum().clamp(min=1)
