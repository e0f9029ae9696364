"""Reshape as a regrouping of atoms, by which rows and columns are found again after they were flattened."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tiler.analysis.interval import IndexMap, Repeated, Window
from tiler.analysis.tensor import BATCH, SPATIAL, Atom, Axis, Tensor, UnprovenError

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(slots=True)
class Regrouping:
    """The atoms still to be placed, and how rows and columns were cut or lengthened on the way."""

    left: deque[Atom]
    ways: dict[str, IndexMap] = field(default_factory=dict)

    def axis(self, length: int) -> Axis:
        """The next axis of the result."""
        taken: list[Atom] = []
        missing = length
        while missing > 1:
            taken.append(self._take(missing))
            missing //= taken[-1].length
        if not taken and self.left and self.left[0].length == 1:
            taken.append(self.left.popleft())
        return self._merged(taken)

    def _take(self, missing: int) -> Atom:
        """The next atom, or as much of it as is missing."""
        if not self.left:
            raise UnprovenError("makes more elements than there are (not proven)")
        atom = self.left.popleft()
        if missing % atom.length == 0:
            return atom
        if atom.length % missing:
            raise UnprovenError("regroups rows or columns across each other (not proven)")
        inner = atom.length // missing
        self.left.appendleft(Atom(inner))
        if atom.role not in SPATIAL:
            return replace(atom, length=missing)
        self.ways[atom.role] = Window(inner, inner)
        return replace(atom, length=missing, scale=atom.scale / inner)

    def _merged(self, atoms: list[Atom]) -> Axis:
        """Atoms without a role are one; behind rows or columns they are finer rows or columns."""
        merged: list[Atom] = []
        for atom in atoms:
            if merged and not atom.role and merged[-1].role != BATCH:
                merged[-1] = self._finer(merged[-1], atom.length)
            elif atom.length > 1 or atom.role:
                merged.append(atom)
        return tuple(merged) or (Atom(1),)

    def _finer(self, atom: Atom, times: int) -> Atom:
        if atom.role not in SPATIAL:
            return replace(atom, length=atom.length * times)
        if times > 1:
            self.ways[atom.role] = Repeated(times)
        return replace(atom, length=atom.length * times, scale=atom.scale * times)


def regroup(x: Tensor, shape: Iterable[int]) -> tuple[Tensor, dict[str, IndexMap]]:
    """The tensor in another shape, and per role the map from its elements to those of ``x``.

    >>> x = Tensor(((Atom(8),), (Atom(6, "H"),), (Atom(4, "W"),)))
    >>> regroup(x, (8, 24))[0].roles(1)
    ('H', 'W')
    >>> regroup(regroup(x, (2, 96))[0], (8, 6, 4))[0] == x
    True
    """
    lone = [atom.role == BATCH and atom.length == 1 for atom in x.atoms()]
    atoms = [a for a, alone in zip(x.atoms(), lone, strict=True) if not alone and (a.length > 1 or a.role)]
    work = Regrouping(deque(atoms))
    axes = [work.axis(length) for length in shape]
    if any(atom.length > 1 for atom in work.left):
        raise UnprovenError("makes fewer elements than there are (not proven)")
    if any(lone) and axes and axes[0] == (Atom(1),):
        axes[0] = (Atom(1, BATCH),)
    return Tensor(tuple(axes)), work.ways
