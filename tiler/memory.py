"""How much memory there is, and how much this process has taken."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil


def available() -> int:
    """Bytes that could be taken now without swapping."""
    return int(psutil.virtual_memory().available)


def resident() -> int:
    """Bytes that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """The most bytes that this process has held so far."""
    if sys.platform == "linux":
        # getrusage would count what the parent process held when it started this one.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_words(size: float) -> str:
    """A size for people.

    >>> in_words(1_870_000_000), in_words(512_000), in_words(90)
    ('1.87 GB', '512 kB', '90 B')
    """
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{size / unit:.3g} {letter}B"
    return f"{size:.0f} B"
