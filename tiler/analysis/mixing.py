"""Operators that combine all elements of an axis: harmless along channels, not along rows and columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tiler.analysis.interval import IDENTITY
from tiler.analysis.node import Link, Node, Step, identity_links, same_place, words
from tiler.analysis.tensor import SPATIAL, Axis, Constant, Tensor, UnprovenError, Value, plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tiler.analysis.node import Rule


def _over(x: Tensor, axes: Iterable[int], verb: str) -> tuple[str, ...]:
    """Why it is not exact, if the axes hold rows, columns or the batch."""
    chosen = tuple(axes)
    roles = x.roles(*chosen) if chosen else ()
    if set(roles) & set(SPATIAL):
        return (f"{verb} the whole tile",)
    return (f"{verb} the {words(roles)}",) if roles else ()


def reduction(node: Node) -> Step:
    """One value of all along some axes."""
    x = node.tensor()
    given = node.integers("axes", 1)
    if not given and node.get("noop_with_empty_axes", 0):
        return same_place(node, x)
    axes = [a % len(x.axes) for a in given or range(len(x.axes))]
    return _reduced(node, axes, "averages over")


def arg_reduction(node: Node) -> Step:
    """The position of the largest or least along one axis."""
    return _reduced(node, [node.axis(0, len(node.tensor().axes))], "compares positions of")


def _reduced(node: Node, axes: list[int], verb: str) -> Step:
    x = node.tensor()
    if node.get("keepdims", 1):
        kept = [plain(1) if i in axes else axis for i, axis in enumerate(x.axes)]
    else:
        kept = [axis for i, axis in enumerate(x.axes) if i not in axes]
    return same_place(node, Tensor(tuple(kept)), *_over(x, axes, verb))


def top(node: Node) -> Step:
    """The k largest along one axis, and their positions."""
    x = node.tensor()
    axis = node.axis(-1, len(x.axes))
    k = node.integers("k", 1)
    if k is None:
        raise UnprovenError("has a number that could not be worked out (not proven)")
    return same_place(node, x.with_axis(axis, plain(k[0])), *_over(x, [axis], "compares positions of"))


def softmax(node: Node) -> Step:
    """Shares of a sum along one axis; before opset 13 along all from that one on."""
    x = node.tensor()
    rank = len(x.axes)
    if node.opset < 13:
        return same_place(node, x, *_over(x, range(node.axis(1, rank), rank), "sums over"))
    return same_place(node, x, *_over(x, [node.axis(-1, rank)], "sums over"))


def instance_norm(node: Node) -> Step:
    """Instance and group normalisation: mean and deviation of each channel of the tile."""
    x = node.tensor()
    return same_place(node, x, *_over(x, range(1, len(x.axes)), "averages over"))


def layer_norm(node: Node) -> Step:
    """Mean and deviation along all axes from one on."""
    x = node.tensor()
    rank = len(x.axes)
    reasons = _over(x, range(node.axis(-1, rank), rank), "averages over")
    return Step((x, *[None] * (node.outputs - 1)), identity_links(node, x), reasons)


def lp_norm(node: Node) -> Step:
    """Length along one axis."""
    x = node.tensor()
    return same_place(node, x, *_over(x, [node.axis(-1, len(x.axes))], "sums over"))


def mean_variance(node: Node) -> Step:
    """Mean and deviation along some axes."""
    x = node.tensor()
    return same_place(node, x, *_over(x, node.get("axes", [0, 2, 3]), "averages over"))


def matrix_product(second: int) -> Rule:
    """The rule of a product whose second factor is that input."""

    def rule(node: Node) -> Step:
        a, b = node.value(0), node.value(second)
        if a is None or b is None or a.shape is None or b.shape is None:
            raise UnprovenError("reads a constant that could not be worked out (not proven)")
        return _product(_axes(a), _axes(b), {0: a, second: b})

    return rule


def gemm(node: Node) -> Step:
    """A product of two matrices, each perhaps turned."""
    a, b = node.value(0), node.value(1)
    if a is None or b is None or a.shape is None or b.shape is None:
        raise UnprovenError("reads a constant that could not be worked out (not proven)")
    if isinstance(node.value(2), Tensor):
        raise UnprovenError("adds a matrix from the image (not proven)")
    left = _axes(a)[::-1] if node.get("transA", 0) else _axes(a)
    right = _axes(b)[::-1] if node.get("transB", 0) else _axes(b)
    return _product(left, right, {0: a, 1: b})


def _axes(value: Value) -> list[Axis]:
    return list(value.axes) if isinstance(value, Tensor) else [plain(n) for n in value.shape or ()]


def _product(a: list[Axis], b: list[Axis], factors: dict[int, Value]) -> Step:
    if len(a) < 2 or len(b) < 2:
        raise UnprovenError("multiplies by a vector (not proven)")
    between = Tensor((a[-1],)).roles() + Tensor((b[-2],)).roles()
    outer = Tensor((a[-2],)).roles() and Tensor((b[-1],)).roles()
    if not between and Tensor((a[-1],)).shape != Tensor((b[-2],)).shape:
        raise UnprovenError("multiplies matrices that do not fit at other sizes of the tile (not proven)")
    batch = _batch(a[:-2], b[:-2])
    # Of two sets of positions that are compared with each other, the first is followed.
    last = (plain(Tensor((b[-1],)).shape[0])) if outer else b[-1]
    result = Tensor((*batch, a[-2], last))
    return Step((result,), _links(factors, result), _mixing(bool(between), bool(outer), factors))


def _mixing(between: bool, outer: bool, factors: dict[int, Value]) -> tuple[str, ...]:
    if not between and not outer:
        return ()
    if any(isinstance(value, Constant) for value in factors.values()):
        return ("mixes all positions along rows or columns",)
    return ("is attention over the whole tile",)


def _batch(a: list[Axis], b: list[Axis]) -> list[Axis]:
    """The axes before the last two, stretched to each other."""
    rank = max(len(a), len(b))
    long = [[plain(1)] * (rank - len(axes)) + axes for axes in (a, b)]
    return [_stretched(one, two) for one, two in zip(*long, strict=True)]


def _stretched(one: Axis, two: Axis) -> Axis:
    if Tensor((two,)).shape == (1,):
        return one
    if Tensor((one,)).shape == (1,) or one == two:
        return two
    raise UnprovenError("multiplies tensors whose axes do not belong together (not proven)")


def _links(factors: dict[int, Value], result: Tensor) -> tuple[Link, ...]:
    return tuple(
        Link(i, role, IDENTITY)
        for i, value in factors.items()
        if isinstance(value, Tensor)
        for role in SPATIAL
        if value.atom(role) and result.atom(role)
    )


def attention(node: Node) -> Step:
    """Queries, keys and values in one operator."""
    x = node.tensor()
    return Step((x,), identity_links(node, x), ("is attention over the whole tile",))


REDUCTIONS: Final = """
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare
"""

RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(REDUCTIONS.split(), reduction),
    "ArgMax": arg_reduction,
    "ArgMin": arg_reduction,
    "Attention": attention,
    "Gemm": gemm,
    "GroupNormalization": instance_norm,
    "Hardmax": softmax,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "LogSoftmax": softmax,
    "LpNormalization": lp_norm,
    "MatMul": matrix_product(1),
    "MatMulInteger": matrix_product(1),
    "MeanVarianceNormalization": mean_variance,
    "QLinearMatMul": matrix_product(3),
    "RMSNormalization": layer_norm,
    "Softmax": softmax,
    "TopK": top,
}
