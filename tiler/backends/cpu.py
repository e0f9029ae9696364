"""ONNX Runtime on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnxruntime as ort

from tiler.backends import arena
from tiler.backends.runtime import RUNTIME_ERRORS
from tiler.backends.session import failure
from tiler.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from numpy.typing import NDArray


@dataclass(slots=True, eq=False)
class CpuSession:
    """A network in ONNX Runtime on the CPU: one call at a time on all threads, or one per thread.

    The threads of a call wait for each other at each layer, those of several calls never do.
    """

    session: ort.InferenceSession
    name: str
    """Of the network's input."""
    lane: Callable[[], ort.InferenceSession]
    """The network in a session of one thread, made when it is first asked for."""
    most_workers: int
    """Threads."""
    workers: int = 1

    def run(self, batch_NCHW: NDArray[Any]) -> NDArray[Any]:
        """Run the network."""
        session = self.session if self.workers == 1 else self.lane()
        try:
            (scores,) = session.run(None, {self.name: batch_NCHW})
        except RUNTIME_ERRORS as error:
            raise failure(error, batch_NCHW) from None
        return scores  # type: ignore[no-any-return]

    def reserve(self, size: int, workers: int) -> None:
        """Let the allocator take it from the system in one piece."""
        self.workers = min(workers, self.most_workers)
        if self.workers > 1:
            self._make_lane()
        arena.reserve(size)

    def _make_lane(self) -> None:
        try:
            self.lane()
        except RUNTIME_ERRORS as error:
            # What was loaded on all threads loads on one, if there is room for it.
            raise MemoryError(f"no memory for the network a second time: {one_line(error)}") from None

    def release(self, tile_NCHW: NDArray[Any]) -> None:
        """Let the allocator return what it holds."""
        del tile_NCHW
        self.workers = 1
        arena.release()


def cpu_session(proto: onnx.ModelProto, settings: ort.SessionOptions) -> ort.InferenceSession:
    """A session of ONNX Runtime that computes on the CPU."""
    return ort.InferenceSession(proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])
