"""OpenVINO on the CPU: an optional backend, somewhat faster than ONNX Runtime, much in bfloat16.

Measured on two cores of an AMD EPYC with AVX-512 and bfloat16 instructions, OpenVINO 2026.4 and ONNX Runtime
1.31 by turns: U-Nets of width 8 and 32 run 1.5 and 1.1 times as fast in f32, 2.7 and 2.2 times in bf16. In
both, scores in the core of a tile equal those of the whole image bit by bit (tiles of 288 to 704 px in 1056),
and neither the number of tiles per call nor the number of threads nor a repeated call changes a bit. On the
demo's scene bf16 changes 65 labels in a million. Shapes are left open: a network reshaped to one tile is no
faster, and each other shape would be one more network in memory.
"""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from tiler.backends.runtime import thread_count
from tiler.backends.session import failure
from tiler.errors import InputError, MissingError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

    from tiler.device import Device

TELEMETRY: Final = "openvino_telemetry"
NOTHING: Final = "it returned nothing: failed to allocate"
PLACE: Final = re.compile(r"Exception from \S+:\d+:\s*")


@dataclass(slots=True, eq=False)
class OpenvinoSession:
    """A network that OpenVINO compiles for this processor."""

    core: Any
    network: Any
    settings: dict[str, Any]
    workers: int = 1
    most_workers: int = 1
    compiled: Any = None
    spoilt: list[Any] = field(default_factory=list)
    """After one failure a compiled network fails for ever, on any shape. It is kept, without its memory: its
    end would, on one thread, crash its successor."""

    def run(self, batch_NCHW: NDArray[Any]) -> NDArray[Any]:
        """Run the network."""
        request = None
        try:
            # A new one each time: it holds no result of an earlier call.
            request = self.ready().create_infer_request()
            request.infer({0: batch_NCHW}, share_inputs=True)
            return _output(request)
        except RuntimeError as error:
            request = None
            self._spoil()
            raise failure(_bare(error), batch_NCHW) from None

    def reserve(self, size: int, workers: int) -> None:
        """Nothing to do: it plans its memory itself."""

    def release(self, tile_NCHW: NDArray[Any]) -> None:
        """Drop what it keeps for the next call."""
        del tile_NCHW
        if self.compiled is not None:
            self.compiled.release_memory()

    def ready(self) -> Any:  # noqa: ANN401 - an optional package's
        """The network, compiled if it is not."""
        if self.compiled is None:
            self.compiled = self.core.compile_model(self.network, "CPU", self.settings)
        return self.compiled

    def _spoil(self) -> None:
        if self.compiled is not None:
            self.compiled.release_memory()
            self.spoilt.append(self.compiled)
            self.compiled = None


def openvino_session(
    content: bytes, device: Device, threads: int | None, path: Path
) -> tuple[OpenvinoSession, str]:
    """A session, and what it runs on in words.

    Raises
    ------
    MissingError
        if OpenVINO is not installed, or this processor has no bfloat16.
    InputError
        if OpenVINO does not take the network.
    """
    openvino = import_openvino()
    core = openvino.Core()
    if device.precision.upper() not in {"F32", *precisions(core)}:
        raise MissingError(
            f"--device openvino:{device.precision} needs a processor that computes in {device.precision}, "
            f"this one has {', '.join(precisions(core))}; use --device openvino"
        )
    count = thread_count(threads)
    settings = {
        "INFERENCE_PRECISION_HINT": device.precision,
        # Nothing is rounded that neither the graph nor the hint above rounds.
        "EXECUTION_MODE_HINT": "ACCURACY",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": count,
        # Several shards on one machine would all be pinned to the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        session = OpenvinoSession(core, core.read_model(content), settings)
        session.ready()
    except RuntimeError as error:
        raise InputError(f"OpenVINO cannot load {path}: {one_line(_bare(error))}") from None
    release = openvino.__version__.partition("-")[0]
    return session, f"OpenVINO {release} on the CPU in {device.precision}, {count} threads"


def import_openvino() -> ModuleType:
    """The package.

    Raises
    ------
    MissingError
        naming the extra that brings it.
    """
    if find_spec("openvino") is None:
        raise MissingError(
            "--device openvino needs the package openvino; pip install 'gigatiler[openvino]', "
            "or use --device cpu"
        )
    with _unreported():
        return import_module("openvino")


def precisions(core: Any) -> list[str]:  # noqa: ANN401 - an optional package's
    """What this processor computes in."""
    known = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [name for name in known if name in {"FP32", "BF16"}]


def _output(request: Any) -> NDArray[Any]:  # noqa: ANN401 - an optional package's
    scores: NDArray[Any] = request.get_output_tensor().data.copy()
    # Where memory fails on one thread, infer says nothing and leaves the output as it was.
    if not scores.size:
        raise RuntimeError(NOTHING)
    return scores


def _bare(error: RuntimeError) -> RuntimeError:
    """The same without the places in OpenVINO's sources, which come first and are longer than a line."""
    return RuntimeError(PLACE.sub("", str(error)))


@contextmanager
def _unreported() -> Iterator[None]:
    """Hide the package by which OpenVINO tells its maker that it was imported; it does without."""
    known = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[TELEMETRY]
        if known is not None:
            sys.modules[TELEMETRY] = known
