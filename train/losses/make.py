"""From the name of a loss to the loss.

ce                 cross entropy of exclusive classes
bce                cross entropy of independent classes
focal              either, with what is learnt weighing less
dice               soft Dice per class, pooled over the batch
dice-image         soft Dice per image and class
dice-micro         soft Dice of everything at once
lovasz             Lovasz softmax, or Lovasz hinge of independent classes, per image
boundary-gradient  Dice of the steps between neighbours
boundary-band      cross entropy in the band around an edge, plus that in the rest
boundary-edge      cross entropy of edges, where there are some plus where there are none
boundary-distance  probability times signed distance to the edge
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from train.losses import boundary, overlap, pixelwise
from train.losses.comparison import compare
from train.losses.lovasz import lovasz

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from train.losses.comparison import Comparison
    from train.losses.options import LossOptions

FUNCTIONS: Final[Mapping[str, Callable[[Comparison, LossOptions], Tensor]]] = {
    "ce": pixelwise.cross_entropy,
    "bce": pixelwise.cross_entropy,
    "focal": pixelwise.focal,
    "dice": overlap.dice,
    "dice-image": overlap.dice_image,
    "dice-micro": overlap.dice_micro,
    "lovasz": lovasz,
    "boundary-gradient": boundary.boundary_gradient,
    "boundary-band": boundary.boundary_band,
    "boundary-edge": boundary.boundary_edge,
    "boundary-distance": boundary.boundary_distance,
}
"""What computes each of `train.losses.options.TERMS`."""


class Loss(Protocol):
    """What training minimises."""

    def __call__(self, logits_NKHW: Tensor, target: Tensor, weight_NHW: Tensor) -> Tensor:
        """A scalar over the batches of all processes; 0, with zero gradients, if no pixel is known.

        Target and weights are as `train.losses.comparison.compare` has them. The weights are those of
        ``ce``, ``bce`` and ``focal``; overlaps and edges have none.
        """


def make_loss(options: LossOptions) -> Loss:
    """The sum of weighted terms that the options name."""
    terms = [(factor, FUNCTIONS[name]) for factor, name in options.terms]

    def loss(logits_NKHW: Tensor, target: Tensor, weight_NHW: Tensor) -> Tensor:
        both = compare(logits_NKHW, target, weight_NHW, exclusive=options.activation == "softmax")
        first, *rest = (factor * term(both, options) for factor, term in terms)
        return sum(rest, start=first)

    return loss
