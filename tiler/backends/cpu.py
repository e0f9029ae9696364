"""ONNX Runtime on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tiler.backends import arena
from tiler.backends.runtime import RUNTIME_ERRORS
from tiler.backends.session import failure

if TYPE_CHECKING:
    import onnxruntime as ort
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class CpuSession:
    """A network in an ONNX Runtime session on the CPU."""

    session: ort.InferenceSession
    name: str
    """Of the network's input."""
    workers: int = 1

    def run(self, batch_NCHW: NDArray[Any], settings: ort.RunOptions | None = None) -> NDArray[Any]:
        """Run the network."""
        try:
            (scores,) = self.session.run(None, {self.name: batch_NCHW}, settings)
        except RUNTIME_ERRORS as error:
            raise failure(error, batch_NCHW) from None
        return scores  # type: ignore[no-any-return]

    def reserve(self, size: int) -> None:
        """Let the allocator take it from the system in one piece."""
        arena.reserve(size)

    def release(self, tile_NCHW: NDArray[Any]) -> None:
        """Let the allocator return what it holds."""
        del tile_NCHW
        arena.release()
