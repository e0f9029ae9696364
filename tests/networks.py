"""Small networks: as functions for the engine's tests, and as real ONNX files for everyone else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tiler.model import Model
from tiler.spec import METADATA_KEY, ModelSpec, default_classes

if TYPE_CHECKING:
    from pathlib import Path


def spec(bands: int = 3, classes: tuple[str, ...] = ("a", "b"), **values) -> ModelSpec:
    """A spec with scale 1/255, stride 1 and no halo unless told otherwise."""
    given = {"scale": (1 / 255,) * bands, "stride": 1, "halo": 0, "exact": True, **values}
    return ModelSpec(tuple(f"b{i}" for i in range(bands)), default_classes(classes), **given)


def function_model(
    function, model_spec: ModelSpec, channels: int, dtype=np.float32, shape=(None, None, None)
):
    """A `Model` around a function."""
    from pathlib import Path

    from tiler.backends.function import FunctionBackend

    backend = FunctionBackend(function)
    return Model(
        Path("function.onnx"),
        "0" * 64,
        model_spec,
        {},
        backend,
        "here",
        np.dtype(dtype),
        channels,
        shape,
        64.0,
    )


def _shaped(name, dims, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, dims)


def save(
    path: Path,
    nodes,
    weights,
    bands=3,
    channels=2,
    model_spec=None,
    kind=TensorProto.FLOAT,
    dims=None,
    out=None,
) -> Path:
    """Write an ONNX file with one input ``x`` and one output ``y``."""
    graph = helper.make_graph(
        nodes,
        "net",
        [_shaped("x", dims or ["n", bands, "h", "w"], kind)],
        [_shaped("y", out or ["n", channels, "h", "w"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if model_spec is not None:
        helper.set_model_props(proto, {METADATA_KEY: model_spec.to_json()})
    onnx.save(proto, path)
    return path


def pixelwise(path: Path, bands=3, channels=2, seed=0, **more) -> Path:
    """A random 1x1 convolution: exact with any tile."""
    rng = np.random.default_rng(seed)
    weights = {"w": rng.normal(size=(channels, bands, 1, 1)).astype(np.float32)}
    more.setdefault("model_spec", spec(bands, tuple(f"class{i}" for i in range(max(channels, 2)))))
    return save(path, [helper.make_node("Conv", ["x", "w"], ["y"])], weights, bands, channels, **more)


def centred(path: Path, bands=3, channels=2, seed=0, **more) -> Path:
    """A 1x1 convolution of what differs from the tile's mean: no halo makes it exact."""
    weights = {"w": np.random.default_rng(seed).normal(size=(channels, bands, 1, 1)).astype(np.float32)}
    more.setdefault("model_spec", spec(bands, tuple(f"class{i}" for i in range(max(channels, 2)))))
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Sub", ["x", "mean"], ["rest"]),
        helper.make_node("Conv", ["rest", "w"], ["y"]),
    ]
    return save(path, nodes, weights, bands, channels, **more)


def unet(path: Path, bands=3, channels=2, width=4, seed=0, **more) -> Path:
    """A random U-Net of depth 2: stride 4, halo 22 px, rounded up to 24."""
    rng = np.random.default_rng(seed)
    nodes, weights = [], {}

    def conv(source, target, inputs, outputs, side=3, op="Conv", relu=True, **attributes):
        scale = np.sqrt(2 / (inputs * side * side))
        shape = (outputs, inputs, side, side) if op == "Conv" else (inputs, outputs, side, side)
        weights[target + "_w"] = (rng.normal(size=shape) * scale).astype(np.float32)
        raw = target + "_raw" if relu else target
        nodes.append(helper.make_node(op, [source, target + "_w"], [raw], **attributes))
        if relu:
            nodes.append(helper.make_node("Relu", [raw], [target]))

    def double(source, target, inputs, outputs):
        conv(source, target + "1", inputs, outputs, pads=[1] * 4)
        conv(target + "1", target, outputs, outputs, pads=[1] * 4)

    def pool(source, target):
        nodes.append(helper.make_node("MaxPool", [source], [target], kernel_shape=[2, 2], strides=[2, 2]))

    def up(source, skip, target, inputs, outputs):
        conv(source, target + "_up", inputs, outputs, side=2, op="ConvTranspose", relu=False, strides=[2, 2])
        nodes.append(helper.make_node("Concat", [skip, target + "_up"], [target + "_cat"], axis=1))
        double(target + "_cat", target, 2 * outputs, outputs)

    double("x", "a", bands, width)
    pool("a", "ap")
    double("ap", "b", width, 2 * width)
    pool("b", "bp")
    double("bp", "c", 2 * width, 4 * width)
    up("c", "b", "d", 4 * width, 2 * width)
    up("d", "a", "e", 2 * width, width)
    conv("e", "y", width, channels, side=1, relu=False)
    names = tuple(f"class{i}" for i in range(max(channels, 2)))
    more.setdefault("model_spec", spec(bands, names, stride=4, halo=24))
    return save(path, nodes, weights, bands, channels, **more)
