"""How far a batch is, and how long it will take.

Pixels are known of rasters that have been opened only, and opening all of an archive would take its time. So
the rest is reckoned by the sizes of files, as those that are done had pixels per byte.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tiler.batch.task import ALREADY, FAILED
from tiler.events import BlockStored

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tiler.batch.task import Outcome, Task
    from tiler.events import Event


@dataclass(slots=True)
class Pace:
    """Counts rasters, bytes and pixels as they are attempted."""

    sizes: dict[Task, int]
    """Bytes of each source that has not been attempted."""
    total: int
    """Rasters to attempt."""
    shares: dict[Task, float] = field(default_factory=dict)
    """How much is done of each that is under way."""
    counts: dict[str, int] = field(default_factory=dict)
    """Rasters by how they ended."""
    pixels: int = 0
    """Computed so far, of rasters that are done."""
    _bytes: float = 0.0
    """Of their sources."""
    _begun: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, tasks: Iterable[Task]) -> Pace:
        """Nothing done yet."""
        sizes = {task: _size(task.source) for task in tasks}
        return cls(sizes, len(sizes))

    def note(self, task: Task, event: Event) -> None:
        """Something happened to a raster under way."""
        share = event.done / event.total if isinstance(event, BlockStored) else 0.0
        self.shares[task] = max(share, self.shares.get(task, 0.0))

    def end(self, task: Task, outcome: Outcome) -> None:
        """A raster has been attempted."""
        size = self.sizes.pop(task)
        self.shares.pop(task, None)
        self.counts[outcome.status] = self.counts.get(outcome.status, 0) + 1
        report = outcome.report
        if report is not None and outcome.status not in {ALREADY, FAILED}:
            # What an earlier batch computed of it took none of this one's time.
            share = min(1, report.blocks_computed / report.blocks)
            self.pixels += round(report.pixels * share)
            self._bytes += size * share

    @property
    def attempted(self) -> int:
        """Rasters."""
        return sum(self.counts.values())

    @property
    def speed(self) -> float:
        """Megapixels per second since the batch began."""
        return self.pixels / 1e6 / max(time.monotonic() - self._begun, 1e-9)

    @property
    def pixels_left(self) -> int | None:
        """About; None before anything is done."""
        if not self._bytes:
            return None
        under_way = sum(share * self.sizes[task] for task, share in self.shares.items())
        return round((sum(self.sizes.values()) - under_way) * self.pixels / self._bytes)

    @property
    def seconds_left(self) -> float | None:
        """About; None before anything is done."""
        left = self.pixels_left
        if left is None or not self.speed:
            return None
        return left / 1e6 / self.speed


def _size(source: str) -> int:
    """Bytes of a file; one that cannot be looked at takes no time."""
    try:
        return os.path.getsize(source)  # noqa: PTH202 - may be an address
    except OSError:
        return 0
