"""Arithmetic on constants and shapes, such as exporters leave in a graph, worked out with numpy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx

from tiler.analysis.tensor import Constant, UnprovenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tiler.analysis.node import Node

    Array = NDArray[Any]

LARGEST: Final = 2**22
"""Elements of the largest constant that is worked out."""

KEEP_SHAPE: Final = ("DequantizeLinear", "QuantizeLinear", "Cast", "Identity")
"""Operators on large constants whose shape is that of what they read."""


def fold(node: Node) -> tuple[Constant, ...]:
    """The outputs of a node that reads constants only, or only the shape of its input.

    Raises
    ------
    UnprovenError
        if it makes something of the size of the tile in a way that is not known here.
    """
    sized = any(not isinstance(v, Constant) or v.sized for v in node.inputs if v is not None)
    if node.op in SHAPES:
        return (_constant(SHAPES[node.op](node), sized=_spatial(node)),)
    arrays = [value.array if isinstance(value, Constant) else None for value in node.inputs]
    known = all(a is not None for a, v in zip(arrays, node.inputs, strict=True) if v is not None)
    if not known or node.op not in FOLDS or sum(a.size for a in arrays if a is not None) > LARGEST:
        first = node.inputs[0] if node.op in KEEP_SHAPE else None
        return (Constant(None if first is None else first.shape, None, sized),) * node.outputs
    with np.errstate(all="ignore"):
        made = FOLDS[node.op](node, *arrays)
    return tuple(_constant(array, sized) for array in (made if isinstance(made, list) else [made]))


def _spatial(node: Node) -> bool:
    value = node.inputs[0]
    return not isinstance(value, Constant) or value.sized


def _constant(array: Array, sized: bool) -> Constant:
    array = np.asarray(array)
    return Constant(array.shape, array, sized)


def _shape_of(node: Node) -> tuple[int, ...]:
    value = node.inputs[0]
    if value is None or value.shape is None:
        raise UnprovenError("asks for a shape that is not known (not proven)")
    return value.shape


def _shape(node: Node) -> Array:
    return np.array(_shape_of(node)[node.get("start", 0) : node.get("end")], np.int64)


SHAPES: Final[dict[str, Callable[[Node], Array]]] = {
    "Shape": _shape,
    "Size": lambda node: np.array(math.prod(_shape_of(node)), np.int64),
}
"""Operators that read the shape of what may be the image."""


def _literal(node: Node) -> Array:
    if "value" in node.attributes:
        return np.asarray(onnx.numpy_helper.to_array(node.attributes["value"]))
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64}
    for name in ("value_float", "value_floats", "value_int", "value_ints"):
        if name in node.attributes:
            return np.asarray(node.attributes[name], kinds.get(name, np.int64))
    raise UnprovenError("is a constant that is neither a tensor nor numbers (not proven)")


def _divide(a: Array, b: Array) -> Array:
    """ONNX divides integers towards zero."""
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    if not np.all(b):
        raise UnprovenError("divides by zero (not proven)")
    return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)


def _modulo(node: Node, a: Array, b: Array) -> Array:
    if b.dtype.kind != "f" and not np.all(b):
        raise UnprovenError("divides by zero (not proven)")
    return np.asarray(np.fmod(a, b) if node.get("fmod", 0) else np.mod(a, b))


def _cast(node: Node, x: Array) -> Array:
    return x.astype(onnx.helper.tensor_dtype_to_np_dtype(node.get("to")))


def _axes(node: Node, given: Array | None) -> tuple[int, ...] | None:
    """Attribute in old opsets, input in newer ones."""
    value = node.get("axes") if given is None else given.tolist()
    return None if value is None else tuple(int(v) for v in np.atleast_1d(value))


def _unsqueeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(x, _axes(node, axes) or ())


def _squeeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, _axes(node, axes))


def _concat(node: Node, *parts: Array) -> Array:
    return np.concatenate(parts, node.get("axis"))


def _gather(node: Node, x: Array, indices: Array) -> Array:
    return np.take(x, indices, node.get("axis", 0))


def _slice(node: Node, x: Array, *more: Array | None) -> Array:
    index = [slice(None)] * x.ndim
    for axis, cut in slices(node, x.ndim, *more):
        index[axis] = cut
    return x[tuple(index)]


def slices(node: Node, rank: int, *more: Array | None) -> list[tuple[int, slice]]:
    """The cuts of a Slice: attributes in old opsets, inputs in newer ones."""
    given = [None if m is None else [int(v) for v in m.reshape(-1)] for m in more] + [None] * 4
    starts, ends = given[0] or node.get("starts"), given[1] or node.get("ends")
    if starts is None or ends is None:
        raise UnprovenError("cuts at places that are not known (not proven)")
    axes = given[2] or node.get("axes") or list(range(len(starts)))
    steps = given[3] or [1] * len(starts)
    return [
        (axis % rank, _cut(start, end, step))
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    ]


def _cut(start: int, end: int, step: int) -> slice:
    """Backwards, an end before the first element is written as a large negative number."""
    return slice(start, None if step < 0 and end < -(2**31) else end, step)


def _reshape(node: Node, x: Array, shape: Array | None = None) -> Array:
    target = node.get("shape") if shape is None else shape.tolist()
    return x.reshape(target_shape(x.shape, target, bool(node.get("allowzero", 0))))


def target_shape(shape: tuple[int, ...], target: list[int], keep_zero: bool = False) -> tuple[int, ...]:
    """What a Reshape makes: 0 keeps a length, -1 is the rest.

    >>> target_shape((2, 3, 8), [0, -1])
    (2, 24)
    """
    dims = [shape[i] if d == 0 and not keep_zero else d for i, d in enumerate(target)]
    rest = math.prod(d for d in dims if d != -1)
    if -1 in dims and rest:
        dims[dims.index(-1)] = math.prod(shape) // rest
    if math.prod(dims) != math.prod(shape):
        raise UnprovenError(f"has sizes baked in that do not fit other tiles: {target} (not proven)")
    return tuple(dims)


def _full(node: Node, shape: Array) -> Array:
    value = node.attributes.get("value")
    one = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    if shape.prod() > LARGEST:
        raise UnprovenError("makes a constant as large as the tile (not proven)")
    return np.full(shape.tolist(), one.reshape(-1)[0], one.dtype)


def _range(_: Node, start: Array, limit: Array, delta: Array) -> Array:
    count = max(math.ceil((limit.item() - start.item()) / delta.item()), 0)
    if count > LARGEST:
        raise UnprovenError("makes a constant as large as the tile (not proven)")
    return np.asarray(start + np.arange(count) * delta).astype(start.dtype)


def _expand(_: Node, x: Array, shape: Array) -> Array:
    dims = np.broadcast_shapes(x.shape, tuple(shape.tolist()))
    return np.broadcast_to(x, dims)


def _split(node: Node, x: Array, split: Array | None = None) -> list[Array]:
    axis = node.axis(0, x.ndim)
    sizes = split_sizes(node, x.shape[axis], None if split is None else split.tolist())
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def split_sizes(node: Node, length: int, given: list[int] | None) -> list[int]:
    """The lengths of the parts of a Split."""
    sizes = given or node.get("split")
    if sizes is not None:
        return [int(v) for v in sizes]
    part = -(-length // node.outputs)
    return [min(part, length - i * part) for i in range(node.outputs)]


def _transpose(node: Node, x: Array) -> Array:
    return np.transpose(x, node.get("perm"))


def _reduce(function: Callable[..., Array]) -> Callable[..., Array]:
    def reduced(node: Node, x: Array, axes: Array | None = None) -> Array:
        return np.asarray(function(x, axis=_axes(node, axes), keepdims=bool(node.get("keepdims", 1))))

    return reduced


def _plain(function: Callable[..., Any]) -> Callable[..., Array]:
    return lambda _, *arrays: np.asarray(function(*arrays))


def _folded(function: Callable[[Any, Any], Any]) -> Callable[..., Array]:
    """Of an operator with any number of inputs."""

    def of_all(_: Node, first: Array, *others: Array) -> Array:
        for other in others:
            first = np.asarray(function(first, other))
        return first

    return of_all


FOLDS: Final[dict[str, Callable[..., Array | list[Array]]]] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "And": _plain(np.logical_and),
    "Cast": _cast,
    "Ceil": _plain(np.ceil),
    "Concat": _concat,
    "Constant": _literal,
    "ConstantOfShape": _full,
    "Div": lambda _, a, b: _divide(a, b),
    "Equal": _plain(np.equal),
    "Expand": _expand,
    "Floor": _plain(np.floor),
    "Gather": _gather,
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Identity": _plain(lambda x: x),
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Max": _folded(np.maximum),
    "Min": _folded(np.minimum),
    "Mod": _modulo,
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Not": _plain(np.logical_not),
    "Or": _plain(np.logical_or),
    "Range": _range,
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": _reshape,
    "Round": _plain(np.rint),
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _plain(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _plain(np.where),
}
"""Operators on constants that are worked out."""
