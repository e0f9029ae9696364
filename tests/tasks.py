"""What tests have done in workers."""

from __future__ import annotations

import os
import time
from pathlib import Path


def raise_signal(number: int) -> str:
    """Send a signal to the worker itself; 0 is none."""
    os.kill(os.getpid(), number)
    return "alive"


def fail_until(told) -> str:
    """Fail with an error of a kind until a file has been written to so often."""
    path, kind, times = told
    with path.open("ab") as file:
        file.write(b".")
    if path.stat().st_size <= times:
        raise kind(f"failure {path.stat().st_size}")
    return "done"


def signal_of(client: str, task) -> str:
    """In place of a raster: send the signal that its source names."""
    return raise_signal(int(Path(task.source).name))


def write_until_unwanted(log) -> str:
    """Write and write, and stop where a raster would be; the second one soon has enough."""
    from tiler.cluster.worker import check_wanted

    while True:
        check_wanted()
        with log.open("ab") as file:
            file.write(b".")
        time.sleep(0.02)
        if log.name == "second" and (log.parent / "first").exists():
            return "enough"
