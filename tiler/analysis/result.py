"""What the analysis says: along each axis, and in all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from tiler.errors import UsageError


@dataclass(frozen=True, slots=True)
class AxisReach:
    """What tiles must be like along rows or columns, so that their scores equal those of the whole image.

    A tile and the whole image are both ``residue`` modulo ``stride`` pixels long, and tiles start at
    multiples of the stride. Scores at least ``before`` pixels from a tile's start and ``after`` from its end
    are those of the whole image; at the image's own edges nothing need be left out.
    """

    stride: int
    """Total down-sampling, in input pixels."""
    before: int
    """Halo before a core that begins on a multiple of the stride, in input pixels (the margin included)."""
    after: int
    """Halo after a core that ends on a multiple of the stride, in input pixels (the margin included)."""
    margin_before: int = 0
    """Scores that the network does not return at the start, in output pixels: convolutions without padding.
    Score 0 of a tile belongs to input pixel ``margin_before / scale`` of it. With a margin the core's edges
    are counted from there."""
    margin_after: int = 0
    """The same at the end."""
    scale: Fraction = Fraction(1)
    """Scores per input pixel."""
    residue: int = 0
    """Legal lengths are this modulo ``stride``."""
    smallest: int = 1
    """The smallest legal length, in input pixels."""

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise UsageError(f"stride is at least 1, got {self.stride}")
        if self.before < 0 or self.after < 0:
            raise UsageError(f"a halo is at least 0, got {self.before} and {self.after}")
        if not 0 <= self.residue < self.stride:
            raise UsageError(f"residue is from 0 to {self.stride - 1}, got {self.residue}")
        if self.scale <= 0:
            raise UsageError(f"scale is above 0, got {self.scale}")

    def legal(self, length: int) -> bool:
        """Whether a tile may be so many pixels long."""
        return length >= self.smallest and length % self.stride == self.residue

    def scores(self, length: int) -> int:
        """Scores that a tile of so many pixels returns."""
        return int(length * self.scale) - self.margin_before - self.margin_after


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was proven of a network."""

    rows: AxisReach | None
    """None: the network could not be followed to its end. If it is not exact: how far its windows see."""
    columns: AxisReach | None
    reasons: tuple[str, ...] = ()
    """Why tiles do not equal the whole image, a line each; empty if they do."""

    def __post_init__(self) -> None:
        if not self.reasons and (self.rows is None or self.columns is None):
            raise UsageError("an analysis without a reason has rows and columns")

    @property
    def exact(self) -> bool:
        """Whether tiles with this halo equal the whole image."""
        return not self.reasons

    @property
    def stride(self) -> int | None:
        """Input pixels that tile starts are multiples of, along both axes."""
        if self.rows is None or self.columns is None:
            return None
        return math.lcm(self.rows.stride, self.columns.stride)

    @property
    def smallest(self) -> int:
        """The smallest length that is legal along both axes, as far as is known."""
        return max((axis.smallest for axis in (self.rows, self.columns) if axis is not None), default=1)

    @property
    def halo(self) -> int | None:
        """Input pixels that suffice on every side of a core."""
        if self.rows is None or self.columns is None:
            return None
        return max(side for axis in (self.rows, self.columns) for side in (axis.before, axis.after))
