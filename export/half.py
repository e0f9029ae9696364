"""fp32 to fp16: weights and arithmetic in half precision, input and scores still float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

if TYPE_CHECKING:
    from pathlib import Path


def halve(source: Path, out: Path) -> None:
    """Write the fp16 form of an ONNX file; weights beyond 65504 are cut off there."""
    model = onnx.load(source)
    # The conversion takes weights that are described for halves, also those that it leaves alone: scales.
    weights = {weight.name for weight in model.graph.initializer}
    described = [value for value in model.graph.value_info if value.name not in weights]
    del model.graph.value_info[:]
    model.graph.value_info.extend(described)
    model = convert_float_to_float16(model, keep_io_types=True)
    # The conversion appends its casts at the end, and a valid graph is in order.
    OnnxModel.graph_topological_sort(model.graph)
    onnx.save(model, out)
