"""How much more the pixels between objects count, see `train.data.weightmap`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from tiler.errors import UsageError

REACH: Final = 5.0
"""Gaps wider than so many sigmas add less than 4e-6 of w0, and nothing is added for them."""


@dataclass(frozen=True, slots=True)
class Gaps:
    """How much more the gaps count."""

    border: float = 10.0
    """w0: added in a gap of no width."""
    sigma: float = 5.0
    """Pixels."""

    def __post_init__(self) -> None:
        if not 0 < self.border < math.inf:
            raise UsageError(f"--border-weight is above 0, or 0 for none, got {self.border}")
        if not 0 < self.sigma <= 100:
            raise UsageError(f"--border-sigma is pixels, above 0 and at most 100, got {self.sigma}")

    @property
    def reach(self) -> int:
        """Pixels around an object in which it adds to a weight."""
        return math.ceil(REACH * self.sigma)
