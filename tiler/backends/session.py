"""A network loaded into a library that runs it: what `OnnxBackend` needs of each of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Protocol

from tiler.errors import InputError, one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

OUT_OF_MEMORY: Final = re.compile(r"bad_?alloc|allocat|out of memory|alloc_failed", re.IGNORECASE)
"""How the libraries word it; there is no type of error for it."""


class Session(Protocol):
    """A network in some library, on some device."""

    @property
    def most_workers(self) -> int:
        """Calls at once that it can be prepared for."""

    @property
    def workers(self) -> int:
        """Calls at once that it is prepared for."""

    def run(self, batch_NCHW: NDArray[Any]) -> NDArray[Any]:
        """What the network returns: a new array.

        Raises
        ------
        InputError
            if the network does not take this shape.
        MemoryError
            if there is no memory for it.
        """

    def reserve(self, size: int, workers: int) -> None:
        """Prepare for ``workers`` runs at once that use up to ``size`` bytes."""

    def release(self, tile_NCHW: NDArray[Any]) -> None:
        """Give back memory; ``tile_NCHW`` is a small input that the network takes, if one is needed."""


def failure(error: BaseException, batch_NCHW: NDArray[Any]) -> InputError | MemoryError:
    """Ours for a library's error."""
    size = "x".join(map(str, batch_NCHW.shape))
    if OUT_OF_MEMORY.search(str(error)):
        return MemoryError(f"no memory for the network on a batch of {size}")
    return InputError(f"the network failed on a batch of {size}: {one_line(error)}")
