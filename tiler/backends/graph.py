"""What an ONNX file says about itself, read without running it. Refuses what is not one plain network."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from tiler.errors import InputError, one_line
from tiler.spec import METADATA_KEY, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DTYPES: Final[dict[int, np.dtype[Any]]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.UINT8: np.dtype(np.uint8),
    TensorProto.UINT16: np.dtype(np.uint16),
}
SCORES: Final = (TensorProto.FLOAT, TensorProto.FLOAT16)
QUANTISED: Final = frozenset({"DequantizeLinear", "QLinearConv", "ConvInteger"})
"""Operators that only a network of small integers has."""
HALF_BYTES: Final = 6
"""Of a float16 on a CPU, where it is computed as a float32 that is there at the same time."""
INTEGER_EXTRA: Final = 165.0
"""Bytes per pixel that an int8 network takes besides half of what it would in float, before the slack that
all networks have: 320 and 592 were measured at widths 8 and 32, where 325 and 598 are planned."""
VECTOR: Final = 16
"""Channels of float32 that ONNX Runtime keeps side by side; what is missing to a multiple is padded."""
NOMINAL_SIDE: Final = 256
"""Side of the tile on which memory per pixel is worked out where the graph leaves it open."""


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """An ONNX network with one image input and one score output."""

    proto: onnx.ModelProto
    input_name: str
    dtype: np.dtype[Any]
    channels: int
    """Input bands."""
    shape: tuple[int | None, int | None, int | None]
    """Batch, height, width where fixed."""
    stride: int | None
    """From the names of the input's dimensions, as PyTorch writes them: ``16*h`` is a multiple of 16."""
    spec: ModelSpec | None
    """Its own description, if it has one."""


def read_graph(path: Path) -> tuple[Graph, bytes]:
    """Parse and check an ONNX file; also its bytes.

    Raises
    ------
    InputError
        if it is not an ONNX network that can be fed tiles.
    """
    if not os.path.isfile(path):  # noqa: PTH113 - also where the name is too long
        raise InputError(f"no such model file: {path}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the model {path}: {error.strerror}") from None
    try:
        proto = onnx.load_model_from_string(content)
        if not proto.graph.node:
            raise InputError(f"a model is an ONNX file with a graph, got {len(content)} bytes in {path}")
        _refuse_external(proto, path)
        onnx.checker.check_model(proto)
    except DecodeError:
        raise InputError(
            f"a model is an ONNX file, got something else (or a part of one) in {path}"
        ) from None
    except onnx.checker.ValidationError as error:
        raise InputError(f"{path} is not a valid ONNX model: {one_line(error)}") from None
    return _graph(proto, path), content


def _graph(proto: onnx.ModelProto, path: Path) -> Graph:
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    for what, values in (("input", inputs), ("output", list(proto.graph.output))):
        if len(values) != 1:
            names = ", ".join(value.name for value in values) or "none"
            raise InputError(f"a model has one {what}, got {len(values)} in {path}: {names}")
    tensor = inputs[0].type.tensor_type
    dims = list(tensor.shape.dim)
    if len(dims) != 4:
        raise InputError(
            f"a model's input has the axes (batch, band, row, column), got {len(dims)} axes in {path}"
        )
    if tensor.elem_type not in DTYPES:
        kind = TensorProto.DataType.Name(tensor.elem_type).lower()
        raise InputError(f"a model's input is float32, float16, uint8 or uint16, got {kind} in {path}")
    if not dims[1].dim_value:
        raise InputError(f"a model's input has a fixed number of bands, got {dims[1].dim_param!r} in {path}")
    if proto.graph.output[0].type.tensor_type.elem_type not in SCORES:
        kind = TensorProto.DataType.Name(proto.graph.output[0].type.tensor_type.elem_type).lower()
        raise InputError(
            f"a model returns scores (float), got {kind} in {path}: if it ends in ArgMax, export it without"
        )
    text = next((entry.value for entry in proto.metadata_props if entry.key == METADATA_KEY), None)
    return Graph(
        proto=proto,
        input_name=inputs[0].name,
        dtype=DTYPES[tensor.elem_type],
        channels=dims[1].dim_value,
        shape=(dims[0].dim_value or None, dims[2].dim_value or None, dims[3].dim_value or None),
        stride=_stride(dims[2].dim_param, dims[3].dim_param),
        spec=None if text is None else ModelSpec.from_json(text),
    )


def _stride(*names: str) -> int | None:
    matches = [re.match(r"(\d+)\*", name) for name in names]
    return max((int(m[1]) for m in matches if m), default=None) if all(matches) else None


def _refuse_external(proto: onnx.ModelProto, path: Path) -> None:
    for tensor in _tensors(proto.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            raise InputError(
                f"a model holds its own weights, got external data for {tensor.name!r} in {path}; "
                "save it as one file"
            )


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _tensors(inner)


def precision(graph: Graph) -> str:
    """What the network mostly computes in: ``fp32``, ``fp16``, or ``int8`` if any of it is quantised."""
    if any(node.op_type in QUANTISED for node in graph.proto.graph.node):
        return "int8"
    kinds = {tensor.data_type for tensor in _tensors(graph.proto.graph)}
    return "fp16" if TensorProto.FLOAT16 in kinds else "fp32"


def bytes_per_pixel(graph: Graph) -> float:
    """Largest sum of tensors alive at once, per input pixel, running the nodes in order.

    Tensors whose shape cannot be inferred count as the largest that can; weights do not grow with a tile.
    """
    side = [fixed or NOMINAL_SIDE for fixed in graph.shape[1:]]
    sizes = _tensor_bytes(graph, side)
    sizes.update(dict.fromkeys(_weights(graph.proto.graph), 0))
    largest = max(sizes.values(), default=4 * graph.channels * side[0] * side[1])
    constants = {tensor.name for tensor in graph.proto.graph.initializer}
    last = {name: i for i, node in enumerate(graph.proto.graph.node) for name in node.input}
    alive = {graph.input_name: sizes.get(graph.input_name, largest)}
    peak = 0
    for i, node in enumerate(graph.proto.graph.node):
        alive.update({name: sizes.get(name, largest) for name in node.output if name})
        peak = max(peak, sum(alive.values()))
        for name in {*node.input, *node.output} - constants:
            if last.get(name, i) <= i:
                alive.pop(name, None)
    size = peak / (side[0] * side[1])
    return size / 2 + INTEGER_EXTRA if precision(graph) == "int8" else size


def _weights(graph: onnx.GraphProto) -> set[str]:
    """Tensors that follow from the weights alone, as those that are stored as integers and scaled."""
    found = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if all(name in found for name in node.input if name):
            found.update(node.output)
    return found


def _tensor_bytes(graph: Graph, side: list[int]) -> dict[str, int]:
    """Bytes of every tensor of known shape for one tile."""
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    dims = next(v for v in proto.graph.input if v.name == graph.input_name).type.tensor_type.shape.dim
    for dim, size in zip(dims, (1, graph.channels, *side), strict=True):
        dim.dim_value = size
    del proto.graph.value_info[:]
    for dim in proto.graph.output[0].type.tensor_type.shape.dim:
        dim.ClearField("dim_param")
        dim.ClearField("dim_value")
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    sizes = {value.name: _bytes(value.type.tensor_type) for value in values}
    return {name: size for name, size in sizes.items() if size}


def _bytes(tensor: onnx.TypeProto.Tensor) -> int:
    dims = [dim.dim_value for dim in tensor.shape.dim]
    if len(dims) == 4 and dims[1] > VECTOR // 4 and tensor.elem_type == TensorProto.FLOAT:
        dims[1] = -(-dims[1] // VECTOR) * VECTOR
    if tensor.elem_type == TensorProto.FLOAT16:
        return int(np.prod(dims)) * HALF_BYTES
    return int(np.prod(dims)) * onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
