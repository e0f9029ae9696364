"""ONNX Runtime: a session with explicit options on the device that was asked for, or an error."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort

from tiler.analysis import analyse
from tiler.backends.describe import describe
from tiler.backends.graph import Graph, bytes_per_pixel, read_graph
from tiler.errors import InputError, MissingError, UsageError, one_line
from tiler.model import Model
from tiler.options import RunOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUNTIME_ERRORS: Final = tuple(
    error
    for error in vars(ort.capi.onnxruntime_pybind11_state).values()
    if isinstance(error, type) and issubclass(error, Exception)
)
"""What ONNX Runtime raises; its exceptions share no base of their own."""
OUT_OF_MEMORY: Final = re.compile(r"bad_?alloc|allocat|out of memory|alloc_failed", re.IGNORECASE)
"""How ONNX Runtime and the libraries below it word it; there is no type of error for it."""
THREADS_PER_CORE: Final = 8
PROBE_STRIDES: Final = 4
"""A network of free size is tried once on a tile of this many strides, 64 pixels at least."""
CUDA_OPTIONS: Final = {
    # The search for the fastest algorithm may choose differently from run to run, and with it the bytes.
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
    # TF32 keeps 10 bits of mantissa: too few for logits that equal the whole image's.
    "use_tf32": "0",
}


@dataclass(frozen=True, slots=True, eq=False)
class OnnxBackend:
    """A network in an ONNX Runtime session."""

    session: ort.InferenceSession
    graph: Graph
    trial: tuple[int, int]
    """Height and width of a small tile that the network takes."""

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
        scores_NKHW = (
            np.concatenate([self._run(part) for part in parts]) if len(parts) > 1 else self._run(parts[0])
        )
        return scores_NKHW[:count]

    def release(self) -> None:
        """Let the allocator return what it holds: it does so only at the end of a run, so make one."""
        cuda = self.session.get_provider_options().get("CUDAExecutionProvider")
        device = "cpu:0" if cuda is None else f"gpu:{cuda['device_id']}"
        settings = ort.RunOptions()
        settings.log_severity_level = 4
        settings.add_run_config_entry("memory.enable_memory_arena_shrinkage", device)
        tile_NCHW = np.zeros((self.graph.shape[0] or 1, self.graph.channels, *self.trial), self.graph.dtype)
        # Memory that cannot be given back is no reason to lose a result, or to hide another error.
        with contextlib.suppress(InputError, MemoryError):
            self._run(tile_NCHW, settings)

    def _run(self, batch_NCHW: NDArray[Any], settings: ort.RunOptions | None = None) -> NDArray[np.float32]:
        try:
            (scores,) = self.session.run(None, {self.graph.input_name: batch_NCHW}, settings)
        except RUNTIME_ERRORS as error:
            size = "x".join(map(str, batch_NCHW.shape))
            if OUT_OF_MEMORY.search(str(error)):
                raise MemoryError(f"no memory for the network on a batch of {size}") from None
            raise InputError(f"the network failed on a batch of {size}: {one_line(error)}") from None
        scores = scores if scores.ndim == 4 else scores[:, None]
        return np.asarray(scores, np.float32)


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
    session, device = _session(content, options, path)
    backend, channels = _probed(session, graph, options, path)
    analysis = analyse(graph.proto)
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
        bytes_per_pixel=bytes_per_pixel(graph),
        inexact=analysis.reasons,
    )


def _probed(
    session: ort.InferenceSession, graph: Graph, options: RunOptions, path: Path
) -> tuple[OnnxBackend, int]:
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


def _session(content: bytes, options: RunOptions, path: Path) -> tuple[ort.InferenceSession, str]:
    settings = _settings(options.threads)
    wanted = options.device
    try:
        if wanted != "cpu" and (wanted != "auto" or cuda_visible()):
            session = _cuda_session(content, settings, wanted)
            if session is not None:
                return session, f"CUDA (ONNX Runtime {ort.__version__})"
        providers = ["CPUExecutionProvider"]
        session = ort.InferenceSession(content, settings, providers=providers)
    except RUNTIME_ERRORS as error:
        raise InputError(f"ONNX Runtime cannot load {path}: {one_line(error)}") from None
    return session, f"CPU, {settings.intra_op_num_threads} threads (ONNX Runtime {ort.__version__})"


def _settings(threads: int | None) -> ort.SessionOptions:
    if threads is not None and threads > THREADS_PER_CORE * cores():
        raise UsageError(f"--threads is at most {THREADS_PER_CORE} per core ({cores()} here), got {threads}")
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads or cores()
    settings.inter_op_num_threads = 1
    # Threads that wait do not spin: readers and finishers need the cores.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # The pattern allocates one block for everything: as fast without it, in about half the memory.
    settings.enable_mem_pattern = False
    _register_arena()
    settings.add_session_config_entry("session.use_env_allocators", "1")
    settings.log_severity_level = 4
    return settings


@functools.cache
def _register_arena() -> None:
    """One allocator for all sessions, which grows by what is asked for and not by doubling."""
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    as_requested = ort.OrtArenaCfg(
        {
            "arena_extend_strategy": 1,
            "max_mem": 0,
            "initial_chunk_size_bytes": -1,
            "max_dead_bytes_per_chunk": -1,
        }
    )
    ort.create_and_register_allocator(place, as_requested)


def _cuda_session(content: bytes, settings: ort.SessionOptions, wanted: str) -> ort.InferenceSession | None:
    """A session on the GPU; None if "auto" may do without it."""
    session = None
    if cuda_visible() and "CUDAExecutionProvider" in ort.get_available_providers():
        ort.preload_dlls()
        # Its warnings about plug-ins that are not used are of no use.
        ort.set_default_logger_severity(3)
        device = {"device_id": wanted.partition(":")[2] or "0", **CUDA_OPTIONS}
        providers = [("CUDAExecutionProvider", device), "CPUExecutionProvider"]
        session = ort.InferenceSession(content, settings, providers=providers)
    # ONNX Runtime goes on with the CPU, silently, when CUDA's libraries are not all there.
    if session is not None and session.get_providers()[0] == "CUDAExecutionProvider":
        return session
    if wanted == "auto":
        return None
    raise MissingError(
        f"--device {wanted} needs an NVIDIA driver and CUDA libraries that ONNX Runtime {ort.__version__} "
        "can load; see `tiler doctor`, install gigatiler[cuda], or use --device cpu"
    )


def cuda_visible() -> bool:
    """Whether an NVIDIA driver is installed."""
    name = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
