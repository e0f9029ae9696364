"""What tests have done in workers."""

from __future__ import annotations

import os


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
