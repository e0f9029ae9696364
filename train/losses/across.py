"""Sums over all processes that train together.

A loss is a ratio of sums over the global batch. Each process knows its own share of the sums, so every
numerator and denominator passes through `summed` before it is divided. Then N processes compute the loss of
one process on the joined batch, and their gradients add up to its gradient. (A mean of N losses is something
else as soon as one process has more unknown pixels, or a class that the others lack.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import distributed

if TYPE_CHECKING:
    from torch import Tensor


def summed(part: Tensor) -> Tensor:
    """The sum of ``part`` over all processes; its gradient is that of the part of this process.

    In one process it is ``part`` itself. All processes call this equally often, in one order, and never
    twice on the way to one value.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return part
    total = part.detach().clone()
    distributed.all_reduce(total)
    return total + (part - part.detach())  # the bracket is zero, and carries the gradient


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``, both of one shape and summed over all processes; 0 where the whole is 0."""
    total_part, total_whole = summed(torch.stack([part, whole]))
    return divided(total_part, total_whole)


def divided(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``; 0 where the whole is 0, and no NaN in the gradient."""
    some = whole > 0
    return torch.where(some, part / torch.where(some, whole, 1), 0)
