"""The part of an ONNX graph that leads from its image to its scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
import onnx.inliner

from tiler.analysis.node import attributes
from tiler.analysis.tensor import Constant, UnprovenError

STANDARD_DOMAINS: Final = ("", "ai.onnx")
LARGEST_WEIGHT: Final = 2**20
"""Elements of the largest weight whose values are looked at; of others the shape is enough."""


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """A node of the graph."""

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    @property
    def label(self) -> str:
        """For messages: ``Conv 'conv1'``, by its first output if it has no name."""
        op = self.op if self.domain in STANDARD_DOMAINS else f"{self.domain}.{self.op}"
        return f"{op} {self.name or self.outputs[0]!r}"

    @property
    def has_graph(self) -> bool:
        """Whether it runs graphs of its own."""
        return any(isinstance(value, onnx.GraphProto) for value in self.attributes.values())


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """What the analysis reads of a model."""

    operators: tuple[Operator, ...]
    """Those that the output depends on, in the order in which they run."""
    weights: dict[str, Constant]
    source: str
    """Name of the image."""
    batch: int | None
    """None: any."""
    channels: int
    result: str
    """Name of the scores."""
    opset: int


def read_network(proto: onnx.ModelProto) -> Network:
    """The network of a model, its own functions inlined.

    Raises
    ------
    UnprovenError
        if it does not have one image for input and one output.
    """
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    graph = proto.graph
    weights = {tensor.name: _weight(tensor) for tensor in graph.initializer}
    weights.update((s.values.name, Constant(tuple(s.dims))) for s in graph.sparse_initializer)
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise UnprovenError(
            f"the graph has {len(inputs)} inputs and {len(graph.output)} outputs, not one each"
        )
    dims = inputs[0].type.tensor_type.shape.dim
    if len(dims) != 4 or not dims[1].dim_value:
        raise UnprovenError("the graph's input does not have the axes (batch, band, row, column)")
    result = graph.output[0].name
    return Network(
        operators=_leading_to(result, [_operator(node) for node in graph.node]),
        weights=weights,
        source=inputs[0].name,
        batch=dims[0].dim_value or None,
        channels=dims[1].dim_value,
        result=result,
        opset=max((o.version for o in proto.opset_import if o.domain in STANDARD_DOMAINS), default=1),
    )


def _weight(tensor: onnx.TensorProto) -> Constant:
    shape = tuple(tensor.dims)
    if np.prod(shape, dtype=np.int64) > LARGEST_WEIGHT or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return Constant(shape)
    return Constant(shape, onnx.numpy_helper.to_array(tensor))


def _operator(node: onnx.NodeProto) -> Operator:
    return Operator(
        node.op_type,
        node.domain,
        node.name,
        tuple(node.input),
        tuple(node.output),
        attributes(node),
    )


def _leading_to(result: str, operators: list[Operator]) -> tuple[Operator, ...]:
    """The operators that the result depends on."""
    wanted, found = {result}, []
    for operator in reversed(operators):
        if wanted & set(operator.outputs):
            wanted.update(operator.inputs)
            found.append(operator)
    return tuple(reversed(found))
