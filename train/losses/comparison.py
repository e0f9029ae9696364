"""Logits beside the truth: what every term of a loss starts from.

Shapes: N images, K channels, H rows, W columns. Where a pixel is not known, ``known`` and ``truth`` are 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tiler.errors import UsageError
from train.data.target import IGNORE

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """One batch."""

    logits_NKHW: Tensor
    """float32, whatever the network computes in: the logarithm of a small float16 is infinite."""
    target: Tensor
    """As it came, (N, H, W) or (N, K, H, W)."""
    truth_NKHW: Tensor
    """1 where the pixel is of the class, float32."""
    known: Tensor
    """1 where the pixel counts, float32: (N, 1, H, W), or (N, K, H, W) where classes are independent."""
    weight_N1HW: Tensor
    """Of each pixel, or (N, 1, 1, 1)."""
    exclusive: bool
    """Whether a pixel is of one class (softmax), or of any number of them (sigmoid)."""

    @property
    def shares(self) -> Tensor:
        """Probabilities (N, K, H, W)."""
        return self.logits_NKHW.softmax(dim=1) if self.exclusive else self.logits_NKHW.sigmoid()

    @property
    def binary_logits(self) -> Tensor:
        """(N, K, H, W), of "this class" against "any other": their sigmoid is the probability."""
        if not self.exclusive:
            return self.logits_NKHW
        # log(p / (1 - p)) from probabilities would overflow where the network is certain.
        K = self.logits_NKHW.shape[1]
        others = [[j for j in range(K) if j != k] for k in range(K)]
        rest = [self.logits_NKHW[:, other].logsumexp(dim=1) for other in others]
        return self.logits_NKHW - torch.stack(rest, dim=1)


def compare(logits_NKHW: Tensor, target: Tensor, weight_NHW: Tensor, *, exclusive: bool) -> Comparison:
    """Lay logits and target beside each other.

    Parameters
    ----------
    logits_NKHW
        Of the network, any floating type.
    target
        Exclusive classes: index per pixel, (N, H, W). Independent ones: 0 or 1 per pixel and class,
        (N, K, H, W), or (N, H, W) for one. `IGNORE` where it is not known.
    weight_NHW
        Weight of each pixel, at least 0; or ones of shape (N, 1, 1).
    exclusive
        Whether the classes exclude each other.

    Raises
    ------
    UsageError
        if the shapes do not belong together.
    """
    target_NKHW = target[:, None] if target.ndim == 3 else target
    N, K, *sides = logits_NKHW.shape
    channels = 1 if exclusive else K
    if target_NKHW.shape != (N, channels, *sides):
        raise UsageError(
            f"a target has one value per pixel{'' if exclusive else ' and class'}, "
            f"got {tuple(target.shape)} for logits {tuple(logits_NKHW.shape)}"
        )
    known = target_NKHW != IGNORE
    classes = torch.arange(K, device=target.device)[:, None, None] if exclusive else 1
    truth_NKHW = (target_NKHW == classes).float()
    weight_N1HW = weight_NHW[:, None].float()
    return Comparison(logits_NKHW.float(), target, truth_NKHW, known.float(), weight_N1HW, exclusive)
