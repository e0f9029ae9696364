"""The network walked backward from a block of scores: what a tile must hold around its core."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from tiler.analysis.interval import Interval
from tiler.analysis.tensor import Atom, Tensor

if TYPE_CHECKING:
    from tiler.analysis.trace import Trace


def reach(trace: Trace, result: str, role: str) -> tuple[Fraction, Fraction]:
    """Pixels before and after a core that its scores depend on.

    The core is one stride long and begins where its scores would, were nothing lost at the edges. A score is
    what it is in the whole image if every element it depends on, in every tensor on the way, lies inside
    its tensor: outside, the network pads, which at a tile's edge is not what lies there.
    """
    stride = trace.stride(role)
    rooms = [
        _room(trace, atom, interval, stride)
        for name, interval in dependence(trace, result, role).items()
        if (atom := _atom(trace, name, role))
    ]
    before, after = zip((Fraction(0), Fraction(0)), *rooms, strict=True)
    return max(before), max(after)


def dependence(trace: Trace, result: str, role: str) -> dict[str, Interval]:
    """The elements of every tensor that the first stride of scores depends on, by name."""
    found = {result: _core(trace, result, role)}
    for operator, step in reversed(trace.steps):
        here = _joined(*(found.get(name) for name in operator.outputs))
        for link in step.links:
            name = operator.inputs[link.source]
            if here and link.role == role and (read := link.way.sources(here)):
                found[name] = read.join(found[name]) if name in found else read
    return found


def _room(trace: Trace, atom: Atom, interval: Interval, stride: int) -> tuple[Fraction, Fraction]:
    """Pixels that a tile must have before and after the core for these elements to be in their tensor."""
    short = trace.size[atom.role] - atom.length / atom.scale
    return -interval.first / atom.scale, (interval.last + 1) / atom.scale + short - stride


def _atom(trace: Trace, name: str, role: str) -> Atom | None:
    value = trace.values[name]
    return value.atom(role) if isinstance(value, Tensor) else None


def _core(trace: Trace, result: str, role: str) -> Interval:
    atom = _atom(trace, result, role)
    scale = Fraction(1) if atom is None else atom.scale
    return Interval(0, int(scale * trace.stride(role)) - 1)


def _joined(*intervals: Interval | None) -> Interval | None:
    found = [interval for interval in intervals if interval]
    return Interval(min(i.first for i in found), max(i.last for i in found)) if found else None


def margins(trace: Trace, role: str) -> tuple[int, int]:
    """Scores that are missing at the start and at the end, in output pixels."""
    atom = trace.result.atom(role) if trace.result else None
    if atom is None:
        return 0, 0
    missing = math.floor(trace.size[role] * atom.scale) - atom.length
    # A network that returns a score per pixel returns it for that pixel, however lopsided its windows are.
    before = max(min(math.floor(atom.origin * atom.scale), max(missing, 0)), min(missing, 0))
    return before, missing - before
