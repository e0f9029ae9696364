"""ONNX networks, in the library and on the device that was asked for, or an error."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort

from tiler.analysis import analyse
from tiler.backends.concat import split_concats
from tiler.backends.cpu import CpuSession, cpu_session
from tiler.backends.cuda import card_names, cuda_session
from tiler.backends.describe import describe
from tiler.backends.graph import Graph, bytes_per_pixel, precision, read_graph
from tiler.backends.openvino import openvino_session
from tiler.backends.runtime import RUNTIME_ERRORS, session_options
from tiler.device import Device
from tiler.errors import InputError, MissingError, one_line
from tiler.model import Model
from tiler.options import RunOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.backends.session import Session

PROBE_STRIDES: Final = 4
"""A network of free size is tried once on a tile of this many strides, 64 pixels at least."""


@dataclass(frozen=True, slots=True, eq=False)
class OnnxBackend:
    """A network in a session of any library."""

    session: Session
    graph: Graph
    trial: tuple[int, int]
    """Height and width of a small tile that the network takes."""
    smallest: int = 1
    """The smallest side that it is known to take."""

    @property
    def most_workers(self) -> int:
        """Calls at once that it can be prepared for."""
        return self.session.most_workers

    @property
    def workers(self) -> int:
        """Calls at once that it is prepared for."""
        return self.session.workers

    def predict(self, batch_NCHW: NDArray[Any]) -> NDArray[np.float32]:
        """Run the network; a graph of fixed batch is fed repeats of the last tile, which are dropped.

        Raises
        ------
        InputError
            if the network does not take this shape.
        MemoryError
            if there is no memory for it.
        """
        count, fixed = len(batch_NCHW), self.graph.shape[0]
        parts = [batch_NCHW] if fixed is None else list(_filled(batch_NCHW, fixed))
        try:
            scores = [self.session.run(part) for part in parts]
        except InputError:
            height, width = batch_NCHW.shape[2:]
            if min(height, width) >= self.smallest:
                raise
            raise InputError(
                f"the network takes sides of at least {self.smallest} px, got a tile of {width} x {height}; "
                "raise --tile, or map a larger raster, e.g. a mosaic of this and its neighbours"
            ) from None
        joined = scores[0] if len(scores) == 1 else np.concatenate(scores)
        scores_NKHW = joined if joined.ndim == 4 else joined[:, None]
        return np.asarray(scores_NKHW[:count], np.float32)

    def reserve(self, size: int, workers: int) -> None:
        """Prepare for calls that use up to ``size`` bytes."""
        self.session.reserve(size, workers)

    def release(self) -> None:
        """Give back what is kept for the next call."""
        tile_NCHW = np.zeros((self.graph.shape[0] or 1, self.graph.channels, *self.trial), self.graph.dtype)
        # Memory that cannot be given back is no reason to lose a result, or to hide another error.
        with contextlib.suppress(InputError, MemoryError):
            self.session.release(tile_NCHW)


def _filled(batch_NCHW: NDArray[Any], size: int) -> list[NDArray[Any]]:
    missing = -len(batch_NCHW) % size
    whole_NCHW = np.concatenate([batch_NCHW, np.repeat(batch_NCHW[-1:], missing, axis=0)])
    return [whole_NCHW[i : i + size] for i in range(0, len(whole_NCHW), size)]


def load_model(path: str | Path, options: RunOptions | None = None) -> Model:
    """Load an ONNX network.

    Parameters
    ----------
    path
        A single-file ONNX model with one (batch, band, row, column) input and one output of scores.
    options
        Where to run it, and what it does not say about itself.

    Raises
    ------
    InputError
        if the file is no such model, or says too little: the message names the missing options.
    MissingError
        if the device that was asked for is not there.
    """
    options = options or RunOptions()
    path = Path(path)
    graph, content = read_graph(path)
    session, device, alive = _session(content, graph, options, path)
    backend, channels = _probed(session, graph, options, path)
    analysis = analyse(graph.proto)
    backend = replace(backend, smallest=analysis.smallest)
    spec, origins = describe(graph, channels, options, analysis)
    return Model(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        spec=spec,
        origins=origins,
        backend=backend,
        device=device,
        dtype=graph.dtype,
        channels=channels,
        shape=backend.graph.shape,
        bytes_per_pixel=alive,
        needs=analysis.halo if analysis.exact else None,
        inexact=analysis.reasons,
    )


def _probed(session: Session, graph: Graph, options: RunOptions, path: Path) -> tuple[OnnxBackend, int]:
    """Run the network on two tiles of zeros: the number of score channels, and what sizes it really takes."""
    stride = options.stride or (graph.spec.stride if graph.spec else None) or graph.stride or 32
    side = max(64, PROBE_STRIDES * stride) // stride * stride
    height, width = graph.shape[1] or side, graph.shape[2] or side
    backend = OnnxBackend(session, graph, (height, width))
    tiles_NCHW = np.zeros((2, graph.channels, height, width), graph.dtype)
    try:
        scores_NKHW = backend.predict(tiles_NCHW)
    except InputError:
        # Some graphs leave their batch open and yet take one tile only.
        backend = replace(backend, graph=replace(graph, shape=(1, *graph.shape[1:])))
        scores_NKHW = backend.predict(tiles_NCHW)
    if scores_NKHW.shape[2:] != (height, width):
        raise InputError(
            f"a model returns one score per pixel, got {scores_NKHW.shape[2:]} for {(height, width)} pixels "
            f"in {path}"
        )
    return backend, int(scores_NKHW.shape[1])


def _session(content: bytes, graph: Graph, options: RunOptions, path: Path) -> tuple[Session, str, float]:
    """What the options ask for, in words what it runs on, and the bytes per pixel that it keeps alive."""
    device = Device.parse(options.device)
    if device.kind == "openvino":
        return *openvino_session(content, device, options.threads, path), bytes_per_pixel(graph)
    settings = session_options(options.threads)
    try:
        if device.kind == "cuda":
            return *cuda_session(content, settings, device), bytes_per_pixel(graph)
        if device.kind == "auto" and card_names():
            with contextlib.suppress(MissingError):
                return *cuda_session(content, settings, device), bytes_per_pixel(graph)
        ran = replace(graph, proto=split_concats(graph.proto))
        session = cpu_session(ran.proto, settings)
    except RUNTIME_ERRORS as error:
        raise InputError(f"ONNX Runtime cannot load {path}: {one_line(error)}") from None
    words = f"CPU, {settings.intra_op_num_threads} threads (ONNX Runtime {ort.__version__})"
    if precision(graph) == "fp16":
        words += ", fp16 computed as fp32, no faster"
    # Made of the graph again: a serialised copy of it would be kept for as long as the network.
    lane = functools.cache(lambda: cpu_session(split_concats(graph.proto), session_options(1)))
    ways = CpuSession(session, graph.input_name, lane, settings.intra_op_num_threads)
    return ways, words, bytes_per_pixel(ran)
