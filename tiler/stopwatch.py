"""How long each stage is busy."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from tiler.geometry import Window
    from tiler.pixels import Pixels
    from tiler.ports import Backend, Raster, RasterInfo


class Stopwatch:
    """Sums seconds by name; safe to use from several threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.begun: float | None = None
        """When the first stage began, by `time.perf_counter`."""
        self._lock = threading.Lock()

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Count the time of the block."""
        start = time.perf_counter()
        self.begun = start if self.begun is None else self.begun
        try:
            yield
        finally:
            with self._lock:
                self.seconds[name] += time.perf_counter() - start


@dataclass(frozen=True, slots=True, eq=False)
class TimedRaster:
    """A raster whose reads are timed."""

    raster: Raster
    stopwatch: Stopwatch

    @property
    def info(self) -> RasterInfo:
        """Of the raster."""
        return self.raster.info

    def empty(self, window: Window) -> bool:
        """Pass it on."""
        return self.raster.empty(window)

    def read(self, window: Window) -> Pixels:
        """Read, timed."""
        with self.stopwatch.timing("read"):
            return self.raster.read(window)


@dataclass(slots=True, eq=False)
class TimedBackend:
    """A network whose calls are timed and counted."""

    backend: Backend
    stopwatch: Stopwatch
    tiles: int = 0
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    @property
    def most_workers(self) -> int:
        """Of the network."""
        return self.backend.most_workers

    @property
    def workers(self) -> int:
        """Of the network."""
        return self.backend.workers

    def predict(self, batch_NCHW: NDArray[Any]) -> NDArray[np.float32]:
        """Predict, timed."""
        with self._lock:
            self.tiles += len(batch_NCHW)
        with self.stopwatch.timing("network"):
            return self.backend.predict(batch_NCHW)

    def reserve(self, size: int, workers: int) -> None:
        """Pass it on."""
        self.backend.reserve(size, workers)

    def release(self) -> None:
        """Pass it on."""
        self.backend.release()
