"""Which sizes a network takes, and whether it does the same at all of them."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from tiler.analysis.reach import margins
from tiler.analysis.tensor import COLUMNS, ROWS, SPATIAL, Atom, Tensor
from tiler.analysis.trace import Size, Trace, follow

if TYPE_CHECKING:
    from tiler.analysis.graph import Network

FIRST: Final = {ROWS: 3840, COLUMNS: 5760}
"""Where strides are read: every likely one divides both."""
NOMINAL: Final = 1024
"""About the side at which a network is looked at, in pixels: larger than halos usually are."""
SKEW: Final = 3
"""Columns are so many strides more than rows, so that one is not taken for the other."""
STEPS: Final = (1, 2, 7, 60)
"""Strides more at which it must do the same."""
LARGEST_STRIDE: Final = 256

Strides = dict[str, int]


def family(network: Network) -> tuple[Trace, Strides]:
    """The network at the size, of those about `NOMINAL`, at which it loses least; and its strides."""
    strides = dict.fromkeys(SPATIAL, 1)
    trace = follow(network, FIRST)
    for _ in range(4):  # what lies behind a misfit of sizes is seen once they fit
        found = {role: trace.stride(role) for role in SPATIAL}
        if max(found.values()) > LARGEST_STRIDE:
            break
        if found == strides and trace.size != FIRST:
            break
        strides = found
        trace = _best(network, strides)
    return trace, strides


def _size(strides: Strides, residues: Strides, more: int = 0) -> Size:
    """A size with these residues."""
    steps = {ROWS: more, COLUMNS: more + SKEW}
    return {r: (NOMINAL // strides[r] + steps[r]) * strides[r] + residues[r] % strides[r] for r in SPATIAL}


def _best(network: Network, strides: Strides) -> Trace:
    """Of all residues along each axis, those with which the scores cover most of the image."""
    first = follow(network, _size(strides, dict.fromkeys(SPATIAL, 0)))
    if _complete(first) and not any(map(any, (margins(first, role) for role in SPATIAL))):
        return first
    others = (dict.fromkeys(SPATIAL, residue) for residue in range(1, max(strides.values())))
    traces = [first, *(follow(network, _size(strides, residues)) for residues in others)]
    whole = [trace for trace in traces if _complete(trace)]
    if not whole:
        return first
    chosen = {role: min(whole, key=lambda t: _lost(t, role)).size[role] % strides[role] for role in SPATIAL}
    return follow(network, _size(strides, chosen))


def _complete(trace: Trace) -> bool:
    return trace.result is not None and set(SPATIAL) <= set(trace.result.roles())


def _lost(trace: Trace, role: str) -> int:
    return abs(sum(margins(trace, role)))


def unstable(network: Network, trace: Trace, strides: Strides) -> tuple[str, ...]:
    """What it does otherwise at other sizes, if anything: the first operator of which that is so."""
    for more in STEPS:
        size = {role: n + more * strides[role] for role, n in trace.size.items()}
        label = difference(trace, follow(network, size))
        if label is not None:
            return (f"{label} depends on the size of the tile in a way that was not followed (not proven)",)
    return ()


def difference(one: Trace, two: Trace) -> str | None:
    """The first operator that does not do the same in both, by its label."""
    strict = not one.reasons  # lengths of what is not rows nor columns matter only to a proof
    for (operator, a), (_, b) in zip(one.steps, two.steps, strict=True):
        same = (a.links, a.reasons, a.fixed) == (b.links, b.reasons, b.fixed)
        pairs = zip(a.outputs, b.outputs, strict=False)
        if not same or any(
            isinstance(x, Tensor) and _form(x, one.size, strict) != _form(y, two.size, strict)
            for x, y in pairs
        ):
            return operator.label
    return None


def _form(value: object, size: Size, strict: bool) -> object:
    """What a tensor has in common with its like at another size."""
    if not isinstance(value, Tensor):
        return None
    return tuple(tuple(_bare(atom, size, strict) for atom in axis) for axis in value.axes)


def _bare(atom: Atom, size: Size, strict: bool) -> object:
    if atom.role in SPATIAL:
        return atom.role, atom.scale, atom.origin, atom.length - atom.scale * size[atom.role]
    return atom.role, atom.length if strict else None


def smallest(network: Network, trace: Trace, strides: Strides, role: str) -> int:
    """The least size along one axis at which it does the same."""
    lengths = range(trace.size[role] % strides[role], trace.size[role] + 1, strides[role])

    def works(length: int) -> bool:
        return length > 0 and difference(trace, follow(network, {**trace.size, role: length})) is None

    return lengths[bisect_left(lengths, True, key=works)]
