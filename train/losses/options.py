"""What a loss is told, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from tiler.errors import UsageError

ACTIVATIONS: Final = ("softmax", "sigmoid")
TERMS: Final = (
    "ce",
    "bce",
    "focal",
    "dice",
    "dice-image",
    "dice-micro",
    "lovasz",
    "boundary-gradient",
    "boundary-band",
    "boundary-edge",
    "boundary-distance",
)
"""Names of the terms; `train.losses.make` says what each is."""
BY_PIXEL: Final = ("ce", "bce", "focal")
"""Those that weights of pixels and of classes go into."""


@dataclass(frozen=True, slots=True)
class LossOptions:
    """What is minimised."""

    loss: str = "ce+dice"
    """A sum of `TERMS`, each with a factor in front if it is not 1: ``0.5*bce+dice-image``."""
    activation: str = "softmax"
    """``softmax``: every pixel is of one class. ``sigmoid``: of any number of them, or yes or no for one."""
    class_weights: tuple[float, ...] = ()
    """Of each class, in ``ce``, ``bce`` and ``focal``; empty: all 1. Under sigmoid they weigh the pixels that
    are of the class, and a single channel has one."""
    focal_gamma: float = 2.0
    """How fast ``focal`` forgets what is learnt: 0 (then it is the cross entropy), or at least 1."""
    dice_smooth: float = 0.0
    """Added to the numerator and the denominator of every Dice, in pixels."""
    dice_absent: bool = False
    """Whether a class that does not occur in the truth counts in Dice and Lovasz, or is left out."""

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"--activation is one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        names = [name for _, name in self.terms]
        if self.activation == "sigmoid" and "ce" in names:
            raise UsageError(f"ce is of exclusive classes, got sigmoid; use bce instead in {self.loss!r}")
        if self.activation == "softmax" and "bce" in names:
            raise UsageError(
                f"bce is of independent classes, got softmax; use ce in {self.loss!r} or --activation sigmoid"
            )
        if any(not 0 <= w < math.inf for w in self.class_weights) or (
            self.class_weights and not any(self.class_weights)
        ):
            raise UsageError(f"--class-weights are at least 0 and not all 0, got {self.class_weights}")
        if self.focal_gamma != 0 and not 1 <= self.focal_gamma < math.inf:
            # Between 0 and 1 the slope is infinite where the network is certain.
            raise UsageError(f"--focal-gamma is 0 or at least 1, got {self.focal_gamma}")
        if not 0 <= self.dice_smooth < math.inf:
            raise UsageError(f"--dice-smooth is at least 0, got {self.dice_smooth}")

    @property
    def terms(self) -> tuple[tuple[float, str], ...]:
        """(factor, name) of each term.

        >>> LossOptions("0.5*bce + dice-image", "sigmoid").terms
        ((0.5, 'bce'), (1.0, 'dice-image'))
        """
        return tuple(_term(text.strip(), self.loss) for text in self.loss.split("+"))

    @property
    def by_pixel(self) -> bool:
        """Whether weights of pixels and of classes have an effect."""
        return any(name in BY_PIXEL for _, name in self.terms)

    def check_channels(self, channels: int) -> None:
        """Refuse class weights that do not go with the network's number of channels.

        Raises
        ------
        UsageError
            saying how many there should be.
        """
        if self.class_weights and len(self.class_weights) != channels:
            raise UsageError(
                f"--class-weights has one value per class that is scored ({channels}), "
                f"got {len(self.class_weights)}"
            )


def _term(text: str, loss: str) -> tuple[float, str]:
    factor_text, star, name = text.rpartition("*")
    try:
        factor = float(factor_text) if star else 1.0
    except ValueError:
        factor = math.nan
    if name.strip() not in TERMS or not 0 < factor < math.inf:
        raise UsageError(f"--loss is a sum like 0.5*bce+dice of {', '.join(TERMS)}; got {text!r} in {loss!r}")
    return factor, name.strip()
