"""Operators that make each element of what lies at the same place: exact with any tile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tiler.analysis.node import Node, Step, identity_links, same_place, words
from tiler.analysis.tensor import Axis, Constant, Tensor, UnprovenError, Value, plain

if TYPE_CHECKING:
    from tiler.analysis.node import Rule


def pointwise(node: Node) -> Step:
    """All inputs are stretched to one shape, as numpy does."""
    used = [value for value in node.inputs if value is not None]
    if any(value.shape is None for value in used):
        raise UnprovenError("reads a constant that could not be worked out (not proven)")
    rank = max(len(value.shape or ()) for value in used)
    joined = [_join([_axis(value, i - rank) for value in used]) for i in range(rank)]
    result = Tensor(tuple(axis for axis, _ in joined))
    reasons = dict.fromkeys(reason for _, reason in joined if reason)
    return same_place(node, result, *reasons)


def _axis(value: Value, i: int) -> tuple[Axis, bool]:
    """Axis ``i``, counted from the back, and whether it is of a constant."""
    if isinstance(value, Constant):
        shape = value.shape or ()
        return plain(shape[i]) if -i <= len(shape) else plain(1), True
    return (value.axes[i] if -i <= len(value.axes) else plain(1)), False


def _join(axes: list[tuple[Axis, bool]]) -> tuple[Axis, str]:
    """The axis that all are stretched to, and what is wrong with it."""
    long = [(axis, constant) for axis, constant in axes if axis != plain(1)]
    if not long:
        return plain(1), ""
    named = [axis for axis, _ in long if any(atom.role for atom in axis)]
    result = named[0] if named else long[0][0]
    lengths = {Tensor((axis,)).shape for axis, _ in long} - {(1,)}
    if len(lengths) > 1:
        raise UnprovenError(
            "joins tensors that do not fit each other at other sizes of the tile (not proven)"
        )
    if any(axis != result and _scales(axis) != _scales(result) for axis in named):
        raise UnprovenError("joins tensors whose axes do not belong together (not proven)")
    bare = [constant for axis, constant in long if axis not in named]
    if not named or not bare:
        return result, ""
    roles = words(Tensor((result,)).roles())
    if all(bare):
        return result, f"uses a constant that varies along {roles}"
    return result, f"joins {roles} with values that were not followed (not proven)"


def _scales(axis: Axis) -> list[tuple[object, ...]]:
    return [(atom.role, atom.scale, atom.length) for atom in axis]


def keeps_first(node: Node) -> Step:
    """Only the first input is data; the others are parameters without extent."""
    for i in range(1, len(node.inputs)):
        node.constant(i)
    return same_place(node, node.tensor())


def dropout(node: Node) -> Step:
    """Does nothing, unless it was exported in training mode."""
    mode = node.array(2)
    training = (mode is not None and bool(mode.any())) or not node.get("is_test", 1)
    reasons = ("is in training mode, so its result is random",) if training else ()
    return same_place(node, node.tensor(), *reasons)


def batch_norm(node: Node) -> Step:
    """With stored statistics, a factor and a summand per channel."""
    training = node.get("training_mode", 0) or not node.get("is_test", 1) or node.outputs > 1
    reasons = ("is in training mode: it averages over the whole tile",) if training else ()
    if node.tensor().roles(1) or not node.get("spatial", 1):
        raise UnprovenError("takes rows or columns for channels (not proven)")
    return same_place(node, node.tensor(), *reasons)


def quantize(node: Node) -> Step:
    """To or from integers by a scale for the tensor or for each channel."""
    x = node.tensor()
    scale = node.constant(1)
    if scale is None or scale.shape is None:
        raise UnprovenError("has a scale that could not be worked out (not proven)")
    if scale.shape not in ((), (1,)) and (len(scale.shape) > 1 or x.roles(node.axis(1, len(x.axes)))):
        raise UnprovenError("has scales that vary along rows or columns (not proven)")
    return same_place(node, x)


def dynamic_quantize(node: Node) -> Step:
    """Its scale comes from the least and the largest element."""
    scalar = Tensor(())
    result = node.tensor()
    return Step((result, scalar, scalar), identity_links(node, result), ("scales by the whole tile's range",))


ELEMENTWISE: Final = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr
    BitwiseXor Ceil Celu Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual
    HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul
    Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus
    Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor
"""
FIRST_ONLY: Final = ("Cast", "CastLike", "Clip", "Identity")

RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(ELEMENTWISE.split(), pointwise),
    **dict.fromkeys(FIRST_ONLY, keeps_first),
    "BatchNormalization": batch_norm,
    "DequantizeLinear": quantize,
    "Dropout": dropout,
    "DynamicQuantizeLinear": dynamic_quantize,
    "QuantizeLinear": quantize,
}
