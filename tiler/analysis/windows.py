"""Convolution and pooling: windows that slide along rows and columns, and their transposes."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from tiler.analysis.interval import Transposed, Window
from tiler.analysis.node import Link, Node, Step
from tiler.analysis.tensor import SPATIAL, Atom, Axis, Tensor, UnprovenError, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiler.analysis.interval import IndexMap
    from tiler.analysis.node import Rule

    Along = Callable[["Atom", "Sliding"], tuple["Axis", "IndexMap"]]


@dataclass(frozen=True, slots=True)
class Sliding:
    """A window along one axis: what the attributes of convolutions and poolings say."""

    kernel: int
    step: int = 1
    dilation: int = 1
    pads: tuple[int, int] = (0, 0)
    auto: str = "NOTSET"
    ceil: bool = False
    extra: int = 0
    """Output padding of a transposed convolution."""
    target: int | None = None
    """Output length of a transposed convolution where the graph gives it."""

    def __post_init__(self) -> None:
        if self.kernel < 1 or self.step < 1 or self.dilation < 1:
            raise UnprovenError("has a kernel, stride or dilation below 1 (not proven)")

    @property
    def span(self) -> int:
        """Elements from the first to the last that it reads."""
        return (self.kernel - 1) * self.dilation + 1

    def slide(self, length: int) -> tuple[int, int]:
        """Padding before, and number of results."""
        if self.auto.startswith("SAME"):
            count = -(-length // self.step)
            total = max((count - 1) * self.step + self.span - length, 0)
            return (total // 2 if self.auto == "SAME_UPPER" else -(-total // 2)), count
        before, after = (0, 0) if self.auto == "VALID" else self.pads
        room = length + before + after - self.span
        count = (-(-room // self.step) if self.ceil else room // self.step) + 1
        if self.ceil and (count - 1) * self.step >= length + before:
            count -= 1  # a window that would begin in the padding after the end is left out
        return before, count

    def spread(self, length: int) -> tuple[int, int]:
        """Padding cut off before, and number of results, of the transposed window."""
        full = self.step * (length - 1) + self.extra + self.span
        target = length * self.step if self.auto.startswith("SAME") else self.target
        if target is None:
            before, after = (0, 0) if self.auto == "VALID" else self.pads
            return before, full - before - after
        total = full - target
        return (total // 2 if self.auto == "SAME_UPPER" else total - total // 2), target


def _sliding(node: Node, k: int, count: int, kernel: tuple[int, ...]) -> Sliding:
    """The window along the ``k``-th of ``count`` axes."""
    pads = node.get("pads") or [0] * (2 * count)
    target = node.get("output_shape")
    return Sliding(
        kernel[k],
        (node.get("strides") or [1] * count)[k],
        (node.get("dilations") or [1] * count)[k],
        (pads[k], pads[k + count]),
        node.get("auto_pad", "NOTSET"),
        bool(node.get("ceil_mode", 0)),
        (node.get("output_padding") or [0] * count)[k],
        None if target is None else target[k],
    )


def _move(node: Node, kernel: tuple[int, ...], channels: int | None, along: Along) -> Step:
    """Slide along every axis from the third on."""
    x = node.tensor()
    count = len(x.axes) - 2
    if len(kernel) != count:
        raise UnprovenError(f"has a kernel of {len(kernel)} axes for a tensor of {len(x.axes)} (not proven)")
    if channels is not None and x.roles(1):
        raise UnprovenError(f"mixes all positions of the tile, {x.roles(1)} being its channels (not proven)")
    moved = [along(x.single(k + 2), _sliding(node, k, count, kernel)) for k in range(count)]
    result = Tensor(
        (x.axes[0], x.axes[1] if channels is None else plain(channels), *(axis for axis, _ in moved))
    )
    still = [Link(0, role, Window()) for role in x.roles(0, 1) if role in SPATIAL]
    links = [Link(0, axis[0].role, way) for axis, way in moved if axis[0].role in SPATIAL]
    return Step((result,), (*still, *links))


def _slid(atom: Atom, window: Sliding) -> tuple[Axis, IndexMap]:
    before, count = window.slide(atom.length)
    begin = _aligned(Fraction(window.span - window.step, 2) - before, window.step)
    axis = Atom(count, atom.role, atom.scale / window.step, atom.origin + begin / atom.scale)
    return (axis,), Window(window.span, window.step, before)


def _spread(atom: Atom, window: Sliding) -> tuple[Axis, IndexMap]:
    before, count = window.spread(atom.length)
    scale = atom.scale * window.step
    begin = _aligned(before - Fraction(window.span - window.step, 2), window.step)
    axis = Atom(count, atom.role, scale, atom.origin + begin / scale)
    return (axis,), Transposed(window.kernel, window.step, window.dilation, before)


def _aligned(shift: Fraction, step: int) -> Fraction:
    """A window whose centre lies in its own cell of ``step`` elements belongs to that cell."""
    return Fraction(0) if abs(shift) < Fraction(step, 2) else shift


def _weights(node: Node, i: int) -> tuple[int, ...]:
    weights = node.constant(i)
    if weights is None or weights.shape is None or len(weights.shape) < 3:
        raise UnprovenError("has weights that could not be worked out (not proven)")
    return weights.shape


def convolution(weights: int) -> Rule:
    """The rule of a convolution whose weights are that input."""

    def rule(node: Node) -> Step:
        shape = _weights(node, weights)
        return _move(node, shape[2:], shape[0], _slid)

    return rule


def transposed(node: Node) -> Step:
    """A transposed convolution: each element is spread over a window of results."""
    shape = _weights(node, 1)
    return _move(node, shape[2:], shape[1] * node.get("group", 1), _spread)


def pool(node: Node) -> Step:
    """The largest, or the mean, of a window. Positions (a second output) are not followed."""
    return _move(node, tuple(node.get("kernel_shape")), None, _slid)


def global_pool(node: Node) -> Step:
    """One value per channel, of the whole tile."""
    x = node.tensor()
    axes = range(2, len(x.axes))
    roles = x.roles(*axes)
    result = Tensor((*x.axes[:2], *(plain(1) for _ in axes)))
    links = tuple(Link(0, role, Window()) for role in result.roles() if role in SPATIAL)
    return Step((result,), links, ("averages over the whole tile",) if roles else ())


def local_response(node: Node) -> Step:
    """Divides by neighbouring channels."""
    x = node.tensor()
    if x.roles(1):
        raise UnprovenError("takes rows or columns for channels (not proven)")
    return Step((x,), tuple(Link(0, role, Window()) for role in x.roles() if role in SPATIAL))


RULES: Final[dict[str, Rule]] = {
    "AveragePool": pool,
    "Conv": convolution(1),
    "ConvInteger": convolution(1),
    "ConvTranspose": transposed,
    "GlobalAveragePool": global_pool,
    "GlobalLpPool": global_pool,
    "GlobalMaxPool": global_pool,
    "LRN": local_response,
    "LpPool": pool,
    "MaxPool": pool,
    "QLinearConv": convolution(3),
}
