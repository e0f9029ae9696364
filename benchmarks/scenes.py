"""Scenes and networks that benchmarks are run on, made when they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import rasterio
from affine import Affine
from onnx import TensorProto, helper, numpy_helper
from rasterio.windows import Window

from tiler.demo import SCENE
from tiler.spec import METADATA_KEY, ModelSpec, default_classes

if TYPE_CHECKING:
    from pathlib import Path

PIECE = 4096
"""Side of a piece of valid pixels in a sparse scene, which is then one ninth covered."""


def make_scene(path: Path, side: int) -> None:
    """A square scene: the demo's, repeated in whole rows of copies, so that it may be larger than memory."""
    with rasterio.open(SCENE) as source:
        raw_CHW = source.read()
        profile = {"crs": source.crs, "transform": Affine(*source.transform[:6])}
    size = {"height": side, "width": side, "count": len(raw_CHW), "dtype": raw_CHW.dtype}
    strip_CHW = np.tile(raw_CHW, (1, 1, -(-side // raw_CHW.shape[2])))[
        :, : raw_CHW.shape[1] // 256 * 256, :side
    ]
    with rasterio.open(
        path, "w", driver="GTiff", tiled=True, bigtiff="IF_SAFER", **size, **profile
    ) as target:
        for top in range(0, side, strip_CHW.shape[1]):
            part_CHW = strip_CHW[:, : side - top]
            target.write(part_CHW, window=Window(0, top, side, part_CHW.shape[1]))


def make_sparse_scene(path: Path, side: int, valid: int) -> None:
    """A square of nodata with pieces of the demo's scene: ``valid`` pixels in all, the rest unwritten."""
    with rasterio.open(SCENE) as source:
        raw_CHW = np.maximum(source.read()[:, :1024, :1024], 1)
        profile = {"crs": source.crs, "transform": Affine(*source.transform[:6]), "nodata": 0}
    size = {"height": side, "width": side, "count": len(raw_CHW), "dtype": raw_CHW.dtype}
    with rasterio.open(
        path, "w", driver="GTiff", tiled=True, sparse_ok=True, bigtiff="YES", **size, **profile
    ) as target:
        for i in range(valid // raw_CHW[0].size):
            # Along both diagonals, from corner to corner.
            top = i * (side - 1024) // max(valid // raw_CHW[0].size - 1, 1)
            left = top if i % 2 else side - 1024 - top
            target.write(raw_CHW, window=Window(left, top, 1024, 1024))


def free_network(path: Path, classes: int) -> None:
    """A network that costs next to nothing: one 1x1 convolution, whose classes are as smooth as the scene."""
    weights_KC = np.linspace([-1, 0.5, 0.5], [0.5, 0.5, -1], classes, dtype=np.float32)
    biases_K = np.linspace(0, 0.02, classes, dtype=np.float32)
    names = tuple(f"class {k}" for k in range(classes))
    spec = ModelSpec(("r", "g", "b"), default_classes(names), scale=(1 / 255,) * 3)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        "free",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", classes, "h", "w"])],
        [numpy_helper.from_array(weights_KC[..., None, None], "w"), numpy_helper.from_array(biases_K, "b")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(proto, {METADATA_KEY: spec.to_json()})
    onnx.save(proto, path)
