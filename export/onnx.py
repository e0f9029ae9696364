"""A checkpoint as an ONNX file, written only if it is proved to compute the same.

Batch, height and width are dynamic; height and width are multiples of the network's stride, which the
names of the input's axes say. The `ModelSpec` travels inside, so that nothing else need be known.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnxruntime import InferenceSession
from torch.export import Dim

from export.output import whole
from export.parity import compare, real_batches
from tiler.errors import InputError
from tiler.finish import Finisher
from tiler.spec import METADATA_KEY
from train.evaluate import as_function
from train.models.network import Network as SegmentationNetwork
from train.models.same_size import same_size, same_size_spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from export.parity import Agreement, Network
    from tiler.ports import Raster
    from tiler.spec import ModelSpec
    from train.models.geometry import Geometry

EXAMPLE_CELLS = 11
"""Sides of the example input in strides; it is never one of the sizes that parity is tried at."""


def export_onnx(
    net: SegmentationNetwork, spec: ModelSpec, raster: Raster, out: Path, tolerance: float
) -> list[Agreement]:
    """Write ``out``, or raise and leave nothing.

    Parameters
    ----------
    net
        On the CPU; it is left in evaluation mode. What returns fewer or finer scores than it is fed pixels is
        exported as `train.models.same_size` makes it.
    spec
        What the file will say about itself; stride, halo and exactness are those of what is exported. Where
        it says ``sigmoid``, which is of independent classes, the file returns probabilities.
    raster
        Real pixels to try both on, at the network's resolution.
    out
        Replaced if it is there.
    tolerance
        Largest difference of logits, in their standard deviation.

    Raises
    ------
    InputError
        if the two differ by more than the tolerance.
    """
    same, spec = same_size(net), same_size_spec(spec, net)
    same = (Sigmoid(same) if spec.activation == "sigmoid" else same).eval()
    with whole(out) as partial:
        write_graph(same, spec, partial)
        batches = real_batches(raster, spec, same.geometry.least)
        finisher = Finisher(spec, same.classes)
        found = compare(as_function(same, torch.device("cpu")), onnx_network(partial), batches, finisher)
        check(found, tolerance)
    return found


class Sigmoid(SegmentationNetwork):
    """A network of independent classes, which returns their probabilities."""

    def __init__(self, net: SegmentationNetwork) -> None:
        super().__init__()
        self.net, self.options = net, net.options

    @property
    def geometry(self) -> Geometry:
        """See `train.models.network.Network.geometry`."""
        return self.net.geometry

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        """Probabilities (N, K, H, W)."""
        return torch.sigmoid(self.net(pixels_NCHW))


def write_graph(net: SegmentationNetwork, spec: ModelSpec, path: Path) -> None:
    """Trace, describe, check and save; parity is not looked at here."""
    model = trace(net)
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def trace(net: SegmentationNetwork) -> onnx.ModelProto:
    """The network's graph with dynamic axes."""
    side, cells = EXAMPLE_CELLS * net.stride, net.geometry.least // net.stride
    example_NCHW = torch.zeros(2, net.in_channels, side, side)  # a batch of one would become a constant
    sides = {axis: net.stride * Dim(name, min=cells) for axis, name in ((2, "h"), (3, "w"))}
    with quiet_exporter():
        program = torch.onnx.export(
            net.eval(),
            (example_NCHW,),
            input_names=["pixels"],
            output_names=["probabilities" if isinstance(net, Sigmoid) else "logits"],
            dynamic_shapes=({0: Dim("batch"), **sides},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise InputError("the exporter returned no graph")
    return program.model_proto


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Hold back what the exporter says about its own use of torch, and about torchvision, not needed here."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*treespec, LeafSpec", FutureWarning)
            yield
    finally:
        log.setLevel(level)


def onnx_network(path: Path) -> Network:
    """The file as a function of arrays."""
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(batch_NCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(session.run(None, {name: batch_NCHW})[0])

    return run


def check(found: list[Agreement], tolerance: float) -> None:
    """Refuse a file that does not compute what the network does."""
    worst = max(found, key=lambda a: a.difference)
    if not worst.difference <= tolerance:
        raise InputError(
            f"the file and the network differ by at most --tolerance {tolerance:g} of the logits' deviation, "
            f"got {worst.difference:.3g} at {' x '.join(map(str, worst.shape))}; not written"
        )
