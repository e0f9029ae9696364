"""fp32 to int8: the convolutions between the first and the last in integers, as CPUs compute them fastest.

Weights are signed, with a scale per output channel; activations unsigned with a zero point, which is what
ONNX Runtime recommends for x86 with VNNI. Without VNNI sums may saturate, so judge anew on such a machine.
Quantisation is spelled out in the graph by pairs of QuantizeLinear and DequantizeLinear (QDQ) with constant
scales, so that it depends on no pixel but its own: halo, stride and exactness of the network stay what they
were.

Ranges are the least and the largest value that an activation takes on the calibration tiles. Measured once,
calibrated on 32 tiles of what the network was trained on and judged on tiles of `tiler/demo/scene.tif`, which
it was not; labels as in fp32 and points of building IoU lost, for the shipped network (base width 8, 1.0 Mpx)
and one of width 32 early in its training (4.2 Mpx):

| | width 8 | | width 32 | |
|---|--:|--:|--:|--:|
| as here: least and largest | 99.987 % | -0.06 | 99.9990 % | -0.01 |
| everything in integers | 99.984 % | 0.09 | 99.9970 % | 0.02 |
| one scale for all channels of a weight | 99.986 % | -0.01 | 99.9986 % | 0.00 |
| 99.999th percentile | 99.989 % | 0.02 | 99.9956 % | 0.04 |
| 99.99th percentile | 99.986 % | 0.01 | 99.9912 % | 0.09 |
| entropy, with ONNX Runtime's defaults | 99.526 % | 4.61 | 99.9643 % | 0.38 |

Entropy is worse; among the others the smaller differences may be chance. The simplest is taken: it keeps two
numbers per activation, where the others keep histograms made from whole activations.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import onnx
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)

from tiler.backends.runtime import RUNTIME_ERRORS
from tiler.errors import InputError, TilerError, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from export.calibration import Calibration

CONV: Final = "Conv"
FLOAT_OPS: Final = ("ConvTranspose",)
"""Operators for whose integer form ONNX Runtime has no kernel on CPUs: it would convert to and fro."""

FAILURES: Final[tuple[type[Exception], ...]] = (ValueError, RuntimeError, *RUNTIME_ERRORS)
"""What ONNX Runtime raises on a graph that it cannot quantise."""


def quantize(source: Path, calibration: Calibration, out: Path) -> None:
    """Write the int8 form of an ONNX file; it does not describe itself yet.

    Raises
    ------
    InputError
        if ONNX Runtime cannot quantise this graph.
    """
    with TemporaryDirectory(prefix="gigatiler-") as folder:
        prepared = Path(folder) / "prepared.onnx"
        try:
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            _quantize(prepared, calibration, out)
        except TilerError:
            raise
        except FAILURES as error:
            raise InputError(
                f"ONNX Runtime cannot quantise {source}: {one_line(error)}; use --precision fp16"
            ) from None


def _quantize(prepared: Path, calibration: Calibration, out: Path) -> None:
    nodes = _named(prepared)
    quantize_static(
        prepared,
        out,
        calibration,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        nodes_to_exclude=float_nodes(nodes),
    )


def _named(path: Path) -> list[onnx.NodeProto]:
    """The nodes in order; each is given a name in the file, because what is left out is named."""
    model = onnx.load(path)
    for i, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{i}"
    onnx.save(model, path)
    return list(model.graph.node)


def float_nodes(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Names of the nodes that stay as they are, of nodes in order.

    Those up to the first convolution, where colours come in, and from the last one on, where scores go out:
    256 levels would make ties of them.
    """
    convolutions = [i for i, node in enumerate(nodes) if node.op_type == CONV] or [len(nodes)]
    first, last = convolutions[0], convolutions[-1]
    return [node.name for i, node in enumerate(nodes) if i <= first or i >= last or node.op_type in FLOAT_OPS]
