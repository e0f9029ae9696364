"""Any function as a network: for tests, and for models that live elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class FunctionBackend:
    """Wraps ``(N, C, H, W) -> (N, K, H, W)``."""

    function: Callable[[NDArray[Any]], NDArray[Any]]
    workers: int = 1
    most_workers: int = 1

    def predict(self, batch_NCHW: NDArray[Any]) -> NDArray[np.float32]:
        """Call it."""
        return np.asarray(self.function(batch_NCHW), np.float32)

    def reserve(self, size: int, workers: int) -> None:
        """Nothing to prepare."""

    def release(self) -> None:
        """Nothing is kept."""
