"""ONNX Runtime's allocator on the CPU: one for all sessions of the process, filled from one region.

Left alone, it asks the system for a block whenever none of its own is large enough, and never joins two of
them: a U-Net of base width 32 then holds 1050 bytes per pixel of a tile where 512 are alive. Out of one
region that is asked for beforehand it holds 690, and its pages are touched once. Pages of the region that
nobody touches cost nothing, but for one 32nd of it.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Final

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from tiler.backends.runtime import RUNTIME_ERRORS, session_options, shrinking

OPSET: Final = 17
IR: Final = 8


def reserve(size: int) -> None:
    """Let the allocator take ``size`` bytes from the system at once, if they are there.

    Its Python interface has no call for it. A network that gathers what does not exist allocates its
    result, notices, and gives the result back untouched: to the allocator, which keeps it.
    """
    missing = np.array([1])
    with contextlib.suppress(*RUNTIME_ERRORS, MemoryError):
        _gather().run(None, {"data": np.empty((1, size), np.uint8), "index": missing})


def release() -> None:
    """Let the allocator give back every region of which nothing is in use."""
    nothing, first = np.empty((1, 0), np.uint8), np.array([0])
    # Memory that cannot be given back is no reason to lose a result, or to hide another error.
    with contextlib.suppress(*RUNTIME_ERRORS, MemoryError):
        _gather().run(None, {"data": nothing, "index": first}, shrinking("cpu:0"))


@functools.cache
def _gather() -> ort.InferenceSession:
    values = [
        helper.make_tensor_value_info("data", TensorProto.UINT8, [1, "n"]),
        helper.make_tensor_value_info("index", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("row", TensorProto.UINT8, [1, "n"]),
    ]
    node = helper.make_node("Gather", ["data", "index"], ["row"], axis=0)
    graph = helper.make_graph([node], "gather", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    return ort.InferenceSession(
        model.SerializeToString(), session_options(1), providers=["CPUExecutionProvider"]
    )
