"""Which elements of a tensor, along one axis, a range of results depends on.

Each map answers for one operator: results ``first`` to ``last`` need elements ``first`` to ``last`` of what
it reads. Indices count from the tensor's own start and may lie outside it: there the operator pads.
Formulas follow the ONNX operator specification (https://onnx.ai/onnx/operators).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Interval:
    """Elements ``first`` to ``last``, both included.

    >>> Interval(0, 3).join(Interval(2, 9))
    Interval(first=0, last=9)
    """

    first: int
    last: int

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise ValueError(f"an interval is not empty, got {self.first} to {self.last}")

    def join(self, other: Interval) -> Interval:
        """The smallest interval that holds both."""
        return Interval(min(self.first, other.first), max(self.last, other.last))


class IndexMap(Protocol):
    """How an operator reads along one axis."""

    def sources(self, results: Interval) -> Interval | None:
        """The elements that the results depend on, None if on none."""


@dataclass(frozen=True, slots=True)
class Window:
    """Result i reads ``span`` elements from ``i * step - pad`` on: convolution, pooling, crop, padding.

    >>> Window(span=3, step=2, pad=1).sources(Interval(0, 0))
    Interval(first=-1, last=1)
    """

    span: int = 1
    step: int = 1
    pad: int = 0

    def sources(self, results: Interval) -> Interval:
        """See `IndexMap`."""
        first, last = (i * self.step - self.pad for i in (results.first, results.last))
        return Interval(first, last + self.span - 1)


IDENTITY = Window()
"""Result i reads element i."""


@dataclass(frozen=True, slots=True)
class Transposed:
    """Element j is spread over results ``j * step - pad + k * dilation``, k below ``kernel``.

    >>> Transposed(kernel=2, step=2).sources(Interval(0, 3))
    Interval(first=0, last=1)
    """

    kernel: int
    step: int
    dilation: int = 1
    pad: int = 0

    def sources(self, results: Interval) -> Interval | None:
        """See `IndexMap`."""
        found: Interval | None = None
        for k in range(self.kernel):
            shift = self.pad - k * self.dilation
            first = -(-(results.first + shift) // self.step)
            last = (results.last + shift) // self.step
            if first <= last:
                here = Interval(first, last)
                found = here if found is None else found.join(here)
        return found


@dataclass(frozen=True, slots=True)
class Repeated:
    """Results ``times * j`` to ``times * j + times - 1`` are made of element j: depth to space.

    >>> Repeated(2).sources(Interval(1, 4))
    Interval(first=0, last=2)
    """

    times: int

    def sources(self, results: Interval) -> Interval:
        """See `IndexMap`."""
        return Interval(results.first // self.times, results.last // self.times)


@dataclass(frozen=True, slots=True)
class Sampled:
    """Result i interpolates around ``i / scale + shift``.

    >>> Sampled(Fraction(2), Fraction(-1, 4), "linear").sources(Interval(0, 3))
    Interval(first=-1, last=2)
    """

    scale: Fraction
    """Results per element."""
    shift: Fraction
    mode: str
    """``linear``, ``cubic``, or the rounding of nearest: ``floor``, ``ceil``, ``round_prefer_floor``,
    ``round_prefer_ceil``."""
    antialias: bool = False

    def at(self, i: int) -> Fraction:
        """Where result i is sampled, in elements."""
        return i / self.scale + self.shift

    def sources(self, results: Interval) -> Interval:
        """See `IndexMap`."""
        # Sampling points repeat with a period; towards each end one period is enough.
        period = self.scale.numerator
        head = range(results.first, min(results.first + period, results.last) + 1)
        tail = range(max(results.last - period, results.first), results.last + 1)
        found = [self._around(self.at(i)) for i in {*head, *tail}]
        return Interval(min(first for first, _ in found), max(last for _, last in found))

    def on_edge(self) -> bool:
        """Whether a sampling point of nearest lies where rounding could go either way."""
        if self.mode in ("linear", "cubic"):
            return False
        edge = Fraction(0) if self.mode in ("floor", "ceil") else Fraction(1, 2)
        return any(self.at(i) % 1 == edge for i in range(self.scale.numerator))

    def _around(self, x: Fraction) -> tuple[int, int]:
        if self.mode not in ("linear", "cubic"):
            nearest = _ROUND[self.mode](x)
            return nearest, nearest
        if self.antialias and self.scale < 1:
            support = (1 if self.mode == "linear" else 2) / self.scale
            return math.ceil(x - support), math.floor(x + support)
        # On an element itself the weights of all others are zero.
        more = 1 if self.mode == "cubic" and x % 1 else 0
        return math.floor(x) - more, math.ceil(x) + more


_ROUND = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round_prefer_floor": lambda x: math.ceil(x - Fraction(1, 2)),
    "round_prefer_ceil": lambda x: math.floor(x + Fraction(1, 2)),
}
