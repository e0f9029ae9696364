"""What is known of a value at one size of the input: where its axes came from, or that it is a constant.

An axis is a product of atoms, outermost first, as in einops: ``(C/8, H, W)`` is one axis with three. So a
reshape is a regrouping of atoms, and rows and columns are still found after they were flattened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BATCH: Final = "N"
ROWS: Final = "H"
COLUMNS: Final = "W"
SPATIAL: Final = (ROWS, COLUMNS)
NAMES: Final = {BATCH: "batch", ROWS: "rows", COLUMNS: "columns"}


class UnprovenError(Exception):
    """A rule does not apply; its message says why, without the node's name."""


@dataclass(frozen=True, slots=True)
class Atom:
    """A factor of an axis."""

    length: int
    role: str = ""
    """`BATCH`, `ROWS`, `COLUMNS`, or none of them."""
    scale: Fraction = Fraction(1)
    """Elements per input pixel, of rows and columns."""
    origin: Fraction = Fraction(0)
    """Where element 0 begins, in input pixels."""


Axis = tuple[Atom, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value that depends on the image."""

    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        if any(atom.length < 1 for atom in self.atoms()):
            raise UnprovenError(f"has nothing left of its input, shape {self.shape}")
        roles = [atom.role for atom in self.atoms() if atom.role]
        if len(roles) != len(set(roles)):
            raise UnprovenError("relates positions of the tile to each other")

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(math.prod(atom.length for atom in axis) for axis in self.axes)

    def atoms(self) -> Iterator[Atom]:
        """All atoms, outermost first."""
        for axis in self.axes:
            yield from axis

    def roles(self, *axes: int) -> tuple[str, ...]:
        """What of batch, rows and columns these axes (all, if none are given) hold."""
        chosen = [self.axes[i] for i in axes] if axes else self.axes
        return tuple(atom.role for axis in chosen for atom in axis if atom.role)

    def atom(self, role: str) -> Atom | None:
        """The atom of a role."""
        return next((atom for atom in self.atoms() if atom.role == role), None)

    def single(self, i: int) -> Atom:
        """The one atom of axis ``i``."""
        if len(self.axes[i]) != 1:
            raise UnprovenError("works along an axis into which several were folded")
        return self.axes[i][0]

    def with_axis(self, i: int, axis: Axis) -> Tensor:
        """The same with another axis ``i``."""
        return replace(self, axes=(*self.axes[:i], axis, *self.axes[i + 1 :]))


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A value that does not depend on the pixels."""

    shape: tuple[int, ...] | None
    """None: not known."""
    array: NDArray[Any] | None = field(default=None, repr=False)
    """None: not worked out."""
    sized: bool = False
    """Whether it may depend on the size of the input."""


Value = Tensor | Constant


def plain(length: int) -> Axis:
    """An axis without a role."""
    return (Atom(length),)
