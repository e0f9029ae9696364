"""What a network does to sizes, and how far it sees: integers only, nothing of PyTorch.

Worked out by walking from a block of scores back to the pixels that it depends on, one index map per layer
(`tiler.analysis.interval`), along the branch that sees farthest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiler.analysis.interval import Interval
from tiler.errors import UsageError
from tiler.grid import round_up

if TYPE_CHECKING:
    from tiler.analysis.interval import IndexMap


@dataclass(frozen=True, slots=True)
class Geometry:
    """Of one network. All lengths are those of input pixels, along rows and columns alike."""

    path: tuple[IndexMap, ...]
    """The layers that move or blur, from the scores back to the pixels."""
    stride: int
    """Total down-sampling."""
    scale: int = 1
    """Scores per pixel along an axis."""
    margin: int = 0
    """Pixels on each side that get no score: convolutions without padding."""
    residue: int = 0
    """Legal sizes are this modulo the stride."""
    least: int = 1
    """The smallest legal size."""
    any_size: bool = False
    """Whether sizes between multiples of the stride are legal too."""

    @property
    def reach(self) -> tuple[int, int]:
        """Pixels before and after a block of `stride` aligned pixels that its scores depend on."""
        found = Interval(0, self.stride * self.scale - 1)
        for layer in self.path:
            found = layer.sources(found) or found
        # Without padding, score 0 is that of pixel `margin`.
        return self.margin - found.first, found.last - self.margin - (self.stride - 1)

    @property
    def halo(self) -> int:
        """Pixels that a tile carries on each side of its core: the reach, up to a multiple of the stride."""
        return round_up(max(self.reach), self.stride)

    def out_size(self, n: int) -> int:
        """Rows of scores of an image of ``n`` rows; columns alike.

        Raises
        ------
        UsageError
            if the network does not take that size; names the nearest that it takes.
        """
        if n < self.least or (not self.any_size and n % self.stride != self.residue):
            raise UsageError(f"{self._rule()}, got {n}; the nearest are {self._nearest(n)}")
        return (n - 2 * self.margin) * self.scale

    def _rule(self) -> str:
        multiple = f"a multiple of {self.stride}" + (f" and {self.residue} more" if self.residue else "")
        kind = "any number of pixels" if self.any_size else f"{multiple} pixels"
        return f"each side of an image is {kind}, at least {self.least}"

    def _nearest(self, n: int) -> str:
        below = (n - self.residue) // self.stride * self.stride + self.residue
        sizes = {max(below, self.least), max(below + self.stride, self.least)}
        return " and ".join(map(str, sorted(sizes)))
